"""`audiostride doctor`: it must survive what it is there to find."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import audiostride
from audiostride.commands.doctor import examine, installation, machine, selftest, verdict
from audiostride.commands.doctor.verdict import Finding, format_verdict, overall_status
from audiostride.models import AudioClassifier, ClassifierConfig, save_classifier

Run = Callable[..., int]
TOPICS = ["python", "torch", "packages", "export", "cpu", "gpu", "libsndfile", "ffmpeg", "memory"]


@pytest.fixture
def small_disk_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test file of 1 MiB instead of 64."""
    look = machine.look_at_disk
    monkeypatch.setattr(machine, "look_at_disk", lambda folder: look(folder, mib=1))


@pytest.mark.usefixtures("small_disk_test")
def test_every_topic_has_a_line_and_a_verdict(
    run_command: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_command("doctor", "--folder", tmp_path)
    lines = capsys.readouterr().out.splitlines()
    end = lines.index("verdict")
    found = [line.split(": ")[0] for line in lines[: end - 1]]
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    expected = [topic for topic in TOPICS if topic != "gpu" or not gpus] + [f"gpu {gpu}" for gpu in gpus]
    tests = [f"{test} on {device}" for device in ["cpu", *gpus] for test in ("layer", "frontend", "training")]
    tests += ["arithmetic on cpu"] * machine.has_bfloat16(torch.cpu)
    assert sorted(found) == sorted([*expected, f"disk of {tmp_path}", *tests])
    verdicts = lines[end + 1 : -1]
    assert len(verdicts) == len(found)
    assert all(line.split()[0] in ("ok", "warning", "problem") for line in verdicts)
    assert code == int(any(line.split()[0] == "problem" for line in verdicts))
    by_topic = dict(line.split(": ", 1) for line in lines[: end - 1])
    assert audiostride.__version__ in by_topic["python"]
    assert torch.__version__ in by_topic["torch"]
    assert "lightning-fabric 2." in by_topic["packages"]
    assert "flac yes" in by_topic["libsndfile"]
    assert "page cache may flatter" in by_topic[f"disk of {tmp_path}"]
    for test in tests:
        assert next(line.split()[0] for line in verdicts if test in line) == "ok", by_topic[test]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_disk_test")
def test_json_says_the_same(run_command: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_command("doctor", "--folder", tmp_path, "--json", "--no-self-test")
    found = json.loads(capsys.readouterr().out)
    assert found["audiostride"] == audiostride.__version__
    assert found["verdict"] in ("ok", "warning", "problem")
    assert code == int(found["verdict"] == "problem")
    by_topic = {each["topic"]: each for each in found["findings"]}
    assert set(TOPICS) - {"gpu"} < set(by_topic)
    assert by_topic["torch"]["facts"]["torch"] == torch.__version__
    assert by_topic["memory"]["facts"]["free_gib"] > 0
    assert by_topic[f"disk of {tmp_path}"]["facts"]["write_mib_s"] > 0
    assert not any("on cpu" in topic for topic in by_topic)


def run_with(tmp_path: Path, broken: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """`audiostride doctor` in a process of its own, where some packages fail on import."""
    for name, statement in broken.items():
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "__init__.py").write_text(statement)
    root = str(Path(audiostride.__file__).parents[1])
    path = os.pathsep.join([str(tmp_path / "broken"), root, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "audiostride", "doctor", "--folder", str(tmp_path), *options]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_broken_packages_are_lines_with_their_cures(tmp_path: Path) -> None:
    broken = {"torch": "raise OSError('undefined symbol: cublas')", "lightning_fabric": "raise KeyError('x')"}
    done = run_with(tmp_path, broken, "--no-self-test")
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert "does not import: OSError: undefined symbol: cublas" in done.stdout
    assert 'pip install --force-reinstall "torch>=2.11"' in done.stdout
    assert "lightning-fabric does not import (KeyError: 'x')" in done.stdout
    lines = done.stdout.partition("\nverdict\n")[2].splitlines()
    assert "2 problems" in lines[-1]  # and a warning where onnx is not installed
    assert [line.split()[:2] for line in lines if line.split()[0] == "problem"] == [
        ["problem", "torch:"],
        ["problem", "packages:"],
    ]
    assert 'pip install --force-reinstall "lightning-fabric' in lines[-2]


def test_a_torch_that_does_not_import_is_survived(tmp_path: Path) -> None:
    done = run_with(tmp_path, {"torch": "raise ImportError('libcudart.so.13: cannot open shared object file')"})
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "torch does not import: ImportError: libcudart.so.13: cannot open" in done.stdout
    assert "self-test: not run, since torch does not import" in done.stdout
    assert "problem  self-test: mend torch first" in done.stdout
    assert "libsndfile: " in done.stdout  # what does not need torch is looked at all the same


def break_import(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, error: Exception) -> None:
    monkeypatch.setattr(where, "try_import", lambda asked: error if asked == name else verdict.try_import(asked))


def test_versions_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installation.needed("torch")
    for package, good, bad in [("torch", "2.11.0+cu130", "2.10.0+cu128"), ("lightning-fabric", "2.6.6", "2.6.5")]:
        assert installation.fits(package, good)
        assert not installation.fits(package, bad), package
    real = installation.version_of
    monkeypatch.setattr(installation, "version_of", lambda name: "2.5.0" if name == "lightning-fabric" else real(name))
    found = installation.look_at_packages()
    assert found.status == "problem"
    assert found.text.startswith("lightning-fabric must be ")
    assert found.cure.startswith('pip install --force-reinstall "lightning-fabric')
    monkeypatch.setattr(installation, "version_of", lambda name: "2.10.0+cu128" if name == "torch" else real(name))
    found = installation.look_at_torch()
    assert (found.status, "audiostride needs torch" in found.text) == ("problem", True)


def test_files_of_another_version_than_was_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    other = SimpleNamespace(__version__="2.5.6")
    monkeypatch.setattr(
        installation, "try_import", lambda name: other if name == "lightning_fabric" else verdict.try_import(name)
    )
    found = installation.look_at_packages()
    assert found.status == "problem"
    assert found.text.startswith(
        "lightning-fabric has the files of 2.5.6, as pytorch-lightning brings them; there are "
    )
    assert found.cure.startswith('pip install --force-reinstall "lightning-fabric')


def test_what_an_extra_asks_for_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["torch<2.15; extra == 'test'", "librosa>=0.11; extra == 'test'", "torch>=2.11"]
    monkeypatch.setattr(installation, "requires", lambda name: asked)
    assert (installation.needed("torch"), installation.needed("librosa")) == (">=2.11", "")
    assert installation.fits("torch", "2.15.0+cu132")


@pytest.mark.parametrize(
    ("package", "version"), [("lightning", "2.6.2"), ("lightning", "2.6.3"), ("pytorch-lightning", "2.6.3")]
)
def test_a_malicious_upload_is_a_problem_and_is_not_imported(
    package: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = installation.version_of
    assert list(installation.look_for_malicious_uploads()) == []
    monkeypatch.setattr(installation, "version_of", lambda name: version if name == package else real(name))
    imported: list[str] = []
    monkeypatch.setattr(installation, "try_import", lambda name: imported.append(name) or verdict.try_import(name))
    (found,) = installation.look_for_malicious_uploads()
    assert (found.topic, found.status) == (f"malicious {package}", "problem")
    assert f"{package} {version} was uploaded by an attacker (advisory GHSA-w37p-236h-pfx3)" in found.text
    assert f"pip uninstall {package}" in found.cure
    assert "credentials" in found.cure
    packages = installation.look_at_packages()
    assert "numpy" in imported
    assert "lightning_fabric" not in imported
    assert packages.status == "problem"
    assert packages.text.startswith(f"lightning-fabric {real('lightning-fabric')} must not be imported")
    assert packages.cure.startswith('pip install --force-reinstall "lightning-fabric')


def test_malicious_uploads_come_before_anything_is_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installation, "version_of", lambda name: "2.6.3" if name == "lightning" else None)
    topics = [finding.topic for finding in examine(tmp_path, self_test=False)]
    assert topics.index("malicious lightning") < topics.index("packages")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = installation.version_of
    monkeypatch.setattr(installation, "version_of", lambda name: None if name == "soxr" else real(name))
    break_import(monkeypatch, installation, "soxr", ModuleNotFoundError("No module named 'soxr'"))
    found = installation.look_at_packages()
    assert found.status == "problem"
    assert found.text.startswith("soxr is missing; there are lightning-fabric ")
    assert found.facts["soxr"] == "missing"


def test_export_packages_are_optional_but_must_not_be_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "version_of", lambda name: None)
    found = installation.look_at_export()
    assert (found.status, found.cure) == ("warning", "to export ONNX: pip install 'audiostride[export]'")
    monkeypatch.setattr(installation, "version_of", lambda name: "1.0")
    monkeypatch.setattr(installation, "try_import", lambda name: ImportError("no") if name == "onnx" else object())
    found = installation.look_at_export()
    assert (found.status, found.cure) == ("problem", "these do not import: pip install --force-reinstall onnx")


def test_no_ffmpeg_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = machine.look_at_ffmpeg()
    assert (found.status, found.text) == ("warning", "ffmpeg and ffprobe not found on the PATH")
    assert "apt install ffmpeg" in found.cure


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands for ffmpeg")
def test_an_ffmpeg_that_does_not_start_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ffmpeg", "ffprobe"):
        (tmp_path / name).write_text("#!/bin/sh\necho libavcodec.so.59 is missing >&2\nexit 127\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    found = machine.look_at_ffmpeg()
    assert (found.status, found.text) == ("warning", "ffmpeg does not start: libavcodec.so.59 is missing")


def test_formats_that_libsndfile_does_not_know_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import soundfile

    assert machine.look_at_formats().facts["flac"] is True
    write = soundfile.write

    def old(file: Any, data: Any, rate: int, *, format: str, subtype: str) -> None:
        if subtype in ("OPUS", "MPEG_LAYER_III"):
            raise soundfile.LibsndfileError(1)
        write(file, data, rate, format=format, subtype=subtype)

    monkeypatch.setattr(soundfile, "write", old)
    found = machine.look_at_formats()
    assert found.status == "warning"
    assert found.text.endswith("flac yes, ogg yes, mp3 no, opus no")
    break_import(monkeypatch, machine, "soundfile", OSError("cannot load library 'libsndfile.so'"))
    found = machine.look_at_formats()
    assert (found.status, found.cure) == ("problem", "pip install --force-reinstall soundfile")
    assert "cannot load library" in found.text


def test_little_memory_a_full_or_slow_disk_and_too_many_threads_are_warnings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "LITTLE_MEMORY_GIB", 1e6)
    assert Path("/proc/meminfo").exists() is (machine.look_at_memory().status == "warning")
    monkeypatch.setattr(machine, "SLOW_DISK_MIB_S", 1e9)
    found = machine.look_at_disk(tmp_path, mib=1)
    assert (found.status, "local disk" in found.cure) == ("warning", True)
    monkeypatch.setattr(machine, "LITTLE_DISK_GIB", 1e9)
    assert machine.look_at_disk(tmp_path, mib=1).cure == "runs and stores may fill it: make room"
    monkeypatch.setattr(machine, "usable_cores", lambda: 0.5)
    found = machine.look_at_processor()
    assert found.status == ("warning" if torch.get_num_threads() > 1 else "ok")
    monkeypatch.setattr(machine, "usable_cores", lambda: float(torch.get_num_threads()))
    assert machine.look_at_processor().status == "ok"


@pytest.mark.parametrize("there", [True, False])
def test_a_cpu_that_computes_bfloat16_is_told_and_timed(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = {"avx512_f": True, "avx512_bf16": there}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    found = machine.look_at_processor()
    assert (", bfloat16 yes" in found.text) == found.facts["bfloat16"] == there
    for test in ("check_layer", "check_frontend", "check_training"):
        monkeypatch.setattr(selftest, test, lambda device: Finding(device, "ok", ""))
    assert ("arithmetic on cpu" in [each.topic for each in selftest.check_devices()]) == there


@pytest.mark.parametrize(("bf16_s", "told"), [(0.5, "--precision bf16-mixed trains in 0.50 of the time"),
                                              (0.95, "float32 it is"), (1.3, "float32 it is")])  # fmt: skip
def test_bfloat16_is_advised_where_it_is_faster(bf16_s: float, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, classify = [0.0], audiostride.AudioClassifier.forward

    def take_a_while(*given: Any) -> Any:
        clock[0] += bf16_s if torch.is_autocast_enabled("cpu") else 1.0
        return classify(*given)

    monkeypatch.setattr(audiostride.AudioClassifier, "forward", take_a_while)
    monkeypatch.setattr(selftest, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    found = selftest.compare_arithmetic()
    assert found.text.endswith(told)
    assert found.text.startswith("32 windows learned at --width 0.25 take 1000 ms in float32, ")


def test_a_folder_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    found = machine.look_at_disk(tmp_path / "gone")
    assert found.status == "problem"
    assert "--folder" in found.cure


def fake_torch(*, available: bool, free: int = 2**36, capability: tuple[int, int] = (9, 0)) -> SimpleNamespace:
    cuda = SimpleNamespace(
        is_available=lambda: available,
        device_count=lambda: 1,
        mem_get_info=lambda index: (free, 2**37),
        get_device_name=lambda index: "Big GPU",
        get_device_capability=lambda index: capability,
    )
    return SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda="13.0"))


def look_at_gpu(monkeypatch: pytest.MonkeyPatch, torch_or_error: Any, *, driver: bool) -> Finding:
    monkeypatch.setattr(machine, "try_import", lambda name: torch_or_error)
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/nvidia-smi" if driver else None)
    (found,) = machine.look_at_gpus()
    return found


def test_gpus_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    found = look_at_gpu(monkeypatch, fake_torch(available=True), driver=True)
    assert (found.topic, found.status) == ("gpu cuda:0", "ok")
    assert found.text == "Big GPU, 64.0 of 128.0 GiB free, bfloat16 yes"
    found = look_at_gpu(monkeypatch, fake_torch(available=True, free=2**29, capability=(7, 0)), driver=True)
    assert (found.status, found.text) == ("warning", "Big GPU, 0.5 of 128.0 GiB free, bfloat16 no")
    found = look_at_gpu(monkeypatch, fake_torch(available=False), driver=True)
    assert (found.status, "torch sees no device; it is built for CUDA 13.0" in found.text) == ("warning", True)
    assert look_at_gpu(monkeypatch, ImportError("no"), driver=True).status == "warning"


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="there is a driver")
def test_a_machine_without_gpu_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert look_at_gpu(monkeypatch, fake_torch(available=False), driver=False).status == "ok"


def test_a_model_is_tried_with_its_own_frontend(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"sample_rate": 48000, "window_s": 0.5, "n_mels": 40, "fmin_hz": 2000.0}
    settings |= {"fmax_hz": 23000.0, "win_length": 960, "hop_length": 480, "n_fft": 1024, "width": 0.03}
    model = AudioClassifier(ClassifierConfig(tasks={"call": ["a", "b"]}, **settings))
    save_classifier(model, tmp_path / "m.safetensors")
    *_, found = selftest.check_devices(str(tmp_path / "m.safetensors"))
    assert (found.topic, found.status) == ("model on cpu", "ok")
    assert "windows of 0.5 s at 48000 Hz take " in found.text
    assert found.facts["band"] == found.facts["expected_band"] == 19
    with torch.no_grad():
        model.heads[0].weight.fill_(torch.inf)
    save_classifier(model, tmp_path / "m.safetensors")
    *_, found = selftest.check_devices(str(tmp_path / "m.safetensors"))
    assert found.status == "problem"
    *_, found = selftest.check_devices(str(tmp_path / "none"))
    assert (found.status, "path must be a run folder" in found.text) == ("problem", True)


def test_a_wrong_layer_frontend_or_training_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from audiostride import models
    from audiostride.audio import log_mel
    from audiostride.strides import diffstride

    class WrongPooling(diffstride.DiffStride2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 1.01 * super().forward(x)

    class WrongFrontend(log_mel.LogMel):
        def forward(self, waveform: torch.Tensor) -> torch.Tensor:
            return super().forward(waveform) + 0.1

    class ShiftedFrontend(log_mel.LogMel):
        def forward(self, waveform: torch.Tensor) -> torch.Tensor:
            return super().forward(waveform).roll(3, dims=-1)

    class Diverging(models.AudioClassifier):
        def project_strides_(self) -> None:
            with torch.no_grad():
                self.heads[0].weight.fill_(torch.nan)

    with monkeypatch.context() as patch:
        patch.setattr(diffstride, "DiffStride2d", WrongPooling)
        assert selftest.check_layer("cpu").status == "problem"
    for wrong in (WrongFrontend, ShiftedFrontend):
        with monkeypatch.context() as patch:
            patch.setattr(log_mel, "LogMel", wrong)
            assert selftest.check_frontend("cpu").status == "problem"
    with monkeypatch.context() as patch:
        patch.setattr(models, "AudioClassifier", Diverging)
        found = selftest.check_training("cpu")
        assert (found.status, found.facts["last_loss"]) == ("problem", None)


def test_what_fails_itself_does_not_end_the_examination(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*given: object) -> Finding:
        raise ValueError("surprise")

    monkeypatch.setattr(machine, "look_at_memory", fails)
    monkeypatch.setattr(selftest, "check_layer", fails)
    monkeypatch.setattr(selftest, "check_training", lambda device: Finding(f"training on {device}", "ok", "fast"))
    found = {finding.topic: finding for finding in examine(tmp_path)}
    assert (found["memory"].status, found["memory"].text) == ("problem", "ValueError: surprise")
    assert (found["layer on cpu"].status, found["layer on cpu"].text) == ("problem", "ValueError: surprise")
    assert found["frontend on cpu"].status == found["training on cpu"].status == "ok"


def test_the_verdict_lists_the_worst_last() -> None:
    findings = [
        Finding("a", "problem", "broken", "mend it"),
        Finding("b", "ok", "good"),
        Finding("c", "warning", "slow", "wait"),
    ]
    assert overall_status(findings) == "problem"
    assert overall_status(findings[1:]) == "warning"
    assert overall_status([]) == "ok"
    assert format_verdict(findings).splitlines()[2:] == [
        "  ok       b",
        "  warning  c: wait",
        "  problem  a: mend it",
        "1 warning, 1 problem; what to change stands beside them",
    ]
    assert format_verdict(findings[1:2]).splitlines()[-1] == "all is well"

"""`audiostride export`, and the recipe that runs what it writes without PyTorch."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from audiostride.commands import exporting

Run = Callable[..., int]
BAD_INPUT = 2
RECIPE = Path(__file__).parents[2] / "recipes" / "run_onnx.py"


@pytest.fixture(scope="module", autouse=True)
def short_timing() -> Iterator[None]:
    """Times are medians of three calls: nothing here depends on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audiostride.models.export.parity.SECONDS", 0.0)
        yield


def needs_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)


@pytest.fixture(scope="module")
def exported(run_command: Run, trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of the tiny run."""
    needs_onnx()
    out = tmp_path_factory.mktemp("exported") / "model.onnx"
    assert run_command("export", trained_run, "-o", out) == 0
    return out


def test_size_parity_and_latency_are_printed(
    run_command: Run, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_onnx()
    out = tmp_path / "model.onnx"
    assert run_command("export", trained_run, "-o", out, "--input", "log-mel", "--clips", "5") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = shown.out.splitlines()
    assert lines[0] == f"{out}: onnx, {out.stat().st_size / 2**20:.2f} MiB"
    assert lines[1] == "input log_mel (batch x 100 x 64), 16000 Hz; output logits_kind (batch x 2)"
    assert re.fullmatch(
        r"against PyTorch on 5 test clips of the run: largest difference of logits \S+, same top class 5 of 5", lines[2]
    )
    if lines[-1].startswith("other programs were running"):  # as the load of the machine is
        lines.pop()
    for line, batch in zip(lines[3:], (1, 16), strict=True):
        assert re.fullmatch(
            rf"CPU, \d+ threads?, batch {batch}: onnxruntime [\d.]+ ms, PyTorch [\d.]+ ms \(medians\)", line
        )


@pytest.mark.slow
def test_int8_tells_what_it_costs_and_is_refused_beyond_the_limit(
    run_command: Run,
    trained_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    needs_onnx()
    out = tmp_path / "model.onnx"
    given = trained_run / "model.safetensors"  # the file of a run is as good as its folder
    assert run_command("export", given, "-o", out, "--int8", "--max-drop", "100") == 0
    shown = capsys.readouterr().out.splitlines()
    metrics = json.loads((trained_run / "metrics.json").read_text())
    assert re.fullmatch(
        rf"kind: accuracy of 6 test clips {100 * metrics['accuracy']:.1f} % in float32, [\d.]+ % in int8", shown[0]
    )
    assert re.fullmatch(rf"{re.escape(str(out))}: onnx, [\d.]+ MiB in int8; in float32 it is [\d.]+ MiB", shown[1])
    assert re.search(r"batch 1: onnxruntime [\d.]+ ms \([\d.]+ ms in float32\), PyTorch ", "\n".join(shown))
    from audiostride.training import clips

    evaluate, seen = clips.evaluate_clips, list[dict[str, Any]]()

    def falling(*given: Any, **settings: Any) -> dict[str, Any]:  # 2 points below the network before it
        seen.append(seen[-1] if seen else evaluate(*given, **settings))
        return {task: replace(each, accuracy=each.accuracy - 0.02 * (len(seen) - 1)) for task, each in seen[0].items()}

    monkeypatch.setattr(clips, "evaluate_clips", falling)
    before = out.read_bytes()
    assert run_command("export", trained_run, "-o", out, "--int8", "--overwrite") == BAD_INPUT
    assert re.search(
        r"--int8 must cost at most 1 points of test accuracy, but kind has [\d.]+ % in float32, [\d.]+ % in int8; "
        "nothing is written; give a larger --max-drop, or leave --int8 out",
        capsys.readouterr().err,
    )
    assert out.read_bytes() == before


@pytest.mark.parametrize(("name", "lacking"), [("a.onnx", "test"), ("a.h", "test"), ("a.onnx", "training")])
def test_int8_needs_the_clips_of_its_run(
    run_command: Run,
    trained_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    lacking: str,
) -> None:
    needs_onnx()
    shutil.copy(trained_run / "model.safetensors", tmp_path / "alone.safetensors")
    if lacking == "training":
        windows_of = exporting._windows_of

        def find(given: Path, model: Any, split: str, *, count: int) -> Any:
            return windows_of(trained_run if split == "test" else given, model, split, count=count)

        monkeypatch.setattr(exporting, "_windows_of", find)
    assert run_command("export", tmp_path / "alone.safetensors", "-o", tmp_path / name, "--int8") == BAD_INPUT
    shown = capsys.readouterr().err
    assert f"--int8 must be given a run whose {lacking} clips can be read, got" in shown
    assert "alone.safetensors: there is no run folder" in shown
    assert not (tmp_path / name).exists()


def test_all_test_clips_are_compared_where_there_are_few(
    run_command: Run, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("export", trained_run, "-o", tmp_path / "model.pt2") == 0
    shown = capsys.readouterr().out
    assert f"{tmp_path / 'model.pt2'}: torch-export, " in shown
    assert "on 6 test clips of the run: " in shown
    assert "same top class 6 of 6" in shown


@pytest.mark.parametrize("name", ["model.h", "model.html"])
def test_small_programs_tell_what_they_take(
    run_command: Run, trained_run: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / name
    assert run_command("export", trained_run, "-o", out) == 0
    shown = capsys.readouterr().out
    assert "on 6 test clips of the run: " in shown or "not compared with PyTorch, for which there is no " in shown
    if name == "model.html":
        assert "open it in a browser and drop a recording on it; it needs no network" in shown
        assert "CPU, " not in shown
    else:
        assert re.search(r"\nMemory +AUDIOSTRIDE_WORK floats, [\d,]+ bytes, which the caller lends", shown)
        assert re.search(r"\nWork +[\d,]+ multiply-adds of the network a window", shown)


def test_8_bit_weights_in_c_tell_what_they_cost(
    run_command: Run,
    trained_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler is installed")
    given = ["export", trained_run, "-o", tmp_path / "m.h", "--int8", "--max-drop", "100", "--overwrite"]
    assert run_command(*given) == 0
    shown = capsys.readouterr().out
    assert re.search(r"kind: accuracy of 6 test clips [\d.]+ % in float32, [\d.]+ % in int8", shown)
    assert "8-bit integers, with a factor in float for each row" in shown
    assert re.search(r"MiB in int8; in float32 it is [\d.]+ MiB\n", shown)
    from audiostride.models.export import files

    export = files.export_classifier  # small networks gain nothing: ONNX has nodes for each scale

    def without_gain(*given: Any, **settings: Any) -> files.Exported:
        return replace(export(*given, **settings), float_bytes=1)

    monkeypatch.setattr(files, "export_classifier", without_gain)
    assert run_command(*given) == 0
    assert "in float32 it is 0.00 MiB, which is less: leave --int8 out\n" in capsys.readouterr().out


@pytest.mark.slow
def test_without_its_recordings_a_run_is_compared_on_generated_clips(
    run_command: Run, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(trained_run / "model.safetensors", tmp_path / "alone.safetensors")
    assert run_command("export", tmp_path / "alone.safetensors", "-o", tmp_path / "a.pt2") == 0
    assert "on 16 generated clips (there is no run folder): " in capsys.readouterr().out
    moved = tmp_path / "run"
    moved.mkdir()
    shutil.copy(trained_run / "model.safetensors", moved)
    config = (trained_run / "config.yaml").read_text()
    (moved / "config.yaml").write_text(re.sub(r"(?m)^(manifest: ).*$", rf"\1{tmp_path / 'gone.csv'}", config))
    assert run_command("export", moved, "-o", tmp_path / "b.pt2") == 0
    assert "on 16 generated clips (the run's own cannot be read: " in capsys.readouterr().out


def labels_of_recipe(model: Path, recording: Path) -> list[str]:
    """What the recipe prints, with neither torch nor audiostride to be had."""
    blocker = "import sys; sys.modules['torch'] = sys.modules['audiostride'] = None; import runpy; "
    code = blocker + f"sys.argv = [{str(RECIPE)!r}, {str(model)!r}, {str(recording)!r}]; "
    code += f"runpy.run_path({str(RECIPE)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_recipe_says_what_predict_says(
    run_command: Run, trained_run: Path, exported: Path, manifest: Path, tmp_path: Path
) -> None:
    recordings = [manifest.parent / f"audio/test_{number}.{suffix}" for number, suffix in ((0, "flac"), (1, "wav"))]
    recordings.append(manifest.parent / "audio/train_2.wav")  # 1.2 s: a tail of a fifth
    tables = {}
    for number, options in enumerate((["--per-clip"], ["--per-window"])):
        out = tmp_path / f"predictions{number}.csv"
        assert run_command("predict", trained_run, *recordings, "-o", out, *options) == 0
        tables[number] = pd.read_csv(out)
    assert len(tables[1]) > len(recordings)
    for recording in recordings:
        *windows, clip = labels_of_recipe(exported, recording)
        expected = tables[1][tables[1]["path"] == str(recording)]
        assert windows == [
            f"kind, {start:g} s: {label}" for start, label in zip(expected["start_s"], expected["label"], strict=True)
        ]
        (row,) = tables[0][tables[0]["path"] == str(recording)].itertuples()
        found = re.fullmatch(r"kind, clip: (\w+) \(([\d.]+)\)", clip)
        assert found is not None
        assert found[1] == row.label
        assert float(found[2]) == pytest.approx(row.score, abs=0.001)  # printed to 0.001


def test_the_recipe_is_short_and_names_what_does_not_fit(exported: Path, manifest: Path, tmp_path: Path) -> None:
    assert len(RECIPE.read_text().splitlines()) <= 40
    other_rate = manifest.parent / "audio/test_3.flac"
    done = subprocess.run(
        [sys.executable, str(RECIPE), str(exported), str(other_rate)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"{other_rate} must be at 16000 Hz, got 44100 Hz; resample it first\n"


def test_an_output_that_exists_is_kept_unless_told_otherwise(
    run_command: Run, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.pt2"
    out.write_text("precious")
    assert run_command("export", trained_run, "-o", out) == BAD_INPUT
    assert "exists; choose another -o, or give --overwrite" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert run_command("export", trained_run, "-o", out, "--overwrite") == 0
    assert out.stat().st_size > 10_000
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "model.tflite"], "must end in .onnx, .pt2, .h, .html"),
        (["-o", "model.pt2", "--format", "onnx"], "must fit --format onnx"),
        (["-o", "no/model.pt2"], "in a folder that exists"),
        (["-o", "."], "must end in .onnx, .pt2, .h, .html"),
        (["-o", "model.pt2", "--clips", "0"], "clips must be"),
        (["-o", "model.pt2", "--input", "mfcc"], "mfcc"),
        (["-o", "model.pt2", "--int8"], "int8 must be given with ONNX or C, got torch-export; name the output"),
        (["-o", "model.onnx", "--max-drop", "2"], "--max-drop must be given with --int8, got it without"),
        (["-o", "model.onnx", "--int8", "--max-drop", "-1"], "--max-drop must be finite and >= 0, got -1"),
        ([], "out"),
    ],
)
def test_bad_options_end_with_code_2(
    run_command: Run,
    trained_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command("export", trained_run, *options) == BAD_INPUT
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "edited", "text", "none"])
def test_a_model_that_is_no_model_is_refused(
    run_command: Run, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    content = (trained_run / "model.safetensors").read_bytes()
    run = tmp_path / "run"
    run.mkdir()
    if damage != "none":
        changed = {
            "cut": content[: len(content) // 2],
            "edited": content.replace(b'\\"config\\"', b'\\"konfig\\"', 1),
            "text": b"no model",
        }[damage]
        assert changed != content
        (run / "model.safetensors").write_bytes(changed)
    assert run_command("export", run, "-o", tmp_path / "model.pt2") == BAD_INPUT
    shown = capsys.readouterr().err
    assert str(run) in shown
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == [run]


@pytest.mark.skipif(os.name != "posix" or not Path("/proc/self").is_dir(), reason="a place that even root cannot write")
def test_a_place_that_cannot_be_written_is_named(
    run_command: Run, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("export", trained_run, "-o", "/proc/self/model.pt2") == BAD_INPUT
    assert "/proc/self/model.pt2 cannot be written" in capsys.readouterr().err


def test_missing_packages_are_named(
    run_command: Run,
    trained_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from audiostride.models.export import export_format

    monkeypatch.setattr(export_format, "find_spec", lambda name: None)
    assert run_command("export", trained_run, "-o", tmp_path / "model.onnx") == BAD_INPUT
    assert "pip install 'audiostride[export]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

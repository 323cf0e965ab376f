import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from audiostride import __version__
from audiostride.cli import COMMANDS, main
from audiostride.commands.train import choose_folder
from audiostride.errors import InputError
from audiostride.training import TrainConfig

BAD_INPUT = 2


def run(*arguments: object) -> int:
    """The exit code of a command; jsonargparse ends with SystemExit on its own errors."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as ended:
        return int(ended.code or 0)


def make_manifest(root: Path, rows: list[str], *, header: str = "path,label,split") -> Path:
    (root / "m.csv").write_text("\n".join([header, *rows]) + "\n")
    return root / "m.csv"


def write_audio(path: Path, samples: np.ndarray | None = None) -> None:
    soundfile.write(str(path), np.zeros(1600) if samples is None else samples, 16000, subtype="FLOAT")


GOOD_ROWS = [f"a.wav,{label},{split}" for split in ("train", "valid", "test") for label in ("x", "y")]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == run("-h") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: audiostride COMMAND")
    assert run() == BAD_INPUT  # nothing was asked for, and what may be is shown
    assert capsys.readouterr().out == shown[: len(shown) // 2]
    commands = ["demo", "import", "check", "modulations", "prepare", "train", "evaluate", "predict", "listen", "embed"]
    commands += ["report", "export", "doctor"]
    assert list(COMMANDS) == commands
    for command in commands:
        line = next(line for line in shown.splitlines() if line.startswith(f"  {command} "))
        assert len(line.split(maxsplit=1)[1]) > 20
        assert run(command, "--help") == 0
        assert capsys.readouterr().out.startswith(f"usage: audiostride {command} ")


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"audiostride {__version__}\n"


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("trian", "did you mean train?"),
        ("predicts", "did you mean predict?"),
        (
            "xyz",
            "it must be one of demo, import, check, modulations, prepare, train, evaluate, predict, listen, embed, "
            "report, export, doctor",
        ),
        ("--verbose", "it must be one of demo, import"),
    ],
)
def test_an_unknown_command_is_answered_with_what_there_is(
    capsys: pytest.CaptureFixture[str], given: str, hint: str
) -> None:
    assert run(given, "--out", "x") == BAD_INPUT
    assert f"audiostride: there is no command {given!r}; {hint}" in capsys.readouterr().err


def test_what_interrupts_a_message_does_not_hide_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: object) -> int:
        try:
            raise InputError("a worker has failed")
        finally:  # as the handler of a signal does, at any place
            raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly")

    monkeypatch.setattr("audiostride.commands.doctor.run", fail)
    assert run("doctor") == BAD_INPUT
    assert capsys.readouterr().err == "audiostride: a worker has failed\n"
    monkeypatch.setattr("audiostride.commands.doctor.run", lambda arguments: [][1])
    with pytest.raises(IndexError):
        run("doctor")


def test_every_setting_has_an_option_with_a_help_text(capsys: pytest.CaptureFixture[str]) -> None:
    run("train", "--help-all")
    shown = capsys.readouterr().out
    for option in ("--max-steps", "--stride-lr", "--batch-size", "--time-shift-s", "--random-split", "--resume"):
        assert option in shown
    for word in ("Sequence[", "null", "NoneType", "Literal", "Optional", "+ "):
        assert word not in shown, word
    flat = " ".join(shown.split())
    assert "Learning rate of the strides (default: 0.01;" in flat
    assert "a list of lists of numbers" in flat
    assert "(yes or no, default: no)" in flat
    every = set(re.findall(r"^  (--[\w-]+)", shown, flags=re.MULTILINE))
    assert {f"--{field.name.replace('_', '-')}" for field in fields(TrainConfig)} <= every
    run("train", "--help")
    short = capsys.readouterr().out
    some = set(re.findall(r"^  (--[\w-]+)", short, flags=re.MULTILINE))
    assert {"--label", "--out", "--width", "--pooling", "--max-steps", "--resume"} < some < every
    assert short.endswith(f"--help-all lists {len(every) - len(some)} more options.\n")


def test_a_training_has_a_folder_of_its_own_where_none_is_given(
    manifest: Path, tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--max-steps", "2", *tiny]
    assert run("train", manifest, "--label", "kind", *options) == 0
    name = manifest.parent.name if manifest.stem == "manifest" else manifest.stem
    found = {path.name for path in (tmp_path / "runs").iterdir()}
    assert found == {f"{name}-kind"}
    assert choose_folder(str(manifest), "kind", None, resume=False) == f"runs/{name}-kind-2"
    assert choose_folder(None, "label", ["a=x.csv:y", "b=z.csv:y"], resume=False) == "runs/a-b"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["gone.csv", "--label", "kind"], "gone.csv does not exist"),
        (["m.csv", "--label", "knd"], "must have a column 'knd', got path, kind; name the column of labels"),
        (["--task", "a=m.csv:kind", "b=m.csv:knd"], "must have a column 'knd'"),
        (["m.csv", "--manifest", "m.csv"], "either MANIFEST or --manifest must be given"),
        (["m.csv", "--label", "kind", "--resume"], "--resume must go with the folder of the run"),
        (["m.csv", "--label", "kind", "--devices", "2"], "several processes must write one run folder; give --out RUN"),
        (["m.csv", "--labl", "kind"], "unrecognized arguments: --labl kind; did you mean --label?"),
    ],
)
def test_what_is_a_mistake_of_one_word_is_known_before_libraries_load(
    tmp_path: Path, given: list[str], said: str
) -> None:
    (tmp_path / "m.csv").write_text("path,kind\na.wav,x\n")
    code = "import sys; from audiostride.cli import main; found = main(['train', *sys.argv[1:]]); "
    code += "sys.exit(3 if {'torch', 'lightning_fabric', 'matplotlib'} & {*sys.modules} else found)"
    done = subprocess.run(
        [sys.executable, "-c", code, *given], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert said in done.stderr
    assert done.returncode == BAD_INPUT, "no torch"
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]


def test_train_evaluate_predict_report(trained_run: Path, manifest: Path, tmp_path: Path, capsys) -> None:
    assert run("evaluate", trained_run) == 0
    assert "95 % interval" in capsys.readouterr().out
    out = tmp_path / "predictions.csv"
    assert run("predict", trained_run, manifest.parent / "audio", "-o", out, "--per-clip") == 0
    table = pd.read_csv(out)
    assert table.columns.tolist() == ["path", "start_s", "end_s", "label", "score"]
    assert len(table) == 22
    assert set(table["label"]) <= {"noise", "tone"}
    assert table["score"].between(0.5, 1).all()
    assert run("predict", trained_run, manifest.parent / "audio", "-o", out, "--overwrite") == 0
    assert len(pd.read_csv(out)) > 22
    page = tmp_path / "page.html"
    assert run("report", trained_run, trained_run, "-o", page) == 0
    shown = capsys.readouterr().out
    assert "cycles/mel" in shown
    assert "cut-off" in shown
    text = page.read_text()
    assert text.count("<svg") >= 4
    assert "http://" not in text.replace("http://www.w3.org/", "").replace("http://purl.org/", "").replace(
        "http://creativecommons.org/", ""
    )
    assert len(pd.read_csv(tmp_path / "page_cutoffs.csv")) == 12


def test_a_yaml_file_gives_settings_and_the_command_line_wins(manifest: Path, tmp_path: Path) -> None:
    settings = {"manifest": str(manifest), "label": "kind", "width": 0.03, "max_steps": 2, "batch_size": 4, "lr": 0.5}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    assert run("train", "--config", tmp_path / "run.yaml", "--out", tmp_path / "run", "--lr", "0.001") == 0
    used = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (used["width"], used["lr"], used["max_steps"]) == (0.03, 0.001, 2)


def test_unknown_keys_and_values_are_refused(manifest: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"max_step": 2}))
    base = ("train", "--manifest", manifest, "--out", tmp_path / "run")
    assert run(*base, "--config", tmp_path / "run.yaml") == BAD_INPUT
    assert "max_step" in capsys.readouterr().err
    assert run(*base, "--pooling", "max") == BAD_INPUT
    assert "strided" in capsys.readouterr().err
    assert run(*base, "--no-such-option", "1") == BAD_INPUT
    assert not (tmp_path / "run").exists()


def bad_audio(root: Path) -> dict[str, tuple[Path, str]]:
    write_audio(root / "a.wav")
    write_audio(root / "nan.wav", np.full(100, np.nan))
    write_audio(root / "empty.wav", np.zeros(0))
    (root / "text.wav").write_text("no audio")
    return {
        "nan.wav": (root / "nan.wav", "NaN or infinite"),
        "empty.wav": (root / "empty.wav", "holds no samples"),
        "text.wav": (root / "text.wav", "cannot be read"),
        "gone.wav": (root / "gone.wav", "does not exist"),
    }


@pytest.mark.parametrize("name", ["nan.wav", "empty.wav", "text.wav", "gone.wav"])
def test_bad_audio_is_named_before_training(tmp_path: Path, capsys, name: str) -> None:
    _, message = bad_audio(tmp_path)[name]
    manifest = make_manifest(tmp_path, [*GOOD_ROWS, f"{name},x,train"])
    assert run("train", "--manifest", manifest, "--out", tmp_path / "run") == BAD_INPUT
    shown = capsys.readouterr().err
    assert name in shown
    assert message in shown
    assert "line 8" in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("rows", "header", "options", "message"),
    [
        (GOOD_ROWS, "path,label,split", ["--label", "word"], "must have a column 'word', got path, label, split"),
        ([*GOOD_ROWS, "a.wav,z,test"], "path,label,split", [], "these have none: z"),
        (GOOD_ROWS[:4], "path,label,split", [], "split 'test' must have at least one clip"),
        (["a.wav,x", "a.wav,y"], "path,label", [], "--random-split SEED"),
        ([*GOOD_ROWS, "a.wav,x,someday"], "path,label,split", [], "line 8: split must be train, valid"),
        (GOOD_ROWS, "path,label,split", ["--ramp-bins", "0"], "ramp_bins must be > 0 FFT bins, got 0"),
        (GOOD_ROWS, "path,label,split", ["--strides", "[[0.5,2]]", "--channels", "[4]"], ">= 1"),
        (GOOD_ROWS, "path,label,split", ["--width", "-1"], "width must be > 0, got -1"),
        (GOOD_ROWS, "path,label,split", ["--max-steps", "0"], "max_steps must be a whole number >= 1, got 0"),
        (GOOD_ROWS, "path,label,split", ["--manifest", "nowhere.csv"], "nowhere.csv does not exist"),
        (GOOD_ROWS, "path,label,split", ["--resume"], "has no config.yaml"),
    ],
)
def test_bad_input_ends_with_code_2(
    tmp_path: Path, capsys, rows: list[str], header: str, options: list[str], message: str
) -> None:
    write_audio(tmp_path / "a.wav")
    manifest = make_manifest(tmp_path, rows, header=header)
    assert run("train", "--manifest", manifest, "--out", tmp_path / "run", *options) == BAD_INPUT
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_folders_that_are_no_runs_are_refused(tmp_path: Path, capsys, command: str) -> None:
    assert run(command, tmp_path) == BAD_INPUT
    assert f"{tmp_path} must be a run folder" in capsys.readouterr().err


def test_predict_names_what_it_cannot_read_and_goes_on(trained_run: Path, tmp_path: Path, capsys) -> None:
    bad = bad_audio(tmp_path)
    paths = [path for name, (path, _) in bad.items() if name != "gone.wav"]
    assert run("predict", trained_run, tmp_path / "a.wav", *paths, "-o", tmp_path / "p.csv") == BAD_INPUT
    shown = capsys.readouterr().err
    assert all(str(path) in shown for path in paths)
    assert pd.read_csv(tmp_path / "p.csv")["path"].tolist() == [str(tmp_path / "a.wav")]


def test_predict_refuses_bad_places_and_keeps_what_exists(trained_run: Path, tmp_path: Path, capsys) -> None:
    write_audio(tmp_path / "a.wav")
    (tmp_path / "p.csv").write_text("precious")
    assert run("predict", trained_run, tmp_path / "a.wav", "-o", tmp_path / "p.csv") == BAD_INPUT
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "p.csv").read_text() == "precious"
    assert run("predict", trained_run, tmp_path / "a.wav", "-o", tmp_path / "no" / "p.csv") == BAD_INPUT
    assert run("predict", trained_run, tmp_path / "gone.wav", "-o", tmp_path / "q.csv") == BAD_INPUT
    assert run("predict", tmp_path, tmp_path / "a.wav", "-o", tmp_path / "q.csv") == BAD_INPUT
    assert "must be a run folder" in capsys.readouterr().err


def test_a_folder_of_class_folders_trains(manifest: Path, tmp_path: Path, tiny: list[str]) -> None:
    for index, row in pd.read_csv(manifest).iterrows():
        target = tmp_path / "set" / row["kind"] / f"{index}{Path(row['path']).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(manifest.parent / row["path"], target)
    options = ["--random-split", "0", "--max-steps", "2", *tiny[:2], *tiny[6:]]
    assert run("train", "--manifest", tmp_path / "set", "--out", tmp_path / "run", *options) == 0
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["train", "--out", "o", "--manifest", "m", "--lr", "fast"], "train: --lr must be a number, got fast"),
        (["train", "m", "--max-steps", "3.5"], "train: --max-steps must be a whole number, got 3.5"),
        (["train", "m", "--calibrate", "maybe"], "train: --calibrate must be yes or no, got maybe"),
        (["train", "m", "--pooling", "big"], "train: --pooling must be strided or spectral or diffstride, got big"),
        (
            ["train", "m", "--strides", "x"],
            "train: --strides must be a list of lists of numbers, as '[[2, 2], [2, 2]]'",
        ),
        (["predict", "m", "x", "-o", "y.csv", "--per-windw"], "did you mean --per-window?"),
        (["predict", "m", "x", "-o", "y.csv", "--top", "z"], "predict: --top must be a whole number, got z"),
        (["predict", "m", "x", "-o", "y.csv", "--min-score", "z"], "predict: --min-score must be a number, got z"),
        (["train", "--out", "o", "--no-such-option", "1"], "unrecognized arguments: --no-such-option 1"),
        (["train", "--resume", "--out"], "argument --out"),
        (["train", "--out", "o", "--config"], "argument --config"),
        (["report"], "the following arguments are required"),
        (["import", "folder", ".", "-o", "q.csv", "0", "\udcff"], r"unrecognized arguments: 0 \udcff"),
        (["predict", "a\x1b[31mb\rc", "x", "-o", "y.csv"], r"a\x1b[31mb\rc"),
        (["evaluate", "a\x00b"], r"a\x00b"),
        (["report", "n" * 300], "File name too long"),
        (["import", "folder", "n" * 300, "-o", "q.csv"], "File name too long"),
    ],
)
def test_options_that_are_wrong_are_answered_in_one_line_that_a_terminal_can_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(given) == BAD_INPUT
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.startswith("audiostride: ")
    assert shown.count("\n") == 1
    assert shown[:-1].isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "locked/store.json"), "locked/store.json: Permission denied; change"),
        (OSError(5, "Input/output error", "disk"), "disk: Input/output error; is the disk still there?"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "text must be UTF-8, but"),
        (MemoryError("8 GiB"), "memory ran out: 8 GiB"),
    ],
)
def test_what_the_system_refuses_is_one_line_wherever_it_happens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    def fail(arguments: object) -> int:
        raise error

    monkeypatch.setattr("audiostride.commands.checking.run", fail)
    assert main(["check", "m.csv"]) == BAD_INPUT
    shown = capsys.readouterr().err
    assert shown.startswith(f"audiostride: {said}")
    assert shown.count("\n") == 1


def test_defects_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiostride.commands.checking.run", lambda arguments: {}["a"])
    with pytest.raises(KeyError):
        main(["check", "m.csv"])


def test_a_working_folder_that_was_removed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["predict", "r", "x", "-o", "p.csv"]) == BAD_INPUT
    assert "audiostride: the working folder must exist, but it was removed" in capsys.readouterr().err
    assert main(["--version"]) == 0

"""Files that cannot be read, before a training and in the middle of it."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from audiostride.training.run_recorder import RunRecorder

Run = Callable[..., int]


@pytest.fixture
def copies(clips: pd.DataFrame, tmp_path: Path) -> pd.DataFrame:
    """Rows whose files may be removed: the first four of each class in train, and all of valid and test."""
    table = pd.concat([clips[clips["split"] == "train"].groupby("kind").head(4), clips[clips["split"] != "train"]])
    for path in table["path"]:
        (tmp_path / Path(path).name).write_bytes(Path(path).read_bytes())
    return table.assign(path=[Path(path).name for path in table["path"]]).reset_index(drop=True)


def write_table(table: pd.DataFrame, folder: Path) -> Path:
    table.to_csv(folder / "m.csv", index=False)
    return folder / "m.csv"


def with_faults(table: pd.DataFrame, folder: Path) -> tuple[Path, dict[str, tuple[int, str]]]:
    """A manifest with bad files in every split, their lines and what is to be said of them."""
    (folder / "text.wav").write_text("no audio")
    soundfile.write(str(folder / "nan.wav"), np.full(9000, np.nan), 16000, subtype="FLOAT")
    soundfile.write(str(folder / "empty.wav"), np.zeros(0), 16000)
    faults = {"text.wav": ("train", "cannot be read"), "nan.wav": ("valid", "NaN or infinite")}
    faults["empty.wav"] = ("test", "holds no samples")
    rows = [{"path": name, "kind": "tone", "split": split, "speaker": "x"} for name, (split, _) in faults.items()]
    manifest = write_table(pd.concat([table, pd.DataFrame(rows)]), folder)
    lines = manifest.read_text().splitlines()
    found = {name: next(i for i, line in enumerate(lines, 1) if line.startswith(name)) for name in faults}
    return manifest, {name: (found[name], message) for name, (_, message) in faults.items()}


def test_all_bad_files_of_all_splits_are_listed_before_anything_is_written(
    copies: pd.DataFrame, quick_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, faults = with_faults(copies, tmp_path)
    assert quick_run(manifest, tmp_path / "run") == 2
    shown = capsys.readouterr().err
    for name, (line, message) in faults.items():
        said = [row for row in shown.splitlines() if f"line {line}: " in row]
        assert len(said) == 1
        assert f"{tmp_path / name} " in said[0]
        assert message in said[0]
    assert "--on-error skip" in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "run").exists()


def test_bad_files_may_be_skipped_and_are_listed(
    copies: pd.DataFrame, quick_run: Run, run_command: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = pd.DataFrame([{"path": "gone.wav", "kind": "noise", "split": "train", "speaker": "x"}])
    manifest, faults = with_faults(pd.concat([copies, gone]), tmp_path)
    faults["gone.wav"] = (len(copies) + 2, "does not exist")
    run = tmp_path / "run"
    assert quick_run(manifest, run, "--on-error", "skip") == 0
    shown = capsys.readouterr().out
    assert f"4 bad clips left out: {run / 'skipped.csv'}" in shown
    assert "8 train, 4 valid, 6 test clips" in shown

    def check_list() -> None:
        skipped = pd.read_csv(run / "skipped.csv")
        assert sorted(skipped["split"]) == ["test", "train", "train", "valid"]
        for line, message in faults.values():
            assert message in skipped.set_index("line").loc[line, "reason"]

    check_list()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["n_clips"] == 6
    for split, n_skipped in (("valid", 1), ("test", 3)):  # with test come the training clips, for the baselines
        assert run_command("evaluate", run, "--split", split) == 0
        clips = "clip" if n_skipped == 1 else "clips"
        assert f"{n_skipped} bad {clips} left out: {run / 'skipped.csv'}" in capsys.readouterr().out
        check_list()
    assert json.loads((run / "metrics.json").read_text()) == metrics
    assert run_command("evaluate", run, "--split", "valid", "--on-error", "stop") == 2
    assert "does not exist" in capsys.readouterr().err
    assert run_command("evaluate", run, "--manifest", manifest, "--split", "train") == 0
    assert f"2 bad clips left out: {run / 'skipped_train_m.csv'}" in capsys.readouterr().out
    assert len(pd.read_csv(run / "skipped_train_m.csv")) == 2


def test_a_run_without_bad_files_has_no_list(plain_run: Path) -> None:
    assert not (plain_run / "skipped.csv").exists()


def test_a_class_that_loses_all_its_training_clips_is_an_error(
    copies: pd.DataFrame, quick_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in copies.loc[(copies["split"] == "train") & (copies["kind"] == "tone"), "path"]:
        (tmp_path / name).write_text("no audio")
    assert quick_run(write_table(copies, tmp_path), tmp_path / "run", "--on-error", "skip") == 2
    shown = capsys.readouterr().err
    assert "no training clip is left of these classes: tone" in shown
    assert shown.count("cannot be read") == 4
    assert not (tmp_path / "run").exists()


def test_a_split_that_loses_all_its_clips_is_an_error(
    copies: pd.DataFrame, quick_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in copies.loc[copies["split"] == "valid", "path"]:
        (tmp_path / name).unlink()
    assert quick_run(write_table(copies, tmp_path), tmp_path / "run", "--on-error", "skip") == 2
    shown = capsys.readouterr().err
    assert "valid clips: 4 bad rows" in shown
    assert "no clip is left" in shown


def lose_when_training_starts(monkeypatch: pytest.MonkeyPatch, files: list[Path]) -> None:
    start = RunRecorder.begin

    def lose(self: RunRecorder) -> None:
        for file in files:
            file.unlink()
        start(self)

    monkeypatch.setattr(RunRecorder, "begin", lose)


@pytest.mark.parametrize("workers", [0, 1])
def test_files_that_vanish_in_mid_training_are_listed_and_training_goes_on(
    copies: pd.DataFrame,
    quick_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workers: int,
) -> None:
    manifest, run = write_table(copies, tmp_path), tmp_path / "run"
    lost = [1, 6, len(copies) - 8, len(copies) - 1]  # two of train, and one of valid and test each
    assert copies["split"][lost].tolist() == ["train", "train", "valid", "test"]
    lose_when_training_starts(monkeypatch, [tmp_path / copies["path"][row] for row in lost])
    # Nothing is kept in memory, so that every excerpt is read from its file.
    options = ["--memory-mib", "0", "--on-error", "skip", "--workers", workers]
    assert quick_run(manifest, run, *options) == 0
    assert f"4 clips could no longer be read during the run: {run / 'skipped.csv'}" in capsys.readouterr().out
    skipped = pd.read_csv(run / "skipped.csv")
    assert sorted(skipped["line"]) == [row + 2 for row in lost]
    assert skipped["reason"].str.contains("does not exist").all()
    history = pd.read_csv(run / "history.csv")
    assert history["step"].tolist() == [3, 6]
    assert history.notna().all(axis=None)
    assert json.loads((run / "metrics.json").read_text())["n_clips"] == 5
    assert (history["valid_accuracy"] * 3).round(6).isin([0, 1, 2, 3]).all()  # three clips are left


@pytest.mark.parametrize("workers", [0, 1])
def test_files_that_vanish_are_listed_at_once(
    copies: pd.DataFrame, quick_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def die(*_: object, **__: object) -> None:
        raise RuntimeError("power cut")

    manifest, run = write_table(copies, tmp_path), tmp_path / "run"
    lose_when_training_starts(monkeypatch, [tmp_path / copies["path"][row] for row in (1, 6)])
    monkeypatch.setattr(RunRecorder, "validate", die)  # after two steps, which show each of the eight clips once
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(RuntimeError, match="power cut"):
        quick_run(manifest, run, "--memory-mib", "0", "--on-error", "skip", "--workers", workers)
    assert sorted(pd.read_csv(run / "skipped.csv")["line"]) == [3, 8]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_vanishes_ends_training_with_its_name_unless_it_is_skipped(
    copies: pd.DataFrame,
    quick_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workers: int,
) -> None:
    lose_when_training_starts(monkeypatch, [tmp_path / copies["path"][1]])
    options = ["--memory-mib", "0", "--workers", workers]
    assert quick_run(write_table(copies, tmp_path), tmp_path / "run", *options) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"audiostride: audio file {tmp_path / copies['path'][1]} does not exist")


def test_all_training_files_gone_is_an_error(
    copies: pd.DataFrame,
    quick_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lose_when_training_starts(monkeypatch, [tmp_path / path for path in copies["path"]])
    options = ["--memory-mib", "0", "--on-error", "skip"]
    assert quick_run(write_table(copies, tmp_path), tmp_path / "run", *options) == 2
    assert "none of the 4 clips of a batch can be read; is the disk still there?" in capsys.readouterr().err

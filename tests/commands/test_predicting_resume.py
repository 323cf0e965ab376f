"""A job of predictions that was stopped, by whatever, goes on; nothing half-written stands at its place."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from audiostride.inference import job
from audiostride.inference.journal import Journal

Run = Callable[..., int]
N_FILES = 40


def write_files(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        samples = rng.uniform(-0.9, 0.9, 1600 + 400 * (number % 7)) * (number % 5) / 4
        soundfile.write(str(folder / f"{number:04d}.wav"), samples, 16000)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short files, one of which is none."""
    folder = write_files(tmp_path_factory.mktemp("many") / "files", N_FILES)
    (folder / "0021.wav").write_text("no audio")
    return folder


@pytest.fixture
def predict(run_command: Run, model_file: Path, folder: Path, tmp_path: Path) -> Callable[..., int]:
    def run(*options: object, path: Path = folder) -> int:
        return run_command("predict", model_file, path, "-o", tmp_path / "p.csv", "--batch-size", "4", *options)

    return run


@pytest.fixture
def expected(predict: Callable[..., int], tmp_path: Path) -> dict[str, bytes]:
    """What one whole job writes."""
    assert predict() == 2
    found = {}
    for name in ("p.csv", "p.errors.csv"):
        found[name] = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
    assert list(tmp_path.iterdir()) == []
    assert found["p.csv"].count(b"\n") == N_FILES  # a head, and all files but one
    return found


def check_whole(tmp_path: Path, expected: dict[str, bytes]) -> None:
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == expected
    assert pd.read_csv(tmp_path / "p.csv")["path"].is_unique


class Stopped(BaseException):
    """What no code catches, like the end of a process."""


def stop_at(patch: pytest.MonkeyPatch, count: int) -> None:
    """Stop a job at the journal's line of that number."""
    add, added = Journal.add, [0]

    def add_some(self: Journal, *arguments: object, **options: object) -> None:
        if added[0] == count:
            raise Stopped
        added[0] += 1
        add(self, *arguments, **options)

    patch.setattr(Journal, "add", add_some)


def begin(count: int, predict: Callable[..., int], *options: str) -> None:
    """A job that is stopped after some lines."""
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, count)
        with pytest.raises(Stopped):
            predict(*options)


@pytest.mark.parametrize("options", [[], ["--resume"]])
def test_a_stopped_job_goes_on_where_it_was(
    predict: Callable[..., int], expected: dict[str, bytes], tmp_path: Path, options: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    done = 0
    for count in (0, 1, 24, 7):
        begin(count, predict, *options)
        done += count
        assert [path.name for path in tmp_path.iterdir()] == ["p.csv.partial"]
        assert len((tmp_path / "p.csv.partial" / "part0of1.jsonl").read_text().splitlines()) == done
    capsys.readouterr()
    assert predict(*options) == 2
    assert f"goes on with a job that was stopped: 32 of {N_FILES} files are done" in capsys.readouterr().out
    check_whole(tmp_path, expected)


def test_a_line_that_was_cut_off_is_written_again(
    predict: Callable[..., int], expected: dict[str, bytes], tmp_path: Path
) -> None:
    for cut in (1, 30, 31):
        begin(10, predict, "--overwrite")
        journal = tmp_path / "p.csv.partial" / "part0of1.jsonl"
        content = journal.read_bytes()
        journal.write_bytes(content[: len(content) - cut])
        assert predict() == 2
        check_whole(tmp_path, expected)
        for name in expected:
            (tmp_path / name).unlink()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_job_that_was_stopped_at_its_end_goes_on(
    predict: Callable[..., int], expected: dict[str, bytes], tmp_path: Path, number: int
) -> None:
    """While the list of errors or the table is put in place, or behind that."""
    with pytest.MonkeyPatch.context() as patch:
        replace, calls = job.replace_output, []

        def stop(*arguments: Path) -> None:
            calls.append(arguments)
            if len(calls) > number:
                raise Stopped
            replace(*arguments)

        def stop_removing(*_: object) -> None:
            raise Stopped

        patch.setattr(job, "replace_output", stop)
        patch.setattr(job.PredictionJob, "discard", stop_removing)
        with pytest.raises(Stopped):
            predict()
    assert (tmp_path / "p.csv").exists() == (number == 2)
    assert predict("--resume") == 2
    check_whole(tmp_path, expected)


def test_resume_does_nothing_where_the_output_stands(
    predict: Callable[..., int], expected: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("--resume") == 2
    stamp = (tmp_path / "p.csv").stat().st_mtime_ns
    assert predict("--resume") == 2, "as when it was made: a file could not be read"
    assert f"{tmp_path / 'p.csv'} stands, nothing to do" in capsys.readouterr().out
    assert (tmp_path / "p.csv").stat().st_mtime_ns == stamp
    assert predict() == 2
    assert f"{tmp_path / 'p.csv'} exists; choose another -o, or give --overwrite" in capsys.readouterr().err
    check_whole(tmp_path, expected)


def test_a_stopped_job_with_other_settings_is_not_taken_up(
    predict: Callable[..., int], expected: dict[str, bytes], folder: Path, tmp_path: Path, make_model_file,
    run_command: Run, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    begin(5, predict)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for options, lines in [
        (["--hop", "0.5"], ["  hop_s: 1.0 -> 0.5"]),
        (["--top", "2"], ["  top: None -> 2"]),
        (["--all-scores"], ["  all_scores: None -> True"]),
        (["--events"], ["  rows per: window -> event", "  threshold: None -> 0.5", "  merge_gap_s: None -> 0.0"]),
        ([], [f"  files: {N_FILES} (list ", " -> 1 (list "]),
    ]:
        assert predict(*options, "--resume", path=folder if options else folder / "0000.wav") == 2
        said = capsys.readouterr().err
        assert all(line in said for line in [*lines, "give its command to go on, or --overwrite to begin anew"])
    other = make_model_file(fmax_hz=7000.0)
    assert run_command("predict", other, folder, "-o", tmp_path / "p.csv") == 2
    assert "  model: " in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == kept
    assert predict("--overwrite") == 2
    assert "goes on" not in capsys.readouterr().out
    check_whole(tmp_path, expected)


def test_an_output_stays_until_its_successor_is_whole(
    predict: Callable[..., int], expected: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text("of before")
    begin(30, predict, "--overwrite")
    assert (tmp_path / "p.csv").read_text() == "of before"
    assert predict() == 2, "it exists"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, N_FILES - 30)  # and no more
        assert predict("--overwrite", "--resume") == 2
    check_whole(tmp_path, expected)


def test_a_folder_of_something_else_is_left_alone(
    predict: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.csv.partial").mkdir()
    (tmp_path / "p.csv.partial" / "mine").write_text("precious")
    assert predict("--overwrite") == 2
    assert "is not the folder of a stopped job" in capsys.readouterr().err
    assert (tmp_path / "p.csv.partial" / "mine").read_text() == "precious"


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_two_jobs_do_not_write_one_output(
    predict: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(3, predict)
    with (tmp_path / "p.csv.partial" / "part0of1.jsonl").open("a+b") as held:
        import fcntl

        fcntl.flock(held, fcntl.LOCK_EX)
        assert predict() == 2
    assert "another process is at work on" in capsys.readouterr().err
    assert len((tmp_path / "p.csv.partial" / "part0of1.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_killed_job_of_a_thousand_files_tells_of_each_once(
    model_file: Path, run_command: Run, tmp_path: Path
) -> None:
    folder = write_files(tmp_path / "files", 1000)
    out = tmp_path / "p.csv"
    command = [sys.executable, "-m", "audiostride", "predict", str(model_file), str(folder), "-o", str(out)]
    journal = tmp_path / "p.csv.partial" / "part0of1.jsonl"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    lines: list[int] = []
    for least in (1, 600):
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as begun:
            deadline = time.monotonic() + 120
            while not journal.exists() or journal.read_bytes().count(b"\n") < least:
                assert begun.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.001)
            begun.send_signal(signal.SIGKILL)
        assert not out.exists()
        lines.append(journal.read_bytes().count(b"\n"))
    assert 1 <= lines[0] < lines[1] < 1000
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"{lines[1]} of 1000 files are done" in done.stdout
    assert "1000 of 1000 files -> " in done.stdout
    table = pd.read_csv(out)
    assert table["path"].tolist() == sorted(str(path) for path in folder.iterdir())
    assert run_command("predict", model_file, folder, "-o", tmp_path / "whole.csv") == 0
    assert (tmp_path / "whole.csv").read_bytes() == out.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"files", "p.csv", "whole.csv"}


def test_the_journal_is_lines_of_json(predict: Callable[..., int], tmp_path: Path) -> None:
    begin(25, predict)
    lines = (tmp_path / "p.csv.partial" / "part0of1.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [Path(entry["path"]).stem for entry in entries] == [f"{number:04d}" for number in range(25)]
    assert [number for number, entry in enumerate(entries) if "error" in entry] == [21]

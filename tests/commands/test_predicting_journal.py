"""What a stopped job of predictions left is taken up as far as it is whole: windows, lines, the job itself."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from audiostride import InputError, load_classifier
from audiostride.distributed import Processes
from audiostride.inference import journal
from audiostride.inference.granularity import RecordingResult
from audiostride.inference.journal import Journal, Share, describe_job
from audiostride.inference.recordings import expand_paths
from audiostride.inference.settings import PredictionSettings

Run = Callable[..., int]
N_SHORT = 5
LEVELS = [
    [],
    ["--per-window"],
    ["--events", "--threshold", "0.4", "--merge-gap", "0.3"],
    ["--events", "--threshold", "0.4", "--min-windows", "3"],
]


class Stopped(BaseException):
    """What no code catches, like the end of a process."""


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short recordings, and behind the second a long one of another rate, whose loudness goes up and down."""
    folder, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for number in range(N_SHORT):
        samples = rng.uniform(-0.9, 0.9, 3000 + 4000 * number) * number / N_SHORT
        soundfile.write(str(folder / f"{number}.wav"), samples, 16000)
    loud = np.abs(np.sin(np.arange(22050 * 40) / 22050 / 3))
    soundfile.write(str(folder / "2 long.wav"), loud * rng.uniform(-0.9, 0.9, len(loud)), 22050)
    return folder


@pytest.fixture
def predict(run_command: Run, model_file: Path, sounds: Path, tmp_path: Path) -> Callable[..., int]:
    def run(*options: object, out: str = "p.csv", path: Path = sounds) -> int:
        shared = ["--batch-size", "4", "--hop", "0.25", "--device", "cpu"]
        return run_command("predict", model_file, path, "-o", tmp_path / out, *shared, *options)

    return run


@pytest.fixture
def stop_inside(predict: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Stops a job inside the long recording, behind at least so many windows; how many of them are kept."""

    def run(least: int, *options: object) -> int:
        kept = []
        keep = Journal.keep

        def keep_and_stop(self: Journal, result: RecordingResult, n_windows: int) -> None:
            keep(self, result, n_windows)
            kept.append(n_windows)
            if n_windows >= least:
                raise Stopped

        with monkeypatch.context() as patch:
            patch.setattr(journal, "KEEP_EVERY_S", 0.0)
            patch.setattr(journal, "KEEP_PAUSE", 0)
            patch.setattr(Journal, "keep", keep_and_stop)
            with pytest.raises(Stopped):
                predict(*options)
        return kept[-1]

    return run


@pytest.mark.parametrize("level", LEVELS)
def test_a_job_goes_on_inside_a_recording(
    predict: Callable[..., int], stop_inside: Callable[..., int], level: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert predict(*level, out="whole.csv") == 0
    first = stop_inside(20, *level)
    second = stop_inside(70, *level)
    assert 20 <= first < 40 < 70 <= second < 90
    said = capsys.readouterr().out
    assert f"goes on with a job that was stopped: 2 of {N_SHORT + 1} files are done, and {first} windows of the" in said
    computed = []
    kinds = [kind for kind in journal.RecordingResult.__subclasses__() if kind.__module__.startswith("audiostride")]
    assert len(kinds) == 5
    for kind in kinds:
        add = kind.add

        def count(self: RecordingResult, first: int, logits: dict[str, Any], add: Any = add) -> None:
            computed.append((self.tiling.n_windows, first, len(logits["kind"])))
            add(self, first, logits)

        monkeypatch.setattr(kind, "add", count)
    assert predict(*level) == 0
    long = [(first, n) for n_windows, first, n in computed if n_windows > 100]
    assert (long[0][0], sum(n for _, n in long)) == (second, 157 - second), "no window is computed again"
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv", "whole.csv"]


def test_what_was_kept_of_another_recording_or_was_changed_is_not_taken(
    predict: Callable[..., int], stop_inside: Callable[..., int], sounds: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert predict("--per-window", out="whole.csv") == 0
    stop_inside(40, "--per-window")
    shutil.copytree(tmp_path / "p.csv.partial", tmp_path / "kept")
    kept = (tmp_path / "kept" / "part0of1.begun.json").read_bytes()
    lines = (tmp_path / "kept" / "part0of1.jsonl").read_bytes().splitlines(keepends=True)
    for begun, done in [
        (kept[:-9], lines),
        (kept.replace(b'"a"', b'"b"', 1), lines),
        (b"", lines),
        (kept, lines[:1]),  # another recording is next
    ]:
        (tmp_path / "p.csv.partial" / "part0of1.begun.json").write_bytes(begun)
        (tmp_path / "p.csv.partial" / "part0of1.jsonl").write_bytes(b"".join(done))
        capsys.readouterr()
        assert predict("--per-window", "--resume") == 0
        assert "windows of the next one" not in capsys.readouterr().out
        assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
        (tmp_path / "p.csv").unlink()
        shutil.copytree(tmp_path / "kept", tmp_path / "p.csv.partial")


def test_a_recording_of_another_length_is_done_from_its_start(
    predict: Callable[..., int], stop_inside: Callable[..., int], sounds: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(sounds, own)
    path = sounds / "2 long.wav"
    stop_inside(40, "--per-window")
    samples, rate = soundfile.read(str(path))
    try:
        soundfile.write(str(path), np.concatenate([samples[::-1], samples[:rate]]), rate)
        assert predict("--per-window") == 0
        assert predict("--per-window", out="whole.csv") == 0
    finally:
        shutil.copy(own / path.name, path)
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert pd.read_csv(tmp_path / "p.csv")["end_s"].max() == 41


@pytest.fixture
def stopped(
    predict: Callable[..., int], model_file: Path, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Callable[[Path], list[Any]], list[Any]]:
    """The folder of a job stopped before its last recording, what reads such a folder, and what it holds."""
    add = Journal.add

    def stop(self: Journal, path: str, **rest: Any) -> None:
        if self.n_done == N_SHORT:
            raise Stopped
        add(self, path, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", stop)
        with pytest.raises(Stopped):
            predict("--per-window")
    model, recordings = load_classifier(model_file), expand_paths([sounds])
    settings = PredictionSettings(granularity="window", hop_s=0.25)
    job = describe_job(model, recordings, settings, processes=1)
    paths = [recording.path for recording in recordings]

    def read(folder: Path) -> list[Any]:
        return [entry for entry, _, _ in Share(folder, Processes(), job, paths, model.config.tasks).read()]

    folder = tmp_path / "p.csv.partial"
    found = read(folder)
    assert [entry["path"] for entry in found] == paths[:-1]
    return folder, read, found


def change(content: bytes, rng: np.random.Generator) -> bytes:
    """A file with something changed, left out, put in, doubled, or cut off."""
    lines = content.splitlines(keepends=True)
    one, other = (int(place) for place in np.sort(rng.integers(0, len(content), 2)))
    first, second = (int(number) for number in rng.integers(0, len(lines), 2))
    changed = [
        content[:one] + bytes([content[one] ^ (1 << int(rng.integers(0, 8)))]) + content[one + 1 :],
        content[:one] + content[other:],
        content[:one] + content[one:other] * 2 + content[other:],
        content[:one] + rng.bytes(3) + content[one:],
        content[:one],
        b"".join(lines[:first] + lines[second:]),
        b"".join([*lines[:first], lines[second], *lines[first:]]),
        content.replace(b"0.", b"0.1", 1),
        b"".join([*lines[:first], b'{"path":"x","rows":5}\n', *lines[first + 1 :]]),
        b"".join([*lines[:first], b'"rows"\n', *lines[first + 1 :]]),
        b"".join([*lines[:first], b"[" * 100000 + b"\n", *lines[first + 1 :]]),
    ]
    return changed[int(rng.integers(0, len(changed)))]


def test_no_changed_line_is_taken_for_a_whole_one(stopped: Any) -> None:
    folder, read, before = stopped
    file, job_file, rng, lengths = folder / "part0of1.jsonl", folder / "job.json", np.random.default_rng(0), []
    content, job = file.read_bytes(), job_file.read_bytes()
    for _ in range(400):
        file.write_bytes(change(content, rng))
        found = read(folder)
        assert found == before[: len(found)]
        lengths.append(len(found))
    assert set(lengths) == set(range(N_SHORT + 1)), "what stands before the change is kept"
    file.write_bytes(content)
    refused = 0
    for _ in range(200):
        job_file.write_bytes(change(job, rng))
        try:
            found = read(folder)
        except InputError as error:
            found = before if re.search("--overwrite to begin anew|begin anew with --overwrite", str(error)) else None
            refused += 1
        assert found == before, "and no harm where the change means nothing"
    assert 150 < refused < 200


@pytest.mark.parametrize("line", [0, 2, N_SHORT - 1])
def test_what_follows_a_changed_line_is_done_again_and_said(
    predict: Callable[..., int], stopped: Any, line: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = stopped[0] / "part0of1.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    lines[line] = lines[line].replace('"kind"', '"kinb"', 1)
    file.write_text("".join(lines))
    capsys.readouterr()
    assert predict("--per-window") == 0
    said = capsys.readouterr()
    assert f"was changed behind line {line}: what the {N_SHORT - line} lines there tell of" in said.err
    assert (f"{line} of {N_SHORT + 1} files are done" in said.out) == (line > 0)
    assert predict("--per-window", out="whole.csv") == 0
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_journal_that_is_changed_meanwhile_makes_no_output(
    predict: Callable[..., int], stopped: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    add = Journal.add

    def change_and_add(self: Journal, *arguments: Any, **rest: Any) -> None:
        self.path.write_bytes(self.path.read_bytes()[5:])
        add(self, *arguments, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", change_and_add)
        assert predict("--per-window") == 2
    assert "6 of its 6 recordings are lost; give the same command again" in capsys.readouterr().err
    assert not (tmp_path / "p.csv").exists()
    assert predict("--per-window") == 0


def old_lines(folder: Path) -> list[dict[str, Any]]:
    """Turns a job into what version 0.1.0 left; its lines."""
    job = json.loads((folder / "job.json").read_text())
    (folder / "job.json").write_text(json.dumps({**job, "format": 1}))
    entries = [json.loads(line) for line in (folder / "part0of1.jsonl").read_text().splitlines()]
    for entry in entries:
        del entry["check"]
    return entries


def write_lines(folder: Path, entries: list[Any]) -> None:
    (folder / "part0of1.jsonl").write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))


@pytest.mark.parametrize(
    "change",
    [
        {"path": "gone.wav"}, {"rows": 5}, {"rows": [[0.0, 1.0, "kind", "a"]]}, {"rows": [["0", 1, "kind", "a", 0.5]]},
        {"rows": [[0.0, 1.0, "kind", "z", 0.5]]}, {"rows": [[0.0, 1.0, "kinb", "a", 0.5]]}, {"rows": ["abcde"]},
        {"rows": [[0.0, 1.0, ["kind"], "a", 0.5]]}, {"rows": [[0.0, 1.0, "kind", "a", 1.5]]}, {"rows": None},
        {"rows": [[0.0, float("inf"), "kind", "a", 0.5]]}, {"rows": [[0.0, 1.0, "kind", "a", float("nan")]]},
        {"rows": [[1.0, 0.0, "kind", "a", 0.5]]}, {"error": "both"}, {"check": "0123456789abcdef"},
    ],
)  # fmt: skip
def test_a_line_of_version_0_1_0_must_be_one(stopped: Any, change: dict[str, Any]) -> None:
    folder, read, _ = stopped
    job = (folder / "job.json").read_text()
    entries = old_lines(folder)
    write_lines(folder, entries)
    assert read(folder) == entries
    old_job = (folder / "job.json").read_text()
    (folder / "job.json").write_text(job)
    assert read(folder) == [], "now lines have checksums"
    (folder / "job.json").write_text(old_job)
    entries[3] |= change
    write_lines(folder, entries)
    assert read(folder) == entries[:3]
    (folder / "part0of1.jsonl").write_text('"rows"\n')
    assert read(folder) == []


def test_a_job_of_version_0_1_0_goes_on_with_checksums(
    predict: Callable[..., int], stopped: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, read, _ = stopped
    entries = old_lines(folder)
    write_lines(folder, entries[:3])

    def stop(*_: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("audiostride.inference.job.PredictionJob.finish", stop)
        with pytest.raises(Stopped):
            predict("--per-window")
    assert [set(entry) for entry in read(folder)] == [{"path", "rows"}] * 3 + [{"path", "rows", "check"}] * 3
    lines = (folder / "part0of1.jsonl").read_text().splitlines(keepends=True)
    (folder / "part0of1.jsonl").write_text("".join([*lines[:4], lines[4].replace("0.", "0.1", 1), *lines[5:]]))
    assert len(read(folder)) == 4
    assert predict("--per-window") == 0
    assert predict("--per-window", out="whole.csv") == 0
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()

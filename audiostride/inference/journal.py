"""What a job of predictions has done so far, kept so that a stopped one goes on: a folder beside the output.

``OUT.partial`` holds ``job.json``, the settings, and a journal for each process: a line of JSON per recording, in
order, with its rows or with why it could not be read. A line is written when a recording is done; of a long one the
windows so far are kept beside the journal from time to time, so that whatever kills the process costs seconds. Each
line ends in a checksum of itself and of what stands before it, the settings first: a line that was changed, is missing
or stands in another place is told from a whole one, and the job goes on from there. The output is made from the
journals at the end.
"""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiostride.checks import read_json
from audiostride.distributed import Processes
from audiostride.errors import InputError, reason_of
from audiostride.inference.granularity import RecordingResult
from audiostride.inference.model import Model
from audiostride.inference.multi_label import THRESHOLD
from audiostride.inference.recordings import Recording
from audiostride.inference.settings import AUTO, PredictionSettings
from audiostride.writing import write_bytes, write_json

JOB_FORMAT = 2  # in 1, of version 0.1.0, lines have no checksums
# Windows of a long recording are kept after this time, and so seldom that it takes a twentieth of the time.
KEEP_EVERY_S, KEEP_PAUSE = 20.0, 20
CHECK = b', "check": "'


def errors_file(out: Path) -> Path:
    """The table of what could not be read, beside the predictions.

    >>> errors_file(Path("predictions.parquet")).name
    'predictions.errors.csv'
    """
    return out.with_name(f"{out.stem}.errors.csv")


CHOICES = ("classes", "background", "top", "min_score", "all_scores", "date_time")  # of the settings: what rows have


def partial_folder(out: Path) -> Path:
    """Where a job keeps what it has done."""
    return out.with_name(f"{out.name}.partial")


def describe_job(
    model: Model, recordings: Sequence[Recording], settings: PredictionSettings, *, processes: int
) -> dict[str, Any]:
    """What must be the same for a job to go on: model, recordings, settings and number of processes."""
    listed = hashlib.blake2b(digest_size=8)
    for each in recordings:
        place = [each.path, each.start_s, repr(each.duration_s), each.store, each.index]
        listed.update(json.dumps(place).encode())
    event = settings.granularity == "event"
    return {
        "format": JOB_FORMAT,
        "model": model.checksum(),
        "files": f"{len(recordings)} (list {listed.hexdigest()})",
        "rows per": settings.granularity,
        "hop_s": settings.hop_samples(model.config) / model.config.sample_rate,
        "threshold": _describe_threshold(settings) if event or model.config.multi_label else None,
        "merge_gap_s": (settings.merge_gap_s or 0.0) if event else None,
        **({"min_windows": settings.min_windows} if (settings.min_windows or 1) > 1 else {}),
        **{name: value for name in CHOICES if (value := getattr(settings, name))},
        "processes": processes,
    }


def _describe_threshold(settings: PredictionSettings) -> float | str:
    if settings.thresholds is not None:
        return f"{AUTO}: {json.dumps(settings.thresholds, sort_keys=True)}"
    return THRESHOLD if settings.threshold is None else settings.threshold


def begin_job(out: Path, job: Mapping[str, Any], *, anew: bool) -> Path:
    """The folder of a job that begins or goes on.

    Args:
        out: The output.
        job: As `describe_job` says.
        anew: Whether what another job has left there is removed.

    Raises:
        InputError: What lies there is of a job with other settings, or of something else; the place is not writable.
    """
    folder = partial_folder(out)
    try:
        if folder.is_dir() and not (folder / "job.json").is_file() and any(folder.iterdir()):
            raise InputError(
                f"predict: {folder} is not the folder of a stopped job; move it away, or choose another -o"
            )
        if anew and folder.is_dir():
            shutil.rmtree(folder)
        with suppress(FileNotFoundError):
            errors_file(out).lstat()  # a name that is too long is told of here, and not when all is done
        folder.mkdir(exist_ok=True)
        if (folder / "job.json").is_file():
            check_job(folder, job)
        else:
            write_json(folder / "job.json", dict(job))
    except OSError as error:
        raise InputError(
            f"predict: {folder} must be a folder that can be written: {reason_of(error)}; choose another -o"
        ) from error
    return folder


def check_job(folder: Path, job: Mapping[str, Any]) -> bool:
    """Raise unless a folder is of this job, telling what differs; whether lines in it may have no checksums."""
    advice = "begin anew with --overwrite"
    found: dict[str, Any] = read_json("predict", folder / "job.json", dict[str, Any], advice=advice)
    now, old = json.loads(json.dumps(job)), found.get("format") == 1
    found |= {"format": JOB_FORMAT} if old else {}
    names = [name for name in {**found, **now} if found.get(name) != now.get(name)]
    if names:
        lines = "\n".join(f"  {name}: {found.get(name)} -> {now.get(name)}" for name in names)
        raise InputError(
            f"predict: {folder} is of a job with other settings, which was stopped:\n{lines}\n"
            "give its command to go on, or --overwrite to begin anew"
        )
    return old


def _checksum(before: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(before + body, digest_size=8).hexdigest().encode()


def _seal(values: Mapping[str, Any], before: bytes) -> tuple[bytes, bytes]:
    """A line with its checksum, given that of the line before, and the checksum."""
    body = json.dumps(values, allow_nan=False).encode()[:-1]  # ASCII: any name of a file
    check = _checksum(before, body)
    return body + CHECK + check + b'"}\n', check


def _unseal(line: bytes, before: bytes) -> tuple[Any, bytes] | None:
    """What `_seal` made a line of, and its checksum; None if it did not make it."""
    body = line.rpartition(CHECK)[0]
    check = _checksum(before, body)
    return (json.loads(line), check) if line == body + CHECK + check + b'"}\n' else None


def _read_old(line: bytes, path: str, tasks: Mapping[str, Sequence[str]]) -> Any:
    """A line of version 0.1.0, which has no checksum, if it can be of this recording; or None."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else {}
        json.dumps(entry, ensure_ascii=False).encode()  # what is no text would be found when the output is written
        whole = entry["path"] == path and len(entry) == 2
        if "rows" not in entry:
            return entry if whole and isinstance(entry["error"], str) else None
        for start_s, end_s, task, label, score in entry["rows"]:
            whole &= 0 <= start_s <= end_s < math.inf and label in tasks[task] and 0 <= score <= 1
        return entry if whole else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


@dataclass(frozen=True)
class Share:
    """What one process of a job does, and where its journal is."""

    folder: Path
    """Of the job."""
    processes: Processes
    """Which of them it is."""
    job: Mapping[str, Any]
    """As `describe_job` says."""
    paths: Sequence[str]
    """Of its recordings."""
    tasks: Mapping[str, Sequence[str]]
    """The model's, with their class names."""

    @property
    def journal(self) -> Path:
        """The file."""
        return self.folder / f"part{self.processes.rank}of{self.processes.count}.jsonl"

    def first_check(self) -> bytes:
        """What the checksums of the journal begin with."""
        return _checksum(self.journal.name.encode(), json.dumps(self.job, sort_keys=True).encode())

    def read(self) -> Iterator[tuple[dict[str, Any], bytes, int]]:
        """The lines of the journal, up to the first that is not whole or not of this job.

        Yields:
            ``path`` of a recording with its ``rows`` or the ``error``; the checksum of all up to there, and its length.

        Raises:
            InputError: The folder is of another job.
        """
        old, check, end = check_job(self.folder, self.job), self.first_check(), 0
        with self.journal.open("rb") as lines:
            for path, line in zip(self.paths, lines, strict=False):
                found = _unseal(line, check)
                if found is None and old and (values := _read_old(line, path, self.tasks)) is not None:
                    found = values, _checksum(check, line)
                if found is None:
                    return
                check, end = found[1], end + len(line)
                yield found[0], check, end


class Journal:
    """The journal of one process, open for more; a context.

    Args:
        share: What the process does.

    Attributes:
        path: The file.
        n_done: Recordings that it tells of.
        n_read: Those of them that could be read.
        n_lost: Lines behind them that were changed, or are of something else.
        begun: What was kept of the next recording: ``n_samples``, ``n_windows`` that are done and their ``state``.

    Raises:
        InputError: Another process is writing it; the folder is of another job.
    """

    def __init__(self, share: Share) -> None:
        self.path = share.journal
        self._file = self.path.open("a+b")
        if not _lock(self._file.fileno()):
            self._file.close()
            raise InputError(
                f"predict: another process is at work on {share.folder}; let it finish, or choose another -o"
            )
        self.n_done, self.n_read, end, self._check = 0, 0, 0, share.first_check()
        for entry, self._check, length in share.read():
            self.n_done += 1
            self.n_read += "rows" in entry
            end = length
        self._file.seek(end)
        # A line that was cut off when the process was killed is none, and is written again.
        self.n_lost = sum(line.endswith(b"\n") for line in self._file)
        self._file.truncate(end)
        self._kept, self._keep_at = self.path.with_suffix(".begun.json"), 0.0
        found = _unseal(self._kept.read_bytes(), self._check) if self._kept.is_file() else None
        self.begun: dict[str, Any] | None = None if found is None else found[0]

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, path: str, *, rows: Sequence[Sequence[Any]] | None = None, error: str | None = None) -> None:
        """Tell of the next recording: its rows, or why it could not be read."""
        entry: dict[str, Any] = {"path": path, "error": error} if rows is None else {"path": path, "rows": rows}
        line, self._check = _seal(entry, self._check)
        self._file.write(line)
        self._file.flush()
        self.n_done += 1
        self.n_read += rows is not None

    def keep(self, result: RecordingResult, n_windows: int) -> None:
        """Keep so many windows of the next recording, if it is time for that."""
        start = time.monotonic()
        if start < self._keep_at:
            return
        begun = {"n_samples": result.tiling.n_samples, "n_windows": n_windows, "state": result.state()}
        write_bytes(self._kept, _seal(begun, self._check)[0])
        end = time.monotonic()
        self._keep_at = end + max(KEEP_EVERY_S, KEEP_PAUSE * (end - start))


def _lock(descriptor: int) -> bool:
    """Whether nobody else has locked a file; it is locked until it is closed, or the process ends."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # A file system that knows no locks is used without.
        return not isinstance(error, BlockingIOError)
    return True


def replace_output(made: Path, out: Path) -> None:
    """Put a finished file or folder in its place, in the place of what is there."""
    if made.is_dir() and out.is_dir():
        before = made.with_name("replaced")
        shutil.rmtree(before, ignore_errors=True)
        os.replace(out, before)
    os.replace(made, out)

"""What a job of predictions has done so far, kept so that a stopped one goes on: a folder beside the output.

``OUT.partial`` holds ``job.json``, the settings, and a journal for each process: a line of JSON per recording, in
order, with its rows or with why it could not be read. A line is written when a recording is done, so that whatever
kills the process costs no more than the recordings under way. The output is made from the journals at the end.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.inference.granularity import PredictionSettings
from audiostride.inference.model import Model
from audiostride.inference.recordings import Recording
from audiostride.writing import write_json

JOB_FORMAT = 1


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
        "threshold": (0.5 if settings.threshold is None else settings.threshold) if event else None,
        "merge_gap_s": (settings.merge_gap_s or 0.0) if event else None,
        "processes": processes,
    }


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
        folder.mkdir(exist_ok=True)
        if (folder / "job.json").is_file():
            check_job(folder, job)
        else:
            write_json(folder / "job.json", dict(job))
    except OSError as error:
        raise InputError(
            f"predict: {folder} must be a folder that can be written: {error}; choose another -o"
        ) from error
    return folder


def check_job(folder: Path, job: Mapping[str, Any]) -> None:
    """Raise unless a folder is of this job, telling what differs."""
    try:
        found = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no table of settings")
    except (OSError, ValueError) as error:
        raise InputError(f"predict: {folder}/job.json cannot be read: {error}; begin anew with --overwrite") from error
    now = json.loads(json.dumps(job))
    names = [name for name in {**found, **now} if found.get(name) != now.get(name)]
    if names:
        lines = "\n".join(f"  {name}: {found.get(name)} -> {now.get(name)}" for name in names)
        raise InputError(
            f"predict: {folder} is of a job with other settings, which was stopped:\n{lines}\n"
            "give its command to go on, or --overwrite to begin anew"
        )


class Journal:
    """The journal of one process, open for more; a context.

    Args:
        folder: Of the job.
        processes: Which of them this is.

    Attributes:
        n_done: Recordings that it tells of.
        n_read: Those of them that could be read.

    Raises:
        InputError: Another process is writing it.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.path = journal_path(folder, processes)
        self._file = self.path.open("a+b")
        if not _lock(self._file.fileno()):
            self._file.close()
            raise InputError(f"predict: another process is at work on {folder}; let it finish, or choose another -o")
        self.n_done, self.n_read, end = 0, 0, 0
        self._file.seek(0)
        for line in self._file:
            # A line that was cut off when the process was killed is written again.
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                entry = None
            if entry is None:
                break
            end += len(line)
            self.n_done += 1
            self.n_read += "rows" in entry
        self._file.truncate(end)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, path: str, *, rows: Sequence[Sequence[Any]] | None = None, error: str | None = None) -> None:
        """Tell of the next recording: its rows, or why it could not be read."""
        entry: dict[str, Any] = {"path": path, "error": error} if rows is None else {"path": path, "rows": rows}
        self._file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._file.flush()
        self.n_done += 1
        self.n_read += rows is not None


def journal_path(folder: Path, processes: Processes) -> Path:
    """Where a process keeps its journal.

    >>> journal_path(Path("p.csv.partial"), Processes(rank=1, count=4)).name
    'part1of4.jsonl'
    """
    return folder / f"part{processes.rank}of{processes.count}.jsonl"


def read_journals(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """The lines of all journals of a job of so many processes, in the order of the recordings."""
    for rank in range(count):
        with journal_path(folder, Processes(rank, count)).open(encoding="utf-8") as file:
            yield from map(json.loads, file)


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

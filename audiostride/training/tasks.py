"""The tasks of a run as the command line names them, and the manifests that they come from."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from audiostride.errors import InputError

MAX_TASK_BYTES = 200  # of 255 that a file name may have


@dataclass(frozen=True)
class Source:
    """A manifest, and the tasks that it has labels for."""

    manifest: str
    """CSV table, folder of class folders, or store."""
    labels: dict[str, str]
    """Column with the labels of each task."""


def split_task(entry: str, what: str = "train: a task") -> tuple[str, str, str]:
    """Name, manifest and column of ``NAME=MANIFEST:COLUMN``; `what` it is of, for the message."""
    name, _, rest = entry.partition("=")
    manifest, _, column = rest.rpartition(":")
    if not (name and manifest and column):
        raise InputError(f"{what} must be NAME=MANIFEST:COLUMN, got {entry!r}")
    return name, manifest, column


def absolute_task(entry: str) -> str:
    """The same ``NAME=MANIFEST:COLUMN`` with the manifest's whole path."""
    name, manifest, column = split_task(entry)
    return f"{name}={os.path.abspath(manifest)}:{column}"


def check_task_names(names: Sequence[str]) -> None:
    """Raise unless tables of a run may have the names of its tasks in theirs, on every file system."""
    for name in names:
        marks = "".join(sorted({repr(sign)[1:-1] for sign in name if sign in '<>:"/\\|?*' or not sign.isprintable()}))
        long = len(name.encode("utf-8", "replace")) > MAX_TASK_BYTES
        alike = [each for each in names if each.casefold() == name.casefold() and each != name]
        if marks or long or alike:
            raise InputError(
                f"train: names of tasks must be ones that files may have: at most {MAX_TASK_BYTES} bytes, different in "
                f'more than capitals, and without control characters and <>:"/\\|?*, got {name!r}; rename it'
            )

"""The files of a report: their names, and writing all of them or none."""

import re
from collections.abc import Container, Mapping
from contextlib import suppress
from pathlib import Path

from audiostride.errors import InputError
from audiostride.writing import write_bytes


def file_name(name: str, suffix: str, taken: Container[str] = ()) -> str:
    """A name that every file system takes, and that is not taken yet.

    >>> file_name("per_class_a/b <c>", "csv"), file_name("x", "md", ["x.md"])
    ('per_class_a_b_c.csv', 'x_2.md')
    """
    stem = re.sub(r"[^\w.-]+", "_", name).strip("_.")[:80] or "unnamed"
    found, number = f"{stem}.{suffix}", 2
    while found in taken:
        found, number = f"{stem}_{number}.{suffix}", number + 1
    return found


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files in order, making their folders; after a failure nothing new is left.

    Raises:
        InputError: One that cannot be written.
    """
    new: list[Path] = []
    try:
        for path, content in contents.items():
            if not path.parent.exists():
                path.parent.mkdir()
                new.append(path.parent)
            new.append(path.with_name(path.name + ".partial"))
            existed = path.exists()
            write_bytes(path, content)
            new.pop()
            if not existed:
                new.append(path)
    except OSError as error:
        for path in reversed(new):
            with suppress(OSError):  # such as one that was never made
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()
        raise InputError(
            f"report: its files must be written, but writing failed: {error}; choose another place with -o"
        ) from error

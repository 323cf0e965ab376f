"""Writing files whole or not at all: a process killed in between leaves the old file or the new one."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from audiostride.errors import explain

PARTIAL = ".partial"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A partial file beside `path` to write, which replaces it at once; where writing fails, none is left.

    Raises:
        InputError: Writing failed: a full disk, no permission, a name too long.
    """
    partial = Path(path).with_name(Path(path).name + PARTIAL)
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError | UnicodeError):
            raise explain(error, f"{path} cannot be written") from error
        raise


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file through a partial one beside it, which replaces it at once; raises as `replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | Path, content: str) -> None:
    """Write a text file in UTF-8, whole or not at all; raises as `replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode("utf-8"))


def write_json(path: str | Path, values: Any) -> None:
    """Write readable JSON, whole or not at all; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def make_folder(path: str | Path) -> None:
    """Make a folder, and those that it lies in, where there is none; raises as `replacing`."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(error, f"{path} cannot be written") from error

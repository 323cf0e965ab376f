"""Writing files whole or not at all: a process killed in between leaves the old file or the new one."""

import json
import os
from pathlib import Path
from typing import Any


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file through a partial one beside it, which replaces it at once."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def write_text(path: str | Path, content: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: str | Path, values: Any) -> None:
    """Write readable JSON, whole or not at all; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

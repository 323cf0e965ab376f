"""What lies in folders: names and kinds from one `scandir` per folder, without a look at the files."""

import os
from collections.abc import Callable
from pathlib import Path

from audiostride.errors import InputError


def list_folder(folder: str | Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, sorted; hidden ones (with a leading dot) are left out.

    Raises:
        InputError: There is no such folder, or it may not be read.
    """
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise InputError(f"import: ROOT must be a folder that can be read, got {folder}: {error.strerror}") from error
    return sorted(folders), sorted(files)


def list_below(root: str | Path) -> list[str]:
    """Files at any depth below a folder, with slashes and relative to it; ``.x`` and ``_x`` folders are left out."""
    found: list[str] = []
    waiting, seen = [""], set()
    while waiting:
        inner = waiting.pop()
        folder = os.path.join(root, inner)
        # A link that leads back up would otherwise never end.
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        folders, files = list_folder(folder)
        waiting += [inner + name + "/" for name in folders if not name.startswith("_")]
        found += [inner + name for name in files]
    return sorted(found)


def find_home(root: Path, accepts: Callable[[list[str], list[str]], bool], *, otherwise: str) -> Path:
    """The folder that `accepts` its own folders and files: the root, else one below it, else the one above it.

    People give the folder that holds the archive's top folder, or one inside it.

    Raises:
        InputError: There is none (the message is `otherwise`), or several folders below the root are one.
    """
    folders, files = list_folder(root)
    if accepts(folders, files):
        return root
    below = [root / name for name in folders if _is_home(root / name, accepts)]
    if len(below) > 1:
        raise InputError(
            f"import: ROOT must hold the data set once, got {', '.join(path.name for path in below)}; give one of them"
        )
    if below:
        return below[0]
    above = Path(os.path.abspath(root)).parent
    if _is_home(above, accepts):
        return above
    raise InputError(otherwise)


def _is_home(folder: Path, accepts: Callable[[list[str], list[str]], bool]) -> bool:
    # A neighbour that may not be read is not what is looked for.
    return os.access(folder, os.R_OK | os.X_OK) and accepts(*list_folder(folder))


def path_prefix(root: Path, home: Path) -> str:
    """What makes a path relative to `home` one relative to `root`.

    >>> path_prefix(Path("data"), Path("data/set")), path_prefix(Path("data"), Path("data"))
    ('set/', '')
    """
    inner = os.path.relpath(home, root).replace(os.sep, "/")
    return "" if inner == "." else inner + "/"

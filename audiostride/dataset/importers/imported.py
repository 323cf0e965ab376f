"""What all importers do: list folders, name what differs from the card, write the clips as a manifest."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from audiostride.dataset.folders import list_folder as list_all
from audiostride.dataset.folders import walk_folder
from audiostride.dataset.splits import SPLITS
from audiostride.errors import InputError
from audiostride.wording import count_of, name_some
from audiostride.writing import write_text


@dataclass(frozen=True)
class Imported:
    """The clips of a data set, and how the tree on disk differs from what it should be."""

    name: str
    """Name of the data set, that of its card."""
    splits: str
    """Split scheme: official or paper-like."""
    labels: tuple[str, ...]
    """Label columns of `clips`."""
    clips: pd.DataFrame
    """One row per clip, sorted by ``path`` (with slashes, relative to the root); then labels, group, split and more."""
    findings: list[str]
    """What is missing or superfluous, each part named, and what must be known about the splits."""
    contradictions: list[str]
    """Where the tree contradicts itself: metadata and files that exclude each other."""


def finish_import(
    clips: pd.DataFrame,
    columns: Sequence[str],
    card: Mapping[str, Any],
    *,
    root: Path,
    home: Path,
    splits: str,
    findings: list[str],
    contradictions: list[str],
) -> Imported:
    """The clips as a manifest has them, with their paths from `root` on and what differs from the card.

    Args:
        clips: With ``file``, relative to `home`, and ``split``.
        columns: To be kept.
        card: Of the data set.
        root: As it was given.
        home: Where the data set lies.
        splits: Split scheme.
        findings, contradictions: So far. Counts per split that are not the card's, and classes of the card without any
            clip, are added to the findings. Classes that are numbers (pitch) are a range on the card, of which not
            every one need occur.
    """
    clips = clips.sort_values("file", ignore_index=True)
    inner = os.path.relpath(home, root).replace(os.sep, "/")
    clips["path"] = ("" if inner == "." else f"{inner}/") + clips["file"]
    found = clips["split"].value_counts()
    for split in SPLITS:
        if found.get(split, 0) != (expected := card["splits"][splits][split]):
            findings.append(f"{split}: {count_of(int(found.get(split, 0)), 'clip')}, the card says {expected:,}")
    for column, task in card["tasks"].items():
        absent = {name for name in task["classes"] if isinstance(name, str)} - set(clips[column])
        if absent:
            findings.append(f"{column}: no clips of {name_some(absent)}")
    labels = tuple(card["tasks"])
    return Imported(card["name"], splits, labels, clips[["path", *columns]], findings, contradictions)


def write_manifest(imported: Imported, root: str | Path, out: str | Path) -> None:
    """Write the clips that were `imported` as a CSV table, whole or not at all.

    Paths are relative to the manifest's folder where `root` is that folder or lies in it, else absolute.

    Raises:
        InputError: There are no clips, the folder of `out` does not exist, or a file name is not text.
    """
    root, out = Path(root), Path(out)
    if imported.clips.empty:
        raise InputError(f"import {imported.name}: {root} must hold clips, got none; {out} was not written")
    if not out.parent.is_dir():
        raise InputError(f"import: the manifest must lie in a folder that exists, got {out}")
    # A root given one level too low has paths with "..", so look at the files themselves, not at the root.
    paths = [os.path.normpath(os.path.join(os.path.abspath(root), path)) for path in imported.clips["path"]]
    folder = os.path.join(os.path.abspath(out.parent), "")
    if all(path.startswith(folder) for path in paths):
        paths = [path.removeprefix(folder) for path in paths]
    paths = [path.replace(os.sep, "/") for path in paths]
    try:
        write_text(out, imported.clips.assign(path=paths).to_csv(index=False, lineterminator="\n"))
    except UnicodeEncodeError as error:
        bad = error.object[max(0, error.start - 40) : error.end + 20]
        raise InputError(
            f"import {imported.name}: file names must be text in UTF-8, got {bad!r}; rename those files"
        ) from error


def list_folder(folder: str | Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, sorted; hidden ones (with a leading dot) are left out.

    Raises:
        InputError: There is no such folder, or it may not be read.
    """
    try:
        inner, files = list_all(folder)
    except OSError as error:
        raise InputError(f"import: ROOT must be a folder that can be read, got {folder}: {error.strerror}") from error
    return [name for name, _ in inner if not name.startswith(".")], [name for name in files if not name.startswith(".")]


def list_below(root: str | Path, *, notes: list[str] | None = None) -> list[str]:
    """Files at any depth below a folder, with slashes and relative to it; `notes` takes a line on what is left out.

    Raises:
        InputError: It may not be read, or a folder in it.
    """
    list_folder(root)
    walk = walk_folder(root)
    if locked := [message for place, message in walk.faults.items() if os.path.isdir(place)]:
        raise InputError("\n".join(["import: all that lies in ROOT must be readable, but", *locked]))
    if notes is not None:
        notes += walk.notes()
    return sorted(walk.files)


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

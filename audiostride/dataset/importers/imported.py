"""What an importer returns, and writing it as a manifest."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from audiostride.dataset.manifest import SPLITS
from audiostride.errors import InputError
from audiostride.writing import write_text

MAX_NAMED = 20


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


def name_some(names: Iterable[str]) -> str:
    """The first 20 of some names in order, and how many more there are.

    >>> name_some(["b", "a"])
    'a, b'
    """
    ordered = sorted(names)
    more = f" and {len(ordered) - MAX_NAMED:,} more" if len(ordered) > MAX_NAMED else ""
    return ", ".join(islice(ordered, MAX_NAMED)) + more


def count_of(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count_of(1, "clip"), count_of(8640, "clip")
    ('1 clip', '8,640 clips')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def compare_with_card(clips: pd.DataFrame, card: Mapping[str, Any], *, splits: str) -> list[str]:
    """Findings: counts per split that are not the card's, and classes of the card without any clip.

    Classes that are numbers (pitch) are a range on the card, of which not every one need occur.
    """
    found = clips["split"].value_counts()
    findings = [
        f"{split}: {count_of(int(found.get(split, 0)), 'clip')}, the card says {expected:,}"
        for split in SPLITS
        if found.get(split, 0) != (expected := card["splits"][splits][split])
    ]
    for column, task in card["tasks"].items():
        absent = {name for name in task["classes"] if isinstance(name, str)} - set(clips[column])
        if absent:
            findings.append(f"{column}: no clips of {name_some(absent)}")
    return findings


def write_manifest(imported: Imported, root: str | Path, out: str | Path) -> None:
    """Write the clips as a CSV table, whole or not at all.

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

"""Clips in class folders, ``ROOT/<class>/<file>`` or ``ROOT/<split>/<class>/<file>``, in place of a manifest."""

import os
from pathlib import Path

import pandas as pd

from audiostride.dataset.bad_rows import MAX_LISTED, BadRows
from audiostride.dataset.folders import FolderWalk, walk_folder
from audiostride.dataset.splits import SPLIT_NAMES
from audiostride.errors import InputError
from audiostride.wording import count_of, escape, name_some


def read_class_folders(root: Path, *, who: str) -> tuple[FolderWalk, pd.DataFrame, list[str]]:
    """The audio files of ``ROOT/<class>/<file>``, or of ``ROOT/<split>/<class>/<file>`` where all folders are splits.

    Args:
        root: The folder.
        who: Who asks, for messages.

    Returns:
        All that lies in the folder; a table with ``path`` (from the root on, with slashes), ``label`` and ``split``
        (or None), ordered by the parts of the paths; and a line on each thing that is left out or taken otherwise.

    Raises:
        InputError: There is no audio in class folders.
    """
    walk = walk_folder(root)
    top = [name for name in walk.folders if "/" not in name]
    split_folders = [name for name in top if name.lower() in SPLIT_NAMES]
    depth = 2 if top and len(split_folders) == len(top) else 1
    notes, rows, loose = walk.notes(), [], []
    if split_folders and depth == 1:
        verb = "are taken as classes" if len(split_folders) > 1 else "is taken as a class"
        notes.append(f"{', '.join(split_folders)} {verb}, since other folders stand beside")
    for path in walk.audio:
        *parts, _ = path.split("/")
        if len(parts) < depth:
            loose.append(path)
        else:
            rows.append((path, parts[depth - 1], SPLIT_NAMES[parts[0].lower()] if depth == 2 else None))
    if not rows:
        lines = [f"{who} {root} must hold class folders with audio files, e.g. {root}/dog/1.wav; found none"]
        raise InputError("\n".join([*lines, *[*walk.faults.values()][:MAX_LISTED], *notes]))
    if loose:
        notes.append(f"{count_of(len(loose), 'audio file')} outside of a class folder, left out: {name_some(loose)}")
    filled = {"/".join(path.split("/")[:depth]) for path, _, _ in rows}
    notes += [
        f"{escape(name)} holds no audio files"
        for name in walk.folders
        if name.count("/") == depth - 1 and name not in filled and os.path.join(root, name) not in walk.faults
    ]
    clips = pd.DataFrame(rows, columns=["path", "label", "split"])
    clips["split"] = clips["split"].astype(object).where(clips["split"].notna(), None)
    return walk, clips, notes


def read_folder_clips(root: Path, bad: BadRows) -> pd.DataFrame:
    """The clips of class folders as `inspect_manifest` gives them; what is wrong goes to `bad`."""
    walk, clips, notes = read_class_folders(root, who="folder")
    faults = [*walk.faults.values()]
    bad.add([0] * len(faults), "place", faults)
    bad.notes += notes + faults
    return pd.DataFrame(
        {
            "path": f"{root.absolute()}{os.sep}" + clips["path"].str.replace("/", os.sep),
            "clip_name": "/" + clips["path"],
            "split": clips["split"], "label": clips["label"], "line": range(1, len(clips) + 1),
            "start_s": 0.0, "duration_s": float("nan"), "group": None,
        }
    )  # fmt: skip

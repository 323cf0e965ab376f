"""Anyone's folder: ROOT/<class>/<file...> or ROOT/<split>/<class>/<file...>."""

from pathlib import Path

import pandas as pd

from audiostride.dataset.class_folders import read_class_folders
from audiostride.dataset.importers.imported import Imported, list_folder
from audiostride.dataset.splits import SPLIT_NAMES, SPLITS, hash_split
from audiostride.errors import InputError
from audiostride.wording import name_some

# What `--splits paper-like` draws per class; no paper stands behind it.
SHARES = {"train": 8, "valid": 1, "test": 1}


def import_folder(root: Path, *, splits: str, seed: int) -> Imported:
    """The audio files of class folders, at any depth below them; folders with a leading ``.`` or ``_`` are skipped.

    Args:
        root: A folder of class folders, or of split folders (train, valid, test, or their other names) of those.
        splits: official is the split folders, and no split column where there are none; paper-like draws 80/10/10 per
            class by a hash of file names, whatever the split folders say.
        seed: Of the paper-like split.

    Raises:
        InputError: There are no class folders with audio, or split folders stand beside other folders.
    """
    list_folder(root)  # raises where it may not be read
    walk, clips, findings = read_class_folders(root, who="import folder:")
    folders = [name for name in walk.folders if "/" not in name]
    split_folders = [name for name in folders if name.lower() in SPLIT_NAMES]
    with_splits = len(split_folders) == len(folders)
    if not with_splits and len(split_folders) > 1:
        others = [name for name in folders if name not in split_folders]
        raise InputError(
            f"import folder: {root} must hold either split folders or class folders, got {name_some(split_folders)} "
            f"beside {name_some(others)}; put an underscore before the names of folders to skip, or move them elsewhere"
        )
    clips = clips.sort_values("path", ignore_index=True)
    if clips["label"].nunique() == 1:
        findings.append(f"there is one class only, {clips['label'].iloc[0]}: is ROOT one level too high or too low?")
    if splits == "paper-like":
        findings.append(
            f"80/10/10 per class, drawn by a hash of the paths with seed {seed}; files have no known groups"
        )
        for _, members in clips.groupby("label"):
            clips.loc[members.index, "split"] = hash_split(members["path"], seed=seed, sizes=SHARES)
    elif not with_splits:
        findings.append(
            "there are no split folders, so that the manifest has no split column; draw one with --splits paper-like "
            "(80/10/10 per class) or at training with: audiostride train --random-split SEED"
        )
        clips = clips.drop(columns="split")
    if "split" in clips.columns:
        counts = pd.crosstab(clips["label"], clips["split"]).reindex(columns=list(SPLITS), fill_value=0)
        for split in SPLITS:
            if len(absent := counts.index[counts[split] == 0]):
                findings.append(f"{split}: no clips of {name_some(absent)}")
    return Imported("folder", splits, ("label",), clips, findings, [*walk.faults.values()])

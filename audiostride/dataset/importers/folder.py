"""Anyone's folder: ROOT/<class>/<file...> or ROOT/<split>/<class>/<file...>."""

from pathlib import Path

import pandas as pd

from audiostride.audio.resampling import AUDIO_SUFFIXES, find_audio_files
from audiostride.dataset.importers.imported import Imported, count_of, list_folder, name_some
from audiostride.dataset.manifest import SPLIT_NAMES, SPLITS
from audiostride.dataset.splits import hash_split
from audiostride.errors import InputError

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
    folders, files = _list_classes(root)
    split_folders = [folder for folder in folders if folder.lower() in SPLIT_NAMES]
    with_splits = bool(folders) and len(split_folders) == len(folders)
    findings: list[str] = []
    if not with_splits and len(split_folders) > 1:
        others = [folder for folder in folders if folder not in split_folders]
        raise InputError(
            f"import folder: {root} must hold either split folders or class folders, got {name_some(split_folders)} "
            f"beside {name_some(others)}; put an underscore before the names of folders to skip, or move them elsewhere"
        )
    if not with_splits and split_folders:
        findings.append(f"the folder {split_folders[0]} is taken as a class, since other folders stand beside it")
    loose = [file for file in files if file.lower().endswith(AUDIO_SUFFIXES)]
    rows: list[tuple[str, str, str | None]] = []
    for folder in folders:
        split = SPLIT_NAMES[folder.lower()] if with_splits else None
        classes = [folder]
        if with_splits:
            inner, inner_files = _list_classes(root / folder)
            classes = [f"{folder}/{name}" for name in inner]
            loose += [f"{folder}/{file}" for file in inner_files if file.lower().endswith(AUDIO_SUFFIXES)]
        for one in classes:
            paths = [file.relative_to(root).as_posix() for file in find_audio_files(root / one)]
            paths = [path for path in paths if "/." not in path]
            rows += [(path, one.rpartition("/")[2], split) for path in paths]
            if not paths:
                findings.append(f"{one} holds no audio files")
    if not rows:
        raise InputError(
            f"import folder: {root} must hold class folders with audio files, e.g. {root}/dog/1.wav; found none"
        )
    if loose:
        findings.append(f"{count_of(len(loose), 'audio file')} outside of a class folder, left out: {name_some(loose)}")
    clips = pd.DataFrame(rows, columns=["path", "label", "split"]).sort_values("path", ignore_index=True)
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
    return Imported("folder", splits, ("label",), clips, findings, [])


def _list_classes(folder: Path) -> tuple[list[str], list[str]]:
    folders, files = list_folder(folder)
    return [name for name in folders if not name.startswith("_")], files

"""Splits that are drawn, never silently, by a seeded hash of names; and what a manifest must have to be trained on."""

import hashlib
from collections.abc import Mapping

import pandas as pd

from audiostride.dataset.manifest import SPLITS, describe_bad_rows
from audiostride.errors import InputError

# Holding out whole groups needs enough of them: with two or three, one of them is most of the data.
MIN_GROUPS = 10


def assign_random_splits(clips: pd.DataFrame, *, seed: int, valid: float = 0.1, test: float = 0.1) -> pd.DataFrame:
    """`clips` with a split drawn from a seeded hash: group by group where there are groups, else class by class.

    Membership depends on the seed and the names only, not on the order of rows.

    Args:
        clips: A table as `inspect_manifest` returns it.
        seed: Another seed, another split.
        valid, test: Shares of the groups (or of the clips of each class) that go to those splits; at least one each.

    Raises:
        InputError: Some clips have a group and others none.
    """
    grouped = _have_groups(clips)
    split = pd.Series("train", index=clips.index, dtype=object)
    for names, units in _ranked_units(clips, seed=seed, grouped=grouped):
        n_test, n_valid = max(1, round(test * len(names))), max(1, round(valid * len(names)))
        split[units.index[units.isin(names[:n_test])]] = "test"
        split[units.index[units.isin(names[n_test : n_test + n_valid])]] = "valid"
    return clips.assign(split=split)


def hold_out_valid(clips: pd.DataFrame, *, seed: int, share: float) -> tuple[pd.DataFrame, str]:
    """`clips` without a valid split, with one taken from the training clips by a seeded hash, and a line saying how.

    Whole groups are held out where there are at least ten in training, else a share of the clips of each class.

    Args:
        clips: A table as `inspect_manifest` returns it; test clips are left alone.
        seed: Another seed, another split.
        share: Of the training groups, or of the training clips of each class; at least one each.

    Raises:
        InputError: Some training clips have a group and others none.
    """
    train = clips[clips["split"] == "train"]
    grouped = _have_groups(train) and train["group"].nunique() >= MIN_GROUPS
    split = clips["split"].copy()
    for names, units in _ranked_units(train, seed=seed, grouped=grouped):
        if len(names) > 1:  # the only clip of a class is needed for training
            split[units.index[units.isin(names[: max(1, round(share * len(names)))])]] = "valid"
    n_valid = int((split == "valid").sum())
    what = "whole groups" if grouped else "clips of each class"
    note = f"no valid split: {n_valid} of {len(train)} training clips are held out for validation ({what}, seed {seed})"
    return clips.assign(split=split), note


def _have_groups(clips: pd.DataFrame) -> bool:
    """Whether clips have groups; raises where only some do, as nobody knows what those without may leak."""
    named = clips["group"].notna() & (clips["group"] != "")
    if named.any() and not named.all():
        bad = [(line, "group is empty") for line in clips.loc[~named, "line"].tolist()]
        way_out = "a split by group needs one for each clip: fill the column, or name another one with --group"
        raise InputError(describe_bad_rows("clips to be split", bad, way_out))
    return bool(named.all())


def _ranked_units(clips: pd.DataFrame, *, seed: int, grouped: bool) -> "list[tuple[list[str], pd.Series[str]]]":
    """Per stratum its units (groups, or clips) in the order of a seeded hash, and the unit of each of its rows."""
    units = clips["group"] if grouped else clips["clip_name"] + "@" + clips["start_s"].astype(str)
    # Without groups the shares hold in each class; with groups a class cannot be balanced without breaking a group.
    strata = pd.Series(0, index=clips.index) if grouped else clips["label"]
    return [
        (sorted(members.unique(), key=lambda name: _rank(name, seed)), members) for _, members in units.groupby(strata)
    ]


def class_names(labels: "pd.Series[str]") -> list[str]:
    """The different labels in order: by number where all are integers, else by letters."""
    names = labels.unique().tolist()
    try:
        return sorted(names, key=int)
    except ValueError:
        return sorted(names)


def check_training_clips(clips: pd.DataFrame, *, where: str) -> list[str]:
    """The class names of a manifest that can be trained on.

    Raises:
        InputError: No split column, a missing split, fewer than two classes, a class without training clips.
    """
    if clips["split"].isna().all():
        raise InputError(
            f"{where}: a split column with train, valid and test must be there, got none, and none is invented "
            "silently; add the column, or draw one (by group, where there is a column 'group') with --random-split SEED"
        )
    for split in SPLITS:
        if not (clips["split"] == split).any():
            raise InputError(
                f"{where}: split {split!r} must have at least one clip, got none; fill the split column, "
                + (
                    "or take a share of the training clips with --hold-out 0.1"
                    if split == "valid"
                    else "or draw a split with --random-split SEED"
                )
            )
    names = class_names(clips["label"])
    trained = set(clips.loc[clips["split"] == "train", "label"])
    untrained = [name for name in names if name not in trained]
    if untrained:
        raise InputError(
            f"{where}: every class must have training clips, but these have none: {', '.join(untrained)}; "
            "remove their rows or move some to the train split"
        )
    if len(names) < 2:
        raise InputError(f"{where}: there must be at least two classes, got {names}; is this the right --label column?")
    return names


def hash_split(names: "pd.Series[str]", *, seed: int, sizes: Mapping[str, int]) -> "pd.Series[str]":
    """The split of each name, drawn by a seeded hash.

    Names are ranked by the SHA-256 of ``seed/name``: the first ranks are test, the next valid, the rest train. The
    order of names and the place of the files do not matter.

    Args:
        names: Different names, in any order.
        seed: Another seed, another split.
        sizes: Names per split. With as many names as their sum the split has these sizes exactly, else these shares;
            then every split that is not 0 gets a name as long as there are any, train first, test next.

    >>> split = hash_split(pd.Series(["a", "b", "c", "d"]), seed=0, sizes={"train": 3, "valid": 0, "test": 1})
    >>> split.value_counts().to_dict()
    {'train': 3, 'test': 1}
    """
    order = sorted(range(len(names)), key=[_rank(name, seed) for name in names].__getitem__)
    split = ["train"] * len(names)
    start = 0
    for held_out in ("test", "valid"):
        stop = start + _share(sizes[held_out], sum(sizes.values()), len(names), most=len(names) - 1 - start)
        for position in order[start:stop]:
            split[position] = held_out
        start = stop
    return pd.Series(split, index=names.index, dtype=object)


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()


def _share(size: int, of: int, n_names: int, *, most: int) -> int:
    return 0 if size == 0 else min(max(1, round(n_names * size / of)), max(0, most))

"""Splits that are drawn, never silently, by a seeded hash of names; and what a manifest must have to be trained on."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

import pandas as pd

from audiostride.dataset.bad_rows import describe_bad_rows
from audiostride.dataset.labels import explode_labels, holds_sets, show_labels, split_labels
from audiostride.errors import InputError
from audiostride.wording import count_of, name_some

SPLITS = ("train", "valid", "test")
SPLIT_NAMES = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid"} | {
    "dev": "valid",
    "test": "test",
    "testing": "test",
}

# Holding out whole groups needs enough of them: with two or three, one of them is most of the data.
MIN_GROUPS = 10

# A class of fewer clips has none for each of three splits.
MIN_UNITS = 3

# Rows with the same of these are of the same clip.
PART_COLUMNS = ["path", "start_s", "duration_s"]


def assign_random_splits(
    clips: pd.DataFrame, *, seed: int, valid: float = 0.1, test: float = 0.1, labels: Sequence[str] = ("label",)
) -> pd.DataFrame:
    """`clips` with a split drawn from a seeded hash: group by group where there are groups, else class by class, or
    from all clips where these have several labels.

    Membership depends on the seed and the names only, not on the order of rows. Every class keeps a training clip, and
    without groups those of one or two clips stay in train.

    Args:
        clips: A table as `inspect_manifest` returns it.
        seed: Another seed, another split.
        valid, test: Shares of the groups (or of the clips of each class) that go to those splits; at least one each.
        labels: Columns of classes; the clips of each class of the first one with one label per clip are drawn.

    Raises:
        InputError: Some clips have a group and others none; there are too few clips or groups for three splits.
    """
    grouped = _have_groups(clips)
    split = pd.Series("train", index=clips.index, dtype=object)
    for names, units, take in _ranked_units(clips, seed=seed, grouped=grouped, labels=labels):
        if grouped or len(names) >= MIN_UNITS:
            rest = iter(names)
            for held_out, share in (("test", test), ("valid", valid)):
                split[units.index[units.isin(take(rest, max(1, round(share * len(names)))))]] = held_out
    if missing := [name for name in ("valid", "test") if not (split == name).any()]:
        need = "three groups, of which the classes of two are in others too" if grouped else "a class of three clips"
        raise InputError(
            f"a split cannot be drawn: there must be at least {need}, so that train, valid and test have clips, got "
            f"none for {' and '.join(missing)}; add clips" + (", or split by clips with another --group" * grouped)
        )
    return clips.assign(split=split)


def hold_out_valid(
    clips: pd.DataFrame, *, seed: int, share: float, labels: Sequence[str] = ("label",)
) -> tuple[pd.DataFrame, str]:
    """`clips` without a valid split, with one taken from the training clips by a seeded hash, and a line saying how.

    Whole groups are held out where there are at least ten in training, else a share of the clips of each class, or of
    all clips where these have several labels. Every class keeps a training clip.

    Args:
        clips: A table as `inspect_manifest` returns it; test clips are left alone.
        seed: Another seed, another split.
        share: Of the training groups, or of the training clips of each class; at least one each.
        labels: Columns of classes; the clips of each class of the first one with one label per clip are drawn.

    Raises:
        InputError: Some training clips have a group and others none; no class has two training clips.
    """
    train = clips[clips["split"] == "train"]
    grouped = _have_groups(train) and train["group"].nunique() >= MIN_GROUPS
    split = clips["split"].copy()
    for names, units, take in _ranked_units(train, seed=seed, grouped=grouped, labels=labels):
        split[units.index[units.isin(take(iter(names), max(1, round(share * len(names)))))]] = "valid"
    n_valid = int((split == "valid").sum())
    if not n_valid:
        raise InputError(
            "no training clip can be held out for validation: each is the only one of its class; add clips"
        )
    what = "whole groups" if grouped else "clips of each class" if _stratum_column(train, labels) else "clips"
    note = f"no valid split: {n_valid} of {len(train)} training clips are held out for validation ({what}, seed {seed})"
    return clips.assign(split=split), note


def describe_small_classes(clips: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    """A line on the classes none of whose clips is in valid or test, for each column of labels."""
    lines = []
    for label in labels:
        each = explode_labels(clips, label)
        small = sorted({*each[label]} - {*each.loc[each["split"] != "train", label]} - {""})
        if small:
            lines.append(f"classes with all clips in train, too few to be in valid and test: {name_some(small)}")
    return lines


def describe_several_labels(clips: pd.DataFrame, labels: Sequence[str], several: Collection[str] = ()) -> list[str]:
    """Lines on clips that seem to have several labels, in one cell or in several rows, where one is learned.

    A comma counts where one of its parts is a label elsewhere: names of species have commas too. Cells of the columns
    `several` hold all labels of a clip, and are not looked into.
    """
    lines = []
    for label in labels:
        counts = clips[label].value_counts()
        parts = {name: [part.strip() for part in re.split("[;,|]", name) if part.strip()] for name in counts.index}
        known = Counter(part for several in parts.values() for part in {*several})
        joined = [
            name
            for name, several in parts.items()
            if len(several) > 1 and (re.search("[;|]", name) or any(known[part] > 1 for part in several))
        ]
        if joined and label not in several:
            what = f"{count_of(int(counts[joined].sum()), 'clip')} with several labels in one cell"
            taken = "each such text is taken as one class of its own, and --multi-label takes them apart"
            lines.append(f"{what}, such as {joined[0]!r}: {taken}")
        again = clips[clips.duplicated(PART_COLUMNS, keep=False)]
        names = again.groupby(PART_COLUMNS, dropna=False)[label].agg(lambda names: sorted({*names}))
        names = names[names.map(len) > 1]
        if len(names):
            what = f"{count_of(len(names), 'clip')} in several rows with different labels"
            shown = " and ".join(show_labels(text) or "none" for text in names.iloc[0])
            lines.append(f"{what}, such as {shown}: each is learned as if it were the only one")
    return lines


def _have_groups(clips: pd.DataFrame) -> bool:
    """Whether clips have groups; raises where only some do, as nobody knows what those without may leak."""
    named = clips["group"].notna() & (clips["group"] != "")
    if named.any() and not named.all():
        bad = [(line, "group is empty") for line in clips.loc[~named, "line"].tolist()]
        way_out = "a split by group needs one for each clip: fill the column, or name another one with --group"
        raise InputError(describe_bad_rows("clips to be split", bad, way_out))
    return bool(named.all())


Take = Callable[[Iterator[str], int], list[str]]


def _ranked_units(
    clips: pd.DataFrame, *, seed: int, grouped: bool, labels: Sequence[str]
) -> "list[tuple[list[str], pd.Series[str], Take]]":
    """Strata of the clips, and of each its units (groups, or clips) in the order of a seeded hash, the unit of each of
    its rows, and what takes so many units in order out of training, but the last one of no class."""
    units = clips["group"] if grouped else clips["clip_name"] + "@" + clips["start_s"].astype(str)
    # Without groups the shares hold in each class; with groups a class cannot be balanced without breaking a group, and
    # of clips with several labels each one would be a class of its own.
    stratum_column = None if grouped else _stratum_column(clips, labels)
    strata = pd.Series(0, index=clips.index) if stratum_column is None else clips[stratum_column]
    classes: defaultdict[tuple[object, str], set[tuple[str, str]]] = defaultdict(set)
    for label in labels:
        for stratum, unit, text in zip(strata.tolist(), units.tolist(), clips[label].tolist(), strict=True):
            classes[stratum, unit] |= {(label, name) for name in split_labels(text)}
    left = Counter(each for names in classes.values() for each in names)

    def take(stratum: object, names: Iterator[str], count: int) -> list[str]:
        taken: list[str] = []
        while len(taken) < count and (name := next(names, None)) is not None:
            if all(left[each] > 1 for each in classes[stratum, name]):
                left.subtract(classes[stratum, name])
                taken.append(name)
        return taken

    return [
        (sorted(members.unique(), key=lambda name: _rank(name, seed)), members, partial(take, stratum))
        for stratum, members in units.groupby(strata)
    ]


def _stratum_column(clips: pd.DataFrame, labels: Sequence[str]) -> str | None:
    """The first column of labels with one for each clip, whose classes are drawn from one by one."""
    return next((label for label in labels if not holds_sets(clips[label])), None)


def class_names(labels: "pd.Series[str]") -> list[str]:
    """The different labels in order: by number where all are integers, else by letters."""
    names = labels.unique().tolist()
    try:
        return sorted(names, key=int)
    except ValueError:
        return sorted(names)


def check_training_clips(clips: pd.DataFrame, *, where: str, names: Sequence[str] | None = None) -> list[str]:
    """The class names of a manifest that can be trained on.

    Args:
        clips: With ``split`` and ``label``, of one label per clip or of several.
        where: Name of the manifest, for messages.
        names: The classes, if they are known; None takes the labels that there are, in order.

    Raises:
        InputError: No split column, a missing split or one without any label, fewer than two classes, a class without
            training clips.
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
                    else "or remove it and draw a split with --random-split SEED"
                )
            )
        if (clips.loc[clips["split"] == split, "label"] == "").all():
            raise InputError(
                f"{where}: a clip of split {split!r} must have a label, got none in all of them; is this the right "
                "--label column?"
            )
    each = explode_labels(clips, "label")
    names = list(names) if names else class_names(each.loc[each["label"] != "", "label"])
    trained = set(each.loc[each["split"] == "train", "label"])
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

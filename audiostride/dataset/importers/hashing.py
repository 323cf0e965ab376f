"""Splits drawn by a seeded hash of names: they depend on nothing but the seed, the names and the sizes asked for."""

import hashlib
from collections.abc import Mapping

import pandas as pd


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

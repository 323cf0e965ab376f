"""DCASE 2018 bird audio detection, development: three tables, and three archives that each unpack to wav/."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from audiostride.dataset.folders import is_audio
from audiostride.dataset.importers.imported import Imported, finish_import, list_below, list_folder
from audiostride.dataset.splits import hash_split
from audiostride.errors import InputError
from audiostride.wording import count_of, name_some

COLUMNS = ["itemid", "datasetid", "hasbird"]
LABELS = {"1": "bird", "0": "nobird"}


def import_dcase_birds(root: Path, card: Mapping[str, Any], *, splits: str, seed: int) -> Imported:
    """The clips of the three development sets; the group is the set.

    Tables are recognised by their columns and audio by its item id, wherever they lie below the root: the three
    archives all unpack to a folder called wav/, so that folder names say nothing.

    Args:
        root: A folder with tables and audio at any depth; a table may also lie one or two levels above.
        card: The card dcase2018-birds.
        splits: official trains on two sets and tests on the card's `test_set`; paper-like hashes set and item.
        seed: Of the paper-like split.

    Raises:
        InputError: There is no table, or one with a ``hasbird`` other than 0 and 1.
    """
    home = _find_home(root, card)
    findings: list[str] = []
    contradictions: list[str] = []
    files = list_below(home, notes=findings)
    clips = _read_tables(
        home, [file for file in files if file.lower().endswith(".csv")], card, findings, contradictions
    )
    audio = [file for file in files if is_audio(file)]
    clips = _find_audio(clips, audio, home, card, findings, contradictions)
    if splits == "official":
        test_set = card["test_set"]
        clips["split"] = clips["group"].eq(test_set).map({True: "test", False: "train"})
        findings.append(
            "the challenge distributed no split: official means to leave one set out, as its evaluation did; "
            f"{test_set} is test, the others are train, there is no valid split: training holds one out and says so"
        )
        if not clips["group"].eq(test_set).any():
            findings.append(f"there are no clips of {test_set}, so that there is no test split")
    else:
        clips["split"] = hash_split(clips["group"] + "/" + clips["itemid"], seed=seed, sizes=card["splits"][splits])
        findings.append(
            "paper-like: clips of one set and recording are in train and in test, as in the paper: groups leak"
        )
    clips["label"] = clips["hasbird"].map(LABELS)
    columns = ["label", "hasbird", "group", "split", "itemid"]
    return finish_import(
        clips, columns, card, root=root, home=home, splits=splits, findings=findings, contradictions=contradictions
    )


def _find_home(root: Path, card: Mapping[str, Any]) -> Path:
    """The root if there is a table at or below it, else the folder with tables one or two levels above."""
    if any(_is_table(root / file) for file in list_below(root)):
        return root
    above = Path(os.path.abspath(root))
    for folder in (above.parent, above.parent.parent):
        if any(_is_table(folder / file) for file in list_folder(folder)[1]):
            return folder
    tables = ", ".join(one["table"] for one in card["sets"].values())
    raise InputError(
        f"import {card['name']}: ROOT must hold at least one of the tables {tables}, got none in {root}; "
        f"get them with: audiostride import {card['name']} {root} --download"
    )


def _is_table(file: Path) -> bool:
    if file.suffix.lower() != ".csv":
        return False
    with open(file, encoding="utf-8-sig", errors="replace") as lines:
        return set(COLUMNS) <= {column.strip().strip('"') for column in lines.readline().split(",")}


def _read_tables(
    home: Path, files: list[str], card: Mapping[str, Any], findings: list[str], contradictions: list[str]
) -> pd.DataFrame:
    tables: list[pd.DataFrame] = []
    for file in files:
        if _is_table(home / file):
            try:
                table = pd.read_csv(
                    home / file, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True
                )
                if not isinstance(table.index, pd.RangeIndex):
                    raise ValueError("its rows have more fields than it has columns")
            except (ValueError, OSError) as error:  # pandas' own errors are values too
                raise InputError(
                    f"{home / file} must be a CSV table, but reading it failed: {error}; get it again"
                ) from error
            table = table.rename(columns=str.strip)[COLUMNS].apply(lambda column: column.str.strip())
            if len(bad := table.index[~table["hasbird"].isin(list(LABELS))]):
                lines = name_some(f"line {row + 2}" for row in bad)
                raise InputError(f"{home / file}: hasbird must be 0 or 1, got something else in {lines}; get it again")
            tables.append(table)
    clips = pd.concat(tables, ignore_index=True)
    clips["itemid"] = clips["itemid"].str.removesuffix(".wav")
    known = {_bare(name): name for name in card["sets"]}
    clips["group"] = clips["datasetid"].map(_bare).map(known)
    if (unknown := clips["group"].isna()).any():
        names = name_some(clips.loc[unknown, "datasetid"].unique())
        findings.append(f"{count_of(int(unknown.sum()), 'clip')} of sets that are not on the card, left out: {names}")
    clips = clips[~unknown]
    for name, one in card["sets"].items():
        if name not in set(clips["group"]):
            findings.append(f"{name}: its table {one['table']} is missing, and so are its clips")
    twice = clips.duplicated(["group", "itemid"])
    if twice.any():
        findings.append(f"the tables list {name_some(clips.loc[twice, 'itemid'].unique())} more than once")
        answers = clips.groupby("itemid")["hasbird"].nunique()
        if len(torn := answers.index[answers > 1]):
            contradictions.append(f"the tables say both bird and no bird of {name_some(torn)}; the first row counts")
    clips = clips[~twice]
    if (shared := clips["itemid"].duplicated(keep=False)).any():
        names = name_some(clips.loc[shared, "itemid"].unique())
        contradictions.append(f"the tables of two sets list the same items, so that their audio is unclear: {names}")
    return clips[~shared].copy()


def _bare(name: str) -> str:
    """A set's name without case and signs: tables and archives spell it differently."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _find_audio(
    clips: pd.DataFrame,
    audio: list[str],
    home: Path,
    card: Mapping[str, Any],
    findings: list[str],
    contradictions: list[str],
) -> pd.DataFrame:
    found: dict[str, str] = {}
    again: list[str] = []
    for file in audio:
        item = file.rpartition("/")[2].rpartition(".")[0]
        if item in found:
            again.append(file)
        else:
            found[item] = file
    clips["file"] = clips["itemid"].map(found)
    missing = clips["file"].isna()
    for name, rows in clips.groupby("group"):
        absent = rows.loc[missing[rows.index], "itemid"]
        if len(absent) == len(rows):
            findings.append(
                f"{name}: its audio is missing, none of the {count_of(len(rows), 'clip')} of its table is below {home}"
            )
        elif len(absent):
            contradictions.append(
                f"{name}: its table lists {count_of(len(absent), 'clip')} without audio on disk: {name_some(absent)}"
            )
    if again:
        findings.append(f"{count_of(len(again), 'audio file')} there already under another path: {name_some(again)}")
    if extra := found.keys() - set(clips["itemid"]):
        names = name_some(found[item] for item in extra)
        findings.append(f"{count_of(len(extra), 'audio file')} in no table, left out: {names}")
    return clips[~missing].copy()

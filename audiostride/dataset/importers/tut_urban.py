"""TUT Urban Acoustic Scenes 2018, development: meta.csv, evaluation_setup/ and audio/."""

import csv
from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import pandas as pd

from audiostride.dataset.folders import is_audio
from audiostride.dataset.importers.imported import Imported, find_home, finish_import, list_folder
from audiostride.dataset.splits import hash_split
from audiostride.errors import InputError
from audiostride.wording import count_of, name_some

FOLDS = {"train": "evaluation_setup/fold1_train.txt", "test": "evaluation_setup/fold1_evaluate.txt"}
COLUMNS = {"filename": "file", "scene_label": "label", "identifier": "group", "source_label": "source_label"}


def import_tut_urban(root: Path, card: Mapping[str, Any], *, splits: str, seed: int) -> Imported:
    """The clips of TUT Urban Acoustic Scenes 2018; the group is the place (city and location).

    Args:
        root: The folder of meta.csv, the one above it or one inside it.
        card: The card tut-urban-2018.
        splits: official is fold 1 of the archive, which has no valid split; paper-like hashes file names.
        seed: Of the paper-like split.

    Raises:
        InputError: meta.csv, or for the official scheme a list of the fold, is missing or cannot be read.
    """
    name = card["name"]
    home = find_home(
        root,
        lambda folders, files: "meta.csv" in files,
        otherwise=f"import {name}: ROOT must hold meta.csv, got {root}; it is in the archive "
        f"TUT-urban-acoustic-scenes-2018-development.meta.zip: audiostride import {name} {root} --download",
    )
    findings: list[str] = []
    contradictions: list[str] = []
    clips = _read_meta(home / "meta.csv", findings, contradictions)
    lists = _read_lists(home, clips, findings, contradictions, required=splits == "official", name=name)
    unknown = ~clips["label"].isin(card["tasks"]["label"]["classes"])
    if unknown.any():
        scenes = name_some(clips.loc[unknown, "label"].unique())
        findings.append(
            f"meta.csv has {count_of(int(unknown.sum()), 'clip')} of scenes not on the card, left out: {scenes}"
        )
        clips = clips[~unknown]
    clips = _keep_existing(clips, home, card, findings, contradictions)
    if splits == "official":
        clips["split"] = clips["file"].map(lists)
        unlisted = clips.loc[clips["split"].isna(), "file"]
        if len(unlisted):
            contradictions.append(
                f"{count_of(len(unlisted), 'clip')} of meta.csv in neither list of the fold: {name_some(unlisted)}"
            )
        clips = clips[clips["split"].notna()]
        findings.append("no valid split was distributed, and none is made here: training holds one out and says so")
    else:
        clips["split"] = hash_split(clips["file"], seed=seed, sizes=card["splits"][splits])
        findings.append("paper-like: clips of one place are in train and in test, as in the paper: groups leak")
    columns = ["label", "group", "split", "source_label"]
    return finish_import(
        clips, columns, card, root=root, home=home, splits=splits, findings=findings, contradictions=contradictions
    )


def _read_meta(file: Path, findings: list[str], contradictions: list[str]) -> pd.DataFrame:
    meta = _read_table(file, header=0)
    missing = [column for column in COLUMNS if column not in meta.columns]
    if missing or meta.empty:
        raise InputError(
            f"{file} must have rows with the columns {', '.join(COLUMNS)} between tabs, got "
            f"{len(meta)} rows with {', '.join(map(str, meta.columns))}; unpack the meta archive again"
        )
    meta = meta[list(COLUMNS)].rename(columns=COLUMNS)
    twice = meta["file"].duplicated()
    if twice.any():
        repeated = meta.loc[twice, "file"].unique()
        findings.append(f"meta.csv lists {count_of(len(repeated), 'file')} more than once: {name_some(repeated)}")
        labels = meta.groupby("file")["label"].nunique()
        if len(torn := labels.index[labels > 1]):
            contradictions.append(f"meta.csv gives two scenes to {name_some(torn)}; the first row counts")
    return meta[~twice].copy()


def _read_table(file: Path, *, header: int | None) -> pd.DataFrame:
    try:
        return pd.read_csv(
            file,
            sep="\t",
            header=header,
            dtype=str,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,
            encoding="utf-8-sig",
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"{file} must be a table between tabs, but reading it failed: {error}; unpack the meta archive again"
        ) from error


def _keep_existing(
    clips: pd.DataFrame, home: Path, card: Mapping[str, Any], findings: list[str], contradictions: list[str]
) -> pd.DataFrame:
    if "audio" not in list_folder(home)[0]:
        contradictions.append(f"audio/ is missing, with all {count_of(len(clips), 'clip')} of meta.csv")
        return clips[:0].copy()
    on_disk = ["audio/" + file for file in list_folder(home / "audio")[1] if is_audio(file)]
    exists = clips["file"].isin(on_disk)
    if not exists.all():
        missing = clips.loc[~exists, "file"].tolist()
        contradictions.append(
            f"meta.csv lists {count_of(len(missing), 'clip')} not on disk: {name_some(missing)}; if the "
            "archives hold the files in the order of their names, they are in "
            + _audio_parts(missing, clips["file"], card)
        )
    extra = set(on_disk) - set(clips["file"])
    if extra:
        findings.append(f"{count_of(len(extra), 'audio file')} not in meta.csv, left out: {name_some(extra)}")
    return clips[exists].copy()


def _audio_parts(missing: list[str], files: "pd.Series[str]", card: Mapping[str, Any]) -> str:
    """The audio archives where these files may be, from their place in the alphabet and the sizes of the archives."""
    parts = [file for file in card["files"] if ".audio." in file["name"]]
    ends = list(accumulate(part["size_gb"] for part in parts))
    ordered = sorted(files)
    places = {(bisect_left(ordered, file) + 0.5) / len(ordered) for file in missing}
    numbers = sorted({bisect_left(ends, place * ends[-1]) for place in places})
    return ", ".join(parts[number]["name"].split("development.")[1] for number in numbers)


def _read_lists(
    home: Path, meta: pd.DataFrame, findings: list[str], contradictions: list[str], *, required: bool, name: str
) -> dict[str, str]:
    """The split of each file in the lists of the fold."""
    lists: dict[str, str] = {}
    labels = dict(zip(meta["file"], meta["label"], strict=True))
    for split, relative in FOLDS.items():
        if not (home / relative).is_file():
            if not required:
                findings.append(f"{relative} is missing; only the official splits need it")
                continue
            raise InputError(
                f"import {name}: the official splits need {home / relative}, which is missing; it is in the meta "
                f"archive: audiostride import {name} {home} --download; or draw a split with --splits paper-like"
            )
        table = _read_table(home / relative, header=None)
        if table.shape[1] < 2:
            raise InputError(f"{home / relative} must have a file and a label between tabs per line; unpack it again")
        listed = dict(zip(table[0], table[1], strict=True))
        if unknown := listed.keys() - labels.keys():
            contradictions.append(
                f"{relative} lists {count_of(len(unknown), 'clip')} not in meta.csv: {name_some(unknown)}"
            )
        if other := [file for file, label in listed.items() if labels.get(file, label) != label]:
            contradictions.append(f"{relative} gives another scene than meta.csv to {name_some(other)}")
        if both := listed.keys() & lists.keys():
            contradictions.append(f"both lists of the fold hold {name_some(both)}; they count as {split}")
        lists |= dict.fromkeys(listed, split)
    return lists

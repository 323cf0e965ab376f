"""Speech Commands v0.02: one folder per word, and two lists that name the valid and the test clips."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from audiostride.dataset.folders import is_audio
from audiostride.dataset.importers.imported import Imported, find_home, finish_import, list_folder
from audiostride.dataset.splits import hash_split
from audiostride.errors import InputError, explain
from audiostride.wording import count_of, name_some

LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
NOISE = "_background_noise_"
FILE_NAME = re.compile(r"(?P<speaker>[^/]+)_nohash_\d+\.wav")


def import_speech_commands(root: Path, card: Mapping[str, Any], *, splits: str, seed: int) -> Imported:
    """The clips of Speech Commands; the group is the speaker, and ``_background_noise_`` is not a class.

    Args:
        root: The folder of the words and lists, the one above it or one of the words.
        card: The card speech-commands.
        splits: official is what the two lists say, and train what neither names; paper-like hashes file names.
        seed: Of the paper-like split.

    Raises:
        InputError: There are no words, or for the official scheme a list is missing.
    """
    name, words = card["name"], card["tasks"]["label"]["classes"]
    home = find_home(
        root,
        lambda folders, files: any(file in files for file in LISTS.values()) or len(set(folders) & set(words)) > 1,
        otherwise=f"import {name}: ROOT must hold folders of words with {' and '.join(LISTS.values())}, got none in "
        f"{root}; get them with: audiostride import {name} {root} --download",
    )
    findings: list[str] = []
    contradictions: list[str] = []
    rows, odd, other = [], [], []
    folders, top_files = list_folder(home)
    for word in sorted(set(folders) & set(words)):
        for file in list_folder(home / word)[1]:
            path = f"{word}/{file}"
            if parsed := FILE_NAME.fullmatch(file):
                rows.append((path, word, parsed["speaker"]))
            elif is_audio(file):
                odd.append(path)
            else:
                other.append(path)
    clips = pd.DataFrame(rows, columns=["file", "label", "group"], dtype=object)
    if odd:
        findings.append(
            f"{count_of(len(odd), 'audio file')} not named <speaker>_nohash_<number>.wav, left out: {name_some(odd)}"
        )
    if other:
        findings.append(f"{count_of(len(other), 'file')} in the folders of words but not audio: {name_some(other)}")
    if extra := [folder for folder in folders if folder not in words and not folder.startswith("_")]:
        findings.append(
            f"{count_of(len(extra), 'folder')} not among the words of the card, left out: {name_some(extra)}"
        )
    if absent := [word for word in words if word not in folders]:
        findings.append(f"{count_of(len(absent), 'word')} of the card without a folder: {name_some(absent)}")
    if NOISE not in folders:
        findings.append(f"{NOISE} is missing; it is not a class, and the manifest does not need it")
    # A word without a folder is missing as a whole and named above; within a folder every listed clip must be there.
    lists = _read_lists(home, top_files, {*clips["file"], *odd}, set(words) & set(folders), contradictions)
    for split, file in LISTS.items():
        if split not in lists:
            if splits == "official":
                raise InputError(
                    f"import {name}: the official splits need {home / file}, which is missing; get it with: "
                    f"audiostride import {name} {home} --download; or draw a split with --splits paper-like"
                )
            findings.append(f"{file} is missing; only the official splits need it")
    if splits == "official":
        clips["split"] = "train"
        for split in LISTS:
            clips.loc[clips["file"].isin(list(lists[split])), "split"] = split
    else:
        clips["split"] = hash_split(clips["file"], seed=seed, sizes=card["splits"][splits])
        findings.append("paper-like: clips of one speaker are in train and in test, as in the paper: groups leak")
    columns = ["label", "group", "split"]
    return finish_import(
        clips, columns, card, root=root, home=home, splits=splits, findings=findings, contradictions=contradictions
    )


def _read_lists(
    home: Path, top_files: list[str], on_disk: set[str], words: set[str], contradictions: list[str]
) -> dict[str, set[str]]:
    """The files that each list names; names without a file, and files in both lists, are contradictions."""
    lists = {}
    for split, file in LISTS.items():
        if file in top_files:
            try:
                lines = (home / file).read_text(encoding="utf-8-sig").split("\n")
            except (UnicodeDecodeError, OSError) as error:
                raise explain(error, f"{home / file}") from error
            lists[split] = {line.strip() for line in lines if line.strip()}
            if missing := {path for path in lists[split] - on_disk if path.partition("/")[0] in words}:
                contradictions.append(
                    f"{file} lists {count_of(len(missing), 'clip')} not on disk: {name_some(missing)}"
                )
    if len(lists) == len(LISTS) and (both := set.intersection(*lists.values())):
        contradictions.append(f"both lists name {name_some(both)}; they count as test")
    return lists

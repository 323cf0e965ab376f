"""NSynth: nsynth-train, nsynth-valid and nsynth-test, each with examples.json and audio/."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from audiostride.dataset.folders import is_audio
from audiostride.dataset.importers.imported import Imported, find_home, finish_import, list_folder
from audiostride.errors import InputError
from audiostride.wording import count_of, name_some

FOLDERS = {"train": "nsynth-train", "valid": "nsynth-valid", "test": "nsynth-test"}
# The paper trains on the official train split and tests on the official valid split.
PAPER_SPLITS = {"train": "train", "valid": "test", "test": "valid"}
FIELDS = {
    "instrument_family_str": "instrument_family",
    "pitch": "pitch",
    "instrument_str": "group",
    "velocity": "velocity",
    "instrument_source_str": "instrument_source",
}


def import_nsynth(root: Path, card: Mapping[str, Any], *, splits: str, seed: int) -> Imported:
    """The notes of NSynth with two labels, ``instrument_family`` and ``pitch``; the group is the instrument.

    Args:
        root: The folder of nsynth-train, nsynth-valid and nsynth-test, the one above it or one of the three.
        card: The card nsynth.
        splits: official is the three folders; paper-like is train, and valid and test exchanged. Nothing is drawn.
        seed: Not used, there is nothing to draw.

    Raises:
        InputError: None of the folders is there, examples.json is missing or cannot be read, or a note has a pitch
            outside 0 to 127, an unknown instrument family or a missing field.
    """
    name = card["name"]
    home = find_home(
        root,
        lambda folders, files: any(folder in folders for folder in FOLDERS.values()),
        otherwise=f"import {name}: ROOT must hold at least one of {', '.join(FOLDERS.values())}, got none in {root}; "
        f"get them with: audiostride import {name} {root} --download",
    )
    findings: list[str] = []
    contradictions: list[str] = []
    folders = list_folder(home)[0]
    parts = []
    for split, folder in FOLDERS.items():
        if folder not in folders:
            findings.append(f"{folder} is missing, so that there is no {split} split of the archive")
            continue
        part = _read_notes(home / folder / "examples.json", card, findings)
        part = _keep_existing(part, home / folder, findings, contradictions)
        part["file"] = f"{folder}/" + part["file"]
        parts.append(part.assign(split=split if splits == "official" else PAPER_SPLITS[split]))
    if splits == "paper-like":
        findings.append(
            "paper-like: the paper's test clips are the archive's valid split, so valid and test change places"
        )
    clips = pd.concat(parts, ignore_index=True)
    columns = ["instrument_family", "pitch", "group", "split", "velocity", "instrument_source"]
    return finish_import(
        clips, columns, card, root=root, home=home, splits=splits, findings=findings, contradictions=contradictions
    )


def _read_notes(file: Path, card: Mapping[str, Any], findings: list[str]) -> pd.DataFrame:
    if not file.is_file():
        raise InputError(
            f"import {card['name']}: {file} must be there, got nothing; unpack the archive of its folder again"
        )
    repeated: list[str] = []

    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            repeated.extend(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
        return fields

    try:
        with open(file, encoding="utf-8") as text:
            notes = json.load(text, object_pairs_hook=unique_keys)
        json.dumps(notes, ensure_ascii=False).encode()  # what is no text cannot stand in a manifest
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(
            f"{file} must be whole JSON, but reading it failed: {error}; unpack its archive again"
        ) from error
    if not isinstance(notes, dict) or not notes:
        raise InputError(
            f"{file} must be an object with one entry per note, got {type(notes).__name__}; unpack it again"
        )
    where = f"{file.parent.name}/{file.name}"
    if repeated:
        findings.append(f"{where} has {name_some(repeated)} more than once; the last entry counts")
    families = card["tasks"]["instrument_family"]["classes"]
    _check_notes(notes, families, where)
    table = {column: [note[field] for note in notes.values()] for field, column in FIELDS.items()}
    return pd.DataFrame(table).assign(file=[f"audio/{note}.wav" for note in notes])


def _check_notes(notes: Mapping[str, Any], families: list[str], where: str) -> None:
    bad = []
    numbered = list(enumerate(families))
    for name, note in notes.items():
        if not isinstance(note, dict) or (absent := [field for field in FIELDS if field not in note]):
            bad.append(f"{name} has no {', '.join(absent) if isinstance(note, dict) else 'fields'}")
        elif not (isinstance(note["pitch"], int) and 0 <= note["pitch"] <= 127):
            bad.append(f"{name} has pitch {note['pitch']!r}")
        elif (note.get("instrument_family"), note["instrument_family_str"]) not in numbered:
            bad.append(f"{name} has family {note['instrument_family_str']!r} ({note.get('instrument_family')!r})")
    if bad:
        raise InputError(
            f"{where}: a note must have {', '.join(FIELDS)}, a pitch from 0 to 127 and a family of "
            f"{', '.join(families)} with its number, got {name_some(bad)}; unpack its archive again"
        )


def _keep_existing(notes: pd.DataFrame, folder: Path, findings: list[str], contradictions: list[str]) -> pd.DataFrame:
    where = folder.name
    if "audio" not in list_folder(folder)[0]:
        contradictions.append(f"{where}/audio is missing, with all {count_of(len(notes), 'note')} of examples.json")
        return notes[:0].copy()
    on_disk = {"audio/" + file for file in list_folder(folder / "audio")[1] if is_audio(file)}
    exists = notes["file"].isin(list(on_disk))
    if not exists.all():
        missing = notes.loc[~exists, "file"]
        contradictions.append(
            f"{where}: examples.json lists {count_of(len(missing), 'note')} not on disk: {name_some(missing)}"
        )
    if extra := on_disk - set(notes["file"]):
        findings.append(
            f"{where}: {count_of(len(extra), 'audio file')} not in examples.json, left out: {name_some(extra)}"
        )
    return notes[exists].copy()

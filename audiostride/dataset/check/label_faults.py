"""Faults of the columns of a manifest: labels, splits, groups, and the same audio in several rows."""

import re
import unicodedata
from collections import Counter, defaultdict

import pandas as pd

from audiostride.dataset.check.audio_facts import AudioFacts
from audiostride.dataset.check.audio_faults import MIN_DURATION_S, SILENT_SWING
from audiostride.dataset.check.findings import Finding, name_clips
from audiostride.dataset.columns import is_place_column
from audiostride.dataset.scores import is_score_column
from audiostride.dataset.splits import PART_COLUMNS, SPLITS, class_names
from audiostride.dataset.store import PLACE_COLUMNS

# Columns that are not labels, whatever their name in the set at hand: those of the manifest, of a store, and what is
# commonly noted of a recording.
NOT_LABELS = {
    *("line", "clip_name", "name", "split", "group", "fold", "score", "confidence", "selection", "view", "channel"),
    *("store", "store_row", *PLACE_COLUMNS),
    *("source", "licence", "license", "url", "attribution", "author", "title", "note", "notes", "comment"),
    *("id", "clip_id", "index", "md5", "sha256", "checksum"),
    *("sample_rate", "channels"),
}

# Columns that commonly say what must not leak, to be named where there is no group.
GROUP_LIKE = re.compile(
    r"(^|_)(speaker|singer|recording|place|location|site|instrument|session|subject|device|city)(_id|_name)?$", re.I
)

# Groups and splits that are named in one message.
MAX_NAMED = 6


def choose_label_columns(clips: pd.DataFrame) -> list[str]:
    """Columns that look like labels: ``label`` where it is there, else all that hold a few different values."""
    if "label" in clips.columns:
        return ["label"]
    most = max(2, len(clips) // 2)
    names = [name for name in clips.columns if name.lower() not in NOT_LABELS]
    names = [name for name in names if not is_place_column(name) and not is_score_column(name)]
    return [column for column in names if 2 <= clips[column].str.strip().nunique() <= most]


def find_label_faults(clips: pd.DataFrame, column: str) -> list[Finding]:
    """One class only, classes that are spelled in several ways, and classes that are absent from a split."""
    labelled = clips[clips[column] != ""]
    rows: dict[str, list[int]] = defaultdict(list)
    for name, line in zip(labelled[column].tolist(), labelled["line"].tolist(), strict=True):
        rows[name].append(line)
    found = []
    if len(rows) == 1:
        found.append(Finding("one-class", f"{column} is {next(iter(rows))!r} in all rows"))
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in rows:
        spellings[_spell(name)].append(name)
    for names in spellings.values():
        if len(names) > 1:
            names.sort(key=lambda name: -len(rows[name]))
            listed = ", ".join(f"{name!r} ({len(rows[name]):,} clips)" for name in names)
            lines = sorted(line for name in names[1:] for line in rows[name])
            found.append(Finding("label-spelling", f"{column}: {listed} are taken as different classes", lines))
    present = [split for split in SPLITS if (clips["split"] == split).any()]
    if len(present) > 1:
        there = labelled.groupby(column)["split"].agg(set).to_dict()
        for name in class_names(labelled[column]):
            absent = [split for split in present if split not in there[name]]
            if absent and len(absent) < len(present):
                message = f"{column} {name!r} has no clips in {' and '.join(absent)}, and {len(rows[name]):,} elsewhere"
                found.append(Finding("class-absent", message, rows[name]))
    return found


def _spell(name: str) -> str:
    """A class name without case, and with one blank for blanks, underscores and hyphens within it."""
    # Only within: -1 is not 1.
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", unicodedata.normalize("NFKC", name).casefold())


def find_split_faults(clips: pd.DataFrame, *, split_given: bool) -> list[Finding]:
    """No split at all, or one without clips."""
    if clips["split"].isna().all() and not split_given:
        return [
            Finding(
                "no-split",
                "there is no split column, and training invents none silently; add one with train, valid and test, or "
                "draw one with: audiostride train --random-split SEED",
            )
        ]
    missing = [split for split in SPLITS if not (clips["split"] == split).any()]
    found = [Finding("split-missing", f"no clips in {split}") for split in missing if split != "valid"]
    if "valid" in missing:
        found.append(
            Finding("no-valid", "no clips in valid; take a share of train with: audiostride train --hold-out 0.1")
        )
    return found


def find_group_faults(clips: pd.DataFrame, column: str | None) -> list[Finding]:
    """Groups that cross splits, clips without a group, or no groups at all.

    Args:
        clips: With ``group``, empty where there is none.
        column: Name that the groups have in the manifest; None if it has none.
    """
    if column is None:
        like = [name for name in clips.columns if name not in NOT_LABELS and GROUP_LIKE.search(name)]
        hint = f"; name their column with --group, maybe {' or '.join(like[:MAX_NAMED])}" if like else ""
        return [Finding("no-group", f"no groups (speaker, place, recording): nothing says what must not leak{hint}")]
    found = []
    if empty := int((clips["group"] == "").sum()):
        message = f"{empty:,} of {len(clips):,} clips have no {column}"
        found.append(Finding("no-group", message, clips.loc[clips["group"] == "", "line"].tolist()))
    known = clips[(clips["group"] != "") & clips["split"].notna()]
    pairs = known[["group", "split"]].drop_duplicates()
    crossing = known[known["group"].isin(pairs.loc[pairs["group"].duplicated(), "group"])]
    members: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for group, split, line in zip(crossing["group"], crossing["split"], crossing["line"].tolist(), strict=True):
        members[group][split].append(line)
    for group, lines in members.items():
        listed = " and ".join(f"{split} ({len(lines[split]):,})" for split in SPLITS if split in lines)
        message = f"{column} {group!r} has clips in {listed}"
        found.append(Finding("group-across-splits", message, sorted(line for part in lines.values() for line in part)))
    return found


def find_duplicates(
    clips: pd.DataFrame, facts: list[AudioFacts | Finding | None], *, labels: list[str]
) -> list[Finding]:
    """Rows with the same audio: by content, and by file and part where the content cannot be compared.

    Args:
        clips: All rows.
        facts: Of each row.
        labels: Columns that should be the same for the same audio.
    """
    part = clips.groupby(PART_COLUMNS, dropna=False).ngroup()  # NaN, to the end of the file, is equal to itself here
    content = [_content_key(item, number) for item, number in zip(facts, part.tolist(), strict=True)]
    times = Counter(content)
    rows_by_key: dict[bytes | int, list[int]] = defaultdict(list)
    for row, key in enumerate(content):
        if key is not None and times[key] > 1:
            rows_by_key[key].append(row)
    splits = clips["split"].where(clips["split"].notna(), None).tolist()
    parts, lines, names = part.tolist(), clips["line"].tolist(), name_clips(clips)
    targets = list(zip(*(clips[column].tolist() for column in labels), strict=True)) if labels else [()] * len(clips)
    found = []
    for rows in rows_by_key.values():
        where = {splits[row] for row in rows} - {None}
        numbers = [lines[row] for row in rows]
        labelled = list(dict.fromkeys("/".join(targets[row]) for row in rows if all(targets[row])))
        different = list(dict.fromkeys(names[row] for row in rows))
        what = " = ".join(different[:MAX_NAMED]) + (" = ..." if len(different) > MAX_NAMED else "")
        if len(where) > 1:
            in_splits = " and ".join(split for split in SPLITS if split in where)
            found.append(Finding("duplicate-across-splits", f"{what} in {in_splits}", numbers))
        if len(labelled) > 1:
            found.append(Finding("duplicate-with-other-label", f"{what} is {' and '.join(labelled)}", numbers))
        if len(where) > 1 or len(labelled) > 1:
            continue
        for twice in _rows_of_equal(rows, parts):
            found.append(Finding("duplicate-row", names[twice[0]], [lines[row] for row in twice]))
        if len({parts[row] for row in rows}) > 1:
            found.append(Finding("repeated-audio" if where else "duplicate-audio", what, numbers))
    return found


def _content_key(item: AudioFacts | Finding | None, part: int) -> bytes | int | None:
    """What clips with the same audio share; silence and tiny clips are alike without being copies."""
    if item is None:  # a row that names no part of a file
        return None
    if isinstance(item, Finding) or item.n_not_finite:
        return part
    return item.content if item.swing >= SILENT_SWING and item.duration_s >= MIN_DURATION_S else part


def _rows_of_equal(rows: list[int], parts: list[int]) -> list[list[int]]:
    by_part: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        by_part[parts[row]].append(row)
    return [members for members in by_part.values() if len(members) > 1]

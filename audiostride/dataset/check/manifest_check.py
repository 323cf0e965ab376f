"""Checking a manifest, a folder or a store before anything is trained on it."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audiostride.checks import check_count
from audiostride.dataset.bad_rows import BadRows
from audiostride.dataset.check.audio_facts import MODEL_RATE, AudioFacts, read_facts, read_store_facts
from audiostride.dataset.check.audio_faults import find_audio_faults, judge_formats
from audiostride.dataset.check.findings import KINDS, CheckResult, Finding, name_files
from audiostride.dataset.check.label_faults import (
    choose_label_columns,
    find_duplicates,
    find_group_faults,
    find_label_faults,
    find_split_faults,
)
from audiostride.dataset.labels import LabelSets, explode_labels, show_labels
from audiostride.dataset.manifest import check_targets, inspect_manifest, multi_hot_columns
from audiostride.dataset.readers import StoreReader
from audiostride.dataset.scores import fill_labels, read_scores
from audiostride.dataset.splits import SPLITS, class_names, describe_several_labels
from audiostride.dataset.store import is_store, read_store_header, verify_store
from audiostride.distributed import default_jobs, map_in_threads
from audiostride.errors import InputError
from audiostride.progress import progress_bar

QUANTILES = {"min": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "max": 1.0}

# Digital silence has no level in decibels.
LOWEST_LEVEL = 1e-8


def check_manifest(
    manifest: str | Path,
    *,
    labels: Sequence[str] | None = None,
    several: LabelSets | None = None,
    group: str | None = None,
    audio_root: str | Path | None = None,
    sample_rate: int = MODEL_RATE,
    allow: Sequence[str] = (),
    jobs: int | None = None,
    progress: bool = True,
) -> CheckResult:
    """All that is wrong with a manifest and its audio, and a summary of both; every clip is decoded once.

    Args:
        manifest: A CSV table, a folder of class folders or a store, as for `inspect_manifest`.
        labels: Columns with labels; None takes ``label``, or else the column that looks like labels if there is one.
        several: How the labels stand in each of `labels`, where clips may have several; None is one label per clip.
        group: Column that says what must not leak across splits; None takes ``group`` where it is there.
        audio_root: Folder that paths are relative to; None is the manifest's own.
        sample_rate: Of the model that is to hear the clips, in Hz.
        allow: Kinds of findings (keys of `KINDS`) that are listed and not counted.
        jobs: Clips decoded at a time; None takes one for each processor.
        progress: Whether progress bars are shown.

    Raises:
        InputError: No such manifest, not a CSV table, a missing column, an unknown kind; a store that is not whole.
    """
    jobs = default_jobs() if jobs is None else jobs
    if jobs < 1:
        raise InputError(f"check: --jobs must be >= 1, got {jobs}")
    for kind in allow:
        if kind not in KINDS:
            raise InputError(f"check: --allow must be one of {', '.join(KINDS)}, got {kind!r}")
    check_count("check", sample_rate=sample_rate)
    stored = is_store(manifest)
    if several is not None:
        labels = labels or ["label"]
    sets = dict.fromkeys(labels or (), several) if several is not None else {}
    clips, bad = inspect_manifest(
        manifest,
        labels=tuple(labels or ()),
        several={name: form for name, form in sets.items() if form is not None},
        audio_root=audio_root,
        group="group" if group is None else group,
        scores=True,
    )
    for option, column in (("--label", labels or ()), ("--group", [group] if group not in (None, "group") else [])):
        for name in column:
            if name not in clips.columns:  # a folder has no columns that could be named
                raise InputError(f"check: {option} must name a column, but {manifest} is a folder, got {name!r}")
    columns, used = _take_labels(clips, bad, labels, where=f"manifest {manifest}")
    scores = read_scores(clips, used, where=f"manifest {manifest}", bad=BadRows(), several=sets)
    filled = {column: fill_labels(clips[column], scores[column]) for column in scores if column not in sets}
    taught = clips.assign(**filled)
    shown = clips.assign(**{column: clips[column].map(show_labels) for column in sets})
    damage = verify_store(manifest, jobs=jobs, progress=progress) if stored else []
    facts = (
        _read_all_stored(clips, manifest, damage, model_rate=sample_rate, jobs=jobs, progress=progress)
        if stored
        else _read_all(clips, bad, model_rate=sample_rate, jobs=jobs, progress=progress)
    )
    group_column = group or ("group" if clips["group"].notna().any() and (clips["group"] != "").any() else None)
    found = [
        *_list_bad_rows(bad, clips),
        *(Finding("damaged-store", line) for line in damage),
        *find_audio_faults(clips, facts, model_rate=sample_rate),
        *find_duplicates(shown, facts, labels=used),
        *find_group_faults(clips, group_column),
        *find_split_faults(clips, split_given=any(message.startswith("split") for message in bad.messages)),
        *(fault for column in used for fault in find_label_faults(explode_labels(taught, column), column)),
        *_note_labels(columns, used, labels),
        *(Finding("several-labels", line) for line in _describe_several(clips, columns, used, sets)),
        *(Finding("left-out", note) for note in bad.notes if note not in bad.messages),
        *judge_formats(clips, facts, model_rate=sample_rate),
        *(_note_store(manifest) if stored else []),
    ]
    order = {kind: place for place, kind in enumerate(KINDS)}
    findings = sorted((item for item in found if item.kind in order), key=lambda item: order[item.kind])
    summary = summarise_clips(clips, facts, labels=columns, group=group_column)
    return CheckResult(
        source=str(manifest),
        findings=findings,
        notes=[item for item in found if item.kind not in order],
        summary=summary,
        allowed=tuple(allow),
        counted_in="file" if Path(manifest).is_dir() and not stored else "line",
    )


def _take_labels(
    clips: pd.DataFrame, bad: BadRows, labels: Sequence[str] | None, *, where: str
) -> tuple[list[str], list[str]]:
    """The label columns to count, and those of them to judge, without blanks around their values."""
    if labels:
        return list(labels), list(labels)
    columns = choose_label_columns(clips)
    for column in columns:
        clips[column] = clips[column].str.strip()
    if len(columns) > 1:
        return columns, []
    check_targets(clips, columns, bad, where=where, scores=True)
    return columns, columns


def _describe_several(clips: pd.DataFrame, columns: list[str], used: list[str], sets: Collection[str]) -> list[str]:
    hot = set(multi_hot_columns(clips[columns])) if len(columns) > len(used) else set()
    lines = [f"columns of 0 and 1 ({', '.join(sorted(hot))}) are not read as one label each"] if hot else []
    return lines + describe_several_labels(clips, used, sets)


def _note_labels(columns: list[str], used: list[str], labels: Sequence[str] | None) -> list[Finding]:
    if len(columns) > len(used):
        message = f"several columns look like labels: {', '.join(columns)}; name those to be checked with --label"
        return [Finding("label-columns", message)]
    if not columns:
        return [Finding("label-columns", "no column looks like labels; name one with --label")]
    if not labels and columns != ["label"]:
        return [Finding("label-columns", f"taken as labels: {columns[0]}; another column is chosen with --label")]
    return []


def _read_all(
    clips: pd.DataFrame, bad: BadRows, *, model_rate: int, jobs: int, progress: bool
) -> list[AudioFacts | Finding | None]:
    """The measures of all clips, or why there are none; None for rows that name no file or no part."""
    skipped = {
        line
        for line, kind, message in zip(bad.lines, bad.kinds, bad.messages, strict=True)
        if kind == "missing" or message.startswith("path")
    }
    columns = [clips[column].tolist() for column in ("line", "path", "start_s", "duration_s")]
    rows = list(zip(*columns, name_files(clips), strict=True))

    def read(row: tuple[int, str, float, float, str]) -> AudioFacts | Finding | None:
        line, path, start_s, duration_s, name = row
        # NaN: the row says no start, or no part.
        if line in skipped or start_s != start_s:
            return None
        return read_facts(path, start_s, duration_s, name=name, model_rate=model_rate)

    found = map_in_threads(read, rows, jobs=jobs)
    return list(progress_bar(found, total=len(rows), desc="reading", unit="clip", disable=not progress, leave=False))


def _read_all_stored(
    clips: pd.DataFrame, store: str | Path, damage: list[str], *, model_rate: int, jobs: int, progress: bool
) -> list[AudioFacts | Finding | None]:
    """As `_read_all` for a store; nothing is read of a store that is damaged."""
    if damage:
        return [None] * len(clips)
    reader = StoreReader(clips, sample_rate=read_store_header(store)["sample_rate"])
    found = map_in_threads(
        lambda index: read_store_facts(reader, index, model_rate=model_rate), range(len(clips)), jobs=jobs
    )
    return list(progress_bar(found, total=len(clips), desc="reading", unit="clip", disable=not progress, leave=False))


def _note_store(store: str | Path) -> list[Finding]:
    header = read_store_header(store)
    notes = [
        Finding(
            "store", f"a store: what is checked is its mono audio at {header['sample_rate']} Hz, not the files it is of"
        )
    ]
    if header["skipped"]:
        message = f"{header['skipped']:,} clips were left out when the store was written; skipped.csv in it lists them"
        notes.append(Finding("store", message))
    return notes


def _list_bad_rows(bad: BadRows, clips: pd.DataFrame) -> list[Finding]:
    """Bad rows in order; a file that is missing in many rows is one finding."""
    found = []
    missing: dict[str, list[int]] = {}
    for line, kind, message in sorted(zip(bad.lines, bad.kinds, bad.messages, strict=True)):
        if kind == "missing" and message.endswith("does not exist"):
            missing.setdefault(message, []).append(line)
        elif kind in ("missing", "place"):
            found.append(Finding("unreadable", message, [line] * (line > 0)))
        else:
            found.append(Finding("bad-row", message, [line]))
    return found + [Finding("missing-file", message, lines) for message, lines in missing.items()]


def summarise_clips(
    clips: pd.DataFrame, facts: list[AudioFacts | Finding | None], *, labels: Sequence[str], group: str | None
) -> dict[str, Any]:
    """Counts and quantiles of a table of clips, made of what JSON has.

    Args:
        clips: As `inspect_manifest` returns it.
        facts: Of each clip.
        labels: Columns whose classes are counted, by split.
        group: Name of the column of groups, if there is one.
    """
    measured = [item for item in facts if isinstance(item, AudioFacts)]
    durations_s = np.array([item.duration_s for item in measured])
    levels = np.array([max(item.rms, LOWEST_LEVEL) for item in measured if not item.n_not_finite])
    has_splits = bool(clips["split"].notna().any())
    splits = [split for split in SPLITS if (clips["split"] == split).any()]
    grouped = clips[clips["group"].notna() & (clips["group"] != "")] if group else clips[:0]
    return {
        "clips": len(clips),
        "files": int(clips["path"].nunique()),
        "measured": len(measured),
        "hours": round(float(durations_s.sum()) / 3600, 6),
        "sample_rates": _count(item.sample_rate for item in measured),
        "channels": _count(item.channels for item in measured),
        "encodings": _count(item.encoding for item in measured),
        "duration_s": _quantiles(durations_s),
        "rms_db": _quantiles(20 * np.log10(levels)),
        "splits": {split: int((clips["split"] == split).sum()) for split in splits},
        "labels": {column: _count_classes(clips, column, has_splits=has_splits) for column in labels},
        "groups": {
            "column": group,
            "count": int(grouped["group"].nunique()),
            "per_split": {split: int(grouped.loc[grouped["split"] == split, "group"].nunique()) for split in splits},
        }
        if group
        else None,
    }


def _count(values: Any) -> dict[str, int]:
    return {str(value): count for value, count in Counter(values).most_common()}


def _quantiles(values: Any) -> dict[str, float]:
    if not len(values):
        return {}
    points = np.quantile(values, list(QUANTILES.values()))
    return {name: round(float(point), 6) for name, point in zip(QUANTILES, points, strict=True)}


def _count_classes(clips: pd.DataFrame, column: str, *, has_splits: bool) -> dict[str, dict[str, int]]:
    labelled = explode_labels(clips, column)
    labelled = labelled[labelled[column] != ""]
    places = labelled["split"] if has_splits else pd.Series("clips", index=labelled.index)
    counts = Counter(zip(labelled[column], places, strict=True))
    found: dict[str, dict[str, int]] = {name: {} for name in class_names(labelled[column])}
    for split in (*SPLITS, "clips"):
        for name in found:
            if (name, split) in counts:
                found[name][split] = counts[name, split]
    return found

"""Reading annotations: selection tables of Raven, label tracks of Audacity, tables of events."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audiostride.dataset.bad_rows import BadRows
from audiostride.dataset.columns import frequency_columns, is_place_column, label_columns, path_columns, read_parts
from audiostride.dataset.splits import SPLIT_NAMES
from audiostride.dataset.text_table import is_of_raven, read_table
from audiostride.errors import InputError, reason_of

# A row of each annotation: ``reference`` is what it says of its recording (nothing: the name of its file says it), NaN
# stands for a time or a frequency that is wrong or not known, an empty text for a label that is missing.
COLUMNS = ["line", "reference", "start_s", "end_s", "low_hz", "high_hz", "label", "group", "split"]
TIMES = ("Begin Time (s)", "End Time (s)", "File Offset (s)")

# As much of a file as shows what it is.
_HEAD_BYTES = 65536
# What `audiostride predict` puts behind a label of Audacity.
_SCORE = re.compile(r" \([01]\.\d\d\)$")
_NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][-+]?\d+)?")


@dataclass
class AnnotationFile:
    """What a file of annotations says."""

    rows: pd.DataFrame
    """One row for each annotation, with `COLUMNS`; a row without times and label is a recording without events."""
    faults: list[tuple[int, str]] = field(default_factory=list)
    """Lines that are wrong, with what is; 0 is the file."""
    notes: list[str] = field(default_factory=list)
    """How its columns are taken."""


def read_raven(file: Path, *, label_column: str | None, group: str | None) -> AnnotationFile:
    """A selection table of Raven: text with tabs, times in seconds, a box of frequencies in Hz, any columns of notes.

    Each view of a sound window that shows a selection writes a row of it, under one number (Raven Pro 1.4 User's
    Manual, Cornell Lab of Ornithology, 2010, chapter 6): they are one annotation here, with the box of the spectrogram.
    ``Begin Time`` counts on over the files of the window, ``File Offset`` within the ``Begin File``.

    Args:
        file: The table.
        label_column: Column of the labels; None takes the one that is named or filled as such.
        group: Column of groups.

    Raises:
        InputError: No table of Raven, no label column or several.
    """
    table, bad = _read(file)
    if not is_of_raven(table.columns) or TIMES[1] not in table.columns:
        raise InputError(f"{file.name} must have the columns Selection, {TIMES[0]} and {TIMES[1]}, got none such")
    column = _choose_label(table, label_column, group)
    times = table[["line", *(name for name in TIMES if name in table.columns)]]
    rows = _take(table, times, column, group, bad)
    bad.notes.clear()  # these names mean what they say
    for name in reversed(path_columns(table.columns)):
        rows["reference"] = table[name].str.strip().where(table[name].str.strip() != "", rows["reference"])
    if "View" in table.columns:
        rows = _join_views(rows, table, bad)
    return _finish(rows, table, column, bad)


def read_audacity(file: Path, *, label_column: str | None, group: str | None) -> AnnotationFile:
    r"""A label track of Audacity: ``start<TAB>end<TAB>label``, and maybe ``\<TAB>low<TAB>high`` in the line below.

    A frequency below 0 is undefined (Audacity Manual, "Importing and Exporting Labels"). Points, which end where they
    begin, have no length, and are faults.

    Args:
        file: The labels, of one recording.
        label_column, group: Must be None: there are no columns.

    Raises:
        InputError: No text in UTF-8; a column is asked for.
    """
    if label_column or group:
        raise InputError("labels of Audacity have no columns; leave --label-column and --group out")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"it must be text in UTF-8, but {reason_of(error)}; export the labels again") from error
    rows: list[dict[str, Any]] = []
    faults: list[tuple[int, str]] = []
    for line, text in enumerate(lines, 1):
        fields = [*text.split("\t"), "", ""]
        if not text.strip():
            continue
        if fields[0] == "\\":
            low_hz, high_hz = map(_number, fields[1:3])
            if not rows or rows[-1]["line"] != line - 1 or np.isnan([low_hz, high_hz]).any():
                faults.append((line, f"it must be low and high frequency of the label above, got {text!r}"))
            else:
                rows[-1] |= {
                    "low_hz": low_hz if low_hz >= 0 else np.nan,
                    "high_hz": high_hz if high_hz >= 0 else np.nan,
                }
            continue
        start_s, end_s = map(_number, fields[:2])
        label = _SCORE.sub("", " ".join(fields[2:]).strip())
        if np.isnan([start_s, end_s]).any():
            faults.append(
                (line, f"it must be start, end and label with tabs between, as in 1.5 2.5 wren, got {text!r}")
            )
            continue
        if start_s < 0 or end_s <= start_s:
            what = "a point has no length" if start_s == end_s else "a label must begin at 0 or later, and then end"
            faults.append((line, f"{what}, got {start_s:g} to {end_s:g} s"))
            start_s, end_s = np.nan, np.nan
        if not label:
            faults.append((line, "the label is empty"))
        rows.append({"line": line, "start_s": start_s, "end_s": end_s, "label": label})
    table = pd.DataFrame(rows, columns=COLUMNS)
    table[["reference", "group", "split"]] = ""
    return AnnotationFile(table, faults)


def read_events(file: Path, *, label_column: str | None, group: str | None) -> AnnotationFile:
    """A table of events with recording, start, end (or length) and label under any of their usual names.

    These are those of the strong labels of DCASE (filename, onset, offset, event_label), of what `audiostride predict`
    writes, and of many programs. A row that names its recording alone says that there are no events in it.

    Args:
        file: A table with any usual separator.
        label_column: Column of the labels; None takes the one that is named or filled as such.
        group: Column of groups.

    Raises:
        InputError: No table, no column of recordings, times or labels, or several.
    """
    table, bad = _read(file)
    if "path" not in table.columns:
        like = path_columns(table.columns)
        way_out = f"rename one of {', '.join(like)}" if like else "add the recordings' names"
        raise InputError(f"it must have a column path, got {', '.join(table.columns[1:])}; {way_out}")
    column = _choose_label(table, label_column, group)
    others = {"line", "path", *([column] if column else []), *([group] if group else [])}
    times = table.drop(columns=[name for name in table.columns if name in others and name != "line"])
    rows = _take(table, times, column, group, bad)
    rows["reference"] = table["path"].str.strip()
    if rows["end_s"].isna().all() and rows["label"].ne("").any() and not len(bad):
        raise InputError("it must say where events begin and end, in seconds, in columns such as onset and offset")
    return _finish(rows, table, column, bad)


READERS: Mapping[str, Callable[..., AnnotationFile]] = {
    "raven": read_raven,
    "audacity": read_audacity,
    "events": read_events,
}


def is_of_kind(file: Path, kind: str) -> bool:
    """Whether the beginning of a text file looks like a kind of annotations; an empty one is a track without labels."""
    if file.suffix.lower() not in (".txt", ".tsv", ".csv"):
        return False
    with file.open("rb") as opened:
        head = opened.read(_HEAD_BYTES).decode("utf-8-sig", errors="replace")
    lines = [line for line in head.splitlines() if line.strip() and not line.startswith(("#", "sep="))]
    if kind == "audacity":
        return not lines or not np.isnan([*map(_number, [*lines[0].split("\t"), ""][:2])]).any()
    names = [name.strip().strip('"') for name in re.split("[,;\t|]", lines[0])] if lines else []
    if kind == "raven":
        return is_of_raven(names)
    return bool(path_columns(names)) and sum(map(is_place_column, names)) > 1


def _number(text: str) -> float:
    """What a text with a decimal point says, or NaN."""
    return float(text) if _NUMBER.fullmatch(text.strip()) else np.nan


def _read(file: Path) -> tuple[pd.DataFrame, BadRows]:
    bad = BadRows()
    try:
        return read_table(file, str(file.parent), bad, may_be_empty=True), bad
    except InputError as error:
        raise InputError(str(error).removeprefix(f"manifest {file}: ").replace(f"manifest {file}", "it")) from error


def _choose_label(table: pd.DataFrame, given: str | None, group: str | None) -> str | None:
    """The column of labels: the one given, else the one that is named so, else the only one with words."""
    names = [name for name in table.columns if name not in ("line", "path", group)]
    for option, name in (("--label-column", given), ("--group", group)):
        if name is not None and name not in table.columns:
            raise InputError(f"it must have the column {name!r} of {option}, got {', '.join(names)}")
    if given is not None or table.empty:
        return given
    filled = [name for name in names if table[name].str.strip().ne("").any()]
    found = label_columns(filled)
    if not found:
        words = [name for name in filled if pd.to_numeric(table[name], errors="coerce").isna().all()]
        # Units stand in brackets, and Raven's own columns begin so.
        taken = ("split", "task", "view", "selection", "channel", *path_columns(names))
        found = [
            name
            for name in words
            if name.lower() not in taken and "(" not in name and not re.match("(begin|end) ", name, re.I)
        ]
    if len(found) == 1:
        return found[0]
    if not filled or set(filled) <= set(path_columns(names)):
        return None
    what = f"several columns may hold the labels, {', '.join(found)}" if found else "no column is named as labels are"
    raise InputError(f"{what}; name it with --label-column, out of {', '.join(filled)}")


def _take(
    table: pd.DataFrame, times: pd.DataFrame, column: str | None, group: str | None, bad: BadRows
) -> pd.DataFrame:
    """The rows of a table with `COLUMNS`; starts and ends are those of `times`."""
    start, duration = read_parts(times, where="it", others=("line", "split", "score", "channel"), bad=bad)
    rows = pd.DataFrame(
        {"line": table["line"], "reference": "", "start_s": start, "end_s": (start + duration).round(6)}
    )
    for side, name in {"low": "low_hz", "high": "high_hz"}.items():
        found = frequency_columns(table.columns).get(side)
        rows[name] = np.nan
        if found:
            text = table[found].str.strip()
            numbers = pd.to_numeric(text.where(text != "", "nan"), errors="coerce").astype(float)
            wrong = (text != "") & ~(numbers >= 0)
            bad.add(rows.loc[wrong, "line"], "row", [f"{found} must be >= 0 Hz, got {each!r}" for each in text[wrong]])
            rows[name] = numbers.mask(wrong)
    rows["label"] = table[column].str.strip() if column else ""
    rows["group"] = table[group].str.strip() if group else ""
    rows["split"] = table["split"].str.strip() if "split" in table.columns else ""
    known = rows["split"].str.lower().map(SPLIT_NAMES)
    wrong = known.isna() & (rows["split"] != "")
    messages = [
        f"split must be train, valid (val, validation, dev) or test, got {name!r}" for name in rows["split"][wrong]
    ]
    bad.add(rows.loc[wrong, "line"], "row", messages)
    rows["split"] = known.fillna("")
    return rows


def _finish(rows: pd.DataFrame, table: pd.DataFrame, column: str | None, bad: BadRows) -> AnnotationFile:
    """What is missing is a fault, but where a row names its recording alone; notes say how columns are taken."""
    wrong = rows["line"].isin(bad.lines)
    empty = rows["end_s"].isna() & (rows["label"] == "") & ~wrong & (rows["reference"] != "")
    bad.add(rows.loc[rows["end_s"].isna() & ~empty & ~wrong, "line"], "row", "the end is empty")
    bad.add(rows.loc[(rows["label"] == "") & ~empty, "line"], "row", f"{column or 'the label'} is empty")
    tasks = next((table[name].str.strip() for name in table.columns if name.lower() == "task"), None)
    if tasks is not None and tasks.nunique() > 1:
        rows["label"] = (tasks + ": " + rows["label"]).where(rows["label"] != "", "")
        bad.notes.append("the labels of several tasks have the task before them, as in 'task: label'")
    notes = [re.sub(r"^manifest .*?: (?=column)", "", note) for note in bad.notes]
    notes += [f"labels are those of column {column!r}"] if column else []
    own = set(rows["line"]) | {0}
    faults = [fault for fault in zip(bad.lines, bad.messages, strict=True) if fault[0] in own]
    return AnnotationFile(rows[COLUMNS], faults, notes)


def _join_views(rows: pd.DataFrame, table: pd.DataFrame, bad: BadRows) -> pd.DataFrame:
    """One row of those that views of one selection have: the box of a spectrogram, and the label of any."""
    rows = rows.assign(selection=table["Selection"], flat=table["View"].str.contains("wave", case=False))
    rows = rows.sort_values("flat", kind="stable")  # waveforms behind
    key = ["selection", "reference", "start_s", "end_s"]
    named = rows.groupby(key, dropna=False)["label"].transform(lambda names: next((each for each in names if each), ""))
    differ = (rows["label"] != "") & (rows["label"] != named)
    first = rows.groupby(key, dropna=False)["line"].transform("first")
    views = zip(rows.loc[differ, "label"], rows.loc[differ, "line"], named[differ], strict=True)
    messages = [
        f"its selection is {name!r} here and {other!r} in the view of line {line}" for other, line, name in views
    ]
    bad.add(first[differ], "row", messages)
    rows["label"] = named
    joined = rows.duplicated(key)
    if joined.any():
        bad.notes.append("a selection that several views show is counted once")
    return rows[~joined].sort_index()

"""The annotations of all files together: read, given to their recordings, and checked, all faults at once."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audiostride.dataset.columns import ROUNDING_S
from audiostride.dataset.folders import UNWRITABLE
from audiostride.dataset.importers.annotation_files import COLUMNS, READERS, is_of_kind
from audiostride.dataset.importers.annotation_recordings import Recordings
from audiostride.dataset.importers.imported import list_below
from audiostride.dataset.readers import END_TOLERANCE_S
from audiostride.errors import InputError
from audiostride.wording import count_of, escape, name_some

# Lines of one fault that are named.
MAX_LINES = 10


@dataclass
class AnnotatedRows:
    """Annotations, one row each, what is wrong with them, and how they are taken."""

    rows: pd.DataFrame
    """`COLUMNS`, and ``file``, ``recording`` (None: not found) and ``usable``: whether nothing is wrong."""
    files: list[str]
    """Names of the files that were read, below their folder."""
    faults: list[tuple[str, int, str]] = field(default_factory=list)
    """File, line (0: all of it) and what is wrong."""
    notes: list[str] = field(default_factory=list)
    """How columns are taken, and what is left out."""
    without_rows: set[str] = field(default_factory=set)
    """Recordings that a file without annotations belongs to."""

    def find_recordings(self, recordings: Recordings, *, exact: bool) -> None:
        """Look for the recording of each row: the one that it names, or the one that its file is named after.

        Args:
            recordings: All that there are.
            exact: Whether the name of a file must be that of its recording, or only begin so.
        """
        owners: dict[str, list[str]] = defaultdict(list)
        for file in self.files:
            own = self.rows["file"] == file
            if own.any() and (self.rows.loc[own, "reference"] != "").all():
                continue
            name, why = recordings.find_owner(file, exact=exact)
            if recordings.single and len(self.files) == 1:
                name = recordings.names[0]
            if name is None:
                way_out = "name it as its recording, or give that recording as AUDIO"
                self.faults.append((file, 0, f"{why}; {way_out}"))
            else:
                owners[name].append(file)
                self.without_rows |= set() if own.any() else {name}
            self.rows.loc[own & (self.rows["reference"] == ""), "recording"] = name
        for name, files in owners.items():
            if len(files) > 1:
                self.notes.append(f"{escape(name)} has several files of annotations: {name_some(files)}")
        named = self.rows[self.rows["reference"] != ""]
        for reference, rows in named.groupby("reference", sort=False):
            name, why = recordings.find(str(reference))
            self.rows.loc[rows.index, "recording"] = name
            if name is None:
                self._refuse(rows.index, f"{escape(why)}")
        # Two files that folders apart had one name, of which one is there.
        named = self.rows[(self.rows["reference"] != "") & self.rows["recording"].notna()]
        for (_, owner), rows in named.groupby(["file", "recording"], sort=False):
            if len(references := rows["reference"].unique()) > 1:
                self._refuse(rows.index, f"{owner} may be any of {name_some(references)}; give one table for each")

    def check(self, recordings: Recordings, *, fmin_hz: float | None, fmax_hz: float | None) -> None:
        """Note annotations that do not fit their recordings, that a model does not hear, or that say the same twice.

        Those that overlap another of their label, in time and frequency, are noted and stay usable.

        Args:
            recordings: Whose headers are read.
            fmin_hz, fmax_hz: The model's band.
        """
        for name in sorted({*self.rows["recording"].dropna(), *self.without_rows}):
            try:
                info = recordings.info(name)
            except InputError as error:
                self._refuse(self.rows.index[self.rows["recording"] == name], str(error))
                self.without_rows.discard(name)
                self.rows.loc[self.rows["recording"] == name, "recording"] = None
                continue
            rows = self.rows[self.rows["recording"] == name]
            end_s, highest_hz = info.duration_s, info.sample_rate / 2
            for row in _records(rows[rows["end_s"] > end_s + END_TOLERANCE_S]):
                what = f"{_span(row)} reaches beyond {escape(name)}, which ends at {end_s:g} s"
                self._refuse([row["index"]], what)
            for row in _records(rows[rows["low_hz"] >= highest_hz]):
                what = f"its lowest frequency must be below {highest_hz:g} Hz, half the rate of {escape(name)}"
                self._refuse([row["index"]], f"{what}, got {row['low_hz']:g} Hz")
            for column in ("group", "split"):
                if len(values := sorted({*rows[column]} - {""})) > 1:
                    self._refuse(rows.index, f"{column} must be one for all of {name}, got {name_some(values)}")
        low, high = self.rows["low_hz"], self.rows["high_hz"]
        for row in _records(self.rows[low > high]):
            self._refuse([row["index"]], f"its frequencies must go up, got {row['low_hz']:g} to {row['high_hz']:g} Hz")
        lowest, highest = 0.0 if fmin_hz is None else fmin_hz, np.inf if fmax_hz is None else fmax_hz
        for row in _records(self.rows[(low >= highest) | (high <= lowest)]):
            what = f"{row['low_hz']:g} to {row['high_hz']:g} Hz lies outside of the model's band"
            self._refuse([row["index"]], f"{what}, {lowest:g} to {highest:g} Hz")
        for label in self.rows["label"].unique():
            if UNWRITABLE.search(label):
                own = self.rows.index[self.rows["label"] == label]
                self._refuse(own, f"labels must have no control characters, got {label!r}")
        self._find_overlaps()

    def _find_overlaps(self) -> None:
        rows = self.rows[self.rows["usable"] & self.rows["end_s"].notna()].sort_values(["start_s", "end_s"])
        rows = rows.fillna({"low_hz": -np.inf, "high_hz": np.inf})
        for _, own in rows.groupby(["recording", "label"], sort=False):
            ordered = _records(own)
            for number, one in enumerate(ordered):
                for other in ordered[number + 1 :]:
                    if other["start_s"] > one["end_s"] - ROUNDING_S:
                        break
                    if other["low_hz"] >= one["high_hz"] or one["low_hz"] >= other["high_hz"]:
                        continue
                    where = "" if one["file"] == other["file"] else f"{one['file']}, "
                    what = f"{other['label']}, {_span(other)}, overlaps that of {where}line {one['line']}, {_span(one)}"
                    self.faults.append((other["file"], other["line"], what))

    def by_recording(self, recordings: Recordings) -> Iterator[tuple[str, pd.DataFrame]]:
        """Each annotated recording with its rows that have a place in it, usable or not."""
        for name in sorted({*self.rows["recording"].dropna(), *self.without_rows}):
            rows, end_s = self.rows[self.rows["recording"] == name], recordings.info(name).duration_s
            # What is wrong and has no place may be anywhere.
            anywhere = ~rows["usable"] & rows["end_s"].isna()
            start = rows["start_s"].mask(anywhere, 0.0)
            rows = rows.assign(start_s=start, end_s=rows["end_s"].mask(anywhere, end_s).clip(upper=end_s))
            yield name, rows[rows["end_s"] > rows["start_s"]]

    def describe(self, recordings: Recordings) -> list[str]:
        """Lines on how files are taken, and on recordings that none belongs to."""
        taken = {*self.rows["recording"].dropna(), *self.without_rows}
        lines = [
            f"{count_of(int(self.rows['end_s'].notna().sum()), 'annotation')} in {count_of(len(self.files), 'file')}"
        ]
        if others := [name for name in recordings.names if name not in taken]:
            lines.append(f"{count_of(len(others), 'recording')} without annotations left out: {name_some(others)}")
        return lines + self.notes

    def contradictions(self) -> list[str]:
        """All faults, with file, lines and what is wrong; the lines of one fault are together."""
        lines: dict[tuple[str, str], list[int]] = defaultdict(list)
        for file, line, what in self.faults:
            lines[file, what].append(line)
        result = []
        for (file, what), numbers in lines.items():
            numbers = sorted({*numbers})
            more = f" and {len(numbers) - MAX_LINES:,} more" if len(numbers) > MAX_LINES else ""
            listed = ", ".join(map(str, numbers[:MAX_LINES])) + more
            place = f", line{'s' * (len(numbers) > 1)} {listed}" if numbers[0] else ""
            result.append(f"{escape(file)}{place}: {escape(what)}")
        return result

    def _refuse(self, index: "pd.Index[int] | list[int]", what: str) -> None:
        """Note rows by their index as wrong."""
        self.rows.loc[index, "usable"] = False
        self.faults += [(row["file"], row["line"], what) for row in _records(self.rows.loc[index])]


def _records(rows: pd.DataFrame) -> list[dict[Any, Any]]:
    """The rows one by one, with their ``index``."""
    return rows.assign(index=rows.index).to_dict("records")


def _span(row: Mapping[Any, Any]) -> str:
    return f"{row['start_s']:g} to {row['end_s']:g} s"


def read_annotations(
    kind: str, root: Path, leave_out: Path | None, *, label_column: str | None, group: str | None
) -> AnnotatedRows:
    """The annotations of a file, or of all files of their kind in a folder.

    Args:
        kind: raven, audacity or events.
        root: The file or folder.
        leave_out: A file that is none of them.
        label_column, group: Columns; None takes the likely one, and none.

    Raises:
        InputError: There is no such file or folder, or none of this kind in it.
    """
    names, notes = [root.name], list[str]()
    folder = root.parent
    if root.is_dir():
        folder, found = root, list_below(root, notes=notes)
        out = None if leave_out is None else os.path.abspath(leave_out)
        texts = [name for name in found if name.lower().endswith((".txt", ".tsv", ".csv"))]
        texts = [name for name in texts if os.path.abspath(root / name) != out]
        names = [name for name in texts if is_of_kind(root / name, kind)]
        if others := {*texts} - {*names}:
            notes.append(f"{count_of(len(others), 'text file')} that are no annotations of {kind}: {name_some(others)}")
        if not names:
            raise InputError(
                f"import {kind}: ROOT must be a file of annotations or hold such files (.txt, .tsv, .csv), got none in "
                f"{root}" + (f"; {notes[-1]}" if others else "")
            )
    elif not root.is_file():
        raise InputError(f"import {kind}: ROOT must be a file of annotations or a folder with such files, got {root}")
    tables, faults = [pd.DataFrame(columns=[*COLUMNS, "file", "usable"])], list[tuple[str, int, str]]()
    for name in names:
        try:
            read = READERS[kind](folder / name, label_column=label_column, group=group)
        except InputError as error:
            faults.append((name, 0, str(error)))
            continue
        wrong = [line for line, _ in read.faults]
        tables.append(read.rows.assign(file=name, usable=~read.rows["line"].isin(wrong)))
        faults += [(name, line, what) for line, what in read.faults]
        notes += read.notes
    failed = {name for name, line, _ in faults if line == 0}
    rows = pd.concat([table for table in tables if len(table)] or tables, ignore_index=True).assign(recording=None)
    rows = rows.astype({"usable": bool} | dict.fromkeys(["start_s", "end_s", "low_hz", "high_hz"], float))
    return AnnotatedRows(rows, [name for name in names if name not in failed], faults, list(dict.fromkeys(notes)))

"""A table of clips from a text file: its separator, comments before it, lists of paths, and the line of each row."""

import csv
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audiostride.dataset.bad_rows import BadRows
from audiostride.dataset.columns import path_columns
from audiostride.dataset.folders import OTHER_SUFFIXES, is_audio
from audiostride.dataset.store import PLACE_COLUMNS
from audiostride.errors import InputError, reason_of

# Columns that the tables of clips and stores have themselves; a manifest's own of that name is renamed.
RESERVED = ("line", "clip_name", "store", "store_row", *PLACE_COLUMNS)

# Ends of names of files that may be lists of paths.
LISTS = (".txt", ".lst")

# What spreadsheets put before the names of columns.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.I)
_MARKS = {",": "commas", "\t": "tabs", ";": "semicolons"}

# What tables are saved as that are no text in UTF-8, by their first bytes.
_OTHER_TABLES = {
    b"PK": "a workbook of a spreadsheet program, or an archive",
    b"\xd0\xcf\x11\xe0": "a workbook of an old spreadsheet program",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"PAR1": "Parquet",
}
_NUMBER = re.compile(r"-?\d+(\.\d*)?")


def read_table(manifest: Path, root: str, bad: BadRows, *, may_be_empty: bool = False) -> pd.DataFrame:
    """The file as a table of text, with columns ``line`` and, where one may be it, ``path``."""
    form = _look_at(manifest, root)
    try:
        if form.is_list:
            with manifest.open(encoding="utf-8-sig") as file:
                lines = [(number, line.strip()) for number, line in enumerate(file, 1) if number > form.skipped]
            return pd.DataFrame([line for line in lines if line[1]], columns=["line", "path"])
        table = pd.read_csv(
            manifest, sep=form.separator, skiprows=form.skipped, dtype=str, keep_default_na=False,
            encoding="utf-8-sig", skip_blank_lines=False, index_col=False, quoting=form.quoting,
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        _raise_uneven_rows(manifest, form)
        raise _no_table(manifest, error) from error
    table.columns = table.columns.str.strip()
    table = table.fillna("")  # a row with fewer fields than columns
    table = table.rename(columns={name: f"{name} (of the manifest)" for name in RESERVED})
    table.insert(0, "line", form.skipped + _line_numbers(table))
    blank = (table.drop(columns="line") == "").all(axis=1)
    table = table[~blank].reset_index(drop=True)
    if table.empty and not may_be_empty:
        raise InputError(f"manifest {manifest} must have at least one row, got none")
    like = path_columns(table.columns)
    if "path" not in table.columns and (len(like) == 1 or like[:1] == ["Begin Path"]):
        bad.notes.append(f"manifest {manifest}: column {like[0]!r} is taken as path")
        table["path"] = table[like[0]]
    several = "path" in table.columns and table["path"].nunique() > 1
    if several and is_of_raven(table.columns) and "File Offset (s)" not in table.columns:
        raise InputError(
            f"manifest {manifest}: Begin Time (s) of Raven counts on over several recordings; save the table with "
            "File Offset (s) too, or one table for each recording"
        )
    return table


def read_columns(manifest: Path) -> list[str]:
    """The names of the columns of a file that `read_table` reads; a list of paths has none."""
    form = _look_at(manifest, os.path.abspath(manifest.parent))
    if form.is_list:
        return []
    with manifest.open(encoding="utf-8-sig", newline="") as file:
        lines = islice(csv.reader(file, delimiter=form.separator, quoting=form.quoting), form.skipped, None)
        return [name.strip() for name in next(lines, [])]


def is_of_raven(columns: Iterable[str]) -> bool:
    """Whether columns are those of a selection table of Raven."""
    return {"Selection", "Begin Time (s)"} <= {*columns}


def _no_table(manifest: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"manifest {manifest} does not exist; give a CSV file, a folder of class folders, or a store")
    what = f"reading it failed: {reason_of(error)}"
    with suppress(OSError), manifest.open("rb") as file:
        head = file.read(8)
        if found := next((name for magic, name in _OTHER_TABLES.items() if head.startswith(magic)), None):
            what = f"it is {found}"
    return InputError(f"manifest {manifest} must be a CSV table in UTF-8, but {what}; save it as CSV in UTF-8")


class _Form(NamedTuple):
    """How a file holds its table: lines before it, what stands between columns, whether its lines are paths instead,
    and whether fields may have quotes."""

    skipped: int = 0
    separator: str = ","
    is_list: bool = False
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL


def _look_at(manifest: Path, root: str) -> _Form:
    """How a file holds its table; raises where the first lines show that it is none with named columns."""
    marks, skipped = [",", "\t", ";", "|"], 0
    heads: dict[str, list[list[str]]] = {}
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            while True:
                place, line = file.tell(), file.readline().rstrip("\r\n")
                if given := _SEPARATOR_LINE.fullmatch(line):
                    marks = [given[1]]
                elif not line.startswith("#") or os.path.isfile(os.path.join(root, line)):
                    break
                skipped += 1
            for mark in marks:
                file.seek(place)
                heads[mark] = list(islice(csv.reader(file, delimiter=mark), 2))
    except (UnicodeDecodeError, OSError, csv.Error) as error:
        raise _no_table(manifest, error) from error
    columns = {mark: [name.strip() for name in rows[0]] if rows else [] for mark, rows in heads.items()}
    named = [mark for mark in marks if path_columns(columns[mark])]
    mark = next(iter([*named, *(mark for mark in marks if len(columns[mark]) > 1), marks[0]]))
    first, names = heads[mark], columns[mark]
    # Raven knows no quotes: one within a label would take the lines behind it along.
    plain = mark == "\t" and is_of_raven(names)
    form = _Form(skipped, mark, quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL)
    if not named and manifest.suffix.lower() in LISTS:
        if is_audio(line) or OTHER_SUFFIXES.search(line) or os.path.isfile(f"{root}/{line}"):
            return _Form(skipped, is_list=True)
        if len(names) > 1 and all(_NUMBER.fullmatch(name) for name in names[:2]):
            raise InputError(
                f"manifest {manifest}: labels of Audacity do not name their recording; write a table with the columns "
                "path,start_s,end_s,label, or make a manifest with: audiostride import audacity"
            )
    if first and not any(names):
        raise InputError(f"manifest {manifest}: its first line must name the columns, got a blank line; remove it")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InputError(f"manifest {manifest} must have each column once, got twice: {', '.join(twice)}; rename one")
    if len(first) == 2 and len(first[1]) > len(names):
        _raise_uneven_rows(manifest, form)
    return form


def _raise_uneven_rows(manifest: Path, form: _Form) -> None:
    """Raise, listing all rows with more fields than there are columns, if there are any."""
    bad = BadRows()
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            for _ in range(form.skipped):
                file.readline()
            reader = csv.reader(file, delimiter=form.separator, quoting=form.quoting)
            columns = len(next(reader, []))
            line = form.skipped + reader.line_num + 1
            for row in reader:
                if len(row) > columns:
                    mark = _MARKS.get(form.separator, form.separator)
                    what = f"must have {columns} fields, got {len(row)}; quote fields that hold {mark}"
                    bad.add([line], "row", what)
                line = form.skipped + reader.line_num + 1
    except (UnicodeDecodeError, csv.Error):
        return
    bad.raise_if_any(f"manifest {manifest}", "mend these rows")


def _line_numbers(table: pd.DataFrame) -> NDArray[np.int64]:
    """The line of the file that each row begins in; a quoted field may hold line breaks."""
    breaks = np.zeros(len(table), dtype=np.int64)
    for column in table.columns:
        if table[column].str.contains("\n", regex=False).any():
            breaks += table[column].str.count("\n").to_numpy(dtype=np.int64)
    in_names = sum(name.count("\n") for name in table.columns)
    before = np.cumsum(breaks) - breaks
    numbers: NDArray[np.int64] = 2 + in_names + np.arange(len(table)) + before
    return numbers

"""Manifests: the table of clips with their labels and splits, checked for form; bad rows are reported together."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audiostride.audio.resampling import find_audio_files
from audiostride.dataset.store import PLACE_COLUMNS, is_store, read_store_clips
from audiostride.errors import InputError

SPLITS = ("train", "valid", "test")
SPLIT_NAMES = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid"} | {
    "dev": "valid",
    "test": "test",
    "testing": "test",
}

# Columns that the tables of clips and stores have themselves; a manifest's own of that name is renamed.
RESERVED = ("line", "clip_name", "store", "store_row", *PLACE_COLUMNS)

# From this many files in a folder on, listing the folder is faster than asking for each file.
LIST_FOLDER_FROM = 20

# Bad rows that are listed in words.
MAX_LISTED = 20


@dataclass
class BadRows:
    """Rows of a manifest that cannot be used, collected so that all are reported at once."""

    lines: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines)

    def add(self, lines: "pd.Series[int] | Sequence[int]", kind: str, messages: Sequence[str] | str) -> None:
        """Note rows by their line numbers, with one message for all or one for each."""
        numbers = [int(line) for line in lines]
        self.lines += numbers
        self.kinds += [kind] * len(numbers)
        self.messages += [messages] * len(numbers) if isinstance(messages, str) else list(messages)

    def only(self, kinds: Sequence[str] | None) -> "BadRows":
        """Those of the given kinds; None gives all."""
        chosen = [
            row for row in zip(self.lines, self.kinds, self.messages, strict=True) if not kinds or row[1] in kinds
        ]
        return BadRows(*(list(column) for column in zip(*chosen, strict=True))) if chosen else BadRows()

    def raise_if_any(self, where: str, way_out: str) -> None:
        """Raise `InputError` listing the rows, if there are any."""
        if self.lines:
            rows = list(zip(self.lines, self.messages, strict=True))
            raise InputError(describe_bad_rows(where, rows, way_out))


def describe_bad_rows(where: str, rows: list[tuple[int, str]], way_out: str) -> str:
    """One message that lists bad rows by line number, the first 20 of them in words."""
    listed = [f"  line {line}: {message}" for line, message in sorted(rows)[:MAX_LISTED]]
    if len(rows) > MAX_LISTED:
        listed.append(f"  ... and {len(rows) - MAX_LISTED} more")
    return "\n".join([f"{where}: {len(rows)} bad row{'s' if len(rows) > 1 else ''}", *listed, way_out])


def inspect_manifest(
    manifest: str | Path, *, labels: Sequence[str] = (), audio_root: str | Path | None = None, group: str = "group"
) -> tuple[pd.DataFrame, BadRows]:
    """All rows of a manifest, good and bad, and what is wrong with the bad ones.

    Args:
        manifest: A CSV table with a column ``path`` and optional ``start_s``, ``duration_s``, ``split`` (train, valid
            or test; val, validation and dev mean valid) and ``group``; or a folder ``ROOT/<class>/<file>``, or
            ``ROOT/<split>/<class>/<file>``, whose classes are then the folder names; or a store that
            ``audiostride prepare`` wrote.
        labels: Columns that must be there and filled.
        audio_root: Folder that paths are relative to; None is the manifest's own.
        group: Column of the groups; ``group`` may be missing, another one must be there.

    Returns:
        The table and its bad rows. The table has one row per clip: ``line`` (in the CSV file), ``path`` (absolute),
        ``clip_name`` (the path from the root on, which stays when a data set is moved), ``start_s``, ``duration_s``
        (NaN: to the end), ``split`` (``None`` in all rows where the manifest has none), ``group`` (likewise), and every
        other column of the manifest as text.

    Raises:
        InputError: No such file, not a CSV table, a missing column.
    """
    manifest = Path(manifest)
    if is_store(manifest):
        table, root = read_store_clips(manifest), None
    elif manifest.is_dir():
        return _read_folder(manifest), BadRows()
    else:
        table = _read_table(manifest)
        root = os.path.abspath(audio_root if audio_root is not None else manifest.parent)
    for column in {*labels, group} & {*RESERVED}:
        raise InputError(f"manifest {manifest}: a column of labels or groups must not be named {column!r}; rename it")
    needed = ["path", *labels, *([group] if group != "group" else [])]
    for column in needed:
        if column not in table.columns:
            given = ", ".join(name for name in table.columns if name != "line")
            raise InputError(
                f"manifest {manifest} must have a column {column!r}, got {given}; "
                + ("its first line must name the columns, separated by commas" if column == "path" else "")
                + ("name the column of labels with --label" if column in labels else "")
                + (f"name the column of groups with --group, not {group!r}" if column == group else "")
            )
    bad = BadRows()
    clips = pd.DataFrame({"line": table["line"]})
    text = table["path"].str.strip()
    bad.add(clips.loc[text == "", "line"], "row", "path is empty")
    if root is not None:
        inside = ~text.map(os.path.isabs).astype(bool)
        clips["path"] = text.where(~inside | (text == ""), f"{root}{os.sep}" + text)
        clips["clip_name"] = "/" + text.where(inside, clips["path"])
    else:
        clips["path"], clips["clip_name"] = text, table["clip_name"]
    for column in labels:
        empty = table[column].str.strip() == ""
        bad.add(clips.loc[empty, "line"], "row", f"{column} is empty")
    for column, default in (("start_s", 0.0), ("duration_s", float("nan"))):
        clips[column] = _read_seconds(table, column, default, bad)
    if "split" in table.columns and not (root is None and table["split"].eq("").all()):
        clips["split"] = table["split"].str.strip().str.lower().map(SPLIT_NAMES).astype(object)
        wrong = clips["split"].isna()
        bad.add(
            clips.loc[wrong, "line"],
            "row",
            [
                f"split must be train, valid (val, validation, dev) or test, got {value!r}"
                for value in table.loc[wrong, "split"]
            ],
        )
    else:
        clips["split"] = None
    groups = table[group].str.strip() if group in table.columns else None
    # An empty column is none, not one group of all clips.
    clips["group"] = groups if groups is not None and groups.ne("").any() else None
    if root is not None:
        missing = clips.loc[(text != "") & ~_exist(clips["path"])]
        bad.add(missing["line"], "missing", [f"audio file {path} does not exist" for path in missing["path"]])
    rest = {column: table[column] for column in table.columns if column not in clips.columns}
    rest = {column: values.str.strip() if column in labels else values for column, values in rest.items()}
    return pd.concat([clips, pd.DataFrame(rest, index=clips.index)], axis=1), bad


def _read_seconds(table: pd.DataFrame, column: str, default: float, bad: BadRows) -> "pd.Series[float]":
    if column not in table.columns:
        return pd.Series(default, index=table.index)
    if pd.api.types.is_float_dtype(table[column]):  # of a store
        return table[column]
    text = table[column].str.strip()
    numbers = pd.to_numeric(text.where(text != "", "nan"), errors="coerce").astype(float)
    lowest = ">= 0" if default == 0 else "> 0"
    wrong = (text != "") & ~((numbers >= 0 if default == 0 else numbers > 0) & np.isfinite(numbers))
    bad.add(
        table.loc[wrong, "line"],
        "row",
        [f"{column} must be a number of seconds {lowest}, got {value!r}" for value in text[wrong]],
    )
    return numbers.where(text != "", default)


def _exist(paths: "pd.Series[str]") -> "pd.Series[bool]":
    """Whether each path is a file; a folder with many of them is listed once."""
    codes, unique = pd.factorize(paths)
    by_folder: dict[str, list[int]] = {}
    for number, path in enumerate(unique):
        by_folder.setdefault(os.path.dirname(path), []).append(number)
    there = np.zeros(len(unique), dtype=bool)
    for folder, numbers in by_folder.items():
        if len(numbers) < LIST_FOLDER_FROM:
            there[numbers] = [os.path.isfile(unique[number]) for number in numbers]
        elif os.path.isdir(folder):
            with os.scandir(folder) as entries:
                files = {entry.name for entry in entries if entry.is_file()}
            there[numbers] = [os.path.basename(unique[number]) in files for number in numbers]
    return pd.Series(there[codes], index=paths.index, dtype=bool)


def _read_table(manifest: Path) -> pd.DataFrame:
    """The CSV file as text, with a column ``line``; names of columns without surrounding blanks."""
    if not manifest.exists():
        raise InputError(f"manifest {manifest} does not exist; give a CSV file, a folder of class folders, or a store")
    _check_columns(manifest)
    try:
        table = pd.read_csv(
            manifest, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False, index_col=False
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        _raise_uneven_rows(manifest)
        raise InputError(f"manifest {manifest} must be a CSV table in UTF-8, but reading it failed: {error}") from error
    table.columns = table.columns.str.strip()
    table = table.fillna("")  # a row with fewer fields than columns
    table = table.rename(columns={name: f"{name} (of the manifest)" for name in RESERVED})
    table.insert(0, "line", _line_numbers(table))
    blank = (table.drop(columns="line") == "").all(axis=1)
    table = table[~blank].reset_index(drop=True)
    if table.empty:
        raise InputError(f"manifest {manifest} must have at least one row, got none")
    return table


def _check_columns(manifest: Path) -> None:
    """Raise where the first lines show that the file is not a CSV table with named columns."""
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            first = list(islice(csv.reader(file), 2))
    except (UnicodeDecodeError, OSError, csv.Error) as error:
        raise InputError(f"manifest {manifest} must be a CSV table in UTF-8, but reading it failed: {error}") from error
    names = [name.strip() for name in first[0]] if first else []
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise InputError(
            f"manifest {manifest} must have columns separated by commas, got {names[0]!r}; save it with commas"
        )
    if first and not any(names):
        raise InputError(f"manifest {manifest}: its first line must name the columns, got a blank line; remove it")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InputError(f"manifest {manifest} must have each column once, got twice: {', '.join(twice)}; rename one")
    if len(first) == 2 and len(first[1]) > len(names):
        _raise_uneven_rows(manifest)


def _raise_uneven_rows(manifest: Path) -> None:
    """Raise, listing all rows with more fields than there are columns, if there are any."""
    bad = BadRows()
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            columns = len(next(reader, []))
            line = reader.line_num + 1
            for row in reader:
                if len(row) > columns:
                    bad.add([line], "row", f"must have {columns} fields, got {len(row)}; quote fields that hold commas")
                line = reader.line_num + 1
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


def _read_folder(root: Path) -> pd.DataFrame:
    folders = _visible_folders(root)
    with_splits = bool(folders) and all(path.name.lower() in SPLIT_NAMES for path in folders)
    rows = []
    for folder in folders:
        classes = _visible_folders(folder) if with_splits else [folder]
        split = SPLIT_NAMES[folder.name.lower()] if with_splits else None
        rows += [
            (str(file.absolute()), f"/{file.relative_to(root).as_posix()}", split, path.name)
            for path in classes
            for file in find_audio_files(path)
        ]
    if not rows:
        raise InputError(f"folder {root} must hold class folders with audio files, e.g. {root}/dog/1.wav; found none")
    clips = pd.DataFrame(rows, columns=["path", "clip_name", "split", "label"])
    clips["split"] = clips["split"].astype(object).where(clips["split"].notna(), None)
    return clips.assign(line=range(1, len(clips) + 1), start_s=0.0, duration_s=float("nan"), group=None)


def _visible_folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith((".", "_")))

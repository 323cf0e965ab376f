"""Manifests: the table of clips with their labels and splits, checked for form; bad rows are reported together."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from audiostride.dataset.bad_rows import BadRows
from audiostride.dataset.class_folders import read_folder_clips
from audiostride.dataset.columns import path_columns, read_parts
from audiostride.dataset.folders import UNWRITABLE, find_name_fault
from audiostride.dataset.labels import LabelSets, read_label_sets
from audiostride.dataset.scores import has_scores, is_score_column, read_scores
from audiostride.dataset.splits import SPLIT_NAMES
from audiostride.dataset.store import is_store, read_store_clips
from audiostride.dataset.text_table import RESERVED, is_of_raven, read_columns, read_table
from audiostride.errors import InputError

# From this many files in a folder on, listing the folder is faster than asking for each file.
LIST_FOLDER_FROM = 20


def inspect_manifest(
    manifest: str | Path,
    *,
    labels: Sequence[str] = (),
    audio_root: str | Path | None = None,
    group: str = "group",
    splits: bool = True,
    scores: bool = False,
    several: Mapping[str, LabelSets] | None = None,
) -> tuple[pd.DataFrame, BadRows]:
    """All rows of a manifest, good and bad, and what is wrong with the bad ones.

    Args:
        manifest: A table with a column ``path`` and optional ``start_s``, ``duration_s`` or ``end_s``, ``split``
            (train, valid or test; val, validation and dev mean valid) and ``group``, path and times also under their
            usual other names; a list of paths; a folder ``ROOT/<class>/<file>``, or ``ROOT/<split>/<class>/<file>``,
            whose classes are then the folder names; or a store that ``audiostride prepare`` wrote.
        labels: Columns that must be there and filled, but for training clips that have scores (see `read_scores`).
        audio_root: Folder that paths are relative to; None is the manifest's own.
        group: Column of the groups; ``group`` may be missing, another one must be there.
        splits: Whether the column ``split`` is read.
        scores: Whether columns of scores are checked, and stand for labels in training; they stay text.
        several: Those of `labels` that hold any number of labels for a clip, see `read_label_sets`, or are to be made
            of columns of 0 and 1.

    Returns:
        The table and its bad rows. The table has one row per clip: ``line`` (in the file), ``path`` (absolute),
        ``clip_name`` (the path from the root on, which stays when a data set is moved), ``start_s``, ``duration_s``
        (NaN: to the end), ``split`` (``None`` in all rows where the manifest has none), ``group`` (likewise), and every
        other column of the manifest as text.

    Raises:
        InputError: No such file, not a table in text, a missing column; several labels of a folder, or as
            `read_label_sets`.
    """
    manifest, bad, several = Path(manifest), BadRows(), several or {}
    if (held := manifest_in(manifest)) is not None:
        bad.notes.append(f"folder {manifest} holds {held.name}, which is taken and not its folders")
        manifest = held
    if is_store(manifest):
        table, root = read_store_clips(manifest), None
    else:
        is_folder = os.path.isdir(manifest)
        root = os.path.abspath(manifest if is_folder else audio_root or manifest.parent)
        if fault := find_name_fault(root, "folder"):
            raise InputError(fault)
        if is_folder and several:
            raise InputError(
                f"folder {manifest}: several labels of a clip must stand in a table, but class folders give one; give "
                "a CSV manifest, or leave --multi-label out"
            )
        if is_folder:
            return read_folder_clips(manifest, bad), bad
        table = read_table(manifest, root, bad)
    for column in {*labels, group} & {*RESERVED}:
        raise InputError(f"manifest {manifest}: a column of labels or groups must not be named {column!r}; rename it")
    of_labels = [each for column in labels for each in (several.get(column, LabelSets()).columns or [column])]
    for column in ["path", *of_labels, *([group] if group != "group" else [])]:
        if column not in table.columns:
            _raise_missing(manifest, table, column, is_label=column in of_labels)
    sets = {name: read_label_sets(table, name, form, where=f"manifest {manifest}", bad=bad)
            for name, form in several.items()}  # fmt: skip
    table = table.assign(**sets)
    clips = pd.DataFrame({"line": table["line"]})
    text = table["path"].str.strip()
    bad.add(clips.loc[text == "", "line"], "row", "path is empty")
    if root is not None:
        inside = ~np.fromiter(map(os.path.isabs, text.tolist()), dtype=bool, count=len(text))
        clips["path"] = text.where(~inside | (text == ""), f"{root}{os.sep}" + text)
        clips["clip_name"] = "/" + text.where(inside, clips["path"])
    else:
        clips["path"], clips["clip_name"] = text, table["clip_name"]
    if root is None:
        clips["start_s"], clips["duration_s"] = table["start_s"], table["duration_s"]
    else:
        others = {"line", "path", *labels, group}
        clips["start_s"], clips["duration_s"] = read_parts(table, where=f"manifest {manifest}", others=others, bad=bad)
    if splits and "split" in table.columns and not (root is None and table["split"].eq("").all()):
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
    where = f"manifest {manifest}"
    check_targets(table.assign(split=clips["split"]), labels, bad, where=where, scores=scores, several=several)
    groups = table[group].str.strip() if group in table.columns else None
    # An empty column is none, not one group of all clips.
    clips["group"] = groups if groups is not None and groups.ne("").any() else None
    if root is not None:
        _find_missing(clips[text != ""], bad)
    rest = {column: table[column] for column in table.columns if column not in clips.columns}
    rest = {column: values.str.strip() if column in labels else values for column, values in rest.items()}
    return pd.concat([clips, pd.DataFrame(rest, index=clips.index)], axis=1), bad


def manifest_in(folder: str | Path) -> Path | None:
    """The ``manifest.csv`` of a folder that is no store, if there is one."""
    file = Path(folder) / "manifest.csv"
    return file if os.path.isfile(file) and not is_store(folder) else None


def check_columns(manifest: str | Path, labels: Iterable[str]) -> None:
    """Raise as `inspect_manifest` unless a manifest is there and has columns of labels; of a table its head is read.

    What is a mistake of one word is known at once so, before libraries load.
    """
    manifest = manifest_in(manifest) or Path(manifest)
    if is_store(manifest) or os.path.isdir(manifest):
        return
    names = read_columns(manifest)
    for column in labels if "path" in names else ():  # else there is more to say of it
        if column not in names:
            _raise_missing(manifest, pd.DataFrame(columns=names), column, is_label=True)


def _raise_missing(manifest: Path, table: pd.DataFrame, column: str, *, is_label: bool) -> NoReturn:
    names, hot = [name for name in table.columns if name != "line"], multi_hot_columns(table)
    if column == "path":
        like = path_columns(names)
        way_out = f"rename one of {', '.join(like)}" if like else "its first line must name the columns"
        if is_of_raven(names):
            way_out = "a table of Raven must be saved with Begin Path, and File Offset (s) if of several recordings; "
            way_out += "or make clips of it with: audiostride import raven"
    elif is_label:
        way_out = "name the column of labels with --label"
        way_out += f"; columns of 0 and 1 ({', '.join(hot[:3])}) are read with --label-columns" if hot else ""
    else:
        way_out = f"name the column of groups with --group, not {column!r}"
    raise InputError(f"manifest {manifest} must have a column {column!r}, got {', '.join(names)}; {way_out}")


def multi_hot_columns(table: pd.DataFrame) -> list[str]:
    """Columns that hold 0 and 1 only, where there are several: a class each, as tables of several labels have them."""
    names = [name for name in table.columns if not is_score_column(name)]
    found = [name for name in names if set(table[name].unique()) == {"0", "1"}]
    return found if len(found) > 1 else []


def check_targets(
    table: pd.DataFrame, labels: Sequence[str], bad: BadRows, *, where: str, scores: bool, several: Collection[str] = ()
) -> None:
    """Note labels that are empty or hold control characters, which tables do not give back, and scores that are wrong.

    Args:
        table: With ``line``, ``split`` (None where one may be drawn), the columns of labels and maybe those of scores.
        labels: Columns of labels.
        bad: Takes the rows, and what `read_scores` notes.
        where: Name of the manifest, for messages.
        scores: Whether scores are read; a training clip that has them needs no label.
        several: Columns of `read_label_sets`, in which empty means none.
    """
    found = read_scores(table, labels, where=where, bad=bad, several=several) if scores else {}
    for column in (name for name in labels if name not in several):
        names, lines = table[column].str.strip(), table["line"]
        missing = names == ""
        if column in found:
            taught = missing & has_scores(found[column])
            elsewhere = taught & table["split"].isin(["valid", "test"])
            bad.add(lines[elsewhere], "row", f"{column} is empty, and scores stand for it in training clips only")
            missing &= ~taught
        bad.add(lines[missing], "row", f"{column} is empty")
        wrong = names.isin([name for name in names.unique().tolist() if UNWRITABLE.search(name)])
        messages = [f"{column} must have no control characters, got {name!r}" for name in names[wrong]]
        bad.add(lines[wrong], "row", messages)


def _find_missing(clips: pd.DataFrame, bad: BadRows) -> None:
    """Note files that are not there, or that nobody may look at, and paths with control characters."""
    odd = clips["path"].str.contains(r"[\x00-\x1f\x7f]")  # a file in UTF-8 holds no bytes that are not
    messages = [f"path must have no control characters, got {path!r}" for path in clips.loc[odd, "path"]]
    bad.add(clips.loc[odd, "line"], "row", messages)
    missing = clips.loc[~odd & ~_exist(clips["path"])]
    bad.add(missing["line"], "missing", [f"audio file {path} {_why_missing(path)}" for path in missing["path"]])
    if len(missing) == len(clips) > 1:
        bad.notes.append("no file is where the table says; --audio-root FOLDER names what its paths are relative to")


def _why_missing(path: str) -> str:
    try:
        os.stat(path)
    except FileNotFoundError:
        if "\\" in path and os.path.isfile(path.replace("\\", "/")):
            return "does not exist, but does with / in the place of \\; write / in paths"
        if "/~" in path:
            return "does not exist; ~ means nothing in a table: write the folder out, or give --audio-root"
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be read: {error.strerror if isinstance(error, OSError) else error}"
    return "is no file" if not os.path.isfile(path) else "does not exist"


def _exist(paths: "pd.Series[str]") -> "pd.Series[bool]":
    """Whether each path is a file; a folder with many of them is listed once."""
    codes, unique = pd.factorize(paths)
    by_folder: dict[str, list[int]] = {}
    for number, path in enumerate(unique):
        by_folder.setdefault(os.path.dirname(path), []).append(number)
    there = np.zeros(len(unique), dtype=bool)
    for folder, numbers in by_folder.items():
        files = None
        if len(numbers) >= LIST_FOLDER_FROM:
            # What may not be listed may hold files all the same.
            with suppress(OSError), os.scandir(folder) as entries:
                files = {entry.name for entry in entries if entry.is_file()}
        if files is None:
            there[numbers] = [os.path.isfile(unique[number]) for number in numbers]
        else:
            there[numbers] = [os.path.basename(unique[number]) in files for number in numbers]
    return pd.Series(there[codes], index=paths.index, dtype=bool)

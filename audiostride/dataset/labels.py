"""Several labels of a clip: how they stand in a manifest, and the sets of classes that they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audiostride.dataset.bad_rows import BadRows
from audiostride.dataset.folders import UNWRITABLE
from audiostride.errors import InputError
from audiostride.wording import count_of

SEPARATORS = (";", "|", ",")
MARKS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}

# Between the labels of a clip in the columns of `read_label_sets`. No label holds it: manifests with such are refused.
JOIN = "\x1f"


@dataclass(frozen=True)
class LabelSets:
    """How the labels of a clip stand in a manifest where it may have several, or none."""

    separator: str | None = None
    """What stands between them in one cell; None is found."""
    columns: tuple[str, ...] = ()
    """In place of one column of labels, a column of 0 and 1 for each class."""


def read_label_sets(table: pd.DataFrame, name: str, form: LabelSets, *, where: str, bad: BadRows) -> "pd.Series[str]":
    """The labels of each row of a manifest, in order with `JOIN` between them; empty where it has none.

    Args:
        table: The manifest as text, with ``line``.
        name: Column of the labels; of columns of 0 and 1 a name for what they say.
        form: How the labels stand there.
        where: Name of the manifest, for messages.
        bad: Takes the rows whose labels are wrong, and notes on what is taken as what.

    Raises:
        InputError: Several characters may be the separator, or there are labels in both forms.
    """
    sets = _read_marks(table, name, form, where, bad) if form.columns else _read_cells(table, name, form, where, bad)
    if empty := sum(not labels for labels in sets):
        bad.notes.append(f"{name}: {empty:,} of {count_of(len(sets), 'clip')} have no label: none of the classes")
    return pd.Series([JOIN.join(labels) for labels in sets], index=table.index, dtype=object)


def _read_marks(table: pd.DataFrame, name: str, form: LabelSets, where: str, bad: BadRows) -> list[list[str]]:
    if name in table.columns:
        raise InputError(
            f"{where}: labels must stand in one column or in columns of 0 and 1, got both: {name!r} and "
            f"{', '.join(form.columns)}; leave --label-columns out, or name the task as no column is named (--label)"
        )
    text = table[[*form.columns]].apply(lambda values: values.str.strip())
    marks = text.apply(lambda values: values.str.lower().map(MARKS))
    wrong = marks.isna()
    messages = [
        "; ".join(f"{column} must be 0 or 1, true or false, got {text.loc[row, column]!r}" for column in form.columns
                  if wrong.loc[row, column])
        for row in table.index[wrong.any(axis=1)]
    ]  # fmt: skip
    bad.add(table.loc[wrong.any(axis=1), "line"], "row", messages)
    rows = marks.eq(True).to_numpy()
    return [sorted(np.array(form.columns, dtype=object)[row].tolist()) for row in rows]


def _read_cells(table: pd.DataFrame, name: str, form: LabelSets, where: str, bad: BadRows) -> list[list[str]]:
    cells = table[name].str.strip()
    found = [mark for mark in SEPARATORS if cells.str.contains(mark, regex=False).any()]
    if form.separator is None and len(found) > 1:
        shown = " and ".join(repr(cells[cells.str.contains(mark, regex=False)].iloc[0]) for mark in found)
        raise InputError(
            f"{where}: the separator of the labels in {name!r} must be known, but {' and '.join(found)} stand there: "
            f"{shown}; name it with --label-separator"
        )
    separator = form.separator or next(iter(found), SEPARATORS[0])
    joined = cells[cells.str.contains(separator, regex=False)]
    if joined.empty:
        bad.notes.append(f"{name}: no clip has several labels: {separator!r} separates none")
    elif form.separator is None:
        bad.notes.append(
            f"{name}: {separator!r} separates the labels of a clip, such as {joined.iloc[0]!r}; --label-separator "
            "names another one"
        )
    sets = [sorted({part.strip() for part in cell.split(separator)} - {""}) for cell in cells.tolist()]
    odd = [any(UNWRITABLE.search(label) for label in labels) for labels in sets]
    messages = [f"{name} must have no control characters, got {cell!r}" for cell in cells[odd]]
    bad.add(table.loc[odd, "line"], "row", messages)
    return sets


def split_labels(text: str) -> list[str]:
    """The labels of a clip, of a column with one label or of one with sets of them."""
    return text.split(JOIN) if text else []


def holds_sets(labels: "pd.Series[str]") -> bool:
    """Whether a clip of a column has several labels, or none."""
    return bool((labels.str.contains(JOIN, regex=False) | (labels == "")).any())


def explode_labels(clips: pd.DataFrame, column: str) -> pd.DataFrame:
    """The clips with a row for each of their labels, with an empty one for a clip that has none."""
    return clips.assign(**{column: clips[column].str.split(JOIN)}).explode(column)


def multi_hot(labels: "pd.Series[str]", classes: Sequence[str]) -> NDArray[np.int64]:
    """1 where a clip has the label of a class and 0 where it has not, ``(clips, classes)``.

    >>> multi_hot(pd.Series(["cat" + JOIN + "dog", "", "dog"]), ["cat", "dog"]).tolist()
    [[1, 1], [0, 0], [0, 1]]
    """
    rows = [[int(name in labels) for name in classes] for labels in map(set, map(split_labels, labels))]
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(classes))


def join_labels(labels: Sequence[str], classes: Sequence[str]) -> str:
    """The labels of a clip as one cell, with the first separator that no class has in its name.

    >>> join_labels(["cat", "dog"], ["cat", "dog", "eagle"])
    'cat;dog'
    """
    return _free_separator(classes).join(labels)


def separate_labels(cell: str, classes: Sequence[str]) -> list[str]:
    """The inverse of `join_labels`."""
    return cell.split(_free_separator(classes)) if cell else []


def _free_separator(classes: Sequence[str]) -> str:
    free = [mark for mark in SEPARATORS if not any(mark in name for name in classes)]
    return next(iter(free), SEPARATORS[0])


def show_labels(text: str) -> str:
    """The labels of a clip as a message shows them."""
    return text.replace(JOIN, ";")

"""Columns ``score:<class>`` of a manifest: what a teacher, any other model, says of each clip, as probabilities."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from audiostride.dataset.bad_rows import BadRows
from audiostride.dataset.labels import split_labels
from audiostride.errors import InputError
from audiostride.wording import count_of, name_some

PREFIX = "score:"

# Scores are rounded where they are written: one may be above 1, and the sum of many beside 1, by so much.
ROUNDING = 0.01


def is_score_column(name: str) -> bool:
    """Whether a column is named as those of scores are."""
    return name.startswith(PREFIX)


def read_scores(
    table: pd.DataFrame, labels: Sequence[str], *, where: str, bad: BadRows, several: Collection[str] = ()
) -> dict[str, pd.DataFrame]:
    """The scores of the classes of each column of labels that has some.

    A column is named ``score:<class>``, or ``score:<column of labels>:<class>``, which the first form is short for
    where the class is one of a single column. The classes are the labels of all rows. A class without a column of
    scores has the score 0 where the others have one. Scores are divided by their sum, but not those of `several`, where
    each class has a probability of its own.

    Args:
        table: The manifest as text, with ``line``.
        labels: Columns of labels.
        where: Name of the manifest, for messages.
        bad: Takes the rows whose scores are wrong, and notes on what is taken otherwise.
        several: Those of `labels` that `read_label_sets` made.

    Returns:
        For each column of labels with scores a table with the rows of `table` and a column per class, in the order of
        letters; NaN in rows without scores and in bad ones.

    Raises:
        InputError: A column of scores of no class, of several, or of the same one as another.
    """
    columns = [name for name in table.columns if is_score_column(name) and name not in labels]
    if not columns or not labels:
        return {}
    named = {column: table[column].str.strip() for column in labels}
    classes = {
        column: sorted({name for text in {*values} for name in (split_labels(text) if column in several else [text])}
                       - {""})
        for column, values in named.items()
    }  # fmt: skip
    others = [name for name in table.columns if name not in ("line", *labels, *columns)]
    found: dict[str, dict[str, str]] = {}
    for name in columns:
        own = name.removeprefix(PREFIX).strip()
        readings = _read_name(own, classes)
        if not readings and any(own.startswith(f"{other}:") or table[other].eq(own).any() for other in others):
            bad.notes.append(f"column {name!r} is not used: it is of no class of {' or '.join(labels)}")
            continue
        column, class_name = _take_one(name, readings, classes, where=where)
        if class_name in found.setdefault(column, {}):
            twice = f"{found[column][class_name]!r} and {name!r}"
            raise InputError(f"{where}: each class must have its scores once, got {twice}; remove one")
        found[column][class_name] = name
    return {
        column: _read_numbers(table, column, found[column], classes[column], bad, several=column in several)
        for column in found
    }


def _read_name(name: str, classes: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """What a name behind the prefix may mean: columns of labels, each with a class of it."""
    whole = [(column, name.removeprefix(f"{column}:").strip()) for column in classes if name.startswith(f"{column}:")]
    return [each for each in whole if each[1] in classes[each[0]]] or [
        (column, name) for column, known in classes.items() if name in known
    ]


def _take_one(
    name: str, readings: list[tuple[str, str]], classes: Mapping[str, Sequence[str]], *, where: str
) -> tuple[str, str]:
    if len(readings) == 1:
        return readings[0]
    if readings:
        full = " or ".join(f"{PREFIX}{column}:{class_name}" for column, class_name in readings)
        raise InputError(
            f"{where}: column {name!r} must be of one column of labels, got a class of "
            f"{' and '.join(column for column, _ in readings)}; name it {full}"
        )
    known = "; ".join(f"{column} has {name_some(names)}" for column, names in classes.items())
    raise InputError(
        f"{where}: a column of scores must be named {PREFIX}CLASS or {PREFIX}COLUMN:CLASS with a class of the labels, "
        f"got {name!r}; {known}. Rename or remove it, or leave scores out of training with --distillation 0"
    )


def _read_numbers(
    table: pd.DataFrame, label: str, columns: Mapping[str, str], classes: Sequence[str], bad: BadRows, *, several: bool
) -> pd.DataFrame:
    """The scores of one column of labels, of which `columns` has the column of each class that has one."""
    text = table[[*columns.values()]].apply(lambda values: values.str.strip()).set_axis([*columns], axis=1)
    filled = text.ne("")
    given, partly = filled.any(axis=1), filled.any(axis=1) & ~filled.all(axis=1)
    numbers = text.apply(pd.to_numeric, errors="coerce").astype(float)
    wrong = filled & ~((numbers >= 0) & (numbers <= 1 + ROUNDING))
    sums = numbers.sum(axis=1)
    none = given & ~partly & ~wrong.any(axis=1) & (sums <= 0) & (not several)
    for rows, message in ((partly, _describe_gap), (wrong.any(axis=1), _describe_wrong)):
        messages = [message(columns, text.loc[row], wrong.loc[row]) for row in table.index[rows]]
        bad.add(table.loc[rows, "line"], "row", messages)
    bad.add(
        table.loc[none, "line"], "row", f"scores of {label} must not all be 0; leave them empty where there are none"
    )
    good = given & ~partly & ~wrong.any(axis=1) & ~none
    unequal = sums[good & ((sums - 1).abs() > ROUNDING)]
    if len(unequal) and not several:
        bad.notes.append(
            f"scores of {label} are divided by their sum, which is not 1 in {count_of(len(unequal), 'row')}: "
            f"{unequal.min():.3g} to {unequal.max():.3g}"
        )
    if missing := [name for name in classes if name not in columns]:
        bad.notes.append(f"scores of {label} are 0 for classes without a column of them: {name_some(missing)}")
    whole = numbers.reindex(columns=classes, fill_value=0.0)
    if several:
        whole, sums = whole.clip(upper=1.0), pd.Series(1.0, index=whole.index)
    shares: pd.DataFrame = whole.div(sums.where(good), axis=0).where(good)
    return shares


def _describe_gap(columns: Mapping[str, str], text: "pd.Series[str]", wrong: "pd.Series[bool]") -> str:
    empty = [columns[name] for name in columns if text[name] == ""]
    return f"scores must be given for all classes or for none, got none in {name_some(empty)}"


def _describe_wrong(columns: Mapping[str, str], text: "pd.Series[str]", wrong: "pd.Series[bool]") -> str:
    name = next(name for name in columns if wrong[name])
    return f"{columns[name]} must be a probability in [0, 1], got {text[name]!r}"


def has_scores(scores: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each row of a table of `read_scores` has scores."""
    return scores.notna().all(axis=1)


def fill_labels(labels: "pd.Series[str]", scores: pd.DataFrame) -> "pd.Series[str]":
    """Labels, and where there is none the class of the highest score, if there are scores."""
    best = np.array(scores.columns, dtype=object)[scores.fillna(0.0).to_numpy().argmax(axis=1)]
    return labels.mask((labels == "") & has_scores(scores), pd.Series(best, index=labels.index))

"""Columns of clips under the names that other programs give them: the file, and start, end or length of a part."""

import re
from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audiostride.dataset.bad_rows import BadRows
from audiostride.errors import InputError

# From the most to the least telling: a table of Raven has both a path and a file name.
PATH_NAMES = (
    *("path", "begin path", "filepath", "file path", "audio path", "audio filepath", "wav path"),
    *("filename", "file name", "audio filename", "audio file", "file", "audio", "wav", "begin file"),
)

_TIME = re.compile(
    r"(?:(?:clip|segment|event|time|t) )?(file offset|start|begin|onset|end|stop|offset|duration|dur|length|delta time)"
    r"(?: ?time)?(?: (?:in )?([a-z]+))?"
)
_ROLES = {"begin": "start", "onset": "start", "stop": "end", "dur": "duration", "delta time": "duration"}
_SECONDS = {None, "s", "sec", "secs", "second", "seconds"}
_OTHER_UNITS = {"ms", "msec", "milliseconds", "us", "sample", "samples", "frame", "frames", "min", "minutes", "h"}

# Labels under the names that programs for annotations and data sets of events give them.
LABEL_NAMES = {
    *("label", "labels", "annotation", "annotations", "species", "species code", "common name", "scientific name"),
    *("class", "class name", "class label", "event", "event label", "event name", "category", "tag", "sound type"),
    *("call", "call type", "sound", "taxon", "vernacular name", "ebird code", "primary label"),
}
_FREQUENCY = re.compile(r"(low|lower|min|high|upper|max) f(?:req(?:uency)?)?(?: hz)?")

# Starts, ends and lengths are rounded where they are written, by less than this.
ROUNDING_S = 0.01


def _words(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()


def path_columns(names: Iterable[str]) -> list[str]:
    """Those of some columns that are named as columns of files are, the likeliest first."""
    found = [name for name in names if _words(name) in PATH_NAMES]
    return sorted(found, key=lambda name: PATH_NAMES.index(_words(name)))


def label_columns(names: Iterable[str]) -> list[str]:
    """Those of some columns that are named as labels commonly are."""
    return [name for name in names if _words(name) in LABEL_NAMES]


def frequency_columns(names: Iterable[str]) -> dict[str, str]:
    """The columns with the lowest and the highest frequency of a part, in Hz, by ``low`` and ``high``.

    >>> frequency_columns(["Selection", "Low Freq (Hz)", "High Freq (Hz)"])
    {'low': 'Low Freq (Hz)', 'high': 'High Freq (Hz)'}
    """
    found = {name: match for name in names if (match := _FREQUENCY.fullmatch(_words(name)))}
    return {"low" if match[1].startswith(("lo", "mi")) else "high": name for name, match in found.items()}


def is_place_column(name: str) -> bool:
    """Whether a column is named as one of files, or of the starts, ends or lengths of their parts."""
    found = _TIME.fullmatch(_words(name))
    return _words(name) in PATH_NAMES or (found is not None and found[2] in _SECONDS | _OTHER_UNITS)


def read_parts(
    table: pd.DataFrame, *, where: str, others: Collection[str], bad: BadRows
) -> "tuple[pd.Series[float], pd.Series[float]]":
    """Start and length of each clip in seconds; NaN where the start is wrong, and for a length that goes to the end.

    They are read from ``start_s`` and ``duration_s``, and from columns that mean the same or the end under another
    name, each of which is noted.

    Args:
        table: The manifest as text, with ``line``.
        where: Its name, for messages.
        others: Columns that are something else: labels, groups.
        bad: Takes the wrong rows, and a note on each column with another name.

    Raises:
        InputError: A column of starts or ends that is not in seconds; an ``offset`` that may be either.
    """
    found = _find_columns(table, where, others, bad)
    wrong = np.zeros(len(table), dtype=bool)

    def read(role: str) -> "pd.Series[float]":
        result = None
        for name in found[role]:
            numbers, wrong_here = _read_seconds(table, name, positive=role in ("end", "duration"), bad=bad)
            wrong[:] |= wrong_here
            if result is not None:
                differ = ((result - numbers).abs() > ROUNDING_S).to_numpy()
                bad.add(table.loc[differ, "line"], "row", f"{found[role][0]} and {name} differ")
                wrong[:] |= differ
            result = numbers if result is None else result.fillna(numbers)
        return pd.Series(np.nan, index=table.index) if result is None else result

    start, duration = read("start"), read("duration")
    if found["end"] or found["file offset"]:
        end, offset = read("end"), read("file offset")
        span = (end - start.fillna(0.0)).round(6)
        short, differ = (span <= 0).to_numpy(), ((span - duration).abs() > ROUNDING_S).to_numpy()
        what = f"{' and '.join(found['end'])} must be > the start of the clip"
        ends = zip(start[short].fillna(0.0), end[short], strict=True)
        bad.add(
            table.loc[short, "line"], "row", [f"{what}, got {begins_s:g} to {ends_s:g} s" for begins_s, ends_s in ends]
        )
        bad.add(table.loc[differ, "line"], "row", f"{', '.join(found['duration'] + found['end'])} do not agree")
        # Raven counts its times on over the files of a table, and File Offset within each.
        start = offset.fillna(start)
        duration, wrong = duration.fillna(span), wrong | short | differ
    return start.fillna(0.0).mask(wrong), duration


def _read_seconds(
    table: pd.DataFrame, name: str, *, positive: bool, bad: BadRows
) -> "tuple[pd.Series[float], NDArray[np.bool_]]":
    text = table[name].str.strip()
    numbers = pd.to_numeric(text.where(text != "", "nan"), errors="coerce").astype(float)
    wrong = (text != "") & ~((numbers > 0 if positive else numbers >= 0) & np.isfinite(numbers))
    lowest = "> 0" if positive else ">= 0"
    messages = [f"{name} must be a number of seconds {lowest}, got {value!r}" for value in text[wrong]]
    bad.add(table.loc[wrong, "line"], "row", messages)
    return numbers.mask(wrong), wrong.to_numpy(dtype=bool)


def _find_columns(table: pd.DataFrame, where: str, others: Collection[str], bad: BadRows) -> dict[str, list[str]]:
    """The columns that say where clips lie in their files, by what they say."""
    found: dict[str, list[str]] = {name: [] for name in ("start", "duration", "end", "file offset", "offset", "length")}
    unclear: list[str] = []
    for name in (name for name in table.columns if name not in others):
        match = _TIME.fullmatch(_words(name))
        if match is None or match[2] not in _SECONDS | _OTHER_UNITS:
            continue
        role = _ROLES.get(match[1], match[1])
        if name in ("start_s", "duration_s"):
            found[role].insert(0, name)
            continue
        text = table[name].str.strip()
        text = text[text != ""]
        if len(text) and pd.to_numeric(text, errors="coerce").isna().all():
            bad.notes.append(f"column {name!r} is not used: {text.iloc[0]!r} is no number of seconds")
        elif match[2] in _OTHER_UNITS and role in ("duration", "length"):
            bad.notes.append(f"column {name!r} is not used: it is not in seconds")
        else:
            (unclear if match[2] in _OTHER_UNITS else found[role]).append(name)
    # onset and offset are start and end; with a length alone, the offset is where a part begins.
    if not found["start"] and not found["duration"] and not found["file offset"]:
        unclear += found["offset"]
    found["end" if found["start"] else "start"] += found.pop("offset")
    lengths = found.pop("length")  # which alone is that of the file, or of something else
    found["duration"] += lengths if found["start"] else []
    if unclear:
        raise InputError(
            f"{where}: parts of files must be given in seconds, in columns start_s and duration_s or end_s, got "
            f"{', '.join(unclear)}; rename, and convert what is in another unit"
        )
    named = {name: role for role, names in found.items() for name in names if name not in ("start_s", "duration_s")}
    if named:
        listed = ", ".join(f"{name!r} ({role})" for name, role in named.items())
        bad.notes.append(f"taken as parts of files, in seconds: {listed}; rename what means something else")
    return found

"""Predictions as files: CSV, Parquet, JSON lines, tables of Raven and Kaleidoscope, labels of Audacity."""

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Literal, TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from audiostride.audio.decoding import probe_audio
from audiostride.errors import InputError
from audiostride.inference.model import ModelSettings
from audiostride.inference.tiling import TIME_DIGITS

SUFFIXES = {
    "csv": ".csv", "parquet": ".parquet", "jsonl": ".jsonl",
    "raven": ".txt", "audacity": ".txt", "kaleidoscope": ".csv",
}  # fmt: skip
FORMATS = tuple(SUFFIXES)
FILE_ENDINGS = {"raven": ".selections.txt", "audacity": ".txt"}  # behind the name of the audio file, in a folder
LABELS = (*FILE_ENDINGS, "kaleidoscope")  # which hold one label and its score in a row
NAME_BYTES = 255  # of a file, in UTF-8: what the common file systems of Linux take, and less than others do

KALEIDOSCOPE = ["INDIR", "FOLDER", "IN FILE", "OFFSET", "DURATION"]

Write = Callable[[pd.DataFrame], None]


def choose_format(out: Path, given: str | None) -> str:
    """The format of an output: the one given, or that of its suffix.

    Raises:
        InputError: An unknown format; a suffix that names none, or another one.
    """
    if given is not None and given not in FORMATS:
        raise InputError(f"predict: --format must be one of {', '.join(FORMATS)}, got {given!r}")
    named = [name for name, suffix in SUFFIXES.items() if suffix == out.suffix.lower()]
    if given is None:
        if len(named) == 1 or "csv" in named:
            return named[0]
        known = "csv, .parquet, .jsonl" if not named else ""
        raise InputError(
            f"predict: -o must end in .{known}, or --format must say what it is, got {out}"
            if known
            else f"predict: {out.suffix} may be raven or audacity, got {out}; say which with --format"
        )
    if (named and given not in named) or (not out.suffix and given not in FILE_ENDINGS):
        raise InputError(
            f"predict: -o must end in {SUFFIXES[given]} for --format {given}, got {out}; give another name or format"
        )
    return given


def is_folder_format(out: Path, name: str) -> bool:
    """Whether an output is a folder with a file for each audio file: Raven and Audacity without a suffix."""
    return name in FILE_ENDINGS and not out.suffix


def check_files(out: Path, name: str, paths: Sequence[str], stored: Sequence[str] = ()) -> None:
    """Raise if labels of several audio files would have to go into one file, which does not say whose they are.

    A table of Raven does; it counts time over the files, for which they must be there.
    """
    count = len(set(paths))
    if name == "audacity" and not is_folder_format(out, name) and count > 1:
        raise InputError(
            f"predict: labels of Audacity are one file for each audio file, got {count} audio files for {out}; "
            f"give a folder for them: -o {out.with_suffix('')}"
        )
    gone = [path for path in stored if not os.path.exists(path)] if name == "raven" and count > 1 else []
    if gone and not is_folder_format(out, name):
        raise InputError(
            f"predict: a table of Raven counts time over its audio files, but {len(gone)} of the store's are "
            f"gone, such as {gone[0]}; give a folder for a table of each: -o {out.with_suffix('')}"
        )


def check_replaceable(out: Path, name: str) -> None:
    """Raise if an output that exists is not of the kind that is to come in its place, or holds other files."""
    if out.is_dir() != is_folder_format(out, name):
        kinds = "a folder", "a file"
        raise InputError(
            f"predict: {out} is {kinds[out.is_file()]}, and would be {kinds[out.is_dir()]}; choose another -o"
        )
    others = [path for path in out.rglob("*") if path.is_file() and path.suffix != ".txt"]
    if out.is_dir() and others:
        raise InputError(
            f"predict: folder {out} holds other files than labels, such as {others[0].name}; "
            "choose another -o, so that they are not lost"
        )


def open_table(
    target: Path, name: str, *, config: ModelSettings, columns: Mapping[str, str], paths: Sequence[str]
) -> AbstractContextManager[Write]:
    """A context that gives a function which adds rows to a file or folder of a format.

    Args:
        target: Where it is written; not there yet.
        name: One of `FORMATS`.
        config: The model's, for its tasks and frequencies.
        columns: Those of the rows, with their dtypes.
        paths: The audio files that could be read, with rows or without.
    """
    if name == "csv":
        return _open_csv(target, list(columns))
    if name == "parquet":
        return _open_parquet(target, columns)
    if name == "jsonl":
        return _open_jsonl(target)
    if name == "kaleidoscope":
        return _open_kaleidoscope(target, columns)
    return _open_text(target, name, config, columns, paths)


@contextmanager
def _open_csv(target: Path, columns: list[str]) -> Iterator[Write]:
    with target.open("w", encoding="utf-8", newline="") as file:
        write_rows(file, pd.DataFrame(columns=columns), header=True)
        yield lambda table: write_rows(file, table, header=False)


def write_rows(file: TextIO, table: pd.DataFrame, *, header: bool) -> None:
    """Write rows of CSV."""
    # Before Python 3.13 a carriage return gets no quotes of its own, and readers take it for the end of a row.
    texts = table.select_dtypes(["object", "str"])
    quote_all = any("\r" in text for name in texts for text in texts[name])
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if quote_all else csv.QUOTE_MINIMAL
    table.to_csv(file, index=False, header=header, lineterminator="\n", quoting=quoting)


@contextmanager
def _open_parquet(target: Path, columns: Mapping[str, str]) -> Iterator[Write]:
    kinds = {"str": pa.string(), "float64": pa.float64(), "float32": pa.float32()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    with pq.ParquetWriter(str(target), schema) as writer:
        yield lambda table: writer.write_table(pa.Table.from_pandas(table, schema=schema, preserve_index=False))


@contextmanager
def _open_jsonl(target: Path) -> Iterator[Write]:
    with target.open("w", encoding="utf-8") as file:
        yield lambda table: file.writelines(
            json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_dict("records")
        )


@contextmanager
def _open_kaleidoscope(target: Path, columns: Mapping[str, str]) -> Iterator[Write]:
    """A table of Kaleidoscope (Wildlife Acoustics): a file by the folder above its own, that and its name, then offset
    and duration in seconds. The names of these columns are those that BirdNET-Analyzer writes for it; others follow."""
    more = [name for name in columns if name not in ("path", "start_s", "end_s")]
    with _open_csv(target, [*KALEIDOSCOPE, *more]) as write_csv:

        def write(table: pd.DataFrame) -> None:
            places = [os.path.split(os.path.abspath(path)) for path in table["path"]]
            own = pd.DataFrame(
                [(*os.path.split(folder), name) for folder, name in places], columns=KALEIDOSCOPE[:3], index=table.index
            )
            lengths_s = (table["end_s"] - table["start_s"]).round(TIME_DIGITS)
            write_csv(own.assign(OFFSET=table["start_s"], DURATION=lengths_s).join(table[more]))

        yield write


@contextmanager
def _open_text(
    target: Path, name: str, config: ModelSettings, columns: Mapping[str, str], paths: Sequence[str]
) -> Iterator[Write]:
    """A file, or in a folder one for each audio file, named by its path below the folder that holds them all."""
    folder = is_folder_format(target, name)
    files = _files_below(target, paths, FILE_ENDINGS[name]) if folder else dict.fromkeys(paths, target)
    starts_s = _starts_in_raven(paths) if name == "raven" and not folder else {}
    written: Counter[Path] = Counter()
    for file in dict.fromkeys([*files.values()] if folder else [target]):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\t".join(_raven_columns(columns)) + "\n" if name == "raven" else "", encoding="utf-8")

    def write(table: pd.DataFrame) -> None:
        for path, rows in table.groupby("path", sort=False):
            file = files[str(path)]
            if name == "raven":
                start_s = starts_s.get(str(path), 0.0)
                lines = _raven_lines(rows, _heard_hz(str(path), config), before=written[file], start_s=start_s)
            else:
                lines = _audacity_lines(rows)
            written[file] += len(rows)
            with file.open("a", encoding="utf-8") as opened:
                opened.writelines("\t".join(line) + "\n" for line in lines)

    yield write


def _files_below(folder: Path, paths: Sequence[str], ending: str) -> dict[str, Path]:
    absolute = {path: os.path.abspath(path) for path in paths}
    root = os.path.commonpath([os.path.dirname(path) for path in absolute.values()]) if paths else ""
    places = {path: folder / os.path.relpath(place, root) for path, place in absolute.items()}
    return {path: place.with_name(_add_ending(place.name, ending)) for path, place in places.items()}


def _add_ending(name: str, ending: str) -> str:
    """A name with something behind it; of one that is too long for that, its beginning and a checksum of all of it."""
    if len((name + ending).encode()) <= NAME_BYTES:
        return name + ending
    ending = f"~{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}{ending}"
    return name.encode()[: NAME_BYTES - len(ending)].decode(errors="ignore") + ending


def _starts_in_raven(paths: Sequence[str]) -> dict[str, float]:
    """Where each file begins, in seconds, in a window of Raven that shows all of them one after the other.

    Raven places the selections of a table by Begin Time, which counts on over the files of the window in their order;
    of a table of sound selections (each opens its file) by Begin Path and File Offset.

    Raises:
        InputError: A file is no longer there.
    """
    files = list(dict.fromkeys(paths))
    try:
        lengths_s = [probe_audio(path).duration_s for path in files[:-1]]
    except InputError as error:
        raise InputError(
            f"predict: a table of Raven counts time over its audio files, but one can no longer be read: {error}; "
            "what is done is kept: give it back and the same command again, or -o without a suffix for a table of each"
        ) from error
    return dict(zip(files, accumulate(lengths_s, initial=0.0), strict=False))  # none: one length


RAVEN_NAMES = {"date": "Begin Date", "time": "Begin Clock Time", "task": "Task", "label": "Label", "score": "Score"}


def _raven_columns(columns: Mapping[str, str]) -> list[str]:
    """What Raven asks for (Raven Pro 1.4 User's Manual, Cornell Lab of Ornithology, 2010, chapter 6), and ours."""
    places = ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"]
    places += ["Begin File", "Begin Path", "File Offset (s)"]
    return [*places, *(RAVEN_NAMES[name] for name in columns if name in RAVEN_NAMES)]


def _heard_hz(path: str, config: ModelSettings) -> tuple[float, float]:
    """The frequencies that a model hears of a recording, none above half its rate; Raven shows no such selection."""
    try:
        rate = probe_audio(path).sample_rate
    except InputError:  # of a store whose files are gone
        rate = config.sample_rate
    high = min(config.fmax_hz, rate / 2)
    return min(config.fmin_hz, high), high


def _raven_lines(
    rows: pd.DataFrame, heard_hz: tuple[float, float], *, before: int, start_s: float
) -> Iterator[list[str]]:
    """The rows of a file that begins at `start_s` in the window, behind `before` others."""
    low, high = heard_hz
    for number, row in enumerate(rows.to_dict("records"), start=before + 1):
        path = os.path.abspath(row["path"])
        begin_s, end_s = (f"{start_s + row[name]:.4f}" for name in ("start_s", "end_s"))
        line = [str(number), "Spectrogram 1", "1", begin_s, end_s, f"{low:.1f}", f"{high:.1f}"]
        line += [os.path.basename(path), path, f"{row['start_s']:.4f}"]
        line += [row[name] for name in RAVEN_NAMES if name in row and name != "score"]
        yield [_one_field(field) for field in [*line, f"{row['score']:.6f}"]]


def _audacity_lines(rows: pd.DataFrame) -> Iterator[list[str]]:
    """Start, end and label (Audacity Manual, "Importing and Exporting Labels"), with the score in brackets."""
    for row in rows.to_dict("records"):
        label = f"{row['task']}: {row['label']}" if "task" in row else row["label"]
        yield [f"{row['start_s']:.6f}", f"{row['end_s']:.6f}", f"{_one_field(label)} ({row['score']:.2f})"]


def _one_field(text: str) -> str:
    # These formats know no quotes: a tab or line break within a name would end the field.
    return " ".join(text.splitlines()).replace("\t", " ")

"""Writing the files of a store, audio and index: whole or not at all, and the same again after a stop."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audiostride.audio.resampling import stream_samples
from audiostride.checks import read_json
from audiostride.dataset.store import BATCH_SAMPLES, FULL_SCALE, INDEX, SCHEMA, audio_name, hash_samples
from audiostride.errors import InputError
from audiostride.writing import write_json

# The scale of a clip beyond full scale is found in memory up to this length (16 MiB), else by decoding it again.
HOLD_SAMPLES = 2**22


@dataclass(frozen=True, slots=True)
class ClipSource:
    """A clip's part of its file, in samples at the store's rate."""

    line: int
    path: str
    first: int
    count: int


class _BeyondFullScale(Exception):
    """A long clip turned out to go beyond the scale that its first blocks were written with."""

    def __init__(self, position: int, scale: float) -> None:
        self.position, self.scale = position, scale


def write_audio_file(
    store: Path, number: int, sources: "list[ClipSource | None]", *, sample_rate: int
) -> dict[str, Any]:
    """Decode clips into an audio file of a store, and write beside it what it holds.

    Args:
        store: Folder of the store.
        number: Number of the audio file.
        sources: The clips; none for those that are known to be bad.
        sample_rate: Of the store, in Hz.

    Returns:
        Per clip ``n_samples`` (0 for a bad one), ``store_offset`` and ``store_scale``; ``errors``, the line number and
        message of each bad clip; ``bytes``, ``samples`` and ``checksum`` of the file; ``sources`` as
        `describe_sources` gives it.
    """
    scales: dict[int, float] = {}
    while True:
        try:
            entry = _write(store, number, sources, scales, sample_rate)
            break
        except _BeyondFullScale as found:
            scales[found.position] = found.scale
    # What is written last says that the audio file is whole.
    write_json(_record(store, number), {**entry, "check": _checksum(entry)})
    return entry


def read_finished(store: Path, number: int, sources: "list[ClipSource | None]") -> dict[str, Any] | None:
    """What `write_audio_file` returned, if its file stands whole and its clips are still the same files; else none."""
    file = store / audio_name(number)
    try:
        entry: dict[str, Any] = read_json("prepare", _record(store, number), dict[str, Any])
    except InputError:  # none, or a loss of power left the name without its content
        return None
    if entry.pop("check", None) != _checksum(entry) or entry["errors"] or not file.is_file():
        return None
    return entry if [entry["bytes"], entry["sources"]] == [file.stat().st_size, describe_sources(sources)] else None


def _checksum(entry: dict[str, Any]) -> str:
    """By which a record that was changed is told from the one that was written."""
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def stage_index(clips: pd.DataFrame, places: pd.DataFrame, out: Path) -> Path:
    """Write the index of a store under the name of a partial file, which is returned.

    Args:
        clips: All rows of the manifest.
        places: ``store_row``, the row of each clip of the store, and `PLACE_COLUMNS`.
        out: Folder of the store.
    """
    rows = clips.iloc[places["store_row"].to_numpy()].reset_index(drop=True)
    text = rows.select_dtypes(exclude="number").fillna("").astype(str)
    table = pa.Table.from_pandas(
        pd.concat([rows.select_dtypes(include="number"), text, places.reset_index(drop=True)], axis=1),
        preserve_index=False,
    )
    staged = out / f"{INDEX}.{os.getpid()}.partial"
    with pa.OSFile(str(staged), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return staged


def remove_records(store: Path) -> None:
    """Remove what is only needed while a store is written."""
    for pattern in ("audio-*.json", "*.partial", "plan.json"):
        for file in store.glob(pattern):
            file.unlink(missing_ok=True)


def _record(store: Path, number: int) -> Path:
    return (store / audio_name(number)).with_suffix(".json")


def describe_sources(sources: "list[ClipSource | None]") -> str:
    """A checksum of the clips' parts and of size and time of their files, which a changed file changes."""
    digest = hashlib.sha256()
    for source in sources:
        if source is not None:
            try:
                status = os.stat(source.path)
                state = f"{status.st_size} {status.st_mtime_ns}"
            except OSError:
                state = "missing"
            digest.update(f"{source.path}\0{source.first} {source.count} {state}\0".encode())
    return digest.hexdigest()


def _write(
    store: Path, number: int, sources: "list[ClipSource | None]", scales: dict[int, float], sample_rate: int
) -> dict[str, Any]:
    file = store / audio_name(number)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    described = describe_sources(sources)
    n_samples, offsets, used_scales = [0] * len(sources), [0] * len(sources), [1.0] * len(sources)
    errors: list[tuple[int, str]] = []
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        collected = _BatchWriter(writer)
        for position, source in enumerate(sources):
            if source is None:
                continue
            offsets[position] = collected.samples
            try:
                used_scales[position] = _write_clip(collected, source, position, scales, sample_rate)
                n_samples[position] = collected.samples - offsets[position]
            except InputError as error:
                # What was decoded of the clip stays in the file, where no clip points to it.
                errors.append((source.line, str(error)))
        collected.flush()
    with partial.open("rb") as written:
        os.fsync(written.fileno())  # or a loss of power may leave a name without its content
    os.replace(partial, file)
    return {
        "n_samples": n_samples,
        "store_offset": offsets,
        "store_scale": used_scales,
        "errors": errors,
        "bytes": file.stat().st_size,
        "samples": collected.samples,
        "checksum": collected.digest.hexdigest(),
        "sources": described,
    }


class _BatchWriter:
    """Gathers samples into record batches of equal length."""

    def __init__(self, writer: pa.RecordBatchFileWriter) -> None:
        self.samples = 0
        self.digest = hash_samples()
        self._writer = writer
        self._batch = np.empty(BATCH_SAMPLES, dtype=np.int16)
        self._filled = 0

    def add(self, samples: NDArray[np.int16]) -> None:
        self.samples += len(samples)
        while len(samples):
            part = samples[: BATCH_SAMPLES - self._filled]
            self._batch[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            samples = samples[len(part) :]
            if self._filled == BATCH_SAMPLES:
                self.flush()

    def flush(self) -> None:
        if self._filled:
            filled = self._batch[: self._filled]
            self.digest.update(filled.data)
            self._writer.write(pa.record_batch([pa.array(filled)], schema=SCHEMA))
            self._filled = 0


def _write_clip(
    collected: _BatchWriter, source: ClipSource, position: int, scales: dict[int, float], sample_rate: int
) -> float:
    """Add a clip; returns the scale that its samples are stored with."""
    blocks = stream_samples(source.path, source.first, source.count, sample_rate=sample_rate)
    if source.count <= HOLD_SAMPLES:
        samples = np.concatenate(list(blocks))
        scale = needed_scale(samples)
        collected.add(quantise(samples, scale))
        return scale
    scale = scales.get(position, 1.0)
    for block in blocks:
        needed = needed_scale(block)
        if needed > scale:
            raise _BeyondFullScale(position, max(needed, *(needed_scale(rest) for rest in blocks), 1.0))
        collected.add(quantise(block, scale))
    return scale


def needed_scale(samples: NDArray[np.float32]) -> float:
    """The factor to divide samples by so that they fit into int16: 1 for all that stay within full scale."""
    highest, lowest = float(samples.max()), float(samples.min())
    if round(highest * FULL_SCALE) < FULL_SCALE and lowest >= -1.0:
        return 1.0
    # A millionth more, so that rounding in float32 does not lead beyond the end.
    return max(highest * FULL_SCALE / (FULL_SCALE - 1), -lowest) * (1 + 1e-6)


def quantise(samples: NDArray[np.float32], scale: float) -> NDArray[np.int16]:
    """Samples in [-scale, scale) as int16, rounded to the nearest: within scale / 65,536 of what they were."""
    rounded: NDArray[np.int16] = np.rint(samples * np.float32(FULL_SCALE / scale)).astype(np.int16)
    return rounded

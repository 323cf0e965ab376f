"""The store: decoded clips in memory-mapped Arrow files, read without decoding.

A store is a folder. ``store.json`` is written last and marks it as whole. ``clips.arrow`` is the manifest with the
place of every clip. ``audio-00000.arrow`` and its successors hold one column of int16 samples each, mono at one sample
rate, in record batches of equal length; the clips follow one another without regard to the batches.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audiostride.distributed import default_jobs, map_in_threads
from audiostride.errors import InputError
from audiostride.progress import progress_bar

FORMAT_VERSION = 1
BATCH_SAMPLES = 2**22  # samples per record batch: 8 MiB
FULL_SCALE = 32768.0
INDEX = "clips.arrow"
SCHEMA = pa.schema([pa.field("samples", pa.int16(), nullable=False)])

# Where a clip lies: number of the audio file, first sample in it, number of samples, and the factor that its samples
# were divided by, which is 1 unless it goes beyond full scale.
PLACE_COLUMNS = ("store_file", "store_offset", "n_samples", "store_scale")


def is_store(path: str | Path) -> bool:
    """Whether a path is a folder that ``audiostride prepare`` wrote, or began to write."""
    return (Path(path) / "store.json").is_file() or (Path(path) / "plan.json").is_file()


def audio_name(number: int) -> str:
    """Name of an audio file of a store."""
    return f"audio-{number:05d}.arrow"


def read_store_header(store: str | Path) -> dict[str, Any]:
    """What ``store.json`` says: format, sample rate, counts, source and the audio files with their checksums.

    Raises:
        InputError: Not a whole store, or one of another version.
    """
    file = Path(store) / "store.json"
    if not file.is_file():
        raise InputError(
            f"store {store} is not whole: 'audiostride prepare' was stopped; give that command again, and it goes on"
        )
    header: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if header.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"store {store} must have format version {FORMAT_VERSION}, got {header.get('format_version')}; "
            "prepare it again from its manifest"
        )
    return header


def read_store_clips(store: str | Path) -> pd.DataFrame:
    """The manifest of a store with the place of each clip, and the folder of the store in ``store``.

    Raises:
        InputError: Not a whole store; an audio file that is missing or has another size; a damaged index.
    """
    store = Path(store)
    header = read_store_header(store)
    for number, entry in enumerate(header["files"]):
        file = store / audio_name(number)
        size = file.stat().st_size if file.is_file() else -1
        if size != entry["bytes"]:
            raise InputError(
                f"store {store}: {file.name} must have {entry['bytes']} bytes, got "
                + (f"{size}" if size >= 0 else "no such file")
                + "; copy the store again, or remove it and prepare it anew"
            )
    found = hash_file(store / INDEX) if (store / INDEX).is_file() else "no such file"
    if found not in header["index"]:
        raise InputError(
            f"store {store}: {INDEX} must have the checksum {header['index'][-1]}, got {found}; "
            "copy the store again, or remove it and prepare it anew"
        )
    with pa.memory_map(str(store / INDEX)) as source:
        clips: pd.DataFrame = pa.ipc.open_file(source).read_all().to_pandas()
    return clips.assign(store=str(store.absolute()))


class StoreAudio:
    """Random access to the samples of a store; opens its files when they are first read, once per process.

    Args:
        store: Folder of a whole store.
    """

    def __init__(self, store: str | Path) -> None:
        self.store = Path(store)
        self._batches: dict[int, list[NDArray[np.int16]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "_batches": {}}  # a worker process maps the files itself

    def batches(self, number: int) -> list[NDArray[np.int16]]:
        """The record batches of an audio file as arrays on the memory map."""
        if number not in self._batches:
            self._batches[number] = map_batches(self.store / audio_name(number))
        return self._batches[number]

    def read_into(self, number: int, offset: int, scale: float, out: NDArray[np.float32]) -> None:
        """Fill `out` with the samples of audio file `number` from `offset` on."""
        batches = self.batches(number)
        batch, place = divmod(offset, BATCH_SAMPLES)
        done = 0
        while done < len(out):
            part = batches[batch][place : place + len(out) - done]
            out[done : done + len(part)] = part
            done, batch, place = done + len(part), batch + 1, 0
        # A second pass over a row that is still in the cache is faster than one pass that casts and scales.
        out *= np.float32(scale / FULL_SCALE)


def map_batches(file: Path) -> list[NDArray[np.int16]]:
    """The record batches of an audio file as arrays on its memory map, which they keep open."""
    reader = pa.ipc.open_file(pa.memory_map(str(file)))
    if reader.schema != SCHEMA:
        raise InputError(f"store file {file} must hold int16 samples, got {reader.schema.types}; prepare it anew")
    return [
        reader.get_batch(number).column(0).to_numpy(zero_copy_only=True) for number in range(reader.num_record_batches)
    ]


def hash_samples() -> "hashlib.blake2b":
    """The checksum of an audio file's samples, to be updated with their bytes in order."""
    return hashlib.blake2b(digest_size=16)


def hash_file(file: Path) -> str:
    """The checksum of a file, as that of the index is kept."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, hash_samples).hexdigest()


def verify_store(store: str | Path, *, jobs: int | None = None, progress: bool = True) -> list[str]:
    """Read all samples of a store and compare them with the checksums.

    Args:
        store: Folder of a whole store.
        jobs: Files read at a time; None takes one for each processor.
        progress: Whether a progress bar is shown.

    Returns:
        A line for each audio file that is damaged.

    Raises:
        InputError: As `read_store_clips`.
    """
    store = Path(store)
    files = read_store_header(store)["files"]
    read_store_clips(store)

    def damage(number: int) -> str | None:
        name = audio_name(number)
        digest = hash_samples()
        try:
            for batch in map_batches(store / name):
                digest.update(batch.data)
        except (pa.ArrowException, OSError, ValueError, IndexError) as error:  # whatever a damaged header leads to
            return f"{name} is damaged: {error}"
        if digest.hexdigest() != files[number]["checksum"]:
            return f"{name} is damaged: its checksum must be {files[number]['checksum']}, got {digest.hexdigest()}"
        return None

    found = map_in_threads(damage, range(len(files)), jobs=jobs or default_jobs())
    bar = progress_bar(found, total=len(files), desc="verifying", unit="file", disable=not progress, leave=False)
    return [line for line in bar if line is not None]

"""The store: decoded clips in memory-mapped Arrow files, read without decoding.

A store is a folder. ``store.json`` is written last and marks it as whole. ``clips.arrow`` is the manifest with the
place of every clip. ``audio-00000.arrow`` and its successors hold one column of int16 samples each, mono at one sample
rate, in record batches of equal length; the clips follow one another without regard to the batches.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audiostride.checks import Count, WholeNumber, check_table, read_json
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

AGAIN = "copy the store again, or remove it and prepare it anew"


class StoredFile(TypedDict):
    """What ``store.json`` says of an audio file."""

    bytes: Count
    samples: WholeNumber
    checksum: str


class StoreHeader(TypedDict):
    """What ``store.json`` says, beside its ``format_version``."""

    sample_rate: Count
    manifest: str
    clips: Count
    samples: Count
    scaled: WholeNumber
    skipped: WholeNumber
    fingerprint: str
    index: list[str]
    files: list[StoredFile]


def is_store(path: str | Path) -> bool:
    """Whether a path is a folder that ``audiostride prepare`` wrote, or began to write."""
    # isfile, unlike Path, takes what may not be looked at as nothing.
    return any(os.path.isfile(os.path.join(path, name)) for name in ("store.json", "plan.json"))


def audio_name(number: int) -> str:
    """Name of an audio file of a store."""
    return f"audio-{number:05d}.arrow"


def read_store_header(store: str | Path) -> StoreHeader:
    """What ``store.json`` says: format, sample rate, counts, source and the audio files with their checksums.

    Raises:
        InputError: Not a whole store, one of another version, or a header that is not one.
    """
    file = Path(store) / "store.json"
    if not file.is_file():
        raise InputError(
            f"store {store} is not whole: 'audiostride prepare' was stopped; give that command again, and it goes on"
        )
    header = read_json("store", file, dict[str, Any], advice=AGAIN)
    if header.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"store {store} must have format version {FORMAT_VERSION}, got {header.get('format_version')}; "
            "prepare it again from its manifest"
        )
    checked: StoreHeader = check_table(f"store: {file}", header, StoreHeader, advice=AGAIN)
    return checked


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
                + f"; {AGAIN}"
            )
    found = hash_file(store / INDEX) if (store / INDEX).is_file() else "no such file"
    if found not in header["index"]:
        raise InputError(
            f"store {store}: {INDEX} must have the checksum {' or '.join(header['index'])}, got {found}; {AGAIN}"
        )
    with pa.memory_map(str(store / INDEX)) as source:
        clips: pd.DataFrame = pa.ipc.open_file(source).read_all().to_pandas()
    numbers, ends = clips["store_file"], clips["store_offset"] + clips["n_samples"]
    held = np.array([entry["samples"] for entry in header["files"]])
    if len(clips) != header["clips"] or numbers.max() >= len(held) or (ends > held[numbers]).any():
        raise InputError(f"store {store}: store.json and {INDEX} must tell of the same clips and files; {AGAIN}")
    return clips.assign(store=str(store.absolute()))


class StoreAudio:
    """Random access to the samples of a store; opens its files when they are first read, once per process.

    Args:
        store: Folder of a whole store.
    """

    def __init__(self, store: str | Path) -> None:
        self.store, self._files = Path(store), read_store_header(store)["files"]
        self._batches: dict[int, list[NDArray[np.int16]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_batches": {}}  # a worker process maps the files itself

    def batches(self, number: int) -> list[NDArray[np.int16]]:
        """The record batches of an audio file as arrays on the memory map."""
        if number not in self._batches:
            self._batches[number] = map_batches(self.store / audio_name(number), self._files[number]["samples"])
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


def map_batches(file: Path, samples: int) -> list[NDArray[np.int16]]:
    """The record batches of an audio file of so many samples, as arrays on its memory map, which they keep open.

    Raises:
        InputError: The file is damaged in another way than in its samples, which `verify_store` looks at.
    """
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(file)))
        if reader.schema != SCHEMA:
            raise ValueError(f"it must hold int16 samples, got {reader.schema.types}")
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate()  # or an array might reach beyond its file
        arrays = [batch.column(0).to_numpy(zero_copy_only=True) for batch in batches]
    except (pa.ArrowException, OSError, ValueError, IndexError) as error:  # whatever a damaged header leads to
        raise InputError(f"store file {file} is damaged: {error}; {AGAIN}") from error
    lengths = [BATCH_SAMPLES] * (samples // BATCH_SAMPLES) + [samples % BATCH_SAMPLES]
    if (found := [len(array) for array in arrays]) != [length for length in lengths if length]:
        raise InputError(f"store file {file} is damaged: it must hold {samples} samples, got {sum(found)}; {AGAIN}")
    return arrays


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
            for batch in map_batches(store / name, files[number]["samples"]):
                digest.update(batch.data)
        except InputError as error:
            return str(error)
        if digest.hexdigest() != files[number]["checksum"]:
            return f"{name} is damaged: its checksum must be {files[number]['checksum']}, got {digest.hexdigest()}"
        return None

    found = map_in_threads(damage, range(len(files)), jobs=jobs or default_jobs())
    bar = progress_bar(found, total=len(files), desc="verifying", unit="file", disable=not progress, leave=False)
    return [line for line in bar if line is not None]

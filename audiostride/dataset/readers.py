"""Random access to the samples of clips, from their files or from a store."""

import math
from abc import ABC, abstractmethod

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audiostride.audio.resampling import probe_audio, read_samples, resampled_length, stream_samples
from audiostride.audio.windows import cut_window
from audiostride.dataset.bad_rows import describe_bad_rows
from audiostride.dataset.store import PLACE_COLUMNS, StoreAudio, read_store_header
from audiostride.distributed import default_jobs, map_in_threads
from audiostride.errors import InputError
from audiostride.progress import progress_bar

# Longer clips are read from their files part by part and never held whole.
KEEP_BELOW_S = 60.0

# A part may end this much behind its file: manifests round.
END_TOLERANCE_S = 0.01


def clip_span(path: str, start_s: float, duration_s: float, *, sample_rate: int) -> tuple[int, int]:
    """First sample and number of samples of a clip at a sample rate, from the header of its file.

    Args:
        path: Audio file.
        start_s: Start in seconds.
        duration_s: Length in seconds; NaN goes to the end.
        sample_rate: In Hz.

    Raises:
        InputError: A file that cannot be read; a part that is not inside it.
    """
    info = probe_audio(path)
    to_end = math.isnan(duration_s)
    if start_s >= info.duration_s or (not to_end and start_s + duration_s > info.duration_s + END_TOLERANCE_S):
        raise InputError(
            f"audio file {path} is {info.duration_s:g} s long, too short for start_s={start_s:g}"
            + ("" if to_end else f", duration_s={duration_s:g}")
        )
    first = round(start_s * sample_rate)
    left = max(1, resampled_length(info.frames, info.sample_rate, sample_rate) - first)
    return first, left if to_end else min(left, max(1, round(duration_s * sample_rate)))


class AudioReader(ABC):
    """Random access to the samples of clips, mono at one sample rate.

    Attributes:
        sample_rate: In Hz.
        n_samples: Length of each clip, ``(clips,)`` int64.
        kept: Rows of the table that the clips come from, ``(clips,)``: all, unless bad clips were skipped.
        skipped: Line number and message of each clip that was left out.
        failed: Message of each clip that could no longer be read, by its index.
    """

    sample_rate: int
    n_samples: NDArray[np.int64]
    kept: NDArray[np.int64]
    skipped: list[tuple[int, str]]
    failed: dict[int, str]

    def __len__(self) -> int:
        return len(self.n_samples)

    @abstractmethod
    def read_into(self, index: int, start: int, out: NDArray[np.float32]) -> bool:
        """Fill `out` with the samples of clip `index` from `start` on, zeros where they lie outside the clip.

        Returns:
            Whether the clip could be read; `out` is zero where it could not.

        Raises:
            InputError: The file can no longer be read, unless bad clips are skipped.
        """

    def read(self, index: int, start: int, window: int) -> NDArray[np.float32]:
        """`window` samples of clip `index` from sample `start` on, zeros where they lie outside the clip."""
        out = np.empty(window, dtype=np.float32)
        self.read_into(index, start, out)
        return out


def open_reader(
    clips: pd.DataFrame,
    *,
    sample_rate: int = 16000,
    memory_mib: float = 4096.0,
    where: str = "clips",
    on_error: str = "stop",
    progress: bool = True,
) -> AudioReader:
    """The reader of a table of clips: `StoreReader` for those of a store, else `FileReader`."""
    if "store" in clips.columns:
        return StoreReader(clips, sample_rate=sample_rate)
    return FileReader(
        clips, sample_rate=sample_rate, memory_mib=memory_mib, where=where, on_error=on_error, progress=progress
    )


class StoreReader(AudioReader):
    """The clips of a store.

    Args:
        clips: A table as `inspect_manifest` returns it for a store.
        sample_rate: In Hz; must be the store's.

    Raises:
        InputError: A store of another sample rate.
    """

    def __init__(self, clips: pd.DataFrame, *, sample_rate: int = 16000) -> None:
        store = clips["store"].iloc[0]
        stored_rate = read_store_header(store)["sample_rate"]
        if stored_rate != sample_rate:
            raise InputError(
                f"store {store} must be at the {sample_rate} Hz of the model, got {stored_rate}; prepare it anew with "
                f"--sample-rate {sample_rate}, or train a model of its rate: --sample-rate {stored_rate}"
            )
        self.sample_rate = sample_rate
        self._audio = StoreAudio(store)
        files, offsets, lengths, scales = (clips[column] for column in PLACE_COLUMNS)
        self.n_samples = lengths.to_numpy(dtype=np.int64)
        self.kept, self.skipped, self.failed = np.arange(len(clips)), [], {}
        # Lists: reading one number of an array costs more than copying a window's samples.
        self._places = list(zip(files.tolist(), offsets.tolist(), scales.tolist(), strict=True))
        self._lengths = self.n_samples.tolist()

    def read_into(self, index: int, start: int, out: NDArray[np.float32]) -> bool:
        number, offset, scale = self._places[index]
        first, last = max(start, 0), min(start + len(out), self._lengths[index])
        if last - first == len(out):
            self._audio.read_into(number, offset + first, scale, out)
            return True
        out[:] = 0.0
        if last > first:
            self._audio.read_into(number, offset + first, scale, out[first - start : last - start])
        return True


class FileReader(AudioReader):
    """Clips read from their files: decoded into memory while there is room, else part by part.

    Every clip is decoded once on construction, so that no bad one shows up after hours of training. With
    ``on_error="stop"`` all bad ones are reported and nothing starts; with ``"skip"`` they are left out and listed in
    `skipped`, and a file that can no longer be read later on gives silence and False.

    Args:
        clips: A table with ``line``, ``path``, ``start_s`` and ``duration_s``, as `inspect_manifest` returns it.
        sample_rate: In Hz.
        memory_mib: How much decoded audio is kept (float32, 3.7 MiB a minute at 16 kHz); clips of more than a minute
            never are.
        where: Name of the manifest, for messages.
        on_error: ``"stop"`` or ``"skip"``.
        progress: Whether a progress bar is shown.

    Raises:
        InputError: All clips that are missing, unreadable, empty, cut off or not finite, with their line numbers.
    """

    def __init__(
        self,
        clips: pd.DataFrame,
        *,
        sample_rate: int = 16000,
        memory_mib: float = 4096.0,
        where: str = "clips",
        on_error: str = "stop",
        progress: bool = True,
    ) -> None:
        self.sample_rate, self._on_error = sample_rate, on_error
        self._decoded: dict[int, NDArray[np.float32]] = {}
        room = int(memory_mib * 2**20 / 4)
        paths, starts_s, durations_s = (clips[column].tolist() for column in ("path", "start_s", "duration_s"))
        sum_decoded = [0]

        def load(row: int) -> tuple[int, int, NDArray[np.float32] | None] | InputError:
            try:
                first, count = clip_span(paths[row], starts_s[row], durations_s[row], sample_rate=sample_rate)
                # An estimate that threads share without a lock: room may be overshot by a clip per thread.
                if count <= KEEP_BELOW_S * sample_rate and sum_decoded[0] + count <= room:
                    samples = read_samples(paths[row], first, count, sample_rate=sample_rate)
                    sum_decoded[0] += count
                    return first, count, samples
                for _ in stream_samples(paths[row], first, count, sample_rate=sample_rate):
                    pass  # decoded to see whether it can be
                return first, count, None
            except InputError as error:
                return error

        kept: list[int] = []
        lengths: list[int] = []
        lines = clips["line"].tolist()
        self._sources: list[tuple[str, int]] = []
        self.skipped, self.failed = [], {}
        loaded = map_in_threads(load, range(len(clips)), jobs=default_jobs())
        bar = progress_bar(
            loaded, total=len(clips), desc="reading audio", unit="clip", disable=not progress, leave=False
        )
        for row, item in enumerate(bar):
            if isinstance(item, InputError):
                self.skipped.append((lines[row], str(item)))
                continue
            first, count, samples = item
            if samples is not None:
                self._decoded[len(kept)] = samples
            kept.append(row)
            lengths.append(count)
            self._sources.append((paths[row], first))
        if self.skipped and on_error == "stop":
            raise InputError(
                describe_bad_rows(
                    where, self.skipped, "mend or remove these rows, or go on without them: --on-error skip"
                )
            )
        self.kept, self.n_samples = np.array(kept, dtype=np.int64), np.array(lengths, dtype=np.int64)

    def read_into(self, index: int, start: int, out: NDArray[np.float32]) -> bool:
        samples = self._decoded.get(index)
        if samples is not None:
            out[:] = cut_window(samples, start, len(out))
            return True
        out[:] = 0.0
        first, last = max(start, 0), min(start + len(out), int(self.n_samples[index]))
        if last > first:
            path, clip_first = self._sources[index]
            try:
                part = read_samples(path, clip_first + first, last - first, sample_rate=self.sample_rate)
            except InputError as error:
                if self._on_error == "stop":
                    raise
                self.failed[index] = str(error)
                return False
            out[first - start : first - start + len(part)] = part
        return True

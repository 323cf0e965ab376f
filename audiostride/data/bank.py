"""The clips of a table, decoded into memory while there is room, read from their files otherwise."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audiostride.data.audio_files import probe_audio, read_audio
from audiostride.data.manifest import describe_bad_rows
from audiostride.data.windows import cut_window
from audiostride.errors import InputError
from audiostride.progress import progress_bar


class AudioBank:
    """Random access to the samples of clips, mono at one sample rate.

    All files are looked at on construction, so that every bad one is reported before a training starts: those that
    fit into memory are decoded, of the others the header is read.

    Args:
        clips: A table with ``line``, ``path``, ``start_s`` and ``duration_s``, as `read_clips` returns it.
        sample_rate: In Hz.
        memory_mib: How much decoded audio is kept (float32, 3.7 MiB a minute at 16 kHz).
        where: Name of the manifest, for messages.
        progress: Whether a progress bar is shown.

    Raises:
        InputError: All clips that are missing, unreadable, empty or not finite, with their line numbers.
    """

    def __init__(
        self,
        clips: pd.DataFrame,
        *,
        sample_rate: int = 16000,
        memory_mib: float = 4096.0,
        where: str = "clips",
        progress: bool = True,
    ) -> None:
        self.sample_rate = sample_rate
        self._paths = clips["path"].tolist()
        self._starts_s = clips["start_s"].tolist()
        self._durations_s = clips["duration_s"].tolist()
        self._decoded: dict[int, NDArray[np.float32]] = {}
        self.n_samples = np.zeros(len(clips), dtype=np.int64)
        room = int(memory_mib * 2**20 / 4)
        bad: list[tuple[int, str]] = []
        lines = clips["line"].tolist()

        def load(index: int) -> tuple[int, NDArray[np.float32] | None] | InputError:
            try:
                length = self._clip_length(index)
                # An estimate that threads share without a lock: room may be overshot by a clip per thread.
                return length, self._decode(index) if sum_decoded[0] + length <= room else None
            except InputError as error:
                return error

        sum_decoded = [0]
        # Decoding and resampling release the interpreter lock.
        with ThreadPoolExecutor(max_workers=4) as pool:
            loaded = pool.map(load, range(len(clips)))
            bar = progress_bar(
                loaded, total=len(clips), desc="reading audio", unit="clip", disable=not progress, leave=False
            )
            for index, item in enumerate(bar):
                if isinstance(item, InputError):
                    bad.append((lines[index], str(item)))
                    continue
                length, samples = item
                self.n_samples[index] = length if samples is None else len(samples)
                if samples is not None:
                    self._decoded[index] = samples
                    sum_decoded[0] += len(samples)
        if bad:
            raise InputError(describe_bad_rows(where, bad, "mend or remove these rows"))

    def __len__(self) -> int:
        return len(self._paths)

    def _clip_length(self, index: int) -> int:
        """Samples of a clip at the bank's rate, from the header."""
        info, start, duration = probe_audio(self._paths[index]), self._starts_s[index], self._durations_s[index]
        if start >= info.duration_s or (duration == duration and start + duration > info.duration_s + 0.01):
            raise InputError(
                f"audio file {self._paths[index]} is {info.duration_s:g} s long, too short for start_s={start:g}"
                + (f", duration_s={duration:g}" if duration == duration else "")
            )
        length_s: float = info.duration_s - start if duration != duration else duration
        return round(length_s * self.sample_rate)

    def _decode(self, index: int) -> NDArray[np.float32]:
        duration = self._durations_s[index]
        return read_audio(
            self._paths[index],
            start_s=self._starts_s[index],
            duration_s=None if duration != duration else duration,
            sample_rate=self.sample_rate,
        )

    def read(self, index: int, start: int, window: int) -> NDArray[np.float32]:
        """`window` samples of clip `index` from sample `start` on, zeros where they lie outside the clip."""
        if index in self._decoded:
            return cut_window(self._decoded[index], start, window)
        first, last = max(start, 0), min(start + window, int(self.n_samples[index]))
        if last <= first:
            return np.zeros(window, dtype=np.float32)
        part = read_audio(
            self._paths[index],
            start_s=self._starts_s[index] + first / self.sample_rate,
            duration_s=(last - first) / self.sample_rate,
            sample_rate=self.sample_rate,
        )
        return cut_window(part, start - first, window)

    def read_clip(self, index: int) -> NDArray[np.float32]:
        """All samples of a clip."""
        return self.read(index, 0, int(self.n_samples[index]))

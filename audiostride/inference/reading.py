"""Windows of recordings, read ahead by a few threads: never more of a recording than some blocks of windows."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiostride.errors import InputError
from audiostride.inference.recordings import WINDOWS_AT_ONCE, Recording
from audiostride.inference.tiling import Tiling

READ_AHEAD = 4  # recordings for each thread whose first windows are read before their turn


class Block(NamedTuple):
    """Consecutive windows of a recording."""

    windows: NDArray[np.float32]
    """``(B, window)``."""
    first: int
    """Which window of the recording the first one is."""
    tiling: Tiling
    """All windows of the recording."""

    @property
    def last(self) -> bool:
        """Whether these are the last ones of the recording."""
        return self.first + len(self.windows) == self.tiling.n_windows


@dataclass
class _Open:
    number: int
    blocks: Iterator[Block]
    next: "Future[Block | None]"


def tile_blocks(
    recording: Recording, *, sample_rate: int, window: int, hop: int, at_once: int = WINDOWS_AT_ONCE,
    begun: Mapping[str, Any] | None = None,
) -> Iterator[Block]:  # fmt: skip
    """The windows of a recording in order, `at_once` of them at a time.

    Those that a stopped job has done (`begun`, see `audiostride.inference.journal.Journal`) are read, as the resampler
    goes through what is before the others, and left out.

    Raises:
        InputError: The recording cannot be read.
    """
    n_samples, source = recording.stream(sample_rate, window=window)
    tiling = Tiling(n_samples, window, hop, sample_rate, recording.start_s)
    n_begun = begun["n_windows"] if begun is not None and begun["n_samples"] == n_samples else 0
    parts: list[NDArray[np.float32]] = []
    held, done = 0, 0
    while done < tiling.n_windows:
        count = min(at_once, tiling.n_windows - done)
        needed = (count - 1) * hop + window
        while held < needed:
            part = next(source, None)
            if part is None:  # the tail is filled up with zeros
                part = np.zeros(needed - held, dtype=np.float32)
            parts.append(part)
            held += len(part)
        samples = parts[0] if len(parts) == 1 else np.concatenate(parts)
        tiled = np.lib.stride_tricks.sliding_window_view(samples[:needed], window)[::hop]
        left_out = min(count, max(0, n_begun - done))
        if left_out < count:
            yield Block(tiled[left_out:], done + left_out, tiling)
        held, done = held - count * hop, done + count
        parts = [samples[count * hop :]] if held else []


def read_blocks(
    recordings: Iterable[Recording], *, sample_rate: int, window: int, hop: int, workers: int,
    begun: Mapping[str, Any] | None = None,
) -> Iterator[tuple[int, Block | InputError]]:  # fmt: skip
    """The windows of one recording after another; for one that cannot be read (any more), the error.

    Args:
        recordings: What is read.
        sample_rate: In Hz.
        window: Length of a window in samples.
        hop: From one window to the next, in samples.
        workers: Threads that read.
        begun: Which windows of the first recording are left out, see `tile_blocks`.

    Yields:
        The number of a recording, and windows of it or the error that ends it.
    """
    opened: deque[_Open] = deque()
    left = enumerate(recordings)
    with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
        try:
            while True:
                while len(opened) < READ_AHEAD * workers and (item := next(left, None)) is not None:
                    number, recording = item
                    own = None if number else begun
                    blocks = tile_blocks(recording, sample_rate=sample_rate, window=window, hop=hop, begun=own)
                    opened.append(_Open(number, blocks, pool.submit(next, blocks, None)))
                if not opened:
                    return
                head = opened[0]
                try:
                    block = head.next.result()
                except InputError as error:
                    opened.popleft()
                    yield head.number, error
                    continue
                if block is None or block.last:
                    opened.popleft()
                else:
                    head.next = pool.submit(next, head.blocks, None)
                if block is not None:
                    yield head.number, block
        finally:
            for waiting in opened:
                waiting.next.cancel()

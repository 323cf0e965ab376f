"""The windows of clips in batches, and the loader of whole batches."""

import signal
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from audiostride.audio.windows import tile_windows
from audiostride.dataset.readers import AudioReader


class WindowBatches(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """The windows that tile all clips, in order, cut into batches.

    Shape:
        An item: waveform ``(B, window)``, weights ``(B,)`` (0 where a window cannot be read and bad clips are skipped),
        clip of each window ``(B,)``; the last batch is shorter.
    """

    def __init__(self, reader: AudioReader, *, window: int, batch_size: int = 64) -> None:
        self.reader, self.window, self.batch_size = reader, window, batch_size
        tiles = [tile_windows(int(n), window=window) for n in reader.n_samples]
        self.clips = np.repeat(np.arange(len(reader)), [len(starts) for starts, _ in tiles])
        self.starts = np.concatenate([starts for starts, _ in tiles])
        self.weights = np.concatenate([weights for _, weights in tiles])

    def __len__(self) -> int:
        return -(-len(self.clips) // self.batch_size)

    def __getitem__(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        part = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        clips, weights = self.clips[part], self.weights[part].copy()
        waveform = np.empty((len(clips), self.window), dtype=np.float32)
        for row, (clip, start) in enumerate(zip(clips.tolist(), self.starts[part].tolist(), strict=True)):
            if not self.reader.read_into(clip, start, waveform[row]):
                weights[row] = 0.0
        return torch.from_numpy(waveform), torch.from_numpy(weights), torch.from_numpy(clips)


def load_batches(
    batches: Dataset[Any] | Sequence[Any],
    *,
    workers: int = 0,
    sampler: Sampler[int] | Sequence[int] | None = None,
    pin: bool = False,
) -> DataLoader[Any]:
    """A loader of data sets whose items are whole batches."""
    return DataLoader(
        batches,  # type: ignore[arg-type]  # a sequence will do
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=_leave_interrupts_to_parent,
    )


def _leave_interrupts_to_parent(worker: int) -> None:
    # Ctrl-C reaches all processes of a terminal; a worker that ends at once would break the parent's clean stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

"""Batches of audio as functions of (seed, step) for training, and of the clips alone for evaluation."""

import signal
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from audiostride.data.bank import AudioBank
from audiostride.data.windows import draw_excerpt_start, tile_windows

# Kinds of random draws, so that the order of clips and the excerpts come from independent streams of one seed.
ORDER, EXCERPT = 0, 1


class ExcerptBatches(Dataset[tuple[Tensor, Tensor]]):
    """Item `step` is the training batch of that step: random excerpts and their classes, a function of (seed, step).

    Clips come in a new random order per pass through the set, each once per pass.

    Args:
        bank: The training clips.
        class_indices: Their classes, shape ``(clips,)``.
        batch_size: Excerpts per batch.
        window: Length of an excerpt in samples.
        shift: How far an excerpt may reach beyond its clip, in samples.
        seed: Seed of the order and of the excerpts.

    Shape:
        An item: waveform ``(B, window)`` float32, class indices ``(B,)`` int64.
    """

    def __init__(
        self, bank: AudioBank, class_indices: NDArray[np.int64], *, batch_size: int, window: int, shift: int, seed: int
    ) -> None:
        self.bank, self.class_indices = bank, class_indices
        self.batch_size, self.window, self.shift, self.seed = batch_size, window, shift, seed
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))

    def clip_at(self, position: int) -> int:
        """The clip at a position of the endless sequence of passes."""
        passes, place = divmod(position, len(self.bank))
        if self._order[0] != passes:
            rng = np.random.default_rng([self.seed, ORDER, passes])
            self._order = passes, rng.permutation(len(self.bank))  # a pure function of its key, kept for the next clip
        return int(self._order[1][place])

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, EXCERPT, step])
        clips = [self.clip_at(step * self.batch_size + item) for item in range(self.batch_size)]
        batch = np.empty((self.batch_size, self.window), dtype=np.float32)
        for row, clip in zip(batch, clips, strict=True):
            start = draw_excerpt_start(int(self.bank.n_samples[clip]), window=self.window, shift=self.shift, rng=rng)
            row[:] = self.bank.read(clip, start, self.window)
        return torch.from_numpy(batch), torch.from_numpy(self.class_indices[clips])


class StepSampler(Sampler[int]):
    """The steps from `first` to `last - 1` in order; its length counts those done earlier too."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last))

    def __len__(self) -> int:
        return self.last


class WindowBatches(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """The windows that tile all clips, in order, cut into batches.

    Shape:
        An item: waveform ``(B, window)``, weights ``(B,)``, clip of each window ``(B,)``; the last batch is shorter.
    """

    def __init__(self, bank: AudioBank, *, window: int, batch_size: int = 64) -> None:
        self.bank, self.window, self.batch_size = bank, window, batch_size
        tiles = [tile_windows(int(n), window=window) for n in bank.n_samples]
        self.clips = np.repeat(np.arange(len(bank)), [len(starts) for starts, _ in tiles])
        self.starts = np.concatenate([starts for starts, _ in tiles])
        self.weights = np.concatenate([weights for _, weights in tiles])

    def __len__(self) -> int:
        return -(-len(self.clips) // self.batch_size)

    def __getitem__(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        part = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        waveform = np.stack(
            [
                self.bank.read(int(clip), int(start), self.window)
                for clip, start in zip(self.clips[part], self.starts[part], strict=True)
            ]
        )
        return torch.from_numpy(waveform), torch.from_numpy(self.weights[part]), torch.from_numpy(self.clips[part])


def load_batches(
    batches: Dataset[tuple[Tensor, ...]], *, workers: int = 0, sampler: Sampler[int] | None = None, pin: bool = False
) -> DataLoader[tuple[Tensor, ...]]:
    """A loader of data sets whose items are whole batches."""
    return DataLoader(
        batches,
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

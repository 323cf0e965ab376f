"""Batches of audio as functions of (seed, step) for training, and of the clips alone for evaluation."""

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from audiostride.data.augmentation import AugmentationConfig, draw_augmentation
from audiostride.data.balance import ClipOrder
from audiostride.data.bank import AudioBank
from audiostride.data.mixing import SourceOrder
from audiostride.data.windows import draw_excerpt_starts, tile_windows
from audiostride.errors import InputError

# Kind of random draw, so that excerpts come from a stream of their own; see balance.py and augmentation.py.
EXCERPT = 1


class ExcerptBatches(Dataset[dict[str, Tensor]]):
    """Item `step` is the training batch of that step: random excerpts and their classes, a function of (seed, step).

    Args:
        bank: The training clips.
        class_indices: Their classes, shape ``(clips,)``.
        batch_size: Excerpts per batch.
        window: Length of an excerpt in samples.
        seed: Seed of the order, of the excerpts and of the augmentation.
        shift: How far an excerpt may reach beyond its clip, in samples.
        units: The class or group of each clip, if these are to come equally often; None takes each clip once per pass.
        augmentation: What is drawn beside the excerpts; the training step applies it.
        spectrogram: Frames, mel bands and seconds per frame of an excerpt's spectrogram, for SpecAugment's masks.

    Shape:
        An item: ``waveform`` ``(B, window)`` float32, ``class_index`` ``(B,)`` int64, ``failed`` (clips that could not
        be read and were replaced by others of the batch) ``(0 to B,)`` int64; and what `draw_augmentation` draws.

    Raises:
        InputError: Masks that do not fit the spectrogram; no clip of a batch can be read.
    """

    def __init__(
        self,
        bank: AudioBank,
        class_indices: NDArray[np.int64],
        *,
        batch_size: int,
        window: int,
        seed: int,
        shift: int = 0,
        units: NDArray[np.int64] | None = None,
        augmentation: AugmentationConfig | None = None,
        spectrogram: tuple[int, int, float] = (100, 64, 0.01),
    ) -> None:
        self.bank, self.class_indices = bank, class_indices
        self.batch_size, self.window, self.shift, self.seed = batch_size, window, shift, seed
        self.augmentation, self.spectrogram = augmentation or AugmentationConfig(), spectrogram
        self.order = ClipOrder(np.zeros(len(bank), dtype=np.int64) if units is None else units, seed=seed)
        self._draw(0)  # what does not fit shows here rather than in a worker process

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        waveform = np.empty((self.batch_size, self.window), dtype=np.float32)
        clips, failed = self.fill(waveform, first=step * self.batch_size, key=(self.seed, EXCERPT, step))
        item: dict[str, NDArray[Any]] = {
            "waveform": waveform,
            "class_index": self.class_indices[clips],
            "failed": failed,
            **self._draw(step),
        }
        return {name: torch.from_numpy(values) for name, values in item.items()}

    def fill(
        self, waveform: NDArray[np.float32], *, first: int, key: tuple[int, ...]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Fill `waveform` ``(B, window)`` with excerpts of the clips from position `first` of the order on.

        Args:
            waveform: What is filled.
            first: Position in the endless sequence of clips.
            key: Seed of where in their clips the excerpts lie.

        Returns:
            The clip of each row, and the clips that could not be read and were replaced by others of these rows.
        """
        clips = self.order.clips_at(first, len(waveform))
        starts = draw_excerpt_starts(
            self.bank.n_samples[clips], window=self.window, shift=self.shift, rng=np.random.default_rng(key)
        )
        readable = [
            self.bank.read_into(clip, start, row)
            for row, clip, start in zip(waveform, clips.tolist(), starts.tolist(), strict=True)
        ]
        if all(readable):
            return clips, np.empty(0, dtype=np.int64)
        return self._replace(waveform, clips, np.flatnonzero(readable)), clips[~np.array(readable)]

    def _draw(self, step: int) -> dict[str, NDArray[Any]]:
        return self.draw(self.augmentation, batch_size=self.batch_size, seed=self.seed, step=step)

    def draw(
        self, augmentation: AugmentationConfig, *, batch_size: int, seed: int, step: int
    ) -> dict[str, NDArray[Any]]:
        """What `draw_augmentation` draws for a batch of excerpts of this kind."""
        n_frames, n_mels, frame_s = self.spectrogram
        return draw_augmentation(
            augmentation,
            batch_size=batch_size,
            n_frames=n_frames,
            n_mels=n_mels,
            frame_s=frame_s,
            seed=seed,
            step=step,
        )

    def _replace(
        self, waveform: NDArray[np.float32], clips: NDArray[np.int64], readable: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Put readable excerpts of the batch in the place of the others; returns whose they are."""
        if len(readable) == 0:
            raise InputError(f"none of the {len(clips)} clips of a batch can be read; is the disk still there?")
        chosen = np.arange(len(clips))
        missing = np.setdiff1d(chosen, readable)
        chosen[missing] = readable[np.arange(len(missing)) % len(readable)]
        waveform[:] = waveform[chosen]
        return clips[chosen]


class MixedBatches(Dataset[dict[str, Tensor]]):
    """Training batches that mix excerpts of several sources, each with labels for some of the tasks.

    Args:
        sources: The sources; their own batch size and augmentation are not used. Class indices of shape
            ``(clips, tasks)``, -1 for a task that the source has no labels for.
        shares: Share of the excerpts that each source gives.
        batch_size: Excerpts per batch.
        seed: Seed of the order of sources, of the excerpts and of the augmentation.
        augmentation: What is drawn beside the excerpts.

    Shape:
        An item: as that of `ExcerptBatches`, with ``class_index`` ``(B, tasks)`` and ``failed`` ``(0 to B, 2)``: source
        and clip.
    """

    def __init__(
        self,
        sources: Sequence[ExcerptBatches],
        shares: NDArray[np.float64],
        *,
        batch_size: int,
        seed: int,
        augmentation: AugmentationConfig | None = None,
    ) -> None:
        self.sources, self.batch_size, self.seed = list(sources), batch_size, seed
        self.augmentation = augmentation or AugmentationConfig()
        self.order = SourceOrder(shares, seed=seed)
        self._draw(0)  # what does not fit shows here rather than in a worker process

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        numbers, draws = self.order.at(step * self.batch_size, self.batch_size)
        first = self.sources[0]
        waveform = np.empty((self.batch_size, first.window), dtype=np.float32)
        classes = np.empty((self.batch_size, first.class_indices.shape[1]), dtype=np.int64)
        failed = [np.empty((0, 2), dtype=np.int64)]
        for number, source in enumerate(self.sources):
            rows = np.flatnonzero(numbers == number)
            if len(rows) == 0:
                continue
            part = np.empty((len(rows), source.window), dtype=np.float32)
            # Draws of a source are consecutive: the n-th takes position n of its own order.
            key = (self.seed, EXCERPT, step, number + 1)
            clips, lost = source.fill(part, first=int(draws[rows[0]]), key=key)
            waveform[rows], classes[rows] = part, source.class_indices[clips]
            failed.append(np.stack([np.full_like(lost, number), lost], axis=1))
        item: dict[str, NDArray[Any]] = {
            "waveform": waveform,
            "class_index": classes,
            "failed": np.concatenate(failed),
            **self._draw(step),
        }
        return {name: torch.from_numpy(values) for name, values in item.items()}

    def _draw(self, step: int) -> dict[str, NDArray[Any]]:
        return self.sources[0].draw(self.augmentation, batch_size=self.batch_size, seed=self.seed, step=step)


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
        An item: waveform ``(B, window)``, weights ``(B,)`` (0 where a window cannot be read and bad clips are skipped),
        clip of each window ``(B,)``; the last batch is shorter.
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
        clips, weights = self.clips[part], self.weights[part].copy()
        waveform = np.empty((len(clips), self.window), dtype=np.float32)
        for row, (clip, start) in enumerate(zip(clips.tolist(), self.starts[part].tolist(), strict=True)):
            if not self.bank.read_into(clip, start, waveform[row]):
                weights[row] = 0.0
        return torch.from_numpy(waveform), torch.from_numpy(weights), torch.from_numpy(clips)


def load_batches(
    batches: Dataset[Any], *, workers: int = 0, sampler: Sampler[int] | None = None, pin: bool = False
) -> DataLoader[Any]:
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

"""Batches of audio to train on, as functions of (seed, step)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from audiostride.audio.windows import draw_excerpt_starts
from audiostride.dataset.readers import AudioReader
from audiostride.dataset.sampling import ClipOrder, SharedOrder, SourceOrder
from audiostride.errors import InputError
from audiostride.training.augmentation.drawing import AugmentationConfig, draw_augmentation

# What of a batch's augmentation belongs to waveforms, and what to spectrograms.
PER_WAVEFORM = ("gain_db", "noise_snr_db", "noise_pick", "noise_place")
PER_SPECTROGRAM = ("time_mask_starts", "time_mask_lengths", "mel_mask_starts", "mel_mask_lengths")

# Kind of random draw, so that excerpts come from a stream of their own; see sampling.py and
# drawing.py.
EXCERPT = 1


class TrainingBatches(Dataset[dict[str, Tensor]], ABC):
    """Item `step` is the training batch of that step, a function of (seed, step); what its subclasses share.

    Args:
        batch_size: Excerpts per batch.
        window: Length of an excerpt in samples.
        seed: Seed of the order, of the excerpts and of the augmentation.
        augmentation: What is drawn beside the excerpts; the training step applies it.
        spectrogram: Frames, mel bands and seconds per frame of an excerpt's spectrogram, for SpecAugment's masks.

    Raises:
        InputError: Masks that do not fit the spectrogram.
    """

    readers: list[AudioReader]
    """The clips of each source."""

    def __init__(
        self,
        *,
        batch_size: int,
        window: int,
        seed: int,
        augmentation: AugmentationConfig | None,
        spectrogram: tuple[int, int, float],
    ) -> None:
        self.batch_size, self.window, self.seed = batch_size, window, seed
        self.augmentation, self.spectrogram = augmentation or AugmentationConfig(), spectrogram
        self._draw(0)  # what does not fit shows here rather than in a worker process

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return self.part(step)

    def part(self, step: int, number: int = 0, *, of: int = 1) -> dict[str, Tensor]:
        """Part `number` of `of` equal ones of a batch, which together are the batch.

        Only the audio of the part is read, and that of the partners of its mixup. Class indices, targets and shares
        stay those of the whole batch, which the mean of the loss is taken over.

        Shape:
            Of a whole batch: ``waveform`` ``(B, window)`` float32, ``class_index`` ``(B,)`` or ``(B, tasks)`` int64,
            ``target_<number>`` ``(B, classes)`` float32 of each task that has target distributions, ``failed`` (clips
            that could not be read and were replaced by others); and what `draw_augmentation` draws.
            Of a part of n rows: ``rows`` ``(n,)``, which rows of the batch they are; ``waveform`` ``(n + partners,
            window)``; gain and noise for each of these; masks for the n; ``mixup_place`` ``(n,)``, where in
            ``waveform`` their partners are.

        Raises:
            InputError: No clip of a part can be read.
        """
        rows = np.arange(self.batch_size * number // of, self.batch_size * (number + 1) // of)
        read, draws = rows, self._draw(step)
        if of > 1:
            draws["rows"] = rows
            if "mixup_partner" in draws:
                partners = draws["mixup_partner"][rows]
                read = np.concatenate([rows, np.setdiff1d(partners, rows)])
                places = np.zeros(self.batch_size, dtype=np.int64)
                places[read] = np.arange(len(read))
                draws["mixup_place"] = places[partners]
            for name, drawn in draws.items():
                if name in PER_WAVEFORM:
                    draws[name] = drawn[read]
                elif name in PER_SPECTROGRAM:
                    draws[name] = drawn[rows]
        waveform = np.empty((len(read), self.window), dtype=np.float32)
        learned, failed = self._fill(waveform, step, read)
        item = {"waveform": waveform, **learned, "failed": failed, **draws}
        return {name: torch.from_numpy(values) for name, values in item.items()}

    @abstractmethod
    def clips_of(self, step: int) -> list[tuple[int, int]]:
        """Source (0 where there is one only) and clip of each row of a batch."""

    @abstractmethod
    def _fill(
        self, waveform: NDArray[np.float32], step: int, read: NDArray[np.int64]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        """Fill `waveform` with the rows `read` of a batch; returns what is learned of all rows, and what failed."""

    def _draw(self, step: int) -> dict[str, NDArray[Any]]:
        n_frames, n_mels, frame_s = self.spectrogram
        return draw_augmentation(
            self.augmentation,
            batch_size=self.batch_size,
            n_frames=n_frames,
            n_mels=n_mels,
            frame_s=frame_s,
            seed=self.seed,
            step=step,
        )


class ExcerptBatches(TrainingBatches):
    """Batches of random excerpts of one source and their classes.

    Args:
        reader: The training clips.
        class_indices: Their classes, shape ``(clips,)``; or ``(clips, tasks)``, -1 for a task without a label.
        batch_size, window, seed, augmentation, spectrogram: As for `TrainingBatches`.
        shift: How far an excerpt may reach beyond its clip, in samples.
        units: The class or group of each clip, if these are to come equally often; None takes each clip once per pass.
        apart: Which clips have a share of the excerpts that is given, and that share; None is none.
        targets: Target distributions ``(clips, classes)`` in place of classes, as ``target_<number of the task>``; 0
            for clips without a label for that task.

    Shape:
        An item: as that of `TrainingBatches`, with ``failed`` ``(0 to B,)``.

    Raises:
        InputError: Masks that do not fit the spectrogram; no clip of a batch can be read.
    """

    def __init__(
        self,
        reader: AudioReader,
        class_indices: NDArray[np.int64],
        *,
        batch_size: int,
        window: int,
        seed: int,
        shift: int = 0,
        units: NDArray[np.int64] | None = None,
        apart: tuple[NDArray[np.bool_], float] | None = None,
        targets: Mapping[str, NDArray[np.float32]] | None = None,
        augmentation: AugmentationConfig | None = None,
        spectrogram: tuple[int, int, float] = (100, 64, 0.01),
    ) -> None:
        super().__init__(
            batch_size=batch_size, window=window, seed=seed, augmentation=augmentation, spectrogram=spectrogram
        )
        self.readers = [reader]
        self.reader, self.class_indices, self.shift = reader, class_indices, shift
        self.learned: dict[str, NDArray[Any]] = {"class_index": class_indices, **(targets or {})}
        units = np.zeros(len(reader), dtype=np.int64) if units is None else units
        self.order: ClipOrder | SharedOrder = ClipOrder(units, seed=seed)
        if apart is not None:
            self.order = SharedOrder(units, *apart, seed=seed)

    def choose(self, first: int, count: int, *, key: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Clips from position `first` of the endless sequence on, and where in them excerpts start (in samples).

        Args:
            first: Position.
            count: Number of excerpts.
            key: Seed of where in their clips the excerpts lie.

        Shape:
            Results: ``(count,)`` each.
        """
        clips = self.order.clips_at(first, count)
        rng = np.random.default_rng(key)
        return clips, draw_excerpt_starts(self.reader.n_samples[clips], window=self.window, shift=self.shift, rng=rng)

    def read_excerpts(
        self, waveform: NDArray[np.float32], clips: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Fill the rows of `waveform` ``(n, window)`` with excerpts.

        Returns:
            The clip of each row, and the clips that could not be read and were replaced by others of these rows.
        """
        readable = [
            self.reader.read_into(clip, start, row)
            for row, clip, start in zip(waveform, clips.tolist(), starts.tolist(), strict=True)
        ]
        if all(readable):
            return clips, np.empty(0, dtype=np.int64)
        return self._replace(waveform, clips, np.flatnonzero(readable)), clips[~np.array(readable)]

    def clips_of(self, step: int) -> list[tuple[int, int]]:
        return [(0, clip) for clip in self.order.clips_at(step * self.batch_size, self.batch_size).tolist()]

    def _fill(
        self, waveform: NDArray[np.float32], step: int, read: NDArray[np.int64]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        clips, starts = self.choose(step * self.batch_size, self.batch_size, key=(self.seed, EXCERPT, step))
        clips = clips.copy()
        clips[read], failed = self.read_excerpts(waveform, clips[read], starts[read])
        return {name: values[clips] for name, values in self.learned.items()}, failed

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


class MixedBatches(TrainingBatches):
    """Training batches that mix excerpts of several sources, each with labels for some of the tasks.

    Args:
        sources: The sources; their own batch size and augmentation are not used. Class indices of shape
            ``(clips, tasks)``, -1 for a task that the source has no labels for; targets for the same tasks.
        shares: Share of the excerpts that each source gives.
        batch_size, seed, augmentation: As for `TrainingBatches`.

    Shape:
        An item: as that of `TrainingBatches`, with ``class_index`` ``(B, tasks)`` and ``failed`` ``(0 to B, 2)``:
        source and clip.
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
        first = sources[0]
        super().__init__(
            batch_size=batch_size,
            window=first.window,
            seed=seed,
            augmentation=augmentation,
            spectrogram=first.spectrogram,
        )
        self.sources = list(sources)
        self.readers = [source.reader for source in sources]
        self.order = SourceOrder(shares, seed=seed)

    def clips_of(self, step: int) -> list[tuple[int, int]]:
        found = [(0, 0)] * self.batch_size
        for number, rows, clips, _ in self._choose(step):
            for row, clip in zip(rows.tolist(), clips.tolist(), strict=True):
                found[row] = (number, clip)
        return found

    def _choose(self, step: int) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """Number of each source of a batch, its rows there, their clips and starts."""
        numbers, draws = self.order.at(step * self.batch_size, self.batch_size)
        for number, source in enumerate(self.sources):
            rows = np.flatnonzero(numbers == number)
            if len(rows):
                # Draws of a source are consecutive: the n-th takes position n of its own order.
                key = (self.seed, EXCERPT, step, number + 1)
                yield number, rows, *source.choose(int(draws[rows[0]]), len(rows), key=key)

    def _fill(
        self, waveform: NDArray[np.float32], step: int, read: NDArray[np.int64]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        places = np.full(self.batch_size, -1, dtype=np.int64)
        places[read] = np.arange(len(read))
        learned = {
            name: np.empty((self.batch_size, *values.shape[1:]), dtype=values.dtype)
            for name, values in self.sources[0].learned.items()
        }
        failed = [np.empty((0, 2), dtype=np.int64)]
        for number, rows, clips, starts in self._choose(step):
            source, clips, taken = self.sources[number], clips.copy(), places[rows] >= 0
            if taken.any():
                own = np.empty((int(taken.sum()), self.window), dtype=np.float32)
                clips[taken], lost = source.read_excerpts(own, clips[taken], starts[taken])
                waveform[places[rows[taken]]] = own
                failed.append(np.stack([np.full_like(lost, number), lost], axis=1))
            for name, values in source.learned.items():
                learned[name][rows] = values[clips]
        return learned, np.concatenate(failed)

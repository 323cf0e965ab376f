"""The training of a run with its batches: from settings and clips to what Lightning trains."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiostride.dataset.noise import load_noise
from audiostride.dataset.sampling import class_weights, source_shares
from audiostride.distributed import Processes
from audiostride.inference.window_batches import load_batches
from audiostride.models import AudioClassifier
from audiostride.training.batch_norm import share_batch_norm_
from audiostride.training.batches import BatchParts, ExcerptBatches, MixedBatches, StepSampler
from audiostride.training.clips import LabelledClips, balance_units
from audiostride.training.config import TrainConfig
from audiostride.training.module import ClassifierTraining

LINES_SHOWN = 8  # lines of a manifest that a message about a batch names


def make_training(
    model: AudioClassifier,
    config: TrainConfig,
    train: dict[str, LabelledClips],
    processes: Processes,
    *,
    device: torch.device,
) -> "TrainingWithBatches":
    """The model with its training data, augmentation and loss."""
    settings = model.config
    sources, lines = [], []
    for source in config.sources():
        first = train[next(iter(source.labels))]
        classes = first.class_indices
        if len(train) > 1:
            classes = np.full((len(first.reader), len(train)), -1, dtype=np.int64)
            for number, task in enumerate(train):
                if task in source.labels:
                    classes[:, number] = train[task].class_indices
        lines.append((source.manifest, first.clips["line"].tolist()))
        sources.append(
            ExcerptBatches(
                first.reader,
                classes,
                batch_size=config.batch_size,
                window=settings.window_samples,
                shift=round(config.time_shift_s * settings.sample_rate),
                seed=config.seed,
                units=balance_units(first, config.balance),
                augmentation=config.augmentation(),
                spectrogram=(settings.window_frames, settings.n_mels, settings.hop_length / settings.sample_rate),
            )
        )
    batches: ExcerptBatches | MixedBatches = sources[0]
    if len(sources) > 1:
        shares = source_shares(
            [len(source.reader) for source in sources],
            config.mixing,
            n_tasks=[len(source.labels) for source in config.sources()],
            temperature=config.mixing_temperature,
        )
        batches = MixedBatches(
            sources, shares, batch_size=config.batch_size, seed=config.seed, augmentation=config.augmentation()
        )
    weights = noises = None
    if config.class_weights == "balanced":
        weights = [
            torch.from_numpy(class_weights(data.class_indices, len(settings.tasks[task])))
            for task, data in train.items()
        ]
    if config.noise is not None:
        noises = torch.from_numpy(load_noise(config.noise, seed=config.seed, sample_rate=settings.sample_rate))
    if processes.count > 1 and device.type == "cpu":  # on GPUs Lightning puts torch's own in its place
        share_batch_norm_(model)
    return TrainingWithBatches(
        model,
        config,
        batches,
        lines,
        class_weights=weights,
        noises=noises,
        processes=processes,
        pin=device.type == "cuda",
    )


class TrainingWithBatches(ClassifierTraining):
    """Adds the loader, which begins at the step that a checkpoint has restored."""

    def __init__(
        self,
        model: AudioClassifier,
        config: TrainConfig,
        batches: ExcerptBatches | MixedBatches,
        lines: list[tuple[str, list[int]]],
        *,
        class_weights: list[Tensor] | None,
        noises: Tensor | None,
        processes: Processes,
        pin: bool,
    ) -> None:
        super().__init__(model, config, class_weights=class_weights, noises=noises, processes=processes)
        self._batches, self._lines, self._pin = batches, lines, pin
        self.readers = [
            source.reader for source in (batches.sources if isinstance(batches, MixedBatches) else [batches])
        ]
        self._parts = BatchParts(batches, rank=processes.rank, processes=processes.count, turns=config.accumulate)

    def train_dataloader(self) -> Any:
        turns = self.config.accumulate
        sampler = StepSampler(self.trainer.global_step * turns, self.config.max_steps * turns)
        return load_batches(self._parts, workers=self.config.workers, sampler=sampler, pin=self._pin)

    def describe_batch(self, step: int) -> str:
        chosen = self._batches.clips_of(step)
        shown = []
        for number, (manifest, lines) in enumerate(self._lines):
            own = sorted({lines[clip] for source, clip in chosen if source == number})
            if own:
                more = f" and {len(own) - LINES_SHOWN} more" if len(own) > LINES_SHOWN else ""
                shown.append(f"lines {', '.join(map(str, own[:LINES_SHOWN]))}{more} of {manifest}")
        return f", whose batch is of {'; '.join(shown)}"

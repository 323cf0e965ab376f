"""The batches of a run and what learns from them, as its settings say."""

import numpy as np
import torch
from numpy.typing import NDArray

from audiostride.dataset.noise import load_noise
from audiostride.dataset.sampling import class_weights, presence_weights, source_shares
from audiostride.distributed import Processes
from audiostride.models import AudioClassifier
from audiostride.training.background import background_share
from audiostride.training.batches import ExcerptBatches, MixedBatches
from audiostride.training.clips import LabelledClips, balance_units
from audiostride.training.config import TrainConfig
from audiostride.training.loss import ClassifierTraining
from audiostride.training.tasks import Source

LINES_SHOWN = 8  # lines of a manifest that a message about a batch names


def make_batches(
    model: AudioClassifier, config: TrainConfig, train: dict[str, LabelledClips]
) -> ExcerptBatches | MixedBatches:
    """The training batches of all sources."""
    settings, sources = model.config, []
    for source in config.sources():
        first = train[next(iter(source.labels))]
        classes = np.full((len(first.reader), len(train)), -1, dtype=np.int64)
        for number, task in enumerate(train):
            if task in source.labels:  # of several labels, which are targets, 0 says that they are known
                known = train[task].class_indices
                classes[:, number] = known if known.ndim == 1 else 0
        classes = classes if len(train) > 1 else classes[:, 0]
        sources.append(
            ExcerptBatches(
                first.reader,
                classes,
                batch_size=config.batch_size,
                window=settings.window_samples,
                shift=round(config.time_shift_s * settings.sample_rate),
                seed=config.seed,
                units=balance_units(first, config.balance),
                apart=background_share(first.clips, config.background_share),
                targets=_make_targets(train, source),
                augmentation=config.augmentation(),
                spectrogram=(settings.window_frames, settings.n_mels, settings.hop_length / settings.sample_rate),
            )
        )
    if len(sources) == 1:
        return sources[0]
    shares = source_shares(
        [len(source.reader) for source in sources],
        config.mixing,
        n_tasks=[len(source.labels) for source in config.sources()],
        temperature=config.mixing_temperature,
    )
    return MixedBatches(
        sources, shares, batch_size=config.batch_size, seed=config.seed, augmentation=config.augmentation()
    )


def _make_targets(train: dict[str, LabelledClips], source: Source) -> dict[str, NDArray[np.float32]]:
    """Targets of the clips of a source for all tasks that have some in any source; several labels are such too."""
    n_clips = len(train[next(iter(source.labels))].reader)
    found = {}
    for number, (task, clips) in enumerate(train.items()):
        targets = clips.targets
        if targets is None and clips.class_indices.ndim == 2:
            targets = clips.class_indices.astype(np.float32)
        if targets is not None:
            none = np.zeros((n_clips, targets.shape[1]), dtype=np.float32)
            found[f"target_{number}"] = targets if task in source.labels else none
    return found


def make_training(
    model: AudioClassifier,
    config: TrainConfig,
    train: dict[str, LabelledClips],
    batches: ExcerptBatches | MixedBatches,
    processes: Processes,
) -> ClassifierTraining:
    """The model with its loss: weights of classes, noises, and what messages say of a batch."""
    weights = noises = None
    if config.class_weights == "balanced":
        names = model.config.tasks
        weights = [
            torch.from_numpy(
                class_weights(data.class_indices, len(names[task]))
                if data.class_indices.ndim == 1
                else presence_weights(data.class_indices)
            )
            for task, data in train.items()
        ]
    if config.noise is not None:
        sample_rate = model.config.sample_rate
        noises = torch.from_numpy(load_noise(config.noise, seed=config.seed, sample_rate=sample_rate))
    lines = [(source.manifest, train[next(iter(source.labels))].clips["line"]) for source in config.sources()]

    def describe_batch(step: int) -> str:
        chosen, shown = batches.clips_of(step), []
        for number, (manifest, of_clips) in enumerate(lines):
            own = sorted({int(of_clips.iloc[clip]) for source, clip in chosen if source == number})
            if own:
                more = f" and {len(own) - LINES_SHOWN} more" if len(own) > LINES_SHOWN else ""
                shown.append(f"lines {', '.join(map(str, own[:LINES_SHOWN]))}{more} of {manifest}")
        return f", whose batch is of {'; '.join(shown)}"

    return ClassifierTraining(
        model, config, class_weights=weights, noises=noises, processes=processes, describe_batch=describe_batch
    )

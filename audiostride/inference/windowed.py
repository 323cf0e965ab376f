"""Clip logits: the weighted mean of the logits of the windows that tile a clip."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiostride.dataset.readers import AudioReader
from audiostride.distributed import Processes
from audiostride.inference.engine import copy_logits
from audiostride.inference.metrics import Evaluation, evaluate_logits
from audiostride.inference.window_batches import WindowBatches, load_batches
from audiostride.models import AudioClassifier
from audiostride.progress import progress_bar


class ClipLogits:
    """Collects window logits and averages them per clip.

    Args:
        n_clips: Number of clips.
        n_classes: Number of classes.
    """

    def __init__(self, n_clips: int, n_classes: int) -> None:
        # float64, so that the order in which windows are added does not show.
        self._sums = torch.zeros(n_clips, n_classes, dtype=torch.float64)
        self._weights = torch.zeros(n_clips, dtype=torch.float64)

    def add(self, logits: Tensor, weights: Tensor, clips: Tensor) -> None:
        """Add the logits ``(B, classes)`` of windows with weights ``(B,)`` that belong to clips ``(B,)``."""
        weights, clips = weights.cpu().double(), clips.cpu()
        self._sums.index_add_(0, clips, logits.cpu().double() * weights[:, None])
        self._weights.index_add_(0, clips, weights)

    def add_up(self, processes: Processes) -> None:
        """Add the windows that the other processes have added."""
        self._sums, self._weights = processes.sum(self._sums), processes.sum(self._weights)

    def mean(self) -> Tensor:
        """Clip logits ``(clips, classes)``, float64; clips without a window are NaN."""
        return self._sums / self._weights[:, None]


def evaluate_reader(
    model: AudioClassifier,
    reader: AudioReader,
    class_indices: Mapping[str, NDArray[np.int64]],
    *,
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = True,
    processes: Processes | None = None,
) -> dict[str, Evaluation]:
    """Classify all clips of a reader and compare with their classes; clips that can no longer be read do not count.

    Args:
        model: As for `classify_clips`.
        reader: The clips; which of them failed stands in ``reader.failed``.
        class_indices: Their classes for each task, ``(clips,)``.
        batch_size, workers, progress, processes: As for `classify_clips`.

    Returns:
        The evaluation of each task.
    """
    processes = processes or Processes()
    logits = classify_clips(
        model,
        reader,
        list(class_indices),
        batch_size=batch_size,
        workers=workers,
        progress=progress,
        processes=processes,
    )
    failures = torch.zeros(len(reader))
    failures[list(reader.failed)] = 1
    readable = np.flatnonzero(processes.sum(failures).numpy() == 0)
    return {
        task: replace(
            evaluate_logits(logits[task][readable], classes[readable], model.config.tasks[task]), clips=readable
        )
        for task, classes in class_indices.items()
    }


@torch.no_grad()
def classify_clips(
    model: AudioClassifier,
    reader: AudioReader,
    tasks: Sequence[str],
    *,
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = True,
    processes: Processes | None = None,
) -> dict[str, Tensor]:
    """Logits of every clip of a reader: the mean over its windows, each weighing by the share of it that is audio.

    There is no randomness, and a clip's logits do not depend on the clips around it (beyond float rounding).

    Args:
        model: Put into evaluation mode for the call; runs where its parameters are.
        reader: The clips.
        tasks: Which heads.
        batch_size: Windows at a time.
        workers: Processes that read audio.
        progress: Whether a progress bar is shown.
        processes: Those that share the work and all call this; each gets the logits of all clips.

    Shape:
        Result: ``(clips, classes)`` for each task, float64, on the CPU.
    """
    device = next(model.parameters()).device
    batches = WindowBatches(reader, window=model.config.window_samples, batch_size=batch_size)
    collected = {task: ClipLogits(len(reader), len(model.config.tasks[task])) for task in tasks}
    was_training = model.training
    model.eval()
    processes = processes or Processes()
    own, on_gpu = range(processes.rank, len(batches), processes.count), device.type == "cuda"
    loader = load_batches(batches, workers=workers, sampler=own, pin=on_gpu)
    for waveform, weights, clips in progress_bar(
        loader, desc="evaluating", unit="batch", disable=not progress, leave=False
    ):
        logits = copy_logits(model(waveform.to(device, non_blocking=on_gpu)))
        for task, sums in collected.items():
            sums.add(logits[task], weights, clips)
    model.train(was_training)
    for sums in collected.values():
        sums.add_up(processes)
    return {task: sums.mean() for task, sums in collected.items()}

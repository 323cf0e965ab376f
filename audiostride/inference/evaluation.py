"""How well clips are classified: their logits, accuracy and its interval, a table of classes, the confusion matrix."""

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor

from audiostride.dataset.readers import AudioReader
from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.inference.engine import predict_recordings
from audiostride.inference.granularity import ClipResult
from audiostride.inference.model import Model
from audiostride.inference.multi_label import (
    THRESHOLD,
    LabelScores,
    check_truth,
    class_table,
    draw_intervals,
    group_numbers,
    macro_metrics,
)
from audiostride.inference.recordings import Recording
from audiostride.inference.settings import PredictionSettings
from audiostride.progress import progress_bar


def accuracy_interval(n_correct: int, n_clips: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), at 95 % for the `z` given.

    It holds where clips are independent; clips of the same group make the true interval wider.

    Raises:
        InputError: No clips, or more correct ones than there are.

    >>> tuple(round(bound, 3) for bound in accuracy_interval(90, 100))
    (0.826, 0.945)
    """
    if not 0 <= n_correct <= n_clips or n_clips == 0:
        raise InputError(
            f"accuracy_interval: counts must satisfy 0 <= correct <= clips > 0, got {n_correct}, {n_clips}"
        )
    share = n_correct / n_clips
    centre = (share + z**2 / (2 * n_clips)) / (1 + z**2 / n_clips)
    half = z / (1 + z**2 / n_clips) * math.sqrt(share * (1 - share) / n_clips + z**2 / (4 * n_clips**2))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Evaluation:
    """How well clips of one split were classified."""

    accuracy: float
    """Share of clips whose highest logit is the true class; where clips have several labels the macro average
    precision, which `metric` then says."""
    interval: tuple[float, float] | None
    """95 % confidence interval of the accuracy (Wilson), or of the macro average precision, if it was drawn."""
    loss: float
    """Mean cross entropy of the clip logits, binary where clips have several labels."""
    n_clips: int
    """Number of clips."""
    per_class: pd.DataFrame
    """One row per class: clips, precision, recall, f1; where clips have several labels also its share, average
    precision with interval, and ROC AUC."""
    confusion: pd.DataFrame | None
    """Counts, true classes in rows and predicted ones in columns; none where clips have several labels."""
    logits: Tensor
    """Logits of the clips that count, ``(clips, classes)``, on the CPU."""
    clips: NDArray[np.int64]
    """Which of the clips given these are, ``(clips,)``."""
    metric: str = "accuracy"
    """``accuracy``, or ``average_precision`` of clips with several labels."""
    macro: dict[str, Any] = field(default_factory=dict)
    """Of clips with several labels: macro metrics, their intervals, and what these were drawn over."""


def evaluate_logits(logits: Tensor, class_indices: NDArray[np.int64], names: Sequence[str]) -> Evaluation:
    """Compare clip logits with the true classes.

    Args:
        logits: Clip logits.
        class_indices: True classes, ints below ``len(names)``.
        names: Class names.

    Shape:
        logits: ``(clips, classes)``; class_indices: ``(clips,)``.

    Raises:
        InputError: No clips; logits that are not finite.
    """
    if len(class_indices) == 0:
        raise InputError("evaluate_logits: there must be at least one clip, got none; is the split empty?")
    if not bool(torch.isfinite(logits).all()):
        raise InputError("evaluate_logits: logits must be finite, got NaN or infinity; did the training diverge?")
    found, classes = logits.argmax(dim=1).numpy(), range(len(names))
    precision, recall, f1, clips = precision_recall_fscore_support(
        class_indices, found, labels=classes, zero_division=0.0
    )
    per_class = {"class": names, "clips": clips, "precision": precision, "recall": recall, "f1": f1}
    confusion = confusion_matrix(class_indices, found, labels=classes)
    n_correct = int((found == class_indices).sum())
    return Evaluation(
        accuracy=n_correct / len(found),
        interval=accuracy_interval(n_correct, len(found)),
        loss=float(torch.nn.functional.cross_entropy(logits, torch.tensor(class_indices, dtype=torch.int64))),
        n_clips=len(found),
        per_class=pd.DataFrame(per_class),
        confusion=pd.DataFrame(confusion, index=pd.Index(names, name="true"), columns=list(names)),
        logits=logits,
        clips=np.arange(len(found)),
    )


def evaluate_label_sets(
    logits: Tensor, truth: NDArray[np.int64], names: Sequence[str], *, groups: "pd.Series[str] | None" = None
) -> Evaluation:
    """Compare clip logits with the labels of clips that may have several, or none.

    Args:
        logits: Clip logits.
        truth: 1 where a clip has the label of a class, else 0.
        names: Class names.
        groups: Of the clips, which the bootstrap draws; None draws no intervals.

    Shape:
        logits and truth: ``(clips, classes)``.

    Raises:
        InputError: No clip with a label; logits that are not finite.
    """
    check_truth("evaluate_label_sets", truth)
    if not bool(torch.isfinite(logits).all()):
        raise InputError("evaluate_label_sets: logits must be finite, got NaN or infinity; did the training diverge?")
    values = logits.double().numpy()
    scores = LabelScores(values, truth, expit(values) >= THRESHOLD)
    found = scores.measure()
    table, interval = class_table(names, truth, found), None
    macro: dict[str, Any] = {**macro_metrics(found)}
    if groups is not None:
        numbers, drawn = group_numbers(groups)
        bounds, low_high = draw_intervals(scores, numbers)
        interval = bounds["average_precision"]
        intervals = {f"{name}_interval": [None if math.isnan(each) else each for each in pair] for name, pair in
                     bounds.items()}  # fmt: skip
        macro |= {**intervals, "interval_over": f"{int(numbers.max()) + 1} {drawn}s"}
        table.insert(4, "low", low_high[0])
        table.insert(5, "high", low_high[1])
    target = torch.from_numpy(truth).to(logits.dtype)
    return Evaluation(
        accuracy=found.macro("average_precision"),
        interval=interval,
        loss=float(torch.nn.functional.binary_cross_entropy_with_logits(logits, target)),
        n_clips=len(truth),
        per_class=table,
        confusion=None,
        logits=logits,
        clips=np.arange(len(truth)),
        metric="average_precision",
        macro=macro,
    )


def classify_clips(
    model: Model,
    reader: AudioReader,
    *,
    hop_s: float | None = None,
    batch_size: int = 64,
    progress: bool = True,
    processes: Processes | None = None,
) -> dict[str, Tensor]:
    """Logits of every clip of a reader: the mean over its windows, or what the model has instead, see `ClipResult`.

    There is no randomness, and a clip's logits do not depend on the clips around it (beyond float rounding).

    Args:
        model: Runs where its parameters are, and is not changed.
        reader: The clips; those that can no longer be read stand in ``reader.failed`` then, unless they end it.
        hop_s: From one window to the next, in seconds, at most the window; None is the window.
        batch_size: Windows at a time.
        progress: Whether a progress bar is shown.
        processes: Those that share the work and all call this; each gets the logits of all clips.

    Returns:
        ``(clips, classes)`` for each task, float64, on the CPU; 0 for clips that can no longer be read.

    Raises:
        InputError: A clip that can no longer be read, where the reader does not skip it; a hop beyond the window.
    """
    processes = processes or Processes()
    # Dealt out from the longest to the shortest, so that the work is even; then in their order.
    own = np.sort(np.argsort(-reader.n_samples, kind="stable")[processes.rank :: processes.count]).tolist()
    recordings = [Recording(f"clip {index}", reader=reader, index=index) for index in own]
    logits = {
        task: torch.zeros(len(reader), len(names), dtype=torch.float64) for task, names in model.config.tasks.items()
    }
    bar = progress_bar(total=len(own), desc="evaluating", unit="clip", disable=not progress, leave=False)
    settings = PredictionSettings(hop_s=hop_s)
    with bar, closing(predict_recordings(model, recordings, settings, batch_size=batch_size, in_turn=True)) as results:
        for index, result in zip(own, results, strict=True):
            if isinstance(result, ClipResult):
                for task, values in result.clip_logits().items():
                    logits[task][index] = torch.from_numpy(values)
            elif isinstance(result, InputError) and index not in reader.failed:
                raise result
            bar.update()
    return {task: processes.sum(values) for task, values in logits.items()}


def evaluate_reader(
    model: Model,
    reader: AudioReader,
    class_indices: Mapping[str, NDArray[np.int64]],
    *,
    groups: "pd.Series[str] | None" = None,
    hop_s: float | None = None,
    batch_size: int = 64,
    progress: bool = True,
    processes: Processes | None = None,
) -> dict[str, Evaluation]:
    """Classify all clips of a reader and compare with their classes; clips that can no longer be read do not count.

    Args:
        model: As for `classify_clips`.
        reader: The clips; which of them failed stands in ``reader.failed``.
        class_indices: Their classes for each task, ``(clips,)``, or of several ones ``(clips, classes)``.
        groups: As for `evaluate_label_sets`.
        hop_s, batch_size, progress, processes: As for `classify_clips`.

    Returns:
        The evaluation of each task.
    """
    processes = processes or Processes()
    logits = classify_clips(model, reader, hop_s=hop_s, batch_size=batch_size, progress=progress, processes=processes)
    failures = torch.zeros(len(reader))
    failures[list(reader.failed)] = 1
    readable = np.flatnonzero(processes.sum(failures).numpy() == 0)
    found = {}
    for task, classes in class_indices.items():
        own, names = logits[task][readable], model.config.tasks[task]
        if classes.ndim == 1:
            found[task] = evaluate_logits(own, classes[readable], names)
        else:
            drawn = None if groups is None else groups.iloc[readable]
            found[task] = evaluate_label_sets(own, classes[readable], names, groups=drawn)
    return {task: replace(each, clips=readable) for task, each in found.items()}

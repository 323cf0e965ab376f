"""Accuracy with its confidence interval, the per-class table and the confusion matrix."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from audiostride.errors import InputError


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
    """Share of clips whose highest logit is the true class."""
    interval: tuple[float, float]
    """95 % confidence interval of the accuracy (Wilson)."""
    loss: float
    """Mean cross entropy of the clip logits."""
    n_clips: int
    """Number of clips."""
    per_class: pd.DataFrame
    """One row per class: clips, precision, recall, f1."""
    confusion: pd.DataFrame
    """Counts, true classes in rows and predicted ones in columns."""
    logits: Tensor
    """Logits of the clips that count, ``(clips, classes)``, on the CPU."""
    clips: NDArray[np.int64]
    """Which of the clips given these are, ``(clips,)``."""


def evaluate_logits(logits: Tensor, class_indices: NDArray[np.int64], names: list[str]) -> Evaluation:
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
    truth = torch.tensor(class_indices, dtype=torch.int64)
    if len(truth) == 0:
        raise InputError("evaluate_logits: there must be at least one clip, got none; is the split empty?")
    if not bool(torch.isfinite(logits).all()):
        raise InputError("evaluate_logits: logits must be finite, got NaN or infinity; did the training diverge?")
    found = logits.argmax(dim=1)
    n_classes, n_correct = len(names), int((found == truth).sum())
    per_class = pd.DataFrame(
        {
            "class": names,
            "clips": torch.bincount(truth, minlength=n_classes).numpy(),
            "precision": multiclass_precision(found, truth, n_classes, average="none").numpy(),
            "recall": multiclass_recall(found, truth, n_classes, average="none").numpy(),
            "f1": multiclass_f1_score(found, truth, n_classes, average="none").numpy(),
        }
    )
    confusion = multiclass_confusion_matrix(found, truth, n_classes).numpy()
    return Evaluation(
        accuracy=n_correct / len(truth),
        interval=accuracy_interval(n_correct, len(truth)),
        loss=float(torch.nn.functional.cross_entropy(logits, truth)),
        n_clips=len(truth),
        per_class=per_class,
        confusion=pd.DataFrame(confusion, index=pd.Index(names, name="true"), columns=names),
        logits=logits,
        clips=np.arange(len(truth)),
    )

"""The loss of one task on a batch of excerpts, or what a part of one adds to it, by what is known of its clips."""

import torch
from torch import Tensor
from torch.nn import functional as F

from audiostride.training.augmentation.mixup import mixed_cross_entropy, mixed_normaliser
from audiostride.training.targets import (
    binary_cross_entropy,
    binary_normaliser,
    binary_targets,
    mix_targets,
    target_cross_entropy,
    target_normaliser,
)


def task_loss(
    logits: Tensor,
    classes: Tensor,
    batch: dict[str, Tensor],
    *,
    target: Tensor | None = None,
    weight: Tensor | None = None,
    smoothing: float = 0.0,
    several: bool = False,
) -> Tensor:
    """The mean loss over the examples of a batch that are of a task, 0 where none is.

    Args:
        logits: Scores, of a part of the batch where it says which (``rows``).
        classes: Class of each example of the whole batch, -1 for one that is of another task.
        batch: The batch with what was drawn for it, see `TrainingBatches.part`.
        target: What the examples of the whole batch are to have of each class, where it is more than a class.
        weight: Of the classes; of absence and presence with `several`.
        smoothing: Share of the target that is spread over all classes.
        several: Whether an example may have several labels: the loss is then binary cross entropy of each class.

    Shape:
        logits: ``(B, classes)`` or ``(rows, classes)``. classes: ``(B,)``. target: ``(B, classes)``. weight:
        ``(classes,)``, with `several` ``(2, classes)``. Result: a scalar.
    """
    if target is not None:
        if several:
            return _binary_loss(logits, target, classes >= 0, batch, weight=weight, smoothing=smoothing)
        return _target_loss(logits, target, batch, weight=weight, smoothing=smoothing)
    rows, normaliser = batch.get("rows"), None
    own = classes if rows is None else classes[rows]
    if "mixup_weight" in batch:
        partners, mixup_weight = classes[batch["mixup_partner"]], batch["mixup_weight"]
        if rows is not None:
            normaliser = mixed_normaliser(classes, partners, mixup_weight, weight=weight)
            partners, mixup_weight = partners[rows], mixup_weight[rows]
        return mixed_cross_entropy(
            logits, own, partners, mixup_weight, weight=weight, normaliser=normaliser, smoothing=smoothing
        )
    if rows is not None:
        normaliser = class_normaliser(classes, weight=weight)
    return mean_cross_entropy(logits, own, weight=weight, normaliser=normaliser, smoothing=smoothing)


def class_normaliser(classes: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """What the mean of `mean_cross_entropy` divides by: examples that have a class, or the sum of their weights."""
    known = classes >= 0
    return known.sum() if weight is None else (weight[classes.clamp(min=0)] * known).sum()


def mean_cross_entropy(
    logits: Tensor,
    classes: Tensor,
    *,
    weight: Tensor | None = None,
    normaliser: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy over the examples that have a class, 0 where none has.

    Args:
        logits: Scores.
        classes: Class of each example, -1 for one without.
        weight: Of the classes; the mean is then the weighted one.
        normaliser: What the sum is divided by, for a part of a batch: `class_normaliser` of the whole.
        smoothing: Share of the target that is spread over all classes.

    Shape:
        logits: ``(B, classes)``. classes: ``(B,)``. weight: ``(classes,)``. Result: a scalar.
    """
    summed = F.cross_entropy(
        logits, classes, weight=weight, ignore_index=-1, reduction="sum", label_smoothing=smoothing
    )
    normaliser = class_normaliser(classes, weight=weight) if normaliser is None else normaliser
    # At most the division by zero is kept away: the sum is 0 where no example has a class.
    return summed / normaliser.clamp(min=torch.finfo(logits.dtype).tiny)


def _target_loss(
    logits: Tensor, target: Tensor, batch: dict[str, Tensor], *, weight: Tensor | None, smoothing: float
) -> Tensor:
    """Cross entropy of a batch, or what a part of one adds to that, with the target distributions of the whole."""
    if "mixup_weight" in batch:
        target = mix_targets(target, batch["mixup_partner"], batch["mixup_weight"])
    own = target[batch["rows"]] if "rows" in batch else target
    normaliser = target_normaliser(target, weight=weight)
    own = (1 - smoothing) * own + smoothing / own.shape[1] * own.sum(dim=1, keepdim=True)
    return target_cross_entropy(logits, own, weight=weight, normaliser=normaliser)


def _binary_loss(
    logits: Tensor, target: Tensor, known: Tensor, batch: dict[str, Tensor], *, weight: Tensor | None, smoothing: float
) -> Tensor:
    """As `_target_loss` of examples with several labels; `known` is whether an example of the whole has any."""
    shares = binary_targets(target, known)
    if "mixup_weight" in batch:
        shares = mix_targets(shares, batch["mixup_partner"], batch["mixup_weight"])
    own = shares[batch["rows"]] if "rows" in batch else shares
    normaliser = binary_normaliser(shares, weight=weight)
    return binary_cross_entropy(logits, own, weight=weight, normaliser=normaliser, smoothing=smoothing)

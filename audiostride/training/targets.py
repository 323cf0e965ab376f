"""What training is to learn of clips that a teacher has scored: distributions over classes, and the loss to them."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from audiostride.dataset.labels import multi_hot
from audiostride.dataset.scores import has_scores


def target_column(task: str, class_name: str) -> str:
    """The column of a table of clips with what training is to learn of a class of a task."""
    return f"target of {task}: {class_name}"


def blend_targets(
    labels: "pd.Series[str]", scores: pd.DataFrame, *, share: float, several: bool = False
) -> pd.DataFrame:
    """The target distribution of each clip: ``share * scores + (1 - share) * label`` (Hinton et al. 2015, "Distilling
    the Knowledge in a Neural Network", section 2), its label alone or its scores alone where it has no others.

    Args:
        labels: Empty where a clip has none.
        scores: As `read_scores` gives them: a column per class, NaN in rows without scores.
        share: Weight of the scores beside the label, in [0, 1].
        several: Whether clips have several labels, and an empty one means none: each class is then on its own.

    Returns:
        A table like `scores`, of float32.

    >>> scores = pd.DataFrame({"cat": [0.8, np.nan], "dog": [0.2, np.nan]})
    >>> blend_targets(pd.Series(["dog", "dog"]), scores, share=0.5).to_numpy().tolist()
    [[0.4000000059604645, 0.6000000238418579], [0.0, 1.0]]
    """
    given = has_scores(scores).to_numpy()
    alone = (labels == "") & (not several)
    share_of_scores = np.where(given, np.where(alone, 1.0, share), 0.0)[:, None]
    own = multi_hot(labels, [*scores.columns])
    blended = share_of_scores * scores.fillna(0.0).to_numpy() + (1 - share_of_scores) * own
    return pd.DataFrame(blended.astype(np.float32), index=scores.index, columns=scores.columns)


def mix_targets(target: Tensor, partner: Tensor, mixup_weight: Tensor) -> Tensor:
    """The targets of examples that `mix_up` has mixed: ``w t_i + (1 - w) t_partner``, w being the mixup weights.

    Shape:
        target: ``(B, …)``. partner and mixup_weight: ``(B,)``. Result: as target.
    """
    mixup_weight = mixup_weight.reshape(-1, *(1,) * (target.ndim - 1))
    return mixup_weight * target + (1 - mixup_weight) * target[partner]


def target_normaliser(target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """What the mean of `target_cross_entropy` divides by: examples, or the weights of their classes, summed."""
    return target.sum() if weight is None else (target @ weight).sum()


def target_cross_entropy(
    logits: Tensor, target: Tensor, *, weight: Tensor | None = None, normaliser: Tensor | None = None
) -> Tensor:
    """Cross entropy with target distributions, as that with classes where each is of one class:

        - sum_ik w_k t_ik log p_ik  /  sum_ik w_k t_ik

    Args:
        logits: Scores of the classes.
        target: Distribution over the classes; 0 in all of them for an example that does not count.
        weight: Of the classes.
        normaliser: What the sum is divided by, for a part of a batch: `target_normaliser` of the whole.

    Shape:
        logits and target: ``(B, classes)``. weight: ``(classes,)``. Result: a scalar.

    >>> target_cross_entropy(torch.zeros(1, 2), torch.tensor([[0.25, 0.75]]))
    tensor(0.6931)
    """
    summed = F.cross_entropy(logits, target, weight=weight, reduction="sum")
    normaliser = target_normaliser(target, weight=weight) if normaliser is None else normaliser
    # At most the division by zero is kept away: the sum is 0 where no example counts.
    return summed / normaliser.clamp(min=torch.finfo(logits.dtype).tiny)


def binary_targets(target: Tensor, known: Tensor) -> Tensor:
    """How much each class of an example is absent and present: 1 in all, and 0 for an example that does not count.

    Args:
        target: Probability of each class.
        known: Whether an example has labels.

    Shape:
        target: ``(B, classes)``. known: ``(B,)``. Result: ``(B, 2, classes)``, absent and then present.
    """
    return torch.stack([1 - target, target], dim=1) * known[:, None, None]


def binary_normaliser(shares: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """What the mean of `binary_cross_entropy` divides by: examples and classes, or their weights, summed."""
    return shares.sum() if weight is None else (shares * weight).sum()


def binary_cross_entropy(
    logits: Tensor,
    shares: Tensor,
    *,
    weight: Tensor | None = None,
    normaliser: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Binary cross entropy of each class on its own, the mean over examples and classes:

        - sum_ik [w_1k t_ik log p_ik + w_0k (1 - t_ik) log(1 - p_ik)]  /  sum_ik [w_1k t_ik + w_0k (1 - t_ik)]

    The mean over the classes keeps its size, and so the learning rate that suits it, the same for few and for many.

    Args:
        logits: Scores of the classes.
        shares: As `binary_targets` gives them, of mixed examples mixed.
        weight: Of the absence and the presence of each class.
        normaliser: What the sum is divided by, for a part of a batch: `binary_normaliser` of the whole.
        smoothing: Share of the target that is spread over both, absence and presence.

    Shape:
        logits: ``(B, classes)``. shares: ``(B, 2, classes)``. weight: ``(2, classes)``. Result: a scalar.

    >>> shares = binary_targets(torch.tensor([[1.0, 0.0]]), torch.tensor([True]))
    >>> binary_cross_entropy(torch.zeros(1, 2), shares)
    tensor(0.6931)
    """
    normaliser = binary_normaliser(shares, weight=weight) if normaliser is None else normaliser
    shares = (1 - smoothing) * shares + smoothing / 2 * shares.sum(dim=1, keepdim=True)
    shares = shares if weight is None else shares * weight
    log_probs = torch.stack([F.logsigmoid(-logits), F.logsigmoid(logits)], dim=1)
    # At most the division by zero is kept away: the sum is 0 where no example counts.
    return -(shares * log_probs).sum() / normaliser.clamp(min=torch.finfo(logits.dtype).tiny)

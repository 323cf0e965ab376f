"""What training is to learn of clips that a teacher has scored: distributions over classes, and the loss to them."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from audiostride.dataset.scores import has_scores


def target_column(task: str, class_name: str) -> str:
    """The column of a table of clips with what training is to learn of a class of a task."""
    return f"target of {task}: {class_name}"


def blend_targets(labels: "pd.Series[str]", scores: pd.DataFrame, *, share: float) -> pd.DataFrame:
    """The target distribution of each clip: ``share * scores + (1 - share) * label`` (Hinton et al. 2015, "Distilling
    the Knowledge in a Neural Network", section 2), its label alone or its scores alone where it has no others.

    Args:
        labels: Empty where a clip has none.
        scores: As `read_scores` gives them: a column per class, NaN in rows without scores.
        share: Weight of the scores beside the label, in [0, 1].

    Returns:
        A table like `scores`, of float32.

    >>> scores = pd.DataFrame({"cat": [0.8, np.nan], "dog": [0.2, np.nan]})
    >>> blend_targets(pd.Series(["dog", "dog"]), scores, share=0.5).to_numpy().tolist()
    [[0.4000000059604645, 0.6000000238418579], [0.0, 1.0]]
    """
    given = has_scores(scores).to_numpy()
    share_of_scores = np.where(given, np.where(labels == "", 1.0, share), 0.0)[:, None]
    own = labels.to_numpy()[:, None] == scores.columns.to_numpy()[None]
    blended = share_of_scores * scores.fillna(0.0).to_numpy() + (1 - share_of_scores) * own
    return pd.DataFrame(blended.astype(np.float32), index=scores.index, columns=scores.columns)


def mix_targets(target: Tensor, partner: Tensor, mixup_weight: Tensor) -> Tensor:
    """The targets of examples that `mix_up` has mixed: ``w t_i + (1 - w) t_partner``, w being the mixup weights.

    Shape:
        target: ``(B, classes)``. partner and mixup_weight: ``(B,)``. Result: as target.
    """
    mixup_weight = mixup_weight[:, None]
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

"""Mixup: pairs of examples mixed, and the loss that belongs to them; random numbers are arguments."""

import torch
from torch import Tensor
from torch.nn import functional as F

from audiostride.errors import InputError
from audiostride.training.augmentation.transforms import check_indices, check_per_example, check_waveform


def mix_up(waveform: Tensor, partner: Tensor, mixup_weight: Tensor) -> Tensor:
    """Each example mixed with another one of the batch: ``w x_i + (1 - w) x_partner``, w being its mixup weight (Zhang
    et al. 2018, "mixup: Beyond Empirical Risk Minimization", section 2); its loss is `mixed_cross_entropy`.

    Args:
        waveform: Samples of the n examples, which others that are only mixed into them may follow.
        partner: Index of the other example within `waveform`.
        mixup_weight: Weight of the example itself, in [0, 1].

    Shape:
        waveform: ``(B, samples)``, B >= n. partner: ``(n,)`` int64. mixup_weight: ``(n,)``. Result: ``(n, samples)``
        in the dtype of the waveform.

    Raises:
        InputError: A waveform that is not floating-point of shape ``(B, samples)``, partners or weights that do not
            fit.

    >>> mix_up(torch.tensor([[0.0, 4.0], [8.0, 0.0]]), torch.tensor([1, 0]), torch.tensor([0.75, 1.0]))
    tensor([[2., 3.],
            [8., 0.]])
    """
    who = "mix_up"
    check_waveform(who, waveform)
    n_examples = min(partner.numel(), len(waveform))
    check_per_example(who, n_examples, partner=partner, mixup_weight=mixup_weight)
    check_indices(who, "partner", partner)
    mixup_weight = mixup_weight.to(waveform.dtype)[:, None]
    return mixup_weight * waveform[:n_examples] + (1 - mixup_weight) * waveform[partner]


def mixed_normaliser(
    classes: Tensor, partner_classes: Tensor, mixup_weight: Tensor, *, weight: Tensor | None = None
) -> Tensor:
    """What the mean of `mixed_cross_entropy` divides by: the weights that mixed examples have, summed.

    Shape:
        Arguments as there. Result: a scalar in the dtype of the mixup weights.
    """
    return _mixed_weights(classes, partner_classes, mixup_weight, weight).sum()


def _mixed_weights(classes: Tensor, partner_classes: Tensor, mixup_weight: Tensor, weight: Tensor | None) -> Tensor:
    """Weight of the class and of the partner's class of each example, ``(2, B)``; 0 for one without a class."""
    both = torch.stack([classes, partner_classes])
    weights = torch.stack([mixup_weight, 1 - mixup_weight]) * (both >= 0)
    return weights if weight is None else weights * weight.to(mixup_weight.dtype)[both.clamp(min=0)]


def mixed_cross_entropy(
    logits: Tensor,
    classes: Tensor,
    partner_classes: Tensor,
    mixup_weight: Tensor,
    *,
    weight: Tensor | None = None,
    normaliser: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy of mixed examples: the mean of ``w CE(logits, class) + (1 - w) CE(logits, partner's)``, w being the
    mixup weights (Zhang et al. 2018).

    With weights of the classes it is the weighted mean that ``torch.nn.functional.cross_entropy`` defines, in which an
    example counts as `mixup_weight` of an example of its class and ``1 - mixup_weight`` of one of its partner's:

        sum_i [m_i w[a_i] CE(i, a_i) + (1 - m_i) w[b_i] CE(i, b_i)]  /  sum_i [m_i w[a_i] + (1 - m_i) w[b_i]]

    With mixup weights of 1 both are torch's cross entropy of the classes.

    Args:
        logits: Scores of the classes.
        classes: Class index of each example, -1 for one without a class, which does not count.
        partner_classes: Class index of the example that it is mixed with.
        mixup_weight: Weight of the example itself, in [0, 1].
        weight: Weight of each class, >= 0.
        normaliser: What the sum is divided by, for a part of a batch: `mixed_normaliser` of the whole.
        smoothing: Share of the target that is spread over all classes, in [0, 1].

    Shape:
        logits: ``(B, K)``. classes and partner_classes: ``(B,)`` int64. mixup_weight: ``(B,)``. weight: ``(K,)``.
        Result: a scalar in the dtype of the logits.

    Raises:
        InputError: Tensors whose shapes do not fit each other, class indices that are not int64.

    >>> logits, classes = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])
    >>> mixed_cross_entropy(logits, classes, classes.flip(0), torch.tensor([1.0, 0.5]))
    tensor(0.6269)
    """
    who = "mixed_cross_entropy"
    if logits.ndim != 2 or not logits.is_floating_point():
        raise InputError(
            f"{who}: logits must be floating-point of shape (B, K), got {logits.dtype} of shape {tuple(logits.shape)}"
        )
    check_per_example(who, logits.shape[0], classes=classes, partner_classes=partner_classes, mixup_weight=mixup_weight)
    check_indices(who, "classes", classes)
    check_indices(who, "partner_classes", partner_classes)
    if weight is not None and weight.shape != logits.shape[1:]:
        raise InputError(
            f"{who}: weight must have one entry per class, shape ({logits.shape[1]},), got {tuple(weight.shape)}"
        )
    weight, mixup_weight = None if weight is None else weight.to(logits.dtype), mixup_weight.to(logits.dtype)
    losses = torch.stack(
        [
            F.cross_entropy(logits, of, weight, reduction="none", ignore_index=-1, label_smoothing=smoothing)
            for of in (classes, partner_classes)
        ]
    )
    shares = _mixed_weights(classes, partner_classes, mixup_weight, None)
    if normaliser is None:
        normaliser = mixed_normaliser(classes, partner_classes, mixup_weight, weight=weight)
    # Without any class the sum is 0; only the division by zero is kept away.
    return (shares * losses).sum() / normaliser.clamp(min=torch.finfo(logits.dtype).tiny)

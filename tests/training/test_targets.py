"""The loss with target distributions: torch's own, and that of classes where each target is of one class."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from audiostride.training.augmentation.mixup import mixed_cross_entropy
from audiostride.training.targets import blend_targets, mix_targets, target_cross_entropy, target_normaliser
from audiostride.training.task_losses import mean_cross_entropy

WEIGHT = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def target() -> Tensor:
    return torch.rand(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(dim=1)


def one_hot(classes: Tensor) -> Tensor:
    """Targets of classes, 0 where there is none."""
    return F.one_hot(classes.clamp(min=0), 3).double() * (classes >= 0)[:, None]


def test_the_loss_is_that_of_torch_with_probabilities(logits: Tensor, target: Tensor) -> None:
    torch.testing.assert_close(target_cross_entropy(logits, target), F.cross_entropy(logits, target))
    by_hand = -(WEIGHT * target * logits.log_softmax(dim=1)).sum() / (WEIGHT * target).sum()
    torch.testing.assert_close(target_cross_entropy(logits, target, weight=WEIGHT), by_hand)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_the_loss_of_one_hot_targets_is_that_of_classes(logits: Tensor, weight: Tensor | None) -> None:
    classes = torch.tensor([0, -1, 2, 1, -1, 2])
    found = target_cross_entropy(logits, one_hot(classes), weight=weight)
    torch.testing.assert_close(found, mean_cross_entropy(logits, classes, weight=weight))
    partner, mixup_weight = torch.tensor([3, 0, 1, 5, 4, 2]), torch.tensor([0.0, 0.1, 0.3, 0.5, 0.9, 1.0]).double()
    mixed = mix_targets(one_hot(classes), partner, mixup_weight)
    expected = mixed_cross_entropy(logits, classes, classes[partner], mixup_weight, weight=weight)
    torch.testing.assert_close(target_cross_entropy(logits, mixed, weight=weight), expected)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_the_losses_of_parts_sum_to_that_of_the_batch(logits: Tensor, target: Tensor, weight: Tensor | None) -> None:
    target[4] = 0
    normaliser = target_normaliser(target, weight=weight)
    parts = [
        target_cross_entropy(logits[rows], target[rows], weight=weight, normaliser=normaliser)
        for rows in ([0, 3], [4], [1, 2, 5])
    ]
    torch.testing.assert_close(sum(parts), target_cross_entropy(logits, target, weight=weight))
    torch.testing.assert_close(
        target_cross_entropy(logits, target), target_cross_entropy(logits[[0, 1, 2, 3, 5]], target[[0, 1, 2, 3, 5]])
    )


def test_examples_without_a_target_add_nothing(logits: Tensor) -> None:
    logits.requires_grad_()
    loss = target_cross_entropy(logits, torch.zeros(6, 3).double())
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros(6, 3).double())


def test_the_gradient_is_the_difference_of_the_distributions(logits: Tensor, target: Tensor) -> None:
    logits.requires_grad_()
    target_cross_entropy(logits, target).backward()
    torch.testing.assert_close(logits.grad, (logits.detach().softmax(dim=1) - target) / 6)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_targets_are_shares_of_scores_and_labels(share: float) -> None:
    scores = pd.DataFrame({"a": [0.8, 0.8, np.nan], "b": [0.2, 0.2, np.nan]}, index=[3, 7, 9])
    found = blend_targets(pd.Series(["b", "", "b"], index=[3, 7, 9]), scores, share=share)
    assert found.index.tolist() == [3, 7, 9]
    expected = [[share * 0.8, share * 0.2 + 1 - share], [0.8, 0.2], [0, 1]]
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-6)  # float32

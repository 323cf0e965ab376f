"""An exponential moving average of a model's weights, which is evaluated and saved in their place."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage(nn.Module):
    """A model whose weights and batch-norm statistics follow those of another one, as their moving average.

    After step t (from 0) they become ``d average + (1 - d) weights`` with ``d = min(decay, (1 + t) / (10 + t))``: while
    there are few steps the average is over fewer of them, so that the weights of the start are soon forgotten (Polyak
    and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging"; Tarvainen and Valpola 2017, "Mean
    teachers are better role models", section 2).

    Args:
        model: What is followed; it is copied.
        decay: Share of the average that is kept at each step, in (0, 1); 0.99 averages over about 100 steps.
    """

    def __init__(self, model: Any, decay: float) -> None:
        super().__init__()
        # It moves and is saved with the module that holds it, and is not learned.
        self.model: Any = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        self._pairs: tuple[list[Tensor], list[Tensor]] | None = None

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Follow the weights that step number `step` (from 0) has left."""
        if self._pairs is None:  # not before all are on their device
            pairs = [
                (own, new)
                for (_, own), (_, new) in zip(_tensors(self.model), _tensors(model), strict=True)
                if own.is_floating_point()
            ]
            self._pairs = [own for own, _ in pairs], [new for _, new in pairs]
        torch._foreach_lerp_(*self._pairs, 1 - min(self.decay, (1 + step) / (10 + step)))
        # (the number of batches seen by batch norms is no part of what they compute)

    def train(self, mode: bool = True) -> "WeightAverage":
        """Stay in evaluation mode."""
        return super().train(False)


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]

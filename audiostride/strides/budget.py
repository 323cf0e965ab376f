"""Strides on the surface of equal cost: how they are brought back to it, and where they end."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from audiostride.checks import UNITS
from audiostride.errors import InputError

Layer = Any
"""A layer such as `DiffStride2d`."""
Bounds = Mapping[Layer, Sequence[tuple[float, float]]]
"""Lowest and highest value of each entry of the strides of each layer."""
SmoothCost = Callable[[Mapping[Layer, Tensor]], Tensor]
"""A cost as a differentiable function of strides."""
TOLERANCE = 1e-7  # of the logarithm of a cost
ROUNDS = 60
HALVINGS = 8


class StrideBudget:
    """Keeps the learned strides of a network where it costs a given number of multiply-adds.

    Call `bring_` after each optimizer step, behind ``project_strides_``, and `fit_` when strides have been learned.

    Args:
        who: Name of the caller, for messages.
        budget: Multiply-adds.
        smooth: The cost as a differentiable function of strides.
        counted: Counts the cost with the strides of now.
        bounds: Lowest and highest value of each entry of the strides of each layer, as they are now.
        unit: What numbers in messages are divided by.
        what: What a budget is for, such as ``"example"``.

    Raises:
        InputError: No strides within their bounds have this cost.
    """

    def __init__(
        self,
        who: str,
        budget: float,
        *,
        smooth: SmoothCost,
        counted: Callable[[], float],
        bounds: Callable[[], Bounds],
        unit: float = 1.0,
        what: str,
    ) -> None:
        self.budget, self._smooth, self._counted, self._bounds = budget, smooth, counted, bounds
        ends = [{layer: torch.tensor(pairs)[:, end] for layer, pairs in bounds().items()} for end in (1, 0)]
        smallest, largest = (smooth(strides).item() for strides in ends)
        if not smallest <= budget <= largest:
            raise InputError(
                f"{who}: budget must lie between {_amount(smallest / unit)} and {_amount(largest / unit)} "
                f"multiply-adds per {what}, which this network takes with its largest and smallest strides, got "
                f"{_amount(budget / unit)}; change it, or the width of the network"
            )

    def bring_(self) -> None:
        """Move strides, along the gradient of the cost in their logarithms, to where it is the budget.

        That is the nearest point of the surface of this cost, to first order; strides stay within their bounds.
        Computed in float64 on the host, so that all processes and devices come to the same strides. Strides that are
        not finite stay as they are, for whoever trains to see.
        """
        self._bring(self.budget)

    def fit_(self) -> None:
        """Move strides so far that the cost as counted, of whole sizes, is within the budget; those that are stay."""
        if self._counted() <= self.budget:
            return
        start = {layer: layer.strides.detach().tolist() for layer in self._bounds()}

        def fits(share: float) -> bool:
            for layer, values in start.items():
                layer.set_strides_(values)
            self._bring(share * self.budget)
            return self._counted() <= self.budget

        low, high = 0.9, 1.0
        while not fits(low):
            low, high = 0.9 * low, low
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        fits(low)

    def _bring(self, wanted: float) -> None:
        bounds = self._bounds()
        limits = {layer: torch.tensor(pairs, dtype=torch.float64).log() for layer, pairs in bounds.items()}
        values = {layer: torch.tensor(layer.stride_values()[: len(pairs)]) for layer, pairs in limits.items()}
        if not all(bool(each.isfinite().all()) for each in values.values()):
            return
        logs = {layer: each.double().log() for layer, each in values.items()}
        for _ in range(ROUNDS):
            leaves = {layer: each.clone().requires_grad_() for layer, each in logs.items()}
            cost = self._smooth({layer: each.exp() for layer, each in leaves.items()}).log()
            excess = cost.item() - math.log(wanted)
            if abs(excess) < TOLERANCE:
                break
            slopes = dict(zip(leaves, torch.autograd.grad(cost, list(leaves.values())), strict=True))
            for layer, slope in slopes.items():  # one that would leave its bounds takes no part
                (low, high), step = limits[layer].T, -excess * slope
                slope[((step < 0) & (logs[layer] <= low)) | ((step > 0) & (logs[layer] >= high))] = 0
            square = sum(float(slope.square().sum()) for slope in slopes.values())
            if square == 0:
                break
            for layer, slope in slopes.items():
                logs[layer] = (logs[layer] - excess * slope / square).clamp(*limits[layer].T)
        for layer, each in logs.items():
            layer.set_strides_(each.exp().tolist())


def bounds_of(layers: Sequence[tuple[Layer, Sequence[int]]]) -> dict[Layer, list[tuple[float, float]]]:
    """The bounds of strides of layers, given the sizes of the maps that they get."""
    bounds: dict[Layer, list[tuple[float, float]]] = {}
    for layer, sizes in layers:
        pairs = [axis.limits(n) for axis, n in zip(layer.axes, sizes, strict=True)]
        if layer.shared:
            low = max(low for low, _ in pairs)
            pairs = [(low, max(low, min(high for _, high in pairs)))]
        bounds[layer] = pairs
    return bounds


def _amount(count: float) -> str:
    """Multiply-adds in a form that `check_budget` reads.

    >>> _amount(1234567.0)
    '1.235M'
    """
    for unit in ("g", "m", "k"):
        if count >= UNITS[unit]:
            return f"{count / UNITS[unit]:.4g}{unit.upper() if unit != 'k' else 'k'}"
    return f"{count:.4g}"

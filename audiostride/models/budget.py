"""A budget of multiply-adds: strides are learned on the surface of equal cost, and end where the counted cost fits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from audiostride.checks import UNITS, check_budget
from audiostride.errors import InputError
from audiostride.models.classifier import AudioClassifier
from audiostride.models.config import ClassifierConfig
from audiostride.models.cost import multiply_adds, smooth_cost
from audiostride.strides.diffstride import DiffStride2d

TOLERANCE = 1e-7  # of the logarithm of a cost
ROUNDS = 60
HALVINGS = 14


def budget_per_window(who: str, budget: str, config: ClassifierConfig) -> float:
    """Multiply-adds of a window that a budget allows a network.

    Args:
        who: Name of the caller, for messages.
        budget: ``0.5x``: that much of what strided convolution with the same starting strides takes (in whole numbers);
            or ``5M``: multiply-adds per second of audio.
        config: The network.

    Raises:
        InputError: No such budget.
    """
    value, relative = check_budget(who, budget)
    if not relative:
        return value * config.window_s
    whole = [[float(max(1, round(stride))) for stride in pair] for pair in config.strides or ()]
    return value * multiply_adds(AudioClassifier(replace(config, pooling="strided", strides=whole)))


def check_reach(who: str, model: AudioClassifier, budget: float) -> None:
    """Raise, with the smallest and the largest, unless strides within their limits can have this cost.

    Raises:
        InputError: Out of reach.
    """
    bounds = _bounds(model)
    smallest, largest = (
        float(smooth_cost(model, strides={layer: torch.tensor(pairs)[:, end] for layer, pairs in bounds.items()}))
        for end in (1, 0)
    )
    if not smallest <= budget <= largest:
        seconds = model.config.window_s
        raise InputError(
            f"{who}: budget must lie between {_amount(smallest / seconds)} and {_amount(largest / seconds)} "
            "multiply-adds per second of audio, which this network takes with its largest and smallest strides, got "
            f"{_amount(budget / seconds)}; change it, or --width"
        )


def bring_to_budget_(model: AudioClassifier, budget: float) -> None:
    """Move the strides of a model, along the gradient of its cost in their logarithms, to where it has this cost.

    That is the nearest point of the surface, to first order; strides stay within their limits. The cost is
    `smooth_cost`, in float64 on the host, so that all processes and devices come to the same strides. Call it after
    `project_strides_`. Strides that are not finite stay as they are.

    Args:
        model: A classifier with DiffStride layers.
        budget: Multiply-adds of a window.
    """
    bounds = _bounds(model)
    limits = {layer: torch.tensor(pairs, dtype=torch.float64).log() for layer, pairs in bounds.items()}
    logs = {layer: torch.tensor(layer.stride_values()[: len(pairs)]).double().log() for layer, pairs in limits.items()}
    if not all(bool(values.isfinite().all()) for values in logs.values()):
        return
    for _ in range(ROUNDS):
        leaves = {layer: values.clone().requires_grad_() for layer, values in logs.items()}
        cost = smooth_cost(model, strides={layer: values.exp() for layer, values in leaves.items()}).log()
        excess = cost.item() - math.log(budget)
        if abs(excess) < TOLERANCE:
            break
        slopes = dict(zip(leaves, torch.autograd.grad(cost, list(leaves.values())), strict=True))
        # One that would leave its limits takes no part; too cheap a network wants smaller strides.
        for layer, slope in slopes.items():
            low, high = limits[layer].T
            wanted = -excess * slope
            slope[((wanted < 0) & (logs[layer] <= low)) | ((wanted > 0) & (logs[layer] >= high))] = 0
        square = sum(float(slope.square().sum()) for slope in slopes.values())
        if square == 0:
            break
        for layer, slope in slopes.items():
            low, high = limits[layer].T
            logs[layer] = (logs[layer] - excess * slope / square).clamp(low, high)
    for layer, values in logs.items():
        layer.set_strides_(values.exp().tolist())


def fit_budget_(model: AudioClassifier, budget: float) -> None:
    """Move strides as `bring_to_budget_` does, so far that the cost as counted, of whole sizes, is within the budget.

    A model that is within it stays as it is.

    Args:
        model, budget: As in `bring_to_budget_`.
    """
    if multiply_adds(model) <= budget:
        return
    start = _read(model)

    def fits(share: float) -> bool:
        _write_(model, start)
        bring_to_budget_(model, share * budget)
        return multiply_adds(model) <= budget

    low, high = 0.9, 1.0
    while not fits(low):
        low, high = 0.9 * low, low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    fits(low)


def _layers(model: AudioClassifier) -> list[tuple[DiffStride2d, tuple[int, int]]]:
    return model.encoder.limited_layers(model.config.window_frames, model.config.n_mels)


def _bounds(model: AudioClassifier) -> dict[DiffStride2d, list[tuple[float, float]]]:
    """Lowest and highest value of each stride of each layer."""
    bounds: dict[DiffStride2d, list[tuple[float, float]]] = {}
    for layer, sizes in _layers(model):
        pairs = [axis.limits(n) for axis, n in zip(layer.axes, sizes, strict=True)]
        if layer.shared:
            low = max(low for low, _ in pairs)
            pairs = [(low, max(low, min(high for _, high in pairs)))]
        bounds[layer] = pairs
    return bounds


def _read(model: AudioClassifier) -> dict[DiffStride2d, Sequence[float]]:
    return {layer: layer.strides.detach().tolist() for layer, _ in _layers(model)}


def _write_(model: AudioClassifier, strides: Mapping[DiffStride2d, Sequence[float]]) -> None:
    for layer, values in strides.items():
        layer.set_strides_(values)


def _amount(count: float) -> str:
    """Multiply-adds in a form that `check_budget` reads.

    >>> _amount(1234567.0)
    '1.235M'
    """
    for unit in ("g", "m", "k"):
        if count >= UNITS[unit]:
            return f"{count / UNITS[unit]:.4g}{unit.upper() if unit != 'k' else 'k'}"
    return f"{count:.4g}"

"""A budget of multiply-adds for any network with learnable strides."""

from torch import Tensor, nn

from audiostride.checks import check_budget
from audiostride.errors import InputError
from audiostride.strides.budget import StrideBudget, bounds_of
from audiostride.strides.convert.cost import network_cost
from audiostride.strides.convert.example import Example, as_arguments
from audiostride.strides.diffstride import DiffStride2d, diffstride_layers


def network_budget(
    model: nn.Module, example_input: Example, budget: str, *, reference: nn.Module | None = None
) -> StrideBudget:
    """Keeps the strides of a converted network where it costs so many multiply-adds.

    Call its ``bring_()`` after each optimizer step, behind ``project_strides_``, and ``fit_()`` when strides have been
    learned: the cost as counted, of whole sizes, is then within the budget.

    Args:
        model: A network with DiffStride layers, see `convert_downsampling`.
        example_input: What it takes.
        budget: ``0.5x``, that much of what `reference` takes; or multiply-adds for each example of the batch, ``5M``.
        reference: The network before its conversion.

    Raises:
        InputError: No such budget, one out of reach, or a relative one without a reference; no DiffStride layers.

    >>> import torch
    >>> from audiostride import convert_downsampling
    >>> network, x = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU()), torch.zeros(1, 1, 100, 64)
    >>> converted, _ = convert_downsampling(network, x)
    >>> network_budget(converted, x, "2M").bring_()
    >>> [round(stride, 2) for stride in converted[0].downsampling.strides.tolist()]
    [4.22, 2.39]
    """
    who = "network_budget"
    value, relative = check_budget(who, budget)
    args, kwargs = as_arguments(example_input)
    batch = next(each.shape[0] for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
    if relative and reference is None:
        raise InputError(f"{who}: a budget of {budget} must have a reference, the network that it is relative to")
    if not diffstride_layers(model):
        raise InputError(f"{who}: model must have layers such as DiffStride2d, got none; convert it first")
    cost = network_cost(model, example_input)
    sizes: dict[DiffStride2d, dict[int, int]] = {}
    for pooled in cost.pooled.values():
        if pooled.layer in diffstride_layers(model):
            sizes.setdefault(pooled.layer, {})[pooled.axis] = pooled.n  # type: ignore[arg-type]
    per_batch = value * (sum(network_cost(reference, example_input).counted()) if relative and reference else batch)
    return StrideBudget(
        who,
        per_batch,
        smooth=cost.smooth,
        counted=lambda: sum(network_cost(model, example_input).counted()),
        bounds=lambda: bounds_of([(layer, [*own.values()]) for layer, own in sizes.items()]),
        unit=batch,
        what="example",
    )

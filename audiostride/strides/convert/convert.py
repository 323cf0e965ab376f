"""Any network with learnable strides."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from audiostride.checks import ModelSize, Pooling, check_choice, check_stride
from audiostride.errors import InputError
from audiostride.strides.convert.budget import network_budget
from audiostride.strides.convert.changes import Changes
from audiostride.strides.convert.conversion_table import make_table
from audiostride.strides.convert.example import Example, as_arguments
from audiostride.strides.convert.recording import ForwardError, record
from audiostride.strides.convert.sites import WHO, Group, Sites, find_sites
from audiostride.strides.diffstride import diffstride_layers
from audiostride.strides.pooling_config import PoolingConfig

if TYPE_CHECKING:
    import pandas as pd

Pools = Literal["unstrided", "none"]


def convert_downsampling(
    model: nn.Module,
    example_input: Example,
    *,
    pooling: Pooling = "diffstride",
    size: ModelSize = "nominal",
    strides: Sequence[float | Sequence[float]] | None = None,
    learn_first: bool = False,
    also: Sequence[str] = (),
    leave: Sequence[str] = (),
    pools: Pools = "unstrided",
    ramp_bins: float | None = None,
    shared: bool = False,
    max_stride: float | None = None,
    budget: str | None = None,
) -> "tuple[nn.Module, pd.DataFrame]":
    """A copy of a network whose strides are learned, and a table of what became of each layer with strides.

    A convolution with strides becomes one without, followed by a pooling layer (Riad et al. 2022, section 3.2); so does
    a max or average pool. Branches that meet again in a sum, a product or a concatenation share one layer; which do is
    found by following the example through the network. Modules keep their class, their attributes and the names of
    their weights, so that a state dict of the network loads with ``strict=False``; the layers are children called
    ``downsampling``. Pools over whole maps become adaptive ones. With ``size="nominal"`` and the strides of the network
    all maps have the sizes that they had.

    Args:
        model: Any network whose forward pass does not depend on values; it is not changed.
        example_input: What it takes: a tensor, a tuple of arguments, or a dict of named ones. Only sizes matter.
        pooling: What follows; ``"strided"`` keeps strided layers, with other `strides` where given.
        size: See `DiffStride2d`; ``"mixed"``, of maps over time and mel, is nominal over time and folded over mel.
        strides: Where to start from, one entry per shared layer in the order of the table, a number or one per axis,
            >= 1; None is what the network has.
        learn_first: Learn strides from 1 on behind the first residual block that keeps its resolution too, as the paper
            does on ImageNet.
        also: Names of further modules behind which strides are learned from 1 on.
        leave: Names of modules that stay as they are, with all in them.
        pools: ``"unstrided"`` keeps max and average pools, with strides of 1, in front of the layer; ``"none"`` leaves
            out those of windows as long as their strides.
        ramp_bins, shared, max_stride: See `DiffStride2d`.
        budget: Multiply-adds that strides start from: ``0.5x`` of the network's own, or ``5M`` for each example. To
            stay there while they learn, see `network_budget`.

    Returns:
        The network, in the mode that it had, and a table with a row for each module that was looked at: ``layer`` (the
        same number for those that share one, missing for what stays), ``module``, ``was``, ``becomes``, ``strides``,
        ``size_in``, ``size_before`` and ``size_after`` (of its result, before and after the conversion).

    Raises:
        InputError: The example does not fit or is on another device; nothing makes maps smaller; strides out of range
            or that would leave a map of size 0; what cannot be converted: maps that must have a fixed size, strides
            with dilation, transposed convolutions, control flow.

    >>> network = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> converted, table = convert_downsampling(network, torch.zeros(1, 1, 100, 64))
    >>> converted[0].downsampling
    DiffStride2d(strides=(2, 2), ramp_bins=4, size='nominal', shared=False)
    >>> table[["module", "size_before", "size_after"]].values.tolist()
    [['0', (50, 32), (50, 32)]]
    """
    check_choice(WHO, "size", size, ModelSize)
    check_choice(WHO, "pools", pools, Pools)
    config = PoolingConfig(
        pooling=pooling, size=size, ramp_bins=ramp_bins, shared_strides=shared, max_stride=max_stride
    )
    if budget is not None and pooling != "diffstride":
        raise InputError(f"{WHO}: budget must be given with pooling 'diffstride', which it moves, got {pooling!r}")
    check_devices(model, example_input)
    converted = copy.deepcopy(model)
    modes = {module: module.training for module in converted.modules()}
    converted.eval()
    sites = follow_example(converted, example_input, learn_first=learn_first, also=also, leave=leave)
    if not sites.groups:
        raise InputError(
            f"{WHO}: the network must have convolutions or pools with strides, got none"
            + (f" but those in leave={list(leave)}" if sites.left else "")
            + "; name modules behind which strides are to be learned in also=[...]"
        )
    starts = choose_strides(sites.groups, strides, whole=pooling == "strided")
    changes = Changes(converted, sites)
    if pooling != "strided":
        device = next((each.device for each in converted.parameters()), None)
        for group, start in zip(sites.groups, starts, strict=True):
            layer = cast(nn.Module, config.make_layer(start)).to(device)
            for step in group.steps:
                changes.pool_after(step, layer, drop=pools == "none")
    elif strides is not None:
        for group, start in zip(sites.groups, starts, strict=True):
            for step in group.steps:
                changes.stride(step, [int(stride) for stride in start])
    if pooling != "strided" or strides is not None:
        for step in sites.covering:
            changes.cover(step)
    changes.finish()
    if pooling != "strided":
        changes.align_branches()
    if budget is not None:
        network_budget(converted, example_input, budget, reference=model).bring_()
    after = try_sizes(converted, example_input, pooling, in_training=len(sites.recordings) > 1)
    for module in converted.modules():
        module.training = modes.get(module, model.training)
    return converted, make_table(model, converted, sites, after)


def check_devices(model: nn.Module, example: Example) -> None:
    """Raise unless all parameters, buffers and inputs are on one device."""
    args, kwargs = as_arguments(example)
    tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
    if not tensors:
        raise InputError(
            f"{WHO}: example_input must be a tensor, a tuple of arguments or a dict of them, got {type(example)}"
        )
    homes = {str(each.device) for each in (*model.parameters(), *model.buffers())}
    given = {str(each.device) for each in tensors}
    if len(homes | given) > 1 and homes:
        raise InputError(
            f"{WHO}: model and example_input must be on one device, got the model on {', '.join(sorted(homes))} and "
            f"the example on {', '.join(sorted(given))}; move one with .to(...)"
        )


def follow_example(
    model: nn.Module, example: Example, *, learn_first: bool, also: Sequence[str], leave: Sequence[str]
) -> Sites:
    """`find_sites`, with an error that says whether it is the example or the network that does not do.

    Raises:
        InputError: See `convert_downsampling`.
    """
    try:
        return find_sites(model, example, learn_first=learn_first, also=also, leave=leave)
    except ForwardError as error:
        args, kwargs = as_arguments(example)
        shapes = ", ".join(str(tuple(each.shape)) for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
        try:
            with torch.no_grad():
                model(*args, **kwargs)
        except Exception:
            raise InputError(
                f"{WHO}: example_input must be what the network takes, but with shape {shapes} it fails in {error}; "
                "give a tensor, a tuple of arguments or a dict of named ones"
            ) from error
        raise InputError(
            f"{WHO}: the network runs on the example but cannot be followed without values, in {error}; convert its "
            "submodules one by one, without that one"
        ) from error


def choose_strides(
    groups: Sequence[Group], strides: Sequence[float | Sequence[float]] | None, *, whole: bool
) -> list[tuple[float, ...]]:
    """Starting strides of each layer, one per axis.

    Args:
        groups: The layers.
        strides: What the caller gives, an entry for each.
        whole: Whether they must be whole numbers.

    Raises:
        InputError: Another number of entries, strides below 1, or larger than maps.
    """
    if strides is None:
        return [tuple(map(float, group.strides)) for group in groups]
    if len(strides) != len(groups):
        listed = "\n".join(f"  {group.strides} {group.names}" for group in groups)
        raise InputError(
            f"{WHO}: strides must have one entry per layer ({len(groups)}), got {len(strides)}; layers:\n{listed}"
        )
    chosen = []
    for group, entry in zip(groups, strides, strict=True):
        n_axes = len(group.strides)
        start = (float(entry),) * n_axes if isinstance(entry, int | float) else tuple(map(float, entry))
        if len(start) != n_axes:
            raise InputError(f"{WHO}: strides of {group.names} must have one entry per axis ({n_axes}), got {entry}")
        for stride, n in zip(start, group.steps[0].n_in, strict=True):
            check_stride(WHO, stride)
            if stride > n:
                raise InputError(
                    f"{WHO}: a stride of {stride:g} would leave a map of size 0 of the {n} bins that {group.names} "
                    f"gets; take strides of at most {n}, or a larger example_input"
                )
            if whole and stride != int(stride):
                raise InputError(
                    f"{WHO}: strides must be whole numbers with pooling 'strided', got {entry} for {group.names}; "
                    "fractional ones need pooling 'spectral' or 'diffstride'"
                )
        chosen.append(start)
    return chosen


def try_sizes(
    converted: nn.Module, example: Example, pooling: Pooling, *, in_training: bool
) -> dict[str, tuple[int, ...]]:
    """Run the converted network with its strides, and with others where they are learned.

    Args:
        converted: The network, in evaluation mode.
        example: What it takes.
        pooling: What it pools with.
        in_training: Whether it is run in training mode too.

    Returns:
        Shapes of the results of its modules, with its own strides.

    Raises:
        InputError: Maps must have a fixed size somewhere.
    """
    layers = {layer: layer.stride_values()[: layer.strides.numel()] for layer in diffstride_layers(converted)}
    try:
        results = record(converted, example).results
        if in_training:
            results = record(converted.train(), example).results | results
        if pooling == "diffstride":
            for layer, values in layers.items():
                # The copies that sizes are worked out from; the parameter stays.
                layer._keep_strides([max(1.0, 0.75 * value) if value > 1 else 1.25 for value in values])
            record(converted.eval(), example)
            if in_training:
                record(converted.train(), example)
    except ForwardError as error:
        raise InputError(
            f"{WHO}: the converted network must take maps of any size, but with others than its own fails in {error}; "
            "put an adaptive pool such as nn.AdaptiveAvgPool2d((7, 7)) in front of what needs a fixed size (a "
            "flattening, an embedding of places), resize branches to each other's size, or leave=[...] what it needs "
            "as it is"
        ) from error
    finally:
        for layer, values in layers.items():
            layer._keep_strides(values)
        converted.eval()
    return results

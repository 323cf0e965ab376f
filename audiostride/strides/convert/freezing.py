"""A network with pooling layers whose strides no longer change."""

import copy

from torch import nn

from audiostride.errors import InputError
from audiostride.strides.convert.example import Example
from audiostride.strides.convert.recording import ForwardError, record
from audiostride.strides.diffstride import diffstride_layers, read_strides_
from audiostride.strides.frozen_pool import FrozenPool
from audiostride.strides.spectral_pool import SpectralPool1d, SpectralPool2d, SpectralPool3d


def freeze_downsampling(model: nn.Module, example_input: Example) -> nn.Module:
    """A copy of a network for evaluation in which all pooling layers are fixed, for inputs of one size.

    Nothing is computed but products with constants, so that it runs faster and exports, to ONNX too.

    Args:
        model: A network with `DiffStride2d` or `SpectralPool2d` layers or their like, converted or not.
        example_input: What it takes: a tensor, a tuple of arguments, or a dict of named ones. Only sizes matter, and
            not that of the batch.

    Returns:
        The copy, in evaluation mode.

    Raises:
        InputError: The network has no such layers; a layer gets maps of several sizes; the example does not fit.

    >>> import torch
    >>> from audiostride import DiffStride2d
    >>> freeze_downsampling(nn.Sequential(DiffStride2d((2.0, 2.0), size="nominal")), torch.zeros(1, 8, 20, 10))
    Sequential(
      (0): FrozenPool((20, 10) -> (10, 5))
    )
    """
    who = "freeze_downsampling"
    frozen = copy.deepcopy(model).eval()
    read_strides_(frozen)
    learned = {id(layer): layer for layer in diffstride_layers(frozen)}
    fixed = {
        id(layer): layer
        for layer in frozen.modules()
        if isinstance(layer, SpectralPool1d | SpectralPool2d | SpectralPool3d)
    }
    if not learned and not fixed:
        raise InputError(f"{who}: the network must have layers such as DiffStride2d, got none; convert it first")
    try:
        entered = record(frozen, example_input).entered
    except ForwardError as error:
        raise InputError(f"{who}: example_input must be what the network takes, but it fails in {error}") from error
    device = next((each.device for each in frozen.parameters()), None)
    for key, layer in {**learned, **fixed}.items():
        n_axes = layer.n_axes
        sizes = {shape[len(shape) - n_axes :] for shape in entered.get(key, ())}
        names = [name for name, module in frozen.named_modules(remove_duplicate=False) if module is layer]
        if len(sizes) > 1:
            raise InputError(
                f"{who}: a layer must get maps of one size, but {', '.join(names)} gets {sorted(sizes)}; "
                "give each place a layer of its own"
            )
        if not sizes:
            raise InputError(
                f"{who}: every layer must be called with the example, but {', '.join(names)} is not, or not as "
                "a module; models of this package have a freeze() of their own"
            )
        pool: FrozenPool = layer.freeze(*sizes.pop()).to(device)
        for name in names:
            frozen.set_submodule(name, pool)
    return frozen

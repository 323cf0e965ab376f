"""DenseNet-121 and EfficientNet-B0 as torchvision makes them, their strides then fixed or learned by pooling layers."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import nn

from audiostride.checks import Pooling, Size
from audiostride.errors import InputError
from audiostride.strides.convert import convert_downsampling

# Stages of EfficientNet-B0 (Tan and Le 2019, Table 1): expansion, kernel, channels before, channels after, blocks.
EFFICIENTNET_STAGES = (
    (1, 3, 32, 16, 1), (6, 3, 16, 24, 2), (6, 5, 24, 40, 2), (6, 3, 40, 80, 3), (6, 5, 80, 112, 3), (6, 5, 112, 192, 4),
    (6, 3, 192, 320, 1),
)  # fmt: skip
# DenseNet-121 (Huang et al. 2017, Table 1): blocks, then channels that each layer adds.
DENSENET_BLOCKS, GROWTH = (6, 12, 24, 16), 32


def import_torchvision(who: str) -> ModuleType:
    """The package torchvision, which is an extra of this one.

    Raises:
        InputError: It is not installed, or does not load.
    """
    try:
        import torchvision  # type: ignore[import-untyped]
    except (ImportError, OSError, RuntimeError) as error:  # the last two where it was built for another torch
        raise InputError(
            f"{who}: the package torchvision must be there, but does not load ({error}); it is the extra 'vision': "
            "pip install 'audiostride[vision]'"
        ) from error
    found: ModuleType = torchvision
    return found


def make_densenet(
    strides: Sequence[tuple[float, float]], *, pooling: Pooling, image_size: int, width: float, stem: str, **how: Any
) -> tuple[nn.Module, int]:
    """DenseNet-121 without its linear layer; the averages in its three transitions are what pools.

    Args:
        strides: Of the transitions. With strided pooling these are averages of as many bins.
        pooling: strided, spectral or diffstride.
        image_size: Height and width of the images.
        width: Factor on the channels.
        stem: ``"large"`` is torchvision's, which halves images twice; ``"small"`` is a 3x3 convolution.
        how: Further settings of `convert_downsampling`.

    Returns:
        The network and the channels of its maps.
    """
    torchvision = import_torchvision("densenet121")
    n_first = max(2, 2 * round(width * GROWTH))
    network = torchvision.models.DenseNet(
        growth_rate=max(1, round(width * GROWTH)), block_config=DENSENET_BLOCKS, num_init_features=n_first
    )
    layers: nn.Sequential = network.features
    fixed = ["conv0", "pool0"]
    if stem == "small":
        layers.conv0 = nn.Conv2d(3, n_first, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(layers.conv0.weight)
        del layers.pool0
        fixed = []
    layers.add_module("relu_last", nn.ReLU(inplace=True))
    n_features = int(network.classifier.in_features)
    if pooling == "strided":
        for number, pair in enumerate(strides, start=1):
            bins = (int(pair[0]), int(pair[1]))
            layers.get_submodule(f"transition{number}").pool = nn.AvgPool2d(bins, bins, ceil_mode=True)
        return layers, n_features
    return _convert(layers, strides, pooling=pooling, image_size=image_size, also=(), leave=fixed, **how), n_features


def make_efficientnet(
    strides: Sequence[tuple[float, float]], *, pooling: Pooling, image_size: int, width: float, **how: Any
) -> tuple[nn.Module, int]:
    """EfficientNet-B0 without its linear layer; the first block of each of its seven stages pools, the stem halves.

    Args:
        strides: Of the stages; the network's own are 1, 2, 2, 2, 1, 2, 1.
        pooling, image_size, width, how: As for `make_densenet`.

    Returns:
        The network and the channels of its maps.
    """
    torchvision = import_torchvision("efficientnet_b0")
    config = torchvision.models.efficientnet.MBConvConfig
    stages = [
        config(expand, kernel, 1, n_in, n_out, n_blocks, width_mult=width)
        for expand, kernel, n_in, n_out, n_blocks in EFFICIENTNET_STAGES
    ]
    # Dropout is before the linear layer, which is not kept. The norms' settings are those of B0 in torchvision.
    layers: Any = torchvision.models.EfficientNet(stages, dropout=0.0).features
    names = []
    for stage, pair in enumerate(strides, start=1):
        first = layers[stage][0]
        # Channels that come out equal in a narrow network would give the block a shortcut that does not pool.
        first.use_res_connect = False
        place = next(place for place, layer in enumerate(first.block) if layer[0].groups > 1)
        names.append(f"{stage}.0.block.{place}.0")
        if pooling == "strided":
            first.block[place][0].stride = (int(pair[0]), int(pair[1]))
    n_features = int(layers[-1][0].out_channels)
    if pooling == "strided":
        return layers, n_features
    return _convert(
        layers, strides, pooling=pooling, image_size=image_size, also=names, leave=["0.0"], **how
    ), n_features


def _convert(
    layers: nn.Module,
    strides: Sequence[tuple[float, float]],
    *,
    pooling: Pooling,
    image_size: int,
    also: Sequence[str],
    leave: Sequence[str],
    size: Size,
    shared_strides: bool,
    ramp_bins: float,
) -> nn.Module:
    converted, _ = convert_downsampling(
        layers,
        torch.zeros(1, 3, image_size, image_size),
        pooling=pooling,
        size=size,
        strides=list(strides),
        also=tuple(also),
        leave=tuple(leave),
        pools="none",  # averages that are as long as their strides are what the layer takes the place of
        ramp_bins=ramp_bins,
        shared=shared_strides,
    )
    network: nn.Module = converted
    return network

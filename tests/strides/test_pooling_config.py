"""One object for how a network pools, and the layers that it makes."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch

from audiostride import DiffStride1d, DiffStride2d, DiffStride3d, InputError, SpectralPool1d, SpectralPool2d
from audiostride.strides.pooling_config import PoolingConfig


@pytest.mark.parametrize(
    ("settings", "strides", "kind"),
    [
        ({}, (2.0, 1.5), DiffStride2d),
        ({"size": "paper"}, (2.0,), DiffStride1d),
        ({"size": "folded"}, (2.0, 2.0, 3.0), DiffStride3d),
        ({"pooling": "spectral"}, (2.0,), SpectralPool1d),
        ({"pooling": "spectral"}, (2.0, 1.5), SpectralPool2d),
        ({"pooling": "strided"}, (2.0, 1.0), type(None)),
    ],
)
def test_layers_pool_as_many_axes_as_there_are_strides(
    settings: dict[str, Any], strides: tuple[float, ...], kind: type
) -> None:
    layer: Any = PoolingConfig(**settings).make_layer(strides)
    assert type(layer) is kind
    if layer is not None:
        assert tuple(torch.as_tensor(layer.strides).tolist()) == strides


def test_settings_reach_the_layer() -> None:
    layer: Any = PoolingConfig(shared_strides=True, max_stride=5, ramp_bins=3).make_layer((2.0, 2.0))
    assert layer.shared
    assert layer.axes == (("nominal", 3.0, 5.0), ("folded", 3.0, 5.0))


def test_it_stays_as_it_was_checked() -> None:
    config = PoolingConfig()
    with pytest.raises(FrozenInstanceError):
        config.size = "paper"  # type: ignore[misc]
    with pytest.raises(
        InputError, match=r"PoolingConfig: max_stride must be >= 1 .*, got 0\.5; use 1 to leave an axis"
    ):
        PoolingConfig(max_stride=0.5)

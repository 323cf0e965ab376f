"""Spectral pooling: fixed strides, a hard crop of the spectrum."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from audiostride.checks import check_axes, check_stride
from audiostride.strides.frozen_pool import FrozenPool
from audiostride.strides.matrices import AxisPooling, SpectrumPooling, spectral_axis, spectral_output_length
from audiostride.strides.pooling import check_poolable, pool_axes


class _SpectralPool(nn.Module):
    """Pools the last axes by cropping their spectrum to ``floor(n / S)`` bins (Rippel, Snoek and Adams 2015)."""

    n_axes: int

    def __init__(self, strides: Sequence[float]) -> None:
        super().__init__()
        check_axes(type(self).__name__, strides, self.n_axes, "strides")
        self.strides = tuple(check_stride(type(self).__name__, stride) for stride in strides)

    def output_size(self, *sizes: int) -> tuple[int, ...]:
        """Sizes of the pooled axes after the layer, given those before it."""
        check_axes(f"{type(self).__name__}.output_size", sizes, self.n_axes, "sizes")
        return tuple(spectral_output_length(n, stride) for n, stride in zip(sizes, self.strides, strict=True))

    def axis_poolings(self, *sizes: int, like: Tensor) -> list[AxisPooling | SpectrumPooling]:
        """How each axis of maps of these sizes is pooled, on the device of `like`."""
        return [spectral_axis(n, stride, like=like) for n, stride in zip(sizes, self.strides, strict=True)]

    def freeze(self, *sizes: int, like: Tensor | None = None) -> FrozenPool:
        """This layer for maps of these sizes only, its matrices kept as buffers, on the device of `like`."""
        check_axes(f"{type(self).__name__}.freeze", sizes, self.n_axes, "sizes")
        return FrozenPool(sizes, self.axis_poolings(*sizes, like=torch.empty(0) if like is None else like))

    def forward(self, x: Tensor) -> Tensor:
        check_poolable(type(self).__name__, x, self.n_axes)
        return pool_axes(x, self.axis_poolings(*x.shape[x.ndim - self.n_axes :], like=x))

    def extra_repr(self) -> str:
        return f"strides={self.strides}"


class SpectralPool1d(_SpectralPool):
    """Spectral pooling of the last axis.

    Args:
        strides: One number >= 1.

    Shape:
        x: ``(..., N)``. Result: ``(..., floor(N / S))``.

    Raises:
        InputError: A stride below 1; input with an empty axis or of integers.
    """

    n_axes = 1

    def __init__(self, strides: Sequence[float] = (2.0,)) -> None:
        super().__init__(strides)


class SpectralPool2d(_SpectralPool):
    """Spectral pooling of the last two axes.

    Args:
        strides: Two numbers >= 1.

    Shape:
        x: ``(..., H, W)``. Result: ``(..., floor(H / S_h), floor(W / S_w))``.

    Raises:
        InputError: A stride below 1; input with an empty axis or of integers.
    """

    n_axes = 2

    def __init__(self, strides: Sequence[float] = (2.0, 2.0)) -> None:
        super().__init__(strides)


class SpectralPool3d(_SpectralPool):
    """Spectral pooling of the last three axes.

    Args:
        strides: Three numbers >= 1.

    Shape:
        x: ``(..., D, H, W)``. Result: ``(..., floor(D / S_d), floor(H / S_h), floor(W / S_w))``.

    Raises:
        InputError: A stride below 1; input with an empty axis or of integers.
    """

    n_axes = 3

    def __init__(self, strides: Sequence[float] = (2.0, 2.0, 2.0)) -> None:
        super().__init__(strides)

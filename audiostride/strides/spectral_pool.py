"""Spectral pooling: fixed strides, a hard crop of the spectrum."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from audiostride.checks import check_axes, check_stride, per_axis
from audiostride.strides.frozen_pool import FrozenPool
from audiostride.strides.matrices import AxisPooling, SpectrumPooling, spectral_axis, spectral_output_length
from audiostride.strides.pooling import check_poolable, pool_axes


class _SpectralPool(nn.Module):
    """Pools the last axes by cropping their spectrum to ``floor(n / S)`` bins (Rippel, Snoek and Adams 2015)."""

    n_axes: int

    def __init__(self, strides: float | Sequence[float] = 2.0) -> None:
        super().__init__()
        who = type(self).__name__
        self.strides = tuple(check_stride(who, stride) for stride in per_axis(who, strides, self.n_axes, "strides"))

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
    """Spectral pooling of the last axis; see `SpectralPool2d`.

    Args:
        strides: S >= 1: one for all axes or one each.

    Shape:
        x: ``(..., N)``. Result: ``(..., floor(N / S))``.
    """

    n_axes = 1


class SpectralPool2d(_SpectralPool):
    """Spectral pooling of the last two axes.

    Args:
        strides: S >= 1: one for all axes or one each.

    Shape:
        x: ``(..., H, W)``. Result: ``(..., floor(H / S_h), floor(W / S_w))``.

    Raises:
        InputError: A stride below 1; input with an empty axis or of integers.
    """

    n_axes = 2


class SpectralPool3d(_SpectralPool):
    """Spectral pooling of the last three axes; see `SpectralPool2d`.

    Args:
        strides: S >= 1: one for all axes or one each.

    Shape:
        x: ``(..., D, H, W)``. Result: ``(..., floor(D / S_d), floor(H / S_h), floor(W / S_w))``.
    """

    n_axes = 3

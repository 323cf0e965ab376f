"""Spectral pooling: fixed strides, a hard crop of the spectrum."""

from collections.abc import Sequence

from torch import Tensor, nn

from audiostride.checks import check_axes, check_stride
from audiostride.functional.pooling import check_poolable, spectral_matrix, spectral_output_length, spectral_pool


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

    def pooling_matrices(self, *sizes: int, like: Tensor) -> list[Tensor]:
        """The matrix of each axis for maps of these sizes, on the device of `like`."""
        return [spectral_matrix(n, stride, like=like) for n, stride in zip(sizes, self.strides, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        check_poolable(type(self).__name__, x, self.n_axes)
        return spectral_pool(x, self.strides)

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

"""A pooling layer whose strides no longer change."""

from collections.abc import Sequence

from torch import Tensor, nn

from audiostride.errors import InputError
from audiostride.strides.matrices import AxisPooling, SpectrumPooling
from audiostride.strides.pooling import check_poolable, pool_axes


class FrozenPool(nn.Module):
    """Pools maps of one size with fixed matrices; made by the ``freeze`` of `DiffStride2d` and its like.

    Everything is a buffer or a Python int, so that ``torch.export`` and ONNX see products with constants. An axis too
    long for a matrix keeps its mask and goes through the real FFT.

    Args:
        sizes: Bins of each pooled axis.
        poolings: How each is pooled.

    Shape:
        x: ``(..., *sizes)``. Result: ``(..., *output_size(*sizes))``.

    Raises:
        InputError: A map of other sizes.
    """

    def __init__(self, sizes: Sequence[int], poolings: Sequence[AxisPooling | SpectrumPooling]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self._lengths = tuple(
            pooling.n_out if isinstance(pooling, SpectrumPooling) else len(pooling.matrix) for pooling in poolings
        )
        for i, pooling in enumerate(poolings):
            weights = pooling.mask if isinstance(pooling, SpectrumPooling) else pooling.matrix
            self.register_buffer(f"axis_{i}", weights.detach().clone())

    def _check_sizes(self, sizes: tuple[int, ...]) -> None:
        if sizes != self.sizes:
            raise InputError(
                f"FrozenPool: pooled axes must have the sizes it was frozen for, {self.sizes}, got {sizes}; "
                "freeze the layer for these sizes"
            )

    def output_size(self, *sizes: int) -> tuple[int, ...]:
        """Sizes of the pooled axes after the layer."""
        self._check_sizes(sizes)
        return self._lengths

    def axis_poolings(self, *sizes: int) -> list[AxisPooling | SpectrumPooling]:
        """How each axis is pooled."""
        self._check_sizes(sizes)
        buffers = [self.get_buffer(f"axis_{i}") for i in range(len(sizes))]
        return [
            AxisPooling(weights) if weights.ndim == 2 else SpectrumPooling(weights, n_out)
            for weights, n_out in zip(buffers, self._lengths, strict=True)
        ]

    def forward(self, x: Tensor) -> Tensor:
        n_axes = len(self.sizes)
        check_poolable("FrozenPool", x, n_axes)
        return pool_axes(x, self.axis_poolings(*x.shape[x.ndim - n_axes :]))

    def extra_repr(self) -> str:
        return f"{self.sizes} -> {self._lengths}"

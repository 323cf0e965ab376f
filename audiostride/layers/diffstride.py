"""DiffStride: pooling whose strides are learned."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from audiostride.checks import Size, check_axes, check_choice, check_ramp_bins, check_stride
from audiostride.errors import InputError
from audiostride.functional.masks import minimum_stride, output_length
from audiostride.functional.pooling import apply_matrices, check_poolable, pooling_matrix


class _DiffStride(nn.Module):
    """Pools the last axes with learnable strides (Riad et al., ICLR 2022), one real matrix product per axis.

    `strides` is a Parameter of shape ``(n_axes,)``, or ``(1,)`` when shared. The forward pass limits the values it
    uses and writes no state; call `project_strides_` after the optimizer's step to limit the parameter itself.
    """

    n_axes: int

    def __init__(
        self, strides: Sequence[float], *, ramp_bins: float, size: Size, shared: bool, max_stride: float | None
    ) -> None:
        super().__init__()
        who = type(self).__name__
        if isinstance(strides, float | int):
            raise InputError(f"{who}: strides must have one entry per axis ({self.n_axes}), got {strides!r}")
        values = [check_stride(who, stride) for stride in strides]
        if shared and len(set(values)) == 1:
            values = values[:1]
        elif shared:
            raise InputError(f"{who}: strides must be equal on all axes when shared, got {tuple(strides)}")
        else:
            check_axes(who, values, self.n_axes, "strides")
        check_choice(who, "size", size, Size)
        self.ramp_bins = check_ramp_bins(who, ramp_bins)
        self.size: Size = size
        self.shared = shared
        self.max_stride = None if max_stride is None else check_stride(who, max_stride)
        self.strides = nn.Parameter(torch.tensor(values))
        self._host_strides: tuple[tuple[int, int], tuple[float, ...]] | None = None

    def stride_values(self) -> tuple[float, ...]:
        """The parameter as Python floats, one per axis, not limited.

        On a GPU the copy made by `read_strides_` is used as long as the parameter has not changed since.
        """
        if self.strides.device.type == "cpu":
            values = tuple(self.strides.detach().tolist())
        elif self._host_strides is not None and self._host_strides[0] == self._stride_key():
            values = self._host_strides[1]
        else:
            values = tuple(self.strides.detach().tolist())
            # A copy of the parameter, not state: dropped when it changes.
            self._host_strides = self._stride_key(), values
        return values * self.n_axes if self.shared else values

    def _stride_key(self) -> tuple[int, int]:
        """Changes when the parameter is written to or replaced."""
        return id(self.strides), self.strides._version

    def _limits(self, n: int) -> tuple[float, float]:
        """Smallest and largest stride that is used on an axis of `n` bins."""
        low = minimum_stride(n, ramp_bins=self.ramp_bins, size=self.size)
        return low, max(low, float(n) if self.max_stride is None else min(self.max_stride, float(n)))

    def used_strides(self, *sizes: int) -> tuple[float, ...]:
        """The strides that maps of these sizes are pooled with: the parameter limited as in `minimum_stride`."""
        check_axes(f"{type(self).__name__}.used_strides", sizes, self.n_axes, "sizes")
        limits = [self._limits(n) for n in sizes]
        return tuple(
            min(max(stride, low), high) for stride, (low, high) in zip(self.stride_values(), limits, strict=True)
        )

    def output_size(self, *sizes: int) -> tuple[int, ...]:
        """Sizes of the pooled axes after the layer, given those before it."""
        return tuple(
            output_length(n, stride, ramp_bins=self.ramp_bins, size=self.size)
            for n, stride in zip(sizes, self.used_strides(*sizes), strict=True)
        )

    @torch.no_grad()
    def project_strides_(self, *sizes: int) -> None:
        """Move the parameter into its limits; call it after the optimizer's step.

        Without `sizes` the limits are 1 and `max_stride`; with the sizes of the pooled axes also `minimum_stride` and
        the number of bins. A shared stride is limited by the axis with the tightest bound.
        """
        if sizes:
            check_axes(f"{type(self).__name__}.project_strides_", sizes, self.n_axes, "sizes")
            limits = [self._limits(n) for n in sizes]
        else:
            limits = [(1.0, self.max_stride or math.inf)] * self.n_axes
        if self.shared:
            low = max(low for low, _ in limits)
            limits = [(low, max(low, min(high for _, high in limits)))]
        values = self.stride_values()[: len(limits)]
        projected = [min(max(value, low), high) for value, (low, high) in zip(values, limits, strict=True)]
        # Worked out on the host, where the values are anyway, and written only where they change: no second copy.
        limited = torch.tensor(projected, dtype=self.strides.dtype)
        if tuple(limited.tolist()) != values:
            self.strides.copy_(limited)
            self._host_strides = self._stride_key(), tuple(limited.tolist())

    def pooling_matrices(self, *sizes: int) -> list[Tensor]:
        """The matrix of each axis, for maps of these sizes; differentiable in the strides."""
        strides = self.strides.expand(self.n_axes)
        return [
            pooling_matrix(
                n, strides[axis], ramp_bins=self.ramp_bins, size=self.size, max_stride=self.max_stride, n_out=n_out
            )
            for axis, (n, n_out) in enumerate(zip(sizes, self.output_size(*sizes), strict=True))
        ]

    def forward(self, x: Tensor) -> Tensor:
        check_poolable(type(self).__name__, x, self.n_axes)
        return apply_matrices(x, self.pooling_matrices(*x.shape[x.ndim - self.n_axes :]))

    def extra_repr(self) -> str:
        strides = ", ".join(f"{value:.4g}" for value in self.strides.detach().tolist())
        return f"strides=({strides}), ramp_bins={self.ramp_bins:g}, size={self.size!r}, shared={self.shared}"


class DiffStride1d(_DiffStride):
    """Pooling of the last axis with a learnable stride; see `DiffStride2d`.

    Shape:
        x: ``(..., N)``. Result: ``(..., n_out)``.
    """

    n_axes = 1

    def __init__(
        self,
        strides: Sequence[float] = (2.0,),
        *,
        ramp_bins: float = 4.0,
        size: Size = "paper",
        shared: bool = False,
        max_stride: float | None = None,
    ) -> None:
        super().__init__(strides, ramp_bins=ramp_bins, size=size, shared=shared, max_stride=max_stride)


class DiffStride2d(_DiffStride):
    """Pooling of the last two axes with learnable strides (DiffStride, Riad et al., ICLR 2022).

    Each axis is low-passed by `passband_mask` in the Fourier domain and resampled to `output_length` bins; the stride
    sets the cut-off ``n / (2 S)`` and gets its gradient through the ramp of the mask. As everything is linear, an axis
    is one product with `pooling_matrix`.

    Args:
        strides: Starting values, one per axis, >= 1.
        ramp_bins: R, the width of the mask's ramp in FFT bins, > 0.
        size: ``"paper"`` leaves ``min(n, floor(n / S + 2 R))`` bins, ``"nominal"`` ``ceil(n / S)``.
        shared: One stride for all axes: `strides` then has shape ``(1,)``.
        max_stride: Upper limit; None is the number of bins.

    Attributes:
        strides: Parameter of shape ``(2,)``, or ``(1,)`` when shared. Give it a learning rate of its own and no weight
            decay, and call `project_strides_` after each optimizer step.

    Shape:
        x: ``(..., H, W)``, any floating-point dtype. Result: ``(..., *output_size(H, W))``, same dtype.

    Raises:
        InputError: A stride below 1 or not finite, ``ramp_bins <= 0``, too few or empty axes, integer input.

    >>> layer = DiffStride2d((2.0, 2.0), size="nominal")
    >>> layer(torch.ones(8, 16, 100, 64)).shape
    torch.Size([8, 16, 50, 32])
    """

    n_axes = 2

    def __init__(
        self,
        strides: Sequence[float] = (2.0, 2.0),
        *,
        ramp_bins: float = 4.0,
        size: Size = "paper",
        shared: bool = False,
        max_stride: float | None = None,
    ) -> None:
        super().__init__(strides, ramp_bins=ramp_bins, size=size, shared=shared, max_stride=max_stride)


class DiffStride3d(_DiffStride):
    """Pooling of the last three axes with learnable strides; see `DiffStride2d`.

    Shape:
        x: ``(..., D, H, W)``. Result: ``(..., *output_size(D, H, W))``.
    """

    n_axes = 3

    def __init__(
        self,
        strides: Sequence[float] = (2.0, 2.0, 2.0),
        *,
        ramp_bins: float = 4.0,
        size: Size = "paper",
        shared: bool = False,
        max_stride: float | None = None,
    ) -> None:
        super().__init__(strides, ramp_bins=ramp_bins, size=size, shared=shared, max_stride=max_stride)


def diffstride_layers(model: nn.Module) -> list[_DiffStride]:
    """The DiffStride layers of a model, each once, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, _DiffStride)]


def read_strides_(model: nn.Module) -> None:
    """Copy the strides of all layers of a model from the device at once, for the sizes of the next forward passes.

    Nothing is copied where the copies are fresh, or where the strides are on the CPU.
    """
    layers = [layer for layer in diffstride_layers(model) if layer.strides.device.type != "cpu"]
    if all(layer._host_strides is not None and layer._host_strides[0] == layer._stride_key() for layer in layers):
        return
    values = torch.cat([layer.strides.detach().flatten() for layer in layers]).tolist()
    for layer in layers:
        count = layer.strides.numel()
        layer._host_strides = layer._stride_key(), tuple(values[:count])
        values = values[count:]


def stride_cost(model: nn.Module) -> Tensor:
    """Sum over the DiffStride layers of ``1 / (S_h S_w)`` (Riad et al. 2022, eq. 6 without lambda).

    Each term is the share of the map that the layer keeps, so adding ``lambda * stride_cost(model)`` to the loss drives
    the strides up. The parameters are used as they are, not limited to the maps' sizes.

    Args:
        model: Any module; layers that occur twice count once.

    Returns:
        A scalar tensor, differentiable in the strides; 0 for a model without DiffStride layers.

    >>> stride_cost(DiffStride2d((2.0, 4.0))).item()
    0.125
    """
    layers = diffstride_layers(model)
    if not layers:
        parameter = next(model.parameters(), torch.empty(0))
        return torch.zeros((), device=parameter.device)
    return torch.stack([1 / layer.strides.float().expand(layer.n_axes).prod() for layer in layers]).sum()

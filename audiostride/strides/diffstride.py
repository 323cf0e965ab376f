"""DiffStride: pooling whose strides are learned."""

import math
import operator
from collections.abc import Sequence
from functools import reduce
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from audiostride.checks import Size, check_axes, check_stride, per_axis
from audiostride.errors import InputError
from audiostride.strides.frozen_pool import FrozenPool
from audiostride.strides.masks import choose_ramp, limit_stride, minimum_stride, output_length
from audiostride.strides.matrices import AxisPooling, SpectrumPooling, axis_pooling
from audiostride.strides.pooling import check_poolable, pool_axes


class AxisSettings(NamedTuple):
    """How one axis is pooled, but for its stride."""

    size: Size
    ramp_bins: float
    max_stride: float | None

    def limits(self, n: int) -> tuple[float, float]:
        """Smallest and largest stride that is used on an axis of `n` bins."""
        low = minimum_stride(n, ramp_bins=self.ramp_bins, size=self.size)
        return low, max(low, float(n) if self.max_stride is None else min(self.max_stride, float(n)))


class _DiffStride(nn.Module):
    """Pools the last axes with learnable strides (Riad et al., ICLR 2022), one real matrix product per axis.

    `strides` is a Parameter of shape ``(n_axes,)``, or ``(1,)`` when shared. The forward pass limits the values it
    uses and writes no state; call `project_strides_` after the optimizer's step to limit the parameter itself.
    """

    n_axes: int

    def __init__(
        self,
        strides: float | Sequence[float] = 2.0,
        *,
        ramp_bins: float | Sequence[float | None] | None = None,
        size: Size | Sequence[Size] = "paper",
        shared: bool = False,
        max_stride: float | Sequence[float | None] | None = None,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        strides = (strides,) * self.n_axes if isinstance(strides, float | Real) else tuple(strides)
        values = [check_stride(who, stride) for stride in strides]
        if shared and len(set(values)) == 1:
            values = values[:1]
        elif shared:
            raise InputError(f"{who}: strides must be equal on all axes when shared, got {strides}")
        else:
            check_axes(who, values, self.n_axes, "strides")
        self.axes = tuple(
            AxisSettings(each, choose_ramp(who, ramp, each), None if most is None else check_stride(who, most))
            for each, ramp, most in zip(
                per_axis(who, size, self.n_axes, "size"),
                per_axis(who, ramp_bins, self.n_axes, "ramp_bins"),
                per_axis(who, max_stride, self.n_axes, "max_stride"),
                strict=True,
            )
        )
        self.shared = shared
        self.strides = nn.Parameter(torch.tensor(values))
        # Copies of the parameter for the sizes of maps, which must be known on the host; see `stride_values`.
        # As text: torch.compile takes floats for symbols of the graph, and sizes must be plain numbers.
        self._host_strides = tuple(map(repr, torch.tensor(values, device="cpu").tolist()))
        self._host_key = (self.strides, *self._parameter_state())
        self._known_sizes: dict[tuple[int, ...], tuple[int, ...]] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        # A copied parameter counts its versions anew, from 0: the copy must read it again.
        self._host_key = (None,)

    def stride_values(self) -> tuple[float, ...]:
        """The parameter as Python floats, one per axis, not limited.

        The parameter is read where it has changed since `project_strides_`: after an optimizer's step, a loaded state
        or any other write that autograd counts. It does not count writes to ``strides.data`` and those of fused
        optimizers: after these, `project_strides_` is a must and not just advised.
        """
        # A compiled graph cannot look at the parameter.
        if not torch.compiler.is_compiling() and not self._is_fresh():
            self._keep_strides(self.strides.detach().tolist())
        values = tuple(float(value) for value in self._host_strides)
        return values * self.n_axes if self.shared else values

    def _is_fresh(self) -> bool:
        """Whether nothing has written to the parameter, or replaced it, since its values were kept."""
        parameter, *kept = self._host_key
        return self.strides.is_meta or (parameter is self.strides and kept == self._parameter_state())

    def _parameter_state(self) -> list[object]:
        # Tensors made in inference mode cannot be written to outside of it and count no versions.
        version = -1 if self.strides.is_inference() else self.strides._version
        return [version, self.strides.dtype, self.strides.device]

    def _keep_strides(self, values: Sequence[float]) -> None:
        """Remember the values that the parameter has now, and the sizes that known maps get by them."""
        self._host_strides, self._host_key = tuple(map(repr, values)), (self.strides, *self._parameter_state())
        if not all(map(math.isfinite, values)):
            return  # diverged: whoever trains says so
        for sizes, known in self._known_sizes.items():
            length = self._output_size(sizes)
            if length != known:
                self._known_sizes[sizes] = length

    def used_strides(self, *sizes: int) -> tuple[float, ...]:
        """The strides that maps of these sizes are pooled with: the parameter limited as in `minimum_stride`."""
        check_axes(f"{type(self).__name__}.used_strides", sizes, self.n_axes, "sizes")
        limits = [axis.limits(n) for axis, n in zip(self.axes, sizes, strict=True)]
        return tuple(
            min(max(stride, low), high) for stride, (low, high) in zip(self.stride_values(), limits, strict=True)
        )

    def expect_sizes(self, *sizes: int) -> None:
        """Keep the pooled size of maps of these sizes up to date, beside the copies of the strides.

        Under ``torch.compile`` the forward pass of such maps is compiled again when their pooled size changes, that of
        others whenever a stride does. `project_strides_` does this for the sizes that it is given.
        """
        self._known_sizes[sizes] = self._output_size(sizes)

    def output_size(self, *sizes: int) -> tuple[int, ...]:
        """Sizes of the pooled axes after the layer, given those before it."""
        if not torch.compiler.is_compiling():
            self.stride_values()
        # With its sizes known, a compiled graph depends on them and not on each change of a stride.
        if sizes not in self._known_sizes:
            if not torch.compiler.is_compiling():
                return self._output_size(sizes)
            self._known_sizes[sizes] = self._output_size(sizes)
        return self._known_sizes[sizes]

    def _output_size(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(
            output_length(n, stride, ramp_bins=axis.ramp_bins, size=axis.size)
            for n, stride, axis in zip(sizes, self.used_strides(*sizes), self.axes, strict=True)
        )

    def project_strides_(self, *sizes: int) -> None:
        """Move the parameter into its limits; call it after each optimizer step.

        Without `sizes` the limits are 1 and `max_stride`; with the sizes of the pooled axes also `minimum_stride` and
        the number of bins. A shared stride is limited by the axis with the tightest bound. Values that are not finite
        stay as they are, for whoever trains to see.
        """
        read_strides_(self)
        self._project_known_(*sizes)

    @torch.no_grad()
    def set_strides_(self, values: Sequence[float]) -> None:
        """Write the parameter, a value per entry."""
        rounded, known = torch.tensor(values, dtype=self.strides.dtype, device="cpu").tolist(), self.stride_values()
        # Only what changes, as numbers that a kernel takes along: a copy of a tensor would wait for the device.
        for index, value in enumerate(rounded):
            if value != known[index] and math.isfinite(value):
                self.strides[index].fill_(value)
        self._keep_strides(rounded)

    @torch.no_grad()
    def _project_known_(self, *sizes: int) -> None:
        """`project_strides_` without a copy from the device: the values are those that `read_strides_` brought."""
        if sizes:
            check_axes(f"{type(self).__name__}.project_strides_", sizes, self.n_axes, "sizes")
            self.expect_sizes(*sizes)
            limits = [axis.limits(n) for axis, n in zip(self.axes, sizes, strict=True)]
        else:
            limits = [(1.0, axis.max_stride or math.inf) for axis in self.axes]
        if self.shared:
            low = max(low for low, _ in limits)
            limits = [(low, max(low, min(high for _, high in limits)))]
        values = self.stride_values()[: len(limits)]
        projected = [
            min(max(value, low), high) if math.isfinite(value) else value
            for value, (low, high) in zip(values, limits, strict=True)
        ]
        self.set_strides_(projected)

    def axis_poolings(self, *sizes: int) -> list[AxisPooling | SpectrumPooling]:
        """How each axis of maps of these sizes is pooled; gradients go to the strides."""
        # Half-precision strides would move the cut-off by whole bins.
        strides = self.strides.to(torch.promote_types(self.strides.dtype, torch.float32)).expand(self.n_axes)
        return [
            axis_pooling(
                n,
                limit_stride(stride, n, ramp_bins=axis.ramp_bins, size=axis.size, max_stride=axis.max_stride),
                n_out,
                ramp_bins=axis.ramp_bins,
                size=axis.size,
            )
            for n, n_out, stride, axis in zip(sizes, self.output_size(*sizes), strides.unbind(), self.axes, strict=True)
        ]

    def freeze(self, *sizes: int) -> FrozenPool:
        """This layer with its strides fixed, for maps of these sizes: no parameter, nothing to compute but products.

        Raises:
            InputError: Not one size per axis.
        """
        check_axes(f"{type(self).__name__}.freeze", sizes, self.n_axes, "sizes")
        with torch.no_grad():
            return FrozenPool(sizes, self.axis_poolings(*sizes))

    def forward(self, x: Tensor) -> Tensor:
        check_poolable(type(self).__name__, x, self.n_axes)
        # Sizes are numbers, not symbols, also where torch.compile has seen several.
        sizes = [operator.index(n) for n in x.shape[x.ndim - self.n_axes :]]
        return pool_axes(x, self.axis_poolings(*sizes))

    def extra_repr(self) -> str:
        strides = ", ".join(f"{value:.4g}" for value in self.strides.detach().tolist())
        sizes, ramps = [repr(axis.size) for axis in self.axes], [f"{axis.ramp_bins:g}" for axis in self.axes]
        shown = [each[0] if len(set(each)) == 1 else f"({', '.join(each)})" for each in (ramps, sizes)]
        return f"strides=({strides}), ramp_bins={shown[0]}, size={shown[1]}, shared={self.shared}"


class DiffStride1d(_DiffStride):
    """Pooling of the last axis with a learnable stride; see `DiffStride2d`.

    Args:
        strides, ramp_bins, size, shared, max_stride: As there.

    Shape:
        x: ``(..., N)``. Result: ``(..., n_out)``.
    """

    n_axes = 1


class DiffStride2d(_DiffStride):
    """Pooling of the last two axes with learnable strides (DiffStride, Riad et al., ICLR 2022).

    Each axis is low-passed by `passband_mask` in the Fourier domain and resampled to `output_length` bins; the stride
    sets the cut-off ``n / (2 S)`` and gets its gradient through the ramp of the mask. As everything is linear, an axis
    is one product with `pooling_matrix`.

    Args:
        strides: Starting value, >= 1: one for all axes or one each.
        ramp_bins: R, the width of the mask's ramp in FFT bins, > 0; None is 8 for ``"folded"`` axes and the paper's 4
            for the others, as in a classifier. Like `size` and `max_stride` one for all axes or one each.
        size: ``"paper"`` leaves ``min(n, floor(n / S + 2 R))`` bins; ``"nominal"`` and ``"folded"`` ``ceil(n / S)``,
            with the ramp below the cut-off, or above it and folded back (see `passband_mask`).
        shared: One stride for all axes: `strides` then has shape ``(1,)``.
        max_stride: Upper limit; None is the number of bins.

    Attributes:
        strides: Parameter of shape ``(2,)``, or ``(1,)`` when shared. Give it a learning rate of its own and no weight
            decay, and call `project_strides_` after each optimizer step.

    Shape:
        x: ``(..., H, W)``, any floating-point dtype. Result: ``(..., *output_size(H, W))``, same dtype.

    Raises:
        InputError: A stride below 1 or not finite, ``ramp_bins <= 0``, too few or empty axes, integer input.

    >>> layer = DiffStride2d(2.0, size="nominal")
    >>> layer(torch.ones(8, 16, 100, 64)).shape
    torch.Size([8, 16, 50, 32])
    """

    n_axes = 2


class DiffStride3d(_DiffStride):
    """Pooling of the last three axes with learnable strides; see `DiffStride2d`.

    Args:
        strides, ramp_bins, size, shared, max_stride: As there.

    Shape:
        x: ``(..., D, H, W)``. Result: ``(..., *output_size(D, H, W))``.
    """

    n_axes = 3


def diffstride_layers(model: nn.Module) -> list[_DiffStride]:
    """The DiffStride layers of a model, each once, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, _DiffStride)]


def read_strides_(model: nn.Module) -> None:
    """Copy the strides of all layers of a model from the device at once, for the sizes of the next forward passes."""
    layers = diffstride_layers(model)
    if not layers:
        return
    values = torch.cat([layer.strides.detach().flatten() for layer in layers]).tolist()
    for layer in layers:
        count = layer.strides.numel()
        layer._keep_strides(values[:count])
        values = values[count:]


def project_strides_(model: nn.Module) -> None:
    """Move the strides of all layers of a model into ``[1, max_stride]``; call it after each optimizer step.

    Costs one copy from the device, which the sizes of the next forward pass share. `Encoder.project_strides_`, which
    knows the sizes of the maps, uses their limits too.
    """
    read_strides_(model)
    for layer in diffstride_layers(model):
        layer._project_known_()


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
    # Not `prod`, whose gradient counts the zeros among its factors: a GPU would have to be waited for.
    shares = [layer.strides.float().reciprocal().expand(layer.n_axes).unbind() for layer in layers]
    return torch.stack([reduce(operator.mul, of_axes) for of_axes in shares]).sum()

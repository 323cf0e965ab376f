"""Pooling in the Fourier domain: how the matrices of `matrices` are applied to tensors, and what that gives."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from audiostride.checks import Size, check_stride
from audiostride.errors import InputError
from audiostride.strides.masks import choose_ramp, limit_stride, output_length
from audiostride.strides.matrices import AxisPooling, SpectrumPooling, axis_pooling, full_precision, spectral_axis


def check_poolable(who: str, x: Tensor, n_axes: int) -> None:
    """Raise unless the last `n_axes` axes of `x` can be pooled."""
    if x.ndim < n_axes:
        raise InputError(f"{who}: input must have at least {n_axes} axes, got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise InputError(f"{who}: input must be a real floating-point tensor, got {x.dtype}; convert it with .float()")
    if 0 in x.shape[x.ndim - n_axes :]:
        raise InputError(f"{who}: pooled axes must not be empty, got shape {tuple(x.shape)}")


def multiply_axis(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply the second axis of `x` by a matrix.

    Shape:
        matrix: ``(n_out, n)``; x: ``(outer, n, inner)`` or ``(outer, n)``. Result: the same with n_out.
    """
    if x.ndim == 2:
        return x @ matrix.T
    # The same matrix for every leading index: no transposed copies, which would cost as much as the products.
    return torch.bmm(matrix.expand(x.shape[0], -1, -1), x)


class _MatrixAxis(torch.autograd.Function):
    """`multiply_axis` that keeps for its backward only what the ramp of the mask sees.

    The gradient of the stride is ``<g, P' x>`` with ``P' = synthesis @ analysis`` of a rank of a few bins: saving
    ``analysis @ x`` takes a fraction of the memory of x, and makes the second large product of a matrix gradient small.
    On an axis of hardly more bins than that, `analysis` is P' and there is no `synthesis`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, stride: Tensor, matrix: Tensor, synthesis: Tensor | None, analysis: Tensor
    ) -> Tensor:
        ctx.save_for_backward(matrix, synthesis, multiply_axis(analysis, x))
        ctx.stride_dtype = stride.dtype
        return multiply_axis(matrix, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        matrix, synthesis, ramp_of_x = ctx.saved_tensors
        for_x = multiply_axis(matrix.T, gradient) if ctx.needs_input_grad[0] else None
        ramp_of_g = gradient if synthesis is None else multiply_axis(synthesis.T, gradient)
        return for_x, inner_product(ramp_of_g, ramp_of_x, ctx.stride_dtype), None, None, None


def inner_product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum of the products of two tensors, accumulated in `dtype` (a sum of bfloat16 would lose small terms)."""
    return torch.dot(a.flatten().to(dtype), b.flatten().to(dtype))


class _SpectrumAxis(torch.autograd.Function):
    """Pooling of the middle axis by the real FFT: the numbers of `_MatrixAxis`, for axes whose matrix is too large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: Tensor, mask: Tensor, n_out: int, k: Tensor, slope: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x, dim=1)
        ctx.save_for_backward(mask, k, slope, spectrum.index_select(1, k))
        ctx.n, ctx.stride_dtype = x.shape[1], stride.dtype
        return resample_spectrum(spectrum, mask, x.shape[1], n_out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        mask, k, slope, ramp_of_x = ctx.saved_tensors
        spectrum, n_out = torch.fft.rfft(gradient, dim=1), gradient.shape[1]
        for_x = None
        if ctx.needs_input_grad[0]:
            # The transposed matrix: the spectrum of the short axis, repeated and weighted, as that of the long one.
            repeated = periodic_bins(spectrum, torch.arange(len(mask), device=k.device), n_out)
            for_x = torch.fft.irfft(repeated * mask[:, None], n=ctx.n, dim=1)
        ramp_of_g = periodic_bins(spectrum, k, n_out)
        products = (ramp_of_g.real * ramp_of_x.real + ramp_of_g.imag * ramp_of_x.imag).sum(dim=(0, 2))
        for_stride = (products * both_sides(k, ctx.n) * slope / ctx.n).sum().to(ctx.stride_dtype)
        return for_x, for_stride, None, None, None, None


def both_sides(k: Tensor, n: int) -> Tensor:
    """How many of +k and -k are different frequencies of `n` samples: 1 for DC and Nyquist, else 2."""
    return torch.where((k == 0) | (2 * k == n), 1, 2)


def folded_bins(k: Tensor, n_out: int) -> tuple[Tensor, Tensor]:
    """The bin of `n_out` samples onto which frequency k folds, and whether it does so mirrored (as a conjugate)."""
    remainder = k.remainder(n_out)
    mirrored = 2 * remainder > n_out
    return torch.where(mirrored, n_out - remainder, remainder), mirrored


def periodic_bins(spectrum: Tensor, k: Tensor, n_out: int) -> Tensor:
    """The spectrum of `n_out` samples at any frequencies k, from its half."""
    bins, mirrored = folded_bins(k, n_out)
    values = spectrum.index_select(1, bins)
    return torch.where(mirrored[:, None], values.conj(), values)


def resample_spectrum(spectrum: Tensor, mask: Tensor, n: int, n_out: int) -> Tensor:
    """Weight the low frequencies of a half spectrum and go back to `n_out` samples.

    Scaled so that a constant stays that constant. Frequencies above ``n_out // 2`` fold back; the Nyquist bin of an
    even `n_out` below `n` gets both its halves.

    Shape:
        spectrum: ``(outer, n // 2 + 1, inner)``; mask: ``(bins,)``. Result: ``(outer, n_out, inner)``.
    """
    k = torch.arange(len(mask), device=mask.device)
    bins, mirrored = folded_bins(k, n_out)
    # The inverse FFT counts every bin between DC and Nyquist twice by itself.
    weights = mask * (both_sides(k, n) / both_sides(bins, n_out)) * (n_out / n)
    kept = spectrum[:, : len(mask)] * weights[:, None].to(mask.dtype)
    if len(mask) > n_out // 2 + 1:
        kept = torch.where(mirrored[:, None], kept.conj(), kept)
        kept = kept.new_zeros(kept.shape[0], n_out // 2 + 1, kept.shape[2]).index_add(1, bins, kept)
    samples: Tensor = torch.fft.irfft(kept, n=n_out, dim=1)
    return samples


def pool_axis(x: Tensor, axis: int, pooling: AxisPooling | SpectrumPooling) -> Tensor:
    """Pool one axis of `x`, in the dtype of `x` and in its memory format.

    Args:
        x: Real floating-point tensor; under autocast it is cast as the inputs of a product are.
        axis: Negative index of the axis.
        pooling: How, from `axis_pooling` or `spectral_axis`.

    Shape:
        x: ``(..., n, ...)``. Result: ``(..., n_out, ...)``.
    """
    if is_channels_last(x) and x.ndim + axis >= 2:
        # (B, C, ..., n) stored as (B, ..., n, C): both axes are multiplied from the left there, without a copy.
        return pool_axis(x.movedim(1, -1), axis - 1, pooling).movedim(-1, 1)
    x = cast_for_product(x)
    lead, n, tail = x.shape[:axis], x.shape[axis], x.shape[x.ndim + axis + 1 :]
    flat = x.reshape(math.prod(lead), n, *([math.prod(tail)] if tail else []))
    if isinstance(pooling, SpectrumPooling):
        pooled = _pool_spectrum(flat, pooling)
    elif pooling.stride is None:
        pooled = multiply_axis(pooling.matrix.to(x.dtype), flat)
    else:
        pooled = _MatrixAxis.apply(flat, pooling.stride, *pooling.matrices(x.dtype))
    return pooled.reshape(*lead, pooled.shape[1], *tail)


def _pool_spectrum(flat: Tensor, pooling: SpectrumPooling) -> Tensor:
    """`pool_axis` by the FFT, which knows float32 and float64 only."""
    samples = flat.unsqueeze(2) if flat.ndim == 2 else flat
    samples = samples.to(torch.promote_types(flat.dtype, torch.float32))
    mask = pooling.mask.to(samples.dtype)
    with full_precision(flat.device):
        if pooling.stride is None or pooling.k is None or pooling.slope is None:
            pooled = resample_spectrum(torch.fft.rfft(samples, dim=1), mask, flat.shape[1], pooling.n_out)
        else:
            pooled = _SpectrumAxis.apply(samples, pooling.stride, mask, pooling.n_out, pooling.k, pooling.slope)
    return pooled.to(flat.dtype)


def is_channels_last(x: Tensor) -> bool:
    """Whether a map ``(B, C, ...)`` of two or three axes is stored with its channels together."""
    if x.ndim == 4:
        return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return x.ndim == 5 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last_3d)


def cast_for_product(x: Tensor) -> Tensor:
    """`x` in the dtype that autocast gives the inputs of a product (custom functions are not cast by themselves)."""
    # The meta device has no autocast (torch 2.11 cannot compile a question for it).
    if x.device.type != "meta" and x.dtype != torch.float64 and torch.is_autocast_enabled(x.device.type):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


def pool_axes(x: Tensor, poolings: Sequence[AxisPooling | SpectrumPooling]) -> Tensor:
    """Pool the last ``len(poolings)`` axes of `x`, the first of them first: faster than the other way round.

    Shape:
        x: ``(..., n_1, ..., n_d)``. Result: ``(..., n_out_1, ..., n_out_d)``.
    """
    for axis, pooling in enumerate(poolings, start=-len(poolings)):
        x = pool_axis(x, axis, pooling)
    return x


def diffstride_pool(
    x: Tensor,
    strides: Tensor | Sequence[float],
    *,
    ramp_bins: float | None = None,
    size: Size = "paper",
    max_stride: float | None = None,
) -> Tensor:
    """`x` pooled over its last axes with learnable strides (DiffStride, Riad et al. 2022, algorithm 1).

    Args:
        x: Real floating-point tensor; the product runs in its dtype.
        strides: One stride >= 1 per pooled axis: a tensor of shape (d,), which gets a gradient, or numbers.
        ramp_bins: R in bins, > 0; None is 8 for ``"folded"`` and the paper's 4 for the others.
        size: ``"paper"``, ``"nominal"`` or ``"folded"``, see `output_length` and `passband_mask`.
        max_stride: Upper limit of the strides; None is the number of bins.

    Shape:
        x: ``(..., n_1, ..., n_d)``. Result: ``(..., n_out_1, ..., n_out_d)``.

    Raises:
        InputError: Too few or empty axes, integers, a value out of its range.

    >>> diffstride_pool(torch.ones(1, 100, 64), torch.tensor([2.0, 2.0]), size="nominal").shape
    torch.Size([1, 50, 32])
    """
    check_poolable("diffstride_pool", x, len(strides))
    if not isinstance(strides, Tensor):
        strides = torch.tensor([check_stride("diffstride_pool", stride) for stride in strides], device=x.device)
    ramp_bins = choose_ramp("diffstride_pool", ramp_bins, size)
    # Half-precision strides would move the cut-off by whole bins.
    strides = strides.to(torch.promote_types(strides.dtype, torch.float32))
    poolings = []
    for n, stride in zip(x.shape[x.ndim - len(strides) :], strides, strict=True):
        limited = limit_stride(stride, n, ramp_bins=ramp_bins, size=size, max_stride=max_stride)
        n_out = output_length(n, float(limited.detach()), ramp_bins=ramp_bins, size=size)
        poolings.append(axis_pooling(n, limited, n_out, ramp_bins=ramp_bins, size=size))
    return pool_axes(x, poolings)


def spectral_pool(x: Tensor, strides: Sequence[float]) -> Tensor:
    """`x` pooled over its last axes by a hard crop of its spectrum (Rippel, Snoek and Adams 2015).

    The result is the FFT resampling of `x` to ``floor(n / S)`` bins per axis.

    Args:
        x: Real floating-point tensor.
        strides: One number >= 1 per pooled axis.

    Shape:
        x: ``(..., n_1, ..., n_d)``. Result: ``(..., floor(n_1 / S_1), ..., floor(n_d / S_d))``.

    Raises:
        InputError: Too few or empty axes, integers, a stride below 1.

    >>> spectral_pool(torch.ones(1, 100, 64), (2.0, 2.0)).shape
    torch.Size([1, 50, 32])
    """
    check_poolable("spectral_pool", x, len(strides))
    sizes = x.shape[x.ndim - len(strides) :]
    return pool_axes(x, [spectral_axis(n, float(s), like=x) for n, s in zip(sizes, strides, strict=True)])

"""Pooling in the Fourier domain as one real matrix per axis, and the poolings built from it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from audiostride.checks import Size, check_bins, check_stride
from audiostride.errors import InputError
from audiostride.functional.masks import limit_stride, output_length, passband_mask


def fourier_crop_matrix(mask: Tensor, n: int, n_out: int) -> Tensor:
    """The matrix that applies `mask` to the spectrum of `n` samples and resamples them to `n_out`.

    DFT, mask, crop to the low frequencies and inverse DFT of a real axis are together real and linear:
    ``P[j, t] = 1/n * sum_k c_k mask_k cos(2 pi k (j / n_out - t / n))`` over ``0 <= k <= n_out // 2``, with c = 1
    for DC and for the Nyquist bin of an even n, else 2 (k and -k). The Nyquist bin of an even `n_out` below `n` so gets
    both its halves summed, as SciPy's FFT resampling does.

    # Differs from the paper: scaled by 1/n (a constant stays that constant), not orthonormal or by 1/n_out, with which
    # activations would grow or shrink with the learned stride.

    Args:
        mask: Weights of the frequencies 0 to ``n // 2``.
        n: Bins in.
        n_out: Bins out, 1 to `n`.

    Shape:
        mask: ``(n // 2 + 1,)``. Result: ``(n_out, n)``, in the dtype and on the device of `mask`.
    """
    if n_out == 1 and n > 1 and mask.requires_grad:
        # One bin is the mean, which no stride changes. The gradient of bin 1 is let through (its value is not): without
        # it a stride of n could never come back.
        mask = torch.cat([mask[:1], mask[1:2] - mask[1:2].detach()])
    else:
        mask = mask[: n_out // 2 + 1]
    k = torch.arange(len(mask), device=mask.device)
    sides = torch.where((k == 0) | (2 * k == n), 1.0, 2.0).to(mask.dtype)
    # Phases modulo one turn, in integers: float32 products k * t of a long axis would lose them.
    t = torch.arange(n, device=mask.device)
    j = torch.arange(n_out, device=mask.device)
    phase_in = (k[:, None] * t).remainder(n).to(mask.dtype) * (2 * math.pi / n)
    phase_out = (j[:, None] * k).remainder(n_out).to(mask.dtype) * (2 * math.pi / n_out)
    weights = (sides * mask / n)[:, None]
    # cos(a - b) = cos a cos b + sin a sin b: two thin products instead of n_out * n * n_out / 2 cosines.
    analysis = torch.cat([weights * phase_in.cos(), weights * phase_in.sin()])
    synthesis = torch.cat([phase_out.cos(), phase_out.sin()], dim=1)
    with torch.autocast(mask.device.type, enabled=False):  # half-precision matrices would misplace the cut-off
        return synthesis @ analysis


def pooling_matrix(
    n: int,
    stride: float | Tensor,
    *,
    ramp_bins: float = 4.0,
    size: Size = "paper",
    max_stride: float | None = None,
    n_out: int | None = None,
) -> Tensor:
    """The real matrix that DiffStride applies to an axis of `n` bins: ``y = P x``.

    Args:
        n: Bins of the axis, >= 1.
        stride: S >= 1, a number or a scalar tensor (the matrix is differentiable in it); limited as in `limit_stride`.
        ramp_bins, size: As in `passband_mask`.
        max_stride: Upper limit of the stride; None is `n`.
        n_out: `output_length` where the caller knows it; None reads it from the stride (a copy from the device).

    Shape:
        Result: ``(n_out, n)``, float32, or float64 for a float64 stride.

    Raises:
        InputError: A value out of its range.

    >>> pooling_matrix(4, 2.0, size="nominal").sum(dim=1)  # a constant stays that constant
    tensor([1., 1.])
    """
    check_bins("pooling_matrix", n)
    if max_stride is not None:
        check_stride("pooling_matrix", max_stride)
    if not isinstance(stride, Tensor):
        stride = torch.tensor(check_stride("pooling_matrix", stride))
    stride = stride.to(torch.promote_types(stride.dtype, torch.float32))
    limited = limit_stride(stride, n, ramp_bins=ramp_bins, size=size, max_stride=max_stride)
    if n_out is None:
        n_out = output_length(n, float(limited.detach()), ramp_bins=ramp_bins, size=size)
    return fourier_crop_matrix(passband_mask(n, limited, ramp_bins=ramp_bins, size=size), n, n_out)


def check_poolable(who: str, x: Tensor, n_axes: int) -> None:
    """Raise unless the last `n_axes` axes of `x` can be pooled."""
    if x.ndim < n_axes:
        raise InputError(f"{who}: input must have at least {n_axes} axes, got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise InputError(f"{who}: input must be a real floating-point tensor, got {x.dtype}; convert it with .float()")
    if 0 in x.shape[x.ndim - n_axes :]:
        raise InputError(f"{who}: pooled axes must not be empty, got shape {tuple(x.shape)}")


def apply_matrix(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply one axis of `x` by a matrix, in the dtype of `x`.

    Args:
        x: Real floating-point tensor.
        matrix: The matrix.
        axis: Negative index of the axis.

    Shape:
        x: ``(..., n, ...)``; matrix: ``(n_out, n)``. Result: ``(..., n_out, ...)``.
    """
    weight = matrix.to(x.dtype)
    if axis == -1:
        return x @ weight.T
    # One product per leading index with the same matrix, the axes behind it flattened: no transposed copies, which
    # cost as much as the products (100 x 64 maps on a CPU: 6 ms against 19 ms).
    lead, tail = x.shape[:axis], x.shape[axis + 1 :]
    flat = x.reshape(lead.numel(), x.shape[axis], tail.numel())
    return torch.bmm(weight.expand(len(flat), -1, -1), flat).reshape(*lead, len(weight), *tail)


def apply_matrices(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply the last ``len(matrices)`` axes of `x` by one matrix each.

    Shape:
        x: ``(..., n_1, ..., n_d)``; matrix i: ``(n_out_i, n_i)``. Result: ``(..., n_out_1, ..., n_out_d)``.
    """
    for axis, matrix in enumerate(matrices, start=-len(matrices)):
        x = apply_matrix(x, matrix, axis)
    return x


def diffstride_pool(
    x: Tensor,
    strides: Tensor | Sequence[float],
    *,
    ramp_bins: float = 4.0,
    size: Size = "paper",
    max_stride: float | None = None,
) -> Tensor:
    """`x` pooled over its last axes with learnable strides (DiffStride, Riad et al. 2022, algorithm 1).

    Args:
        x: Real floating-point tensor; the product runs in its dtype.
        strides: One stride >= 1 per pooled axis: a tensor of shape (d,), which gets a gradient, or numbers.
        ramp_bins: R in bins, > 0.
        size: ``"paper"`` or ``"nominal"``, see `output_length` and `passband_mask`.
        max_stride: Upper limit of the strides; None is the number of bins.

    Shape:
        x: ``(..., n_1, ..., n_d)``. Result: ``(..., n_out_1, ..., n_out_d)``.

    Raises:
        InputError: Too few or empty axes, integers, a value out of its range.

    >>> diffstride_pool(torch.ones(1, 100, 64), torch.tensor([2.0, 2.0]), size="nominal").shape
    torch.Size([1, 50, 32])
    """
    check_poolable("diffstride_pool", x, len(strides))
    sizes = x.shape[x.ndim - len(strides) :]
    matrices = [
        pooling_matrix(
            n,
            stride.to(x.device) if isinstance(stride, Tensor) else stride,
            ramp_bins=ramp_bins,
            size=size,
            max_stride=max_stride,
        )
        for n, stride in zip(sizes, strides, strict=True)
    ]
    return apply_matrices(x, matrices)


def spectral_output_length(n: int, stride: float) -> int:
    """Number of bins that spectral pooling leaves of `n`: ``floor(n / S)``, at least 1."""
    return max(1, math.floor(check_bins("spectral_output_length", n) / check_stride("spectral_output_length", stride)))


def spectral_matrix(n: int, stride: float, *, like: Tensor) -> Tensor:
    """The real matrix that spectral pooling applies to an axis of `n` bins, on the device of `like`."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    mask = torch.ones(n // 2 + 1, device=like.device, dtype=dtype)
    return fourier_crop_matrix(mask, n, spectral_output_length(n, stride))


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
    return apply_matrices(x, [spectral_matrix(n, float(s), like=x) for n, s in zip(sizes, strides, strict=True)])

"""Pooling in the Fourier domain as one real matrix per axis, and its derivative in the stride."""

import math
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from audiostride.checks import Size, check_bins, check_stride
from audiostride.strides.masks import limit_stride, output_length, passband_mask, ramp_count, ramp_slope


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """No autocast on a device; the meta device has none (torch 2.11 cannot compile a question for it)."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def build_waves(n: int, n_out: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines on the grid of `n_out` samples and, scaled, on that of `n`, at the frequencies 0 to ``n // 2``.

    Their products add up to pooling: ``P[j, t] = 1/n * sum_k c_k m_k cos(2 pi k (j / n_out - t / n))``, with c = 1 for
    DC and for the Nyquist bin of an even n, else 2 (k and -k), as cos(a - b) = cos a cos b + sin a sin b.

    Shape:
        Result: ``(2, n // 2 + 1, n_out)`` and, with the factors ``c_k / n``, ``(2, n // 2 + 1, n)``.
    """
    k = torch.arange(n // 2 + 1, device=device)[:, None]
    # Phases modulo one turn, in integers: float32 products k * t of a long axis would lose them. In float64, rounded
    # once (a phase of 6 in float32 is off by 2e-7 already), except on Apple's GPUs, which have none.
    exact = torch.float32 if device.type == "mps" else torch.float64
    phase_in = (k * torch.arange(n, device=device)).remainder(n).to(exact) * (2 * math.pi / n)
    phase_out = (k * torch.arange(n_out, device=device)).remainder(n_out).to(exact) * (2 * math.pi / n_out)
    scale = torch.where((k == 0) | (2 * k == n), 1.0, 2.0).to(exact) / n
    return (
        torch.stack([phase_out.cos(), phase_out.sin()]).to(dtype),
        torch.stack([scale * phase_in.cos(), scale * phase_in.sin()]).to(dtype),
    )


@lru_cache(maxsize=256)
def _cached_waves(n: int, n_out: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # tensors of inference mode could not be used in training later
        return build_waves(n, n_out, dtype, device)


def waves(n: int, n_out: int, *, like: Tensor) -> tuple[Tensor, Tensor]:
    """`build_waves` in the dtype and on the device of `like`, kept: a training needs the same ones at every step."""
    if torch.compiler.is_compiling() or type(like) is not Tensor or like.is_meta:  # without values, not to be kept
        return build_waves(n, n_out, like.dtype, like.device)
    return _cached_waves(n, n_out, like.dtype, like.device)


def fourier_pooling_matrix(mask: Tensor, n: int, n_out: int) -> Tensor:
    """The matrix that applies `mask` to the spectrum of `n` samples and resamples them to `n_out`.

    DFT, mask and inverse DFT of a real axis are together real and linear: the product of `waves`. Frequencies above
    ``n_out // 2`` fold back as in any sampling; where `mask` ends there or is zero, they are cropped. The Nyquist bin
    of an even `n_out` below `n` gets both its halves summed, as SciPy's FFT resampling does.

    # Differs from the paper: scaled by 1/n (a constant stays that constant), not orthonormal or by 1/n_out, with which
    # activations would grow or shrink with the learned stride.

    Args:
        mask: Weights of the lowest frequencies, from 0 to at most ``n // 2``.
        n: Bins in.
        n_out: Bins out, 1 to `n`.

    Shape:
        mask: ``(bins,)``. Result: ``(n_out, n)``, in the dtype and on the device of `mask`.
    """
    waves_out, waves_in = waves(n, n_out, like=mask)
    bins = len(mask)
    weighted = waves_in[:, :bins] * mask[:, None]
    with full_precision(mask.device):  # half-precision matrices would misplace the cut-off
        return waves_out[:, :bins].flatten(0, 1).T @ weighted.flatten(0, 1)


def crop_mask(mask: Tensor, n_out: int, size: Size) -> Tensor:
    """The weights of the frequencies that `n_out` samples hold, all of them for ``"folded"``."""
    if size == "folded":
        return mask
    if n_out == 1 and len(mask) > 1 and mask.requires_grad:
        # One bin is the mean, which no stride changes. The gradient of bin 1 is let through (its value is not): without
        # it a stride of n could never come back.
        return torch.cat([mask[:1], mask[1:2] - mask[1:2].detach()])
    return mask[: n_out // 2 + 1]


def pooling_matrix(
    n: int,
    stride: float | Tensor,
    *,
    ramp_bins: float | None = None,
    size: Size = "paper",
    max_stride: float | None = None,
) -> Tensor:
    """The real matrix that DiffStride applies to an axis of `n` bins: ``y = P x``.

    Args:
        n: Bins of the axis, >= 1.
        stride: S >= 1, a number or a scalar tensor (the matrix is differentiable in it); limited as in `limit_stride`.
        ramp_bins, size: As in `passband_mask`.
        max_stride: Upper limit of the stride; None is `n`.

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
    n_out = output_length(n, float(limited.detach()), ramp_bins=ramp_bins, size=size)
    mask = passband_mask(n, limited, ramp_bins=ramp_bins, size=size)
    return fourier_pooling_matrix(crop_mask(mask, n_out, size), n, n_out)


class AxisPooling(NamedTuple):
    """How one axis is pooled: a matrix, and its derivative in the stride, as two thin ones where these take less."""

    matrix: Tensor
    """``(n_out, n)``."""
    stride: Tensor | None = None
    """The scalar whose gradient is wanted; None for a fixed stride."""
    synthesis: Tensor | None = None
    """``(n_out, 2 r)``, with ``synthesis @ analysis = d matrix / d S`` (see `ramp_slope`); None on a short axis."""
    analysis: Tensor | None = None
    """``(2 r, n)``, or on a short axis ``d matrix / d S`` itself, ``(n_out, n)``."""

    def matrices(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """`matrix`, `synthesis` and `analysis` in a dtype."""
        synthesis, analysis = [None if each is None else each.to(dtype) for each in (self.synthesis, self.analysis)]
        return self.matrix.to(dtype), synthesis, analysis


class SpectrumPooling(NamedTuple):
    """How one long axis is pooled: by the real FFT, without its matrix."""

    mask: Tensor
    """Weights of the lowest frequencies."""
    n_out: int
    """Bins out."""
    stride: Tensor | None = None
    """The scalar whose gradient is wanted; None for a fixed stride."""
    k: Tensor | None = None
    """Bins of the ramp (int64)."""
    slope: Tensor | None = None
    """``d mask_k / d S`` there."""


# From this many bins out on, an axis goes through the FFT: a matrix takes n_out products per bin, an FFT about log n.
# Measured on two CPU cores, forward and backward: at 512 -> 256 bins both take as long, at 1024 -> 512 the FFT half as
# long, at 224 -> 112 (an image) the matrix a third.
LONG_AXIS = 256


Bins = Any
"""Bins of an axis: a whole number, or a number or scalar tensor where sizes are smooth."""


def pooling_cost(n: Bins, n_out: Bins) -> Bins:
    """Multiply-adds of the pooling of an axis, for one channel and one place on the other axes.

    An axis that goes through the FFT counts ``5/4 n log2 n`` for a real transform of n samples.

    >>> pooling_cost(100, 50), pooling_cost(1000, 500)
    (5000, 18061)
    """
    if n_out < LONG_AXIS:
        return n * n_out
    if isinstance(n, int) and isinstance(n_out, int):
        return round(1.25 * (n * math.log2(n) + n_out * math.log2(n_out)))
    n, n_out = torch.as_tensor(n), torch.as_tensor(n_out)
    return 1.25 * (n * n.log2() + n_out * n_out.log2())


def axis_pooling(n: int, stride: Tensor, n_out: int, *, ramp_bins: float, size: Size) -> AxisPooling | SpectrumPooling:
    """What DiffStride does to an axis of `n` bins, for a stride within its limits.

    Args:
        n: Bins in.
        stride: The stride used, a scalar tensor in float32 or float64; gradients go to it.
        n_out: Bins out, see `output_length`.
        ramp_bins, size: As there and in `passband_mask`, no None.
    """
    with torch.no_grad(), full_precision(stride.device):
        mask = crop_mask(passband_mask(n, stride, ramp_bins=ramp_bins, size=size), n_out, size)
        long = n_out >= LONG_AXIS
        if not stride.requires_grad:
            return SpectrumPooling(mask, n_out) if long else AxisPooling(fourier_pooling_matrix(mask, n, n_out))
        distance, slope = ramp_slope(n, stride.detach(), ramp_bins=ramp_bins, size=size)
        count = ramp_count(n, n_out, ramp_bins=ramp_bins, size=size)
        distance, slope = distance[:count], slope[:count]
        # Bins that the crop drops have no slope, except bin 1 beside the mean (see `crop_mask`).
        slope = torch.where(distance < max(len(mask), 2), slope, torch.zeros_like(slope))
        k = distance.long().clamp(max=n // 2)  # bins beyond the spectrum have no slope either
        if long:
            return SpectrumPooling(mask, n_out, stride, k, slope)
        waves_out, waves_in = waves(n, n_out, like=mask)
        synthesis = waves_out.index_select(1, k).flatten(0, 1).T
        analysis = (waves_in.index_select(1, k) * slope[:, None]).flatten(0, 1)
        matrix = fourier_pooling_matrix(mask, n, n_out)
        if n * n_out <= 2 * count * (n + n_out):  # multiply-adds of the derivative, and of its factors
            return AxisPooling(matrix, stride, None, synthesis @ analysis)
        return AxisPooling(matrix, stride, synthesis, analysis)


def spectral_axis(n: int, stride: float, *, like: Tensor) -> AxisPooling | SpectrumPooling:
    """What spectral pooling does to an axis of `n` bins, on the device of `like`."""
    n_out = spectral_output_length(n, stride)
    mask = torch.ones(n_out // 2 + 1, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
    return SpectrumPooling(mask, n_out) if n_out >= LONG_AXIS else AxisPooling(fourier_pooling_matrix(mask, n, n_out))


def spectral_output_length(n: int, stride: float) -> int:
    """Number of bins that spectral pooling with a `stride` S leaves of `n`: ``floor(n / S)``, at least 1."""
    return max(1, math.floor(check_bins("spectral_output_length", n) / check_stride("spectral_output_length", stride)))

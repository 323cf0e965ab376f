"""What a pooling keeps: cut-off bins, masks over frequency, output lengths and stride limits, per axis."""

import math
import operator

import torch
from torch import Tensor

from audiostride.checks import Size, check_bins, check_choice, check_ramp_bins, check_stride
from audiostride.errors import InputError

# The share of the pass band that the ramp of size="nominal" may take at most. At 1/2 the lower half of the
# band always passes whole, so that very large strides do not attenuate the slowest modulations.
NOMINAL_RAMP_SHARE = 0.5

# R where none is given: the paper's, and twice that where the ramp folds back. Measured on spoken words and on pitch,
# see recipes/NOTES.md.
RAMP_BINS: dict[Size, float] = {"paper": 4.0, "nominal": 4.0, "folded": 8.0}


def choose_ramp(who: str, ramp_bins: float | None, size: Size) -> float:
    """R in FFT bins: `ramp_bins`, or in place of None 8 for ``"folded"`` and the paper's 4 for the other sizes.

    Raises:
        InputError: A size that there is not; a ramp that is not finite and positive.
    """
    check_choice(who, "size", size, Size)
    return RAMP_BINS[size] if ramp_bins is None else check_ramp_bins(who, ramp_bins)


def nominal_ramp(cutoff_bin: float, ramp_bins: float) -> float:
    """Width of the ramp of ``size="nominal"`` in bins: `ramp_bins`, or half the band where that is less."""
    return min(ramp_bins, NOMINAL_RAMP_SHARE * cutoff_bin)


def output_length(n: int, stride: float, *, ramp_bins: float | None = None, size: Size = "paper") -> int:
    """Number of bins that pooling an axis of `n` bins with `stride` leaves.

    ``"paper"``: ``min(n, floor(n / S + 2 R))``, the extent of the paper's mask (Riad et al. 2022, algorithm 1).
    ``"nominal"``, ``"folded"``: ``ceil(n / S)``, what a convolution with an integer stride S and zero padding leaves.

    Args:
        n: Bins of the axis, >= 1.
        stride: S, >= 1; values above `n` count as `n`.
        ramp_bins: The paper's R in bins, > 0; used by ``"paper"`` only. None is 4.
        size: Which of the sizes.

    Returns:
        An int in ``[1, n]``.

    Raises:
        InputError: A value out of its range.

    >>> output_length(100, 2.0), output_length(100, 2.0, size="nominal")
    (58, 50)
    """
    ramp_bins = choose_ramp("output_length", ramp_bins, size)
    check_bins("output_length", n)
    stride = min(check_stride("output_length", stride), float(n))
    length = math.floor(n / stride + 2 * ramp_bins) if size == "paper" else math.ceil(n / stride)
    # A plain int also where torch.compile traces settings as symbols.
    return operator.index(min(n, length))


def smooth_length(
    n: float | Tensor, stride: float | Tensor, *, ramp_bins: float = 0.0, size: Size = "nominal"
) -> Tensor:
    """`output_length` before it is rounded, as a function of stride and bins: for costs, which fall with every step.

    >>> smooth_length(100, torch.tensor(3.2)).item()
    31.25
    """
    n = torch.as_tensor(n)
    length = n / stride + (2 * ramp_bins if size == "paper" else 0.0)
    return torch.minimum(length, n).clamp(min=1.0)


def minimum_stride(n: int, *, ramp_bins: float | None = None, size: Size = "paper") -> float:
    """Smallest stride that is used on an axis of `n` bins.

    With the paper's mask the ramp begins at the cut-off, ``n / (2 S)``: at stride 1 it would lie beyond the
    spectrum, and the stride would have no gradient. From ``n / (n - R)`` on half of the ramp is inside. Axes of
    fewer than ``4 R`` bins are too short to give up that much, so their minimum is 1 (a stride of 1 has a
    gradient there too, see `passband_mask`). With the other sizes the minimum is 1: the ramp of ``"nominal"`` ends at
    the cut-off, and that of ``"folded"`` is felt as soon as a bin lies beyond it. A ramp `ramp_bins` of None is 4 bins.

    # Differs from the paper: its code uses n / (n - R) for every n, which is infinite for n = R.

    >>> minimum_stride(100), minimum_stride(4), minimum_stride(100, size="nominal")
    (1.0416666666666667, 1.0, 1.0)
    """
    ramp_bins = choose_ramp("minimum_stride", ramp_bins, size)
    check_bins("minimum_stride", n)
    if size != "paper" or n < 4 * ramp_bins:
        return 1.0
    return n / (n - ramp_bins)


def limit_stride(
    stride: Tensor, n: int, *, ramp_bins: float | None = None, size: Size = "paper", max_stride: float | None = None
) -> Tensor:
    """`stride` limited to ``[minimum_stride, min(max_stride, n)]``, with the gradient let through.

    A plain clamp would stop the gradient of a stride beyond its limit, and the stride could never come back.

    Args:
        stride: A scalar tensor.
        n: Bins of the axis.
        ramp_bins, size: As in `minimum_stride`.
        max_stride: Upper limit; None is the number of bins.

    Returns:
        A scalar tensor with the limited value and the gradient of `stride`.
    """
    low = minimum_stride(n, ramp_bins=ramp_bins, size=size)
    high = max(low, float(n) if max_stride is None else min(max_stride, float(n)))
    # The limit plus an exact zero: `stride + (limited - stride)` would round the limit away for strides above 1e6.
    return stride.detach().clamp(low, high) + (stride - stride.detach())


def clip_ramp(values: Tensor) -> Tensor:
    """`values` clipped to [0, 1], with the gradient of the values 0 and 1 let through.

    ``clamp`` stops the gradient at its limits in some versions of torch (2.14) and not in others. A stride of 1, whose
    only bin within the ramp stands exactly on its edge, would then be stuck.
    """
    return torch.where((values >= 0) & (values <= 1), values, values.detach().clamp(0, 1))


def passband_mask(n: int, stride: float | Tensor, *, ramp_bins: float | None = None, size: Size = "paper") -> Tensor:
    """Weights of the frequencies 0 to ``n // 2`` of an axis: 1 in the pass band, a linear ramp, then 0.

    With the cut-off ``h = n / (2 S)`` in bins and the distance k from DC (both signs alike):
    ``"paper"``: ``clip((R + h - k) / R, 0, 1)``, 1 up to h and 0 from h + R (Riad et al. 2022, eq. 3 to 5);
    ``"nominal"``: ``clip((h - k) / R', 0, 1)``, 1 up to h - R' and 0 from h, with ``R' = min(R, h / 2)``;
    ``"folded"``: as ``"paper"``; the ramp lies beyond what ``ceil(n / S)`` bins hold, and folds back onto them.

    Differentiable in `stride`. Where the cut-off lies beyond the highest bin (``"paper"``, ``"folded"``: the mask is 1
    everywhere) or below the first (``"nominal"``: it is 0 but for DC), the gradient of that bin is let through: without
    it such a stride could never move again.

    Args:
        n: Bins of the axis, >= 1.
        stride: S >= 1, a number or a scalar tensor.
        ramp_bins: R, in bins, > 0; None is 8 for ``"folded"`` and the paper's 4 for the others.
        size: Which mask.

    Shape:
        Result: ``(n // 2 + 1,)``, float32 (float64 for a float64 stride).

    Raises:
        InputError: A value out of its range; a stride tensor that is not a scalar.

    >>> passband_mask(16, 4.0, ramp_bins=2.0)
    tensor([1.0000, 1.0000, 1.0000, 0.5000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000])
    """
    who = "passband_mask"
    ramp_bins = choose_ramp(who, ramp_bins, size)
    check_bins(who, n)
    if isinstance(stride, Tensor):
        if stride.numel() != 1:
            raise InputError(
                f"{who}: stride must be a scalar, got shape {tuple(stride.shape)}; build one mask per axis"
            )
        # Half-precision strides would move the cut-off by whole bins.
        scalar = stride.reshape(()).to(torch.promote_types(stride.dtype, torch.float32))
    else:
        scalar = torch.tensor(check_stride(who, stride))
    distance = torch.arange(n // 2 + 1, device=scalar.device, dtype=scalar.dtype)
    cutoff = n / (2 * scalar)
    value = cutoff.detach()
    if size != "nominal":
        # Beyond the highest bin the mask no longer changes: same value, and a gradient (`clip_ramp` passes it at 1).
        cutoff = value.clamp(max=float(n // 2)) + (cutoff - value)
        mask = clip_ramp(1 + (cutoff - distance) / ramp_bins)  # exactly 1 at the cut-off, for every R
    else:
        # The same below the first bin, where only DC is left.
        cutoff = value.clamp(min=1.0) + (cutoff - value)
        share = NOMINAL_RAMP_SHARE * cutoff
        # No clamp: where both are equal, versions of torch differ in the gradient that they let through.
        ramp = torch.where(share < ramp_bins, share, ramp_bins)
        mask = clip_ramp((cutoff - distance) / ramp)
    # DC always passes: a constant stays that constant, and axes of one bin stay what they are.
    return torch.where(distance == 0, torch.ones_like(mask), mask)


def ramp_slope(n: int, stride: Tensor, *, ramp_bins: float, size: Size) -> tuple[Tensor, Tensor]:
    """Where `passband_mask` depends on the stride, and how much: the bins of its ramp and ``d mask_k / d S`` there.

    All other weights are constant in S, so these few bins carry the whole gradient of a stride.

    Args:
        n: Bins of the axis, >= 1.
        stride: S >= 1, a scalar tensor in float32 or float64.
        ramp_bins, size: As in `passband_mask`, no None.

    Shape:
        Both ``(floor(R) + 1,)``: distances from DC in bins (whole numbers in the dtype of `stride`, some perhaps beyond
        ``n // 2``) and slopes (0 beyond ``n // 2`` and at DC, which always passes).
    """
    bins = torch.arange(operator.index(math.floor(ramp_bins)) + 1, device=stride.device, dtype=stride.dtype)
    cutoff_slope = -n / (2 * stride.square())
    if size != "nominal":
        cutoff = (n / (2 * stride)).clamp(max=float(n // 2))
        k = cutoff.ceil() + bins
        value = 1 + (cutoff - k) / ramp_bins
        slope = cutoff_slope / ramp_bins
    else:
        cutoff = (n / (2 * stride)).clamp(min=1.0)
        ramp = (NOMINAL_RAMP_SHARE * cutoff).clamp(max=ramp_bins)
        k = (cutoff - ramp).ceil() + bins
        value = (cutoff - k) / ramp
        # A ramp that is a share of the band moves with its cut-off.
        slope = cutoff_slope * torch.where(ramp < ramp_bins, k / (NOMINAL_RAMP_SHARE * cutoff.square()), 1 / ramp)
    inside = (value >= 0) & (value <= 1) & (k >= 1) & (k <= n // 2)
    return k, torch.where(inside, slope, torch.zeros_like(value))


def ramp_count(n: int, n_out: int, *, ramp_bins: float, size: Size) -> int:
    """How many of the bins of `ramp_slope`, from the first on, can have a slope where `n_out` bins are left of `n`.

    The length tells the cut-off to within a bin, and so, without a look at the stride, where the spectrum ends.
    """
    count = operator.index(math.floor(ramp_bins)) + 1
    if size == "nominal":
        return min(count, operator.index(math.floor(NOMINAL_RAMP_SHARE * max(n_out / 2, 1.0))) + 1)
    cutoff = (n_out - 1) / 2 - (ramp_bins if size == "paper" else 0)  # the true one lies above
    first = max(min(math.floor(cutoff) + 1, n // 2), 1)
    return max(1, min(count, operator.index(n // 2 - first + 1)))

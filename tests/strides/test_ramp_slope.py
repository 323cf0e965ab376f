"""The slope of the mask in the stride, written out by hand, against autograd through the mask."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from audiostride.checks import Size
from audiostride.strides.masks import NOMINAL_RAMP_SHARE, passband_mask, ramp_slope

SIZES: tuple[Size, ...] = get_args(Size)
RAMPS = (0.5, 1.0, 2.5, 4.0)
LENGTHS = (*range(1, 13), 25, 64, 100)
PROPERTY = settings(max_examples=300, deadline=None, derandomize=True)


def double(stride: float) -> Tensor:
    """A stride in float64."""
    return torch.tensor(stride, dtype=torch.float64)


def autograd_slope(n: int, stride: float, *, ramp_bins: float, size: Size) -> Tensor:
    """``d mask_k / d S`` for every bin of the axis, by one backward pass per bin."""
    scalar = double(stride).requires_grad_()
    mask = passband_mask(n, scalar, ramp_bins=ramp_bins, size=size)
    rows = torch.eye(len(mask), dtype=torch.float64)
    slopes = [torch.autograd.grad(mask, scalar, row, retain_graph=True)[0] for row in rows]
    return torch.stack(slopes)


def spread_slope(n: int, stride: float, *, ramp_bins: float, size: Size) -> Tensor:
    """What `ramp_slope` says, put at its bins of an axis that is zero elsewhere."""
    k, slope = ramp_slope(n, double(stride), ramp_bins=ramp_bins, size=size)
    assert k.shape == slope.shape == (math.floor(ramp_bins) + 1,)
    assert k.equal(k.round())
    assert len(set(k.tolist())) == len(k)
    assert (slope[(k < 1) | (k > n // 2)] == 0).all()
    spread = torch.zeros(n // 2 + 1, dtype=torch.float64)
    on_axis = (k >= 0) & (k <= n // 2)
    spread[k[on_axis].long()] = slope[on_axis]
    return spread


def kinks(n: int, stride: float, *, ramp_bins: float, size: Size) -> list[float]:
    """Distances, in bins and relative to R, from the strides where a weight or the ramp has a kink; 0 is exactly on."""
    cutoff = n / (2 * stride)
    if size != "nominal":
        edges, ends = [cutoff, cutoff + ramp_bins], [cutoff - n // 2]
    else:
        ramp = min(ramp_bins, NOMINAL_RAMP_SHARE * max(cutoff, 1.0))
        edges, ends = [cutoff, cutoff - ramp], [cutoff - 1, NOMINAL_RAMP_SHARE * cutoff - ramp_bins]
    return [abs(edge - round(edge)) for edge in edges] + [abs(end) for end in ends]


@pytest.mark.parametrize("ramp_bins", RAMPS)
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("size", SIZES)
def test_slope_is_that_of_autograd(size: Size, n: int, ramp_bins: float) -> None:
    strides = [1.0, 1.13, 1.29, 1.5, 1.97, 2.0, 3.0, 3.3, 4.0, 5.0, 7.7, 0.9 * n, n, 1.3 * n, 10.0 * n]
    for stride in strides:
        by_hand = spread_slope(n, stride, ramp_bins=ramp_bins, size=size)
        by_autograd = autograd_slope(n, stride, ramp_bins=ramp_bins, size=size)
        # The same few float64 operations in another order.
        torch.testing.assert_close(by_hand, by_autograd, rtol=1e-13, atol=0, msg=f"{stride=}\n{by_hand}\n{by_autograd}")


@PROPERTY
@given(
    n=st.integers(1, 130),
    stride=st.floats(1, 200),
    ramp_bins=st.sampled_from(RAMPS) | st.floats(0.05, 9),
    size=st.sampled_from(SIZES),
)
def test_slope_of_any_stride_is_that_of_autograd(n: int, stride: float, ramp_bins: float, size: Size) -> None:
    # On a kink the slope is one of two, and rounding may choose: strides there are tested above, as exact numbers.
    assume(all(distance > 1e-9 for distance in kinks(n, stride, ramp_bins=ramp_bins, size=size)))
    by_hand = spread_slope(n, stride, ramp_bins=ramp_bins, size=size)
    # The same few float64 operations in another order.
    by_autograd = autograd_slope(n, stride, ramp_bins=ramp_bins, size=size)
    torch.testing.assert_close(by_hand, by_autograd, rtol=1e-13, atol=0)


@PROPERTY
@given(n=st.integers(4, 130), share=st.floats(0.01, 0.99), ramp_bins=st.floats(0.25, 9), size=st.sampled_from(SIZES))
def test_slope_is_that_of_differences(n: int, share: float, ramp_bins: float, size: Size) -> None:
    """An independent derivative, where the cut-off lies within the axis and no bin comes near an edge of the ramp."""
    stride, step = n**share, 1e-6
    cutoff = n / (2 * stride)
    assume(1.01 < cutoff < n // 2 - 0.01)
    # A step of the stride moves the cut-off by up to 1e-6 * 130 / 2.
    assume(all(distance > 1e-3 for distance in kinks(n, stride, ramp_bins=ramp_bins, size=size)))
    above, below = (passband_mask(n, double(stride + sign * step), ramp_bins=ramp_bins, size=size) for sign in (1, -1))
    by_hand = spread_slope(n, stride, ramp_bins=ramp_bins, size=size)
    # Weights of up to 65 / 0.25 before clipping are rounded by 3e-14 each, over a difference of 2e-6; the third
    # derivative times the step squared is far less.
    torch.testing.assert_close(by_hand, (above - below) / (2 * step), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("size", SIZES)
def test_another_slope_is_told_apart(size: Size) -> None:
    # The comparison can fail: another R, another slope.
    by_autograd = autograd_slope(64, 2.3, ramp_bins=4.0, size=size)
    assert by_autograd.abs().sum() > 0
    assert not torch.allclose(spread_slope(64, 2.3, ramp_bins=3.5, size=size), by_autograd)


def test_slope_keeps_the_dtype() -> None:
    for dtype in (torch.float32, torch.float64):
        k, slope = ramp_slope(64, torch.tensor(2.3, dtype=dtype), ramp_bins=4.0, size="paper")
        assert k.dtype == slope.dtype == dtype

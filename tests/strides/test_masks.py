"""Masks, output lengths and stride limits: closed forms, and no axis on which a stride is lost."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audiostride.checks import Size
from audiostride.errors import InputError
from audiostride.strides.masks import limit_stride, minimum_stride, output_length, passband_mask

SIZES: tuple[Size, ...] = ("paper", "nominal")
SHORT_AXES = range(1, 13)
N_STRIDES = 6

# The same examples in every run; a run on a busy machine is not a failure.
PROPERTY = settings(max_examples=100, deadline=None, derandomize=True)


def some_strides(n: int) -> tuple[float, ...]:
    """Strides up to the number of bins and one far beyond."""
    return (1.0, 1.5, 2.0, 3.3, float(n), 1e6)


def leaf(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """A scalar that collects a gradient."""
    return torch.tensor(value, dtype=dtype, requires_grad=True)


def interpolated_mask(n: int, stride: float, ramp_bins: float, size: Size) -> np.ndarray:
    """The mask as a line drawn by NumPy between the end of the pass band and the start of the stop band."""
    half = n / (2 * stride)
    edges = [half, half + ramp_bins] if size == "paper" else [half - min(ramp_bins, half / 2), half]
    return np.array([1.0 if k == 0 else np.interp(k, edges, [1.0, 0.0]) for k in range(n // 2 + 1)])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ramp_bins", [0.7, 1.0, 4.0, 9.5])
@pytest.mark.parametrize("n", [1, 2, 3, 16, 25, 64, 101])
def test_mask_has_its_closed_form(n: int, ramp_bins: float, size: Size) -> None:
    for stride in (1.0, 1.37, 2.0, 5.3, float(n)):
        mask = passband_mask(n, torch.tensor(stride, dtype=torch.float64), ramp_bins=ramp_bins, size=size)
        expected = torch.from_numpy(interpolated_mask(n, stride, ramp_bins, size))
        # A few roundings of float64 on values of the order of n / R.
        torch.testing.assert_close(mask, expected, rtol=0, atol=1e-12)
        # float32 resolves the cut-off, up to 50 bins, to 3e-6 bins, on a ramp of R (nominal: h / 2 >= 1/4) bins.
        single = passband_mask(n, stride, ramp_bins=ramp_bins, size=size)
        torch.testing.assert_close(single, expected.float(), rtol=0, atol=2e-5)


def test_edges_of_the_paper_mask() -> None:
    # n / (2 S) = 4: one up to bin 4, zero from bin 4 + R = 8.
    assert passband_mask(32, 4.0, ramp_bins=4.0)[2:10].tolist() == [1, 1, 1, 0.75, 0.5, 0.25, 0, 0]


def test_edges_of_the_nominal_mask() -> None:
    # n / (2 S) = 8, R = 4: one up to bin 4, zero from bin 8. With R = 6 the ramp takes half the band and no more.
    for ramp_bins in (4.0, 6.0):
        mask = passband_mask(32, 2.0, ramp_bins=ramp_bins, size="nominal")
        assert mask[2:10].tolist() == [1, 1, 1, 0.75, 0.5, 0.25, 0, 0]


@PROPERTY
@given(
    n=st.integers(1, 200),
    stride=st.floats(1, 300, width=32),
    ramp_bins=st.floats(0.25, 16, width=32),
    size=st.sampled_from(SIZES),
)
def test_mask_passes_dc_falls_and_is_zero_on_what_is_cropped(
    n: int, stride: float, ramp_bins: float, size: Size
) -> None:
    stride = min(stride, float(n))
    mask = passband_mask(n, torch.tensor(stride, dtype=torch.float64), ramp_bins=ramp_bins, size=size)
    n_out = output_length(n, stride, ramp_bins=ramp_bins, size=size)
    assert mask.shape == (n // 2 + 1,)
    assert mask[0] == 1
    assert (mask.diff() <= 0).all()
    assert ((mask >= 0) & (mask <= 1)).all()
    assert 1 <= n_out <= n
    # The crop loses nothing: rounding of the cut-off (float64) is all that may be left.
    assert (mask[n_out // 2 + 1 :] <= 1e-12).all()


@pytest.mark.parametrize("ramp_bins", [4.0, 3.3, 1.0])
@pytest.mark.parametrize("size", SIZES)
def test_short_axes_stay_finite_at_every_stride(size: Size, ramp_bins: float) -> None:
    for n in SHORT_AXES:
        strides = some_strides(n)
        assert len(strides) == N_STRIDES
        for value in strides:
            stride = leaf(value)
            mask = passband_mask(
                n, limit_stride(stride, n, ramp_bins=ramp_bins, size=size), ramp_bins=ramp_bins, size=size
            )
            mask.sum().backward()
            assert mask[0] == 1
            assert torch.isfinite(mask).all()
            assert stride.grad is not None
            assert torch.isfinite(stride.grad)
            assert 1 <= output_length(n, value, ramp_bins=ramp_bins, size=size) <= n
            assert math.isfinite(minimum_stride(n, ramp_bins=ramp_bins, size=size))


@pytest.mark.parametrize("ramp_bins", [4.0, 3.3, 1.0])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n", [*range(2, 13), 100])
def test_no_stride_is_stuck(n: int, size: Size, ramp_bins: float) -> None:
    """Wherever a stride stands, less energy asks for a larger one: its limits, and what lies beyond them, included."""
    low = minimum_stride(n, ramp_bins=ramp_bins, size=size)
    for value in (-5.0, 0.5, low, *some_strides(n)):
        stride = leaf(value)
        limited = limit_stride(stride, n, ramp_bins=ramp_bins, size=size)
        passband_mask(n, limited, ramp_bins=ramp_bins, size=size).sum().backward()
        assert stride.grad is not None
        assert stride.grad < 0, f"stride {value}"


@pytest.mark.parametrize("size", SIZES)
def test_dc_has_no_gradient(size: Size) -> None:
    for n in SHORT_AXES:
        for value in some_strides(n):
            stride = leaf(value)
            passband_mask(n, limit_stride(stride, n, size=size), size=size)[0].backward()
            assert stride.grad == 0, f"n={n}, stride={value}"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n", [7, 16, 33])
def test_mask_gradient(n: int, size: Size) -> None:
    # n / (2 S) is no whole or half number of bins, so no bin stands on an edge of the ramp.
    for value in (1.31, 1.93, 2.71):
        stride = leaf(value, torch.float64)
        assert torch.autograd.gradcheck(lambda s: passband_mask(n, s, ramp_bins=4.0, size=size), stride)


def test_mask_dtype_follows_the_stride_and_is_at_least_float32() -> None:
    assert passband_mask(8, 2.0).dtype == torch.float32
    assert passband_mask(8, torch.tensor(2.0, dtype=torch.float16)).dtype == torch.float32
    assert passband_mask(8, torch.tensor([2.0], dtype=torch.float64)).dtype == torch.float64


@PROPERTY
@given(n=st.integers(1, 60), stride=st.integers(1, 70))
def test_nominal_length_is_that_of_a_strided_convolution(n: int, stride: int) -> None:
    kept = torch.nn.functional.conv1d(torch.zeros(1, 1, n), torch.zeros(1, 1, 3), stride=stride, padding=1)
    assert output_length(n, stride, size="nominal") == kept.shape[-1]


def test_paper_length() -> None:
    # The maps that the paper's layer leaves of 32 bins at stride 2, R = 4 (min(n, floor(n / S + 2 R))).
    lengths = [32]
    for _ in range(3):
        lengths.append(output_length(lengths[-1], 2.0))
    assert lengths == [32, 24, 20, 18]


@pytest.mark.parametrize("n", [16, 32, 100])
def test_at_the_minimum_stride_half_of_the_paper_ramp_is_inside(n: int) -> None:
    mask = passband_mask(n, minimum_stride(n))
    # float32 resolves a cut-off of 50 bins to 3e-6 bins, on a ramp of 4.
    torch.testing.assert_close(mask[-1], torch.tensor(0.5), rtol=0, atol=2e-6)


def test_minimum_stride_is_one_where_the_axis_is_short_or_the_size_nominal() -> None:
    assert [minimum_stride(n) for n in range(1, 16)] == [1.0] * 15
    assert minimum_stride(16) == pytest.approx(16 / 12)
    assert minimum_stride(1000, size="nominal") == 1.0


@pytest.mark.parametrize("value", [-1e30, -1e6, -3.0, 0.0, 0.5, 1.0, 1.2, 2.5, 3.3, 7.0, 1e6, 1e9, 1e30])
@pytest.mark.parametrize("max_stride", [None, 3.3, 1e9])
def test_limited_stride_is_exact_and_lets_the_gradient_through(value: float, max_stride: float | None) -> None:
    stride = leaf(value)
    limited = limit_stride(stride, 100, max_stride=max_stride)
    low, high = minimum_stride(100), 100.0 if max_stride is None else min(max_stride, 100.0)
    expected = torch.tensor(min(max(value, low), high))
    assert limited.detach() == expected
    limited.backward()
    assert stride.grad == 1.0


def test_minimum_wins_over_a_smaller_maximum() -> None:
    assert limit_stride(torch.tensor(2.0), 100, max_stride=1.0) == torch.tensor(minimum_stride(100))


@pytest.mark.parametrize("function", [output_length, passband_mask])
def test_errors_of_values(function: Callable[..., object]) -> None:
    with pytest.raises(InputError, match=r"strides must be finite and >= 1 .* got 0\.5"):
        function(8, 0.5)
    with pytest.raises(InputError, match=r"at least 1 bin, got 0"):
        function(0, 2.0)
    with pytest.raises(InputError, match=r"size must be one of paper, nominal, folded, got 'full'"):
        function(8, 2.0, size="full")
    with pytest.raises(InputError, match=r"ramp_bins must be finite and > 0 FFT bins, got 0"):
        function(8, 2.0, ramp_bins=0)


def test_errors_of_minimum_stride_and_of_stride_tensors() -> None:
    with pytest.raises(InputError, match=r"minimum_stride: ramp_bins must be finite and > 0 FFT bins, got -1"):
        minimum_stride(8, ramp_bins=-1)
    with pytest.raises(InputError, match=r"minimum_stride: size must be one of"):
        minimum_stride(8, size="full")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"stride must be a scalar, got shape \(2,\); build one mask per axis"):
        passband_mask(8, torch.tensor([2.0, 2.0]))

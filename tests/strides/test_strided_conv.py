"""Convolution with integer strides: SciPy's correlation, of which every n-th value is kept."""

import pytest
import scipy.signal
import torch
from examples import noise_float64 as noise
from hypothesis import given, settings
from hypothesis import strategies as st

from audiostride import StridedConv2d
from audiostride.errors import InputError

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.mark.parametrize("shape", [(9, 8), (8, 9)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("kernel_size", [(3, 1), (1, 3), (5, 3), (1, 1)])
def test_it_is_every_nth_value_of_scipys_correlation(
    kernel_size: tuple[int, int], strides: tuple[int, int], shape: tuple[int, int]
) -> None:
    conv = StridedConv2d(2, 3, kernel_size, strides=strides).double()
    x = noise(1, 2, *shape)
    expected = torch.stack(
        [
            sum(
                torch.from_numpy(scipy.signal.correlate2d(x[0, i], conv.weight[o, i].detach(), mode="same"))
                for i in range(2)
            )
            + conv.bias[o].detach()  # type: ignore[index]
            for o in range(3)
        ]
    )[None, :, :: strides[0], :: strides[1]]
    # Sums of at most 30 float64 products in another order.
    torch.testing.assert_close(conv(x).detach(), expected, rtol=0, atol=1e-13)


@PROPERTY
@given(
    n=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    strides=st.tuples(st.integers(1, 25), st.integers(1, 4)),
    kernel_size=st.tuples(st.sampled_from([1, 3, 7]), st.sampled_from([1, 3])),
)
def test_output_size_is_the_size_of_the_output(
    n: tuple[int, int], strides: tuple[int, int], kernel_size: tuple[int, int]
) -> None:
    conv = StridedConv2d(1, 1, kernel_size, strides=strides)
    assert conv(torch.zeros(1, 1, *n)).shape[2:] == conv.output_size(*n)
    assert conv.output_size(*n) == tuple(-(-length // stride) for length, stride in zip(n, strides, strict=True))


def test_bias_can_be_left_out_and_whole_floats_are_strides() -> None:
    conv = StridedConv2d(1, 2, (3, 1), strides=(2.0, 1.0), bias=False)
    assert conv.bias is None
    assert conv.stride == (2, 1)
    assert conv(torch.zeros(1, 1, 4, 4)).eq(0).all()


def test_errors() -> None:
    with pytest.raises(InputError, match=r"strides must be integers, got \(1\.5, 1\); fractional strides need pooling"):
        StridedConv2d(1, 1, (3, 1), strides=(1.5, 1))
    with pytest.raises(InputError, match=r"StridedConv2d: strides must be finite and >= 1 .* got 0"):
        StridedConv2d(1, 1, (3, 1), strides=(1, 0))
    with pytest.raises(InputError, match=r"StridedConv2d: strides must have one entry per axis \(2\), got 1"):
        StridedConv2d(1, 1, (3, 1), strides=(1,))
    for kernel_size in ((2, 1), (3, 0), (3, -1)):
        with pytest.raises(InputError, match=r"kernel_size must be odd on both axes, got \("):
            StridedConv2d(1, 1, kernel_size)
    with pytest.raises(InputError, match=r"StridedConv2d: kernel_size must have one entry per axis \(2\), got 1"):
        StridedConv2d(1, 1, (3,))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"StridedConv2d.output_size: an axis must have at least 1 bin, got 0"):
        StridedConv2d(1, 1, (3, 1)).output_size(4, 0)

"""The checks of the lowest floor: what they let pass, and what they say."""

import math

import pytest

from audiostride.checks import Size, check_axes, check_bins, check_choice, check_positive, check_ramp_bins, check_stride
from audiostride.errors import InputError


def test_input_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="who: strides must be finite and >= 1"):
        check_stride("who", 0)


@pytest.mark.parametrize("stride", [1, 1.0, 1e6])
def test_strides_from_one_on_pass(stride: float) -> None:
    assert check_stride("who", stride) == stride


@pytest.mark.parametrize("stride", [0.999, 0.0, -2.0, math.inf, math.nan])
def test_other_strides_raise(stride: float) -> None:
    with pytest.raises(
        InputError, match=rf"^who: strides must be finite and >= 1 .*got {stride}; use 1 to leave an axis"
    ):
        check_stride("who", stride)


@pytest.mark.parametrize("ramp_bins", [1e-3, 4, 100.0])
def test_positive_ramps_pass(ramp_bins: float) -> None:
    assert check_ramp_bins("who", ramp_bins) == ramp_bins


@pytest.mark.parametrize("ramp_bins", [0.0, -4.0, math.inf, math.nan])
def test_other_ramps_raise(ramp_bins: float) -> None:
    with pytest.raises(
        InputError, match=rf"^who: ramp_bins must be finite and > 0 FFT bins, got {ramp_bins}; .*Spectral"
    ):
        check_ramp_bins("who", ramp_bins)


def test_bins() -> None:
    assert check_bins("who", 1) == 1
    with pytest.raises(InputError, match=r"^who: an axis must have at least 1 bin, got 0; is the input empty"):
        check_bins("who", 0)


def test_choices_of_a_literal_and_of_a_sequence() -> None:
    check_choice("who", "size", "nominal", Size)
    check_choice("who", "split", "train", ["train", "test"])
    with pytest.raises(InputError, match=r"^who: size must be one of paper, nominal, folded, got 'Paper'$"):
        check_choice("who", "size", "Paper", Size)
    with pytest.raises(InputError, match=r"^who: split must be one of train, test, got 'dev'$"):
        check_choice("who", "split", "dev", ["train", "test"])


def test_positive_names_the_value_that_is_not() -> None:
    check_positive("who", width=0.5, n_mels=64)
    with pytest.raises(InputError, match=r"^who: n_mels must be > 0, got 0$"):
        check_positive("who", width=0.5, n_mels=0)
    with pytest.raises(InputError, match=r"^who: width must be > 0, got nan$"):
        check_positive("who", width=math.nan)


def test_one_value_per_axis() -> None:
    check_axes("who", (2.0, 2.0), 2, "strides")
    with pytest.raises(InputError, match=r"^who: strides must have one entry per axis \(2\), got 1: \(2\.0,\)$"):
        check_axes("who", [2.0], 2, "strides")

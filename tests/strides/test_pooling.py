"""Pooling in the Fourier domain: against a complex DFT, SciPy, and what a signal engineer expects of a low-pass."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.signal
import torch
from examples import noise_float64 as noise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audiostride.checks import Size
from audiostride.errors import InputError
from audiostride.strides.masks import output_length, passband_mask
from audiostride.strides.matrices import fourier_pooling_matrix, pooling_matrix, spectral_output_length
from audiostride.strides.pooling import diffstride_pool, spectral_pool

SIZES: tuple[Size, ...] = ("paper", "nominal")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PROPERTY = settings(max_examples=80, deadline=None, derandomize=True)


def double(*strides: float) -> Tensor:
    """Strides in float64, so that matrices are made in float64 too."""
    return torch.tensor(strides, dtype=torch.float64)


def dft_pool(x: np.ndarray, mask: np.ndarray, n_out: int) -> np.ndarray:
    """Last axis pooled the long way: full complex DFT, signed frequencies, crop, complex inverse DFT.

    An even n_out has one Nyquist bin where the crop holds two, +n_out/2 and -n_out/2: both are put there.
    """
    n = x.shape[-1]
    spectrum = np.fft.fft(x)
    kept = np.zeros((*x.shape[:-1], n_out), dtype=complex)
    # Every frequency of the input once, with its sign: an even n has one Nyquist bin, counted as positive.
    for k in range(-((n - 1) // 2), n // 2 + 1):
        if 2 * abs(k) <= n_out:
            kept[..., k % n_out] += mask[abs(k)] * spectrum[..., k % n]
    y = np.fft.ifft(kept) * n_out / n
    assert np.abs(y.imag).max() < 1e-12  # a symmetric mask keeps real signals real
    return y.real


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9, 16, 31, 64])
def test_pooling_matrix_is_the_complex_dft_route(n: int, size: Size) -> None:
    x = noise(3, n)
    for stride in (1.0, 1.29, 2.0, 3.3, float(n)):
        stride = min(stride, float(n))
        matrix = pooling_matrix(n, double(stride), ramp_bins=2.0, size=size)
        # The least stride used: n / (n - R) from 4 R bins on, where the ramp begins at the cut-off.
        used = max(stride, n / (n - 2)) if size == "paper" and n >= 8 else stride
        mask = passband_mask(n, double(used), ramp_bins=2.0, size=size).numpy()
        expected = dft_pool(x.numpy(), mask, output_length(n, used, ramp_bins=2.0, size=size))
        # Sums of at most 64 float64 products, on both sides.
        torch.testing.assert_close(x @ matrix.T, torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [4, 7, 12])
def test_every_crop_of_any_mask_is_the_complex_dft_route(n: int) -> None:
    x, mask = noise(2, n), noise(n // 2 + 1, seed=1)
    for n_out in range(1, n + 1):
        expected = dft_pool(x.numpy(), mask.numpy(), n_out)
        # Sums of at most 12 float64 products, on both sides.
        torch.testing.assert_close(
            x @ fourier_pooling_matrix(mask[: n_out // 2 + 1], n, n_out).T,
            torch.from_numpy(expected),
            rtol=0,
            atol=1e-13,
        )


def test_matrices_of_long_axes_keep_float32_precision() -> None:
    # Phases k * t / n, up to 1024 turns: if float32 carried the turns, 1e-7 of them would be 1e-4 of a turn.
    n = 2048
    single, exact = pooling_matrix(n, 2.0, size="nominal"), pooling_matrix(n, double(2.0), size="nominal")
    assert single.dtype == torch.float32
    # An element is a mean of 512 terms below 1, each with a few roundings of 6e-8.
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=3e-7)


@PROPERTY
@given(n=st.integers(1, 40), stride=st.floats(1, 50))
def test_spectral_pooling_is_scipys_fft_resampling(n: int, stride: float) -> None:
    x = noise(2, n)
    y = spectral_pool(x, (stride,))
    n_out = max(1, math.floor(n / stride))
    assert spectral_output_length(n, stride) == n_out
    expected = torch.from_numpy(scipy.signal.resample(x.numpy(), n_out, axis=-1))
    # Sums of at most 40 float64 products, on both sides.
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("h", "w"), [(12, 9), (7, 16)])
def test_spectral_pooling_of_maps_is_scipys_fft_resampling_of_each_axis(h: int, w: int) -> None:
    x = noise(2, h, w)
    y = spectral_pool(x, (2.0, 1.5))
    assert y.shape[-2:] == (h // 2, int(w / 1.5))
    expected = scipy.signal.resample(scipy.signal.resample(x.numpy(), h // 2, axis=-2), int(w / 1.5), axis=-1)
    # Sums of at most 16 float64 products per axis, on both sides.
    torch.testing.assert_close(y, torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_stride_one_leaves_short_axes_and_spectral_pooling_alone() -> None:
    for n in range(1, 13):
        eye = torch.eye(n, dtype=torch.float64)
        # Sums of n float64 products.
        torch.testing.assert_close(pooling_matrix(n, double(1.0)), eye, rtol=0, atol=1e-14)
        torch.testing.assert_close(spectral_pool(eye, (1.0,)), eye, rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", [*SIZES, "spectral"])
def test_a_constant_stays_that_constant(size: str) -> None:
    x = torch.full((2, 3, 25, 18), -1.7, dtype=torch.float64)
    for stride in (1.0, 1.29, 2.0, 7.3, 18.0):
        strides = double(stride, stride)
        y = spectral_pool(x, (stride, stride)) if size == "spectral" else diffstride_pool(x, strides, size=size)  # type: ignore[arg-type]
        # Sums of 25 and 18 float64 products.
        torch.testing.assert_close(y, torch.full_like(y, -1.7), rtol=1e-13, atol=0)


@pytest.mark.parametrize("n", [64, 65])
def test_tones_pass_below_the_pass_edge_and_vanish_beyond_the_stop_edge(n: int) -> None:
    """Stride 2, R = 4: the paper passes up to n/4 and stops from n/4 + 4; nominal passes to n/4 - 4, stops from n/4."""
    edges: dict[Size, tuple[int, int]] = {"paper": (n // 4, n // 4 + 5), "nominal": (n // 4 - 4, n // 4 + 1)}
    for size, (last_passed, first_stopped) in edges.items():
        matrix = pooling_matrix(n, double(2.0), size=size)
        n_out = len(matrix)

        def tone(k: int, length: int) -> Tensor:
            """k periods on the axis, a phase off both cosine and sine."""
            return torch.cos(2 * math.pi * k * torch.arange(length, dtype=torch.float64) / length + 0.6)

        passed = torch.stack([matrix @ tone(k, n) for k in range(1, last_passed + 1)])
        expected = torch.stack([tone(k, n_out) for k in range(1, last_passed + 1)])
        stopped = torch.stack([matrix @ tone(k, n) for k in range(first_stopped, (n + 1) // 2)])
        assert len(passed) >= 12
        assert len(stopped) >= 10
        # Sums of 65 float64 products.
        torch.testing.assert_close(passed, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(stopped, torch.zeros_like(stopped), rtol=0, atol=1e-12)


def test_a_tone_on_the_ramp_keeps_its_share() -> None:
    # n / (2 S) = 16, R = 4: bin 18 stands in the middle of the paper's ramp.
    n, k = 64, 18
    matrix = pooling_matrix(n, double(2.0))
    y = matrix @ torch.cos(2 * math.pi * k * torch.arange(n, dtype=torch.float64) / n)
    expected = 0.5 * torch.cos(2 * math.pi * k * torch.arange(len(matrix), dtype=torch.float64) / len(matrix))
    # Sums of 64 float64 products.
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


def test_nominal_pooling_to_one_bin_is_the_mean() -> None:
    x = noise(3, 9)
    # A sum of 9 float64 products.
    torch.testing.assert_close(
        diffstride_pool(x, double(9.0), size="nominal"), x.mean(-1, keepdim=True), rtol=0, atol=1e-14
    )


def test_limits_of_the_stride() -> None:
    assert pooling_matrix(20, 9.0, size="nominal", max_stride=4.0).equal(pooling_matrix(20, 4.0, size="nominal"))
    assert pooling_matrix(20, 1e6, size="nominal").equal(pooling_matrix(20, 20.0, size="nominal"))
    assert pooling_matrix(20, torch.tensor(-3.0)).equal(pooling_matrix(20, 1.25))  # 20 / (20 - R)
    # A limit is kept to float32 for half-precision strides, too (23 / 19 is no float16).
    for dtype in (torch.float16, torch.bfloat16):
        matrix = pooling_matrix(23, torch.tensor(-3.0, dtype=dtype))
        assert matrix.dtype == torch.float32
        assert matrix.equal(pooling_matrix(23, torch.tensor(-3.0)))


@pytest.mark.parametrize("size", SIZES)
def test_short_axes_stay_finite_and_differentiable(size: Size) -> None:
    for n in range(1, 13):
        for value in (1.0, 1.5, 2.0, 3.3, float(n), 1e6):
            stride = torch.tensor(value, requires_grad=True)
            matrix = pooling_matrix(n, stride, size=size)
            # Weighted: of a plain sum only the mean is left, whose gradient is zero but for rounding.
            (torch.arange(1.0, len(matrix) + 1) @ matrix @ noise(n, dtype=torch.float32)).backward()
            assert torch.isfinite(matrix).all()
            assert stride.grad is not None
            assert torch.isfinite(stride.grad)
            assert matrix.shape == (output_length(n, value, size=size), n)
            # With one bin out nothing but the mean is left, and no stride can change that.
            assert stride.grad != 0 or len(matrix) == 1, f"n={n}, stride={value}"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(8, 9), (7, 6)])
def test_gradients(size: Size, shape: tuple[int, int]) -> None:
    x = noise(2, *shape).requires_grad_()
    strides = double(1.93, 1.61).requires_grad_()  # no bin on an edge of the ramp
    assert torch.autograd.gradcheck(lambda x, s: diffstride_pool(x, s, ramp_bins=1.7, size=size), (x, strides))
    assert torch.autograd.gradcheck(lambda x: spectral_pool(x, (1.5, 2.0)), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_stays(dtype: torch.dtype) -> None:
    exact = noise(2, 3, 13, 10)
    x = exact.to(dtype)
    # Input, matrix and map are rounded to the dtype, twice, on values up to 4: half a dozen steps of eps at 2.
    # float64 maps meet float32 matrices where the strides are float32 (6e-8 each, two matrices of 13 elements).
    atol = max(12 * torch.finfo(dtype).eps, 1e-6)
    for size in SIZES:
        y = diffstride_pool(x, torch.tensor([2.0, 1.5]), size=size)
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), diffstride_pool(exact, double(2.0, 1.5), size=size), rtol=0, atol=atol)
    y = spectral_pool(x, (2.0, 1.5))
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), spectral_pool(exact, (2.0, 1.5)), rtol=0, atol=atol)


@pytest.mark.parametrize("pool", [diffstride_pool, spectral_pool])
def test_errors_of_inputs(pool: Callable[..., Tensor]) -> None:
    name = pool.__name__  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=rf"{name}: input must have at least 2 axes, got shape \(5,\)"):
        pool(torch.ones(5), (2.0, 2.0))
    with pytest.raises(InputError, match=rf"{name}: input must be a real floating-point tensor, got torch.int64"):
        pool(torch.ones(5, dtype=torch.int64), (2.0,))
    with pytest.raises(InputError, match=rf"{name}: input must be a real floating-point tensor, got torch.complex64"):
        pool(torch.ones(5, dtype=torch.complex64), (2.0,))
    with pytest.raises(InputError, match=rf"{name}: pooled axes must not be empty, got shape \(5, 0\)"):
        pool(torch.ones(5, 0), (2.0,))
    with pytest.raises(InputError, match=r"strides must be finite and >= 1 .* got 0\.9"):
        pool(torch.ones(5), (0.9,))


def test_errors_of_values() -> None:
    with pytest.raises(InputError, match=r"pooling_matrix: an axis must have at least 1 bin, got 0"):
        pooling_matrix(0, 2.0)
    with pytest.raises(InputError, match=r"size must be one of paper, nominal, folded, got 'full'"):
        diffstride_pool(torch.ones(5), (2.0,), size="full")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"ramp_bins must be finite and > 0 FFT bins, got 0"):
        diffstride_pool(torch.ones(5), (2.0,), ramp_bins=0)
    with pytest.raises(InputError, match=r"spectral_output_length: an axis must have at least 1 bin, got 0"):
        spectral_output_length(0, 2.0)

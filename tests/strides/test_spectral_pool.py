"""Spectral pooling as layers: SciPy's FFT resampling of each axis, without parameters."""

import pytest
import scipy.signal
import torch
from examples import noise_float64 as noise
from hypothesis import given, settings
from hypothesis import strategies as st

from audiostride import SpectralPool1d, SpectralPool2d, SpectralPool3d
from audiostride.errors import InputError
from audiostride.strides.pooling import spectral_pool

Layer = type[SpectralPool1d] | type[SpectralPool2d] | type[SpectralPool3d]
LAYERS: tuple[Layer, ...] = (SpectralPool1d, SpectralPool2d, SpectralPool3d)
STRIDES = (1.7, 2.0, 1.25)
PROPERTY = settings(max_examples=80, deadline=None, derandomize=True)


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_are_scipys_fft_resampling_of_each_axis(layer: Layer) -> None:
    x, pool = noise(2, 11, 8, 10), layer(STRIDES[-layer.n_axes :])
    y = pool(x)
    lengths = pool.output_size(*x.shape[-layer.n_axes :])
    expected = x.numpy()
    for axis, length in zip(range(-layer.n_axes, 0), lengths, strict=True):
        expected = scipy.signal.resample(expected, length, axis=axis)
    assert lengths == (6, 4, 8)[-layer.n_axes :]  # 11 / 1.7 = 6.47, 8 / 2, 10 / 1.25
    assert y.shape == (*x.shape[: -layer.n_axes], *lengths)
    # Sums of at most 11 float64 products per axis, on both sides.
    torch.testing.assert_close(y, torch.from_numpy(expected), rtol=0, atol=1e-13)


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_are_the_function_and_their_matrices(layer: Layer) -> None:
    strides = STRIDES[-layer.n_axes :]
    x, pool = noise(2, 11, 8, 10), layer(strides)
    assert pool(x).equal(spectral_pool(x, strides))
    y = x
    for axis, each in enumerate(pool.axis_poolings(*x.shape[-layer.n_axes :], like=x), start=-layer.n_axes):
        y = torch.tensordot(y, each.matrix, dims=([axis], [1])).movedim(-1, axis)
    # Sums of at most 11 float64 products per axis.
    torch.testing.assert_close(pool(x), y, rtol=0, atol=1e-13)


@PROPERTY
@given(n=st.tuples(st.integers(1, 30), st.integers(1, 30)), strides=st.tuples(st.floats(1, 40), st.floats(1, 4)))
def test_output_size_is_the_size_of_the_output(n: tuple[int, int], strides: tuple[float, float]) -> None:
    pool = SpectralPool2d(strides)
    y = pool(noise(1, *n))
    assert y.shape[1:] == pool.output_size(*n)
    assert all(1 <= n_out <= n_in for n_out, n_in in zip(y.shape[1:], n, strict=True))
    assert torch.isfinite(y).all()


def test_it_is_the_hard_edge_that_diffstride_softens() -> None:
    # 20 bins at stride 2: bins 0 to 4 pass whole, the Nyquist bin 5 of the result has both halves summed, 6 is gone.
    pool, t, j = SpectralPool1d((2.0,)), torch.arange(20.0), torch.arange(10.0)
    for k in (0, 1, 4, 5):
        tone = torch.cos(2 * torch.pi * k * t / 20)
        # Float32 sums of 20 products.
        torch.testing.assert_close(pool(tone), torch.cos(2 * torch.pi * k * j / 10), rtol=0, atol=1e-5)
    assert pool(torch.cos(2 * torch.pi * 6 * t / 20)).abs().max() < 1e-5


@pytest.mark.parametrize("layer", LAYERS)
def test_no_parameters_no_state_and_the_same_in_training(layer: Layer) -> None:
    pool, x = layer(), noise(2, 9, 8, 7)
    assert len(pool.state_dict()) == 0
    assert len(list(pool.parameters())) == 0
    assert pool.train()(x).equal(pool.eval()(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_stays(dtype: torch.dtype) -> None:
    x = noise(2, 13, 10)
    y = SpectralPool2d((2.0, 1.5))(x.to(dtype))
    assert y.dtype == dtype
    # Map and matrices are rounded to the dtype, twice, on values up to 4; two matrices of at most 13 elements a row.
    atol = max(12 * torch.finfo(dtype).eps, 1e-13)
    torch.testing.assert_close(y.double(), SpectralPool2d((2.0, 1.5))(x), rtol=0, atol=atol)


def test_autocast() -> None:
    pool, x = SpectralPool2d(), noise(2, 13, 10, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = pool(x)
    assert y.dtype == torch.bfloat16
    # bfloat16 steps by 2^-8: map, matrix and result are rounded, twice, on values up to 4.
    torch.testing.assert_close(y.float(), pool(x), rtol=0, atol=12 * 2**-8)


def test_settings_are_shown() -> None:
    assert repr(SpectralPool2d((1.5, 2))) == "SpectralPool2d(strides=(1.5, 2.0))"


@pytest.mark.parametrize("layer", LAYERS)
def test_one_number_serves_all_axes(layer: Layer) -> None:
    assert layer(3).strides == layer(3.0).strides == (3.0,) * layer.n_axes
    assert layer().strides == (2.0,) * layer.n_axes


@pytest.mark.parametrize("layer", LAYERS)
def test_errors(layer: Layer) -> None:
    name, n_axes = layer.__name__, layer.n_axes
    with pytest.raises(InputError, match=rf"^{name}: strides must be finite and >= 1 .* got 0\.5"):
        layer((0.5,) * n_axes)
    with pytest.raises(InputError, match=rf"^{name}: strides must have one entry per axis \({n_axes}\), got 4"):
        layer((2.0,) * 4)
    with pytest.raises(
        InputError, match=rf"^{name}.output_size: sizes must have one entry per axis \({n_axes}\), got 5"
    ):
        layer().output_size(8, 8, 8, 8, 8)
    with pytest.raises(InputError, match=rf"^{name}: pooled axes must not be empty, got shape \(2, 0, 0, 0\)"):
        layer()(torch.ones(2, 0, 0, 0))
    with pytest.raises(InputError, match=rf"^{name}: input must be a real floating-point tensor, got torch.int64"):
        layer()(torch.ones(8, 8, 8, dtype=torch.int64))
    with pytest.raises(InputError, match=rf"^{name}: input must have at least {n_axes} axes, got shape \(\)"):
        layer()(torch.tensor(1.0))

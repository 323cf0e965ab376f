"""The DiffStride layers: sizes, state, dtypes, learning."""

import copy
import inspect
import io
from typing import Any, get_args

import numpy as np
import pytest
import torch
from examples import noise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from audiostride import DiffStride1d, DiffStride2d, DiffStride3d, Encoder
from audiostride.checks import Size
from audiostride.errors import InputError
from audiostride.strides.masks import minimum_stride, output_length, passband_mask
from audiostride.strides.matrices import pooling_matrix
from audiostride.strides.pooling import diffstride_pool

SIZES: tuple[Size, ...] = ("paper", "nominal")
PROPERTY = settings(max_examples=100, deadline=None, derandomize=True)


@torch.no_grad()
def layer_at(*strides: float, layer: type[DiffStride2d] = DiffStride2d, **settings: object) -> DiffStride2d:
    """A layer whose parameter was moved, by an optimizer say, to any values."""
    made = layer(**settings)  # type: ignore[arg-type]
    made.strides.copy_(torch.tensor(strides))
    return made


@pytest.mark.parametrize("size", SIZES)
def test_layers_are_the_function(size: Size) -> None:
    x = noise(2, 3, 9, 12, 10)
    assert DiffStride1d((1.7,), size=size, ramp_bins=3.0)(x).equal(
        diffstride_pool(x, torch.tensor([1.7]), size=size, ramp_bins=3.0)
    )
    assert DiffStride2d((2.0, 1.7), size=size, max_stride=1.9)(x).equal(
        diffstride_pool(x, torch.tensor([2.0, 1.7]), size=size, max_stride=1.9)
    )
    assert DiffStride3d((2.0, 1.7, 3.1), size=size)(x).equal(
        diffstride_pool(x, torch.tensor([2.0, 1.7, 3.1]), size=size)
    )


@PROPERTY
@given(
    n=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    strides=st.tuples(st.floats(-5, 50, width=32), st.floats(1, 4, width=32)),
    ramp_bins=st.floats(0.25, 8, width=32),
    size=st.sampled_from(SIZES),
    max_stride=st.none() | st.floats(1, 10, width=32),
)
def test_output_size_is_the_size_of_the_output(
    n: tuple[int, int], strides: tuple[float, float], ramp_bins: float, size: Size, max_stride: float | None
) -> None:
    layer = layer_at(*strides, ramp_bins=ramp_bins, size=size, max_stride=max_stride)
    y = layer(noise(1, *n))
    assert y.shape[1:] == layer.output_size(*n)
    assert all(isinstance(length, int) for length in layer.output_size(*n))
    assert all(1 <= n_out <= n_in for n_out, n_in in zip(layer.output_size(*n), n, strict=True))
    assert torch.isfinite(y).all()
    # The function, which reads the sizes from the strides itself, agrees.
    pooled = diffstride_pool(noise(1, *n), layer.strides, ramp_bins=ramp_bins, size=size, max_stride=max_stride)
    assert pooled.equal(y)


def test_used_strides_are_within_their_limits() -> None:
    assert layer_at(-3.0, 1e6).used_strides(100, 64) == (100 / 96, 64.0)
    assert layer_at(-3.0, 1e6, size="nominal").used_strides(100, 64) == (1.0, 64.0)
    assert layer_at(-3.0, 1e6, max_stride=4.0).used_strides(8, 64) == (1.0, 4.0)
    assert layer_at(2.5, 1.5).used_strides(100, 64) == (2.5, 1.5)


def test_a_shared_stride_is_one_parameter_for_all_axes() -> None:
    shared = DiffStride3d((1.7, 1.7, 1.7), shared=True)
    apart = DiffStride3d((1.7, 1.7, 1.7))
    x = noise(2, 9, 12, 10)
    assert shared.strides.shape == (1,)
    assert apart.strides.shape == (3,)
    assert shared(x).equal(apart(x))
    assert shared.output_size(9, 12, 10) == apart.output_size(9, 12, 10)
    weights = noise(*shared(x).shape)
    (shared(x) * weights).sum().backward()
    (apart(x) * weights).sum().backward()
    assert shared.strides.grad is not None
    assert apart.strides.grad is not None
    # Two float32 sums of the same three numbers.
    torch.testing.assert_close(shared.strides.grad, apart.strides.grad.sum(0, keepdim=True), rtol=1e-5, atol=0)
    assert DiffStride2d((1.5, 1.5), shared=True).strides.tolist() == [1.5]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_forward_writes_no_state(size: Size, shared: bool) -> None:
    strides = (0.5,) if shared else (0.5, 1e6)  # both beyond their limits
    layer = layer_at(*strides, size=size, strides=(2.0, 2.0), shared=shared)
    assert list(layer.state_dict()) == ["strides"]
    before = copy.deepcopy(layer.state_dict())
    for mode in (True, False):
        layer.train(mode)
        reference = layer(noise(2, 40, 20))
        for shape in ((4, 4), (1, 1), (3, 100)):  # maps of R bins and fewer, and back again
            layer(noise(2, *shape)).sum().backward()
        assert layer.state_dict()["strides"].equal(before["strides"])
        assert layer(noise(2, 40, 20)).equal(reference)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_in_other_dtypes(dtype: torch.dtype) -> None:
    layer, x = DiffStride2d((2.0, 1.5), size="nominal"), noise(2, 13, 10)
    expected = layer(x)
    result = layer.to(dtype)(x.to(dtype))
    assert layer.strides.dtype == dtype
    assert result.dtype == dtype
    # Maps and matrices are rounded to the dtype, twice, on values up to 4; float64 meets the float32 of the reference.
    torch.testing.assert_close(result.float(), expected, rtol=0, atol=max(12 * torch.finfo(dtype).eps, 2e-6))


def test_autocast() -> None:
    layer, x = DiffStride2d((2.0, 1.5), size="nominal"), noise(2, 3, 13, 10)
    expected, matrices = layer(x), [each.matrix for each in layer.axis_poolings(13, 10)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = layer(x)
        inside = [each.matrix for each in layer.axis_poolings(13, 10)]
    assert result.dtype == torch.bfloat16
    assert [matrix.dtype for matrix in inside] == [torch.float32] * 2
    assert all(a.equal(b) for a, b in zip(inside, matrices, strict=True))
    # bfloat16 steps by 2^-8: map, matrix and result are rounded, twice, on values up to 4.
    torch.testing.assert_close(result.float(), expected, rtol=0, atol=12 * 2**-8)
    result.float().square().sum().backward()
    assert layer.strides.grad is not None
    assert torch.isfinite(layer.strides.grad).all()
    assert (layer.strides.grad != 0).all()


def test_models_made_in_inference_mode() -> None:
    with torch.inference_mode():
        layer = DiffStride2d(size="nominal")
        assert layer(noise(2, 8, 6)).shape == (2, 4, 3)


def test_copies_and_saved_models_pool_alike() -> None:
    layer, x = layer_at(1.7, 2.4), noise(2, 12, 10)
    expected = layer(x)
    assert copy.deepcopy(layer)(x).equal(expected)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other = DiffStride2d()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert other(x).equal(expected)


def test_moving_the_parameter_moves_the_sizes() -> None:
    layer = nn.Sequential(DiffStride1d((2.0,), size="nominal"))
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    assert layer(noise(1, 12)).shape[-1] == 6
    layer[0].strides.grad = torch.tensor([-1.0])
    optimizer.step()
    assert layer(noise(1, 12)).shape[-1] == 4


def test_settings_are_shown() -> None:
    shown = repr(DiffStride2d((1.5, 2.0), ramp_bins=3, size="nominal"))
    assert shown == "DiffStride2d(strides=(1.5, 2), ramp_bins=3, size='nominal', shared=False)"


@pytest.mark.parametrize("layer", [DiffStride1d, DiffStride2d, DiffStride3d])
def test_errors_of_settings(layer: type[DiffStride2d]) -> None:
    name = layer.__name__
    with pytest.raises(
        InputError, match=rf"^{name}: strides must be finite and >= 1 .* got 0\.5; use 1 to leave an axis"
    ):
        layer((0.5,) * layer.n_axes)
    with pytest.raises(InputError, match=rf"^{name}: strides must have one entry per axis \({layer.n_axes}\), got 4"):
        layer((2.0,) * 4)
    with pytest.raises(InputError, match=rf"^{name}: ramp_bins must be finite and > 0 FFT bins, got 0"):
        layer(ramp_bins=0)
    with pytest.raises(InputError, match=rf"^{name}: size must be one of paper, nominal, folded, got 'full'"):
        layer(size="full")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"^{name}: strides must be finite and >= 1 .* got 0\.9"):
        layer(max_stride=0.9)


def test_errors_of_shared_strides_sizes_and_inputs() -> None:
    with pytest.raises(InputError, match=r"strides must be equal on all axes when shared, got \(2\.0, 1\.5\)"):
        DiffStride2d((2.0, 1.5), shared=True)
    layer = DiffStride2d()
    with pytest.raises(InputError, match=r"DiffStride2d.used_strides: sizes must have one entry per axis \(2\), got 1"):
        layer.output_size(8)
    with pytest.raises(
        InputError, match=r"DiffStride2d.project_strides_: sizes must have one entry per axis \(2\), got 3"
    ):
        layer.project_strides_(8, 8, 8)
    with pytest.raises(InputError, match=r"at least 1 bin, got 0"):
        layer.output_size(8, 0)
    with pytest.raises(InputError, match=r"DiffStride2d: input must have at least 2 axes, got shape \(8,\)"):
        layer(torch.ones(8))
    with pytest.raises(InputError, match=r"DiffStride2d: input must be a real floating-point tensor, got torch.int64"):
        layer(torch.ones(8, 8, dtype=torch.int64))
    with pytest.raises(InputError, match=r"DiffStride2d: pooled axes must not be empty, got shape \(8, 0\)"):
        layer(torch.ones(8, 0))


@pytest.mark.parametrize("layer", [DiffStride1d, DiffStride2d, DiffStride3d])
def test_one_number_serves_all_axes(layer: type[DiffStride2d]) -> None:
    n = layer.n_axes
    for number in (3.0, 3, np.int64(3)):
        assert layer(number).strides.tolist() == [3.0] * n  # type: ignore[arg-type]
        assert layer(number, shared=True).strides.tolist() == [3.0]  # type: ignore[arg-type]
    assert layer().strides.tolist() == [2.0] * n
    shown = inspect.signature(layer).parameters
    assert list(shown) == ["strides", "ramp_bins", "size", "shared", "max_stride"]
    assert all(shown[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(shown)[1:])


def test_a_ramp_of_none_is_the_same_wherever_it_is_given() -> None:
    x = noise(2, 40)
    bins: dict[Any, float] = {"paper": 4.0, "nominal": 4.0, "folded": 8.0}
    assert set(bins) == set(get_args(Size))
    for size, ramp_bins in bins.items():
        layer = DiffStride1d(2.3, size=size)
        assert layer.axes[0].ramp_bins == ramp_bins
        for options in ({}, {"ramp_bins": None}):
            expected = pooling_matrix(40, 2.3, ramp_bins=ramp_bins, size=size)
            torch.testing.assert_close(pooling_matrix(40, 2.3, size=size, **options), expected, rtol=0, atol=0)
            torch.testing.assert_close(diffstride_pool(x, [2.3], size=size, **options), layer(x), rtol=0, atol=0)
            mask = passband_mask(40, 2.3, ramp_bins=ramp_bins, size=size)
            assert passband_mask(40, 2.3, size=size, **options).equal(mask)
            assert output_length(40, 2.3, size=size, **options) == layer.output_size(40)[0]
            assert (minimum_stride(40, size=size, **options), 40.0) == layer.axes[0].limits(40)
        # Twice the ramp, another mask.
        assert not passband_mask(40, 2.3, ramp_bins=2 * ramp_bins, size=size).equal(mask)
    mixed = DiffStride2d(size=("nominal", "folded"))
    assert [axis.ramp_bins for axis in mixed.axes] == [4.0, 8.0]
    assert [axis.ramp_bins for axis in DiffStride2d(size="folded", ramp_bins=(None, 3.0)).axes] == [8.0, 3.0]
    for size in bins:
        pool = Encoder(size=size, width=0.05).block_list()[0].pool
        assert isinstance(pool, DiffStride2d)
        assert [axis.ramp_bins for axis in pool.axes] == [bins[size]] * 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("size", SIZES)
def test_devices_agree(size: Size) -> None:
    layer, x = DiffStride2d((2.0, 1.5), size=size), noise(2, 3, 40, 30)
    on_gpu = copy.deepcopy(layer).cuda()
    for _ in range(2):  # before and after a step, which moves the sizes that are kept on the host
        expected = layer(x)
        result = on_gpu(x.cuda())
        assert result.is_cuda
        assert result.shape[-2:] == on_gpu.output_size(40, 30) == layer.output_size(40, 30)
        # Float32 sums of 40 and 30 products in another order.
        torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=1e-4)
        for each, y in ((layer, expected), (on_gpu, result)):
            each.strides.grad = None
            y.square().mean().backward()
            with torch.no_grad():
                each.strides += 1.0
            each.project_strides_(40, 30)
        assert layer.strides.grad is not None
        assert on_gpu.strides.grad is not None
        torch.testing.assert_close(on_gpu.strides.grad.cpu(), layer.strides.grad, rtol=1e-3, atol=1e-5)


def test_settings_of_each_axis() -> None:
    layer = DiffStride2d((1.7, 2.4), size=("nominal", "folded"), ramp_bins=(3.0, 8.0), max_stride=(1.5, None))
    x = noise(2, 25, 16)
    time = diffstride_pool(x.mT, torch.tensor([1.7]), size="nominal", ramp_bins=3.0, max_stride=1.5).mT
    # Float32 sums of 25 and 16 products.
    torch.testing.assert_close(
        layer(x), diffstride_pool(time, torch.tensor([2.4]), size="folded", ramp_bins=8.0), rtol=0, atol=1e-5
    )
    assert layer.used_strides(25, 16)[0] == 1.5
    assert layer.output_size(25, 16) == (17, 7)
    assert repr(layer).endswith("ramp_bins=(3, 8), size=('nominal', 'folded'), shared=False)")
    with pytest.raises(InputError, match=r"DiffStride2d: size must have one entry per axis \(2\), got 3"):
        DiffStride2d(size=("paper",) * 3)
    with pytest.raises(InputError, match=r"DiffStride2d: strides must be finite and >= 1 .* got 0.5"):
        DiffStride2d(max_stride=(2.0, 0.5))

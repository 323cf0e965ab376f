"""Gradients of pooling, written by hand in the package, against autograd through its matrices and differences."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from examples import noise_float64 as noise
from torch import Tensor

from audiostride import DiffStride2d
from audiostride.checks import Size
from audiostride.strides.masks import output_length
from audiostride.strides.matrices import AxisPooling, axis_pooling, pooling_matrix
from audiostride.strides.pooling import diffstride_pool, spectral_pool

SIZES: tuple[Size, ...] = get_args(Size)
DTYPES = (torch.bfloat16, torch.float32, torch.float64)
STRIDES = (1.3, 1.93, 2.6)
# The last one's second axis is long enough for the derivative of its matrix to be applied as two thin ones.
SHAPES = ((3, 12), (2, 3, 13), (12, 9), (2, 3, 11, 10), (7, 8, 9), (2, 6, 11, 16), (2, 90, 11))


def double(*strides: float) -> Tensor:
    """Strides in float64, so that matrices are made in float64 too."""
    return torch.tensor(strides, dtype=torch.float64)


def matrix_pool(x: Tensor, strides: Tensor, *, ramp_bins: float = 4.0, size: Size = "paper") -> Tensor:
    """Pooling that autograd goes through: a matrix made from the stride, and an einsum."""
    for axis, stride in enumerate(strides, start=-len(strides)):
        matrix = pooling_matrix(x.shape[axis], stride, ramp_bins=ramp_bins, size=size)
        x = torch.einsum("jt,...t->...j", matrix, x.movedim(axis, -1)).movedim(-1, axis)
    return x


def gradients(pool: Callable[..., Tensor], x: Tensor, strides: Tensor, **settings: object) -> tuple[Tensor, ...]:
    """The result, and the gradients of a weighted sum of it in the input and in the strides."""
    inputs = x.detach().requires_grad_(), strides.detach().clone().requires_grad_()
    y = pool(*inputs, **settings)
    weights = noise(*y.shape, dtype=y.dtype, seed=1)
    return y.detach(), *torch.autograd.grad((y * weights).sum(), inputs)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("n", "thin"), [(12, False), (100, True)])
def test_the_derivative_is_applied_in_the_form_that_takes_fewer_products(n: int, thin: bool, size: Size) -> None:
    stride = torch.tensor(2.1, dtype=torch.float64, requires_grad=True)
    n_out = output_length(n, 2.1, ramp_bins=4.0, size=size)
    pooling = axis_pooling(n, stride, n_out, ramp_bins=4.0, size=size)
    assert isinstance(pooling, AxisPooling)
    assert pooling.analysis is not None
    assert (pooling.synthesis is not None) == thin
    derivative = pooling.analysis if pooling.synthesis is None else pooling.synthesis @ pooling.analysis
    expected = torch.autograd.functional.jacobian(
        lambda value: pooling_matrix(n, value, ramp_bins=4.0, size=size), stride.detach()
    )
    torch.testing.assert_close(derivative, expected)


def by_fft(monkeypatch: pytest.MonkeyPatch, always: bool) -> None:
    """Send axes of every length through the FFT, or none."""
    monkeypatch.setattr("audiostride.strides.matrices.LONG_AXIS", 1 if always else 10**9)


@pytest.mark.parametrize("ramp_bins", [0.7, 2.0, 4.0])
@pytest.mark.parametrize(("shape", "n_axes"), [(shape, n) for shape in SHAPES for n in (1, 2, 3) if n <= len(shape)])
@pytest.mark.parametrize("size", SIZES)
def test_gradients_are_those_through_the_matrices(
    size: Size, n_axes: int, shape: tuple[int, ...], ramp_bins: float
) -> None:
    for strides in (double(*STRIDES[:n_axes]), double(*[1.0] * n_axes), double(*[40.0] * n_axes)):
        ours = gradients(diffstride_pool, noise(*shape), strides, ramp_bins=ramp_bins, size=size)
        theirs = gradients(matrix_pool, noise(*shape), strides, ramp_bins=ramp_bins, size=size)
        for name, a, b in zip(("result", "input", "strides"), ours, theirs, strict=True):
            # Sums of at most 2 * 6 * 11 * 16 float64 products in another order, slopes of the mask up to 8 / R.
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("n", range(1, 13))
@pytest.mark.parametrize("size", SIZES)
def test_gradients_of_short_axes_are_those_through_the_matrices(size: Size, n: int) -> None:
    for stride in (0.5, 1.0, 1.5, 2.0, 3.3, 0.9 * n, n, 3.0 * n):  # beyond the limits, too
        ours = gradients(diffstride_pool, noise(2, n), double(stride), ramp_bins=2.0, size=size)
        theirs = gradients(matrix_pool, noise(2, n), double(stride), ramp_bins=2.0, size=size)
        for a, b in zip(ours, theirs, strict=True):
            # Sums of at most 12 float64 products.
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12, msg=lambda text, s=stride: f"stride {s}: {text}")


@pytest.mark.parametrize("size", SIZES)
def test_gradients_of_views(size: Size) -> None:
    views = {
        "channels last": noise(2, 3, 11, 10).contiguous(memory_format=torch.channels_last),
        "channels last 3d": noise(2, 3, 7, 6, 9).contiguous(memory_format=torch.channels_last_3d),
        "permuted": noise(11, 3, 10, 2).permute(3, 1, 0, 2),
        "strided": noise(2, 3, 22, 20)[..., ::2, 1::2],
        "expanded": noise(1, 1, 11, 10).expand(2, 3, -1, -1),
        "reversed axes": noise(9, 8, 7).permute(2, 1, 0),
    }
    for name, view in views.items():
        assert not view.is_contiguous(), name
        for n_axes in (1, 2, 3):
            strides = double(*STRIDES[:n_axes])
            ours = gradients(diffstride_pool, view, strides, ramp_bins=2.0, size=size)
            theirs = gradients(matrix_pool, view.contiguous(), strides, ramp_bins=2.0, size=size)
            for a, b in zip(ours, theirs, strict=True):
                # Sums of at most 2 * 3 * 7 * 6 * 9 float64 products in another order.
                torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("fft", [False, True])
@pytest.mark.parametrize("shape", [(8, 9), (7, 6), (6, 5, 6)])
@pytest.mark.parametrize("size", SIZES)
def test_gradients_are_those_of_differences(
    size: Size, shape: tuple[int, ...], fft: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_fft(monkeypatch, fft)
    x = noise(*shape).requires_grad_()
    for n_axes in (1, 2, 3):
        if n_axes <= len(shape):
            # No bin on an edge of the ramp, no cut-off below the first bin or beyond the last.
            strides = double(*(1.93, 1.61, 1.37)[:n_axes]).requires_grad_()
            assert torch.autograd.gradcheck(lambda x, s: diffstride_pool(x, s, ramp_bins=1.7, size=size), (x, strides))
    assert torch.autograd.gradcheck(lambda x: spectral_pool(x, (1.5, 2.0)), x)


@pytest.mark.parametrize("fft", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_gradient_of_either_alone(size: Size, fft: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    by_fft(monkeypatch, fft)
    x, strides = noise(2, 11, 10), double(1.7, 2.3)
    _, for_x, for_strides = gradients(diffstride_pool, x, strides, size=size)
    weights = noise(*diffstride_pool(x, strides, size=size).shape, seed=1)

    alone = x.clone().requires_grad_()
    (diffstride_pool(alone, strides, size=size) * weights).sum().backward()
    # A fixed stride takes another path; sums of at most 11 float64 products.
    torch.testing.assert_close(alone.grad, for_x, rtol=1e-13, atol=1e-13)

    learned = strides.clone().requires_grad_()
    (diffstride_pool(x, learned, size=size) * weights).sum().backward()
    assert learned.grad is not None
    assert learned.grad.equal(for_strides)

    # One axis of two: the other's entry is a constant.
    first = strides[0].clone().requires_grad_()
    mixed = torch.stack([first, strides[1]])
    (diffstride_pool(x, mixed, size=size) * weights).sum().backward()
    torch.testing.assert_close(first.grad, for_strides[0], rtol=1e-13, atol=0)
    assert not diffstride_pool(x, strides, size=size).requires_grad


@pytest.mark.parametrize("fft", [False, True])
@pytest.mark.parametrize("wanted", ["input", "strides"])
def test_a_second_derivative_is_an_error(wanted: str, fft: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    by_fft(monkeypatch, fft)
    x, strides = noise(2, 11, 10).requires_grad_(), double(1.7, 2.3).requires_grad_()
    loss = diffstride_pool(x, strides).square().sum()
    (first,) = torch.autograd.grad(loss, x if wanted == "input" else strides, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_operations_in_place_on_the_result() -> None:
    strides = double(1.7, 2.3)
    x = {
        "plain": noise(2, 3, 11, 10),
        "channels last": noise(2, 3, 11, 10).contiguous(memory_format=torch.channels_last),
    }
    in_place: dict[str, Callable[[Tensor], Tensor]] = {
        "relu_": lambda y: y.relu_(),
        "+=": lambda y: y.__iadd__(y.detach().square()),
        "mul_": lambda y: y.mul_(3.0),
        "index": lambda y: y.index_fill_(-1, torch.tensor([0]), 0.5),
    }
    elsewhere: dict[str, Callable[[Tensor], Tensor]] = {
        "relu_": lambda y: y.relu(),
        "+=": lambda y: y + y.detach().square(),
        "mul_": lambda y: y * 3.0,
        "index": lambda y: y.index_fill(-1, torch.tensor([0]), 0.5),
    }
    for layout, values in x.items():
        for name, operation in in_place.items():
            ours = gradients(lambda x, s, op=operation: op(diffstride_pool(x, s)), values, strides)
            theirs = gradients(lambda x, s, op=elsewhere[name]: op(matrix_pool(x, s)), values, strides)
            for a, b in zip(ours, theirs, strict=True):
                # Sums of at most 2 * 3 * 11 * 10 float64 products in another order.
                torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11, msg=lambda t, n=(layout, name): f"{n}: {t}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 12, 33, 64])
@pytest.mark.parametrize("size", SIZES)
def test_the_fft_is_the_matrix(size: Size, n: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = set()
    x = noise(3, n, 4, dtype=dtype).movedim(1, -1)
    accuracy = torch.promote_types(dtype, torch.float32)
    for stride in (1.0, 1.13, 1.3, 1.5, 1.93, 2.0, 2.6, 4.0, n, 2.0 * n):
        strides = torch.tensor([stride], dtype=accuracy)
        by_fft(monkeypatch, True)
        fast = gradients(diffstride_pool, x, strides, ramp_bins=2.0, size=size)
        by_fft(monkeypatch, False)
        plain = gradients(diffstride_pool, x, strides, ramp_bins=2.0, size=size)
        lengths.add(fast[0].shape[-1])
        assert fast[0].dtype == plain[0].dtype == dtype
        # Map, matrix and result are rounded to the dtype, on values up to 4; sums of at most 64 products.
        atol = 16 * torch.finfo(dtype).eps
        for a, b in zip(fast[:2], plain[:2], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=atol, msg=lambda text, s=stride: f"stride {s}: {text}")
        # The stride's gradient sums 12 * n products of that rounding, with slopes of n / (2 S^2 R).
        scale = math.sqrt(12 * n) * n / (4 * min(max(stride, 1.0), n) ** 2) + 1
        torch.testing.assert_close(
            fast[2], plain[2], rtol=0, atol=atol * scale, msg=lambda text, s=stride: f"stride {s}: {text}"
        )
    assert n < 8 or {length % 2 for length in lengths} == {0, 1}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_fft_is_the_matrix_in_spectral_pooling(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = set()
    for n in (1, 2, 3, 8, 9, 12, 33, 64):
        for stride in (1.0, 1.3, 1.93, 2.0, 2.6, 4.0, n, 2.0 * n):
            results = []
            for fft in (True, False):
                by_fft(monkeypatch, fft)
                x = noise(3, 4, n, dtype=dtype).requires_grad_()
                y = spectral_pool(x, (stride,))
                assert y.dtype == dtype
                (y * noise(*y.shape, dtype=dtype, seed=1)).sum().backward()
                results.append((y.detach(), x.grad))
            lengths.add((n % 2, results[0][0].shape[-1] % 2))
            for a, b in zip(*results, strict=True):
                # Map, matrix and result are rounded to the dtype, on values up to 4; sums of at most 64 products.
                torch.testing.assert_close(a, b, rtol=0, atol=16 * torch.finfo(dtype).eps)
    assert len(lengths) == 4


@pytest.mark.parametrize("size", SIZES)
def test_little_is_kept_for_the_backward_pass(size: Size) -> None:
    layer, x = DiffStride2d((2.0, 2.0), size=size), noise(8, 16, 100, 64, dtype=torch.float32)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = layer(x.requires_grad_())
    saved = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert y.requires_grad
    assert x.untyped_storage().data_ptr() not in kept
    # Of each axis: its matrix, a thin factor of it, and 2 (R + 1) = 10 rows instead of its 64 or 100 bins.
    assert 0 < saved < x.untyped_storage().nbytes() / 3

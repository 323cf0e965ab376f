"""The strides while they are learned: limits, gradients, and the cost of eq. 6."""

import pytest
import torch
from examples import noise
from torch import Tensor, nn

from audiostride import DiffStride1d, DiffStride2d, DiffStride3d, stride_cost
from audiostride.checks import Size
from audiostride.strides.diffstride import read_strides_

SIZES: tuple[Size, ...] = ("paper", "nominal")


@torch.no_grad()
def move_strides_(layer: DiffStride1d | DiffStride2d, *strides: float) -> None:
    """Move the parameter to any values, as an optimizer may."""
    layer.strides.copy_(torch.tensor(strides))


def layer_at(*strides: float, **settings: object) -> DiffStride2d:
    """A layer whose parameter was moved to any values."""
    layer = DiffStride2d(**settings)  # type: ignore[arg-type]
    move_strides_(layer, *strides)
    return layer


@pytest.mark.parametrize("value", [-1e30, -1.0, 0.0, 0.5, 1.0, 1.7, 5.0, 1e6, 1e30])
def test_projection_moves_the_parameter_to_the_strides_that_are_used(value: float) -> None:
    for size in SIZES:
        for max_stride in (None, 4.0):
            for n in ((1, 1), (4, 12), (16, 100), (2, 5)):
                layer = layer_at(value, 2.0, size=size, max_stride=max_stride)
                used, x = layer.used_strides(*n), noise(1, *n)
                before = layer(x)
                layer.project_strides_(*n)
                projected = layer.strides.tolist()
                # float32 keeps a limit to 6e-8 of it.
                assert projected == pytest.approx(used, rel=1e-7)
                torch.testing.assert_close(layer(x), before, rtol=0, atol=1e-5)  # the same up to that rounding
                layer.project_strides_(*n)
                assert layer.strides.tolist() == projected


def test_projection_without_sizes_knows_one_and_the_maximum() -> None:
    for value, projected in ((-1e30, 1.0), (0.5, 1.0), (1.0, 1.0), (1.7, 1.7), (1e6, 1e6)):
        layer = layer_at(value, 2.0)
        layer.project_strides_()
        assert layer.strides.tolist() == torch.tensor([projected, 2.0]).tolist()
    layer = layer_at(0.5, 1e6, max_stride=4.0)
    layer.project_strides_()
    assert layer.strides.tolist() == [1.0, 4.0]


def test_projection_of_a_shared_stride_obeys_the_tightest_axis() -> None:
    layer = layer_at(0.5, strides=(2.0, 2.0), shared=True)
    layer.project_strides_(16, 100)
    assert layer.strides.tolist() == torch.tensor([16 / 12]).tolist()
    layer = layer_at(1e6, strides=(2.0, 2.0), shared=True)
    layer.project_strides_(16, 100)
    assert layer.strides.tolist() == [16.0]


def test_projection_keeps_the_parameter_and_its_gradient() -> None:
    layer = layer_at(0.5, 2.0)
    parameter = layer.strides
    layer(noise(1, 20, 20)).square().sum().backward()
    assert parameter.grad is not None
    gradient = parameter.grad.clone()
    layer.project_strides_(20, 20)
    assert layer.strides is parameter
    assert parameter.requires_grad
    assert parameter.grad.equal(gradient)


def passed_tones(layer: DiffStride1d, n: int) -> Tensor:
    """How much of a cosine at each bin comes out as the cosine at that bin, summed over the bins."""
    matrix = layer(torch.eye(n)).mT  # its columns are what unit impulses become
    k = torch.arange(len(matrix) // 2 + 1)[:, None]
    tones_in = (2 * torch.pi / n * k * torch.arange(n)).cos()
    tones_out = (2 * torch.pi / len(matrix) * k * torch.arange(len(matrix))).cos()
    return (tones_out @ matrix @ tones_in.T).trace()


@pytest.mark.parametrize("n", [5, 8, 20])
@pytest.mark.parametrize("size", SIZES)
def test_a_stride_at_or_beyond_its_limit_comes_back(size: Size, n: int) -> None:
    # At stride n the nominal size leaves one bin, the mean: see the next test.
    largest = 5.0 * n if size == "paper" else 0.95 * n
    for start in (0.5, 1.0):
        layer = DiffStride1d(size=size)
        move_strides_(layer, start)
        passed_tones(layer, n).backward()
        assert layer.strides.grad is not None
        assert layer.strides.grad < 0, start  # to pass less, a step down the gradient raises the stride
    for start in (0.9 * n, largest):
        layer = DiffStride1d(size=size)
        move_strides_(layer, start)
        (-passed_tones(layer, n)).backward()
        assert layer.strides.grad is not None
        assert layer.strides.grad > 0, start  # to pass more, a step down the gradient lowers it


@pytest.mark.parametrize("n", [2, 5, 8])
@pytest.mark.parametrize("stride", [1.0, 7.0])
def test_a_stride_that_leaves_only_the_mean_comes_back(n: int, stride: float) -> None:
    layer = DiffStride1d((stride * n,), size="nominal")
    x = 1 + torch.cos(2 * torch.pi * torch.arange(n) / n)
    pooled = layer(x)
    torch.testing.assert_close(pooled, torch.ones(1))  # the mean, without what the gradient is let through by
    (-pooled).sum().backward()
    assert layer.strides.grad is not None
    assert layer.strides.grad > 0  # to pass more, a step down the gradient lowers it


@pytest.mark.parametrize("size", SIZES)
def test_a_stride_is_learned(size: Size) -> None:
    """Starting from a pass band that loses a tone, plain gradient steps widen it until the tone is there."""
    n, k = 64, 9
    x = torch.cos(2 * torch.pi * k * torch.arange(n) / n)
    layer = DiffStride1d((3.2,), size=size)  # n / (2 S) = 10 bins: the nominal ramp reaches from 6 to 10
    if size == "paper":
        layer = DiffStride1d((5.0,))  # 6.4 bins: the paper's ramp reaches from 6.4 to 10.4
    first = layer(x).square().mean()
    for _ in range(60):
        loss = (0.5 - layer(x).square().mean()).square()  # a whole tone has the mean square 1/2
        loss.backward()
        with torch.no_grad():
            layer.strides -= layer.strides.grad  # type: ignore[operator]
        layer.strides.grad = None
        layer.project_strides_(n)
    last = layer(x).square().mean()
    assert first < 0.1
    assert last > 0.45


def test_stride_cost_is_the_sum_of_the_kept_shares() -> None:
    # Riad et al. 2022, eq. 6: the sum over the layers of 1 / (S_h S_w).
    model = nn.Sequential(DiffStride2d((2.0, 4.0)), nn.ReLU(), nn.Sequential(DiffStride2d((1.25, 1.0))))
    assert stride_cost(model).shape == ()
    assert float(stride_cost(model).detach()) == pytest.approx(1 / 8 + 1 / 1.25)
    assert float(stride_cost(DiffStride1d((4.0,))).detach()) == 0.25
    assert float(stride_cost(DiffStride3d((2.0, 4.0, 2.0))).detach()) == 1 / 16


def test_stride_cost_of_a_shared_stride_and_of_a_layer_used_twice() -> None:
    shared = DiffStride2d((2.0, 2.0), shared=True)
    stride_cost(shared).backward()
    assert float(stride_cost(shared).detach()) == 0.25
    assert shared.strides.grad is not None
    assert shared.strides.grad.tolist() == [-2 / 2.0**3]
    # Main branch and shortcut of a residual block share one layer.
    block = nn.ModuleDict({"main": shared, "shortcut": shared})
    assert float(stride_cost(block).detach()) == 0.25


def test_gradient_of_the_stride_cost() -> None:
    layer = DiffStride2d((2.0, 4.0))
    stride_cost(layer).backward()
    assert layer.strides.grad is not None
    assert layer.strides.grad.tolist() == [-1 / (2.0**2 * 4.0), -1 / (2.0 * 4.0**2)]


def test_stride_cost_without_layers_is_zero() -> None:
    for model in (nn.Linear(2, 2), nn.ReLU()):
        assert stride_cost(model).tolist() == 0.0


def test_reading_the_strides_changes_nothing() -> None:
    model = nn.Sequential(DiffStride2d((1.7, 2.4)), nn.ReLU(), DiffStride2d((1.5, 1.5), shared=True))
    before, x = {name: value.clone() for name, value in model.state_dict().items()}, noise(2, 20, 20)
    expected = model(x)
    read_strides_(model)
    read_strides_(nn.ReLU())
    assert list(model.state_dict()) == list(before) == ["0.strides", "2.strides"]
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert model(x).equal(expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_projection_rounds_a_limit_once_and_writes_nothing_else(dtype: torch.dtype) -> None:
    limit = 100 / (100 - 4)  # which no dtype holds exactly
    nan, inf = float("nan"), float("inf")
    for values, sizes, projected in [
        ((0.5, 2.3), (100, 20), (limit, 2.3)),
        ((1.7, 1e9), (100, 20), (1.7, 20.0)),
        ((nan, 0.5), (), (nan, 1.0)),
        ((inf, -inf), (), (inf, -inf)),
        ((inf, -3.0), (), (inf, 1.0)),
    ]:
        layer = DiffStride2d().to(dtype)
        with torch.no_grad():
            layer.strides.copy_(torch.tensor(values, dtype=dtype))
        layer.project_strides_(*sizes)
        expected = torch.tensor(projected, dtype=dtype)
        torch.testing.assert_close(layer.strides.detach(), expected, rtol=0, atol=0, equal_nan=True)
    layer = layer_at(1.5, 2.5)
    version = layer.strides._version
    layer.project_strides_(100, 20)
    assert layer.strides._version == version, "strides within their limits are not written"

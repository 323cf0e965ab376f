"""A convolution and the pooling along its axis, at once, against one after the other."""

from typing import get_args

import pytest
import torch
from examples import noise_float64 as noise
from torch import Tensor
from torch.nn import functional as F

from audiostride.checks import Size
from audiostride.strides.convolution import TRAINED_AT_ONCE, convolve_and_pool, pays_at_once
from audiostride.strides.masks import limit_stride, output_length
from audiostride.strides.matrices import AxisPooling, SpectrumPooling, axis_pooling, spectral_axis
from audiostride.strides.pooling import diffstride_pool, spectral_pool

SIZES: tuple[Size, ...] = get_args(Size)
KINDS = (*SIZES, "spectral")
RAMP_BINS = 2.5


def pooling_of(kind: str, n: int, stride: Tensor) -> AxisPooling | SpectrumPooling:
    """How an axis of n bins is pooled by one of the layers."""
    if kind == "spectral":
        return spectral_axis(n, float(stride.detach()), like=stride)
    size: Size = kind  # type: ignore[assignment]
    limited = limit_stride(stride, n, ramp_bins=RAMP_BINS, size=size)
    n_out = output_length(n, float(limited.detach()), ramp_bins=RAMP_BINS, size=size)
    return axis_pooling(n, limited, n_out, ramp_bins=RAMP_BINS, size=size)


def in_turn(x: Tensor, weight: Tensor, bias: Tensor, stride: Tensor, *, kind: str, axis: int) -> Tensor:
    """The convolution, then the pooling by its function, whose gradients have tests of their own."""
    padding = [length // 2 for length in weight.shape[-2:]]
    moved = F.conv2d(x, weight, bias, padding=padding).movedim(axis, -1)
    if kind == "spectral":
        pooled = spectral_pool(moved, (float(stride.detach()),))
    else:
        pooled = diffstride_pool(moved, stride.reshape(1), ramp_bins=RAMP_BINS, size=kind)  # type: ignore[arg-type]
    return pooled.movedim(-1, axis)


def inputs_of(
    axis: int, taps: int, shape: tuple[int, ...] = (2, 3, 12, 9), dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Map, kernel, offset and stride."""
    kernel = (taps, 1) if axis == -2 else (1, taps)
    values = [noise(*shape), noise(4, shape[1], *kernel, seed=1), noise(4, seed=2), torch.tensor(1.7).double()]
    return [value.to(dtype) for value in values]


def run_both(
    inputs: list[Tensor], *, kind: str, axis: int, fixed: bool = False
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Result and gradients of `convolve_and_pool`, and of one after the other in float64."""
    found = []
    for at_once in (True, False):
        leaves = [each.detach().clone() if at_once else each.detach().double() for each in inputs]
        x, weight, bias, stride = (each.requires_grad_() for each in leaves)
        used = stride.detach() if fixed else stride
        if at_once:
            y = convolve_and_pool(x, weight, bias, pooling_of(kind, x.shape[axis], used), axis=axis)
        else:
            y = in_turn(x, weight, bias, used, kind=kind, axis=axis)
        (y * noise(*y.shape, dtype=y.dtype, seed=3)).sum().backward()
        gradients = {name: leaf.grad for name, leaf in zip(("x", "weight", "bias", "stride"), leaves, strict=True)}
        found.append({"result": y.detach()} | {name: grad for name, grad in gradients.items() if grad is not None})
    return found[0], found[1]


@pytest.fixture(params=[True, False], ids=["at once", "in turn"])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways in turn, whichever is cheaper for the sizes of a test."""
    monkeypatch.setattr("audiostride.strides.convolution.pays_at_once", lambda *counts, share: request.param)
    chosen: bool = request.param
    return chosen


# The last one's axes are so long that the derivative of the pooling is applied as two thin matrices.
@pytest.mark.parametrize(
    "shape", [(2, 3, 12, 9), (3, 1, 11, 10), (2, 5, 8, 7), (1, 2, 1, 1), (2, 3, 2, 16), (1, 2, 40, 36)]
)
@pytest.mark.parametrize("taps", [1, 3, 5])
@pytest.mark.parametrize("axis", [-2, -1])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_convolution_then_pooling(kind: str, axis: int, taps: int, shape: tuple[int, ...], at_once: bool) -> None:
    ours, theirs = run_both(inputs_of(axis, taps, shape), kind=kind, axis=axis)
    assert ours.keys() == theirs.keys()
    assert len(ours) == (4 if kind == "spectral" else 5)
    for name, value in ours.items():
        # Sums of at most 3 * 11 * 10 float64 products of 5 * 5 terms, in another order.
        torch.testing.assert_close(value, theirs[name], rtol=1e-11, atol=1e-11, msg=lambda t, n=name: f"{n}: {t}")


@pytest.mark.parametrize("axis", [-2, -1])
@pytest.mark.parametrize("stride", [0.5, 1.0, 2.0, 4.0, 40.0])
def test_strides_at_their_limits(stride: float, axis: int, at_once: bool) -> None:
    for kind in SIZES:
        inputs = [*inputs_of(axis, 3)[:3], torch.tensor(stride, dtype=torch.float64)]
        ours, theirs = run_both(inputs, kind=kind, axis=axis)
        for name, value in ours.items():
            # As above.
            torch.testing.assert_close(value, theirs[name], rtol=1e-11, atol=1e-11, msg=lambda t, n=name: f"{n}: {t}")


@pytest.mark.parametrize("axis", [-2, -1])
@pytest.mark.parametrize("last", ["map", "kernel", "both"])
def test_channels_together_in_memory(last: str, axis: int, at_once: bool) -> None:
    plain = inputs_of(axis, 3)
    inputs = list(plain)
    for i in {"map": [0], "kernel": [1], "both": [0, 1]}[last]:
        inputs[i] = plain[i].contiguous(memory_format=torch.channels_last)
        assert inputs[i].clone().stride() != plain[i].stride()
    ours, theirs = run_both(inputs, kind="nominal", axis=axis)
    for name, value in ours.items():
        # As above.
        torch.testing.assert_close(value, theirs[name], rtol=1e-11, atol=1e-11, msg=lambda t, n=name: f"{n}: {t}")


@pytest.mark.parametrize("axis", [-2, -1])
def test_a_fixed_stride_and_no_gradients(axis: int, at_once: bool) -> None:
    x, weight, bias, stride = inputs_of(axis, 3)
    ours, theirs = run_both([x, weight, bias, stride], kind="paper", axis=axis, fixed=True)
    assert "stride" not in ours
    for name, value in ours.items():
        # As above.
        torch.testing.assert_close(value, theirs[name], rtol=1e-11, atol=1e-11, msg=lambda t, n=name: f"{n}: {t}")
    learned = pooling_of("paper", x.shape[axis], stride.requires_grad_())
    with torch.no_grad():
        y = convolve_and_pool(x, weight, bias, learned, axis=axis)
    assert not y.requires_grad
    torch.testing.assert_close(y, theirs["result"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("axis", [-2, -1])
def test_no_bias_is_a_bias_of_zero(axis: int, at_once: bool) -> None:
    x, weight, bias, stride = inputs_of(axis, 3)
    pooling = pooling_of("nominal", x.shape[axis], stride.requires_grad_())
    without = convolve_and_pool(x, weight, None, pooling, axis=axis)
    assert without.equal(convolve_and_pool(x, weight, torch.zeros_like(bias), pooling, axis=axis))


@pytest.mark.parametrize("wanted", ["x", "weight", "bias", "stride"])
@pytest.mark.parametrize("axis", [-2, -1])
def test_each_gradient_alone(axis: int, wanted: str, at_once: bool) -> None:
    inputs = inputs_of(axis, 3)
    _, theirs = run_both(inputs, kind="nominal", axis=axis)
    leaves = dict(zip(("x", "weight", "bias", "stride"), inputs, strict=True))
    leaves[wanted].requires_grad_()
    pooling = pooling_of("nominal", inputs[0].shape[axis], leaves["stride"])
    y = convolve_and_pool(leaves["x"], leaves["weight"], leaves["bias"], pooling, axis=axis)
    (y * noise(*y.shape, seed=3)).sum().backward()
    assert [name for name, leaf in leaves.items() if leaf.grad is not None] == [wanted]
    torch.testing.assert_close(leaves[wanted].grad, theirs[wanted], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("axis", [-2, -1])
def test_gradients_are_those_of_differences(axis: int, at_once: bool) -> None:
    inputs = [each.requires_grad_() for each in inputs_of(axis, 3, (2, 2, 7, 6))]

    def pooled(x: Tensor, weight: Tensor, bias: Tensor, stride: Tensor) -> Tensor:
        return convolve_and_pool(x, weight, bias, pooling_of("nominal", x.shape[axis], stride), axis=axis)

    assert torch.autograd.gradcheck(pooled, inputs)


def test_long_axes_go_through_the_fft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiostride.strides.matrices.LONG_AXIS", 1)
    for axis in (-2, -1):
        assert isinstance(pooling_of("nominal", 12, torch.tensor(1.7)), SpectrumPooling)
        ours, theirs = run_both(inputs_of(axis, 3), kind="nominal", axis=axis)
        for name, value in ours.items():
            # As above.
            torch.testing.assert_close(value, theirs[name], rtol=1e-11, atol=1e-11, msg=lambda t, n=name: f"{n}: {t}")


def rounding_scales(inputs: list[Tensor], theirs: dict[str, Tensor], *, kind: str, axis: int) -> dict[str, float]:
    """Sizes that rounding is relative to: the largest entry of a tensor; for the stride, a sum, its terms' norm."""
    scales = {name: float(value.abs().max()) for name, value in theirs.items()}
    if "stride" in theirs:
        x, weight, bias, stride = (each.double() for each in inputs)
        above, below = (in_turn(x, weight, bias, stride + step, kind=kind, axis=axis) for step in (1e-6, -1e-6))
        # Independent roundings of the terms of a sum add up as their squares do.
        scales["stride"] = float(((above - below) / 2e-6 * noise(*above.shape, seed=3)).norm())
    return scales


@pytest.mark.parametrize("axis", [-2, -1])
@pytest.mark.parametrize("kind", KINDS)
def test_float32_within_rounding(kind: str, axis: int, at_once: bool) -> None:
    inputs = inputs_of(axis, 3, (4, 8, 25, 16), torch.float32)
    ours, theirs = run_both(inputs, kind=kind, axis=axis)
    scales = rounding_scales(inputs, theirs, kind=kind, axis=axis)
    for name, value in ours.items():
        assert value.dtype == torch.float32
        # Sums of 24 products and of 25, each rounded by 6e-8 of terms that cancel in part.
        message = f"{name}: {value} is not {theirs[name]}"
        torch.testing.assert_close(value.double(), theirs[name], rtol=0, atol=2e-6 * scales[name], msg=message)


@pytest.mark.parametrize("axis", [-2, -1])
@pytest.mark.parametrize("kind", KINDS)
def test_autocast_runs_forward_and_backward(kind: str, axis: int, at_once: bool) -> None:
    inputs = inputs_of(axis, 3, (4, 8, 25, 16), torch.float32)
    _, theirs = run_both(inputs, kind=kind, axis=axis)
    scales = rounding_scales(inputs, theirs, kind=kind, axis=axis)
    leaves = [each.clone().requires_grad_() for each in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = convolve_and_pool(*leaves[:3], pooling_of(kind, inputs[0].shape[axis], leaves[3]), axis=axis)
    assert y.dtype == torch.bfloat16
    (y * noise(*y.shape, dtype=torch.float32, seed=3)).sum().backward()
    gradients = {name: leaf.grad for name, leaf in zip(("x", "weight", "bias", "stride"), leaves, strict=True)}
    found = {"result": y.detach()} | {name: grad for name, grad in gradients.items() if grad is not None}
    assert found.keys() == theirs.keys()
    for name, value in found.items():
        # bfloat16 steps by 2^-8: inputs, maps between and results are rounded.
        message = f"{name}: {value} is not {theirs[name]}"
        torch.testing.assert_close(value.double(), theirs[name], rtol=0, atol=4 * 2**-8 * scales[name], msg=message)


def test_the_other_order_is_told_apart(at_once: bool) -> None:
    # The comparison can fail: pooling and convolution do not commute, zero padding and ramp are seen.
    x, weight, bias, stride = inputs_of(-1, 3)
    y = convolve_and_pool(x, weight, bias, pooling_of("nominal", 9, stride), axis=-1)
    pooled_first = F.conv2d(
        diffstride_pool(x, stride.reshape(1), ramp_bins=RAMP_BINS, size="nominal"), weight, bias, padding=(0, 1)
    )
    assert y.shape == pooled_first.shape
    assert not torch.allclose(y, pooled_first, atol=1e-2)


def test_the_cheaper_way_is_taken() -> None:
    # Many channels and a large stride: the convolution of the short map is what counts.
    assert pays_at_once(512, 512, 3, 100, 25)
    # One channel into many: pooling the few taps is less than pooling all results.
    assert pays_at_once(1, 64, 3, 100, 50)
    # Stride 1, many into one: nothing is saved, every tap is pooled.
    assert not pays_at_once(64, 1, 3, 100, 100)
    # 115 thousand multiply-adds in turn, 98 at once.
    assert pays_at_once(32, 32, 3, 32, 16)
    assert not pays_at_once(32, 32, 3, 32, 16, share=0.8)


@pytest.mark.parametrize("training", [False, True])
def test_in_training_on_a_cpu_the_pooling_counts_for_more(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []

    def note_share(*counts: int, share: float) -> bool:
        shares.append(share)
        return pays_at_once(*counts, share=share)

    monkeypatch.setattr("audiostride.strides.convolution.pays_at_once", note_share)
    pooling = pooling_of("folded", 32, torch.tensor(2.0))
    with torch.set_grad_enabled(training):
        convolve_and_pool(noise(1, 4, 3, 32), noise(4, 4, 1, 3), None, pooling, axis=-1)
    assert shares == [TRAINED_AT_ONCE if training else 1.0]

"""Layers and classifier under torch.compile: one graph, the same numbers, and no more graphs than map sizes."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch
from examples import noise
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from audiostride import AudioClassifier, ClassifierConfig, DiffStride1d, DiffStride2d, DiffStride3d, SpectralPool2d
from audiostride.checks import Size
from audiostride.strides.diffstride import read_strides_

SIZES: tuple[Size, ...] = get_args(Size)
SMALL: dict[str, Any] = {"channels": (32, 64), "strides": ((2.0, 2.0), (2.0, 1.5))}


def make_classifier(**settings: Any) -> AudioClassifier:
    """A narrow classifier, the same in every run."""
    torch.manual_seed(0)
    return AudioClassifier(ClassifierConfig(tasks={"word": ["no", "yes"]}, width=0.125, **settings))


def compiled(model: nn.Module) -> Any:
    """One graph or an error; traced for autograd, but run by the plain kernels."""
    return torch.compile(model, fullgraph=True, backend="aot_eager")


def graphs() -> int:
    """Graphs compiled since the last reset."""
    return int(counters["stats"]["unique_graphs"])


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Every test compiles anew."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def check_same(model: nn.Module, fast: Any, *inputs: Tensor) -> None:
    """Results and gradients of the compiled model are those of the plain one."""
    found = []
    for run in (fast, model):
        model.zero_grad()
        leaves = [each.clone().requires_grad_() for each in inputs]
        y = run(*leaves)
        y = y["word"] if isinstance(y, dict) else y
        y.square().mean().backward()
        gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
        found.append({"result": y.detach(), "input": leaves[0].grad} | gradients)
    ours, theirs = found
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        scale = float(theirs[name].abs().max())
        # The same float32 kernels, but for products that the tracing splits or joins: a few roundings of 6e-8 of the
        # largest entry, and gradients of strides and norms cancel most of their terms.
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=2e-5 * scale, msg=lambda t, n=name: f"{n}: {t}")


@pytest.mark.slow
def test_layers_of_several_sizes_and_ramps_in_one_process() -> None:
    cases: list[tuple[nn.Module, list[tuple[int, ...]]]] = []
    for size in SIZES:
        cases.append((DiffStride1d((1.7,), size=size, ramp_bins=2.5), [(2, 25), (3, 4, 7)]))
        cases.append((DiffStride2d((1.7, 2.3), size=size), [(2, 3, 25, 16)]))
    cases.append((DiffStride1d((1.7,), ramp_bins=0.7), [(2, 25)]))
    cases.append((DiffStride3d((1.7, 2.3, 1.4), ramp_bins=2.0), [(2, 3, 9, 12, 10)]))
    cases.append((DiffStride2d((1.7, 2.3), size="nominal", max_stride=1.5), [(2, 3, 12, 10)]))
    assert len(cases) == 2 * len(SIZES) + 3
    for model, shapes in cases:
        torch._dynamo.reset()  # all layers share one forward, which is compiled in eight ways at most
        fast = compiled(model)
        for shape in shapes:
            check_same(model, fast, noise(*shape))


def test_channels_together_in_memory() -> None:
    model, x = DiffStride2d((1.7, 2.3)), noise(2, 3, 25, 16).contiguous(memory_format=torch.channels_last)
    check_same(model, compiled(model), x)


def test_shared_strides_and_strides_of_half_precision() -> None:
    for model in (DiffStride2d((1.7, 1.7), shared=True), DiffStride2d((1.75, 2.25)).bfloat16()):
        fast, x = compiled(model), noise(2, 25, 16)
        torch.testing.assert_close(fast(x), model(x), rtol=0, atol=1e-6)


def test_a_long_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiostride.strides.matrices.LONG_AXIS", 1)
    model = DiffStride1d((1.7,), size="nominal")
    check_same(model, compiled(model), noise(2, 25))


def test_spectral_pooling() -> None:
    model = SpectralPool2d((1.7, 2.3))
    check_same(model, compiled(model), noise(2, 3, 12, 10))


def test_without_gradients_and_in_inference_mode() -> None:
    model, x = DiffStride2d((1.7, 2.3)), noise(2, 25, 16)
    fast, expected = compiled(model), model(x).detach()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            torch.testing.assert_close(fast(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "settings", [pytest.param({"pool_after": "block"}, marks=pytest.mark.slow), SMALL], ids=["block", "convolution"]
)
def test_classifier(settings: dict[str, Any]) -> None:
    model = make_classifier(**settings)
    check_same(model, compiled(model), noise(3, 16000))
    assert graphs() == 1


def test_classifier_in_evaluation() -> None:
    model, waveform = make_classifier(**SMALL).eval(), noise(3, 16000)
    fast = compiled(model)
    with torch.no_grad():
        # Float32 products in another order, through four convolutions with norms.
        torch.testing.assert_close(fast(waveform)["word"], model(waveform)["word"], rtol=1e-4, atol=1e-5)


def test_as_many_graphs_as_map_sizes() -> None:
    layer, x = DiffStride1d((2.0,), size="nominal"), noise(2, 3, 100)
    layer.project_strides_(100)
    fast, optimizer = compiled(layer), torch.optim.SGD(layer.parameters(), lr=1.0)
    lengths, strides = set(), set()
    for step in range(8):
        y = fast(x)
        # The compiled graph uses the stride of now, in the size of now; float32 sums of 100 products.
        torch.testing.assert_close(y, layer(x), rtol=0, atol=1e-5)
        lengths.add(y.shape[-1])
        strides.add(layer.strides.item())
        # ceil(100 / S): stays for steps of 0.001, and moves with those of 0.05.
        layer.strides.grad = torch.tensor([-0.05 if step % 4 == 3 else -0.001])
        optimizer.step()
        layer.project_strides_(100)
    assert len(strides) == 8
    assert 2 <= len(lengths) <= 4
    assert graphs() == len(lengths)


def test_as_many_graphs_as_map_sizes_of_a_classifier() -> None:
    model, waveform = make_classifier(channels=(32,), strides=((2.0, 1.5),)), noise(3, 16000)
    fast = compiled(model)
    strides = [block.pool.strides for block in model.encoder.block_list() if isinstance(block.pool, DiffStride2d)]
    seen, values = set(), set()
    for change in (0.005, 0.001, 0.001, 0.3, 0.001):
        with torch.no_grad():
            for parameter in strides:
                parameter += change
        model.project_strides_()
        fast(waveform)["word"].square().mean().backward()
        seen.add(tuple(model.encoder.map_sizes(100, 64)))
        values.add(tuple(strides[0].tolist()))
    assert len(values) == 5
    assert len(seen) == 2
    assert graphs() == len(seen)


def test_sizes_come_back_without_another_graph() -> None:
    layer, x = DiffStride1d((2.0,), size="nominal"), noise(2, 12)
    fast = compiled(layer)
    for stride, length in ((2.0, 6), (3.0, 4), (2.0, 6), (3.0, 4)):
        with torch.no_grad():
            layer.strides.fill_(stride)
        layer.project_strides_(12)
        assert fast(x).shape[-1] == length
    assert graphs() == 2


def test_strides_read_between_steps_reach_the_graph() -> None:
    # Without projection: `read_strides_` is what the sizes need.
    model, x = nn.Sequential(DiffStride1d((2.0,), size="nominal")), noise(2, 12)
    fast = compiled(model)
    for stride, length in ((2.0, 6), (3.0, 4), (1.0, 12)):
        with torch.no_grad():
            model[0].strides.fill_(stride)
        read_strides_(model)
        y = fast(x)
        assert y.shape[-1] == length
        torch.testing.assert_close(y, model(x), rtol=0, atol=1e-6)


def test_tensors_without_values_leave_nothing_behind() -> None:
    # Shapes and memory are estimated by such tensors: results before and after are real ones.
    layer, x = DiffStride2d((1.7, 2.3), size="nominal"), noise(2, 31, 29)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert layer(torch.empty(2, 31, 29)).shape == (2, 19, 13)
    y = layer(x)
    assert not isinstance(y, FakeTensor)
    assert torch.isfinite(y).all()

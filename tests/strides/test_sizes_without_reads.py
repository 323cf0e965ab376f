"""Sizes of maps follow the strides, without a look at the device: the host would have to wait for it."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import pytest
import torch
from examples import noise
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from audiostride import AudioClassifier, ClassifierConfig, DiffStride1d, DiffStride2d, DiffStride3d
from audiostride.checks import Size
from audiostride.strides.diffstride import read_strides_

SIZES: tuple[Size, ...] = get_args(Size)
LAYERS = (DiffStride1d, DiffStride2d, DiffStride3d)
READS = ("item", "tolist", "numpy", "__float__", "__int__", "__bool__", "__index__", "__array__", "__contains__")


def make_classifier(**settings: Any) -> AudioClassifier:
    """A narrow classifier, the same in every run."""
    torch.manual_seed(0)
    return AudioClassifier(ClassifierConfig(tasks={"word": ["no", "yes"]}, width=0.125, **settings))


class NoReads(TorchDispatchMode):
    """Fails where an operation gives a value of a tensor to Python, also from within torch."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a tensor's value was read"
        return func(*args, **(kwargs or {}))


@contextmanager
def no_reads() -> Iterator[None]:
    """Fails where the value of a tensor is read, as a GPU would have to be waited for there."""

    def refuse(name: str) -> Callable[..., Any]:
        def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError(f"a tensor's value was read by {name}")

        return method

    with pytest.MonkeyPatch.context() as patch, NoReads():
        for name in READS:
            patch.setattr(torch.Tensor, name, refuse(name))
        yield


@contextmanager
def counted_reads() -> Iterator[list[tuple[int, ...]]]:
    """The shapes of the tensors whose values are read as lists or numbers."""
    shapes: list[tuple[int, ...]] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("tolist", "item", "__float__"):
            original = getattr(torch.Tensor, name)

            def method(self: Tensor, original: Callable[..., Any] = original) -> Any:
                shapes.append(tuple(self.shape))
                return original(self)

            patch.setattr(torch.Tensor, name, method)
        yield shapes


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: float(x.sum()),
        lambda x: int(x.sum()),
        lambda x: bool(x.sum() > 0),
        lambda x: x.numpy(),
        lambda x: torch.zeros(5)[: x.long().sum()],
        lambda x: x.sum() > 0 and None,
        lambda x: torch.equal(x, x) and x.sum().is_nonzero(),
    ],
)
def test_the_trap_works(read: Callable[[Tensor], Any]) -> None:
    x = torch.ones(3)
    with pytest.raises(AssertionError, match="value was read"), no_reads():
        read(x)
    read(x)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("size", SIZES)
def test_forward_and_backward_of_layers_read_nothing(size: Size, layer: type[DiffStride2d]) -> None:
    pool, x = layer(size=size), noise(2, 9, 13, 16).requires_grad_()
    optimizer = torch.optim.SGD(pool.parameters(), lr=0.1)
    sizes = x.shape[-layer.n_axes :]
    for training in (True, False):
        pool.train(training)
        with no_reads():
            pool(x).square().sum().backward()
        optimizer.step()
        pool.project_strides_(*sizes)
    with no_reads(), torch.no_grad():
        pool(x)


def test_forward_of_a_long_axis_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiostride.strides.matrices.LONG_AXIS", 1)
    pool, x = DiffStride2d(), noise(2, 9, 13, 16).requires_grad_()
    with no_reads():
        pool(x).square().sum().backward()


@pytest.mark.parametrize("pool_after", ["block", "convolution"])
@pytest.mark.parametrize("pooling", ["diffstride", "spectral", "strided"])
def test_a_step_of_a_classifier_reads_nothing_but_its_strides(pooling: str, pool_after: str) -> None:
    model, waveform = make_classifier(pooling=pooling, pool_after=pool_after), noise(3, 16000)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(3):
        with no_reads():
            model(waveform)["word"].square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        model.project_strides_()
    with no_reads(), torch.no_grad():
        model.eval()(waveform)


def test_the_strides_of_a_model_are_read_at_once() -> None:
    model, waveform = make_classifier(), noise(3, 16000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(waveform)["word"].square().sum().backward()
    optimizer.step()
    for update in (model.project_strides_, lambda: read_strides_(model)):
        with torch.no_grad():
            for block in model.encoder.block_list():
                assert isinstance(block.pool, DiffStride2d)
                block.pool.strides += 0.01
        with counted_reads() as shapes:
            update()
        # Six layers of two strides in one copy; what else is read was made on the host, layer by layer.
        assert [shape for shape in shapes if shape != (2,)] == [(12,)]
        with counted_reads() as shapes:
            model(waveform)
        assert shapes == []


OPTIMIZERS = {
    "SGD": lambda strides: torch.optim.SGD(strides, lr=1.0),
    "SGD, foreach": lambda strides: torch.optim.SGD(strides, lr=1.0, foreach=True),
    "SGD, fused": lambda strides: torch.optim.SGD(strides, lr=1.0, fused=True),
    "Adam": lambda strides: torch.optim.Adam(strides, lr=1.0),
    "AdamW, foreach": lambda strides: torch.optim.AdamW(strides, lr=1.0, weight_decay=0.0, foreach=True),
    "Adam, fused": lambda strides: torch.optim.Adam(strides, lr=1.0, fused=True),
}


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_sizes_follow_an_optimizer(optimizer: str) -> None:
    layer, x = DiffStride2d((2.0, 1.5), size="nominal"), noise(2, 12, 9)
    layer.expect_sizes(12, 9)
    step = OPTIMIZERS[optimizer](layer.parameters()).step
    assert layer(x).shape[-2:] == (6, 6)
    layer.strides.grad = torch.tensor([-1.0, -1.0])
    step()
    if "fused" in optimizer:
        layer.project_strides_(12, 9)  # autograd does not count the writes of these
    # The first step of Adam is its learning rate, up to its epsilon.
    torch.testing.assert_close(layer.strides.detach(), torch.tensor([3.0, 2.5]), rtol=1e-6, atol=0)
    assert layer(x).shape[-2:] == layer.output_size(12, 9) == (4, 4)
    for _ in range(5):
        step()
    layer.project_strides_(12, 9)
    torch.testing.assert_close(layer.strides.detach(), torch.tensor(layer.used_strides(12, 9)), rtol=1e-6, atol=0)
    assert layer(x).shape[-2:] == layer.output_size(12, 9) == (2, 2)


def test_sizes_follow_parameters_that_take_the_place_of_freed_ones() -> None:
    # The third parameter often lies where the first was.
    x = noise(2, 12, 9)
    for _ in range(200):
        layer = DiffStride2d((2.0, 1.5), size="nominal")
        assert layer(x).shape[-2:] == (6, 6)
        for values in ([4.0, 3.0], [1.0, 9.0]):
            layer.load_state_dict({"strides": torch.tensor(values)}, assign=True)
        assert layer(x).shape[-2:] == layer.output_size(12, 9) == (12, 1)


def test_sizes_follow_a_change_of_dtype() -> None:
    layer, x = DiffStride1d((1.9999,), size="nominal"), noise(2, 100)
    assert layer(x).shape[-1] == 51
    layer.bfloat16()
    assert layer.strides.tolist() == [2.0]
    assert layer(x.bfloat16()).shape[-1] == copy.deepcopy(layer)(x.bfloat16()).shape[-1] == 50


def test_sizes_follow_a_loaded_state() -> None:
    layer, x = DiffStride2d((2.0, 1.5), size="nominal"), noise(2, 12, 9)
    layer.expect_sizes(12, 9)
    assert layer(x).shape[-2:] == (6, 6)
    layer.load_state_dict({"strides": torch.tensor([4.0, 3.0])})
    assert layer(x).shape[-2:] == layer.output_size(12, 9) == (3, 3)
    layer.load_state_dict({"strides": torch.tensor([1.0, 9.0])}, assign=True)
    assert layer(x).shape[-2:] == layer.output_size(12, 9) == (12, 1)


def test_sizes_follow_writes_and_new_parameters() -> None:
    layer, x = DiffStride2d((2.0, 1.5), size="nominal"), noise(2, 12, 9)
    layer.expect_sizes(12, 9)
    with torch.no_grad():
        layer.strides.fill_(3.0)
    assert layer(x).shape[-2:] == layer.output_size(12, 9) == (4, 3)
    with torch.no_grad():
        layer.strides[0] = 6.0
    assert layer(x).shape[-2:] == layer.output_size(12, 9) == (2, 3)
    layer.strides = nn.Parameter(torch.tensor([1.0, 1.0]))
    assert layer(x).shape[-2:] == layer.output_size(12, 9) == (12, 9)
    layer.double()
    with torch.no_grad():
        layer.strides.mul_(2.0)
    assert layer(x.double()).shape[-2:] == layer.output_size(12, 9) == (6, 5)


def test_sizes_of_copies_are_their_own() -> None:
    layer, x = DiffStride2d((2.0, 1.5), size="nominal"), noise(2, 12, 9)
    layer.expect_sizes(12, 9)
    copied = copy.deepcopy(layer)
    with torch.no_grad():
        copied.strides.fill_(3.0)
    assert copied(x).shape[-2:] == copied.output_size(12, 9) == (4, 3)
    assert layer(x).shape[-2:] == layer.output_size(12, 9) == (6, 6)
    with torch.no_grad():
        layer.strides.fill_(6.0)
    assert copied(x).shape[-2:] == copied.output_size(12, 9) == (4, 3)
    assert layer(x).shape[-2:] == layer.output_size(12, 9) == (2, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("pool_after", ["block", "convolution"])
def test_a_step_on_a_gpu_waits_for_nothing_but_the_strides(pool_after: str) -> None:
    model, waveform = make_classifier(pool_after=pool_after).cuda(), noise(3, 16000).cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        model(waveform)["word"].square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # libraries are set up
    model.project_strides_()
    try:
        for _ in range(2):
            torch.cuda.set_sync_debug_mode("error")
            step()
            with pytest.raises(RuntimeError, match="synchroniz"):
                model.project_strides_()
            torch.cuda.set_sync_debug_mode("default")
            model.project_strides_()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_strides_on_a_gpu_are_copied_once() -> None:
    model = make_classifier().cuda()
    with torch.no_grad():
        for block in model.encoder.block_list():
            assert isinstance(block.pool, DiffStride2d)
            block.pool.strides += 0.01
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
        read_strides_(model)
        torch.cuda.synchronize()
    copies = [event for event in profile.events() if "Memcpy DtoH" in event.name]
    assert len(copies) == 1

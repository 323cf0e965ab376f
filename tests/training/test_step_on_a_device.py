"""A training step on a device: the host reads one value there, the strides, and copies nothing; nothing is in float64.

Without a GPU two devices that have no values stand for it: the meta device, on which everything runs, and fake tensors
of a GPU, on which all but the backward pass does. What needs the GPU itself is at the end.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from audiostride import AudioClassifier, ClassifierConfig
from audiostride.checks import ModelSize
from audiostride.errors import InputError
from audiostride.inference.engine import copy_logits
from audiostride.strides import matrices
from audiostride.strides.diffstride import diffstride_layers
from audiostride.training import TrainConfig
from audiostride.training.augmentation.drawing import AugmentationConfig
from audiostride.training.batches import TrainingBatches
from audiostride.training.graph import STEADY, StepGraph
from audiostride.training.hardware import choose_device, choose_precision
from audiostride.training.launching import launch_fabric
from audiostride.training.loop import Learner
from audiostride.training.loss import ClassifierTraining

TASKS = {"word": ["no", "yes"], "place": ["road", "wood", "sea"]}
EVERYTHING = AugmentationConfig(gain_db=6.0, noise_prob=0.7, mixup=0.4, time_masks=2, mel_masks=2)
NETWORKS = [
    *({"pooling": "diffstride", "size": size} for size in get_args(ModelSize)),
    {"pooling": "diffstride", "pool_after": "block"},
    {"pooling": "diffstride", "shared_strides": True},
    {"encoder": "resnet18"},
    {"pooling": "spectral"},
    {"pooling": "strided"},
]

# Of six blocks the last maps have few bins, and their sizes change at every other step.
SHORT: dict[str, Any] = {"channels": [64, 64, 64], "strides": [[2, 2]] * 3}

# Operations that give the host a number, or a result whose size depends on the values.
READS = {
    *("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "bincount", "repeat_interleave"),
    *("nonzero", "nonzero_numpy", "argwhere", "masked_select", "unique_dim", "_unique", "_unique2"),
    *("unique_consecutive", "unique_dim_consecutive"),
}
BY_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_"}


class NoiseBatches(TrainingBatches):
    """Batches of noise with all augmentation; the first task has no label of the first excerpt."""

    def __init__(self) -> None:
        super().__init__(batch_size=4, window=16000, seed=0, augmentation=EVERYTHING, spectrogram=(100, 64, 0.01))

    def clips_of(self, step: int) -> list[tuple[int, int]]:
        return [(0, row) for row in range(self.batch_size)]

    def _fill(
        self, waveform: NDArray[np.float32], step: int, read: NDArray[np.int64]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        rng = np.random.default_rng(step)
        waveform[:] = rng.standard_normal(waveform.shape) / 10
        classes = np.stack([rng.integers(0, len(names), self.batch_size) for names in TASKS.values()], axis=1)
        classes[0, 0] = -1
        return {"class_index": classes}, np.empty((0, 2), dtype=np.int64)


def make_training(**settings: Any) -> ClassifierTraining:
    """A narrow network of two tasks with weights of classes and noises, the same in every run."""
    torch.manual_seed(0)
    model = AudioClassifier(ClassifierConfig(tasks=TASKS, width=0.03, **settings))
    config = TrainConfig(manifest="m", out="o", stride_cost=0.1, stride_lr=0.1, max_steps=1000)
    noises = torch.randn(3, 20000, generator=torch.Generator().manual_seed(1))
    return ClassifierTraining(
        model, config, class_weights=[torch.rand(len(names)) for names in TASKS.values()], noises=noises
    )


class Watch(TorchDispatchMode):
    """What the host reads on a device, what is copied between both, and what the device has in float64.

    Reading a list gives 0.5, 1.5 and so on: as strides, the first is below its limit.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.reads: list[str] = []
        self.copies: list[str] = []
        self.doubles: list[str] = []
        self.writes: list[str] = []

    def __enter__(self) -> "Watch":
        self._patch = pytest.MonkeyPatch()
        original = torch.Tensor.tolist

        def tolist(tensor: Tensor) -> Any:
            if tensor.device.type != self.device:
                return original(tensor)
            self.reads.append("tolist")
            return [0.5 + number for number in range(tensor.numel())]

        for kind in (torch.Tensor, FakeTensor):
            self._patch.setattr(kind, "tolist", tolist)
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._patch.undo()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        given = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
        there = [part for part in given if part.device.type == self.device]
        by_mask = name in BY_INDEX and any(part.dtype in (torch.bool, torch.uint8) for part in tree_leaves(args[1]))
        if there and (name in READS or by_mask):
            self.reads.append(name)
        if there and name == "fill_":
            self.writes.append(name)
        places = {part.device.type for part in given}
        if kwargs and kwargs.get("device") is not None:
            places.add(torch.device(kwargs["device"]).type)
        if len(places) > 1:  # operands of which one must be copied first, or a copy
            self.copies.append(name)
        result = func(*args, **(kwargs or {}))
        made = [part for part in tree_leaves(result) if isinstance(part, Tensor)]
        if any(part.dtype in (torch.float64, torch.complex128) for part in made if part.device.type == self.device):
            self.doubles.append(name)
        return result


# Where torch is built without CUDA, not even fake tensors of a GPU have a gradient.
with_cuda = pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="torch is built without CUDA")


@pytest.fixture(params=["meta", pytest.param("cuda", marks=with_cuda)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A device without values, on which waves are kept as on a true one."""
    kept = lru_cache(maxsize=None)(matrices.build_waves)
    monkeypatch.setattr(matrices, "waves", lambda n, n_out, *, like: kept(n, n_out, like.dtype, like.device))
    # The meta device has no autocast, and that of a GPU which is not there warns; both are off in a step in float32.
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    return str(request.param)


def place(training: ClassifierTraining, batch: dict[str, Tensor], device: str) -> dict[str, Tensor]:
    """Move a training to a device without values; returns the batch there."""
    training.to_empty(device=device)
    return {name: torch.empty_like(values, device=device) for name, values in batch.items()}


def mode_of(device: str) -> Any:
    """What makes tensors of a device that is not there."""
    return FakeTensorMode(allow_non_fake_inputs=True) if device == "cuda" else nullcontext()


def step(training: ClassifierTraining, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor]) -> None:
    """What the loop does at a step, but for the strides; fake tensors of a GPU have no backward pass."""
    loss = training(batch)
    if loss.device.type == "meta":
        loss.backward()
    else:
        for parameter in training.model.parameters():
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize(
    ("settings", "parts"), [*((settings, 1) for settings in NETWORKS), ({}, 2)], ids=lambda value: str(value)
)
def test_a_step_reads_and_copies_its_strides_only(device: str, settings: dict[str, Any], parts: int) -> None:
    training, batch = make_training(**settings), NoiseBatches().part(0, 0, of=parts)
    assert ("rows" in batch) == (parts == 2)
    with mode_of(device):
        batch = place(training, batch, device)
        optimizer = training.make_optimizer()[0]
        for group in optimizer.param_groups:
            assert group["fused"] is True
            group["fused"] = device != "meta"  # which no fused kernel takes
    n_strides = sum(layer.strides.numel() for layer in diffstride_layers(training.model))
    with Watch(device):
        training.model.project_strides_()
    with mode_of(device):
        step(training, optimizer, batch)  # keeps waves and the state of the optimizer
    with mode_of(device), Watch(device) as watch:
        step(training, optimizer, batch)
    assert (watch.reads, watch.copies) == ([], [])
    # Which noise, and where in it, two numbers per example: float32 cannot name each of 16 million starts.
    assert watch.doubles == ["mul", "mul"]
    with Watch(device) as watch:
        training.model.project_strides_()
    assert watch.reads == ["tolist"] * bool(n_strides)
    assert (watch.copies, watch.doubles) == ([], [])
    assert bool(watch.writes) == bool(n_strides), "a stride is beyond its limits, and is moved"


@pytest.mark.parametrize(
    ("plant", "caught"),
    [
        (lambda x: x.sum().item(), "reads"),
        (lambda x: x.tolist(), "reads"),
        (lambda x: bool((x > 0).any()), "reads"),
        (lambda x: x[x > 0], "reads"),
        (lambda x: x.cpu(), "copies"),
        (lambda x: torch.tensor([1.0, 2.0]).to(x.device), "copies"),
        (lambda x: torch.empty_like(x).copy_(torch.tensor([1.0, 2.0])), "copies"),
        (lambda x: torch.where(x > 0, x, torch.tensor(1.0)), "copies"),
        (lambda x: x[torch.tensor([0])], "copies"),
        (lambda x: x.double().sum().float(), "doubles"),
        (lambda x: torch.fft.fft(x.to(torch.complex128)).real.float(), "doubles"),
        (lambda x: torch.where(x > 0, x, 1.0) + 2.0, None),
    ],
)
def test_the_watch_works(device: str, plant: Callable[[Tensor], Any], caught: str | None) -> None:
    with mode_of(device):
        x = torch.empty(2, device=device)
        # There are no values to be read.
        with Watch(device) as watch, suppress(RuntimeError, NotImplementedError):
            plant(x)
    found = [name for name in ("reads", "copies", "doubles") if getattr(watch, name)]
    assert found == ([] if caught is None else [caught])


@with_cuda
def test_logits_of_all_tasks_come_back_in_one_copy() -> None:
    logits = {task: torch.randn(5, len(names), generator=torch.manual_seed(0)) for task, names in TASKS.items()}
    for task, copied in copy_logits(logits).items():
        assert copied.is_contiguous()
        torch.testing.assert_close(copied, logits[task].double(), rtol=0, atol=0)
    with mode_of("cuda"):
        there = {task: torch.empty_like(values, device="cuda") for task, values in logits.items()}
        with Watch("cuda") as watch:
            copies = copy_logits(there)
    assert {values.device.type for values in copies.values()} == {"cpu"}
    assert (watch.copies, watch.doubles) == (["_to_copy"], [])


@with_cuda
def test_a_checkpoint_of_a_cpu_goes_on_on_a_gpu() -> None:
    straight = make_training()
    writer = straight.make_optimizer()[0]
    step(straight, writer, NoiseBatches()[0])
    assert {values["step"].device.type for values in writer.state.values()} == {"cpu"}
    resumed = make_training()
    with mode_of("cuda"):
        resumed.to_empty(device="cuda")
        optimizer = resumed.make_optimizer()[0]
        optimizer.load_state_dict(writer.state_dict())
        for parameter in resumed.model.parameters():
            parameter.grad = torch.empty_like(parameter)
        optimizer.step()
    assert len(optimizer.state) == len(writer.state)
    # On the device, or the step would have to copy it there.
    assert {values["step"].device.type for values in optimizer.state.values()} == {"cuda"}


# What needs a GPU. A first step sets libraries up, with waits of its own.

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Rerun:
    """Records nothing but what to run; like a graph it reads and writes the same tensors each time."""

    def __init__(self, training: ClassifierTraining) -> None:
        self.training, self.recorded = training, 0
        self.places = self.where()

    def where(self) -> list[int]:
        return [tensor.data_ptr() for tensor in (*self.training.buffers(), *self.training.parameters())]

    def __call__(self, compute: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        self.recorded += 1
        buffers = [(buffer, buffer.clone()) for buffer in self.training.buffers()]
        loss = compute()
        for buffer, before in buffers:  # recording computes nothing
            buffer.copy_(before)
        parameters = list(self.training.parameters())
        kept = [parameter.grad for parameter in parameters]

        def replay() -> None:
            shown = [parameter.grad for parameter in parameters]
            for parameter in parameters:
                parameter.grad = None
            loss.copy_(compute())
            for parameter, gradient, before in zip(parameters, kept, shown, strict=True):
                if gradient is not None and parameter.grad is not None:
                    gradient.copy_(parameter.grad)
                parameter.grad = before

        return loss, replay


def learn(steps: int, *, graphs: bool, **settings: Any) -> tuple[list[float], ClassifierTraining, Rerun]:
    """Losses of some steps, in the middle of which maps change their sizes."""
    training = make_training(**settings)
    learner, recorder = Learner(training, launch_fabric(device=torch.device("cpu"))), Rerun(training)
    assert learner._graph is None  # a CPU has none
    if graphs:
        learner._graph = StepGraph(learner._learn, training, recorder)
    for layer in diffstride_layers(training.model):
        layer.set_strides_([2.2, 2.3])
    learner.scheduler.base_lrs = [1e-3, 1e-4][: len(learner.scheduler.base_lrs)]
    batches = [NoiseBatches()[number] for number in range(steps)]
    losses, left = [], iter(batches)
    for step in range(steps):
        if step == 1:  # the first step has the rate of strides that the settings give
            for layer in diffstride_layers(training.model):
                layer.set_strides_([2.2, 2.3])
        if step == steps // 2 and (layers := diffstride_layers(training.model)):
            layers[0].set_strides_([1.6, 1.7])
        losses.append(learner.take_step(left, step))
    for number, batch in enumerate(batches):
        assert torch.equal(batch["waveform"], NoiseBatches()[number]["waveform"]), "a batch stays what it was"
    return [float(loss) for loss in losses], training, recorder


@pytest.mark.parametrize(
    ("settings", "recorded"), [({"size": "nominal", **SHORT}, 2), ({"pooling": "strided"}, 1)], ids=str
)
def test_steps_by_graphs_are_the_same_steps(settings: dict[str, Any], recorded: int) -> None:
    steps = 4 * STEADY
    (expected, eager, _), (found, replayed, recorder) = (
        learn(steps, graphs=graphs, **settings) for graphs in (False, True)
    )
    assert recorder.recorded == recorded
    assert found == expected
    assert len(set(found)) == steps, "each step has a batch of its own"
    assert recorder.places == recorder.where(), "what a graph writes stays where it lies"
    assert replayed.take_mean_losses(steps) == eager.take_mean_losses(steps)
    for name, values in eager.state_dict().items():
        assert torch.equal(values, replayed.state_dict()[name]), name


def test_a_step_without_a_loss_is_told_by_its_own_number() -> None:
    training = make_training(pooling="strided")
    learner = Learner(training, launch_fabric(device=torch.device("cpu")))
    learner._graph = StepGraph(learner._learn, training, Rerun(training))
    batches = [NoiseBatches()[number] for number in range(3 * STEADY)]
    batches[2 * STEADY]["waveform"][:] = torch.nan
    for step, batch in enumerate(batches):
        learner.take_step(iter([batch]), step)
    assert int(training._first_bad_step) == 2 * STEADY


def test_where_no_graph_can_be_made_steps_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(compute: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        compute()
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    training = make_training(pooling="strided")
    learner = Learner(training, launch_fabric(device=torch.device("cpu")))
    learner._graph = StepGraph(learner._learn, training, refuse)
    batches = iter([NoiseBatches()[number] for number in range(2 * STEADY)])
    for step in range(2 * STEADY):
        learner.take_step(batches, step)
    assert learner._graph.failure == "operation not permitted when stream is capturing"
    assert capsys.readouterr().out.count("kernel by kernel") == 1
    assert all(parameter.grad is None for parameter in training.parameters())


@pytest.mark.parametrize(
    ("name", "devices", "message"),
    [
        ("cuda", 1, "--device cuda needs a CUDA GPU that torch can use, got none"),
        ("mps", 1, "--device mps needs an Apple GPU that torch can use, got none"),
        ("mps", 2, "--devices must be 1 with --device mps, got 2"),
    ],
)
def test_devices_that_are_not_there(name: str, devices: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: devices > 1)
    with pytest.raises(InputError, match=message):
        choose_device(name, devices=devices)
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps") == torch.device("mps")
    assert choose_precision("auto", torch.device("mps")) == "32"


def to_gpu(training: ClassifierTraining) -> dict[str, Tensor]:
    """Move a training to the GPU; returns its batch there."""
    training.cuda()
    return {name: values.cuda() for name, values in NoiseBatches()[0].items()}


@contextmanager
def counted_waits() -> Iterator[list[str]]:
    """Messages of the operations for which the host waits for the GPU."""
    waits: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits += [str(each.message) for each in caught if "synchronizing CUDA operation" in str(each.message)]


@pytest.mark.gpu
@on_gpu
def test_waits_are_counted() -> None:
    x = torch.ones(3, device="cuda")
    x.sum().item()
    with counted_waits() as waits:
        x.sum().item()
        x.tolist()
        (x + 1.0).sum()
    assert len(waits) == 2


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_a_step_on_a_gpu_waits_for_its_strides_only(settings: dict[str, Any], precision: torch.dtype | None) -> None:
    training = make_training(**settings)
    batch = to_gpu(training)
    optimizer = training.make_optimizer()[0]
    strided = bool(diffstride_layers(training.model))

    def whole_step() -> None:
        with torch.autocast("cuda", precision) if precision else nullcontext():
            loss = training(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        training.model.project_strides_()

    for _ in range(2):
        whole_step()
    with torch.no_grad():
        for layer in diffstride_layers(training.model):
            layer.strides -= 5.0  # all are limited, which takes no copy
    torch.cuda.synchronize()
    with counted_waits() as waits:
        training.model.project_strides_()
    assert len(waits) == strided
    whole_step()
    torch.cuda.synchronize()
    with counted_waits() as waits:
        for _ in range(3):
            whole_step()
    assert len(waits) == 3 * strided


@pytest.mark.gpu
@on_gpu
def test_fused_steps_change_the_sizes_of_maps() -> None:
    training = make_training(size="nominal")
    batch = to_gpu(training)
    layers, encoder = diffstride_layers(training.model), training.model.encoder
    optimizer = training.make_optimizer()[0]
    assert all(group["fused"] for group in optimizer.param_groups)
    optimizer.param_groups[1]["lr"] = 0.5
    before = encoder.map_sizes(100, 64)
    for _ in range(3):
        training(batch).backward()
        for layer in layers:
            layer.strides.grad = -torch.ones_like(layer.strides)  # the first steps of Adam are its learning rate
        optimizer.step()
        optimizer.zero_grad()
        training.model.project_strides_()
    on_host = copy.deepcopy(training.model).cpu()
    for layer, copied in zip(layers, diffstride_layers(on_host), strict=True):
        assert layer.stride_values() == tuple(layer.strides.tolist()) == tuple(copied.strides.tolist())
    sizes = encoder.map_sizes(100, 64)
    assert sizes == on_host.encoder.map_sizes(100, 64)
    assert all(
        new <= old for pair, pairs in zip(sizes, before, strict=True) for new, old in zip(pair, pairs, strict=True)
    )
    assert sizes != before
    spectrogram = torch.zeros(2, 1, 100, 64, device="cuda")
    assert tuple(encoder(spectrogram).shape[-2:]) == sizes[-1]


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("held", ["no gradient", "no group"])
def test_a_step_with_held_strides_is_a_graph(held: str) -> None:
    eager = make_training()
    batch = to_gpu(eager)
    if held == "no gradient":
        for layer in diffstride_layers(eager.model):
            layer.strides.requires_grad_(False)
    captured = copy.deepcopy(eager)

    def make_step(training: ClassifierTraining) -> Callable[[], Tensor]:
        strides = {id(layer.strides) for layer in diffstride_layers(training.model)}
        weights = [parameter for parameter in training.model.parameters() if id(parameter) not in strides]
        optimizer = torch.optim.Adam(weights, lr=1e-3, fused=True, capturable=True)

        def one_step() -> Tensor:
            training.model.zero_grad()
            loss = training(batch)
            loss.backward()
            optimizer.step()
            return loss.detach()  # whose graph is not kept: its nodes know the stream that they were made on

        return one_step

    step_eagerly, step_captured = make_step(eager), make_step(captured)
    expected = [step_eagerly().item() for _ in range(8)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # sets libraries up, keeps waves and the optimizer's state
        found = [step_captured().item() for _ in range(3)]
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    captured.model.zero_grad()
    with torch.cuda.graph(graph):
        loss = step_captured()
    for _ in range(5):  # capturing has computed nothing
        graph.replay()
        found.append(loss.item())
    assert found[-1] != found[-2], "each replay learns"
    # Sums of atomic additions come in any order; TF32 convolutions round their inputs to 10 bits.
    assert found == pytest.approx(expected, rel=1e-2)


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
@pytest.mark.parametrize(
    "settings", [{"size": "mixed"} | SHORT, {"size": "paper"} | SHORT, {"pooling": "strided"}], ids=str
)
def test_steps_on_a_gpu_are_graphs(settings: dict[str, Any], precision: str) -> None:
    found = []
    for graphs in (True, False):
        training = make_training(**settings)
        learner = Learner(training, launch_fabric(device=torch.device("cuda"), precision=precision))
        assert learner._graph is not None
        if not graphs:
            learner._graph = None
        for layer in diffstride_layers(training.model):  # from 2.0 a size would change at every other step
            layer.set_strides_([2.2, 2.3])
        learner.scheduler.base_lrs = [1e-3, 1e-4][: len(learner.scheduler.base_lrs)]
        loader = iter([NoiseBatches()[number] for number in range(40)])
        losses, sizes, kinds = [], [], []
        for step in range(30):
            if step == 15 and (layers := diffstride_layers(training.model)):  # maps of other sizes: another graph
                layers[0].set_strides_([1.6, 1.7])
            losses.append(float(learner.take_step(loader, step)))
            sizes.append(training.model.encoder.map_sizes(100, 64))
            kinds.append(learner._graph is not None and learner._graph._kept is not None)
        assert learner._graph is None or learner._graph.failure is None
        assert sum(kinds) > 12 if graphs else not any(kinds)
        found.append((losses, training.take_mean_losses(30), sizes))
    assert found[0][2] == found[1][2]
    # Sums of atomic additions come in any order; TF32 convolutions and bfloat16 round.
    assert found[0][0] == pytest.approx(found[1][0], rel=3e-2)
    for task, (mean, count) in found[0][1].items():
        assert mean == pytest.approx(found[1][1][task][0], rel=1e-2)
        assert count == found[1][1][task][1]


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed"])
def test_fabric_takes_the_fused_optimizer(precision: str) -> None:
    training = make_training()
    batches = [NoiseBatches()[number] for number in range(4)]
    loader = iter(torch.utils.data.DataLoader(batches, batch_size=None, pin_memory=True))
    learner = Learner(training, launch_fabric(device=torch.device("cuda"), precision=precision))
    losses = [float(learner.take_step(loader, step)) for step in range(4)]
    assert np.isfinite(losses).all()
    assert learner.scheduler.last_epoch == 4
    assert all(group["fused"] for group in learner.optimizer.param_groups)
    assert all(bool(parameter.isfinite().all()) for parameter in training.model.parameters())

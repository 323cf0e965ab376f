"""What a network does with an example: its operations that make maps smaller, and which of them must agree."""

import logging
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from audiostride.errors import InputError
from audiostride.models.conversion.axes import AxisTracker, Factor, keep_places

Example = Tensor | tuple[Any, ...] | list[Any] | dict[str, Any]
Kind = Literal["convolution", "transposed convolution", "max pool", "average pool", "module"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
AVERAGE_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
POOLS = (*MAX_POOLS, *AVERAGE_POOLS)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# What reaches the device.
KINDS: dict[str, Kind] = {
    "convolution": "convolution",
    "max_pool2d_with_indices": "max pool",
    "max_pool3d_with_indices": "max pool",
    "avg_pool2d": "average pool",
    "avg_pool3d": "average pool",
}


class ForwardError(Exception):
    """A forward pass that ended in an error, and where."""

    def __init__(self, place: "Place", error: Exception) -> None:
        super().__init__(f"{place}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
        self.place = place


class Place(NamedTuple):
    """Where something happens: a module, or the n-th call of a pooling or convolution in a module's own forward."""

    module: str
    call: int | None = None
    """None for a module that is itself a convolution or a pool."""

    def __str__(self) -> str:
        name = f"module {self.module!r}" if self.module else "the network itself"
        return name if self.call is None else f"call {self.call + 1} of a pooling or convolution in {name}"


@dataclass(frozen=True)
class Step:
    """A call of an operation that makes maps smaller, on its axes; all tuples have an entry for each of them."""

    place: Place
    kind: Kind
    strides: tuple[int, ...]
    kernel: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    n_in: tuple[int, ...]
    n_out: tuple[int, ...]
    before: tuple[int, ...]
    """Labels of the resolution in front."""
    after: tuple[int, ...]
    """Labels of the resolution behind."""

    @property
    def covers_all(self) -> bool:
        """Whether it is a pool over whole maps."""
        return self.kind in ("max pool", "average pool") and self.kernel == self.n_in and not any(self.padding)


@dataclass
class Recording:
    """What was seen in one forward pass."""

    fake: FakeTensorMode | None = None
    """The mode of its tensors; None for those on the meta device."""
    tracker: AxisTracker = field(default_factory=AxisTracker)
    steps: list[Step] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    """Modules, in the order in which they ended, in whose own forward maps with places are added."""
    outputs: list[tuple[int, ...]] = field(default_factory=list)
    """Shapes of the results of the network."""
    calls: dict[str, int] = field(default_factory=dict)
    """How often each module was called."""
    arguments: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)
    """Of the last call of each module."""
    results: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of the result, where that is a tensor, of the last call of each module."""
    entered: dict[int, set[tuple[int, ...]]] = field(default_factory=dict)
    """Shapes of what each module gets, by its identity."""

    def add_step_behind(self, name: str, result: Tensor) -> None:
        """Take the result of a module for a step with strides of 1."""
        if any(step.place == Place(name) for step in self.steps):
            return
        dims = range(2, result.ndim)
        before = tuple(self.tracker.label_of(result, dim) for dim in dims)
        after = tuple(self.tracker.labels.new() for _ in dims)
        sizes, ones = tuple(result.shape[2:]), (1,) * len(before)
        behind = tuple((Factor(n, label),) for n, label in zip(sizes, after, strict=True))
        self.tracker.put(result, (*self.tracker.of(result)[:2], *behind))
        none = (0,) * len(ones)
        self.steps.append(Step(Place(name), "module", ones, ones, none, ones, sizes, sizes, before, after))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation on its way to the device."""

    def __init__(self, recording: Recording, stack: "_ModuleStack") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording, self.stack = recording, stack

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        kind = KINDS.get(name)
        if kind is not None:
            call = read_call(kind, args)
            # Calls without strides are counted too, so that a trace of the forward finds the same ones.
            number = self.stack.count_call()
            if any(stride > 1 for stride in call.strides) or call.covers(args[0]):
                self._record(call, args[0], out[0] if isinstance(out, tuple) else out, number)
                return out
        if name in ("add", "add_") and isinstance(args[1], Tensor) and args[0].ndim > 2 < args[1].ndim:
            self.recording.merges.append(self.stack.names[-1])
        self.recording.tracker.follow(func, args, out)
        return out

    def _record(self, call: "_Call", x: Tensor, out: Tensor, number: int) -> None:
        module, tracker = self.stack.module, self.recording.tracker
        itself = isinstance(module, (*CONVOLUTIONS, *POOLS, *TRANSPOSED))
        n_axes = x.ndim - 2
        if n_axes == 2 and (isinstance(module, nn.MaxPool1d | nn.AvgPool1d) or (not itself and call.is_flat(x))):
            n_axes = 1  # pools over one axis reach the device as pools over two, of which the first has one bin
        before = tuple(tracker.label_of(x, x.ndim - n_axes + axis) for axis in range(n_axes))
        after = tuple(tracker.labels.new() for _ in range(n_axes))
        sizes = tuple(out.shape[-n_axes:])
        behind = tuple((Factor(n, label),) for n, label in zip(sizes, after, strict=True))
        tracker.put(out, (*keep_places(tracker, [x], out)[: out.ndim - n_axes], *behind))
        settings = {
            name: tuple(getattr(call, name) * (x.ndim - 2 if len(getattr(call, name)) == 1 else 1))[-n_axes:]
            for name in ("strides", "kernel", "padding", "dilation")
        }
        self.recording.steps.append(
            Step(
                place=Place(self.stack.names[-1], None if itself else number),
                kind="transposed convolution" if call.transposed else call.kind,
                n_in=tuple(x.shape[-n_axes:]),
                n_out=sizes,
                before=before,
                after=after,
                **settings,
            )
        )


class _Call(NamedTuple):
    """The settings of a convolution or pooling as they reach the device, for each axis or one for all."""

    kind: Kind
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool

    def covers(self, x: Tensor) -> bool:
        """Whether it is a pool over whole maps."""
        sizes = tuple(x.shape[2:])
        return self.kind != "convolution" and math.prod(sizes) > 1 and self.kernel == sizes and not any(self.padding)

    def is_flat(self, x: Tensor) -> bool:
        """Whether it is a pool that leaves the first of two axes, of one bin, alone."""
        return self.kind != "convolution" and x.shape[-2] == 1 and len(self.kernel) == 2 and self.kernel[0] == 1


def read_call(kind: Kind, args: Sequence[Any]) -> _Call:
    """The settings in the arguments of an ATen operation."""
    if kind == "convolution":
        return _Call(kind, tuple(args[1].shape[2:]), tuple(args[3]), tuple(args[4]), tuple(args[5]), bool(args[6]))
    kernel = tuple(args[1])
    strides = tuple(args[2]) if len(args) > 2 and len(args[2]) else kernel
    padding = tuple(args[3]) if len(args) > 3 else (0,)
    dilation = tuple(args[4]) if kind == "max pool" and len(args) > 4 else (1,)
    return _Call(kind, kernel, strides, padding, dilation, transposed=False)


class _ModuleStack:
    """The modules whose forward is running, outermost first."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.names: list[str] = [""]
        self.modules: list[nn.Module] = [model]
        self._counts: list[int] = [0]

    @property
    def module(self) -> nn.Module:
        """The innermost one."""
        return self.modules[-1]

    def push(self, name: str, module: nn.Module) -> None:
        """A forward begins."""
        self.names.append(name)
        self.modules.append(module)
        self._counts.append(0)

    def pop(self) -> None:
        """A forward has ended."""
        self.names.pop()
        self.modules.pop()
        self._counts.pop()

    def count_call(self) -> int:
        """The number of a pooling or convolution among those that the innermost forward calls itself."""
        self._counts[-1] += 1
        return self._counts[-1] - 1

    def place(self) -> Place:
        """Where the network is."""
        return Place(self.names[-1])


@contextmanager
def watch_modules(model: nn.Module, stack: _ModuleStack, recording: Recording, also: Collection[str]) -> Iterator[None]:
    """Keep the stack of modules while a model runs; an error leaves it where it happened."""

    def begin(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if args and isinstance(args[0], Tensor):
            recording.entered.setdefault(id(module), set()).add(tuple(args[0].shape))
        recording.calls[name] = recording.calls.get(name, 0) + 1
        recording.arguments[name] = (args, kwargs)
        stack.push(name, module)

    def end(name: str, result: Any) -> None:
        stack.pop()
        if isinstance(result, Tensor):
            recording.results[name] = tuple(result.shape)
            if name in also and result.ndim > 2:
                recording.add_step_behind(name, result)

    with ExitStack() as cleaning:
        for name, module in model.named_modules():
            if module is not model:
                cleaning.callback(
                    module.register_forward_pre_hook(
                        lambda module, args, kwargs, name=name: begin(name, module, args, kwargs), with_kwargs=True
                    ).remove
                )
                cleaning.callback(
                    module.register_forward_hook(lambda module, args, result, name=name: end(name, result)).remove
                )
        yield


def record(model: nn.Module, example: Example, *, also: Collection[str] = ()) -> Recording:
    """Follow an example through a model, with the sizes of its tensors and no values.

    Args:
        model: Any network.
        example: What it takes.
        also: Names of modules whose results are taken for steps, with strides of 1.

    Raises:
        ForwardError: The forward pass fails.
        InputError: Control flow that depends on values.
    """
    # Tensors without values are fastest on the meta device. What is not a parameter, a buffer or an input stays where
    # it is, though, and does not go with them; fake tensors, five times slower, take that too.
    try:
        return _follow(model, example, also, None)
    except Exception:
        with without_log():
            return _follow(model, example, also, FakeTensorMode(allow_non_fake_inputs=True))


@contextmanager
def without_log() -> Iterator[None]:
    """Fake tensors write the traceback of every error to the log, which is raised anyway."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def without_values(model: nn.Module, fake: FakeTensorMode | None) -> Iterator[None]:
    """Compute with sizes only: with the parameters and buffers of a model on the meta device, or with fake tensors."""
    if fake is not None:
        with torch.no_grad(), fake:
            yield
        return
    tables = [table for module in model.modules() for table in (module._parameters, module._buffers)]
    before: list[dict[str, Any]] = [dict(table) for table in tables]
    emptied: dict[int, Tensor] = {}  # tensors that modules share stay shared

    def empty(tensor: Tensor) -> Tensor:
        if id(tensor) not in emptied:
            meta = torch.empty_like(tensor, device="meta")
            emptied[id(tensor)] = nn.Parameter(meta, False) if isinstance(tensor, nn.Parameter) else meta
        return emptied[id(tensor)]

    try:
        for table in tables:
            cast(Any, table).update({name: empty(tensor) for name, tensor in table.items() if tensor is not None})
        with torch.no_grad(), torch.device("meta"):
            yield
    finally:
        for table, kept in zip(tables, before, strict=True):
            table.clear()
            cast(Any, table).update(kept)


def _follow(model: nn.Module, example: Example, also: Collection[str], fake: FakeTensorMode | None) -> Recording:
    recording = Recording(fake=fake)
    stack = _ModuleStack(model)
    args, kwargs = as_arguments(example)

    def strip(each: Any) -> Any:
        if not isinstance(each, Tensor):
            return each
        stripped = torch.empty_like(each, device="meta") if fake is None else fake.from_tensor(each)
        recording.tracker.name_input(stripped)
        return stripped

    with without_values(model, fake):
        args, kwargs = tuple(map(strip, args)), {name: strip(each) for name, each in kwargs.items()}
        recording.arguments[""] = (args, kwargs)
        try:
            with watch_modules(model, stack, recording, also), _Recorder(recording, stack):
                result = model(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise InputError(
                f"convert_downsampling: {stack.place()} looks at values of tensors ({error.args[0]}), so one example "
                "does not tell what it does: control flow must not depend on values; convert the submodules in front "
                "of it and behind it instead, one by one"
            ) from error
        except Exception as error:
            raise ForwardError(stack.place(), error) from error
    recording.outputs = [tuple(each.shape) for each in tensors_of(result)]
    return recording


def as_arguments(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call: an example is a tensor, a sequence of arguments, or a dict of named ones."""
    if isinstance(example, dict):
        return (), dict(example)
    return (tuple(example), {}) if isinstance(example, tuple | list) else ((example,), {})


def tensors_of(result: Any) -> list[Tensor]:
    """The tensors in the result of a model, which may be a tensor, a sequence, a dict or a dataclass of such."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, dict):
        result = list(result.values())
    elif hasattr(result, "__dataclass_fields__"):
        result = list(vars(result).values())
    return [each for item in result for each in tensors_of(item)] if isinstance(result, tuple | list) else []

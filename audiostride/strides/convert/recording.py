"""What a network does with an example: its operations that make maps smaller, and which of them must agree."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from audiostride.errors import InputError
from audiostride.strides.convert.axes import AxisTracker, Factor, keep_places
from audiostride.strides.convert.example import Example, strip_example, without_log, without_values
from audiostride.strides.convert.steps import CONVOLUTIONS, KINDS, POOLS, TRANSPOSED, Call, Place, Step, read_call


class ForwardError(Exception):
    """A forward pass that ended in an error, and where."""

    def __init__(self, place: Place, error: Exception) -> None:
        super().__init__(f"{place}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")


@dataclass
class Recording:
    """What was seen in one forward pass."""

    fake: FakeTensorMode | None = None
    """The mode of its tensors; None for those on the meta device."""
    tracker: AxisTracker = field(default_factory=AxisTracker)
    steps: list[Step] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    """Modules, in the order in which they ended, in whose own forward maps with places are added."""
    arguments: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)
    """Of the first call of each module that was called; of the network itself under an empty name."""
    results: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of the result, where that is a tensor, of the first call of each module."""
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
        self.steps.append(
            Step(
                place=Place(name), kind="module", strides=ones, kernel=ones, padding=(0,) * len(ones), dilation=ones,
                n_in=sizes, n_out=sizes, before=before, after=after,
            )
        )  # fmt: skip


@dataclass
class _Running:
    """A module whose forward is running."""

    name: str
    module: nn.Module
    n_calls: int = 0
    """Poolings and convolutions that the forward has called itself."""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation on its way to the device."""

    def __init__(self, recording: Recording, stack: list[_Running]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording, self.stack = recording, stack

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        kind = KINDS.get(name)
        if kind is not None:
            call = read_call(kind, args)
            # Calls without strides are counted too, so that a trace of the forward finds the same ones.
            number = self.stack[-1].n_calls
            self.stack[-1].n_calls += 1
            if any(stride > 1 for stride in call.strides) or call.covers(args[0]):
                self._record(call, args[0], out[0] if isinstance(out, tuple) else out, number)
                return out
        if name in ("add", "add_") and isinstance(args[1], Tensor) and args[0].ndim > 2 < args[1].ndim:
            self.recording.merges.append(self.stack[-1].name)
        self.recording.tracker.follow(func, args, out)
        return out

    def _record(self, call: Call, x: Tensor, out: Tensor, number: int) -> None:
        module, tracker = self.stack[-1].module, self.recording.tracker
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
                place=Place(self.stack[-1].name, None if itself else number),
                kind="transposed convolution" if call.transposed else call.kind,
                n_in=tuple(x.shape[-n_axes:]),
                n_out=sizes,
                before=before,
                after=after,
                **settings,
            )
        )


@contextmanager
def watch_modules(
    model: nn.Module, stack: list[_Running], recording: Recording, also: Collection[str]
) -> Iterator[None]:
    """Keep the stack of modules, outermost first, while a model runs; an error leaves it where it happened."""

    def begin(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if args and isinstance(args[0], Tensor):
            recording.entered.setdefault(id(module), set()).add(tuple(args[0].shape))
        recording.arguments.setdefault(name, (args, kwargs))
        stack.append(_Running(name, module))

    def end(name: str, result: Any) -> None:
        stack.pop()
        if isinstance(result, Tensor):
            recording.results.setdefault(name, tuple(result.shape))
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


def _follow(model: nn.Module, example: Example, also: Collection[str], fake: FakeTensorMode | None) -> Recording:
    recording = Recording(fake=fake)
    stack = [_Running("", model)]

    with without_values(model, fake):
        args, kwargs = strip_example(example, fake, recording.tracker.name_input)
        recording.arguments[""] = (args, kwargs)
        try:
            with watch_modules(model, stack, recording, also), _Recorder(recording, stack):
                model(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise InputError(
                f"convert_downsampling: {Place(stack[-1].name)} looks at values of tensors ({error.args[0]}), so one "
                "example does not tell what it does: control flow must not depend on values; convert the submodules in "
                "front of it and behind it instead, one by one"
            ) from error
        except Exception as error:
            raise ForwardError(Place(stack[-1].name), error) from error
    return recording

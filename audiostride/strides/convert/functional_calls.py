"""Modules whose own forward calls pools or convolutions with strides: that forward is written anew."""

import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from audiostride.errors import InputError

WHO = "convert_downsampling"
_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_CONVOLUTION = ("weight", "bias", "stride", "padding", "dilation", "groups")
# Functions, the class of module with the same settings, and the names of what follows their input.
FUNCTIONS: dict[Any, tuple[type[nn.Module] | None, tuple[str, ...]]] = {
    F.max_pool1d: (nn.MaxPool1d, _MAX),
    F.max_pool2d: (nn.MaxPool2d, _MAX),
    F.max_pool3d: (nn.MaxPool3d, _MAX),
    torch.max_pool1d: (nn.MaxPool1d, _MAX),
    torch.max_pool2d: (nn.MaxPool2d, _MAX),
    torch.max_pool3d: (nn.MaxPool3d, _MAX),
    F.avg_pool1d: (nn.AvgPool1d, _AVERAGE[:-1]),
    F.avg_pool2d: (nn.AvgPool2d, _AVERAGE),
    F.avg_pool3d: (nn.AvgPool3d, _AVERAGE),
    F.conv1d: (None, _CONVOLUTION),
    F.conv2d: (None, _CONVOLUTION),
    F.conv3d: (None, _CONVOLUTION),
    F.conv_transpose1d: (None, ()),
    F.conv_transpose2d: (None, ()),
    F.conv_transpose3d: (None, ()),
}


@dataclass
class Call:
    """A call of a pool or convolution in the forward of a module, in each of the traces of it."""

    nodes: list[fx.Node]
    module: nn.Module | None
    """The pool as a module, None for a convolution."""


class Rewriting:
    """The forward of a module as graphs, in training and in evaluation, and the calls in it that are replaced.

    The module keeps its class, attributes and weights: it gets a subclass with another forward.

    Args:
        module: A module whose forward calls pools or convolutions itself.
        name: Where it is in the network, for messages.
        arguments: With which it is called; those that are no tensors must stay the same.
    """

    def __init__(self, module: nn.Module, name: str, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        self.module, self.name = module, name
        self.signature = inspect.signature(type(module).forward)
        bound = self.signature.bind(module, *arguments[0], **arguments[1])
        bound.apply_defaults()
        given = list(bound.arguments.items())[1:]
        kinds = {each.kind for each in self.signature.parameters.values()}
        if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
            raise InputError(f"{WHO}: the forward of {self._who()} takes *args or **kwargs, {self._way_out()}")
        self.tensors = [name for name, value in given if isinstance(value, Tensor)]
        self.constants = {name: value for name, value in given if not isinstance(value, Tensor)}
        self.graphs = {training: self._trace(training) for training in (False, True)}
        counted = [[node for node in graph.nodes if node.target in FUNCTIONS] for graph in self.graphs.values()]
        if len({len(nodes) for nodes in counted}) > 1:
            raise InputError(
                f"{WHO}: the forward of {self._who()} does not call the same pools and convolutions in training and in "
                f"evaluation, {self._way_out()}"
            )
        self.calls = [Call(list(nodes), _as_module(nodes[0])) for nodes in zip(*counted, strict=True)]

    def _who(self) -> str:
        return f"module {self.name!r} ({type(self.module).__name__})" if self.name else type(self.module).__name__

    def _way_out(self) -> str:
        leave = f", or keep it with leave=[{self.name!r}]" if self.name else ""
        return (
            "which cannot be rewritten; put modules such as nn.AvgPool2d in place of the functions that it calls"
            f"{leave}"
        )

    def _trace(self, training: bool) -> fx.Graph:
        module, original = self.module, type(self.module)
        modes = {each: each.training for each in module.modules()}
        names = ", ".join(self.tensors)

        def call(*tensors: Tensor) -> Any:
            return original.forward(module, **dict(zip(self.tensors, tensors, strict=True)), **self.constants)

        # A signature of its tensors only; the other arguments are what they were.
        scope: dict[str, Any] = {"call": call}
        exec(f"def forward(self, {names}): return call({names})", scope)
        try:
            module.__class__ = type(original.__name__, (original,), {"forward": scope["forward"]})
            module.training = training
            return _OwnForward().trace(module)
        except Exception as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"{WHO}: the forward of {self._who()} has control flow or calls that a trace cannot follow ({text}), "
                f"{self._way_out()}"
            ) from error
        finally:
            module.__class__ = original
            for each, mode in modes.items():
                each.training = mode

    def replace(self, number: int, child: str) -> None:
        """Let a call go to a child of the module; a convolution loses its strides, and its result goes there."""
        if self.calls[number].module is None:
            self.set_strides(number, (1,))
        for node in self.calls[number].nodes:
            graph = node.graph
            if self.calls[number].module is not None:
                with graph.inserting_after(node):
                    new = graph.call_module(child, (node.args[0] if node.args else node.kwargs["input"],))
                node.replace_all_uses_with(new)
                graph.erase_node(node)
                continue
            with graph.inserting_after(node):
                new = graph.call_module(child, (node,))
            node.replace_all_uses_with(new, delete_user_cb=partial(operator.is_not, new))

    def set_strides(self, number: int, strides: tuple[int, ...]) -> None:
        """Let a call have other strides."""
        for node in self.calls[number].nodes:
            names = FUNCTIONS[node.target][1]
            position = names.index("stride") + 1
            if len(node.args) > position:
                node.update_arg(position, strides)
            else:
                node.kwargs = {**node.kwargs, "stride": strides}

    def finish_(self) -> None:
        """Give the module its new forward."""
        forwards = {training: _compile(graph, self.tensors) for training, graph in self.graphs.items()}
        made = _with_forward(self, type(self.module), forwards)
        self.module.__class__ = made


class _OwnForward(fx.Tracer):
    """Follows one forward; calls of other modules stay calls."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _as_module(node: fx.Node) -> nn.Module | None:
    kind, names = FUNCTIONS[node.target]
    if kind is None:
        return None
    given = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}
    given.pop("input", None)
    if any(isinstance(value, fx.Node) for value in given.values()):
        return None  # a kernel that goes with the map, as of global pools
    return kind(**given)


def _compile(graph: fx.Graph, names: list[str]) -> Callable[..., Any]:
    graph.lint()
    code = graph.python_code("self")
    scope = dict(code.globals)
    exec(code.src, scope)
    return cast(Callable[..., Any], scope["forward"])


def _with_forward(
    rewriting: Rewriting, base: type[nn.Module], forwards: Mapping[bool, Callable[..., Any]]
) -> type[nn.Module]:
    """A subclass with the same signature, whose arguments that are no tensors must be those of the trace."""

    who = rewriting._who()

    def refuse(name: str, value: Any) -> InputError:
        return InputError(
            f"{who}: {name} must be {rewriting.constants[name]!r}, with which it was converted, got "
            f"{value!r}; convert the network again with such a call"
        )

    scope: dict[str, Any] = {"refuse": refuse, "in_training": forwards[True], "in_evaluation": forwards[False]}
    scope |= {f"constant_{name}": value for name, value in rewriting.constants.items()}
    parameters = []
    for name, parameter in rewriting.signature.parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        given = parameter.default is inspect.Parameter.empty
        parameters.append(name if given else f"{name}=default_{name}")
        scope[f"default_{name}"] = parameter.default
    itself = next(iter(rewriting.signature.parameters))
    # As text, with the names of its arguments: torch.compile follows no binding of a signature.
    lines = [f"def forward({', '.join(parameters)}):"]
    lines += [f"    if {name} != constant_{name}: raise refuse({name!r}, {name})" for name in rewriting.constants]
    tensors = ", ".join([itself, *rewriting.tensors])
    lines.append(f"    return in_training({tensors}) if {itself}.training else in_evaluation({tensors})")
    exec("\n".join(lines), scope)

    def reduce(self: nn.Module, protocol: Any) -> Any:
        return _make_empty, (type(self),), self.__dict__

    made = {"forward": scope["forward"], "__reduce_ex__": reduce, "__module__": base.__module__}
    return type(f"Pooled{base.__name__}", (base,), made)


def _make_empty(made: type[nn.Module]) -> nn.Module:
    return made.__new__(made)

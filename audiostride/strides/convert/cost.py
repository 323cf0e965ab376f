"""What an example costs a converted network: its multiply-adds, counted, and as a smooth function of its strides."""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from audiostride.errors import InputError
from audiostride.strides.convert.axes import AxisTracker, Factor
from audiostride.strides.convert.example import Example, strip_example, without_log, without_values
from audiostride.strides.diffstride import _DiffStride, read_strides_
from audiostride.strides.frozen_pool import FrozenPool
from audiostride.strides.masks import smooth_length
from audiostride.strides.matrices import pooling_cost
from audiostride.strides.spectral_pool import SpectralPool1d, SpectralPool2d, SpectralPool3d

POOLS = (_DiffStride, SpectralPool1d, SpectralPool2d, SpectralPool3d, FrozenPool)
PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}  # which argument is the left factor


@dataclass
class _Pooled:
    """One axis that a layer has pooled."""

    layer: nn.Module
    axis: int
    label: int
    """Of the axis before."""
    n: int
    n_out: int


@dataclass
class NetworkCost:
    """Multiply-adds of an example through a network, with what they depend on."""

    tracker: AxisTracker = field(default_factory=AxisTracker)
    weights: list[tuple[int, list[int]]] = field(default_factory=list)
    """Multiply-adds of each convolution or product, and the labels of the axes that they are proportional to."""
    pooling: list[tuple[int, _Pooled, list[int]]] = field(default_factory=list)
    """Of each pooled axis: how often (channels, and the other axes), the axis, and labels of the others."""
    pooled: dict[int, _Pooled] = field(default_factory=dict)
    """What an axis with this label was pooled from."""

    def counted(self) -> tuple[int, int]:
        """Multiply-adds of convolutions and products with weights, and of pooling, with the strides as recorded."""
        weights = sum(count for count, _ in self.weights)
        return weights, sum(times * pooling_cost(axis.n, axis.n_out) for times, axis, _ in self.pooling)

    def smooth(self, strides: Mapping[Any, Tensor] | None = None) -> Tensor:
        """`counted` as a function of strides, of the parameters where none are given: sizes are not rounded.

        With the strides as recorded it is what was counted, up to the rounding of sizes.
        """
        ratios: dict[int, Any] = {}
        total: Any = torch.zeros((), dtype=torch.float64)
        for count, labels in self.weights:
            total = total + count * math.prod(self._ratio(label, strides or {}, ratios) for label in labels)
        for times, axis, labels in self.pooling:
            n = axis.n * self._ratio(axis.label, strides or {}, ratios)
            others = math.prod(self._ratio(label, strides or {}, ratios) for label in labels)
            total = total + times * pooling_cost(n, self._length(axis, n, strides or {})) * others
        return torch.as_tensor(total)

    def _ratio(self, label: int, strides: Mapping[Any, Tensor], known: dict[int, Any]) -> Any:
        """Bins of an axis by what they were when recorded."""
        label = self.tracker.labels.find(label)
        if label not in known:
            known[label] = 1.0  # of an axis that no layer has pooled, and where layers lie in a circle
            if (axis := self._source(label)) is not None:
                n = axis.n * self._ratio(axis.label, strides, known)
                known[label] = self._length(axis, n, strides) / axis.n_out
        return known[label]

    def _source(self, label: int) -> _Pooled | None:
        return next((axis for own, axis in self.pooled.items() if self.tracker.labels.find(own) == label), None)

    def _length(self, axis: _Pooled, n: Any, strides: Mapping[Any, Tensor]) -> Any:
        layer = axis.layer
        if isinstance(layer, _DiffStride):
            settings = layer.axes[axis.axis]
            stride = strides.get(layer, layer.strides).expand(layer.n_axes)[axis.axis]
            return smooth_length(n, stride, ramp_bins=settings.ramp_bins, size=settings.size)
        return n * (axis.n_out / axis.n)


def network_cost(model: nn.Module, example: Example) -> NetworkCost:
    """Follow an example through a network, with sizes and no values, and note what its parts cost.

    Counted are convolutions, matrix products and attention, as `torch.utils.flop_counter` knows them (half of its
    operations), and pooling layers, whole, also where they are not frozen.

    Args:
        model: A network with layers such as `DiffStride2d`, converted or not.
        example: What it takes. Only sizes matter, that of the batch too.

    Raises:
        InputError: The forward pass fails on the example.
    """
    read_strides_(model)
    try:
        try:
            return _follow(model, example, None)
        except Exception:
            with without_log():
                return _follow(model, example, FakeTensorMode(allow_non_fake_inputs=True))
    except Exception as error:  # whatever networks raise
        raise InputError(f"network_cost: example must be what the network takes, but it fails: {error}") from error


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every operation on its way to the device, but for those of pooling layers."""

    def __init__(self, cost: NetworkCost) -> None:
        from torch.utils.flop_counter import flop_registry  # it loads Triton, which nothing else here needs

        super().__init__()  # type: ignore[no-untyped-call]
        self.cost, self.depth, self._counters = cost, 0, flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.depth:
            return out
        tracker = self.cost.tracker
        tracker.follow(func, args, out)
        packet = func.overloadpacket
        if packet in self._counters:
            count = self._counters[packet](*args, **(kwargs or {}), out_val=out) // 2
            result = out[0] if isinstance(out, tuple) else out
            axes = list(tracker.of(result))
            if packet.__name__ in PRODUCTS:  # what is summed over may have places too
                axes.append(tracker.of(args[PRODUCTS[packet.__name__]])[-1])
            self.cost.weights.append((count, _labels(axes)))
        return out

    def enter(self, layer: Any, x: Tensor) -> None:
        """A pooling layer begins."""
        if self.depth == 0:
            count = len(layer.sizes) if isinstance(layer, FrozenPool) else layer.n_axes
            sizes = tuple(x.shape[x.ndim - count :])
            tracker, n_axes = self.cost.tracker, len(sizes)
            labels = [tracker.label_of(x, x.ndim - n_axes + axis) for axis in range(n_axes)]
            lengths, now = layer.output_size(*sizes), list(x.shape)  # type: ignore[operator]
            self.axes = []
            for axis, (n, n_out, label) in enumerate(zip(sizes, lengths, labels, strict=True)):
                place = x.ndim - n_axes + axis
                pooled = _Pooled(layer, axis, label, n, n_out)
                others = [*labels[:axis], *labels[axis + 1 :]]
                self.cost.pooling.append((math.prod(now) // now[place], pooled, others))
                now[place], labels[axis] = n_out, tracker.labels.new()
                self.cost.pooled[labels[axis]] = pooled
                self.axes.append((Factor(n_out, labels[axis]),))
            self.before = tracker.of(x)[: x.ndim - n_axes]
        self.depth += 1

    def leave(self, result: Tensor) -> None:
        """It ends."""
        self.depth -= 1
        if self.depth == 0:
            self.cost.tracker.put(result, (*self.before, *self.axes))


def _labels(axes: Any) -> list[int]:
    return [factor.label for axis in axes for factor in axis if factor.label is not None]


def _follow(model: nn.Module, example: Example, fake: FakeTensorMode | None) -> NetworkCost:
    cost = NetworkCost()
    counter = _Counter(cost)

    with without_values(model, fake), ExitStack() as cleaning:
        args, kwargs = strip_example(example, fake, cost.tracker.name_input)
        for module in model.modules():
            if isinstance(module, POOLS):
                before = module.register_forward_pre_hook(lambda layer, args: counter.enter(layer, args[0]))
                after = module.register_forward_hook(lambda layer, args, result: counter.leave(result))
                cleaning.callback(before.remove)
                cleaning.callback(after.remove)
        with counter:
            model(*args, **kwargs)
    return cost

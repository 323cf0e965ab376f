"""Which axes of the maps of a network must have the same size: labels that are carried from operation to operation."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


class Factor(NamedTuple):
    """A part of an axis: flattening makes one axis of several factors, and reshaping may take them apart again."""

    size: int
    label: int | None
    """Which resolution it has; None where it does not follow from one, as channels, or maps of a fixed size."""


Axis = tuple[Factor, ...]
Axes = tuple[Axis, ...]


class Labels:
    """Labels of resolutions; where maps are added, multiplied or put together, theirs become one."""

    def __init__(self) -> None:
        self._parents: list[int] = []

    def new(self) -> int:
        """A label of its own."""
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def find(self, label: int) -> int:
        """The one label that stands for all those that have become one with this."""
        while self._parents[label] != label:
            label = self._parents[label]
        return label

    def unite(self, a: int, b: int) -> None:
        """Make two labels one."""
        self._parents[self.find(b)] = self.find(a)


class AxisTracker:
    """The axes of every tensor of a forward pass.

    Tensors that were not seen before, such as weights, have axes without labels.
    """

    def __init__(self) -> None:
        self.labels = Labels()
        self._axes = WeakIdKeyDictionary()

    def of(self, tensor: Tensor) -> Axes:
        """The axes of a tensor."""
        known: Axes | None = self._axes.get(tensor)  # type: ignore[no-untyped-call]
        return unlabelled(tensor.shape) if known is None or len(known) != tensor.ndim else known

    def name_input(self, tensor: Tensor) -> None:
        """Give every axis of an input a label of its own."""
        self.put(tensor, tuple((Factor(n, self.labels.new()),) for n in tensor.shape))

    def put(self, tensor: Tensor, axes: Axes) -> None:
        """Say what the axes of a tensor are, with its own sizes where an axis is one factor."""
        sized = tuple(
            (Factor(n, axis[0].label),) if len(axis) == 1 else axis for n, axis in zip(tensor.shape, axes, strict=True)
        )
        self._axes[tensor] = sized

    def label_of(self, tensor: Tensor, dim: int) -> int:
        """The label of an axis; one of its own where it has none yet."""
        axes = self.of(tensor)
        axis = axes[dim]
        if len(axis) == 1 and axis[0].label is not None:
            return self.labels.find(axis[0].label)
        label = self.labels.new()
        dim %= tensor.ndim
        self.put(tensor, (*axes[:dim], (Factor(tensor.shape[dim], label),), *axes[dim + 1 :]))
        return label

    def follow(self, function: Any, args: Sequence[Any], out: Any) -> None:
        """Carry labels from the arguments of an ATen operation to its results."""
        results = [item for item in (out if isinstance(out, tuple | list) else [out]) if isinstance(item, Tensor)]
        if not results:
            return
        rule = RULES.get(function.overloadpacket.__name__)
        if rule is not None:
            for result in results:
                self.put(result, rule(self, args, result))
            return
        if torch.Tag.pointwise in function.tags or function.overloadpacket.__name__ in POINTWISE:
            self.put(results[0], self.meet([item for item in args if isinstance(item, Tensor)], results[0]))
            return
        # What keeps the shape of an argument (norms, softmax, dropout, copies) keeps its axes.
        flat = [item for item in args if isinstance(item, Tensor)]
        for result in results:
            like = next((item for item in flat if item.shape == result.shape), None)
            if like is not None and like is not result:
                self.put(result, self.of(like))

    def meet(self, tensors: Sequence[Tensor], result: Tensor, *, but: int | None = None) -> Axes:
        """Axes of an elementwise result: those of its arguments become one, but where they are broadcast."""
        axes = []
        for i in range(1, result.ndim + 1):
            dim = result.ndim - i
            found = [self.of(each)[each.ndim - i] for each in tensors if each.ndim >= i]
            if dim == but:
                axes.append(unlabelled([result.shape[dim]])[0])
                continue
            found = [axis for axis in found if math.prod(factor.size for factor in axis) == result.shape[dim]]
            axes.append(self._unite(found) if found else unlabelled([result.shape[dim]])[0])
        return tuple(reversed(axes))

    def _unite(self, found: list[Axis]) -> Axis:
        first = next((axis for axis in found if any(factor.label is not None for factor in axis)), found[0])
        for axis in found:
            if [factor.size for factor in axis] == [factor.size for factor in first]:
                for a, b in zip(first, axis, strict=True):
                    if a.label is not None and b.label is not None:
                        self.labels.unite(a.label, b.label)
        return first


def unlabelled(sizes: Sequence[int]) -> Axes:
    """Axes of these sizes that follow from no resolution."""
    return tuple((Factor(int(n), None),) for n in sizes)


def regroup(axes: Axes, sizes: Sequence[int]) -> Axes:
    """Axes after a reshape: factors are handed on in order, and one that is cut has pieces without labels."""
    left = [factor for axis in axes for factor in axis if factor.size != 1]
    result: list[Axis] = []
    for n in sizes:
        taken: list[Factor] = []
        rest = int(n)
        while left and rest > 1:
            factor = left.pop(0)
            if rest % factor.size == 0:
                taken.append(factor)
            elif factor.size % rest == 0:
                taken.append(Factor(rest, None))
                left.insert(0, Factor(factor.size // rest, None))
            else:  # pieces of two factors in one axis: nothing that follows can be told apart
                return (*result, *unlabelled(sizes[len(result) :]))
            rest //= taken[-1].size
        result.append(tuple(taken) or (Factor(1, None),))
    return tuple(result)


def _view(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    source = args[0]
    axes = tracker.of(source)
    if tuple(source.shape) == tuple(out.shape):
        return axes
    # Axes of one bin carry labels too, and a reshape cannot tell which of them it keeps; those in the same place do.
    kept = regroup(axes, out.shape)
    if out.ndim == source.ndim:
        kept = tuple(
            axis if n == 1 == m else new for axis, new, n, m in zip(axes, kept, source.shape, out.shape, strict=True)
        )
    return kept


def _unsqueeze(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    axes, dim = tracker.of(args[0]), args[1] % out.ndim
    return (*axes[:dim], (Factor(1, None),), *axes[dim:])


def _squeeze(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    source = args[0]
    dims = range(source.ndim) if len(args) < 2 else [args[1]] if isinstance(args[1], int) else args[1]
    gone = {dim % source.ndim for dim in dims if source.shape[dim] == 1}
    return tuple(axis for dim, axis in enumerate(tracker.of(source)) if dim not in gone)


def _permute(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    axes = tracker.of(args[0])
    return tuple(axes[dim] for dim in args[1])


def _transpose(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    axes = list(tracker.of(args[0]))
    a, b = (args[1], args[2]) if len(args) > 2 else (-1, 0)
    if len(axes) > 1:
        axes[a], axes[b] = axes[b], axes[a]
    return tuple(axes)


def _cat(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    dim = (args[1] if len(args) > 1 else 0) % out.ndim
    return tracker.meet([each for each in args[0] if each.ndim == out.ndim], out, but=dim)


def _stack(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    dim = (args[1] if len(args) > 1 else 0) % out.ndim
    met = tracker.meet(args[0], args[0][0])
    return (*met[:dim], unlabelled([out.shape[dim]])[0], *met[dim:])


def _slice(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    axes = list(tracker.of(args[0]))
    dim = (args[1] if len(args) > 1 else 0) % out.ndim
    if len(args) > 4 and args[4] != 1:  # every other bin: another resolution
        axes[dim] = (Factor(out.shape[dim], tracker.labels.new()),)
    elif len(axes[dim]) > 1:
        axes[dim] = unlabelled([out.shape[dim]])[0]
    return tuple(axes)


def _select(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    dim = (args[1] if len(args) > 1 else 0) % args[0].ndim
    axes = tracker.of(args[0])
    return axes[:dim] + axes[dim + 1 :]


def _split(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    dim = (args[2] if len(args) > 2 else 0) % out.ndim
    return tuple(unlabelled([out.shape[dim]])[0] if i == dim else axis for i, axis in enumerate(tracker.of(args[0])))


def _reduce(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    source = args[0]
    dims = args[1] if len(args) > 1 else None
    if isinstance(dims, Tensor):  # the larger one of two
        return tracker.meet([source, dims], out)
    dims = [dims] if isinstance(dims, int) else dims or range(source.ndim)
    gone = {dim % source.ndim for dim in dims}
    if out.ndim == source.ndim:
        return tuple((Factor(1, None),) if dim in gone else axis for dim, axis in enumerate(tracker.of(source)))
    return tuple(axis for dim, axis in enumerate(tracker.of(source)) if dim not in gone)


def _pad(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    return tuple(
        axis if len(axis) == 1 else unlabelled([n])[0] for axis, n in zip(tracker.of(args[0]), out.shape, strict=True)
    )


def _matrix_product(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    *_, left, right = (item for item in args if isinstance(item, Tensor))
    return (*tracker.of(left)[:-1], tracker.of(right)[-1])


def keep_places(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    """A convolution or pooling without strides: batch and places stay, channels are others."""
    batch, _, *places = tracker.of(args[0]) if args[0].ndim == out.ndim else unlabelled(out.shape)
    return (batch, unlabelled([out.shape[1]])[0], *places)


def _resample(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    """Interpolation: places of another resolution."""
    fresh = tuple((Factor(n, tracker.labels.new()),) for n in out.shape[2:])
    return (*tracker.of(args[0])[:2], *fresh)


def _fixed_size(tracker: AxisTracker, args: Sequence[Any], out: Tensor) -> Axes:
    """Adaptive pooling: as many places whatever the map."""
    return (*tracker.of(args[0])[: out.ndim - 2], *unlabelled(out.shape[-2:]))


Rule = Callable[[AxisTracker, Sequence[Any], Tensor], Axes]
POINTWISE = {"where", "clamp", "addcmul", "addcdiv"}
RULES: dict[str, Rule] = {
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten"), _view),
    **dict.fromkeys(("transpose", "t", "numpy_T", "transpose_"), _transpose),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "var", "std", "logsumexp", "prod"), _reduce),
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm"), _matrix_product),
    **dict.fromkeys(("avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices"), keep_places),
    **dict.fromkeys(("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"), _fixed_size),
    **dict.fromkeys(("adaptive_max_pool2d", "adaptive_max_pool3d"), _fixed_size),
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    "unbind": _select,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "permute": _permute,
    "cat": _cat,
    "stack": _stack,
    "slice": _slice,
    "select": _select,
    "constant_pad_nd": _pad,
    "reflection_pad1d": _pad,
    "reflection_pad2d": _pad,
    "replication_pad2d": _pad,
    "convolution": keep_places,
}  # fmt: skip
RULES |= {
    f"upsample_{kind}": _resample
    for kind in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "bicubic2d", "trilinear3d")
}

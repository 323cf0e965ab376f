"""Modules that are followed by a pooling layer.

Their class, attributes and names of weights are those that they had, and so is the name of their argument: `input`.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

AVERAGES = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class Pooled(nn.Module):
    """Mixed into the class of a module by `pool_after_`: its result is pooled."""

    downsampling: nn.Module
    """The pooling layer, which others may share."""
    made_of: tuple[type["Pooled"], type[nn.Module]]
    """This mixin and the class that the module had."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.downsampling(super().forward(*args, **kwargs))  # type: ignore[misc]

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Copies and pickles look a class up by its name, and these classes are made on the fly.
        return _make_empty, self.made_of, self.__dict__


class _Padded(Pooled):
    """What a module sees has some bins more behind each axis, so that branches that meet have maps of one size."""

    bins_behind: tuple[int, ...] = ()
    fewest_bins: tuple[int, ...] = ()
    """The least that it takes on each axis: learned strides may leave fewer."""

    def count_behind(self, x: Tensor) -> list[int]:
        """Bins to add behind each axis."""
        sizes = x.shape[x.ndim - len(self.bins_behind) :]
        return [
            max(behind, fewest - n) for behind, fewest, n in zip(self.bins_behind, self.fewest_bins, sizes, strict=True)
        ]

    def pad(self, x: Tensor, value: float = 0.0) -> Tensor:
        """The map with its bins behind."""
        behind = self.count_behind(x)
        return F.pad(x, sides_of([0] * len(behind), behind), value=value) if any(behind) else x


def sides_of(front: Sequence[int], behind: Sequence[int]) -> list[int]:
    """Padding of some last axes in the order of ``F.pad``, which begins with the last."""
    return [n for sides in zip(reversed(front), reversed(behind), strict=True) for n in sides]


class PooledConvolution(_Padded):
    """A convolution without strides, then its pooling."""

    pool_first: bool = False

    def forward(self, input: Tensor) -> Tensor:
        if self.pool_first:
            # A kernel of one bin commutes exactly with pooling, and costs less on the smaller map.
            return cast(Tensor, super(Pooled, self).forward(self.downsampling(input)))  # type: ignore[misc]
        return cast(Tensor, super().forward(self.pad(input)))


class PooledMax(_Padded):
    """A maximum over every window of a map, then its pooling."""

    def forward(self, input: Tensor) -> Tensor:
        return cast(Tensor, super().forward(self.pad(input, -math.inf)))


class PooledAverage(_Padded):
    """An average over every window of a map, then its pooling."""

    def forward(self, input: Tensor) -> Tensor:
        behind = self.count_behind(input)
        return cast(Tensor, self.downsampling(self._average(input, behind)) if any(behind) else super().forward(input))

    def _average(self, x: Tensor, behind: Sequence[int]) -> Tensor:
        """Averages of windows that reach beyond the map, of what is in it."""
        pool, n_axes = cast(Any, self), len(behind)
        kernel, padding = (
            (value,) * n_axes if isinstance(value, int) else tuple(value) for value in (pool.kernel_size, pool.padding)
        )
        further = [pad + n for pad, n in zip(padding, behind, strict=True)]
        sums = math.prod(kernel) * AVERAGES[n_axes](F.pad(x, sides_of(padding, further)), kernel, 1)
        divisor = getattr(pool, "divisor_override", None)
        if divisor:
            return cast(Tensor, sums / divisor)
        ones = F.pad(
            x.new_ones((1, 1, *x.shape[x.ndim - n_axes :])),
            sides_of(padding, padding),
            value=1.0 if pool.count_include_pad else 0.0,
        )
        counts = AVERAGES[n_axes](F.pad(ones, sides_of([0] * n_axes, behind)), kernel, 1)
        return cast(Tensor, sums / (math.prod(kernel) * counts))


class PooledAlone(Pooled):
    """A pool that is left out, and the pooling layer in its place."""

    def forward(self, input: Tensor) -> Tensor:
        return cast(Tensor, self.downsampling(input))


_CLASSES: dict[tuple[type[Pooled], type[nn.Module]], type[nn.Module]] = {}


def _pooled_class(mixin: type[Pooled], base: type[nn.Module]) -> type[nn.Module]:
    """The class made of two, always the same one."""
    if (mixin, base) not in _CLASSES:
        _CLASSES[mixin, base] = type(
            f"Pooled{base.__name__}", (mixin, base), {"made_of": (mixin, base), "__module__": base.__module__}
        )
    return _CLASSES[mixin, base]


def _make_empty(mixin: type[Pooled], base: type[nn.Module]) -> nn.Module:
    made = _pooled_class(mixin, base)
    return made.__new__(made)


def pool_after_(module: nn.Module, downsampling: nn.Module, mixin: type[Pooled] = Pooled, **settings: Any) -> None:
    """Let the result of a module be pooled, in place: it gets a subclass of its class, and the layer as a child.

    Args:
        module: The module.
        downsampling: The pooling layer.
        mixin: Which kind of module it is.
        settings: Attributes that the mixin reads.
    """
    module.__class__ = _pooled_class(mixin, type(module))
    module.downsampling = downsampling
    for name, value in settings.items():
        setattr(module, name, value)

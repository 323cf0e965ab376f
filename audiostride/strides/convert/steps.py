"""Operations that make maps smaller: which there are, their settings, and where in a network they are called."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

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


class Call(NamedTuple):
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


def read_call(kind: Kind, args: Sequence[Any]) -> Call:
    """The settings in the arguments of an ATen operation."""
    if kind == "convolution":
        return Call(kind, tuple(args[1].shape[2:]), tuple(args[3]), tuple(args[4]), tuple(args[5]), bool(args[6]))
    kernel = tuple(args[1])
    strides = tuple(args[2]) if len(args) > 2 and len(args[2]) else kernel
    padding = tuple(args[3]) if len(args) > 3 else (0,)
    dilation = tuple(args[4]) if kind == "max pool" and len(args) > 4 else (1,)
    return Call(kind, kernel, strides, padding, dilation, transposed=False)

"""Networks by accuracy and cost: the points of the paper's Figure 4, of audio and of images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audiostride.errors import InputError
from lab.tables import POOLING_NAMES

Start = tuple[tuple[float, float], ...]
"""Strides over both axes of each layer that pools."""


@dataclass(frozen=True, kw_only=True)
class CostPoint:
    """A trained and tested run."""

    start: Start
    """Strides that the layers started from."""
    pooling: str
    """strided, spectral or diffstride."""
    weight: float
    """Lambda, the weight of the cost regulariser in the loss; 0 but for diffstride."""
    seed: int
    """Of the run."""
    accuracy: float
    """Of the test clips or images, in [0, 1]."""
    n_tested: int
    """How many these are."""
    proxy: float
    """Sum over the layers of 1 by the product of both strides: what the regulariser charges, eq. 6 without lambda."""
    multiply_adds: int
    """Of one window or image through the tested network."""
    relative: float
    """`multiply_adds` by those of the strided network with the same start."""
    strides: Start
    """Strides of the tested network."""
    last_map: tuple[int, int] | None = None
    """Bins over both axes after the last layer, where known."""

    @property
    def name(self) -> str:
        """What is compared: the pooling, and of DiffStride its lambda."""
        shown = POOLING_NAMES[self.pooling]
        return f"{shown}, λ = {self.weight:g}" if self.pooling == "diffstride" else shown


def group_points(points: Sequence[CostPoint]) -> dict[tuple[Start, str], list[CostPoint]]:
    """Points by start, in the order given, and by what is compared: strided, spectral, then DiffStride by lambda.

    Raises:
        InputError: No points; a seed that occurs twice in a group.
    """
    if not points:
        raise InputError("cost table: there must be at least one run, got none")
    starts, poolings = list(dict.fromkeys(point.start for point in points)), list(POOLING_NAMES)
    groups: dict[tuple[Start, str], list[CostPoint]] = {}
    for point in sorted(
        points, key=lambda each: (starts.index(each.start), poolings.index(each.pooling), each.weight, each.seed)
    ):
        groups.setdefault((point.start, point.name), []).append(point)
    for (start, name), members in groups.items():
        seeds = [point.seed for point in members]
        if len(set(seeds)) < len(seeds):
            raise InputError(
                f"cost table: runs of {name} from {format_start(start)} must have different seeds, got "
                f"{' '.join(map(str, seeds))}; leave one out"
            )
    return groups


def format_start(start: Start) -> str:
    """Starting strides as the paper writes them.

    >>> format_start(((1.0, 1.0), (2.0, 3.0)))
    '(1, 2x3)'
    """
    shown = [f"{height:g}" if height == width else f"{height:g}x{width:g}" for height, width in start]
    return f"({', '.join(shown)})"


def make_variants(lambdas: Sequence[float]) -> dict[str, dict[str, Any]]:
    """What is compared, by the name of its run folders: fixed strides, then DiffStride with each lambda, from 0 on.

    Raises:
        InputError: A lambda that is negative or not finite.

    >>> list(make_variants([1, 0.3, 1]))
    ['strided', 'spectral', 'lambda0', 'lambda0.3', 'lambda1']
    """
    for value in lambdas:
        if not 0 <= value < math.inf:
            raise InputError(f"--lambdas must be finite and >= 0, got {value}; the paper sweeps 0.1 to 10")
    fixed = {pooling: {"pooling": pooling} for pooling in ("strided", "spectral")}
    # repr tells apart what %g rounds to one name.
    return fixed | {
        f"lambda{repr(value).removesuffix('.0')}": {"pooling": "diffstride", "stride_cost": value}
        for value in sorted({0.0, *map(float, lambdas)})
    }

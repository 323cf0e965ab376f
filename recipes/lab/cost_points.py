"""Accuracy and cost of runs: the regulariser's value, true multiply-adds, and a table of both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, load_classifier, multiply_adds
from audiostride.strides.diffstride import stride_cost
from audiostride.training import TrainConfig
from lab.run_stages import format_accuracies, read_metrics
from lab.tables import POOLING_NAMES


@dataclass(frozen=True, kw_only=True)
class CostPoint:
    """A trained and tested run."""

    pooling: str
    """strided, spectral or diffstride."""
    weight: float
    """Lambda, the weight of the cost regulariser in the loss; without effect but for diffstride."""
    seed: int
    """Of the run."""
    accuracy: float
    """Of the test clips, in [0, 1]."""
    n_clips: int
    """Test clips."""
    proxy: float
    """Sum over the layers of ``1 / (S_t S_m)``, which the regulariser charges for (eq. 6 without lambda)."""
    multiply_adds: int
    """Of one window, see `layer_costs`."""
    relative: float
    """`multiply_adds` by those of the strided network with the strides that the training started from."""
    first_strides: tuple[float, float]
    """Strides of the first layer over time and over mel."""
    last_map: tuple[int, int]
    """Frames and mel bins after the last layer."""

    @property
    def name(self) -> str:
        """What is compared: the pooling, and of DiffStride its lambda."""
        shown = POOLING_NAMES[self.pooling]
        return f"{shown}, λ = {self.weight:g}" if self.pooling == "diffstride" else shown


def measure_run(run: Path) -> CostPoint:
    """Accuracy and cost of a finished run of one task; strides are those of the model that was tested.

    Raises:
        InputError: Not a run folder; starting strides that a strided convolution cannot have.
    """
    config, metrics, model = TrainConfig.load(run), read_metrics(run), load_classifier(run)
    layers = model.encoder.pooled_layers(model.config.window_frames, model.config.n_mels)
    cost = multiply_adds(model)
    return CostPoint(
        pooling=config.pooling,
        weight=config.stride_cost if config.pooling == "diffstride" else 0.0,
        seed=config.seed,
        accuracy=metrics["accuracy"],
        n_clips=metrics["n_clips"],
        proxy=measure_proxy(model),
        multiply_adds=cost,
        relative=cost / strided_multiply_adds(model.config),
        first_strides=layers[0].block.used_strides(*layers[0].n_in),
        last_map=layers[-1].n_out,
    )


def measure_proxy(model: AudioClassifier) -> float:
    """The regulariser's value: of learned strides `stride_cost`, of fixed ones the same sum.

    >>> measure_proxy(AudioClassifier(ClassifierConfig(tasks={"word": ["no", "yes"]}, pooling="strided", width=0.1)))
    3.0
    """
    if model.config.pooling == "diffstride":
        return stride_cost(model).item()
    layers = model.encoder.pooled_layers(model.config.window_frames, model.config.n_mels)
    return math.fsum(1 / math.prod(block.used_strides(*size)) for block, size, _ in layers)


def strided_multiply_adds(config: ClassifierConfig) -> int:
    """Multiply-adds of one window through the strided network with the same channels, starting strides and heads.

    Raises:
        InputError: Strides that are not whole numbers.
    """
    return multiply_adds(AudioClassifier(replace(config, pooling="strided")))


def group_points(points: Sequence[CostPoint]) -> dict[str, list[CostPoint]]:
    """Points by what is compared: strided and spectral, then DiffStride in the order of lambda.

    Raises:
        InputError: No points; a seed that occurs twice in a group.
    """
    if not points:
        raise InputError("cost table: there must be at least one run, got none")
    order = list(POOLING_NAMES)
    groups: dict[str, list[CostPoint]] = {}
    for point in sorted(points, key=lambda point: (order.index(point.pooling), point.weight, point.seed)):
        groups.setdefault(point.name, []).append(point)
    for name, members in groups.items():
        seeds = [point.seed for point in members]
        if len(set(seeds)) < len(seeds):
            listed = " ".join(map(str, seeds))
            raise InputError(f"cost table: runs of {name} must have different seeds, got {listed}; leave one out")
    return groups


def format_costs(points: Sequence[CostPoint]) -> str:
    """A Markdown table with a row for each lambda and for the poolings with fixed strides.

    Accuracies are mean (sd) over runs, the sd that of a sample; costs are means.

    Raises:
        InputError: No points; a seed that occurs twice in a row.
    """
    titles = ["network", "seeds", "test accuracy (%), mean (sd)", "Σ 1/(S_t S_m)", "multiply-adds (M)",
              "relative to strided", "strides of layer 1 (time, mel)", "last map (time x mel)"]  # fmt: skip
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for name, members in group_points(points).items():
        time, mel = (fmean(point.first_strides[axis] for point in members) for axis in (0, 1))
        maps = sorted({point.last_map for point in members})
        cells = [
            name,
            " ".join(str(point.seed) for point in members),
            format_accuracies([100 * point.accuracy for point in members]),
            f"{fmean(point.proxy for point in members):.3f}",
            f"{fmean(point.multiply_adds for point in members) / 1e6:.2f}",
            f"{fmean(point.relative for point in members):.2f} x",
            f"{time:.2f}, {mel:.2f}",
            ", ".join(f"{n_t} x {n_m}" for n_t, n_m in maps),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def describe_spread(points: Sequence[CostPoint]) -> str:
    """How far accuracies are to be trusted: by other test clips, and by other seeds where there are some.

    >>> point = CostPoint(pooling="strided", weight=0, seed=0, accuracy=0.8, n_clips=400, proxy=3, multiply_adds=1,
    ...                   relative=1, first_strides=(2, 2), last_map=(7, 4))
    >>> describe_spread([point])
    'one accuracy on 400 test clips has a sampling error of 2.0 points (sd); one run each says nothing of other seeds'
    """
    groups = group_points(points)
    mean = fmean(point.accuracy for point in points)
    n_clips = min(point.n_clips for point in points)
    error = f"{100 * math.sqrt(mean * (1 - mean) / n_clips):.1f}"
    text = f"one accuracy on {n_clips:,} test clips has a sampling error of {error} points (sd)"
    spreads = [stdev([100 * point.accuracy for point in members]) for members in groups.values() if len(members) > 1]
    if not spreads:
        return f"{text}; one run each says nothing of other seeds"
    return f"{text}; the sd over seeds is {fmean(spreads):.1f} points on average"

"""Accuracy and cost of image runs, and tables of them: by network and start, and over the starts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import torch

from audiostride.errors import InputError
from audiostride.strides.diffstride import diffstride_layers, stride_cost
from images import ImageTrainConfig
from images.classifier import build_image_network, count_multiply_adds
from images.saving import load_image_classifier
from lab.run_stages import format_accuracies, read_metrics
from lab.tables import POOLING_NAMES

# Riad et al. 2022, section 3.2: ImageNet, top-1, mean (sd) over six starts.
PAPER = {"strided": "65.53 (4.49)", "spectral": "67.58 (1.88)", "diffstride": "69.28 (0.50)"}
PAPER_STARTS = ((1, 2, 2, 2), (1, 1, 3, 1), (1, 3, 1, 3), (2, 2, 2, 3), (2, 3, 1, 2), (3, 3, 2, 3))


@dataclass(frozen=True, kw_only=True)
class ImagePoint:
    """A trained and evaluated run."""

    start: tuple[tuple[float, float], ...]
    """Strides over height and width that the layers started from."""
    pooling: str
    """strided, spectral or diffstride."""
    weight: float
    """Lambda, the weight of the cost regulariser in the loss; 0 but for diffstride."""
    seed: int
    """Of the run."""
    accuracy: float
    """Top-1, in [0, 1]."""
    n_images: int
    """Images evaluated on."""
    proxy: float
    """Sum over the layers of ``1 / (S_h S_w)``, which the regulariser charges for (eq. 6 without lambda)."""
    multiply_adds: int
    """Of one image through the trained network."""
    relative: float
    """`multiply_adds` by those of the strided network with the same start."""
    strides: tuple[tuple[float, float], ...]
    """Strides at the end."""

    @property
    def name(self) -> str:
        """What is compared: the pooling, and of DiffStride its lambda."""
        shown = POOLING_NAMES[self.pooling]
        return f"{shown}, λ = {self.weight:g}" if self.pooling == "diffstride" else shown


def measure_image_run(run: Path) -> ImagePoint:
    """Accuracy and cost of a finished run, as its last state is.

    Raises:
        InputError: Not a run folder; starting strides that a strided convolution cannot have.
    """
    config, metrics = ImageTrainConfig.load(run), read_metrics(run)
    model, _ = load_image_classifier(run)
    start = tuple(config.stride_pairs())
    strided = build_image_network(**{**model.settings, "pooling": "strided"})
    cost = int(metrics["multiply_adds"])
    own = count_multiply_adds(strided, torch.zeros(1, 3, model.image_size, model.image_size))
    learned = tuple((layer.stride_values()[0], layer.stride_values()[1]) for layer in diffstride_layers(model))
    return ImagePoint(
        start=start,
        pooling=config.pooling,
        weight=config.stride_cost if config.pooling == "diffstride" else 0.0,
        seed=config.seed,
        accuracy=metrics["accuracy"],
        n_images=metrics["n_images"],
        proxy=stride_cost(model).item() if learned else math.fsum(1 / math.prod(pair) for pair in start),
        multiply_adds=cost,
        relative=cost / own,
        strides=learned or start,
    )


def format_start(start: Sequence[tuple[float, float]]) -> str:
    """Starting strides as the paper writes them.

    >>> format_start([(1.0, 1.0), (2.0, 3.0)])
    '(1, 2x3)'
    """
    shown = [f"{height:g}" if height == width else f"{height:g}x{width:g}" for height, width in start]
    return f"({', '.join(shown)})"


def group_image_points(
    points: Sequence[ImagePoint],
) -> dict[tuple[tuple[tuple[float, float], ...], str], list[ImagePoint]]:
    """Points by start, in the order given, and by what is compared: strided, spectral, then DiffStride by lambda.

    Raises:
        InputError: No points; a seed that occurs twice in a group.
    """
    if not points:
        raise InputError("image tables: there must be at least one run, got none")
    starts, poolings = list(dict.fromkeys(point.start for point in points)), list(POOLING_NAMES)
    groups: dict[tuple[tuple[tuple[float, float], ...], str], list[ImagePoint]] = {}
    for point in sorted(
        points, key=lambda each: (starts.index(each.start), poolings.index(each.pooling), each.weight, each.seed)
    ):
        groups.setdefault((point.start, point.name), []).append(point)
    for (start, name), members in groups.items():
        seeds = [point.seed for point in members]
        if len(set(seeds)) < len(seeds):
            raise InputError(
                f"image tables: runs of {name} from {format_start(start)} must have different seeds, got "
                f"{' '.join(map(str, seeds))}; leave one out"
            )
    return groups


def format_image_costs(points: Sequence[ImagePoint]) -> str:
    """A Markdown table with a row for each start and network; accuracies are mean (sd) over runs, the rest means.

    Raises:
        InputError: No points; a seed that occurs twice in a row.
    """
    titles = ["start", "network", "seeds", "top-1 (%), mean (sd)", "Σ 1/(S_h S_w)", "multiply-adds (M)",
              "relative to strided", "strides at the end (height x width)"]  # fmt: skip
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for (start, name), members in group_image_points(points).items():
        layers = range(len(start))
        means = [tuple(fmean(point.strides[layer][axis] for point in members) for axis in (0, 1)) for layer in layers]
        cells = [
            format_start(start),
            name,
            " ".join(str(point.seed) for point in members),
            format_accuracies([100 * point.accuracy for point in members]),
            f"{fmean(point.proxy for point in members):.3f}",
            f"{fmean(point.multiply_adds for point in members) / 1e6:,.2f}",
            f"{fmean(point.relative for point in members):.2f} x",
            ", ".join(f"{height:.2f} x {width:.2f}" for height, width in means),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def format_over_starts(points: Sequence[ImagePoint]) -> str:
    """A Markdown table with a row per network: mean and spread of its accuracy over the starts, beside the paper's.

    The spread is the standard deviation of a sample, of the means over seeds.

    Raises:
        InputError: No points; a seed that occurs twice for a start.
    """
    lines = [
        "| network | starts | top-1 (%), mean (sd) over starts | the paper's (%), over its six |",
        "|" + " --- |" * 4,
    ]
    by_name: dict[str, list[list[ImagePoint]]] = {}
    for (_, name), members in group_image_points(points).items():
        by_name.setdefault(name, []).append(members)
    for name, groups in by_name.items():
        means = [100 * fmean(point.accuracy for point in members) for members in groups]
        spread = f" ({stdev(means):.2f})" if len(means) > 1 else " (one start)"
        first = groups[0][0]
        paper = PAPER[first.pooling] if first.weight == 0 else ""
        lines.append(f"| {name} | {len(groups)} | {fmean(means):.2f}{spread} | {paper} |")
    return "\n".join(lines)

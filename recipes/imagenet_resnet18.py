"""ResNet-18 on ImageNet with learned strides: accuracy by start, and accuracy against cost, the paper's Figure 4.

Data: ImageNet as an image folder, ROOT/train/<class>/<image> and ROOT/val/<class>/<image> (the images of val/ are
    distributed without class folders: sort them into such first); or any images in such folders. Needs torchvision:
    pip install 'audiostride[vision]'.
Command: python recipes/imagenet_resnet18.py ROOT --devices 8
    python recipes/imagenet_resnet18.py ROOT --devices 8 --starts paper --lambdas 0
    python recipes/imagenet_resnet18.py ROOT --devices 8 --pooling diffstride --set size=nominal
    On two machines: torchrun --nnodes 2 --nproc-per-node 8 ... recipes/imagenet_resnet18.py ROOT --devices 8
    --num-nodes 2
Expected: the paper's top-1, mean (sd) over its six starts: strided 65.53 (4.49), spectral 67.58 (1.88), DiffStride
    69.28 (0.50); its Figure 4 shows lambda from 0.1 to 10. Not run on ImageNet: no figures of this toolkit yet. Written
    are a table (table.md) and a figure (figure.png, figure.svg): top-1 against the regulariser's value and against true
    multiply-adds, which at the paper's size of maps (n/S + 2R) are several times those of strided convolution.
Hardware: the paper's schedule (90 epochs of 1.28 M images, batches of 256) for GPUs; a step is shared by all of them.
Time: --smoke 15 s (one thread, drawn pictures); ImageNet not run. A finished run is not trained again, a stopped one
    goes on where it was.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure

from audiostride.errors import InputError
from audiostride.strides.diffstride import diffstride_layers, stride_cost
from audiostride.training.sweep import describe_failures
from images.classifier import build_image_network, count_multiply_adds, load_image_classifier
from images.config import ImageTrainConfig, image_preset_settings
from images.pictures import make_pictures
from images.train import train_images
from lab.costs import CostPoint, format_start, group_points, make_variants
from lab.figures import CostAxis, draw_costs, figure_stage
from lab.program import POOLINGS, choose_seeds, end_of_output, end_program, make_parser, open_folder, parse_settings
from lab.runs import format_accuracies, read_metrics, train_all

NAME = "imagenet_resnet18"
PRESET = "paper_imagenet"
EXPECTED = (
    "not run on ImageNet. The paper's, over its six starts: strided 65.53 (4.49), spectral 67.58 (1.88), DiffStride "
    "69.28 (0.50)"
)
# Riad et al. 2022, section 3.2: ImageNet, top-1, mean (sd) over six starts.
PAPER = {"strided": "65.53 (4.49)", "spectral": "67.58 (1.88)", "diffstride": "69.28 (0.50)"}
PAPER_STARTS = ((1, 2, 2, 2), (1, 1, 3, 1), (1, 3, 1, 3), (2, 2, 2, 3), (2, 3, 1, 2), (3, 3, 2, 3))
LAMBDAS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)  # the paper's range, 0.1 to 10, and none
FIRST_START = "1,2,2,2"
# What the program itself sets, and how.
TAKEN = {"out": "--out", "data": "ROOT", "pooling": "--pooling", "strides": "--starts", "stride_cost": "--lambdas",
         "seed": "--seeds", "devices": "--devices", "num_nodes": "--num-nodes", "workers": "--workers"}  # fmt: skip
SMOKE = {"width": 0.05, "max_steps": 4, "batch_size": 8, "image_size": 64, "valid_every": 1.0, "device": "cpu"}
SMOKE_LAMBDAS = (0.0, 3.0)
SMOKE_COUNTS = {"train": 8, "val": 4}


def main(given: Sequence[str] | None = None) -> int:
    """Run the experiment with the options of a command line; the return value is the exit code."""
    arguments = build_parser().parse_args(given)
    return end_program(NAME, lambda: run(arguments))


def build_parser() -> argparse.ArgumentParser:
    """The options of the experiment."""
    parser = make_parser(NAME, __doc__)
    add = parser.add_argument
    add("root", metavar="ROOT", nargs="?", help="folder with train/ and val/ (or valid/, test/), a folder per class in "
        "each")  # fmt: skip
    add("--out", metavar="DIR", help=f"folder that is written (default: runs/{NAME})")
    add("--lambdas", type=float, nargs="+", metavar="L", help="weights of the cost regulariser, >= 0, of runs with "
        f"DiffStride, in addition to 0 (default: {' '.join(f'{value:g}' for value in LAMBDAS)})")  # fmt: skip
    add("--starts", nargs="+", metavar="S", default=[FIRST_START], help="starting strides, a number for each layer, "
        f"such as {FIRST_START}; 'paper' is the paper's six (default: %(default)s)")  # fmt: skip
    add("--pooling", nargs="+", choices=POOLINGS, default=list(POOLINGS), help="what is compared (default: all three)")
    add("--seeds", type=int, nargs="+", help="a run for each (default: 0 1 2)")
    add("--devices", type=int, default=1, help="GPUs on each machine that train together (default: 1)")
    add("--num-nodes", type=int, default=1, help="machines that train together (default: 1)")
    add("--workers", type=int, default=8, help="processes that read images, for each GPU (default: 8)")
    add("--set", nargs="+", metavar="NAME=VALUE", default=[], help="any other setting of ImageTrainConfig, such as "
        "size=nominal epochs=30 milestones=[10,20]")  # fmt: skip
    add("--smoke", action="store_true", help="draw tiny pictures and run everything on the CPU")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Train what is missing; write and print tables, draw the figure.

    ``table.md``, ``figure.png`` and ``figure.svg`` stand in the folder of the runs; what stands is skipped.

    Raises:
        InputError: Bad options or data.
        KeyboardInterrupt: Stopped; the same call goes on.
        SystemExit: Of several processes that train together this is not the first, which does what comes then.
    """
    starts = list(dict.fromkeys(start for text in arguments.starts for start in parse_start(text)))
    lambdas = arguments.lambdas or (SMOKE_LAMBDAS if arguments.smoke else LAMBDAS)
    variants = {variant: own for variant, own in make_variants(lambdas).items() if own["pooling"] in arguments.pooling}
    given = parse_settings(NAME, arguments.set)
    check_options(arguments, given)
    with open_folder(NAME, arguments.out, smoke=arguments.smoke) as (folder, _):
        root = make_pictures(folder / "pictures", SMOKE_COUNTS) if arguments.smoke else arguments.root
        settings = image_preset_settings(PRESET) | {
            "devices": arguments.devices, "num_nodes": arguments.num_nodes, "workers": arguments.workers,
            **({**SMOKE, "workers": 0} if arguments.smoke else {}), "data": str(root), **given,
        }  # fmt: skip
        # All settings are looked at before the first run of hours begins.
        configs = [
            ImageTrainConfig(
                **{**settings, **own, "strides": list(start), "seed": seed,
                   "out": str(folder / "-".join(f"{stride:g}" for stride in start) / f"{variant}_seed{seed}")}
            )
            for seed in choose_seeds(arguments)
            for start in starts
            for variant, own in variants.items()
        ]  # fmt: skip
        failed = train_all(configs, train_images)
        if failed:
            raise InputError(describe_failures(failed, n_runs=len(configs)))
        points = [measure_run(Path(config.out)) for config in configs]
        table = format_costs(points)
        if len(starts) > 1:
            table += f"\n\n{format_over_starts(points)}"
        figure_stage(lambda: draw_figure(points), table, folder, n_runs=len(points))
        print(f"\n{NAME} ({root}): {describe_run(Path(configs[0].out))}\n\n{table}\n")
        print(end_of_output(smoke=arguments.smoke, expected=EXPECTED, data="stripes instead of photographs"))


def parse_start(text: str) -> list[tuple[float, ...]]:
    """Starting strides, a number for each layer, of an option; 'paper' is the paper's six.

    >>> parse_start("1,2,2.5,2"), len(parse_start("paper"))
    ([(1.0, 2.0, 2.5, 2.0)], 6)

    Raises:
        InputError: Neither.
    """
    if text == "paper":
        return [tuple(map(float, start)) for start in PAPER_STARTS]
    try:
        return [tuple(float(part) for part in text.split(","))]
    except ValueError:
        raise InputError(
            f"--starts must be 'paper' or numbers with commas between them, such as {FIRST_START}, got {text!r}"
        ) from None


def check_options(arguments: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Raise where options contradict each other, before anything is read.

    Raises:
        InputError: No data; smoke with data or several processes; a setting that there is not, or has its own option.
    """
    known = sorted(entry.name for entry in fields(ImageTrainConfig) if entry.name not in TAKEN)
    for setting in given:
        if setting in TAKEN:
            raise InputError(f"{NAME}: --set must leave {setting} to an option of its own, {TAKEN[setting]}")
        if setting not in known:
            raise InputError(f"{NAME}: --set must be one of {', '.join(known)}, got {setting!r}")
    if arguments.smoke and (arguments.root or arguments.devices * arguments.num_nodes > 1):
        raise InputError(f"{NAME}: --smoke draws its own pictures, in one process; leave ROOT and --devices out")
    if not arguments.smoke and arguments.root is None:
        raise InputError(
            f"{NAME}: ROOT must be a folder with train/ and val/, got none; or try --smoke, which draws pictures"
        )


def describe_run(run: Path) -> str:
    """Steps, batch, network, hardware and versions of a run, for the line above a table."""
    config = ImageTrainConfig.load(run)
    environment, metrics = (
        json.loads((run / f"{file}.json").read_text(encoding="utf-8")) for file in ("environment", "metrics")
    )
    return (
        f"{metrics['steps']:,} steps of {config.batch_size} images, {config.arch}, width {config.width:g}, maps of "
        f"size {config.size}, SGD {config.lr:g}; {environment['device']}, torch {environment['packages']['torch']}"
    )


def measure_run(run: Path) -> CostPoint:
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
    return CostPoint(
        start=start,
        pooling=config.pooling,
        weight=config.stride_cost if config.pooling == "diffstride" else 0.0,
        seed=config.seed,
        accuracy=metrics["accuracy"],
        n_tested=metrics["n_images"],
        proxy=stride_cost(model).item() if learned else math.fsum(1 / math.prod(pair) for pair in start),
        multiply_adds=cost,
        relative=cost / own,
        strides=learned or start,
    )


def format_costs(points: Sequence[CostPoint]) -> str:
    """A Markdown table with a row for each start and network; accuracies are mean (sd) over runs, the rest means.

    Raises:
        InputError: No points; a seed that occurs twice in a row.
    """
    titles = ["start", "network", "seeds", "top-1 (%), mean (sd)", "Σ 1/(S_h S_w)", "multiply-adds (M)",
              "relative to strided", "strides at the end (height x width)"]  # fmt: skip
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for (start, name), members in group_points(points).items():
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


def format_over_starts(points: Sequence[CostPoint]) -> str:
    """A Markdown table with a row per network: mean and spread of its accuracy over the starts, beside the paper's.

    The spread is the standard deviation of a sample, of the means over seeds.

    Raises:
        InputError: No points; a seed that occurs twice for a start.
    """
    lines = [
        "| network | starts | top-1 (%), mean (sd) over starts | the paper's (%), over its six |",
        "|" + " --- |" * 4,
    ]
    by_name: dict[str, list[list[CostPoint]]] = {}
    for (_, name), members in group_points(points).items():
        by_name.setdefault(name, []).append(members)
    for name, groups in by_name.items():
        means = [100 * fmean(point.accuracy for point in members) for members in groups]
        spread = f" ({stdev(means):.2f})" if len(means) > 1 else " (one start)"
        first = groups[0][0]
        paper = PAPER[first.pooling] if first.weight == 0 else ""
        lines.append(f"| {name} | {len(groups)} | {fmean(means):.2f}{spread} | {paper} |")
    return "\n".join(lines)


def draw_figure(points: Sequence[CostPoint]) -> Figure:
    """Top-1 accuracy by the regulariser's value and by multiply-adds."""
    unit, name = (1e9, "G") if max((point.multiply_adds for point in points), default=0) >= 1e9 else (1e6, "M")
    costs: list[CostAxis] = [
        ("regulariser's value: Σ 1/(S_h S_w) over the layers", lambda point: point.proxy),
        (f"multiply-adds of one image ({name})", lambda point: point.multiply_adds / unit),
    ]
    return draw_costs(points, costs, accuracy="top-1 accuracy (%)")


if __name__ == "__main__":
    sys.exit(main())

"""Image classifiers with learned strides as a program: runs by start, pooling, lambda and seed; table and figure."""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

from audiostride.errors import InputError
from lab.cost_sweep import make_variants
from lab.data_stages import processes_of, say
from lab.program import DEFAULT_SEEDS, end_program, one_thread, parse_settings
from lab.recipe import POOLINGS

LAMBDAS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)  # the paper's range, 0.1 to 10, and none
FIRST_START = "1,2,2,2"
# What the program itself sets, and how.
TAKEN = {"out": "--out", "data": "ROOT", "pooling": "--pooling", "strides": "--starts", "stride_cost": "--lambdas",
         "seed": "--seeds", "devices": "--devices", "num_nodes": "--num-nodes", "workers": "--workers"}  # fmt: skip
SMOKE = {"width": 0.05, "max_steps": 4, "batch_size": 8, "image_size": 64, "valid_every": 1.0, "device": "cpu"}
SMOKE_LAMBDAS = (0.0, 3.0)
SMOKE_COUNTS = {"train": 8, "val": 4}


def main_images(name: str, head: str, *, preset: str, expected: str, given: Sequence[str] | None = None) -> int:
    """Run the experiment with the options of a command line; the return value is the exit code.

    Args:
        name: Of the recipe.
        head: Its docstring.
        preset: Settings of `images`, by name.
        expected: What is printed last.
        given: The command line, None for that of this process.
    """
    arguments = build_images_parser(name, head).parse_args(given)
    return end_program(name, lambda: run_images(name, arguments, preset=preset, expected=expected))


def build_images_parser(name: str, head: str) -> argparse.ArgumentParser:
    """The options of the experiment."""
    parser = argparse.ArgumentParser(
        prog=f"{name}.py", description=head, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("root", metavar="ROOT", nargs="?", help="folder with train/ and val/ (or valid/, test/), a folder per class in "
        "each")  # fmt: skip
    add("--out", metavar="DIR", help=f"folder that is written (default: runs/{name})")
    add("--lambdas", type=float, nargs="+", metavar="L", help="weights of the cost regulariser, >= 0, of runs with "
        f"DiffStride, in addition to 0 (default: {' '.join(f'{value:g}' for value in LAMBDAS)})")  # fmt: skip
    add("--starts", nargs="+", metavar="S", default=[FIRST_START], help="starting strides, a number for each layer, "
        f"such as {FIRST_START}; 'paper' is the paper's six (default: %(default)s)")  # fmt: skip
    add("--pooling", nargs="+", choices=POOLINGS, default=list(POOLINGS), help="what is compared (default: all three)")
    add("--seeds", type=int, nargs="+", help=f"a run for each (default: {' '.join(map(str, DEFAULT_SEEDS))})")
    add("--devices", type=int, default=1, help="GPUs on each machine that train together (default: 1)")
    add("--num-nodes", type=int, default=1, help="machines that train together (default: 1)")
    add("--workers", type=int, default=8, help="processes that read images, for each GPU (default: 8)")
    add("--set", nargs="+", metavar="NAME=VALUE", default=[], help="any other setting of ImageTrainConfig, such as "
        "size=nominal epochs=30 milestones=[10,20]")  # fmt: skip
    add("--smoke", action="store_true", help="draw tiny pictures and run everything on the CPU")
    return parser


def run_images(name: str, arguments: argparse.Namespace, *, preset: str, expected: str) -> str:
    """Train what is missing; write and print tables, draw the figure.

    ``table.md``, ``figure.png`` and ``figure.svg`` stand in the folder of the runs; what stands is skipped.

    Args:
        name: Of the recipe.
        arguments: What `build_images_parser` parses.
        preset: Settings of `images`, by name.
        expected: What is printed last.

    Returns:
        The tables that are printed.

    Raises:
        InputError: Bad options or data.
        KeyboardInterrupt: Stopped; the same call goes on.
        SystemExit: Of several processes that train together this is not the first, which does what comes then.
    """
    starts = list(dict.fromkeys(start for text in arguments.starts for start in parse_start(text)))
    variants = {
        variant: settings
        for variant, settings in make_variants(
            arguments.lambdas or (SMOKE_LAMBDAS if arguments.smoke else LAMBDAS)
        ).items()
        if settings["pooling"] in arguments.pooling
    }
    seeds = list(dict.fromkeys(arguments.seeds or ([0] if arguments.smoke else DEFAULT_SEEDS)))
    given = parse_settings(name, arguments.set)
    check_image_options(name, arguments, given)
    # Lightning and matplotlib take seconds to load, which help and errors need not wait for.
    from images import image_preset_settings
    from images.pictures import make_pictures
    from lab.imagenet_figure import image_figure_stage
    from lab.imagenet_points import format_image_costs, format_over_starts, measure_image_run

    with ExitStack() as cleaning:
        root, out = arguments.root, arguments.out
        settings = image_preset_settings(preset) | {
            "devices": arguments.devices, "num_nodes": arguments.num_nodes, "workers": arguments.workers,
        }  # fmt: skip
        if arguments.smoke:
            settings |= {**SMOKE, "workers": 0}
            out = out or cleaning.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-"))
            root = make_pictures(Path(out) / "pictures", SMOKE_COUNTS)
            cleaning.enter_context(one_thread())
        folder = Path(out or Path("runs") / name)
        runs = train_image_runs(
            folder, starts=starts, variants=variants, seeds=seeds, settings={**settings, "data": str(root), **given}
        )
        points = [measure_image_run(run) for run in runs]
        table = format_image_costs(points)
        if len(starts) > 1:
            table += f"\n\n{format_over_starts(points)}"
        image_figure_stage(points, table, folder)
        print(f"\n{name} ({root}): {describe_image_run(runs[0])}\n\n{table}\n")
        if arguments.smoke:
            print("smoke: stripes instead of photographs and a few steps, which shows that everything runs, no more")
        else:
            print(f"expected: {expected}")
    return table


def train_image_runs(
    folder: Path,
    *,
    starts: Sequence[tuple[float, ...]],
    variants: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    settings: Mapping[str, Any],
) -> list[Path]:
    """Train a run for each seed, start and variant; finished ones are left alone, stopped ones go on.

    Args:
        folder: Where the run folders are, ``<start>/<variant>_seed<seed>``.
        starts: Starting strides.
        variants: Settings of `ImageTrainConfig` that are compared, by name.
        seeds: A run for each.
        settings: Settings that all have.

    Returns:
        The run folders.

    Raises:
        InputError: As `train_images`, also where a run stands that has other settings.
        KeyboardInterrupt: A training was stopped; its checkpoint stands.
        SystemExit: Of several processes that train together this is not the first, which does what comes then.
    """
    from images import ImageTrainConfig, train_images
    from images.run import finished_image_metrics

    processes, runs = processes_of(settings), []
    # All settings are looked at before the first run of hours begins.
    configs = [
        ImageTrainConfig(
            **{
                **settings,
                **own,
                "strides": list(start),
                "seed": seed,
                "out": str(folder / "-".join(f"{stride:g}" for stride in start) / f"{variant}_seed{seed}"),
            }
        )
        for seed in seeds
        for start in starts
        for variant, own in variants.items()
    ]
    for config in configs:
        run = Path(config.out)
        begun, finished = (run / "config.yaml").is_file(), finished_image_metrics(run) is not None
        if begun and not finished and processes.first:
            say("train", f"{run} was stopped, goes on")
        metrics = train_images(config, resume=begun)
        if metrics["stopped_early"]:
            raise KeyboardInterrupt
        if not processes.first:
            continue
        accuracy = f"top-1 {100 * metrics['accuracy']:.1f} % of {metrics['n_images']:,} images"
        say("train", f"{run} stands, skipped ({accuracy})" if finished else f"{run}: {accuracy}")
        runs.append(run)
    if not processes.first:
        sys.exit()
    return runs


def parse_start(text: str) -> list[tuple[float, ...]]:
    """Starting strides, a number for each layer, of an option; 'paper' is the paper's six.

    >>> parse_start("1,2,2.5,2"), len(parse_start("paper"))
    ([(1.0, 2.0, 2.5, 2.0)], 6)

    Raises:
        InputError: Neither.
    """
    if text == "paper":
        from lab.imagenet_points import PAPER_STARTS

        return [tuple(map(float, start)) for start in PAPER_STARTS]
    try:
        return [tuple(float(part) for part in text.split(","))]
    except ValueError:
        raise InputError(
            f"--starts must be 'paper' or numbers with commas between them, such as {FIRST_START}, got {text!r}"
        ) from None


def check_image_options(name: str, arguments: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Raise where options contradict each other, before anything is read.

    Raises:
        InputError: No data; smoke with data or several processes; a setting that there is not, or has its own option.
    """
    from images import ImageTrainConfig

    known = sorted(entry.name for entry in fields(ImageTrainConfig) if entry.name not in TAKEN)
    for setting in given:
        if setting in TAKEN:
            raise InputError(f"{name}: --set must leave {setting} to an option of its own, {TAKEN[setting]}")
        if setting not in known:
            raise InputError(f"{name}: --set must be one of {', '.join(known)}, got {setting!r}")
    if arguments.smoke and (arguments.root or arguments.devices * arguments.num_nodes > 1):
        raise InputError(f"{name}: --smoke draws its own pictures, in one process; leave ROOT and --devices out")
    if not arguments.smoke and arguments.root is None:
        raise InputError(
            f"{name}: ROOT must be a folder with train/ and val/, got none; or try --smoke, which draws pictures"
        )


def describe_image_run(run: Path) -> str:
    """Steps, batch, network, hardware and versions of a run, for the line above a table."""
    import json

    from images import ImageTrainConfig

    config = ImageTrainConfig.load(run)
    environment, metrics = (
        json.loads((run / f"{file}.json").read_text(encoding="utf-8")) for file in ("environment", "metrics")
    )
    return (
        f"{metrics['steps']:,} steps of {config.batch_size} images, {config.arch}, width {config.width:g}, maps of "
        f"size {config.size}, SGD {config.lr:g}; {environment['device']}, torch {environment['packages']['torch']}"
    )

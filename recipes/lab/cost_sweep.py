"""A sweep of the weight of the cost regulariser, as a program: runs, table and figure of accuracy against cost."""

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from audiostride.checks import EncoderKind, check_choice
from audiostride.errors import InputError
from audiostride.models.config import ENCODER_STRIDES
from lab.program import (
    DEFAULT_SEEDS,
    SMOKE,
    add_options,
    choose_folders,
    end_program,
    make_archive,
    one_thread,
    prepare_archive,
    read_settings,
)
from lab.recipe import Recipe

# The paper sweeps 0.1 to 10. Here less is enough: on ten words in 400 steps, 0.01 takes a quarter of the multiply-adds
# away, 0.3 two thirds with 13 points of accuracy, and 1 leaves maps of one bin (recipes/README.md).
LAMBDAS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
SMOKE_LAMBDAS = (0.0, 3.0)
# What the sweep itself sets.
COMPARED = ("stride_cost",)


def main_costs(recipe: Recipe, given: Sequence[str] | None = None) -> int:
    """Run the sweep with the options of a command line; the return value is the exit code."""
    arguments = build_costs_parser(recipe).parse_args(given)
    return end_program(recipe.name, lambda: run_costs(recipe, arguments))


def build_costs_parser(recipe: Recipe) -> argparse.ArgumentParser:
    """The options of the sweep."""
    parser = argparse.ArgumentParser(
        prog=f"{recipe.name}.py", description=recipe.head, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("root", metavar="ROOT", nargs="?", help=f"folder of the unpacked archive of {recipe.data}; not needed once its "
        "manifest stands")  # fmt: skip
    add("--manifest", metavar="M", help="learn this manifest instead: a CSV table, a folder of class folders, or a "
        "store")  # fmt: skip
    add("--label", metavar="COLUMN", help=f"its column with the labels (default: {recipe.label})")
    add("--lambdas", type=float, nargs="+", metavar="L", help="weights of the regulariser, >= 0, in addition to 0 "
        f"(default: {' '.join(f'{value:g}' for value in LAMBDAS)})")  # fmt: skip
    add("--data", metavar="DIR", help="folder of manifest and store of the archive (default: OUT/data/<data set>-"
        "<scheme>, or without --out runs/data/<data set>-<scheme>, which recipes share)")  # fmt: skip
    add_options(parser, recipe.name, recipe.settings, splits=recipe.splits)
    return parser


def run_costs(recipe: Recipe, arguments: argparse.Namespace) -> str:
    """Train, for each seed, both poolings with fixed strides and DiffStride with each lambda; write table and figure.

    ``table.md``, ``figure.png`` and ``figure.svg`` stand beside the run folders; what stands is skipped.

    Args:
        recipe: The archive that is learned where no manifest is given, and settings.
        arguments: What `build_costs_parser` parses.

    Returns:
        The table that is printed last.

    Raises:
        InputError: Bad options, data or audio.
        KeyboardInterrupt: Stopped; the same call goes on.
    """
    given = read_settings(recipe.name, arguments)
    settings = {**recipe.settings, **(SMOKE if arguments.smoke else {}), **given}
    variants = make_variants(arguments.lambdas or (SMOKE_LAMBDAS if arguments.smoke else LAMBDAS))
    seeds = list(dict.fromkeys(arguments.seeds or ([0] if arguments.smoke else DEFAULT_SEEDS)))
    check_options(recipe, arguments, settings, taken=[name for name in COMPARED if name in given])
    # Lightning and matplotlib take seconds to load, which help and errors need not wait for.
    from lab.cost_figure import figure_stage
    from lab.cost_points import describe_spread, format_costs, measure_run
    from lab.run_stages import describe_setting, train_runs

    with ExitStack() as cleaning:
        root, given_out = arguments.root, arguments.out
        if arguments.smoke:
            given_out = given_out or cleaning.enter_context(tempfile.TemporaryDirectory(prefix=f"{recipe.name}-"))
            root = make_archive(recipe.data, Path(given_out) / "archive")
            cleaning.enter_context(one_thread())
        out, data = choose_folders(recipe, given_out, arguments.data, splits=arguments.splits)
        label = arguments.label or recipe.label
        if arguments.manifest is None:
            learned = prepare_archive(recipe, root, data, arguments, settings)
            folder, name = out / arguments.splits, recipe.data
        else:
            learned = Path(arguments.manifest)
            name = learned.absolute().parent.name if learned.stem in ("manifest", "store") else learned.stem
            folder = out / f"{name}-{label}"
        runs = train_runs(
            folder,
            variants=variants,
            seeds=seeds,
            settings=settings | {"manifest": str(learned), "label": label, "on_error": arguments.on_error},
        )
        points = [measure_run(run) for members in runs.values() for run in members]
        table = format_costs(points)
        figure_stage(points, table, folder)
        print(f"\n{recipe.name} ({name}, {label}): {describe_setting(runs['strided'][0])}\n\n{table}\n")
        print(describe_spread(points))
        if arguments.smoke:
            print("smoke: tones instead of the data set and a few steps, which shows that everything runs, no more")
        else:
            print(f"expected: {recipe.expected}")
    return table


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


def check_options(
    recipe: Recipe, arguments: argparse.Namespace, settings: Mapping[str, Any], *, taken: Sequence[str]
) -> None:
    """Raise where options contradict each other, before anything is read.

    Raises:
        InputError: Both an archive and a manifest; smoke with data; a setting that the sweep sets; starting strides
            that a strided convolution, to which costs are relative, cannot have.
    """
    if taken:
        raise InputError(f"--set must leave what is compared alone, got {', '.join(taken)}; give --lambdas")
    if arguments.smoke and (arguments.root or arguments.manifest or arguments.download):
        raise InputError(f"{recipe.name}: --smoke makes its own data; leave ROOT, --manifest and --download out")
    if arguments.manifest is not None:
        of_archives = {
            "ROOT": arguments.root, "--data": arguments.data, "--download": arguments.download,
            "--partial": arguments.partial, "--splits": arguments.splits != recipe.splits,
        }  # fmt: skip
        wrong = [option for option, found in of_archives.items() if found]
        if wrong:
            raise InputError(
                f"{recipe.name}: --manifest must be given without what is for archives, got {', '.join(wrong)}; "
                "leave out one or the other"
            )
    strides = settings.get("strides")
    if strides is None:
        check_choice(recipe.name, "encoder", settings.get("encoder", "separable"), EncoderKind)
        strides = ENCODER_STRIDES[settings.get("encoder", "separable")]
    try:
        whole = all(float(stride).is_integer() for pair in strides for stride in pair)
    except (TypeError, ValueError):  # not pairs, or not numbers
        whole = False
    if not whole:
        raise InputError(
            f"{recipe.name}: strides must be pairs of whole numbers, since costs are relative to strided convolution "
            f"with the same ones, got {strides}; give a pair for each block, such as [[2,2],[1,1]]"
        )

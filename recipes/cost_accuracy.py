"""Accuracy against cost: a sweep of the weight lambda of the paper's cost regulariser (eq. 6), as in its Figure 4.

Data: Speech Commands v0.02, as speech_commands.py, whose manifest and store it shares; or with --manifest any manifest
    with a train/valid/test split.
Command: python recipes/cost_accuracy.py ROOT --download
    python recipes/cost_accuracy.py --manifest MANIFEST --label COLUMN --width 0.25 --max-steps 400 --seeds 0
Expected: a table and a figure (figure.png, figure.svg): test accuracy, the regulariser's value and true multiply-adds
    for strided convolution, spectral pooling, and DiffStride with each lambda. Not run on the full archive yet; a small
    run stands in recipes/RESULTS.md. The paper's figure is of ImageNet, so that there are no figures to compare with.
Hardware: settings for a GPU: the package's defaults, 20,000 steps. On a CPU: --width 0.25 --max-steps 400. In narrow
    networks pooling weighs more: at its starting strides DiffStride takes 1.11 times the multiply-adds of strided
    convolution at width 1, 1.37 times at 0.25, 1.75 times at 0.125.
Time: --smoke 15 s (one thread, beside other jobs); the full archive not run yet. A finished run is not trained again.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from matplotlib.figure import Figure

from audiostride.checks import EncoderKind, check_choice
from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, load_classifier
from audiostride.models.cost import multiply_adds
from audiostride.models.encoder_kinds import ENCODER_STRIDES
from audiostride.strides.diffstride import stride_cost
from audiostride.training import TrainConfig
from lab.costs import CostPoint, group_points, make_variants
from lab.figures import CostAxis, draw_costs, figure_stage
from lab.program import (
    SMOKE,
    add_options,
    choose_seeds,
    end_of_output,
    end_program,
    make_parser,
    open_folder,
    read_settings,
)
from lab.recipe import Recipe, prepare_archive
from lab.runs import describe_setting, format_accuracies, read_metrics, train_runs

RECIPE = Recipe(
    name="cost_accuracy",
    head=__doc__,
    data="speech-commands",
    label="label",
    # As in speech_commands.py.
    settings={"max_steps": 20_000, "valid_every": 1_000, "time_shift_s": 0.1},
)
# The paper sweeps 0.1 to 10. Here less is enough: on ten words in 400 steps, 0.01 takes a quarter of the multiply-adds
# away, 0.3 two thirds with 13 points of accuracy, and 1 leaves maps of one bin (recipes/RESULTS.md).
LAMBDAS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
SMOKE_LAMBDAS = (0.0, 3.0)


def main(recipe: Recipe, given: Sequence[str] | None = None) -> int:
    """Run the sweep with the options of a command line; the return value is the exit code."""
    arguments = build_parser(recipe).parse_args(given)
    return end_program(recipe.name, lambda: run(recipe, arguments))


def build_parser(recipe: Recipe) -> argparse.ArgumentParser:
    """The options of the sweep."""
    parser = make_parser(recipe.name, recipe.head)
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


def run(recipe: Recipe, arguments: argparse.Namespace) -> None:
    """Train, for each seed, both poolings with fixed strides and DiffStride with each lambda; write table and figure.

    ``table.md``, ``figure.png`` and ``figure.svg`` stand beside the run folders; what stands is skipped.

    Args:
        recipe: The archive that is learned where no manifest is given, and settings.
        arguments: What `build_parser` parses.

    Raises:
        InputError: Bad options, data or audio.
        KeyboardInterrupt: Stopped; the same call goes on.
    """
    given = read_settings(recipe.name, arguments)
    settings = {**recipe.settings, **(SMOKE if arguments.smoke else {}), **given}
    variants = make_variants(arguments.lambdas or (SMOKE_LAMBDAS if arguments.smoke else LAMBDAS))
    if "stride_cost" in given:
        raise InputError("--set must leave what is compared alone, got stride_cost; give --lambdas")
    check_options(recipe, arguments, settings)
    label = arguments.label or recipe.label
    with open_folder(recipe.name, arguments.out, smoke=arguments.smoke) as (out, home):
        if arguments.manifest is None:
            learned = prepare_archive(recipe, home, arguments, settings)
            folder, name = out / arguments.splits, recipe.data
        else:
            learned = Path(arguments.manifest)
            name = learned.absolute().parent.name if learned.stem in ("manifest", "store") else learned.stem
            folder = out / f"{name}-{label}"
        runs = train_runs(
            folder,
            variants=variants,
            seeds=choose_seeds(arguments),
            settings=settings | {"manifest": str(learned), "label": label, "on_error": arguments.on_error},
        )
        points = [measure_run(run) for members in runs.values() for run in members]
        table = format_costs(points)
        figure_stage(lambda: draw_figure(points), table, folder, n_runs=len(points))
        print(f"\n{recipe.name} ({name}, {label}): {describe_setting(runs['strided'][0])}\n\n{table}\n")
        print(describe_spread(points))
        print(end_of_output(smoke=arguments.smoke, expected=recipe.expected))


def check_options(recipe: Recipe, arguments: argparse.Namespace, settings: Mapping[str, Any]) -> None:
    """Raise where options contradict each other, before anything is read.

    Raises:
        InputError: Smoke or a manifest with options of archives; strides that a strided convolution cannot have.
    """
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


def measure_run(run: Path) -> CostPoint:
    """Accuracy and cost of a finished run of one task; strides are those of the model that was tested.

    Raises:
        InputError: Not a run folder; starting strides that a strided convolution cannot have.
    """
    config, metrics, model = TrainConfig.load(run), read_metrics(run), load_classifier(run)
    layers = model.encoder.pooled_layers(model.config.window_frames, model.config.n_mels)
    cost = multiply_adds(model)
    return CostPoint(
        start=tuple((float(time), float(mel)) for time, mel in config.strides or ()),
        pooling=config.pooling,
        weight=config.stride_cost if config.pooling == "diffstride" else 0.0,
        seed=config.seed,
        accuracy=metrics["accuracy"],
        n_tested=metrics["n_clips"],
        proxy=measure_proxy(model),
        multiply_adds=cost,
        relative=cost / strided_multiply_adds(model.config),
        strides=tuple(layer.block.used_strides(*layer.n_in) for layer in layers),
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


def format_costs(points: Sequence[CostPoint]) -> str:
    """A Markdown table with a row for each lambda and for the poolings with fixed strides.

    Accuracies are mean (sd) over runs, the sd that of a sample; costs are means.

    Raises:
        InputError: No points; a seed that occurs twice in a row.
    """
    titles = ["network", "seeds", "test accuracy (%), mean (sd)", "Σ 1/(S_t S_m)", "multiply-adds (M)",
              "relative to strided", "strides of layer 1 (time, mel)", "last map (time x mel)"]  # fmt: skip
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for (_, name), members in group_points(points).items():
        time, mel = (fmean(point.strides[0][axis] for point in members) for axis in (0, 1))
        maps = sorted({point.last_map for point in members if point.last_map is not None})
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

    >>> point = CostPoint(start=((2, 2),), pooling="strided", weight=0, seed=0, accuracy=0.8, n_tested=400, proxy=3,
    ...                   multiply_adds=1, relative=1, strides=((2, 2),), last_map=(7, 4))
    >>> describe_spread([point])
    'one accuracy on 400 test clips has a sampling error of 2.0 points (sd); one run each says nothing of other seeds'
    """
    groups = group_points(points)
    mean = fmean(point.accuracy for point in points)
    n_clips = min(point.n_tested for point in points)
    error = f"{100 * math.sqrt(mean * (1 - mean) / n_clips):.1f}"
    text = f"one accuracy on {n_clips:,} test clips has a sampling error of {error} points (sd)"
    spreads = [stdev([100 * point.accuracy for point in members]) for members in groups.values() if len(members) > 1]
    if not spreads:
        return f"{text}; one run each says nothing of other seeds"
    return f"{text}; the sd over seeds is {fmean(spreads):.1f} points on average"


def draw_figure(points: Sequence[CostPoint]) -> Figure:
    """Test accuracy by the regulariser's value, and by multiply-adds relative to strided convolution."""
    units = {round(point.multiply_adds / point.relative) for point in points}
    unit = f" (1 = {units.pop() / 1e6:.3g} M)" if len(units) == 1 else ""
    costs: list[CostAxis] = [
        ("regulariser's value: Σ 1/(Sₜ Sₘ) over the layers", lambda point: point.proxy),
        (f"multiply-adds of a 1 s window, relative to strided{unit}", lambda point: point.relative),
    ]
    return draw_costs(points, costs, accuracy="test accuracy (%)")


if __name__ == "__main__":
    sys.exit(main(RECIPE))

"""An experiment on one archive, as a program: import, check, prepare, train each pooling, report, the table."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from audiostride.checks import check_choice
from audiostride.dataset.importers import ARCHIVES, SCHEMES
from audiostride.errors import InputError
from audiostride.training.presets import DEFAULT_PRESET, preset_settings
from lab.archives import make_archive
from lab.data_stages import prepare_data, processes_of
from lab.program import (
    POOLINGS,
    SMOKE,
    add_options,
    check_settings,
    choose_seeds,
    end_of_output,
    end_program,
    make_parser,
    open_folder,
    read_settings,
)
from lab.runs import describe_setting, format_accuracies, read_metrics, report_stage, train_runs


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An experiment on one data set and one column of labels.

    Raises:
        InputError: A data set without an importer, an unknown scheme or pooling, a setting that training does not have.
    """

    name: str
    """Name of the recipe's file, without its suffix; also of its folder of runs."""
    head: str
    """The recipe's docstring, which ``--help`` shows: data, command, expected result, hardware, time."""
    data: str
    """Name of the data set's card."""
    label: str
    """Column of the manifest with the labels."""
    paper: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """The paper's test accuracy in % of each pooling, single-task, with its standard deviation: ``"87.3 (0.1)"``."""
    splits: str = "official"
    """Split scheme: official, or paper-like."""
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Settings of `TrainConfig` that differ from those of the default preset."""

    def __post_init__(self) -> None:
        who = f"recipe {self.name}"
        check_choice(who, "data", self.data, ARCHIVES)
        check_choice(who, "splits", self.splits, SCHEMES)
        for pooling in self.paper:
            check_choice(who, "paper", pooling, POOLINGS)
        check_settings(who, self.settings)

    @property
    def expected(self) -> str:
        """What the head says of the expected result, in one line."""
        found = re.search(r"^Expected: (.*?)(?=^\w+: |\Z)", self.head, flags=re.MULTILINE | re.DOTALL)
        return " ".join(found[1].split()) if found else ""


def main(recipe: Recipe, given: Sequence[str] | None = None) -> int:
    """Run a recipe with the options of a command line; the return value is the exit code."""
    arguments = build_parser(recipe).parse_args(given)
    return end_program(recipe.name, lambda: run_recipe(recipe, arguments))


def build_parser(recipe: Recipe) -> argparse.ArgumentParser:
    """The options of a recipe."""
    parser = make_parser(recipe.name, recipe.head)
    add = parser.add_argument
    add("root", metavar="ROOT", nargs="?", help="folder of the unpacked archives; not needed once the manifest stands")
    add("--data", metavar="DIR", help="folder of manifest and store (default: OUT/data/<data set>-<scheme>, or without "
        "--out runs/data/<data set>-<scheme>, which recipes share)")  # fmt: skip
    add("--pooling", nargs="+", choices=POOLINGS, default=list(POOLINGS), help="what is compared (default: all three)")
    add_options(parser, recipe.name, recipe.settings, splits=recipe.splits)
    return parser


def run_recipe(recipe: Recipe, arguments: argparse.Namespace) -> str:
    """Import, check, prepare, train, evaluate and report; what stands is skipped.

    Args:
        recipe: The experiment.
        arguments: What `build_parser` parses.

    Returns:
        The table that is printed last.

    Raises:
        InputError: Bad options, data or audio.
        KeyboardInterrupt: Stopped; the same call goes on.
    """
    settings = {
        **preset_settings(DEFAULT_PRESET),
        **recipe.settings,
        **(SMOKE if arguments.smoke else {}),
        **read_settings(recipe.name, arguments),
    }
    if arguments.smoke and (arguments.root is not None or arguments.download):
        raise InputError(f"{recipe.name}: --smoke makes its own data; leave ROOT and --download out")
    with open_folder(recipe.name, arguments.out, smoke=arguments.smoke) as (out, home):
        store = prepare_archive(recipe, home, arguments, settings)
        folder = out / arguments.splits
        runs = train_runs(
            folder,
            variants={pooling: {"pooling": pooling} for pooling in dict.fromkeys(arguments.pooling)},
            seeds=choose_seeds(arguments),
            settings=settings | {"manifest": str(store), "label": recipe.label, "on_error": arguments.on_error},
        )
        report_stage(runs, folder / "report.html")
        table = format_results(recipe, runs, splits=arguments.splits)
        setting = describe_setting(next(iter(runs.values()))[0])
        print(f"\n{recipe.name} ({recipe.data}, {recipe.label}): {setting}\n\n{table}\n")
        print(end_of_output(smoke=arguments.smoke, expected=recipe.expected))
    return table


def prepare_archive(recipe: Recipe, home: Path, arguments: argparse.Namespace, settings: Mapping[str, Any]) -> Path:
    """The store of a recipe's data set, in the folder that options give or in ``data`` of `home`.

    Smoke learns a miniature.

    Args:
        recipe: The experiment.
        home: Of the folder of data.
        arguments: With `root`, `data` and those of `add_options`.
        settings: Of the training.
    """
    data = Path(arguments.data) if arguments.data else home / "data" / f"{recipe.data}-{arguments.splits}"
    return prepare_data(
        recipe.data,
        make_archive(recipe.data, home / "archive") if arguments.smoke else arguments.root,
        data,
        splits=arguments.splits,
        download=arguments.download,
        partial=arguments.partial,
        on_error=arguments.on_error,
        processes=processes_of(settings),
    )


def format_results(recipe: Recipe, runs: Mapping[str, Sequence[Path]], *, splits: str) -> str:
    """A Markdown table: one row per pooling with its test accuracy, and the paper's in a column of its own.

    The standard deviation is that of a sample, as a statement about other seeds; one run has none.
    """
    lines = [
        "| pooling | seeds | test accuracy (%), mean (sd) | split scheme | the paper's (%), on its own split |",
        "|" + " --- |" * 5,
    ]
    for pooling, folders in runs.items():
        seeds = " ".join(run.name.rsplit("seed", 1)[1] for run in folders)
        accuracies = [100 * read_metrics(run)["accuracy"] for run in folders]
        paper = recipe.paper.get(pooling, "")
        lines.append(f"| {pooling} | {seeds} | {format_accuracies(accuracies)} | {splits} | {paper} |")
    return "\n".join(lines)

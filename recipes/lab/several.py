"""An experiment on the tasks of several archives at once, as a program."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.training.presets import DEFAULT_PRESET, preset_settings
from lab.archives import make_archive
from lab.data_stages import prepare_data, processes_of
from lab.paper import COLUMNS, TASKS
from lab.program import (
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
from lab.results import TaskResult, read_results
from lab.runs import describe_setting, report_stage, train_runs

# Option with the folder of each archive.
FOLDERS = {"tut-urban-2018": "tut", "dcase2018-birds": "birds", "nsynth": "nsynth", "speech-commands": "speech"}


@dataclass(frozen=True, kw_only=True)
class SeveralRecipe:
    """An experiment on the paper's five tasks, learned together.

    Raises:
        InputError: A setting that training does not have.
    """

    name: str
    """Name of the recipe's file, without its suffix; also of its folder of runs."""
    head: str
    """The recipe's docstring, which ``--help`` shows: data, command, expected result, hardware, time."""
    variants: Mapping[str, Mapping[str, Any]]
    """What is compared, by name: settings of `TrainConfig`."""
    table: Callable[[Sequence[TaskResult]], str]
    """Makes the table from the results."""
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Settings of `TrainConfig` that differ from those of the default preset."""

    def __post_init__(self) -> None:
        check_settings(f"recipe {self.name}", self.settings)


def main_several(recipe: SeveralRecipe, given: Sequence[str] | None = None) -> int:
    """Run a recipe with the options of a command line; the return value is the exit code."""
    arguments = build_several_parser(recipe).parse_args(given)
    return end_program(recipe.name, lambda: run_several(recipe, arguments))


def build_several_parser(recipe: SeveralRecipe) -> argparse.ArgumentParser:
    """The options of a recipe."""
    parser = make_parser(recipe.name, recipe.head)
    add = parser.add_argument
    for data, option in FOLDERS.items():
        add(f"--{option}", metavar="DIR", help=f"folder of {data}, unpacked; not needed once its manifest stands")
    add("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="what is learned (default: all five)")
    add("--data", metavar="DIR", help="folder of the folders <data set>-<scheme> with manifest and store (default: "
        "OUT/data, or without --out runs/data, which recipes share)")  # fmt: skip
    add("--only", nargs="+", choices=list(recipe.variants), default=list(recipe.variants), help="what is compared")
    add_options(parser, recipe.name, recipe.settings)
    return parser


def run_several(recipe: SeveralRecipe, arguments: argparse.Namespace) -> str:
    """Import, check and prepare each archive, train on all at once, evaluate, report; what stands is skipped.

    Returns:
        The table that is printed last.

    Raises:
        InputError: Bad options, data or audio.
        KeyboardInterrupt: Stopped; the same call goes on.
    """
    given = read_settings(recipe.name, arguments)
    taken = sorted({name for own in recipe.variants.values() for name in own if name in given})
    if taken:
        raise InputError(f"--set must leave what is compared alone, got {', '.join(taken)}")
    settings = {**preset_settings(DEFAULT_PRESET), **recipe.settings, **(SMOKE if arguments.smoke else {}), **given}
    tasks = [task for task in TASKS if task in arguments.tasks]
    roots = {data: getattr(arguments, option) for data, option in FOLDERS.items()}
    if arguments.smoke and (any(roots.values()) or arguments.download):
        options = ", ".join(f"--{option}" for option in FOLDERS.values())
        raise InputError(f"--smoke makes its own data; leave {options} and --download out")
    with open_folder(recipe.name, arguments.out, smoke=arguments.smoke) as (out, home):
        if arguments.smoke:
            needed = {COLUMNS[task][0] for task in tasks}
            roots = {data: make_archive(data, out / "archives" / data) for data in FOLDERS if data in needed}
        folder = Path(arguments.data) if arguments.data else home / "data"
        stores = prepare_several(tasks, roots, folder, arguments, processes_of(settings))
        runs = train_runs(
            out / arguments.splits,
            variants={variant: recipe.variants[variant] for variant in dict.fromkeys(arguments.only)},
            seeds=choose_seeds(arguments),
            settings=settings | what_is_learned(tasks, stores) | {"on_error": arguments.on_error},
        )
        report_stage(runs, out / arguments.splits / "report.html")
        folders = [run for members in runs.values() for run in members]
        results, _ = read_results(folders, names={task: task for task in tasks})
        table = recipe.table(results)
        print(f"\n{recipe.name} ({', '.join(tasks)}): {describe_setting(folders[0])}\n")
        print(f"test accuracy (%), mean (sd) over runs; the paper's is of five tasks on splits of its own\n\n{table}\n")
        if arguments.smoke:
            print(end_of_output(smoke=True, data="tones instead of the data sets"))
    return table


def prepare_several(
    tasks: Sequence[str],
    roots: Mapping[str, str | Path | None],
    folder: Path,
    arguments: argparse.Namespace,
    processes: Processes,
) -> dict[str, Path]:
    """The store of each data set that the tasks need, after a look at what is missing for any of them.

    Raises:
        InputError: Folders that are needed and not given; bad data or audio.
    """
    needed = list(dict.fromkeys(COLUMNS[task][0] for task in tasks))
    homes = {data: folder / f"{data}-{arguments.splits}" for data in needed}
    missing = [data for data in needed if roots.get(data) is None and not (homes[data] / "manifest.csv").is_file()]
    if missing:
        listed = "\n".join(f"  --{FOLDERS[data]} DIR  {data}" for data in missing)
        raise InputError(
            f"every task needs the folder of its archive, unpacked, or a manifest in {folder}, but missing are"
            f"\n{listed}\ngive the folders, with --download to have them filled, learn fewer --tasks, or try --smoke"
        )
    return {
        data: prepare_data(
            data,
            roots.get(data),
            homes[data],
            splits=arguments.splits,
            download=arguments.download,
            partial=arguments.partial,
            on_error=arguments.on_error,
            processes=processes,
        )
        for data in needed
    }


def what_is_learned(tasks: Sequence[str], stores: Mapping[str, Path]) -> dict[str, Any]:
    """Settings with the tasks and where their labels are."""
    return {"task": [f"{task}={stores[COLUMNS[task][0]]}:{COLUMNS[task][1]}" for task in tasks]}

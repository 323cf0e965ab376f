"""A table from run folders, as a program."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from audiostride.errors import InputError
from audiostride.writing import write_text
from lab.archives import make_archive
from lab.data_stages import prepare_data
from lab.program import SMOKE, end_of_output, end_program, make_parser, open_folder
from lab.results import TaskResult, find_runs, read_results
from lab.runs import train_runs
from lab.tables import describe_differences


def main_table(
    name: str, head: str, table: Callable[[Sequence[TaskResult]], str], given: Sequence[str] | None = None
) -> int:
    """Print a table of runs with the options of a command line; the return value is the exit code."""
    arguments = build_table_parser(name, head).parse_args(given)
    return end_program(name, lambda: print_table(name, table, arguments))


def build_table_parser(name: str, head: str) -> argparse.ArgumentParser:
    """The options of a recipe."""
    parser = make_parser(name, head)
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="*", help="run folder, folder of run folders, or a pattern for them in quotes")
    add("--names", nargs="+", metavar="TASK=ROW", default=[], help="rows for tasks that no importer has made, such as "
        "words=speech; FOLDER:TASK=ROW where tasks of several data sets have one name")  # fmt: skip
    add("--out", metavar="FILE", help="also write the table to this file")
    add("--smoke", action="store_true", help="first make tiny data and two tiny runs of them, on the CPU")
    return parser


def print_table(name: str, table: Callable[[Sequence[TaskResult]], str], arguments: argparse.Namespace) -> str:
    """Read the runs and print their table, with what is left out and which settings vary.

    Returns:
        The table.

    Raises:
        InputError: No runs, or runs that do not fit together.
    """
    names = {}
    for item in arguments.names:
        task, sign, row = item.rpartition("=")
        if not (sign and task and row):
            raise InputError(f"--names must be given TASK=ROW, got {item!r}")
        names[task] = row
    if arguments.smoke and arguments.runs:
        raise InputError("--smoke makes its own runs; leave RUN out")
    # Smoke has a folder of its own: --out is a file here.
    with open_folder(name, None, smoke=arguments.smoke) as (folder, _):
        given = [str(run) for run in make_smoke_runs(folder)] if arguments.smoke else arguments.runs
        if not given:
            raise InputError("RUN must be at least one run folder, got none; or try --smoke")
        results, left_out = read_results(find_runs(given), names=names)
        if not results:
            raise InputError("\n".join(["there must be a run with test results, got none", *left_out]))
        shown = table(results)
        print(f"\n{shown}\n")
        if arguments.out:
            write_text(Path(arguments.out), f"{shown}\n")
        for line in [*left_out, *describe_differences(results)]:
            print(line)
        if arguments.smoke:
            print(end_of_output(smoke=True, data="tones instead of a data set"))
    return shown


def make_smoke_runs(folder: Path) -> list[Path]:
    """A run of NSynth's instruments, and one of its instruments and pitches, on a miniature."""
    store = prepare_data("nsynth", make_archive("nsynth", folder / "archive"), folder / "data" / "nsynth-official")
    learned: dict[str, dict[str, Any]] = {
        "instrument": {"manifest": str(store), "label": "instrument_family"},
        "together": {"task": [f"families={store}:instrument_family", f"pitches={store}:pitch"]},
    }
    runs = train_runs(folder / "runs", variants=learned, seeds=[0], settings=SMOKE)
    return [run for members in runs.values() for run in members]

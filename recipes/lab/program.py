"""A recipe as a program: options, the stages one after another, the table."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from audiostride.dataset.importers import SCHEMES
from audiostride.errors import BAD_INPUT, InputError
from lab.archives import BUILDERS
from lab.data_stages import prepare_data, processes_of, say
from lab.recipe import POOLINGS, Recipe, check_settings

INTERRUPTED = 130
DEFAULT_SEEDS = (0, 1, 2)
# A network that learns nothing much, fast: smoke shows that everything runs.
SMOKE = {"width": 0.03, "max_steps": 6, "valid_every": 3, "batch_size": 8, "device": "cpu"}


def main(recipe: Recipe, given: Sequence[str] | None = None) -> int:
    """Run a recipe with the options of a command line; the return value is the exit code."""
    arguments = build_parser(recipe).parse_args(given)
    return end_program(recipe.name, lambda: run_pipeline(recipe, arguments))


def end_program(name: str, call: Callable[[], object]) -> int:
    """Call what a program does; bad input and an interruption become a message and an exit code."""
    try:
        call()
    except InputError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return INTERRUPTED
    return 0


def build_parser(recipe: Recipe) -> argparse.ArgumentParser:
    """The options of a recipe."""
    parser = argparse.ArgumentParser(
        prog=f"{recipe.name}.py", description=recipe.head, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("root", metavar="ROOT", nargs="?", help="folder of the unpacked archives; not needed once the manifest stands")
    add("--data", metavar="DIR", help="folder of manifest and store (default: OUT/data/<data set>-<scheme>, or without "
        "--out runs/data/<data set>-<scheme>, which recipes share)")  # fmt: skip
    add("--pooling", nargs="+", choices=POOLINGS, default=list(POOLINGS), help="what is compared (default: all three)")
    add_options(parser, recipe.name, recipe.settings, splits=recipe.splits)
    return parser


def add_options(parser: argparse.ArgumentParser, name: str, settings: Mapping[str, Any], *, splits: str) -> None:
    """Add the options of every recipe that trains."""
    defaults = {"max_steps": 1000, "batch_size": 32, "width": 1.0} | dict(settings)
    add = parser.add_argument
    add("--out", metavar="DIR", help=f"folder that is written (default: runs/{name})")
    add("--splits", choices=SCHEMES, default=splits, help="split scheme (default: %(default)s)")
    add("--seeds", type=int, nargs="+", help=f"a run for each (default: {' '.join(map(str, DEFAULT_SEEDS))})")
    add("--width", type=float, help=f"factor on the channels, 0.25 suits a CPU (default: {defaults['width']})")
    add("--max-steps", type=int, help=f"optimizer steps (default: {defaults['max_steps']})")
    add("--batch-size", type=int, help=f"1 s excerpts per step (default: {defaults['batch_size']})")
    add("--set", nargs="+", metavar="NAME=VALUE", default=[], help="any other setting of 'audiostride train', "
        "such as lr=1e-4 size=paper")  # fmt: skip
    add("--download", action="store_true", help="first download the archives to their folders and unpack them")
    add("--partial", action="store_true", help="import what is there though metadata and files disagree")
    add("--on-error", choices=["stop", "skip"], default="stop", help="whether bad audio stops or is left out")
    add("--smoke", action="store_true", help="make tiny data in the official layout and run everything on the CPU")


def run_pipeline(recipe: Recipe, arguments: argparse.Namespace) -> str:
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
    # Lightning and matplotlib take seconds to load, which help and errors need not wait for.
    from lab.run_stages import describe_setting, format_results, report_stage, train_runs

    settings = {**recipe.settings, **(SMOKE if arguments.smoke else {}), **read_settings(recipe.name, arguments)}
    seeds = arguments.seeds or ([0] if arguments.smoke else DEFAULT_SEEDS)
    poolings, seeds = list(dict.fromkeys(arguments.pooling)), list(dict.fromkeys(seeds))
    with ExitStack() as cleaning:
        root, given_out = arguments.root, arguments.out
        if arguments.smoke:
            if root is not None or arguments.download:
                raise InputError(f"{recipe.name}: --smoke makes its own data; leave ROOT and --download out")
            given_out = given_out or cleaning.enter_context(tempfile.TemporaryDirectory(prefix=f"{recipe.name}-"))
            root = make_archive(recipe.data, Path(given_out) / "archive")
            cleaning.enter_context(one_thread())
        out, data = choose_folders(recipe, given_out, arguments.data, splits=arguments.splits)
        store = prepare_archive(recipe, root, data, arguments, settings)
        folder = out / arguments.splits
        runs = train_runs(
            folder,
            variants={pooling: {"pooling": pooling} for pooling in poolings},
            seeds=seeds,
            settings=settings | {"manifest": str(store), "label": recipe.label, "on_error": arguments.on_error},
        )
        report_stage(runs, folder / "report.html")
        table = format_results(recipe, runs, splits=arguments.splits)
        print(f"\n{recipe.name} ({recipe.data}, {recipe.label}): {describe_setting(runs[poolings[0]][0])}\n\n{table}\n")
        if arguments.smoke:
            print("smoke: tones instead of the data set and a few steps, which shows that everything runs, no more")
        else:
            print(f"expected: {recipe.expected}")
    return table


def prepare_archive(
    recipe: Recipe,
    root: str | Path | None,
    folder: Path,
    arguments: argparse.Namespace,
    settings: Mapping[str, Any],
) -> Path:
    """The store of a recipe's data set; `prepare_data` with what options say."""
    return prepare_data(
        recipe.data,
        root,
        folder,
        splits=arguments.splits,
        download=arguments.download,
        partial=arguments.partial,
        on_error=arguments.on_error,
        processes=processes_of(settings),
    )


def choose_folders(recipe: Recipe, out: str | None, data: str | None, *, splits: str) -> tuple[Path, Path]:
    """The folder of all runs, and that of manifest and store, which recipes share unless a folder is given."""
    runs = Path(out) if out else Path("runs") / recipe.name
    shared = (runs if out else Path("runs")) / "data" / f"{recipe.data}-{splits}"
    return runs, Path(data) if data else shared


def read_settings(recipe: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of training that options give."""
    settings = parse_settings(recipe, arguments.set)
    check_settings(recipe, settings)
    if arguments.smoke and processes_of(settings).count > 1:
        raise InputError(f"{recipe}: --smoke trains in one process; leave devices and num_nodes out")
    named = {name: getattr(arguments, name) for name in ("width", "max_steps", "batch_size")}
    return settings | {name: value for name, value in named.items() if value is not None}


def parse_settings(recipe: str, items: Sequence[str]) -> dict[str, Any]:
    """The settings that stand in ``--set``, whatever their names.

    >>> parse_settings("mine", ["lr=1e-4", "pool-after=block"])
    {'lr': 0.0001, 'pool_after': 'block'}
    """
    settings: dict[str, Any] = {}
    for item in items:
        name, sign, value = item.partition("=")
        if not sign:
            raise InputError(f"{recipe}: --set must be given NAME=VALUE, got {item!r}")
        # YAML 1.1 takes 1e-4 for a string, unlike everyone who writes it.
        settings[name.replace("-", "_")] = _as_number(value) if _as_number(value) is not None else yaml.safe_load(value)
    return settings


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: for a tiny network several only wait for each other, on a busy machine for seconds."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _as_number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def make_archive(data: str, folder: Path) -> Path:
    """A miniature of a data set in its official layout, whole or not at all; one that stands is left alone."""
    if folder.is_dir():
        say("archive", f"{folder} stands, skipped")
        return folder
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    BUILDERS[data](partial)
    partial.rename(folder)
    say("archive", f"miniature of {data} -> {folder}")
    return folder

"""What programs of experiments share: options, settings, seeds, the smoke mode, how they end."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import yaml

from audiostride.checks import Pooling
from audiostride.dataset.importers import SCHEMES
from audiostride.errors import BAD_INPUT, InputError
from audiostride.training.config import TrainConfig
from lab.data_stages import processes_of

INTERRUPTED = 130
POOLINGS: tuple[str, ...] = get_args(Pooling)
DEFAULT_SEEDS = (0, 1, 2)
# A network that learns nothing much, fast: smoke shows that everything runs.
SMOKE = {"width": 0.03, "max_steps": 6, "valid_every": 3, "batch_size": 8, "device": "cpu"}
# Settings that programs give to every run themselves.
TAKEN = ("manifest", "task", "out", "label", "audio_root", "pooling", "seed", "on_error")


def make_parser(name: str, head: str) -> argparse.ArgumentParser:
    """A parser whose help is a recipe's docstring."""
    return argparse.ArgumentParser(
        prog=f"{name}.py", description=head, formatter_class=argparse.RawDescriptionHelpFormatter
    )


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


def add_options(
    parser: argparse.ArgumentParser, name: str, settings: Mapping[str, Any], *, splits: str = SCHEMES[0]
) -> None:
    """Add the options of every recipe that trains on archives."""
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


def read_settings(recipe: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of training that options give."""
    settings = parse_settings(recipe, arguments.set)
    check_settings(recipe, settings)
    if arguments.smoke and processes_of(settings).count > 1:
        raise InputError(f"{recipe}: --smoke trains in one process; leave devices and num_nodes out")
    return settings | named_settings(arguments)


def named_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that have options of their own, as far as these are given."""
    named = {name: getattr(arguments, name) for name in ("width", "max_steps", "batch_size")}
    return {name: value for name, value in named.items() if value is not None}


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
        number = _as_number(value)
        settings[name.replace("-", "_")] = yaml.safe_load(value) if number is None else number
    return settings


def check_settings(who: str, settings: Mapping[str, Any]) -> None:
    """Raise unless training has these settings, and the program leaves them free."""
    free = [entry.name for entry in fields(TrainConfig) if entry.name not in TAKEN]
    for name in settings:
        if name not in free:
            raise InputError(f"{who}: settings must be among {', '.join(free)}, got {name!r}")


def choose_seeds(arguments: argparse.Namespace, default: Sequence[int] = DEFAULT_SEEDS) -> list[int]:
    """The seeds of an experiment, each once; smoke has one."""
    return list(dict.fromkeys(arguments.seeds or ([0] if arguments.smoke else default)))


@contextmanager
def open_folder(name: str, out: str | None, *, smoke: bool) -> Iterator[tuple[Path, Path]]:
    """The folder of all runs, and the one that holds the folder of data; smoke has a temporary one if none is given.

    Data of several recipes lie together in ``runs`` unless a folder is given. Smoke computes with one thread: for a
    tiny network several only wait for each other, on a busy machine for seconds.
    """
    import torch

    with ExitStack() as cleaning:
        if smoke:
            out = out or cleaning.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-"))
            cleaning.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        yield (Path(out), Path(out)) if out else (Path("runs") / name, Path("runs"))


def end_of_output(*, smoke: bool, expected: str = "", data: str = "tones instead of the data set") -> str:
    """The last line that an experiment prints."""
    if smoke:
        return f"smoke: {data} and a few steps, which shows that everything runs, no more"
    return f"expected: {expected}"


def _as_number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None

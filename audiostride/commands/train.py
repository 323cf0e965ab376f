"""``audiostride train``."""

import argparse
import json
import os
import re
from collections.abc import Sequence
from dataclasses import MISSING, fields
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter, Namespace

from audiostride.checks import read_json
from audiostride.commands.evaluate import print_metrics
from audiostride.dataset.manifest import check_columns
from audiostride.errors import InputError
from audiostride.training.config import BEFORE, TrainConfig, is_of_a_run
from audiostride.training.presets import DEFAULT_PRESET, PRESETS, preset_settings
from audiostride.training.run_files import Environment, read_yaml
from audiostride.training.tasks import split_task
from audiostride.wording import describe_size

INTERRUPTED = 130
# In --help: each group of settings, in the order of `TrainConfig`, and the first of them.
GROUPS = {
    "out": "data",
    "sample_rate": "frontend",
    "encoder": "network",
    "pooling": "strides",
    "max_steps": "training",
    "time_shift_s": "augmentation",
    "seed": "evaluation and run",
    "device": "machine",
}


# What --help shows; --help-all shows the others too.
SHORT = (
    "help", "help_all", "config", "preset", "manifest", "label", "out", "multi_label", "background", "task",
    "random_split", "encoder", "width", "init", "pooling", "budget", "epochs", "max_steps", "seed", "seeds", "resume",
    "device", "precision",
)  # fmt: skip


PLURALS = {"a number": "numbers", "a whole number": "whole numbers", "text": "texts"}


def in_words(declared: Any) -> str:
    """What an option takes.

    >>> in_words(float | None), in_words(Sequence[Sequence[int]]), in_words(Literal["a", "b"])
    ('a number', 'a list of lists of whole numbers', 'a or b')
    """
    origin, parts = get_origin(declared), get_args(declared)
    if origin is Annotated:
        return in_words(parts[0])
    if type(None) in parts:
        return in_words(next(part for part in parts if part is not type(None)))
    if origin is Literal:
        return " or ".join(parts)
    if origin in (Sequence, list):
        return f"a list of {PLURALS.get(in_words(parts[0]), 'lists' + in_words(parts[0]).removeprefix('a list'))}"
    return {bool: "yes or no", int: "a whole number", float: "a number", str: "text"}[declared]


def type_of(option: argparse.Action) -> Any:
    """The type of an option's value."""
    return getattr(option, "_typehint", option.type or str)


def describe_option(option: argparse.Action) -> str:
    """What an option takes, with an example of a list."""
    words = in_words(type_of(option))
    example = "[[2, 2], [2, 2]]" if "lists" in words else "[1, 2]" if "numbers" in words else '["a", "b"]'
    return f"{words}, as '{example}'" if words.startswith("a list") else words


class WordsFormatter(DefaultHelpFormatter):
    """Help that says what options take in words."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, declared = action.help or "", type_of(action)
        if isinstance(action, ActionConfigFile) or action.default == argparse.SUPPRESS:
            return text
        words = [] if action.choices or in_words(declared) == "text" else [in_words(declared)]
        words = [] if get_origin(declared) is Literal else words
        shown = ("no", "yes")[action.default] if isinstance(action.default, bool) else action.default
        if action.default is not None and "(default: " not in text:
            words.append(f"default: {shown}")
        return f"{text} ({', '.join(words)})" if words else text

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # jsonargparse has a second name for options with lists, which adds to them.
        text: str = super()._format_action_invocation(action)
        return re.sub(r", --[\w-]+\+.*", "", text)


class TrainParser(ArgumentParser):
    """Options whose defaults a preset replaces, and over it the run of --init; a file and options stand over both."""

    shows_all = False

    def format_help(self, formatter: Any = None) -> str:
        """The options that most trainings need, or all of them."""
        shown = [each for each in self._actions if each.help != argparse.SUPPRESS]
        hidden = [] if self.shows_all else [each for each in shown if each.dest not in SHORT]
        kept = [each.help for each in hidden]
        for each in hidden:
            each.help = argparse.SUPPRESS
        try:
            text: str = super().format_help(formatter)
        finally:
            for each, before in zip(hidden, kept, strict=True):
                each.help = before
        return text + (f"\n--help-all lists {len(hidden)} more options.\n" if hidden else "")

    def parse_args(self, args: Sequence[str] | None = None, *others: Any, **options: Any) -> Namespace:  # type: ignore[override]
        given = list(args or [])
        self.shows_all = "--help-all" in given
        if given and not given[0].startswith("-"):  # as the other commands have it
            if any(item.split("=")[0] == "--manifest" for item in given):
                raise InputError(f"train: either MANIFEST or --manifest must be given, got {given[0]} and --manifest")
            given = ["--manifest", *given]
        for option in ("--task", "--logger", "--multi-label", "--label-columns"):
            given = join_values(given, option)
        finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        finder.add_argument("--config", action="append", default=[])
        files = filter(os.path.isfile, finder.parse_known_args(given)[0].config)
        in_files = [read_yaml(file) for file in files]  # what is no table of settings is said in our words
        # Parsed once to find the preset, on the command line or in a YAML file; --print_config would end it there.
        first = super().parse_args(
            [item for item in given if not item.startswith("--print_config")], *others, **options
        )
        if first.seeds is not None and any(item.split("=")[0] == "--seed" for item in given):
            raise InputError("train: either --seed or --seeds must be given, got both")
        if first.resume:  # the settings of a run that goes on are its own
            return super().parse_args(given, *others, **options)
        # Of a run of before, what it has no setting for is as it was then.
        self.set_defaults(BEFORE if any(map(is_of_a_run, in_files)) else preset_settings(first.preset))
        if first.init is None:
            return super().parse_args(given, *others, **options)
        # Not at the top: other commands need not wait for torch.
        from audiostride.training.initial import check_given, initial_settings, load_initial

        settings = initial_settings(load_initial(first.init))
        self.set_defaults(settings)
        parsed = super().parse_args(given, *others, **options)
        check_given({name: parsed[name] for name in settings}, first.init, settings)
        return parsed


def join_values(arguments: list[str], option: str) -> list[str]:
    """Arguments with all values of an option, given once or several times, as one list in its first place.

    >>> join_values(["--task", "a=m.csv:x", "b=m.csv:y", "--lr", "1", "--task", "c=n.csv:z"], "--task")
    ['--task', '["a=m.csv:x", "b=m.csv:y", "c=n.csv:z"]', '--lr', '1']
    """
    values: list[str] = []
    rest: list[str] = []
    place = taking = None
    for item in arguments:
        if item == option:
            place, taking = (len(rest) if place is None else place), True
        elif taking and not item.startswith("--"):
            values.append(item)
        else:
            taking = None
            rest.append(item)
    if place is None or (len(values) == 1 and values[0].startswith("[")):
        return arguments
    return [*rest[:place], option, json.dumps(values), *rest[place:]]


def build_parser() -> ArgumentParser:
    """The options of ``audiostride train``."""
    parser = TrainParser(
        description=run.__doc__, formatter_class=WordsFormatter, usage="audiostride train MANIFEST [options]"
    )
    parser.add_argument("--help-all", action="help", help="show all options and exit")
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these settings")
    parser.add_argument(
        "--preset",
        choices=list(PRESETS),
        default=DEFAULT_PRESET,
        help="what other settings are by default: ours, bare, or the paper's",
    )
    types = get_type_hints(TrainConfig)
    helps = {entry.arg_name: entry.description for entry in docstring_parser.parse_from_object(TrainConfig).params}
    group: Any = parser
    for setting in fields(TrainConfig):
        if setting.name in GROUPS:
            group = parser.add_argument_group(GROUPS[setting.name])
        option: dict[str, Any] = {"default": setting.default}
        if setting.default is MISSING:  # the folder of the run
            option, types[setting.name] = {"default": None}, str | None
            helps[setting.name] = f"{helps[setting.name]} (default: a new one in runs/)"
        elif types[setting.name] is bool:
            option |= {"nargs": "?", "const": True}  # a switch that may have a value
        group.add_argument(
            f"--{setting.name.replace('_', '-')}", type=types[setting.name], help=helps[setting.name], **option
        )
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="several seeds instead of one: a run for each in --out, and their mean"
    )
    parser.add_argument("--jobs", type=int, help="with --seeds: runs at the same time, each in a process (default: 1)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out; its other settings stand")
    return parser


def choose_folder(manifest: str | None, label: str, task: Sequence[str] | None, *, resume: bool) -> str:
    """A new folder in ``runs`` for a run without one: called by its data and labels, with a number where that is taken.

    >>> choose_folder("data/birds/manifest.csv", "label", None, resume=False)
    'runs/birds'
    >>> choose_folder("notes.csv", "pitch", None, resume=False)
    'runs/notes-pitch'
    """
    if resume:
        raise InputError("train: --resume must go with the folder of the run that goes on; give --out RUN")
    if task:
        name = "-".join(split_task(entry)[0] for entry in task)[:80]
    else:
        file = Path(os.path.abspath(manifest or "run"))
        stem = file.parent.name if file.stem == "manifest" else file.stem
        name = stem if label == "label" else f"{stem}-{label}"
    numbers = chain([""], (f"-{number}" for number in count(2)))
    return next(folder for number in numbers if not os.path.exists(folder := f"runs/{name}{number}"))


def run(arguments: Any) -> int:
    """Train a classifier on a manifest or on a folder of class folders, and report on its test clips."""
    names = {field.name for field in fields(TrainConfig)}
    if arguments.out is None:
        if arguments.devices > 1 or arguments.num_nodes > 1:  # each would choose, and the first one makes its folder
            raise InputError("train: several processes must write one run folder; give --out RUN")
        arguments.out = choose_folder(arguments.manifest, arguments.label, arguments.task, resume=arguments.resume)
    config = TrainConfig(**{key: value for key, value in vars(arguments).items() if key in names})
    if not arguments.resume and not config.label_columns:
        for source in config.sources():
            check_columns(source.manifest, source.labels.values())
    if arguments.seeds is not None:
        return _run_seeds(config, arguments.seeds, jobs=1 if arguments.jobs is None else arguments.jobs)
    if arguments.jobs is not None:
        raise InputError("train: --jobs is for several runs; give --seeds too")
    # Not at the top: help and errors of options need not wait for torch, Lightning and matplotlib.
    from audiostride.distributed import Processes
    from audiostride.training.run import train

    metrics = train(config, resume=arguments.resume)
    if not Processes.of_environment(config.devices, config.num_nodes).first:
        return 0
    _write_page(Path(config.out))
    print_metrics(metrics)
    if "multiply_adds" in metrics:  # a finished run of before has none
        window_ms = read_json("train", Path(config.out) / "environment.json", Environment).get("window_ms")
        window_s = TrainConfig.load(config.out).window_s
        print(describe_size(metrics["parameters"], metrics["multiply_adds"], window_s=window_s, window_ms=window_ms))
    print(f"report: {Path(config.out) / 'report.html'}")
    if metrics["stopped_early"]:
        print(f"stopped at step {metrics['steps']}; go on with: audiostride train --out {config.out} --resume")
    return 0


def _write_page(run: Path) -> None:
    """Write what a training, which draws nothing, leaves out."""
    from audiostride.reporting.page import report_run  # matplotlib, for which the first step need not wait

    report_run(run)


def _run_seeds(config: TrainConfig, seeds: list[int], *, jobs: int) -> int:
    # As in `run`.
    from audiostride.distributed import Processes
    from audiostride.training.seeds import describe_seeds, seed_folder, train_seeds

    table = train_seeds(config, seeds, jobs=jobs, each=lambda run, stood: _write_page(run))
    if not Processes.of_environment(config.devices, config.num_nodes).first:
        return 0
    for seed in seeds:  # those that were stopped have results and a page too
        if (seed_folder(config.out, seed) / "metrics.json").is_file():
            _write_page(seed_folder(config.out, seed))
    if len(table):
        print(table.to_string(index=False))
        print(describe_seeds(table))
        print(f"summary: {Path(config.out) / 'summary.csv'}")
    if len(table) < len(seeds):
        print(f"stopped with {len(table)} of {len(seeds)} runs done; the same command goes on")
        return INTERRUPTED
    return 0

"""``audiostride train``."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import docstring_parser
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from audiostride.commands.evaluate import print_metrics
from audiostride.errors import InputError
from audiostride.training.config import BEFORE, TrainConfig, is_of_a_run
from audiostride.training.presets import DEFAULT_PRESET, PRESETS, preset_settings
from audiostride.training.run_files import read_yaml

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


class TrainParser(ArgumentParser):
    """Options whose defaults a preset replaces, and over it the run of --init; a file and options stand over both."""

    def parse_args(self, args: Sequence[str] | None = None, *others: Any, **options: Any) -> Namespace:  # type: ignore[override]
        given = list(args or [])
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
    parser = TrainParser(description=run.__doc__)
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
        if setting.default is MISSING:
            option = {"required": True}
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


def run(arguments: Any) -> int:
    """Train a classifier on a manifest or on a folder of class folders, and report on its test clips."""
    names = {field.name for field in fields(TrainConfig)}
    config = TrainConfig(**{key: value for key, value in vars(arguments).items() if key in names})
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

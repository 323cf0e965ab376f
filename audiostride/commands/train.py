"""``audiostride train``."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import docstring_parser
from jsonargparse import ActionConfigFile, ArgumentParser

from audiostride.commands.evaluate import print_metrics
from audiostride.training.config import TrainConfig


def build_parser() -> ArgumentParser:
    """The options of ``audiostride train``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these settings")
    types = get_type_hints(TrainConfig)
    helps = {entry.arg_name: entry.description for entry in docstring_parser.parse_from_object(TrainConfig).params}
    for setting in fields(TrainConfig):
        option = {"required": True} if setting.default is MISSING else {"default": setting.default}
        parser.add_argument(
            f"--{setting.name.replace('_', '-')}", type=types[setting.name], help=helps[setting.name], **option
        )
    parser.add_argument("--resume", action="store_true", help="continue the run in --out; its other settings stand")
    return parser


def run(arguments: Any) -> int:
    """Train a classifier on a manifest or on a folder of class folders, and report on its test clips."""
    from audiostride.training.run import train

    names = {field.name for field in fields(TrainConfig)}
    config = TrainConfig(**{key: value for key, value in vars(arguments).items() if key in names})
    metrics = train(config, resume=arguments.resume)
    print_metrics(metrics)
    print(f"report: {Path(config.out) / 'report.html'}")
    if metrics["stopped_early"]:
        print(f"stopped at step {metrics['steps']}; go on with: audiostride train --out {config.out} --resume")
    return 0

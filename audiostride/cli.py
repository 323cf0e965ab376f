"""The command line: parse, call, print. Exit code 0, or 2 for bad input."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import docstring_parser
from jsonargparse import ActionConfigFile, ArgumentParser

from audiostride.errors import InputError
from audiostride.training.config import TrainConfig

BAD_INPUT = 2


def build_parser() -> ArgumentParser:
    """The parser of all commands."""
    parser = ArgumentParser(
        prog="audiostride", description="Train audio classifiers whose layers learn how much to downsample."
    )
    commands = parser.add_subcommands(required=True, dest="command", metavar="COMMAND")
    for name, (build, _) in COMMANDS.items():
        commands.add_subcommand(name, build(), help=(COMMANDS[name][1].__doc__ or "").splitlines()[0])
    return parser


def _demo_parser() -> ArgumentParser:
    parser = ArgumentParser(description=run_demo.__doc__)
    parser.add_argument("--out", default="audiostride-demo", help="folder that is written")
    parser.add_argument("--seed", type=int, default=0, help="seed of sounds and networks")
    return parser


def run_demo(arguments: Any) -> int:
    """Make sounds with known modulations, learn them, and show whether the cut-offs follow."""
    from audiostride.demo.run import demo

    demo(arguments.out, seed=arguments.seed)
    return 0


def _train_parser() -> ArgumentParser:
    parser = ArgumentParser(description=run_train.__doc__)
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


def run_train(arguments: Any) -> int:
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


def _evaluate_parser() -> ArgumentParser:
    parser = ArgumentParser(description=run_evaluate.__doc__)
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("--split", choices=["train", "valid", "test"], default="test", help="which clips")
    parser.add_argument("--manifest", help="another manifest than the run's own, with the same label column")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    return parser


def run_evaluate(arguments: Any) -> int:
    """Evaluate the best model of a run, also of one that was stopped."""
    from audiostride.training.results import evaluate_run
    from audiostride.training.run import choose_device

    device = str(choose_device(arguments.device))
    print_metrics(evaluate_run(arguments.run, split=arguments.split, manifest=arguments.manifest, device=device))
    return 0


def print_metrics(metrics: dict[str, Any]) -> None:
    """Print the outcome of an evaluation in three lines."""
    low, high = (100 * bound for bound in metrics["interval"])
    print(
        f"{metrics['task']}, {metrics['split']}: accuracy {100 * metrics['accuracy']:.1f} % "
        f"(95 % interval {low:.1f} to {high:.1f} %, {metrics['n_clips']} clips)"
    )
    if "baseline_majority" in metrics:
        classic = metrics["baseline_classic"]
        print(
            f"for comparison: always the most frequent class {100 * metrics['baseline_majority']:.1f} %"
            + (f", log-mel statistics + SVM {100 * classic:.1f} %" if classic is not None else "")
        )
        if classic is not None and classic >= metrics["accuracy"]:
            print("the classic baseline is as good or better: train longer (--max-steps), or look at the data first")


def _predict_parser() -> ArgumentParser:
    parser = ArgumentParser(description=run_predict.__doc__)
    parser.add_argument("run", metavar="RUN", help="run folder or model.safetensors")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="audio files, or folders of them")
    parser.add_argument("-o", "--out", required=True, help="CSV file that is written")
    parser.add_argument("--per-window", action="store_true", help="one row per window of 1 s instead of one per file")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    return parser


def run_predict(arguments: Any) -> int:
    """Classify recordings of any length."""
    from audiostride.evaluation import expand_paths, predict_files
    from audiostride.models import load_classifier
    from audiostride.progress import progress_bar
    from audiostride.training.run import choose_device
    from audiostride.writing import write_text

    out = Path(arguments.out)
    if out.exists() and not arguments.overwrite:
        raise InputError(f"predict: {out} exists; choose another -o, or give --overwrite")
    if not out.parent.is_dir():
        raise InputError(f"predict: -o must lie in a folder that exists, got {out}")
    model = load_classifier(arguments.run, device=choose_device(arguments.device))
    files = expand_paths(arguments.paths)
    tables: list[str] = []
    errors: list[str] = []
    found = predict_files(model, files, per_window=arguments.per_window)
    for item in progress_bar(found, total=len(files), desc="predicting", unit="file"):
        if isinstance(item, InputError):
            errors.append(str(item))
        else:
            tables.append(item.to_csv(index=False, header=not tables))
    for message in errors:
        print(message, file=sys.stderr)
    if not tables:
        raise InputError(f"predict: none of {len(files)} files could be read; {out} was not written")
    write_text(out, "".join(tables))
    print(f"{len(tables)} of {len(files)} files -> {out}")
    return BAD_INPUT if errors else 0


def _report_parser() -> ArgumentParser:
    parser = ArgumentParser(description=run_report.__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders")
    parser.add_argument("-o", "--out", help="HTML page (default: report.html in the first run)")
    return parser


def run_report(arguments: Any) -> int:
    """Print the cut-offs of one or several runs and write them as CSV and as an HTML page."""
    from audiostride.reporting import format_cutoffs, write_report

    page = Path(arguments.out) if arguments.out else Path(arguments.runs[0]) / "report.html"
    summary = write_report([Path(run) for run in arguments.runs], page)
    print(format_cutoffs(summary))
    print(f"page: {page}\ntable: {page.with_name(page.stem + '_cutoffs.csv')}")
    return 0


COMMANDS = {
    "demo": (_demo_parser, run_demo),
    "train": (_train_parser, run_train),
    "evaluate": (_evaluate_parser, run_evaluate),
    "predict": (_predict_parser, run_predict),
    "report": (_report_parser, run_report),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the return value is the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = build_parser().parse_args(_with_saved_settings(given))
        return COMMANDS[parsed.command][1](parsed[parsed.command])
    except InputError as error:
        print(f"audiostride: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("audiostride: interrupted", file=sys.stderr)
        return 130


def _with_saved_settings(given: list[str]) -> list[str]:
    """For ``train --resume``, the arguments with the settings of the run put in front."""
    if given[:1] != ["train"] or "--resume" not in given:
        return given
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--out")
    out = finder.parse_known_args(given)[0].out
    if out is None or not (Path(out) / "config.yaml").is_file():
        return given
    # The last value given wins: the run stays where it is even if it was moved.
    return ["train", "--config", str(Path(out) / "config.yaml"), *given[1:]]

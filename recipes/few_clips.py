"""A new task with few clips: from scratch, from the encoder of a trained run, and from it with the encoder frozen.

Data: manifests of the tasks that the first run learns, or that run; and of the new task, with train, valid and test.
Command: python recipes/few_clips.py --task word=words.csv:label bird=birds.csv:label --manifest scenes.csv
    --label label --clips-per-class 20 --width 0.25, or with --init RUN in the place of --task
Expected: a table: test accuracy of each start, mean (sd) over seeds, and what it has beyond from scratch with the same
    clips. Each seed draws other training clips; all validation clips choose the best step. See recipes/RESULTS.md.
Hardware: any; settings for a CPU: --width 0.25.
Time: the first run as long as its steps; then three short runs a seed. --smoke 15 s. A finished run is not trained
    again, a stopped one goes on.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from audiostride.errors import InputError
from audiostride.models import load_classifier
from audiostride.training import TrainConfig
from audiostride.training.initial import network_settings
from audiostride.training.presets import DEFAULT_PRESET, preset_settings
from audiostride.wording import count_of
from audiostride.writing import make_folder, write_text
from lab.archives import make_archive
from lab.clips import read_clips
from lab.data_stages import import_stage, say
from lab.program import (
    SMOKE,
    check_settings,
    choose_seeds,
    end_of_output,
    end_program,
    make_parser,
    named_settings,
    open_folder,
    parse_settings,
)
from lab.runs import describe_setting, format_accuracies, read_metrics, train_runs

NAME = "few_clips"
STARTS = {"scratch": "from scratch", "init": "from the run", "frozen": "from the run, encoder frozen"}
# Clips no longer than a window would otherwise give the same excerpt each time.
SETTINGS: dict[str, Any] = {"max_steps": 200, "valid_every": 20, "time_shift_s": 0.1}
FIRST_STEPS = 2000


def main() -> int:
    """Train what is missing, then print the table; the return value is the exit code."""
    arguments = build_parser().parse_args()
    return end_program(NAME, lambda: run(arguments))


def build_parser() -> argparse.ArgumentParser:
    """The options of the experiment."""
    parser = make_parser(NAME, __doc__ or "")
    add = parser.add_argument
    add("--task", nargs="+", metavar="NAME=MANIFEST:COLUMN", help="tasks that the first run learns")
    add("--first-steps", type=int, metavar="N", help=f"its optimizer steps (default: {FIRST_STEPS})")
    add("--init", metavar="RUN", help="a trained run in its place")
    add("--manifest", metavar="M", help="clips of the new task: a CSV table or a folder of class folders")
    add("--label", metavar="COLUMN", default="label", help="its column with the labels (default: %(default)s)")
    add("--clips-per-class", type=int, metavar="N", default=20, help="training clips (default: %(default)s)")
    add("--out", metavar="DIR", help=f"folder that is written (default: runs/{NAME})")
    add("--seeds", type=int, nargs="+", help="of clips and weights, three runs for each (default: 0 1 2)")
    add("--width", type=float, help="factor on the channels of the first run, and so of all (default: 1)")
    add("--max-steps", type=int, help=f"optimizer steps on the new task (default: {SETTINGS['max_steps']})")
    add("--batch-size", type=int, help="1 s excerpts per step (default: 32)")
    add("--set", nargs="+", metavar="NAME=VALUE", default=[], help="any other setting of 'audiostride train' for all "
        "runs, such as lr=1e-3")  # fmt: skip
    add("--smoke", action="store_true", help="make tiny data and run everything on the CPU")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Train the first run and, for each seed, the new task from each start; print the table.

    Args:
        arguments: What `build_parser` parses.

    Raises:
        InputError: Bad options, data or audio.
        KeyboardInterrupt: Stopped; the same call goes on.
    """
    given = {**parse_settings(NAME, arguments.set), **named_settings(arguments)}
    check_options(arguments, given)
    with open_folder(NAME, arguments.out, smoke=arguments.smoke) as (out, _):
        if arguments.smoke:
            archive = make_archive("nsynth", out / "archive")
            data = import_stage("nsynth", archive, out / "data", splits="official", download=False, partial=False)
            arguments.task, arguments.manifest, arguments.label = [f"pitch={data}:pitch"], data, "instrument_family"
            arguments.clips_per_class = 2
        settings = {**preset_settings(DEFAULT_PRESET), **SETTINGS, **(SMOKE if arguments.smoke else {}), **given}
        first = train_first(arguments, out, settings)
        variants: dict[str, dict[str, Any]] = {
            "scratch": network_settings(load_classifier(first).config),
            "init": {"init": str(first)},
            "frozen": {"init": str(first), "freeze_encoder": True},
        }
        # The network is that of the first run.
        learning = {name: value for name, value in settings.items() if name not in TrainConfig.model_setting_names()}
        manifest = Path(arguments.manifest)
        name = manifest.absolute().parent.name if manifest.stem == "manifest" else manifest.stem
        folder = out / f"{name}-{arguments.label}-{arguments.clips_per_class}"
        make_folder(folder)
        clips, runs = read_clips(manifest, label=arguments.label), {start: list[Path]() for start in STARTS}
        for seed in choose_seeds(arguments):
            drawn = folder / f"clips_seed{seed}.csv"
            write_text(drawn, draw_clips(clips, arguments.clips_per_class, seed=seed).to_csv(index=False))
            own = {**learning, "manifest": str(drawn), "label": "label"}
            for start, members in train_runs(folder, variants=variants, seeds=[seed], settings=own).items():
                runs[start] += members
        print(
            f"\n{NAME} ({name}, {arguments.label}): {arguments.clips_per_class} training clips per class; "
            f"{describe_setting(runs['scratch'][0])}; from {first}\n\n{format_starts(runs)}\n"
        )
        classic = [100 * read_metrics(run)["baseline_classic"] for run in runs["scratch"]]
        print(f"log-mel statistics + SVM on the same clips: {format_accuracies(classic)}")
        if arguments.smoke:
            print(end_of_output(smoke=True, data="tones instead of a data set"))


def check_options(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> None:
    """Raise where options contradict each other or are missing, before anything is read."""
    check_settings(NAME, {name: value for name, value in settings.items() if name != "pooling"})
    compared = [name for name in ("init", "freeze_encoder") if name in settings]
    if compared:
        raise InputError(f"--set must leave what is compared alone, got {', '.join(compared)}; give --init itself")
    if arguments.clips_per_class < 1:
        raise InputError(f"--clips-per-class must be at least 1, got {arguments.clips_per_class}")
    if arguments.smoke:
        if arguments.task or arguments.init or arguments.manifest:
            raise InputError("--smoke makes its own data; leave --task, --init and --manifest out")
        return
    if (arguments.task is None) == (arguments.init is None):
        raise InputError(
            "either --task NAME=MANIFEST:COLUMN, which the first run learns, or --init RUN must be given, got "
            + ("neither" if arguments.task is None else "both")
        )
    network = [name for name in TrainConfig.model_setting_names() if name in settings]
    if arguments.init is not None and (network or arguments.first_steps is not None):
        named = ", ".join([*network, *(["first_steps"] if arguments.first_steps is not None else [])])
        raise InputError(f"--init is trained, and the network is that of it; leave {named} out")
    if arguments.manifest is None:
        raise InputError("--manifest must be given: the clips of the new task")


def train_first(arguments: argparse.Namespace, out: Path, settings: Mapping[str, Any]) -> Path:
    """The run that others start from: the one given, or one that learns the tasks given."""
    if arguments.init is not None:
        return Path(arguments.init)
    steps = arguments.first_steps or (settings["max_steps"] if arguments.smoke else FIRST_STEPS)
    own = {**settings, "task": arguments.task, "max_steps": steps}
    own["valid_every"] = max(settings["valid_every"], steps // 20)
    return train_runs(out, variants={"first": {}}, seeds=[0], settings=own)["first"][0]


def draw_clips(clips: pd.DataFrame, per_class: int, *, seed: int) -> pd.DataFrame:
    """A manifest of as many training clips of each class, and of all clips to validate and to test.

    Args:
        clips: As `lab.clips.read_clips` gives them.
        per_class: Training clips of a class; of a class with fewer, all are taken, and a line says so.
        seed: Of the draw.

    Raises:
        InputError: No split.
    """
    if clips["split"].isna().any():
        raise InputError("--manifest must have a column split: train, valid and test; see 'audiostride train --help'")
    train = clips[clips["split"] == "train"]
    drawn = [own.sample(min(per_class, len(own)), random_state=seed) for _, own in train.groupby("label", sort=True)]
    short = [str(own["label"].iloc[0]) for own in drawn if len(own) < per_class]
    if short:
        say("clips", f"{count_of(len(short), 'class')} with fewer than {per_class} training clips: {', '.join(short)}")
    chosen = pd.concat([*drawn, clips[clips["split"] != "train"]]).sort_index()
    columns = ["path", "start_s", "duration_s", "split", "label", "group"]
    return chosen[[name for name in columns if chosen[name].notna().any()]]


def format_starts(runs: Mapping[str, Sequence[Path]]) -> str:
    """The table: a row per start; accuracies in % are compared seed by seed, of the same clips."""
    lines = ["| start | seeds | test accuracy (%), mean (sd) | beyond from scratch | seconds a run |"]
    lines.append("|" + " --- |" * 5)
    accuracies = {start: [100 * read_metrics(run)["accuracy"] for run in own] for start, own in runs.items()}
    for start, own in runs.items():
        configs = [TrainConfig.load(run) for run in own]
        pairs = zip(accuracies[start], accuracies["scratch"], strict=True)
        beyond = "" if start == "scratch" else format_accuracies([with_it - without for with_it, without in pairs])
        took_s = fmean(pd.read_csv(run / "history.csv")["elapsed_s"].iloc[-1] for run in own)
        seeds = " ".join(str(config.seed) for config in configs)
        lines.append(
            f"| {STARTS[start]} | {seeds} | {format_accuracies(accuracies[start])} | {beyond} | {took_s:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

"""``audiostride predict``."""

import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from audiostride.checks import check_count
from audiostride.errors import BAD_INPUT, InputError

if TYPE_CHECKING:
    from audiostride.inference.model import Model
    from audiostride.inference.settings import PredictionSettings
    from audiostride.models import AudioClassifier

FORMATS = "csv, parquet, jsonl, raven, audacity or kaleidoscope; else by the suffix of -o (.csv, .parquet, .jsonl)"


def build_parser() -> ArgumentParser:
    """The options of ``audiostride predict``."""
    parser = ArgumentParser(description=run.__doc__)
    add_recordings(parser)
    parser.add_argument(
        "-o", "--out", required=True,
        help="file that is written; for raven and audacity without a suffix, a folder with a file per recording",
    )  # fmt: skip
    parser.add_argument("--format", default=None, help=FORMATS)
    parser.add_argument("--per-window", action="store_true", help="rows for each window; what a plain command writes")
    parser.add_argument("--per-clip", action="store_true", help="rows for each file: the mean over its windows")
    parser.add_argument(
        "--events", action="store_true", help="one row per stretch whose windows have a class above the threshold"
    )
    parser.add_argument("--top", type=int, default=None, help="rows for so many of the most probable classes")
    parser.add_argument("--min-score", type=float, default=None, help="leave out rows below this probability, 0 to 1")
    parser.add_argument(
        "--all-scores", action="store_true", help="one row per window or file, with a column for each class"
    )
    parser.add_argument(
        "--date-time", action="store_true",
        help="columns date and time of each start, of files whose names say it: 20240531_054500.WAV",
    )  # fmt: skip
    add_event_options(parser)
    parser.add_argument(
        "--clips", metavar="DIR", default=None,
        help="cut what is found out of its recordings: WAV files by class, the surest first, and a manifest",
    )  # fmt: skip
    parser.add_argument(
        "--clip-margin", type=float, default=None, help="seconds that clips have before and behind (default: 0.5)"
    )
    add_job_options(parser)
    return parser


def add_recordings(parser: ArgumentParser) -> None:
    """Add the model and what it hears."""
    parser.add_argument("run", metavar="RUN", help="run folder or model.safetensors")
    parser.add_argument(
        "paths", metavar="PATH", nargs="+",
        help="audio files, folders, patterns such as 'rec/**/*.wav', manifests, lists of paths (.txt), or stores",
    )  # fmt: skip


def add_event_options(parser: ArgumentParser) -> None:
    """Add what says which windows are events."""
    parser.add_argument("--classes", nargs="+", metavar="CLASS", default=None, help="only these have rows and events")
    parser.add_argument(
        "--background", nargs="+", metavar="CLASS", default=None, help="these have no rows and no events"
    )
    parser.add_argument(
        "--threshold",
        default=None,
        help="least probability of an event, and of a class where clips have several, 0 to 1; auto: that of each class "
        "in the model (default: 0.5)",
    )
    parser.add_argument(
        "--merge-gap", type=float, default=None, help="events so many seconds apart, or less, are one (default: 0)"
    )
    parser.add_argument(
        "--min-windows", type=int, default=None, help="windows in a row that an event needs (default: 1)"
    )


def add_job_options(parser: ArgumentParser) -> None:
    """Add what says how recordings are worked through, for `run_job`."""
    parser.add_argument("--hop", type=float, default=None, help="seconds from window to window (default: the window)")
    parser.add_argument(
        "--on-error", choices=["skip", "stop"], default="skip",
        help="whether a file that cannot be read is listed in OUT.errors.csv, or ends the job",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists, begin anew")
    parser.add_argument(
        "--resume", action="store_true",
        help="go on with a job that was stopped, also one with --overwrite; nothing is done where its output stands",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=None, help="windows at a time (default: 16, on a GPU 256)")
    parser.add_argument("--workers", type=int, default=None, help="threads that read audio (default: the processors)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="where to compute")
    parser.add_argument(
        "--devices", type=int, default=1, help="processes on each machine, one per GPU, each with a part of the files"
    )
    parser.add_argument("--num-nodes", type=int, default=1, help="machines that share the work and the folder of -o")


def run(arguments: Any) -> int:
    """Classify recordings of any length.

    A job that was stopped, in whatever way, goes on with the same command.
    """
    # Not at the top: help and errors of options need not wait for torch.
    from audiostride.inference.formats import LABELS, choose_format
    from audiostride.inference.settings import PredictionSettings

    format = choose_format(Path(arguments.out), arguments.format)

    def choose(thresholds: "Mapping[str, Mapping[str, float]]") -> PredictionSettings:
        return PredictionSettings.choose(
            per_clip=arguments.per_clip,
            per_window=arguments.per_window,
            events=arguments.events,
            hop_s=arguments.hop,
            threshold=read_threshold(arguments.threshold),
            thresholds=thresholds,
            merge_gap_s=arguments.merge_gap,
            min_windows=arguments.min_windows,
            classes=arguments.classes,
            background=arguments.background,
            top=arguments.top,
            min_score=arguments.min_score,
            all_scores=arguments.all_scores,
            date_time=arguments.date_time,
        )

    settings = choose({"": {"": 0.5}})  # what is wrong is said before the model is read
    if settings.all_scores and format in LABELS:
        raise InputError(
            f"predict: all-scores must go to csv, parquet or jsonl, got {format}, which holds one label a row"
        )
    if arguments.clip_margin is not None and (arguments.clips is None or not 0 <= arguments.clip_margin < math.inf):
        raise InputError(
            f"predict: clip-margin must be seconds, 0 or more, beside --clips DIR, got {arguments.clip_margin}"
        )
    if settings.all_scores and arguments.clips is not None:
        raise InputError("predict: either clips or all-scores must be given, got both; clips are of one class each")
    return run_job(arguments, format, settings, lambda model: (model, choose(model.thresholds.tasks)))


def read_threshold(given: str | None) -> float | str | None:
    """A number, where the text is one; what else it is, `PredictionSettings` says."""
    try:
        return None if given is None else float(given)
    except ValueError:
        return given


def run_job(
    arguments: Any,
    format: str,
    settings: "PredictionSettings",
    ask: "Callable[[AudioClassifier], tuple[Model, PredictionSettings]]",
) -> int:
    """Write what a model finds in recordings; the return value is the exit code.

    Args:
        arguments: Those of `add_recordings` and `add_job_options`, and ``out``.
        format: Of the output.
        settings: Where windows lie, and the granularity of the rows, as far as they are known without the model.
        ask: What is asked of the classifier, and the settings with what it knows.
    """
    # As in `run`.
    from audiostride.distributed import Processes
    from audiostride.inference.job import PredictionJob
    from audiostride.inference.journal import errors_file, partial_folder
    from audiostride.inference.recordings import expand_paths
    from audiostride.models import load_classifier
    from audiostride.training.hardware import choose_device

    out, devices, n_nodes = Path(arguments.out), arguments.devices, arguments.num_nodes
    cutting: dict[str, Any] = {}
    if getattr(arguments, "clips", None) is not None:  # `embed` finds nothing that could be cut out
        cutting["clips"] = Path(arguments.clips)
        if arguments.clip_margin is not None:
            cutting["margin_s"] = arguments.clip_margin
    given = {name: getattr(arguments, name) for name in ("batch_size", "workers")}
    given = {name: value for name, value in given.items() if value is not None}
    check_count("predict", devices=devices, num_nodes=n_nodes, **given)
    processes = Processes.of_environment(devices, n_nodes)
    # Of os.path, which takes a name that is too long for one that is not there: `begin_job` tells of it.
    taken_up = arguments.resume and os.path.isdir(partial_folder(out))
    if processes.first and os.path.exists(out) and not arguments.overwrite and not taken_up:
        if arguments.resume and processes.count == 1:
            print(f"{out} stands, nothing to do; --overwrite begins anew")
            return BAD_INPUT if errors_file(out).exists() else 0
        raise InputError(f"predict: {out} exists; choose another -o, or give --overwrite")
    if not os.path.isdir(out.parent):
        raise InputError(f"predict: -o must lie in a folder that exists, got {out}")
    device = choose_device(arguments.device, devices=devices)
    model, settings = ask(load_classifier(arguments.run))
    settings.check_tasks(model.config)
    settings.hop_samples(model.config)
    files = expand_paths(
        arguments.paths,
        sample_rate=model.config.sample_rate,
        say=lambda line: print(line, file=sys.stderr) if processes.first else None,
    )
    if out.parent.absolute() != Path.cwd():
        # In a table that lies elsewhere, the paths must lead to the files from there too.
        files = [replace(each, path=os.path.abspath(each.path)) for each in files]
    job = PredictionJob(
        model,
        files,
        out,
        format,
        settings,
        stop_on_error=arguments.on_error == "stop",
        devices=devices,
        n_nodes=n_nodes,
        batch_size=arguments.batch_size,
        workers=arguments.workers,
        **cutting,
    )
    try:
        n_done = job.run(
            device, overwrite=arguments.overwrite or taken_up, anew=arguments.overwrite and not arguments.resume
        )
    except KeyboardInterrupt:
        print(settings.say("predict: stopped; the same command goes on where this one was"), file=sys.stderr)
        raise
    except OSError as error:
        raise InputError(
            f"predict: {error.filename or out} could not be written: {error.strerror or error}; what is done is kept, "
            "the same command goes on"
        ) from error
    if not processes.first:
        return 0  # the first process answers for all
    print(f"{n_done} of {len(files)} files -> {out}")
    if n_done < len(files):
        print(f"the others, with reasons -> {errors_file(out)}")
    return BAD_INPUT if n_done < len(files) else 0

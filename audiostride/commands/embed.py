"""``audiostride embed``."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from audiostride.commands.predict import add_job_options, add_recordings, run_job
from audiostride.errors import InputError

SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl"}


def build_parser() -> ArgumentParser:
    """The options of ``audiostride embed``."""
    parser = ArgumentParser(description=run.__doc__)
    add_recordings(parser)
    parser.add_argument("-o", "--out", required=True, help=f"file that is written: {', '.join(SUFFIXES)}")
    add_job_options(parser)
    return parser


def run(arguments: Any) -> int:
    """Write what the heads of a classifier see in recordings: one row per window, with a column for each feature.

    In Python, pd.read_parquet(OUT).loc[:, "e0000":] is what scikit-learn takes. A job that was stopped, in whatever
    way, goes on with the same command.
    """
    # Not at the top: help and errors of options need not wait for torch.
    from audiostride.inference.embedding import Embedder
    from audiostride.inference.settings import PredictionSettings

    out = Path(arguments.out)
    if out.suffix.lower() not in SUFFIXES:
        raise InputError(f"embed: -o must end in {', '.join(SUFFIXES)}, got {out}")
    settings = PredictionSettings(granularity="features", hop_s=arguments.hop)
    try:
        return run_job(arguments, SUFFIXES[out.suffix.lower()], settings, lambda model: (Embedder(model), settings))
    except InputError as error:
        raise InputError(settings.say(str(error))) from error

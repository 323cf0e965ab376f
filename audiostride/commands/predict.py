"""``audiostride predict``."""

import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from audiostride.errors import BAD_INPUT, InputError


def build_parser() -> ArgumentParser:
    """The options of ``audiostride predict``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("run", metavar="RUN", help="run folder or model.safetensors")
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="audio files, folders of them, manifests (.csv), or stores"
    )
    parser.add_argument("-o", "--out", required=True, help="CSV file that is written")
    parser.add_argument("--per-window", action="store_true", help="one row per window of 1 s instead of one per file")
    parser.add_argument(
        "--on-error", choices=["skip", "stop"], default="skip", help="whether a file that cannot be read ends the job"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    return parser


def run(arguments: Any) -> int:
    """Classify recordings of any length."""
    from audiostride.evaluation import expand_paths, predict_files
    from audiostride.models import load_classifier
    from audiostride.progress import progress_bar
    from audiostride.training.hardware import choose_device
    from audiostride.writing import write_text

    out = Path(arguments.out)
    if out.exists() and not arguments.overwrite:
        raise InputError(f"predict: {out} exists; choose another -o, or give --overwrite")
    if not out.parent.is_dir():
        raise InputError(f"predict: -o must lie in a folder that exists, got {out}")
    model = load_classifier(arguments.run, device=choose_device(arguments.device))
    files = expand_paths(arguments.paths, sample_rate=model.config.sample_rate)
    tables: list[str] = []
    errors: list[str] = []
    found = predict_files(model, files, per_window=arguments.per_window)
    for item in progress_bar(found, total=len(files), desc="predicting", unit="file"):
        if isinstance(item, InputError):
            if arguments.on_error == "stop":
                raise item
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

"""Strided convolution, spectral pooling and DiffStride of several sizes on one manifest, as one table.

Data: any manifest with a train/valid/test split.
Command: python recipes/compare_pooling.py --manifest MANIFEST.csv --label COLUMN --width 0.25 --seeds 0 1
Expected: see recipes/RESULTS.md and recipes/NOTES.md for tables with their seeds, hardware and time.
Resumable: run folders go to --out; a finished run is not trained again, an interrupted one is taken up.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from audiostride.commands.train import build_parser
from audiostride.models import load_classifier
from audiostride.reporting import cutoff_table, write_report
from audiostride.training import TrainConfig
from lab.program import end_program
from lab.runs import train_runs

EACH, BLOCK = {"pool_after": "convolution"}, {"pool_after": "block"}
VARIANTS: dict[str, dict[str, Any]] = {
    # Each axis pooled right after its own convolution, as strided convolutions do.
    "strided": {"pooling": "strided"},
    "spectral": {"pooling": "spectral", **EACH},
    "DiffStride mixed": {"pooling": "diffstride", "size": "mixed", **EACH},
    "DiffStride folded": {"pooling": "diffstride", "size": "folded", **EACH},
    "DiffStride nominal": {"pooling": "diffstride", "size": "nominal", **EACH},
    # Both axes pooled after a block.
    "spectral, block": {"pooling": "spectral", **BLOCK},
    "DiffStride folded, block": {"pooling": "diffstride", "size": "folded", **BLOCK},
    "DiffStride nominal, block": {"pooling": "diffstride", "size": "nominal", **BLOCK},
    "DiffStride paper, block": {"pooling": "diffstride", "size": "paper", **BLOCK},
}
DEFAULT = ["strided", "spectral", "DiffStride mixed", "DiffStride nominal", "DiffStride paper, block"]


def main() -> int:
    """Train what is missing, then print the table; the return value is the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--label", default="label")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--max-steps", type=int, default=400)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=DEFAULT, help="poolings to compare")
    parser.add_argument(
        "--draw-strides",
        type=int,
        metavar="SEED",
        help="start from strides drawn from 1, 2, 3 for every block and axis, not from the paper's",
    )
    parser.add_argument("--out", type=Path, help="folder of the runs (default: runs/compare_<manifest>_<label>)")
    arguments, more = parser.parse_known_args()
    return end_program("compare_pooling", lambda: compare(arguments, more))


def compare(arguments: argparse.Namespace, more: Sequence[str]) -> None:
    """Train each variant with each seed, then print the table and write the page.

    Args:
        arguments: Those of this program.
        more: Further options of 'audiostride train'.
    """
    manifest = Path(arguments.manifest)
    name = manifest.parent.name if manifest.stem == "manifest" else manifest.stem
    drawn = "" if arguments.draw_strides is None else f"_drawn{arguments.draw_strides}"
    out = arguments.out or Path("runs") / f"compare_{name}_{arguments.label}{drawn}"
    options = ["--manifest", str(manifest), "--label", arguments.label, "--width", str(arguments.width)]
    # Clips no longer than a window would otherwise give the same excerpt each time; `more` may set it back to 0.
    options += [
        "--preset",
        "none",
        "--max-steps",
        str(arguments.max_steps),
        "--time-shift-s",
        "0.1",
        *more,
        "--out",
        str(out),
    ]
    if arguments.draw_strides is not None:
        drawn_strides = random.Random(arguments.draw_strides).choices([1.0, 2.0, 3.0], k=12)
        options += ["--strides", json.dumps([drawn_strides[i : i + 2] for i in range(0, 12, 2)])]
    known = {field.name for field in fields(TrainConfig)}
    settings = {key: value for key, value in vars(build_parser().parse_args(options)).items() if key in known}
    chosen = ["strided", *(variant for variant in arguments.only if variant != "strided")]
    folders = {variant: variant.replace(", ", "_").replace(" ", "_").lower() for variant in chosen}
    # Each run in a process of its own, so that its time and memory are its own.
    found = train_runs(
        out,
        variants={folders[variant]: VARIANTS[variant] for variant in chosen},
        seeds=arguments.seeds,
        settings=settings,
        alone=True,
    )
    runs = {variant: found[folders[variant]] for variant in chosen}
    table = pd.DataFrame([describe_variant(variant, folders) for variant, folders in runs.items()])
    strided = table.iloc[0]
    for column in ("time", "memory"):
        table[column] = [f"{value / strided[column]:.2f} x" for value in table[column]]
    lines = ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * len(table.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
    environment = json.loads((runs["strided"][0] / "environment.json").read_text(encoding="utf-8"))
    print(
        f"\n{manifest}, label {arguments.label}: width {arguments.width}, {arguments.max_steps} steps, seeds "
        f"{' '.join(map(str, arguments.seeds))}; {environment['device']}, {environment['threads']} threads, "
        f"torch {environment['packages']['torch']}\n"
        f"strided: {strided['time']:.0f} s and {strided['memory']:.0f} MiB a training\n"
    )
    print("\n".join(lines))
    page = out / "report.html"
    write_report([folder for folders in runs.values() for folder in folders], page)
    print(f"\npage: {page}")


def describe_variant(variant: str, folders: list[Path]) -> dict[str, object]:
    """One row of the table: means over the runs of a variant; time and memory still in s and MiB."""
    metrics = pd.DataFrame([json.loads((run / "metrics.json").read_text(encoding="utf-8")) for run in folders])
    costs = pd.DataFrame([json.loads((run / "environment.json").read_text(encoding="utf-8")) for run in folders])
    models = [load_classifier(run) for run in folders]
    sizes = {model.encoder.map_sizes(model.config.window_frames, model.config.n_mels)[-1] for model in models}
    first = pd.concat(cutoff_table(model).query("layer == 1") for model in models)
    spread = metrics["accuracy"].std() if len(folders) > 1 else float("nan")

    def mean_of(axis: str, column: str, digits: int) -> str:
        return f"{first.loc[first['axis'] == axis, column].mean():.{digits}f}"

    return {
        "pooling": variant,
        "test accuracy": f"{metrics['accuracy'].mean():.3f} ± {spread:.3f}",
        "time": costs["training_s"].mean(),
        "memory": costs["training_memory_mib"].mean(),
        "last map (time x mel)": ", ".join(f"{n_t} x {n_m}" for n_t, n_m in sorted(sizes)),
        "stride 1 (time, mel)": f"{mean_of('time', 'stride', 2)}, {mean_of('mel', 'stride', 2)}",
        "cut-off 1 (Hz)": mean_of("time", "cutoff", 1),
        "cut-off 1 (c/mel)": mean_of("mel", "cutoff", 3),
    }


if __name__ == "__main__":
    sys.exit(main())

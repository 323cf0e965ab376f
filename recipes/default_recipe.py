"""What each element of the default training recipe is worth: several small sets, with and without it.

Data: any manifests with a train/valid/test split, each given as NAME=MANIFEST:COLUMN and learned on its own.
Command: python recipes/default_recipe.py words=SPEECH.csv:label pitch=NOTES.csv:pitch scenes=SCENES.csv:label --jobs 2
Expected: see recipes/RESULTS.md for the table of five sets, with seeds, hardware and time.
Resumable: run folders go to --out; a finished run is not trained again, an interrupted one is taken up. Its numbers are
also kept in --cells, a table that can travel: a run that stands there with the same settings is not trained again.
"""

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from audiostride.models import load_classifier
from audiostride.training import TrainConfig
from audiostride.training.config import MIN_STEPS
from audiostride.training.presets import DEFAULT_PRESET, PRESETS
from audiostride.training.tasks import split_task
from lab.cells import Cell, train_cells
from lab.program import DEFAULT_SEEDS, POOLINGS, check_settings, end_program, parse_settings
from lab.runs import read_metrics

BARE = {field.name: field.default for field in fields(TrainConfig) if field.name in PRESETS[DEFAULT_PRESET]}
# Changes of the default preset.
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    # One element each, left out.
    "best validation kept": {"keep": "best"},
    "no warm-up": {"warmup": 0.0},
    "no weight decay": {"weight_decay": 0.0},
    "no label smoothing": {"label_smoothing": 0.0},
    "no mixup": {"mixup": 0.0},
    "no noise": {"noise": None},
    "noise half as often": {"noise_prob": 0.25},
    "no gain": {"gain_db": 0.0},
    "levels down to -30 dB": {"lowest_gain_db": -30.0},
    "no shift": {"time_shift_s": 0.0},
    "no masks": {"time_masks": 0, "mel_masks": 0},
    "heads see the maximum": {"head_pooling": "max"},
    "one norm for all bands": {"input_norm": "all"},
    "half the steps": {"max_steps": MIN_STEPS // 2},
    # All of it, for other poolings.
    "strided": {"pooling": "strided"},
    "spectral": {"pooling": "spectral"},
    # Strides that learn within a budget, beside strided convolution at its whole cost.
    "DiffStride at 0.75x": {"pooling": "diffstride", "budget": "0.75x"},
    # None of it.
    "bare": BARE,
    "bare, 400 steps, best validation kept": BARE | {"max_steps": 400, "valid_every": 100, "keep": "best"},
}


def main() -> int:
    """Train what is missing, then print the table; the return value is the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="NAME=MANIFEST:COLUMN", help="sets to learn, each on its own")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="what is compared")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(DEFAULT_SEEDS))
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--pooling", choices=POOLINGS, default="diffstride", help="of variants not named after one")
    parser.add_argument("--set", nargs="+", metavar="NAME=VALUE", default=[], help="settings that all runs have")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--out", type=Path, default=Path("runs/default_recipe"), help="folder of the runs")
    parser.add_argument("--cells", type=Path, help="table with the numbers of each run (default: OUT/cells.csv)")
    arguments = parser.parse_args()
    return end_program("default_recipe", lambda: compare(arguments))


def compare(arguments: argparse.Namespace) -> None:
    """Train each variant on each set with each seed, then print one table."""
    given = parse_settings("--set", arguments.set)
    check_settings("--set", given)
    shared = {"width": arguments.width, "pooling": arguments.pooling, **given}
    file = arguments.cells or arguments.out / "cells.csv"
    sets = [split_task(item, "a set") for item in arguments.sets]
    configs: dict[Cell, TrainConfig] = {}
    for seed in arguments.seeds:  # so that an early stop leaves whole tables
        for variant in arguments.only:
            for name, manifest, column in sets:
                own = {
                    **PRESETS[DEFAULT_PRESET],
                    **shared,
                    **VARIANTS[variant],
                    "manifest": manifest,
                    "label": column,
                    "seed": seed,
                }
                folder = arguments.out / name / f"{variant.replace(', ', '_').replace(' ', '_')}_seed{seed}"
                configs[name, variant, seed] = TrainConfig(**own, out=str(folder))
    rows = train_cells(configs, file, measure_run, jobs=arguments.jobs)
    print("\n" + format_cells(rows, [name for name, *_ in sets]))


def measure_run(run: Path) -> dict[str, Any]:
    """What is kept of a run: accuracies in %, cost, strides, and CPU time."""
    metrics, model = read_metrics(run), load_classifier(run)
    layers = model.encoder.pooled_layers(model.config.window_frames, model.config.n_mels)
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    history = pd.read_csv(run / "history.csv")
    best = history["valid_accuracy"].max()
    return {
        "test": round(100 * metrics["accuracy"], 3),
        "valid": round(100 * metrics["valid_accuracy"], 3),
        "valid_best": round(100 * float(best), 3),
        "valid_loss": round(float(history["valid_loss"].iloc[-1]), 4),
        "steps": metrics["steps"],
        "multiply_adds": metrics["multiply_adds"],
        "strides": " ".join(f"{stride:.3f}" for block, sizes, _ in layers for stride in block.used_strides(*sizes)),
        "cpu_s": environment["training_cpu_s"],
    }


def format_cells(cells: pd.DataFrame, sets: list[str]) -> str:
    """A Markdown table: one row per variant with its mean test accuracy (sd over seeds) on each set and over them."""
    lines = ["| | " + " | ".join(sets) + " | mean | valid | CPU s |", "| --- |" + " --- |" * (len(sets) + 3)]
    for variant, own in cells.groupby("variant", sort=False):
        by_seed = own.pivot_table(index="seed", columns="set", values="test")[sets].dropna()
        shown = [f"{by_seed[name].mean():.1f} ({by_seed[name].std(ddof=1):.1f})" for name in sets]
        means = by_seed.mean(axis=1)
        shown.append(f"**{means.mean():.1f}** ({means.std(ddof=1):.1f})")
        shown.append(f"{own.groupby('set')['valid'].mean().mean():.1f}")
        shown.append(f"{own['cpu_s'].mean():.0f}")
        lines.append(f"| {variant} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

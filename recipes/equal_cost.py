"""Learned strides at equal cost: from drawn starts, strides that learn within a budget beside the same ones left alone.

Data: any manifests with a train/valid/test split, each given as NAME=MANIFEST:COLUMN and learned on its own.
Command: python recipes/equal_cost.py words=SPEECH.csv:label pitch=NOTES.csv:pitch --width 0.25 --jobs 2
Expected: for each set and budget the paired difference of test accuracy with its 95 % interval, the share of starts
    that learning improved, and the best of the first k fixed starts, chosen by validation, beside one learned run from
    the worst third; a figure of accuracy against cost, an arrow for each start. See recipes/RESULTS.md.
Resumable: numbers of finished runs stand in --cells, a table that can travel; other runs go on.

More ways of learning are compared with --ways: to the end of the training, and weights anew with the strides found.

Each start draws a stride for each axis of each layer, log-uniform in [1, 3], and is brought to the budget along the
gradient of its cost. Budgets are relative to strided convolution with the usual strides of the network. The runs of a
start have the same seed, steps and budget as counted; of the fixed one, strides have a learning rate of 0.
"""

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from scipy.stats import t

from audiostride.models import ClassifierConfig, load_classifier
from audiostride.models.budget import budget_per_window
from audiostride.models.encoder_kinds import ENCODER_STRIDES
from audiostride.reporting.style import COLORS, STYLE
from audiostride.training import TrainConfig
from audiostride.training.presets import DEFAULT_PRESET, PRESETS
from audiostride.training.tasks import split_task
from audiostride.writing import make_folder
from lab.cells import Cell, train_cells
from lab.figures import figure_stage
from lab.program import check_settings, end_program, parse_settings
from lab.runs import read_metrics

HIGHEST_STRIDE = 3.0
# Strides of the second kind come to rest within the budget after the first step, and learn at no rate in it.
FIXED = {"stride_lr": 0.0, "stride_steps": 1e-9}
WAYS: dict[str, dict[str, Any]] = {
    "fixed": FIXED,
    "learned": {"stride_lr": 3e-2, "stride_steps": 0.5},
    "to the end": {"stride_lr": 3e-2, "stride_steps": 1.0},
    "anew": FIXED,  # weights from scratch, with the strides that were learned
}
REPEATS = 20  # of a window, for its time


def main() -> int:
    """Train what is missing, then print the tables; the return value is the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="NAME=MANIFEST:COLUMN", help="sets to learn, each on its own")
    parser.add_argument("--budgets", nargs="+", default=["0.5x", "1x", "2x"], help="what networks may cost")
    parser.add_argument("--starts", type=int, default=12, help="how many are drawn (default: %(default)s)")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["fixed", "learned"], help="what is trained "
        "from each start: strides left alone; learned for half of the steps; learned to the end; weights learned anew "
        "with the strides of the second (default: %(default)s)")  # fmt: skip
    parser.add_argument("--encoder", choices=list(ENCODER_STRIDES), default="separable", help="the network")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--set", nargs="+", metavar="NAME=VALUE", default=[], help="settings that all runs have")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--out", type=Path, default=Path("runs/equal_cost"), help="folder of the runs")
    parser.add_argument("--cells", type=Path, help="table with the numbers of each run (default: OUT/cells.csv)")
    arguments = parser.parse_args()
    return end_program("equal_cost", lambda: compare(arguments))


def compare(arguments: argparse.Namespace) -> None:
    """Train both runs of each start for each set and budget, then print and draw what learning gave."""
    given = parse_settings("--set", arguments.set)
    check_settings("--set", given)
    sets = [split_task(item, "a set") for item in arguments.sets]
    ways = list(dict.fromkeys(["fixed", "learned", *arguments.ways]))
    file, rows = arguments.cells or arguments.out / "cells.csv", pd.DataFrame()
    for own_ways in ([way for way in ways if way != "anew"], [way for way in ways if way == "anew"]):
        configs: dict[Cell, TrainConfig] = {}
        for number in range(arguments.starts):  # so that an early stop leaves whole pairs
            for budget in arguments.budgets:
                for name, manifest, column in sets:
                    for way in own_ways:
                        start = draw_start(arguments.encoder, number)
                        own = {
                            **PRESETS[DEFAULT_PRESET], "encoder": arguments.encoder, "width": arguments.width, **given,
                            **WAYS[way], "budget": per_second(arguments, given, budget), "seed": number,
                            "strides": start if way != "anew" else learned_strides(rows, name, budget, number),
                        }  # fmt: skip
                        out = arguments.out / name / f"{budget}_{way.replace(' ', '_')}_{number}"
                        config = TrainConfig(**own, manifest=manifest, label=column, out=str(out))
                        configs[name, f"{budget} {way}", number] = config
        if configs:
            found = train_cells(configs, file, measure_run, jobs=arguments.jobs)
            found[["budget", "way"]] = found["variant"].str.split(" ", n=1, expand=True)
            rows = pd.concat([rows, found], ignore_index=True)
    text = format_pairs(rows)
    print(f"\n{text}")
    make_folder(arguments.out)
    figure_stage(lambda: draw_pairs(rows), text, arguments.out, n_runs=len(rows))


def draw_start(encoder: str, number: int) -> list[list[float]]:
    """Strides over time and mel of each layer, log-uniform in [1, 3].

    >>> draw_start("bcresnet", 0) == draw_start("bcresnet", 0) != draw_start("bcresnet", 1)
    True
    """
    n_layers = len(ENCODER_STRIDES[encoder])
    drawn = np.random.default_rng(number).uniform(0, math.log(HIGHEST_STRIDE), (n_layers, 2))
    return [[round(float(stride), 3) for stride in pair] for pair in np.exp(drawn)]


def per_second(arguments: argparse.Namespace, given: Mapping[str, Any], budget: str) -> str:
    """A budget as a number, of what strided convolution takes with the strides that the network usually has."""
    settings = {"encoder": arguments.encoder, "width": arguments.width, **given}
    known = {name: value for name, value in settings.items() if name in TrainConfig.model_setting_names()}
    config = ClassifierConfig(tasks={"": ["a", "b"]}, **known)
    return f"{budget_per_window('equal_cost', budget, config) / config.window_s:.0f}"


def learned_strides(rows: pd.DataFrame, name: str, budget: str, number: int) -> list[list[float]]:
    """Where the strides of a learned run ended."""
    own = rows[(rows["set"] == name) & (rows["variant"] == f"{budget} learned") & (rows["seed"] == number)]
    values = [float(value) for value in own["strides"].iloc[0].split()]
    return [values[place : place + 2] for place in range(0, len(values), 2)]


def measure_run(run: Path) -> dict[str, Any]:
    """Accuracies of a run in %, its cost as counted and by the budget, and the time of a window on one thread."""
    metrics, model = read_metrics(run), load_classifier(run)
    config = TrainConfig.load(run)
    budget = budget_per_window("equal_cost", str(config.budget), model.config)
    strides = [round(stride, 3) for block in model.encoder.block_list() for stride in block.pool.strides.tolist()]  # type: ignore[union-attr, operator]
    return {
        "test": round(100 * metrics["accuracy"], 3),
        "valid": round(100 * metrics["valid_accuracy"], 3),
        "valid_loss": round(float(pd.read_csv(run / "history.csv")["valid_loss"].iloc[-1]), 4),
        "multiply_adds": metrics["multiply_adds"],
        "of_budget": round(metrics["multiply_adds"] / budget, 4),
        "window_ms": time_window(run),
        "strides": " ".join(map(str, strides)),
    }


@torch.inference_mode()
def time_window(run: Path) -> float:
    """Median time of a window through the frozen network of a run, without its frontend, in ms on one thread."""
    model, threads = load_classifier(run).freeze().eval(), torch.get_num_threads()
    torch.set_num_threads(1)
    spectrogram, times = torch.randn(1, model.config.window_frames, model.config.n_mels), []
    for _ in range(REPEATS):
        before = time.perf_counter()
        model.classify_spectrogram(spectrogram)
        times.append(1000 * (time.perf_counter() - before))
    torch.set_num_threads(threads)
    return round(median(times), 3)


def format_pairs(rows: pd.DataFrame) -> str:
    """A Markdown table: a row for each set and budget, and one for all of them."""
    lines = [
        "| set | budget | fixed | learned | difference (95 %) | starts improved | cost of both, of the budget | "
        "time, learned by fixed | learned from the worst third | best fixed of 1, 2, 4, 8, all, by validation |",
        "|" + " --- |" * 10,
    ]
    everything = []
    for (name, budget), own in rows.groupby(["set", "budget"], sort=False):
        fixed, learned = (own[own["way"] == way].set_index("seed").sort_index() for way in ("fixed", "learned"))
        everything.append(learned["test"] - fixed["test"])
        worst = fixed.sort_values("valid_loss", ascending=False).index[: max(1, len(fixed) // 3)]
        best = [choose_best(fixed, k) for k in (1, 2, 4, 8, len(fixed)) if k <= len(fixed)]
        ratio = (learned["window_ms"] / fixed["window_ms"]).median()
        lines.append(
            f"| {name} | {budget} | {fixed['test'].mean():.1f} | {learned['test'].mean():.1f} | "
            f"{format_difference(everything[-1])} | {(everything[-1] > 0).sum()} of {len(fixed)} | "
            f"{fixed['of_budget'].mean():.3f}, {learned['of_budget'].mean():.3f} | {ratio:.2f} | "
            f"{learned.loc[worst, 'test'].mean():.1f} | {', '.join(f'{value:.1f}' for value in best)} |"
        )
    together = pd.concat(everything)
    lines.append(f"| all | | | | {format_difference(together)} | {(together > 0).sum()} of {len(together)} | | | | |")
    tests = rows.pivot_table(index=["set", "budget", "seed"], columns="way", values="test", sort=False)
    for way in tests.columns.difference(["fixed", "learned"], sort=False):
        difference = format_difference((tests[way] - tests["fixed"]).dropna())
        lines += ["", f"{way} against fixed: {difference}"]
    return "\n".join(lines)


def choose_best(fixed: pd.DataFrame, k: int) -> float:
    """Test accuracy of the best of k fixed starts by validation loss: its mean over all groups of k that follow.

    >>> table = pd.DataFrame({"valid_loss": [0.2, 0.1, 0.3], "test": [80.0, 90.0, 70.0]})
    >>> choose_best(table, 1), choose_best(table, 3)
    (80.0, 90.0)
    """
    losses, tests = fixed["valid_loss"].to_numpy(), fixed["test"].to_numpy()
    groups = [[(first + step) % len(fixed) for step in range(k)] for first in range(len(fixed))]
    return float(np.mean([tests[min(group, key=lambda row: losses[row])] for group in groups]))


def format_difference(values: "pd.Series[float]") -> str:
    """Mean of paired differences with Student's interval.

    >>> format_difference(pd.Series([1.0, 2.0, 3.0]))
    '+2.0 (-0.5 to +4.5)'
    """
    if len(values) < 2:
        return f"{values.mean():+.1f}"
    half = float(t.ppf(0.975, len(values) - 1)) * values.std(ddof=1) / math.sqrt(len(values))
    return f"{values.mean():+.1f} ({values.mean() - half:+.1f} to {values.mean() + half:+.1f})"


def draw_pairs(rows: pd.DataFrame) -> Figure:
    """A panel for each set: accuracy against cost, a dot for each fixed start and an arrow to where learning led."""
    sets, budgets = list(dict.fromkeys(rows["set"])), list(dict.fromkeys(rows["budget"]))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2 * len(sets), 4.4), layout="constrained")
        panels = figure.subplots(1, len(sets), squeeze=False)[0]
        for panel, name in zip(panels, sets, strict=True):
            for budget, color in zip(budgets, COLORS, strict=False):
                own = rows[(rows["set"] == name) & (rows["budget"] == budget)]
                fixed, learned = (_places(own[own["way"] == way]) for way in ("fixed", "learned"))
                panel.plot(*zip(*fixed, strict=True), "o", color=color, markersize=4, label=budget)
                for start, end in zip(fixed, learned, strict=True):
                    panel.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": color, "linewidth": 0.8})
                panel.plot(*zip(*learned, strict=True), "o", color=color, markersize=0)  # so that limits hold the ends
            panel.set(title=name, xlabel="million multiply-adds a window", ylabel="test accuracy (%)", xscale="log")
            for ticks in (panel.xaxis.set_major_formatter, panel.xaxis.set_minor_formatter):
                ticks(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.legend(title="budget", frameon=False)
        return figure


def _places(own: pd.DataFrame) -> Sequence[tuple[float, float]]:
    own = own.sort_values("seed")
    return list(zip(own["multiply_adds"] / 1e6, own["test"], strict=True))


if __name__ == "__main__":
    sys.exit(main())

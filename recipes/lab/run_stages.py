"""The stages from the store on: train, evaluate, report, and the table of results."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from audiostride.dataset.importers.imported import count_of
from audiostride.reporting import report_run, write_report
from audiostride.training import TrainConfig, train
from audiostride.training.results import finished_metrics
from audiostride.writing import write_text
from lab.data_stages import processes_of, say
from lab.recipe import Recipe


def train_runs(
    out: str | Path,
    *,
    variants: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    settings: Mapping[str, Any],
) -> dict[str, list[Path]]:
    """Train and evaluate a run for each seed and variant; finished ones are left alone, stopped ones go on.

    Args:
        out: Folder of the run folders, ``<variant>_seed<seed>``.
        variants: What is compared, by name: settings of `TrainConfig`, such as the pooling.
        seeds: Of the runs of each variant.
        settings: Settings that all have, with what is learned: manifest and label, or tasks.

    Returns:
        The run folders of each variant.

    Raises:
        InputError: As `train`, also where a run stands that has other settings.
        KeyboardInterrupt: A training was stopped; its checkpoint stands.
        SystemExit: Of several processes that train together this is not the first, which does what comes then.
    """
    processes = processes_of(settings)
    runs: dict[str, list[Path]] = {variant: [] for variant in variants}
    for seed in seeds:
        for variant, own in variants.items():
            run = Path(out) / f"{variant}_seed{seed}"
            config = TrainConfig(out=str(run), seed=seed, **{**settings, **own})
            begun, finished = (run / "config.yaml").is_file(), finished_metrics(run) is not None
            if begun and not finished and processes.first:
                say("train", f"{run} was stopped, goes on")
            metrics = train(config, resume=begun)
            if metrics["stopped_early"]:
                raise KeyboardInterrupt
            if not processes.first:
                continue
            report_run(run)
            say("train", f"{run} stands, skipped" if finished else f"{variant}, seed {seed} -> {run}")
            of = (
                f", mean of {len(metrics['tasks'])} tasks"
                if "tasks" in metrics
                else f" of {metrics['n_clips']:,} clips"
            )
            accuracy = f"test accuracy {100 * metrics['accuracy']:.1f} %{of}"
            say(
                "evaluate", f"{run} stands, skipped ({accuracy})" if finished else f"{variant}, seed {seed}: {accuracy}"
            )
            runs[variant].append(run)
    if not processes.first:
        sys.exit()
    return runs


def read_metrics(run: Path) -> dict[str, Any]:
    """The test metrics of a run."""
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return found


def report_stage(runs: Mapping[str, list[Path]], page: Path) -> None:
    """Write the page of all runs and, last, beside it ``<page>_runs.csv``, which says of which runs it is."""
    folders = [run for members in runs.values() for run in members]
    listed = "run,test_accuracy\n" + "".join(f"{run.name},{read_metrics(run)['accuracy']}\n" for run in folders)
    record = page.with_name(f"{page.stem}_runs.csv")
    if page.is_file() and record.is_file() and record.read_text(encoding="utf-8") == listed:
        say("report", f"{page} stands, skipped")
        return
    write_report(folders, page)
    write_text(record, listed)
    say("report", f"{count_of(len(folders), 'run')} -> {page}")


def format_results(recipe: Recipe, runs: Mapping[str, list[Path]], *, splits: str) -> str:
    """A Markdown table: one row per pooling with its test accuracy, and the paper's in a column of its own.

    The standard deviation is that of a sample, as a statement about other seeds; one run has none.
    """
    lines = [
        "| pooling | seeds | test accuracy (%), mean (sd) | split scheme | the paper's (%), on its own split |",
        "|" + " --- |" * 5,
    ]
    for pooling, folders in runs.items():
        seeds = " ".join(run.name.rsplit("seed", 1)[1] for run in folders)
        accuracies = [100 * read_metrics(run)["accuracy"] for run in folders]
        paper = recipe.paper.get(pooling, "")
        lines.append(f"| {pooling} | {seeds} | {format_accuracies(accuracies)} | {splits} | {paper} |")
    return "\n".join(lines)


def format_accuracies(values: Sequence[float]) -> str:
    """Mean and sample standard deviation, with one digit.

    >>> format_accuracies([80.0, 82.0]), format_accuracies([80.04])
    ('81.0 (1.4)', '80.0 (one run)')
    """
    return f"{mean(values):.1f} ({f'{stdev(values):.1f}' if len(values) > 1 else 'one run'})"


def describe_setting(run: Path) -> str:
    """Steps, batch, encoder, width, hardware and versions of a run, for the line above a table."""
    config = TrainConfig.load(run)
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    encoder = "" if config.encoder == "separable" else f"{config.encoder}, "
    return (
        f"{config.max_steps:,} steps of {config.batch_size} excerpts, Adam {config.lr:g}, {encoder}width "
        f"{config.width:g}; "
        f"{environment['device']}, torch {environment['packages']['torch']}"
    )

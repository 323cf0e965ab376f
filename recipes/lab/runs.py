"""The runs of an experiment: trained by one sweep, their page, and what tables say of them."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from audiostride.errors import InputError
from audiostride.reporting import report_run, write_report
from audiostride.training import TrainConfig, train
from audiostride.training.results import finished_metrics
from audiostride.training.resuming import check_same_settings
from audiostride.training.sweep import Learn, RunSettings, describe_failures, sweep
from audiostride.wording import count_of, metric_of
from audiostride.writing import write_text
from lab.data_stages import processes_of, say


def train_runs(
    folder: str | Path,
    *,
    variants: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    alone: bool = False,
) -> dict[str, list[Path]]:
    """Train and evaluate a run for each seed and variant; finished ones are left alone, stopped ones go on.

    Args:
        folder: Of the run folders, ``<variant>_seed<seed>``.
        variants: What is compared, by name: settings of `TrainConfig`, such as the pooling.
        seeds: Of the runs of each variant.
        settings: Settings that all have, with what is learned: manifest and label, or tasks.
        alone: Whether each run has a process of its own.

    Returns:
        The run folders of each variant.

    Raises:
        InputError: Runs that failed, each with its reason; a run stands that has other settings.
        KeyboardInterrupt: A training was stopped; its checkpoint stands.
        SystemExit: Of several processes that train together this is not the first, which does what comes then.
    """
    configs = {
        (variant, seed): TrainConfig(
            **{**settings, **own, "out": str(Path(folder) / f"{variant}_seed{seed}"), "seed": seed}
        )
        for seed in seeds  # so that an early stop leaves whole tables
        for variant, own in variants.items()
    }
    for config in configs.values():  # more steps would go on, beside runs whose schedule was another
        if (Path(config.out) / "config.yaml").is_file():
            check_same_settings(TrainConfig.load(config.out), config, strict=True)
    failed = train_all(list(configs.values()), train, alone=alone)
    if failed:
        raise InputError(describe_failures(failed, n_runs=len(configs)))
    return {variant: [Path(configs[variant, seed].out) for seed in seeds] for variant in variants}


def train_all(
    configs: Sequence[RunSettings],
    learn: Learn,
    *,
    jobs: int = 1,
    alone: bool = False,
    each: Callable[[Path, bool], None] | None = None,
) -> dict[Path, str]:
    """`sweep`, telling a line of each run; the runs of `TrainConfig` get their pages. The reasons of those that failed.

    Raises:
        InputError: A run stands that has other settings.
        KeyboardInterrupt: A training was stopped; its checkpoint stands.
        SystemExit: Of several processes that train together this is not the first, which does what comes then.
    """
    processes = processes_of(vars(configs[0])) if configs else processes_of({})
    for config in configs:
        run = Path(config.out)
        if processes.first and (run / "config.yaml").is_file() and finished_metrics(run) is None:
            say("train", f"{run} was stopped, goes on")
    pages = bool(configs) and isinstance(configs[0], TrainConfig)

    def tell(run: Path, stood: bool) -> None:
        _tell(run, stood, pages=pages)
        if each is not None:
            each(run, stood)

    failed = sweep(configs, learn, jobs=jobs, alone=alone, each=tell)
    if not processes.first:
        sys.exit()
    return failed


def _tell(run: Path, stood: bool, *, pages: bool) -> None:
    metrics = read_metrics(run)
    of = f", mean of {len(metrics['tasks'])} tasks" if "tasks" in metrics else ""
    for name in ("clips", "images"):
        if f"n_{name}" in metrics and not of:
            of = f" of {metrics[f'n_{name}']:,} {name}"
    accuracy = f"test {metric_of(metrics)} {100 * metrics['accuracy']:.1f} %{of}"
    say("train", f"{run} stands, skipped ({accuracy})" if stood else f"{run}: {accuracy}")
    if pages:
        report_run(run)


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

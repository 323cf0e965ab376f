"""One training for each of several seeds, and their mean and spread."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from audiostride.checks import read_json
from audiostride.distributed import Processes
from audiostride.errors import InputError, explained
from audiostride.training.config import TrainConfig
from audiostride.training.results import finished_metrics
from audiostride.training.resuming import check_same_settings
from audiostride.training.run import train
from audiostride.training.run_files import Environment
from audiostride.training.sweep import Stopped, describe_failures, sweep
from audiostride.wording import metric_of
from audiostride.writing import make_folder, write_json, write_text


@explained()
def train_seeds(
    config: TrainConfig,
    seeds: Sequence[int],
    *,
    jobs: int = 1,
    progress: bool = True,
    each: Callable[[Path, bool], None] | None = None,
) -> pd.DataFrame:
    """Train one run for each seed and summarise those that stand.

    The runs are ``seed0``, ``seed1``, … in the folder ``config.out``, beside ``summary.csv`` and ``summary.json``.
    A run that stands is not trained again, and one that was stopped goes on: the same call finishes what is left. A run
    that fails does not end the others.

    Args:
        config: The settings; its seed is replaced.
        seeds: Seeds, each once.
        jobs: Runs that train at the same time, each in a process of its own with its share of this process's threads
            and with the audio in memory of its own.
        progress: Whether it is shown how far they are.
        each: Called with the folder of each run that stands, and with whether it stood before.

    Returns:
        One row per run that stands: ``seed``, ``accuracy`` on the test clips, ``valid_accuracy``, ``steps``,
        ``best_step``, ``training_s``; with several tasks ``accuracy_<task>`` too. Fewer rows than seeds mean that the
        training was stopped (Ctrl-C).

    Raises:
        InputError: Bad settings; runs of other settings in the folder. At the end, if a run has failed: each of these
            with its message.
    """
    configs = _configs_of_seeds(config, seeds, jobs=jobs)
    processes = Processes.of_environment(config.devices, config.num_nodes)
    if jobs > 1 and processes.count > 1:
        raise InputError(
            f"train: --jobs is for runs of one process each, got --devices {config.devices} --num-nodes "
            f"{config.num_nodes}; leave --jobs out, and the runs follow one another on all devices"
        )
    make_folder(config.out)
    failed: dict[Path, str] = {}
    n_finished = sum(finished_metrics(Path(item.out)) is not None for item in configs)
    if progress and processes.first and n_finished:
        print(f"{n_finished} of {len(configs)} runs stand and are left as they are", flush=True)
    with suppress(Stopped):  # what is finished is summarised
        failed = sweep(configs, train, jobs=jobs, progress=progress, each=each)
    if not processes.first:
        return pd.DataFrame()
    table = summarise_seeds(config.out, seeds)
    if failed:
        raise InputError(f"train: {describe_failures(failed, n_runs=len(configs))}")
    return table


def summarise_seeds(out: str | Path, seeds: Sequence[int]) -> pd.DataFrame:
    """The table of `train_seeds` from the runs that stand, also written as ``summary.csv`` and ``summary.json``."""
    runs = {seed: seed_folder(out, seed) for seed in seeds}
    found = {seed: metrics for seed, run in runs.items() if (metrics := finished_metrics(run)) is not None}
    rows = [_row(seed, runs[seed], metrics) for seed, metrics in found.items()]
    table = pd.DataFrame(rows, columns=None if rows else ["seed", "accuracy", "valid_accuracy", "steps"])
    first: dict[str, Any] = next(iter(found.values()), {})
    table.attrs["metric"] = metric_of(first)
    measured = [name for name in table.columns if "accuracy" in name]
    summary: dict[str, Any] = {
        **{key: first[key] for key in ("task", "split", "metric", "n_clips") if key in first},
        "seeds": list(found),
        "seeds_left": [seed for seed in seeds if seed not in found],
        **{name: mean_and_sd(table[name]) for name in measured},
        **_baselines(first),
        "baselines": {task: _baselines(values) for task, values in first.get("tasks", {}).items()},
        "runs": rows,
    }
    write_text(Path(out) / "summary.csv", table.to_csv(index=False))
    write_json(Path(out) / "summary.json", summary)
    return table


def mean_and_sd(values: pd.Series) -> dict[str, float | None]:
    """Mean and standard deviation (over n - 1) of numbers; None where there are too few of them.

    >>> mean_and_sd(pd.Series([0.5, 0.7]))
    {'mean': 0.6, 'sd': 0.1414...}
    """
    return {
        "mean": float(values.mean()) if len(values) else None,
        "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
    }


def describe_seeds(table: pd.DataFrame) -> str:
    """The outcome of several seeds in one line.

    >>> describe_seeds(pd.DataFrame({"accuracy": [0.83, 0.85]}))
    'accuracy 0.840 ± 0.014 over 2 seeds'
    """
    found = mean_and_sd(table["accuracy"])
    spread = f" ± {found['sd']:.3f}" if found["sd"] is not None else ""
    metric = table.attrs.get("metric", "accuracy")
    return f"{metric} {found['mean']:.3f}{spread} over {len(table)} seed{'s' * (len(table) != 1)}"


def seed_folder(out: str | Path, seed: int) -> Path:
    """The run folder of a seed."""
    return Path(out) / f"seed{seed}"


def _configs_of_seeds(config: TrainConfig, seeds: Sequence[int], *, jobs: int) -> list[TrainConfig]:
    """The settings of each run, after a look at what is in the folder."""
    out = Path(config.out)
    if jobs < 1:
        raise InputError(f"train: jobs must be at least 1, got {jobs}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"train: seeds must be one or more, each once, got {list(seeds)}")
    if out.exists() and not out.is_dir():
        raise InputError(f"train: --out must be a folder, got the file {out}")
    if (out / "config.yaml").exists():
        raise InputError(f"train: --out must be a folder for the runs of all seeds, but {out} is a run; choose another")
    configs = [replace(config, seed=seed, out=str(seed_folder(out, seed))) for seed in seeds]
    for item in configs:
        if (Path(item.out) / "config.yaml").exists():
            check_same_settings(TrainConfig.load(item.out), item, strict=True)
    return configs


def _baselines(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if key.startswith("baseline")}


def _row(seed: int, run: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    environment = read_json("train", run / "environment.json", Environment)
    several = {f"accuracy_{task}": found["accuracy"] for task, found in metrics.get("tasks", {}).items()}
    return {
        "seed": seed,
        "accuracy": metrics["accuracy"],
        **several,
        **{name: metrics[name] for name in ("valid_accuracy", "steps", "best_step")},
        "training_s": environment.get("training_s"),
    }

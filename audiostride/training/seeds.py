"""One training for each of several seeds, one after another or side by side, and their mean and spread."""

import json
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.training.config import TrainConfig, check_same_settings
from audiostride.training.results import finished_metrics
from audiostride.training.run import train
from audiostride.training.side_by_side import train_side_by_side
from audiostride.writing import write_json, write_text


def train_seeds(config: TrainConfig, seeds: Sequence[int], *, jobs: int = 1, progress: bool = True) -> pd.DataFrame:
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
    progress = progress and processes.first
    left = {seed: item for seed, item in configs.items() if finished_metrics(Path(item.out)) is None}
    Path(config.out).mkdir(parents=True, exist_ok=True)
    if progress and len(left) < len(configs):
        print(f"{len(configs) - len(left)} of {len(configs)} runs stand and are left as they are", flush=True)
    if jobs > 1 and len(left) > 1:
        failed = train_side_by_side(left, jobs=jobs, progress=progress)
    else:
        failed = _train_in_turn(left, progress=progress)
    if not processes.first:
        return pd.DataFrame()
    table = summarise_seeds(config.out, seeds)
    if failed:
        raise InputError(describe_failures(failed, n_seeds=len(configs)))
    return table


def summarise_seeds(out: str | Path, seeds: Sequence[int]) -> pd.DataFrame:
    """The table of `train_seeds` from the runs that stand, also written as ``summary.csv`` and ``summary.json``."""
    found = {seed: metrics for seed in seeds if (metrics := finished_metrics(seed_folder(out, seed))) is not None}
    rows = [_row(seed, seed_folder(out, seed), metrics) for seed, metrics in found.items()]
    table = pd.DataFrame(rows, columns=None if rows else ["seed", "accuracy", "valid_accuracy", "steps"])
    first: dict[str, Any] = next(iter(found.values()), {})
    measured = [name for name in table.columns if "accuracy" in name]
    summary: dict[str, Any] = {
        **{key: first[key] for key in ("task", "split", "n_clips") if key in first},
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
    return f"accuracy {found['mean']:.3f}{spread} over {len(table)} seed{'s' * (len(table) != 1)}"


def describe_failures(failed: dict[int, str], *, n_seeds: int) -> str:
    """The message about runs that failed; what several have in common is said once."""
    seeds: dict[str, list[int]] = {}
    for seed in sorted(failed):
        seeds.setdefault(failed[seed], []).append(seed)
    lines = [f"seed {', '.join(map(str, alike))}: {message}" for message, alike in seeds.items()]
    return "\n".join(
        [f"train: {len(failed)} of {n_seeds} runs failed; mend this and give the same command again", *lines]
    )


def seed_folder(out: str | Path, seed: int) -> Path:
    """The run folder of a seed."""
    return Path(out) / f"seed{seed}"


def _configs_of_seeds(config: TrainConfig, seeds: Sequence[int], *, jobs: int) -> dict[int, TrainConfig]:
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
    configs = {seed: replace(config, seed=seed, out=str(seed_folder(out, seed))) for seed in seeds}
    for item in configs.values():
        if (Path(item.out) / "config.yaml").exists():
            check_same_settings(TrainConfig.load(item.out), item)
    return configs


def _train_in_turn(configs: dict[int, TrainConfig], *, progress: bool) -> dict[int, str]:
    """Train in this process until all are done or one is stopped; the messages of those that failed."""
    failed: dict[int, str] = {}
    for number, (seed, config) in enumerate(configs.items(), start=1):
        if progress:
            print(f"seed {seed} ({number} of {len(configs)})", flush=True)
        try:
            resume = (Path(config.out) / "config.yaml").exists()
            if train(config, resume=resume, progress=progress)["stopped_early"]:
                break
        except InputError as error:
            failed[seed] = str(error)
        except Exception as error:
            # Such as memory that ran out. A defect of ours needs its traceback, and the other runs go on all the same.
            traceback.print_exc()
            failed[seed] = f"{type(error).__name__}: {error}"
    return failed


def _baselines(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if key.startswith("baseline")}


def _row(seed: int, run: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    several = {f"accuracy_{task}": found["accuracy"] for task, found in metrics.get("tasks", {}).items()}
    return {
        "seed": seed,
        "accuracy": metrics["accuracy"],
        **several,
        "valid_accuracy": metrics["valid_accuracy"],
        "steps": metrics["steps"],
        "best_step": metrics["best_step"],
        "training_s": environment["training_s"],
    }

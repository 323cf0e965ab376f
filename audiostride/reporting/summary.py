"""How the runs of a report were made: data, split, seeds, hardware, command, versions."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from audiostride.reporting.blocks import Table
from audiostride.reporting.headline import count_of
from audiostride.reporting.runs import RunFolder, name_groups
from audiostride.reporting.tables import NONE, number, percent

MOST_VALUES = 4
UNKNOWN = "not recorded"


def summary_table(folders: Sequence[RunFolder]) -> Table:
    """One row per fact; where runs differ, their values one after the other."""
    facts = [describe_run(folder) for folder in folders]
    rows = []
    for name in facts[0]:
        values = list(dict.fromkeys(fact[name] for fact in facts))
        shown = "; ".join(values[:MOST_VALUES])
        rows.append((name, shown + (f"; and {len(values) - MOST_VALUES} more" if len(values) > MOST_VALUES else "")))
    data = pd.DataFrame({"run": [folder.name for folder in folders]} | {name: [fact[name] for fact in facts]
                                                                        for name in facts[0]})  # fmt: skip
    caption = "How this run was made." if len(folders) == 1 else f"How these {len(folders)} runs were made."
    return Table("summary", caption, data, pd.DataFrame(rows, columns=["what", "value"]), n_left=2)


def describe_run(run: RunFolder) -> dict[str, str]:
    """The facts of a run, each as text."""
    config, environment, metrics = run.config, run.environment, run.metrics
    packages = environment.get("packages", {})
    versions = [f"{name} {version}" for name, version in packages.items()]
    threads = environment.get("threads")
    model = run.model.config
    parameters = metrics.get("parameters", sum(weights.numel() for weights in run.model.parameters()))
    return {
        "tasks": ", ".join(f"{task} ({count_of(len(names), 'class')})" for task, names in run.tasks.items()),
        "data": run.source,
        "clips": _describe_clips(run),
        "split": _describe_split(config),
        "model": f"{run.variant}, width {config.get('width')}, {count_of(int(parameters), 'parameter')}; "
        f"windows of {model.window_s:g} s, {model.n_mels} mel bands",
        "training": f"{int(run.history['step'].iloc[-1]):,} steps of {config.get('batch_size')} excerpts, learning "
        f"rate {config.get('lr')}, of strides {config.get('stride_lr')}"
        f"; best at step {metrics.get('best_step', UNKNOWN)}",
        "time": f"{environment['training_s']:.0f} s" if "training_s" in environment else UNKNOWN,
        "seed": str(config.get("seed")),
        "hardware": f"{environment['device']}" + (f", {count_of(threads, 'thread')}" if threads else "")
        if "device" in environment
        else UNKNOWN,
        "command": str(environment.get("command", UNKNOWN)),
        "versions": ", ".join([f"Python {environment['python']}", *versions]) if "python" in environment else UNKNOWN,
    }


def _describe_clips(run: RunFolder) -> str:
    counts: dict[str, dict[str, int]] = run.metrics.get("clips", {})
    if not counts:
        tested = run.metrics.get("n_clips")
        return f"{count_of(tested, 'test clip')}; others {UNKNOWN}" if tested else UNKNOWN
    texts = {
        task: ", ".join(f"{split} {clips:,}" for split, clips in splits.items()) for task, splits in counts.items()
    }
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{task}: {text}" for task, text in texts.items())


def _describe_split(config: dict[str, Any]) -> str:
    if config.get("random_split") is not None:
        return f"drawn at random with seed {config['random_split']}, groups kept together where there are any"
    return (
        "that of the manifest; validation clips, where it has none, held out of the training clips "
        f"({100 * float(config.get('hold_out') or 0):g} %)"
    )


def runs_table(folders: Sequence[RunFolder]) -> Table:
    """One row per run: what it is, how long it took, how well it did."""
    rows, shown = [], []
    for group, run in zip(name_groups(folders), folders, strict=True):
        row = {
            "run": run.name,
            "model": group,
            "seed": run.config.get("seed"),
            "steps": int(run.history["step"].iloc[-1]),
            "parameters": sum(weights.numel() for weights in run.model.parameters()),
            "training_s": run.environment.get("training_s"),
            "training_memory_mib": run.environment.get("training_memory_mib"),
            "valid_accuracy": run.metrics.get("valid_accuracy", run.history["valid_accuracy"].max()),
            "test_accuracy": run.metrics.get("accuracy"),
        }
        rows.append(row)
        shown.append(
            {
                "run": run.name,
                "model": group,
                "seed": str(row["seed"]),
                "steps": f"{row['steps']:,}",
                "parameters": f"{row['parameters']:,}",
                "training (s)": number(row["training_s"], 0),
                "memory (MiB)": number(row["training_memory_mib"], 0),
                "validation": percent(row["valid_accuracy"]),
                "test": percent(row["test_accuracy"]) if row["test_accuracy"] is not None else NONE,
            }
        )
    caption = "The runs. Memory: what the training added to that of the process. Of several tasks: mean accuracy."
    return Table("runs", caption, pd.DataFrame(rows), pd.DataFrame(shown), n_left=2)

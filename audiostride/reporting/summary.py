"""What a report says in words: how its runs were made, and what was learned."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from audiostride.reporting.blocks import Table
from audiostride.reporting.runs import RunFolder
from audiostride.wording import metric_of

MOST_NAMED = 6
MOST_VALUES = 4
UNKNOWN = "not recorded"


def count_of(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count_of(1, "run"), count_of(1200, "clip"), count_of(3, "class")
    ('1 run', '1,200 clips', '3 classes')
    """
    plural = noun if number == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {plural}"


def summary_table(folders: Sequence[RunFolder]) -> Table:
    """One row per fact; where runs differ, their values one after the other."""
    facts = pd.DataFrame([describe_run(folder) for folder in folders])
    rows = []
    for name in facts:
        values = list(facts[name].unique())
        more = f"; and {len(values) - MOST_VALUES} more" if len(values) > MOST_VALUES else ""
        rows.append((name, "; ".join(values[:MOST_VALUES]) + more))
    facts.insert(0, "run", [folder.name for folder in folders])
    caption = "How this run was made." if len(folders) == 1 else f"How these {len(folders)} runs were made."
    return Table("summary", caption, facts, pd.DataFrame(rows, columns=["what", "value"]), n_left=2)


def describe_run(run: RunFolder) -> dict[str, str]:
    """The facts of a run, each as text."""
    config, environment, metrics, model = run.config, run.environment, run.metrics, run.model.config
    threads, hardware, versions = environment.get("threads"), UNKNOWN, UNKNOWN
    if "device" in environment:
        hardware = f"{environment['device']}" + (f", {count_of(threads, 'thread')}" if threads else "")
    if "python" in environment:
        packages = environment.get("packages", {}).items()
        versions = ", ".join([f"Python {environment['python']}", *(f"{name} {version}" for name, version in packages)])
    return {
        "tasks": ", ".join(f"{task} ({count_of(len(names), 'class')})" for task, names in run.tasks.items()),
        "data": run.source,
        "clips": _describe_clips(metrics),
        "split": _describe_split(config),
        "model": f"{run.variant}, width {config.get('width')}, "
        f"{count_of(int(metrics.get('parameters', run.n_parameters)), 'parameter')}{_describe_cost(metrics)}; "
        f"windows of {model.window_s:g} s, {model.n_mels} mel bands",
        "training": f"{run.n_steps:,} steps of {config.get('batch_size')} excerpts, learning "
        f"rate {config.get('lr')}, of strides {config.get('stride_lr')}"
        f"; the model is that of step {metrics.get('best_step', UNKNOWN)}",
        "time": f"{environment['training_s']:.0f} s" if "training_s" in environment else UNKNOWN,
        "seed": str(config.get("seed")),
        "hardware": hardware,
        "command": str(environment.get("command", UNKNOWN)),
        "versions": versions,
    }


def _describe_cost(metrics: dict[str, Any]) -> str:
    if "multiply_adds" not in metrics:
        return ""
    within = f" (budget {metrics['budget']})" if "budget" in metrics else ""
    return f", {metrics['multiply_adds'] / 1e6:.3g} million multiply-adds a window{within}"


def _describe_clips(metrics: dict[str, Any]) -> str:
    counts: dict[str, dict[str, int]] = metrics.get("clips", {})
    if not counts:
        tested = metrics.get("n_clips")
        return f"{count_of(tested, 'test clip')}; others {UNKNOWN}" if tested else UNKNOWN
    texts = {task: ", ".join(f"{split} {n:,}" for split, n in splits.items()) for task, splits in counts.items()}
    same = len(set(texts.values())) == 1
    return next(iter(texts.values())) if same else "; ".join(f"{task}: {text}" for task, text in texts.items())


def _describe_split(config: dict[str, Any]) -> str:
    if config.get("random_split") is not None:
        return f"drawn at random with seed {config['random_split']}, groups kept together where there are any"
    return (
        "that of the manifest; validation clips, where it has none, held out of the training clips "
        f"({100 * float(config.get('hold_out') or 0):g} %)"
    )


def describe_results(groups: Mapping[str, Sequence[RunFolder]]) -> str:
    """How well the runs did, with interval, clips and classes."""
    members = [folder for runs in groups.values() for folder in runs]
    tasks = list(members[0].tasks)
    accuracies = {group: [100 * run.metrics["accuracy"] for run in runs if run.metrics]
                  for group, runs in groups.items()}  # fmt: skip
    if not any(accuracies.values()):
        best = max(float(run.history["valid_accuracy"].max()) for run in members)
        several = members[0].model.config.multi_label
        what = f" {run_metric(members)}" if several else ""
        return f"{', '.join(tasks)}: {100 * best:.1f} %{what} on validation clips; not tested yet"
    if len(members) == 1:
        return _describe_result(members[0])
    parts = [(f"{group} " if len(groups) > 1 else "") + _describe_mean(values)
             for group, values in accuracies.items() if values]  # fmt: skip
    more = f" and {len(parts) - MOST_NAMED} more" if len(parts) > MOST_NAMED else ""
    what = tasks[0] if len(tasks) == 1 else f"mean of {count_of(len(tasks), 'task')}"
    what += f", {run_metric(members)}" if members[0].model.config.multi_label else ""
    same = len({tuple(run.tasks) for run in members}) == 1
    return (f"{what}: " if same else "") + "; ".join(parts[:MOST_NAMED]) + more


def _describe_result(run: RunFolder) -> str:
    metrics, clips = run.metrics, count_of(run.metrics["n_clips"], "clip")
    if len(run.tasks) == 1:
        (task, names), (low, high) = next(iter(run.tasks.items())), metrics["interval"]
        share = f"{100 * metrics['accuracy']:.1f} % {_describe_share(metrics)} ({100 * low:.0f} to {100 * high:.0f})"
        return f"{run.title_of(task)}: {share} on {clips}, {count_of(len(names), 'class')}"
    parts = [f"{task} {100 * found['accuracy']:.1f} %" for task, found in metrics["tasks"].items()]
    shown = ", ".join(parts[:MOST_NAMED]) + (" …" if len(parts) > MOST_NAMED else "")
    what = _describe_share(metrics)
    return f"{count_of(len(parts), 'task')}: {100 * metrics['accuracy']:.1f} % {what} on average ({shown}) on {clips}"


def describe_beside(groups: Mapping[str, Sequence[RunFolder]]) -> str:
    """What needs no network, beside the results of one run with one task; else nothing."""
    runs = [run for members in groups.values() for run in members]
    metrics = runs[0].metrics
    if len(runs) > 1 or len(runs[0].tasks) > 1 or metrics.get("baseline_majority") is None:
        return ""
    several = runs[0].model.config.multi_label
    always = "always the shares of the classes" if several else "always the most frequent class"
    majority = f"{always} would have {100 * metrics['baseline_majority']:.1f} %"
    classic = metrics.get("baseline_classic")
    if classic is None:
        return majority
    verdict = "less" if classic < metrics["accuracy"] else "as much or more, so that this network has learned no better"
    verdict = "as much" if metrics["accuracy"] == 1 == classic else verdict
    return f"a support vector machine on log-mel statistics has {100 * classic:.1f} %, {verdict}; {majority}"


def _describe_share(metrics: Mapping[str, Any]) -> str:
    """What a share is of."""
    return "correct" if metrics.get("metric", "accuracy") == "accuracy" else metric_of(metrics)


def run_metric(runs: Sequence[RunFolder]) -> str:
    """What the accuracy of runs is in words: that, or the metric of their tasks where clips have several labels."""
    kinds = {("accuracy", "average_precision")[run.is_multi_label(task)] for run in runs for task in run.tasks}
    return metric_of({"metric": "mixed" if len(kinds) > 1 else kinds.pop()})


def _describe_mean(values: Sequence[float]) -> str:
    spread = f" (sd {stdev(values):.1f}, {count_of(len(values), 'run')})" if len(values) > 1 else ""
    return f"{fmean(values):.1f} %{spread}"


def describe_cutoffs(summary: pd.DataFrame) -> str:
    """What the first layer passes, of the first groups."""
    passed: list[str] = []
    folding: list[str] = []
    groups = summary[summary["layer"] == 1].groupby("pooling", sort=False)
    for group, first in list(groups)[:MOST_NAMED]:
        time, mel = first.set_index("axis").loc[["time", "mel"], "cutoff"]
        whose = f" ({group})" if len(groups) > 1 else ""
        cutoffs = f"{time:.1f} Hz and {mel:.2f} cycles/mel{whose}"
        (folding if first["pass_edge"].isna().all() else passed).append(cutoffs)
    sentences = [f"layer 1 passes modulations up to {', '.join(passed)}"] if passed else []
    if folding:
        sentences.append(f"{'layer 1 ' if not passed else ''}folds down what lies above {', '.join(folding)}")
    return "; ".join(sentences)

"""What was learned, in a sentence."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import pandas as pd

from audiostride.reporting.runs import RunFolder

MOST_NAMED = 6


def count_of(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count_of(1, "run"), count_of(1200, "clip"), count_of(3, "class")
    ('1 run', '1,200 clips', '3 classes')
    """
    plural = noun if number == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {plural}"


def describe_results(groups: Mapping[str, Sequence[RunFolder]]) -> str:
    """How well the runs did, with interval, clips and classes."""
    members = [folder for runs in groups.values() for folder in runs]
    tested = {group: [run for run in runs if run.metrics] for group, runs in groups.items()}
    if not any(tested.values()):
        best = max(float(run.history["valid_accuracy"].max()) for run in members)
        return f"{', '.join(members[0].tasks)}: {100 * best:.1f} % on validation clips; not tested yet"
    if len(members) == 1:
        return _describe_run(members[0])
    if len(groups) == 1:
        return f"{_describe_task(members)}: {_describe_group(tested[next(iter(groups))])}"
    parts = [f"{group} {_describe_group(runs)}" for group, runs in tested.items() if runs]
    more = f" and {len(parts) - MOST_NAMED} more" if len(parts) > MOST_NAMED else ""
    same = len({tuple(run.tasks) for run in members}) == 1
    return (f"{_describe_task(members)}: " if same else "") + "; ".join(parts[:MOST_NAMED]) + more


def _describe_run(run: RunFolder) -> str:
    metrics = run.metrics
    if len(run.tasks) == 1:
        (task, names), (low, high) = next(iter(run.tasks.items())), metrics["interval"]
        return (
            f"{task}: {100 * metrics['accuracy']:.1f} % correct ({100 * low:.0f} to {100 * high:.0f}) on "
            f"{count_of(metrics['n_clips'], 'clip')}, {count_of(len(names), 'class')}"
        )
    parts = [f"{task} {100 * found['accuracy']:.1f} %" for task, found in metrics["tasks"].items()]
    shown = ", ".join(parts[:MOST_NAMED]) + (" …" if len(parts) > MOST_NAMED else "")
    mean = f"{count_of(len(parts), 'task')}: {100 * metrics['accuracy']:.1f} % correct on average"
    return f"{mean} ({shown}) on {count_of(metrics['n_clips'], 'clip')}"


def _describe_task(runs: Sequence[RunFolder]) -> str:
    tasks = list(runs[0].tasks)
    return tasks[0] if len(tasks) == 1 else f"mean of {count_of(len(tasks), 'task')}"


def _describe_group(runs: Sequence[RunFolder]) -> str:
    values = [100 * run.metrics["accuracy"] for run in runs]
    if len(values) == 1:
        return f"{values[0]:.1f} %"
    return f"{fmean(values):.1f} % (sd {stdev(values):.1f}, {count_of(len(values), 'run')})"


def describe_cutoffs(summary: pd.DataFrame) -> str:
    """What the first layer passes, of the first groups."""
    passed: list[str] = []
    folding: list[str] = []
    groups = list(dict.fromkeys(summary["pooling"]))
    for group in groups[:MOST_NAMED]:
        first = summary[(summary["layer"] == 1) & (summary["pooling"] == group)].set_index("axis")
        whose = f" ({group})" if len(groups) > 1 else ""
        cutoffs = f"{first.loc['time', 'cutoff']:.1f} Hz and {first.loc['mel', 'cutoff']:.2f} cycles/mel{whose}"
        (folding if first["pass_edge"].isna().all() else passed).append(cutoffs)
    sentences = [f"layer 1 passes modulations up to {', '.join(passed)}"] if passed else []
    if folding:
        sentences.append(f"{'layer 1 ' if not passed else ''}folds down what lies above {', '.join(folding)}")
    return "; ".join(sentences)

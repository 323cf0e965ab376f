"""The results of a run: test metrics, tables and confusion matrices, written into its folder."""

import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audiostride.checks import read_json
from audiostride.dataset.labels import join_labels
from audiostride.errors import InputError, explained
from audiostride.inference.baseline import baseline_accuracies
from audiostride.inference.evaluation import Evaluation
from audiostride.inference.multi_label import THRESHOLD
from audiostride.models import AudioClassifier, load_classifier
from audiostride.models.cost import multiply_adds
from audiostride.training.clips import LabelledClips, Sets, evaluate_clips, load_split
from audiostride.training.config import TrainConfig
from audiostride.training.lost_clips import write_skipped
from audiostride.training.run_files import RunMetrics, read_table
from audiostride.training.sources import ONLY_SCORES, read_source
from audiostride.training.tasks import Source
from audiostride.wording import count_of
from audiostride.writing import write_json, write_text


def write_results(
    run: Path,
    model: AudioClassifier,
    *,
    test: dict[str, LabelledClips],
    train: dict[str, LabelledClips],
    facts: dict[str, Any],
    hop_s: float | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate a model on the test clips and write tables, predictions and, last, metrics.

    Args:
        run: The run folder.
        model: The trained classifier.
        test: Clips to evaluate on, of each task.
        train: Training clips of each task, for the baselines.
        facts: What else goes into ``metrics.json``.
        hop_s: From one window of a test clip to the next, in seconds; None is the window.
        progress: Whether a progress bar is shown.

    Returns:
        What stands in ``metrics.json``.
    """
    tasks = {}
    for task, found in evaluate_clips(model, test, hop_s=hop_s, progress=progress).items():
        clips = test[task]
        baselines = baseline_accuracies(
            train[task].reader,
            train[task].class_indices,
            clips.reader,
            clips.class_indices,
            frontend=model.config.frontend_settings(),
        )
        tasks[task] = {
            **summarise(found),
            "baseline_majority": baselines.majority,
            "baseline_classic": baselines.classic,
            **baselines.others,
        }
        own = f"_{task}" if len(test) > 1 else ""
        write_tables(run, found, suffix=own)
        if (groups := describe_groups(found, clips)) is not None:
            write_text(run / f"per_group{own}.csv", groups.round(4).to_csv(index=False))
            tasks[task] |= {"groups": len(groups), "lowest_group": float(groups["accuracy"].min())}
        write_predictions(run / f"predictions_test{own}.csv", found, clips)
    n_valid = count_valid(run)
    metrics = {
        "task": ", ".join(tasks),
        "split": "test",
        **combine_tasks(tasks),
        "clips": {
            task: {"train": len(train[task].reader)} | n_valid.get(task, {}) | {"test": len(test[task].reader)}
            for task in tasks
        },
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": multiply_adds(model),
        **facts,
    }
    write_json(run / "metrics.json", metrics)
    return metrics


def count_valid(run: Path) -> dict[str, dict[str, int]]:
    """How many validation clips the manifests of a run list for each task; empty where they are no longer there."""
    config = TrainConfig.load(run)
    found: dict[str, dict[str, int]] = {}
    try:
        for source in config.sources():
            clips, _ = read_source(source, config, on_error="skip")
            found |= {task: {"valid": int((clips["split"] == "valid").sum())} for task in source.labels}
    except InputError:
        return {}
    return found


def finished_metrics(run: Path, max_steps: int | None = None) -> dict[str, Any] | None:
    """What stands in ``metrics.json`` of a run that has nothing left to do, also of as many steps, else None."""
    if not (run / "metrics.json").is_file():  # written last
        return None
    metrics: dict[str, Any] = read_json(
        "train", run / "metrics.json", RunMetrics, advice=f"'audiostride evaluate {run}' writes it anew"
    )
    left = metrics.get("stopped_early") or (max_steps or 0) > metrics.get("steps", max_steps or 0)
    return None if left else metrics


def combine_tasks(tasks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The numbers of a task; of several, their means over the tasks, and those of each in ``tasks``.

    What is called accuracy is the metric of each task: ``metric`` where it is another one, ``mixed`` where they have
    different ones. A mean has no interval, since its tasks are of different sizes and may share clips.
    """
    values = list(tasks.values())
    if len(values) == 1:
        return values[0]

    def mean_of(name: str) -> float | None:
        known = [value[name] for value in values if value.get(name) is not None]
        return fmean(known) if len(known) == len(values) else None

    metrics = {value.get("metric", "accuracy") for value in values}
    own = {} if metrics == {"accuracy"} else {"metric": "mixed" if len(metrics) > 1 else metrics.pop()}
    numbers = [
        name
        for name in values[0]
        if name not in ("interval", "n_clips", "metric", "interval_over") and not name.endswith("_interval")
        if all(name in value for value in values)
    ]
    means = {name: mean_of(name) for name in numbers}
    n_clips = sum(value["n_clips"] for value in values)
    return {**own, **means, "interval": [None, None], "n_clips": n_clips, "tasks": tasks}


def summarise(found: Evaluation) -> dict[str, Any]:
    """The numbers of an evaluation, without its tables."""
    return {
        **({} if found.metric == "accuracy" else {"metric": found.metric}),
        "accuracy": found.accuracy,
        "interval": list(found.interval or (None, None)),
        "loss": found.loss,
        "n_clips": found.n_clips,
        **found.macro,
        "macro_recall": float(found.per_class.loc[found.per_class["clips"] > 0, "recall"].mean()),
    }


def write_tables(run: Path, found: Evaluation, *, suffix: str = "") -> None:
    """Write the per-class table and the confusion matrix, if there is one, as CSV."""
    write_text(run / f"per_class{suffix}.csv", found.per_class.round(4).to_csv(index=False))
    if found.confusion is not None:
        write_text(run / f"confusion_matrix{suffix}.csv", found.confusion.to_csv())


def describe_groups(found: Evaluation, clips: LabelledClips) -> pd.DataFrame | None:
    """Clips and accuracy of each group, such as each speaker or place; None of less than two, or of several labels."""
    groups = clips.clips["group"].iloc[found.clips]
    if clips.class_indices.ndim == 2 or groups.isna().any() or groups.nunique() < 2:
        return None
    right = found.logits.argmax(dim=1).numpy() == clips.class_indices[found.clips]
    own = pd.Series(right, index=groups.index).groupby(groups, sort=True)
    return pd.DataFrame({"clips": own.size(), "accuracy": own.mean()}).rename_axis("group").reset_index()


def write_predictions(file: Path, found: Evaluation, clips: LabelledClips) -> None:
    """Write one row per clip: where it is, its true and its predicted class, and the probability of each class.

    Where clips have several classes they stand in one cell, and those are predicted whose probability is 0.5 or more.
    """
    names, several = found.per_class["class"].astype(str).tolist(), clips.class_indices.ndim == 2
    probs = (found.logits.sigmoid() if several else found.logits.softmax(dim=1)).numpy()
    truth, predicted = clips.class_indices[found.clips], probs >= THRESHOLD if several else probs.argmax(axis=1)

    def name(row: NDArray[Any]) -> str:
        return join_labels([names[index] for index in np.flatnonzero(row)], names) if several else names[int(row)]

    table = clips.clips.iloc[found.clips][["line", "path", "start_s", "duration_s"]].reset_index(drop=True)
    table = table.assign(true=[name(row) for row in truth], predicted=[name(row) for row in predicted])
    shares = pd.DataFrame(probs.round(6), columns=[f"p:{name}" for name in names])
    write_text(file, pd.concat([table, shares], axis=1).to_csv(index=False))


@explained()
def evaluate_run(
    run: str | Path,
    *,
    split: str = "test",
    manifest: str | None = None,
    device: str = "cpu",
    on_error: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate the best model of a run; the test split of its own manifest gives the run its results.

    Args:
        run: Run folder; one that was killed in mid-training has a model too, once it validated.
        split: train, valid or test.
        manifest: Another manifest or store with the same label column; None is the run's own.
        device: Where to compute.
        on_error: What bad audio does, stop or skip; None is the run's own setting.
        progress: Whether progress bars are shown.

    Returns:
        What is written: ``metrics.json`` for the run's own test clips, else ``metrics_<split>.json`` (with the name of
        the other manifest).

    Raises:
        InputError: Not a run folder, bad manifest or audio, no clips in the split, labels that the model does not know.
    """
    run = Path(run)
    config = TrainConfig.load(run)
    on_error = on_error or config.on_error
    model = load_classifier(run, device=device)
    sources = config.sources()
    if manifest and len(sources) > 1:
        raise InputError(
            f"evaluate: {run} was trained on {len(sources)} manifests, so that --manifest {manifest} does not say for "
            f"which tasks; leave it out, or train its tasks ({', '.join(config.tasks())}) from one manifest"
        )
    if manifest:
        sources = [Source(manifest, sources[0].labels)]
    tables = []
    for source in sources:
        clips, notes = read_source(source, config, on_error=on_error, own=not manifest)
        for note in notes if manifest else []:
            print(note, file=sys.stderr)
        if manifest and clips["split"].isna().all():
            clips = clips.assign(split=split)  # a manifest without splits, given for evaluation, is evaluated whole
        tables.append((source, clips))

    def load(part: str) -> dict[str, LabelledClips]:
        return load_split(tables, model, config, part, on_error=on_error, progress=progress)

    if split == "test" and not manifest:
        history = read_table("evaluate", run / "history.csv", ["step", "valid_accuracy"])
        if config.keep == "best":
            settled = history[history["step"] >= config.kept_from]
            settled = history.tail(1) if settled.empty else settled  # of a run that was stopped before
            best = settled[settled["valid_accuracy"] == settled["valid_accuracy"].max()].iloc[-1]
        else:
            best = history.iloc[-1]
        steps = int(history["step"].iloc[-1])
        facts = {
            "steps": steps,
            "stopped_early": steps < config.steps,
            "best_step": int(best["step"]),
            "valid_accuracy": float(best["valid_accuracy"]),
            **({} if config.budget is None else {"budget": config.budget}),
        }
        test, train = load("test"), load("train")
        hop_s = config.eval_hop_s
        metrics = write_results(run, model, test=test, train=train, facts=facts, hop_s=hop_s, progress=progress)
        _note_skipped(run, {"test": test, "train": train}, progress=progress)
        return metrics
    # What stands for a label that a clip has not is no truth to compare with.
    tables = [(source, clips[~clips[ONLY_SCORES]]) for source, clips in tables]
    chosen = load(split)
    suffix = f"_{split}" + (f"_{Path(manifest).stem}" if manifest else "")
    tasks = {}
    for task, found in evaluate_clips(model, chosen, hop_s=config.eval_hop_s, progress=progress).items():
        tasks[task] = summarise(found)
        write_tables(run, found, suffix=suffix + (f"_{task}" if len(chosen) > 1 else ""))
    _note_skipped(run, {split: chosen}, suffix=suffix if manifest else "", progress=progress)
    shown = ", ".join(source.manifest for source, _ in tables)
    metrics = {"task": ", ".join(tasks), "split": split, "manifest": shown, **combine_tasks(tasks)}
    write_json(run / f"metrics{suffix}.json", metrics)
    return metrics


def _note_skipped(run: Path, sets: Sets, *, suffix: str = "", progress: bool) -> None:
    n_skipped = write_skipped(run, sets, suffix=suffix)
    if progress and n_skipped:
        print(f"{count_of(n_skipped, 'bad clip')} left out: {run / f'skipped{suffix}.csv'}", flush=True)

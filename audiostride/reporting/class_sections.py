"""The part of a report on the classes of each task: tables, confusion, ROC, calibration, the worst mistakes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from audiostride.reporting import class_figures, predictions
from audiostride.reporting.blocks import Block, Drawing, Drawings, Heading, Picture, Pictures, Section, Table, Text
from audiostride.reporting.class_figures import LONGEST_S, read_samples_of
from audiostride.reporting.runs import RunFolder, class_columns
from audiostride.reporting.tables import number, percent

MOST_PARTS = 6  # tasks of runs whose classes a page shows; a run of more has a page of its own


def class_section(groups: Mapping[str, Sequence[RunFolder]]) -> Section | None:
    """The classes of each task of the first run of each group, as far as there is room; None before a test."""
    chosen: list[RunFolder] = []
    for members in groups.values():
        first = next((run for run in members if run.tables), None)
        if first and (not chosen or sum(len(run.tables) for run in [*chosen, first]) <= MOST_PARTS):
            chosen.append(first)
    if not chosen:
        return None
    blocks: list[Block] = []
    if sum(map(len, groups.values())) > 1:
        names = ", ".join(run.name for run in chosen)
        blocks.append(Text(f"Shown for {names}; a report of one run alone shows its classes."))
    for run in chosen:
        for task in run.tables:
            whose, which = [run.name] * (len(chosen) > 1), [task] * (len(run.tables) > 1)
            if whose or which:
                blocks.append(Heading(" · ".join([*whose, task])))
            blocks += task_blocks(run, task, suffix="".join(f"_{name}" for name in whose + which))
    return Section("classes", "Classes", blocks)


def task_blocks(run: RunFolder, task: str, *, suffix: str) -> list[Block]:
    """Everything about the classes of one task of a run."""
    (confusion, per_class), names = run.tables[task], run.tasks[task]
    alt = f"Confusion matrix of run {run.name}, task {task}; the numbers are in its CSV file"
    width = 0 if len(names) <= 12 else min(900, 26 * len(names))
    drawings = [Drawing(f"confusion{suffix}", alt, class_figures.draw_confusion_figure(confusion), min_width_px=width)]
    caption = (
        "Confusion matrix: test clips by true and predicted class; the stronger the colour, the larger the share of "
        "its row."
    )
    clips = run.predictions.get(task)
    if clips is None:
        text = (
            "Calibration, ROC curve and worst mistakes need the predictions for each clip, which this run does "
            f"not have yet: audiostride evaluate {run.path} writes them, and this page anew."
        )
        return [Drawings(drawings, caption), per_class_table(per_class, task, suffix), Text(text)]
    bins = predictions.calibration_table(clips, names)
    error = predictions.calibration_error(bins)
    alt = (
        f"Reliability diagram of task {task}: accuracy in bins of confidence; expected calibration error "
        f"{percent(error)}"
    )
    drawings.append(Drawing(f"reliability{suffix}", alt, class_figures.draw_reliability(bins, error)))
    caption += (
        " Reliability: bars are the share of correct clips among those of like confidence (their number above); a "
        f"calibrated model follows the diagonal. The expected calibration error is {percent(error)}."
    )
    if len(names) == 2:
        positive = predictions.positive_class(names)
        probs = clips[class_columns([positive])[0]].to_numpy(dtype=float)
        curve = predictions.roc_curve((clips["true"] == positive).to_numpy(), probs)
        area = predictions.area_under(curve)
        alt = f"ROC curve of detecting {positive}; the area under it is {area:.3f}"
        drawings.append(Drawing(f"roc{suffix}", alt, class_figures.draw_roc(curve, area, positive)))
        caption += f" ROC: share of {positive} clips found against false alarms, AUC {area:.3f}."
    tables = [per_class_table(per_class, task, suffix), bins_table(bins, suffix)]
    return [Drawings(drawings, caption), *tables, *mistakes_blocks(run, task, clips, suffix)]


def per_class_table(per_class: pd.DataFrame, task: str, suffix: str) -> Table:
    """Precision, recall and F1 of each class."""
    shares = per_class[["precision", "recall", "f1"]].rename(columns={"f1": "F1"}).map(number, digits=3)
    shown = per_class[["class", "clips"]].join(shares)
    caption = (
        f"Classes of {task}. Precision: share of clips given this class that are of it. Recall: share of its clips "
        "that were found. F1: their harmonic mean."
    )
    return Table(f"per_class{suffix}", caption, per_class, shown)


def bins_table(bins: pd.DataFrame, suffix: str) -> Table:
    """The numbers of the reliability diagram."""
    limits = zip(bins["low"], bins["high"], strict=True)
    shown = pd.DataFrame(
        {
            "confidence": [f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in limits],
            "clips": bins["clips"],
            "mean confidence": bins["confidence"].map(percent),
            "accuracy": bins["accuracy"].map(percent),
        }
    )
    return Table(f"calibration{suffix}", "Calibration: clips by their confidence.", bins, shown)


def mistakes_blocks(run: RunFolder, task: str, clips: pd.DataFrame, suffix: str) -> list[Block]:
    """The worst mistakes: a picture of each clip that can still be read, and a table of all."""
    mistakes, config = predictions.worst_mistakes(clips, run.tasks[task]), run.model.config
    if mistakes.empty:
        return [Text(f"No test clip of {task} was given a wrong class.")]
    shares = mistakes[["probability", "true_probability"]].map(percent)
    shown = pd.DataFrame(
        {
            "clip": [describe_clip(row) for _, row in mistakes.iterrows()],
            "predicted": mistakes["predicted"],
            "true": mistakes["true"],
            "probability of the predicted class": shares["probability"],
            "of the true class": shares["true_probability"],
        }
    )
    band = f"{config.fmin_hz:g} to {config.fmax_hz:g} Hz"
    pictures = []
    for place, (_, row) in enumerate(mistakes.iterrows()):
        samples = read_samples_of(row, run.manifests[task], sample_rate=config.sample_rate)
        if samples is None or len(samples) == 0:
            continue
        length = f"{len(samples) / config.sample_rate:.1f} s"
        clip, predicted, true, probability, true_probability = shown.iloc[place]
        lines = [f"{predicted}, {probability}", f"truly {true}, {true_probability}", f"{clip}, {length}"]
        alt = f"Log-mel spectrogram of {clip}, {length}, {band}"
        pictures.append(
            Picture(f"mistake{suffix}_{place + 1}", alt, class_figures.draw_spectrogram(samples, config), lines)
        )
    blocks: list[Block] = []
    if pictures:
        caption = (
            f"The worst mistakes of {task}: wrong classes with the highest probability. Time runs to the right, mel "
            f"frequency from {band} upwards; {LONGEST_S:g} s at most."
        )
        blocks.append(Pictures(pictures, caption))
    if lost := len(mistakes) - len(pictures):
        blocks.append(Text(f"{lost} of these {len(mistakes)} clips can no longer be read: no spectrogram of them."))
    caption = f"The worst mistakes of {task}, worst first; paths and lines of the manifest are in the CSV file."
    return [*blocks, Table(f"mistakes{suffix}", caption, mistakes, shown, n_left=3)]


def describe_clip(row: "pd.Series[Any]") -> str:
    """The name of a clip's file, and where in it the clip begins."""
    start_s = float(str(row["start_s"]))
    return Path(str(row["path"])).name + (f" from {start_s:g} s" if start_s > 0 else "")

"""The part of a report on the classes of each task: tables, confusion, ROC, calibration, the worst mistakes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from audiostride.reporting.blocks import Block, Drawing, Drawings, Heading, Picture, Pictures, Section, Table, Text
from audiostride.reporting.class_figures import draw_confusion_figure, draw_reliability, draw_roc
from audiostride.reporting.predictions import (
    area_under,
    calibration_error,
    calibration_table,
    positive_class,
    roc_curve,
    worst_mistakes,
)
from audiostride.reporting.runs import RunFolder, class_columns, group_runs
from audiostride.reporting.spectrograms import LONGEST_S, draw_spectrogram, read_samples_of
from audiostride.reporting.tables import number, percent

MOST_PARTS = 6  # tasks of runs whose classes a page shows; a run of more has a page of its own


def class_section(folders: Sequence[RunFolder]) -> Section | None:
    """The classes of each task of the first run of each group, as far as there is room; None before a test."""
    chosen: list[RunFolder] = []
    for members in group_runs(folders).values():
        tested = [run for run in members if run.tables]
        if tested and (not chosen or sum(len(run.tables) for run in [*chosen, tested[0]]) <= MOST_PARTS):
            chosen.append(tested[0])
    if not chosen:
        return None
    blocks: list[Block] = []
    if len(folders) > 1:
        names = ", ".join(run.name for run in chosen)
        blocks.append(Text(f"Shown for {names}; a report of one run alone shows its classes."))
    for run in chosen:
        for task in run.tables:
            several = len(chosen) > 1 or len(run.tables) > 1
            heading = " · ".join(([run.name] if len(chosen) > 1 else []) + [task])
            if several:
                blocks.append(Heading(heading))
            name = "_".join(([run.name] if len(chosen) > 1 else []) + ([task] if len(run.tables) > 1 else []))
            blocks += task_blocks(run, task, suffix=f"_{name}" if name else "")
    return Section("classes", "Classes", blocks)


def task_blocks(run: RunFolder, task: str, *, suffix: str) -> list[Block]:
    """Everything about the classes of one task of a run."""
    confusion, per_class = run.tables[task]
    names = run.tasks[task]
    drawings = [
        Drawing(
            f"confusion{suffix}",
            f"Confusion matrix of run {run.name}, task {task}; the numbers are in its CSV file",
            draw_confusion_figure(confusion),
            min_width_px=0 if len(names) <= 12 else min(900, 26 * len(names)),
        )
    ]
    caption = (
        "Confusion matrix: test clips by true and predicted class; the stronger the colour, the larger the share of "
        "its row."
    )
    predictions = run.predictions.get(task)
    blocks: list[Block] = []
    if predictions is not None:
        bins = calibration_table(predictions, names)
        error = calibration_error(bins)
        drawings.append(
            Drawing(
                f"reliability{suffix}",
                f"Reliability diagram of task {task}: accuracy in bins of confidence; "
                f"expected calibration error {percent(error)}",
                draw_reliability(bins, error),
            )
        )
        caption += (
            " Reliability: bars are the share of correct clips among those of like confidence (their number above); a "
            f"calibrated model follows the diagonal. The expected calibration error is {percent(error)}."
        )
        if len(names) == 2:
            positive = positive_class(names)
            scores = predictions[class_columns([positive])[0]].to_numpy(dtype=float)
            curve = roc_curve((predictions["true"] == positive).to_numpy(), scores)
            area = area_under(curve)
            drawings.append(
                Drawing(
                    f"roc{suffix}",
                    f"ROC curve of detecting {positive}; the area under it is {area:.3f}",
                    draw_roc(curve, area, positive),
                )
            )
            caption += f" ROC: share of {positive} clips found against false alarms, AUC {area:.3f}."
    blocks.append(Drawings(drawings, caption))
    blocks.append(per_class_table(per_class, task, suffix))
    if predictions is None:
        blocks.append(
            Text(
                "Calibration, ROC curve and worst mistakes need the predictions for each clip, which this run does "
                f"not have yet: audiostride evaluate {run.path} writes them, and this page anew."
            )
        )
        return blocks
    blocks.append(calibration_block(bins, suffix))
    return blocks + mistakes_blocks(run, task, predictions, suffix)


def per_class_table(per_class: pd.DataFrame, task: str, suffix: str) -> Table:
    """Precision, recall and F1 of each class."""
    shown = pd.DataFrame({"class": per_class["class"].astype(str), "clips": per_class["clips"].astype(str)})
    for name, title in (("precision", "precision"), ("recall", "recall"), ("f1", "F1")):
        shown[title] = [number(value, 3) for value in per_class[name]]
    caption = (
        f"Classes of {task}. Precision: share of clips given this class that are of it. Recall: share of its clips "
        "that were found. F1: their harmonic mean."
    )
    return Table(f"per_class{suffix}", caption, per_class, shown)


def calibration_block(bins: pd.DataFrame, suffix: str) -> Table:
    """The numbers of the reliability diagram."""
    shown = pd.DataFrame(
        {
            "confidence": [
                f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in zip(bins["low"], bins["high"], strict=True)
            ],
            "clips": bins["clips"].astype(str),
            "mean confidence": bins["confidence"].map(percent),
            "accuracy": bins["accuracy"].map(percent),
        }
    )
    return Table(f"calibration{suffix}", "Calibration: clips by their confidence.", bins, shown)


def mistakes_blocks(run: RunFolder, task: str, predictions: pd.DataFrame, suffix: str) -> list[Block]:
    """The worst mistakes: a picture of each clip that can still be read, and a table of all."""
    mistakes = worst_mistakes(predictions, run.tasks[task])
    if mistakes.empty:
        return [Text(f"No test clip of {task} was given a wrong class.")]
    pictures, config = [], run.model.config
    for place, (_, row) in enumerate(mistakes.iterrows(), start=1):
        samples = read_samples_of(row, run.manifests[task], sample_rate=config.sample_rate)
        if samples is None or len(samples) == 0:
            continue
        length_s = len(samples) / config.sample_rate
        clip = describe_clip(row)
        pictures.append(
            Picture(
                f"mistake{suffix}_{place}",
                f"Log-mel spectrogram of {clip}, {length_s:.1f} s, {config.fmin_hz:g} to {config.fmax_hz:g} Hz",
                draw_spectrogram(samples, config),
                [
                    f"{row['predicted']}, {percent(row['probability'])}",
                    f"truly {row['true']}, {percent(row['true_probability'])}",
                    f"{clip}, {length_s:.1f} s",
                ],
            )
        )
    blocks: list[Block] = []
    if pictures:
        caption = (
            f"The worst mistakes of {task}: wrong classes with the highest probability. Time runs to the right, mel "
            f"frequency from {config.fmin_hz:g} to {config.fmax_hz:g} Hz upwards; {LONGEST_S:g} s at most."
        )
        blocks.append(Pictures(pictures, caption))
    if len(pictures) < len(mistakes):
        lost = len(mistakes) - len(pictures)
        blocks.append(Text(f"{lost} of these {len(mistakes)} clips can no longer be read: no spectrogram of them."))
    shown = pd.DataFrame(
        {
            "clip": [describe_clip(row) for _, row in mistakes.iterrows()],
            "predicted": mistakes["predicted"],
            "true": mistakes["true"],
            "probability of the predicted class": mistakes["probability"].map(percent),
            "of the true class": mistakes["true_probability"].map(percent),
        }
    )
    caption = f"The worst mistakes of {task}, worst first; paths and lines of the manifest are in the CSV file."
    return [*blocks, Table(f"mistakes{suffix}", caption, mistakes, shown, n_left=3)]


def describe_clip(row: "pd.Series[Any]") -> str:
    """The name of a clip's file, and where in it the clip begins."""
    start_s = float(str(row["start_s"]))
    return Path(str(row["path"])).name + (f" from {start_s:g} s" if start_s > 0 else "")

"""The part of a report on the classes of each task: tables, confusion, ROC, calibration, the worst mistakes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from audiostride.reporting import class_figures, predictions
from audiostride.reporting.blocks import Block, Drawing, Drawings, Heading, Picture, Pictures, Section, Table, Text
from audiostride.reporting.class_figures import LONGEST_S, SOUND_S, draw_spectrogram, encode_sound, read_samples_of
from audiostride.reporting.evidence import Evidence, find_evidence
from audiostride.reporting.runs import RunFolder, class_columns, shown_runs
from audiostride.reporting.tables import NONE, number, percent

MOST_HEARD = 12  # classes of which a page has a clip


def class_section(groups: Mapping[str, Sequence[RunFolder]]) -> Section | None:
    """The classes of each task of the first run of each group, as far as there is room; None before a test."""
    chosen = shown_runs(groups)
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
                blocks.append(Heading(" · ".join([*whose, run.title_of(task)])))
            blocks += task_blocks(run, task, suffix="".join(f"_{name}" for name in whose + which))
    return Section("classes", "Classes", blocks)


def task_blocks(run: RunFolder, task: str, *, suffix: str) -> list[Block]:
    """Everything about the classes of one task of a run."""
    (confusion, _), names = run.tables[task], run.tasks[task]
    if confusion is None:
        return label_blocks(run, task, suffix=suffix)
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
        return [Drawings(drawings, caption), per_class_table(run, task, suffix), Text(text)]
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
    tables = [per_class_table(run, task, suffix), bins_table(bins, suffix)]
    heard = right_blocks(run, task, clips) if not suffix else []  # of one task, so that pages stay small
    return [Drawings(drawings, caption), *tables, *heard, *mistakes_blocks(run, task, clips, suffix)]


def label_blocks(run: RunFolder, task: str, *, suffix: str) -> list[Block]:
    """Everything about the classes of one task of a run whose clips have several labels."""
    (_, per_class), names, clips = run.tables[task], run.tasks[task], run.predictions.get(task)
    alt = f"Average precision of each class of {task}, run {run.name}, with its interval; the numbers are in the table"
    drawings = [Drawing(f"average_precision{suffix}", alt, class_figures.draw_average_precisions(per_class))]
    caption = (
        "Average precision of each class with its 95 % interval. The tick is the share of clips that have the class, "
        "which is what guessing gives."
    )
    if clips is None:
        text = (
            "Calibration and worst mistakes need the predictions for each clip, which this run does not have yet: "
            f"audiostride evaluate {run.path} writes them, and this page anew."
        )
        return [Drawings(drawings, caption), label_table(run, task, suffix, None), Text(text)]
    pairs = predictions.label_pairs(clips, names)
    bins = predictions.calibration_bins(pairs["probability"].to_numpy(), pairs["truth"].to_numpy(dtype=bool))
    error = predictions.calibration_error(bins)
    alt = (
        f"Reliability diagram of task {task}: how often a class is there, in bins of its probability; expected "
        f"calibration error {percent(error)}"
    )
    drawings.append(Drawing(f"reliability{suffix}", alt, class_figures.draw_reliability(bins, error, several=True)))
    caption += (
        " Reliability: how often a class is there, among all pairs of a clip and a class of like probability (their "
        f"number above); a calibrated model follows the diagonal. The expected calibration error is {percent(error)}."
    )
    tables = [
        label_table(run, task, suffix, predictions.threshold_counts(pairs, names)),
        bins_table(bins, suffix, several=True),
    ]
    return [Drawings(drawings, caption), *tables, *label_mistakes(run, task, clips, pairs, suffix)]


def label_table(run: RunFolder, task: str, suffix: str, counts: Sequence[Sequence[Sequence[int]]] | None) -> Table:
    """Average precision, ROC AUC, precision, recall and F1 of each class of clips that may have several."""
    per_class = run.tables[task][1]
    limits = zip(per_class["low"], per_class["high"], strict=True)
    numbers = per_class[["average_precision", "roc_auc", "precision", "recall", "f1"]].map(number, digits=3)
    numbers.insert(1, "95 % interval", [NONE if low != low else f"{low:.2f} to {high:.2f}" for low, high in limits])
    shown = per_class[["class", "clips"]].assign(share=per_class["share"].map(percent)).join(numbers)
    shown = shown.rename(columns={"average_precision": "average precision", "roc_auc": "ROC AUC", "f1": "F1"})
    caption = (
        f"Classes of {run.title_of(task)}; a clip may have several, or none. Average precision: mean precision over "
        "all thresholds, with its interval; guessing gives the share. ROC AUC: chance that a clip with the class "
        "scores higher than one without. Precision, recall and F1 at a probability of 0.5."
    )
    return _with_thresholds(run, task, Table(f"per_class{suffix}", caption, per_class, shown, counts=counts))


def per_class_table(run: RunFolder, task: str, suffix: str) -> Table:
    """Precision, recall and F1 of each class."""
    per_class = run.tables[task][1]
    shares = per_class[["precision", "recall", "f1"]].rename(columns={"f1": "F1"}).map(number, digits=3)
    shown = per_class[["class", "clips"]].join(shares)
    caption = (
        f"Classes of {run.title_of(task)}. Precision: share of clips given this class that are of it. Recall: share "
        "of its clips that were found. F1: their harmonic mean."
    )
    return _with_thresholds(run, task, Table(f"per_class{suffix}", caption, per_class, shown))


def _with_thresholds(run: RunFolder, task: str, table: Table) -> Table:
    """The same with the thresholds that the model keeps, if it keeps any."""
    kept = run.model.thresholds
    if task not in kept.tasks:
        return table
    own = [kept.tasks[task].get(str(name), math.nan) for name in table.data["class"]]
    caption = f"{table.caption} Threshold: where events of the class begin with --threshold auto ({kept.rule})."
    shown = table.shown.assign(threshold=[number(value, 3) for value in own])
    return replace(table, caption=caption, data=table.data.assign(threshold=own), shown=shown)


def bins_table(bins: pd.DataFrame, suffix: str, *, several: bool = False) -> Table:
    """The numbers of the reliability diagram, of `several` labels over pairs of a clip and a class."""
    titles = {"confidence": "probability", "clips": "pairs", "mean confidence": "mean probability", "accuracy": "share "
              "that is there"} if several else {}  # fmt: skip
    limits = zip(bins["low"], bins["high"], strict=True)
    shown = pd.DataFrame(
        {
            "confidence": [f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in limits],
            "clips": bins["clips"],
            "mean confidence": bins["confidence"].map(percent),
            "accuracy": bins["accuracy"].map(percent),
        }
    )
    caption = (
        "Calibration: pairs of clip and class by their probability."
        if several
        else ("Calibration: clips by their confidence.")
    )
    return Table(f"calibration{suffix}", caption, bins, shown.rename(columns=titles))


def mistakes_blocks(run: RunFolder, task: str, clips: pd.DataFrame, suffix: str) -> list[Block]:
    """The worst mistakes: a picture of each clip that can still be read, and a table of all."""
    mistakes = predictions.worst_mistakes(clips, run.tasks[task])
    if mistakes.empty:
        return [Text(f"No test clip of {run.title_of(task)} was given a wrong class.")]
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
    lines = [
        [f"{predicted}, {probability}", f"truly {true}, {true_probability}"]
        for _, predicted, true, probability, true_probability in shown.itertuples(index=False)
    ]
    caption = f"The worst mistakes of {run.title_of(task)}: wrong classes with the highest probability."
    return [
        *clip_pictures(run, task, mistakes, lines, caption, f"mistake{suffix}"),
        mistakes_table(run, task, mistakes, shown, suffix),
    ]


def label_mistakes(run: RunFolder, task: str, clips: pd.DataFrame, pairs: pd.DataFrame, suffix: str) -> list[Block]:
    """As `mistakes_blocks` of clips with several labels: classes that are not there, or there and not found."""
    mistakes = predictions.worst_pairs(clips, pairs)
    shown = pd.DataFrame(
        {
            "clip": [describe_clip(row) for _, row in mistakes.iterrows()],
            "class": mistakes["class"],
            "mistake": ["missed" if truth else "not there" for truth in mistakes["truth"]],
            "true classes": mistakes["true"].where(mistakes["true"] != "", "none"),
            "probability": mistakes["probability"].map(percent),
        }
    )
    lines = [
        [f"{name} {mistake}, {probability}", f"truly {true}"] for _, name, mistake, true, probability in
        shown.itertuples(index=False)
    ]  # fmt: skip
    caption = f"The worst mistakes of {run.title_of(task)}: the probability is farthest from what is there; one a clip."
    return [
        *clip_pictures(run, task, mistakes, lines, caption, f"mistake{suffix}"),
        mistakes_table(run, task, mistakes, shown, suffix),
    ]


def right_blocks(run: RunFolder, task: str, clips: pd.DataFrame) -> list[Block]:
    """A clip of each class that was given it: the surest."""
    right = predictions.surest_right(clips, run.tasks[task])
    lines = [[f"{name}, {share}"] for name, share in zip(right["true"], right["probability"].map(percent), strict=True)]
    caption = f"What the classes of {run.title_of(task)} sound like: of each the clip that was surest to be of it."
    return clip_pictures(run, task, right, lines, caption, "right") if 0 < len(right) <= MOST_HEARD else []


def clip_pictures(
    run: RunFolder, task: str, clips: pd.DataFrame, described: list[list[str]], caption: str, prefix: str
) -> list[Block]:
    """A picture of each clip that can still be read, with its sound and the lines that describe it."""
    config = run.model.config
    band = f"{config.fmin_hz:g} to {config.fmax_hz:g} Hz"
    pictures, found, model = [], list[Evidence](), run.model.freeze()
    for place, (_, row) in enumerate(clips.iterrows()):
        samples = read_samples_of(row, run.manifests[task], sample_rate=config.sample_rate)
        if samples is None or len(samples) == 0:
            continue
        seconds, clip = len(samples) / config.sample_rate, describe_clip(row)
        length = f"{seconds:.1f} s"
        lines, limits = [*described[place], clip], (f"{config.fmax_hz:g} Hz", f"{config.fmin_hz:g} Hz", length)
        alt = f"Log-mel spectrogram of {clip}, {length}, {band}"
        evidence = find_evidence(model, samples, task, str(row["class" if "class" in row else "predicted"]))
        found += [] if evidence is None else [evidence]
        drawn, sound = draw_spectrogram(samples, config), encode_sound(samples, config.sample_rate)
        pictures.append(
            Picture(
                f"{prefix}_{place + 1}", alt, drawn, lines, limits, seconds, sound,
                marked=None if evidence is None else evidence.marked,
            )
        )  # fmt: skip
    blocks: list[Block] = []
    if pictures:
        caption += f" Time runs to the right, mel frequency upwards; the first {LONGEST_S:g} s at most."
        if found:
            falls = (sum(getattr(each, name) for each in found) / len(found) for name in ("fall", "random_fall"))
            own, other = (number(fall, 2) for fall in falls)
            caption += (
                " Outlined is the tenth of each that said most for the class that was given: without it that class's "
                f"logit falls by {own} on average, without a random tenth by {other}."
            )
        if any(picture.flac for picture in pictures):
            caption += (
                f" {SOUND_S:g} s at most are heard, all at the same peak; the keys j and k play one after another."
            )
        blocks.append(Pictures(pictures, caption))
    if lost := len(clips) - len(pictures):
        blocks.append(Text(f"{lost} of these {len(clips)} clips can no longer be read: no spectrogram of them."))
    return blocks


def mistakes_table(run: RunFolder, task: str, mistakes: pd.DataFrame, shown: pd.DataFrame, suffix: str) -> Table:
    """The table of the worst mistakes."""
    caption = "The same mistakes, worst first; paths and lines of the manifest are in the CSV file."
    return Table(f"mistakes{suffix}", caption, mistakes, shown, n_left=4 if run.is_multi_label(task) else 3)


def describe_clip(row: "pd.Series[Any]") -> str:
    """The name of a clip's file, and where in it the clip begins."""
    start_s = float(str(row["start_s"]))
    return Path(str(row["path"])).name + (f" from {start_s:g} s" if start_s > 0 else "")

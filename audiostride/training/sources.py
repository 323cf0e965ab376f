"""The rows of a run's manifests: labels of each task, splits, a teacher's targets, and what was left out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from audiostride.dataset.bad_rows import BadRows
from audiostride.dataset.manifest import inspect_manifest
from audiostride.dataset.scores import fill_labels, has_scores, read_scores
from audiostride.dataset.splits import (
    assign_random_splits,
    check_training_clips,
    describe_several_labels,
    describe_small_classes,
    hold_out_valid,
)
from audiostride.errors import InputError
from audiostride.models.config import BACKGROUND
from audiostride.training.background import IS_BACKGROUND, add_background, read_background
from audiostride.training.config import TrainConfig
from audiostride.training.targets import blend_targets, target_column
from audiostride.training.tasks import Source
from audiostride.wording import count_of

ONLY_SCORES = "has scores only"  # column of clips without a label for a task, which a teacher's scores stand for


def read_source(
    source: Source, config: TrainConfig, *, on_error: str | None = None, own: bool = True
) -> tuple[pd.DataFrame, list[str]]:
    """The clips of a manifest with their splits, drawn as the settings say where the manifest has none.

    Args:
        source: The manifest and its tasks.
        config: The settings of the run.
        on_error: What missing files do, stop or skip; None is as the settings say.
        own: Whether the manifest is the run's own, to which its audio root, group column and drawn splits belong.

    Returns:
        The table of `inspect_manifest`, with the labels of each task in ``label of <task>``, as `read_label_sets` gives
        them where a clip may have several, or the class of the highest score where a training clip has no label; with
        the target distributions of the training clips of tasks with scores in ``target of <task>: <class>``; and with
        `ONLY_SCORES`. And lines that say what was left out or taken otherwise, and which splits were drawn and how.

    Raises:
        InputError: A bad manifest; a split to be drawn where there is one.
    """
    several = config.label_sets(source)
    clips, bad = inspect_manifest(
        source.manifest,
        labels=list(source.labels.values()),
        audio_root=config.audio_root if own else None,
        group=config.group if own else "group",
        scores=own and config.distillation > 0,
        several=several,
    )
    bad.only(("row",) if (on_error or config.on_error) == "skip" else None).raise_if_any(
        f"manifest {source.manifest}",
        "mend these rows, or give the folder that paths are relative to with --audio-root",
    )
    # A folder of class folders has no columns: its labels are the names of the folders.
    columns = [column if column in clips.columns else "label" for column in source.labels.values()]
    scores: dict[str, pd.DataFrame] = {}
    if own and config.distillation:
        found = read_scores(clips, columns, where=f"manifest {source.manifest}", bad=BadRows(), several=several)
        scores = {task: found[column] for task, column in zip(source.labels, columns, strict=True) if column in found}
    given = {task: clips[column] for task, column in zip(source.labels, columns, strict=True)}
    single = [task for task in source.labels if task not in (config.multi_label or ())]
    named = {
        label_column(task): fill_labels(labels, scores[task]) if task in scores and task in single else labels
        for task, labels in given.items()
    }
    of_one = pd.DataFrame({task: given[task] for task in single}, index=clips.index)
    clips = clips.assign(**named, **{ONLY_SCORES: (of_one == "").any(axis=1)})
    clips = clips.assign(label=clips[label_column(next(iter(given)))])
    with_sets = [label_column(task) for task in source.labels if task not in single]
    notes = [*bad.notes, *describe_several_labels(clips, list(named), with_sets)]
    if own:
        clips, drawn = _take_splits(clips, source, config)
        notes += drawn
    for task, table in scores.items():
        clips, note = _add_targets(
            clips, task, given[task], table, share=config.distillation, several=task not in single
        )
        notes.append(note)
    if own and config.background is not None:
        background, note = read_background(config.background, window_s=config.window_s, seed=config.seed)
        sets = {label_column(task): task not in single for task in source.labels}
        clips = add_background(clips, background, {**sets, "label": sets[label_column(next(iter(given)))]})
        for task in set(scores) & set(single):
            column = target_column(task, BACKGROUND)
            before = clips[column].to_numpy() if column in clips else np.float32(0)
            clips = clips.assign(**{column: np.where(clips[IS_BACKGROUND], np.float32(1), before)})
        notes.append(note)
    return clips, notes


def _take_splits(clips: pd.DataFrame, source: Source, config: TrainConfig) -> tuple[pd.DataFrame, list[str]]:
    """Clips with their splits, those drawn that the settings ask for, and lines on these.

    Clips that have scores only are drawn for no split but train.
    """
    labels = [label_column(task) for task in source.labels]
    labelled = clips[~clips[ONLY_SCORES]]
    if config.random_split is not None:
        if clips["split"].notna().any():
            raise InputError(f"train: {source.manifest} has a split column already; leave --random-split out")
        grouped, one_each = clips["group"].notna().all(), {*source.labels} - {*(config.multi_label or ())}
        by = "group" if grouped else "class" if one_each else "clip"
        drawn = assign_random_splits(labelled, seed=config.random_split, labels=labels)
        notes = [f"no split column: train, valid and test are drawn by {by} (--random-split {config.random_split})"]
        clips, left_out = _join_drawn(clips, drawn)
        return clips, notes + left_out + describe_small_classes(clips, labels)
    if (labelled["split"] == "train").any() and not (clips["split"] == "valid").any():
        drawn, note = hold_out_valid(labelled, seed=0, share=config.hold_out, labels=labels)
        clips, left_out = _join_drawn(clips, drawn)
        return clips, [f"{note}; --hold-out changes the share", *left_out]
    return clips, []


def _join_drawn(clips: pd.DataFrame, drawn: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """All clips, of which those with labels have drawn splits; the others train, unless their group is held out."""
    moved = drawn[drawn["split"].ne(clips["split"].reindex(drawn.index)) & drawn["split"].ne("train")]
    held_out = {*moved["group"].dropna()} - {*drawn.loc[drawn["split"] == "train", "group"]} - {""}
    clips = clips.assign(split=drawn["split"].reindex(clips.index, fill_value="train"))
    leaking = clips[ONLY_SCORES] & clips["group"].isin(held_out)
    if not leaking.any():
        return clips, []
    what = f"{count_of(int(leaking.sum()), 'clip')} with scores and no label, of groups that are held out"
    return clips[~leaking], [f"{what}, left out of training"]


def _add_targets(
    clips: pd.DataFrame, task: str, labels: "pd.Series[str]", scores: pd.DataFrame, *, share: float, several: bool
) -> tuple[pd.DataFrame, str]:
    """Clips with the target distributions of those that train, if any of these has scores, and a line on them."""
    train = clips.index[clips["split"] == "train"]
    labels, scores = labels[train], scores.loc[train]
    given = has_scores(scores)
    if not given.any():
        return clips, f"{task}: no training clip has scores of a teacher"
    targets = blend_targets(labels, scores, share=share, several=several).reindex(clips.index)
    targets.columns = pd.Index([target_column(task, str(name)) for name in targets.columns])
    note = f"{task}: {given.sum()} of {len(train)} training clips have scores of a teacher"
    alone = 0 if several else int((given & (labels == "")).sum())
    note += f", {alone} of them and no label" if alone else ""
    if alone < given.sum():
        beside = "stand in place of labels" if share == 1 else f"count {share:g} in the loss, and labels {1 - share:g}"
        note += f"; they {beside} (--distillation)"
    return pd.concat([clips, targets], axis=1), note


def label_column(task: str) -> str:
    """The column of `read_source` with the labels of a task."""
    return f"label of {task}"


def learned_columns(clips: pd.DataFrame, task: str) -> list[str]:
    """The columns of `read_source` with what is learned of a task."""
    return [label_column(task), *(name for name in clips.columns if name.startswith(target_column(task, "")))]


def class_names_of(clips: pd.DataFrame, source: Source, columns: Sequence[str] | None = None) -> dict[str, list[str]]:
    """The classes of each task of a source: its labels, or the `columns` of 0 and 1 that they were read from.

    Raises:
        InputError: As `check_training_clips`.
    """
    return {
        task: check_training_clips(
            clips.assign(label=clips[label_column(task)]), where=f"task {task}: {source.manifest}", names=columns
        )
        for task in source.labels
    }


def read_sources(config: TrainConfig) -> list[tuple[Source, pd.DataFrame]]:
    """The clips of all manifests of a run, see `read_source`."""
    return [(source, read_source(source, config)[0]) for source in config.sources()]

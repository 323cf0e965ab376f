"""The clips of a run: from its settings to readers of audio with their classes, and what was left out."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from audiostride.dataset.bad_rows import BadRows, describe_bad_rows
from audiostride.dataset.labels import explode_labels, multi_hot
from audiostride.dataset.manifest import SPLITS, inspect_manifest
from audiostride.dataset.readers import AudioReader, open_reader
from audiostride.dataset.scores import fill_labels, has_scores, read_scores
from audiostride.dataset.splits import (
    assign_random_splits,
    check_training_clips,
    describe_several_labels,
    describe_small_classes,
    hold_out_valid,
)
from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.inference.evaluation import Evaluation, evaluate_reader
from audiostride.inference.model import Model
from audiostride.models import AudioClassifier
from audiostride.models.config import BACKGROUND
from audiostride.training.background import IS_BACKGROUND, add_background, read_background
from audiostride.training.config import TrainConfig
from audiostride.training.run_files import read_table
from audiostride.training.targets import blend_targets, target_column
from audiostride.training.tasks import Source
from audiostride.wording import count_of
from audiostride.writing import write_text

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


@dataclass(frozen=True)
class LabelledClips:
    """Clips with their classes."""

    reader: AudioReader
    class_indices: NDArray[np.int64]
    """The class of each, ``(clips,)``; where clips have several labels 1 for each of theirs, ``(clips, classes)``."""
    clips: pd.DataFrame
    """The rows of the manifest, one for each clip of the reader."""
    targets: NDArray[np.float32] | None = None
    """Target distributions ``(clips, classes)``, if a teacher has scored training clips."""

    @classmethod
    def load(
        cls,
        clips: pd.DataFrame,
        names: dict[str, list[str]],
        *,
        where: str,
        sample_rate: int = 16000,
        several: Collection[str] = (),
        memory_mib: float = 4096.0,
        on_error: str = "stop",
        progress: bool = True,
    ) -> "dict[str, LabelledClips]":
        """Read the audio of a table of clips once, for every task that it has labels for.

        Args:
            clips: A table with `label_column` of each task.
            names: Class names of the tasks.
            where: Name of the manifest and split, for messages.
            several: Those of the tasks whose clips have several labels.
            sample_rate, memory_mib, on_error: As for `open_reader`.
            progress: Whether a progress bar is shown.

        Raises:
            InputError: Bad audio, unless it is skipped; no clip that is not bad; labels that are not class names.
        """
        indices: dict[str, NDArray[np.int64]] = {}
        for task, classes in names.items():
            column = label_column(task)
            known = {*classes} | ({""} if task in several else set())
            unknown = sorted({*explode_labels(clips, column)[column]} - known)
            if unknown:
                raise InputError(
                    f"{where}: labels must be classes of the model, got {', '.join(unknown)}; "
                    f"it knows {', '.join(classes)}"
                )
            if task in several:
                indices[task] = multi_hot(clips[column], classes)
            else:
                found = clips[column].map({name: index for index, name in enumerate(classes)})
                indices[task] = np.array(found.tolist(), dtype=np.int64)
        reader = open_reader(
            clips, sample_rate=sample_rate, where=where, memory_mib=memory_mib, on_error=on_error, progress=progress
        )
        if len(reader) == 0:
            raise InputError(describe_bad_rows(where, reader.skipped, "no clip is left; mend these rows"))
        kept = clips.iloc[reader.kept]
        return {
            task: cls(
                reader,
                of_all[reader.kept],
                kept,
                _read_targets(kept, [target_column(task, name) for name in names[task]]),
            )
            for task, of_all in indices.items()
        }


def _read_targets(clips: pd.DataFrame, columns: list[str]) -> NDArray[np.float32] | None:
    """Target distributions of clips; None unless all have one, as training clips have or have not."""
    if columns[0] not in clips:
        return None
    targets = clips.reindex(columns=columns).to_numpy(dtype=np.float32)
    return None if np.isnan(targets).any() else targets


Sets = dict[str, dict[str, LabelledClips]]
"""The clips of each split and task; tasks of one manifest share its reader."""


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


def load_sets(
    tables: list[tuple[Source, pd.DataFrame]],
    names: dict[str, list[str]],
    config: TrainConfig,
    *,
    progress: bool = True,
) -> Sets:
    """The clips of all three splits with their audio.

    Args:
        tables: Each source with its clips.
        names: Class names of all tasks.
        config: The settings of the run.
        progress: Whether progress bars are shown.

    Raises:
        InputError: The bad clips of all splits, unless they are skipped; a class whose training clips are all bad.
    """
    sets: Sets = {split: {} for split in SPLITS}
    errors: list[str] = []
    for source, clips in tables:
        own = {task: names[task] for task in source.labels}
        for split in SPLITS:
            try:
                sets[split] |= LabelledClips.load(
                    clips[clips["split"] == split],
                    own,
                    where=f"{source.manifest}, {split} clips",
                    sample_rate=config.sample_rate,
                    several=config.multi_label or (),
                    memory_mib=config.memory_mib / (len(SPLITS) * len(tables)),
                    on_error=config.on_error,
                    progress=progress,
                )
            except InputError as error:
                errors.append(str(error))
    if errors:
        raise InputError("\n".join(dict.fromkeys(errors)))
    for source, _ in tables:
        for task in source.labels:
            found = sets["train"][task].class_indices
            trained = {*(found if found.ndim == 1 else np.flatnonzero(found.any(axis=0))).tolist()}
            lost = [name for index, name in enumerate(names[task]) if index not in trained]
            if lost:
                bad = describe_bad_rows(
                    f"{source.manifest}, train clips",
                    sets["train"][task].reader.skipped,
                    f"no training clip is left of these classes: {', '.join(lost)}; mend these rows",
                )
                raise InputError(bad)
    return {split: {task: found[task] for task in names} for split, found in sets.items()}


def read_sources(config: TrainConfig) -> list[tuple[Source, pd.DataFrame]]:
    """The clips of all manifests of a run, see `read_source`."""
    return [(source, read_source(source, config)[0]) for source in config.sources()]


def load_split(
    tables: Sequence[tuple[Source, pd.DataFrame]],
    model: AudioClassifier,
    config: TrainConfig,
    split: str,
    *,
    on_error: str | None = None,
    progress: bool = True,
) -> dict[str, LabelledClips]:
    """The clips of one split, of each task of a run, with the classes of its model.

    Args:
        tables: Each source with its clips.
        model: The model of the run.
        config: The settings of the run.
        split: train, valid or test.
        on_error: What bad audio does, stop or skip; None is as the settings say.
        progress: Whether a progress bar is shown.

    Raises:
        InputError: Bad audio; no clip in the split; labels that the model does not know.
    """
    loaded: dict[str, LabelledClips] = {}
    for source, clips in tables:
        chosen = clips[clips["split"] == split]
        if chosen.empty:
            raise InputError(f"evaluate: split {split!r} of {source.manifest} must have clips, got none")
        loaded |= LabelledClips.load(
            chosen,
            {task: model.config.tasks[task] for task in source.labels},
            where=f"{source.manifest}, {split} clips",
            several=model.config.multi_label,
            sample_rate=model.config.sample_rate,
            memory_mib=config.memory_mib,
            on_error=on_error or config.on_error,
            progress=progress,
        )
    return {task: loaded[task] for task in config.tasks()}


def evaluate_clips(
    model: Model,
    clips: dict[str, LabelledClips],
    *,
    hop_s: float | None = None,
    batch_size: int = 64,
    progress: bool = True,
    processes: Processes | None = None,
    intervals: bool = True,
) -> dict[str, Evaluation]:
    """Classify the clips of each task and compare with their classes; tasks that share clips share their windows too.

    Args:
        model: The classifier.
        clips: The clips of each task.
        hop_s, batch_size, progress, processes: As for `classify_clips`.
        intervals: Whether tasks with several labels have the intervals that are drawn.
    """
    found: dict[str, Evaluation] = {}
    for first in {id(data.reader): data for data in clips.values()}.values():
        classes = {task: data.class_indices for task, data in clips.items() if data.reader is first.reader}
        found |= evaluate_reader(
            model,
            first.reader,
            classes,
            groups=first.clips["group"] if intervals else None,
            hop_s=hop_s,
            batch_size=batch_size,
            progress=progress,
            processes=processes,
        )
    return {task: found[task] for task in clips}


def balance_units(data: LabelledClips, balance: str) -> NDArray[np.int64] | None:
    """The class or group of each training clip, if these are to come equally often.

    Raises:
        InputError: Groups are to be balanced, and a clip has none.
    """
    if balance == "none":
        return None
    if balance == "class":
        return data.class_indices
    groups = data.clips["group"]
    if groups.isna().any() or (groups == "").any():
        raise InputError(
            "train: --balance group needs a group for every training clip, but the manifest has no such column or an "
            "empty cell in it; fill it, or name another column with --group"
        )
    return pd.factorize(groups)[0].astype(np.int64)


def write_skipped(run: Path, sets: Sets, *, suffix: str = "") -> int:
    """List the clips that were left out or could no longer be read in ``skipped.csv``, if there are any.

    Args:
        run: The run folder.
        sets: The clips of each split; what the file says of other splits stays.
        suffix: Follows ``skipped`` in the name of the file.

    Returns:
        Their number.
    """
    file = run / f"skipped{suffix}.csv"
    others: list[tuple[str, int, str]] = []
    if file.is_file():
        columns, remove = ["split", "line", "reason"], "remove it: what this run leaves out is listed anew"
        listed = read_table("train", file, columns, numbers=["line"], advice=remove)
        others = list(listed[~listed["split"].isin(list(sets))].itertuples(index=False, name=None))
    rows: list[tuple[str, int, str]] = []
    for split, tasks in sets.items():
        for data in {id(data.reader): data for data in tasks.values()}.values():
            rows += [(split, line, reason) for line, reason in data.reader.skipped]
            lines = data.clips["line"].tolist()
            rows += [(split, lines[index], reason) for index, reason in sorted(data.reader.failed.items())]
    if others or rows:
        write_text(file, pd.DataFrame(others + rows, columns=["split", "line", "reason"]).to_csv(index=False))
    else:
        file.unlink(missing_ok=True)  # of a time before they were mended
    return len(rows)


def list_lost_clips(
    batches: Iterable[dict[str, Tensor]], readers: Sequence[AudioReader], write: Callable[[], object]
) -> Iterator[dict[str, Tensor]]:
    """Batches as they come, while training clips that can no longer be read are listed as soon as that shows.

    Args:
        batches: Batches of `TrainingBatches`, not on a device yet.
        readers: The training clips of each source; they come to know the reasons.
        write: Writes the list.
    """
    for batch in batches:
        if batch["failed"].numel():
            failed = batch["failed"].tolist()
            for source, clip in failed if batch["failed"].ndim == 2 else [(0, clip) for clip in failed]:
                # Worker processes read the batch; reading once more gives this process the reason.
                readers[source].read(clip, 0, 1)
            write()
        yield batch


def share_lost_clips(readers: Sequence[AudioReader], processes: Processes) -> None:
    """Let all processes know which clips the others could no longer read, so that the first one lists them."""
    if processes.count == 1:
        return
    found: list[Any] = [None] * processes.count
    dist.all_gather_object(found, [reader.failed for reader in readers])
    for failures in found:
        for reader, failed in zip(readers, failures, strict=True):
            reader.failed.update(failed)

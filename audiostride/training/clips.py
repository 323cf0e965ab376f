"""The clips of a run: readers of their audio with their classes, for each split and task."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audiostride.dataset.bad_rows import describe_bad_rows
from audiostride.dataset.labels import explode_labels, multi_hot
from audiostride.dataset.readers import AudioReader, open_reader
from audiostride.dataset.splits import SPLITS
from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.inference.evaluation import Evaluation, evaluate_reader
from audiostride.inference.model import Model
from audiostride.models import AudioClassifier
from audiostride.training.config import TrainConfig
from audiostride.training.sources import label_column
from audiostride.training.targets import target_column
from audiostride.training.tasks import Source


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

"""The clips of a run: from its settings to banks of audio with their classes, and what was left out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from audiostride.data import AudioBank, assign_random_splits, hold_out_valid, open_bank, read_clips
from audiostride.data.bad_rows import describe_bad_rows
from audiostride.data.manifest import SPLITS
from audiostride.errors import InputError
from audiostride.training.config import TrainConfig
from audiostride.writing import write_text


def read_run_clips(config: TrainConfig, *, on_error: str | None = None) -> tuple[pd.DataFrame, list[str]]:
    """The clips of a run with their splits, drawn as the settings say where the manifest has none.

    Args:
        config: The settings.
        on_error: What missing files do, stop or skip; None is as the settings say.

    Returns:
        The table of `read_clips`, and lines that say which splits were drawn and how.

    Raises:
        InputError: A bad manifest; a split to be drawn where there is one.
    """
    clips = read_clips(
        config.manifest,
        label=config.label,
        audio_root=config.audio_root,
        group=config.group,
        on_error=on_error or config.on_error,
    )
    if config.random_split is not None:
        if clips["split"].notna().any():
            raise InputError(f"train: {config.manifest} has a split column already; leave --random-split out")
        by = "group" if clips["group"].notna().all() else "class"
        return assign_random_splits(clips, seed=config.random_split), [
            f"no split column: train, valid and test are drawn by {by} (--random-split {config.random_split})"
        ]
    if (clips["split"] == "train").any() and not (clips["split"] == "valid").any():
        clips, note = hold_out_valid(clips, seed=0, share=config.hold_out)
        return clips, [f"{note}; --hold-out changes the share"]
    return clips, []


@dataclass(frozen=True)
class LabelledClips:
    """Clips with their classes."""

    bank: AudioBank
    class_indices: NDArray[np.int64]
    clips: pd.DataFrame
    """The rows of the manifest, one for each clip of the bank."""

    @classmethod
    def load(
        cls,
        clips: pd.DataFrame,
        names: list[str],
        *,
        where: str,
        memory_mib: float = 4096.0,
        on_error: str = "stop",
        progress: bool = True,
    ) -> "LabelledClips":
        """Read the audio of a table of clips whose labels are among `names`.

        Raises:
            InputError: Bad audio, unless it is skipped; no clip that is not bad; labels that are not class names.
        """
        indices = clips["label"].map({name: index for index, name in enumerate(names)})
        unknown = sorted(clips.loc[indices.isna(), "label"].unique())
        if unknown:
            raise InputError(
                f"{where}: labels must be classes of the model, got {', '.join(unknown)}; it knows {', '.join(names)}"
            )
        bank = open_bank(clips, where=where, memory_mib=memory_mib, on_error=on_error, progress=progress)
        if len(bank) == 0:
            raise InputError(describe_bad_rows(where, bank.skipped, "no clip is left; mend these rows"))
        return cls(bank, np.array(indices.tolist(), dtype=np.int64)[bank.kept], clips.iloc[bank.kept])


def load_sets(
    clips: pd.DataFrame, names: list[str], config: TrainConfig, *, progress: bool = True
) -> dict[str, LabelledClips]:
    """The clips of all three splits with their audio.

    Raises:
        InputError: The bad clips of all splits, unless they are skipped; a class whose training clips are all bad.
    """
    sets: dict[str, LabelledClips] = {}
    errors: list[str] = []
    for split in SPLITS:
        try:
            sets[split] = LabelledClips.load(
                clips[clips["split"] == split],
                names,
                where=f"{config.manifest}, {split} clips",
                memory_mib=config.memory_mib / len(SPLITS),
                on_error=config.on_error,
                progress=progress,
            )
        except InputError as error:
            errors.append(str(error))
    if errors:
        raise InputError("\n".join(dict.fromkeys(errors)))
    trained = set(sets["train"].class_indices.tolist())
    lost = [name for index, name in enumerate(names) if index not in trained]
    if lost:
        bad = describe_bad_rows(
            f"{config.manifest}, train clips",
            sets["train"].bank.skipped,
            f"no training clip is left of these classes: {', '.join(lost)}; mend these rows",
        )
        raise InputError(bad)
    return sets


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


def write_skipped(run: Path, sets: dict[str, LabelledClips], *, suffix: str = "") -> int:
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
        listed = pd.read_csv(file)
        others = list(listed[~listed["split"].isin(list(sets))].itertuples(index=False, name=None))
    rows: list[tuple[str, int, str]] = []
    for split, data in sets.items():
        rows += [(split, line, reason) for line, reason in data.bank.skipped]
        lines = data.clips["line"].tolist()
        rows += [(split, lines[index], reason) for index, reason in sorted(data.bank.failed.items())]
    if others or rows:
        write_text(file, pd.DataFrame(others + rows, columns=["split", "line", "reason"]).to_csv(index=False))
    else:
        file.unlink(missing_ok=True)  # of a time before they were mended
    return len(rows)


class SkippedClips(Callback):
    """Lists training clips that can no longer be read, as soon as that shows.

    Args:
        run: The run folder.
        sets: The clips of each split.
    """

    def __init__(self, run: Path, sets: dict[str, LabelledClips]) -> None:
        self.run, self.sets = run, sets

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch["failed"].numel():  # the shape is known without waiting for the device
            bank = self.sets["train"].bank
            for clip in batch["failed"].tolist():
                # Worker processes read the batch; reading once more gives this process the reason.
                bank.read(clip, 0, 1)
            write_skipped(self.run, self.sets)

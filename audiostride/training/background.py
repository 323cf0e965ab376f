"""Recordings without any of the classes: clips of their own in every split, beside those of the manifest."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audiostride.audio.resampling import probe_audio
from audiostride.dataset.folders import is_audio, walk_folder
from audiostride.errors import InputError
from audiostride.models.config import BACKGROUND
from audiostride.wording import count_of

IS_BACKGROUND = "is background"  # column of the clips
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
SPLIT_FILES_FROM = 10  # of fewer recordings each is cut into the splits


def read_background(folder: str, *, window_s: float, seed: int) -> tuple[pd.DataFrame, str]:
    """The clips of a folder of recordings, with splits that are drawn, and a line on them.

    Ten recordings and more go into the splits whole. Of fewer each gives its first 80 % to train and the rest, half
    each, to valid and test, where these parts are as long as a window.

    Args:
        folder: The recordings, in any folders of it.
        window_s: Of the model, in seconds.
        seed: Of what is drawn.

    Raises:
        InputError: No such folder, or one without audio; a recording that cannot be read.
    """
    if not os.path.isdir(folder):
        raise InputError(f"train: --background must be a folder of recordings without any of the classes, got {folder}")
    files = [name for name in walk_folder(folder).files if is_audio(name)]
    if not files:
        raise InputError(f"train: --background {folder} must hold audio files, found none")
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(np.random.default_rng(seed).permutation(sorted(files)).tolist()):
        path, begin = os.path.join(folder, name), 0.0
        whole = len(files) >= SPLIT_FILES_FROM
        length_s = 0.0 if whole else probe_audio(path).duration_s
        if whole or length_s * SHARES["test"] < window_s:
            # Of ten in a row one is valid and one is test.
            split = {8: "valid", 9: "test"}.get(number % 10, "train") if whole else "train"
            rows.append({"path": path, "clip_name": f"/{name}", "split": split, "start_s": 0.0, "duration_s": np.nan})
            continue
        for split, share in SHARES.items():
            part = {"start_s": round(begin, 3), "duration_s": round(share * length_s - 0.001, 3)}
            rows.append({"path": path, "clip_name": f"/{name}", "split": split, **part})
            begin += share * length_s
    table = pd.DataFrame(rows)
    counts = ", ".join(f"{int((table['split'] == split).sum())} {split}" for split in SHARES)
    return table, f"background: {count_of(len(files), 'recording')} of {Path(folder).name}, as {counts} clips"


def add_background(clips: pd.DataFrame, background: pd.DataFrame, labels: dict[str, bool]) -> pd.DataFrame:
    """The clips of a manifest with those of the background behind them.

    Args:
        clips: As `audiostride.training.sources.read_source` makes them.
        background: As `read_background` gives them.
        labels: The columns with labels, and whether they hold several of a clip: none then, else the class
            `BACKGROUND`.

    Raises:
        InputError: The clips are those of a store.
    """
    if "store" in clips.columns:
        raise InputError(
            "train: --background must be given with a manifest of files, got a store; give the manifest that it was "
            "prepared from"
        )
    rows = background.assign(
        line=0,
        group=background["clip_name"] if clips["group"].notna().any() else None,
        **{column: "" if several else BACKGROUND for column, several in labels.items()},
    )
    for name, values in clips.items():
        if name not in rows.columns:  # text, marks, and targets of a teacher, of whose classes they are none
            rows[name] = False if values.dtype == bool else 0.0 if values.dtype.kind == "f" else ""
    marked = (clips.assign(**{IS_BACKGROUND: False}), rows.assign(**{IS_BACKGROUND: True}))
    return pd.concat(marked, ignore_index=True)[[*clips.columns, IS_BACKGROUND]]


def background_share(clips: pd.DataFrame, share: float) -> tuple[NDArray[np.bool_], float] | None:
    """Which of the training clips are background, and their share of the excerpts; None where none is."""
    if IS_BACKGROUND not in clips or not clips[IS_BACKGROUND].any():
        return None
    return clips[IS_BACKGROUND].to_numpy(dtype=bool), share

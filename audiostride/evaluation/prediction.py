"""Predictions on recordings of any length, read window by window."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiostride.data import StoreBank, find_audio_files, inspect_manifest, read_samples, tile_windows
from audiostride.data.bank import clip_span
from audiostride.data.store import is_store
from audiostride.errors import InputError
from audiostride.models import AudioClassifier

WINDOWS_AT_ONCE = 64


@dataclass(frozen=True)
class Recording:
    """A file or a part of it to classify; of a store, the clip that was prepared from it."""

    path: str
    """The file."""
    start_s: float = 0.0
    """Start of the part in the file, in seconds."""
    duration_s: float = math.nan
    """Length of the part in seconds; NaN goes to the end."""
    bank: StoreBank | None = None
    """The store that holds its samples."""
    index: int = 0
    """Which clip of that store it is."""

    def open(self, sample_rate: int) -> tuple[int, Callable[[int, int], NDArray[np.float32]]]:
        """Number of samples, and a function that reads `count` of them from `first` on.

        Raises:
            InputError: The file is missing, unreadable or empty, or the part is not inside it.
        """
        bank = self.bank
        if bank is not None:
            return int(bank.n_samples[self.index]), lambda first, count: bank.read(self.index, first, count)
        offset, n_samples = clip_span(self.path, self.start_s, self.duration_s, sample_rate=sample_rate)

        def read(first: int, count: int) -> NDArray[np.float32]:
            count = min(count, n_samples - first)
            return read_samples(self.path, offset + first, count, sample_rate=sample_rate)

        return n_samples, read


def expand_paths(paths: Iterable[str | Path], *, sample_rate: int = 16000) -> list[Recording]:
    """What paths name: files as they are, the audio files below folders, the clips of manifests and of stores.

    Raises:
        InputError: A path that does not exist, a folder without audio files, a bad manifest or store.
    """
    found: list[Recording] = []
    for path in map(Path, paths):
        if is_store(path) or path.suffix.lower() == ".csv":
            found += _read_recordings(path, sample_rate)
        elif path.is_dir():
            files = find_audio_files(path)
            if not files:
                raise InputError(f"predict: folder {path} must hold audio files, found none")
            found += [Recording(str(file)) for file in files]
        elif path.exists():
            found.append(Recording(str(path)))
        else:
            raise InputError(f"predict: path {path} does not exist")
    return found


def _read_recordings(manifest: Path, sample_rate: int) -> list[Recording]:
    clips, bad = inspect_manifest(manifest)
    # A file that is missing is reported when its turn comes, like one that cannot be read.
    bad.only(("row",)).raise_if_any(f"manifest {manifest}", "mend these rows")
    bank = StoreBank(clips, sample_rate=sample_rate) if is_store(manifest) else None
    rows = zip(clips["path"].tolist(), clips["start_s"].tolist(), clips["duration_s"].tolist(), strict=True)
    return [Recording(path, start_s, duration_s, bank, index) for index, (path, start_s, duration_s) in enumerate(rows)]


@torch.no_grad()
def predict_file(
    model: AudioClassifier, recording: str | Path | Recording, *, per_window: bool = False
) -> pd.DataFrame:
    """The most probable class of a recording, or of each of its windows, for every task of the model.

    The recording is read 64 windows at a time, whatever its length. A clip's score comes from the mean of the logits of
    its windows, the zero-padded tail weighing by the share of it that is audio.

    Args:
        model: In evaluation mode.
        recording: Any file that libsndfile or ffmpeg can read, or a part of one.
        per_window: One row per window instead of one for the recording.

    Returns:
        Rows ``path, start_s, end_s, label, score`` (score: the softmax probability of the label; seconds count from the
        start of the file), with a column ``task`` in front of ``label`` where the model has several tasks.

    Raises:
        InputError: The file is missing, unreadable, empty or not finite.
    """
    if not isinstance(recording, Recording):
        recording = Recording(str(recording))
    config, device = model.config, next(model.parameters()).device
    rate, window = config.sample_rate, config.window_samples
    n_samples, read = recording.open(rate)
    starts, weights = tile_windows(n_samples, window=window)
    parts: dict[str, list[Tensor]] = {task: [] for task in config.tasks}
    for first in range(0, len(starts), WINDOWS_AT_ONCE):
        count = min(WINDOWS_AT_ONCE, len(starts) - first)
        part = read(int(starts[first]), count * window)
        padded = np.zeros(count * window, dtype=np.float32)
        padded[: len(part)] = part[: len(padded)]
        logits = model(torch.from_numpy(padded).reshape(count, window).to(device))
        for task, values in logits.items():
            parts[task].append(values.double().cpu())
    origin_s, end_s = recording.start_s, recording.start_s + n_samples / rate
    rows = []
    for task, names in config.tasks.items():
        logits_of_windows = torch.cat(parts[task])
        if per_window:
            spans = [
                (origin_s + start / rate, min(origin_s + (start + window) / rate, end_s)) for start in starts.tolist()
            ]
            shown = logits_of_windows
        else:
            share = torch.from_numpy(weights).double()[:, None]
            spans = [(origin_s, end_s)]
            shown = (logits_of_windows * share).sum(dim=0, keepdim=True) / share.sum()
        scores, classes = shown.softmax(dim=1).max(dim=1)
        for (begin_s, until_s), score, index in zip(spans, scores.tolist(), classes.tolist(), strict=True):
            named = {"task": task} if len(config.tasks) > 1 else {}
            rows.append(
                {
                    "path": recording.path,
                    "start_s": round(begin_s, 4),
                    "end_s": round(until_s, 4),
                    **named,
                    "label": names[index],
                    "score": round(score, 6),
                }
            )
    return pd.DataFrame(rows)


def predict_files(
    model: AudioClassifier, files: Iterable[str | Path | Recording], *, per_window: bool = False
) -> Iterator[pd.DataFrame | InputError]:
    """`predict_file` for one file after another; for a file that cannot be read, the error in its place."""
    for file in files:
        try:
            yield predict_file(model, file, per_window=per_window)
        except InputError as error:
            yield error

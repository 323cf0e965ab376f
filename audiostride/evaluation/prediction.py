"""Predictions on recordings of any length, read window by window."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from audiostride.data import find_audio_files, probe_audio, read_audio, tile_windows
from audiostride.errors import InputError
from audiostride.models import AudioClassifier

WINDOWS_AT_ONCE = 64


def expand_paths(paths: Iterable[str | Path]) -> list[Path]:
    """The files that paths name: files as they are, and the audio files below folders.

    Raises:
        InputError: A path that does not exist, a folder without audio files.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = find_audio_files(path)
            if not found:
                raise InputError(f"predict: folder {path} must hold audio files, found none")
            files += found
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"predict: path {path} does not exist")
    return files


@torch.no_grad()
def predict_file(model: AudioClassifier, path: str | Path, *, per_window: bool = False) -> pd.DataFrame:
    """The most probable class of a recording, or of each of its windows, for every task of the model.

    The recording is read 64 windows at a time, whatever its length. A clip's score comes from the mean of the logits of
    its windows, the zero-padded tail weighing by the share of it that is audio.

    Args:
        model: In evaluation mode.
        path: Any file that libsndfile can read.
        per_window: One row per window instead of one for the file.

    Returns:
        Rows ``path, start_s, end_s, label, score`` (score: the softmax probability of the label), with a column
        ``task`` in front of ``label`` where the model has several tasks.

    Raises:
        InputError: The file is missing, unreadable, empty or not finite.
    """
    config, device = model.config, next(model.parameters()).device
    rate, window = config.sample_rate, config.window_samples
    duration_s = probe_audio(path).duration_s
    starts, weights = tile_windows(max(1, round(duration_s * rate)), window=window)
    parts: dict[str, list[Tensor]] = {task: [] for task in config.tasks}
    for first in range(0, len(starts), WINDOWS_AT_ONCE):
        count = min(WINDOWS_AT_ONCE, len(starts) - first)
        part = read_audio(path, start_s=starts[first] / rate, duration_s=count * window / rate, sample_rate=rate)
        padded = np.zeros(count * window, dtype=np.float32)
        padded[: len(part)] = part[: len(padded)]
        logits = model(torch.from_numpy(padded).reshape(count, window).to(device))
        for task, values in logits.items():
            parts[task].append(values.double().cpu())
    rows = []
    for task, names in config.tasks.items():
        logits_of_windows = torch.cat(parts[task])
        if per_window:
            spans = [(start / rate, min((start + window) / rate, duration_s)) for start in starts.tolist()]
            shown = logits_of_windows
        else:
            share = torch.from_numpy(weights).double()[:, None]
            spans = [(0.0, duration_s)]
            shown = (logits_of_windows * share).sum(dim=0, keepdim=True) / share.sum()
        scores, classes = shown.softmax(dim=1).max(dim=1)
        for (start_s, end_s), score, index in zip(spans, scores.tolist(), classes.tolist(), strict=True):
            named = {"task": task} if len(config.tasks) > 1 else {}
            rows.append(
                {
                    "path": str(path),
                    "start_s": round(start_s, 4),
                    "end_s": round(end_s, 4),
                    **named,
                    "label": names[index],
                    "score": round(score, 6),
                }
            )
    return pd.DataFrame(rows)


def predict_files(
    model: AudioClassifier, files: Iterable[Path], *, per_window: bool = False
) -> Iterator[pd.DataFrame | InputError]:
    """`predict_file` for one file after another; for a file that cannot be read, the error in its place."""
    for file in files:
        try:
            yield predict_file(model, file, per_window=per_window)
        except InputError as error:
            yield error

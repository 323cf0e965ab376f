"""Predictions on recordings as tables; the work is done in `audiostride.inference`."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from audiostride.errors import InputError
from audiostride.inference.engine import predict_recordings
from audiostride.inference.granularity import PredictionSettings
from audiostride.inference.recordings import Recording, expand_paths
from audiostride.inference.table import rows_to_table
from audiostride.models import AudioClassifier

__all__ = ["Recording", "expand_paths", "predict_file", "predict_files"]


def predict_file(
    model: AudioClassifier, recording: str | Path | Recording, *, per_window: bool = False
) -> pd.DataFrame:
    """The most probable class of a recording, or of each of its windows, for every task of the model.

    A clip's score comes from the mean of the logits of its windows, the zero-padded tail weighing by the share of it
    that is audio. `AudioClassifier.predict` knows more ways and takes many recordings at once.

    Args:
        model: The classifier, which runs frozen and in evaluation mode.
        recording: Any file that libsndfile or ffmpeg can read, or a part of one.
        per_window: One row per window instead of one for the recording.

    Returns:
        Rows ``path, start_s, end_s, label, score`` (score: the softmax probability of the label; seconds count from the
        start of the file), with a column ``task`` in front of ``label`` where the model has several tasks.

    Raises:
        InputError: The file is missing, unreadable, empty or not finite.
    """
    found = next(predict_files(model, [recording], per_window=per_window))
    if isinstance(found, InputError):
        raise found
    return found


def predict_files(
    model: AudioClassifier, files: Iterable[str | Path | Recording], *, per_window: bool = False
) -> Iterator[pd.DataFrame | InputError]:
    """`predict_file` for one file after another; for a file that cannot be read, the error in its place."""
    recordings = [file if isinstance(file, Recording) else Recording(str(file)) for file in files]
    settings = PredictionSettings.choose(per_window=per_window)
    for recording, found in zip(recordings, predict_recordings(model, recordings, settings), strict=True):
        if isinstance(found, InputError):
            yield found
        else:
            yield rows_to_table([(recording.path, row) for row in found.rows], model.config)

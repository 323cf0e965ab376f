"""Predictions on recordings of any length: what to read, window by window, and what to tell about it.

Apart from the model, whose import needs no pandas.
"""

from audiostride.models.prediction.engine import Prediction, copy_logits, predict_recordings
from audiostride.models.prediction.levels import COLUMNS, PredictionSettings, columns_of
from audiostride.models.prediction.recordings import Recording, expand_paths, take_recordings
from audiostride.models.prediction.table import predict_table, rows_to_table

__all__ = [
    "COLUMNS",
    "Prediction",
    "PredictionSettings",
    "Recording",
    "columns_of",
    "copy_logits",
    "expand_paths",
    "predict_recordings",
    "predict_table",
    "rows_to_table",
    "take_recordings",
]

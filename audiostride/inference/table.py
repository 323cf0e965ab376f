"""Predictions as a table: what `AudioClassifier.predict` returns."""

import warnings
from collections.abc import Sequence
from typing import Any

import pandas as pd

from audiostride.checks import check_choice
from audiostride.errors import InputError
from audiostride.inference.engine import predict_recordings
from audiostride.inference.granularity import COLUMNS, PredictionSettings, Row, columns_of, rows_of
from audiostride.inference.model import Model, ModelSettings
from audiostride.inference.recordings import describe_unheard, take_recordings
from audiostride.progress import progress_bar


def rows_to_table(rows: Sequence[tuple[str, Row]], config: ModelSettings) -> pd.DataFrame:
    """A table of rows with the path of each; ``task`` is left out where the model has only one."""
    table = pd.DataFrame([(path, *row) for path, row in rows], columns=list(COLUMNS))
    kinds = {name: "float64" if name in ("start_s", "end_s", "score") else "str" for name in COLUMNS}
    return table.astype({name: kind for name, kind in kinds.items() if kind == "float64"})[columns_of(config)]


def predict_table(
    model: Model,
    given: Any,
    settings: PredictionSettings,
    *,
    sample_rate: int | None,
    batch_size: int | None,
    workers: int | None,
    on_error: str,
    progress: bool,
) -> pd.DataFrame:
    """The table of `AudioClassifier.predict`, see there."""
    check_choice("predict", "on_error", on_error, ("stop", "skip"))
    recordings = take_recordings(given, sample_rate=model.config.sample_rate, samples_rate=sample_rate)
    found = predict_recordings(model, recordings, settings, batch_size=batch_size, workers=workers)
    bar = progress_bar(found, total=len(recordings), desc="predicting", unit="file", disable=not progress, leave=False)
    rows: list[tuple[str, Row]] = []
    errors: list[tuple[str, str]] = []
    for recording, prediction in zip(recordings, bar, strict=True):
        own = rows_of(recording.path, prediction)
        if not isinstance(own, InputError):
            rows += [(recording.path, row) for row in own]
            continue
        if on_error == "stop":
            found.close()
            raise own
        errors.append((recording.path, str(own)))
    if errors and len(errors) == len(recordings):
        raise InputError(f"predict: none of {len(recordings)} recordings could be read; the first: {errors[0][1]}")
    if errors:
        warnings.warn(
            f"predict: {len(errors)} of {len(recordings)} recordings could not be read and have no rows, see "
            f".attrs['errors']; the first: {errors[0][1]}",
            stacklevel=3,
        )
    if unheard := describe_unheard(recordings, model.config.sample_rate):
        warnings.warn(unheard, stacklevel=3)
    table = rows_to_table(rows, model.config)
    table.attrs["errors"] = errors
    return table

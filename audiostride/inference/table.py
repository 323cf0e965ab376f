"""Predictions as a table: what `AudioClassifier.predict` returns."""

import os
import re
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from audiostride.checks import check_choice
from audiostride.errors import InputError
from audiostride.inference.columns import CLOCK_COLUMNS, COLUMNS, PLACE_COLUMNS, Row, columns_of, unpack_numbers
from audiostride.inference.engine import predict_recordings
from audiostride.inference.granularity import rows_of
from audiostride.inference.model import Model, ModelSettings
from audiostride.inference.recordings import describe_unheard, take_recordings
from audiostride.inference.settings import PredictionSettings
from audiostride.progress import progress_bar

RECORDED = re.compile(r"(?<!\d)(\d{8})[_T-](\d{6})(?!\d)")


def clock_of(path: str, start_s: float) -> tuple[str, str]:
    """Date and time of a place in a recording whose name has its start as ``YYYYMMDD_HHMMSS``; else two empty texts.

    AudioMoth, Song Meter and others write it so, perhaps behind the name of the place, in the time that the recorder
    was set to.

    >>> clock_of("site/SM4_20240531_235958.wav", 2.5)
    ('2024-06-01', '00:00:00.500')
    """
    found = RECORDED.search(os.path.basename(path))
    try:
        began = datetime.strptime("".join(found.groups()), "%Y%m%d%H%M%S") if found else None
    except ValueError:  # of digits that mean something else
        began = None
    if began is None:
        return "", ""
    moment = began + timedelta(seconds=start_s)
    return moment.date().isoformat(), moment.time().isoformat("milliseconds" if moment.microsecond else "seconds")


def rows_to_table(rows: Sequence[tuple[str, Row]], config: ModelSettings, settings: PredictionSettings) -> pd.DataFrame:
    """A table of rows with the path of each, whose columns are those of `columns_of`."""
    kinds = columns_of(config, settings)
    if settings.granularity == "features" or settings.all_scores:
        names = [name for name in kinds if name not in (*PLACE_COLUMNS, *CLOCK_COLUMNS)]
        places = pd.DataFrame([(path, *row[:2]) for path, row in rows], columns=list(PLACE_COLUMNS))
        numbers = np.array([unpack_numbers(str(row[2]), kinds[names[0]]) for _, row in rows])
        table = pd.concat([places, pd.DataFrame(numbers.reshape(len(rows), len(names)), columns=names)], axis=1)
    else:
        table = pd.DataFrame([(path, *row) for path, row in rows], columns=list(COLUMNS))
    if settings.date_time:
        clocks = [clock_of(path, row[0]) for path, row in rows]
        table[list(CLOCK_COLUMNS)] = pd.DataFrame(clocks, columns=list(CLOCK_COLUMNS), dtype=str)
    return table.astype({name: kind for name, kind in kinds.items() if kind != "str"})[list(kinds)]


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
    """The table of `AudioClassifier.predict`, or of `AudioClassifier.embed`, see there."""
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
        lost = f"predict: {len(errors)} of {len(recordings)} recordings could not be read and have no rows, see "
        warnings.warn(settings.say(f"{lost}.attrs['errors']; the first: {errors[0][1]}"), stacklevel=3)
    if unheard := describe_unheard(recordings, model.config.sample_rate):
        warnings.warn(settings.say(unheard), stacklevel=3)
    table = rows_to_table(rows, model.config, settings)
    table.attrs["errors"] = errors
    return table

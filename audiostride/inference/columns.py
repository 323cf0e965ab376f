"""The columns of predictions, and numbers in their rows."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiostride.errors import InputError
from audiostride.inference.model import ModelSettings
from audiostride.inference.settings import PredictionSettings

# start_s, end_s, and task, label and score, or numbers as `pack_numbers` does.
Row = tuple[float, float, str, str, float] | tuple[float, float, str]
PLACE_COLUMNS = {"path": "str", "start_s": "float64", "end_s": "float64"}
CLOCK_COLUMNS = ("date", "time")
COLUMNS = PLACE_COLUMNS | {"task": "str", "label": "str", "score": "float64"}


def columns_of(config: ModelSettings, settings: PredictionSettings) -> dict[str, str]:
    """Columns of a model's predictions with their dtypes.

    They are `COLUMNS`, of which ``task`` is there where it has several, or `PLACE_COLUMNS` and one for each feature or
    class, which is ``task:class`` where there are several tasks.

    Raises:
        InputError: A class with the name of another column.
    """
    places = PLACE_COLUMNS | (dict.fromkeys(CLOCK_COLUMNS, "str") if settings.date_time else {})
    if settings.granularity == "features":
        return places | dict.fromkeys(next(iter(config.tasks.values())), "float32")
    if not settings.all_scores:
        return places | {name: kind for name, kind in COLUMNS.items() if name != "task" or len(config.tasks) > 1}
    names = [
        f"{task}:{names[number]}" if len(config.tasks) > 1 else names[number]
        for task, names in config.tasks.items()
        for number in settings.asked(task, config)
    ]
    if taken := [name for name in names if name in places]:
        raise InputError(
            f"predict: with all-scores a class must not be called {taken[0]}, which is a column; rename it"
        )
    return places | dict.fromkeys(names, "float64")


def pack_numbers(values: NDArray[Any]) -> str:
    """Numbers as text, which a journal keeps to the bit in a third of the room of JSON."""
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()


def unpack_numbers(packed: str, kind: str) -> NDArray[Any]:
    """The numbers of `pack_numbers`, whose dtype was `kind`."""
    little = np.dtype(kind).newbyteorder("<")
    return np.frombuffer(base64.b64decode(packed), dtype=little).astype(kind)

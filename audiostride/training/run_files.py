"""Reading the files of a run folder: settings in YAML and tables in CSV, and what its JSON tables hold."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import yaml
from pandas.api.types import is_numeric_dtype

from audiostride.checks import Probability, WholeNumber, read_json
from audiostride.errors import InputError, reason_of

MAX_YAML_BYTES = 2**18
MAX_YAML_VALUES = 10**5  # with aliases written out, of which a page of YAML may stand for gigabytes
SHOWN = ("accuracy", "interval", "n_clips")  # of metrics


class Metrics(TypedDict, total=False):
    """What of ``metrics.json``, and of each task in it, is read again."""

    accuracy: Probability
    metric: str
    interval: list[float | None]
    n_clips: WholeNumber
    average_precision: Probability | None
    roc_auc: Probability | None
    f1: Probability | None
    interval_over: str
    macro_recall: Probability | None
    baseline_majority: Probability | None
    baseline_classic: Probability | None
    valid_accuracy: Probability
    parameters: int
    multiply_adds: int
    budget: str
    steps: int
    best_step: int
    stopped_early: bool
    clips: dict[str, dict[str, int]]


class RunMetrics(Metrics, total=False):
    """What of ``metrics.json`` is read again."""

    task: str
    split: str
    tasks: dict[str, Metrics]


class Environment(TypedDict, total=False):
    """What of ``environment.json`` is read again."""

    command: str
    python: str
    device: str
    threads: int
    packages: dict[str, str | None]
    training_s: float
    training_memory_mib: float
    window_ms: float


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        counts = Counter((key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = [name for (_, name), count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"these keys stand twice: {', '.join(twice)}")
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The table in a YAML file.

    Raises:
        InputError: A file that cannot be read, is not YAML in UTF-8, is too large, refers to itself, has a key twice,
            or holds something else than a table.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_YAML_BYTES + 1)
        if len(content) > MAX_YAML_BYTES:
            raise ValueError(f"it must have at most {MAX_YAML_BYTES:,} bytes")
        text = content.decode("utf-8")
        _count_values(yaml.compose(text, _Loader), {})
        values = yaml.load(text, _Loader)  # a safe one
    # Values: not in UTF-8, a date that there is not, a number of thousands of digits.
    except (yaml.YAMLError, ValueError, OSError, RecursionError, TypeError, AttributeError) as error:
        raise InputError(f"{path} must be YAML, but reading it failed: {reason_of(error)}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold known settings, got (not a table of settings)")
    return values


def _count_values(node: yaml.Node | None, known: dict[int, int]) -> int:
    """The values below a node, each time that they are referred to."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return int(node is not None)
    if id(node) not in known:
        known[id(node)] = -1  # being counted
        pairs = node.value if isinstance(node, yaml.MappingNode) else [(each, None) for each in node.value]
        known[id(node)] = 1 + sum(_count_values(part, known) for pair in pairs for part in pair)
    if known[id(node)] == -1:
        raise ValueError("it refers to itself")
    if known[id(node)] > MAX_YAML_VALUES:
        raise ValueError(f"it must have at most {MAX_YAML_VALUES:,} values")
    return known[id(node)]


def read_metrics(who: str, run: Path, tasks: Collection[str]) -> dict[str, Any]:
    """The ``metrics.json`` of a run, which has for each task what is shown of it."""
    again = f"'audiostride evaluate {run}' writes results anew"
    metrics: dict[str, Any] = read_json(who, run / "metrics.json", RunMetrics, advice=again)
    each = [metrics.get("tasks", {}).get(task, {}) for task in tasks] if len(tasks) > 1 else [metrics]
    known = {"task", "split"} <= {*metrics} and all({*SHOWN} <= {*found} for found in [metrics, *each])
    if not known or any(len(found["interval"]) != 2 or None in found["interval"] for found in each):
        needed = f"task, split, and {', '.join(SHOWN)} of each task"
        raise InputError(f"{who}: {run / 'metrics.json'} must have {needed}, but has not all of them; {again}")
    return metrics


def read_table(
    who: str,
    file: Path,
    columns: Sequence[str],
    *,
    numbers: Sequence[str] | None = None,
    advice: str | None = None,
    **options: Any,
) -> pd.DataFrame:
    """A CSV table of a run folder, with one row or more.

    Args:
        who: Who asks, for messages.
        file: The table.
        columns: Columns that must be there.
        numbers: Columns of finite numbers; None is all that there are.
        advice: What to do about a table that is something else; None is to evaluate the run again.
        options: For pandas.

    Raises:
        InputError: A file that cannot be read or is something else.
    """
    with reading_table(who, file, advice):
        table: pd.DataFrame = pd.read_csv(file, **options)
        if missing := [name for name in columns if name not in table.columns]:
            raise ValueError(f"it has no column {', '.join(missing)}")
        if table.empty:
            raise ValueError("it has no rows")
        for name in table.columns if numbers is None else numbers:
            if not is_numeric_dtype(table[name]) or table[name].dtype == bool or not np.isfinite(table[name]).all():
                raise ValueError(f"column {name} must hold finite numbers")
        return table


@contextmanager
def reading_table(who: str, file: Path, advice: str | None = None) -> Iterator[None]:
    """Raise an `InputError` that names the file for what is wrong with it; arguments as for `read_table`."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, OSError) as error:  # pandas' own errors are values too
        advice = advice or f"copy it again, or 'audiostride evaluate {file.parent}' writes results anew"
        raise InputError(
            f"{who}: {file} must be as the run wrote it, but reading it failed: {reason_of(error)}; {advice}"
        ) from error

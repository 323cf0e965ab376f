"""Numbers of runs in a table that can travel: a run that stands there with the same settings is not trained again."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from audiostride.errors import InputError
from audiostride.training import TrainConfig, train
from audiostride.training.config import EPOCHS, MIN_STEPS
from audiostride.training.sweep import describe_failures
from audiostride.writing import write_text
from lab.runs import train_all

Cell = tuple[str, str, int]
"""Set, variant and seed of a run."""
# Settings that came after the first cells, with what they mean for those.
LATER: dict[str, Any] = {
    "sample_rate": 16000,
    "window_s": 1.0,
    "win_ms": 25.0,
    "hop_ms": 10.0,
    "n_mels": 64,
    "fmin_hz": 60.0,
    "fmax_hz": 7800.0,
    "frontend": "log-mel",
    "background": None,
    "background_share": 0.25,
    "clip_score": "mean",
    "multi_label": None,
    "label_separator": None,
    "label_columns": None,
    "stride_steps": None,
    "budget": None,
}
# What does not change what is learned, or is told by the name of the set.
APART = ("out", "manifest", "seed", "workers", "memory_mib", "device", "logger", "calibrate")


def train_cells(
    configs: Mapping[Cell, TrainConfig], file: Path, measure: Callable[[Path], dict[str, Any]], *, jobs: int
) -> pd.DataFrame:
    """A row for each run, with its numbers: those that are not in the file are trained, and noted as each ends.

    Args:
        configs: The runs.
        file: Table with the columns ``set``, ``variant``, ``seed``, ``settings`` (a checksum) and what is measured;
            made where it does not stand. Other programs may write into it at the same time.
        measure: Numbers of a finished run.
        jobs: Runs at the same time.

    Raises:
        InputError: Runs that failed, each with its reason.
    """
    keys = {cell: _checksum(config) for cell, config in configs.items()}
    known = _read(file)
    missing = {cell: config for cell, config in configs.items() if _find(known, cell, keys[cell]) is None}
    print(f"{len(configs) - len(missing)} of {len(configs)} runs stand in {file}", flush=True)

    def note(run: Path, stood: bool) -> None:
        cell = next(cell for cell in missing if Path(configs[cell].out) == run)
        row = {"set": cell[0], "variant": cell[1], "seed": cell[2], "settings": keys[cell]} | measure(run)
        write_text(file, pd.concat([_read(file), pd.DataFrame([row])], ignore_index=True).to_csv(index=False))

    if failed := train_all(list(missing.values()), train, jobs=jobs, each=note):
        raise InputError(describe_failures(failed, n_runs=len(missing)))
    known = _read(file)
    return pd.DataFrame([_find(known, cell, keys[cell]) for cell in configs])


def _read(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, dtype={"settings": str}) if file.is_file() else pd.DataFrame(columns=["settings"])


def _checksum(config: TrainConfig) -> str:
    """What tells settings from others, wherever data and runs lie."""
    values = {
        name: value
        for name, value in config.to_dict().items()
        if name not in APART and not (name in LATER and value == LATER[name])
    }
    values["stride_lr"] = config.with_steps(0).stride_lr  # was a number before it followed the steps
    values |= {"length": [EPOCHS, MIN_STEPS]} if config.max_steps is None else {}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _find(known: pd.DataFrame, cell: Cell, key: str) -> dict[str, Any] | None:
    """The numbers of a run, where they are known."""
    if known.empty:
        return None
    name, variant, seed = cell
    found = known[(known["set"] == name) & (known["settings"] == key) & (known["seed"] == seed)]
    return None if found.empty else {**dict(zip(found.columns, found.iloc[-1], strict=True)), "variant": variant}

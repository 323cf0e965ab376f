"""A few seconds of `fuzz.py`: every format is read whole or refused; a fault that is planted in its reader is found."""

import contextlib
import json
import os
import runpy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

FUZZ = runpy.run_path(str(Path(__file__).parent / "fuzz.py"))
CASES = {"audio": 120, "model": 80, "store": 100, "archives": 100, "checkpoint": 4, "run": 12, "journal": 15}


def faults(name: str, cases: int) -> list[Any]:
    *found, count = FUZZ["fuzz"](name, cases=cases)
    assert count == cases
    return found


@pytest.mark.parametrize("name", FUZZ["FORMATS"])
def test_changed_files_give_a_value_or_an_input_error(name: str) -> None:
    found = faults(name, CASES.get(name, 30))
    assert not found, "\n".join(f"{fault.number} ({fault.file}): {fault.what}" for fault in found[:3])


def believe(*_: Any, **__: Any) -> None:
    """A check that finds nothing."""


def read_raw(who: str, path: Path, declared: Any, **_: Any) -> Any:
    """JSON that is believed."""
    return json.loads(Path(path).read_text())


def read_yaml_raw(path: Path) -> Any:
    """YAML that is believed."""
    return yaml.safe_load(Path(path).read_text())


def join_raw(given: list[str], option: str) -> list[str]:
    """Options that are believed to have a first sign."""
    return [str(float(each)) if each[0].isdigit() else each for each in given]


def read_seconds_raw(table: Any, name: str, **_: Any) -> Any:
    """Numbers of a manifest that are believed."""
    return table[name].astype(float), np.zeros(len(table), dtype=bool)


# What is planted in each format: the place of a check, and what stands there instead.
PLANTED: dict[str, tuple[str, Any]] = {
    "audio": ("audiostride.audio.decoding._reason", lambda error: error.reason),
    "manifest": ("audiostride.dataset.columns._read_seconds", read_seconds_raw),
    "config": ("audiostride.training.settings.read_yaml", read_yaml_raw),
    "options": ("audiostride.commands.train.join_values", join_raw),
    "model": ("audiostride.strides.pooling_config.check_settings", believe),
    "store": ("audiostride.dataset.store.read_json", read_raw),
    "records": ("audiostride.dataset.prepare.read_json", read_raw),
    "journal": ("audiostride.inference.journal._unseal", lambda line, check: (json.loads(line), check)),
    "old journal": ("audiostride.inference.journal._read_old", lambda line, *_: json.loads(line)),
    "run": ("audiostride.training.run_files.reading_table", lambda *_, **__: contextlib.nullcontext()),
    "checkpoint": ("audiostride.training.loop.is_out_of_memory", lambda error: True),
    "archives": ("audiostride.dataset.unpacking.BROKEN", ()),
    "metadata": ("audiostride.dataset.importers.nsynth._check_notes", believe),
}


@pytest.mark.parametrize("name", FUZZ["FORMATS"])
def test_a_planted_fault_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, planted = PLANTED[name]
    monkeypatch.setattr(place, planted)
    assert faults(name, 2 * CASES.get(name, 30))


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (lambda folder: bytearray(2**31), "MemoryError"),
        (lambda folder: time.sleep(60), "hangs"),
        (lambda folder: os._exit(3), "the process died (exit code 3)"),
        (lambda folder: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_takes_too_much_hangs_dies_or_fails_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], what: str
) -> None:
    def read_changed(folder: Path) -> None:
        if (folder / "a.bin").read_bytes() != b"abc":
            read(folder)

    form = FUZZ["Format"](lambda folder: (folder / "a.bin").write_bytes(b"abc"), read_changed)
    monkeypatch.setitem(FUZZ["FORMATS"], "planted", form)
    monkeypatch.setitem(FUZZ["fuzz"].__globals__, "PATIENCE_S", 1.0)
    found = faults("planted", 3)
    assert found
    assert all(what in fault.what for fault in found)

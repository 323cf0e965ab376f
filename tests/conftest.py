"""A tiny data set that the tests make: tones against noise, in files of several rates and channel counts."""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run side by side, and their networks are tiny: threads would only wait for each other. Set before torch is
    # imported, and for the processes that tests start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("untimed", deadline=None)  # how long an example takes is no question for tests
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def archives() -> ModuleType:
    """The builders of miniature archives; see recipes/lab/archives.py."""
    from lab import archives

    return archives


COUNTS = {"train": 12, "valid": 4, "test": 6}


def write_tone_or_noise(path: Path, *, tone: bool, seed: int, sample_rate: int = 16000, channels: int = 1) -> None:
    rng = np.random.default_rng(seed)
    n_samples = int(sample_rate * (0.6 + 0.3 * (seed % 4)))
    times_s = np.arange(n_samples) / sample_rate
    samples = np.sin(2 * np.pi * rng.uniform(300, 900) * times_s) if tone else rng.standard_normal(n_samples) / 4
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(str(path), np.repeat(0.5 * samples[:, None], channels, axis=1), sample_rate)


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 22 clips, classes tone and noise, with the column names that users have."""
    root = tmp_path_factory.mktemp("tones")
    rows = []
    for split, count in COUNTS.items():
        for number in range(count):
            tone, seed = number % 2 == 0, len(rows)
            name = f"audio/{split}_{number}.{'wav' if number % 3 else 'flac'}"
            rate, channels = (44100, 2) if number % 4 == 3 else (16000, 1)
            write_tone_or_noise(root / name, tone=tone, seed=seed, sample_rate=rate, channels=channels)
            named = {"valid": "val"}.get(split, split)
            rows.append({"path": name, "kind": "tone" if tone else "noise", "split": named, "note": f"clip {seed}"})
    pd.DataFrame(rows).to_csv(root / "manifest.csv", index=False)
    return root / "manifest.csv"


TINY = ["--width", "0.03", "--max-steps", "8", "--valid-every", "3", "--batch-size", "4", "--preset", "none"]
TINY += ["--keep", "best"]


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Options of a training that takes a second."""
    return TINY


@pytest.fixture(scope="session")
def trained_run(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the tiny data set, trained through the command line."""
    from audiostride.cli import main

    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "--manifest", str(manifest), "--label", "kind", "--out", str(out), *TINY]) == 0
    return out


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes folders as those without rights are, also to root, whom no rights hold back."""
    locked: list[str] = []

    def below(path: object, *, itself: bool) -> bool:
        whole = os.path.abspath(os.fspath(path)) if isinstance(path, str | os.PathLike) else ""
        return any(whole.startswith(folder + os.sep) or (itself and whole == folder) for folder in locked)

    def guard(name: str, *, itself: bool) -> None:
        real = getattr(os, name)

        def guarded(path: object = ".", *arguments: object, **options: object) -> object:
            if below(path, itself=itself):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *arguments, **options)

        monkeypatch.setattr(os, name, guarded)

    guard("scandir", itself=True)
    for name in ("stat", "lstat"):
        guard(name, itself=False)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not below(path, itself=True) and access(path, mode))
    return lambda folder: locked.append(os.path.abspath(folder))


@pytest.fixture(scope="session")
def run_command() -> Callable[..., int]:
    """The exit code of a command of audiostride; jsonargparse ends with SystemExit on its own errors."""
    from audiostride.cli import main

    def run(*arguments: object) -> int:
        try:
            return main([str(argument) for argument in arguments])
        except SystemExit as ended:
            return int(ended.code or 0)

    return run

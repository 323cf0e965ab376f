"""A set with speakers, and trainings of a network so small that most of the time goes into everything around it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from audiostride.training import run_recorder

# One block of strided convolution: a training of six steps takes half a second.
QUICK = ["--pooling", "strided", "--channels", "[4]", "--strides", "[[4,4]]", "--max-steps", "6", "--valid-every", "3"]
QUICK += ["--batch-size", "4", "--label", "kind", "--preset", "none", "--keep", "best"]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Rows of a manifest with absolute paths: 16-bit files at 16 kHz, 36 train, 4 valid and 6 test clips.

    Twelve speakers train, with one tone and one to three noises each; others are in valid and test.
    """
    root = tmp_path_factory.mktemp("speakers")
    rng = np.random.default_rng(0)
    rows: list[dict[str, str]] = []
    for split, speakers in (("train", 12), ("valid", 2), ("test", 3)):
        for speaker in range(speakers):
            for kind in ("tone", *["noise"] * (1 + speaker % 3 if split == "train" else 1)):
                path = root / f"{len(rows)}.{'flac' if len(rows) % 3 else 'wav'}"
                n_samples = rng.integers(8000, 24000)
                tone = np.sin(2 * np.pi * rng.uniform(300, 900) / 16000 * np.arange(n_samples))
                samples = tone if kind == "tone" else rng.standard_normal(n_samples) / 4
                soundfile.write(str(path), 0.5 * samples, 16000, subtype="PCM_16")
                rows.append({"path": str(path), "kind": kind, "split": split, "speaker": f"{split}{speaker}"})
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def quick_run(run_command: Callable[..., int]) -> Callable[..., int]:
    """Trains a very small network on a manifest through the command line, without figures; returns the exit code."""

    def run(manifest: object, out: object, *options: object) -> int:
        with pytest.MonkeyPatch.context() as patch:
            # Drawing takes longer than such a training, and has tests of its own.
            patch.setattr("audiostride.reporting.page.report_run", lambda run: None)
            return run_command("train", "--manifest", manifest, "--out", out, *QUICK, *options)

    return run


@pytest.fixture
def worse_every_time(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Validations whose accuracy is 1, then 1/2, then 1/3; the result can undo that."""
    validate, calls = run_recorder.evaluate_clips, list[int]()

    def fall(*given: Any, **settings: Any) -> Any:
        calls.append(1)
        return {task: replace(found, accuracy=1 / len(calls)) for task, found in validate(*given, **settings).items()}

    monkeypatch.setattr(run_recorder, "evaluate_clips", fall)
    return monkeypatch


@pytest.fixture(scope="session")
def read_history() -> Callable[[Path], pd.DataFrame]:
    """The history of a run without its times."""
    return lambda run: pd.read_csv(run / "history.csv").drop(columns="elapsed_s")


@pytest.fixture(scope="session")
def set_manifest(clips: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of all `clips`, whose column of groups is ``speaker``. Not to be changed."""
    file = tmp_path_factory.mktemp("set") / "set.csv"
    clips.to_csv(file, index=False)
    return file


@pytest.fixture(scope="session")
def plain_run(set_manifest: Path, quick_run: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished quick run without any option on data. Not to be changed."""
    out = tmp_path_factory.mktemp("plain") / "run"
    assert quick_run(set_manifest, out) == 0
    return out


@pytest.fixture(scope="module")
def no_figures() -> Iterator[None]:
    """Drawing takes longer than these trainings; processes of their own draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audiostride.reporting.page.report_run", lambda run: None)
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums over threads depend on their number, which is one for each of two jobs on two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

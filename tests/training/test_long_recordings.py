"""Recordings of ten minutes in training, evaluation and prediction: never held whole."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from audiostride.dataset.readers import open_reader
from audiostride.inference.reading import read_blocks
from audiostride.inference.recordings import Recording
from audiostride.models import load_classifier
from audiostride.training.batches import ExcerptBatches
from lab.clips import read_clips

Run = Callable[..., int]
SECONDS = 600


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes at 8 kHz and 8 bit: 5 MB, and 37 MiB once it is decoded at 16 kHz."""
    noise = np.random.default_rng(0).integers(0, 256, 8000).astype(np.float32) / 128 - 1
    path = tmp_path_factory.mktemp("long") / "long.wav"
    with soundfile.SoundFile(path, "w", samplerate=8000, channels=1, subtype="PCM_U8") as file:
        for _ in range(SECONDS):
            file.write(noise)
    return path


def add_clips(clips: pd.DataFrame, path: Path, folder: Path) -> Path:
    """A manifest with a file more in train and in test."""
    rows = [{"path": str(path), "kind": "noise", "split": split, "speaker": "x"} for split in ("train", "test")]
    pd.concat([clips, pd.DataFrame(rows)]).to_csv(folder / "m.csv", index=False)
    return folder / "m.csv"


class Reads:
    """Notes how many samples are decoded or returned in one piece."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.largest = 0
        for owner in ("soundfile.SoundFile.read", "audiostride.dataset.readers.read_samples"):
            self.watch(monkeypatch, owner)
        self.watch(monkeypatch, "numpy.concatenate")  # predictions join blocks of a file to windows

    def watch(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        owner, _, attribute = name.rpartition(".")
        target = soundfile.SoundFile if owner.startswith("soundfile") else __import__(owner, fromlist=["x"])
        read = getattr(target, attribute)

        def note(*arguments: object, **options: object) -> np.ndarray:
            samples = read(*arguments, **options)
            self.largest = max(self.largest, len(samples))
            return samples

        monkeypatch.setattr(target, attribute, note)


def test_commands_read_a_long_recording_part_by_part(
    clips: pd.DataFrame,
    long_file: Path,
    quick_run: Run,
    run_command: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifest, run = add_clips(clips, long_file, tmp_path), tmp_path / "run"
    with monkeypatch.context() as patch:
        reads = Reads(patch)
        options = ["--max-steps", "13", "--batch-size", "2", "--balance", "group", "--group", "speaker"]
        assert quick_run(manifest, run, *options) == 0  # 26 excerpts: two of each of 13 speakers
        assert 16000 <= reads.largest <= 60 * 16000
        assert json.loads((run / "metrics.json").read_text())["n_clips"] == 7
        reads.largest = 0
        assert run_command("predict", run, long_file, "-o", tmp_path / "p.csv", "--per-clip") == 0
        assert 16000 <= reads.largest <= 70 * 16000
        assert pd.read_csv(tmp_path / "p.csv")["end_s"].tolist() == [SECONDS]
    # A shorter one is held, so that reading it again costs nothing; that shows that reading is watched.
    soundfile.write(str(tmp_path / "short.wav"), np.zeros(59 * 8000), 8000, subtype="PCM_U8")
    reads = Reads(monkeypatch)
    assert quick_run(add_clips(clips, tmp_path / "short.wav", tmp_path), tmp_path / "other") == 0
    assert reads.largest == 59 * 16000


def test_a_long_recording_takes_a_fraction_of_its_size_in_memory(
    long_file: Path, plain_run: Path, tmp_path: Path
) -> None:
    model = load_classifier(plain_run)
    (tmp_path / "m.csv").write_text(f"path,label\n{long_file},a\n")
    whole = SECONDS * 16000 * 4

    def peak(work: Callable[[], object]) -> int:
        tracemalloc.start()
        work()
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    def read_all() -> None:
        reader = open_reader(read_clips(tmp_path / "m.csv"), progress=False)
        batches = ExcerptBatches(reader, np.zeros(1, dtype=np.int64), batch_size=4, window=16000, seed=0)
        assert batches[0]["waveform"].abs().amax(dim=1).min() > 0.5
        clip = Recording("clip", reader=reader)
        blocks = read_blocks([clip], sample_rate=16000, window=16000, hop=16000, workers=1)
        assert sum(len(block.windows) for _, block in blocks) == SECONDS

    assert peak(lambda: np.zeros(whole, dtype=np.uint8)) >= whole  # NumPy's memory is seen
    assert peak(read_all) < whole / 2
    assert peak(lambda: model.predict(long_file)) < whole / 2


def test_a_long_recording_is_predicted_like_its_parts(long_file: Path, plain_run: Path, tmp_path: Path) -> None:
    model = load_classifier(plain_run)
    windows = model.predict(long_file, per_window=True)
    assert len(windows) == SECONDS
    # Every second of the file is the same, so that what differs comes from the ends alone.
    assert windows["score"][1:-1].round(4).nunique() == 1

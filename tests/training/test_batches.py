import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from audiostride.audio.windows import cut_window, draw_excerpt_starts
from audiostride.dataset.readers import AudioReader, open_reader
from audiostride.errors import InputError
from audiostride.training import loading
from audiostride.training.batches import ExcerptBatches
from audiostride.training.loading import AHEAD, check_shared_memory, load_batches
from lab.clips import read_clips


@pytest.mark.parametrize("start", [-700, -3, 0, 4, 9, 10, 500])
def test_a_window_has_zeros_outside_the_clip(start: int) -> None:
    clip = np.arange(1, 11, dtype=np.float32)
    padded = np.concatenate([np.zeros(1000), clip, np.zeros(1000)])
    np.testing.assert_array_equal(cut_window(clip, start, 6), padded[1000 + start : 1006 + start])


def test_excerpts_cover_all_starts_and_reach_beyond_the_ends_by_the_shift_only() -> None:
    rng = np.random.default_rng(0)
    starts = draw_excerpt_starts(np.full(2000, 20), window=10, shift=3, rng=rng)
    assert set(starts.tolist()) == set(range(-3, 14))
    short = draw_excerpt_starts(np.full(20, 5), window=10, shift=0, rng=rng)
    assert set(short.tolist()) == {0}


def make_batches(reader: AudioReader, *, seed: int = 0) -> ExcerptBatches:
    classes = np.arange(len(reader))
    return ExcerptBatches(reader, classes, batch_size=5, window=16000, shift=800, seed=seed)


def test_batches_are_a_function_of_seed_and_step(manifest: Path) -> None:
    reader = open_reader(read_clips(manifest, label="kind"), progress=False)
    batches, again = make_batches(reader), make_batches(reader)
    later = again[7]  # asked for first: no order, no state
    for step in range(8):
        expected = batches[step]
    assert later.keys() == expected.keys() == {"waveform", "class_index", "failed"}
    assert all(torch.equal(later[name], expected[name]) for name in expected)
    assert not torch.equal(make_batches(reader, seed=1)[7]["waveform"], later["waveform"])


def test_every_clip_comes_once_per_pass(manifest: Path) -> None:
    reader = open_reader(read_clips(manifest, label="kind"), progress=False)
    batches = make_batches(reader)
    seen = torch.cat([batches[step]["class_index"] for step in range(22)])
    passes = seen.reshape(-1, 22)
    assert all(sorted(row.tolist()) == list(range(22)) for row in passes)
    assert not torch.equal(passes[0], passes[1])


def test_worker_processes_give_the_same_batches(manifest: Path) -> None:
    reader = open_reader(read_clips(manifest, label="kind"), progress=False)
    loaded = list(load_batches(make_batches(reader), workers=1, sampler=range(3, 6)))
    assert len(loaded) == 3
    for step, batch in enumerate(loaded, start=3):
        expected = make_batches(reader)[step]
        assert all(torch.equal(batch[name], expected[name]) for name in ("waveform", "class_index", "failed"))


def test_reading_from_files_gives_the_samples_that_memory_gives(manifest: Path) -> None:
    clips = read_clips(manifest, label="kind")
    memory, files = open_reader(clips, progress=False), open_reader(clips, memory_mib=0, progress=False)
    np.testing.assert_array_equal(memory.n_samples, files.n_samples)
    for index in range(len(clips)):
        for start in (-500, 100, 8000, 40000):
            # Parts of resampled files agree to the resampler's float32 rounding, the others to the bit.
            np.testing.assert_allclose(files.read(index, start, 16000), memory.read(index, start, 16000), atol=1e-6)


def test_parts_of_a_file_are_clips(tmp_path: Path) -> None:
    samples = np.linspace(-0.5, 0.5, 32000, dtype=np.float32)
    soundfile.write(str(tmp_path / "long.wav"), samples, 16000, subtype="FLOAT")
    (tmp_path / "m.csv").write_text("path,label,start_s,duration_s\nlong.wav,a,0.5,0.25\nlong.wav,b,1.5,\n")
    reader = open_reader(read_clips(tmp_path / "m.csv"), progress=False)
    assert reader.n_samples.tolist() == [4000, 8000]
    np.testing.assert_array_equal(reader.read(0, 0, 4000), samples[8000:12000])
    np.testing.assert_array_equal(reader.read(1, 0, 8000), samples[24000:])


def test_all_bad_audio_is_reported_with_lines_before_anything_starts(tmp_path: Path) -> None:
    soundfile.write(str(tmp_path / "good.wav"), np.zeros(1600), 16000)
    soundfile.write(str(tmp_path / "nan.wav"), np.full(100, np.nan), 16000, subtype="FLOAT")
    soundfile.write(str(tmp_path / "empty.wav"), np.zeros(0), 16000)
    (tmp_path / "text.wav").write_text("no audio")
    rows = ["good.wav,a,", "nan.wav,a,", "empty.wav,a,", "text.wav,a,", "good.wav,a,3"]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,duration_s", *rows]))
    with pytest.raises(InputError) as caught:
        open_reader(read_clips(tmp_path / "m.csv"), where="m.csv", progress=False)
    message = str(caught.value)
    assert message.startswith("m.csv: 4 bad rows")
    for part in ("line 3: .*nan.wav", "line 4: .*empty.wav", "line 5: .*text.wav", "line 6: .*good.wav is 0.1 s long"):
        assert pd.Series([message]).str.contains(part).all(), part


@pytest.fixture
def constants(tmp_path: Path) -> Callable[..., AudioReader]:
    """A reader of six files, clip k holding the value (k + 1) / 8, that reads from the files each time."""
    for k in range(6):
        soundfile.write(str(tmp_path / f"{k}.wav"), np.full(2000, (k + 1) / 8), 16000)
    (tmp_path / "m.csv").write_text("path,label\n" + "".join(f"{k}.wav,a\n" for k in range(6)))
    return lambda **options: open_reader(read_clips(tmp_path / "m.csv"), memory_mib=0, progress=False, **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_clips_that_vanish_are_replaced_by_others_of_the_batch(
    constants: Callable[..., AudioReader], tmp_path: Path, workers: int
) -> None:
    reader = constants(on_error="skip")
    classes = np.arange(6) + 10
    batches = ExcerptBatches(reader, classes, batch_size=4, window=1000, seed=0)
    whole = [batches[step] for step in range(12)]
    assert all(item["failed"].numel() == 0 for item in whole)
    for k in (1, 4):
        (tmp_path / f"{k}.wav").unlink()
    loaded = list(load_batches(batches, workers=workers, sampler=range(0, 12)))
    n_failed = 0
    for before, item in zip(whole, loaded, strict=True):
        clips = before["class_index"] - 10
        lost = np.isin(clips, [1, 4])
        n_failed += int(lost.sum())
        assert item["failed"].tolist() == clips[lost].tolist()
        # Those that can be read stay where they are; the others are whole examples of theirs, sound and class.
        assert torch.equal(item["class_index"][~lost], before["class_index"][~lost])
        assert set(item["class_index"].tolist()) <= set(before["class_index"][~lost].tolist())
        expected = (item["class_index"] - 9)[:, None] / 8
        assert torch.equal(item["waveform"], expected.float().expand(4, 1000))
    assert n_failed == 16  # two of six clips, each once in each of eight passes
    if workers == 0:
        assert {index: "does not exist" in reason for index, reason in reader.failed.items()} == {1: True, 4: True}


def test_a_batch_without_any_readable_clip_is_an_error(constants: Callable[..., AudioReader], tmp_path: Path) -> None:
    batches = ExcerptBatches(constants(on_error="skip"), np.arange(6), batch_size=4, window=1000, seed=0)
    for k in range(6):
        (tmp_path / f"{k}.wav").unlink()
    with pytest.raises(InputError, match="none of the 4 clips of a batch can be read; is the disk still there"):
        batches[0]


def test_a_clip_that_vanishes_is_an_error_unless_skipped(constants: Callable[..., AudioReader], tmp_path: Path) -> None:
    batches = ExcerptBatches(constants(), np.arange(6), batch_size=6, window=1000, seed=0)
    (tmp_path / "3.wav").unlink()
    with pytest.raises(InputError, match=r"3\.wav does not exist"):
        batches[0]


@pytest.mark.parametrize("kind", ["table", "tuple"])
@pytest.mark.parametrize("processes", [1, 3])
def test_shared_memory_must_hold_what_workers_hold_ready(
    monkeypatch: pytest.MonkeyPatch, kind: str, processes: int
) -> None:
    batch = {"waveform": torch.zeros(4, 1000), "class_index": torch.zeros(4, dtype=torch.int64)}
    batches = [batch if kind == "table" else tuple(batch.values())]
    needed = processes * (2 * AHEAD + 1) * (4 * 1000 * 4 + 4 * 8)
    free = [needed]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[0]))
    monkeypatch.setattr(os.path, "isdir", lambda path: path == "/dev/shm")
    check_shared_memory(batches, workers=2, processes=processes)
    free[0] = needed - 1
    said = r"^train: what 2 --workers hold ready must fit into shared memory, .*; give --workers 0 or .*--shm-size$"
    with pytest.raises(InputError, match=said):
        check_shared_memory(batches, workers=2, processes=processes)
    check_shared_memory(batches, workers=0, processes=processes)
    monkeypatch.setattr(os.path, "isdir", lambda path: False)  # a system without such a folder
    check_shared_memory(batches, workers=2, processes=processes)


def test_too_little_shared_memory_is_said_before_anything_is_written(
    set_manifest: Path,
    quick_run: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(loading.shutil, "disk_usage", lambda path: SimpleNamespace(free=65536))
    monkeypatch.setattr(loading, "SHARED_MEMORY", str(tmp_path))
    assert quick_run(set_manifest, tmp_path / "run", "--workers", "2") == 2
    assert "has 0.1 MiB free; give --workers 0 or fewer" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class Unsendable:
    """What a worker cannot hand over."""

    def __reduce__(self) -> Any:
        raise OSError(28, "No space left on device")


# Where a worker breaks off, torch tries how many files it may open, and leaves them open.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("failure", ["killed", "handing over", "files"])
def test_a_worker_that_fails_ends_the_run_in_one_line(
    set_manifest: Path,
    quick_run: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    failure: str,
) -> None:
    part, parent = ExcerptBatches.part, os.getpid()

    def fail(self: ExcerptBatches, step: int, *given: Any, **settings: Any) -> Any:
        item = part(self, step, *given, **settings)
        if step == 3 and os.getpid() != parent:
            if failure == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if failure == "files":
                raise OSError(24, "Too many open files")
            item["unsendable"] = Unsendable()
        return item

    def hang(number: int, frame: object) -> None:
        raise AssertionError("the run hangs")

    monkeypatch.setattr(ExcerptBatches, "part", fail)
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(60)
    assert quick_run(set_manifest, tmp_path / "run", "--workers", "1") == 2
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    shown = capfd.readouterr().err.splitlines()
    assert shown[-1].startswith("audiostride: train: the processes that read audio (--workers) must go on, but one f")
    assert shown[-1].endswith("the same command with --resume goes on from there, with --workers 0 if need be")
    assert "Traceback" not in "".join(shown)
    if failure == "handing over":
        assert "audiostride: a worker cannot hand over a batch: No space left on device" in "\n".join(shown)
    monkeypatch.setattr(ExcerptBatches, "part", part)
    assert quick_run(set_manifest, tmp_path / "run", "--resume") == 0

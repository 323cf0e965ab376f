"""The store: the samples of the files, whatever moment it is stopped at, and nothing damaged that goes unseen."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiostride.audio.resampling import stream_samples
from audiostride.dataset import prepare, store, store_writer
from audiostride.dataset.manifest import inspect_manifest
from audiostride.dataset.prepare import StoreSummary, prepare_store
from audiostride.dataset.readers import AudioReader, StoreReader, open_reader
from audiostride.dataset.store import FULL_SCALE, audio_name, map_batches, read_store_header, verify_store
from audiostride.dataset.store_writer import needed_scale, quantise
from audiostride.errors import InputError
from lab.clips import read_clips

BATCH = 1000
FILE = 2500


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record batches of 1,000 samples and audio files of 2,500 or a little more."""
    for module in (store, store_writer):
        monkeypatch.setattr(module, "BATCH_SAMPLES", BATCH)
    monkeypatch.setattr(prepare, "MIN_FILE_SAMPLES", FILE)


def write_clip(path: Path, samples: np.ndarray, sample_rate: int = 16000, **options: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(str(path), samples, sample_rate, **options)


# What `write_set` becomes: the clips 0 to 3, 4 to 6, 7 and 8, 9 and 10, and 11.
N_FILES = 5


def write_set(folder: Path, n_clips: int = 12, *, seed: int = 0) -> Path:
    """A manifest of 16-bit clips of 600 to 1,700 samples at 16 kHz."""
    rng = np.random.default_rng(seed)
    for number in range(n_clips):
        write_clip(folder / f"{number}.wav", rng.uniform(-0.9, 0.9, 600 + 100 * number))
    rows = [f"{number}.wav,{'ab'[number % 2]},train" for number in range(n_clips)]
    return write_manifest(folder, *rows)


def write_manifest(folder: Path, *rows: str, head: str = "path,label,split") -> Path:
    (folder / "m.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder / "m.csv"


def prepare_manifest(manifest: Path, out: Path, **options: object) -> StoreSummary:
    clips, _ = inspect_manifest(manifest, labels=("label",))
    return prepare_store(clips, out, where="m.csv", progress=False, **{"jobs": 2, **options})


def content_of(out: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {file.name: file.read_bytes() for file in sorted(out.iterdir())}


def state_of(out: Path) -> dict[str, tuple[int, int]]:
    """What changes where a file is written again."""
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in out.glob("audio-*.arrow")}


def check_store_is_clean(out: Path, n_files: int) -> None:
    expected = {"store.json", "clips.arrow", *(audio_name(number) for number in range(n_files))}
    assert {file.name for file in out.iterdir()} == expected
    assert verify_store(out, progress=False) == []


def read_clip(reader: AudioReader, index: int) -> np.ndarray:
    """All samples of a clip."""
    return reader.read(index, 0, int(reader.n_samples[index]))


def check_same_samples(manifest: Path, out: Path) -> list[float]:
    """Compare a store with the files, clip by clip; returns each clip's largest difference in int16 steps."""
    reader, files = open_reader(read_clips(out)), open_reader(read_clips(manifest), progress=False)
    scales = read_clips(out)["store_scale"].tolist()
    assert isinstance(reader, StoreReader)
    np.testing.assert_array_equal(reader.n_samples, files.n_samples)
    steps = []
    for index, scale in enumerate(scales):
        stored, read = read_clip(reader, index), read_clip(files, index)
        # Half a step of the clip's own scale, and 2^-22 of it for the rounding of float32 at full scale.
        np.testing.assert_allclose(stored, read, rtol=0, atol=scale * (1 / 65536 + 2**-22))
        steps.append(float(np.abs(stored - read).max()) * FULL_SCALE)
    return steps


# ---- samples ----


@pytest.mark.usefixtures("small_files")
def test_16_bit_clips_at_16_khz_are_stored_exactly_across_batches_and_files(tmp_path: Path) -> None:
    manifest = write_set(tmp_path)
    summary = prepare_manifest(manifest, tmp_path / "store")
    n_samples = sum(600 + 100 * number for number in range(12))
    assert (summary.clips, summary.seconds, summary.scaled) == (12, n_samples / 16000, 0)
    assert summary.files == summary.written == N_FILES
    check_store_is_clean(tmp_path / "store", summary.files)
    assert check_same_samples(manifest, tmp_path / "store") == [0.0] * 12
    # Clips that lie in two batches and in three are among them.
    clips = read_clips(tmp_path / "store")
    ends = (clips["store_offset"] + clips["n_samples"] - 1) // BATCH
    assert set(ends - clips["store_offset"] // BATCH) == {0, 1, 2}
    # Files hold whole clips and are about as long as was asked for.
    sizes = [entry["samples"] for entry in read_store_header(tmp_path / "store")["files"]]
    assert all(FILE <= size < FILE + 1700 for size in sizes[:-1])
    assert sum(sizes) == n_samples


@pytest.mark.usefixtures("small_files")
def test_other_clips_are_stored_to_half_a_step(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_clip(tmp_path / "float.wav", rng.uniform(-1, 0.9999, 3000), subtype="FLOAT")
    write_clip(tmp_path / "stereo.wav", rng.uniform(-1, 0.9999, (3000, 2)))
    write_clip(tmp_path / "24.flac", rng.uniform(-0.5, 0.5, 5000), 44100, subtype="PCM_24")
    write_clip(tmp_path / "part.wav", rng.uniform(-0.5, 0.5, 5000), 48000)
    write_clip(tmp_path / "quiet.wav", 1e-5 * rng.uniform(-1, 1, 3000), subtype="FLOAT")
    write_clip(tmp_path / "ends.wav", np.array([-32768, 32767, 0, -32768], dtype=np.int16))
    rows = ["float.wav,a,,", "stereo.wav,a,,", "24.flac,b,,", "part.wav,b,0.01,0.05", "quiet.wav,b,,", "ends.wav,b,,"]
    manifest = write_manifest(tmp_path, *rows, head="path,label,start_s,duration_s")
    assert prepare_manifest(manifest, tmp_path / "store").scaled == 0
    steps = check_same_samples(manifest, tmp_path / "store")
    assert all(0.45 < step <= 0.51 for step in steps[:4])
    assert steps[-1] == 0.0


@pytest.mark.usefixtures("small_files")
def test_clips_beyond_full_scale_are_stored_with_a_scale_of_their_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    square = np.sign(np.sin(2 * np.pi * 441 * np.arange(8820) / 44100 + 0.1)) * 0.99
    write_clip(tmp_path / "loud.wav", rng.uniform(-6, 6, 3000), subtype="FLOAT")
    write_clip(tmp_path / "high.wav", np.array([1.0, 0.0, -0.5]), subtype="FLOAT")
    write_clip(tmp_path / "low.wav", np.array([-1.00001, 0.0, 0.5]), subtype="FLOAT")
    write_clip(tmp_path / "square.wav", square, 44100)  # which resampling carries beyond its own height
    write_clip(tmp_path / "lossy.ogg", np.repeat([0.999, -0.999], 2000), 16000)
    write_clip(tmp_path / "plain.wav", np.array([-1.0, 0.0, 0.5]), subtype="FLOAT")
    names = ["loud.wav", "high.wav", "low.wav", "square.wav", "lossy.ogg", "plain.wav"]
    manifest = write_manifest(tmp_path, *(f"{name},a,train" for name in names))
    assert prepare_manifest(manifest, tmp_path / "store").scaled == 5
    check_same_samples(manifest, tmp_path / "store")
    scales = dict(zip(names, read_clips(tmp_path / "store")["store_scale"], strict=True))
    files = open_reader(read_clips(manifest), progress=False)
    for index, name in enumerate(names[:-1]):
        # The peak takes the whole range of int16, to a step.
        assert scales[name] == pytest.approx(np.abs(read_clip(files, index)).max(), rel=1e-4)
    assert scales["plain.wav"] == 1.0


@given(
    st.lists(st.floats(-12, 12, width=32), min_size=1, max_size=5),
    st.sampled_from([1.0, 1 - 2**-16, 1 - 2**-15, 1 - 2**-15.5, 1 - 2**-20, 1 + 2**-20, -1.0, -1 - 2**-20]),
)
def test_every_sample_is_within_half_a_step_of_what_is_stored(values: list[float], edge: float) -> None:
    samples = np.array([*values, edge], dtype=np.float32)
    for of in (samples, samples[-1:], samples / 12):
        scale = needed_scale(of)
        assert scale >= 1.0
        stored = quantise(of, scale).astype(np.float64) * scale / FULL_SCALE
        np.testing.assert_allclose(stored, of, rtol=0, atol=scale * (1 / 65536 + 2**-22))


@pytest.mark.usefixtures("small_files")
def test_long_clips_beyond_full_scale_are_stored_like_short_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    louder = np.repeat([0.5, 1.5, 0.5, 3.0, 2.0], 700) * rng.uniform(-1, 1, 3500)
    clips = {"a": rng.uniform(-1, 0.999, 3000), "b": louder, "c": louder[::-1], "d": rng.uniform(-1, 0.999, 3000)}
    for name, samples in clips.items():
        write_clip(tmp_path / f"{name}.wav", samples, subtype="FLOAT")
    manifest = write_manifest(tmp_path, *(f"{name}.wav,x,train" for name in clips))
    monkeypatch.setattr(prepare, "MIN_FILE_SAMPLES", 10**6)
    prepare_manifest(manifest, tmp_path / "held")
    decoded: list[str] = []

    def stream(path: str, *part: int, **options: int) -> Iterator[np.ndarray]:
        decoded.append(Path(path).stem)
        return stream_samples(path, *part, block_frames=300, **options)

    monkeypatch.setattr(store_writer, "HOLD_SAMPLES", 100)
    monkeypatch.setattr(store_writer, "stream_samples", stream)
    summary = prepare_manifest(manifest, tmp_path / "streamed")
    assert summary.scaled == 2
    # The file is begun anew once for each of the two, whatever the number of their blocks that are ever louder.
    assert {name: decoded.count(name) for name in clips} == {"a": 3, "b": 3, "c": 2, "d": 1}
    held, streamed = content_of(tmp_path / "held"), content_of(tmp_path / "streamed")
    assert held == streamed
    check_same_samples(manifest, tmp_path / "streamed")


@pytest.mark.usefixtures("small_files")
def test_a_long_clip_that_turns_bad_after_going_beyond_full_scale_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_writer, "HOLD_SAMPLES", 100)
    monkeypatch.setattr(store_writer, "stream_samples", partial(stream_samples, block_frames=300))
    manifest = write_set(tmp_path, 4)
    samples = np.linspace(0, 3, 2000)
    samples[1900] = np.nan
    write_clip(tmp_path / "1.wav", samples, subtype="FLOAT")
    summary = prepare_manifest(manifest, tmp_path / "store", on_error="skip")
    assert [line for line, _ in summary.skipped] == [3]
    assert summary.clips == 3
    write_manifest(tmp_path, *(f"{number}.wav,a,train" for number in (0, 2, 3)))
    assert check_same_samples(manifest, tmp_path / "store") == [0.0] * 3


@pytest.mark.usefixtures("small_files")
def test_the_number_of_files_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_set(tmp_path)
    monkeypatch.setattr(prepare, "MIN_FILE_SAMPLES", 1)
    monkeypatch.setattr(prepare, "TARGET_FILES", 3)
    monkeypatch.setattr(prepare, "MAX_FILE_SAMPLES", 10)
    # Files of the largest size would be as many as there are clips; twice the target is the limit.
    assert 3 <= prepare_manifest(manifest, tmp_path / "few").files <= 6
    monkeypatch.setattr(prepare, "TARGET_FILES", 1000)
    assert prepare_manifest(manifest, tmp_path / "many").files == 12


# ---- the table ----


HEADS = {
    "bare": ("path,label", ["0.wav,a", "1.wav,b"]),
    "full": (
        "path,label,split,group,start_s,duration_s,id,line,store",
        ["0.wav,a,val,s1,0.01,0.02,001,7,s", "1.wav,b,test,,,,NA,8,t", "0.wav,b,train,s2,0.02,,,9,u"],
    ),
    "quoted": ("path,label,note", ['0.wav,a,"two\nlines, one ""word"""', "1.wav, b ,été"]),
}


@pytest.mark.parametrize("kind", HEADS)
def test_manifest_and_store_give_the_same_table(tmp_path: Path, kind: str) -> None:
    write_set(tmp_path, 2)
    head, rows = HEADS[kind]
    manifest = write_manifest(tmp_path, *rows, head=head)
    prepare_manifest(manifest, tmp_path / "store")
    clips, stored = read_clips(manifest), read_clips(tmp_path / "store")
    assert set(clips.columns) < set(stored.columns)
    pd.testing.assert_frame_equal(clips, stored[clips.columns.tolist()])
    np.testing.assert_array_equal(open_reader(clips, progress=False).n_samples, open_reader(stored).n_samples)


def test_groups_and_labels_of_any_column_are_in_the_store(tmp_path: Path) -> None:
    write_set(tmp_path, 3)
    rows = ["0.wav,a,60,s1", "1.wav,b,61,s1", "2.wav,b,62,s2"]
    manifest = write_manifest(tmp_path, *rows, head="path,label,pitch,speaker")
    prepare_manifest(manifest, tmp_path / "store")
    for options in ({"label": "pitch"}, {"group": "speaker"}, {"label": "pitch", "group": "speaker"}):
        clips, stored = read_clips(manifest, **options), read_clips(tmp_path / "store", **options)
        pd.testing.assert_frame_equal(clips, stored[clips.columns.tolist()])
    with pytest.raises(InputError, match="must have a column 'family'"):
        read_clips(tmp_path / "store", label="family")


def test_a_folder_of_class_folders_can_be_prepared(tmp_path: Path) -> None:
    for name in ("dog/1", "cat/2", "cat/3"):
        write_clip(tmp_path / "root" / f"{name}.wav", np.linspace(-0.5, 0.5, 900))
    prepare_manifest(tmp_path / "root", tmp_path / "store")
    assert read_clips(tmp_path / "store")["label"].tolist() == ["cat", "cat", "dog"]
    check_same_samples(tmp_path / "root", tmp_path / "store")


def test_a_store_is_no_manifest_to_prepare(tmp_path: Path) -> None:
    prepare_manifest(write_set(tmp_path, 2), tmp_path / "store")
    with pytest.raises(InputError, match="must be a manifest, got a store"):
        prepare_manifest(tmp_path / "store", tmp_path / "again")


# ---- stopped and begun again ----


# Prepares a manifest in a process of its own and ends it with SIGKILL: as the file NAME is about to get its name, or
# just after; or hangs within the clip NAME until it is killed from outside.
STOPPED = f"""
import os, signal, sys, threading
from audiostride.dataset import prepare, store, store_writer
from audiostride.dataset.manifest import inspect_manifest

manifest, out, moment, name = sys.argv[1:]
store.BATCH_SAMPLES = store_writer.BATCH_SAMPLES = {BATCH}
prepare.MIN_FILE_SAMPLES = {FILE}
store_writer.HOLD_SAMPLES = {BATCH}  # long clips are written block by block
replace, stream = os.replace, store_writer.stream_samples

def replace_and_die(source, target):
    if moment == "before" and os.path.basename(target) == name:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if moment == "after" and os.path.basename(target) == name:
        os.kill(os.getpid(), signal.SIGKILL)

def stream_and_hang(path, *part, **options):
    blocks = stream(path, *part, **options)
    if os.path.basename(path) == name:
        yield next(blocks)
        threading.Event().wait()
    yield from blocks

os.replace, store_writer.stream_samples = replace_and_die, stream_and_hang
clips, _ = inspect_manifest(manifest, labels=("label",))
prepare.prepare_store(clips, out, where="m.csv", progress=False, jobs=2)
"""


def start_stopped(manifest: Path, out: Path, moment: str, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", STOPPED, str(manifest), str(out), moment, name]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2])


def finished_files(out: Path) -> dict[str, tuple[int, int]]:
    records = {file.stem for file in out.glob("audio-*.json")}
    return {name: state for name, state in state_of(out).items() if Path(name).stem in records}


def check_goes_on(manifest: Path, out: Path, undisturbed: Path) -> int:
    """Prepare again what was stopped and compare it with an undisturbed store; returns how many files were kept."""
    finished = finished_files(out)
    summary = prepare_manifest(manifest, out)
    assert content_of(out) == content_of(undisturbed)
    check_store_is_clean(out, summary.files)
    assert finished.items() <= state_of(out).items()
    assert summary.written == summary.files - len(finished)
    return len(finished)


# With two threads, how many other files are finished by then varies.
MOMENTS = [
    ("before", "plan.json", range(0, 1)),
    ("after", "plan.json", range(0, 1)),
    ("before", "audio-00001.arrow", range(0, N_FILES)),
    ("after", "audio-00001.arrow", range(0, N_FILES)),  # whole, but nothing says so yet
    ("after", "audio-00002.json", range(1, N_FILES + 1)),
    ("before", "clips.arrow", range(N_FILES, N_FILES + 1)),
    ("after", "clips.arrow", range(N_FILES, N_FILES + 1)),
    ("before", "store.json", range(N_FILES, N_FILES + 1)),
]


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize(("moment", "name", "kept"), MOMENTS, ids=[f"{moment} {name}" for moment, name, _ in MOMENTS])
def test_prepare_goes_on_after_being_killed(tmp_path: Path, moment: str, name: str, kept: range) -> None:
    manifest = write_set(tmp_path)
    assert prepare_manifest(manifest, tmp_path / "undisturbed").files == N_FILES
    out = tmp_path / "store"
    assert start_stopped(manifest, out, moment, name).wait(timeout=60) == -signal.SIGKILL
    if name != "plan.json" or moment == "after":
        with pytest.raises(InputError, match=r"store is not whole: 'audiostride prepare' was stopped; give that comm"):
            read_clips(out)
    assert check_goes_on(manifest, out, tmp_path / "undisturbed") in kept


@pytest.mark.usefixtures("small_files")
def test_a_store_whose_process_was_killed_in_its_last_moment_is_whole_and_tidied_by_the_next(tmp_path: Path) -> None:
    manifest, out = write_set(tmp_path), tmp_path / "store"
    prepare_manifest(manifest, tmp_path / "undisturbed")
    assert start_stopped(manifest, out, "after", "store.json").wait(timeout=60) == -signal.SIGKILL
    assert (out / "plan.json").is_file()
    assert check_same_samples(manifest, out) == [0.0] * 12
    assert prepare_manifest(manifest, out).written == 0
    assert content_of(out) == content_of(tmp_path / "undisturbed")


@pytest.mark.usefixtures("small_files")
def test_prepare_goes_on_after_being_killed_within_a_clip(tmp_path: Path) -> None:
    manifest, out = write_set(tmp_path), tmp_path / "store"
    prepare_manifest(manifest, tmp_path / "undisturbed")
    process = start_stopped(manifest, out, "within", "11.wav")  # alone in the last audio file
    deadline = time.monotonic() + 60
    try:
        while len(finished_files(out)) < N_FILES - 1 or not any(
            file.stat().st_size > 2 * BATCH for file in out.glob(f"{audio_name(N_FILES - 1)}.*.partial")
        ):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert not (out / "store.json").exists()
    assert check_goes_on(manifest, out, tmp_path / "undisturbed") == N_FILES - 1


def stop_at(manifest: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *, clip: str) -> None:
    """Begin a store and stop, within this process, at a clip."""

    class Stopped(Exception):
        pass

    def stream_until(path: str, *part: int, **options: int) -> Iterator[np.ndarray]:
        if Path(path).name == clip:
            raise Stopped
        return stream_samples(path, *part, **options)

    with monkeypatch.context() as patched:
        patched.setattr(store_writer, "stream_samples", stream_until)
        with pytest.raises(Stopped):
            prepare_manifest(manifest, out, jobs=1)


@pytest.mark.usefixtures("small_files")
def test_a_file_that_changed_since_the_stop_is_prepared_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, out = write_set(tmp_path), tmp_path / "store"
    stop_at(manifest, out, monkeypatch, clip="11.wav")
    before = finished_files(out)
    assert sorted(before) == [audio_name(number) for number in range(N_FILES - 1)]
    # Another sound of the same length, in the first clip of the second audio file.
    clip = tmp_path / "5.wav"
    changed = 0.5 * soundfile.read(str(clip))[0]
    write_clip(clip, changed)
    os.utime(clip, ns=(0, clip.stat().st_mtime_ns + 10**9))
    assert prepare_manifest(manifest, out).written == 2  # that file, and the one that was not finished
    kept = {name for name, state in state_of(out).items() if before.get(name) == state}
    assert kept == {audio_name(0), audio_name(2), audio_name(3)}
    prepare_manifest(manifest, tmp_path / "undisturbed")
    assert content_of(out) == content_of(tmp_path / "undisturbed")


@pytest.mark.usefixtures("small_files")
def test_a_finished_file_that_was_damaged_since_the_stop_is_prepared_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, out = write_set(tmp_path), tmp_path / "store"
    stop_at(manifest, out, monkeypatch, clip="11.wav")
    (out / audio_name(0)).write_bytes((out / audio_name(0)).read_bytes()[:-1])
    (out / audio_name(1)).unlink()
    (out / "audio-00002.json").write_text("")  # as a loss of power leaves it
    assert prepare_manifest(manifest, out).written == 4  # these three, and the one that was not finished
    prepare_manifest(manifest, tmp_path / "undisturbed")
    assert content_of(out) == content_of(tmp_path / "undisturbed")


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("change", ["order", "start", "length", "fewer", "rate"])
def test_another_manifest_into_the_same_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool, change: str
) -> None:
    manifest, out = write_set(tmp_path, 6), tmp_path / "store"
    if whole:
        prepare_manifest(manifest, out)
    else:
        stop_at(manifest, out, monkeypatch, clip="5.wav")
    before = content_of(out)
    rows = [f"{number}.wav,a,train,0," for number in range(6)]
    if change in ("start", "length"):
        rows[3] = "3.wav,a,train,0.01," if change == "start" else "3.wav,a,train,0,0.01"
    rows = {"order": rows[::-1], "fewer": rows[:-1]}.get(change, rows)
    write_manifest(tmp_path, *rows, head="path,label,split,start_s,duration_s")
    message = f"holds a store {'of' if whole else 'begun from'} other clips .*remove it, or choose another folder"
    with pytest.raises(InputError, match=message):
        prepare_manifest(manifest, out, sample_rate=8000 if change == "rate" else 16000)
    assert content_of(out) == before


@pytest.mark.usefixtures("small_files")
def test_new_labels_come_into_a_whole_store_without_touching_its_audio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, out = write_set(tmp_path), tmp_path / "store"
    prepare_manifest(manifest, out)
    before = state_of(out)
    index = (out / "clips.arrow").stat().st_ino
    monkeypatch.setattr(prepare, "write_audio_file", None)
    assert prepare_manifest(manifest, out).written == 0
    assert (out / "clips.arrow").stat().st_ino == index  # nothing to write
    write_manifest(tmp_path, *(f"{n}.wav,{n},test,s{n % 3}" for n in range(12)), head="path,label,split,group")
    summary = prepare_manifest(manifest, out)
    assert (summary.clips, summary.written) == (12, 0)
    assert state_of(out) == before
    clips, stored = read_clips(manifest), read_clips(out)
    pd.testing.assert_frame_equal(clips, stored[clips.columns.tolist()])
    assert stored["label"].tolist() == [str(number) for number in range(12)]
    assert check_same_samples(manifest, out) == [0.0] * 12


@pytest.mark.usefixtures("small_files")
def test_a_store_stays_whole_when_the_data_are_moved(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    prepare_manifest(write_set(tmp_path / "here"), tmp_path / "store")
    before = state_of(tmp_path / "store")
    (tmp_path / "here").rename(tmp_path / "there")
    manifest = tmp_path / "there" / "m.csv"
    assert prepare_manifest(manifest, tmp_path / "store").written == 0
    assert state_of(tmp_path / "store") == before
    assert read_clips(tmp_path / "store")["path"].tolist() == read_clips(manifest)["path"].tolist()


# ---- bad clips ----


def spoil(folder: Path) -> dict[int, str]:
    """Make three clips bad in ways that only decoding shows; returns their lines and what is said of them."""
    for number, value in ((5, np.nan), (6, np.inf)):  # in the same audio file
        samples = np.zeros(600 + 100 * number, dtype=np.float32)
        samples[-1] = value
        write_clip(folder / f"{number}.wav", samples, subtype="FLOAT")
    write_clip(folder / "9.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 1500))
    cut = (folder / "9.flac").read_bytes()
    (folder / "9.wav").write_bytes(cut[: len(cut) // 2])
    return {7: r"5\.wav holds 1 samples", 8: r"6\.wav holds 1 samples", 11: r"9\.wav cannot be decoded"}


@pytest.mark.usefixtures("small_files")
def test_all_bad_clips_are_listed_and_what_is_written_stays(tmp_path: Path) -> None:
    manifest, out = write_set(tmp_path), tmp_path / "store"
    prepare_manifest(manifest, tmp_path / "undisturbed")
    good = {number: (tmp_path / f"{number}.wav").read_bytes() for number in (5, 6, 9)}
    expected = spoil(tmp_path)
    with pytest.raises(InputError) as caught:
        prepare_manifest(manifest, out)
    message = str(caught.value)
    assert "m.csv: 3 bad rows" in message
    assert "(what is written already stays), or leave them out with --on-error skip" in message
    for line, reason in expected.items():
        assert re.search(f"  line {line}: audio file .*{reason}", message)
    assert not (out / "store.json").exists()
    before = state_of(out)
    # Mended, only the audio files that hold them are written again.
    for number, content in good.items():
        (tmp_path / f"{number}.wav").write_bytes(content)
    assert prepare_manifest(manifest, out).written == 2
    assert before.items() & state_of(out).items() == {(name, before[name]) for name in map(audio_name, (0, 2, 4))}
    assert content_of(out) == content_of(tmp_path / "undisturbed")


@pytest.mark.usefixtures("small_files")
def test_a_clip_that_failed_for_a_reason_outside_its_file_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, out = write_set(tmp_path), tmp_path / "store"

    def refuse(path: str, *part: int, **options: int) -> Iterator[np.ndarray]:
        if Path(path).name == "5.wav":
            raise InputError("install ffmpeg")
        return stream_samples(path, *part, **options)

    with monkeypatch.context() as patched:
        patched.setattr(store_writer, "stream_samples", refuse)
        with pytest.raises(InputError, match="line 7: install ffmpeg"):
            prepare_manifest(manifest, out)
    assert prepare_manifest(manifest, out).written == 1
    assert check_same_samples(manifest, out) == [0.0] * 12


@pytest.mark.usefixtures("small_files")
def test_clips_that_their_header_shows_to_be_bad_are_listed_before_anything_is_written(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, 4)
    (tmp_path / "1.wav").write_bytes(b"")
    write_manifest(tmp_path, "0.wav,a,0,9", "1.wav,a,0,", "2.wav,a,0,0.01", "3.wav,a,8,", head=PARTS)
    with pytest.raises(InputError, match=r"(?s)3 bad rows.*line 2: .*too short.*line 3: .*empty.*line 5: .*too short"):
        prepare_manifest(manifest, tmp_path / "store")
    assert not (tmp_path / "store").exists()


PARTS = "path,label,start_s,duration_s"


@pytest.mark.usefixtures("small_files")
def test_bad_clips_can_be_left_out_and_are_listed(tmp_path: Path) -> None:
    manifest, out = write_set(tmp_path), tmp_path / "store"
    expected = spoil(tmp_path)
    (tmp_path / "4.wav").unlink()  # line 6
    clips, bad = inspect_manifest(manifest, labels=("label",))
    assert bad.kinds == ["missing"]
    summary = prepare_store(clips, out, where="m.csv", progress=False, on_error="skip")
    assert [line for line, _ in summary.skipped] == [6, 7, 8, 11]
    assert summary.clips == 8
    listed = pd.read_csv(out / "skipped.csv")
    assert listed["line"].tolist() == [6, 7, 8, 11]
    for line, reason in {**expected, 6: r"4\.wav does not exist"}.items():
        assert listed.loc[listed["line"] == line, "reason"].str.contains(reason).all()
    assert read_store_header(out)["skipped"] == 4
    again = prepare_store(clips, out, where="m.csv", progress=False, on_error="skip")
    assert (again.skipped, again.written) == (summary.skipped, 0)
    # The good ones are there, each with its own samples.
    stored = read_clips(out)
    assert stored["line"].tolist() == [2, 3, 4, 5, 9, 10, 12, 13]
    write_manifest(tmp_path, *(f"{line - 2}.wav,a,train" for line in stored["line"]))
    assert check_same_samples(manifest, out) == [0.0] * 8


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("visible", [True, False])
def test_a_store_of_bad_clips_only_is_an_error(tmp_path: Path, visible: bool) -> None:
    manifest = write_set(tmp_path, 2)
    for number in range(2):
        write_clip(tmp_path / f"{number}.wav", np.full(0 if visible else 100, np.nan), subtype="FLOAT")
    with pytest.raises(
        InputError, match=rf"must have clips that can be {'read' if visible else 'decoded'}, got none of 2"
    ):
        prepare_manifest(manifest, tmp_path / "store", on_error="skip")


# ---- where it is written ----


@pytest.mark.usefixtures("small_files")
def test_too_little_space_is_told_before_audio_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, out = write_set(tmp_path), tmp_path / "store"
    need = 2 * sum(600 + 100 * number for number in range(12))
    usage = SimpleNamespace(free=need - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"must have room on the disk, but needs .* choose another disk with -o"):
        prepare_manifest(manifest, out)
    assert not list(out.glob("audio-*"))
    usage.free = need
    clips, _ = inspect_manifest(manifest, labels=("label",))
    prepare_store(clips, out, where="m.csv", jobs=2)
    assert "needs 0 MiB of disk, 0 MiB are free\n" in capsys.readouterr().out
    check_store_is_clean(out, N_FILES)


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    manifest, out = write_set(tmp_path, 2), tmp_path / "store"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    for path in (out, out / "thesis.txt"):
        with pytest.raises(InputError, match=rf"-o must be a new or empty folder, .*, got {path}"):
            prepare_manifest(manifest, path)
    assert content_of(out) == {"thesis.txt": b"years of work"}
    (out / "thesis.txt").unlink()
    assert prepare_manifest(manifest, out).clips == 2  # an empty one will do


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_set(tmp_path, 2)
    with pytest.raises(InputError, match=r"prepare: writing .*below failed: .*Not a directory"):
        prepare_manifest(manifest, manifest / "below")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)  # where a full disk shows at the latest
        with pytest.raises(InputError, match=r"writing .*store failed: .*No space left.*the same command goes on"):
            prepare_manifest(manifest, tmp_path / "store")
    prepare_manifest(manifest, tmp_path / "store")
    check_store_is_clean(tmp_path / "store", 1)


@pytest.mark.usefixtures("small_files")
def test_the_number_of_jobs_does_not_change_the_store(tmp_path: Path) -> None:
    manifest = write_set(tmp_path)
    for jobs in (1, 3):
        prepare_manifest(manifest, tmp_path / f"{jobs}", jobs=jobs)
    assert content_of(tmp_path / "1") == content_of(tmp_path / "3")


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("jobs", [1, 3])
def test_as_many_audio_files_are_written_at_a_time_as_there_are_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    manifest = write_set(tmp_path)
    # Passes when as many threads as jobs are in it at once, and breaks when they never are.
    meeting = threading.Barrier(jobs, timeout=30)
    write, threads = prepare.write_audio_file, []

    def meet_and_write(out: Path, number: int, *rest: object, **options: int) -> object:
        threads.append(threading.get_ident())
        if number < jobs:
            meeting.wait()
        return write(out, number, *rest, **options)

    monkeypatch.setattr(prepare, "write_audio_file", meet_and_write)
    assert prepare_manifest(manifest, tmp_path / "store", jobs=jobs).written == N_FILES
    assert len(set(threads)) == jobs


# ---- damage ----


@pytest.fixture(scope="module")
def whole_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of several audio files, each of several batches. What a test changes it puts back."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store_writer, "BATCH_SAMPLES", BATCH)
        patched.setattr(prepare, "MIN_FILE_SAMPLES", FILE)
        prepare_manifest(write_set(folder), folder / "store")
    return folder / "store"


def verify_with(file: Path, content: bytes) -> list[str]:
    """What verifying says while an audio file has another content of the same length."""
    before = file.read_bytes()
    assert len(content) == len(before)
    assert content != before
    try:
        # A new file each time: the old one may still be mapped.
        file.unlink()
        file.write_bytes(content)
        return verify_store(file.parent, progress=False)
    finally:
        file.unlink()
        file.write_bytes(before)


def map_samples(file: Path, *, of: Path | None = None) -> list[np.ndarray]:
    """The record batches of an audio file of a store; or of another file in the place of `of`."""
    number = int((of or file).stem.partition("-")[2])
    return map_batches(file, read_store_header(file.parent)["files"][number]["samples"])


within_this_module = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.mark.usefixtures("small_files")
@within_this_module
@given(data=st.data())
def test_every_flipped_bit_of_the_samples_is_found(whole_store: Path, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, N_FILES - 1), label="audio file")
    file = whole_store / audio_name(number)
    content = bytearray(file.read_bytes())
    batch = data.draw(st.sampled_from([batch.tobytes() for batch in map_samples(file)]), label="batch")
    assert content.count(batch) == 1
    place = content.index(batch) + data.draw(st.integers(0, len(batch) - 1), label="byte")
    content[place] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    found = verify_with(file, bytes(content))
    assert len(found) == 1
    assert found[0].startswith(f"{file.name} is damaged: its checksum must be")


@pytest.mark.usefixtures("small_files")
@within_this_module
@given(data=st.data())
def test_every_other_flipped_bit_is_found_or_does_no_harm(whole_store: Path, data: st.DataObject) -> None:
    file = whole_store / audio_name(1)
    content = bytearray(file.read_bytes())
    batches = map_samples(file)
    starts = [content.index(batch.tobytes()) for batch in batches]
    samples = {
        place for start, batch in zip(starts, batches, strict=True) for place in range(start, start + batch.nbytes)
    }
    place = data.draw(st.sampled_from(sorted(set(range(len(content))) - samples)), label="byte")
    content[place] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    if verify_with(file, bytes(content)) == []:
        damaged = file.with_name("damaged")
        damaged.write_bytes(content)
        for batch, read in zip(batches, map_samples(damaged, of=file), strict=True):
            assert batch.dtype == read.dtype
            np.testing.assert_array_equal(batch, read)
        damaged.unlink()


@pytest.mark.usefixtures("small_files")
def test_samples_of_another_kind_are_refused(whole_store: Path) -> None:
    # The one bit of Arrow's schema that says that int16 has a sign leaves the samples' bytes as they are.
    file = whole_store / audio_name(0)
    content = file.read_bytes()
    found = []
    for place in range(len(content) - 400, len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1
        found += verify_with(file, bytes(flipped))
    assert any("it must hold int16 samples, got [DataType(uint16)]" in line for line in found)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("damage", ["truncated", "missing", "longer"])
def test_an_audio_file_of_another_size_is_found_at_once(whole_store: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "store"
    shutil.copytree(whole_store, out)
    file = out / audio_name(2)
    content = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes(content[:-1] if damage == "truncated" else content + b"\0")
    got = {"truncated": len(content) - 1, "missing": "no such file", "longer": len(content) + 1}[damage]
    for use in (read_clips, partial(verify_store, progress=False)):
        with pytest.raises(InputError, match=rf"{file.name} must have {len(content)} bytes, got {got}; copy the store"):
            use(out)


@pytest.mark.usefixtures("small_files")
def test_a_store_can_be_moved(whole_store: Path, tmp_path: Path) -> None:
    shutil.copytree(whole_store, tmp_path / "elsewhere")
    reader, moved = (StoreReader(read_clips(folder)) for folder in (whole_store, tmp_path / "elsewhere"))
    assert reader.n_samples.tolist() == moved.n_samples.tolist()
    assert read_clips(tmp_path / "elsewhere")["store"].unique().tolist() == [str(tmp_path / "elsewhere")]


@pytest.mark.usefixtures("small_files")
def test_a_store_of_another_version_is_refused(whole_store: Path, tmp_path: Path) -> None:
    shutil.copytree(whole_store, tmp_path / "store")
    header = read_store_header(whole_store)
    (tmp_path / "store" / "store.json").write_text(json.dumps({**header, "format_version": 0}))
    with pytest.raises(InputError, match=r"must have format version 1, got 0; prepare it again from its manifest"):
        read_clips(tmp_path / "store")


def test_a_store_of_another_sample_rate_is_refused(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, 2)
    prepare_manifest(manifest, tmp_path / "store", sample_rate=8000)
    clips = read_clips(tmp_path / "store")
    with pytest.raises(InputError, match="must be at the 16000 Hz of the model, got 8000; prepare it anew"):
        StoreReader(clips)
    reader, files = (
        StoreReader(clips, sample_rate=8000),
        open_reader(read_clips(manifest), sample_rate=8000, progress=False),
    )
    np.testing.assert_allclose(read_clip(reader, 0), read_clip(files, 0), rtol=0, atol=1 / 65536 + 2**-22)


@pytest.mark.usefixtures("small_files")
@given(data=st.data())
def test_every_flipped_bit_of_the_index_is_refused(whole_store: Path, data: st.DataObject) -> None:
    file = whole_store / "clips.arrow"
    whole = file.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << data.draw(st.integers(0, 7))]) + whole[place + 1 :])
    try:
        with pytest.raises(InputError, match=r"clips\.arrow must have the checksum"):
            read_clips(whole_store)
    finally:
        file.write_bytes(whole)


def test_new_labels_that_a_stop_cut_short_leave_a_store_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, out = write_set(tmp_path / "set"), tmp_path / "store"
    prepare_manifest(manifest, out)
    manifest.write_text(manifest.read_text().replace("train", "test"))
    for stopped in ("before", "after"):

        def replace_and_stop(source: Path, target: Path, stopped: str = stopped) -> None:
            if Path(target).name != "clips.arrow":
                os.rename(source, target)
                return
            if stopped == "after":
                os.rename(source, target)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace_and_stop)
            with pytest.raises(KeyboardInterrupt):
                prepare_manifest(manifest, out)
        assert (read_clips(out)["split"] == "train").any() == (stopped == "before")
    prepare_manifest(manifest, out)
    assert not (read_clips(out)["split"] == "train").any()
    assert len(json.loads((out / "store.json").read_text())["index"]) == 1


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sample_rate", 0, r"sample_rate must be a whole number >= 1, got 0; copy the store again, or remove it"),
        ("sample_rate", None, r"sample_rate must be a whole number >= 1, got None"),
        ("clips", 11, r"store\.json and clips\.arrow must tell of the same clips and files; copy the store again"),
        ("files", {"a": 1}, r"files must be a list, got \{'a': 1\}"),
        ("files", [{}], r"files\[0\] must have bytes, checksum, samples, got none"),
        ("index", {}, r"index must be a list, got \{\}"),
        ("index", [], r"clips\.arrow must have the checksum , got"),
        ("fingerprint", 1, r"fingerprint must be text, got 1"),
    ],
)
def test_a_header_that_is_none_is_refused(
    whole_store: Path, tmp_path: Path, name: str, value: object, message: str
) -> None:
    shutil.copytree(whole_store, tmp_path / "store")
    header = json.loads((whole_store / "store.json").read_text())
    (tmp_path / "store" / "store.json").write_text(json.dumps({**header, name: value}))
    with pytest.raises(InputError, match=message):
        StoreReader(read_clips(tmp_path / "store"))


@pytest.mark.usefixtures("small_files")
def test_fewer_files_or_samples_than_clips_point_to_are_refused(whole_store: Path, tmp_path: Path) -> None:
    shutil.copytree(whole_store, tmp_path / "store")
    header = json.loads((whole_store / "store.json").read_text())
    shorter = [{**entry, "samples": entry["samples"] - 1} for entry in header["files"]]
    for files in (header["files"][:-1], shorter):
        (tmp_path / "store" / "store.json").write_text(json.dumps({**header, "files": files}))
        with pytest.raises(InputError, match="must tell of the same clips and files"):
            read_clips(tmp_path / "store")


@pytest.mark.usefixtures("small_files")
def test_a_damaged_audio_file_is_an_error_of_whoever_reads_it(whole_store: Path, tmp_path: Path) -> None:
    shutil.copytree(whole_store, tmp_path / "store")
    file = tmp_path / "store" / audio_name(0)
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-6] + b"ARROW?")
    reader = StoreReader(read_clips(tmp_path / "store"))
    with pytest.raises(InputError, match=r"audio-00000\.arrow is damaged: .*; copy the store again, or remove it"):
        reader.read(0, 0, 100)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("change", ["store_offset", "checksum", "errors", "check", "no JSON"])
def test_a_changed_record_is_told_from_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    manifest, out = write_set(tmp_path / "set"), tmp_path / "store"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(prepare, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare_manifest(manifest, out)
    record = out / "audio-00001.json"
    values = json.loads(record.read_text())
    put = {"store_offset": values["store_offset"][::-1], "checksum": "0" * 32, "errors": [[1, "x"]], "check": None}
    record.write_text(record.read_text()[:-9] if change == "no JSON" else json.dumps({**values, change: put[change]}))
    assert prepare_manifest(manifest, out).written == 1
    check_store_is_clean(out, N_FILES)
    assert check_same_samples(manifest, out) == [0.0] * 12


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "plan.json must be JSON, but reading it failed"),
        ('{"fingerprint": "x"}', "must have files, got none; remove"),
        ('{"fingerprint": "FOUND", "files": [[0, 5], [6, 12]]}', "must share out 12 clips in order; remove"),
        ('{"fingerprint": "FOUND", "files": [[0, 12], [12, 12]]}', "must share out 12 clips in order; remove"),
        ('{"fingerprint": "FOUND", "files": [[0, 12.5]]}', r"files\[0\]\[1\] must be a whole number, got 12.5"),
    ],
)
def test_a_changed_plan_is_refused(tmp_path: Path, content: str, message: str) -> None:
    manifest, out = write_set(tmp_path / "set"), tmp_path / "store"
    prepare_manifest(manifest, tmp_path / "whole")
    out.mkdir()
    (out / "plan.json").write_text(content.replace("FOUND", read_store_header(tmp_path / "whole")["fingerprint"]))
    with pytest.raises(InputError, match=message):
        prepare_manifest(manifest, out)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("batch_says_so_too", [False, True])
def test_more_samples_than_an_audio_file_holds_are_never_read(
    whole_store: Path, tmp_path: Path, batch_says_so_too: bool
) -> None:
    shutil.copytree(whole_store, tmp_path / "store")
    header = json.loads((whole_store / "store.json").read_text())
    last = header["files"][1]["samples"] % BATCH
    header["files"][1]["samples"] += 64
    (tmp_path / "store" / "store.json").write_text(json.dumps(header))
    if batch_says_so_too:  # which then reaches beyond the bytes of its samples
        file = tmp_path / "store" / audio_name(1)
        content = file.read_bytes()
        assert content.count(struct.pack("<q", last)) == 2
        file.unlink()
        file.write_bytes(content.replace(struct.pack("<q", last), struct.pack("<q", last + 64)))
    reader = StoreReader(read_clips(tmp_path / "store"))
    with pytest.raises(InputError, match=r"audio-00001\.arrow is damaged: .*; copy the store again"):
        reader.read(4, 0, 100)

"""Files and store give the same samples of every clip, for any window, in any process."""

import multiprocessing
import pickle
import re
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiostride.dataset import prepare, readers, store, store_writer
from audiostride.dataset.manifest import inspect_manifest
from audiostride.dataset.prepare import prepare_store
from audiostride.dataset.readers import AudioReader, FileReader, StoreReader, clip_span, open_reader
from audiostride.errors import InputError
from lab.clips import read_clips

BATCH = 1000

# Half an int16 step, and 2^-22 for the rounding of float32 at full scale. Parts of resampled files add 1e-6.
STEP = 1 / 65536 + 2**-22
PART = 1e-6


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of clips of many kinds, and a store of it with short record batches."""
    folder = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)
    write = soundfile.write
    write(str(folder / "plain.wav"), rng.uniform(-0.9, 0.9, 2345), 16000)
    write(str(folder / "stereo.flac"), rng.uniform(-0.9, 0.9, (6000, 2)), 44100, subtype="PCM_24")
    write(str(folder / "phone.wav"), rng.uniform(-0.5, 0.5, 801), 8000)
    write(str(folder / "loud.wav"), rng.uniform(-3, 3, 1500), 16000, subtype="FLOAT")
    write(str(folder / "lossy.ogg"), rng.uniform(-0.5, 0.5, 20000), 16000)
    write(str(folder / "low.mp3"), rng.uniform(-0.5, 0.5, 20000), 22050)
    write(str(folder / "tiny.wav"), np.array([0.25]), 16000)
    rows = ["plain.wav,a,,", "stereo.flac,b,,", "phone.wav,a,,", "loud.wav,b,,", "lossy.ogg,a,,", "low.mp3,b,,"]
    rows += ["tiny.wav,a,,", "plain.wav,b,0.05,0.04", "stereo.flac,a,0.1,", "lossy.ogg,b,1.1,0.1", "low.mp3,a,0.3,0.2"]
    (folder / "m.csv").write_text("\n".join(["path,label,start_s,duration_s", *rows]) + "\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store_writer, "BATCH_SAMPLES", BATCH)
        patched.setattr(prepare, "MIN_FILE_SAMPLES", 5000)
        clips, _ = inspect_manifest(folder / "m.csv", labels=("label",))
        assert prepare_store(clips, folder / "store", where="m.csv", progress=False).files > 2
    return folder


@pytest.fixture(scope="module", autouse=True)
def short_batches() -> "object":
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "BATCH_SAMPLES", BATCH)
        yield


@pytest.fixture(scope="module")
def opened(root: Path) -> dict[str, AudioReader]:
    clips = read_clips(root / "m.csv")
    with pytest.MonkeyPatch.context() as patched:
        memory = open_reader(clips, progress=False)
        no_memory = FileReader(clips, memory_mib=0, progress=False)
        patched.setattr(readers, "KEEP_BELOW_S", 0.1)  # clips longer than that are not kept
        some = FileReader(clips, progress=False)
    return {"memory": memory, "no memory": no_memory, "some": some, "store": open_reader(read_clips(root / "store"))}


def test_the_readers_are_those_that_are_meant(opened: dict[str, AudioReader]) -> None:
    kept = {}
    for name in ("memory", "no memory", "some"):
        files = opened[name]
        assert isinstance(files, FileReader)
        kept[name] = len(files._decoded)
    assert kept["memory"] == len(opened["memory"]) == 11
    assert kept["no memory"] == 0
    assert 0 < kept["some"] < 11
    assert isinstance(opened["store"], StoreReader)


def read_clip(reader: AudioReader, index: int) -> np.ndarray:
    """All samples of a clip."""
    return reader.read(index, 0, int(reader.n_samples[index]))


def check_equal(opened: dict[str, AudioReader], index: int, read: Callable[[AudioReader], np.ndarray]) -> np.ndarray:
    expected = read(opened["memory"])
    scale = max(1.0, float(np.abs(read_clip(opened["memory"], index)).max()) * 1.001)
    for name, other in opened.items():
        tolerance = scale * STEP if name == "store" else PART
        np.testing.assert_allclose(read(other), expected, rtol=0, atol=tolerance, err_msg=name)
    return expected


def test_all_clips_are_the_same_everywhere(opened: dict[str, AudioReader]) -> None:
    for name, other in opened.items():
        assert other.sample_rate == 16000
        assert len(other) == 11, name
        np.testing.assert_array_equal(other.n_samples, opened["memory"].n_samples)
        assert other.n_samples.dtype == np.int64
        np.testing.assert_array_equal(other.kept, np.arange(11))
        assert other.skipped == []
    for index in range(11):
        clip = check_equal(opened, index, lambda one, index=index: read_clip(one, index))
        assert len(clip) == opened["memory"].n_samples[index]
        assert clip.dtype == np.float32
        assert np.abs(clip).max() > 0.1  # something to compare


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(index=st.integers(0, 10), start=st.integers(-3000, 21000), window=st.integers(0, 4000))
def test_all_windows_are_the_same_everywhere(
    opened: dict[str, AudioReader], index: int, start: int, window: int
) -> None:
    got = check_equal(opened, index, lambda one: one.read(index, start, window))
    # What lies outside the clip is zero, in all of them; what lies inside is the clip.
    places = np.arange(start, start + window)
    clip = read_clip(opened["memory"], index)
    inside = (places >= 0) & (places < len(clip))
    for one in opened.values():
        assert (one.read(index, start, window)[~inside] == 0).all()
    np.testing.assert_array_equal(got[inside], clip[places[inside]])

    def read_into(one: AudioReader) -> np.ndarray:
        out = np.full(window, np.nan, dtype=np.float32)
        assert one.read_into(index, start, out)
        return out

    check_equal(opened, index, read_into)


def test_rows_of_a_batch_can_be_filled_in_place(opened: dict[str, AudioReader]) -> None:
    for one in opened.values():
        batch = np.full((3, 500), np.nan, dtype=np.float32)
        for row, index in enumerate((0, 6, 4)):
            one.read_into(index, -20, batch[row])
        np.testing.assert_array_equal(batch, np.stack([one.read(index, -20, 500) for index in (0, 6, 4)]))


# ---- processes ----


def read_in_worker(one: AudioReader, index: int) -> np.ndarray:
    return read_clip(one, index)


@pytest.mark.parametrize("name", ["memory", "no memory", "store"])
def test_readers_can_be_sent_to_other_processes(opened: dict[str, AudioReader], name: str) -> None:
    original = opened[name]
    read_clip(original, 1)
    content = pickle.dumps(original)
    if name == "store":
        assert len(content) < 5000  # places, not samples
    copy = pickle.loads(content)
    for index in range(len(original)):
        np.testing.assert_array_equal(read_clip(copy, index), read_clip(original, index))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.parametrize("read_before", [False, True])
def test_a_store_is_read_by_forked_workers(root: Path, read_before: bool) -> None:
    original = StoreReader(read_clips(root / "store"))
    if read_before:
        read_clip(original, 0)  # its files are mapped then
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forking beside threads
        with ProcessPoolExecutor(2, mp_context=context, initializer=_receive, initargs=(original,)) as pool:
            results = list(pool.map(_read_forked, range(len(original))))
    for index, result in enumerate(results):
        np.testing.assert_array_equal(result, read_clip(original, index))


_forked: list[AudioReader] = []


def _receive(one: AudioReader) -> None:
    _forked.append(one)


def _read_forked(index: int) -> np.ndarray:
    return read_clip(_forked[0], index)


# ---- bad clips ----


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A manifest of five clips, the second, third and fourth of them bad."""
    rng = np.random.default_rng(0)
    for name in ("good", "better"):
        soundfile.write(str(tmp_path / f"{name}.wav"), rng.uniform(-0.5, 0.5, 3200), 16000)
    soundfile.write(str(tmp_path / "nan.wav"), np.full(3200, np.nan), 16000, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("no audio")
    rows = ["good.wav,a,", "nan.wav,a,", "text.wav,b,", "good.wav,b,3", "better.wav,b,"]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,duration_s", *rows]) + "\n")
    return tmp_path / "m.csv"


@pytest.mark.parametrize("memory_mib", [0, 100])
def test_all_bad_clips_are_reported_before_anything_starts(bad: Path, memory_mib: float) -> None:
    # Clips that are not kept are decoded all the same, so that none is found bad hours later.
    with pytest.raises(InputError) as caught:
        FileReader(read_clips(bad), where="m.csv", memory_mib=memory_mib, progress=False)
    lines = str(caught.value).splitlines()
    assert lines[0] == "m.csv: 3 bad rows"
    for line, part in zip(lines[1:4], ("line 3: .*nan.wav", "line 4: .*text.wav", "line 5: .*0.2 s long"), strict=True):
        assert pd.Series([line]).str.contains(part).all()
    assert lines[4] == "mend or remove these rows, or go on without them: --on-error skip"


def test_bad_clips_can_be_left_out(bad: Path) -> None:
    files = FileReader(read_clips(bad), on_error="skip", progress=False)
    assert [line for line, _ in files.skipped] == [3, 4, 5]
    assert "nan.wav holds 3200 samples" in files.skipped[0][1]
    assert files.kept.tolist() == [0, 4]
    assert files.n_samples.tolist() == [3200, 3200]
    for index, name in enumerate(("good", "better")):
        expected = soundfile.read(str(bad.with_name(f"{name}.wav")), dtype="float32")[0]
        np.testing.assert_array_equal(read_clip(files, index), expected)


def test_clips_that_are_not_kept_are_decoded_all_the_same_before_they_are_left_out(bad: Path) -> None:
    files = FileReader(read_clips(bad), on_error="skip", memory_mib=0, progress=False)
    assert files.kept.tolist() == [0, 4]  # a NaN does not show in the header
    assert [line for line, _ in files.skipped] == [3, 4, 5]


def test_a_reader_of_bad_clips_only_is_empty(bad: Path) -> None:
    files = FileReader(read_clips(bad).iloc[1:4], on_error="skip", progress=False)
    assert (len(files), len(files.skipped), files.kept.tolist()) == (0, 3, [])


@pytest.mark.parametrize("fate", ["missing", "shorter", "text"])
def test_a_file_that_goes_bad_later_is_named(tmp_path: Path, fate: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(str(path), np.full(3200, 0.5), 16000)
    (tmp_path / "m.csv").write_text("path,label\na.wav,x\n")
    files = FileReader(read_clips(tmp_path / "m.csv"), memory_mib=0, progress=False)
    skipping = FileReader(read_clips(tmp_path / "m.csv"), memory_mib=0, on_error="skip", progress=False)
    memory = FileReader(read_clips(tmp_path / "m.csv"), progress=False)
    if fate == "missing":
        path.unlink()
    elif fate == "shorter":
        soundfile.write(str(path), np.full(1600, 0.5), 16000)
    else:
        path.write_text("no audio")
    message = {"missing": "does not exist", "shorter": r"start must lie in \[0, 0\.1\) s", "text": "cannot be read"}
    with pytest.raises(InputError, match=rf"a\.wav:? {message[fate]}"):
        files.read(0, 2000, 100)
    assert files.failed == {}
    # Or, where that is asked for, gives silence and is noted.
    out = np.full(100, 0.25, dtype=np.float32)
    assert not skipping.read_into(0, 2000, out)
    assert (out == 0).all()
    assert list(skipping.failed) == [0]
    assert re.search(rf"a\.wav:? {message[fate]}", skipping.failed[0])
    for one in (files, skipping):
        assert one.read_into(0, 4000, out)  # beyond the clip nothing is read
        assert (out == 0).all()
    assert memory.read_into(0, 2000, out)
    assert (out == 0.5).all()


def test_memory_is_filled_up_to_what_is_allowed(tmp_path: Path) -> None:
    for number in range(8):
        soundfile.write(str(tmp_path / f"{number}.wav"), np.full(2**16, 0.1), 16000)
    (tmp_path / "m.csv").write_text("path,label\n" + "".join(f"{number}.wav,x\n" for number in range(8)))
    clips = read_clips(tmp_path / "m.csv")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(readers, "default_jobs", lambda: 1)  # each other thread may add a clip beyond
        files = FileReader(clips, memory_mib=0.8, progress=False)  # three clips of 256 KiB
    assert len(files._decoded) == 3
    assert files.n_samples.tolist() == [2**16] * 8
    assert all((read_clip(files, index) == read_clip(files, 0)).all() for index in range(8))


# ---- spans ----


def test_the_span_of_a_clip_is_counted_at_the_rate_that_is_asked_for(root: Path) -> None:
    path, nan = str(root / "plain.wav"), float("nan")  # 2,345 samples at 16 kHz
    assert clip_span(path, 0.0, nan, sample_rate=16000) == (0, 2345)
    assert clip_span(path, 0.0, nan, sample_rate=8000) == (0, 1173)
    assert clip_span(path, 0.05, nan, sample_rate=16000) == (800, 1545)
    assert clip_span(path, 0.05, 0.04, sample_rate=16000) == (800, 640)
    assert clip_span(path, 0.05, 1e-9, sample_rate=16000) == (800, 1)
    # Manifests round: what ends up to 10 ms behind its file ends with it.
    assert clip_span(path, 0.05, 0.1, sample_rate=16000) == (800, 1545)
    with pytest.raises(
        InputError, match=r"plain\.wav is 0\.14656. s long, too short for start_s=0\.05, duration_s=0\.11$"
    ):
        clip_span(path, 0.05, 0.11, sample_rate=16000)
    with pytest.raises(InputError, match=r"plain\.wav is 0\.14656. s long, too short for start_s=0\.2$"):
        clip_span(path, 0.2, nan, sample_rate=16000)

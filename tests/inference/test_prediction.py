"""`AudioClassifier.predict`: paths and arrays in, the table of the command out."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
import torch

from audiostride import AudioClassifier, ClassifierConfig, InputError, load_classifier
from audiostride.inference.engine import predict_recordings
from audiostride.inference.granularity import RecordingResult
from audiostride.inference.reading import tile_blocks
from audiostride.inference.recordings import Recording, expand_paths
from audiostride.inference.settings import PredictionSettings
from audiostride.inference.tiling import Tiling
from audiostride.models import save_classifier

Run = Callable[..., int]
SETTINGS = {"channels": [16], "strides": [[4, 4]]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of two tasks, and sounds of several rates beside it."""
    torch.manual_seed(1)
    root = tmp_path_factory.mktemp("saved")
    tasks = {"kind": ["a", "b", "c"], "size": ["small", "large"]}
    save_classifier(AudioClassifier(ClassifierConfig(tasks=tasks, **SETTINGS)), root / "model.safetensors")
    rng = np.random.default_rng(0)
    (root / "sounds").mkdir()
    for name, rate, seconds in [("a.wav", 16000, 3.7), ("b.flac", 44100, 1.2), ("c.wav", 8000, 0.3)]:
        samples = rng.uniform(-0.5, 0.5, (round(rate * seconds), 2)) * np.linspace(0, 1, round(rate * seconds))[:, None]
        soundfile.write(str(root / "sounds" / name), samples, rate)
    return root


OPTIONS = [
    ([], {}),
    (["--per-clip"], {"per_clip": True}),
    (["--per-window"], {"per_window": True}),
    (["--per-window", "--hop", "0.3"], {"per_window": True, "hop_s": 0.3}),
    (
        ["--events", "--hop", "0.5", "--threshold", "0.45", "--merge-gap", "1"],
        {"events": True, "hop_s": 0.5, "threshold": 0.45, "merge_gap_s": 1.0},
    ),
]


@pytest.mark.parametrize(("options", "settings"), OPTIONS)
def test_python_gives_the_table_of_the_command(
    saved: Path, run_command: Run, tmp_path: Path, options: list[str], settings: dict[str, object]
) -> None:
    assert run_command("predict", saved, saved / "sounds", "-o", tmp_path / "p.csv", *options) == 0
    found = load_classifier(saved).predict(saved / "sounds", **settings)
    pd.testing.assert_frame_equal(found, pd.read_csv(tmp_path / "p.csv"))
    assert found.columns.tolist() == ["path", "start_s", "end_s", "task", "label", "score"]
    assert found["path"].nunique() == 3
    assert found.attrs["errors"] == []


def test_arrays_are_predicted_like_their_files(saved: Path) -> None:
    model = load_classifier(saved)
    for name in ("a.wav", "b.flac", "c.wav"):
        samples, rate = soundfile.read(str(saved / "sounds" / name), dtype="float32")
        mono = samples.mean(axis=1)
        from_file = model.predict(str(saved / "sounds" / name), per_window=True)
        for array in (mono, mono.astype(np.float64), torch.from_numpy(mono), mono[::-1].copy()[::-1]):
            found = model.predict(array, sample_rate=rate, per_window=True)
            assert found["path"].unique().tolist() == ["array 0"]
            # soundfile's channels are averaged in another order.
            pd.testing.assert_frame_equal(found.drop(columns="path"), from_file.drop(columns="path"), atol=1e-4)


def test_arrays_and_paths_go_together_in_order(saved: Path) -> None:
    model, path = load_classifier(saved), saved / "sounds" / "a.wav"
    found = model.predict([np.zeros(800), path, torch.zeros(40000)], sample_rate=16000, per_clip=True)
    assert found["path"].tolist() == ["array 0"] * 2 + [str(path)] * 2 + ["array 1"] * 2
    assert found["end_s"].tolist() == [0.05] * 2 + [3.7] * 2 + [2.5] * 2


def test_arrays_of_another_rate_are_resampled(saved: Path) -> None:
    model = load_classifier(saved)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 100000)
    found = model.predict(samples, sample_rate=44100)
    expected = model.predict(soxr.resample(samples.astype(np.float32), 44100, 16000, quality="HQ"), sample_rate=16000)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(
    ("given", "rate", "message"),
    [
        (np.zeros((2, 100)), 16000, r"array 0 must be 1-D.*got shape \(2, 100\) of float64"),
        (np.zeros(100, dtype=np.int16), 16000, "float, in .*got shape .* of int16.*divide integers"),
        (torch.zeros(0), 16000, r"at least one sample.*got shape \(0,\)"),
        ([0.0, 0.1], 16000, r"array 0 must be 1-D.*got shape \(\)"),
        (np.zeros(100), None, "sample_rate must be given with arrays, in Hz, got None"),
        (np.zeros(100), 0, "sample_rate must be a whole number >= 1, got 0"),
        (np.array([0, np.nan, np.inf]), 16000, "array 0 must be finite, got 2 samples"),
        ([], 16000, "at least one path or array, got none"),
        ("gone.wav", None, "path gone.wav does not exist"),
    ],
)
def test_what_cannot_be_predicted_is_named(saved: Path, given: object, rate: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_classifier(saved).predict(given, sample_rate=rate)


def test_bad_files_end_it_or_are_left_out_with_a_warning(saved: Path, tmp_path: Path) -> None:
    model, good = load_classifier(saved), saved / "sounds" / "a.wav"
    (tmp_path / "bad.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"bad\.wav cannot be read"):
        model.predict([good, tmp_path / "bad.wav", good])
    with pytest.warns(UserWarning, match=r"1 of 3 recordings could not be read .*bad\.wav"):
        found = model.predict([good, tmp_path / "bad.wav", good], on_error="skip", per_clip=True)
    assert found["path"].tolist() == [str(good)] * 4
    assert [path for path, _ in found.attrs["errors"]] == [str(tmp_path / "bad.wav")]
    with pytest.raises(InputError, match="none of 1 recordings could be read"):
        model.predict(tmp_path / "bad.wav", on_error="skip")
    with pytest.raises(InputError, match="on_error must be one of stop, skip, got 'ignore'"):
        model.predict(good, on_error="ignore")


def test_recordings_above_the_band_are_said_in_a_line(saved: Path, tmp_path: Path) -> None:
    model = load_classifier(saved)
    bats = 0.2 * np.sin(2 * np.pi * 45000 * np.arange(192000) / 384000)
    soundfile.write(str(tmp_path / "bats.wav"), bats, 384000)
    soundfile.write(str(tmp_path / "good.wav"), 0.1 * np.random.default_rng(0).standard_normal(192000), 384000)
    with pytest.warns(UserWarning, match=r"1 of 2 recordings lie almost whole above 7,800 Hz, .*bats\.wav; slow them"):
        model.predict([tmp_path / "bats.wav", tmp_path / "good.wav"])
    with pytest.warns(UserWarning, match="1 of 1 recordings lie almost whole above 7,800 Hz"):
        model.predict(bats, sample_rate=384000)


@pytest.mark.parametrize("value", [1e20, 1e37])
def test_arrays_far_beyond_full_scale_are_refused(saved: Path, value: float) -> None:
    with pytest.raises(InputError, match=rf"array 0 must be in .*got {value:.3g}".replace("+", r"\+")):
        load_classifier(saved).predict(np.full(16000, value, dtype=np.float32), sample_rate=16000)


def test_the_model_is_left_as_it_was(saved: Path) -> None:
    model = load_classifier(saved).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    threads = torch.get_num_threads()
    model.predict(saved / "sounds")
    assert model.training
    assert torch.get_num_threads() == threads
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_file_that_breaks_off_in_the_middle_has_no_rows(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_classifier(saved)
    recordings = [Recording("x"), *expand_paths([saved / "sounds"])]
    whole = [found.rows() for found in predict_recordings(model, recordings[1:], batch_size=3)]
    stream = Recording.stream

    def break_off(self: Recording, sample_rate: int, *, window: int):
        if self.path != "x":
            return stream(self, sample_rate, window=window)

        def blocks():
            yield np.zeros(16000 * 30, dtype=np.float32)
            raise InputError("broken off")

        return 16000 * 100, blocks()

    monkeypatch.setattr(Recording, "stream", break_off)
    for order in ([0, 1, 2, 3], [1, 2, 3, 0], [1, 0, 2, 3]):
        found = list(predict_recordings(model, [recordings[number] for number in order], batch_size=3))
        assert str(found.pop(order.index(0))) == "broken off"
        assert [result.rows() for result in found if isinstance(result, RecordingResult)] == whole
    assert [len(rows) for rows in whole] == [2, 2, 2], "a row for each task"


@pytest.mark.parametrize("n_samples", [1, 9, 10, 11, 20, 25, 203])
@pytest.mark.parametrize("hop", [10, 7, 3, 1])
@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_windows_are_those_of_the_whole_recording(n_samples: int, hop: int, at_once: int) -> None:
    samples = np.arange(1, n_samples + 1, dtype=np.float32)
    recording = Recording("x", samples=samples, samples_rate=10)
    blocks = list(tile_blocks(recording, sample_rate=10, window=10, hop=hop, at_once=at_once))
    found = np.concatenate([block.windows for block in blocks])
    count = 1
    while (count - 1) * hop + 10 < n_samples:
        count += 1
    padded = np.concatenate([samples, np.zeros(20, dtype=np.float32)])
    assert np.array_equal(found, [padded[start : start + 10] for start in range(0, count * hop, hop)])
    assert [block.last for block in blocks] == [False] * (len(blocks) - 1) + [True]
    assert all(len(block.windows) <= at_once for block in blocks)
    assert [block.first for block in blocks] == list(range(0, count, at_once))
    assert blocks[0].tiling == Tiling(n_samples, 10, hop, 10)
    assert blocks[0].tiling.span(count - 1)[1] == n_samples


def test_a_clip_is_the_mean_of_its_windows_by_their_share_of_audio(saved: Path) -> None:
    model = load_classifier(saved)
    samples = torch.from_numpy(np.random.default_rng(1).uniform(-0.5, 0.5, 40000).astype(np.float32))
    for hop in (16000, 9000):
        starts = [0, 16000, 32000] if hop == 16000 else [0, 9000, 18000, 27000]
        total, weight = 0.0, 0.0
        for start in starts:
            part = samples[start : start + 16000]
            share = len(part) / 16000
            window = torch.nn.functional.pad(part, (0, 16000 - len(part)))
            with torch.no_grad():
                total, weight = total + share * model(window[None])["kind"][0].double(), weight + share
        probs = (total / weight).softmax(dim=0)
        row = model.predict(samples, sample_rate=16000, hop_s=hop / 16000, per_clip=True).iloc[0]
        assert row["label"] == "abc"[int(probs.argmax())]
        assert row["score"] == pytest.approx(float(probs.max()), abs=1e-5)


def test_progress_adds_up_to_the_audio_there_is(saved: Path) -> None:
    model, heard = load_classifier(saved), []
    recordings = expand_paths([saved / "sounds"])
    for hop_s in (None, 0.3):
        heard.clear()
        found = list(predict_recordings(model, recordings, PredictionSettings(hop_s=hop_s), watch=heard.append))
        assert sum(heard) == pytest.approx(3.7 + 1.2 + 0.3)
        assert sum(result.tiling.n_samples for result in found) == pytest.approx(5.2 * 16000, abs=2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_settings_must_be_numbers(value: float) -> None:
    for name in ("threshold", "merge_gap_s"):
        with pytest.raises(InputError, match=f"got {value}"):
            PredictionSettings(granularity="event", **{name: value})
    config = ClassifierConfig(tasks={"t": ["a", "b"]})
    with pytest.raises(InputError, match=f"hop_s must be a finite number, got {value}"):
        PredictionSettings(hop_s=value).hop_samples(config)


def test_predicting_gives_no_warnings(saved: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_classifier(saved).predict(saved / "sounds")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same(saved: Path) -> None:
    expected = load_classifier(saved).predict(saved / "sounds", per_window=True)
    found = load_classifier(saved, device="cuda").predict(saved / "sounds", per_window=True)
    # Convolutions on GPUs round their inputs to 10 bits (TF32).
    pd.testing.assert_frame_equal(found, expected, rtol=0, atol=5e-3)

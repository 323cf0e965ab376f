from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from scipy.stats import binomtest

from audiostride.dataset.readers import AudioReader, open_reader
from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.inference.baseline import baseline_accuracies
from audiostride.inference.evaluation import accuracy_interval, classify_clips, evaluate_logits, evaluate_reader
from audiostride.inference.reading import read_blocks
from audiostride.inference.recordings import Recording, expand_paths
from audiostride.inference.tiling import Tiling
from audiostride.models import AudioClassifier, ClassifierConfig
from lab.clips import read_clips

NAMES = ["noise", "tone"]


@pytest.fixture
def model() -> AudioClassifier:
    torch.manual_seed(0)
    return AudioClassifier(ClassifierConfig(tasks={"kind": NAMES}, width=0.03)).eval()


@pytest.mark.parametrize(("correct", "clips"), [(0, 10), (10, 10), (37, 100), (1, 3), (900, 1000)])
def test_the_interval_is_wilsons(correct: int, clips: int) -> None:
    expected = binomtest(correct, clips).proportion_ci(method="wilson")
    assert accuracy_interval(correct, clips) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_no_clips_have_no_interval() -> None:
    with pytest.raises(InputError, match="got 0, 0"):
        accuracy_interval(0, 0)


def test_metrics_are_those_of_their_definitions() -> None:
    rng = np.random.default_rng(0)
    truth, logits = rng.integers(0, 4, 200), torch.from_numpy(rng.standard_normal((200, 6)))
    logits[:, 5] = -9  # a class without clips that is never said, beside one that is
    truth.setflags(write=False)  # as arrays out of a table are
    found = evaluate_logits(logits, truth, list("abcdef"))
    said = logits.argmax(dim=1).tolist()
    for place, row in enumerate(found.per_class.itertuples()):
        hits = sum(a == b == place for a, b in zip(truth, said, strict=True))
        clips, times = int((truth == place).sum()), said.count(place)
        assert (row[1], row.clips) == ("abcdef"[place], clips)
        assert row.recall == pytest.approx(hits / clips if clips else 0)
        assert row.precision == pytest.approx(hits / times if times else 0)
        assert row.f1 == pytest.approx(2 * hits / (clips + times) if clips + times else 0)
        for other in range(6):
            both = sum(a == place and b == other for a, b in zip(truth, said, strict=True))
            assert found.confusion.loc["abcdef"[place], "abcdef"[other]] == both
    assert found.accuracy == (truth == np.array(said)).mean()
    assert found.loss == pytest.approx(float(-logits.log_softmax(dim=1)[range(200), truth.tolist()].mean()))


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="must be finite"):
        evaluate_logits(torch.tensor([[0.0, float("nan")]]), np.array([0]), NAMES)


def test_clip_logits_are_the_weighted_mean_over_windows(manifest: Path, model: AudioClassifier) -> None:
    reader = open_reader(read_clips(manifest, label="kind"), progress=False)
    found = classify_clips(model, reader, progress=False)["kind"]
    for index in range(len(reader)):
        clip = torch.from_numpy(reader.read(index, 0, int(reader.n_samples[index])))
        total, weight = torch.zeros(2), 0.0
        for window in clip.split(16000):
            share = len(window) / 16000
            padded = torch.nn.functional.pad(window, (0, 16000 - len(window)))
            with torch.no_grad():
                total += share * model(padded[None])["kind"][0]
            weight += share
        # Batches of another size are summed in another order: float32 rounding.
        torch.testing.assert_close(found[index].float(), total / weight, rtol=1e-4, atol=1e-5)


def test_a_clips_logits_do_not_depend_on_the_batch(manifest: Path, model: AudioClassifier) -> None:
    reader = open_reader(read_clips(manifest, label="kind"), progress=False)
    one, many = (classify_clips(model, reader, batch_size=size, progress=False)["kind"] for size in (1, 64))
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-5)


def test_windows_of_all_clips_come_in_order(manifest: Path) -> None:
    reader = open_reader(read_clips(manifest, label="kind"), progress=False)
    recordings = [Recording("clip", reader=reader, index=index) for index in range(len(reader))]
    for workers in (1, 5):
        blocks = list(read_blocks(recordings, sample_rate=16000, window=16000, hop=16000, workers=workers))
        numbers = [number for number, _ in blocks]
        assert numbers == sorted(numbers)
        assert set(numbers) == set(range(len(reader)))
        assert sum(
            block.tiling.audio_s(block.first, len(block.windows)) for _, block in blocks
        ) * 16000 == pytest.approx(reader.n_samples.sum())
        for number, block in blocks:
            for offset, window in enumerate(block.windows):
                np.testing.assert_array_equal(window, reader.read(number, (block.first + offset) * 16000, 16000))


def test_the_tail_weighs_its_share() -> None:
    tiling = Tiling(2500, 1000, 1000, 16000)
    assert [tiling.share(index) for index in range(tiling.n_windows)] == [1, 1, 0.5]
    assert Tiling(2000, 1000, 1000, 16000).n_windows == 2
    assert Tiling(1, 1000, 1000, 16000).share(0) == pytest.approx(0.001)


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., AudioReader]:
    """A reader of six files of noise of 0.5 to 3 s, which reads from them each time."""
    rng = np.random.default_rng(0)
    for number in range(6):
        soundfile.write(str(tmp_path / f"{number}.wav"), rng.uniform(-0.5, 0.5, 8000 * (number + 1)), 16000)
    (tmp_path / "m.csv").write_text("path,label\n" + "".join(f"{number}.wav,noise\n" for number in range(6)))
    return lambda **options: open_reader(read_clips(tmp_path / "m.csv"), memory_mib=0, progress=False, **options)


def test_clips_that_can_no_longer_be_read_do_not_count(
    files: Callable[..., AudioReader], model: AudioClassifier, tmp_path: Path
) -> None:
    reader, classes = files(on_error="skip"), {"kind": np.array([0, 1, 0, 1, 0, 1])}
    whole = evaluate_reader(model, reader, classes, progress=False)["kind"]
    assert whole.clips.tolist() == [0, 1, 2, 3, 4, 5]
    (tmp_path / "5.wav").rename(tmp_path / "away.wav")
    found = evaluate_reader(model, reader, classes, progress=False)["kind"]
    assert "does not exist" in reader.failed.pop(5)
    assert (found.clips.tolist(), found.n_clips) == ([0, 1, 2, 3, 4], 5)
    # Batches of another size are summed in another order: float32 rounding.
    torch.testing.assert_close(found.logits, whole.logits[:5], rtol=1e-4, atol=1e-5)
    (tmp_path / "away.wav").rename(tmp_path / "5.wav")  # the disk is back
    assert torch.equal(evaluate_reader(model, reader, classes, progress=False)["kind"].logits, whole.logits)


def test_a_clip_that_vanishes_ends_it_unless_it_is_skipped(
    files: Callable[..., AudioReader], model: AudioClassifier, tmp_path: Path
) -> None:
    reader = files()
    (tmp_path / "3.wav").unlink()
    with pytest.raises(InputError, match=r"3\.wav does not exist"):
        classify_clips(model, reader, progress=False)


class Alone(Processes):
    """One of several processes, which does not hear of the others."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values


@pytest.mark.parametrize("count", [2, 4, 7])
def test_processes_share_the_clips_evenly(
    files: Callable[..., AudioReader], model: AudioClassifier, count: int
) -> None:
    reader = files()
    expected = classify_clips(model, reader, progress=False)["kind"]
    parts = [
        classify_clips(model, reader, progress=False, processes=Alone(rank, count))["kind"] for rank in range(count)
    ]
    own = torch.stack([(part != 0).any(dim=1) for part in parts])
    assert (own.sum(dim=0) == 1).all(), "each clip is one process's"
    seconds = own.double() @ torch.from_numpy(reader.n_samples).double() / 16000
    assert seconds.max() - seconds.min() <= 3, "the longest clip"
    torch.testing.assert_close(sum(parts), expected, rtol=1e-4, atol=1e-5)


def test_tasks_of_one_reader_share_their_windows(manifest: Path) -> None:
    torch.manual_seed(0)
    model = AudioClassifier(ClassifierConfig(tasks={"kind": NAMES, "other": ["a", "b", "c"]}, width=0.03))
    reader, calls = open_reader(read_clips(manifest, label="kind"), progress=False), []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    classes = {"kind": np.arange(len(reader)) % 2, "other": np.arange(len(reader)) % 3}
    found = evaluate_reader(model, reader, classes, batch_size=16, progress=False)
    n_windows = sum(-(-int(n) // 16000) for n in reader.n_samples)
    assert len(calls) == -(-n_windows // 16)
    for task, own in classes.items():
        alone = evaluate_reader(model, reader, {task: own}, batch_size=16, progress=False)[task]
        assert (found[task].accuracy, found[task].loss) == (alone.accuracy, alone.loss)


def test_evaluation_leaves_the_training_mode_alone(manifest: Path, model: AudioClassifier) -> None:
    reader = open_reader(read_clips(manifest, label="kind").head(2), progress=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    threads = torch.get_num_threads()
    classify_clips(model, reader, progress=False)
    assert model.training
    assert torch.get_num_threads() == threads
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_classic_baseline_tells_tones_from_noise(manifest: Path) -> None:
    clips = read_clips(manifest, label="kind")
    classes = (clips["label"] == "tone").to_numpy(dtype=np.int64)
    train, test = clips["split"] == "train", clips["split"] == "test"
    readers = [open_reader(clips[part], progress=False) for part in (train, test)]
    found = baseline_accuracies(readers[0], classes[train], readers[1], classes[test])
    assert found.classic == 1.0
    assert found.majority == 0.5
    assert baseline_accuracies(readers[0], classes[train], readers[1], classes[test], max_train_clips=3).classic is None


def test_the_majority_is_that_of_the_training_clips(manifest: Path) -> None:
    reader = open_reader(read_clips(manifest, label="kind").iloc[:4], progress=False)
    train, test = np.array([1, 1, 1, 0]), np.array([1, 0, 0, 0])
    assert baseline_accuracies(reader, train, reader, test, max_train_clips=1).majority == 0.25


def test_predictions_per_window_and_per_file(tmp_path: Path, model: AudioClassifier) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * 70 * 22050 // 2 + 9922)  # 70.45 s: more than one block
    soundfile.write(str(tmp_path / "a.wav"), samples, 22050)
    windows = model.predict(tmp_path / "a.wav", per_window=True)
    assert windows.columns.tolist() == ["path", "start_s", "end_s", "label", "score"]
    assert windows["start_s"].tolist() == list(range(71))
    assert windows["end_s"].iloc[-1] == pytest.approx(70.45, abs=1e-3)
    clip = model.predict(tmp_path / "a.wav", per_clip=True)
    assert len(clip) == 1
    (tmp_path / "m.csv").write_text("path,label\na.wav,noise\n")
    reader = open_reader(read_clips(tmp_path / "m.csv"), progress=False)
    probs = classify_clips(model, reader, progress=False)["kind"].softmax(dim=1)[0]
    assert clip["label"][0] == NAMES[int(probs.argmax())]
    assert clip["score"][0] == pytest.approx(float(probs.max()), abs=1e-4)  # parts of a resampled file, see read_audio


def test_several_tasks_have_a_row_each(tmp_path: Path) -> None:
    soundfile.write(str(tmp_path / "a.wav"), np.zeros(16000), 16000)
    model = AudioClassifier(ClassifierConfig(tasks={"kind": NAMES, "pitch": ["1", "2", "3"]}, width=0.03)).eval()
    found = model.predict(tmp_path / "a.wav")
    assert found["task"].tolist() == ["kind", "pitch"]
    assert isinstance(found, pd.DataFrame)


def test_paths_are_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.wav", "deep/a.flac", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    found = expand_paths([tmp_path / "notes.txt", tmp_path])
    assert [Path(recording.path).name for recording in found] == ["notes.txt", "b.wav", "a.flac"]
    assert all((recording.start_s, recording.reader) == (0.0, None) for recording in found)
    with pytest.raises(InputError, match="does not exist"):
        expand_paths([tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="must hold audio files"):
        expand_paths([tmp_path / "empty"])

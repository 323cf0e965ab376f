"""Whole trainings with augmentation, balance and class weights: repeatable, resumable, evaluated on plain audio."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from audiostride.models import load_classifier
from audiostride.training.loss import ClassifierTraining, augment_waveform

EVERYTHING = ["--time-shift-s", "0.2", "--gain-db", "6", "--noise", "synthetic", "--noise-snr-db", "[0,20]"]
EVERYTHING += ["--mixup", "0.3", "--time-masks", "2", "--mel-masks", "2"]
EVERYTHING += ["--balance", "class", "--class-weights", "balanced"]

Run = Callable[..., int]
History = Callable[[Path], pd.DataFrame]


@pytest.fixture(scope="module")
def augmented_run(set_manifest: Path, quick_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("augmented") / "run"
    assert quick_run(set_manifest, out, *EVERYTHING) == 0
    return out


def same_training(first: Path, second: Path, read_history: History) -> bool:
    """Whether two runs have the same history and the same weights, to the bit."""
    weights = [(run / "model.safetensors").read_bytes() for run in (first, second)]
    return read_history(first).equals(read_history(second)) and weights[0] == weights[1]


def test_comparing_runs_can_fail(plain_run: Path, augmented_run: Path, read_history: History) -> None:
    assert read_history(plain_run)["step"].tolist() == [3, 6]
    assert same_training(plain_run, plain_run, read_history)
    assert not same_training(plain_run, augmented_run, read_history)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_with_everything_on_is_repeatable(
    set_manifest: Path, quick_run: Run, augmented_run: Path, read_history: History, tmp_path: Path, workers: int
) -> None:
    assert quick_run(set_manifest, tmp_path / "again", *EVERYTHING, "--workers", workers) == 0
    assert same_training(augmented_run, tmp_path / "again", read_history)
    first, again = (json.loads((run / "metrics.json").read_text()) for run in (augmented_run, tmp_path / "again"))
    assert first == again


@pytest.mark.parametrize(
    "option",
    [
        ["--time-shift-s", "0.2"],
        ["--gain-db", "6"],
        ["--noise", "synthetic"],
        ["--mixup", "0.3"],
        ["--time-masks", "2"],
        ["--mel-masks", "2"],
        ["--balance", "class"],
        ["--balance", "group", "--group", "speaker"],
        ["--class-weights", "balanced"],
    ],
)
def test_each_option_changes_the_training(
    set_manifest: Path, quick_run: Run, plain_run: Path, read_history: History, tmp_path: Path, option: list[str]
) -> None:
    assert quick_run(set_manifest, tmp_path / "run", *option) == 0
    assert not same_training(plain_run, tmp_path / "run", read_history)


def test_with_everything_off_training_is_as_without_the_options(
    set_manifest: Path, quick_run: Run, plain_run: Path, read_history: History, tmp_path: Path
) -> None:
    off = ["--time-shift-s", "0", "--gain-db", "0", "--mixup", "0", "--time-masks", "0", "--mel-masks", "0"]
    off += ["--noise", "synthetic", "--noise-prob", "0", "--balance", "none", "--class-weights", "none"]
    assert quick_run(set_manifest, tmp_path / "run", *off) == 0
    assert same_training(plain_run, tmp_path / "run", read_history)


def test_a_training_that_died_goes_on_with_the_same_numbers(
    set_manifest: Path,
    quick_run: Run,
    augmented_run: Path,
    read_history: History,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(self: object, step: int) -> None:
        if step == 5:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(ClassifierTraining, "check_step", die)
        with pytest.raises(RuntimeError, match="power cut"):
            quick_run(set_manifest, tmp_path / "run", *EVERYTHING)
    assert read_history(tmp_path / "run")["step"].tolist() == [3]
    assert not (tmp_path / "run" / "metrics.json").exists()
    steps: list[int] = []

    def count(batch: dict[str, torch.Tensor], noises: torch.Tensor | None) -> torch.Tensor:
        steps.append(len(steps))
        return augment_waveform(batch, noises)

    monkeypatch.setattr("audiostride.training.loss.augment_waveform", count)
    assert quick_run(set_manifest, tmp_path / "run", *EVERYTHING, "--resume") == 0
    assert len(steps) == 3, "steps 4 to 6, the checkpoint being of step 3"
    assert same_training(augmented_run, tmp_path / "run", read_history)


def test_resuming_with_other_augmentation_is_refused(
    set_manifest: Path, quick_run: Run, augmented_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quick_run(set_manifest, augmented_run, *EVERYTHING, "--gain-db", "3", "--resume") == 2
    assert "gain_db: 6.0 -> 3.0" in capsys.readouterr().err


def test_checkpoints_hold_neither_noises_nor_class_weights(augmented_run: Path, plain_run: Path) -> None:
    stored = torch.load(augmented_run / "checkpoints" / "last.ckpt", weights_only=True)
    plain = torch.load(plain_run / "checkpoints" / "last.ckpt", weights_only=True)
    assert stored["state_dict"].keys() == plain["state_dict"].keys()
    assert not any("noise" in name or "class_weights" in name for name in stored["state_dict"])
    assert (augmented_run / "checkpoints" / "last.ckpt").stat().st_size < 2**20  # the noises alone take 16 MB


def plain_loss(run: Path, clips: pd.DataFrame) -> float:
    """The mean cross entropy of clips, computed from their files with nothing but the model of a run."""
    model = load_classifier(run)
    names = model.config.tasks["kind"]
    losses = []
    for path, kind in zip(clips["path"], clips["kind"], strict=True):
        samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        windows = torch.nn.functional.pad(samples, (0, -len(samples) % 16000)).reshape(-1, 16000)
        shares = torch.tensor([len(window) / 16000 for window in samples.split(16000)], dtype=torch.float64)
        with torch.no_grad():
            logits = (model(windows)["kind"].double() * shares[:, None]).sum(dim=0) / shares.sum()
        losses.append(-float(logits.log_softmax(dim=0)[names.index(kind)]))
    return float(np.mean(losses))


def test_validation_and_test_clips_are_not_augmented(augmented_run: Path, clips: pd.DataFrame) -> None:
    metrics = json.loads((augmented_run / "metrics.json").read_text())
    history = pd.read_csv(augmented_run / "history.csv").set_index("step")
    # Windows in batches of another size: float32 rounding.
    expected = plain_loss(augmented_run, clips[clips["split"] == "valid"])
    assert history.loc[metrics["best_step"], "valid_loss"] == pytest.approx(expected, rel=1e-4)
    assert metrics["loss"] == pytest.approx(plain_loss(augmented_run, clips[clips["split"] == "test"]), rel=1e-4)


def test_augmentation_is_done_once_per_step_and_never_in_evaluation(
    set_manifest: Path, quick_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def count(batch: dict[str, torch.Tensor], noises: torch.Tensor | None) -> torch.Tensor:
        seen.append(sorted(batch))
        assert noises is not None
        assert noises.shape == (64, 64000)
        return augment_waveform(batch, noises)

    monkeypatch.setattr("audiostride.training.loss.augment_waveform", count)
    assert quick_run(set_manifest, tmp_path / "run", "--noise", "synthetic", "--mixup", "0.2") == 0
    names = ["class_index", "failed", "mixup_partner", "mixup_weight", "noise_pick", "noise_place", "noise_snr_db"]
    assert seen == [[*names, "waveform"]] * 6


def test_noise_may_come_from_a_folder(
    set_manifest: Path, quick_run: Run, plain_run: Path, read_history: History, tmp_path: Path
) -> None:
    (tmp_path / "noises").mkdir()
    samples = np.random.default_rng(0).standard_normal(40000) / 8
    soundfile.write(str(tmp_path / "noises" / "street.wav"), samples, 22050)
    options = ["--noise", str(tmp_path / "noises"), "--noise-prob", "1", "--noise-snr-db", "[0,0]"]
    assert quick_run(set_manifest, tmp_path / "run", *options) == 0
    losses = [read_history(run)["train_loss"] for run in (plain_run, tmp_path / "run")]
    assert (losses[0] != losses[1]).all()

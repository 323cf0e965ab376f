"""The moving average of the weights: what it is, that it is what a run saves, and that it goes on after a stop."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from audiostride.models import AudioClassifier, ClassifierConfig, load_classifier
from audiostride.training import TrainConfig
from audiostride.training.averaging import WeightAverage
from audiostride.training.loss import ClassifierTraining

Run = Callable[..., int]
AVERAGED = ["--pooling", "diffstride", "--ema-decay", "0.9", "--lr", "0.05"]


def test_the_average_is_the_one_that_its_formula_says() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightAverage(model, 0.75)
    weight, mean = model[0].weight.detach().clone(), model[1].running_mean.clone()
    for step in range(40):
        with torch.no_grad():
            model[0].weight += 1
            model[1].running_mean -= 2
        average.update(model, step)
        decay = min(0.75, (1 + step) / (10 + step))  # reaches 0.75 at step 26
        weight = decay * weight + (1 - decay) * model[0].weight
        mean = decay * mean + (1 - decay) * model[1].running_mean
    torch.testing.assert_close(average.model[0].weight, weight)
    torch.testing.assert_close(average.model[1].running_mean, mean)
    assert average.model[0].weight.requires_grad is False
    assert not average.train().model.training


def test_strides_are_averaged_and_their_maps_fit_them() -> None:
    config = TrainConfig(manifest="m", out="o", max_steps=1, ema_decay=0.5)
    training = ClassifierTraining(AudioClassifier(ClassifierConfig(tasks={"t": ["a", "b"]}, width=0.03)), config)
    first = training.model.encoder.blocks[0].pool
    with torch.no_grad():
        first.strides.add_(2)
    training.model.project_strides_()
    assert training.average is not None
    training.average.update(training.model, 100)
    result = training.result
    assert result.encoder.blocks[0].pool.stride_values() == pytest.approx([3, 3])  # halfway from 2 to 4
    assert result.encoder.map_sizes(100, 64)[1] == (34, 22)
    assert len(list(training.make_optimizer()[0].param_groups[0]["params"])) + 6 == len(list(result.parameters()))


def test_a_run_validates_and_saves_the_average(
    set_manifest: Path, quick_run: Run, read_history: Callable[[Path], pd.DataFrame], tmp_path: Path
) -> None:
    assert quick_run(set_manifest, tmp_path / "plain", *AVERAGED[:2], *AVERAGED[4:]) == 0
    assert quick_run(set_manifest, tmp_path / "averaged", *AVERAGED) == 0
    plain, averaged = (read_history(tmp_path / name) for name in ("plain", "averaged"))
    pd.testing.assert_series_equal(plain["train_loss"], averaged["train_loss"])  # learning is the same
    assert (plain["valid_loss"] != averaged["valid_loss"]).all()
    state = torch.load(tmp_path / "averaged/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    saved = load_classifier(tmp_path / "averaged").state_dict()
    assert all(torch.equal(tensor, state[f"average.model.{name}"]) for name, tensor in saved.items())
    assert not torch.equal(saved["heads.0.weight"], state["model.heads.0.weight"])


def test_a_stopped_run_goes_on_with_its_average(
    set_manifest: Path, quick_run: Run, read_history: Callable[[Path], pd.DataFrame], tmp_path: Path
) -> None:
    settings = [*AVERAGED, "--schedule", "constant"]
    assert quick_run(set_manifest, tmp_path / "whole", *settings, "--max-steps", "12") == 0
    assert quick_run(set_manifest, tmp_path / "parts", *settings) == 0
    assert quick_run(set_manifest, tmp_path / "parts", *settings, "--max-steps", "12", "--resume") == 0
    pd.testing.assert_frame_equal(read_history(tmp_path / "whole"), read_history(tmp_path / "parts"))
    whole, parts = (load_classifier(tmp_path / name).state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)

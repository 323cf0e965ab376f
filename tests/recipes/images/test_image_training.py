"""Trainings of image classifiers: what is learned and written, going on after a stop, several processes, errors."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import Tensor

from audiostride import InputError
from audiostride.distributed import Processes
from audiostride.strides.diffstride import diffstride_layers
from images.classifier import load_image_classifier
from images.config import ImageTrainConfig
from images.data import EvaluationBatches, ImageBatches, load_sources
from images.pictures import make_pictures
from images.train import ImageTraining, evaluate_images, make_network, prepare_images, train_images

Configure = Callable[..., ImageTrainConfig]


def make_training(config: ImageTrainConfig) -> ImageTraining:
    train, _, _ = load_sources(config, Processes())
    return ImageTraining(make_network(config, train), config, n_images=len(train), processes=Processes())


def test_stripes_are_learned_and_the_run_folder_says_how(configure: Configure) -> None:
    config = configure(max_steps=None, epochs=20, milestones=[15], valid_every=5, strides=[2, [1.5, 2], 2])
    metrics = train_images(config, progress=False)
    folder = Path(config.out)
    assert metrics["accuracy"] >= 0.9, "chance is 1/3"
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert {name: metrics[name] for name in ("split", "n_images", "n_classes", "steps", "stopped_early")} == {
        "split": "val", "n_images": 12, "n_classes": 3, "steps": 40, "stopped_early": False,
    }  # fmt: skip
    history = pd.read_csv(folder / "history.csv")
    assert list(history) == ["step", "epoch", "train_loss", "valid_loss", "valid_accuracy", "lr", "elapsed_s"]
    assert history["step"].tolist() == [10, 20, 30, 40]
    assert history["epoch"].tolist() == [5, 10, 15, 20]
    assert history["lr"].tolist() == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert history["valid_accuracy"].iloc[-1] == metrics["accuracy"]
    strides = pd.read_csv(folder / "strides.csv").set_index("step")
    assert list(strides) == [f"layer{number}_{axis}" for number in (1, 2, 3) for axis in ("height", "width")]
    assert strides.loc[0].tolist() == [2, 2, 1.5, 2, 2, 2]
    assert strides.index.tolist() == list(range(41))
    assert (strides.loc[40] - strides.loc[0]).abs().min() > 1e-4, "every stride has learned"
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["torchvision"]
    assert environment["training_s"] == history["elapsed_s"].iloc[-1]
    # The model of the file is the one that was evaluated.
    model, names = load_image_classifier(folder)
    assert names == ["level", "slanting", "upright"]
    assert [list(layer.stride_values()) for layer in diffstride_layers(model)] == [
        pytest.approx(pair) for pair in strides.loc[40].to_numpy().reshape(3, 2)
    ]
    _, held_out, _ = load_sources(config, Processes())
    batches = EvaluationBatches(held_out, batch_size=5, processes=Processes())
    found = evaluate_images(model, [batches[number] for number in range(len(batches))])
    assert (found.accuracy, found.n_images) == (metrics["accuracy"], 12)
    assert found.loss == pytest.approx(metrics["loss"], rel=1e-4)
    # A finished run is returned as it is, and other settings are refused.
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert train_images(config, resume=True) == metrics
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    with pytest.raises(InputError, match=r"these differ:\n  epochs: 20 -> 21\n"):
        train_images(configure(**{**config.to_dict(), "epochs": 21}), resume=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"mixup": 0.4, "stride_cost": 0.1, "stem": "large", "strides": [1, 2, 2, 2]},
        # Dropout and stochastic depth draw random numbers in each step.
        {"arch": "efficientnet_b0", "pooling": "strided", "strides": [1, 2, 2, 2, 1, 2, 1], "width": 0.1},
    ],
)
def test_a_run_that_was_stopped_ends_with_the_same_numbers(
    configure: Configure, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = configure("whole", **settings), configure("stopped", **settings)
    expected = train_images(whole, progress=False)
    begin = ImageTraining.begin_step

    def interrupt(self: ImageTraining, step: int, turn: int = 0) -> None:
        if step == 6:  # between two validations, at steps 4 and 8
            os.kill(os.getpid(), signal.SIGINT)
        begin(self, step, turn)

    with monkeypatch.context() as patch:
        patch.setattr(ImageTraining, "begin_step", interrupt)
        found = train_images(stopped, progress=False)
    assert (found["steps"], found["stopped_early"]) == (7, True)
    torch.manual_seed(123)  # what was drawn elsewhere does not matter
    assert train_images(stopped, resume=True, progress=False) == expected
    models = [load_image_classifier(config.out)[0].state_dict() for config in (whole, stopped)]
    assert models[0].keys() == models[1].keys()
    for name, value in models[0].items():
        assert torch.equal(value, models[1][name]), name
    if settings.get("pooling") != "strided":
        tables = [(Path(config.out) / "strides.csv").read_text() for config in (whole, stopped)]
        assert tables[0] == tables[1]
    rows = [pd.read_csv(Path(config.out) / "history.csv").set_index("step") for config in (whole, stopped)]
    assert rows[1].index.tolist() == [4, 7, 8, 10]
    columns = ["epoch", "valid_loss", "valid_accuracy", "lr"]
    pd.testing.assert_frame_equal(rows[0][columns], rows[1].loc[rows[0].index, columns], check_exact=True)


def test_strides_have_a_rate_of_their_own_and_no_weight_decay(configure: Configure) -> None:
    for given, expected in ((None, 0.1), (0.02, 0.02)):
        module = make_training(configure(stride_lr=given, weight_decay=0.3))
        weights, strides = module.make_optimizer()[0].param_groups
        assert (weights["weight_decay"], strides["weight_decay"]) == (0.3, 0.0)
        assert (weights["lr"], strides["lr"], strides["momentum"]) == (0.1, expected, 0.9)
        assert [id(each) for each in strides["params"]] == [id(layer.strides) for layer in diffstride_layers(module)]
        assert len(weights["params"]) + 3 == len(list(module.parameters()))
    assert len(make_training(configure(pooling="spectral")).make_optimizer()[0].param_groups) == 1


def test_the_cost_term_is_in_the_gradient_of_strides_and_not_in_the_history(configure: Configure) -> None:
    gradients, losses = [], []
    for weight in (0.0, 3.0):
        config = configure(stride_cost=weight)
        train, _, _ = load_sources(config, Processes())
        batches = ImageBatches(train, batch_size=12, seed=0, augment=True, mixup=0.0, processes=Processes())
        module = make_training(config)
        module(batches[0], 0).backward()
        gradients.append(torch.cat([layer.strides.grad for layer in module.strided_layers]))
        losses.append(module.take_mean_loss(1))
    # d/dS_h of 3 / (S_h S_w) at 2, 2 is -3/8.
    torch.testing.assert_close(gradients[1] - gradients[0], torch.full((6,), -3 / 8))
    assert losses[0] == losses[1]


def test_images_become_floats_of_the_networks_size() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(prepare_images(images, 4), images / 255)
    assert prepare_images(images, 12).shape == (2, 3, 12, 12)
    even = torch.full((1, 3, 4, 4), 51, dtype=torch.uint8)
    torch.testing.assert_close(prepare_images(even, 7), torch.full((1, 3, 7, 7), 0.2))


def test_a_loss_that_is_not_finite_names_its_step(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def spoil(images: Tensor, size: int) -> Tensor:
        calls.append(0)
        return prepare_images(images, size) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr("images.train.prepare_images", spoil)
    with pytest.raises(
        InputError, match=r"the loss must stay finite, got NaN or infinity in step 3; there is no check"
    ):
        train_images(configure(pooling="strided"), progress=False)
    calls.clear()
    with pytest.raises(InputError, match=r"the strides must stay finite, .* in step 3; .*stride_lr \(0\.1\)"):
        train_images(configure("second"), progress=False)


def test_folders_that_cannot_be_used_are_refused(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match=r"--resume needs a run folder, but .* has no config\.yaml"):
        train_images(configure(), resume=True)
    (tmp_path / "run" / "x").touch()
    with pytest.raises(InputError, match="--out must be a new or empty folder"):
        train_images(configure())
    with pytest.raises(InputError, match="--out must be a folder, got the file"):
        train_images(configure("run/x"))


def test_a_run_with_other_classes_is_not_taken_up(configure: Configure, tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "set", {"train": 4, "val": 1}, size=16)
    config = configure(data=str(root), image_size=16, max_steps=2, pooling="strided")
    train_images(config, progress=False)
    (tmp_path / "run" / "metrics.json").unlink()  # as if it had been stopped
    for split in ("train", "val"):
        (root / split / "level").rename(root / split / "flat")
    with pytest.raises(InputError, match=r"of those in .*run are gone: level; and new are: flat; mend the data"):
        train_images(config, resume=True)


def test_a_bad_image_ends_a_training_with_its_name_also_in_a_worker(configure: Configure, tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "set", {"train": 4, "val": 1}, size=16)
    (root / "train" / "upright" / "2.png").write_bytes(b"")
    for workers in (0, 1):
        config = configure(f"run{workers}", data=str(root), image_size=16, workers=workers, pooling="strided")
        with pytest.raises(InputError, match=r"^image training: every file must be .*upright/2\.png is not"):
            train_images(config, progress=False)


# Trains in float64, so that the only difference between runs is in how sums are taken.
SCRIPT = """
import sys
from images import train
from images.config import ImageTrainConfig

prepare, training = train.prepare_images, train.ImageTraining
train.prepare_images = lambda images, size: prepare(images, size).double()
train.ImageTraining = lambda model, *args, **kwargs: training(model.double(), *args, **kwargs)
config = ImageTrainConfig.load(sys.argv[1])
config.out, config.devices = sys.argv[2], int(sys.argv[3])
if __name__ == "__main__":
    train.train_images(config, progress=False)
"""


@pytest.mark.slow
def test_two_processes_follow_one(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "settings").mkdir()
    config = configure(mixup=0.4, stride_cost=0.1, max_steps=6)
    (tmp_path / "settings" / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    running = []
    for name, devices in (("one", "1"), ("two", "2")):
        command = [sys.executable, "script.py", "settings", name, devices]
        running.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True))
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")]
    assert metrics[1]["loss"] == pytest.approx(metrics[0]["loss"], rel=1e-5)
    assert metrics[1]["accuracy"] == metrics[0]["accuracy"]
    assert metrics[1]["n_images"] == 12
    tables = [pd.read_csv(tmp_path / name / "strides.csv").to_numpy() for name in ("one", "two")]
    np.testing.assert_allclose(tables[1], tables[0], rtol=1e-5)
    assert np.abs(tables[0][-1] - tables[0][0])[1:].min() > 1e-4, (
        "strides have learned, so that equality says something"
    )

"""Trainings of networks other than the paper's, through the command line, with their reports."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file

from audiostride import AudioClassifier, ClassifierConfig, InputError, load_classifier
from audiostride.models import ForeignEncoder
from audiostride.training import TrainConfig
from audiostride.training.resuming import check_same_settings

OPTIONS = ["--label", "kind", "--encoder", "resnet18", "--width", "0.05", "--max-steps", "6", "--valid-every", "3"]
OPTIONS += ["--batch-size", "4", "--stride-lr", "0.05"]


@pytest.fixture(scope="module")
def resnet_run(manifest: Path, run_command: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a ResNet with its report. Not to be changed."""
    out = tmp_path_factory.mktemp("resnet") / "run"
    assert run_command("train", "--manifest", manifest, "--out", out, *OPTIONS) == 0
    return out


def test_a_resnet_trains_through_the_command_line(resnet_run: Path) -> None:
    config = yaml.safe_load((resnet_run / "config.yaml").read_text())
    assert config["encoder"] == "resnet18"
    assert (config["strides"], config["channels"]) == ([[2.0, 2.0]] * 3, [64, 128, 256, 512])
    strides = pd.read_csv(resnet_run / "strides.csv")
    assert list(strides) == ["step", *(f"layer{layer}_{axis}" for layer in (1, 2, 3) for axis in ("time", "mel"))]
    assert (strides.iloc[-1].drop("step") != 2.0).all(), "all strides have learned"
    model = load_classifier(resnet_run)
    assert model.config.encoder == "resnet18"


def test_its_report_tells_of_its_layers(resnet_run: Path, run_command: Callable[..., int], tmp_path: Path) -> None:
    assert run_command("report", resnet_run, "-o", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "resnet18 diffstride mixed" in page
    assert "Table 2 of the paper" not in page  # whose first layer is another one
    assert "DO NOT AGREE" not in page


def test_a_resnet_predicts(resnet_run: Path, manifest: Path) -> None:
    table = load_classifier(resnet_run).predict(manifest)
    assert table["path"].nunique() == 22
    assert set(table["label"]) <= {"tone", "noise"}


def test_resumed_it_ends_with_the_same_numbers(
    resnet_run: Path, manifest: Path, run_command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, steps = AudioClassifier.project_strides_, []

    def fail(model: AudioClassifier) -> None:
        steps.append(1)
        if len(steps) == 5:
            raise RuntimeError("killed")
        project(model)

    with monkeypatch.context() as patch:
        patch.setattr(AudioClassifier, "project_strides_", fail)
        with pytest.raises(RuntimeError, match="killed"):
            run_command("train", "--manifest", manifest, "--out", tmp_path / "run", *OPTIONS)
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == 1
    assert run_command("train", "--out", tmp_path / "run", "--resume") == 0
    for name in ("model.safetensors", "strides.csv", "metrics.json"):
        assert (tmp_path / "run" / name).read_bytes() == (resnet_run / name).read_bytes(), name


@pytest.mark.parametrize("encoder", ["bcresnet", pytest.param("timm:test_resnet", marks=pytest.mark.slow)])
def test_other_encoders_train_from_weights_and_go_on_with_the_same_numbers(
    encoder: str, manifest: Path, run_command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = encoder.partition(":")[0]
    if package != "bcresnet":
        pytest.importorskip(package)
    monkeypatch.setattr("audiostride.reporting.page.report_run", lambda run: None)
    file = tmp_path / "weights.safetensors"
    start = AudioClassifier(ClassifierConfig(tasks={"kind": ["a", "b"]}, encoder=encoder)).encoder
    source = start.network if isinstance(start, ForeignEncoder) else start
    save_file({name: value.clone().contiguous() for name, value in source.state_dict().items()}, file)
    options = ["--label", "kind", "--encoder", encoder, "--max-steps", "4", "--valid-every", "2", "--batch-size", "4"]
    options += ["--weights", str(file), "--lr", "1e-9"]

    def learn(out: Path) -> int:
        return run_command("train", "--manifest", manifest, "--out", out, *options)

    assert learn(tmp_path / "whole") == 0
    assert yaml.safe_load((tmp_path / "whole" / "config.yaml").read_text())["weights"] == str(file)
    model = load_classifier(tmp_path / "whole")
    assert "weights" not in model.config.to_dict()
    for name, value in start.named_parameters():
        if not name.endswith("strides"):  # at a rate of next to nothing, weights stay what the file has
            torch.testing.assert_close(model.encoder.get_parameter(name), value, rtol=0, atol=1e-6)
    strides = pd.read_csv(tmp_path / "whole" / "strides.csv")
    assert len(strides.columns) >= 7
    assert (strides.iloc[-1] != strides.iloc[0]).sum() >= 5  # some may stay at their lower limit, 1
    steps = []
    project = AudioClassifier.project_strides_

    def fail(model: AudioClassifier) -> None:
        steps.append(1)
        if len(steps) == 4:
            raise RuntimeError("killed")
        project(model)

    with monkeypatch.context() as patch:
        patch.setattr(AudioClassifier, "project_strides_", fail)
        with pytest.raises(RuntimeError, match="killed"):
            learn(tmp_path / "parts")
    file.unlink()  # the checkpoint has what has become of it
    assert run_command("train", "--out", tmp_path / "parts", "--resume") == 0
    for name in ("model.safetensors", "strides.csv", "metrics.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_missing_file_of_weights_ends_a_training_before_anything_is_read(
    run_command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.csv").write_text("path,label\nnone.wav,a\n")  # whose file is not there either
    options = ["--manifest", tmp_path / "m.csv", "--out", tmp_path / "run", "--weights", tmp_path / "none.pt"]
    assert run_command("train", *options) == 2
    assert "--weights must be a file that exists and ends in .safetensors, .pt, .pth" in capsys.readouterr().err


def test_runs_of_before_there_were_encoders_go_on(tmp_path: Path) -> None:
    now = TrainConfig(manifest="m.csv", out=str(tmp_path), max_steps=5)
    values = now.to_dict()
    assert values.pop("encoder") == "separable"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    check_same_settings(TrainConfig.load(tmp_path), now)
    other = TrainConfig(manifest="m.csv", out=str(tmp_path), max_steps=5, encoder="resnet18")
    with pytest.raises(InputError, match="encoder: separable -> resnet18"):
        check_same_settings(TrainConfig.load(tmp_path), other)


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"encoder must be one of separable, resnet18, preact_resnet18, bcresnet, .*got 'vgg'"
    ):
        TrainConfig(manifest="m.csv", out="run", encoder="vgg")

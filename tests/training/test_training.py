import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, load_classifier
from audiostride.training import TrainConfig, evaluate_run, train
from audiostride.training.augmentation.mixup import mixed_cross_entropy
from audiostride.training.loss import ClassifierTraining, learning_rate_factor
from audiostride.training.resuming import check_same_settings
from audiostride.training.task_losses import mean_cross_entropy

RUN_FILES = [
    "checkpoints/last.ckpt",
    "config.yaml",
    "confusion_matrix.csv",
    "confusion_matrix.png",
    "cutoffs.csv",
    "data.json",
    "environment.json",
    "history.csv",
    "metrics.json",
    "model.safetensors",
    "per_class.csv",
    "predictions_test.csv",
    "report.html",
    "report_cutoffs.csv",
    "strides.csv",
]


def make_config(manifest: Path, out: Path, **settings: object) -> TrainConfig:
    small = {"width": 0.03, "max_steps": 8, "valid_every": 3, "batch_size": 4}
    return TrainConfig(manifest=str(manifest), label="kind", out=str(out), **{**small, **settings})


def test_a_run_leaves_the_files_that_it_promises(trained_run: Path) -> None:
    found = sorted(str(path.relative_to(trained_run)) for path in trained_run.rglob("*") if path.is_file())
    assert found == RUN_FILES
    metrics = json.loads((trained_run / "metrics.json").read_text())
    assert metrics["task"] == "kind"
    assert metrics["n_clips"] == 6
    assert metrics["interval"][0] <= metrics["accuracy"] <= metrics["interval"][1]
    assert metrics["baseline_majority"] == 0.5
    assert not metrics["stopped_early"]


def test_history_has_a_row_per_validation_and_one_at_the_end(trained_run: Path) -> None:
    history = pd.read_csv(trained_run / "history.csv")
    assert history["step"].tolist() == [3, 6, 8]
    assert history.notna().all(axis=None)
    metrics = json.loads((trained_run / "metrics.json").read_text())
    best = history.loc[history["step"] == metrics["best_step"], "valid_accuracy"].item()
    assert best == metrics["valid_accuracy"] == history["valid_accuracy"].max()


def test_strides_are_recorded_from_the_start_to_the_end(trained_run: Path) -> None:
    strides = pd.read_csv(trained_run / "strides.csv")
    assert strides["step"].iloc[0] == 0
    assert strides["step"].iloc[-1] == 8
    assert strides.filter(like="layer").shape[1] == 12
    assert strides.filter(like="layer").iloc[0].tolist() == [2, 2, 2, 2, 1, 1, 2, 2, 1, 1, 2, 2]
    assert (strides.filter(like="layer").iloc[-1] != strides.filter(like="layer").iloc[0]).any()


def test_the_saved_model_has_the_class_names(trained_run: Path) -> None:
    assert load_classifier(trained_run).config.tasks == {"kind": ["noise", "tone"]}


def test_evaluating_a_run_gives_its_metrics_again(trained_run: Path) -> None:
    written = json.loads((trained_run / "metrics.json").read_text())
    assert evaluate_run(trained_run, progress=False) == written
    valid = evaluate_run(trained_run, split="valid", progress=False)
    assert valid["n_clips"] == 4
    assert valid["accuracy"] == written["valid_accuracy"]
    for name in ("metrics_valid.json", "per_class_valid.csv", "confusion_matrix_valid.csv"):
        (trained_run / name).unlink()


def test_the_best_model_is_kept_and_not_the_last(manifest: Path, tmp_path: Path) -> None:
    # With a learning rate that destroys the network after a good start the last state is not the best one.
    train(make_config(manifest, tmp_path / "run", max_steps=24, valid_every=1, lr=3e-2), progress=False)
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (
        metrics["best_step"] == history.loc[history["valid_accuracy"] == history["valid_accuracy"].max(), "step"].max()
    )
    assert evaluate_run(tmp_path / "run", split="valid", progress=False)["accuracy"] == metrics["valid_accuracy"]


@pytest.mark.usefixtures("worse_every_time")
@pytest.mark.parametrize(("keep", "kept"), [("last", 6), ("best", 2)])
def test_the_last_model_is_kept_unless_the_best_is_asked_for(
    manifest: Path, tmp_path: Path, keep: str, kept: int
) -> None:
    config = make_config(manifest, tmp_path / "run", max_steps=6, valid_every=2, keep=keep)
    assert train(config, progress=False)["best_step"] == kept


@pytest.mark.parametrize("pooling", ["strided", "spectral", "diffstride"])
def test_the_seed_fixes_the_result(manifest: Path, tmp_path: Path, pooling: str) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(make_config(manifest, tmp_path / name, pooling=pooling, seed=seed, max_steps=3), progress=False)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def wait_for(path: Path, process: subprocess.Popen[bytes], *, rows: int) -> None:
    for _ in range(1200):
        if path.exists() and len(path.read_text().splitlines()) > rows:
            return
        assert process.poll() is None, "the training ended before it was stopped"
        time.sleep(0.05)
    raise AssertionError("the training wrote no history within a minute")


def start_training(config: TrainConfig) -> subprocess.Popen[bytes]:
    settings = [f"--{key.replace('_', '-')}={value}" for key, value in config.to_dict().items() if value is not None]
    command = [sys.executable, "-m", "audiostride", "train", *settings]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_ends_like_one_that_was_not(manifest: Path, tmp_path: Path) -> None:
    settings = {"max_steps": 60, "valid_every": 5}
    process = start_training(make_config(manifest, tmp_path / "killed", **settings))
    wait_for(tmp_path / "killed" / "history.csv", process, rows=3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = pd.read_csv(tmp_path / "killed" / "history.csv")["step"].iloc[-1]
    assert reached < 60, "killed too late to show anything"
    resumed = subprocess.run(
        [sys.executable, "-m", "audiostride", "train", "--out", str(tmp_path / "killed"), "--resume"],
        check=True,
        capture_output=True,
    )
    assert b"accuracy" in resumed.stdout
    whole = start_training(make_config(manifest, tmp_path / "whole", **settings))
    assert whole.wait() == 0
    for name in ("metrics.json", "model.safetensors", "strides.csv", "per_class.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    histories = [pd.read_csv(tmp_path / run / "history.csv").drop(columns="elapsed_s") for run in ("killed", "whole")]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


@pytest.mark.slow
def test_a_run_that_is_stopped_has_its_report_and_can_go_on(manifest: Path, tmp_path: Path) -> None:
    process = start_training(make_config(manifest, tmp_path / "run", max_steps=2000, valid_every=5))
    wait_for(tmp_path / "run" / "history.csv", process, rows=1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["stopped_early"]
    assert (tmp_path / "run" / "report.html").exists()
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["step"].iloc[-1] == metrics["steps"] < 2000


def test_a_finished_run_is_not_trained_again(trained_run: Path) -> None:
    before = os.stat(trained_run / "model.safetensors").st_mtime_ns
    metrics = train(TrainConfig.load(trained_run), resume=True, progress=False)
    assert metrics == json.loads((trained_run / "metrics.json").read_text())
    assert os.stat(trained_run / "model.safetensors").st_mtime_ns == before


def test_a_page_that_is_missing_or_older_than_the_results_is_written_again(
    trained_run: Path, tmp_path: Path, run_command: Callable[..., int]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    page, drawing = run / "report.html", run / "confusion_matrix.png"
    before = os.stat(run / "model.safetensors").st_mtime_ns
    for name in ("report.html", "confusion_matrix.png", "cutoffs.csv"):
        (run / name).unlink()
    assert run_command("train", "--out", run, "--resume") == 0
    assert drawing.read_bytes().startswith(b"\x89PNG")
    assert (run / "cutoffs.csv").read_bytes() == (trained_run / "cutoffs.csv").read_bytes()
    assert os.stat(run / "model.safetensors").st_mtime_ns == before, "it was not trained again"
    written = page.stat().st_mtime_ns
    assert run_command("train", "--out", run, "--resume") == 0
    assert page.stat().st_mtime_ns == written
    assert run_command("evaluate", run) == 0
    assert page.stat().st_mtime_ns > written


def test_training_from_python_draws_nothing(manifest: Path, tmp_path: Path) -> None:
    train(make_config(manifest, tmp_path / "run", pooling="strided", max_steps=1), progress=False)
    found = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    drawn = {"confusion_matrix.png", "cutoffs.csv", "report.html", "report_cutoffs.csv"}
    assert found == set(RUN_FILES) - drawn - {"strides.csv"}


def test_resuming_with_other_settings_shows_the_difference(trained_run: Path) -> None:
    config = TrainConfig.load(trained_run)
    other = TrainConfig(**{**config.to_dict(), "lr": 0.5, "workers": 3})
    with pytest.raises(InputError, match=r"lr: 0\.002 -> 0\.5") as caught:
        check_same_settings(config, other)
    assert "workers" not in str(caught.value)


def test_folders_in_use_and_folders_that_are_no_runs_are_refused(
    manifest: Path, trained_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--resume"):
        train(make_config(manifest, trained_run), progress=False)
    with pytest.raises(InputError, match=r"has no config\.yaml"):
        train(make_config(manifest, tmp_path / "new"), resume=True, progress=False)
    with pytest.raises(InputError, match=r"must be a run folder"):
        evaluate_run(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"manifest": "m", "out": "o", "future": 1}))
    with pytest.raises(InputError, match="must hold known settings, got future"):
        evaluate_run(tmp_path)


def test_another_manifest_is_evaluated_whole_and_must_have_known_labels(trained_run: Path, manifest: Path) -> None:
    table = pd.read_csv(manifest)
    other = manifest.with_name("other.csv")
    table.drop(columns="split").head(5).to_csv(other, index=False)
    assert evaluate_run(trained_run, manifest=str(other), progress=False)["n_clips"] == 5
    assert (trained_run / "metrics_test_other.json").exists()
    for path in trained_run.glob("*_test_other.*"):
        path.unlink()
    table.assign(kind="siren").to_csv(other, index=False)
    with pytest.raises(InputError, match="got siren; it knows noise, tone"):
        evaluate_run(trained_run, manifest=str(other), progress=False)
    other.unlink()


def test_a_random_split_trains_and_is_remembered(manifest: Path, tmp_path: Path) -> None:
    bare = manifest.with_name("bare.csv")
    pd.read_csv(manifest).drop(columns="split").to_csv(bare, index=False)
    with pytest.raises(InputError, match="--random-split SEED"):
        train(make_config(bare, tmp_path / "run"), progress=False)
    metrics = train(make_config(bare, tmp_path / "run", random_split=3), progress=False)
    assert metrics["n_clips"] == 2
    assert evaluate_run(tmp_path / "run", progress=False) == metrics
    with pytest.raises(InputError, match="has a split column already"):
        train(make_config(manifest, tmp_path / "other", random_split=3), progress=False)
    bare.unlink()


def test_runs_of_before_pool_after_pool_after_a_block(tmp_path: Path) -> None:
    values = TrainConfig(manifest="m", out="o").to_dict()
    assert values.pop("pool_after") == "convolution"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    assert TrainConfig.load(tmp_path).pool_after == "block"


def test_a_loss_that_is_not_finite_ends_the_training(manifest: Path, tmp_path: Path) -> None:
    message = r"must stay finite, got NaN or infinity in step 2, whose batch is of lines [\d, ]+ of .*\.csv; there"
    with pytest.raises(InputError, match=message):
        train(make_config(manifest, tmp_path / "run", lr=1e30, max_steps=20), progress=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": 0}, "max_steps must be a whole number >= 1, got 0"),
        ({"batch_size": 1}, r"batch_size must be a whole number >= 2 \(batch norm\)"),
        ({"stride_lr": -1}, "stride_lr must be >= 0, got -1"),
        ({"pooling": "max"}, "pooling must be one of"),
        ({"schedule": "linear"}, "schedule must be one of cosine, constant"),
        ({"ramp_bins": 0}, "ramp_bins must be > 0 FFT bins, got 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(manifest="m", out="o", **settings)


def test_the_learning_rate_falls_along_half_a_cosine() -> None:
    factors = [learning_rate_factor(step, schedule="cosine", max_steps=10) for step in (0, 5, 10)]
    assert factors == pytest.approx([1, 0.5, 0], abs=1e-12)
    assert learning_rate_factor(7, schedule="constant", max_steps=10) == 1


def test_the_learning_rate_rises_before_it_falls() -> None:
    factors = [learning_rate_factor(step, schedule="cosine", max_steps=20, warmup=0.2) for step in (0, 1, 3, 4, 12, 20)]
    assert factors == pytest.approx([0.25, 0.5, 1, 1, 0.5, 0], abs=1e-12)
    assert learning_rate_factor(1, schedule="constant", max_steps=20, warmup=0.2) == 0.5
    assert learning_rate_factor(9, schedule="constant", max_steps=20, warmup=0.2) == 1


@pytest.mark.parametrize(
    ("settings", "n_clips", "steps", "every"),
    [
        ({}, 100, 2000, 200),  # a small set: the fewest steps
        ({}, 32_000, 20_000, 1000),  # 20 passes
        ({"manifest": None, "task": ["a=m:a", "b=n:b", "c=n:c"]}, 100, 6000, 600),  # which three tasks share
        ({"epochs": 3}, 100, 10, 1),
        ({"epochs": 0.5, "batch_size": 10}, 101, 6, 1),
        ({"max_steps": 7}, 100, 7, 1),
        ({"max_steps": 400, "valid_every": 33}, 100, 400, 33),
    ],
)
def test_the_length_of_a_training_suits_the_set(settings: dict[str, Any], n_clips: int, steps: int, every: int) -> None:
    config = TrainConfig(**{"manifest": "m", "out": "o", **settings}).with_steps(n_clips)
    assert (config.max_steps, config.valid_every) == (steps, every)


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({}, 0.01),  # 2,000 steps
        ({"max_steps": 100_000}, 0.01),
        ({"max_steps": 500}, 0.01),
        ({"budget": "0.5x"}, 0.02),  # they learn in half of the steps
        ({"budget": "0.5x", "max_steps": 500}, 0.08),
        ({"budget": "0.5x", "max_steps": 500, "stride_steps": 1.0}, 0.04),
        ({"budget": "0.5x", "max_steps": 100_000}, 0.01),
        ({"budget": "0.5x", "max_steps": 2}, 0.1),
        ({"max_steps": 2, "stride_lr": 0.0}, 0.0),
    ],
)
def test_strides_learn_fast_enough_to_arrive(settings: dict[str, Any], rate: float) -> None:
    config = TrainConfig(manifest="m", out="o", **settings).with_steps(100)
    assert config.stride_rate == pytest.approx(rate)


def test_a_run_that_grows_keeps_the_rate_of_its_strides(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(manifest="m", out="o", budget="0.5x", max_steps=1000).with_steps(12)
    longer = replace(config, max_steps=4000, valid_every=None, stride_lr=None).filled_from(config)
    assert (longer.steps, longer.stride_rate, longer.with_steps(12).stride_rate) == (4000, 0.04, 0.04)
    monkeypatch.setattr("audiostride.training.config.STRIDE_REACH", 0.05)  # so that few steps tell rates apart
    for steps in (2, 4):
        own = make_config(manifest, tmp_path / "run", max_steps=steps, valid_every=1, budget="0.9x")
        train(own, resume=steps == 4, progress=False)
        assert TrainConfig.load(tmp_path / "run").stride_rate == 0.05
    assert own.with_steps(12).stride_rate == 0.025  # what a run of four steps has from the first on


def test_a_run_keeps_the_steps_that_its_epochs_meant(manifest: Path, tmp_path: Path) -> None:
    config = make_config(manifest, tmp_path / "run", max_steps=None, epochs=2.0, valid_every=None)
    assert train(config, progress=False)["steps"] == 6  # 12 clips, 4 in a batch
    assert TrainConfig.load(tmp_path / "run").max_steps == 6
    assert train(config, resume=True, progress=False)["steps"] == 6  # the same settings: nothing is left to do
    with pytest.raises(InputError, match="either max_steps or epochs must be given, got 5 and 2"):
        train(make_config(manifest, tmp_path / "both", max_steps=5, epochs=2.0), progress=False)


def test_label_smoothing_is_torchs_with_and_without_mixup() -> None:
    logits, classes = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, -1])
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = torch.nn.functional.cross_entropy(logits, classes, weight, ignore_index=-1, label_smoothing=0.2)
    found = mean_cross_entropy(logits, classes, weight=weight, smoothing=0.2)
    torch.testing.assert_close(found, expected)
    mixed = mixed_cross_entropy(logits, classes, classes.flip(0), torch.ones(6), weight=weight, smoothing=0.2)
    torch.testing.assert_close(mixed, expected)
    halves = mixed_cross_entropy(logits, classes, classes, torch.full((6,), 0.3), weight=weight, smoothing=0.2)
    torch.testing.assert_close(halves, expected)


def test_strides_have_their_own_rate_and_no_weight_decay() -> None:
    model = AudioClassifier(ClassifierConfig(tasks={"t": ["a", "b"]}, width=0.03))
    config = TrainConfig(manifest="m", out="o", lr=0.1, stride_lr=0.2, weight_decay=0.3, max_steps=1)
    groups = ClassifierTraining(model, config).make_optimizer()[0].param_groups
    strides = {id(block.pool.strides) for block in model.encoder.blocks}
    assert {id(parameter) for parameter in groups[1]["params"]} == strides
    assert (groups[1]["initial_lr"], groups[1]["weight_decay"]) == (0.2, 0.0)
    assert (groups[0]["initial_lr"], groups[0]["weight_decay"]) == (0.1, 0.3)
    assert len(groups[0]["params"]) + 6 == len(list(model.parameters()))


def test_the_cost_term_drives_strides_up(manifest: Path, tmp_path: Path) -> None:
    means = []
    for name, cost in (("free", 0.0), ("costly", 30.0)):
        train(make_config(manifest, tmp_path / name, stride_cost=cost, stride_lr=5e-2), progress=False)
        means.append(pd.read_csv(tmp_path / name / "strides.csv").filter(like="layer").iloc[-1].mean())
    assert means[1] > means[0] + 0.1


def test_checkpoints_hold_no_code(trained_run: Path) -> None:
    # weights_only refuses anything but tensors and plain containers.
    stored = torch.load(trained_run / "checkpoints" / "last.ckpt", weights_only=True)
    assert stored["global_step"] == 8


def test_overlapping_windows_evaluate_a_run(manifest: Path, tmp_path: Path) -> None:
    losses = []
    for name, hop_s in (("apart", None), ("whole", 1.0), ("overlapping", 0.25)):
        train(make_config(manifest, tmp_path / name, eval_hop_s=hop_s), progress=False)
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        losses.append(metrics["loss"])
        assert evaluate_run(tmp_path / name, progress=False)["loss"] == metrics["loss"]
        predicted = load_classifier(tmp_path / name).predict(manifest, hop_s=hop_s, per_clip=True)  # what the user gets
        assert len(predicted) == 22
    assert losses[0] == losses[1] != losses[2]  # clips are of up to 1.5 s
    with pytest.raises(InputError, match=r"hop must lie in \(0, 1\] s, the model's window"):
        train(make_config(manifest, tmp_path / "far", eval_hop_s=1.5), progress=False)
    assert not (tmp_path / "far").exists()

"""What a run stores beside its weights: a temperature in its heads, thresholds that predict takes, alarms per hour."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from audiostride.errors import InputError
from audiostride.inference.settings import PredictionSettings
from audiostride.inference.thresholds import f1_threshold, fit_temperature, precision_threshold, probabilities
from audiostride.models import AudioClassifier, ClassifierConfig, load_classifier, save_classifier
from audiostride.models.classifier import Thresholds
from audiostride.reporting.class_sections import per_class_table
from audiostride.reporting.runs import read_run
from audiostride.reporting.tables import NONE
from audiostride.training import TrainConfig, evaluate_run
from audiostride.training import alarms as alarms_module
from audiostride.training.alarms import measure_alarms
from audiostride.training.clips import LabelledClips, evaluate_clips, load_split
from audiostride.training.run_files import read_metrics
from audiostride.training.sources import read_source, read_sources

Run = Callable[..., int]


@pytest.fixture(scope="module")
def calibrated(set_manifest: Path, quick_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a temperature. Not to be changed."""
    run = tmp_path_factory.mktemp("calibrated") / "run"
    assert quick_run(set_manifest, run, "--calibrate", "--keep", "last", "--max-steps", 12) == 0
    return run


def valid_logits(run: Path, model: AudioClassifier) -> tuple[Any, Any]:
    config = TrainConfig.load(run)
    (source,) = config.sources()
    clips, _ = read_source(source, config)
    valid = LabelledClips.load(clips[clips["split"] == "valid"], model.config.tasks, where="valid", progress=False)
    found = evaluate_clips(model, valid, progress=False)["kind"]
    return found.logits.double().numpy(), valid["kind"].class_indices


def test_the_heads_hold_the_temperature_and_the_model_the_thresholds(
    calibrated: Path, set_manifest: Path, tmp_path: Path, quick_run: Run
) -> None:
    plain = tmp_path / "plain"
    assert quick_run(set_manifest, plain, "--keep", "last", "--max-steps", 12) == 0
    before, after = load_classifier(plain), load_classifier(calibrated)
    temperature = read_metrics("report", calibrated, ["kind"])["temperature"]["kind"]
    for name, tensor in before.state_dict().items():
        divided = tensor / temperature if name.startswith("heads.") else tensor
        torch.testing.assert_close(
            after.state_dict()[name], divided, rtol=1e-3, atol=1e-6
        )  # it is written with four digits
    logits, classes = valid_logits(calibrated, before)
    targets = np.eye(2)[classes]
    assert temperature == pytest.approx(fit_temperature(logits, targets, several=False), abs=1e-4)
    scores = probabilities(logits / temperature, several=False)
    for index, name in enumerate(after.config.tasks["kind"]):
        expected = f1_threshold(scores[:, index], targets[:, index] > 0)
        assert after.thresholds.tasks["kind"][name] == pytest.approx(expected, abs=1e-4)
    assert after.thresholds.rule == "highest F1 on validation clips"
    assert before.thresholds == Thresholds()
    # No order of classes has changed.
    assert (
        read_metrics("report", calibrated, ["kind"])["accuracy"] == read_metrics("report", plain, ["kind"])["accuracy"]
    )


def test_a_calibrated_run_is_evaluated_and_goes_on(calibrated: Path, set_manifest: Path, tmp_path: Path,
                                                   quick_run: Run) -> None:  # fmt: skip
    before = read_metrics("report", calibrated, ["kind"])
    again = evaluate_run(calibrated, progress=False)
    assert again["loss"] == before["loss"]
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    options = ["--calibrate", "--keep", "last"]
    assert quick_run(set_manifest, stopped, *options, "--schedule", "constant") == 0
    assert quick_run(set_manifest, stopped, *options, "--schedule", "constant", "--resume", "--max-steps", 12) == 0
    assert quick_run(set_manifest, whole, *options, "--schedule", "constant", "--max-steps", 12) == 0
    # The checkpoint has the weights without the temperature, which counts once.
    for name, tensor in load_classifier(whole).state_dict().items():
        assert torch.equal(load_classifier(stopped).state_dict()[name], tensor), name


def test_predict_takes_the_thresholds_of_the_model(calibrated: Path, set_manifest: Path, tmp_path: Path,
                                                   run_command: Run) -> None:  # fmt: skip
    model = load_classifier(calibrated)
    windows = model.predict(str(set_manifest), per_window=True)
    model.thresholds = Thresholds({"kind": {"noise": 1.0, "tone": 0.0}})
    save_classifier(model, tmp_path / "m.safetensors")
    out = tmp_path / "events.csv"
    assert (
        run_command("predict", tmp_path / "m.safetensors", set_manifest, "-o", out, "--events", "--threshold", "auto")
        == 0
    )
    events = pd.read_csv(out)
    # From 0 on, every recording is one event of a tone; from 1 on nothing is noise.
    assert set(events["label"]) == {"tone"}
    assert len(events) == windows.groupby(["path", "start_s"]).ngroups - (windows["start_s"] > 0).sum()
    other = model.predict(str(set_manifest), events=True, threshold="auto")
    assert len(other) == len(events)


def test_thresholds_are_those_of_the_classes(calibrated: Path, set_manifest: Path, tmp_path: Path, run_command: Run,
                                             capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    config = ClassifierConfig(tasks={"kind": ["a", "b"]}, channels=[2], strides=[[4, 4]])
    model = AudioClassifier(config)
    for thresholds, message in (
        ({"kind": {"c": 0.5}}, "thresholds must be of classes of the model, got c"),
        ({"word": {}}, "thresholds must be of classes of the model, got word"),
        ({"kind": {"a": 1.5}}, "in \\[0, 1\\]"),
    ):
        model.thresholds = Thresholds(thresholds)
        save_classifier(model, tmp_path / "m.safetensors")
        with pytest.raises(InputError, match=message):
            load_classifier(tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="thresholds must be of classes of the model, got c"):
        PredictionSettings(granularity="event", thresholds={"kind": {"c": 0.5}}).check_tasks(config)
    with pytest.raises(InputError, match="must find thresholds in the model, got one without"):
        AudioClassifier(config).predict(str(set_manifest), events=True, threshold="auto")
    for given, message in (("often", "must be a probability or auto, got 'often'"), ("2", "threshold")):
        assert (
            run_command("predict", calibrated, set_manifest, "-o", tmp_path / "x.csv", "--events", "--threshold", given)
            == 2
        )
        assert message in capsys.readouterr().err
    assert run_command("predict", calibrated, set_manifest, "-o", tmp_path / "x.csv", "--threshold", "auto") == 2
    assert "threshold is for events only, got auto" in capsys.readouterr().err


def test_the_page_shows_the_thresholds_of_the_model(calibrated: Path) -> None:
    table = per_class_table(read_run(calibrated), "kind", "")
    kept = load_classifier(calibrated).thresholds.tasks["kind"]
    assert dict(zip(table.shown["class"], table.shown["threshold"], strict=True)) == {
        name: f"{kept[name]:.3f}" if name in kept else NONE for name in ("noise", "tone")
    }
    assert table.caption.endswith("with --threshold auto (highest F1 on validation clips).")


def test_an_event_needs_windows_in_a_row(calibrated: Path) -> None:
    model = load_classifier(calibrated)
    rng = np.random.default_rng(0)
    recording = (rng.standard_normal(16000 * 20) * np.repeat(rng.random(20) > 0.4, 16000)).astype(np.float32) / 4
    scores = model.predict(recording, sample_rate=16000, per_window=True, hop_s=0.5)
    threshold = float(scores["score"].median())
    above = (scores["label"] == "noise") & (scores["score"] >= threshold)
    runs = above.ne(above.shift()).cumsum()[above]
    for least in (1, 2, 3):
        events = model.predict(
            recording, sample_rate=16000, events=True, hop_s=0.5, threshold=threshold, min_windows=least
        )
        own = events[events["label"] == "noise"]
        long = [span for _, span in scores[above].groupby(runs) if len(span) >= least]
        spans = [(span["start_s"].min(), span["end_s"].max()) for span in long]
        merged: list[tuple[float, float]] = []
        for start, end in spans:  # windows that touch are one event
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], end)
            else:
                merged.append((start, end))
        assert list(zip(own["start_s"], own["end_s"], strict=True)) == merged
    assert len(long) < len(scores[above].groupby(runs))


def test_alarms_are_the_events_of_predict(calibrated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "negatives"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(3):
        soundfile.write(
            str(folder / f"{number}.wav"),
            0.2 * rng.standard_normal(16000 * 12) * np.repeat(rng.random(12), 16000),
            16000,
        )
    found = measure_alarms(calibrated, folder, hop_s=0.5, min_windows=2, merge_gap_s=0.3, progress=False)
    table = pd.read_csv(calibrated / "alarms.csv")
    assert found["hours"] == pytest.approx(36 / 3600, abs=1e-4)
    model = load_classifier(calibrated)
    assert len(table) == 2 * len(alarms_module.THRESHOLDS)
    for threshold in alarms_module.THRESHOLDS[[0, 15, 20, 30]]:
        events = model.predict(
            str(folder), events=True, hop_s=0.5, threshold=float(threshold), min_windows=2, merge_gap_s=0.3
        )
        for name in ("noise", "tone"):
            (row,) = table[(table["class"] == name) & (table["threshold"] == threshold)].to_dict("records")
            assert row["alarms"] == (events["label"] == name).sum()
            assert row["alarms_per_hour"] == pytest.approx(row["alarms"] * 100, rel=1e-3)
            assert row["low"] <= row["alarms_per_hour"] <= row["high"]


def test_a_test_clip_is_found_where_it_has_an_event(calibrated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(calibrated, run)
    soundfile.write(str(tmp_path / "n.wav"), 0.2 * np.random.default_rng(3).standard_normal(16000 * 4), 16000)
    model, config = load_classifier(run), TrainConfig.load(run)
    test = load_split(read_sources(config), model, config, "test", progress=False)["kind"]
    for settings in ({}, {"hop_s": 0.25, "min_windows": 2}):
        measure_alarms(run, tmp_path / "n.wav", progress=False, **settings)
        table = pd.read_csv(run / "alarms.csv")
        for threshold in alarms_module.THRESHOLDS[[20, 40, 60]]:
            for index, name in enumerate(model.config.tasks["kind"]):
                own = test.clips["path"][test.class_indices == index].tolist()
                events = model.predict(own, events=True, threshold=float(threshold), **settings)
                found = events.loc[events["label"] == name, "path"].nunique() / len(own)
                (recall,) = table.loc[(table["class"] == name) & (table["threshold"] == threshold), "recall"]
                assert recall == pytest.approx(found, abs=1e-6)


def test_alarms_per_hour_set_the_thresholds(calibrated: Path, set_manifest: Path, tmp_path: Path, run_command: Run,
                                            capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    run = tmp_path / "run"
    shutil.copytree(calibrated, run)
    negatives = tmp_path / "negatives"
    negatives.mkdir()
    soundfile.write(str(negatives / "a.wav"), 0.2 * np.random.default_rng(2).standard_normal(16000 * 30), 16000)
    assert run_command("evaluate", run, "--negatives", negatives, "--alarms-per-hour", 10) == 0
    said = capsys.readouterr().out
    assert "at most 10 false alarms per hour of each class" in said
    assert "no alarm at all means up to" in said
    model = load_classifier(run)
    assert model.thresholds.rule.startswith("at most 10 alarms per hour of each class")
    events = model.predict(str(negatives), events=True, threshold="auto")
    assert len(events) == 0  # one in half a minute would be 120 per hour
    assert run_command("evaluate", run, "--hours", 2) == 2
    assert "--hours must be given with --negatives" in capsys.readouterr().err
    assert run_command("evaluate", run, "--negatives", negatives, "--alarms-per-hour", 0) == 2
    assert "--alarms-per-hour must be > 0, got 0" in capsys.readouterr().err


def test_a_precision_sets_the_thresholds(calibrated: Path, tmp_path: Path, run_command: Run,
                                         capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    run = tmp_path / "run"
    shutil.copytree(calibrated, run)
    assert run_command("evaluate", run, "--precision", 0.7) == 0
    said, model = capsys.readouterr().out, load_classifier(run)
    logits, classes = valid_logits(run, model)
    scores = probabilities(logits, several=False)
    for index, name in enumerate(model.config.tasks["kind"]):
        expected = precision_threshold(scores[:, index], classes == index, 0.7)
        assert model.thresholds.tasks["kind"][name] == pytest.approx(1.0 if expected is None else expected, abs=1e-6)
        assert f"{name}: " in said
    assert model.thresholds.rule == "precision of 0.7 on validation clips"
    assert run_command("evaluate", run, "--precision", 1.2) == 2
    assert "--precision must lie in (0, 1], got 1.2" in capsys.readouterr().err
    assert run_command("evaluate", run, "--precision", 0.9, "--negatives", tmp_path) == 2
    assert "either --precision or --negatives" in capsys.readouterr().err

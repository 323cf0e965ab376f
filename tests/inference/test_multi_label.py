"""Clips with several labels: metrics beside scikit-learn's, intervals, and what predictions give."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torch.nn import functional as F

from audiostride.dataset.readers import open_reader
from audiostride.errors import InputError
from audiostride.inference.baseline import baseline_accuracies
from audiostride.inference.evaluation import evaluate_label_sets
from audiostride.inference.granularity import ClipResult, EventResult, WindowResult
from audiostride.inference.multi_label import LabelScores, _intervals, constant_metrics, draw_intervals, group_numbers
from audiostride.inference.settings import PredictionSettings
from audiostride.inference.thresholds import probabilities
from audiostride.inference.tiling import Tiling
from audiostride.models import AudioClassifier, ClassifierConfig
from audiostride.models.export import export_metadata
from lab.clips import read_clips


def draw(n_clips: int = 60, n_classes: int = 4, *, seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scores that know something of a truth of 0 and 1."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((n_clips, n_classes)) < 0.3).astype(np.int64)
    scores = rng.standard_normal(truth.shape) + truth
    return (scores.round(0) if ties else scores), truth


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_are_those_of_scikit_learn(ties: bool, weighted: bool) -> None:
    scores, truth = draw(ties=ties)
    weights = np.random.default_rng(1).integers(0, 4, len(scores)).astype(float) if weighted else None
    found = LabelScores(scores, truth, scores >= 0.5).measure(weights)
    for index in range(truth.shape[1]):
        own = truth[:, index], scores[:, index]
        for name, score in (("average_precision", average_precision_score), ("roc_auc", roc_auc_score)):
            expected = score(*own, sample_weight=weights)
            assert getattr(found, name)[index] == pytest.approx(expected, abs=1e-12), name
        expected = f1_score(own[0], own[1] >= 0.5, sample_weight=weights)
        assert found.f1[index] == pytest.approx(expected, abs=1e-12)


def test_classes_that_the_clips_do_not_tell_of_have_no_metrics() -> None:
    scores, truth = draw(n_classes=3)
    truth[:, 0], truth[:, 1] = 0, 1
    found = LabelScores(scores, truth, scores > 9).measure()
    assert np.isnan(found.average_precision).tolist() == [True, False, False]
    assert np.isnan(found.roc_auc).tolist() == [True, True, False]
    assert np.isnan(found.f1).tolist() == [True, False, False]
    assert found.average_precision[1] == 1
    assert found.f1[1:].tolist() == [0, 0]
    assert found.precision[1:].tolist() == [0, 0]
    assert found.macro("average_precision") == pytest.approx(found.average_precision[1:].mean())
    assert np.isnan(LabelScores(scores, 0 * truth, scores > 0).measure().macro("roc_auc"))


def test_guessing_the_shares_has_the_average_precision_of_chance() -> None:
    _, truth = draw()
    found = constant_metrics(np.array([0.6, 0.4, 0.1, 0.9]), truth)
    assert found["average_precision"] == pytest.approx(truth.mean(axis=0).mean())
    assert found["roc_auc"] == 0.5
    expected = f1_score(truth, np.tile([1, 0, 0, 1], (len(truth), 1)), average="macro")
    assert found["f1"] == pytest.approx(expected)


def test_the_sigmoid_holds_for_every_logit() -> None:
    logits = np.array([-1e4, -30.0, -1.0, 0.0, 2.0, 1e4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(probabilities(logits, several=True), torch.from_numpy(logits).sigmoid(), rtol=1e-12)


def test_intervals_hold_the_value_and_are_wider_where_groups_are_alike() -> None:
    scores, truth = draw(80)
    found = LabelScores(scores, truth, scores >= 0)
    each = draw_intervals(found, np.arange(80), resamples=200)
    again = draw_intervals(found, np.arange(80), resamples=200)
    assert each[0] == again[0]
    np.testing.assert_array_equal(each[1], again[1])
    assert draw_intervals(found, np.arange(80), seed=1, resamples=200)[0] != each[0]
    for name, (low, high) in each[0].items():
        assert 0 <= low < found.measure().macro(name) < high <= 1
    twice = LabelScores(np.repeat(scores, 4, axis=0), np.repeat(truth, 4, axis=0), np.repeat(scores >= 0, 4, axis=0))
    by_clip = draw_intervals(twice, np.arange(320), resamples=200)[0]["roc_auc"]
    by_group = draw_intervals(twice, np.repeat(np.arange(80), 4), resamples=200)[0]["roc_auc"]
    assert np.ptp(by_group) > 1.5 * np.ptp(by_clip)
    assert np.ptp(by_group) == pytest.approx(np.ptp(each[0]["roc_auc"]), rel=0.25)


def test_an_interval_lies_where_the_draws_say_that_the_value_is_not() -> None:
    draws = np.column_stack([np.linspace(0.2, 0.6, 41), np.full(41, np.nan)])  # the metric itself is 0.3
    draws[5:20, 1] = 0.7
    (low, none_low), (high, none_high) = _intervals(draws, np.array([0.3, 0.7]))
    assert (low, high) == pytest.approx((0.6 - 0.59, 0.6 - 0.21))  # as far below it as draws come out above, and so on
    assert (none_low, none_high) == pytest.approx((0.7, 0.7))


def test_groups_are_drawn_where_there_are_two() -> None:
    assert group_numbers(pd.Series(["x", "y", "x"]))[0].tolist() == [0, 1, 0]
    for groups in (["x", "x", "x"], ["x", "", "y"], [None] * 3):
        numbers, name = group_numbers(pd.Series(groups, dtype=object))
        assert (numbers.tolist(), name) == ([0, 1, 2], "clip")


def test_an_evaluation_has_the_metric_of_its_task() -> None:
    scores, truth = draw()
    logits, names = torch.from_numpy(scores), ["a", "b", "c", "d"]
    found = evaluate_label_sets(logits, truth, names)
    assert (found.metric, found.interval, found.confusion) == ("average_precision", None, None)
    assert found.accuracy == pytest.approx(average_precision_score(truth, scores, average="macro"))
    assert found.loss == pytest.approx(F.binary_cross_entropy_with_logits(logits, torch.from_numpy(truth * 1.0)).item())
    assert found.per_class["clips"].tolist() == truth.sum(axis=0).tolist()
    drawn = evaluate_label_sets(logits, truth, names, groups=pd.Series([None] * len(truth), dtype=object))
    assert drawn.macro["interval_over"] == "60 clips"
    assert drawn.interval[0] < drawn.accuracy < drawn.interval[1]
    assert list(drawn.per_class)[3:6] == ["average_precision", "low", "high"]
    with pytest.raises(InputError, match="a clip must have a label, got none in 60 clips"):
        evaluate_label_sets(logits, 0 * truth, names)
    with pytest.raises(InputError, match="logits must be finite"):
        evaluate_label_sets(logits * torch.inf, truth, names)


def test_the_classic_baseline_hears_each_class_on_its_own(manifest: Path) -> None:
    clips = read_clips(manifest, label="kind")
    train, test = (open_reader(clips[clips["split"] == split], progress=False) for split in ("train", "test"))
    tones = [(clips.loc[clips["split"] == split, "kind"] == "tone").to_numpy() for split in ("train", "test")]
    labels = [np.stack([tone, ~tone, tone | True], axis=1).astype(np.int64) for tone in tones]
    found = baseline_accuracies(train, labels[0], test, labels[1])
    assert found.classic == pytest.approx(1.0)
    assert found.majority == pytest.approx(labels[1].mean(axis=0).mean())
    assert found.others["baseline_majority_roc_auc"] == 0.5
    assert found.others["baseline_classic_f1"] == pytest.approx(1.0)
    assert baseline_accuracies(train, labels[0], test, labels[1], max_train_clips=3).classic is None


TASKS = {"many": ["a", "b", "c"], "one": ["x", "y"]}
SEVERAL = ClassifierConfig(tasks=TASKS, multi_label=["many"])
LOGITS = {
    "many": np.array([[2.0, 1.0, -2.0], [2.0, -1.0, -2.0], [-3.0, -3.0, -3.0]]),
    "one": np.array([[0.1, 0.0], [0.0, 2.0], [0.0, 0.1]]),
}


def rows_of(kind: type, threshold: float | None = None, **settings: object) -> list[tuple[object, ...]]:
    chosen = PredictionSettings(threshold=threshold, **settings)
    result = kind(SEVERAL, Tiling(30, 10, 10, 10), chosen)
    result.add(0, {task: logits[:1] for task, logits in LOGITS.items()})
    result.add(1, {task: logits[1:] for task, logits in LOGITS.items()})
    return [row[:4] for row in result.rows()]


def test_clips_and_windows_have_a_row_for_each_class_above_the_threshold() -> None:
    one = [(0, 3, "one", "y")]
    assert rows_of(ClipResult) == [(0, 3, "many", "a"), *one]
    # Mean logits 1/3, -1, -7/3: probabilities 0.58, 0.27, 0.09.
    assert rows_of(ClipResult, 0.25) == [(0, 3, "many", "a"), (0, 3, "many", "b"), *one]
    assert rows_of(ClipResult, 0.6) == one
    ones = [(0, 1, "one", "x"), (1, 2, "one", "y"), (2, 3, "one", "y")]
    found = rows_of(WindowResult, granularity="window")
    assert found == [(0, 1, "many", "a"), (0, 1, "many", "b"), (1, 2, "many", "a"), *ones]
    # softmax(2, 1, -2) is 0.72, 0.27, 0.01: of single labels b would be none.
    events = rows_of(EventResult, granularity="event", threshold=0.6)
    assert events == [(0, 2, "many", "a"), (0, 1, "many", "b"), (1, 2, "one", "y")]
    scores = ClipResult(SEVERAL, Tiling(10, 10, 10, 10), PredictionSettings())
    scores.add(0, {task: logits[:1] for task, logits in LOGITS.items()})
    assert [row[4] for row in scores.rows()[:2]] == [0.880797, 0.731059]


def test_a_model_knows_its_tasks_with_several_labels() -> None:
    settings = {"pooling": "strided", "channels": [4], "strides": [[4, 4]]}
    plain = ClassifierConfig(tasks=TASKS, **settings)
    several = ClassifierConfig(tasks=TASKS, multi_label=["many"], **settings)
    assert "multi_label" not in plain.to_dict(), "models of before keep their checksum"
    assert several.to_dict()["multi_label"] == ["many"]
    assert ClassifierConfig.from_dict(json.loads(json.dumps(several.to_dict()))) == several
    with pytest.raises(InputError, match=r"multi_label must name tasks \(many, one\), got 'two'"):
        ClassifierConfig(tasks=TASKS, multi_label=["two"], **settings)
    model = AudioClassifier(several)
    assert "many (3 classes, several per clip), one (2 classes)" in model.extra_repr()
    assert json.loads(export_metadata(model, input="waveform")["multi_label"]) == ["many"]
    with torch.no_grad():
        model.heads[0].bias[:] = torch.tensor([9.0, 9.0, -9.0])
    table = model.predict(np.zeros(16000, dtype=np.float32), sample_rate=16000, threshold=0.9)
    assert table["label"].tolist()[:2] == ["a", "b"]
    assert table["task"].tolist() == ["many", "many", "one"]
    single = AudioClassifier(ClassifierConfig(tasks={"one": ["x", "y"]}, **settings))
    with pytest.raises(InputError, match=r"threshold is for events only, got 0.9; add --events"):
        single.predict(np.zeros(16000, dtype=np.float32), sample_rate=16000, threshold=0.9)

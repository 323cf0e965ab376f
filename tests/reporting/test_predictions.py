from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from audiostride.audio.resampling import read_audio
from audiostride.dataset.prepare import prepare_store
from audiostride.reporting.class_figures import read_samples_of
from audiostride.reporting.predictions import (
    area_under,
    calibration_error,
    calibration_table,
    positive_class,
    roc_curve,
    surest_right,
    worst_mistakes,
)
from lab.clips import read_clips

NAMES = ["a", "b", "c"]


def make_predictions(n: int = 400, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet([0.6, 0.6, 0.6], n)
    truth = [rng.choice(NAMES, p=row) for row in probs]  # calibrated
    table = pd.DataFrame({"line": range(n), "path": "x.wav", "start_s": 0.0, "duration_s": np.nan, "true": truth})
    table["predicted"] = [NAMES[index] for index in probs.argmax(axis=1)]
    return pd.concat([table, pd.DataFrame(probs, columns=[f"p:{name}" for name in NAMES])], axis=1)


def test_the_calibration_error_is_that_of_a_loop() -> None:
    predictions = make_predictions()
    gaps: dict[int, list[float]] = {}
    for _, row in predictions.iterrows():
        confidence = max(row[f"p:{name}"] for name in NAMES)
        gaps.setdefault(int(np.ceil(confidence * 10)), []).append((row["true"] == row["predicted"]) - confidence)
    expected = sum(abs(sum(gap)) for gap in gaps.values()) / len(predictions)
    table = calibration_table(predictions, NAMES)
    assert table["clips"].sum() == len(predictions)
    assert calibration_error(table) == pytest.approx(expected)
    assert calibration_error(calibration_table(make_predictions(20000), NAMES)) < 0.02


def test_certain_and_always_wrong_has_the_largest_calibration_error() -> None:
    table = make_predictions(10).assign(**{"true": "a", "predicted": "b", "p:a": 0.0, "p:b": 1.0, "p:c": 0.0})
    bins = calibration_table(table, NAMES)
    assert bins[["low", "high", "clips", "accuracy"]].to_numpy().tolist() == [[0.9, 1.0, 10, 0.0]]
    assert calibration_error(bins) == 1.0


@pytest.mark.parametrize("digits", [1, 6])  # with one digit many clips share a score
def test_the_roc_curve_is_that_of_scikit_learn(digits: int) -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(300) < 0.4
    scores = (0.3 * positive + rng.random(300)).round(digits)
    curve = roc_curve(positive, scores)
    expected = sklearn_roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve["false_positive_rate"], expected[0])
    np.testing.assert_allclose(curve["true_positive_rate"], expected[1])
    np.testing.assert_allclose(curve["threshold"], expected[2])
    assert area_under(curve) == pytest.approx(roc_auc_score(positive, scores))


def test_the_class_to_detect() -> None:
    assert positive_class(["bird", "nobird"]) == "bird"
    assert positive_class(["0", "1"]) == "1"
    assert positive_class(["noise", "tone"]) == "tone"


def test_the_worst_mistakes_come_first() -> None:
    predictions = make_predictions()
    found = worst_mistakes(predictions, NAMES, count=5)
    wrong = predictions[predictions["true"] != predictions["predicted"]]
    assert found["probability"].tolist() == sorted(wrong[["p:a", "p:b", "p:c"]].max(axis=1), reverse=True)[:5]
    assert (found["true"] != found["predicted"]).all()
    assert (found["true_probability"] < found["probability"]).all()
    assert worst_mistakes(predictions[predictions["true"] == predictions["predicted"]], NAMES).empty


def test_the_surest_clip_of_each_class_is_one_that_was_right() -> None:
    predictions = make_predictions()
    found = surest_right(predictions, ["b", "a", "c"]).set_index("true")
    assert list(found.index) == ["b", "a", "c"]
    for name in NAMES:
        own = predictions[(predictions["true"] == name) & (predictions["predicted"] == name)]
        assert found.loc[name, "probability"] == own[f"p:{name}"].max()
    never = predictions.assign(predicted="a")
    assert list(surest_right(never, NAMES)["true"]) == ["a"]


def test_clips_are_read_from_their_files_or_their_store(manifest: Path, tmp_path: Path) -> None:
    clips = read_clips(manifest, label="kind")
    row = clips.iloc[3]
    samples = read_samples_of(row, str(manifest), sample_rate=16000)
    np.testing.assert_array_equal(samples, read_audio(row["path"]))
    prepare_store(clips, tmp_path / "store", where="m", progress=False)
    stored = read_clips(tmp_path / "store", label="kind").iloc[3]
    found = read_samples_of(stored, str(tmp_path / "store"), sample_rate=16000)
    assert stored["line"] == row["line"]
    np.testing.assert_allclose(found, samples, atol=1e-4)  # 16 bits
    gone, part = row.copy(), row.copy()
    gone["path"] = "gone.wav"
    assert read_samples_of(gone, str(manifest), sample_rate=16000) is None
    part["start_s"], part["duration_s"] = 0.25, 0.1
    assert len(read_samples_of(part, str(manifest), sample_rate=16000)) == 1600

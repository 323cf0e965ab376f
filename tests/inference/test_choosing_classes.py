"""Which classes have rows: the most probable ones, some of them, all as columns; beside a plain computation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from audiostride import AudioClassifier, ClassifierConfig, InputError
from audiostride.inference.settings import PredictionSettings
from audiostride.models import save_classifier

NAMES = ["wren", "rook", "noise", "owl"]
SIZES = ["small", "large"]
SETTINGS: dict[str, Any] = {"pooling": "strided", "channels": [4], "strides": [[4, 4]]}


def one_after_another(samples: np.ndarray) -> torch.Tensor:
    """The windows of the samples, ``(12, 16000)``."""
    return torch.from_numpy(np.pad(samples, (0, 12 * 16000 - len(samples))).reshape(12, 16000))


@pytest.fixture(scope="module")
def model(samples: np.ndarray) -> AudioClassifier:
    """Two tasks; logits differ much between windows, so that every class is the most probable one somewhere."""
    torch.manual_seed(3)
    found = AudioClassifier(ClassifierConfig(tasks={"bird": NAMES, "size": SIZES}, **SETTINGS)).eval()
    with torch.no_grad():
        features = found.features(one_after_another(samples))
        for head in found.heads:
            head.weight *= 1.5 / (features @ head.weight.T).std(dim=0)[:, None]
            head.bias[:] = -(features @ head.weight.T).mean(dim=0)
    return found


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """A tone in each second, and noise."""
    rng, seconds = np.random.default_rng(0), np.arange(187000) / 16000
    pitches = rng.permutation(np.geomspace(150, 7000, 12)).repeat(16000)[:187000]
    levels = 10 ** rng.uniform(-2, 0, 12).repeat(16000)[:187000]
    return (levels * np.sin(2 * np.pi * pitches * seconds) / 2 + rng.normal(0, 1e-3, 187000)).astype(np.float32)


@pytest.fixture(scope="module")
def scores(model: AudioClassifier, samples: np.ndarray) -> dict[str, np.ndarray]:
    """Probabilities ``(windows, classes)`` of each task, one window after another."""
    with torch.no_grad():
        found = model(one_after_another(samples))
    return {task: logits.double().softmax(dim=1).numpy() for task, logits in found.items()}


def told(model: AudioClassifier, samples: np.ndarray, **options: Any) -> pd.DataFrame:
    return model.predict(samples, sample_rate=16000, **options)


def test_a_plain_command_tells_the_class_of_each_window(
    model: AudioClassifier, samples: np.ndarray, scores: dict[str, np.ndarray]
) -> None:
    found = told(model, samples)
    bird = found[found["task"] == "bird"]
    assert bird["start_s"].tolist() == list(range(12))
    assert bird["label"].tolist() == [NAMES[index] for index in scores["bird"].argmax(axis=1)]
    assert bird["label"].nunique() > 2, "windows differ"
    np.testing.assert_allclose(bird["score"], scores["bird"].max(axis=1), atol=1e-4)


def test_the_most_probable_classes_come_in_their_order(
    model: AudioClassifier, samples: np.ndarray, scores: dict[str, np.ndarray]
) -> None:
    found = told(model, samples, top=3)
    bird = found[found["task"] == "bird"]
    assert len(bird) == 36
    assert (found["task"] == "size").sum() == 24, "no more than there are"
    expected = [NAMES[index] for row in scores["bird"] for index in np.argsort(-row)[:3]]
    assert bird["label"].tolist() == expected
    kept = told(model, samples, top=3, min_score=0.2)
    assert kept["score"].min() >= 0.2
    assert len(kept) == (found["score"] >= 0.2).sum() < len(found)


def test_only_classes_that_are_asked_for_compete(
    model: AudioClassifier, samples: np.ndarray, scores: dict[str, np.ndarray]
) -> None:
    found = told(model, samples, classes=["owl", "wren"])
    assert set(found["task"]) == {"bird"}
    best = scores["bird"][:, [0, 3]].argmax(axis=1)
    assert found["label"].tolist() == [["wren", "owl"][index] for index in best]


def test_a_background_has_no_rows_where_it_is_the_most_probable(
    model: AudioClassifier, samples: np.ndarray, scores: dict[str, np.ndarray]
) -> None:
    found = told(model, samples, background=["noise"])
    quiet = scores["bird"].argmax(axis=1) == 2
    assert 0 < quiet.sum() < 12
    assert found[found["task"] == "bird"]["start_s"].tolist() == np.flatnonzero(~quiet).tolist()
    events = told(model, samples, events=True, threshold=0.4, background=["noise", "small", "large"])
    assert set(events["label"]) <= {"wren", "rook", "owl"}
    only = told(model, samples, events=True, threshold=0.4, classes=["noise"])
    assert set(only["label"]) == {"noise"}
    whole = told(model, samples, events=True, threshold=0.4)
    assert len(only) == (whole["label"] == "noise").sum()


@pytest.mark.parametrize("per_clip", [False, True])
def test_all_scores_are_columns(
    model: AudioClassifier, samples: np.ndarray, scores: dict[str, np.ndarray], per_clip: bool
) -> None:
    found = told(model, samples, all_scores=True, per_clip=per_clip)
    names = [f"bird:{name}" for name in NAMES] + [f"size:{name}" for name in SIZES]
    assert found.columns.tolist() == ["path", "start_s", "end_s", *names]
    best = found[names[:4]].to_numpy()
    if per_clip:
        row = told(model, samples, per_clip=True).iloc[0]
        assert NAMES[int(best[0].argmax())] == row["label"]
        assert best[0].max() == row["score"]
    else:
        np.testing.assert_allclose(best, scores["bird"], atol=1e-4)
        assert found["end_s"].iloc[-1] == 187000 / 16000
    np.testing.assert_allclose(best.sum(axis=1), 1, atol=4e-6)
    some = told(model, samples, all_scores=True, per_clip=per_clip, classes=["owl", "small"])
    assert some.columns.tolist()[3:] == ["bird:owl", "size:small"]
    assert some["bird:owl"].equals(found["bird:owl"])


def test_of_several_labels_the_most_probable_above_their_threshold_have_rows(samples: np.ndarray) -> None:
    torch.manual_seed(1)
    several = AudioClassifier(ClassifierConfig(tasks={"bird": NAMES}, multi_label=["bird"], **SETTINGS)).eval()
    whole = told(several, samples, threshold=0.1)
    assert whole["start_s"].value_counts().max() > 1
    top = told(several, samples, threshold=0.1, top=1)
    best = whole.sort_values("score", ascending=False, kind="stable").drop_duplicates("start_s").sort_index()
    assert (
        top[["start_s", "label", "score"]].to_numpy().tolist()
        == best[["start_s", "label", "score"]].to_numpy().tolist()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, "top must be"),
        ({"classes": []}, "classes must name at least one class, got none"),
        ({"min_score": 1.5}, r"min_score must be a probability in \[0, 1\]"),
        (
            {"classes": ["owl", "crow"]},
            "classes must be of the model, got crow; it knows wren, rook, noise, owl, small",
        ),
        ({"background": ["crow"]}, "background must be of the model, got crow"),
        ({"top": 2, "events": True}, "top is for rows of windows or recordings, got it with events"),
        ({"all_scores": True, "events": True}, "all-scores is for rows of windows or recordings"),
        ({"all_scores": True, "top": 2}, "either top or all-scores must be given, got both"),
        ({"all_scores": True, "background": ["owl"]}, "either background or all-scores must be given"),
        ({"per_clip": True, "events": True}, "--per-clip and --events exclude each other"),
        ({"per_clip": True, "per_window": True}, "--per-clip and --per-window exclude each other"),
        ({"classes": "owl"}, "classes must be"),
    ],
)
def test_choices_that_cannot_be(
    model: AudioClassifier, samples: np.ndarray, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        told(model, samples, **options)


def test_columns_must_be_told_apart() -> None:
    tasks = {"kind": ["path", "b"]}
    model = AudioClassifier(ClassifierConfig(tasks=tasks, **SETTINGS))
    with pytest.raises(InputError, match="must not be called path, which is a column; rename it"):
        told(model, np.zeros(16000, dtype=np.float32), all_scores=True)


def test_the_command_writes_them_in_every_format_that_holds_them(
    model: AudioClassifier, samples: np.ndarray, tmp_path: Path, run_command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    save_classifier(model, tmp_path / "m.safetensors")
    soundfile.write(str(tmp_path / "a.wav"), samples, 16000, subtype="FLOAT")
    given = ["predict", tmp_path / "m.safetensors", tmp_path / "a.wav"]
    expected = model.predict(tmp_path / "a.wav", all_scores=True)
    for name, read in (("a.csv", pd.read_csv), ("a.parquet", pd.read_parquet)):
        assert run_command(*given, "--all-scores", "-o", tmp_path / name) == 0
        pd.testing.assert_frame_equal(read(tmp_path / name), expected)
    assert run_command(*given, "--all-scores", "-o", tmp_path / "a.jsonl") == 0
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 12
    assert run_command(*given, "--all-scores", "--format", "raven", "-o", tmp_path / "a.txt") == 2
    assert "all-scores must go to csv, parquet or jsonl, got raven" in capsys.readouterr().err
    options = ["--top", "2", "--min-score", "0.1", "--classes", "owl", "rook", "--background", "rook"]
    assert run_command(*given, *options, "-o", tmp_path / "b.csv") == 0
    chosen = model.predict(tmp_path / "a.wav", top=2, min_score=0.1, classes=["owl", "rook"], background=["rook"])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "b.csv"), chosen)
    assert set(chosen["label"]) == {"owl"}


def test_a_clip_is_what_settings_mean_unless_told() -> None:
    assert PredictionSettings().granularity == "clip", "evaluation is of clips"
    assert PredictionSettings.choose().granularity == "window"

"""Annotated recordings: how they are strung together, how events are scored, and the whole recipe on tiny data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from annotated_recordings import match_events, score_counts, string_together

Cells = Callable[[str], list[list[str]]]


def clips(root: Path, label: str, *lengths_s: float) -> pd.DataFrame:
    rows = []
    for number, length_s in enumerate(lengths_s):
        path = root / f"{label}{number}.wav"
        soundfile.write(str(path), np.sin(np.arange(round(16000 * length_s)) / 3) / 2, 16000)
        rows.append({"path": str(path), "start_s": 0.0, "duration_s": np.nan, "label": label})
    return pd.DataFrame(rows, columns=["path", "start_s", "duration_s", "label"])


def test_boxes_are_where_events_were_put_and_nowhere_else(tmp_path: Path) -> None:
    events, others = clips(tmp_path, "wren", 0.5, 1.25), clips(tmp_path, "rain", 1.0)
    waveform, boxes = string_together(events, others, 60, np.random.default_rng(0))
    again, same = string_together(events, others, 60, np.random.default_rng(0))
    assert np.array_equal(waveform, again)
    assert boxes == same
    assert len(waveform) == 16000 * 60
    assert np.abs(waveform).max() <= 1
    spans = np.array([box[3:5] for box in boxes], dtype=float)
    assert len(spans) >= 5
    assert set(np.diff(spans)[:, 0].round(3)) == {0.5, 1.25}
    assert (spans[1:, 0] - spans[:-1, 1] >= 0.5 - 1e-3).all()
    assert [box[0] for box in boxes] == list(range(1, len(boxes) + 1))
    silent, none = string_together(events[:0], others[:0], 60, np.random.default_rng(0))
    assert none == []
    level = silent.std()
    inside = [waveform[round(16000 * a) : round(16000 * b)].std() for a, b in spans]
    assert min(inside) > 1.2 * level, "each lies at or above the noise, and adds to it"


@pytest.mark.parametrize(
    ("truth", "predicted", "found"),
    [
        ([], [[0, 1]], 0),
        ([[0, 1]], [], 0),
        ([[0, 2]], [[0, 1]], 1),
        ([[0, 2]], [[0, 0.9]], 0),
        ([[0, 2]], [[0, 1], [1, 2]], 1),
        ([[0, 1], [1, 2]], [[0, 2]], 1),
        ([[0, 1], [3, 4]], [[3.1, 4], [0, 1.5]], 2),
    ],
)
def test_events_are_found_once_where_they_share_half_of_their_union(
    truth: list[list[float]], predicted: list[list[float]], found: int
) -> None:
    spans = [np.array(each, dtype=float).reshape(-1, 2) for each in (truth, predicted)]
    assert match_events(*spans) == match_events(*reversed(spans)) == found


def test_scores_of_counts() -> None:
    assert score_counts({"true": 4, "predicted": 2, "found": 1}) == pytest.approx(
        {"precision": 50, "recall": 25, "F1": 100 / 3}
    )
    assert score_counts({"true": 0, "predicted": 0, "found": 0}) == {"precision": 0, "recall": 0, "F1": 0}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--manifest", "m.csv"], "--manifest and --classes must be given"),
        (
            ["--manifest", "m.csv", "--classes", "x", "--recordings", "1", "1", "0", "1"],
            "--recordings must be at least 1",
        ),
        (["--smoke", "--set", "seed=3"], "got 'seed'"),
    ],
)
def test_bad_options(
    given: list[str], said: str, run_recipe: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run_recipe("annotated_recordings", *given) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_classes_must_be_in_every_split(
    manifest: Path, run_recipe: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--manifest", manifest, "--label", "kind", "--classes", "bell", "--out", tmp_path / "runs"]
    assert run_recipe("annotated_recordings", *given) == 2
    assert "must have clips of bell in train, valid, test, got none" in capsys.readouterr().err


@pytest.mark.slow
def test_smoke_runs_whole_and_a_second_call_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cells: Cells, run_recipe: Callable[..., int]
) -> None:
    for stood in (0, 1 + 1 + 1 + 1):  # archive, manifest, recordings and the run
        assert run_recipe("annotated_recordings", "--smoke", "--out", tmp_path) == 0
        shown = capsys.readouterr().out
        assert shown.count("stands, skipped") == stood
        rows = cells(shown)
        assert rows[0] == ["seed", "threshold", "precision (%)", "recall (%)", "F1 (%)", "alarms per hour (95 %)"]
        assert [row[0] for row in rows[2:]] == ["0", "all"]
        assert all(0 <= float(value) <= 100 for row in rows[2:] for value in row[2:5])
    table = pd.read_csv(tmp_path / "clips.csv")
    assert set(table["label"]) == {"bass", "brass", "background"}
    for split, own in table.groupby("split"):
        assert own["path"].str.match(rf"recordings/{split}_\d\.flac").all()
    boxes = {file: pd.read_csv(file, sep="\t") for file in (tmp_path / "recordings").glob("*.txt")}
    assert len(boxes) == 4
    for file, own in boxes.items():
        clips = table[table["path"].str.startswith(f"recordings/{file.name.split('.')[0]}.")]
        assert len(own) >= 2
        for begin, end, label in own[["Begin Time (s)", "End Time (s)", "Species"]].to_numpy():
            starts = clips.loc[clips["label"] == label, "start_s"].to_numpy()
            common = (np.minimum(starts + 1, end) - np.maximum(starts, begin)).max()
            assert common >= (0.5 if end - begin > 1 else end - begin) - 1e-4

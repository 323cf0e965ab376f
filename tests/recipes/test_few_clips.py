"""A new task with few clips: what is drawn, the table, options, and the whole recipe on tiny data."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from audiostride.errors import InputError
from audiostride.training import TrainConfig
from few_clips import build_parser, check_options, draw_clips

Cells = Callable[[str], list[list[str]]]
CLIPS = pd.DataFrame(
    [
        {"path": f"/a/{split}{number}.wav", "start_s": 0.0, "split": split, "label": label, "group": None}
        for split, counts in {"train": {"x": 9, "y": 2}, "valid": {"x": 3, "y": 3}, "test": {"x": 4, "y": 1}}.items()
        for label, count in counts.items()
        for number in range(count)
    ]
).assign(duration_s=float("nan"))


def test_so_many_training_clips_of_each_class_are_drawn_and_all_others_stay(capsys: pytest.CaptureFixture[str]) -> None:
    drawn = [draw_clips(CLIPS, 3, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0].equals(drawn[1])
    assert not drawn[0].equals(drawn[2])
    for table in drawn:
        assert table.columns.tolist() == ["path", "start_s", "split", "label"]
        counts = table.groupby(["split", "label"]).size().to_dict()
        assert counts == {
            ("train", "x"): 3, ("train", "y"): 2, ("valid", "x"): 3, ("valid", "y"): 3, ("test", "x"): 4,
            ("test", "y"): 1,
        }  # fmt: skip
        assert not table.duplicated().any()
    assert "clips: 1 class with fewer than 3 training clips: y" in capsys.readouterr().out
    with pytest.raises(InputError, match="must have a column split"):
        draw_clips(CLIPS.assign(split=None), 3, seed=0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--manifest", "m.csv"], "or --init RUN must be given, got neither"),
        (["--manifest", "m.csv", "--init", "r", "--task", "a=m.csv:x"], "or --init RUN must be given, got both"),
        (["--manifest", "m.csv", "--init", "r", "--width", "0.25"], "the network is that of it; leave width out"),
        (["--manifest", "m.csv", "--init", "r", "--first-steps", "9"], "leave first_steps out"),
        (["--init", "r"], "--manifest must be given"),
        (["--init", "r", "--manifest", "m.csv", "--clips-per-class", "0"], "must be at least 1, got 0"),
        (["--init", "r", "--manifest", "m.csv", "--set", "freeze_encoder=true"], "got freeze_encoder; give --init"),
        (["--init", "r", "--manifest", "m.csv", "--set", "seed=3"], "got 'seed'"),
        (["--smoke", "--init", "r"], "--smoke makes its own data"),
    ],
)
def test_bad_options(
    given: list[str], said: str, run_recipe: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run_recipe("few_clips", *given) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("few_clips: ")
    assert said in shown
    assert list(tmp_path.iterdir()) == []


def test_options_that_fit_are_taken() -> None:
    arguments = build_parser().parse_args(["--task", "a=m.csv:x", "b=m.csv:y", "--manifest", "n.csv"])
    check_options(arguments, {"width": 0.25, "pooling": "strided", "lr": 1e-3})
    assert arguments.task == ["a=m.csv:x", "b=m.csv:y"]


@pytest.mark.slow
def test_smoke_runs_whole_and_a_second_call_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cells: Cells, run_recipe: Callable[..., int]
) -> None:
    for stood in (0, 1 + 1 + 4):  # archive, manifest, and the runs
        assert run_recipe("few_clips", "--smoke", "--out", tmp_path) == 0
        shown = capsys.readouterr().out
        assert shown.count("stands, skipped") == stood
        rows = cells(shown)
        assert [row[0] for row in rows[2:]] == ["from scratch", "from the run", "from the run, encoder frozen"]
        assert all(row[1] == "0" and 0 <= float(row[2].split()[0]) <= 100 for row in rows[2:])
        assert [bool(row[3]) for row in rows[2:]] == [False, True, True]
        assert "log-mel statistics + SVM on the same clips: " in shown
    folder = tmp_path / "data-instrument_family-2"
    runs = {name: TrainConfig.load(folder / f"{name}_seed0") for name in ("scratch", "init", "frozen")}
    assert len({run.manifest for run in runs.values()}) == 1
    assert len({run.width for run in runs.values()}) == 1
    assert [run.init for run in runs.values()] == [None, *[str(tmp_path / "first_seed0")] * 2]
    assert [run.freeze_encoder for run in runs.values()] == [False, False, True]
    assert runs["scratch"].strides == TrainConfig.load(tmp_path / "first_seed0").strides

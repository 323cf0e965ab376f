"""Splits that are held out or drawn, and what is shown equally often, in whole trainings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from audiostride.errors import InputError
from audiostride.training import TrainConfig, evaluate_run
from audiostride.training.clips import LabelledClips
from audiostride.training.loading import BatchParts
from audiostride.training.loss import ClassifierTraining
from audiostride.training.sources import read_source

Run = Callable[..., int]


def write_table(table: pd.DataFrame, folder: Path) -> Path:
    table.to_csv(folder / "m.csv", index=False)
    return folder / "m.csv"


def split_of(run: Path) -> pd.DataFrame:
    """The clips of a run with their splits, as evaluation finds them."""
    config = TrainConfig.load(run)
    return read_source(config.sources()[0], config)[0]


def watch_sets(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The paths of each split that a training reads."""
    read: dict[str, list[str]] = {}
    load = LabelledClips.load.__func__  # type: ignore[attr-defined]

    def note(cls: type, clips: pd.DataFrame, *arguments: object, **options: object) -> LabelledClips:
        read[clips["split"].iloc[0]] = sorted(clips["path"])
        return load(cls, clips, *arguments, **options)

    monkeypatch.setattr(LabelledClips, "load", classmethod(note))
    return read


def test_without_a_valid_split_whole_groups_are_held_out_of_training(
    clips: pd.DataFrame,
    quick_run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = clips[clips["split"] != "valid"]
    manifest = write_table(table, tmp_path)
    read = watch_sets(monkeypatch)
    assert quick_run(manifest, tmp_path / "run", "--group", "speaker", "--hold-out", "0.25") == 0
    found = split_of(tmp_path / "run").merge(table[["path", "speaker"]].rename(columns={"speaker": "who"}))
    by_split = dict(iter(found.groupby("split")))
    assert len(found) == len(table)
    assert by_split["valid"]["who"].nunique() == 3  # a quarter of twelve
    assert not set(by_split["valid"]["who"]) & set(by_split["train"]["who"])
    assert set(by_split["test"]["path"]) == set(table.loc[table["split"] == "test", "path"])
    assert read == {split: sorted(rows["path"]) for split, rows in by_split.items()}
    n_valid = len(by_split["valid"])
    shown = capsys.readouterr().out
    assert f"no valid split: {n_valid} of 36 training clips are held out for validation (whole groups, seed 0)" in shown
    assert f"{36 - n_valid} train, {n_valid} valid, 6 test clips" in shown
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert evaluate_run(tmp_path / "run", progress=False) == metrics
    valid = evaluate_run(tmp_path / "run", split="valid", progress=False)
    assert (valid["n_clips"], valid["accuracy"]) == (n_valid, metrics["valid_accuracy"])


def test_without_groups_a_share_of_each_class_is_held_out(
    clips: pd.DataFrame, quick_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_table(clips[clips["split"] != "valid"], tmp_path)
    assert quick_run(manifest, tmp_path / "run", "--hold-out", "0.25") == 0
    valid = split_of(tmp_path / "run").query("split == 'valid'")
    assert valid["label"].value_counts().to_dict() == {"noise": 6, "tone": 3}  # of 24 and 12
    assert "9 of 36 training clips are held out for validation (clips of each class, seed 0)" in capsys.readouterr().out


def test_with_a_valid_split_nothing_is_held_out(plain_run: Path, clips: pd.DataFrame) -> None:
    assert split_of(plain_run)["split"].tolist() == clips["split"].tolist()


def test_a_share_that_is_none_is_refused(set_manifest: Path, quick_run: Run, tmp_path: Path, capsys) -> None:
    for share in (0, 1):
        assert quick_run(set_manifest, tmp_path / "run", "--hold-out", share) == 2
        assert f"hold_out must be a share of the training clips in (0, 1), got {share}" in capsys.readouterr().err


def test_a_random_split_keeps_groups_together(
    clips: pd.DataFrame, quick_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = clips.drop(columns="split").sample(frac=1, random_state=0)
    manifest = write_table(table, tmp_path)
    assert quick_run(manifest, tmp_path / "run", "--group", "speaker", "--random-split", "1") == 0
    assert "train, valid and test are drawn by group (--random-split 1)" in capsys.readouterr().out
    found = split_of(tmp_path / "run")
    assert (found.groupby("group")["split"].nunique() == 1).all()
    assert found.groupby("split")["group"].nunique().to_dict() == {"train": 13, "valid": 2, "test": 2}  # of 17
    capsys.readouterr()
    assert quick_run(manifest, tmp_path / "other", "--random-split", "1") == 0
    assert "are drawn by class (--random-split 1)" in capsys.readouterr().out
    assert (split_of(tmp_path / "other").merge(table).groupby("speaker")["split"].nunique() > 1).any()


@pytest.mark.parametrize("options", [["--random-split", "0"], ["--hold-out", "0.2"]])
def test_a_split_by_group_needs_a_group_for_each_clip(
    clips: pd.DataFrame, quick_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    table = clips[clips["split"] != "valid"].reset_index(drop=True)
    table.loc[[3, 7], "speaker"] = ""
    if "--random-split" in options:
        table = table.drop(columns="split")
    assert quick_run(write_table(table, tmp_path), tmp_path / "run", "--group", "speaker", *options) == 2
    shown = capsys.readouterr().err
    assert "2 bad rows\n  line 5: group is empty\n  line 9: group is empty\n" in shown
    assert "--group" in shown


@pytest.mark.parametrize("fault", ["no column", "an empty cell"])
def test_balancing_groups_needs_a_group_for_each_clip(
    clips: pd.DataFrame, quick_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    table = clips.rename(columns={"speaker": "group"})
    table.loc[3, "group"] = ""
    table = table.drop(columns="group") if fault == "no column" else table
    assert quick_run(write_table(table, tmp_path), tmp_path / "run", "--balance", "group") == 2
    shown = capsys.readouterr().err
    assert "--balance group needs a group for every training clip" in shown
    assert "name another column with --group" in shown
    assert not (tmp_path / "run").exists()


def test_a_column_of_groups_that_is_not_there_is_named(
    set_manifest: Path, quick_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quick_run(set_manifest, tmp_path / "run", "--group", "instrument") == 2
    assert "must have a column 'instrument', got path, kind, split, speaker" in capsys.readouterr().err


@pytest.mark.parametrize("balance", ["none", "class", "group"])
def test_balance_decides_what_training_shows(
    set_manifest: Path,
    quick_run: Run,
    clips: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    balance: str,
) -> None:
    seen: list[torch.Tensor] = []
    drawn: list[np.ndarray] = []
    part = BatchParts.__getitem__

    def note(self: BatchParts, index: int) -> dict[str, torch.Tensor]:
        item = part(self, index)
        seen.append(item["class_index"])
        drawn.append(self.batches.order.clips_at(4 * len(drawn), 4))
        return item

    monkeypatch.setattr(BatchParts, "__getitem__", note)
    # 36 excerpts: all training clips once, 18 of each class, or each of the 12 speakers three times.
    options = ["--balance", balance, "--group", "speaker", "--max-steps", "9"]
    assert quick_run(set_manifest, tmp_path / "run", *options) == 0
    counts = torch.cat(seen).bincount().tolist()
    train = clips[clips["split"] == "train"].reset_index(drop=True)
    speakers = train["speaker"][np.concatenate(drawn)].value_counts()
    if balance == "none":
        assert counts == [24, 12]
        assert len(set(np.concatenate(drawn).tolist())) == 36
    elif balance == "class":
        assert counts == [18, 18]
    else:
        assert speakers.tolist() == [3] * 12


def test_class_weights_are_those_of_the_training_clips(
    set_manifest: Path, quick_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: list[torch.Tensor] = []
    start = ClassifierTraining.make_optimizer

    def note(self: ClassifierTraining) -> Any:
        weights.append(self.class_weights_0.clone())
        return start(self)

    monkeypatch.setattr(ClassifierTraining, "make_optimizer", note)
    assert quick_run(set_manifest, tmp_path / "run", "--class-weights", "balanced", "--max-steps", "1") == 0
    torch.testing.assert_close(weights[0], torch.tensor([36 / (2 * 24), 36 / (2 * 12)]))  # noise, tone


def test_bad_choices_of_settings_are_refused_in_python_too() -> None:
    for name in ("balance", "class_weights", "on_error"):
        with pytest.raises(InputError, match=f"train: {name} must be one of"):
            TrainConfig(manifest="m", out="o", **{name: "speaker"})  # type: ignore[arg-type]


def test_accuracy_by_group_stands_in_a_table(
    set_manifest: Path, tmp_path: Path, quick_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quick_run(set_manifest, tmp_path / "run", "--group", "speaker") == 0
    tested = pd.read_csv(tmp_path / "run" / "predictions_test.csv")
    speakers = pd.read_csv(set_manifest)["speaker"].iloc[tested["line"] - 2]
    expected = (tested["true"] == tested["predicted"]).groupby(speakers.to_numpy()).agg(["size", "mean"])
    found = pd.read_csv(tmp_path / "run" / "per_group.csv").set_index("group")
    assert list(found.index) == ["test0", "test1", "test2"]
    assert found["clips"].to_dict() == expected["size"].to_dict()
    assert found["accuracy"].to_dict() == expected["mean"].to_dict()
    assert f"3 groups, of which the lowest has {100 * expected['mean'].min():.1f} %" in capsys.readouterr().out
    assert quick_run(set_manifest, tmp_path / "without") == 0
    assert not (tmp_path / "without" / "per_group.csv").exists()

"""Recordings without any of the classes: their clips, their share of the batches, and that nothing reports them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from audiostride.dataset.sampling import SharedOrder
from audiostride.errors import InputError
from audiostride.models import load_classifier
from audiostride.training import TrainConfig
from audiostride.training.background import IS_BACKGROUND, background_share, read_background
from audiostride.training.sources import read_source

Run = Callable[..., int]


def write_noises(folder: Path, lengths_s: list[float]) -> Path:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for number, length_s in enumerate(lengths_s):
        samples = 0.01 * rng.standard_normal(int(16000 * length_s))
        soundfile.write(str(folder / f"{number}.wav"), samples, 16000)
    return folder


def test_many_recordings_go_into_the_splits_whole(tmp_path: Path) -> None:
    table, note = read_background(str(write_noises(tmp_path / "b", [1.0] * 20)), window_s=1.0, seed=0)
    assert table["split"].value_counts().to_dict() == {"train": 16, "valid": 2, "test": 2}
    assert table["duration_s"].isna().all()
    assert note == "background: 20 recordings of b, as 16 train, 2 valid, 2 test clips"


def test_few_recordings_are_cut_into_the_splits_without_overlap(tmp_path: Path) -> None:
    table, _ = read_background(str(write_noises(tmp_path / "b", [30.0, 5.0])), window_s=1.0, seed=0)
    assert len(table) == 4
    long = table[table["clip_name"] == "/0.wav"].sort_values("start_s")
    assert list(long["split"]) == ["train", "valid", "test"]
    ends = long["start_s"] + long["duration_s"]
    assert (ends.to_numpy()[:-1] <= long["start_s"].to_numpy()[1:]).all()
    assert ends.max() <= 30
    assert list(table.loc[table["clip_name"] == "/1.wav", "split"]) == ["train"]  # half a second would be no window


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_share_holds_in_every_stretch_and_each_clip_comes_once_per_pass(share: float) -> None:
    apart = np.arange(23) >= 20
    order = SharedOrder(np.zeros(23, dtype=np.int64), apart, share, seed=1)
    clips = order.clips_at(0, 4000)
    assert (np.concatenate([order.clips_at(first, 16) for first in range(0, 4000, 16)]) == clips).all()
    assert apart[clips].mean() == pytest.approx(share, abs=0.001)
    for members in (np.flatnonzero(~apart), np.flatnonzero(apart)):
        own = clips[np.isin(clips, members)]
        assert all(set(own[at : at + len(members)]) == set(members) for at in range(0, 5 * len(members), len(members)))


def test_a_label_background_is_that_class_too(
    set_manifest: Path, tmp_path: Path, quick_run: Run, run_command: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, run = tmp_path / "set.csv", tmp_path / "run"
    clips = pd.read_csv(set_manifest).replace({"kind": {"noise": "background"}})  # as imported annotations have it
    clips.to_csv(manifest, index=False)
    assert quick_run(manifest, run) == 0
    said = "kind: clips of class background are without any of the others; predictions do not report it"
    assert said in capsys.readouterr().out
    assert load_classifier(run).config.background_class == "background"
    out = tmp_path / "events.csv"
    assert run_command("predict", run, *clips["path"][:9], "-o", out, "--events", "--threshold", "0.01") == 0
    assert set(pd.read_csv(out)["label"]) == {"tone"}


def test_of_several_labels_background_is_one_of_them(set_manifest: Path, tmp_path: Path, quick_run: Run) -> None:
    clips = pd.read_csv(set_manifest).replace({"kind": {"noise": "background;tone"}})
    clips.to_csv(tmp_path / "set.csv", index=False)
    assert quick_run(tmp_path / "set.csv", tmp_path / "run", "--multi-label", "--keep", "last") == 0
    assert load_classifier(tmp_path / "run").config.background_class is None


def test_a_single_label_task_has_a_class_more_which_is_not_reported(
    set_manifest: Path, tmp_path: Path, quick_run: Run, run_command: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    noises, run = write_noises(tmp_path / "noises", [2.0] * 10), tmp_path / "run"
    assert quick_run(set_manifest, run, "--background", noises, "--background-share", 0.5) == 0
    assert "background: 10 recordings of noises, as 8 train, 1 valid, 1 test clips" in capsys.readouterr().out
    config = load_classifier(run).config
    assert config.tasks == {"kind": ["background", "noise", "tone"]}
    assert config.background_class == "background"
    assert pd.read_csv(run / "per_class.csv").set_index("class")["clips"]["background"] == 1
    settings = TrainConfig.load(run)
    clips, _ = read_source(settings.sources()[0], settings)
    apart = background_share(clips[clips["split"] == "train"], settings.background_share)
    assert apart is not None
    assert (apart[0].sum(), apart[1]) == (8, 0.5)
    for options in ([], ["--per-window"], ["--events", "--threshold", 0.01]):
        out = tmp_path / f"{len(options)}.csv"
        assert run_command("predict", run, noises, set_manifest, "-o", out, *options) == 0
        assert "background" not in set(pd.read_csv(out)["label"])
    assert quick_run(set_manifest, run, "--resume") == 0
    (noises / "0.wav").unlink()
    assert quick_run(set_manifest, run, "--resume", "--max-steps", 9) == 2
    assert "kind, train: 44 clips -> " in capsys.readouterr().err


def test_with_several_labels_it_is_clips_without_any(clips: pd.DataFrame, tmp_path: Path, quick_run: Run) -> None:
    noises, run = write_noises(tmp_path / "noises", [2.0] * 10), tmp_path / "run"
    clips.assign(kind=[kind if row % 3 else "tone;noise" for row, kind in enumerate(clips["kind"])]).to_csv(
        tmp_path / "m.csv", index=False
    )
    assert quick_run(tmp_path / "m.csv", run, "--multi-label", "--background", noises) == 0
    assert load_classifier(run).config.tasks == {"kind": ["noise", "tone"]}
    settings = TrainConfig.load(run)
    table, _ = read_source(settings.sources()[0], settings)
    assert set(table.loc[table[IS_BACKGROUND], "label of kind"]) == {""}


def test_bad_input(set_manifest: Path, tmp_path: Path, quick_run: Run, run_command: Run,
                   capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    assert quick_run(set_manifest, tmp_path / "run", "--background", tmp_path / "empty") == 2
    assert "must hold audio files, found none" in capsys.readouterr().err
    with pytest.raises(InputError, match="must be a folder of recordings without any of the classes"):
        read_background(str(tmp_path / "nowhere"), window_s=1, seed=0)
    noises = write_noises(tmp_path / "noises", [2.0])
    assert run_command("prepare", set_manifest, "-o", tmp_path / "store") == 0
    assert quick_run(tmp_path / "store", tmp_path / "run", "--background", noises) == 2
    assert "got a store; give the manifest" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

"""A store in the place of its manifest: the same training, metrics and predictions."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

Run = Callable[..., int]


@pytest.fixture(scope="module")
def store(set_manifest: Path, run_command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "store"
    assert run_command("prepare", set_manifest, "-o", out) == 0
    return out


@pytest.mark.parametrize("workers", [0, 2])
def test_training_from_a_store_is_that_from_its_manifest(
    store: Path,
    plain_run: Path,
    quick_run: Run,
    read_history: Callable[[Path], pd.DataFrame],
    tmp_path: Path,
    workers: int,
) -> None:
    run = tmp_path / "run"
    assert quick_run(store, run, "--workers", workers) == 0
    pd.testing.assert_frame_equal(read_history(run), read_history(plain_run), check_exact=True)
    for name in ("metrics.json", "model.safetensors", "per_class.csv", "confusion_matrix.csv"):
        assert (run / name).read_bytes() == (plain_run / name).read_bytes(), name


def test_a_store_trains_with_groups_and_a_split_of_its_own(
    store: Path, set_manifest: Path, quick_run: Run, read_history: Callable[[Path], pd.DataFrame], tmp_path: Path
) -> None:
    options = ["--group", "speaker", "--balance", "group", "--class-weights", "balanced", "--time-shift-s", "0.1"]
    for name, source in (("files", set_manifest), ("store", store)):
        assert quick_run(source, tmp_path / name, *options) == 0
    assert read_history(tmp_path / "files").equals(read_history(tmp_path / "store"))


def test_held_out_and_random_splits_are_the_same_from_a_store(
    clips: pd.DataFrame, quick_run: Run, run_command: Run, read_history: Callable[[Path], pd.DataFrame], tmp_path: Path
) -> None:
    for name, table, options in (
        ("held", clips[clips["split"] != "valid"], []),
        ("drawn", clips.drop(columns="split"), ["--random-split", "4"]),
    ):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        assert run_command("prepare", tmp_path / f"{name}.csv", "-o", tmp_path / f"{name}_store") == 0
        for source in (f"{name}.csv", f"{name}_store"):
            assert quick_run(tmp_path / source, tmp_path / f"run_{source}", "--group", "speaker", *options) == 0
        runs = [tmp_path / f"run_{name}.csv", tmp_path / f"run_{name}_store"]
        assert read_history(runs[0]).equals(read_history(runs[1]))
        assert (runs[0] / "metrics.json").read_bytes() == (runs[1] / "metrics.json").read_bytes()


def test_evaluating_a_store_is_evaluating_its_manifest(
    store: Path, set_manifest: Path, plain_run: Path, run_command: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in plain_run.iterdir()}
    found = []
    for source in (set_manifest, store):
        assert run_command("evaluate", plain_run, "--manifest", source, "--split", "test") == 0
        found.append(json.loads((plain_run / f"metrics_test_{source.stem}.json").read_text()))
        assert found[-1].pop("manifest") == str(source)
    assert found[0] == found[1]
    assert found[0]["n_clips"] == 6
    whole = json.loads((plain_run / "metrics.json").read_text())
    assert {key: whole[key] for key in found[0]} == found[0]
    for path in plain_run.iterdir():
        if path.name not in before:
            path.unlink()


@pytest.mark.parametrize("options", [["--per-clip"], ["--per-window"]])
def test_predictions_from_a_store_are_those_from_its_manifest(
    store: Path, set_manifest: Path, clips: pd.DataFrame, plain_run: Path, run_command: Run, tmp_path: Path, options
) -> None:
    for source, name in ((set_manifest, "files.csv"), (store, "store.csv")):
        assert run_command("predict", plain_run, source, "-o", tmp_path / name, *options) == 0
    assert (tmp_path / "files.csv").read_bytes() == (tmp_path / "store.csv").read_bytes()
    paths = pd.read_csv(tmp_path / "store.csv")["path"]
    assert paths.drop_duplicates().tolist() == clips["path"].tolist()
    assert (len(paths) > len(clips)) == (options == ["--per-window"])


def test_a_store_of_another_sample_rate_is_refused(
    set_manifest: Path,
    plain_run: Path,
    quick_run: Run,
    run_command: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = tmp_path / "store"
    assert run_command("prepare", set_manifest, "-o", store, "--sample-rate", "8000") == 0
    capsys.readouterr()
    message = f"store {store} must be at the 16000 Hz of the model, got 8000; prepare it anew"
    for code in (
        quick_run(store, tmp_path / "run"),
        run_command("evaluate", plain_run, "--manifest", store),
        run_command("predict", plain_run, store, "-o", tmp_path / "p.csv"),
    ):
        assert code == 2
    assert capsys.readouterr().err.count(message) == 3  # once for each command
    assert not (tmp_path / "run").exists()


def test_a_store_that_is_not_whole_is_refused(
    store: Path, quick_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "plan.json").write_bytes(b"{}")
    assert quick_run(tmp_path / "store", tmp_path / "run") == 2
    assert "is not whole: 'audiostride prepare' was stopped; give that command again" in capsys.readouterr().err

"""The pieces of the pipeline: stages that are skipped or stop, options, the table."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.training import TrainConfig
from audiostride.training.results import finished_metrics
from lab import runs
from lab.clips import read_clips
from lab.data_stages import prepare_data
from lab.program import open_folder, read_settings
from lab.recipe import Recipe, build_parser, format_results, main, prepare_archive
from lab.runs import report_stage

HEAD = """Birds.

Data: tones.
Expected: not run
    yet.
Time: none.
"""
RECIPE = Recipe(
    name="mine", head=HEAD, data="dcase2018-birds", label="label", paper={"strided": "78.8 (0.3)"},
    settings={"max_steps": 2, "valid_every": 1, "batch_size": 4, "width": 0.03, "device": "cpu"},
)  # fmt: skip


def write_metrics(run: Path, accuracy: float, *, stopped_early: bool = False) -> Path:
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.json").write_text(json.dumps({"accuracy": accuracy, "stopped_early": stopped_early}))
    return run


@pytest.fixture
def birds(archives: ModuleType, tmp_path: Path) -> Path:
    return Path(archives.build_birds(tmp_path / "archive"))


def test_a_recipe_is_frozen_and_refuses_what_is_not_there() -> None:
    assert RECIPE.expected == "not run yet."
    assert replace(RECIPE, head="Birds.").expected == ""
    with pytest.raises(FrozenInstanceError):
        RECIPE.name = "other"  # type: ignore[misc]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"data": "birds"}, "recipe mine: data must be one of tut-urban-2018, .*, got 'birds'"),
        ({"splits": "mine"}, "splits must be one of official, paper-like, got 'mine'"),
        ({"paper": {"stride": "1"}}, "paper must be one of strided, spectral, diffstride, got 'stride'"),
        ({"settings": {"learning_rate": 1}}, "settings must be among .*, lr, .*, got 'learning_rate'"),
        ({"settings": {"seed": 1}}, "got 'seed'"),
    ]
    for change, message in wrong:
        with pytest.raises(InputError, match=message):
            replace(RECIPE, **change)


def test_options_go_before_the_settings_of_the_recipe() -> None:
    given = ["--set", "lr=1e-4", "size=paper", "strides=[[2,2]]", "noise=null", "valid-every=5", "--width", "0.5"]
    assert read_settings(RECIPE.name, build_parser(RECIPE).parse_args(given)) == {
        "lr": 1e-4, "size": "paper", "strides": [[2, 2]], "noise": None, "valid_every": 5, "width": 0.5,
    }  # fmt: skip
    for item, message in [("lr", "--set must be given NAME=VALUE, got 'lr'"), ("pooling=strided", "got 'pooling'")]:
        with pytest.raises(InputError, match=message):
            read_settings(RECIPE.name, build_parser(RECIPE).parse_args(["--set", item]))


def test_recipes_share_the_store_of_a_data_set_unless_a_folder_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def prepare(data: str, root: str, folder: Path, **options: Any) -> Path:
        asked.append(folder.as_posix())
        return folder

    monkeypatch.setattr("lab.recipe.prepare_data", prepare)
    for out, data in ((None, None), ("a/b", None), ("a/b", "c")):
        with open_folder("mine", out, smoke=False) as (runs_folder, home):
            given = ["root", "--splits", "paper-like", *(["--data", data] if data else [])]
            prepare_archive(RECIPE, home, build_parser(RECIPE).parse_args(given), {})
            asked.append(runs_folder.as_posix())
    assert asked == [
        "runs/data/dcase2018-birds-paper-like", "runs/mine", "a/b/data/dcase2018-birds-paper-like", "a/b", "c", "a/b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "ROOT must be the folder of the unpacked archives, got none"),
        (["nowhere"], "ROOT must be a folder that exists, got nowhere; unpack the archives there"),
        (["."], "ROOT must hold at least one of the tables"),
        ([".", "--smoke"], "--smoke makes its own data; leave ROOT and --download out"),
        (["--smoke", "--download"], "--smoke makes its own data; leave ROOT and --download out"),
    ],
)
def test_a_root_that_is_none_is_bad_input(
    given: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(RECIPE, given) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_data_stages_are_skipped_unless_the_manifest_has_changed(
    birds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    store = prepare_data("dcase2018-birds", birds, data)
    assert "32 clips, split scheme official -> " in capsys.readouterr().out
    # Names are those below the archive's folder, so that held-out clips do not depend on where it lies.
    names = read_clips(store)["clip_name"]
    assert names.str.match(r"/(ff1010bird|warblrb10k|BirdVox-DCASE-20k)/wav/[^/]*\.wav").all()
    prepare_data("dcase2018-birds", None, data)
    assert capsys.readouterr().out.count("stands, skipped") == 3
    table = pd.read_csv(data / "manifest.csv", dtype=str)
    table.loc[0, "label"] = "bird" if table.loc[0, "label"] == "nobird" else "nobird"
    table.to_csv(data / "manifest.csv", index=False)
    prepare_data("dcase2018-birds", birds, data)
    shown = capsys.readouterr().out
    assert shown.count("stands, skipped") == 1
    assert "prepare: 32 clips" in shown
    assert read_clips(store).loc[0, "label"] == table.loc[0, "label"]


def test_a_manifest_made_from_something_else_is_not_taken(birds: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    prepare_data("dcase2018-birds", birds, data)
    with pytest.raises(InputError, match=r"splits must be that of the manifest in .*data, official, got paper-like"):
        prepare_data("dcase2018-birds", birds, data, splits="paper-like")
    with pytest.raises(InputError, match=r"root must be that of .*; choose another folder with --data"):
        prepare_data("dcase2018-birds", tmp_path, data)


def test_metadata_without_their_files_stop_unless_partial(birds: Path, tmp_path: Path) -> None:
    next((birds / "ff1010bird" / "wav").glob("*.wav")).unlink()
    with pytest.raises(InputError, match=r"(?s)must agree, but.*--partial"):
        prepare_data("dcase2018-birds", birds, tmp_path / "data")
    prepare_data("dcase2018-birds", birds, tmp_path / "data", partial=True)


def test_findings_that_training_would_fail_on_stop_and_others_do_not(
    birds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent, damaged, *_ = sorted((birds / "ff1010bird" / "wav").glob("*.wav"))
    soundfile.write(str(silent), np.zeros(44100), 44100)
    damaged.write_bytes(b"no audio")
    for _ in range(2):  # the second time from what stands
        with pytest.raises(InputError, match=rf"(?s)must be fit for training, but\n  unreadable: .*{damaged.name}"):
            prepare_data("dcase2018-birds", birds, tmp_path / "data")
        assert "2 findings: unreadable 1, silent 1" in capsys.readouterr().out
    assert not (tmp_path / "data" / "store").exists()
    prepare_data("dcase2018-birds", birds, tmp_path / "data", on_error="skip")
    assert "prepare: 1 bad clip left out: " in capsys.readouterr().out
    prepare_data("dcase2018-birds", None, tmp_path / "data", on_error="skip")
    assert "stands, skipped (31 clips, 1 bad clip left out)" in capsys.readouterr().out


def test_a_stop_between_runs_goes_on_and_other_settings_are_shown(
    birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(birds), "--out", str(tmp_path / "out"), "--pooling", "strided", "--seeds", "3", "1", "3"]
    train = runs.train

    def stop_at_the_second(config: Any, **options: Any) -> Any:
        if config.seed == 1:
            raise KeyboardInterrupt
        return train(config, **options)

    monkeypatch.setattr(runs, "train", stop_at_the_second)
    assert main(RECIPE, given) == 130
    assert "mine: interrupted; the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(runs, "train", train)
    assert main(RECIPE, given) == 0
    shown = capsys.readouterr().out
    folder = tmp_path / "out" / "official"
    assert f"train: {folder / 'strided_seed3'} stands, skipped" in shown
    assert f"train: {folder / 'strided_seed1'}: test accuracy " in shown
    assert "| strided | 3 1 | " in shown
    assert "expected: not run yet." in shown
    assert sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) == ["strided_seed1", "strided_seed3"]
    assert main(RECIPE, [*given, "--max-steps", "3"]) == 2
    assert "max_steps: 2 -> 3" in capsys.readouterr().err


def test_the_table_has_mean_and_sd_and_the_papers_figures_apart(tmp_path: Path) -> None:
    folders = {
        "strided": [write_metrics(tmp_path / f"strided_seed{seed}", value) for seed, value in ((0, 0.7), (4, 0.8))],
        "spectral": [write_metrics(tmp_path / "spectral_seed0", 0.123)],
    }
    rows = format_results(RECIPE, folders, splits="paper-like").splitlines()[2:]
    sd = f"{np.std([70, 80], ddof=1):.1f}"
    assert rows == [f"| strided | 0 4 | 75.0 ({sd}) | paper-like | 78.8 (0.3) |",
                    "| spectral | 0 | 12.3 (one run) | paper-like |  |"]  # fmt: skip


def test_a_run_is_finished_when_its_metrics_stand_and_it_was_not_stopped(tmp_path: Path) -> None:
    assert finished_metrics(tmp_path / "none") is None
    run = write_metrics(tmp_path / "run", 0.5)
    assert finished_metrics(run) == {"accuracy": 0.5, "stopped_early": False}
    assert finished_metrics(write_metrics(run, 0.5, stopped_early=True)) is None


def test_the_report_is_written_again_for_other_runs_or_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[list[str]] = []

    def write(folders: list[Path], page: Path) -> None:
        written.append([run.name for run in folders])
        page.write_text("")

    monkeypatch.setattr(runs, "write_report", write)
    first, second = (write_metrics(tmp_path / name, 0.5) for name in ("a", "b"))
    page = tmp_path / "report.html"
    for folders in ([first], [first], [first, second]):
        report_stage({"strided": folders}, page)
    assert written == [["a"], ["a", "b"]]
    write_metrics(second, 0.6)
    report_stage({"strided": [first], "spectral": [second]}, page)
    page.unlink()
    report_stage({"strided": [first], "spectral": [second]}, page)
    assert len(written) == 4


def test_of_several_processes_the_first_one_prepares_the_data(birds: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ThreadPoolExecutor() as pool:
        other = pool.submit(prepare_data, "dcase2018-birds", birds, data, processes=Processes(rank=1, count=2))
        time.sleep(0.2)
        assert not other.done(), "it waits"
        store = prepare_data("dcase2018-birds", birds, data, processes=Processes(rank=0, count=2))
        assert other.result(timeout=60) == store


def test_of_several_processes_the_first_one_alone_shows_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []

    def train(config: TrainConfig, *, resume: bool, progress: bool) -> dict[str, Any]:
        trained.append(Path(config.out).name)
        return {"stopped_early": False}

    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setenv("LOCAL_RANK", "1")
    settings = {"manifest": "m", "devices": 2}
    with pytest.raises(SystemExit) as ended:
        runs.train_runs(tmp_path, variants={"a": {}, "b": {}}, seeds=[0, 1], settings=settings)
    assert not ended.value.code
    assert trained == ["a_seed0", "b_seed0", "a_seed1", "b_seed1"]
    assert capsys.readouterr().out == ""


def test_smoke_takes_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(RECIPE, given=["--smoke", "--out", str(tmp_path / "out"), "--set", "devices=2"]) == 2
    assert "mine: --smoke trains in one process; leave devices and num_nodes out" in capsys.readouterr().err

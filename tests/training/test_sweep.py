"""Sweeps in processes side by side: like those in turn, failing, stopped, orphaned, taken up."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch

from audiostride.errors import InputError
from audiostride.progress import progress_bar
from audiostride.training import TrainConfig, train
from audiostride.training.seeds import train_seeds
from audiostride.training.sweep import Stopped, sweep

INTERRUPTED = 130
SMALL = {"pooling": "strided", "channels": [4], "strides": [[4, 4]], "max_steps": 6, "valid_every": 3, "batch_size": 4}
SAME_FILES = ["model.safetensors", "metrics.json", "per_class.csv"]


pytestmark = pytest.mark.usefixtures("no_figures", "one_thread")


def make_config(manifest: Path, out: Path, **settings: object) -> TrainConfig:
    return TrainConfig(manifest=str(manifest), label="kind", out=str(out), **{**SMALL, **settings})


@pytest.mark.slow
def test_runs_side_by_side_are_those_one_after_another(
    set_manifest: Path, tmp_path: Path, read_history: Callable[[Path], pd.DataFrame]
) -> None:
    train_seeds(make_config(set_manifest, tmp_path / "in_turn"), [0, 2], progress=False)
    table = train_seeds(make_config(set_manifest, tmp_path / "two"), [2, 0], jobs=2, progress=False)
    assert table["seed"].tolist() == [2, 0]
    for seed in (0, 2):
        one, other = (tmp_path / name / f"seed{seed}" for name in ("in_turn", "two"))
        assert read_history(one).equals(read_history(other))
        for name in SAME_FILES:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
        assert json.loads((other / "environment.json").read_text())["threads"] == 1
        assert "training on cpu" in (tmp_path / "two" / f"seed{seed}.log").read_text()


@pytest.mark.slow
def test_a_process_that_fails_is_named_and_the_others_finish(
    set_manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = []
    monkeypatch.setattr(
        "audiostride.training.sweep.progress_bar", lambda **given: bars.append(progress_bar(**given)) or bars[-1]
    )
    configs = [
        make_config(set_manifest, tmp_path / f"seed{seed}", seed=seed, max_steps=steps)
        for seed, steps in ((0, 6), (1, None))
    ]
    (tmp_path / "seed1").mkdir()
    (tmp_path / "seed1" / "thesis.txt").write_text("precious")
    ended: list[Path] = []
    failed = sweep(configs, train, jobs=2, progress=False, each=lambda run, stood: ended.append(run))
    assert list(failed) == [tmp_path / "seed1"]
    assert failed[tmp_path / "seed1"].startswith("train: --out must be a new or empty folder")
    assert ended == [tmp_path / "seed0"]
    assert (tmp_path / "seed0" / "metrics.json").exists()
    (bar,) = bars
    assert bar.total is None, "how long the second would be is not known before its clips are counted"
    assert bar.desc.startswith("training 2 runs, 2 ended")


def write_metrics(run: Path, *, stopped_early: bool = False) -> dict[str, bool]:
    run.mkdir(parents=True, exist_ok=True)
    metrics = {"stopped_early": stopped_early}
    (run / "metrics.json").write_text(json.dumps(metrics))
    return metrics


def test_what_stands_is_told_first_and_what_fails_does_not_end_the_others(tmp_path: Path) -> None:
    configs = [make_config(tmp_path / "m.csv", tmp_path / name) for name in "abcd"]
    write_metrics(tmp_path / "c")
    asked: list[tuple[str, bool]] = []
    told: list[tuple[str, bool]] = []

    def learn(config: TrainConfig, *, resume: bool, progress: bool) -> dict[str, bool]:
        name = Path(config.out).name
        asked.append((name, resume))
        if name == "a":
            raise InputError(f"{config.out} has no clips")
        return write_metrics(Path(config.out))

    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.yaml").touch()  # begun
    failed = sweep(configs, learn, progress=False, each=lambda run, stood: told.append((run.name, stood)))
    assert asked == [("c", True), ("a", False), ("b", True), ("d", False)]
    assert told == [("c", True), ("b", False), ("d", False)]
    assert failed == {tmp_path / "a": f"{tmp_path / 'a'} has no clips"}


def test_nothing_is_trained_where_a_finished_run_has_other_settings(tmp_path: Path) -> None:
    configs = [make_config(tmp_path / "m.csv", tmp_path / name) for name in "ab"]
    write_metrics(tmp_path / "b")
    asked: list[str] = []

    def learn(config: TrainConfig, *, resume: bool, progress: bool) -> dict[str, bool]:
        asked.append(Path(config.out).name)
        raise InputError(f"in {config.out} these differ")

    with pytest.raises(InputError, match=r"1 of 2 runs failed; mend this .*\nb: in its folder these differ"):
        sweep(configs, learn, progress=False)
    assert asked == ["b"]


def test_a_stop_ends_a_sweep_and_a_later_one_goes_on(tmp_path: Path) -> None:
    configs = [make_config(tmp_path / "m.csv", tmp_path / name) for name in "ab"]
    asked: list[str] = []

    def learn(config: TrainConfig, *, resume: bool, progress: bool) -> dict[str, bool]:
        asked.append(Path(config.out).name)
        return write_metrics(Path(config.out), stopped_early=asked == ["a"])

    with pytest.raises(Stopped):
        sweep(configs, learn, progress=False)
    assert asked == ["a"]
    assert sweep(configs, learn, progress=False) == {}
    assert asked == ["a", "a", "b"]


def test_of_runs_of_several_processes_the_first_failure_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may not have seen it, and would wait in this run for one that is in the next."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    configs = [make_config(tmp_path / "m.csv", tmp_path / name, devices=2) for name in "ab"]
    asked: list[str] = []

    def learn(config: TrainConfig, *, resume: bool, progress: bool) -> dict[str, bool]:
        asked.append(Path(config.out).name)
        raise InputError("no clips")

    with pytest.raises(InputError, match=r"^no clips$"):
        sweep(configs, learn, progress=False)
    assert asked == ["a"]


def test_a_page_that_was_deleted_is_written_again_and_nothing_is_trained(
    set_manifest: Path, run_command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiostride.reporting.page.report_run", lambda run: (run / "report.html").touch())
    run = tmp_path / "runs" / "seed0"
    settings = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items()]
    command = ["train", "--manifest", set_manifest, "--label", "kind", *settings]
    assert run_command(*command, "--out", run.parent, "--seeds", "0") == 0
    before = times_of_change(run)
    for given in (["--out", run.parent, "--seeds", "0"], ["--out", run, "--resume"]):
        (run / "report.html").unlink()
        assert run_command(*command, *given) == 0
        assert (run / "report.html").exists()
    assert times_of_change(run) == before


def times_of_change(run: Path) -> list[int]:
    return [(run / name).stat().st_mtime_ns for name in [*SAME_FILES, "history.csv", "checkpoints/last.ckpt"]]


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300  # other jobs may keep the machine busy
    while not path.exists():
        assert process.poll() is None, "the training ended before it was stopped"
        assert time.monotonic() < deadline, f"no {path} within five minutes"
        time.sleep(0.05)


@contextmanager
def started(manifest: Path, out: Path, *options: str, **changed: int) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a process of its own, which is gone afterwards, whatever happens."""
    settings = {**SMALL, **changed}
    given = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
    command = [sys.executable, "-m", "audiostride", "train", "--manifest", str(manifest), "--label", "kind"]
    command += ["--preset", "none"]
    # Two threads are one for each of two jobs: what a run that goes on here has too.
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command += ["--out", str(out), *given, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopping_the_command_stops_all_runs(set_manifest: Path, tmp_path: Path, how: signal.Signals) -> None:
    out = tmp_path / "runs"
    with started(set_manifest, out, "--seeds", "0", "1", "2", "--jobs", "2", max_steps=100_000) as process:
        for seed in (0, 1):
            wait_for(out / f"seed{seed}" / "history.csv", process)
        process.send_signal(how)
        shown = process.communicate(timeout=300)[0].decode()
    for seed in (0, 1):
        wait_until_stopped(out / f"seed{seed}")
        metrics = json.loads((out / f"seed{seed}" / "metrics.json").read_text())
        assert metrics["stopped_early"]
        assert (out / f"seed{seed}" / "checkpoints" / "last.ckpt").exists()
    assert not (out / "seed2").exists()
    if how == signal.SIGINT:
        assert process.returncode == INTERRUPTED
        assert "stopped with 0 of 3 runs done; the same command goes on" in shown
        assert json.loads((out / "summary.json").read_text())["seeds_left"] == [0, 1, 2]


def wait_until_stopped(run: Path) -> None:
    for _ in range(600):
        if (run / "metrics.json").exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{run} goes on without its parent")


@pytest.mark.slow
def test_runs_that_were_killed_side_by_side_end_like_those_that_were_not(
    set_manifest: Path, tmp_path: Path, read_history: Callable[[Path], pd.DataFrame]
) -> None:
    length = {"max_steps": 120, "valid_every": 10}
    configs = [make_config(set_manifest, tmp_path / name, **length) for name in ("killed", "whole")]
    with started(set_manifest, tmp_path / "killed", "--seeds", "0", "1", "--jobs", "2", **length) as process:
        for seed in (0, 1):
            wait_for(tmp_path / "killed" / f"seed{seed}" / "history.csv", process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=300)
    reached = [read_history(tmp_path / "killed" / f"seed{seed}")["step"].iloc[-1] for seed in (0, 1)]
    assert min(reached) < 120, "stopped too late to show anything"
    for config in configs:
        assert len(train_seeds(config, [0, 1], progress=False)) == 2
    for seed in (0, 1):
        runs = [tmp_path / name / f"seed{seed}" for name in ("killed", "whole")]
        # The stop adds a validation, but no step differs: the last weights are the same to the bit.
        first, second = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in runs)
        assert first["global_step"] == second["global_step"] == 120
        for name, weight in first["state_dict"].items():
            assert torch.equal(weight, second["state_dict"][name]), name

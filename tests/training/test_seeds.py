"""A run for each of several seeds: one after another, stopped and taken up, failing, summarised."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audiostride.errors import InputError
from audiostride.training import TrainConfig, train
from audiostride.training.seeds import describe_seeds, mean_and_sd, summarise_seeds, train_seeds
from audiostride.training.sweep import describe_failures

BAD_INPUT = 2
SMALL = {"pooling": "strided", "channels": [4], "strides": [[4, 4]], "max_steps": 6, "valid_every": 3, "batch_size": 4}
SAME_FILES = ["model.safetensors", "metrics.json", "per_class.csv"]


pytestmark = pytest.mark.usefixtures("no_figures", "one_thread")


def make_config(manifest: Path, out: Path, **settings: object) -> TrainConfig:
    return TrainConfig(manifest=str(manifest), label="kind", out=str(out), **{**SMALL, **settings})


def times_of_change(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in sorted(out.glob("seed*/*"))}


@pytest.fixture(scope="module")
def three_seeds(set_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the seeds 0, 1 and 2, one after another. Not to be changed."""
    out = tmp_path_factory.mktemp("seeds") / "three"
    train_seeds(make_config(set_manifest, out), [0, 1, 2], progress=False)
    return out


def test_the_summary_says_what_the_runs_say(three_seeds: Path) -> None:
    table = pd.read_csv(three_seeds / "summary.csv")
    assert table["seed"].tolist() == [0, 1, 2]
    metrics = [json.loads((three_seeds / f"seed{seed}" / "metrics.json").read_text()) for seed in range(3)]
    for name in ("accuracy", "valid_accuracy", "steps", "best_step"):
        assert table[name].tolist() == [found[name] for found in metrics]
    assert (table["training_s"] > 0).all()
    summary = json.loads((three_seeds / "summary.json").read_text())
    assert summary["baseline_majority"] == metrics[0]["baseline_majority"]
    assert (summary["seeds"], summary["seeds_left"], summary["task"]) == ([0, 1, 2], [], "kind")
    for name in ("accuracy", "valid_accuracy"):
        values = np.array([found[name] for found in metrics])
        assert summary[name]["mean"] == pytest.approx(np.mean(values), rel=1e-12)
        assert summary[name]["sd"] == pytest.approx(np.sqrt(np.sum((values - values.mean()) ** 2) / 2), rel=1e-12)


def test_several_tasks_have_a_mean_each(tmp_path: Path) -> None:
    accuracies = np.random.default_rng(0).random((3, 2))
    for seed, (words, birds) in enumerate(accuracies):
        run = tmp_path / f"seed{seed}"
        run.mkdir()
        tasks = {"words": {"accuracy": words, "baseline_majority": 0.1}, "birds": {"accuracy": birds}}
        metrics = {"task": "words, birds", "accuracy": (words + birds) / 2, "tasks": tasks, "valid_accuracy": 0.5}
        metrics |= {"steps": 6, "best_step": 3, "stopped_early": False}
        for name, content in (("metrics", metrics), ("environment", {"training_s": 1.5})):
            (run / f"{name}.json").write_text(json.dumps(content))
    summarise_seeds(tmp_path, [0, 1, 2])
    summary = json.loads((tmp_path / "summary.json").read_text())
    for name, values in (
        ("accuracy_words", accuracies[:, 0]),
        ("accuracy_birds", accuracies[:, 1]),
        ("accuracy", accuracies.mean(axis=1)),
    ):
        expected = {"mean": np.mean(values), "sd": np.std(values, ddof=1)}
        assert summary[name] == pytest.approx(expected, rel=1e-12)
    assert summary["baselines"] == {"words": {"baseline_majority": 0.1}, "birds": {}}


def test_each_run_is_the_one_of_its_seed_alone(three_seeds: Path, set_manifest: Path, tmp_path: Path) -> None:
    train(make_config(set_manifest, tmp_path / "alone", seed=2), progress=False)
    for name in SAME_FILES:
        assert (tmp_path / "alone" / name).read_bytes() == (three_seeds / "seed2" / name).read_bytes()
    models = {(three_seeds / f"seed{seed}" / "model.safetensors").read_bytes() for seed in range(3)}
    assert len(models) == 3


def test_what_stands_is_not_trained_again_and_what_was_stopped_goes_on(
    three_seeds: Path, set_manifest: Path, tmp_path: Path
) -> None:
    config, out = make_config(set_manifest, tmp_path / "runs"), tmp_path / "runs"
    train_seeds(config, [0, 1], progress=False)
    metrics = out / "seed1" / "metrics.json"
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "stopped_early": True}))
    before = times_of_change(out)
    assert len(before) > 16
    assert train_seeds(config, [0, 1, 2], progress=False)["seed"].tolist() == [0, 1, 2]
    after = times_of_change(out)
    changed = {name for name in after if after[name] != before.get(name)}
    assert {name.split("/")[0] for name in changed} == {"seed1", "seed2"}
    for seed in range(3):
        for name in SAME_FILES:
            one, other = (folder / f"seed{seed}" / name for folder in (three_seeds, out))
            assert one.read_bytes() == other.read_bytes(), (seed, name)
    train_seeds(config, [0, 1, 2], jobs=2, progress=False)
    assert times_of_change(out) == after


def test_a_stop_leaves_the_seeds_that_come_later(
    set_manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stopped(config: TrainConfig, *, resume: bool, progress: bool) -> dict[str, object]:
        asked.append(config.seed)
        return {"stopped_early": True}

    monkeypatch.setattr("audiostride.training.seeds.train", stopped)
    assert train_seeds(make_config(set_manifest, tmp_path / "runs"), [5, 6], progress=False).empty
    assert asked == [5]
    assert json.loads((tmp_path / "runs" / "summary.json").read_text())["seeds_left"] == [5, 6]


@pytest.mark.parametrize("error", [InputError("no such thing"), RuntimeError("out of memory")])
def test_a_run_that_fails_is_named_and_the_others_finish(
    set_manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, error: Exception
) -> None:
    def fail_once(config: TrainConfig, **options: bool) -> dict[str, object]:
        if config.seed == 1:
            raise error
        return train(config, **options)

    monkeypatch.setattr("audiostride.training.seeds.train", fail_once)
    with pytest.raises(InputError, match=rf"1 of 3 runs failed; (.|\n)*\nseed1: .*{error}"):
        train_seeds(make_config(set_manifest, tmp_path / "runs"), [0, 1, 2], progress=False)
    assert pd.read_csv(tmp_path / "runs" / "summary.csv")["seed"].tolist() == [0, 2]
    assert ("Traceback" in capsys.readouterr().err) == isinstance(error, RuntimeError)


def test_messages_that_are_alike_are_said_once() -> None:
    reasons = {"seed2": "runs/seed2 is bad", "seed0": "runs/seed0 is bad", "seed1": "NaN"}
    message = describe_failures({Path("runs") / name: reason for name, reason in reasons.items()}, n_runs=4)
    assert message.splitlines()[0].startswith("3 of 4 runs failed")
    assert message.splitlines()[1:] == ["seed0, seed2: its folder is bad", "seed1: NaN"]


def test_one_seed_has_no_spread() -> None:
    assert describe_seeds(pd.DataFrame({"accuracy": [0.5]})) == "accuracy 0.500 over 1 seed"
    assert mean_and_sd(pd.Series([], dtype=float)) == {"mean": None, "sd": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "0", "1", "--seed", "3"], "either --seed or --seeds must be given, got both"),
        (["--seeds", "0", "0"], "seeds must be one or more, each once, got [0, 0]"),
        (["--seeds", "-1"], "seed must be a whole number >= 0, got -1"),
        (["--seeds", "0", "--jobs", "0"], "jobs must be at least 1, got 0"),
        (["--jobs", "2"], "give --seeds too"),
        (["--seeds", "x"], "Got value: x"),
    ],
)
def test_bad_seeds_are_refused(
    set_manifest: Path, quick_run: Callable[..., int], tmp_path: Path, capsys, options: list[str], message: str
) -> None:
    assert quick_run(set_manifest, tmp_path / "runs", *options) == BAD_INPUT
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_folders_of_other_runs_are_refused(
    three_seeds: Path, set_manifest: Path, plain_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"lr: 0\.002 -> 0\.5"):
        train_seeds(make_config(set_manifest, three_seeds, lr=0.5), [3, 0], progress=False)
    assert not (three_seeds / "seed3").exists()
    with pytest.raises(InputError, match="is a run; choose another"):
        train_seeds(make_config(set_manifest, plain_run), [0], progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be a folder, got the file"):
        train_seeds(make_config(set_manifest, tmp_path / "file"), [0], progress=False)


def test_the_command_prints_the_mean_and_a_report_takes_the_runs(
    set_manifest: Path, quick_run: Callable[..., int], run_command: Callable[..., int], tmp_path: Path, capsys
) -> None:
    out = tmp_path / "runs"
    assert quick_run(set_manifest, out, "--seeds", "4", "3", "--seeds-are-not-this", "1") == BAD_INPUT
    assert quick_run(set_manifest, out, "--seeds", "4", "3") == 0
    table = pd.read_csv(out / "summary.csv")
    assert table["seed"].tolist() == [4, 3]
    assert f"\naccuracy {np.mean(table['accuracy']):.3f} ± {np.std(table['accuracy'], ddof=1):.3f} over 2 seeds\n" in (
        capsys.readouterr().out
    )
    assert run_command("report", out) == BAD_INPUT
    shown = capsys.readouterr().err
    assert f"{out / 'seed3'} {out / 'seed4'}" in shown
    assert run_command("report", out / "seed3", out / "seed4", "-o", tmp_path / "page.html") == 0

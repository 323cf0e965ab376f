"""Trainings with a budget of multiply-adds: what strides do, what the run says, and how it goes on."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, load_classifier
from audiostride.models.budget import budget_per_window
from audiostride.models.cost import multiply_adds
from audiostride.strides.diffstride import diffstride_layers
from audiostride.training import TrainConfig, evaluate_run, train
from audiostride.training.loop import CleanStop
from audiostride.training.loss import ClassifierTraining

SETTINGS: dict[str, Any] = {
    "label": "kind", "batch_size": 4, "max_steps": 6, "valid_every": 3, "pooling": "diffstride", "keep": "last",
    "channels": [4, 8], "strides": [[2, 2], [2, 2]], "budget": "0.6x", "stride_steps": 0.5, "stride_lr": 0.1,
}  # fmt: skip


def learn(manifest: Path, out: Path, *, resume: bool = False, progress: bool = False, **changes: Any) -> dict[str, Any]:
    settings = {**SETTINGS, "manifest": str(manifest), "out": str(out), **changes}
    return train(TrainConfig(**settings), resume=resume, progress=progress)


def strides(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "strides.csv").set_index("step")


def within(run: Path) -> bool:
    """Whether the model of a run costs no more than its budget, and not much less."""
    model, budget = load_classifier(run), TrainConfig.load(run).budget
    assert budget is not None
    return 0.75 < multiply_adds(model) / budget_per_window("test", budget, model.config) <= 1


def test_strides_learn_on_the_surface_and_then_stay(set_manifest: Path, tmp_path: Path) -> None:
    metrics = learn(set_manifest, tmp_path / "run")
    assert metrics["budget"] == "0.6x"
    assert metrics["multiply_adds"] == multiply_adds(load_classifier(tmp_path / "run"))
    assert within(tmp_path / "run")
    table = strides(tmp_path / "run")
    assert (table.loc[1] != table.loc[2]).any()
    kept = [
        stride for layer in diffstride_layers(load_classifier(tmp_path / "run")) for stride in layer.strides.tolist()
    ]
    assert kept == pytest.approx(table.loc[6].tolist(), abs=1e-7)
    for step in (4, 5, 6):
        pd.testing.assert_series_equal(table.loc[step], table.loc[3], check_names=False, check_exact=True)


def test_with_a_budget_strides_learn_in_half_of_the_steps_unless_told() -> None:
    settings: dict[str, Any] = {"manifest": "m.csv", "label": "l", "out": "o", "max_steps": 100}
    assert TrainConfig(**settings).search_steps == 100
    assert TrainConfig(**settings, budget="0.5x").search_steps == 50
    assert TrainConfig(**settings, budget="0.5x", stride_steps=0.3).search_steps == 30


def test_sizes_that_are_never_trained_with_are_told(
    set_manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learn(set_manifest, tmp_path / "run", stride_steps=1.0, progress=True)
    assert "the sizes that fit the budget are chosen then, and never trained with; --stride-steps 0.5" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("changes", [{"stride_steps": 1.0}, {"keep": "best"}, {"encoder": "bcresnet", "channels": None,
    "strides": None, "width": 0.25}, {"budget": "1M"}], ids=str)  # fmt: skip
def test_what_is_saved_is_within_the_budget(set_manifest: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    learn(set_manifest, tmp_path / "run", **changes)
    assert within(tmp_path / "run")


def test_the_best_one_is_of_those_that_have_come_to_rest(
    set_manifest: Path, tmp_path: Path, worse_every_time: pytest.MonkeyPatch
) -> None:
    metrics = learn(set_manifest, tmp_path / "run", keep="best", valid_every=1)
    assert metrics["best_step"] == 3
    assert within(tmp_path / "run")
    worse_every_time.undo()
    assert evaluate_run(tmp_path / "run", progress=False)["best_step"] == 3


def test_behind_the_search_nothing_moves_strides_and_their_gradient_is_not_computed(tmp_path: Path) -> None:
    config = TrainConfig(**{**SETTINGS, "manifest": "m.csv", "out": str(tmp_path), "schedule": "constant"})
    model = AudioClassifier(ClassifierConfig(tasks={"kind": ["a", "b"]}, **config.model_settings()))
    training = ClassifierTraining(model, config)
    optimizer, scheduler = training.make_optimizer()
    rates = []
    for step in range(1, 7):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
        training.limit_strides(step)
        assert all(layer.strides.requires_grad == (step < 3) for layer in diffstride_layers(model))
    assert [stride > 0 for _, stride in rates] == [True] * 3 + [False] * 3
    assert all(weight > 0 for weight, _ in rates)


def test_a_run_that_is_stopped_while_strides_learn_is_within_it_and_goes_on_as_if_it_had_not_been(
    set_manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(set_manifest, tmp_path / "whole")
    for steps in (2, 4):  # in the search and behind it
        out = tmp_path / f"run{steps}"
        with monkeypatch.context() as patch:
            patch.setattr(CleanStop, "is_due", lambda self, step, due=steps: step == due)
            assert learn(set_manifest, out)["stopped_early"]
        assert within(out)
        learn(set_manifest, out, resume=True)
        pd.testing.assert_frame_equal(strides(out).loc[6:], strides(tmp_path / "whole").loc[6:], check_exact=True)
        assert load_classifier(out).checksum() == load_classifier(tmp_path / "whole").checksum()
    with pytest.raises(InputError, match=r"must keep its settings[^$]*budget: 0\.6x -> 0\.7x"):
        learn(set_manifest, tmp_path / "run2", resume=True, budget="0.7x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "strided"}, "budget must not be given with pooling strided, which learns none; give --pooling"),
        ({"pooling": "spectral"}, "budget must not be given with pooling spectral"),
        ({"stride_cost": 0.1}, r"budget must not be given with stride_cost 0\.1, since it holds the cost; give one"),
        ({"keep": "best", "stride_steps": 1.0}, "with keep best, before strides have come to rest; give --keep last"),
        ({"stride_steps": 0}, r"stride_steps must lie in \(0, 1\], a share of the steps, got 0; give --stride-lr 0"),
        ({"stride_steps": 1.1}, r"stride_steps must be .*in \[0, 1\], got 1\.1"),
        ({"budget": "0"}, "budget must be a positive factor"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(**{**SETTINGS, "manifest": "m.csv", "out": str(tmp_path), **changes})


def test_a_budget_out_of_reach_leaves_nothing(set_manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train: budget must lie between .* and .*M multiply-adds per second"):
        learn(set_manifest, tmp_path / "run", budget="1g")
    assert not (tmp_path / "run" / "model.safetensors").exists()

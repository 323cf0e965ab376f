"""Starting from a trained run: what is taken from there, what is new, what stays, and what may not be given."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from torch import Tensor, nn

from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, load_classifier, save_classifier
from audiostride.training import TrainConfig, evaluate_run, train, train_seeds
from audiostride.training.batch_norm import share_batch_norm_
from audiostride.training.initial import INITIAL, check_given, encoder_parts, initial_settings, load_initial, make_model
from audiostride.training.loss import ClassifierTraining
from audiostride.training.run_files import read_metrics
from audiostride.training.run_recorder import RunRecorder

Run = Callable[..., int]
NETWORK: dict[str, Any] = {"channels": [4, 6], "strides": [[2, 2], [1.5, 2]], "width": 0.5, "ramp_bins": 3.0}
STEPS: dict[str, Any] = {"max_steps": 6, "valid_every": 3, "batch_size": 4, "device": "cpu"}


@pytest.fixture(scope="module")
def first(set_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose strides have moved. Not to be changed."""
    out = tmp_path_factory.mktemp("first") / "run"
    config = TrainConfig(out=str(out), manifest=str(set_manifest), label="kind", stride_lr=0.05, **NETWORK, **STEPS)
    train(config, progress=False)
    return out


@pytest.fixture(scope="module")
def new_task(clips: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of the same clips with another task of three classes, ``third``."""
    file = tmp_path_factory.mktemp("new") / "m.csv"
    clips.assign(third=[("a", "b", "c")[number % 3] for number in range(len(clips))]).to_csv(file, index=False)
    return file


def settings_of(new_task: Path, out: Path, first: Path, **settings: Any) -> TrainConfig:
    return TrainConfig(
        **{"out": str(out), "manifest": str(new_task), "label": "third", "init": str(first), **STEPS, **settings}
    )


def without_heads(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("heads.")}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_weights_and_learned_strides_are_those_of_the_run_and_a_new_task_has_a_new_head(
    first: Path, new_task: Path, tmp_path: Path
) -> None:
    initial = load_classifier(first)
    learned = initial_settings(initial)["strides"]
    recorded = pd.read_csv(first / "strides.csv").set_index("step").loc[read_metrics("test", first, [])["best_step"]]
    assert learned == recorded.to_numpy().reshape(2, 2).tolist()
    assert min(abs(value - start) for pair in learned for value, start in zip(pair, [2, 2], strict=True)) > 0.01
    config = replace(settings_of(new_task, tmp_path, first), **initial_settings(initial))
    torch.manual_seed(3)
    model, notes = make_model(config, {"third": ["a", "b", "c"]}, initial)
    assert same(without_heads(model.state_dict()), without_heads(initial.state_dict()))
    assert model.heads[0].weight.shape == (3, 3)
    assert notes[0].startswith(f"starts from {first}: kind (2 classes); diffstride mixed")
    assert notes[1] == "third has a new head, for 3 classes"
    torch.manual_seed(3)
    fresh, none = make_model(replace(config, init=None), {"third": ["a", "b", "c"]}, None)
    assert torch.equal(fresh.heads[0].weight, model.heads[0].weight), "heads are seeded"
    assert not same(without_heads(fresh.state_dict()), without_heads(model.state_dict()))
    assert none == []


def test_a_task_of_the_same_name_and_classes_goes_on_with_its_head(first: Path, new_task: Path, tmp_path: Path) -> None:
    initial = load_classifier(first)
    config = replace(settings_of(new_task, tmp_path, first), **initial_settings(initial))
    tasks = {"third": ["a", "b"], "kind": ["noise", "tone"]}
    model, notes = make_model(config, tasks, initial)
    assert torch.equal(model.heads[1].weight, initial.heads[0].weight)
    assert torch.equal(model.heads[1].bias, initial.heads[0].bias)
    assert not torch.equal(model.heads[0].weight, initial.heads[0].weight)
    assert notes[1] == "third has a new head, for 2 classes; kind goes on with the head from there"
    model, notes = make_model(config, {"kind": ["noise", "song", "tone"]}, initial)
    assert len(model.heads[0].bias) == 3
    assert notes[1] == "kind has a new head, for 3 classes, and not the 2 from there"


def test_weights_of_other_shapes_are_named(first: Path, new_task: Path, tmp_path: Path) -> None:
    config = settings_of(new_task, tmp_path, first, **{**NETWORK, "channels": [4, 8]})
    with pytest.raises(InputError, match="must have the shapes of those of --init") as caught:
        make_model(config, {"third": ["a", "b"]}, load_classifier(first))
    assert "\n  encoder.blocks.1.conv_time.weight: [4, 2, 3, 1], there [3, 2, 3, 1]" in str(caught.value)
    assert "blocks.0" not in str(caught.value)


def test_the_folder_says_what_the_run_really_uses(first: Path, new_task: Path, tmp_path: Path) -> None:
    initial = initial_settings(load_classifier(first))
    metrics = train(settings_of(new_task, tmp_path / "run", first), progress=False)
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert {name: config[name] for name in initial} == initial
    assert (config["width"], config["ramp_bins"], config["init"]) == (0.5, 3.0, str(first))
    strides = pd.read_csv(tmp_path / "run" / "strides.csv").set_index("step")
    assert strides.loc[0].to_numpy().reshape(2, 2).tolist() == initial["strides"]
    assert (strides.loc[6] != strides.loc[0]).all(), "they go on learning"
    model = load_classifier(tmp_path / "run")
    assert model.config.tasks == {"third": ["a", "b", "c"]}
    assert model.config.channels == (4, 6)
    assert evaluate_run(tmp_path / "run", progress=False)["accuracy"] == metrics["accuracy"]


def test_the_frontend_and_what_a_training_has_no_setting_for_are_taken_too(new_task: Path, tmp_path: Path) -> None:
    tasks = {"kind": ["noise", "tone"]}
    before = ClassifierConfig(tasks=tasks, n_mels=32, hop_length=200, max_stride=4.0, **NETWORK)
    save_classifier(AudioClassifier(before), tmp_path / "model.safetensors")
    train(settings_of(new_task, tmp_path / "run", tmp_path / "model.safetensors", max_steps=1), progress=False)
    assert load_classifier(tmp_path / "run").config == replace(before, tasks={"third": ["a", "b", "c"]})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"width": 0.25}, "  width: 0.25, there 0.5"),
        ({"encoder": "resnet18"}, "  encoder: resnet18, there separable"),
        ({"pooling": "strided", "channels": [4, 5]}, "  channels: [4, 5], there [4, 6]"),
        ({"strides": [[2, 2], [1.5, 2]]}, "  strides: [[2, 2], [1.5, 2]], there [["),
    ],
)
def test_other_settings_of_the_network_are_refused(
    first: Path, new_task: Path, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=f"those of {first}, but these were given otherwise:\n") as caught:
        train(settings_of(new_task, tmp_path / "run", first, **given), progress=False)
    assert said in str(caught.value)
    assert str(caught.value).count("\n") == len(given) + 1
    assert not (tmp_path / "run").exists()


def test_the_same_settings_may_be_given(first: Path, new_task: Path, tmp_path: Path) -> None:
    config = settings_of(new_task, tmp_path / "run", first, width=0.5, channels=[4, 6], max_steps=1)
    assert train(config, progress=False)["steps"] == 1


@pytest.fixture
def train_from(run_command: Run, first: Path, new_task: Path, no_figures: None) -> Run:
    def run(out: object, *options: object) -> int:
        steps = ["--max-steps", "2", "--valid-every", "2", "--batch-size", "4", "--device", "cpu"]
        data = ["--manifest", new_task, "--label", "third", "--out", out]
        return run_command("train", *data, *steps, "--init", first, *options)

    return run


def test_the_command_knows_what_was_given_also_where_it_is_the_default(
    train_from: Run, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_from(tmp_path / "run", "--width", "1") == 2
    assert f"those of {first}, but these were given otherwise:\n  width: 1.0, there 0.5\n" in capsys.readouterr().err
    (tmp_path / "run.yaml").write_text("pool_after: block\nlr: 0.001\n")
    assert train_from(tmp_path / "run", "--config", tmp_path / "run.yaml") == 2
    assert "pool_after: block, there convolution" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_run_stands_over_a_preset_in_what_it_decides(
    train_from: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_from(tmp_path / "run", "--preset", "paper", "--width", "0.5", "--freeze-encoder", "false") == 0
    config = TrainConfig.load(tmp_path / "run")
    assert (config.lr, config.schedule, config.size, config.ramp_bins) == (1e-4, "constant", "mixed", 3)
    assert "third has a new head, for 3 classes" in capsys.readouterr().out


def test_a_place_without_a_model_is_named(new_task: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train: --init must be a trained run or its model\.safetensors: .*, got "):
        train(settings_of(new_task, tmp_path / "run", tmp_path), progress=False)
    (tmp_path / "model.safetensors").write_text("no model")
    with pytest.raises(InputError, match=r"--init must be .* must be a safetensors file"):
        load_initial(tmp_path)


def test_what_freezing_needs_is_said() -> None:
    with pytest.raises(InputError, match=r"freeze_encoder must be given with init \(--init RUN\), got none"):
        TrainConfig(out="o", manifest="m", freeze_encoder=True)
    with pytest.raises(InputError, match=r"stride_cost must be 0 with freeze_encoder, whose strides stay, got 0\.1"):
        TrainConfig(out="o", manifest="m", init="r", freeze_encoder=True, stride_cost=0.1)


def test_a_frozen_encoder_stays_to_the_bit_while_the_head_learns(train_from: Run, first: Path, tmp_path: Path) -> None:
    initial = load_classifier(first).state_dict()
    for frozen in (True, False):
        run = tmp_path / f"{frozen}"
        assert train_from(run, "--weight-decay", "0.1", *["--freeze-encoder"] * frozen) == 0
        last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        trained = {name.removeprefix("model."): tensor for name, tensor in last["state_dict"].items()}
        for state in (trained, load_classifier(run).state_dict()):
            changed = [name for name in without_heads(initial) if not torch.equal(state[name], initial[name])]
            if frozen:
                assert changed == []
            else:
                assert {"input_norm.running_mean", "encoder.blocks.1.pool.strides"} <= set(changed)
        assert len(last["optimizer_states"][0]["param_groups"]) == (1 if frozen else 2)
        torch.manual_seed(0)
        config = replace(TrainConfig.load(run), seed=0)
        begun, _ = make_model(config, {"third": ["a", "b", "c"]}, load_initial(first))
        for name in ("heads.0.weight", "heads.0.bias"):
            assert not torch.equal(trained[name], begun.state_dict()[name])
        assert pd.read_csv(run / "strides.csv").drop(columns="step").nunique().eq(1).all() == frozen


def make_training(first: Path, new_task: Path, tmp_path: Path, *, frozen: bool) -> ClassifierTraining:
    initial = load_initial(first)
    config = replace(settings_of(new_task, tmp_path, first), **initial_settings(initial), freeze_encoder=frozen)
    model, _ = make_model(config, {"third": ["a", "b", "c"]}, initial)
    return ClassifierTraining(model, config.with_steps(1))


@pytest.mark.parametrize("frozen", [True, False])
def test_no_graph_is_kept_of_a_frozen_encoder_and_its_norms_stay_in_evaluation(
    first: Path, new_task: Path, tmp_path: Path, frozen: bool
) -> None:
    training = make_training(first, new_task, tmp_path, frozen=frozen)
    graphs: list[bool] = []
    training.model.encoder.register_forward_hook(lambda encoder, given, maps: graphs.append(maps.requires_grad))
    norms = [part for part in training.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == 5
    for _ in range(2):
        assert all(norm.training != frozen for norm in norms)
        assert training.model.heads.training
        training.eval()
        assert not any(part.training for part in training.modules())
        training.train()
    training({"waveform": torch.randn(4, 16000), "class_index": torch.tensor([0, 1, 2, 0])}, 0).backward()
    assert graphs == [not frozen]
    assert all((weight.grad is None) == frozen for weight in training.model.encoder.parameters())
    assert all(weight.grad is not None for weight in training.model.heads.parameters())
    optimizer, _ = training.make_optimizer()
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    learned = training.model.heads if frozen else training.model
    assert held == {id(weight) for weight in learned.parameters()}
    assert {id(part) for part in encoder_parts(training.model)} == {
        id(part) for part in (training.model.frontend, training.model.input_norm, training.model.encoder)
    }


def test_norms_of_a_frozen_encoder_are_not_shared_by_processes(first: Path, new_task: Path, tmp_path: Path) -> None:
    for frozen in (True, False):
        model = make_training(first, new_task, tmp_path, frozen=frozen).model
        share_batch_norm_(model)
        assert (type(model.input_norm) is nn.BatchNorm2d) == frozen
        assert all(weight.requires_grad != frozen for weight in model.input_norm.parameters())


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("validated", [True, False])
def test_a_run_goes_on_when_the_one_that_it_started_from_is_gone(
    first: Path, new_task: Path, tmp_path: Path, validated: bool, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(first, tmp_path / "first")
    made = [settings_of(new_task, tmp_path / name, tmp_path / "first", freeze_encoder=frozen) for name in "ab"]
    train(made[0], progress=False)

    def die(self: RunRecorder, *given: object, **settings: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if validated:
            note = RunRecorder.note_validation
            patch.setattr(
                RunRecorder,
                "note_validation",
                lambda self, step, **settings: (note if step == 3 else die)(self, step, **settings),
            )
        else:
            patch.setattr(RunRecorder, "begin", die)
        with pytest.raises(KeyboardInterrupt):
            train(made[1], progress=False)
    shutil.rmtree(tmp_path / "first")
    assert (tmp_path / "b" / "checkpoints" / "last.ckpt").exists() == validated
    train(made[1], resume=True, progress=False)
    for name in ("model.safetensors", "metrics.json", "strides.csv", INITIAL):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes(), name
    assert train(made[1], resume=True, progress=False)["steps"] == 6, "a finished one is left as it is"
    with pytest.raises(InputError, match=r"width: 0\.5 -> 0\.25"):
        train(replace(made[1], width=0.25), resume=True, progress=False)


def test_the_command_goes_on_too(train_from: Run, run_command: Run, first: Path, tmp_path: Path) -> None:
    assert train_from(tmp_path / "run", "--freeze-encoder") == 0
    assert run_command("train", "--out", tmp_path / "run", "--resume", "--max-steps", "4") == 0
    config = TrainConfig.load(tmp_path / "run")
    assert (config.max_steps, config.freeze_encoder, config.init) == (4, True, str(first))


def test_runs_of_several_seeds_share_the_encoder_and_stand(first: Path, new_task: Path, tmp_path: Path) -> None:
    config = settings_of(new_task, tmp_path / "runs", first, freeze_encoder=True, max_steps=2)
    table = train_seeds(config, [0, 1], progress=False)
    again = train_seeds(config, [0, 1], progress=False)
    pd.testing.assert_frame_equal(again, table)
    states = [load_classifier(tmp_path / "runs" / f"seed{seed}").state_dict() for seed in (0, 1)]
    assert same(without_heads(states[0]), without_heads(states[1]))
    assert not torch.equal(states[0]["heads.0.weight"], states[1]["heads.0.weight"])


def test_settings_that_are_the_same_are_no_difference() -> None:
    check_given({"width": 0.5}, "r", {"width": 0.5, "size": "mixed"})
    with pytest.raises(InputError, match=r"width: 0\.5, there 0\.25"):
        check_given({"width": 0.5, "size": "mixed"}, "r", {"width": 0.25, "size": "mixed"})


@pytest.mark.slow
def test_two_processes_leave_a_frozen_encoder_alone(first: Path, new_task: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "audiostride", "train", "--manifest", str(new_task), "--label", "third"]
    command += ["--out", str(tmp_path / "run"), "--init", str(first), "--freeze-encoder", "--device", "cpu"]
    command += ["--devices", "2", "--max-steps", "2", "--valid-every", "2", "--batch-size", "4", "--preset", "none"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    state, initial = load_classifier(tmp_path / "run").state_dict(), load_classifier(first).state_dict()
    assert same(without_heads(state), without_heads(initial))
    train(settings_of(new_task, tmp_path / "one", first, freeze_encoder=True, max_steps=2), progress=False)
    alone = load_classifier(tmp_path / "one").state_dict()
    torch.testing.assert_close(state["heads.0.weight"], alone["heads.0.weight"], rtol=0, atol=1e-5)

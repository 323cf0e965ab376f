"""Several processes that train together, and batches computed in parts."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from audiostride.dataset.readers import open_reader
from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, load_classifier
from audiostride.training import TrainConfig
from audiostride.training.augmentation.drawing import AugmentationConfig
from audiostride.training.batches import ExcerptBatches, MixedBatches, TrainingBatches
from audiostride.training.loading import BatchParts
from audiostride.training.loggers import closing_loggers, make_loggers
from audiostride.training.loss import ClassifierTraining, augment_waveform
from lab.clips import read_clips

Run = Callable[..., int]
EVERYTHING = AugmentationConfig(gain_db=6.0, noise_prob=0.5, mixup=0.4, time_masks=2, mel_masks=1)
TASKS = {"kind": ["noise", "tone"], "third": ["a", "b", "c"]}


@pytest.fixture(scope="module")
def sources(set_manifest: Path) -> tuple[TrainingBatches, TrainingBatches]:
    """Batches of 8 of one source, and of two of which one has no labels for the second task."""
    reader = open_reader(read_clips(set_manifest, label="kind").query("split == 'train'"), progress=False)
    rng = np.random.default_rng(0)
    classes = np.stack([rng.integers(0, 2, len(reader)), rng.integers(0, 3, len(reader))], axis=1)
    settings = {"batch_size": 8, "window": 16000, "seed": 3, "augmentation": EVERYTHING}
    one = ExcerptBatches(reader, classes, shift=800, **settings)
    lone = np.where([True, False], classes, -1)
    others = [ExcerptBatches(reader, labels, batch_size=1, window=16000, seed=3) for labels in (classes, lone)]
    return one, MixedBatches(others, np.array([0.4, 0.6]), batch_size=8, seed=3, augmentation=EVERYTHING)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("of", [2, 4])
def test_the_parts_of_a_batch_are_its_rows(
    sources: tuple[TrainingBatches, TrainingBatches], number: int, of: int
) -> None:
    batches, noises = sources[number], torch.randn(4, 32000, generator=torch.Generator().manual_seed(0))
    whole = batches[5]
    expected, rows = augment_waveform(whole, noises), []
    for part in (batches.part(5, k, of=of) for k in range(of)):
        own = part["rows"].tolist()
        rows += own
        torch.testing.assert_close(augment_waveform(part, noises), expected[own])
        for name in ("class_index", "mixup_weight", "mixup_partner"):
            assert torch.equal(part[name], whole[name]), "the loss needs those of the whole batch"
        for name in ("time_mask_starts", "mel_mask_lengths"):
            assert torch.equal(part[name], whole[name][own])
        assert len(part["waveform"]) < 8, "only the part and its partners are read"
    assert rows == list(range(8))


def test_processes_and_turns_take_different_parts(sources: tuple[TrainingBatches, TrainingBatches]) -> None:
    for step in (0, 7):
        parts = [
            BatchParts(sources[0], rank=rank, processes=2, turns=2)[2 * step + turn]
            for rank in (0, 1)
            for turn in (0, 1)
        ]
        assert torch.cat([part["rows"] for part in parts]).tolist() == list(range(8))
        assert all(torch.equal(part["class_index"], sources[0][step]["class_index"]) for part in parts)
    assert torch.equal(BatchParts(sources[0])[7]["waveform"], sources[0][7]["waveform"])


def gradients(batches: TrainingBatches, parts: int, *, weighted: bool) -> tuple[float, dict[str, Tensor]]:
    """Mean loss and gradients of a step in so many turns, as Lightning sums them up; without batch statistics."""
    torch.manual_seed(0)
    settings = {"channels": [4, 6], "strides": [[2, 2], [1.5, 1.5]]}
    model = AudioClassifier(ClassifierConfig(tasks=TASKS, **settings)).double().eval()
    config = TrainConfig(task=["kind=m:kind", "third=n:third"], out="o", batch_size=8, stride_cost=0.3, **settings)
    config.accumulate = parts
    weights = [torch.tensor([0.3, 2.0]).double(), torch.tensor([1.0, 0.5, 3.0]).double()] if weighted else None
    noises = torch.randn(4, 32000, generator=torch.Generator().manual_seed(0)).double()
    training = ClassifierTraining(model, config, class_weights=weights, noises=noises)
    for turn in range(parts):
        item = BatchParts(batches, turns=parts)[4 * parts + turn]
        batch = {name: value.double() if value.is_floating_point() else value for name, value in item.items()}
        (training(batch, turn) / parts).backward()
    means = training.take_mean_losses(5)
    assert [count for _, count in means.values()] == [8, int((item["class_index"][:, 1] >= 0).sum())]
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return sum(loss for loss, _ in means.values()), found


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradients_of_the_parts_sum_to_that_of_the_batch(
    sources: tuple[TrainingBatches, TrainingBatches], number: int, weighted: bool
) -> None:
    loss, expected = gradients(sources[number], 1, weighted=weighted)
    for parts in (2, 4):
        part_loss, found = gradients(sources[number], parts, weighted=weighted)
        assert part_loss == pytest.approx(loss, rel=1e-6)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            # Mel filters and logits are float32 inside; gradients reach 1e2 for strides.
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_a_batch_names_its_clips(sources: tuple[TrainingBatches, TrainingBatches]) -> None:
    for batches in sources:
        chosen = batches.clips_of(5)
        assert len(chosen) == 8
        classes = [
            (batches.sources[source] if isinstance(batches, MixedBatches) else batches).class_indices[clip]
            for source, clip in chosen
        ]
        assert np.array_equal(np.stack(classes), batches[5]["class_index"].numpy())


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 0),
        ({"LOCAL_RANK": "1"}, 1),
        ({"NODE_RANK": "1"}, 2),
        ({"NODE_RANK": "1", "LOCAL_RANK": "1"}, 3),
        ({"RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1"}, 3),
        ({"SLURM_PROCID": "2", "LOCAL_RANK": "0"}, 2),
    ],
)
def test_the_rank_is_what_the_launcher_says(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: int
) -> None:
    for name in ("RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Processes.of_environment(2, 2) == Processes(expected, 4)
    assert Processes.of_environment(1, 1) == Processes(), "one process is the first, whatever started it"


# Trains in float64 without validation, so that the only difference between runs is in how sums are taken.
SCRIPT = """
import sys
import numpy as np
from audiostride.audio.log_mel import LogMel
from audiostride.distributed import Processes
from audiostride.training import TrainConfig, run

plain, fit = LogMel.forward, run.fit
LogMel.forward = lambda self, waveform: plain(self, waveform.double())
run.RunRecorder.note_validation = lambda *_, **__: None


def fit_only(training, *others, **settings):
    training.model.double()
    fit(training, *others, **settings)
    rank = Processes.of_environment(config.devices, 1).rank
    np.savez(f"{config.out}.{rank}.npz", **{name: value.numpy() for name, value in training.model.state_dict().items()})
    sys.exit()


run.fit = fit_only
config = TrainConfig.load(sys.argv[1])
config.out, config.devices = sys.argv[2], int(sys.argv[3])
run.train(config, progress=False)
"""


@pytest.mark.slow
def test_two_processes_follow_one(set_manifest: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(set_manifest)
    rows.assign(other=["ab"[row % 2] for row in range(len(rows))]).to_csv(tmp_path / "other.csv", index=False)
    config = TrainConfig(
        task=[f"kind={set_manifest}:kind", f"other={tmp_path / 'other.csv'}:other"],
        out=str(tmp_path / "settings"),
        channels=[4, 6],
        strides=[[2, 2], [1.5, 1.5]],
        batch_size=8,
        max_steps=6,
        device="cpu",
        gain_db=6.0,
        noise="synthetic",
        mixup=0.4,
        mel_masks=1,
        class_weights="balanced",
    )
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "config.yaml").write_text(json.dumps(config.to_dict()))
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for name, devices in (("one", "1"), ("two", "2")):
        command = [sys.executable, "script.py", "settings", name, devices]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    one, first, second = (np.load(tmp_path / f"{name}.npz") for name in ("one.0", "two.0", "two.1"))
    learned = [name for name in one.files if name.endswith("strides")]
    assert len(learned) == 2
    start = {"encoder.blocks.0.pool.strides": 2.0, "encoder.blocks.1.pool.strides": 1.5}
    for name in one.files:
        assert np.array_equal(first[name], second[name]), f"{name} must be equal to the bit in all processes"
        np.testing.assert_allclose(first[name], one[name], rtol=1e-5, atol=1e-7, err_msg=name)
    for name in learned:
        assert np.abs(one[name] - start[name]).min() > 1e-3, "strides have learned, so that equality says something"


OPTIONS = ["--channels", "[4]", "--strides", "[[4,4]]", "--batch-size", "4", "--label", "kind", "--device", "cpu"]


def run_in_processes(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "audiostride", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_two_processes_write_one_run_which_one_process_takes_up(set_manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ["--manifest", set_manifest, "--out", out, *OPTIONS, "--valid-every", "3", "--schedule", "constant"]
    done = run_in_processes("train", *settings, "--max-steps", "6", "--devices", "2", "--logger", "csv", "tensorboard")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report:") == 1, "the first process alone says what came out"
    assert pd.read_csv(out / "history.csv")["step"].tolist() == [3, 6]
    assert json.loads((out / "metrics.json").read_text())["steps"] == 6
    assert load_classifier(out).config.tasks == {"kind": ["noise", "tone"]}
    logged = pd.read_csv(out / "logs" / "csv" / "version_0" / "metrics.csv")
    assert logged["valid_accuracy"].notna().sum() == 2
    assert logged.filter(like="stride/").notna().any(axis=None)
    assert list((out / "logs" / "tensorboard" / "version_0").glob("events.out.tfevents*"))
    # As if it had been stopped at step 6 of 9; one process and two worker processes go on.
    text = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(text.replace("max_steps: 6", "max_steps: 9"))
    (out / "metrics.json").unlink()
    done = run_in_processes("train", "--out", out, "--resume", "--devices", "1", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(out / "history.csv")["step"].tolist() == [3, 6, 9]


def test_parts_of_batches_train_and_go_on(
    set_manifest: Path, quick_run: Run, tmp_path: Path, read_history: Callable[[Path], pd.DataFrame]
) -> None:
    assert quick_run(set_manifest, tmp_path / "run", "--accumulate", "2") == 0
    assert read_history(tmp_path / "run")["step"].tolist() == [3, 6]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"devices": 3}, r"batch_size must be a multiple of devices x num_nodes x accumulate \(3\).*got 32; give 33"),
        ({"accumulate": 32}, r"at least twice that, got 32; give 64"),
        ({"devices": 0}, "devices must be a whole number >= 1, got 0"),
        ({"num_nodes": 0}, "num_nodes must be a whole number >= 1"),
        ({"strategy": "fsdp"}, "strategy must be one of auto, ddp"),
        ({"logger": ["cvs"]}, r"logger\[0\] must be one of csv, tensorboard, wandb, got 'cvs'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(manifest="m", out="o", **settings)


def test_several_runs_side_by_side_have_one_process_each(
    set_manifest: Path, quick_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--seeds", "0", "1", "--jobs", "2", "--devices", "2"]
    assert quick_run(set_manifest, tmp_path / "run", *options) == 2
    assert "--jobs is for runs of one process each, got --devices 2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_a_device_lacks_is_said_before_anything_is_written(
    set_manifest: Path, quick_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quick_run(set_manifest, tmp_path / "run", "--device", "cpu", "--precision", "16-mixed") == 2
    assert "16-mixed needs a GPU, got the CPU" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["CUDA out of memory. Tried", "DefaultCPUAllocator: can't allocate memory"])
def test_memory_that_runs_out_is_told_with_what_to_lower(
    set_manifest: Path, quick_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fail(*_: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(ClassifierTraining, "forward", fail)
    assert quick_run(set_manifest, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert f"ran out: {text}" in said
    assert "--accumulate 2, or lower --batch-size or --width" in said


def test_a_run_with_other_classes_is_not_taken_up(
    set_manifest: Path, quick_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "set.csv"
    rows = pd.read_csv(set_manifest)
    rows.to_csv(manifest, index=False)
    assert quick_run(manifest, tmp_path / "run") == 0
    (tmp_path / "run" / "metrics.json").unlink()
    rows.assign(kind=rows["kind"].replace({"noise": "unvoiced"})).to_csv(manifest, index=False)
    assert quick_run(manifest, tmp_path / "run", "--resume") == 2
    assert "  kind: noise, tone -> tone, unvoiced" in capsys.readouterr().err


def test_the_network_can_be_compiled(
    set_manifest: Path, quick_run: Run, plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    read_history: Callable[[Path], pd.DataFrame],
) -> None:  # fmt: skip
    compiled, compile_with = [], torch.compile

    def compile_without_inductor(function: Callable[..., object]) -> Callable[..., object]:
        compiled.append(function)
        return compile_with(function, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_without_inductor)
    assert quick_run(set_manifest, tmp_path / "run", "--compile", "true") == 0
    assert len(compiled) == 1
    pd.testing.assert_frame_equal(read_history(tmp_path / "run"), read_history(plain_run), rtol=1e-5)


@pytest.mark.parametrize(("name", "logger"), [("wandb", "WandbLogger"), ("tensorboard", "TensorBoardLogger")])
def test_a_logger_without_its_package_says_how_to_get_it(
    name: str, logger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lack(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'that'")

    monkeypatch.setattr(f"audiostride.training.loggers.{logger}", lack)
    with pytest.raises(InputError, match=rf"--logger {name} needs a package.*pip install 'audiostride\[{name}\]'"):
        make_loggers(tmp_path, [name])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("fails", "code"), [(False, 0), (True, 1)])
def test_weights_and_biases_has_the_settings_every_value_and_how_it_ended(
    fails: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, object]] = []

    class Run:
        def log(self, values: dict[str, float], *, step: int) -> None:
            told.append((f"step {step}", values))

        def finish(self, *, exit_code: int) -> None:
            told.append(("end", exit_code))

    def init(*, project: str, name: str, dir: Path, config: dict[str, object]) -> Run:
        assert dir.is_dir()
        told.append((f"{project} {name}", config))
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    loggers = make_loggers(tmp_path / "mine", ["wandb"])
    assert told == []
    with pytest.raises(InputError) if fails else nullcontext(), closing_loggers(loggers, {"lr": 1e-3}):
        loggers[0].log_metrics({"loss": 2.0}, step=3)
        if fails:
            raise InputError("no")
    assert told == [("audiostride mine", {"lr": 1e-3}), ("step 3", {"loss": 2.0}), ("end", code)]

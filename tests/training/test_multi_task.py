"""Several tasks at once: one encoder, a head per task, manifests mixed in every batch."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from audiostride.dataset.readers import open_reader
from audiostride.dataset.sampling import source_shares
from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, load_classifier
from audiostride.training import TrainConfig
from audiostride.training.batches import ExcerptBatches, MixedBatches
from audiostride.training.loading import load_batches
from audiostride.training.loss import ClassifierTraining
from audiostride.training.task_losses import mean_cross_entropy
from lab.clips import read_clips

Run = Callable[..., int]
SMALL = ["--pooling", "strided", "--channels", "[4]", "--strides", "[[4,4]]", "--max-steps", "6", "--valid-every", "3"]
SMALL += ["--batch-size", "6"]


@pytest.fixture(scope="session")
def manifests(clips: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A manifest with two label columns, and a smaller one with a label column of the same name as one of these."""
    root = tmp_path_factory.mktemp("tasks")
    rows = clips.assign(size=["small" if row % 3 else "large" for row in range(len(clips))])
    rows.to_csv(root / "both.csv", index=False)
    rows.groupby(["split", "kind"]).head(4).assign(kind=lambda rows: "is " + rows["kind"]).to_csv(
        root / "few.csv", index=False
    )
    return root / "both.csv", root / "few.csv"


@pytest.fixture(scope="session")
def multi_run(manifests: tuple[Path, Path], run_command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on three tasks of two manifests. Not to be changed."""
    both, few = manifests
    out = tmp_path_factory.mktemp("multi") / "run"
    tasks = ["--task", f"kind={both}:kind", f"size={both}:size", "--task", f"few={few}:kind"]
    assert run_command("train", *tasks, "--out", out, *SMALL) == 0
    return out


def make_sources(manifests: tuple[Path, Path], *, seed: int = 0) -> list[ExcerptBatches]:
    sources = []
    for number, manifest in enumerate(manifests):
        reader = open_reader(read_clips(manifest, label="kind"), progress=False)
        classes = np.full((len(reader), 2), -1)
        classes[:, number] = np.arange(len(reader))
        sources.append(ExcerptBatches(reader, classes, batch_size=1, window=8000, seed=seed))
    return sources


def test_batches_mix_sources_as_a_function_of_seed_and_step(manifests: tuple[Path, Path]) -> None:
    batches, again = (
        MixedBatches(make_sources(manifests), source_shares([1, 1], "uniform"), batch_size=6, seed=0) for _ in range(2)
    )
    later = again[5]  # asked for first: no order, no state
    items = [batches[step] for step in range(6)]
    assert all(torch.equal(later[name], items[5][name]) for name in later)
    for item in items:
        known = item["class_index"] >= 0
        assert known.sum(dim=1).tolist() == [1] * 6  # a row has the labels of its own source only
        assert known.sum(dim=0).tolist() == [3, 3]
    loaded = list(load_batches(batches, workers=1, sampler=range(2, 4)))
    assert all(torch.equal(batch["waveform"], items[2 + n]["waveform"]) for n, batch in enumerate(loaded))


def test_each_source_shows_each_clip_once_per_pass(manifests: tuple[Path, Path]) -> None:
    sources = make_sources(manifests)
    batches = MixedBatches(sources, source_shares([3, 1], "proportional"), batch_size=8, seed=0)
    classes = torch.cat([batches[step]["class_index"] for step in range(40)])
    for number, source in enumerate(sources):
        own = classes[:, number][classes[:, number] >= 0]
        n_clips = len(source.reader)
        assert len(own) >= n_clips
        passes = own[: len(own) // n_clips * n_clips].reshape(-1, n_clips)
        assert all(sorted(row) == list(range(n_clips)) for row in passes.tolist())
    # The smaller set has begun anew while the larger one was still on its first pass.
    assert (classes[:, 1] >= 0).sum() > len(sources[1].reader)


def test_excerpts_are_those_of_the_clips_they_are_labelled_as(manifests: tuple[Path, Path]) -> None:
    sources = make_sources(manifests)
    item = MixedBatches(sources, np.array([0.5, 0.5]), batch_size=6, seed=0)[3]
    for waveform, classes in zip(item["waveform"].numpy(), item["class_index"].tolist(), strict=True):
        number = int(classes[1] >= 0)
        reader, index = sources[number].reader, classes[number]
        clip = reader.read(index, 0, int(reader.n_samples[index]))
        if len(clip) < 8000:
            clip = np.pad(clip, (0, 8000 - len(clip)))
        starts = np.flatnonzero(clip[: len(clip) - 7999] == waveform[0])
        assert any(np.array_equal(clip[start : start + 8000], waveform) for start in starts)


def test_the_mean_over_known_classes_is_that_of_torch() -> None:
    logits, classes = torch.randn(6, 3), torch.tensor([0, -1, 2, 1, -1, 2])
    weight = torch.tensor([0.5, 1.0, 3.0])
    known = classes >= 0
    for given in (None, weight):
        expected = F.cross_entropy(logits[known], classes[known], weight=given)
        torch.testing.assert_close(mean_cross_entropy(logits, classes, weight=given), expected)
    nobody = logits.clone().requires_grad_()
    loss = mean_cross_entropy(nobody, torch.full((6,), -1))
    loss.backward()
    assert loss == 0
    assert torch.equal(nobody.grad, torch.zeros(6, 3))


@pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
@pytest.mark.parametrize("present", [(True, True), (True, False)])
def test_the_loss_is_the_mean_over_the_tasks_present(weights: list[float] | None, present: tuple[bool, bool]) -> None:
    torch.manual_seed(0)
    model = AudioClassifier(
        ClassifierConfig(
            tasks={"a": ["x", "y"], "b": ["p", "q", "r"]}, pooling="strided", channels=[4], strides=[[4, 4]]
        )
    ).eval()
    config = TrainConfig(task=["a=m.csv:a", "b=m.csv:b"], out="o", task_weights=weights)
    module = ClassifierTraining(model, config)
    waveform = torch.randn(4, 16000)
    classes = torch.tensor([[0, -1], [1, -1], [-1, 2], [-1, 0]])
    if not present[1]:
        classes[:, 1] = -1
    loss = module({"waveform": waveform, "class_index": classes, "failed": torch.empty(0, 2)}, 0)
    logits = model(waveform)
    first = F.cross_entropy(logits["a"][:2], classes[:2, 0])
    expected = first
    if present[1]:
        second = F.cross_entropy(logits["b"][2:], classes[2:, 1])
        share = (weights or [1.0, 1.0])[0] / sum(weights or [1.0, 1.0])
        expected = share * first + (1 - share) * second
    torch.testing.assert_close(loss, expected)
    means = module.take_mean_losses(1)
    assert {task: count for task, (_, count) in means.items()} == {"a": 2, "b": 2 if present[1] else 0}
    assert means["a"][0] == pytest.approx(first.item(), rel=1e-6)


def test_a_run_on_three_tasks_writes_the_results_of_each(multi_run: Path) -> None:
    metrics = json.loads((multi_run / "metrics.json").read_text())
    assert list(metrics["tasks"]) == ["kind", "size", "few"]
    accuracies = [found["accuracy"] for found in metrics["tasks"].values()]
    assert metrics["accuracy"] == pytest.approx(np.mean(accuracies))
    history = pd.read_csv(multi_run / "history.csv")
    # Batches of six: two excerpts drawn for each task, and those of one manifest serve both of its tasks; three steps
    # per row.
    for task, count in (("kind", 12), ("size", 12), ("few", 6)):
        assert history[f"examples_{task}"].tolist() == [count, count]
        assert (multi_run / f"per_class_{task}.csv").is_file()
    np.testing.assert_allclose(
        history["valid_accuracy"], history[[f"valid_accuracy_{task}" for task in metrics["tasks"]]].mean(axis=1)
    )
    page = (multi_run / "report.html").read_text()
    assert page.count("Confusion matrix of run") == 3
    assert load_classifier(multi_run).config.tasks["few"] == ["is noise", "is tone"]


def test_a_run_on_several_tasks_is_evaluated_and_predicts_all(
    multi_run: Path, manifests: tuple[Path, Path], run_command: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("evaluate", multi_run, "--split", "valid") == 0
    shown = capsys.readouterr().out
    assert [line.split(",")[0] for line in shown.splitlines()[:3]] == ["kind", "size", "few"]
    assert "mean over 3 tasks: accuracy" in shown
    assert set(json.loads((multi_run / "metrics_valid.json").read_text())["tasks"]) == {"kind", "size", "few"}
    assert run_command("predict", multi_run, manifests[1], "-o", tmp_path / "p.csv") == 0
    table = pd.read_csv(tmp_path / "p.csv")
    assert set(table["task"]) == {"kind", "size", "few"}
    assert run_command("evaluate", multi_run, "--manifest", manifests[0]) == 2
    assert "does not say for which tasks" in capsys.readouterr().err


def test_a_run_on_several_tasks_resumes_to_the_bit(
    multi_run: Path, manifests: tuple[Path, Path], run_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, few = manifests
    out = tmp_path / "run"
    tasks = ["--task", f"kind={both}:kind", f"size={both}:size", f"few={few}:kind"]

    def die(self: ClassifierTraining, step: int) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ClassifierTraining, "check_step", die)
        assert run_command("train", *tasks, "--out", out, *SMALL) != 0
    assert run_command("train", "--out", out, "--resume") == 0
    first, second = (pd.read_csv(run / "history.csv").drop(columns="elapsed_s") for run in (multi_run, out))
    pd.testing.assert_frame_equal(first, second)


def test_one_task_of_many_options_is_the_one_task_form(
    set_manifest: Path, quick_run: Run, plain_run: Path, run_command: Run, tmp_path: Path, read_history: Callable
) -> None:
    out = tmp_path / "run"
    settings = ["--pooling", "strided", "--channels", "[4]", "--strides", "[[4,4]]", "--max-steps", "6"]
    settings += ["--valid-every", "3", "--batch-size", "4", "--preset", "none", "--keep", "best"]
    assert run_command("train", "--task", f"kind={set_manifest}:kind", "--out", out, *settings) == 0
    pd.testing.assert_frame_equal(read_history(out), read_history(plain_run))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either --manifest with --label or --task NAME=MANIFEST:COLUMN must be given, got neither"),
        ({"manifest": "m", "task": ["a=m:b"]}, "must be given, got both"),
        ({"task": ["a"]}, "a task must be NAME=MANIFEST:COLUMN, got 'a'"),
        ({"task": ["a=m.csv"]}, "a task must be NAME=MANIFEST:COLUMN, got 'a=m.csv'"),
        ({"task": ["a=m:b", "a=n:c"]}, "tasks must have different names, got twice: a"),
        ({"task": ["a=m:b", "c=m:d"], "task_weights": [1.0]}, r"one weight per task \(2\), got 1"),
        ({"task": ["a=m:b", "c=m:d"], "task_weights": [1.0, 0.0]}, "must be > 0"),
        ({"manifest": "m", "mixing_temperature": 0.0}, "mixing_temperature must be > 0, got 0.0"),
        ({"manifest": "m", "mixing": "half"}, "mixing must be one of uniform, proportional, temperature"),
    ],
)
def test_bad_tasks_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(out="o", **options)  # type: ignore[arg-type]


def test_a_task_without_training_clips_is_named(
    manifests: tuple[Path, Path], run_command: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both, few = manifests
    pd.read_csv(few).query("split != 'train'").to_csv(tmp_path / "bare.csv", index=False)
    tasks = ["--task", f"kind={both}:kind", f"bare={tmp_path / 'bare.csv'}:kind"]
    assert run_command("train", *tasks, "--out", tmp_path / "run", *SMALL) == 2
    assert "task bare: " in (said := capsys.readouterr().err)
    assert "bare.csv: split 'train' must have at least one clip, got none" in said
    assert not (tmp_path / "run").exists()

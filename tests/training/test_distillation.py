"""Runs that learn from a teacher's scores: beside labels and in place of them, of several tasks, taken up again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch.nn import functional as F

from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig
from audiostride.training import TrainConfig, assembly, train
from audiostride.training.augmentation.mixup import mix_up
from audiostride.training.batches import TrainingBatches
from audiostride.training.loading import BatchParts
from audiostride.training.loss import ClassifierTraining
from audiostride.training.results import evaluate_run
from audiostride.training.sources import ONLY_SCORES, label_column, read_source
from audiostride.training.targets import target_column

Run = Callable[..., int]
Save = Callable[[pd.DataFrame], Path]
SETTINGS: dict[str, Any] = {"pooling": "strided", "channels": [4], "strides": [[4, 4]], "batch_size": 8}


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a table as m.csv."""

    def write(table: pd.DataFrame) -> Path:
        table.to_csv(tmp_path / "m.csv", index=False)
        return tmp_path / "m.csv"

    return write


def add_scores(clips: pd.DataFrame, *, sure: float = 0.9) -> pd.DataFrame:
    """Clips with what a teacher that is right says of those that train, as text."""
    trained = clips["split"] == "train"
    of = {name: np.where(clips["kind"] == name, f"{sure:g}", f"{1 - sure:.2g}") for name in ("noise", "tone")}
    return clips.assign(**{f"score:{name}": np.where(trained, values, "") for name, values in of.items()})


def read(manifest: Path, **settings: Any) -> tuple[pd.DataFrame, list[str]]:
    config = TrainConfig(**{"out": "o", "manifest": str(manifest), "label": "kind"} | settings)
    return read_source(config.sources()[0], config)


def test_scores_outweigh_wrong_labels_as_their_share_says(
    clips: pd.DataFrame, save: Save, quick_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    table = add_scores(clips)
    swapped = table["kind"].map({"tone": "noise", "noise": "tone"})
    manifest = save(table.assign(kind=swapped.where(table["split"] == "train", table["kind"])))
    accuracy = {}
    for share in (1, 0):
        run = manifest.parent / f"run{share}"
        assert quick_run(manifest, run, "--distillation", share, "--max-steps", 60, "--valid-every", 20) == 0
        accuracy[share] = json.loads((run / "metrics.json").read_text())["accuracy"]
        said = "kind: 36 of 36 training clips have scores of a teacher; they stand in place of labels (--distillation)"
        assert (said in capsys.readouterr().out) == (share == 1)
        losses = pd.read_csv(run / "history.csv")["train_loss"]
        assert losses.is_monotonic_decreasing
        assert losses.min() > share * -sum(p * np.log(p) for p in (0.1, 0.9)), "the entropy of the scores is the least"
    assert accuracy[1] >= 5 / 6
    assert accuracy[0] <= 1 / 2  # of the state that validated best, which is the first one


def test_clips_learn_their_share_and_those_without_labels_their_scores(clips: pd.DataFrame, save: Save) -> None:
    table = add_scores(clips)
    rows = table.index[table["split"] == "train"]
    table.loc[rows[:2], "kind"] = ""
    table.loc[rows[2:4], ["score:noise", "score:tone"]] = ""
    found, notes = read(save(table), distillation=0.25)
    assert notes == [
        "kind: 34 of 36 training clips have scores of a teacher, 2 of them and no label; they count 0.25 in the loss, "
        "and labels 0.75 (--distillation)"
    ]
    truth = clips["kind"]
    assert found[label_column("kind")].equals(truth.rename(label_column("kind")))  # of whom scores are right
    assert found[ONLY_SCORES].sum() == 2
    targets = found[[target_column("kind", name) for name in ("noise", "tone")]]
    is_tone = truth == "tone"
    for few, right in ((rows[:2], 0.9), (rows[2:4], 1.0), (rows[4:], 0.25 * 0.9 + 0.75)):
        expected = np.where(is_tone[few], right, 1 - right)
        np.testing.assert_allclose(targets.loc[few].iloc[:, 1], expected, rtol=1e-6)
        np.testing.assert_allclose(targets.loc[few].sum(axis=1), 1, rtol=1e-6)
    assert targets.drop(index=rows).isna().all(axis=None)
    _, notes = read(save(table.assign(kind=truth)), distillation=0.0)
    assert notes == []
    with pytest.raises(InputError, match=r"2 bad rows\n  line 2: kind is empty\n"):
        read(save(table), distillation=0.0)


def test_scores_of_other_splits_are_not_used(clips: pd.DataFrame, save: Save) -> None:
    scores = add_scores(clips.assign(split="train"))[["score:noise", "score:tone"]]
    tested = clips["split"] == "test"
    found, notes = read(save(clips.join(scores.where(tested, ""))))
    assert notes == ["kind: no training clip has scores of a teacher"]
    assert target_column("kind", "tone") not in found


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("drawn", [False, True])
def test_clips_without_labels_are_held_out_by_nobody(
    clips: pd.DataFrame, save: Save, grouped: bool, drawn: bool
) -> None:
    table = add_scores(clips)
    train_rows = table["split"] == "train"
    taught = train_rows & (np.arange(len(table)) % 3 == 0)
    table = table.assign(kind=table["kind"].mask(taught, ""))
    table = table[train_rows].drop(columns="split") if drawn else table[table["split"] != "valid"]
    options: dict[str, Any] = {"random_split": 0} if drawn else {"hold_out": 0.4}
    found, notes = read(save(table), **options, **({"group": "speaker"} if grouped else {}))
    splits = found.groupby("split")[ONLY_SCORES].sum()
    assert splits.drop("train").eq(0).all()
    if grouped:
        left_out = taught.sum() - splits["train"]
        assert left_out > 0
        assert f"{left_out} clips with scores and no label, of groups that are held out, left out of training" in notes
        assert not {*found.loc[found["split"] == "train", "speaker"]} & {
            *found.loc[found["split"] == "valid", "speaker"]
        }
    else:
        assert splits["train"] == taught.sum()


def make_two_tasks(clips: pd.DataFrame, folder: Path) -> TrainConfig:
    """A run on two manifests: scores of `kind`, which both label, in the first, and of `size`, of the first alone."""
    table = add_scores(clips)
    table["size"] = np.resize(["large", "small", "tiny"], len(table))
    scores = np.random.default_rng(0).dirichlet([1, 1, 1], len(table)).round(6)
    table[["score:size:large", "score:size:small", "score:size:tiny"]] = scores
    table.to_csv(folder / "both.csv", index=False)
    clips.assign(kind="is " + clips["kind"]).to_csv(folder / "few.csv", index=False)
    tasks = [f"kind={folder}/both.csv:kind", f"few={folder}/few.csv:kind", f"size={folder}/both.csv:size"]
    return TrainConfig(task=tasks, out=str(folder / "run"), mixup=0.4, **SETTINGS)


def make_batches(config: TrainConfig) -> tuple[AudioClassifier, TrainingBatches]:
    from audiostride.training.clips import load_sets
    from audiostride.training.sources import class_names_of

    tables = [(source, read_source(source, config)[0]) for source in config.sources()]
    found: dict[str, list[str]] = {}
    for source, clips in tables:
        found |= class_names_of(clips, source)
    names = {task: found[task] for task in config.tasks()}
    torch.manual_seed(0)
    model = AudioClassifier(ClassifierConfig(tasks=names, **config.model_settings())).eval()
    return model, assembly.make_batches(model, config, load_sets(tables, names, config, progress=False)["train"])


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_several_tasks_learn_their_targets_in_whole_batches_and_in_parts(
    clips: pd.DataFrame, tmp_path: Path, mixup: float
) -> None:
    config = make_two_tasks(clips, tmp_path)
    config.mixup = mixup
    model, batches = make_batches(config)
    whole = batches[3]
    assert {name for name in whole if name.startswith("target")} == {"target_0", "target_2"}
    known = whole["class_index"] >= 0
    for number in (0, 2):
        sums = whole[f"target_{number}"].sum(dim=1)
        torch.testing.assert_close(sums, known[:, number].float())
    waveform = whole["waveform"]
    targets = [
        whole["target_0"],
        F.one_hot(whole["class_index"][:, 1].clamp(min=0), 2) * known[:, 1:2],
        whole["target_2"],
    ]
    if mixup:
        share, partner = whole["mixup_weight"][:, None], whole["mixup_partner"]
        waveform = mix_up(waveform, partner, whole["mixup_weight"])
        targets = [share * target + (1 - share) * target[partner] for target in targets]
    logits = model(waveform)
    expected = torch.stack(
        [
            F.cross_entropy(logits[task], target.float(), reduction="sum") / target.sum()
            for task, target in zip(config.tasks(), targets, strict=True)
        ]
    ).mean()
    torch.testing.assert_close(ClassifierTraining(model, config)(whole), expected)
    config.accumulate = 4
    training = ClassifierTraining(model, config)
    parts = [training(BatchParts(batches, turns=4)[12 + turn], turn) / 4 for turn in range(4)]
    torch.testing.assert_close(sum(parts), expected)


def test_augmentation_is_drawn_alike_with_scores_and_without(clips: pd.DataFrame, save: Save) -> None:
    settings = SETTINGS | {"out": "o", "manifest": str(save(add_scores(clips))), "label": "kind", "mixup": 0.4}
    found = [make_batches(TrainConfig(distillation=share, **settings))[1][2] for share in (0.0, 0.5)]
    assert found[1].keys() - found[0].keys() == {"target_0"}
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_store_trains_as_its_manifest_does(
    clips: pd.DataFrame, save: Save, quick_run: Run, run_command: Run, read_history: Callable[[Path], pd.DataFrame]
) -> None:
    table = add_scores(clips)
    table.loc[table.index[:3], "kind"] = ""
    manifest = save(table)
    store = manifest.parent / "store"
    assert run_command("prepare", manifest, "-o", store) == 0
    for data, name in ((manifest, "files"), (store, "stored")):
        assert quick_run(data, manifest.parent / name, "--balance", "class", "--class-weights", "balanced") == 0
    assert read_history(manifest.parent / "files").equals(read_history(manifest.parent / "stored"))
    assert quick_run(manifest, manifest.parent / "other", "--balance", "class", "--distillation", 0.1) == 0
    assert not read_history(manifest.parent / "files").equals(read_history(manifest.parent / "other"))
    # Scores that have changed are brought into a store as labels are.
    save(add_scores(clips, sure=0.6))
    assert run_command("prepare", manifest, "-o", store) == 0
    with pytest.raises(InputError, match="kind, train: other labels or groups, or scores of a teacher"):
        go_on(manifest.parent / "stored")


def go_on(run: Path, **changes: Any) -> dict[str, Any]:
    config = TrainConfig.load(run).to_dict() | {"out": str(run), "max_steps": 9} | changes
    return train(TrainConfig(**config), resume=True, progress=False)


def test_only_the_scores_that_it_began_with_go_on(clips: pd.DataFrame, save: Save, quick_run: Run) -> None:
    table = add_scores(clips)
    run = save(table).parent / "run"
    assert quick_run(run.parent / "m.csv", run) == 0
    tested = table["split"] == "test"
    save(table.assign(**{name: table[name].mask(tested, "0.5") for name in ("score:noise", "score:tone")}))
    shutil.copytree(run, run.parent / "copy")
    assert go_on(run.parent / "copy")["steps"] == 9
    save(add_scores(clips, sure=0.8))
    with pytest.raises(InputError, match=r"\n  kind, train: other labels or groups, or scores of a teacher\n"):
        go_on(run)
    save(clips)
    with pytest.raises(InputError, match=r"\n  kind, train: other labels or groups, or scores of a teacher\n"):
        go_on(run)


def test_a_run_of_before_leaves_scores_alone(
    clips: pd.DataFrame, save: Save, quick_run: Run, run_command: Run, no_figures: None
) -> None:
    run = save(add_scores(clips)).parent / "run"
    assert quick_run(run.parent / "m.csv", run, "--distillation", 0) == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["distillation"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert TrainConfig.load(run).distillation == 0
    assert run_command("train", "--out", run, "--resume", "--max-steps", 9) == 0
    assert json.loads((run / "metrics.json").read_text())["steps"] == 9


def test_training_clips_without_a_label_are_not_evaluated(clips: pd.DataFrame, save: Save, quick_run: Run) -> None:
    table = add_scores(clips)
    table.loc[table.index[:3], "kind"] = ""
    run = save(table).parent / "run"
    assert quick_run(run.parent / "m.csv", run) == 0
    assert evaluate_run(run, split="train", progress=False)["n_clips"] == 33
    assert json.loads((run / "metrics.json").read_text())["clips"]["kind"] == {"train": 36, "valid": 4, "test": 6}


def test_every_class_needs_a_clip_whose_label_or_highest_score_it_is(clips: pd.DataFrame, save: Save) -> None:
    table = add_scores(clips)
    table["kind"] = table["kind"].mask(table["split"] == "train", "")
    found, notes = read(save(table))
    assert notes == ["kind: 36 of 36 training clips have scores of a teacher, 36 of them and no label"]
    assert found[label_column("kind")].tolist() == clips["kind"].tolist()
    table["score:tone"] = table["score:tone"].mask(table["score:tone"] != "", "0")
    settings = SETTINGS | {"out": "o", "manifest": str(save(table)), "label": "kind"}
    with pytest.raises(InputError, match=r"every class must have training clips, but these have none: tone"):
        train(TrainConfig(**settings), progress=False)

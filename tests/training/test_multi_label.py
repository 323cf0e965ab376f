"""Runs on clips with several labels: the loss, options, results, going on, several tasks."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn import functional as F

from audiostride.dataset.sampling import presence_weights
from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, load_classifier, save_classifier
from audiostride.reporting import report
from audiostride.reporting.predictions import label_pairs, threshold_counts
from audiostride.reporting.runs import read_run
from audiostride.training import TrainConfig, train
from audiostride.training.assembly import make_batches, make_training
from audiostride.training.clips import load_sets
from audiostride.training.initial import make_model
from audiostride.training.loading import BatchParts
from audiostride.training.loss import ClassifierTraining
from audiostride.training.results import evaluate_run
from audiostride.training.sources import ONLY_SCORES, class_names_of, read_source
from audiostride.training.targets import binary_cross_entropy, binary_targets, target_column

Run = Callable[..., int]
NETWORK: dict[str, Any] = {"pooling": "strided", "channels": [4], "strides": [[4, 4]]}
# A tone has what noise has not, so that both can be learned; every third clip is odd.
SETS = {"tone": "high;pure", "noise": "rough"}


@pytest.fixture(scope="module")
def several(clips: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of sets (``sound``), the same as columns of 0 and 1 in ``hot.csv``, and a column of one label each."""
    root = tmp_path_factory.mktemp("several")
    table = clips.assign(sound=clips["kind"].map(SETS), group=clips["speaker"])
    odd = np.arange(len(table)) % 3 == 0
    table.loc[odd, "sound"] += ";odd"
    table.loc[table.index[[3, 8]], "sound"] = ""
    table.to_csv(root / "m.csv", index=False)
    pd.concat([table.drop(columns="sound"), table["sound"].str.get_dummies(";")], axis=1).to_csv(
        root / "hot.csv", index=False
    )
    few = table.groupby(["split", "kind"]).head(4)[["path", "kind", "split"]]
    few.assign(kind="is " + few["kind"]).to_csv(root / "few.csv", index=False)
    return root / "m.csv"


@pytest.fixture(scope="module")
def several_run(several: Path, quick_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished quick run on sets. Not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert quick_run(several, out, "--label", "sound", "--multi-label", "--max-steps", 40, "--valid-every", 20) == 0
    return out


def binary_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Sum over examples and classes, by torch's own function; weight is that of absence and presence."""
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    assert set(target.unique().tolist()) <= {0, 1}
    return (each * torch.where(target > 0, weight[1], weight[0])).sum()


def test_the_loss_is_that_of_torch_over_the_examples_that_have_labels() -> None:
    torch.manual_seed(0)
    logits, target, known = torch.randn(6, 3), torch.randint(0, 2, (6, 3)).float(), torch.arange(6) % 3 > 0
    shares = binary_targets(target, known)
    expected = F.binary_cross_entropy_with_logits(logits[known], target[known])
    torch.testing.assert_close(binary_cross_entropy(logits, shares), expected)
    smooth = F.binary_cross_entropy_with_logits(logits[known], 0.9 * target[known] + 0.05)
    torch.testing.assert_close(binary_cross_entropy(logits, shares, smoothing=0.1), smooth)
    weight = torch.tensor([[0.5, 1.0, 2.0], [3.0, 1.0, 0.25]])
    weights = torch.where(target > 0, weight[1], weight[0])[known].sum()
    expected = binary_loss(logits[known], target[known], weight) / weights
    torch.testing.assert_close(binary_cross_entropy(logits, shares, weight=weight), expected)
    nobody = logits.clone().requires_grad_()
    loss = binary_cross_entropy(nobody, binary_targets(target, known & False))
    loss.backward()
    assert loss == 0
    assert torch.equal(nobody.grad, torch.zeros(6, 3))


def test_weights_make_absence_and_presence_of_each_class_count_alike() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (20, 3)) * [1, 1, 0]
    absent, present = presence_weights(labels)
    assert present[2] == absent[2] == 1
    for index in (0, 1):
        n_present = labels[:, index].sum()
        assert n_present * present[index] == pytest.approx((20 - n_present) * absent[index]) == pytest.approx(10)


def make_config(several: Path, **settings: Any) -> TrainConfig:
    """A run on sets, on one label each of the same clips, and on one label each of others."""
    few = several.with_name("few.csv")
    tasks = [f"sound={several}:sound", f"kind={several}:kind", f"few={few}:kind"]
    own = {"task": tasks, "multi_label": ["sound"], "batch_size": 8, "out": "o", **NETWORK}
    return TrainConfig(**own | settings)


def prepare(config: TrainConfig) -> tuple[AudioClassifier, Any, ClassifierTraining, Any]:
    tables = [(source, read_source(source, config)[0]) for source in config.sources()]
    found = {task: names for source, clips in tables for task, names in class_names_of(clips, source).items()}
    names = {task: found[task] for task in config.tasks()}
    sets = load_sets(tables, names, config, progress=False)
    torch.manual_seed(0)
    model, _ = make_model(config, names, None)
    batches = make_batches(model, config, sets["train"])
    return model.eval(), batches, make_training(model, config, sets["train"], batches, Processes()), sets


@pytest.mark.parametrize(
    "settings",
    [{}, {"mixup": 0.4, "label_smoothing": 0.1}, {"class_weights": "balanced"},
     {"class_weights": "balanced", "mixup": 0.4, "distillation": 0.5}],
)  # fmt: skip
def test_the_parts_of_a_batch_add_up_to_the_whole(several: Path, settings: dict[str, Any]) -> None:
    config = make_config(several, **settings)
    model, batches, training, _ = prepare(config)
    whole = training(batches[3])
    grads = torch.autograd.grad(whole, list(model.parameters()), allow_unused=True)
    parts, summed = BatchParts(batches, turns=4), [torch.zeros_like(each) for each in model.parameters()]
    losses = []
    for turn in range(4):
        loss = training(parts[3 * 4 + turn], turn)
        losses.append(loss)
        for total, grad in zip(
            summed, torch.autograd.grad(loss, list(model.parameters()), allow_unused=True), strict=True
        ):
            total += 0 if grad is None else grad
    # In float32, which the parts and the whole round otherwise.
    torch.testing.assert_close(torch.stack(losses).sum(), whole, rtol=1e-6, atol=0)
    for total, grad in zip(summed, grads, strict=True):
        torch.testing.assert_close(total, torch.zeros_like(total) if grad is None else grad, rtol=1e-4, atol=1e-6)


def test_mixed_examples_learn_the_mixture_and_others_do_not_count(several: Path) -> None:
    config = make_config(several, mixup=0.4)
    model, batches, training, _ = prepare(config)
    batch = next(item for item in map(batches.__getitem__, range(9)) if (item["class_index"][:, 0] < 0).any())
    known = (batch["class_index"][:, 0] >= 0).double()
    torch.manual_seed(0)
    logits = {task: torch.randn(8, len(names)).double() for task, names in model.config.tasks.items()}
    losses, counts = training._task_losses(logits, batch["class_index"], batch)
    assert counts[0] == known.sum() < 8
    partner, share, target = batch["mixup_partner"], batch["mixup_weight"].double(), batch["target_0"].double()
    one = torch.ones(2, 4).double()
    total = sum(
        binary_loss(logits["sound"][i : i + 1], target[of : of + 1], one) * part * known[of]
        for i in range(8)
        for of, part in ((i, share[i]), (int(partner[i]), 1 - share[i]))
    )
    n_examples = (share * known + (1 - share) * known[partner]).sum()
    torch.testing.assert_close(losses[0].double(), total / (n_examples * 4), rtol=1e-5, atol=0)


def test_scores_of_a_teacher_are_soft_labels_of_each_class(several: Path, tmp_path: Path) -> None:
    table = pd.read_csv(several, keep_default_na=False)
    taught = table.assign(**{f"score:{name}": "" for name in ("high", "odd", "pure", "rough")})
    taught.loc[:3, ["score:high", "score:odd", "score:pure", "score:rough"]] = ["0.5", "0", "0.25", "1"]
    taught.to_csv(tmp_path / "m.csv", index=False)
    config = TrainConfig(out="o", manifest=str(tmp_path / "m.csv"), label="sound", multi_label=[], distillation=0.5)
    found, notes = read_source(config.sources()[0], config)
    assert (
        "sound: 4 of 36 training clips have scores of a teacher; they count 0.5 in the loss, and labels 0.5 "
        in notes[-1]
    )
    assert not found[ONLY_SCORES].any()
    targets = found[[target_column("sound", name) for name in ("high", "odd", "pure", "rough")]].to_numpy()
    assert taught["sound"][3] == ""
    assert targets[3].tolist() == [0.25, 0, 0.125, 0.5], "no label is a label too"
    labels = set(taught["sound"][0].split(";"))
    assert targets[0].tolist() == [0.25 + 0.5 * ("high" in labels), 0.5, 0.125 + 0.5 * ("pure" in labels),
                                   0.5 + 0.5 * ("rough" in labels)]  # fmt: skip
    assert set(targets[4:36].ravel().tolist()) == {0, 1}


def test_a_run_on_sets_learns_and_says_what_it_is(
    several_run: Path, several: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_classifier(several_run)
    assert model.config.multi_label == ("sound",)
    assert model.config.tasks == {"sound": ["high", "odd", "pure", "rough"]}
    metrics = json.loads((several_run / "metrics.json").read_text())
    assert metrics["metric"] == "average_precision"
    assert metrics["accuracy"] == metrics["average_precision"]
    assert metrics["interval_over"] == "3 groups"
    predictions = pd.read_csv(several_run / "predictions_test.csv", keep_default_na=False)
    manifest = pd.read_csv(several, keep_default_na=False).query("split == 'test'").reset_index(drop=True)
    assert [set(cell.split(";")) for cell in predictions["true"]] == [
        set(cell.split(";")) for cell in manifest["sound"]
    ]
    names = model.config.tasks["sound"]
    truth = np.array([[name in cell.split(";") for name in names] for cell in manifest["sound"]])
    probs = predictions[[f"p:{name}" for name in names]].to_numpy()
    predicted = [";".join(np.array(names)[row >= 0.5]) for row in probs]
    assert predictions["predicted"].tolist() == predicted
    each = average_precision_score(truth, probs, average=None)
    per_class = pd.read_csv(several_run / "per_class.csv")
    np.testing.assert_allclose(per_class["average_precision"], each, atol=6e-5)
    assert metrics["accuracy"] == pytest.approx(each.mean())
    assert metrics["baseline_majority"] == pytest.approx(truth.mean())
    assert not (several_run / "confusion_matrix.csv").exists()
    history = pd.read_csv(several_run / "history.csv")
    valid = evaluate_run(several_run, split="valid", progress=False)
    best = history["valid_accuracy"].max()  # --keep best
    assert valid["average_precision"] == pytest.approx(best) == pytest.approx(metrics["valid_accuracy"])
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


def test_the_page_has_classes_instead_of_a_confusion_matrix(several_run: Path) -> None:
    made = report(several_run)
    assert "macro average precision" in made.headline
    assert {"per_class", "calibration", "accuracy"} <= {*made.tables}
    assert "Confusion" not in made.html
    assert "Average precision of each class" in made.html
    assert list(made.files())[:1] != []
    assert {"average_precision.svg", "reliability.png"} <= {*made.files()}
    bins = made.tables["calibration"]
    assert bins["clips"].sum() == 6 * 4, "pairs of a clip and a class"
    assert "how often a class is there" in made.html


def test_threshold_counts_are_those_of_a_loop(several_run: Path) -> None:
    run = read_run(several_run)
    pairs = label_pairs(run.predictions["sound"], run.tasks["sound"])
    for name, (right, found) in zip(run.tasks["sound"], threshold_counts(pairs, run.tasks["sound"]), strict=True):
        own = pairs[pairs["class"] == name]
        for step in (0, 1, 50, 99, 100):
            above = own[own["probability"] >= step / 100]
            assert (right[step], found[step]) == (above["truth"].sum(), len(above))


@pytest.mark.skipif(browser.PROGRAM is None, reason="no browser is installed")
def test_the_slider_of_the_page_begins_with_the_table_and_follows_the_counts(several_run: Path, tmp_path: Path) -> None:
    made, cells = report(several_run), "[...document.querySelectorAll('table.sorted tbody tr')].map(row => "
    (tmp_path / "page.html").write_text(made.html, encoding="utf-8")
    move = "(value => { const input = document.querySelector('.slider input'); input.value = value; "
    move += "input.dispatchEvent(new Event('input')); })"
    rows = cells + "[...row.cells].map(cell => cell.textContent))"
    with browser.Browser(tmp_path / "profile") as page:
        page.open(tmp_path / "page.html")
        before = page.run(rows)
        page.run(f"{move}(50)")
        assert page.run(rows) == before
        page.run(f"{move}(0)")
        lowest = pd.DataFrame(page.run(rows))
        assert page.run("document.querySelector('.slider output').textContent") == "0.00"
        assert page.problems == []
    names = page_columns(made.html)
    assert set(lowest[names.index("recall")]) == {"1.000"}
    shares = made.tables["per_class"]["share"]
    assert lowest[names.index("precision")].astype(float).tolist() == pytest.approx(shares.tolist(), abs=5e-4)


def page_columns(page: str) -> list[str]:
    """The names of the columns of the class table."""
    table = page.split('<table class="sorted">')[1]
    return re.findall(r"<th scope=\"col\"[^>]*>([^<]*)</th>", table.split("</thead>")[0])


def test_columns_of_0_and_1_give_the_same_run(several_run: Path, several: Path, quick_run: Run, tmp_path: Path) -> None:
    options = ["--max-steps", 40, "--valid-every", 20, "--label", "sound", "--label-columns"]
    hot = several.with_name("hot.csv")
    assert quick_run(hot, tmp_path / "run", *options, "high", "odd", "pure", "rough") == 0
    first, second = (
        pd.read_csv(run / "history.csv").drop(columns="elapsed_s") for run in (several_run, tmp_path / "run")
    )
    pd.testing.assert_frame_equal(first, second)
    assert load_classifier(tmp_path / "run").config.tasks == load_classifier(several_run).config.tasks
    assert evaluate_run(tmp_path / "run", manifest=str(hot), progress=False)["metric"] == "average_precision"


def test_tasks_of_one_label_and_of_several_share_a_run(
    several: Path, run_command: Run, no_figures: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = several.with_name("few.csv")
    tasks = ["--task", f"sound={several}:sound", f"kind={several}:kind", f"few={few}:kind", "--multi-label", "sound"]
    small = ["--pooling", "strided", "--channels", "[4]", "--strides", "[[4,4]]", "--max-steps", 4, "--batch-size", 6]
    assert run_command("train", *tasks, "--out", tmp_path / "run", *small, "--class-weights", "balanced") == 0
    said = capsys.readouterr().out
    assert "sound: ';' separates the labels of a clip, such as 'high;pure;odd'" in said
    assert "sound: 2 of 46 clips have no label: none of the classes" in said
    assert "sound, test: macro average precision " in said
    assert "kind, test: accuracy " in said
    assert "mean over 3 tasks: accuracy or macro average precision " in said
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["metric"] == "mixed"
    assert [found.get("metric") for found in metrics["tasks"].values()] == ["average_precision", None, None]
    assert metrics["accuracy"] == pytest.approx(np.mean([found["accuracy"] for found in metrics["tasks"].values()]))
    assert load_classifier(tmp_path / "run").config.multi_label == ("sound",)
    assert report(tmp_path / "run").headline.startswith("3 tasks: ")
    assert run_command("predict", tmp_path / "run", few, "-o", tmp_path / "p.csv", "--threshold", 0, "--per-clip") == 0
    rows = pd.read_csv(tmp_path / "p.csv").groupby(["path", "task"]).size().unstack()
    assert rows.max().to_dict() == {"few": 1, "kind": 1, "sound": 4}
    assert rows.min().to_dict() == {"few": 1, "kind": 1, "sound": 4}


def test_a_run_goes_on_with_as_many_labels_as_it_had(
    several_run: Path, several: Path, run_command: Run, no_figures: None, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = tmp_path / "run"
    shutil.copytree(several_run, run)
    (run / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"multi_label: \['sound'\] -> None"):
        train(replace(TrainConfig.load(run), multi_label=None), resume=True, progress=False)
    model = load_classifier(run)
    single = AudioClassifier(ClassifierConfig(tasks=model.config.tasks, **NETWORK))
    save_classifier(single, run / "model.safetensors")
    assert run_command("train", "--out", run, "--resume") == 2
    assert "clips of sound have one there and several here" in capsys.readouterr().err
    save_classifier(model, run / "model.safetensors")
    assert run_command("train", "--out", run, "--resume") == 0


def test_a_head_is_taken_over_where_clips_have_as_many_labels(several_run: Path) -> None:
    initial = load_classifier(several_run)
    config = TrainConfig(out="o", manifest="m", label="sound", multi_label=[], init=str(several_run), **NETWORK)
    model, notes = make_model(config, initial.config.tasks, initial)
    assert torch.equal(model.heads[0].weight, initial.heads[0].weight)
    assert model.config.multi_label == ("sound",)
    config = TrainConfig(out="o", manifest="m", label="sound", init=str(several_run), **NETWORK)
    model, notes = make_model(config, initial.config.tasks, initial)
    assert not torch.equal(model.heads[0].weight, initial.heads[0].weight)
    assert model.config.multi_label == ()
    assert notes[1] == "sound has a new head, for 4 classes, since clips have one here"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multi_label": ["other"]}, r"multi_label must name tasks \(label\), got other; without a name it means all"),
        ({"label_separator": ";"}, "label_separator must be text given with multi_label, got ';'; add --multi-label"),
        ({"label_columns": ["a"]}, "label_columns must be two or more different columns of 0 and 1"),
        ({"label_columns": ["a", "a"]}, "label_columns must be two or more different columns"),
        ({"label_columns": ["a", "b"], "label_separator": ";"}, "label_columns must be given without label_separator"),
        ({"manifest": None, "task": ["x=m:c"], "label_columns": ["a", "b"]}, "must be given without task, got both"),
        ({"multi_label": [], "balance": "class"}, "balance must not be class where clips have several labels"),
        (
            {"manifest": None, "task": ["x=m:c", "y=m:c"], "multi_label": ["y"]},
            "a column must hold one label per clip or several, got both for c of ",
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(**{"out": "o", "manifest": "m", **options})


def test_names_of_tasks_may_be_left_out() -> None:
    settings = {"out": "o", "task": ["x=m:c", "y=n:d"]}
    assert TrainConfig(**settings, multi_label=[]).multi_label == ["x", "y"]
    assert TrainConfig(**settings, multi_label=["y"]).multi_label == ["y"]
    assert TrainConfig(out="o", manifest="m", label="call", label_columns=["a", "b"]).multi_label == ["call"]
    assert TrainConfig(**settings).multi_label is None
    both = {"balance": "class", "multi_label": ["y"]}
    assert TrainConfig(out="o", task=["x=m:c", "y=m:d"], **both).balance == "class", "clips come by the first task"


def test_bad_labels_are_refused_before_anything_is_written(
    several: Path, quick_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(several, keep_default_na=False)
    tested = table.index[table["split"] == "test"]
    table.loc[tested[0], "sound"] += ";new"
    table.to_csv(tmp_path / "m.csv", index=False)
    out, options = tmp_path / "run", ["--label", "sound", "--multi-label"]
    assert quick_run(tmp_path / "m.csv", out, *options) == 2
    assert "every class must have training clips, but these have none: new;" in capsys.readouterr().err
    hot = pd.read_csv(several.with_name("hot.csv"), dtype=str)
    hot.loc[[1, 4], "odd"] = "x"
    hot.to_csv(tmp_path / "hot.csv", index=False)
    assert quick_run(tmp_path / "hot.csv", out, "--label", "sound", "--label-columns", "odd", "pure") == 2
    shown = capsys.readouterr().err
    assert "2 bad rows" in shown
    assert "line 3: odd must be 0 or 1, true or false, got 'x'" in shown
    assert not out.exists()

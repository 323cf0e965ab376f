"""Run folders made without training: a small random model, and results of made-up logits written by the real code."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import yaml

from audiostride.inference.evaluation import evaluate_logits
from audiostride.models import AudioClassifier, ClassifierConfig, save_classifier
from audiostride.training.results import combine_tasks, summarise, write_predictions, write_tables


def write_run(
    run: Path,
    *,
    tasks: dict[str, list[str]] | None = None,
    tested: bool = True,
    predicted: bool = True,
    seed: int = 0,
    **settings: object,
) -> Path:
    """A run folder as a training leaves it, on clips of noise that lie beside it."""
    tasks = tasks or {"kind": ["noise", "tone"]}
    settings = {"channels": (2, 2), "strides": ((2, 2), (3, 1)), **settings}
    torch.manual_seed(seed)
    model = AudioClassifier(ClassifierConfig(tasks=tasks, **settings))
    run.mkdir(parents=True)
    save_classifier(model, run / "model.safetensors")
    rng = np.random.default_rng(seed)
    paths = [str(run.parent / f"audio {number}.wav") for number in range(30)]
    for path in paths:
        if not Path(path).exists():
            soundfile.write(path, rng.uniform(-0.1, 0.1, 8000), 16000)
    manifest = run.parent / "manifest.csv"
    rows = (
        pd.read_csv(manifest)
        if manifest.exists()
        else pd.DataFrame({"path": paths, "split": ["train"] * 27 + ["valid"] * 3})
    )
    labels = {task: [names[number % len(names)] for number in range(30)] for task, names in tasks.items()}
    rows.assign(**labels).to_csv(manifest, index=False)
    entries = [f"{task}={manifest}:{task}" for task in tasks]
    config = {"task": entries} if len(tasks) > 1 else {"manifest": str(manifest), "label": next(iter(tasks))}
    config |= {"seed": seed, "width": 1.0, "batch_size": 4, "lr": 1e-3, "stride_lr": 1e-2, "random_split": None}
    config |= {"hold_out": 0.1, "max_steps": 8, "out": str(run)}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    history = {"step": [4, 8], "train_loss": [1.0, 0.5], "valid_loss": [1.1, 0.7], "valid_accuracy": [0.5, 0.75]}
    pd.DataFrame(history).to_csv(run / "history.csv", index=False)
    if model.config.pooling == "diffstride":
        rows = {"step": [0, 8]}
        for layer, pair in enumerate(model.config.strides, start=1):
            rows |= {f"layer{layer}_{axis}": [s, s + 0.1] for axis, s in zip(("time", "mel"), pair, strict=True)}
        pd.DataFrame(rows).to_csv(run / "strides.csv", index=False)
    if not tested:
        return run
    clips = pd.DataFrame({"line": range(2, 32), "path": paths, "start_s": 0.0, "duration_s": np.nan})
    found = {}
    for task, names in tasks.items():
        truth = rng.integers(0, len(names), 30)
        logits = torch.from_numpy(rng.standard_normal((30, len(names))) + 1.5 * np.eye(len(names))[truth])
        suffix = f"_{task}" if len(tasks) > 1 else ""
        evaluation = evaluate_logits(logits, truth, names)
        write_tables(run, evaluation, suffix=suffix)
        if predicted:
            own = SimpleNamespace(clips=clips, class_indices=truth)
            write_predictions(run / f"predictions_test{suffix}.csv", evaluation, own)
        found[task] = {**summarise(evaluation), "baseline_majority": 0.5, "baseline_classic": 0.95}
    metrics = {
        "task": ", ".join(tasks),
        "split": "test",
        **combine_tasks(found),
        "parameters": 99,
        "valid_accuracy": 0.75,
    }
    metrics |= {"clips": {task: {"train": 100, "test": 30} for task in tasks}, "best_step": 8, "steps": 8}
    (run / "metrics.json").write_text(json.dumps(metrics))
    environment = {"command": "audiostride train", "python": "3.11", "device": "a CPU", "threads": 1, "training_s": 2.5}
    (run / "environment.json").write_text(json.dumps({**environment, "packages": {"torch": "2.14"}}))
    return run


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    return write_run

"""One training run from its settings to its folder."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from torch import Tensor

from audiostride.distributed import Processes
from audiostride.errors import InputError, explained
from audiostride.inference.settings import PredictionSettings
from audiostride.models import AudioClassifier, load_classifier, save_classifier
from audiostride.models.budget import classifier_budget
from audiostride.models.encoder_kinds import fill_encoder
from audiostride.models.weights import check_weights_file, load_encoder_weights_
from audiostride.training.assembly import make_batches, make_training
from audiostride.training.batch_norm import share_batch_norm_
from audiostride.training.calibration import calibrate_
from audiostride.training.clips import Sets, load_sets
from audiostride.training.config import TrainConfig
from audiostride.training.hardware import (
    choose_device,
    choose_precision,
    describe_environment,
    peak_memory_mib,
    resident_mib,
    time_window,
)
from audiostride.training.initial import INITIAL, make_model, take_initial
from audiostride.training.launching import explain_failures, launch_fabric
from audiostride.training.loading import BatchParts, check_shared_memory, load_batches
from audiostride.training.loggers import closing_loggers, make_loggers
from audiostride.training.loop import fit
from audiostride.training.lost_clips import list_lost_clips, share_lost_clips, write_skipped
from audiostride.training.results import finished_metrics, write_results
from audiostride.training.resuming import check_same_settings
from audiostride.training.run_files import read_metrics
from audiostride.training.run_recorder import RunRecorder
from audiostride.training.settings import Data, check_run_folder, check_same_data, describe_data
from audiostride.training.sources import class_names_of, learned_columns, read_source
from audiostride.training.tasks import Source, check_task_names
from audiostride.wording import count_of
from audiostride.writing import make_folder, write_json, write_text

NARROWED = ("separable", "resnet18", "preact_resnet18")  # encoders whose full width is much for a CPU


@explained()
def train(config: TrainConfig, *, resume: bool = False, progress: bool = True) -> dict[str, Any]:
    """Train a classifier, evaluate its best state on the test clips and write the run folder, but for its page.

    Batches are a function of (seed, step): a run that was killed and is taken up again ends with the same numbers, on a
    CPU to the bit, as one that was not.

    Args:
        config: The settings.
        resume: Continue the run in ``config.out`` from its last checkpoint; a finished run is left as it is.
        progress: Whether progress bars are shown.

    Returns:
        What stands in ``metrics.json``; of several processes, those after the first one know a part of it only.

    Raises:
        InputError: Bad settings, manifest or audio; a run folder that is in use, or has other settings or classes; a
            loss that is not finite; too little memory.
    """
    run, processes = Path(config.out), Processes.of_environment(config.devices, config.num_nodes)
    progress = progress and processes.first
    # Weights of a run that goes on are in its checkpoint.
    weights = None if resume and (run / "checkpoints" / "last.ckpt").is_file() else config.weights
    if weights is not None:
        check_weights_file(weights)
    notes = _check_start(run, config, resume=resume) if processes.first else []
    if resume:
        config = config.filled_from(TrainConfig.load(run))
        if finished_metrics(run, config.max_steps) is not None:
            return read_metrics("train", run, config.tasks())
    config, initial = take_initial(config, resume=resume)
    tables, names, data, drawn = _read_tables(config)
    if resume:
        _check_same_classes(run, names, config.multi_label or ())
        check_same_data(run, data)
    # Before audio is read: what is wrong with an encoder or its weights should be known first.
    torch.manual_seed(config.seed)
    model, taken = make_model(config, names, initial)
    notes += [*drawn, *taken]
    PredictionSettings(hop_s=config.eval_hop_s).hop_samples(model.config)  # rather now than at the first validation
    if weights is not None:
        notes += load_encoder_weights_(model.encoder, weights)
    sets = load_sets(tables, names, config, progress=progress)
    config = config.with_steps(sum(len(sets["train"][next(iter(source.labels))].reader) for source in config.sources()))
    device = choose_device(config.device, devices=config.devices)
    precision = choose_precision(config.precision, device)
    loggers = make_loggers(run, config.logger if processes.first else ())
    batches = make_batches(model, config, sets["train"])
    parts = BatchParts(batches, rank=processes.rank, processes=processes.count, turns=config.accumulate)
    check_shared_memory(parts, workers=config.workers, processes=config.devices)
    training = make_training(model, config, sets["train"], batches, processes)
    n_skipped = _begin_folder(run, config, data, initial, sets) if processes.first else 0
    if progress:
        _announce(config, sets, names, notes=notes, n_skipped=n_skipped, device=device, n_processes=processes.count)
    recorder = RunRecorder(training, sets["valid"], loggers)
    cpu_before, memory_before = time.process_time(), resident_mib(device)
    steps = _learn(recorder, parts, sets, device=device, precision=precision, resume=resume, progress=progress)
    facts: dict[str, Any] = {
        "steps": steps,
        "stopped_early": steps < config.steps,
        "best_step": int(recorder.best["step"]),
        "valid_accuracy": recorder.best["valid_accuracy"],
        **({} if config.budget is None else {"budget": config.budget}),
    }
    if not processes.first:
        return facts
    cost = {
        "training_s": recorder.history[-1]["elapsed_s"],  # with what came before a resume; the others are since then
        "training_cpu_s": round(time.process_time() - cpu_before, 2),
        "peak_memory_mib": round(peak_memory_mib(device), 1),
        "training_memory_mib": round(peak_memory_mib(device) - memory_before, 1),
    }
    metrics = _finish(config, sets, facts=facts, cost=cost, device=device, progress=progress)
    n_lost = write_skipped(run, sets) - n_skipped
    if progress and n_lost:
        print(f"{count_of(n_lost, 'clip')} could no longer be read during the run: {run / 'skipped.csv'}", flush=True)
    return metrics


def _check_start(run: Path, config: TrainConfig, *, resume: bool) -> list[str]:
    """Raise unless a run can begin or go on in its folder; lines on what changes the numbers that come."""
    check_run_folder(run, resume=resume)
    if resume:
        return check_same_settings(TrainConfig.load(run), config)
    if config.epochs is not None and config.max_steps is not None:
        raise InputError(
            f"train: either max_steps or epochs must be given, got {config.max_steps} and {config.epochs:g}"
        )
    if config.task is not None:  # a run of before may have other names, and goes on
        check_task_names(config.tasks())
    return []


def _read_tables(
    config: TrainConfig,
) -> tuple[list[tuple[Source, pd.DataFrame]], dict[str, list[str]], Data, list[str]]:
    """The clips of each manifest, the classes of each task, what tells of changed data, and lines on drawn splits."""
    tables: list[tuple[Source, pd.DataFrame]] = []
    names: dict[str, list[str]] = {}
    data: Data = {}
    notes: list[str] = []
    for source in config.sources():
        clips, drawn = read_source(source, config)
        names |= class_names_of(clips, source, config.label_columns)
        data |= describe_data({task: learned_columns(clips, task) for task in source.labels}, clips)
        tables.append((source, clips))
        notes += drawn if config.task is None else [f"{source.manifest}: {note}" for note in drawn]
    return tables, {task: names[task] for task in config.tasks()}, data, notes


def _check_same_classes(run: Path, names: dict[str, list[str]], several: Sequence[str]) -> None:
    """Raise if the data no longer have the classes of the model that is to go on, or another number of labels."""
    if not (run / "model.safetensors").is_file():
        return
    model = load_classifier(run).config
    saved, saved_several = model.tasks, model.multi_label
    for task in names:
        if (task in saved_several) != (task in several):
            kinds = [("one", "several")[task in each] for each in (saved_several, several)]
            raise InputError(
                f"train: a resumed run must have as many labels per clip as its model, but in {run} clips of {task} "
                f"have {kinds[0]} there and {kinds[1]} here; put its own model back, or train anew in another --out"
            )
    changed = [
        f"  {task}: {', '.join(saved.get(task, []))} -> {', '.join(classes)}"
        for task, classes in names.items()
        if saved.get(task) != classes
    ]
    if changed:
        raise InputError(
            f"train: a resumed run must have the classes of its model, in their order, but in {run} these differ:\n"
            + "\n".join(changed)
            + "\nmend the labels of the manifest, or train anew in another --out"
        )


def _begin_folder(run: Path, config: TrainConfig, data: Data, initial: AudioClassifier | None, sets: Sets) -> int:
    """Write what a run can go on from; the number of bad clips that are left out."""
    make_folder(run)
    # First of all: a folder without settings holds nothing, and one with them goes on.
    write_text(run / "config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))
    write_json(run / "data.json", data)
    if initial is not None:
        save_classifier(initial, run / INITIAL)
    make_folder(run / "checkpoints")
    return write_skipped(run, sets)


def _announce(
    config: TrainConfig,
    sets: Sets,
    names: dict[str, list[str]],
    *,
    notes: Sequence[str],
    n_skipped: int,
    device: torch.device,
    n_processes: int,
) -> None:
    """Print what is about to be trained, and what is known to be unwise."""
    lines, run = [*notes], Path(config.out)
    if n_skipped:
        lines.append(f"{count_of(n_skipped, 'bad clip')} left out: {run / 'skipped.csv'}")
    for task, classes in names.items():
        counts = ", ".join(f"{len(data[task].reader)} {split}" for split, data in sets.items())
        lines.append(f"{task + ': ' if len(names) > 1 else ''}{len(classes)} classes; {counts} clips")
    several = f" in {n_processes} processes" if n_processes > 1 else ""
    lines.append(f"training on {device}{several} -> {run}")
    usual = fill_encoder("train", config.encoder, None, None)[1]
    if device.type == "cpu" and config.width > 0.5 and config.encoder in NARROWED and config.channels == usual:
        lines.append("on a CPU, --width 0.25 trains much faster")
    if config.budget is not None and config.stride_share == 1:
        lines.append(
            "strides learn to the end: the sizes that fit the budget are chosen then, and never trained with; "
            "--stride-steps 0.5 leaves steps for that"
        )
    print("\n".join(lines), flush=True)


def _learn(
    recorder: RunRecorder,
    parts: BatchParts,
    sets: Sets,
    *,
    device: torch.device,
    precision: str,
    resume: bool,
    progress: bool,
) -> int:
    """Train on a device; the steps that are done."""
    training, processes, turns = recorder.training, recorder.processes, recorder.training.config.accumulate
    config = training.config

    def load(step: int) -> Iterator[dict[str, Tensor]]:
        order = range(step * turns, config.steps * turns)
        loader = load_batches(parts, workers=config.workers, sampler=order, pin=device.type == "cuda")
        return list_lost_clips(
            loader, parts.batches.readers, lambda: write_skipped(recorder.run, sets) if processes.first else None
        )

    remedy = f"compute batches in parts with --accumulate {2 * turns}, or lower --batch-size or --width"
    explained = explain_failures(
        several=processes.count > 1,
        workers=config.workers,
        step=f"{config.batch_size} excerpts",
        device=device,
        remedy=f"{remedy} ({config.width:g})",
    )
    with explained, closing_loggers(recorder.loggers, config.to_dict()):
        fabric = launch_fabric(
            device=device,
            devices=config.devices,
            n_nodes=config.num_nodes,
            precision=precision,
            ddp=config.strategy == "ddp",
        )
        if processes.count > 1 and device.type == "cpu":  # on GPUs torch's own is put in its place
            share_batch_norm_(training.model)
        steps = fit(
            training, fabric, recorder, load, max_steps=config.steps, turns=turns, resume=resume, progress=progress
        )
        share_lost_clips(parts.batches.readers, processes)
    return steps


def _finish(
    config: TrainConfig,
    sets: Sets,
    *,
    facts: dict[str, Any],
    cost: dict[str, Any],
    device: torch.device,
    progress: bool,
) -> dict[str, Any]:
    """Time, fit and calibrate the model that is kept, and write what it reaches; what stands in ``metrics.json``."""
    run = Path(config.out)
    best = load_classifier(run, device=device)
    cost["window_ms"] = round(time_window(best), 3)
    write_json(run / "environment.json", describe_environment(device) | cost)
    if config.budget is not None:  # of a run that was stopped while strides still learned
        classifier_budget("train", best, config.budget).fit_()
    if config.calibrate:
        facts["temperature"] = calibrate_(best, sets["valid"], hop_s=config.eval_hop_s, progress=progress)
    if config.calibrate or config.budget is not None:
        save_classifier(best, run / "model.safetensors")
    return write_results(
        run, best, test=sets["test"], train=sets["train"], facts=facts, hop_s=config.eval_hop_s, progress=progress
    )

"""One training run from its settings to its folder."""

import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger

from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, load_classifier
from audiostride.training.callbacks import CleanStop, RunRecorder, StepProgress
from audiostride.training.clips import SkippedClips, class_names_of, load_sets, read_source, write_skipped
from audiostride.training.config import Source, TrainConfig, check_same_settings
from audiostride.training.fitting import explain_failures, make_trainer
from audiostride.training.hardware import (
    choose_device,
    choose_precision,
    describe_environment,
    peak_memory_mib,
    resident_mib,
)
from audiostride.training.loggers import make_loggers
from audiostride.training.quiet import without_advice
from audiostride.training.results import finished_metrics, write_results
from audiostride.training.settings import check_run_folder
from audiostride.training.with_batches import TrainingWithBatches, make_training
from audiostride.writing import write_json, write_text


def train(config: TrainConfig, *, resume: bool = False, progress: bool = True) -> dict[str, Any]:
    """Train a classifier, evaluate its best state on the test clips and write the run folder.

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
    run = Path(config.out)
    processes = Processes.of_environment(config.devices, config.num_nodes)
    progress = progress and processes.first
    if processes.first:
        check_run_folder(run, resume=resume)
        if resume:
            check_same_settings(TrainConfig.load(run), config)
    finished = finished_metrics(run) if resume else None
    if finished is not None:
        return finished
    tables: list[tuple[Source, pd.DataFrame]] = []
    notes: list[str] = []
    found_names: dict[str, list[str]] = {}
    for source in config.sources():
        clips, drawn = read_source(source, config)
        found_names |= class_names_of(clips, source)
        tables.append((source, clips))
        notes += drawn if config.task is None else [f"{source.manifest}: {note}" for note in drawn]
    names = {task: found_names[task] for task in config.tasks()}
    if resume:
        _check_same_classes(run, names)
    sets = load_sets(tables, names, config, progress=progress)
    device = choose_device(config.device, devices=config.devices)
    precision, loggers = choose_precision(config.precision, device), make_loggers(run, config.logger)
    torch.manual_seed(config.seed)
    model = AudioClassifier(
        ClassifierConfig(
            tasks=names,
            encoder=config.encoder,
            pooling=config.pooling,
            size=config.size,
            strides=config.strides,
            channels=config.channels,
            width=config.width,
            ramp_bins=config.ramp_bins,
            shared_strides=config.shared_strides,
            pool_after=config.pool_after,
        )
    )
    module = make_training(model, config, sets["train"], processes, device=device)
    n_skipped = 0
    if processes.first:
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_text(run / "config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))
        n_skipped = write_skipped(run, sets)
    if progress:
        for note in notes:
            print(note, flush=True)
        if n_skipped:
            print(f"{n_skipped} bad clips are left out: {run / 'skipped.csv'}", flush=True)
        for task, classes in names.items():
            counts = ", ".join(f"{len(data[task].reader)} {split}" for split, data in sets.items())
            print(f"{task + ': ' if len(names) > 1 else ''}{len(classes)} classes; {counts} clips", flush=True)
        several = f" in {processes.count} processes" if processes.count > 1 else ""
        print(f"training on {device}{several} -> {run}", flush=True)
        if device.type == "cpu" and config.width > 0.5:
            print("on a CPU, --width 0.25 trains much faster", flush=True)
    recorder, stop = RunRecorder(run, sets["valid"]), CleanStop()
    cpu_before, memory_before = time.process_time(), resident_mib(device)
    callbacks = [
        recorder,
        stop,
        SkippedClips(run, sets, module.readers),
        *([StepProgress(recorder)] if progress else []),
    ]
    trainer = _fit(module, callbacks, device=device, precision=precision, loggers=loggers, resume=resume)
    facts = {
        "steps": trainer.global_step,
        "stopped_early": trainer.global_step < config.max_steps,
        "best_step": int(recorder.best["step"]),
        "valid_accuracy": recorder.best["valid_accuracy"],
    }
    if not processes.first:
        return facts
    cost = {
        "training_s": recorder.history[-1]["elapsed_s"],  # with what came before a resume; the others are since then
        "training_cpu_s": round(time.process_time() - cpu_before, 2),
        "peak_memory_mib": round(peak_memory_mib(device), 1),
        "training_memory_mib": round(peak_memory_mib(device) - memory_before, 1),
    }
    write_json(run / "environment.json", describe_environment(device) | cost)
    best = load_classifier(run, device=device)
    metrics = write_results(
        run,
        best,
        test=sets["test"],
        train=sets["train"],
        facts=facts,
        progress=progress,
    )
    n_lost = write_skipped(run, sets) - n_skipped
    if progress and n_lost:
        print(f"{n_lost} clips could no longer be read during the run: {run / 'skipped.csv'}", flush=True)
    return metrics


def _check_same_classes(run: Path, names: dict[str, list[str]]) -> None:
    """Raise if the data no longer have the classes of the model that is to go on."""
    if not (run / "model.safetensors").is_file():
        return
    saved = load_classifier(run).config.tasks
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


def _fit(
    module: TrainingWithBatches,
    callbacks: list[Callback],
    *,
    device: torch.device,
    precision: str,
    loggers: list[Logger],
    resume: bool,
) -> Trainer:
    config = module.config
    checkpoint = Path(config.out) / "checkpoints" / "last.ckpt"
    remedy = (
        f"compute batches in parts with --accumulate {2 * config.accumulate}, or lower --batch-size or --width "
        f"({config.width:g})"
    )
    with without_advice():
        trainer = make_trainer(
            device=device,
            devices=config.devices,
            n_nodes=config.num_nodes,
            precision=precision,
            max_steps=config.max_steps,
            callbacks=callbacks,
            accumulate=config.accumulate,
            loggers=loggers,
            ddp=config.strategy == "ddp",
        )
        for logger in trainer.loggers:
            logger.log_hyperparams(config.to_dict())
        several, step = config.n_processes > 1, f"{config.batch_size} excerpts"
        with explain_failures(several=several, step=step, device=device, remedy=remedy):
            trainer.fit(module, ckpt_path=checkpoint if resume and checkpoint.exists() else None, weights_only=True)
    return trainer

"""One training run from its settings to its folder."""

import logging
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from lightning import Callback, Trainer
from torch import Tensor

from audiostride.data import AudioBank, ExcerptBatches, MixedBatches, StepSampler, load_batches
from audiostride.data.balance import class_weights
from audiostride.data.mixing import mixing_weights
from audiostride.data.noise import load_noise
from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, load_classifier
from audiostride.training.callbacks import CleanStop, RunRecorder, StepProgress
from audiostride.training.clips import (
    LabelledClips,
    SkippedClips,
    balance_units,
    class_names_of,
    load_sets,
    read_source,
    write_skipped,
)
from audiostride.training.config import Source, TrainConfig, check_same_settings
from audiostride.training.hardware import (
    choose_device,
    choose_precision,
    describe_environment,
    peak_memory_mib,
    resident_mib,
)
from audiostride.training.module import ClassifierTraining
from audiostride.training.results import finished_metrics, write_results
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
        What stands in ``metrics.json``.

    Raises:
        InputError: Bad settings, manifest or audio; a run folder that is in use, or has other settings.
    """
    run = Path(config.out)
    _check_run_folder(config, resume=resume)
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
    sets = load_sets(tables, names, config, progress=progress)
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    model = AudioClassifier(
        ClassifierConfig(
            tasks=names,
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
    module = _make_module(model, config, sets["train"], pin=device.type == "cuda")
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    write_text(run / "config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))
    n_skipped = write_skipped(run, sets)
    if progress:
        for note in notes:
            print(note, flush=True)
        if n_skipped:
            print(f"{n_skipped} bad clips are left out: {run / 'skipped.csv'}", flush=True)
        for task, classes in names.items():
            counts = ", ".join(f"{len(data[task].bank)} {split}" for split, data in sets.items())
            print(f"{task + ': ' if len(names) > 1 else ''}{len(classes)} classes; {counts} clips", flush=True)
        print(f"training on {device} -> {run}", flush=True)
        if device.type == "cpu" and config.width > 0.5:
            print("on a CPU, --width 0.25 trains much faster", flush=True)
    recorder, stop = RunRecorder(run, sets["valid"]), CleanStop()
    cpu_before, memory_before = time.process_time(), resident_mib(device)
    callbacks = [recorder, stop, SkippedClips(run, sets, module.banks), *([StepProgress(recorder)] if progress else [])]
    trainer = _fit(module, callbacks, device=device, resume=resume)
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
        facts={
            "steps": trainer.global_step,
            "stopped_early": trainer.global_step < config.max_steps,
            "best_step": int(recorder.best["step"]),
            "valid_accuracy": recorder.best["valid_accuracy"],
        },
        progress=progress,
    )
    n_lost = write_skipped(run, sets) - n_skipped
    if progress and n_lost:
        print(f"{n_lost} clips could no longer be read during the run: {run / 'skipped.csv'}", flush=True)
    return metrics


def _check_run_folder(config: TrainConfig, *, resume: bool) -> None:
    run = Path(config.out)
    if run.exists() and not run.is_dir():
        raise InputError(f"train: --out must be a folder, got the file {run}")
    if resume and not (run / "config.yaml").exists():
        raise InputError(f"train: --resume needs a run folder, but {run} has no config.yaml; leave --resume out")
    if resume:
        check_same_settings(TrainConfig.load(run), config)
    elif run.is_dir() and any(run.iterdir()):
        raise InputError(
            f"train: --out must be a new or empty folder, got {run}; "
            "continue the run there with --resume, or choose another name"
        )


def _make_module(
    model: AudioClassifier, config: TrainConfig, train: dict[str, LabelledClips], *, pin: bool
) -> "_WithBatches":
    """The model with its training data, augmentation and loss."""
    settings = model.config
    sources = []
    for source in config.sources():
        first = train[next(iter(source.labels))]
        classes = first.class_indices
        if len(train) > 1:
            classes = np.full((len(first.bank), len(train)), -1, dtype=np.int64)
            for number, task in enumerate(train):
                if task in source.labels:
                    classes[:, number] = train[task].class_indices
        sources.append(
            ExcerptBatches(
                first.bank,
                classes,
                batch_size=config.batch_size,
                window=settings.window_samples,
                shift=round(config.time_shift_s * settings.sample_rate),
                seed=config.seed,
                units=balance_units(first, config.balance),
                augmentation=config.augmentation(),
                spectrogram=(settings.window_frames, settings.n_mels, settings.hop_length / settings.sample_rate),
            )
        )
    batches: ExcerptBatches | MixedBatches = sources[0]
    if len(sources) > 1:
        shares = mixing_weights([len(source.bank) for source in sources], config.mixing)
        batches = MixedBatches(
            sources, shares, batch_size=config.batch_size, seed=config.seed, augmentation=config.augmentation()
        )
    weights = noises = None
    if config.class_weights == "balanced":
        weights = [
            torch.from_numpy(class_weights(data.class_indices, len(settings.tasks[task])))
            for task, data in train.items()
        ]
    if config.noise is not None:
        noises = torch.from_numpy(load_noise(config.noise, seed=config.seed, sample_rate=settings.sample_rate))
    banks = [source.bank for source in sources]
    return _WithBatches(model, config, batches, banks, class_weights=weights, noises=noises, pin=pin)


def _fit(module: "_WithBatches", callbacks: list[Callback], *, device: torch.device, resume: bool) -> Trainer:
    config = module.config
    checkpoint = Path(config.out) / "checkpoints" / "last.ckpt"
    with warnings.catch_warnings():
        # Lightning advises on loggers, workers and devices; here these are choices, not oversights.
        warnings.filterwarnings("ignore", module="lightning")
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", message=".*lightning.*|.*Lightning.*|.*tensorboard.*|.*num_workers.*")
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision=choose_precision(config.precision, device),  # type: ignore[arg-type]
            max_steps=config.max_steps,
            max_epochs=-1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
        )
        try:
            trainer.fit(module, ckpt_path=checkpoint if resume and checkpoint.exists() else None, weights_only=True)
        except InputError as error:
            # A worker process wraps its message into a traceback, which ends with that message.
            raise InputError(str(error).rsplit(f"{InputError.__module__}.InputError: ", 1)[-1].strip()) from error
    return trainer


class _WithBatches(ClassifierTraining):
    """Adds the loader, which begins at the step that a checkpoint has restored."""

    def __init__(
        self,
        model: AudioClassifier,
        config: TrainConfig,
        batches: ExcerptBatches | MixedBatches,
        banks: list[AudioBank],
        *,
        class_weights: list[Tensor] | None,
        noises: Tensor | None,
        pin: bool,
    ) -> None:
        super().__init__(model, config, class_weights=class_weights, noises=noises)
        self._batches, self.banks, self._pin = batches, banks, pin

    def train_dataloader(self) -> Any:
        sampler = StepSampler(self.trainer.global_step, self.config.max_steps)
        return load_batches(self._batches, workers=self.config.workers, sampler=sampler, pin=self._pin)

"""One training run from its settings to its folder."""

import json
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import Callback, Trainer
from torch import Tensor

from audiostride.data import ExcerptBatches, StepSampler, check_training_clips, load_batches
from audiostride.data.balance import class_weights
from audiostride.data.noise import load_noise
from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, load_classifier
from audiostride.training.callbacks import CleanStop, RunRecorder, StepProgress
from audiostride.training.clips import (
    LabelledClips,
    SkippedClips,
    balance_units,
    load_sets,
    read_run_clips,
    write_skipped,
)
from audiostride.training.config import TrainConfig, check_same_settings
from audiostride.training.hardware import (
    choose_device,
    choose_precision,
    describe_environment,
    peak_memory_mib,
    resident_mib,
)
from audiostride.training.module import ClassifierTraining
from audiostride.training.results import write_results
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
    finished = _finished_metrics(run) if resume else None
    if finished is not None:
        return finished
    clips, notes = read_run_clips(config)
    names = check_training_clips(clips, where=str(config.manifest))
    sets = load_sets(clips, names, config, progress=progress)
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    model = AudioClassifier(
        ClassifierConfig(
            tasks={config.label: names},
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
        counts = ", ".join(f"{len(data.bank)} {split}" for split, data in sets.items())
        print(f"{len(names)} classes; {counts} clips; training on {device} -> {run}", flush=True)
        if device.type == "cpu" and config.width > 0.5:
            print("on a CPU, --width 0.25 trains much faster", flush=True)
    recorder, stop = RunRecorder(run, sets["valid"].bank, sets["valid"].class_indices), CleanStop()
    cpu_before, memory_before = time.process_time(), resident_mib(device)
    callbacks = [recorder, stop, SkippedClips(run, sets), *([StepProgress(recorder)] if progress else [])]
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


def _finished_metrics(run: Path) -> dict[str, Any] | None:
    """The metrics of a run that has nothing left to do."""
    if not (run / "report.html").is_file():  # written last
        return None
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return None if metrics["stopped_early"] else metrics


def _make_module(model: AudioClassifier, config: TrainConfig, data: LabelledClips, *, pin: bool) -> "_WithBatches":
    """The model with its training data, augmentation and loss."""
    settings = model.config
    batches = ExcerptBatches(
        data.bank,
        data.class_indices,
        batch_size=config.batch_size,
        window=settings.window_samples,
        shift=round(config.time_shift_s * settings.sample_rate),
        seed=config.seed,
        units=balance_units(data, config.balance),
        augmentation=config.augmentation(),
        spectrogram=(settings.window_frames, settings.n_mels, settings.hop_length / settings.sample_rate),
    )
    weights = noises = None
    if config.class_weights == "balanced":
        n_classes = len(next(iter(settings.tasks.values())))
        weights = torch.from_numpy(class_weights(data.class_indices, n_classes))
    if config.noise is not None:
        noises = torch.from_numpy(load_noise(config.noise, seed=config.seed, sample_rate=settings.sample_rate))
    return _WithBatches(model, config, batches, class_weights=weights, noises=noises, pin=pin)


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
        batches: ExcerptBatches,
        *,
        class_weights: Tensor | None,
        noises: Tensor | None,
        pin: bool,
    ) -> None:
        super().__init__(model, config, class_weights=class_weights, noises=noises)
        self._batches, self._pin = batches, pin

    def train_dataloader(self) -> Any:
        sampler = StepSampler(self.trainer.global_step, self.config.max_steps)
        return load_batches(self._batches, workers=self.config.workers, sampler=sampler, pin=self._pin)

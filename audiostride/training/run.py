"""One training run from its settings to its folder."""

import json
import logging
import os
import platform
import shlex
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import Trainer

from audiostride.data import (
    ExcerptBatches,
    StepSampler,
    assign_random_splits,
    check_training_clips,
    load_batches,
    read_clips,
)
from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, load_classifier
from audiostride.training.callbacks import CleanStop, RunRecorder, StepProgress, peak_memory_mib
from audiostride.training.config import TrainConfig, check_same_settings
from audiostride.training.module import ClassifierTraining
from audiostride.training.results import LabelledClips, write_results
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
    clips = read_clips(config.manifest, label=config.label, audio_root=config.audio_root)
    if config.random_split is not None:
        if clips["split"].notna().any():
            raise InputError(f"train: {config.manifest} has a split column already; leave --random-split out")
        clips = assign_random_splits(clips, seed=config.random_split)
    names = check_training_clips(clips, where=str(config.manifest))
    sets = {
        split: LabelledClips.load(
            clips[clips["split"] == split],
            names,
            where=f"{config.manifest}, {split} clips",
            memory_mib=config.memory_mib / 3,
            progress=progress,
        )
        for split in ("train", "valid", "test")
    }
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
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    write_text(run / "config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))
    if progress:
        counts = ", ".join(f"{len(data.bank)} {split}" for split, data in sets.items())
        print(f"{len(names)} classes; {counts} clips; training on {device} -> {run}", flush=True)
        if device.type == "cpu" and config.width > 0.5:
            print("on a CPU, --width 0.25 trains much faster", flush=True)
    recorder, stop = RunRecorder(run, sets["valid"].bank, sets["valid"].class_indices), CleanStop()
    cpu_before, memory_before = time.process_time(), _resident_mib(device)
    trainer = _fit(model, config, sets["train"], recorder, stop, device=device, resume=resume, progress=progress)
    cost = {
        "training_s": recorder.history[-1]["elapsed_s"],  # with what came before a resume; the others are since then
        "training_cpu_s": round(time.process_time() - cpu_before, 2),
        "peak_memory_mib": round(peak_memory_mib(device), 1),
        "training_memory_mib": round(peak_memory_mib(device) - memory_before, 1),
    }
    write_json(run / "environment.json", describe_environment(device) | cost)
    best = load_classifier(run, device=device)
    return write_results(
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


def _fit(
    model: AudioClassifier,
    config: TrainConfig,
    data: LabelledClips,
    recorder: RunRecorder,
    stop: CleanStop,
    *,
    device: torch.device,
    resume: bool,
    progress: bool,
) -> Trainer:
    checkpoint = Path(config.out) / "checkpoints" / "last.ckpt"
    checkpoint_path = checkpoint if resume and checkpoint.exists() else None
    batches = ExcerptBatches(
        data.bank,
        data.class_indices,
        batch_size=config.batch_size,
        window=model.config.window_samples,
        shift=round(config.time_shift_s * model.config.sample_rate),
        seed=config.seed,
    )
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
            callbacks=[recorder, stop, *([StepProgress(recorder)] if progress else [])],
        )
        module = _WithBatches(model, config, batches, pin=device.type == "cuda")
        trainer.fit(module, ckpt_path=checkpoint_path, weights_only=True)
    return trainer


class _WithBatches(ClassifierTraining):
    """Adds the loader, which begins at the step that a checkpoint has restored."""

    def __init__(self, model: AudioClassifier, config: TrainConfig, batches: ExcerptBatches, *, pin: bool) -> None:
        super().__init__(model, config)
        self._batches, self._pin = batches, pin

    def train_dataloader(self) -> Any:
        sampler = StepSampler(self.trainer.global_step, self.config.max_steps)
        return load_batches(self._batches, workers=self.config.workers, sampler=sampler, pin=self._pin)


def choose_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is a GPU where there is one.

    Raises:
        InputError: A GPU was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("train: --device cuda needs a CUDA GPU that torch can use, got none; use --device cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def choose_precision(name: str, device: torch.device) -> str:
    """Lightning's name of the arithmetic; ``auto`` is bfloat16 autocast on a GPU that has it, else float32."""
    if name != "auto":
        return name
    return "bf16-mixed" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "32"


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions, hardware and command of this process."""
    packages = ("audiostride", "torch", "torchaudio", "lightning", "numpy", "pandas", "soundfile", "soxr", "librosa")
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": versions,
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _resident_mib(device: torch.device) -> float:
    """Memory in use now, in MiB, as `peak_memory_mib` counts it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 2**20
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

"""One training run from its settings to its folder."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from audiostride.dataset.noise import load_noise
from audiostride.dataset.sampling import class_weights, presence_weights, source_shares
from audiostride.distributed import Processes
from audiostride.errors import InputError, explained
from audiostride.inference.settings import PredictionSettings
from audiostride.models import AudioClassifier, load_classifier, save_classifier
from audiostride.models.budget import classifier_budget
from audiostride.models.config import fill_encoder
from audiostride.models.weights import check_weights_file, load_encoder_weights_
from audiostride.training.background import background_share
from audiostride.training.batch_norm import share_batch_norm_
from audiostride.training.batches import BatchParts, ExcerptBatches, MixedBatches, check_shared_memory, load_batches
from audiostride.training.calibration import calibrate_
from audiostride.training.clips import LabelledClips, Sets, balance_units, evaluate_clips, load_sets
from audiostride.training.config import TrainConfig
from audiostride.training.hardware import (
    choose_device,
    choose_precision,
    describe_environment,
    peak_memory_mib,
    resident_mib,
    time_window,
)
from audiostride.training.initial import INITIAL, check_given, initial_settings, load_initial, make_model
from audiostride.training.loggers import closing_loggers, make_loggers
from audiostride.training.loop import explain_failures, fit, launch_fabric
from audiostride.training.loss import ClassifierTraining
from audiostride.training.lost_clips import list_lost_clips, share_lost_clips, write_skipped
from audiostride.training.recorder import Recorder
from audiostride.training.results import finished_metrics, write_results
from audiostride.training.resuming import check_same_settings
from audiostride.training.run_files import read_metrics
from audiostride.training.settings import Data, check_run_folder, check_same_data, describe_data
from audiostride.training.sources import class_names_of, learned_columns, read_source
from audiostride.training.tasks import Source, check_task_names
from audiostride.wording import count_of
from audiostride.writing import make_folder, write_json, write_text

NARROWED = ("separable", "resnet18", "preact_resnet18")  # encoders whose full width is much for a CPU
LINES_SHOWN = 8  # lines of a manifest that a message about a batch names


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
    run = Path(config.out)
    processes = Processes.of_environment(config.devices, config.num_nodes)
    # Weights of a run that goes on are in its checkpoint.
    weights = None if resume and (run / "checkpoints" / "last.ckpt").is_file() else config.weights
    if weights is not None:
        check_weights_file(weights)
    progress, notes = progress and processes.first, list[str]()
    if processes.first:
        check_run_folder(run, resume=resume)
        if resume:
            notes = check_same_settings(TrainConfig.load(run), config)
        elif config.epochs is not None and config.max_steps is not None:
            raise InputError(
                f"train: either max_steps or epochs must be given, got {config.max_steps} and {config.epochs:g}"
            )
        elif config.task is not None:  # a run of before may have other names, and goes on
            check_task_names(config.tasks())
    if resume:
        config = config.filled_from(TrainConfig.load(run))
    if resume and finished_metrics(run, config.max_steps) is not None:
        return read_metrics("train", run, config.tasks())
    initial = None
    if config.init is not None:
        kept = run / INITIAL
        initial = load_initial(kept if resume and kept.is_file() else config.init)
        settings = initial_settings(initial)
        check_given(config.given_model_settings(), config.init, settings)
        config = replace(config, **settings)
    tables: list[tuple[Source, pd.DataFrame]] = []
    data: Data = {}
    found_names: dict[str, list[str]] = {}
    for source in config.sources():
        clips, drawn = read_source(source, config)
        found_names |= class_names_of(clips, source, config.label_columns)
        data |= describe_data({task: learned_columns(clips, task) for task in source.labels}, clips)
        tables.append((source, clips))
        notes += drawn if config.task is None else [f"{source.manifest}: {note}" for note in drawn]
    names = {task: found_names[task] for task in config.tasks()}
    if resume:
        _check_same_classes(run, names, config.multi_label or ())
        check_same_data(run, data)
    # Before audio is read: what is wrong with an encoder or its weights should be known first.
    torch.manual_seed(config.seed)
    model, taken = make_model(config, names, initial)
    notes += taken
    PredictionSettings(hop_s=config.eval_hop_s).hop_samples(model.config)  # rather now than at the first validation
    if weights is not None:
        notes += load_encoder_weights_(model.encoder, weights)
    sets = load_sets(tables, names, config, progress=progress)
    firsts = [sets["train"][next(iter(source.labels))] for source in config.sources()]
    config = config.with_steps(sum(len(clips.reader) for clips in firsts))
    device = choose_device(config.device, devices=config.devices)
    precision = choose_precision(config.precision, device)
    loggers = make_loggers(run, config.logger if processes.first else ())
    batches = _make_batches(model, config, sets["train"])
    parts = BatchParts(batches, rank=processes.rank, processes=processes.count, turns=config.accumulate)
    check_shared_memory(parts, workers=config.workers, processes=config.devices)
    training = _make_training(model, config, sets["train"], batches, processes)
    n_skipped = 0
    if processes.first:
        make_folder(run)
        # First of all: a folder without settings holds nothing, and one with them goes on.
        write_text(run / "config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))
        write_json(run / "data.json", data)
        if initial is not None:
            save_classifier(initial, run / INITIAL)
        make_folder(run / "checkpoints")
        n_skipped = write_skipped(run, sets)
    if progress:
        for note in notes:
            print(note, flush=True)
        if n_skipped:
            print(f"{count_of(n_skipped, 'bad clip')} left out: {run / 'skipped.csv'}", flush=True)
        for task, classes in names.items():
            counts = ", ".join(f"{len(data[task].reader)} {split}" for split, data in sets.items())
            print(f"{task + ': ' if len(names) > 1 else ''}{len(classes)} classes; {counts} clips", flush=True)
        several = f" in {processes.count} processes" if processes.count > 1 else ""
        print(f"training on {device}{several} -> {run}", flush=True)
        usual = fill_encoder("train", config.encoder, None, None)[1]
        if device.type == "cpu" and config.width > 0.5 and config.encoder in NARROWED and config.channels == usual:
            print("on a CPU, --width 0.25 trains much faster", flush=True)
        if config.budget is not None and config.stride_share == 1:
            print("strides learn to the end: the sizes that fit the budget are chosen then, and never trained with; "
                  "--stride-steps 0.5 leaves steps for that", flush=True)  # fmt: skip
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
    best = load_classifier(run, device=device)
    cost["window_ms"] = round(time_window(best), 3)
    write_json(run / "environment.json", describe_environment(device) | cost)
    if config.budget is not None:  # of a run that was stopped while strides still learned
        classifier_budget("train", best, config.budget).fit_()
    if config.calibrate:
        facts["temperature"] = calibrate_(best, sets["valid"], hop_s=config.eval_hop_s, progress=progress)
    if config.calibrate or config.budget is not None:
        save_classifier(best, run / "model.safetensors")
    metrics = write_results(
        run, best, test=sets["test"], train=sets["train"], facts=facts, hop_s=config.eval_hop_s, progress=progress
    )
    n_lost = write_skipped(run, sets) - n_skipped
    if progress and n_lost:
        print(f"{count_of(n_lost, 'clip')} could no longer be read during the run: {run / 'skipped.csv'}", flush=True)
    return metrics


def _check_same_classes(run: Path, names: dict[str, list[str]], several: Sequence[str]) -> None:
    """Raise if the data no longer have the classes of the model that is to go on, or another number of labels."""
    if not (run / "model.safetensors").is_file():
        return
    saved, saved_several = load_classifier(run).config.tasks, load_classifier(run).config.multi_label
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


def _make_batches(
    model: AudioClassifier, config: TrainConfig, train: dict[str, LabelledClips]
) -> ExcerptBatches | MixedBatches:
    """The training batches of all sources."""
    settings, sources = model.config, []
    for source in config.sources():
        first = train[next(iter(source.labels))]
        classes = np.full((len(first.reader), len(train)), -1, dtype=np.int64)
        for number, task in enumerate(train):
            if task in source.labels:  # of several labels, which are targets, 0 says that they are known
                known = train[task].class_indices
                classes[:, number] = known if known.ndim == 1 else 0
        classes = classes if len(train) > 1 else classes[:, 0]
        sources.append(
            ExcerptBatches(
                first.reader,
                classes,
                batch_size=config.batch_size,
                window=settings.window_samples,
                shift=round(config.time_shift_s * settings.sample_rate),
                seed=config.seed,
                units=balance_units(first, config.balance),
                apart=background_share(first.clips, config.background_share),
                targets=_make_targets(train, source),
                augmentation=config.augmentation(),
                spectrogram=(settings.window_frames, settings.n_mels, settings.hop_length / settings.sample_rate),
            )
        )
    if len(sources) == 1:
        return sources[0]
    shares = source_shares(
        [len(source.reader) for source in sources],
        config.mixing,
        n_tasks=[len(source.labels) for source in config.sources()],
        temperature=config.mixing_temperature,
    )
    return MixedBatches(
        sources, shares, batch_size=config.batch_size, seed=config.seed, augmentation=config.augmentation()
    )


def _make_targets(train: dict[str, LabelledClips], source: Source) -> dict[str, NDArray[np.float32]]:
    """Targets of the clips of a source for all tasks that have some in any source; several labels are such too."""
    n_clips = len(train[next(iter(source.labels))].reader)
    found = {}
    for number, (task, clips) in enumerate(train.items()):
        targets = clips.targets
        if targets is None and clips.class_indices.ndim == 2:
            targets = clips.class_indices.astype(np.float32)
        if targets is not None:
            none = np.zeros((n_clips, targets.shape[1]), dtype=np.float32)
            found[f"target_{number}"] = targets if task in source.labels else none
    return found


def _make_training(
    model: AudioClassifier,
    config: TrainConfig,
    train: dict[str, LabelledClips],
    batches: ExcerptBatches | MixedBatches,
    processes: Processes,
) -> ClassifierTraining:
    """The model with its loss: weights of classes, noises, and what messages say of a batch."""
    weights = noises = None
    if config.class_weights == "balanced":
        names = model.config.tasks
        weights = [
            torch.from_numpy(
                class_weights(data.class_indices, len(names[task]))
                if data.class_indices.ndim == 1
                else presence_weights(data.class_indices)
            )
            for task, data in train.items()
        ]
    if config.noise is not None:
        sample_rate = model.config.sample_rate
        noises = torch.from_numpy(load_noise(config.noise, seed=config.seed, sample_rate=sample_rate))
    lines = [(source.manifest, train[next(iter(source.labels))].clips["line"]) for source in config.sources()]

    def describe_batch(step: int) -> str:
        chosen, shown = batches.clips_of(step), []
        for number, (manifest, of_clips) in enumerate(lines):
            own = sorted({int(of_clips.iloc[clip]) for source, clip in chosen if source == number})
            if own:
                more = f" and {len(own) - LINES_SHOWN} more" if len(own) > LINES_SHOWN else ""
                shown.append(f"lines {', '.join(map(str, own[:LINES_SHOWN]))}{more} of {manifest}")
        return f", whose batch is of {'; '.join(shown)}"

    return ClassifierTraining(
        model, config, class_weights=weights, noises=noises, processes=processes, describe_batch=describe_batch
    )


def _learn(
    recorder: "RunRecorder",
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


class RunRecorder(Recorder):
    """Records a run and keeps its best model.

    Args:
        training: What is trained.
        valid: Validation clips of each task.
        loggers: As for `Recorder`.
    """

    def __init__(self, training: ClassifierTraining, valid: dict[str, LabelledClips], loggers: Sequence[Any]) -> None:
        config, axes = training.config, ("time", "mel")
        super().__init__(Path(config.out), training.model, axes=axes, processes=training.processes, loggers=loggers)
        self.training, self.valid = training, valid
        self.best: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.best = state["best"]

    def validates_after(self, step: int) -> bool:
        every = self.training.config.valid_every
        return every is not None and step % every == 0

    def validate(self, step: int, *, lr: float) -> dict[str, float]:
        losses = self.training.take_mean_losses(step)
        found = evaluate_clips(
            self.training.model,
            self.valid,
            hop_s=self.training.config.eval_hop_s,
            batch_size=self.training.config.batch_size,
            progress=False,
            processes=self.processes,
            intervals=False,
        )
        accuracy = fmean(item.accuracy for item in found.values())
        row: dict[str, float] = {
            "step": step,
            "train_loss": fmean(loss for loss, _ in losses.values()),
            "valid_loss": fmean(item.loss for item in found.values()),
            "valid_accuracy": accuracy,
            "lr": lr,
            "elapsed_s": round(self.elapsed_s, 2),
        }
        if len(found) > 1:
            for task, item in found.items():
                loss, examples = losses[task]
                row |= {f"train_loss_{task}": loss, f"examples_{task}": examples}
                row |= {f"valid_loss_{task}": item.loss, f"valid_accuracy_{task}": item.accuracy}
        # Of equal accuracies the later one wins: with a falling learning rate it has the lower loss.
        config = self.training.config
        rival = self.best["valid_accuracy"] if self.best.get("step", -1) >= config.kept_from else 0.0
        if config.keep == "last" or accuracy >= rival:
            self.best = {"step": step, "valid_accuracy": accuracy}
            if self.processes.first:
                save_classifier(self.training.model, self.run / "model.safetensors")
        return row

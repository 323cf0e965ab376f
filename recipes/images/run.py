"""The training of an image classifier, from its settings to its run folder."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.inference.window_batches import load_batches
from audiostride.training.batch_norm import share_batch_norm_
from audiostride.training.callbacks import CleanStop, StepProgress
from audiostride.training.fitting import explain_failures, make_trainer
from audiostride.training.hardware import choose_device, choose_precision, describe_environment, peak_memory_mib
from audiostride.training.quiet import without_advice
from audiostride.training.settings import check_run_folder
from audiostride.writing import write_json, write_text
from images.classifier import ImageClassifier, build_image_network, count_multiply_adds, read_class_names
from images.config import WHO, ImageTrainConfig, check_same_image_settings
from images.data import EvaluationBatches, ImageBatches, ImageSource, choose_image_size, load_sources
from images.evaluation import ImageRecorder
from images.module import ImageTraining
from images.torchvision_networks import import_torchvision


def train_images(config: ImageTrainConfig, *, resume: bool = False, progress: bool = True) -> dict[str, Any]:
    """Train an image classifier, evaluate its last state and write the run folder.

    Batches and what is drawn in a step are functions of (seed, step): a run that was stopped and is taken up again ends
    with the same numbers, on a CPU to the bit, as one that was not. Nothing is chosen by validation, so that CIFAR,
    which has no validation images, is validated on its test images: what is reported is the last state, as it comes.

    Args:
        config: The settings.
        resume: Continue the run in ``config.out`` from its last checkpoint; a finished run is left as it is.
        progress: Whether a progress bar is shown.

    Returns:
        What stands in ``metrics.json``: ``accuracy`` and ``loss`` of the last state on the ``n_images`` images of
        ``split``, ``n_classes``, ``parameters``, ``multiply_adds`` of one image (of the frozen network, whose matrices
        are made), ``steps``, ``stopped_early``. Of several processes, those after the first one know a part of it only.

    Raises:
        InputError: Bad settings or data; a run folder that is not empty, or has other settings; a loss that is not
            finite; too little memory.
    """
    run, processes = Path(config.out), Processes.of_environment(config.devices, config.num_nodes)
    progress = progress and processes.first
    if processes.first:
        check_run_folder(run, resume=resume)
        if resume:
            check_same_image_settings(ImageTrainConfig.load(run), config)
    finished = finished_image_metrics(run) if resume else None
    if finished is not None:
        return finished
    train, held_out, split = load_sources(config, processes)
    if resume and (run / "model.safetensors").is_file():
        check_same_classes(run, train.class_names)
    device = choose_device(config.device, devices=config.devices)
    precision = choose_precision(config.precision, device)
    model = make_network(config, train)
    if processes.count > 1 and device.type == "cpu":  # on GPUs Lightning puts torch's own in its place
        share_batch_norm_(model)
    if processes.first:
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_text(run / "config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))
    n_steps, pin = config.count_steps(len(train)), device.type == "cuda"
    if progress:
        print(f"{len(train.class_names)} classes; {len(train):,} train, {len(held_out):,} {split} images", flush=True)
        several = f" in {processes.count} processes" if processes.count > 1 else ""
        print(f"training on {device}{several} -> {run}", flush=True)
    batches = ImageBatches(
        train,
        batch_size=config.batch_size,
        seed=config.seed,
        augment=config.augment,
        mixup=config.mixup,
        processes=processes,
    )
    module = ImageTraining(model, config, batches, n_steps=n_steps, processes=processes, pin=pin)
    held_out_batches = EvaluationBatches(held_out, batch_size=config.batch_size // processes.count, processes=processes)
    recorder = ImageRecorder(
        module,
        load_batches(held_out_batches, workers=config.workers, pin=pin),
        run=run,
        class_names=train.class_names,
        n_images=len(train),
    )
    checkpoint = run / "checkpoints" / "last.ckpt"
    with without_advice():
        trainer = make_trainer(
            device=device,
            devices=config.devices,
            n_nodes=config.num_nodes,
            precision=precision,
            max_steps=n_steps,
            callbacks=[recorder, CleanStop(), *([StepProgress(recorder)] if progress else [])],
        )
        with explain_failures(
            several=processes.count > 1,
            step=f"{config.batch_size} images",
            device=device,
            remedy=f"lower batch_size, image_size or width ({config.width:g})",
        ):
            trainer.fit(module, ckpt_path=checkpoint if resume and checkpoint.exists() else None, weights_only=True)
    last = recorder.history[-1]
    facts = {"steps": trainer.global_step, "stopped_early": trainer.global_step < n_steps}
    if not processes.first:
        return facts
    environment = describe_environment(device)
    environment["packages"]["torchvision"] = str(import_torchvision(WHO).__version__)
    environment |= {"training_s": last["elapsed_s"], "peak_memory_mib": round(peak_memory_mib(device), 1)}
    write_json(run / "environment.json", environment)
    example = torch.zeros(1, 3, model.image_size, model.image_size)
    metrics = {
        "data": config.data,
        "split": split,
        "accuracy": last["valid_accuracy"],
        "loss": last["valid_loss"],
        "n_images": len(held_out),
        "n_classes": len(train.class_names),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": count_multiply_adds(model.cpu().freeze(), example),
        **facts,
    }
    write_json(run / "metrics.json", metrics)  # last: a run that has it, and was not stopped early, is finished
    return metrics


def make_network(config: ImageTrainConfig, train: ImageSource) -> ImageClassifier:
    """The network of a run, with the random weights of its seed."""
    torch.manual_seed(config.seed)
    mean, std = train.colours
    return build_image_network(
        config.arch,
        len(train.class_names),
        pooling=config.pooling,
        strides=config.stride_pairs(),
        size=config.size,
        width=config.width,
        image_size=choose_image_size(config),
        stem=config.stem,
        shared_strides=config.shared_strides,
        ramp_bins=config.ramp_bins,
        mean=mean,
        std=std,
    )


def check_same_classes(run: Path, class_names: list[str]) -> None:
    """Raise if the data no longer have the classes of the model that is to go on."""
    before = read_class_names(run)
    if before != class_names:
        gone, new = sorted(set(before) - set(class_names)), sorted(set(class_names) - set(before))
        raise InputError(
            f"{WHO}: a resumed run must have the classes of its model, but of those in {run} are gone: "
            f"{', '.join(gone) or 'none'}; and new are: {', '.join(new) or 'none'}; mend the data, or train anew in "
            "another folder"
        )


def finished_image_metrics(run: Path) -> dict[str, Any] | None:
    """What stands in ``metrics.json`` of a run that has nothing left to do, else None."""
    if not (run / "metrics.json").is_file():
        return None
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return None if metrics["stopped_early"] else metrics

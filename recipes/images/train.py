"""The training of an image classifier, from its settings to its run folder, on the package's loop."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.strides.diffstride import diffstride_layers, stride_cost
from audiostride.training.augmentation.mixup import mix_up, mixed_cross_entropy
from audiostride.training.batch_norm import share_batch_norm_
from audiostride.training.hardware import choose_device, choose_precision, describe_environment, peak_memory_mib
from audiostride.training.launching import explain_failures, launch_fabric
from audiostride.training.loading import check_shared_memory, load_batches
from audiostride.training.loop import Training, fit
from audiostride.training.recorder import Recorder
from audiostride.training.results import finished_metrics
from audiostride.training.settings import check_run_folder
from audiostride.writing import write_json, write_text
from images.classifier import (
    ImageClassifier,
    build_image_network,
    count_multiply_adds,
    read_class_names,
    save_image_classifier,
)
from images.config import WHO, ImageTrainConfig, check_same_image_settings
from images.data import EvaluationBatches, ImageBatches, ImageSource, choose_image_size, load_sources
from images.torchvision_networks import import_torchvision

CHECK_EVERY = 100  # steps after which processes tell each other whether a loss was not finite
DROPOUT = 2  # kind of random draw, see data.py


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
    finished = finished_metrics(run) if resume else None
    if finished is not None:
        return finished
    train, held_out, split = load_sources(config, processes)
    if resume and (run / "model.safetensors").is_file():
        check_same_classes(run, train.class_names)
    device = choose_device(config.device, devices=config.devices)
    precision = choose_precision(config.precision, device)
    model = make_network(config, train)
    if processes.count > 1 and device.type == "cpu":  # on GPUs torch's own is put in its place
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
    training = ImageTraining(model, config, n_images=len(train), processes=processes)
    held_out_batches = EvaluationBatches(held_out, batch_size=config.batch_size // processes.count, processes=processes)
    check_shared_memory(batches, workers=config.workers, processes=config.devices)
    validated = load_batches(held_out_batches, workers=config.workers, pin=pin)
    recorder = ImageRecorder(training, validated, run=run, class_names=train.class_names)

    def load(step: int) -> Iterator[Any]:
        return iter(load_batches(batches, workers=config.workers, sampler=range(step, n_steps), pin=pin))

    with explain_failures(
        several=processes.count > 1,
        workers=config.workers,
        step=f"{config.batch_size} images",
        device=device,
        remedy=f"lower batch_size, image_size or width ({config.width:g})",
    ):
        fabric = launch_fabric(device=device, devices=config.devices, n_nodes=config.num_nodes, precision=precision)
        recorder.arithmetic = fabric.autocast
        steps = fit(training, fabric, recorder, load, max_steps=n_steps, resume=resume, progress=progress)
    last = recorder.history[-1]
    facts = {"steps": steps, "stopped_early": steps < n_steps}
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


def prepare_images(images: Tensor, size: int) -> Tensor:
    """Images as the network takes them: in [0, 1], and brought to its size where they have another.

    Shape:
        images: ``(B, 3, H, W)`` uint8. Result: ``(B, 3, size, size)`` float32.

    >>> prepare_images(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8), 4).mean().item()
    1.0
    """
    found = images.float() / 255
    if found.shape[-2:] == (size, size):
        return found
    return F.interpolate(found, (size, size), mode="bilinear", antialias=True)


class ImageTraining(Training):
    """Cross entropy, SGD with momentum, with strides in a group of their own that has no weight decay.

    Args:
        model: The classifier.
        config: The run's settings.
        n_images: Training images.
        processes: Those that train together, each on its part of a batch.
    """

    _sums: Tensor
    _step: Tensor
    _first_bad_step: Tensor

    def __init__(self, model: ImageClassifier, config: ImageTrainConfig, n_images: int, processes: Processes) -> None:
        super().__init__()
        self.model, self.config, self.n_images, self.processes = model, config, n_images, processes
        self.strided_layers = diffstride_layers(model)
        # Sum of the losses, and their number.
        self.register_buffer("_sums", torch.zeros(2), persistent=False)
        self.register_buffer("_step", torch.tensor(0), persistent=False)
        self.register_buffer("_first_bad_step", torch.tensor(-1), persistent=False)

    def begin_step(self, step: int, turn: int = 0) -> None:
        # Dropout draws as a function of (seed, step) too, so that a run that is taken up again draws the same.
        key = [self.config.seed, DROPOUT, step, self.processes.rank]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        self._step.fill_(step)

    def forward(self, batch: dict[str, Tensor], turn: int = 0) -> Tensor:
        images, classes = prepare_images(batch["image"], self.model.image_size), batch["class_index"]
        if "share" in batch:
            # Images that are only mixed into others follow those that the loss is of.
            images = mix_up(images.flatten(1), batch["place"], batch["share"]).view(-1, *images.shape[1:])
            logits = self.model(images).float()
            loss = mixed_cross_entropy(logits, classes, batch["partner_class"], batch["share"])
        else:
            loss = F.cross_entropy(self.model(images).float(), classes)
        self._note(loss.detach())
        # Parts are of one size: the mean over the processes, which is what gradients are, is that of the batch.
        if self.config.stride_cost:
            loss = loss + self.config.stride_cost * stride_cost(self.model)
        return loss

    def _note(self, loss: Tensor) -> None:
        """Add up what the history shows, on the device."""
        self._sums += torch.stack([loss, torch.ones_like(loss)])
        new = (self._first_bad_step < 0) & ~loss.isfinite()
        self._first_bad_step.copy_(torch.where(new, self._step, self._first_bad_step))

    def check_step(self, step: int) -> None:
        if not all(math.isfinite(stride) for layer in self.strided_layers for stride in layer.stride_values()):
            raise self._diverged("strides", step)
        if step % CHECK_EVERY == 0:
            self._check_losses(step)

    def take_mean_loss(self, step: int) -> float:
        """Mean training loss since the last call, over all processes, after so many steps.

        Raises:
            InputError: A loss is not finite.
        """
        total, count = self._check_losses(step)
        self._sums.zero_()
        return total / max(1.0, count)

    def _check_losses(self, step: int) -> tuple[float, float]:
        total, count = self.processes.sum(self._sums).tolist()
        if not math.isfinite(total):
            raise self._diverged("loss", step)
        return total, count

    def _diverged(self, what: str, done: int) -> InputError:
        bad = int(self._first_bad_step)
        when = f"by step {done}" if bad < 0 else f"in step {bad + 1}"
        stands = (Path(self.config.out) / "checkpoints" / "last.ckpt").is_file()
        stride_lr = self.config.lr if self.config.stride_lr is None else self.config.stride_lr
        return InputError(
            f"image training: the {what} must stay finite, got NaN or infinity {when}; "
            + ("the checkpoint and the model of before stand" if stands else "there is no checkpoint yet")
            + f"; train anew with a lower lr ({self.config.lr:g}) or stride_lr ({stride_lr:g}), in another folder"
        )

    def make_optimizer(self) -> tuple[SGD, LambdaLR]:
        config = self.config
        strides = [layer.strides for layer in self.strided_layers]
        stride_ids = {id(parameter) for parameter in strides}
        weights = [parameter for parameter in self.model.parameters() if id(parameter) not in stride_ids]
        groups = [{"params": weights, "lr": config.lr, "weight_decay": config.weight_decay}]
        if strides:
            stride_lr = config.lr if config.stride_lr is None else config.stride_lr
            groups.append({"params": strides, "lr": stride_lr, "weight_decay": 0.0})
        optimizer = SGD(groups, momentum=config.momentum)
        scheduler = LambdaLR(optimizer, lambda step: config.learning_rate_factor(step, n_images=self.n_images))
        return optimizer, scheduler


class ImageEvaluation(NamedTuple):
    """What a classifier makes of images."""

    loss: float
    """Mean cross entropy."""
    accuracy: float
    """Share of the images whose class has the largest logit."""
    n_images: int
    """How many there were."""


def evaluate_images(
    model: ImageClassifier,
    batches: Any,
    *,
    processes: Processes | None = None,
    arithmetic: AbstractContextManager[Any] | None = None,
) -> ImageEvaluation:
    """Evaluate a classifier; of several processes each takes its own batches, and all know the result.

    Args:
        model: The classifier, which is left in the mode in which it came.
        batches: Images ``(B, 3, H, W)`` uint8 and classes ``(B,)``, over and over.
        processes: Those that evaluate together.
        arithmetic: Context in which the network computes, such as autocast.
    """
    training, device = model.training, model.mean.device
    model.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    with torch.no_grad(), arithmetic or nullcontext():
        for images, classes in batches:
            classes = classes.to(device, non_blocking=True)
            logits = model(prepare_images(images.to(device, non_blocking=True), model.image_size)).float()
            loss = F.cross_entropy(logits, classes, reduction="sum")
            right = (logits.argmax(dim=1) == classes).sum()
            sums += torch.stack([loss.double(), right.double(), torch.full_like(loss.double(), len(classes))])
    model.train(training)
    loss_sum, right_sum, count = (processes or Processes()).sum(sums).tolist()
    return ImageEvaluation(loss_sum / count, right_sum / count, round(count))


class ImageRecorder(Recorder):
    """Validates every so many epochs and keeps the model as it is.

    Args:
        training: What is trained.
        batches: What it is validated on.
        run: The run folder.
        class_names: Names of the classes, for the model file.
    """

    def __init__(self, training: ImageTraining, batches: Any, *, run: Path, class_names: list[str]) -> None:
        super().__init__(run, training.model, axes=("height", "width"), processes=training.processes)
        self.training, self.batches, self.class_names = training, batches, class_names
        self.arithmetic: Callable[[], AbstractContextManager[Any]] = nullcontext

    def validates_after(self, step: int) -> bool:
        return self.training.config.validates_after(step, n_images=self.training.n_images)

    def validate(self, step: int, *, lr: float) -> dict[str, float]:
        training, config = self.training, self.training.config
        train_loss = training.take_mean_loss(step)
        found = evaluate_images(training.model, self.batches, processes=self.processes, arithmetic=self.arithmetic())
        if self.processes.first:
            save_image_classifier(
                training.model, self.run / "model.safetensors", class_names=self.class_names, config=config.to_dict()
            )
        return {
            "step": step,
            "epoch": round(step * config.batch_size / training.n_images, 4),
            "train_loss": train_loss,
            "valid_loss": found.loss,
            "valid_accuracy": found.accuracy,
            "lr": lr,
            "elapsed_s": round(self.elapsed_s, 2),
        }

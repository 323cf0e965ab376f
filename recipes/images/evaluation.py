"""Loss and accuracy of an image classifier, during training and at its end."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from lightning import LightningModule, Trainer
from torch.nn import functional as F

from audiostride.distributed import Processes
from audiostride.training.callbacks import STRIDE_ROWS
from audiostride.training.recording import CourseRecorder
from images.classifier import ImageClassifier, save_image_classifier
from images.module import ImageTraining, prepare_images


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


class ImageRecorder(CourseRecorder):
    """Validates every so many epochs and writes the run folder: history, strides, the model as it is, checkpoint.

    Args:
        module: What is trained.
        batches: What it is validated on.
        class_names: Names of the classes, for the model file.
        n_images: Training images.
    """

    def __init__(self, module: ImageTraining, batches: Any, *, run: Any, class_names: list[str], n_images: int) -> None:
        super().__init__(run, axes=("height", "width"))
        self.module, self.batches, self.class_names, self.n_images = module, batches, class_names, n_images

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, n_steps = trainer.global_step, self.module.n_steps
        due = self.module.config.validates_after(step, n_images=self.n_images)
        validating = due or step >= n_steps or trainer.should_stop
        if validating or step % max(1, n_steps // STRIDE_ROWS) == 0:
            self._record_strides(trainer, pl_module, step=step)
        if validating:
            self._validate(trainer, step=step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A stop that came between a step and its validation.
        if trainer.global_step and (not self.history or self.history[-1]["step"] != trainer.global_step):
            self._validate(trainer, step=trainer.global_step)

    def _validate(self, trainer: Trainer, *, step: int) -> None:
        module, config = self.module, self.module.config
        train_loss = module.take_mean_loss()
        found = evaluate_images(
            module.model,
            self.batches,
            processes=module.processes,
            arithmetic=trainer.precision_plugin.forward_context(),
        )
        self.history.append(
            {
                "step": step,
                "epoch": round(step * config.batch_size / self.n_images, 4),
                "train_loss": train_loss,
                "valid_loss": found.loss,
                "valid_accuracy": found.accuracy,
                "lr": trainer.optimizers[0].param_groups[0]["lr"],
                "elapsed_s": round(self.elapsed_s, 2),
            }
        )
        if module.processes.first:
            save_image_classifier(
                module.model, self.run / "model.safetensors", class_names=self.class_names, config=config.to_dict()
            )
            self._write_tables()
        self._save_checkpoint(trainer)

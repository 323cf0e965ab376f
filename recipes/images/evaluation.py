"""Loss and accuracy of an image classifier, during training and at its end."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from audiostride.distributed import Processes
from audiostride.training.loop import Recorder
from images.classifier import ImageClassifier
from images.module import ImageTraining, prepare_images
from images.saving import save_image_classifier


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

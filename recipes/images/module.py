"""The training step of an image classifier, for Lightning's Trainer."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn import functional as F

from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.inference.window_batches import load_batches
from audiostride.strides.diffstride import diffstride_layers, stride_cost
from audiostride.training.augmentation.mixup import mix_up, mixed_cross_entropy
from audiostride.training.batches import StepSampler
from images.classifier import ImageClassifier
from images.config import ImageTrainConfig
from images.data import ImageBatches

CHECK_EVERY = 100  # steps after which processes tell each other whether a loss was not finite
DROPOUT = 2  # kind of random draw, see batches.py


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


class ImageTraining(LightningModule):
    """Cross entropy, SGD with momentum, with strides in a group of their own that has no weight decay.

    Args:
        model: The classifier.
        config: The run's settings.
        batches: The training batches.
        n_steps: Optimizer steps.
        processes: Those that train together, each on its part of a batch.
        pin: Whether batches go to a GPU.
    """

    def __init__(
        self,
        model: ImageClassifier,
        config: ImageTrainConfig,
        batches: ImageBatches,
        *,
        n_steps: int,
        processes: Processes,
        pin: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.config, self.n_steps, self.processes = model, config, n_steps, processes
        self.strided_layers = diffstride_layers(model)
        self._batches, self._pin = batches, pin
        # Sum of the losses, and their number.
        self._sums = torch.zeros(2)
        self._first_bad_step = torch.tensor(-1)

    def train_dataloader(self) -> Any:
        sampler = StepSampler(self.trainer.global_step, self.n_steps)
        return load_batches(self._batches, workers=self.config.workers, sampler=sampler, pin=self._pin)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        # Dropout draws as a function of (seed, step) too, so that a run that is taken up again draws the same.
        key = [self.config.seed, DROPOUT, self.global_step, self.processes.rank]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
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
        if self._sums.device != loss.device:
            self._sums, self._first_bad_step = self._sums.to(loss.device), self._first_bad_step.to(loss.device)
        self._sums = self._sums + torch.stack([loss, torch.ones_like(loss)])
        new = (self._first_bad_step < 0) & ~loss.isfinite()
        self._first_bad_step = torch.where(new, self.global_step, self._first_bad_step)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.model.project_strides_()
        if not all(math.isfinite(stride) for layer in self.strided_layers for stride in layer.stride_values()):
            raise self._diverged("strides")
        if self.global_step % CHECK_EVERY == 0:
            self._check_losses()

    def take_mean_loss(self) -> float:
        """Mean training loss since the last call, over all processes.

        Raises:
            InputError: A loss is not finite.
        """
        total, count = self._check_losses()
        self._sums = torch.zeros_like(self._sums)
        return total / max(1.0, count)

    def _check_losses(self) -> tuple[float, float]:
        total, count = self.processes.sum(self._sums).tolist()
        if not math.isfinite(total):
            raise self._diverged("loss")
        return total, count

    def _diverged(self, what: str) -> InputError:
        step = int(self._first_bad_step)
        when = f"by step {self.global_step}" if step < 0 else f"in step {step + 1}"
        stands = (Path(self.config.out) / "checkpoints" / "last.ckpt").is_file()
        stride_lr = self.config.lr if self.config.stride_lr is None else self.config.stride_lr
        return InputError(
            f"image training: the {what} must stay finite, got NaN or infinity {when}; "
            + ("the checkpoint and the model of before stand" if stands else "there is no checkpoint yet")
            + f"; train anew with a lower lr ({self.config.lr:g}) or stride_lr ({stride_lr:g}), in another folder"
        )

    def configure_optimizers(self) -> Any:
        config = self.config
        strides = [layer.strides for layer in self.strided_layers]
        stride_ids = {id(parameter) for parameter in strides}
        weights = [parameter for parameter in self.model.parameters() if id(parameter) not in stride_ids]
        groups = [{"params": weights, "lr": config.lr, "weight_decay": config.weight_decay}]
        if strides:
            stride_lr = config.lr if config.stride_lr is None else config.stride_lr
            groups.append({"params": strides, "lr": stride_lr, "weight_decay": 0.0})
        optimizer = torch.optim.SGD(groups, momentum=config.momentum)
        n_images = len(self._batches.source)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: config.learning_rate_factor(step, n_images=n_images)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

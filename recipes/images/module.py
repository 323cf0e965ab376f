"""The loss of an image classifier on a batch, and the optimizer that lowers it."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.strides.diffstride import diffstride_layers, stride_cost
from audiostride.training.augmentation.mixup import mix_up, mixed_cross_entropy
from audiostride.training.loop import Training
from images.classifier import ImageClassifier
from images.config import ImageTrainConfig

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


class ImageTraining(Training):
    """Cross entropy, SGD with momentum, with strides in a group of their own that has no weight decay.

    Args:
        model: The classifier.
        config: The run's settings.
        n_images: Training images.
        processes: Those that train together, each on its part of a batch.
    """

    def __init__(
        self,
        model: ImageClassifier,
        config: ImageTrainConfig,
        n_images: int,
        processes: Processes,
    ) -> None:
        super().__init__()
        self.model, self.config, self.n_images, self.processes = model, config, n_images, processes
        self.strided_layers = diffstride_layers(model)
        # Sum of the losses, and their number.
        self._sums = torch.zeros(2)
        self._first_bad_step = torch.tensor(-1)

    def forward(self, batch: dict[str, Tensor], step: int, turn: int = 0) -> Tensor:
        # Dropout draws as a function of (seed, step) too, so that a run that is taken up again draws the same.
        key = [self.config.seed, DROPOUT, step, self.processes.rank]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        images, classes = prepare_images(batch["image"], self.model.image_size), batch["class_index"]
        if "share" in batch:
            # Images that are only mixed into others follow those that the loss is of.
            images = mix_up(images.flatten(1), batch["place"], batch["share"]).view(-1, *images.shape[1:])
            logits = self.model(images).float()
            loss = mixed_cross_entropy(logits, classes, batch["partner_class"], batch["share"])
        else:
            loss = F.cross_entropy(self.model(images).float(), classes)
        self._note(loss.detach(), step)
        # Parts are of one size: the mean over the processes, which is what gradients are, is that of the batch.
        if self.config.stride_cost:
            loss = loss + self.config.stride_cost * stride_cost(self.model)
        return loss

    def _note(self, loss: Tensor, step: int) -> None:
        """Add up what the history shows, on the device."""
        if self._sums.device != loss.device:
            self._sums, self._first_bad_step = self._sums.to(loss.device), self._first_bad_step.to(loss.device)
        self._sums = self._sums + torch.stack([loss, torch.ones_like(loss)])
        new = (self._first_bad_step < 0) & ~loss.isfinite()
        self._first_bad_step = torch.where(new, step, self._first_bad_step)

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
        self._sums = torch.zeros_like(self._sums)
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

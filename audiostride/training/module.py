"""The training step of a classifier, for Lightning's Trainer."""

import math
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn import functional as F

from audiostride.errors import InputError
from audiostride.layers import stride_cost
from audiostride.layers.diffstride import diffstride_layers
from audiostride.models import AudioClassifier
from audiostride.training.config import TrainConfig


def learning_rate_factor(step: int, *, schedule: str, max_steps: int) -> float:
    """Factor on the learning rates at a step: 1, or half a cosine from 1 to 0."""
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(step, max_steps) / max_steps))


class ClassifierTraining(LightningModule):
    """Cross entropy on random excerpts, Adam with a learning rate of its own for strides.

    Args:
        model: The classifier; its first task is trained.
        config: The run's settings.
    """

    def __init__(self, model: AudioClassifier, config: TrainConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.task = next(iter(model.config.tasks))
        self.strided_layers = diffstride_layers(model)
        self._loss_sum = torch.zeros(())
        self._loss_steps = 0

    def training_step(self, batch: tuple[Tensor, Tensor], step: int) -> Tensor:
        waveform, classes = batch
        logits = self.model(waveform)[self.task]
        loss = F.cross_entropy(logits.float(), classes)
        self._loss_sum = self._loss_sum.to(loss.device) + loss.detach()
        self._loss_steps += 1
        if self.config.stride_cost:
            loss = loss + self.config.stride_cost * stride_cost(self.model)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.model.project_strides_()
        if not all(math.isfinite(stride) for layer in self.strided_layers for stride in layer.stride_values()):
            raise self.diverged("strides")

    def take_mean_loss(self) -> float:
        """Mean training loss since the last call.

        Raises:
            InputError: The loss is not finite.
        """
        mean = float(self._loss_sum) / max(1, self._loss_steps)
        self._loss_sum, self._loss_steps = torch.zeros_like(self._loss_sum), 0
        if not math.isfinite(mean):
            raise self.diverged("loss")
        return mean

    def diverged(self, what: str) -> InputError:
        """The error that ends a training whose numbers are no longer finite."""
        return InputError(
            f"train: the {what} must stay finite, got NaN or infinity by step {self.global_step}; the last checkpoint "
            f"stands; lower --lr ({self.config.lr:g}) or --stride-lr ({self.config.stride_lr:g})"
        )

    def configure_optimizers(self) -> Any:
        strides = [layer.strides for layer in self.strided_layers]
        stride_ids = {id(parameter) for parameter in strides}
        weights = [parameter for parameter in self.model.parameters() if id(parameter) not in stride_ids]
        groups = [{"params": weights, "lr": self.config.lr, "weight_decay": self.config.weight_decay}]
        if strides:
            groups.append({"params": strides, "lr": self.config.stride_lr, "weight_decay": 0.0})
        optimizer = torch.optim.Adam(groups)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: learning_rate_factor(step, schedule=self.config.schedule, max_steps=self.config.max_steps),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

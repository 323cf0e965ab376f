"""The training step of a classifier, for Lightning's Trainer."""

import math
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn import functional as F

from audiostride.errors import InputError
from audiostride.functional.augmentation import add_noise, apply_gain, cut_noise, mask_spectrogram
from audiostride.functional.mixup import mix_up, mixed_cross_entropy
from audiostride.layers import stride_cost
from audiostride.layers.diffstride import diffstride_layers
from audiostride.models import AudioClassifier
from audiostride.training.config import TrainConfig


def learning_rate_factor(step: int, *, schedule: str, max_steps: int) -> float:
    """Factor on the learning rates at a step: 1, or half a cosine from 1 to 0."""
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(step, max_steps) / max_steps))


def augment_waveform(batch: dict[str, Tensor], noises: Tensor | None) -> Tensor:
    """The waveform of a batch with what was drawn for it: gain, noise, mixup, in this order.

    Args:
        batch: An item of `ExcerptBatches`.
        noises: Noise to cut excerpts from, ``(noises, samples)``.
    """
    waveform = batch["waveform"]
    if "gain_db" in batch:
        waveform = apply_gain(waveform, batch["gain_db"])
    if noises is not None and "noise_snr_db" in batch:
        noise = cut_noise(noises, batch["noise_pick"], batch["noise_place"], n_samples=waveform.shape[1])
        waveform = add_noise(waveform, noise, batch["noise_snr_db"])
    if "mixup_share" in batch:
        waveform = mix_up(waveform, batch["mixup_partner"], batch["mixup_share"])
    return waveform


def mask(spectrogram: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """A batch of spectrograms ``(B, T, M)`` without the stretches of time and mel bands that were drawn for it."""
    names = ("time_mask_starts", "time_mask_lengths", "mel_mask_starts", "mel_mask_lengths")
    stretches = [batch.get(name) for name in names]
    return spectrogram if all(item is None for item in stretches) else mask_spectrogram(spectrogram, *stretches)


class ClassifierTraining(LightningModule):
    """Cross entropy on random excerpts, Adam with a learning rate of its own for strides.

    Args:
        model: The classifier; its first task is trained.
        config: The run's settings.
        class_weights: Of the loss, ``(classes,)``; None weighs all alike.
        noises: Noise to add, ``(noises, samples)``, where the settings ask for it.
    """

    noises: Tensor | None
    class_weights: Tensor | None

    def __init__(
        self,
        model: AudioClassifier,
        config: TrainConfig,
        *,
        class_weights: Tensor | None = None,
        noises: Tensor | None = None,
    ) -> None:
        super().__init__()
        # They move with the module to its device, and are made anew rather than kept in checkpoints.
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.register_buffer("noises", noises, persistent=False)
        self.model, self.config = model, config
        self.task = next(iter(model.config.tasks))
        self.strided_layers = diffstride_layers(model)
        self._loss_sum = torch.zeros(())
        self._loss_steps = 0

    def training_step(self, batch: dict[str, Tensor], step: int) -> Tensor:
        spectrogram = self.model.frontend(augment_waveform(batch, self.noises))
        logits = self.model.classify_spectrogram(mask(spectrogram, batch))[self.task].float()
        classes = batch["class_index"]
        if "mixup_share" in batch:
            partners, share = classes[batch["mixup_partner"]], batch["mixup_share"]
            loss = mixed_cross_entropy(logits, classes, partners, share, weight=self.class_weights)
        else:
            loss = F.cross_entropy(logits, classes, weight=self.class_weights)
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

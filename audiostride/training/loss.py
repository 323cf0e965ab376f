"""The loss of a classifier on a batch of excerpts or on a part of one, and the optimizer that lowers it."""

import math
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.models import AudioClassifier
from audiostride.models.budget import classifier_budget
from audiostride.strides.diffstride import diffstride_layers, stride_cost
from audiostride.training.augmentation.mixup import mix_up
from audiostride.training.augmentation.transforms import add_noise, apply_gain, cut_noise, mask_spectrogram
from audiostride.training.config import TrainConfig
from audiostride.training.initial import encoder_parts
from audiostride.training.loop import Training
from audiostride.training.task_losses import task_loss

OPTIMIZERS: dict[str, type[Adam]] = {"adamw": AdamW, "adam": Adam}


def learning_rate_factor(step: int, *, schedule: str, max_steps: int, warmup: float = 0.0) -> float:
    """Factor on the learning rates at a step: 1, or half a cosine from 1 to 0, after a linear rise.

    Args:
        step: Steps done before.
        schedule: ``"constant"`` or ``"cosine"``.
        max_steps: Steps of the training.
        warmup: Share of these in which the factor rises to 1.
    """
    n_warmup = round(warmup * max_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warmup) / max(1, max_steps - n_warmup))))


def augment_waveform(batch: dict[str, Tensor], noises: Tensor | None) -> Tensor:
    """The waveform of a batch with what was drawn for it: gain, noise, mixup, in this order.

    Args:
        batch: A batch or a part of one, see `TrainingBatches.part`.
        noises: Noise to cut excerpts from, ``(noises, samples)``.
    """
    waveform = batch["waveform"]
    if "gain_db" in batch:
        waveform = apply_gain(waveform, batch["gain_db"])
    if noises is not None and "noise_snr_db" in batch:
        noise = cut_noise(noises, batch["noise_pick"], batch["noise_place"], n_samples=waveform.shape[1])
        waveform = add_noise(waveform, noise, batch["noise_snr_db"])
    if "mixup_weight" in batch:
        if "rows" in batch:
            return mix_up(waveform, batch["mixup_place"], batch["mixup_weight"][batch["rows"]])
        waveform = mix_up(waveform, batch["mixup_partner"], batch["mixup_weight"])
    return waveform


def mask(spectrogram: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """A batch of spectrograms ``(B, T, M)`` without the stretches of time and mel bands that were drawn for it."""
    names = ("time_mask_starts", "time_mask_lengths", "mel_mask_starts", "mel_mask_lengths")
    stretches = [batch.get(name) for name in names]
    return spectrogram if all(item is None for item in stretches) else mask_spectrogram(spectrogram, *stretches)


class ClassifierTraining(Training):
    """Cross entropy on random excerpts, AdamW or Adam with a learning rate of its own for strides.

    It is binary cross entropy of each class for tasks whose clips may have several labels.

    With several tasks the loss is the mean of theirs, over the tasks that a batch has excerpts of.

    Args:
        model: The classifier.
        config: The run's settings.
        class_weights: Of the loss, ``(classes,)`` for each task, ``(2, classes)`` where clips have several labels: of
            absence and presence. None weighs all alike.
        noises: Noise to add, ``(noises, samples)``, where the settings ask for it.
        processes: Those that compute a batch together, each in ``config.accumulate`` turns. Batches are then parts;
            the gradients, taken as means over processes and turns, are those of whole batches.
        describe_batch: What a message says of the batch of a step.
    """

    noises: Tensor | None
    task_weights: Tensor
    _sums: Tensor
    _step: Tensor
    _first_bad_step: Tensor

    def __init__(
        self,
        model: AudioClassifier,
        config: TrainConfig,
        *,
        class_weights: list[Tensor] | None = None,
        noises: Tensor | None = None,
        processes: Processes | None = None,
        describe_batch: Callable[[int], str] = lambda step: "",
    ) -> None:
        super().__init__()
        self.processes, self._describe_batch = processes or Processes(), describe_batch
        # They move with the module to its device, and are made anew rather than kept in checkpoints.
        for number, weights in enumerate(class_weights or []):
            self.register_buffer(f"class_weights_{number}", weights, persistent=False)
        self._weighted = class_weights is not None
        self.register_buffer("noises", noises, persistent=False)
        self.model, self.config = model, config
        if config.freeze_encoder:
            for part in encoder_parts(model):
                part.requires_grad_(False)
            self.train(self.training)
        self.tasks = list(model.config.tasks)
        weights_of_tasks = torch.tensor(config.task_weights or [1.0] * len(self.tasks))
        self.register_buffer("task_weights", weights_of_tasks, persistent=False)
        self.strided_layers = diffstride_layers(model)
        self._budget = None if config.budget is None else classifier_budget("train", model, config.budget)
        if self._budget is not None:
            self._budget.bring_()
        self._classify = torch.compile(model.classify_spectrogram) if config.compile else model.classify_spectrogram
        # Sums of the losses of the tasks, of the batches that had them, and of their excerpts.
        self.register_buffer("_sums", torch.zeros(3, len(self.tasks)), persistent=False)
        self.register_buffer("_step", torch.tensor(0), persistent=False)
        self.register_buffer("_first_bad_step", torch.tensor(-1), persistent=False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.config.freeze_encoder:  # its norms keep their statistics
            for part in encoder_parts(self.model):
                part.eval()
        return self

    def begin_step(self, step: int, turn: int = 0) -> None:
        # What dropout leaves out depends on the seed and the step, as batches do: a resumed run goes on alike.
        key = np.random.SeedSequence([self.config.seed, step, turn, self.processes.rank])
        torch.manual_seed(int(key.generate_state(1)[0]))
        self._step.fill_(step)

    def forward(self, batch: dict[str, Tensor], turn: int = 0) -> Tensor:
        spectrogram = self.model.frontend(augment_waveform(batch, self.noises))
        logits = self._classify(mask(spectrogram, batch))
        classes = batch["class_index"]
        if classes.ndim == 1:
            classes = classes[:, None]
        losses, counts = self._task_losses(logits, classes, batch)
        present = (counts > 0).to(losses.dtype)  # a value on the device, which nothing waits for
        weights = self.task_weights * present
        loss = (weights * losses).sum() / weights.sum()
        self._note(losses.detach() * present, present, counts, once=turn == 0 and self.processes.first)
        # The sum over the parts of a batch is its loss, and what is taken is their mean.
        loss = loss * (self.processes.count * self.config.accumulate)
        if self.config.stride_cost:
            loss = loss + self.config.stride_cost * stride_cost(self.model)
        return loss

    def graph_key(self) -> Hashable:
        if self.config.compile:  # which has graphs of its own
            return None
        sizes = self.model.encoder.map_sizes(self.model.config.window_frames, self.model.config.n_mels)
        return *sizes, *(layer.strides.requires_grad for layer in self.strided_layers)

    def _note(self, losses: Tensor, present: Tensor, counts: Tensor, *, once: bool) -> None:
        """Add up what the history shows, on the device; a batch's tasks and excerpts count once, at its first turn."""
        self._sums += torch.stack([losses, float(once) * present, float(once) * counts])
        new = (self._first_bad_step < 0) & ~losses.isfinite().all()
        self._first_bad_step.copy_(torch.where(new, self._step, self._first_bad_step))

    def _task_losses(
        self, logits: dict[str, Tensor], classes: Tensor, batch: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Loss of each task over its excerpts, 0 where there are none, and their numbers, ``(tasks,)`` each.

        Of a part of a batch it is what the part adds to the loss of the whole, whose excerpts are counted.
        """
        losses, counts = [], []
        for number, task in enumerate(self.tasks):
            own, several, target = classes[:, number], task in self.model.config.multi_label, f"target_{number}"
            loss = task_loss(
                logits[task].float(),
                own,
                batch,
                target=batch[target] if several else batch.get(target),
                weight=getattr(self, f"class_weights_{number}") if self._weighted else None,
                smoothing=self.config.label_smoothing,
                several=several,
            )
            losses.append(loss)
            counts.append((own >= 0).sum())
        return torch.stack(losses), torch.stack(counts).to(losses[0].dtype)

    def limit_strides(self, step: int) -> None:
        if step <= self.config.search_steps:
            super().limit_strides(step)
            if self._budget is not None:
                self._budget.bring_()
                if step == self.config.search_steps:
                    self._budget.fit_()
        # A gradient that nothing uses: processes that train together wait for it, one alone need not compute it.
        if step >= self.config.search_steps and self.processes.count == 1:
            for layer in self.strided_layers:
                layer.strides.requires_grad_(False)

    def check_step(self, step: int) -> None:
        if not all(math.isfinite(stride) for layer in self.strided_layers for stride in layer.stride_values()):
            raise self._diverged("strides", step)

    def take_mean_losses(self, step: int) -> dict[str, tuple[float, int]]:
        """Mean training loss of each task since the last call, and the number of its excerpts.

        Args:
            step: Steps done so far, for messages.

        Raises:
            InputError: A loss is not finite.
        """
        sums, batches, counts = self.processes.sum(self._sums).tolist()
        self._sums.zero_()
        if not all(math.isfinite(value) for value in sums):
            raise self._diverged("loss", step)
        means = [value / max(1.0, number) for value, number in zip(sums, batches, strict=True)]
        return {task: (mean, int(count)) for task, mean, count in zip(self.tasks, means, counts, strict=True)}

    def _diverged(self, what: str, done: int) -> InputError:
        """The error that ends a training whose numbers are no longer finite."""
        bad = int(self._first_bad_step)
        when = f"by step {done}" if bad < 0 else f"in step {bad + 1}{self._describe_batch(bad)}"
        stands = (Path(self.config.out) / "checkpoints" / "last.ckpt").is_file()
        return InputError(
            f"train: the {what} must stay finite, got NaN or infinity {when}; "
            + ("the checkpoint and the model of before stand" if stands else "there is no checkpoint yet")
            + f"; train anew with a lower --lr ({self.config.lr:g}) or --stride-lr ({self.config.stride_rate:g}), in "
            "another --out"
        )

    def make_optimizer(self) -> tuple[Optimizer, LambdaLR]:
        learned = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        stride_ids = {id(layer.strides) for layer in self.strided_layers}
        strides = [parameter for parameter in learned if id(parameter) in stride_ids]
        weights = [parameter for parameter in learned if id(parameter) not in stride_ids]
        groups = [{"params": weights, "lr": self.config.lr, "weight_decay": self.config.weight_decay}]
        if strides:
            groups.append({"params": strides, "lr": self.config.stride_rate, "weight_decay": 0.0})
        # One kernel steps all weights. It does not count versions, which `project_strides_` does not rely on.
        optimizer = OPTIMIZERS[self.config.optimizer](groups, fused=True)
        scheduler = LambdaLR(
            optimizer, [self._course(steps) for steps in (self.config.steps, self.config.search_steps)[: len(groups)]]
        )
        return optimizer, scheduler

    def _course(self, steps: int) -> Callable[[int], float]:
        """The factor on a learning rate over so many steps; behind them nothing learns any more."""

        def factor(step: int) -> float:
            own = learning_rate_factor(step, schedule=self.config.schedule, max_steps=steps, warmup=self.config.warmup)
            return own if step < steps else 0.0

        return factor

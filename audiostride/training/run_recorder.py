"""What records the training of a classifier: validations, and the model that is kept."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from audiostride.models import save_classifier
from audiostride.training.clips import LabelledClips, evaluate_clips
from audiostride.training.loss import ClassifierTraining
from audiostride.training.recorder import Recorder


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

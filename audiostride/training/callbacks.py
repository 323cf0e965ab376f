"""What happens around the training steps: validation, history, checkpoints, progress, a clean stop."""

import signal
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer
from tqdm import tqdm

from audiostride.models import save_classifier
from audiostride.progress import progress_bar
from audiostride.strides.diffstride import diffstride_layers
from audiostride.training.clips import LabelledClips, evaluate_clips
from audiostride.training.module import ClassifierTraining
from audiostride.training.recording import CourseRecorder

AGREE_EVERY = 10  # steps after which processes ask each other whether one of them was told to stop
STRIDE_ROWS = 200  # strides are recorded this many times over a training, and at every validation


def ends_step(trainer: Trainer, index: int) -> bool:
    """Whether the part of a batch with this index was the last of its step."""
    return (index + 1) % trainer.accumulate_grad_batches == 0


class RunRecorder(CourseRecorder):
    """Validates every so many steps and writes the run folder: history, strides, best model, last checkpoint.

    Of several processes each validates its share and all know the result; the first one writes.

    Args:
        run: The run folder.
        valid: Validation clips of each task.
    """

    def __init__(self, run: Path, valid: dict[str, LabelledClips]) -> None:
        super().__init__(run, axes=("time", "mel"))
        self.valid = valid
        self.best: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.best = state_dict["best"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not ends_step(trainer, batch_idx):
            return
        module = cast(ClassifierTraining, pl_module)
        config, step = module.config, trainer.global_step
        validating = step % config.valid_every == 0 or step >= config.max_steps or trainer.should_stop
        if validating or step % max(1, config.max_steps // STRIDE_ROWS) == 0:
            self._record_strides(trainer, pl_module, step=step)
        if validating:
            self._validate(trainer, module, step=step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A stop that came between a step and its validation.
        if trainer.global_step and (not self.history or self.history[-1]["step"] != trainer.global_step):
            self._validate(trainer, cast(ClassifierTraining, pl_module), step=trainer.global_step)

    def _validate(self, trainer: Trainer, module: ClassifierTraining, *, step: int) -> None:
        losses = module.take_mean_losses()
        found = evaluate_clips(
            module.model,
            self.valid,
            batch_size=module.config.batch_size,
            progress=False,
            processes=module.processes,
        )
        accuracy = fmean(item.accuracy for item in found.values())
        row: dict[str, float] = {
            "step": step,
            "train_loss": fmean(loss for loss, _ in losses.values()),
            "valid_loss": fmean(item.loss for item in found.values()),
            "valid_accuracy": accuracy,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "elapsed_s": round(self.elapsed_s, 2),
        }
        if len(found) > 1:
            for task, item in found.items():
                loss, examples = losses[task]
                row |= {f"train_loss_{task}": loss, f"examples_{task}": examples}
                row |= {f"valid_loss_{task}": item.loss, f"valid_accuracy_{task}": item.accuracy}
        self.history.append(row)
        # Of equal accuracies the later one wins: with a falling learning rate it has the lower loss.
        if not self.best or accuracy >= self.best["valid_accuracy"]:
            self.best = {"step": step, "valid_accuracy": accuracy}
            if module.processes.first:
                save_classifier(module.model, self.run / "model.safetensors")
        for logger in trainer.loggers:
            logger.log_metrics({name: value for name, value in row.items() if name != "step"}, step=step)
        if module.processes.first:
            self._write_tables()
        self._save_checkpoint(trainer)


class StepProgress(Callback):
    """A progress bar over the steps: loss, validation accuracy and the strides of the first layer."""

    def __init__(self, recorder: CourseRecorder) -> None:
        self.recorder = recorder
        self._bar: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bar = progress_bar(
            total=trainer.max_steps, initial=trainer.global_step, desc="training", unit="step", dynamic_ncols=True
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not ends_step(trainer, batch_idx):
            return
        if trainer.global_step % 10 == 0:  # showing the loss waits for the GPU, so not at every step
            shown: dict[str, str] = {"loss": f"{float(outputs['loss']):.3f}"}
            if self.recorder.history:
                shown["valid"] = f"{self.recorder.history[-1]['valid_accuracy']:.3f}"
            layers = diffstride_layers(pl_module)
            if layers:
                shown["strides"] = "x".join(f"{value:.2f}" for value in layers[0].stride_values())
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update(1)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")  # which Lightning leaves out here; messages need a line of their own

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.close()


class CleanStop(Callback):
    """Ctrl-C or SIGTERM ends the training after the current step, with validation, checkpoint and test report.

    Where several processes train together, one that is told to stop tells the others, so that all end at the same step.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def stop(number: int, frame: Any) -> None:
            if self.stopped:
                raise KeyboardInterrupt
            self.stopped = True
            if trainer.world_size == 1:
                trainer.should_stop = True
            if trainer.is_global_zero:
                steps = "this step" if trainer.world_size == 1 else f"at most {AGREE_EVERY} steps"
                tqdm.write(f"stopping after {steps}; press Ctrl-C again to stop at once")

        try:
            self._before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            self._before = {}  # signals belong to the main thread; elsewhere the caller stops the training

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size > 1 and ends_step(trainer, batch_idx) and trainer.global_step % AGREE_EVERY == 0:
            trainer.should_stop = trainer.strategy.reduce_boolean_decision(self.stopped, all=False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")  # which Lightning leaves out here

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

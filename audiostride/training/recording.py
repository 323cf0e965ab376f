"""What a run records while it trains, whatever it learns: history, strides, the last checkpoint."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from lightning import Callback, LightningModule, Trainer

from audiostride.strides.diffstride import diffstride_layers
from audiostride.writing import write_text


class CourseRecorder(Callback):
    """Tables of a run, which travel with its checkpoint: a resumed run continues them where that was made.

    Args:
        run: The run folder.
        axes: Names of the axes that layers have strides for.
    """

    def __init__(self, run: Path, *, axes: Sequence[str]) -> None:
        self.run, self.axes = run, axes
        self.history: list[dict[str, float]] = []
        self.strides: list[dict[str, float]] = []
        self._elapsed_s = 0.0
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Time of the training so far, with what came before a resume."""
        return self._elapsed_s + time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "strides": self.strides, "elapsed_s": self.elapsed_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history, self.strides = state_dict["history"], state_dict["strides"]
        self._elapsed_s = state_dict["elapsed_s"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()
        if not self.strides:
            self._record_strides(trainer, pl_module, step=0)

    def _record_strides(self, trainer: Trainer, module: LightningModule, *, step: int) -> None:
        values = {}
        for number, layer in enumerate(diffstride_layers(module), start=1):
            for axis, value in zip(self.axes, layer.stride_values(), strict=True):
                values[f"layer{number}_{axis}"] = value
        if values:
            self.strides.append({"step": step, **values})
            for logger in trainer.loggers:
                logger.log_metrics({f"stride/{name}": value for name, value in values.items()}, step=step)

    def _write_tables(self) -> None:
        write_text(self.run / "history.csv", pd.DataFrame(self.history).to_csv(index=False))
        if self.strides:
            write_text(self.run / "strides.csv", pd.DataFrame(self.strides).to_csv(index=False))

    def _save_checkpoint(self, trainer: Trainer) -> None:
        """Replace the last checkpoint; all processes take part, the first one writes."""
        partial = self.run / "checkpoints" / "last.partial.ckpt"
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            os.replace(partial, self.run / "checkpoints" / "last.ckpt")

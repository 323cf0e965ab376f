"""What records a training: history, strides and models in the run folder, and the progress bar."""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from audiostride.distributed import Processes
from audiostride.progress import progress_bar
from audiostride.strides.diffstride import diffstride_layers
from audiostride.writing import write_text

SHOW_EVERY = 10  # steps after which the loss is shown, which waits for the GPU


class Recorder(ABC):
    """Validates and writes the run folder: history, strides, models. Its tables travel with the checkpoint.

    Of several processes all validate together, and the first one writes.

    Args:
        run: The run folder.
        model: What is trained.
        axes: Names of the axes that layers have strides for.
        processes: Those that train together.
        loggers: What records beside the tables, in the first process: see `make_loggers`.
    """

    def __init__(
        self, run: Path, model: nn.Module, *, axes: Sequence[str], processes: Processes, loggers: Sequence[Any] = ()
    ) -> None:
        self.run, self.model, self.axes, self.processes, self.loggers = run, model, axes, processes, loggers
        self.history: list[dict[str, float]] = []
        self.strides: list[dict[str, float]] = []
        self._elapsed_s = 0.0
        self._started = time.monotonic()

    @abstractmethod
    def validates_after(self, step: int) -> bool:
        """Whether a validation follows this step; the last one always has one."""

    @abstractmethod
    def validate(self, step: int, *, lr: float) -> dict[str, float]:
        """Validate, and save the model where it is to be kept; a row of the history, with its `valid_accuracy`."""

    @property
    def elapsed_s(self) -> float:
        """Time of the training so far, with what came before a resume."""
        return self._elapsed_s + time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"history": self.history, "strides": self.strides, "elapsed_s": self.elapsed_s}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint was made."""
        self.history, self.strides = state["history"], state["strides"]
        self._elapsed_s = state["elapsed_s"]

    def begin(self) -> None:
        """Start the clock, and note the strides of the start."""
        self._started = time.monotonic()
        if not self.strides:
            self.note_strides(0)

    def note_strides(self, step: int) -> None:
        """Add the strides of all layers after a step, which are known on the host."""
        values = {}
        for number, layer in enumerate(diffstride_layers(self.model), start=1):
            for axis, value in zip(self.axes, layer.stride_values(), strict=True):
                values[f"layer{number}_{axis}"] = value
        if values:
            self.strides.append({"step": step, **values})
            self._log({f"stride/{name}": value for name, value in values.items()}, step)

    def note_validation(self, step: int, *, lr: float) -> None:
        """Validate after a step, add a row to the history and write the tables."""
        self.history.append(self.validate(step, lr=lr))
        self._log({name: value for name, value in self.history[-1].items() if name != "step"}, step)
        if self.processes.first:
            write_text(self.run / "history.csv", pd.DataFrame(self.history).to_csv(index=False))
            if self.strides:
                write_text(self.run / "strides.csv", pd.DataFrame(self.strides).to_csv(index=False))

    def _log(self, values: dict[str, float], step: int) -> None:
        for logger in self.loggers:
            logger.log_metrics(values, step=step)


class StepBar:
    """A progress bar over the steps: loss, validation accuracy and the strides of the first layer."""

    def __init__(self, recorder: Recorder, step: int, max_steps: int, *, shown: bool) -> None:
        self._recorder = recorder
        self._layers = diffstride_layers(recorder.model)
        self._bar = progress_bar(
            total=max_steps, initial=step, desc="training", unit="step", dynamic_ncols=True, disable=not shown
        )

    def __enter__(self) -> "StepBar":
        return self

    def update(self, step: int, loss: Tensor) -> None:
        """Show that a step is done, and what came of it after every few."""
        if step % SHOW_EVERY == 0 and not self._bar.disable:
            shown = {"loss": f"{float(loss):.3f}"}
            if self._recorder.history:
                shown["valid"] = f"{self._recorder.history[-1]['valid_accuracy']:.3f}"
            if self._layers:
                shown["strides"] = "x".join(f"{value:.2f}" for value in self._layers[0].stride_values())
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update(1)

    def __exit__(self, *error: object) -> None:
        shown = not self._bar.disable
        try:
            self._bar.close()  # messages need a line of their own
        except BaseException:  # that a worker has died is told by a signal, perhaps just now
            if shown:
                print(file=sys.stderr)
            raise

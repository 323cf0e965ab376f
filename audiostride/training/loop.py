"""The training loop on Lightning's Fabric, whatever is learned: steps, validations, checkpoints, a clean stop."""

import io
import signal
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from audiostride.distributed import Processes
from audiostride.errors import InputError, reason_of
from audiostride.training.graph import StepGraph
from audiostride.training.hardware import is_out_of_memory
from audiostride.training.launching import without_advice
from audiostride.training.recorder import Recorder, StepBar
from audiostride.writing import write_bytes

AGREE_EVERY = 10  # steps after which processes ask each other whether one of them was told to stop
STRIDE_ROWS = 200  # strides are recorded this many times over a training, and at every validation

Batches = Callable[[int], Iterator[dict[str, Tensor]]]
"""The batches from a step on; of a step that is computed in turns, its parts one after another."""


@without_advice()
def fit(
    training: "Training",
    fabric: Fabric,
    recorder: Recorder,
    batches: Batches,
    *,
    max_steps: int,
    turns: int = 1,
    resume: bool = False,
    progress: bool = True,
) -> int:
    """Train until `max_steps` steps are done, or until Ctrl-C or SIGTERM ends it after a step, validated and saved.

    Args:
        training: What is trained; it is moved to the device.
        fabric: Devices, processes and precision, see `launch_fabric`.
        recorder: What validates and writes the run folder.
        batches: What is learned from.
        max_steps: Optimizer steps.
        turns: Parts that each process computes of a batch, one after another.
        resume: Whether to go on from the last checkpoint of the run, if there is one.
        progress: Whether a progress bar is shown.

    Returns:
        Steps that are done, with those before a resume.

    Raises:
        InputError: A loss or a stride is not finite; batches that cannot be read.
    """
    checkpoint = recorder.run / "checkpoints" / "last.ckpt"
    learner = Learner(training, fabric, turns=turns)
    step = learner.load(checkpoint, recorder) if resume and checkpoint.exists() else 0
    left = batches(step)
    recorder.begin()
    with CleanStop(recorder.processes) as stop, StepBar(recorder, step, max_steps, shown=progress) as bar:
        while step < max_steps:
            loss = learner.take_step(left, step)
            step += 1
            stopped = stop.is_due(step)
            validating = stopped or step == max_steps or recorder.validates_after(step)
            if validating or step % max(1, max_steps // STRIDE_ROWS) == 0:
                recorder.note_strides(step)
            if validating:
                recorder.note_validation(step, lr=learner.learning_rate)
                if recorder.processes.first:
                    learner.save(checkpoint, recorder, step)
            bar.update(step, loss)
            if stopped:
                break
    return step


class Learner:
    """A training on its devices, with its optimizer and schedule: all that a checkpoint holds, but for the tables.

    Args:
        training: What is trained; it is moved to the device.
        fabric: Devices, processes and precision, launched.
        turns: Parts that each process computes of a batch, one after another.
    """

    def __init__(self, training: "Training", fabric: Fabric, *, turns: int = 1) -> None:
        self.training, self.fabric, self.turns = training, fabric, turns
        if fabric.world_size > 1 and fabric.device.type == "cuda":  # on CPUs see batch_norm.py
            nn.SyncBatchNorm.convert_sync_batchnorm(training)  # type: ignore[no-untyped-call]
        self.module = fabric.setup_module(training)
        self.optimizer, self.scheduler = training.make_optimizer()
        self._stepper: Any = fabric.setup_optimizers(self.optimizer)
        # Processes wait for each other, and 16-bit gradients have a scale that the host looks at.
        graphs = fabric.device.type == "cuda" and turns == 1 and not isinstance(fabric.strategy, DDPStrategy)
        precise = not fabric.strategy.precision.state_dict()
        self._graph = StepGraph(self._learn, training) if graphs and precise else None

    @property
    def learning_rate(self) -> float:
        """Of the weights, at the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def take_step(self, batches: Iterator[dict[str, Tensor]], step: int) -> Tensor:
        """Learn from the next batch, turn by turn; the result is its loss in this process, a scalar on the device."""
        loss = torch.zeros((), device=self.fabric.device)
        for turn in range(self.turns):
            batch = self.fabric.to_device(next(batches))  # from pinned memory to a GPU, for which nothing waits
            self.training.begin_step(step, turn)
            key = None if self._graph is None else self.training.graph_key()
            if self._graph is not None and key is not None:
                loss = self._graph(batch, key)
                continue
            with self.fabric.no_backward_sync(self.module, enabled=turn + 1 < self.turns):
                loss = loss + self._learn(batch, turn)
        self._stepper.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        self.training.limit_strides(step + 1)
        self.training.check_step(step + 1)
        return loss

    def _learn(self, batch: dict[str, Tensor], turn: int = 0) -> Tensor:
        """Add the gradients of a part of a batch; the result is its loss."""
        part = self.module(batch, turn) / self.turns
        self.fabric.backward(part)
        return cast(Tensor, part.detach())

    def save(self, file: Path, recorder: Recorder, step: int) -> None:
        """Write a checkpoint, whole or not at all, in the layout of version 0.1.0: that of Lightning's trainer."""
        state = {
            "global_step": step,
            "state_dict": self.training.state_dict(),
            "optimizer_states": [self.optimizer.state_dict()],
            "lr_schedulers": [self.scheduler.state_dict()],
            "callbacks": {type(recorder).__name__: recorder.state_dict()},
            "MixedPrecision": self.fabric.strategy.precision.state_dict(),
        }
        content = io.BytesIO()  # of a full disk torch's own writer says no reason
        torch.save(state, content)
        write_bytes(file, content.getbuffer())

    def load(self, file: Path, recorder: Recorder) -> int:
        """Go on from a checkpoint, of version 0.1.0 too; returns the steps that were done. No code is loaded.

        Raises:
            InputError: A checkpoint that is damaged, or of something else.
        """
        try:
            with zipfile.ZipFile(file) as archive:
                if archive.testzip() is not None:  # torch does not look at checksums
                    raise ValueError(f"the checksum of {archive.testzip()} is wrong")
            state = torch.load(file, map_location="cpu", weights_only=True)
            self.training.load_state_dict(state["state_dict"])
            self.optimizer.load_state_dict(state["optimizer_states"][0])
            self.scheduler.load_state_dict(state["lr_schedulers"][0])
            recorder.load_state_dict(state["callbacks"][type(recorder).__name__])
            if state.get("MixedPrecision"):  # the scale of 16-bit gradients
                self.fabric.strategy.precision.load_state_dict(state["MixedPrecision"])
            step = int(state["global_step"])
        except Exception as error:  # whatever the libraries that read it raise
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"train: {file} must be the checkpoint of this run, but reading it failed: {reason_of(error)}; copy it "
                "again, or train anew in another --out"
            ) from error
        rates = zip(self.optimizer.param_groups, self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True)
        for group, rate, factor in rates:  # those that it has, unless the steps have grown since
            group["lr"] = rate * factor(step)
        return step


class Training(nn.Module, ABC):
    """What is trained: a model with its loss and its optimizer."""

    model: Any

    @abstractmethod
    def begin_step(self, step: int, turn: int = 0) -> None:
        """Set what is another at each step, for the next `forward`, or the next replay of a CUDA graph of one.

        Args:
            step: Steps done before.
            turn: Which part of the batch this is, for this process.
        """

    @abstractmethod
    def forward(self, batch: dict[str, Tensor], turn: int = 0) -> Tensor:
        """Loss of a batch or of a part of one, a scalar; gradients are its mean over processes and turns.

        Args:
            batch: The batch, on the device.
            turn: As in `begin_step`.
        """

    def graph_key(self) -> Hashable:
        """What the shapes of a step depend on beside its batch; None where a step cannot be a CUDA graph."""
        return None

    @abstractmethod
    def make_optimizer(self) -> tuple[Optimizer, LambdaLR]:
        """The optimizer of the weights, which are on their device, and its schedule over steps."""

    def limit_strides(self, step: int) -> None:
        """Keep strides within their limits after step number `step` (from 1)."""
        self.model.project_strides_()

    @abstractmethod
    def check_step(self, step: int) -> None:
        """Raise an `InputError` after step number `step` (from 1) if a stride is no longer finite."""


class CleanStop:
    """Ctrl-C or SIGTERM asks the training to end after a step, given twice it ends at once.

    Where several processes train together, one that is told to stop tells the others, so that all end at the same step.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes, self._told = processes, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "CleanStop":
        # Signals belong to the main thread; elsewhere the caller stops the training.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if self._told:
            raise KeyboardInterrupt
        self._told = True
        if self._processes.first:
            steps = "this step" if self._processes.count == 1 else f"at most {AGREE_EVERY} steps"
            tqdm.write(f"stopping after {steps}; press Ctrl-C again to stop at once")

    def is_due(self, step: int) -> bool:
        """Whether the training is to end after this step, the same in all processes."""
        if self._processes.count == 1:
            return self._told
        return step % AGREE_EVERY == 0 and bool(self._processes.sum(torch.tensor(float(self._told))))

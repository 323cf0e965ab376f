"""Where a training runs: devices, processes and arithmetic by Lightning's Fabric, and what its failures mean."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy

from audiostride.distributed import needing_all
from audiostride.errors import InputError
from audiostride.training.hardware import is_out_of_memory, keep_freed_memory

# How torch says that a worker of a loader died, raised something, or can no longer be talked to.
WORKER_FAILURES = ("DataLoader worker", "Communication with the workers is no longer possible", "ancdata")


@contextmanager
def without_advice() -> Iterator[None]:
    """Keep Fabric from telling about processes and devices, which here are choices, not oversights."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning_fabric")
        # Not every torch that is supported has the new name of the setting.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
        # Weights with one channel have two layouts that are the same in memory; DDP tells of it and copies few bytes.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        yield


class Autocast(MixedPrecision):
    """Fabric's autocast, for the loss as a whole: what comes in stays float32, as a waveform has to."""

    def convert_input(self, data: Any) -> Any:
        """The data as they are."""
        return data

    def forward_context(self) -> AbstractContextManager[Any]:
        """Autocast without copies of weights that outlive the operation, as in version 0.1.0."""
        dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16
        return torch.autocast(self.device, dtype=dtype, cache_enabled=False)


@without_advice()
def launch_fabric(
    *, device: torch.device, devices: int = 1, n_nodes: int = 1, precision: str = "32", ddp: bool = False
) -> Fabric:
    """Fabric with its processes, which are started unless torchrun or slurm has done that, and are connected.

    On a CPU this process keeps freed memory from now on, see `keep_freed_memory`.

    Args:
        device: Where to train.
        devices: Processes on each machine.
        n_nodes: Machines.
        precision: Lightning's name of the arithmetic.
        ddp: Whether one process alone trains as several do.
    """
    if device.type == "cpu":
        keep_freed_memory()
    mixed = [Autocast(precision, device.type)] if precision != "32" else []  # type: ignore[arg-type]  # checked
    fabric = Fabric(
        accelerator=device.type,
        devices=devices,
        num_nodes=n_nodes,
        # All processes see the same statistics and draw the same noises: no buffer needs to be sent around.
        strategy=DDPStrategy(broadcast_buffers=False) if devices * n_nodes > 1 or ddp else "auto",
        plugins=mixed,  # type: ignore[arg-type]  # a list of one plugin
    )
    fabric.launch()
    return fabric


@contextmanager
def explain_failures(*, several: bool, workers: int, step: str, device: torch.device, remedy: str) -> Iterator[None]:
    """Turn what a training ends with into an `InputError` where the settings or the data are its cause.

    Args:
        several: Whether several processes train together.
        workers: Processes that read batches.
        step: What a step computes, such as "32 excerpts".
        device: Where it is computed.
        remedy: What to do where memory runs out.
    """
    goes_on = "the last checkpoint stands, and the same command with --resume goes on from there"
    try:
        with needing_all("train", goes_on) if several else nullcontext():
            yield
    except InputError as error:
        # A worker process wraps its message into a traceback, which ends with that message.
        raise InputError(str(error).rsplit(f"{InputError.__module__}.InputError: ", 1)[-1].strip()) from error
    except BrokenPipeError:  # of what is printed
        raise
    except (RuntimeError, MemoryError, OSError, EOFError) as error:
        text = str(error).strip() or type(error).__name__
        lost = isinstance(error, ConnectionError | EOFError | FileNotFoundError)  # on the way to a worker
        if workers and (lost or any(part in text for part in WORKER_FAILURES)):
            lines = text.splitlines()
            raise InputError(
                f"train: the processes that read audio (--workers) must go on, but one failed: "
                f"{lines[-1] if 'Traceback' in text else lines[0]}; {goes_on}, with --workers 0 if need be"
            ) from error
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"train: a step of {step} must fit into the memory of the {device.type}, but it "
            f"ran out: {text.splitlines()[0]}\n{remedy}; the last checkpoint stands"
        ) from error

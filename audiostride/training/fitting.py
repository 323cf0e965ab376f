"""Lightning's Trainer as runs use it, and what its failures mean to who started the run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy

from audiostride.errors import InputError
from audiostride.training.hardware import is_out_of_memory


def make_trainer(
    *,
    device: torch.device,
    devices: int,
    n_nodes: int,
    precision: str,
    max_steps: int,
    callbacks: Sequence[Callback],
    accumulate: int = 1,
    loggers: Sequence[Logger] = (),
    ddp: bool = False,
) -> Trainer:
    """A trainer that leaves validation, checkpoints and progress to its callbacks.

    Args:
        device: Where to train.
        devices: Processes on each machine.
        n_nodes: Machines.
        precision: Lightning's name of the arithmetic.
        max_steps: Optimizer steps.
        callbacks: What happens around the steps.
        accumulate: Parts that a batch is computed in, one after another.
        loggers: What records beside the callbacks.
        ddp: Whether one process alone trains as several do.
    """
    several = devices * n_nodes > 1
    return Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=devices,
        num_nodes=n_nodes,
        # All processes see the same statistics and draw the same noises: no buffer needs to be sent around.
        strategy=DDPStrategy(broadcast_buffers=False) if several or ddp else "auto",
        sync_batchnorm=several and device.type == "cuda",
        use_distributed_sampler=False,
        accumulate_grad_batches=accumulate,
        precision=precision,  # type: ignore[arg-type]
        max_steps=max_steps,
        max_epochs=-1,
        logger=list(loggers) or False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


@contextmanager
def explain_failures(*, several: bool, step: str, device: torch.device, remedy: str) -> Iterator[None]:
    """Turn what a training ends with into an `InputError` where the settings or the data are its cause.

    Args:
        several: Whether several processes train together.
        step: What a step computes, such as "32 excerpts".
        device: Where it is computed.
        remedy: What to do where memory runs out.
    """
    try:
        yield
    except InputError as error:
        # A worker process wraps its message into a traceback, which ends with that message.
        raise InputError(str(error).rsplit(f"{InputError.__module__}.InputError: ", 1)[-1].strip()) from error
    except (RuntimeError, MemoryError) as error:
        if several and "Connection closed by peer" in str(error):
            raise InputError(
                "train: all processes must go on, but one has ended (see what it said); the last checkpoint "
                "stands, and the same command with --resume goes on from there"
            ) from error
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"train: a step of {step} must fit into the memory of the {device.type}, but it "
            f"ran out: {str(error).splitlines()[0] if str(error) else 'MemoryError'}\n{remedy}; "
            "the last checkpoint stands"
        ) from error

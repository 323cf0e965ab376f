"""How batches come to the processes that learn from them: their parts, the workers that read them, their memory."""

import math
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from multiprocessing.queues import Queue
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from audiostride.errors import BAD_INPUT, InputError, reason_of
from audiostride.training.batches import TrainingBatches

AHEAD = 2  # batches that each worker holds ready
SHARED_MEMORY = "/dev/shm"  # what batches of workers come through, where there is such a folder


class BatchParts(Dataset[dict[str, Tensor]]):
    """What one of several processes computes of each batch, in one turn or in several after one another.

    Item ``step * turns + turn`` is its part of the batch of that step.

    Args:
        batches: The batches, whose size is a multiple of `processes` x `turns`.
        rank: Which process this is.
        processes: How many there are.
        turns: How many parts a process cuts its own into.
    """

    def __init__(self, batches: TrainingBatches, *, rank: int = 0, processes: int = 1, turns: int = 1) -> None:
        self.batches, self.rank, self.processes, self.turns = batches, rank, processes, turns

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        step, turn = divmod(index, self.turns)
        return self.batches.part(step, self.rank * self.turns + turn, of=self.processes * self.turns)


def load_batches(
    batches: Dataset[Any] | Sequence[Any],
    *,
    workers: int = 0,
    sampler: Sampler[int] | Sequence[int] | None = None,
    pin: bool = False,
) -> DataLoader[Any]:
    """A loader of data sets whose items are whole batches."""
    return DataLoader(
        batches,  # type: ignore[arg-type]  # a sequence will do
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=_prepare_worker,
    )


def check_shared_memory(batches: Any, *, workers: int, processes: int = 1) -> None:
    """Raise unless shared memory has room for the batches that workers hold ready, and for the one that is used.

    Args:
        batches: A data set whose items are batches: tensors in a table or a tuple.
        workers: Processes that read them.
        processes: How many such loaders this machine has at the same time.
    """
    if not workers:
        return
    batch = batches[0]
    tensors = batch.values() if isinstance(batch, dict) else batch
    needed = (AHEAD * workers + 1) * processes * sum(tensor.nbytes for tensor in tensors)
    free = shutil.disk_usage(SHARED_MEMORY).free if os.path.isdir(SHARED_MEMORY) else math.inf
    if needed > free:
        raise InputError(
            f"train: what {workers} --workers hold ready must fit into shared memory, {needed / 2**20:,.1f} MiB, but "
            f"{SHARED_MEMORY} has {free / 2**20:,.1f} MiB free; give --workers 0 or fewer, or start the container with "
            "a larger --shm-size"
        )


def _prepare_worker(worker: int) -> None:
    # Ctrl-C reaches all processes of a terminal; a worker that ends at once would break the parent's clean stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A worker that cannot hand over a batch would go on without a word, and the parent wait for ever.
    Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]


def _end_worker(error: BaseException, item: object) -> None:
    print(f"audiostride: a worker cannot hand over a batch: {reason_of(error)}", file=sys.stderr, flush=True)
    os._exit(BAD_INPUT)

"""Sharing out work: the processes that train or predict together, and threads that map over many items in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from audiostride.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items per job of a thread at most: handing over a job costs some 30 us, as much as looking at the header of a file.
CHUNK = 16

# Where launchers say which of all processes this is: torchrun, then slurm's srun.
RANK_VARIABLES = ("RANK", "SLURM_PROCID")


# What gloo and NCCL say where another process has ended.
LOST_PROCESS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")


@dataclass(frozen=True)
class Processes:
    """The processes of a job, one per device.

    Each has a number, its rank; the first one (rank 0) writes files and says what happens. Sums are taken over all of
    them once Fabric has connected them.
    """

    rank: int = 0
    """Which one this is."""
    count: int = 1
    """How many there are."""

    @classmethod
    def of_environment(cls, devices: int, n_nodes: int) -> "Processes":
        """As the launcher of this process says: torchrun, srun, or Fabric on each node.

        Args:
            devices: Processes on each node.
            n_nodes: Machines.
        """
        count = devices * n_nodes
        if count == 1:
            return cls()
        for name in RANK_VARIABLES:
            if name in os.environ:
                return cls(int(os.environ[name]), count)
        node = int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", 0)))
        return cls(node * devices + int(os.environ.get("LOCAL_RANK", 0)), count)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and says what happens."""
        return self.rank == 0

    def sum(self, values: "Tensor") -> "Tensor":
        """The sum of all processes' `values`, in every one of them."""
        if self.count == 1:
            return values
        import torch.distributed as dist  # reading files in threads needs no torch, which takes a second

        # NCCL adds up what is on GPUs, gloo what is in memory.
        summed = values.to("cuda" if dist.get_backend() == "nccl" else "cpu", copy=True)
        dist.all_reduce(summed)
        return summed.to(values.device)


@contextmanager
def needing_all(who: str, way_out: str) -> Iterator[None]:
    """Raise an `InputError` for what torch.distributed says where another process has ended."""
    try:
        yield
    except RuntimeError as error:
        if not any(text in str(error) for text in LOST_PROCESS):
            raise
        raise InputError(f"{who}: all processes must go on, but one has ended (see what it said); {way_out}") from error


def default_jobs() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item], *, jobs: int) -> Iterator[Result]:
    """The results of `function` in the order of `items`, a few chunks of which are worked on at a time.

    For functions that spend their time outside the interpreter lock: decoding, resampling, reading, hashing.

    >>> list(map_in_threads(abs, [-3, 2, -1], jobs=2))
    [3, 2, 1]
    """

    def work(chunk: list[Item]) -> list[Result]:
        return [function(item) for item in chunk]

    # Few long items, such as recordings of hours, are shared out one by one.
    size = min(CHUNK, max(1, len(items) // (4 * jobs))) if isinstance(items, Sized) else CHUNK
    waiting: deque[Future[list[Result]]] = deque()
    rest = iter(items)
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        try:
            while chunk := list(islice(rest, size)):
                waiting.append(pool.submit(work, chunk))
                if len(waiting) > 2 * jobs:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

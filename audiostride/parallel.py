"""Mapping over many items with a few threads, in order and with bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items per job at most: handing over a job costs some 30 us, as much as looking at the header of a file.
CHUNK = 16


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

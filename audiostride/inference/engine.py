"""The network over the windows of many recordings: short ones share a batch, long ones are streamed."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiostride.checks import check_count
from audiostride.distributed import default_jobs
from audiostride.errors import InputError
from audiostride.inference.granularity import (
    GRANULARITIES,
    ClipResult,
    EventResult,
    PredictionSettings,
    Row,
    WindowResult,
)
from audiostride.inference.reading import Block, read_blocks
from audiostride.inference.recordings import Recording

if TYPE_CHECKING:
    from audiostride.models.classifier import AudioClassifier

# Maps of 16 windows at width 1 stay in a processor's cache: 102 windows/s on one thread, against 79 with 64.
BATCH_SIZE = {"cpu": 16, "cuda": 256}
MAX_READERS = 8

Logits = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Prediction:
    """The rows of one recording, and its length."""

    rows: list[Row]
    """``(start_s, end_s, task, label, score)``."""
    audio_s: float
    """Its length in seconds."""


@dataclass
class _Pending:
    """A recording some of whose windows may still be on their way."""

    result: ClipResult | WindowResult | EventResult | None = None
    n_samples: int = 0
    n_windows: int = 1
    done: int = 0
    error: InputError | None = None


@dataclass
class _Batch:
    windows: NDArray[np.float32]
    filled: int = 0
    parts: list[tuple[_Pending, int, int, float]] = field(default_factory=list)
    """Recording, its first window here, how many, and how many seconds of audio they are."""

    @classmethod
    def empty(cls, size: int, window: int, *, pin: bool) -> "_Batch":
        """A batch to be filled; pinned memory is copied to a GPU at its full rate, without a wait."""
        if pin:
            return cls(torch.zeros(size, window, pin_memory=True).numpy())
        return cls(np.zeros((size, window), dtype=np.float32))


def copy_logits(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Logits of all tasks on the CPU in float64, by one copy from the device.

    Shape:
        logits: ``(B, classes)`` for each task. Result: the same.
    """
    widths = [values.shape[1] for values in logits.values()]
    copied = torch.cat(list(logits.values()), dim=1).cpu()  # in their own dtype: fewer bytes, and the same numbers
    return {task: values.double() for task, values in zip(logits, torch.split(copied, widths, dim=1), strict=True)}


@contextmanager
def _network(model: "AudioClassifier") -> Iterator[tuple[ThreadPoolExecutor, Callable[[_Batch], Logits], int]]:
    """Threads that compute, the frozen network, and how many batches are worth being on their way.

    On a CPU each batch is computed by one thread, and as many batches at once as torch has threads: they do not wait
    for each other after each layer, and the numbers do not depend on how many there are.
    """
    device = next(model.parameters()).device
    on_cpu = device.type == "cpu"
    threads = torch.get_num_threads()
    frozen = model.freeze()

    def compute(batch: _Batch) -> Logits:
        # On a GPU all batches have one size, so that the same kernel computes all of them.
        windows = batch.windows[: batch.filled] if on_cpu else batch.windows
        with torch.inference_mode():
            found = copy_logits(frozen(torch.from_numpy(windows).to(device, non_blocking=device.type == "cuda")))
            return {task: values[: batch.filled].numpy() for task, values in found.items()}

    pool = ThreadPoolExecutor(
        threads if on_cpu else 1, thread_name_prefix="compute", initializer=lambda: torch.set_num_threads(1)
    )
    try:
        yield pool, compute, (threads if on_cpu else 1) + 1
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what a thread sets is what threads to come begin with


def predict_recordings(
    model: "AudioClassifier",
    recordings: Iterable[Recording],
    settings: PredictionSettings | None = None,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    watch: Callable[[float], object] | None = None,
) -> Generator[Prediction | InputError, None, None]:
    """What the model hears in one recording after another; for one that cannot be read, the error in its place.

    The model is frozen and in evaluation mode. Windows are read ahead and put into batches whatever recording they
    belong to; a long recording is never held whole. Logits of a window do not depend on what is in its batch but for
    float32 rounding (none at width 0.25 and 1, 3e-8 at width 0.03, measured on a CPU), and what is summed over windows
    is summed in float64.

    Args:
        model: The classifier, where it is to run.
        recordings: What is classified; taken a few ahead.
        settings: Where windows lie, and the granularity of the rows.
        batch_size: Windows at a time; None is 16 on a CPU and 256 on a GPU.
        workers: Threads that read audio; None is one for each processor, 8 at most.
        watch: Called with the seconds of audio of each batch that is done.

    Yields:
        For each recording, in order, a `Prediction` or the `InputError` that says why there is none.

    Raises:
        InputError: A hop that does not fit the window; a batch size or a number of workers below 1.
    """
    settings = settings or PredictionSettings()
    config = model.config
    window, hop = config.window_samples, settings.hop_samples(config)
    size = BATCH_SIZE.get(next(model.parameters()).device.type, 256) if batch_size is None else batch_size
    workers = min(MAX_READERS, default_jobs()) if workers is None else workers
    check_count("predict", batch_size=size, workers=workers)
    return _predict(model, recordings, settings, window=window, hop=hop, size=size, workers=workers, watch=watch)


def _predict(
    model: "AudioClassifier",
    recordings: Iterable[Recording],
    settings: PredictionSettings,
    *,
    window: int,
    hop: int,
    size: int,
    workers: int,
    watch: Callable[[float], object] | None,
) -> Generator[Prediction | InputError, None, None]:
    rate, tasks = model.config.sample_rate, model.config.tasks
    pending: deque[_Pending] = deque()
    under_way: deque[tuple[_Batch, Future[Logits]]] = deque()
    pin = next(model.parameters()).device.type == "cuda"
    batch = _Batch.empty(size, window, pin=pin)
    newest, entered = -1, 0
    with _network(model) as (pool, compute, at_once):

        def take_result() -> None:
            """Hand the logits of the oldest batch to their recordings."""
            done, future = under_way.popleft()
            logits, row = future.result(), 0
            for owner, first, count, seconds in done.parts:
                if owner.result is not None:
                    owner.result.add(first, {task: values[row : row + count] for task, values in logits.items()})
                owner.done += count
                row += count
                if watch is not None:
                    watch(seconds)

        def finished() -> Iterator[Prediction | InputError]:
            """What is known of the recordings in front, as far as it is."""
            while pending and (pending[0].error or pending[0].done == pending[0].n_windows):
                head = pending.popleft()
                if head.error is not None or head.result is None:
                    yield head.error or InputError("predict: a recording without windows")
                else:
                    yield Prediction(head.result.rows(), head.n_samples / rate)

        for item in read_blocks(recordings, sample_rate=rate, window=window, hop=hop, workers=workers):
            number = item.recording if isinstance(item, Block) else item[0]
            if number > newest:
                newest, entered = number, 0
                pending.append(_Pending())
            current = pending[-1]
            if not isinstance(item, Block):
                current.error = item[1]
                yield from finished()
                continue
            if current.result is None:
                current.result = GRANULARITIES[settings.granularity](tasks, item.tiling, settings)
                current.n_samples, current.n_windows = item.tiling.n_samples, item.tiling.n_windows
            taken = 0
            while taken < len(item.windows):
                count = min(size - batch.filled, len(item.windows) - taken)
                batch.windows[batch.filled : batch.filled + count] = item.windows[taken : taken + count]
                end = current.n_samples if entered + count == current.n_windows else (entered + count) * hop
                batch.parts.append((current, entered, count, (end - entered * hop) / rate))
                batch.filled, taken, entered = batch.filled + count, taken + count, entered + count
                if batch.filled == size:
                    under_way.append((batch, pool.submit(compute, batch)))
                    batch = _Batch.empty(size, window, pin=pin)
                    if len(under_way) > at_once:
                        take_result()
                        yield from finished()
        if batch.filled:
            under_way.append((batch, pool.submit(compute, batch)))
        while under_way:
            take_result()
            yield from finished()

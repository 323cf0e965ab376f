"""The network over the windows of many recordings: short ones share a batch, long ones are streamed."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiostride.checks import check_count
from audiostride.distributed import default_jobs
from audiostride.errors import InputError
from audiostride.inference.granularity import RecordingResult, make_result
from audiostride.inference.model import Model
from audiostride.inference.reading import Block, read_blocks
from audiostride.inference.recordings import Recording
from audiostride.inference.settings import PredictionSettings

# Maps of 16 windows at width 1 stay in a processor's cache: 102 windows/s on one thread, against 79 with 64.
BATCH_SIZE = {"cpu": 16, "cuda": 256}
MAX_READERS = 8

Logits = dict[str, NDArray[np.float64]]


@dataclass
class _Pending:
    """A recording some of whose windows may still be on their way."""

    result: RecordingResult | InputError | None = None
    left: int = 1
    """Windows whose logits are still to come."""


@dataclass
class _Batch:
    windows: NDArray[np.float32]
    filled: int = 0
    parts: list[tuple[_Pending, int, int]] = field(default_factory=list)
    """Recording, its first window here, and how many."""

    @classmethod
    def empty(cls, size: int, window: int, *, pin: bool) -> "_Batch":
        """A batch to be filled; pinned memory is copied to a GPU at its full rate, without a wait."""
        if pin:
            return cls(torch.zeros(size, window, pin_memory=True).numpy())
        return cls(np.zeros((size, window), dtype=np.float32))

    def take(self, owner: _Pending, first: int, windows: NDArray[np.float32]) -> int:
        """Put windows of a recording into the room that is left; how many found some."""
        count = min(len(self.windows) - self.filled, len(windows))
        self.windows[self.filled : self.filled + count] = windows[:count]
        self.parts.append((owner, first, count))
        self.filled += count
        return count


def copy_logits(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Logits of all tasks on the CPU in float64, by one copy from the device.

    Shape:
        logits: ``(B, classes)`` for each task. Result: the same.
    """
    widths = [values.shape[1] for values in logits.values()]
    copied = torch.cat(list(logits.values()), dim=1).cpu()  # in their own dtype: fewer bytes, and the same numbers
    return {task: values.double() for task, values in zip(logits, torch.split(copied, widths, dim=1), strict=True)}


@contextmanager
def _network(model: Model, in_turn: bool) -> Iterator[tuple[Callable[[_Batch], Callable[[], Logits]], int]]:
    """What begins a batch and gives the function that waits for its logits, and how many may be on their way.

    On a CPU each batch is computed by one thread, and as many batches at once as torch has threads: they do not wait
    for each other after each layer, and the numbers do not depend on how many there are. Batches in turn are computed
    when they are waited for, by all threads of the caller, whose memory is at hand already.
    """
    device = next(model.parameters()).device
    on_cpu = device.type == "cpu"
    frozen = model.freeze()

    def compute(batch: _Batch) -> Logits:
        # On a GPU all batches have one size, so that the same kernel computes all of them.
        windows = batch.windows[: batch.filled] if on_cpu else batch.windows
        with torch.inference_mode():
            found = copy_logits(frozen(torch.from_numpy(windows).to(device, non_blocking=device.type == "cuda")))
            return {task: values[: batch.filled].numpy() for task, values in found.items()}

    if on_cpu and in_turn:
        yield lambda batch: partial(compute, batch), 0
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(
        threads if on_cpu else 1, thread_name_prefix="compute", initializer=lambda: torch.set_num_threads(1)
    )
    try:
        yield lambda batch: pool.submit(compute, batch).result, (threads if on_cpu else 1) + 1
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what a thread sets is what threads to come begin with


def predict_recordings(
    model: Model,
    recordings: Iterable[Recording],
    settings: PredictionSettings | None = None,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    in_turn: bool = False,
    watch: Callable[[float], object] | None = None,
    keep: Callable[[RecordingResult, int], object] | None = None,
    begun: Mapping[str, Any] | None = None,
) -> Generator[RecordingResult | InputError, None, None]:
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
        in_turn: Whether a CPU computes one batch after another with all its threads, and not several at once: faster
            where there are few batches.
        watch: Called with the seconds of audio of each batch that is done.
        keep: Called behind each batch with the result of the recording whose turn it is, where that is not whole yet,
            and with how many of its windows it has.
        begun: What was kept so of the first recording (``n_samples``, ``n_windows`` and ``state``), to go on with.

    Yields:
        For each recording, in order, its result (a `ClipResult`, `WindowResult` or `EventResult`, as the settings say),
        or the `InputError` that says why there is none.

    Raises:
        InputError: A hop that does not fit the window; a threshold that no task uses; a batch size or a number
            of workers below 1.
    """
    settings = settings or PredictionSettings()
    config = model.config
    settings.check_tasks(config)
    window, hop = config.window_samples, settings.hop_samples(config)
    size = BATCH_SIZE.get(next(model.parameters()).device.type, 256) if batch_size is None else batch_size
    workers = min(MAX_READERS, default_jobs()) if workers is None else workers
    check_count("predict", batch_size=size, workers=workers)
    blocks = read_blocks(
        recordings, sample_rate=config.sample_rate, window=window, hop=hop, workers=workers, begun=begun
    )
    return _predict(model, blocks, settings, size=size, in_turn=in_turn, watch=watch, keep=keep, begun=begun)


def _predict(
    model: Model,
    blocks: Iterator[tuple[int, Block | InputError]],
    settings: PredictionSettings,
    *,
    size: int,
    in_turn: bool,
    watch: Callable[[float], object] | None,
    keep: Callable[[RecordingResult, int], object] | None,
    begun: Mapping[str, Any] | None,
) -> Generator[RecordingResult | InputError, None, None]:
    window, pin = model.config.window_samples, next(model.parameters()).device.type == "cuda"
    pending: deque[_Pending] = deque()
    under_way: deque[tuple[_Batch, Callable[[], Logits]]] = deque()
    batch, newest = _Batch.empty(size, window, pin=pin), -1
    with _network(model, in_turn) as (begin, at_most):

        def take_result() -> None:
            """Hand the logits of the oldest batch to their recordings."""
            done, wait = under_way.popleft()
            logits, row = wait(), 0
            for owner, first, count in done.parts:
                owner.left -= count
                if isinstance(owner.result, RecordingResult):
                    own = {task: values[row : row + count] for task, values in logits.items()}
                    owner.result.add(first, own)
                    owner.result.finite &= all(np.isfinite(values).all() for values in own.values())
                    if watch is not None:
                        watch(owner.result.tiling.audio_s(first, count))
                    if keep is not None and owner is pending[0] and owner.left > 0 and owner.result.finite:
                        keep(owner.result, owner.result.tiling.n_windows - owner.left)
                row += count

        def finished() -> Iterator[RecordingResult | InputError]:
            """The results of the recordings in front, as far as they are known."""
            while pending and pending[0].left <= 0 and (result := pending[0].result) is not None:
                pending.popleft()
                yield result

        for number, item in blocks:
            if number > newest:
                newest = number
                pending.append(_Pending())
            current = pending[-1]
            if isinstance(item, InputError):
                current.result, current.left = item, 0
                yield from finished()
                continue
            if current.result is None:
                current.result = make_result(model.config, item.tiling, settings)
                current.left = item.tiling.n_windows - item.first
                if item.first and begun is not None:
                    current.result.restore(begun["state"])
            taken = 0
            while taken < len(item.windows):
                taken += batch.take(current, item.first + taken, item.windows[taken:])
                if batch.filled == size:
                    under_way.append((batch, begin(batch)))
                    batch = _Batch.empty(size, window, pin=pin)
                    if len(under_way) > at_most:
                        take_result()
                        yield from finished()
        if batch.filled:
            under_way.append((batch, begin(batch)))
        while under_way:
            take_result()
            yield from finished()

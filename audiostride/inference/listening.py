"""Events of a stream that has no end yet, told as soon as nothing can change them any more."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiostride.errors import InputError
from audiostride.inference.columns import Row
from audiostride.inference.engine import copy_logits
from audiostride.inference.granularity import EventResult
from audiostride.inference.model import Model
from audiostride.inference.settings import PredictionSettings
from audiostride.inference.tiling import Tiling

ENDLESS = 2**62  # samples of a stream whose end is not known
WINDOWS_AT_ONCE = 16


class StreamEvents(EventResult):
    """As `EventResult`, and events are given, and forgotten, once no later window can lengthen them."""

    def take_ended(self, next_start: int) -> list[Row]:
        """The events that have ended, where the next window begins at that sample."""
        whole: dict[str, list[list[Any]]] = self._taken
        ended: dict[str, list[list[Any]]] = {}
        self._taken = {task: [[] for _ in classes] for task, classes in whole.items()}
        for task, classes in whole.items():
            ended[task] = []
            for place, own in enumerate(classes):
                earliest = next_start  # where a stretch that is not there yet may begin
                if self._min_windows > 1 and own and own[-1][0] + own[-1][3] * self.tiling.hop == next_start:
                    earliest = own[-1][0]
                going_on = [event[0] for event in self._events(own) if earliest - event[1] <= self._gap]
                first = min([earliest, *going_on])
                ended[task].append([each for each in own if each[0] < first])
                self._taken[task][place] = [each for each in own if each[0] >= first]
        kept, self._taken = self._taken, ended
        rows = self.rows()
        self._taken = kept
        return rows


class Listener:
    """Hears a stream block by block and tells its events as ``audiostride predict --events`` finds them in a file.

    Args:
        model: The classifier; it stays where it is.
        settings: Of events.

    Raises:
        InputError: Settings of another granularity; a hop beyond the window.
    """

    n_samples = 0
    """Samples so far."""
    n_windows = 0
    """Windows so far."""
    busy_s = 0.0
    """Seconds that they took."""
    slowest_s = 0.0
    """The longest that a block took, from its arrival until its events were known."""

    def __init__(self, model: Model, settings: PredictionSettings) -> None:
        if settings.granularity != "event":
            raise InputError(f"listen: settings must be of events, got granularity {settings.granularity}")
        settings.check_tasks(model.config)
        self._config, self._window = model.config, model.config.window_samples
        self._hop = settings.hop_samples(model.config)
        self._device = next(model.parameters()).device
        self._network: Callable[[Tensor], Mapping[str, Tensor]] = model.freeze()
        tiling = Tiling(ENDLESS, self._window, self._hop, model.config.sample_rate)
        self._events = StreamEvents(model.config, tiling, settings)
        self._left = np.zeros(0, dtype=np.float32)  # from the start of the next window on

    @property
    def heard_s(self) -> float:
        """Seconds of audio so far."""
        return self.n_samples / self._config.sample_rate

    def add(self, samples: NDArray[np.float32]) -> list[Row]:
        """Hear the next samples, ``(samples,)`` at the model's rate, full scale 1; the events that have ended."""
        started = time.perf_counter()
        self._left = np.concatenate([self._left, samples])
        self.n_samples += len(samples)
        while (count := 1 + (len(self._left) - self._window) // self._hop) > 0:
            count = min(count, WINDOWS_AT_ONCE)
            windows = np.lib.stride_tricks.sliding_window_view(self._left, self._window)[:: self._hop][:count]
            self._classify(windows.copy())
            self._left = self._left[count * self._hop :].copy()
        found = self._events.take_ended(self.n_windows * self._hop)
        taken_s = time.perf_counter() - started
        self.busy_s, self.slowest_s = self.busy_s + taken_s, max(self.slowest_s, taken_s)
        return found

    def finish(self) -> list[Row]:
        """The stream ends here: the events that it cut off."""
        tiling = Tiling(self.n_samples, self._window, self._hop, self._config.sample_rate)
        self._events.tiling = tiling
        if self.n_samples and self.n_windows < tiling.n_windows:  # what is left does not fill a window
            filled = np.zeros((1, self._window), dtype=np.float32)
            filled[0, : len(self._left)] = self._left
            self._classify(filled)
        rows = self._events.rows()
        self._events.restore({task: [[] for _ in names] for task, names in self._config.tasks.items()})
        return rows

    @torch.inference_mode()
    def _classify(self, windows: NDArray[np.float32]) -> None:
        logits = copy_logits(self._network(torch.from_numpy(windows).to(self._device)))
        if not all(bool(torch.isfinite(values).all()) for values in logits.values()):
            raise InputError(
                f"listen: the logits must be finite, got NaN or infinity at {self.heard_s:.1f} s; are samples far "
                "beyond full scale, or weights of the model not finite (audiostride evaluate)?"
            )
        self._events.add(self.n_windows, {task: values.numpy() for task, values in logits.items()})
        self.n_windows += len(windows)

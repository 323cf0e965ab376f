"""Rows from the logits of a recording's windows: its class, the class of each window, its events; or the features."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from audiostride.checks import ClipScore
from audiostride.errors import InputError
from audiostride.inference.columns import Row, pack_numbers
from audiostride.inference.model import ModelSettings
from audiostride.inference.settings import Granularity, PredictionSettings
from audiostride.inference.tiling import Tiling

# Windows whose logits are kept for each class; None are all, summed.
N_HIGHEST: dict[ClipScore, int | None] = {"mean": None, "max": 1, "top-3": 3}

SCORE_DIGITS = 6  # coarser than the rounding of float32


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities ``(B, classes)`` from logits ``(B, classes)``."""
    with np.errstate(invalid="ignore"):  # infinite logits make their recording an error, see `RecordingResult.finite`
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probs


class RecordingResult(ABC):
    """What comes of a recording, taken in window by window.

    Args:
        config: The model's.
        tiling: The windows of the recording.
        settings: What is asked for.
    """

    finite: bool = True
    """Whether all logits were; no row is right where one was not."""
    _taken: Any

    def __init__(self, config: ModelSettings, tiling: Tiling, settings: PredictionSettings) -> None:
        self.config, self.tasks, self.tiling, self.settings = config, config.tasks, tiling, settings
        self._asked = {task: settings.asked(task, config) for task in config.tasks}
        self._background = {*(settings.background or ()), config.background_class}
        self._begin()

    def _begin(self) -> None:
        """Make what windows are taken into."""
        self._taken = {task: [] for task in self.tasks}

    def probs(self, task: str, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities ``(B, classes)`` of a task from its logits."""
        return expit(logits) if task in self.config.multi_label else softmax(logits)

    def scores(self, task: str, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities as rows have them."""
        return self.probs(task, logits).round(SCORE_DIGITS)

    def classes(self, task: str, logits: NDArray[np.float64]) -> list[tuple[int, str, float]]:
        """The classes that are given, each with its row of the logits ``(B, classes)``, its name and its score."""
        names, asked = self.tasks[task], self._asked[task]
        if not asked:
            return []
        scores, several = self.scores(task, logits)[:, asked], task in self.config.multi_label
        ranked = np.where(scores >= self.settings.least(task, names)[asked], scores, -1.0) if several else scores
        at_most = self.settings.top or (len(asked) if several else 1)
        order = ranked.argmax(axis=1)[:, None] if at_most == 1 else np.argsort(-ranked, axis=1, kind="stable")
        order = order[:, :at_most]
        if several:  # in the order of the model; else the most probable first
            order = np.sort(order, axis=1)
        given = np.array([names[number] not in self._background for number in asked])[order]
        given &= np.take_along_axis(ranked, order, axis=1) >= (self.settings.min_score or 0.0)
        found = [(row, int(order[row, place])) for row, place in np.argwhere(given).tolist()]
        return [(row, names[asked[number]], float(scores[row, number])) for row, number in found]

    def pack_scores(self, logits: Mapping[str, NDArray[np.float64]]) -> list[str]:
        """All scores that are asked for, of each row of the logits ``(B, classes)``."""
        own = [self.scores(task, values)[:, self._asked[task]] for task, values in logits.items()]
        return [pack_numbers(values) for values in np.concatenate(own, axis=1)]

    def state(self) -> Any:
        """What was taken in so far, as values that JSON keeps to the bit."""
        return self._taken

    def restore(self, state: Any) -> None:
        """Go on from what `state` gave, instead of taking those windows in again."""
        self._taken = state

    @abstractmethod
    def add(self, first: int, logits: Mapping[str, NDArray[np.float64]]) -> None:
        """Take the logits ``(B, classes)`` of each task of consecutive windows, the first of which has this number."""

    @abstractmethod
    def rows(self) -> list[Row]:
        """The rows of a recording all of whose windows were added, task after task."""


class ClipResult(RecordingResult):
    """One row per task: the class of the windows' mean logits, each weighing by the share of it that is audio.

    Or, for each class, of its highest logits: of one window, or the mean of three. A task whose clips have several
    classes has a row for each class of at least the threshold.
    """

    def _begin(self) -> None:
        # float64, so that how the windows came in batches does not show. Sums, or the highest logits (k, classes).
        n_highest = N_HIGHEST[self.config.clip_score]
        empty = np.zeros if n_highest is None else partial(np.full, fill_value=-np.inf)
        self._taken = {task: empty((n_highest or 1, len(names))) for task, names in self.tasks.items()}
        self._weight = 0.0

    def state(self) -> Any:
        if self.config.clip_score == "mean":
            return [self._weight, {task: sums[0].tolist() for task, sums in self._taken.items()}]
        # JSON has no infinity: windows that were not there yet are left out.
        return [self._weight, {task: rows[: int(self._weight)].tolist() for task, rows in self._taken.items()}]

    def restore(self, state: Any) -> None:
        self._weight = state[0]
        for task, rows in state[1].items():
            kept = np.atleast_2d(np.array(rows))
            self._taken[task][: len(kept)] = kept

    def add(self, first: int, logits: Mapping[str, NDArray[np.float64]]) -> None:
        if self.config.clip_score == "mean":
            for offset in range(len(next(iter(logits.values())))):
                share = self.tiling.share(first + offset)
                self._weight += share
                for task, values in logits.items():
                    self._taken[task] += share * values[offset]
            return
        self._weight += len(next(iter(logits.values())))
        for task, values in logits.items():
            kept = self._taken[task]
            kept[:] = np.sort(np.concatenate([kept, values]), axis=0)[::-1][: len(kept)]

    def clip_logits(self) -> dict[str, NDArray[np.float64]]:
        """Logits ``(classes,)`` of each task."""
        if self.config.clip_score == "mean":
            return {task: sums[0] / self._weight for task, sums in self._taken.items()}
        return {task: rows[: int(self._weight)].mean(axis=0) for task, rows in self._taken.items()}

    def rows(self) -> list[Row]:
        begin_s, end_s = self.tiling.seconds(0), self.tiling.seconds(self.tiling.n_samples)
        if self.settings.all_scores:
            (packed,) = self.pack_scores({task: logits[None] for task, logits in self.clip_logits().items()})
            return [(begin_s, end_s, packed)]
        found: list[Row] = []
        for task, logits in self.clip_logits().items():
            found += [(begin_s, end_s, task, name, score) for _, name, score in self.classes(task, logits[None])]
        return found


class WindowResult(RecordingResult):
    """One row per task and window: its most probable class, or one for each class of at least the threshold."""

    def add(self, first: int, logits: Mapping[str, NDArray[np.float64]]) -> None:
        for task, values in logits.items():
            for offset, name, score in self.classes(task, values):
                start, end = self.tiling.span(first + offset)
                self._taken[task].append((self.tiling.seconds(start), self.tiling.seconds(end), task, name, score))

    def rows(self) -> list[Row]:
        return [row for rows in self._taken.values() for row in rows]


class WideResult(RecordingResult):
    """One row per window: its features, or the scores of all classes."""

    def _begin(self) -> None:
        self._taken: list[Row] = []

    def add(self, first: int, logits: Mapping[str, NDArray[np.float64]]) -> None:
        if self.settings.all_scores:
            packed = self.pack_scores(logits)
        else:
            (features,) = logits.values()
            packed = [pack_numbers(values.astype(np.float32)) for values in features]
        for number, values in enumerate(packed, start=first):
            start, end = self.tiling.span(number)
            self._taken.append((self.tiling.seconds(start), self.tiling.seconds(end), values))

    def rows(self) -> list[Row]:
        return self._taken


class EventResult(RecordingResult):
    """Events: stretches of a recording that windows with a class of at least the threshold cover.

    A window whose probability of a class, rounded as it is written, is at least the threshold marks its whole length
    for that class. Marked windows that overlap, touch, or lie at most the merge gap apart are one event, from the start
    of the first to the end of the last; so events of a class never overlap, whatever the hop. Its score is the highest
    probability of its windows. Each class has its own events, so that below 0.5, or where clips have several classes,
    those of several may lie side by side. Where an event needs several windows in a row, shorter runs mark nothing.
    """

    def _begin(self) -> None:
        self._gap = round((self.settings.merge_gap_s or 0.0) * self.tiling.sample_rate)
        self._min_windows = self.settings.min_windows or 1
        # For each task and class: start, end (samples) and score of its events; or of its runs of windows, with the
        # number of these, where events need several. The last one may still grow.
        self._taken: dict[str, list[list[tuple[Any, ...]]]] = {
            task: [[] for _ in names] for task, names in self.tasks.items()
        }

    def add(self, first: int, logits: Mapping[str, NDArray[np.float64]]) -> None:
        for task, values in logits.items():
            probs = self.scores(task, values)
            for offset, index in np.argwhere(probs >= self.settings.least(task, self.tasks[task])).tolist():
                own, score = self._taken[task][index], float(probs[offset, index])
                span = self.tiling.span(first + offset)
                if self._min_windows == 1:
                    self._extend(own, (*span, score))
                elif own and own[-1][0] + own[-1][3] * self.tiling.hop == span[0]:
                    start, _, best, count = own.pop()
                    own.append((start, span[1], max(best, score), count + 1))
                else:
                    own.append((*span, score, 1))

    def _extend(self, events: list[tuple[Any, ...]], span: tuple[int, int, float]) -> None:
        """Add a span with its score to events, the last of which it may belong to."""
        start, end, score = span
        if events and start - events[-1][1] <= self._gap:
            start, _, best = events.pop()
            score = max(best, score)
        events.append((start, end, score))

    def _events(self, own: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """The events of a class from what was taken in."""
        if self._min_windows == 1:
            return own
        events: list[tuple[Any, ...]] = []
        for start, end, score, count in own:
            if count >= self._min_windows:
                self._extend(events, (start, end, score))
        return events

    def rows(self) -> list[Row]:
        found: list[Row] = []
        for task, names in self.tasks.items():
            events = [
                (start, index, end, score)
                for index, own in enumerate(self._taken[task])
                for start, end, score in self._events(own)
                if names[index] not in self._background and index in self._asked[task]
            ]
            at = self.tiling.seconds
            found += [(at(start), at(end), task, names[index], score) for start, index, end, score in sorted(events)]
        return found


class ScoreResult(RecordingResult):
    """No rows, but the probabilities of all windows: what thresholds are chosen from."""

    def add(self, first: int, logits: Mapping[str, NDArray[np.float64]]) -> None:
        for task, values in logits.items():
            self._taken[task].append(self.scores(task, values))

    def window_scores(self, task: str) -> NDArray[np.float64]:
        """Probabilities ``(windows, classes)``, as rows have them."""
        return np.concatenate(self._taken[task])

    def rows(self) -> list[Row]:
        return []


def rows_of(path: str, result: RecordingResult | InputError) -> list[Row] | InputError:
    """The rows of a recording, or why it has none."""
    if isinstance(result, InputError):
        return result
    try:
        path.encode()
    except UnicodeEncodeError:
        return InputError(f"predict: the name of a file must be UTF-8 to stand in a table, got {path!a}; rename it")
    if not result.finite:
        return InputError(
            f"predict: the logits of {path} must be finite, got NaN or infinity; are its samples far beyond full scale "
            "(audiostride check), or weights of the model not finite (audiostride evaluate)?"
        )
    return result.rows()


GRANULARITIES: dict[Granularity, type[RecordingResult]] = {
    "clip": ClipResult,
    "window": WindowResult,
    "event": EventResult,
    "features": WideResult,
    "scores": ScoreResult,
}


def make_result(config: ModelSettings, tiling: Tiling, settings: PredictionSettings) -> RecordingResult:
    """What takes in the windows of a recording."""
    wide = settings.all_scores and settings.granularity == "window"
    return (WideResult if wide else GRANULARITIES[settings.granularity])(config, tiling, settings)

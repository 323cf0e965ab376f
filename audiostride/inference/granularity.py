"""Rows from the logits of a recording's windows: its class, the class of each window, its events; or the features."""

import base64
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from audiostride.checks import ClipScore, Count, Range, check_settings
from audiostride.errors import InputError
from audiostride.inference.model import ModelSettings
from audiostride.inference.multi_label import THRESHOLD

AUTO = "auto"  # the thresholds that the model has
Granularity = Literal["clip", "window", "event", "features", "scores"]
# start_s, end_s, and task, label and score, or the features as `FeatureResult` packs them.
Row = tuple[float, float, str, str, float] | tuple[float, float, str]
PLACE_COLUMNS = {"path": "str", "start_s": "float64", "end_s": "float64"}
COLUMNS = PLACE_COLUMNS | {"task": "str", "label": "str", "score": "float64"}

# Windows whose logits are kept for each class; None are all, summed.
N_HIGHEST: dict[ClipScore, int | None] = {"mean": None, "max": 1, "top-3": 3}

# Steps of 0.1 ms and of 1e-6, finer than what a window says, and coarser than the rounding of float32.
TIME_DIGITS, SCORE_DIGITS = 4, 6


def columns_of(config: ModelSettings, granularity: Granularity) -> dict[str, str]:
    """Columns of a model's predictions with their dtypes.

    They are `COLUMNS`, of which ``task`` is there where it has several, or `PLACE_COLUMNS` and one for each feature.
    """
    if granularity == "features":
        return PLACE_COLUMNS | dict.fromkeys(next(iter(config.tasks.values())), "float32")
    return {name: kind for name, kind in COLUMNS.items() if name != "task" or len(config.tasks) > 1}


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """Where windows lie, and the granularity of the rows that come of them.

    Raises:
        InputError: A value out of its range, or one that this granularity does not use.
    """

    granularity: Granularity = "clip"
    """``clip``: one row per recording; ``window``: one per window; ``event``: see `EventResult`; ``features``: of an
    `audiostride.inference.embedding.Embedder`, one row per window; ``scores``: no rows, see `ScoreResult`."""
    hop_s: float | None = None
    """From one window to the next, in seconds; None is the model's window."""
    threshold: Annotated[float, Range(0, 1, what="a probability", advice="e.g. 0.5")] | None = None
    """Least probability of an event, and of a class of a clip or window that may have several, in [0, 1]; None is
    0.5."""
    thresholds: dict[str, dict[str, float]] | None = None
    """Thresholds of the classes of each task, in place of one for all; a class that is not there has 0.5."""
    merge_gap_s: Annotated[float, Range(0, unit="s", advice="e.g. 0.5")] | None = None
    """Events of a class with so many seconds between them, or less, are one; None is 0."""
    min_windows: Count | None = None
    """Windows in a row that an event needs; None is 1."""

    def __post_init__(self) -> None:
        check_settings("predict", self)
        if self.granularity != "event":
            self._refuse("merge-gap", self.merge_gap_s)
            self._refuse("min-windows", self.min_windows)
        if self.granularity in ("features", "scores"):
            self._refuse("threshold", self.threshold if self.thresholds is None else AUTO)
        if self.threshold is not None and self.thresholds is not None:
            raise InputError("predict: either threshold or thresholds must be given, got both")

    def _refuse(self, name: str, value: float | str | None) -> None:
        if value is not None:
            raise InputError(
                f"predict: {name} is for events only, got {value}; add --events (events=True), or leave it out"
            )

    def least(self, task: str, names: Sequence[str]) -> NDArray[np.float64]:
        """The thresholds that count, of the classes of a task, ``(classes,)``."""
        own = {} if self.thresholds is None else self.thresholds.get(task, {})
        return np.array([own.get(name, THRESHOLD if self.threshold is None else self.threshold) for name in names])

    def check_tasks(self, config: ModelSettings) -> None:
        """Raise where there are thresholds that nothing uses: of a model all of whose tasks give one class each, or of
        classes that it has not."""
        if self.granularity != "event" and not config.multi_label:
            self._refuse("threshold", self.threshold if self.thresholds is None else AUTO)
        for task, own in (self.thresholds or {}).items():
            unknown = [name for name in own if name not in config.tasks.get(task, ())]
            if unknown or task not in config.tasks:
                raise InputError(
                    f"predict: thresholds must be of classes of the model, got {', '.join(unknown) or task}; it knows "
                    + "; ".join(f"{known}: {', '.join(names)}" for known, names in config.tasks.items())
                )

    @classmethod
    def choose(
        cls,
        *,
        per_window: bool = False,
        events: bool = False,
        hop_s: float | None = None,
        threshold: float | str | None = None,
        thresholds: Mapping[str, Mapping[str, float]] | None = None,
        merge_gap_s: float | None = None,
        min_windows: int | None = None,
    ) -> "PredictionSettings":
        """Settings from the switches of the command; `thresholds` are those of the model, which ``auto`` takes."""
        if per_window and events:
            raise InputError("predict: --per-window and --events exclude each other; give one of them")
        granularity: Granularity = "window" if per_window else "event" if events else "clip"
        settings = cls(granularity=granularity, hop_s=hop_s, merge_gap_s=merge_gap_s, min_windows=min_windows)
        if threshold is None:
            return settings
        if not isinstance(threshold, str):
            return replace(settings, threshold=threshold)
        if threshold != AUTO:
            raise InputError(f"predict: threshold must be a probability or {AUTO}, got {threshold!r}; e.g. 0.5")
        if not thresholds:
            raise InputError(
                "predict: threshold auto must find thresholds in the model, got one without; train stores them "
                "(--calibrate), 'audiostride evaluate RUN --negatives DIR --alarms-per-hour 1' too; or give a number"
            )
        return replace(settings, thresholds={task: dict(own) for task, own in thresholds.items()})

    def say(self, message: str) -> str:
        """A message of what all granularities share, under the name of the command that asks."""
        own = message.startswith("predict: ") and self.granularity == "features"
        return f"embed: {message.removeprefix('predict: ')}" if own else message

    def hop_samples(self, config: ModelSettings) -> int:
        """From one window to the next, in samples.

        Raises:
            InputError: A hop that is not in (0, window], or shorter than a sample.
        """
        hop_s = config.window_s if self.hop_s is None else self.hop_s
        samples = round(hop_s * config.sample_rate) if 0 < hop_s <= config.window_s else 0
        if samples < 1:
            raise InputError(
                f"predict: hop must lie in (0, {config.window_s:g}] s, the model's window, and be at least a sample "
                f"({1 / config.sample_rate:.2g} s), got {hop_s}; leave it out for windows side by side"
            )
        return samples


@dataclass(frozen=True)
class Tiling:
    """The windows of a recording: they begin at multiples of the hop, and the last one reaches its end."""

    n_samples: int
    window: int
    hop: int
    sample_rate: int
    origin_s: float = 0.0
    """Where the recording begins in its file."""

    @property
    def n_windows(self) -> int:
        """As many as cover the recording; the last one is filled up with zeros."""
        return 1 + -(-max(0, self.n_samples - self.window) // self.hop)

    def span(self, index: int) -> tuple[int, int]:
        """First sample of a window and the one behind its last, which lies in the recording."""
        return index * self.hop, min(index * self.hop + self.window, self.n_samples)

    def share(self, index: int) -> float:
        """How much of a window is audio, in (0, 1].

        Rounded to float32: its product with a float32 logit is then exact in float64, so that a recording of one window
        has that window's logits to the bit.
        """
        start, end = self.span(index)
        return float(np.float32((end - start) / self.window))

    def audio_s(self, first: int, count: int) -> float:
        """Seconds of audio that consecutive windows add to those before them."""
        last = first + count
        end = self.n_samples if last == self.n_windows else last * self.hop
        return (end - first * self.hop) / self.sample_rate

    def seconds(self, sample: int) -> float:
        """Where a sample lies in the file."""
        return round(self.origin_s + sample / self.sample_rate, TIME_DIGITS)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities ``(B, classes)`` from logits ``(B, classes)``."""
    with np.errstate(invalid="ignore"):  # infinite logits make their recording an error, see `RecordingResult.finite`
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probs


class RecordingResult(ABC):
    """What comes of a recording, taken in window by window.

    Args:
        tasks: Class names of each task.
        tiling: The windows of the recording.
        settings: Granularity, and threshold and merge gap of events.
        multi_label: Tasks that give every class of at least the threshold, and not the most probable one.
        background: A class that gives no rows.
        clip_score: What a recording has of the logits of its windows.
    """

    finite: bool = True
    """Whether all logits were; no row is right where one was not."""
    _taken: Any

    def __init__(
        self,
        tasks: Mapping[str, Sequence[str]],
        tiling: Tiling,
        settings: PredictionSettings,
        *,
        multi_label: Collection[str] = (),
        background: str | None = None,
        clip_score: ClipScore = "mean",
    ) -> None:
        self.tasks, self.tiling, self.settings = tasks, tiling, settings
        self.multi_label, self.background, self.clip_score = multi_label, background, clip_score
        self._begin()

    def _begin(self) -> None:
        """Make what windows are taken into."""
        self._taken = {task: [] for task in self.tasks}

    def probs(self, task: str, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities ``(B, classes)`` of a task from its logits."""
        return expit(logits) if task in self.multi_label else softmax(logits)

    def classes(self, task: str, logits: NDArray[np.float64]) -> list[tuple[int, str, float]]:
        """The classes that are given, each with its row of the logits ``(B, classes)``, its name and its score."""
        probs = self.probs(task, logits)
        scores = probs.round(SCORE_DIGITS)
        if task in self.multi_label:
            places = np.argwhere(scores >= self.settings.least(task, self.tasks[task]))
        else:
            places = np.stack([np.arange(len(probs)), probs.argmax(axis=1)], axis=1)
        found = [(row, self.tasks[task][index], float(scores[row, index])) for row, index in places.tolist()]
        return [each for each in found if each[1] != self.background]

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
        n_highest = N_HIGHEST[self.clip_score]
        empty = np.zeros if n_highest is None else partial(np.full, fill_value=-np.inf)
        self._taken = {task: empty((n_highest or 1, len(names))) for task, names in self.tasks.items()}
        self._weight = 0.0

    def state(self) -> Any:
        if self.clip_score == "mean":
            return [self._weight, {task: sums[0].tolist() for task, sums in self._taken.items()}]
        # JSON has no infinity: windows that were not there yet are left out.
        return [self._weight, {task: rows[: int(self._weight)].tolist() for task, rows in self._taken.items()}]

    def restore(self, state: Any) -> None:
        self._weight = state[0]
        for task, rows in state[1].items():
            kept = np.atleast_2d(np.array(rows))
            self._taken[task][: len(kept)] = kept

    def add(self, first: int, logits: Mapping[str, NDArray[np.float64]]) -> None:
        if self.clip_score == "mean":
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
        if self.clip_score == "mean":
            return {task: sums[0] / self._weight for task, sums in self._taken.items()}
        return {task: rows[: int(self._weight)].mean(axis=0) for task, rows in self._taken.items()}

    def rows(self) -> list[Row]:
        begin_s, end_s = self.tiling.seconds(0), self.tiling.seconds(self.tiling.n_samples)
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


class FeatureResult(RecordingResult):
    """One row per window: its features, float32 as text, which a journal keeps to the bit in a third of the room."""

    def _begin(self) -> None:
        self._taken: list[Row] = []

    def add(self, first: int, logits: Mapping[str, NDArray[np.float64]]) -> None:
        (features,) = logits.values()
        for number, values in enumerate(features.astype("<f4"), start=first):
            start, end = self.tiling.span(number)
            packed = base64.b64encode(values.tobytes()).decode()
            self._taken.append((self.tiling.seconds(start), self.tiling.seconds(end), packed))

    def rows(self) -> list[Row]:
        return self._taken

    @staticmethod
    def unpack(packed: str) -> NDArray[np.float32]:
        """The features ``(C,)`` of a row."""
        return np.frombuffer(base64.b64decode(packed), dtype="<f4").astype(np.float32)


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
            probs = self.probs(task, values).round(SCORE_DIGITS)
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
                if names[index] != self.background
            ]
            at = self.tiling.seconds
            found += [(at(start), at(end), task, names[index], score) for start, index, end, score in sorted(events)]
        return found


class ScoreResult(RecordingResult):
    """No rows, but the probabilities of all windows: what thresholds are chosen from."""

    def add(self, first: int, logits: Mapping[str, NDArray[np.float64]]) -> None:
        for task, values in logits.items():
            self._taken[task].append(self.probs(task, values).round(SCORE_DIGITS))

    def scores(self, task: str) -> NDArray[np.float64]:
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
    "features": FeatureResult,
    "scores": ScoreResult,
}

"""What predictions are asked for: where windows lie, what has rows, and which classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from audiostride.checks import Count, Range, check_settings
from audiostride.errors import InputError
from audiostride.inference.model import ModelSettings
from audiostride.inference.multi_label import THRESHOLD

AUTO = "auto"  # the thresholds that the model has
Granularity = Literal["clip", "window", "event", "features", "scores"]


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """Where windows lie, and the granularity of the rows that come of them.

    Raises:
        InputError: A value out of its range, or one that this granularity does not use.
    """

    granularity: Granularity = "clip"
    """``clip``: rows for each recording; ``window``: for each window; ``event``: see
    `audiostride.inference.granularity.EventResult`; ``features``: of an `audiostride.inference.embedding.Embedder`, one
    row per window; ``scores``: no rows, see `audiostride.inference.granularity.ScoreResult`."""
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
    classes: Sequence[str] | None = None
    """The classes that are asked for, of any task; None are all. The others are as if the model had not given them."""
    background: Sequence[str] | None = None
    """Classes that have no rows and no events, beside that of the model: where one of them is the most probable, none
    is given."""
    top: Count | None = None
    """The most probable classes that each window or recording has rows for; None is 1, or all of at least the threshold
    where clips may have several."""
    min_score: Annotated[float, Range(0, 1, what="a probability", advice="e.g. 0.1")] | None = None
    """Least probability of a row of a window or recording; None is 0."""
    all_scores: bool = False
    """One row per window or recording, with a column for each class."""
    date_time: bool = False
    """Columns with date and time of the start, where the name of the file says when it was recorded."""

    def __post_init__(self) -> None:
        check_settings("predict", self)
        if self.classes is not None and not self.classes:
            raise InputError("predict: classes must name at least one class, got none; leave it out for all")
        if self.granularity != "event":
            self._refuse("merge-gap", self.merge_gap_s)
            self._refuse("min-windows", self.min_windows)
        others = {"top": self.top, "min-score": self.min_score, "all-scores": self.all_scores or None}
        given = [name for name, value in others.items() if value is not None]
        if given and self.granularity == "event":
            raise InputError(
                f"predict: {given[0]} is for rows of windows or recordings, got it with events; "
                "--threshold is what chooses events"
            )
        if (self.all_scores and len(given) > 1) or (self.all_scores and self.background):
            name = "background" if self.background else given[0]
            raise InputError(f"predict: either {name} or all-scores must be given, got both; all have their columns")
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
        classes that it has not; and where classes are asked for that it has not."""
        known = dict.fromkeys(name for names in config.tasks.values() for name in names)
        for option, names in (("classes", self.classes or ()), ("background", self.background or ())):
            if unknown := [name for name in names if name not in known]:
                raise InputError(
                    f"predict: {option} must be of the model, got {', '.join(unknown)}; it knows {', '.join(known)}"
                )
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
        per_clip: bool = False,
        per_window: bool = False,
        events: bool = False,
        threshold: float | str | None = None,
        thresholds: Mapping[str, Mapping[str, float]] | None = None,
        **others: Any,
    ) -> "PredictionSettings":
        """Settings from the switches of the command; `thresholds` are those of the model, which ``auto`` takes.

        The others are settings as they are.
        """
        switches = {"--per-clip": per_clip, "--per-window": per_window, "--events": events}
        given = [name for name, on in switches.items() if on]
        if len(given) > 1:
            raise InputError(f"predict: {' and '.join(given)} exclude each other; give one of them")
        granularity: Granularity = "clip" if per_clip else "event" if events else "window"
        settings = cls(granularity=granularity, **others)
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

    def asked(self, task: str, config: ModelSettings) -> list[int]:
        """The classes of a task that are asked for, as their numbers."""
        return [
            number for number, name in enumerate(config.tasks[task]) if self.classes is None or name in self.classes
        ]

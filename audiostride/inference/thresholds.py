"""From scores to decisions: temperatures that make probabilities hold, thresholds of classes, and alarms per hour."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax
from scipy.stats import chi2

from audiostride.inference.granularity import softmax

MAX_LOG_TEMPERATURE = 3.0


def fit_temperature(logits: NDArray[np.float64], targets: NDArray[np.float64], *, several: bool) -> float:
    """The number that logits are divided by for the lowest cross entropy (Guo et al. 2017, section 4.2).

    Classes keep their order. That n clips were right does not say that all will be: as with Platt (1999, section 2.2)
    their targets are ``(n + 1) / (n + 2)``, so that few clips make no probability sure. It lies in [1 / 20, 20].

    Args:
        logits: Of clips that training did not see.
        targets: 1 for the classes of a clip, else 0.
        several: Whether clips have any number of classes: a sigmoid for each instead of a softmax over all.

    Shape:
        logits, targets: ``(clips, classes)``.
    """
    rest = 1 / (len(targets) + 2)
    if several:
        targets = targets + (1 - 2 * targets) * rest
    else:
        others = (1 - targets) / max(1, targets.shape[1] - 1)
        targets = (1 - rest) * targets + rest * others * targets.sum(axis=1, keepdims=True)

    def loss(log_temperature: float) -> float:
        scaled = logits * np.exp(-log_temperature)
        if several:
            return float((np.logaddexp(0, scaled) - targets * scaled).mean())
        return float(-(targets * log_softmax(scaled, axis=1)).sum(axis=1).mean())

    bounds = (-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE)
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def probabilities(logits: NDArray[np.float64], *, several: bool) -> NDArray[np.float64]:
    """Probabilities ``(clips, classes)`` of logits of that shape."""
    found: NDArray[np.float64] = expit(logits) if several else softmax(logits)
    return found


def f1_threshold(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float | None:
    """The threshold of the highest F1: in the middle between the lowest score that it takes and the one below.

    Args:
        scores: Of one class, ``(clips,)``.
        truth: Which clips are of it, ``(clips,)``.

    Returns:
        The threshold; None where no clip is of the class.
    """
    hits, taken, levels = _count_above(scores, truth)
    if not truth.any():
        return None
    return levels[int(np.argmax(2 * hits / (taken + truth.sum())))]


def precision_threshold(scores: NDArray[np.float64], truth: NDArray[np.bool_], precision: float) -> float | None:
    """The lowest threshold at which at least that share of what is taken is right, as `f1_threshold` says it.

    Returns:
        The threshold; None where no threshold takes a clip of the class at that precision.
    """
    hits, taken, levels = _count_above(scores, truth)
    enough = np.flatnonzero((hits >= precision * taken) & (hits > 0))
    return levels[int(enough[-1])] if len(enough) else None


def _count_above(
    scores: NDArray[np.float64], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[float]]:
    """For each different score, from the highest on: clips of the class above, all clips above, and the threshold."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    below = np.append(ranked[ends[1:]], 0.0)
    middles = (ranked[ends] + below) / 2
    return np.cumsum(truth[order].astype(np.int64))[ends], ends + 1, middles.tolist()


@dataclass(frozen=True)
class WindowScores:
    """Scores of the windows of a recording ``(windows, classes)``, its length, and the windows' place."""

    scores: NDArray[np.float64]
    duration_s: float
    window_s: float
    hop_s: float


def count_alarms(
    recordings: Sequence[WindowScores], thresholds: NDArray[np.float64], *, gap_s: float = 0.0, min_windows: int = 1
) -> NDArray[np.int64]:
    """Events of each class in recordings at each threshold, as `EventResult` makes them.

    Args:
        recordings: Such as recordings in which no class is heard, where every event is an alarm.
        thresholds: Of all classes alike, ``(thresholds,)``.
        gap_s: Events so far apart, or less, are one.
        min_windows: Windows in a row that an event needs.

    Shape:
        Result: ``(thresholds, classes)``.
    """
    counts = np.zeros((len(thresholds), recordings[0].scores.shape[1] if recordings else 0), dtype=np.int64)
    for recording in recordings:
        # A window continues an event whose last window lies at most so many before it.
        reach = int((recording.window_s + gap_s) / recording.hop_s + 1e-9)
        for row, threshold in enumerate(thresholds):
            above = recording.scores >= threshold
            if min_windows > 1:
                above = _long_runs(above, min_windows)
            before = np.zeros_like(above)
            for lag in range(1, min(reach, len(above) - 1) + 1):
                before[lag:] |= above[:-lag]
            counts[row] += (above & ~before).sum(axis=0)
    return counts


def _long_runs(above: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """What is left of runs over windows ``(windows, classes)`` that are at least so long."""
    n = len(above)
    if n < least:
        return np.zeros_like(above)
    sums = np.cumsum(np.vstack([np.zeros((1, above.shape[1]), dtype=np.int64), above]), axis=0)
    full = sums[least:] - sums[:-least] == least  # runs that begin there
    kept = np.zeros_like(above)
    for lag in range(least):
        kept[lag : lag + len(full)] |= full
    return kept


def lowest_quiet(counts: NDArray[np.int64], most: float) -> int | None:
    """The first of rising thresholds from which on none has more alarms than `most`; None where the last has more.

    Below, alarms may be fewer all the same: many windows are then one event.

    Args:
        counts: Alarms of one class at each threshold, ``(thresholds,)``.
        most: Alarms that may be.

    >>> lowest_quiet(np.array([1, 30, 9, 2, 0]), 3)
    3
    """
    too_many = np.flatnonzero(counts > most)
    first = int(too_many[-1]) + 1 if len(too_many) else 0
    return first if first < len(counts) else None


def poisson_interval(count: int, *, level: float = 0.95) -> tuple[float, float]:
    """Garwood's exact interval of a mean of which `count` events were seen (Garwood 1936).

    >>> tuple(round(bound, 2) for bound in poisson_interval(0)), tuple(round(bound, 2) for bound in poisson_interval(3))
    ((0.0, 3.69), (0.62, 8.77))
    """
    tail = (1 - level) / 2
    low = 0.0 if count == 0 else float(chi2.ppf(tail, 2 * count) / 2)
    return low, float(chi2.ppf(1 - tail, 2 * count + 2) / 2)

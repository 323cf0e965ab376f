"""How well clips with several labels are classified: average precision, ROC AUC and F1 of each class, and intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audiostride.errors import InputError

METRICS = ("average_precision", "roc_auc", "f1")
RESAMPLES = 1000
LEVELS = (0.025, 0.975)
THRESHOLD = 0.5


@dataclass(frozen=True)
class LabelMetrics:
    """Numbers of each class, ``(classes,)`` each; NaN where the clips do not say, such as for a class without clips."""

    average_precision: NDArray[np.float64]
    """Mean of the precision over the recall, ``sum_n (R_n - R_n-1) P_n`` over the thresholds."""
    roc_auc: NDArray[np.float64]
    """Chance that a clip of the class scores higher than one that is not of it; ties count half."""
    precision: NDArray[np.float64]
    """At the threshold; 0 where nothing is found."""
    recall: NDArray[np.float64]
    """At the threshold."""
    f1: NDArray[np.float64]
    """At the threshold, the harmonic mean of both."""

    def macro(self, name: str) -> float:
        """The mean of a metric over the classes that have one; NaN where none has."""
        values = getattr(self, name)
        known = values[~np.isnan(values)]
        return float(known.mean()) if len(known) else float("nan")


class LabelScores:
    """Scores of clips that are sorted once for each class, so that metrics of any weights of the clips are quick.

    Args:
        scores: Higher where a class is more probable.
        truth: 1 where a clip has the label of a class, else 0.
        found: Whether a score is above the threshold of its class.

    Shape:
        All: ``(clips, classes)``.
    """

    def __init__(self, scores: NDArray[np.float64], truth: NDArray[np.int64], found: NDArray[np.bool_]) -> None:
        self._order = np.argsort(-scores, axis=0, kind="stable")
        self._truth, ranked, self._found = (
            np.take_along_axis(values, self._order, axis=0).astype(float) for values in (truth, scores, found)
        )
        # Clips with one score share a threshold: what is counted at it is what is counted at the last of them.
        self._last = np.append(np.diff(ranked, axis=0) != 0, np.ones((1, scores.shape[1]), dtype=bool), axis=0)
        places = np.where(self._last, np.arange(len(scores))[:, None], len(scores))
        self._ends = np.minimum.accumulate(places[::-1], axis=0)[::-1]

    def measure(self, weights: NDArray[np.float64] | None = None) -> LabelMetrics:
        """The metrics where clips count so often, ``(clips,)``; None counts each once."""
        weight = np.ones(self._truth.shape) if weights is None else weights[self._order]
        hits = self._truth * weight
        misses = weight - hits
        true = np.take_along_axis(np.cumsum(hits, axis=0), self._ends, axis=0)
        false = np.take_along_axis(np.cumsum(misses, axis=0), self._ends, axis=0)
        positive, negative = hits.sum(axis=0), misses.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is what is not known
            precision = np.where(true + false > 0, true / (true + false), 0.0)
            average = (hits * precision).sum(axis=0) / positive
            # A clip of the class loses against all others before its own ties, and half of those among them.
            rates = np.where(self._last, false, 0.0)
            before = np.maximum.accumulate(np.vstack([np.zeros((1, rates.shape[1])), rates[:-1]]), axis=0)
            area = 1 - (hits * (before + false) / 2).sum(axis=0) / (positive * negative)
            found_true, found = (hits * self._found).sum(axis=0), (weight * self._found).sum(axis=0)
            recall = found_true / positive
            return LabelMetrics(
                average_precision=average,
                roc_auc=area,
                precision=np.where(positive > 0, found_true / np.maximum(found, 1e-300), np.nan),
                recall=recall,
                f1=np.where(positive > 0, 2 * found_true / (found + positive), np.nan),
            )


def draw_intervals(
    scores: LabelScores, groups: NDArray[np.int64], *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[dict[str, tuple[float, float]], NDArray[np.float64]]:
    """95 % intervals of the macro metrics, and those of the average precision of each class, by the basic bootstrap.

    Groups are drawn with replacement, as many as there are, with all of their clips. With q being the quantiles of what
    comes out and m the metric itself, the interval is ``2 m - q(97.5 %)`` to ``2 m - q(2.5 %)`` (Davison and Hinkley
    1997, "Bootstrap Methods", equation 5.6), within [0, 1]: of few clips average precision comes out too high, and that
    of clips that are drawn twice higher still. (Of 50 clips and 10 classes it holds the value of 200,000 clips in 77 to
    89 % of cases; the quantiles themselves do in 9 to 92 %. Of 300 clips it does in 96 to 98 %.) A class that a draw
    has no clip of is left out of it.

    Args:
        scores: Of the clips.
        groups: Group of each clip, ``(clips,)`` from 0 on; clips that are independent have one each.
        seed: Of the draws.
        resamples: Number of draws.

    Returns:
        Intervals of `METRICS`, and ``(2, classes)``, NaN for a class without clips.
    """
    rng, n_groups, found = np.random.default_rng(seed), int(groups.max()) + 1, scores.measure()
    macros: list[list[float]] = []
    averages = []
    for _ in range(resamples):
        drawn = scores.measure(rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups))[groups].astype(float))
        averages.append(drawn.average_precision)
        macros.append([drawn.macro(name) for name in METRICS])
    bounds = _intervals(np.array(macros), np.array([found.macro(name) for name in METRICS]))
    named = {name: (float(low), float(high)) for name, low, high in zip(METRICS, *bounds, strict=True)}
    return named, _intervals(np.array(averages), found.average_precision)


def _intervals(draws: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """The bounds ``(2, columns)`` around what was found ``(columns,)``, of the numbers that are known in each column
    of the draws ``(resamples, columns)``; NaN where none is."""
    bounds = np.full((2, len(found)), np.nan)
    for column, values in enumerate(draws.T):
        known = values[~np.isnan(values)]
        if len(known):
            bounds[:, column] = 2 * found[column] - np.quantile(known, LEVELS[::-1])
    clipped: NDArray[np.float64] = np.clip(bounds, 0.0, 1.0)
    return clipped


def group_numbers(groups: "pd.Series[str]") -> tuple[NDArray[np.int64], str]:
    """What the bootstrap draws: the group of each clip where there are two or more, else the clips; and its name."""
    if groups.isna().any() or (groups == "").any() or groups.nunique() < 2:
        return np.arange(len(groups)), "clip"
    return pd.factorize(groups)[0].astype(np.int64), "group"


def class_table(names: Sequence[str], truth: NDArray[np.int64], found: LabelMetrics) -> pd.DataFrame:
    """One row per class: ``class``, ``clips``, ``share`` of all clips, which chance gives, and the metrics."""
    table = {"class": list(names), "clips": truth.sum(axis=0), "share": truth.mean(axis=0)}
    columns = ("average_precision", "roc_auc", "precision", "recall", "f1")
    return pd.DataFrame(table | {name: getattr(found, name) for name in columns})


def macro_metrics(found: LabelMetrics, *, prefix: str = "") -> dict[str, float | None]:
    """The macro metrics as JSON has them."""
    values = {f"{prefix}{name}": found.macro(name) for name in METRICS}
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def check_truth(who: str, truth: NDArray[np.int64]) -> None:
    """Raise unless some clip has a label, without which nothing can be measured."""
    if not truth.any():
        raise InputError(f"{who}: a clip must have a label, got none in {len(truth)} clips; is it the right column?")


def constant_metrics(shares: NDArray[np.float64], truth: NDArray[np.int64]) -> Mapping[str, float | None]:
    """The macro metrics of giving every clip the ``shares`` ``(classes,)`` that classes have among training clips."""
    scores = np.broadcast_to(shares, truth.shape)
    return macro_metrics(LabelScores(scores, truth, scores >= THRESHOLD).measure())

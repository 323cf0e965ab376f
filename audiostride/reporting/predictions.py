"""What test predictions say beyond the accuracy: calibration, the ROC curve, the worst mistakes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audiostride.dataset.labels import separate_labels
from audiostride.reporting.runs import class_columns

N_BINS = 10


def calibration_table(predictions: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Accuracy beside mean confidence, for clips in ten bins of confidence (Guo et al. 2017, section 2).

    The confidence of a clip is the probability of its predicted class.

    Returns:
        One row per bin that has clips: ``low``, ``high``, ``clips``, ``confidence`` (their mean), ``accuracy``.
    """
    confidence = predictions[class_columns(names)].to_numpy().max(axis=1)
    return calibration_bins(confidence, (predictions["true"] == predictions["predicted"]).to_numpy())


def calibration_bins(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> pd.DataFrame:
    """The table of `calibration_table` from probabilities ``(n,)`` and whether each was right."""
    bins = np.clip(np.ceil(confidence * N_BINS) - 1, 0, N_BINS - 1).astype(int)  # (0, 0.1], (0.1, 0.2], …
    numbers, clips = np.unique(bins, return_counts=True)
    table = pd.DataFrame({"low": numbers / N_BINS, "high": (numbers + 1) / N_BINS, "clips": clips})
    table["confidence"] = [confidence[bins == number].mean() for number in numbers]
    table["accuracy"] = [correct[bins == number].mean() for number in numbers]
    return table


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error: mean over clips of the gap between accuracy and confidence of their bin."""
    weights = table["clips"] / table["clips"].sum()
    return float((weights * (table["accuracy"] - table["confidence"]).abs()).sum())


def label_pairs(predictions: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Each clip with each class, of clips with several labels: ``clip`` (its row), ``class``, ``probability`` and
    ``truth``, whether it has the class."""
    probs = predictions[class_columns(names)].to_numpy(dtype=float)
    true = [{*separate_labels(cell, names)} for cell in predictions["true"]]
    return pd.DataFrame(
        {
            "clip": np.repeat(np.arange(len(predictions)), len(names)),
            "class": list(names) * len(predictions),
            "probability": probs.ravel(),
            "truth": [name in labels for labels in true for name in names],
        }
    )


def threshold_counts(pairs: pd.DataFrame, names: Sequence[str]) -> list[list[list[int]]]:
    """How many clips are found at each threshold from 0 to 1 in steps of 0.01, for each class.

    Args:
        pairs: See `label_pairs`.
        names: The classes.

    Returns:
        For each class the clips of at least the threshold that have it, and those that have it or not, 101 each.
    """
    steps = np.arange(101) / 100
    counts = []
    for name in names:
        own = pairs[pairs["class"] == name]
        above = own["probability"].to_numpy()[None] >= steps[:, None]  # (101, clips)
        counts.append([(above & own["truth"].to_numpy()).sum(axis=1).tolist(), above.sum(axis=1).tolist()])
    return counts


def worst_pairs(predictions: pd.DataFrame, pairs: pd.DataFrame, *, count: int = 6) -> pd.DataFrame:
    """The clips of `label_pairs` whose probability of some class is farthest from what is there, worst first.

    Returns:
        Rows of the predictions with ``class``, ``probability`` and ``truth`` of that class.
    """
    error = (pairs["probability"] - pairs["truth"]).abs()
    worst = pairs.assign(error=error).sort_values("error", ascending=False, kind="stable").drop_duplicates("clip")
    worst = worst.head(count)
    clips = predictions.iloc[worst["clip"]][["line", "path", "start_s", "duration_s", "true", "predicted"]]
    return pd.concat(
        [part.reset_index(drop=True) for part in (clips, worst[["class", "probability", "truth"]])], axis=1
    )


def positive_class(names: Sequence[str]) -> str:
    """Which of two classes is the one to detect: the second, or the first where the second is its absence."""
    return names[0] if names[1].lower().startswith(("no", "without", "absen")) else names[1]


def roc_curve(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> pd.DataFrame:
    """False and true positive rate at each threshold, from the highest score down; the first row is (inf, 0, 0).

    Clips that are `positive` are of the class to detect; `scores` are the probabilities of that class.
    """
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], positive[order].astype(float)
    last = np.flatnonzero(np.append(np.diff(sorted_scores) != 0, True))  # of clips with the same score
    return pd.DataFrame(
        {
            "threshold": np.append(np.inf, sorted_scores[last]),
            "false_positive_rate": np.append(0.0, np.cumsum(1 - hits)[last] / max(1.0, (1 - hits).sum())),
            "true_positive_rate": np.append(0.0, np.cumsum(hits)[last] / max(1.0, hits.sum())),
        }
    )


def area_under(curve: pd.DataFrame) -> float:
    """Area under a ROC curve: the chance that a clip of the class scores higher than one that is not."""
    return float(np.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"]))


def surest_right(predictions: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Of each class that was given rightly the clip with its highest probability, in the order of the names.

    Returns:
        Rows of the predictions, with ``probability``.
    """
    probs = predictions[class_columns(names)].max(axis=1)
    table = predictions[["line", "path", "start_s", "duration_s", "true", "predicted"]].assign(probability=probs)
    right = table[table["true"] == table["predicted"]].sort_values("probability", ascending=False, kind="stable")
    order = right.drop_duplicates("true").set_index("true", drop=False)
    return order.loc[[name for name in names if name in order.index]].reset_index(drop=True)


def worst_mistakes(predictions: pd.DataFrame, names: Sequence[str], *, count: int = 6) -> pd.DataFrame:
    """The wrong predictions with the highest probability, worst first.

    Returns:
        Rows of the predictions, with ``probability`` (of the predicted class) and ``true_probability``.
    """
    probs = predictions[class_columns(names)].to_numpy()
    true = pd.Index(names).get_indexer(pd.Index(predictions["true"]))
    table = predictions[["line", "path", "start_s", "duration_s", "true", "predicted"]].assign(
        probability=probs.max(axis=1), true_probability=probs[np.arange(len(probs)), true]
    )
    wrong = table[table["true"] != table["predicted"]]
    return wrong.sort_values("probability", ascending=False, kind="stable").head(count).reset_index(drop=True)

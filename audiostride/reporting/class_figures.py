"""Figures of one task's test clips: confusion matrix, ROC curve, reliability diagram."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from audiostride.reporting.style import COLORS, INK, SOFT, STYLE, new_panel, render

ALWAYS_WHITE = "#fefefe"  # unlike the paper's white, which turns dark in a dark page
MOST_NAMES, MOST_COUNTS = 60, 30


def draw_confusion(confusion: pd.DataFrame, *, format: str = "svg") -> bytes:
    """The confusion matrix, each row in percent of its true class, with the counts written in while they fit."""
    return render(draw_confusion_figure(confusion), format=format)


def draw_confusion_figure(confusion: pd.DataFrame) -> Figure:
    """The figure of `draw_confusion`."""
    counts = confusion.to_numpy()
    n_classes = len(counts)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = min(10.0, max(3.4, 1.6 + 0.34 * n_classes))
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, panel = new_panel("", "predicted", "true", height=side, width=side)
        # One colour, ever less transparent: it stands on light and on dark.
        colors = np.empty((n_classes, n_classes, 4))
        colors[..., :3], colors[..., 3] = to_rgb(COLORS[0]), shares
        panel.imshow(colors, interpolation="nearest")
        names = [str(name) if len(str(name)) <= 16 else f"{str(name)[:15]}…" for name in confusion.columns]
        size = 9 if n_classes <= MOST_COUNTS else 6
        if n_classes <= MOST_NAMES:
            panel.set_xticks(range(n_classes), names, rotation=90 if n_classes > 3 else 0, fontsize=size)
            panel.set_yticks(range(n_classes), names, fontsize=size)
        if n_classes <= MOST_COUNTS:
            for row, column in zip(*np.nonzero(counts), strict=True):
                color = ALWAYS_WHITE if shares[row, column] > 0.55 else INK
                count = str(counts[row, column])
                panel.text(column, row, count, ha="center", va="center", fontsize=size - 1, color=color)
        panel.spines[:].set_visible(True)
        return figure


def draw_roc(curve: pd.DataFrame, area: float, positive: str) -> Figure:
    """The ROC curve of the detection of one class, with the diagonal of chance."""
    with mpl.rc_context(STYLE):
        figure, panel = new_panel(f"ROC: detecting {positive}", "false alarms (%)", "found (%)", height=3.6, width=4.2)
        panel.plot([0, 100], [0, 100], color=SOFT, linewidth=1, linestyle=":", label="chance")
        x, y = 100 * curve["false_positive_rate"], 100 * curve["true_positive_rate"]
        panel.fill_between(x, 0, y, color=COLORS[0], alpha=0.12, linewidth=0)
        panel.plot(x, y, color=COLORS[0], linewidth=1.8, label=f"AUC {area:.3f}")
        panel.set_xlim(-1, 101)
        panel.set_ylim(-1, 101)
        panel.legend(loc="lower right")
        return figure


def draw_reliability(table: pd.DataFrame, error: float) -> Figure:
    """Accuracy in bins of confidence as bars, with the mean confidence and the number of clips of each."""
    with mpl.rc_context(STYLE):
        title = f"Reliability: calibration error {100 * error:.1f} %"
        figure, panel = new_panel(title, "confidence (%)", "accuracy (%)", height=3.6, width=4.2)
        low, width = 100 * table["low"], 100 * (table["high"] - table["low"])
        panel.bar(low, 100 * table["accuracy"], width=width, align="edge", color=COLORS[0], alpha=0.45,
                  edgecolor=COLORS[0], label="accuracy")  # fmt: skip
        panel.plot([0, 100], [0, 100], color=SOFT, linewidth=1, linestyle=":", label="calibrated")
        panel.plot(100 * table["confidence"], 100 * table["accuracy"], linestyle="", marker="o", markersize=4,
                   color=COLORS[1], label="mean confidence")  # fmt: skip
        for left, span, top, clips in zip(low, width, 100 * table["accuracy"], table["clips"], strict=True):
            panel.annotate(str(clips), (left + span / 2, top), (0, 3), textcoords="offset points", ha="center",
                           fontsize=8, color=INK)  # fmt: skip
        panel.set_xlim(0, 100)
        panel.set_ylim(0, 108)
        panel.legend(loc="upper left")
        return figure

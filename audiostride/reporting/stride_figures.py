"""Learned strides: over the training of each run, and from start to end for several runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from audiostride.reporting.style import COLORS, MARKERS, SOFT, STYLE, new_panel

LINES = ("-", "--", ":", "-.")


def stride_columns(history: pd.DataFrame, axis: str) -> list[str]:
    """The columns of an axis in a history of strides, a layer each."""
    return [name for name in history.columns if name.endswith(f"_{axis}")]


def draw_strides(histories: Sequence[pd.DataFrame], axis: str, title: str) -> Figure:
    """Strides over the training as in Figure 3 of the paper: a line per layer and run, its layer written at the end.

    Args:
        histories: The strides of each run of a group.
        axis: time or mel.
        title: Of the panel.
    """
    columns = stride_columns(histories[0], axis)
    with mpl.rc_context(STYLE):
        figure, panel = new_panel(title, "step", "stride", height=3.3)
        ends = []
        for layer, column in enumerate(columns, start=1):
            style: dict[str, Any] = {"color": COLORS[(layer - 1) % len(COLORS)],
                     "linestyle": LINES[(layer - 1) // len(COLORS) % len(LINES)]}  # fmt: skip
            for history in histories:
                width, alpha = (1.6, 1.0) if len(histories) == 1 else (1.1, 0.7)
                panel.plot(history["step"], history[column], linewidth=width, alpha=alpha, **style)
            ends.append(float(np.mean([history[column].iloc[-1] for history in histories])))
        low, high = panel.get_ylim()
        right = max(float(history["step"].iloc[-1]) for history in histories)
        for layer, (end, place) in enumerate(zip(ends, spread_apart(ends, 0.055 * (high - low)), strict=True), start=1):
            color = COLORS[(layer - 1) % len(COLORS)]
            panel.plot([right, 1.035 * right], [end, place], color=color, linewidth=0.8, clip_on=False)
            panel.annotate(f"{layer}", (1.045 * right, place), va="center", color=color, fontsize=9, fontweight="bold")
        panel.set_xlim(0, 1.09 * right)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return figure


def spread_apart(values: Sequence[float], gap: float) -> NDArray[np.float64]:
    """Places for labels near their values, in the same order and at least `gap` apart.

    >>> spread_apart([1.0, 1.0, 3.0], 0.5).tolist()
    [0.75, 1.25, 3.0]
    """
    order = np.argsort(values, kind="stable")
    clusters: list[tuple[float, int]] = []  # sum of the values, their number
    for value in np.asarray(values, dtype=float)[order]:
        clusters.append((value, 1))
        while len(clusters) > 1:
            (below, n_below), (above, n_above) = clusters[-2:]
            if above / n_above - below / n_below >= gap * (n_below + n_above) / 2 - 1e-12:
                break
            clusters[-2:] = [(below + above, n_below + n_above)]
    places = np.concatenate([total / count + gap * (np.arange(count) - (count - 1) / 2) for total, count in clusters])
    spread = np.empty(len(places))
    spread[order] = places
    return spread


def draw_stride_spread(groups: Mapping[str, Sequence[pd.DataFrame]], axis: str, title: str) -> Figure:
    """From where to where the stride of each layer went in every run (Figures 3b, 3c and A.1 of the paper).

    Args:
        groups: The strides over the training of the runs of each group.
        axis: time or mel.
        title: Of the panel.
    """
    n_layers = max(len(stride_columns(history, axis)) for members in groups.values() for history in members)
    n_runs = sum(len(members) for members in groups.values())
    with mpl.rc_context(STYLE):
        figure, panel = new_panel(title, "layer", "stride", height=3.5)
        step, number = min(0.12, 0.8 / n_runs), 0
        for place, (group, members) in enumerate(groups.items()):
            for history in members:
                columns = stride_columns(history, axis)
                x = np.arange(1, len(columns) + 1) + step * (number - (n_runs - 1) / 2)
                start, end = history[columns].iloc[0].to_numpy(), history[columns].iloc[-1].to_numpy()
                color = COLORS[place % len(COLORS)]
                first = history is members[0]
                panel.vlines(x, start, end, color=color, linewidth=1, alpha=0.6)
                panel.plot(x, start, linestyle="", marker="_", markersize=6, color=SOFT, markeredgewidth=1.4,
                           label="start" if number == 0 else None)  # fmt: skip
                panel.plot(x, end, linestyle="", marker=MARKERS[place % len(MARKERS)], markersize=4.5, color=color,
                           label=(group if len(groups) > 1 else "end") if first else None)  # fmt: skip
                number += 1
        panel.set_xticks(range(1, n_layers + 1))
        panel.grid(axis="x", visible=False)
        figure.legend(*panel.get_legend_handles_labels(), loc="outside lower left", ncols=2)
        return figure

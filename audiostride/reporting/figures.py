"""The figures of a report on accuracy, cut-offs, measured gains and the course of the training."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from audiostride.reporting.class_figures import draw_confusion
from audiostride.reporting.cutoffs import AXES
from audiostride.reporting.style import COLORS, INK, MARKERS, SOFT, STYLE, inline_svg, new_panel, render

__all__ = [
    "AXES",
    "STYLE",
    "draw_accuracies",
    "draw_confusion",
    "draw_cutoffs",
    "draw_gains",
    "draw_history",
    "inline_svg",
    "render",
]

AXIS_TITLES = {"time": "over time", "mel": "over mel frequency"}
AXIS_LABELS = {"time": "modulation rate (Hz)", "mel": "modulation density (cycles/mel)"}
DIGITS = {"time": 1, "mel": 3}


def draw_cutoffs(summary: pd.DataFrame, starts: Mapping[str, pd.DataFrame], axis: str) -> Figure:
    """What each layer passes along one axis, and where its cut-off was at the start of the training.

    Args:
        summary: Mean cut-offs of each group (``pooling``), as `summarise_cutoffs` gives them.
        starts: Cut-offs at the start of the training, of the groups whose runs share them.
        axis: time or mel.
    """
    groups = list(dict.fromkeys(summary["pooling"]))
    n_layers = int(summary["layer"].max())
    with mpl.rc_context(STYLE):
        height = 1.2 + n_layers * max(0.34, 0.2 * len(groups) + 0.1)
        figure, panel = new_panel(f"Passed {AXIS_TITLES[axis]}", AXIS_LABELS[axis], "layer", height=height)
        thickness = 0.72 / len(groups)
        for place, group in enumerate(groups):
            rows = summary[(summary["axis"] == axis) & (summary["pooling"] == group)]
            y = rows["layer"].to_numpy() + thickness * (place - (len(groups) - 1) / 2)
            color = COLORS[place % len(COLORS)]
            masked = rows["pass_edge"].notna().to_numpy()
            full = rows["pass_edge"].where(masked, rows["cutoff"])
            panel.barh(y, full, height=0.8 * thickness, color=color, alpha=0.75)
            ramp = (rows["stop_edge"] - rows["pass_edge"]).clip(lower=0).fillna(0)
            panel.barh(y, ramp, left=full, height=0.8 * thickness, color=color, alpha=0.25)
            spread = rows["cutoff_sd"].fillna(0).to_numpy()
            marker = MARKERS[place % len(MARKERS)]
            error = spread if spread.any() else None
            label = group if len(groups) > 1 else "cut-off"
            panel.errorbar(rows["cutoff"], y, xerr=error, fmt=marker, markersize=5,
                           color=INK, elinewidth=1.2, capsize=2.5, label=label)  # fmt: skip
            if group in starts:
                before = starts[group]
                panel.plot(before.loc[before["axis"] == axis, "cutoff"], y, marker="|", markersize=11,
                           markeredgewidth=1.8, linestyle="", color=SOFT,
                           label="before training" if place == 0 else None)  # fmt: skip
            if len(groups) == 1:
                ends = np.fmax(rows["stop_edge"].fillna(0), rows["cutoff"]).to_numpy()
                if group in starts:
                    before = starts[group]
                    ends = np.fmax(ends, before.loc[before["axis"] == axis, "cutoff"].to_numpy())
                for end, row, value in zip(ends, y, rows["cutoff"], strict=True):
                    panel.annotate(f"{value:.{DIGITS[axis]}f}", (end, row), (5, 0), textcoords="offset points",
                                   va="center", fontsize=9)  # fmt: skip
        panel.set_yticks(range(1, n_layers + 1))
        panel.set_ylim(n_layers + 0.6, 0.4)
        panel.set_xlim(0, max(panel.get_xlim()[1], 1e-6) * (1.08 if len(groups) == 1 else 1.0))
        panel.grid(axis="y", visible=False)
        if len(groups) > 1 or starts:
            figure.legend(*panel.get_legend_handles_labels(), loc="outside lower left", ncols=2)
        return figure


def draw_gains(gains: pd.DataFrame, n_out: Mapping[int, float], axis: str) -> Figure:
    """Measured gain of each layer along one axis as dots, over the computed mask as an area; a row per layer.

    Args:
        gains: The table of `measure_gains`.
        n_out: For each layer the highest frequency that its output holds, half its number of bins, in the unit of the
            axis; a tick marks it.
        axis: time or mel.
    """
    rows = gains[gains["axis"] == axis]
    layers = sorted(rows["layer"].unique())
    with mpl.rc_context(STYLE):
        figure, panel = new_panel(
            f"Gain {AXIS_TITLES[axis]}", AXIS_LABELS[axis], "layer", height=1.1 + 0.52 * len(layers)
        )
        named: set[str] = set()
        for place, layer in enumerate(layers):
            own, base, color = rows[rows["layer"] == layer], -1.3 * place, COLORS[0]
            x, level = own["frequency"].to_numpy(), base + own["mask"].to_numpy()
            panel.fill_between(x, base, level, color=color, alpha=0.22, linewidth=0)
            panel.plot(x, level, color=color, linewidth=1.2, label="computed mask" if place == 0 else None)
            for folded, face, label in ((False, COLORS[1], "measured"), (True, "none", "measured, folded")):
                some = own[own["folded"] == folded]
                if len(some):
                    panel.plot(some["frequency"], base + some["gain"], linestyle="", marker="o", markersize=3.2,
                               markeredgecolor=COLORS[1], markerfacecolor=face, markeredgewidth=0.9,
                               label=label if label not in named else None)  # fmt: skip
                    named.add(label)
            panel.plot([n_out[layer]] * 2, [base, base + 1], color=SOFT, linewidth=1, linestyle=":",
                       label="half the output's rate" if place == 0 else None)  # fmt: skip
        panel.set_yticks([-1.3 * place for place in range(len(layers))], [str(layer) for layer in layers])
        panel.set_xlim(left=0)
        figure.legend(*panel.get_legend_handles_labels(), loc="outside lower left", ncols=2)
        return figure


def draw_history(histories: Sequence[tuple[str, pd.DataFrame]], what: str) -> Figure:
    """Loss or validation accuracy over the training, one colour and mark per group of runs.

    Args:
        histories: Group and history of each run.
        what: loss or accuracy.
    """
    groups = list(dict.fromkeys(group for group, _ in histories))
    with mpl.rc_context(STYLE):
        loss = what == "loss"
        title, unit = ("Loss", "cross entropy") if loss else ("Validation accuracy", "%")
        figure, panel = new_panel(title, "step", unit)
        named: set[str] = set()
        for group, history in histories:
            place = groups.index(group)
            style: dict[str, Any] = {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place % len(MARKERS)]}
            style |= {"markersize": 3.5, "linewidth": 1.3}
            new = group not in named
            named.add(group)
            if loss:
                panel.plot(history["step"], history["train_loss"], **style, label="training" if new else None)
                panel.plot(
                    history["step"], history["valid_loss"], **{**style, "linestyle": "--"},
                    label="validation" if new else None,
                )  # fmt: skip
            else:
                panel.plot(history["step"], 100 * history["valid_accuracy"], **style, label=group if new else None)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if loss:
            panel.set_ylim(bottom=0)
            panel.legend(*(entries[:2] for entries in panel.get_legend_handles_labels()))
        elif len(groups) > 1:
            figure.legend(*panel.get_legend_handles_labels(), loc="outside lower left", ncols=2)
        return figure


def draw_accuracies(table: pd.DataFrame) -> Figure:
    """Test accuracies with their intervals beside the majority class and the classic baseline, a row each.

    Args:
        table: ``name``, ``accuracy``, ``low``, ``high``, ``majority``, ``classic``; shares, or NaN.
    """
    y = np.arange(len(table))
    with mpl.rc_context(STYLE):
        figure, panel = new_panel("Test accuracy", "%", "", height=1.3 + 0.36 * len(table), width=6.6)
        center = 100 * table["accuracy"]
        spread = [center - 100 * table["low"].fillna(table["accuracy"]),
                  100 * table["high"].fillna(table["accuracy"]) - center]  # fmt: skip
        panel.errorbar(center, y, xerr=np.array(spread), fmt="o", color=COLORS[0], capsize=3, label="this network")
        _mark(panel, 100 * table["majority"], y, "majority class", marker="|", color=SOFT)
        _mark(panel, 100 * table["classic"], y, "log-mel statistics + SVM", marker="s", color=COLORS[1])
        panel.set_yticks(y, [name if len(name) <= 40 else f"{name[:39]}…" for name in table["name"]])
        panel.set_ylim(len(table) - 0.5, -0.5)
        panel.set_xlim(0, 101)
        figure.legend(*panel.get_legend_handles_labels(), loc="outside lower left", ncols=3)
        return figure


def _mark(panel: Axes, x: "pd.Series[float]", y: np.ndarray[Any, Any], label: str, *, marker: str, color: str) -> None:
    panel.plot(
        x, y, linestyle="", marker=marker, markersize=10 if marker == "|" else 5, markeredgewidth=1.8,
        markerfacecolor="none", color=color, label=label,
    )  # fmt: skip

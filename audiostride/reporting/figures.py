"""The figures of a report: cut-offs, measured gains, strides, the course of the training, accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from audiostride.reporting.style import COLORS, INK, SOFT, STYLE, legend_below, legend_entries, new_panel, series_style

AXIS_TITLES = {"time": "over time", "mel": "over mel frequency"}
AXIS_LABELS = {"time": "modulation rate (Hz)", "mel": "modulation density (cycles/mel)"}
DIGITS = {"time": 1, "mel": 3}
LINES = ("-", "--", ":", "-.")


@mpl.rc_context(STYLE)
def draw_cutoffs(summary: pd.DataFrame, starts: Mapping[str, pd.DataFrame], axis: str) -> Figure:
    """What each layer passes along one axis, and where its cut-off was at the start of the training (`starts`).

    The summary is that of `summarise_cutoffs`; `starts` has the groups whose runs began with the same strides.
    """
    groups, n_layers = list(summary["pooling"].unique()), int(summary["layer"].max())
    height = 1.2 + n_layers * max(0.34, 0.2 * len(groups) + 0.1)
    figure, panel = new_panel(f"Passed {AXIS_TITLES[axis]}", AXIS_LABELS[axis], "layer", height=height)
    thickness = 0.72 / len(groups)
    for place, group in enumerate(groups):
        rows = summary[(summary["axis"] == axis) & (summary["pooling"] == group)]
        y = rows["layer"].to_numpy() + thickness * (place - (len(groups) - 1) / 2)
        style = series_style(place)
        bars: dict[str, Any] = {"height": 0.8 * thickness, "color": style["color"]}
        full = rows["pass_edge"].fillna(rows["cutoff"])  # strided convolution has no mask
        panel.barh(y, full, alpha=0.75, **bars)
        panel.barh(y, (rows["stop_edge"] - rows["pass_edge"]).clip(lower=0).fillna(0), left=full, alpha=0.25, **bars)
        spread = rows["cutoff_sd"].fillna(0).to_numpy()
        panel.errorbar(rows["cutoff"], y, xerr=spread if spread.any() else None, fmt=style["marker"], color=INK,
                       markersize=5, elinewidth=1.2, capsize=2.5,
                       label=group if len(groups) > 1 else "cut-off")  # fmt: skip
        ends = np.fmax(rows["stop_edge"], rows["cutoff"]).to_numpy()
        if group in starts:
            before = starts[group].loc[starts[group]["axis"] == axis, "cutoff"].to_numpy()
            panel.plot(before, y, marker="|", markersize=11, markeredgewidth=1.8, linestyle="", color=SOFT,
                       label="before training" if place == 0 else None)  # fmt: skip
            ends = np.fmax(ends, before)
        if len(groups) == 1:
            for end, row, value in zip(ends, y, rows["cutoff"], strict=True):
                panel.annotate(f"{value:.{DIGITS[axis]}f}", (end, row), (5, 0), textcoords="offset points",
                               va="center", fontsize=9)  # fmt: skip
    panel.set_yticks(range(1, n_layers + 1))
    panel.set_ylim(n_layers + 0.6, 0.4)
    panel.set_xlim(0, max(panel.get_xlim()[1], 1e-6) * (1.08 if len(groups) == 1 else 1.0))
    panel.grid(axis="y", visible=False)
    if len(groups) > 1 or starts:
        legend_below(figure, panel)
    return figure


@mpl.rc_context(STYLE)
def draw_map(summary: pd.DataFrame, papers: Mapping[str, tuple[float, float]]) -> Figure:
    """Cut-offs of every layer, rate against density: a mark for each, joined from layer to layer of a group.

    Args:
        summary: The table of `summarise_cutoffs`.
        papers: Rate in Hz and density in cycles/mel of first layers, by task, which get open marks.
    """
    groups = list(summary["pooling"].unique())
    figure, panel = new_panel("Rate and density", AXIS_LABELS["time"], AXIS_LABELS["mel"], height=3.6, width=4.6)
    for place, group in enumerate(groups):
        own = summary[summary["pooling"] == group].pivot_table(index="layer", columns="axis", values="cutoff")
        panel.plot(own["time"], own["mel"], label=group, linewidth=1, markersize=6, **series_style(place))
        if len(groups) <= 4:
            for layer, rate, density in own[["time", "mel"]].itertuples():
                panel.annotate(
                    str(layer), (float(rate), float(density)), (4, 4), textcoords="offset points", fontsize=9
                )
    if papers:
        rates, densities = zip(*papers.values(), strict=True)
        panel.plot(rates, densities, linestyle="", marker="o", markersize=6, markerfacecolor="none",
                   markeredgecolor=SOFT, label="first layer, the paper")  # fmt: skip
        named: list[tuple[list[str], tuple[float, float]]] = []
        for name, (rate, density) in papers.items():
            near = (names for names, at in named if abs(at[0] - rate) < 3 and abs(at[1] - density) < 0.012)
            if (names := next(near, None)) is None:
                named.append(([name], (rate, density)))
            else:
                names.append(name)  # no room for two
        for names, mark in named:
            panel.annotate(", ".join(names), mark, (-6, 4), textcoords="offset points", ha="right",
                           fontsize=8, color=SOFT)  # fmt: skip
    panel.set_xlim(0, panel.get_xlim()[1] * 1.12)
    panel.set_ylim(bottom=0)
    if len(groups) > 1 or papers:
        legend_below(figure, panel)
    return figure


@mpl.rc_context(STYLE)
def draw_gains(gains: pd.DataFrame, n_out: Mapping[int, float], axis: str) -> Figure:
    """Measured gain of each layer along one axis as dots, over the computed mask as an area; a row per layer.

    Args:
        gains: The table of `measure_gains`.
        n_out: For each layer the highest frequency that its output holds, in the unit of the axis; a tick marks it.
        axis: time or mel.
    """
    layers: list[tuple[Any, pd.DataFrame]] = list(gains.loc[gains["axis"] == axis].groupby("layer"))
    height = 1.1 + 0.52 * len(layers)
    figure, panel = new_panel(f"Gain {AXIS_TITLES[axis]}", AXIS_LABELS[axis], "layer", height=height)
    for place, (layer, own) in enumerate(layers):
        base = -1.3 * place
        x, level = own["frequency"].to_numpy(), base + own["mask"].to_numpy()
        panel.fill_between(x, base, level, color=COLORS[0], alpha=0.22, linewidth=0)
        panel.plot(x, level, color=COLORS[0], linewidth=1.2, label="computed mask")
        for folded, some in own.groupby("folded"):
            panel.plot(some["frequency"], base + some["gain"], linestyle="", marker="o", markersize=3.2,
                       markeredgecolor=COLORS[1], markerfacecolor="none" if folded else COLORS[1], markeredgewidth=0.9,
                       label="measured, folded" if folded else "measured")  # fmt: skip
        panel.plot([n_out[layer]] * 2, [base, base + 1], color=SOFT, linewidth=1, linestyle=":",
                   label="half the output's rate")  # fmt: skip
    panel.set_yticks([-1.3 * place for place in range(len(layers))], [str(layer) for layer, _ in layers])
    panel.set_xlim(left=0)
    legend_below(figure, panel)
    return figure


@mpl.rc_context(STYLE)
def draw_history(histories: Sequence[tuple[str, pd.DataFrame]], what: str, *, metric: str = "accuracy") -> Figure:
    """Loss or validation accuracy (`what`) over the training of each run, one colour and mark per group of runs.

    What is called accuracy may be another metric.
    """
    groups = list(dict.fromkeys(group for group, _ in histories))
    loss = what == "loss"
    figure, panel = new_panel("Loss" if loss else f"Validation {metric}", "step", "cross entropy" if loss else "%")
    for group, history in histories:
        style = series_style(groups.index(group)) | {"markersize": 3.5, "linewidth": 1.3}
        if loss:
            panel.plot(history["step"], history["train_loss"], **style, label="training")
            panel.plot(history["step"], history["valid_loss"], **style, linestyle="--", label="validation")
        else:
            panel.plot(history["step"], 100 * history["valid_accuracy"], **style, label=group)
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if loss:
        panel.set_ylim(bottom=0)
        panel.legend(*legend_entries(panel))
    elif len(groups) > 1:
        legend_below(figure, panel)
    return figure


@mpl.rc_context(STYLE)
def draw_accuracies(table: pd.DataFrame, *, metric: str = "accuracy") -> Figure:
    """Test accuracies with their intervals beside the majority class and the support vector machine, a row each.

    What is called accuracy may be another metric.

    The table has a ``name`` and ``accuracy``, ``low``, ``high``, ``majority`` and ``classic``: shares, or NaN.
    """
    y, width = np.arange(len(table)), 4.8 if table["name"].str.len().max() <= 16 else 6.6
    figure, panel = new_panel(f"Test {metric}", "%", "", height=1.4 + 0.36 * len(table), width=width)
    center = 100 * table["accuracy"]
    spread = [center - 100 * table["low"].fillna(table["accuracy"]),
              100 * table["high"].fillna(table["accuracy"]) - center]  # fmt: skip
    panel.errorbar(center, y, xerr=np.array(spread), fmt="o", color=COLORS[0], capsize=3, label="this network")
    marks: dict[str, Any] = {"linestyle": "", "markeredgewidth": 1.8, "markerfacecolor": "none"}
    panel.plot(100 * table["majority"], y, marker="|", markersize=10, color=SOFT, label="majority class", **marks)
    panel.plot(100 * table["classic"], y, marker="s", markersize=5, color=COLORS[1],
               label="support vector machine", **marks)  # fmt: skip
    panel.set_yticks(y, [name if len(name) <= 40 else f"{name[:39]}…" for name in table["name"]])
    panel.set_ylim(len(table) - 0.5, -0.5)
    panel.set_xlim(0, 101)
    legend_below(figure, panel)
    return figure


def stride_columns(history: pd.DataFrame, axis: str) -> list[str]:
    """The columns of an axis in a history of strides, a layer each."""
    return [name for name in history.columns if name.endswith(f"_{axis}")]


@mpl.rc_context(STYLE)
def draw_strides(histories: Sequence[pd.DataFrame], axis: str) -> Figure:
    """Strides of a group's runs over the training as in Figure 3 of the paper: a line per layer and run."""
    figure, panel = new_panel(f"Stride {AXIS_TITLES[axis]}", "step", "stride", height=3.3)
    width, alpha = (1.6, 1.0) if len(histories) == 1 else (1.1, 0.7)
    ends = []
    for number, column in enumerate(stride_columns(histories[0], axis)):
        color, line = COLORS[number % len(COLORS)], LINES[number // len(COLORS) % len(LINES)]
        for history in histories:
            panel.plot(history["step"], history[column], linewidth=width, alpha=alpha, color=color, linestyle=line)
        ends.append(float(np.mean([history[column].iloc[-1] for history in histories])))
    low, high = panel.get_ylim()
    right = max(float(history["step"].iloc[-1]) for history in histories)
    for number, (end, place) in enumerate(zip(ends, spread_apart(ends, 0.055 * (high - low)), strict=True)):
        color = COLORS[number % len(COLORS)]
        panel.plot([right, 1.035 * right], [end, place], color=color, linewidth=0.8, clip_on=False)
        panel.annotate(str(number + 1), (1.045 * right, place), va="center", color=color, fontsize=9, fontweight="bold")
    panel.set_xlim(0, 1.09 * right)
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def spread_apart(values: Sequence[float], gap: float) -> NDArray[np.float64]:
    """Places for labels near their values, in the same order and at least `gap` apart.

    >>> spread_apart([1.0, 1.0, 3.0], 0.5).tolist()
    [0.75, 1.25, 3.0]
    """
    order, steps = np.argsort(values, kind="stable"), gap * np.arange(len(values))
    places = np.empty(len(values))
    places[order] = isotonic_regression(np.asarray(values, dtype=float)[order] - steps).x + steps
    return places


@mpl.rc_context(STYLE)
def draw_stride_spread(groups: Mapping[str, Sequence[pd.DataFrame]], axis: str) -> Figure:
    """From where to where the stride of each layer went in every run (Figures 3b, 3c and A.1 of the paper)."""
    runs = [(place, group, history) for place, (group, members) in enumerate(groups.items()) for history in members]
    step, n_layers = min(0.12, 0.8 / len(runs)), 0
    figure, panel = new_panel(f"Stride {AXIS_TITLES[axis]}", "layer", "stride", height=3.5)
    for number, (place, group, history) in enumerate(runs):
        strides = history[stride_columns(history, axis)].to_numpy()  # (records, layers)
        n_layers = max(n_layers, strides.shape[1])
        x = np.arange(1, strides.shape[1] + 1) + step * (number - (len(runs) - 1) / 2)
        style = series_style(place)
        panel.vlines(x, strides[0], strides[-1], color=style["color"], linewidth=1, alpha=0.6)
        panel.plot(x, strides[0], "_", markersize=6, color=SOFT, markeredgewidth=1.4, label="start")
        panel.plot(x, strides[-1], linestyle="", markersize=4.5, label=group if len(groups) > 1 else "end", **style)
    panel.set_xticks(range(1, n_layers + 1))
    panel.grid(axis="x", visible=False)
    legend_below(figure, panel)
    return figure

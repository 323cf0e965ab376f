"""Random starting strides as a figure: strides over the training, validation accuracy, accuracy against cost."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from audiostride.reporting.style import COLORS, INK, STYLE
from lab.figures import MARKERS
from lab.random_strides_cells import CellResult
from lab.random_strides_starts import Start, name_start
from lab.random_strides_table import axis_names, group_cells, layer_columns, poolings_of, starts_of
from lab.tables import POOLING_NAMES

IN_A_ROW = 4  # panels of layers
LINES: tuple[Literal["-", "--"], ...] = ("-", "--")  # of the two axes
WIDTH_IN = 11.0


def draw_recovery(results: Sequence[CellResult], *, unit: str, usual: Start) -> Figure:
    """What becomes of the starting strides, in three parts, the first where there are learned strides.

    - a: learned strides of each layer over the training, a line per start (mean over seeds) and axis;
    - b: validation accuracy over the training, a line per pooling: mean over starts, the range of starts shaded;
    - c: test accuracy against true multiply-adds, a mark per cell.

    The paper's Figure 3 shows strides over the training as well; its panels may be others.

    Args:
        results: Of finished cells.
        unit: What costs are of: window or image.
        usual: Strides of the strided network to which costs are relative.

    Raises:
        InputError: No results; a seed that occurs twice in a cell.
    """
    groups = group_cells(results)
    learned = {
        start: [result for result in groups.get((start, "diffstride"), []) if result.strides is not None]
        for start in starts_of(results)
    }
    learned = {start: members for start, members in learned.items() if members}
    with mpl.rc_context(STYLE):
        if not learned:
            figure = Figure(figsize=(WIDTH_IN, 4.2), layout="constrained")
            _draw_accuracies(figure, results, unit=unit, usual=usual)
            return figure
        n_rows = math.ceil(len(layer_columns(next(iter(learned.values()))[0])) / IN_A_ROW)
        heights = [0.5 + 2.5 * n_rows, 4.2]
        figure = Figure(figsize=(WIDTH_IN, sum(heights)), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=heights)
        above, below = parts
        _draw_strides(above, learned, n_rows=n_rows)
        _draw_accuracies(below, results, unit=unit, usual=usual)
        return figure


def color_starts(starts: Sequence[Start]) -> dict[Start, Any]:
    """A colour for each start: the page's, or where these do not suffice evenly spaced ones."""
    if len(starts) <= len(COLORS):
        return dict(zip(starts, COLORS, strict=False))
    colors = mpl.colormaps["viridis"]
    return {start: colors(0.88 * number / (len(starts) - 1)) for number, start in enumerate(starts)}


def mean_course(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean of tables with a column ``step``, at the steps that all of them have."""
    joined = pd.concat(tables)
    counts = joined.groupby("step").size()
    return joined.groupby("step").mean(numeric_only=True).loc[counts == len(tables)].reset_index()


def _draw_strides(figure: SubFigure, learned: dict[Start, list[CellResult]], *, n_rows: int) -> None:
    columns = layer_columns(next(iter(learned.values()))[0])
    n_columns = math.ceil(len(columns) / n_rows)
    grid = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    panels: list[Axes] = list(grid.flat)
    colors = color_starts(list(learned))
    courses = {
        start: mean_course([result.strides for result in members if result.strides is not None])
        for start, members in learned.items()
    }
    for number, (panel, (layer, names)) in enumerate(zip(panels, columns.items(), strict=False)):
        for start, course in courses.items():
            for name, line in zip(names, LINES, strict=False):
                panel.plot(course["step"], course[name], linestyle=line, color=colors[start], linewidth=1.3)
        panel.set_title(f"a  strides of layer {layer}" if number == 0 else f"layer {layer}")
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if number % n_columns == 0:
            panel.set_ylabel("stride")
        if number + n_columns >= len(columns):  # the lowest of its column
            panel.set_xlabel("step")
            panel.tick_params(labelbottom=True)
    for panel in panels[len(columns) :]:
        panel.remove()
    handles = [Line2D([], [], color=color, label=name_start(start)) for start, color in colors.items()]
    axes = axis_names(next(iter(columns.values())))
    handles += [
        Line2D([], [], color=INK, linestyle=line, linewidth=1.3, label=f"over {axis}")
        for axis, line in zip(axes, LINES, strict=False)
    ]
    # Each takes so many inches of the width, at the size of the legend's letters.
    longest = 0.45 + 0.075 * max(len(name_start(start)) for start in learned)
    legend_rows = math.ceil(len(handles) * longest / (WIDTH_IN - 0.5))
    figure.legend(handles=handles, loc="outside upper center", ncols=math.ceil(len(handles) / legend_rows))


def _draw_accuracies(figure: Figure | SubFigure, results: Sequence[CellResult], *, unit: str, usual: Start) -> None:
    courses, costs = figure.subplots(1, 2)
    groups, starts = group_cells(results), starts_of(results)
    handles = []
    for pooling in poolings_of(results):
        marker, color = MARKERS[pooling]
        own = [groups[start, pooling] for start in starts if (start, pooling) in groups]
        # 100 %, each start a column at the steps that all have.
        each = [mean_course([result.history[["step", "valid_accuracy"]] for result in members]) for members in own]
        table = pd.concat([course.set_index("step")["valid_accuracy"] for course in each], axis=1, join="inner") * 100
        steps = table.index.to_numpy(dtype=float)
        courses.fill_between(steps, table.min(axis=1), table.max(axis=1), color=color, alpha=0.16, linewidth=0)
        courses.plot(steps, table.mean(axis=1), color=color, linewidth=1.6, marker=marker if len(steps) == 1 else None)
        cells = [result for members in own for result in members]
        costs.plot(
            [result.relative for result in cells],
            [100 * result.accuracy for result in cells],
            linestyle="",
            marker=marker,
            color=color,
            markersize=7,
            alpha=0.75,
            markeredgewidth=0,
        )
        handles.append(Line2D([], [], color=color, marker=marker, markersize=6, label=POOLING_NAMES[pooling]))
    several = len(starts) > 1
    courses.set_title("b  validation accuracy" + (": mean and range over starts" if several else ""))
    courses.set_xlabel("step")
    courses.set_ylabel("validation accuracy (%)")
    courses.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    costs.set_title("c  test accuracy and cost: a mark per run")
    costs.set_xlabel(f"multiply-adds per {unit}, relative to strided {name_start(usual)}")
    costs.set_ylabel("test accuracy (%)")
    found = [result.relative for result in results]
    if max(found) > 8 * min(found):
        costs.set_xscale("log")
        costs.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        costs.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        costs.xaxis.set_minor_locator(NullLocator())
    costs.margins(0.08)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))

"""Figures of experiments: accuracy against cost, as in the paper's Figure 4; a figure stands beside its table."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from audiostride.reporting.style import COLORS, INK, STYLE, render
from audiostride.wording import count_of
from audiostride.writing import write_bytes, write_text
from lab.costs import CostPoint, Start, format_start, group_points
from lab.data_stages import say
from lab.tables import POOLING_NAMES

MARKERS = {"strided": ("s", "#555555"), "spectral": ("^", "#b8520a"), "diffstride": ("o", "#31688e")}
CostAxis = tuple[str, Callable[[CostPoint], float]]
"""Title of a panel's axis, and the cost of a point on it."""
# Where a label may stand, in points from its marker, the first free place first: beside it, then farther away.
OFFSETS = [
    (direction[0] * distance, direction[1] * distance)
    for distance in (1.0, 1.5, 2.2)
    for direction in ((0, 12), (0, -12), (12, 8), (12, -8), (-12, 8), (-12, -8), (13, 0), (-13, 0))
]
FONT_SIZE = 9


def draw_costs(points: Sequence[CostPoint], costs: Sequence[CostAxis], *, accuracy: str) -> Figure:
    """Accuracy against each cost, a point for each network; a line joins those of DiffStride in the order of lambda.

    With one start colours tell poolings apart, with several starts these; shapes are the poolings in both. Lambda
    stands beside each point of one start. Bars are standard deviations of a sample over runs, where there are several.

    Args:
        points: The runs.
        costs: What panels have on their axes.
        accuracy: Title of their common axis.

    Raises:
        InputError: No points; a seed that occurs twice in one group.
    """
    groups = group_points(points)
    starts = list(dict.fromkeys(start for start, _ in groups))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 4.6), layout="constrained")
        panels: list[Axes] = list(figure.subplots(1, len(costs), sharey=True))
        labels: list[list[tuple[float, float, str, str]]] = []
        for panel, (title, cost_of) in zip(panels, costs, strict=True):
            labels.append([])
            for number, start in enumerate(starts):
                for pooling in POOLING_NAMES:
                    own = [members for (found, _), members in groups.items()
                           if (found, members[0].pooling) == (start, pooling)]  # fmt: skip
                    color = MARKERS[pooling][1] if len(starts) == 1 else COLORS[number % len(COLORS)]
                    if own:
                        labels[-1] += _draw_line(panel, own, cost_of, color=color)
            panel.set_xlabel(title)
            panel.margins(x=0.12, y=0.14)
        runs = {len(members) for members in groups.values()}
        panels[0].set_ylabel(f"{accuracy}, {'one run each' if runs == {1} else 'mean and sd over runs'}")
        handles = _legend(points, starts)
        rows = 1 if len(starts) == 1 else 2
        figure.legend(handles=handles, loc="outside upper center", ncols=-(-len(handles) // rows), frameon=False)
        figure.draw_without_rendering()  # constrained layout moves the panels, and labels are placed by pixels
        for panel, wanted in zip(panels, labels, strict=True):
            if len(starts) == 1:  # of several starts there would be too many
                place_labels(panel, wanted, pixels=figure.dpi / 72)
        return figure


def figure_stage(draw: Callable[[], Figure], text: str, folder: Path, *, n_runs: int, name: str = "figure") -> None:
    """Write ``<name>.png``, ``<name>.svg`` and last ``table.md``, which says of which runs they are; what stands stays.

    Args:
        draw: Makes the figure.
        text: The tables of the runs.
        folder: Where, a folder that is there.
        n_runs: How many runs these are.
        name: Of the figure.
    """
    record, figures = folder / "table.md", {kind: folder / f"{name}.{kind}" for kind in ("png", "svg")}
    drawn = all(file.is_file() for file in [record, *figures.values()])
    if drawn and record.read_text(encoding="utf-8") == f"{text}\n":
        say("figure", f"{record} stands, skipped")
        return
    figure = draw()
    for kind, file in figures.items():
        write_bytes(file, render(figure, format=kind))
    write_text(record, f"{text}\n")
    say("figure", f"{count_of(n_runs, 'run')} -> {record}, {' and '.join(map(str, figures.values()))}")


def _draw_line(
    panel: Axes, groups: Sequence[Sequence[CostPoint]], cost_of: Callable[[CostPoint], float], *, color: str
) -> list[tuple[float, float, str, str]]:
    """Draw the points of one start and pooling, and return where labels belong: x, y, text and colour."""
    pooling = groups[0][0].pooling
    x = [[cost_of(point) for point in members] for members in groups]
    y = [[100 * point.accuracy for point in members] for members in groups]
    means = [(fmean(costs), fmean(accuracies)) for costs, accuracies in zip(x, y, strict=True)]
    marker = MARKERS[pooling][0]
    panel.errorbar(
        [mean[0] for mean in means],
        [mean[1] for mean in means],
        xerr=spread_of(x),
        yerr=spread_of(y),
        fmt=f"{marker}-" if len(groups) > 1 else marker,
        color=color,
        linewidth=0.8,
        elinewidth=1.1,
        capsize=3,
        markersize=7,
    )
    if pooling != "diffstride":
        return []
    return [(*mean, f"λ={members[0].weight:g}", color) for mean, members in zip(means, groups, strict=True)]


def _legend(points: Sequence[CostPoint], starts: Sequence[Start]) -> list[Line2D]:
    """What the shapes are; of several starts, in a second part, what the colours are."""
    several = len(starts) > 1
    weights = sorted({point.weight for point in points if point.pooling == "diffstride"})
    handles = []
    for pooling, (marker, color) in MARKERS.items():
        if not any(point.pooling == pooling for point in points):
            continue
        text = "fixed strides"
        if pooling == "diffstride":
            text = f"λ = {' to '.join(f'{weight:g}' for weight in dict.fromkeys([weights[0], weights[-1]]))}"
        handles.append(
            Line2D(
                [],
                [],
                marker=marker,
                linestyle="-" if pooling == "diffstride" and len(weights) > 1 else "",
                color=INK if several else color,
                linewidth=0.8,
                markersize=7,
                label=f"{POOLING_NAMES[pooling]}, {text}",
            )
        )
    if several:
        # Legends are filled column by column, of two rows: the second part begins a column of its own.
        handles += [Line2D([], [], linestyle="", label="")] * (len(handles) % 2)
        handles += [
            Line2D([], [], linewidth=4, color=COLORS[number % len(COLORS)], label=f"from {format_start(start)}")
            for number, start in enumerate(starts)
        ]
    return handles


def spread_of(groups: Sequence[Sequence[float]]) -> list[float] | None:
    """Lengths of the bars; None where all runs are alone, so that none are drawn, in the legend neither."""
    if all(len(values) == 1 for values in groups):
        return None
    return [stdev(values) if len(values) > 1 else 0.0 for values in groups]


def place_labels(panel: Axes, labels: Sequence[tuple[float, float, str, str]], *, pixels: float) -> None:
    """Write each label where it covers least: no marker, no line, no other label, and not beyond the panel.

    Args:
        panel: Where.
        labels: x, y, text and colour of each.
        pixels: In a point, of 1/72 inch.
    """
    inside = panel.get_window_extent()
    places = [tuple(map(float, panel.transData.transform((x, y)))) for x, y, _, _ in labels]
    # Markers (caps of bars are lines with other ones), lines that join them, and bars, which are segments.
    lines = panel.get_lines()
    shapes = [shape for shape, _ in MARKERS.values()]
    markers = [panel.transData.transform(line.get_xydata()) for line in lines if line.get_marker() in shapes]
    taken = [_box_around(x, y, 5 * pixels) for path in markers for x, y in path]
    joins = [line.get_xydata() for line in lines if line.get_linestyle() == "-"]
    bars = [bar for bar in panel.collections if isinstance(bar, LineCollection)]
    for path in [*joins, *(segment for bar in bars for segment in bar.get_segments())]:
        for (x0, y0), (x1, y1) in pairwise(panel.transData.transform(path)):
            # A row of small boxes: the box of the whole line would cover much more than the line.
            steps = max(1, int(max(abs(x1 - x0), abs(y1 - y0)) / (3 * pixels)))
            shares = [number / steps for number in range(steps + 1)]
            taken += [_box_around(x0 + (x1 - x0) * share, y0 + (y1 - y0) * share, 2 * pixels) for share in shares]
    for (x, y, text, color), (place_x, place_y) in zip(labels, places, strict=True):
        note = panel.annotate(
            text, (x, y), xytext=(0, 0), textcoords="offset points", ha="center", va="center",
            color=color, fontsize=FONT_SIZE,
        )  # fmt: skip
        size = note.get_window_extent()
        best: tuple[float, tuple[float, float], Bbox] | None = None
        for right, up in OFFSETS:
            # A long text beside a marker is centred farther away than a short one.
            shift = right + math.copysign(size.width / pixels / 2 - 5, right) * (right != 0)
            box = Bbox.from_bounds(
                place_x + shift * pixels - size.width / 2,
                place_y + up * pixels - size.height / 2,
                size.width,
                size.height,
            )
            covered = sum(_common_area(box, other) for other in taken)
            covered += box.width * box.height - _common_area(box, inside)
            if best is None or covered < best[0] - 1e-6:
                best = (covered, (shift, up), box)
        if best is not None:
            note.set_position(best[1])
            taken.append(best[2])


def _box_around(x: float, y: float, half: float) -> Bbox:
    return Bbox.from_bounds(x - half, y - half, 2 * half, 2 * half)


def _common_area(a: Bbox, b: Bbox) -> float:
    common = Bbox.intersection(a, b)
    return 0.0 if common is None else float(common.width * common.height)

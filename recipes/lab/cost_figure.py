"""Accuracy against cost, as in the paper's Figure 4: by the regulariser's value, and by true multiply-adds."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from audiostride.dataset.importers.imported import count_of
from audiostride.reporting.figures import STYLE, render
from audiostride.writing import write_bytes, write_text
from lab.cost_points import CostPoint, group_points
from lab.data_stages import say
from lab.tables import POOLING_NAMES

MARKERS = {"strided": ("s", "#555555"), "spectral": ("^", "#b8520a"), "diffstride": ("o", "#31688e")}
# The costs that panels have on their axes.
COSTS: tuple[Callable[[CostPoint], float], ...] = (lambda point: point.proxy, lambda point: point.relative)
# Where a label may stand, in points from its marker, the first free place first: beside it, then farther away.
OFFSETS = [
    (direction[0] * distance, direction[1] * distance)
    for distance in (1.0, 1.5, 2.2)
    for direction in ((0, 12), (0, -12), (12, 8), (12, -8), (-12, 8), (-12, -8), (13, 0), (-13, 0))
]
FONT_SIZE = 9


def draw_costs(points: Sequence[CostPoint]) -> Figure:
    """Test accuracy against both costs, a point for each lambda and for each pooling with fixed strides.

    Bars are standard deviations of a sample over runs, where there are several. A line joins the points of DiffStride
    in the order of lambda, which stands beside each.

    Raises:
        InputError: No points; a seed that occurs twice in one group.
    """
    groups = group_points(points)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 4.6), layout="constrained")
        panels: tuple[Axes, Axes] = tuple(figure.subplots(1, 2, sharey=True))
        labels: list[list[tuple[float, float, str, str]]] = []
        for panel, title, cost_of in zip(panels, _name_costs(points), COSTS, strict=True):
            labels.append(_draw_panel(panel, groups, cost_of))
            panel.set_xlabel(title)
            panel.margins(x=0.12, y=0.14)
        runs = {len(members) for members in groups.values()}
        how = "one run each" if runs == {1} else "mean and sd over runs"
        panels[0].set_ylabel(f"test accuracy (%), {how}")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
        figure.draw_without_rendering()  # constrained layout moves the panels, and labels are placed by pixels
        for panel, wanted in zip(panels, labels, strict=True):
            place_labels(panel, wanted, pixels=figure.dpi / 72)
        return figure


def figure_stage(points: Sequence[CostPoint], table: str, folder: Path) -> None:
    """Write ``figure.png``, ``figure.svg`` and last ``table.md``, which says of which runs they are.

    Args:
        points: The runs.
        table: Their table.
        folder: Where, a folder that is there.
    """
    record, figures = folder / "table.md", {kind: folder / f"figure.{kind}" for kind in ("png", "svg")}
    shown = " and ".join(str(file) for file in figures.values())
    drawn = all(file.is_file() for file in [record, *figures.values()])
    if drawn and record.read_text(encoding="utf-8") == f"{table}\n":
        say("figure", f"{record} stands, skipped")
        return
    figure = draw_costs(points)
    for kind, file in figures.items():
        write_bytes(file, render(figure, format=kind))
    write_text(record, f"{table}\n")
    say("figure", f"{count_of(len(points), 'run')} -> {record}, {shown}")


def _name_costs(points: Sequence[CostPoint]) -> tuple[str, str]:
    """Titles of the cost axes; the second says what 1 is, where that is the same for all runs."""
    units = {round(point.multiply_adds / point.relative) for point in points}
    unit = f" (1 = {units.pop() / 1e6:.3g} M)" if len(units) == 1 else ""
    return (
        "regulariser's value: Σ 1/(Sₜ Sₘ) over the layers",
        f"multiply-adds of a 1 s window, relative to strided{unit}",
    )


def _draw_panel(
    panel: Axes, groups: dict[str, list[CostPoint]], cost_of: Callable[[CostPoint], float]
) -> list[tuple[float, float, str, str]]:
    """Draw the points, and return where labels belong: x, y, text and colour."""
    labels: list[tuple[float, float, str, str]] = []
    for pooling, shown in POOLING_NAMES.items():
        own = [members for members in groups.values() if members[0].pooling == pooling]
        if not own:
            continue
        marker, color = MARKERS[pooling]
        x = [[cost_of(point) for point in members] for members in own]
        y = [[100 * point.accuracy for point in members] for members in own]
        means = [(fmean(costs), fmean(accuracies)) for costs, accuracies in zip(x, y, strict=True)]
        panel.errorbar(
            [mean[0] for mean in means],
            [mean[1] for mean in means],
            xerr=spread_of(x),
            yerr=spread_of(y),
            fmt=f"{marker}-" if len(own) > 1 else marker,
            color=color,
            linewidth=0.8,
            elinewidth=1.1,
            capsize=3,
            markersize=7,
            label=f"{shown}, cost weight λ" if pooling == "diffstride" else f"{shown}, fixed strides",
        )
        if pooling == "diffstride":
            labels += [(*mean, f"λ={members[0].weight:g}", color) for mean, members in zip(means, own, strict=True)]
    return labels


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

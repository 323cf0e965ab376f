"""Top-1 accuracy of image runs against cost: the paper's Figure 4, and the same against true multiply-adds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from audiostride.dataset.importers.imported import count_of
from audiostride.reporting.style import COLORS, INK, STYLE, render
from audiostride.writing import write_bytes, write_text
from lab.cost_figure import MARKERS, place_labels, spread_of
from lab.data_stages import say
from lab.imagenet_points import ImagePoint, format_start, group_image_points
from lab.tables import POOLING_NAMES


def draw_image_costs(points: Sequence[ImagePoint]) -> Figure:
    """Accuracy against both costs, a point for each network; a line joins those of DiffStride in the order of lambda.

    With one start colours tell poolings apart, with several starts these; shapes are the poolings in both. Lambda
    stands beside each point of one start. Bars are standard deviations over runs, where there are several.

    Raises:
        InputError: No points; a seed that occurs twice in one group.
    """
    groups = group_image_points(points)
    starts = list(dict.fromkeys(start for start, _ in groups))
    unit, name = (1e9, "G") if max(point.multiply_adds for point in points) >= 1e9 else (1e6, "M")
    costs: list[tuple[str, Callable[[ImagePoint], float]]] = [
        ("regulariser's value: Σ 1/(S_h S_w) over the layers", lambda point: point.proxy),
        (f"multiply-adds of one image ({name})", lambda point: point.multiply_adds / unit),
    ]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 4.6), layout="constrained")
        panels: tuple[Axes, Axes] = tuple(figure.subplots(1, 2, sharey=True))
        labels: list[list[tuple[float, float, str, str]]] = []
        for panel, (title, cost_of) in zip(panels, costs, strict=True):
            labels.append([])
            for start in starts:
                for pooling in POOLING_NAMES:
                    own = [members for (_, _), members in groups.items() if members[0].start == start]
                    own = [members for members in own if members[0].pooling == pooling]
                    color = MARKERS[pooling][1] if len(starts) == 1 else COLORS[starts.index(start) % len(COLORS)]
                    if own:
                        labels[-1] += _draw_line(panel, own, cost_of, color=color)
            panel.set_xlabel(title)
            panel.margins(x=0.12, y=0.14)
        runs = {len(members) for members in groups.values()}
        panels[0].set_ylabel(f"top-1 accuracy (%), {'one run each' if runs == {1} else 'mean and sd over runs'}")
        handles = _legend(points, starts)
        rows = 1 if len(starts) == 1 else 2
        figure.legend(handles=handles, loc="outside upper center", ncols=-(-len(handles) // rows), frameon=False)
        figure.draw_without_rendering()  # constrained layout moves the panels, and labels are placed by pixels
        for panel, wanted in zip(panels, labels, strict=True):
            if len(starts) == 1:  # of several starts there would be too many
                place_labels(panel, wanted, pixels=figure.dpi / 72)
        return figure


def image_figure_stage(points: Sequence[ImagePoint], table: str, folder: Path) -> None:
    """Write ``figure.png``, ``figure.svg`` and last ``table.md``, which says of which runs they are."""
    record, figures = folder / "table.md", {kind: folder / f"figure.{kind}" for kind in ("png", "svg")}
    drawn = all(file.is_file() for file in [record, *figures.values()])
    if drawn and record.read_text(encoding="utf-8") == f"{table}\n":
        say("figure", f"{record} stands, skipped")
        return
    figure = draw_image_costs(points)
    for kind, file in figures.items():
        write_bytes(file, render(figure, format=kind))
    write_text(record, f"{table}\n")
    say("figure", f"{count_of(len(points), 'run')} -> {record}, {' and '.join(map(str, figures.values()))}")


def _draw_line(
    panel: Axes,
    groups: Sequence[Sequence[ImagePoint]],
    cost_of: Callable[[ImagePoint], float],
    *,
    color: str,
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


def _legend(points: Sequence[ImagePoint], starts: Sequence[tuple[tuple[float, float], ...]]) -> list[Line2D]:
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

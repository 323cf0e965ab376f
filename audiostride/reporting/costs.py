"""Where the multiply-adds of a network are, before and after its strides were learned; accuracy against them."""

import copy
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from audiostride.models.cost import layer_costs
from audiostride.reporting.blocks import Block, Drawing, Drawings, Section, Table, Text
from audiostride.reporting.runs import RunFolder
from audiostride.reporting.style import INK, STYLE, legend_below, new_panel, series_style
from audiostride.reporting.summary import run_metric
from audiostride.reporting.tables import percent
from audiostride.strides.diffstride import diffstride_layers
from audiostride.wording import describe_size

MILLION = 1e6


def cost_section(groups: Mapping[str, Sequence[RunFolder]]) -> Section:
    """The layers of the first run; of several runs of different costs also their accuracies against them."""
    runs = [run for members in groups.values() for run in members]
    data = layer_table(runs[0])
    shown = pd.DataFrame({"layer": data["layer"]})
    if "before" in data:
        shown["before training"] = (data["before"] / MILLION).map("{:.3f}".format)
    shown["multiply-adds (million)"] = (data["multiply_adds"] / MILLION).map("{:.3f}".format)
    shown["of these, pooling"] = (data["pooling"] / MILLION).map("{:.3f}".format)
    shown["share"] = (data["multiply_adds"] / data["multiply_adds"].iloc[-1]).map(percent)
    whose = f" of {runs[0].name}" if len(runs) > 1 else ""
    caption = (
        f"Multiply-adds of a window of {runs[0].model.config.window_s:g} s{whose}, counted in the order in which "
        "convolution and pooling are cheaper; frontend, norms and rectifiers are not in them."
    )
    size = describe_size(
        runs[0].n_parameters, int(data["multiply_adds"].iloc[-1]), window_s=runs[0].model.config.window_s,
        window_ms=runs[0].environment.get("window_ms"),
    )  # fmt: skip
    blocks: list[Block] = [Text(f"{size}."), Table("multiply_adds", caption, data, shown)]
    points = pd.DataFrame(
        {
            "run": run.name,
            "model": group,
            "multiply_adds": run.metrics["multiply_adds"],
            "budget": run.metrics.get("budget", ""),
            "accuracy": run.metrics["accuracy"],
        }
        for group, members in groups.items()
        for run in members
        if {"multiply_adds", "accuracy"} <= run.metrics.keys()
    )
    if len(points) > 1 and points["multiply_adds"].nunique() > 1:
        alt = "Test accuracy of each run against its multiply-adds; the numbers are in the CSV file"
        text = "Each mark is a run; those above and to the left of others are better. A budget stands beside its run."
        blocks.insert(0, Drawings([Drawing("frontier", alt, draw_frontier(points, metric=run_metric(runs)))], text))
    return Section("cost", "Cost", blocks)


def layer_table(run: RunFolder) -> pd.DataFrame:
    """Multiply-adds of each layer of a run's model, and with the strides that it started from, where they learned."""
    costs = layer_costs(run.model)
    rows = pd.DataFrame(
        {"layer": cost.name, "multiply_adds": cost.total, "weights": cost.weights, "pooling": cost.pooling}
        for cost in costs
    )
    if run.strides is not None:
        start, values = copy.deepcopy(run.model), run.strides.drop(columns="step").iloc[0].tolist()
        for layer in diffstride_layers(start):
            layer.set_strides_([values.pop(0) for _ in range(layer.n_axes)][: layer.strides.numel()])
        rows["before"] = [cost.total for cost in layer_costs(start)]
    rows.loc[len(rows)] = {"layer": "all", **rows.drop(columns="layer").sum().to_dict()}
    return rows


@mpl.rc_context(STYLE)
def draw_frontier(points: pd.DataFrame, *, metric: str = "accuracy") -> Figure:
    """Accuracy against multiply-adds, a mark for each run.

    Args:
        points: Columns ``model``, ``multiply_adds``, ``budget`` (text, or empty) and ``accuracy``.
        metric: What is called accuracy there.
    """
    figure, panel = new_panel("Accuracy and cost", "million multiply-adds a window", f"test {metric} (%)", height=3.5)
    for place, (model, own) in enumerate(points.groupby("model", sort=False)):
        style = series_style(place)
        panel.plot(own["multiply_adds"] / MILLION, 100 * own["accuracy"], linestyle="", label=str(model), **style)
        for _, point in own[own["budget"] != ""].iterrows():
            place_of = (point["multiply_adds"] / MILLION, 100 * point["accuracy"])
            panel.annotate(point["budget"], place_of, (5, 4), textcoords="offset points", fontsize=7, color=INK)
    panel.set_xscale("log")
    for ticks in (panel.xaxis.set_major_formatter, panel.xaxis.set_minor_formatter):
        ticks(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.margins(0.1)
    legend_below(figure, panel, n_columns=1)
    return figure

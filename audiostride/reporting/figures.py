"""The pictures of a report, drawn without a display, as SVG or PNG."""

import io
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from audiostride.functional import passband_mask
from audiostride.layers import DiffStride2d
from audiostride.models import AudioClassifier
from audiostride.reporting.cutoffs import AXES, mask_edges, used_strides

AXIS_TITLES = {"time": "time", "mel": "mel frequency"}
AXIS_LABELS = {"time": "modulation rate (Hz)", "mel": "modulation density (cycles/mel)"}
RUN_STYLES = ("-", "--", ":", "-.")
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "svg.fonttype": "none",  # text stays text: it can be searched, and read by screen readers
    "svg.hashsalt": "audiostride",
}


def layer_color(layer: int, n_layers: int) -> tuple[float, float, float, float]:
    """One colour per layer, from dark to light, also in grey."""
    red, green, blue, alpha = mpl.colormaps["viridis"](0.9 * (layer - 1) / max(1, n_layers - 1))
    return red, green, blue, alpha


def render(figure: Figure, *, format: str) -> bytes:
    """The figure as an SVG or PNG file."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if format == "svg" else {}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=format, dpi=144, bbox_inches="tight", metadata=metadata)
    return buffer.getvalue()


def inline_svg(content: bytes) -> Markup:
    """The <svg> element of an SVG file, without the XML prologue, to stand in a page."""
    text = content.decode("utf-8")
    return Markup(text[text.index("<svg") :])


def _two_panels(height: float) -> tuple[Figure, dict[str, Axes]]:
    figure = Figure(figsize=(9.5, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    return figure, {"time": left, "mel": right}


def draw_cutoffs(summary: pd.DataFrame) -> Figure:
    """Pass to stop edge of every layer, with the paper's cut-off, per axis; several poolings side by side."""
    with mpl.rc_context(STYLE):
        figure, panels = _two_panels(3.4)
        poolings = summary["pooling"].unique()
        for axis, panel in panels.items():
            for place, pooling in enumerate(poolings):
                rows = summary[(summary["axis"] == axis) & (summary["pooling"] == pooling)]
                x = rows["layer"].to_numpy() + 0.22 * (place - (len(poolings) - 1) / 2)
                color = f"C{place}"
                span = (rows["stop_edge"] - rows["pass_edge"]).clip(lower=0).fillna(0)
                panel.bar(x, span, bottom=rows["pass_edge"].fillna(0), width=0.2, color=color, alpha=0.35, zorder=2)
                spread = rows["cutoff_sd"].fillna(0)
                panel.errorbar(x, rows["cutoff"], yerr=spread, fmt="o", color=color, capsize=3, zorder=3, label=pooling)
            panel.set_title(AXIS_TITLES[axis])
            panel.set_xlabel("layer")
            panel.set_ylabel(AXIS_LABELS[axis])
            panel.set_ylim(bottom=0)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels["mel"].legend(title="dot: cut-off, bar: ramp", frameon=False)
        return figure


def draw_masks(model: AudioClassifier) -> Figure | None:
    """The masks of all layers over frequency; None for strided convolution, which has none."""
    if model.config.pooling == "strided":
        return None
    with mpl.rc_context(STYLE):
        figure, panels = _two_panels(3.2)
        config = model.config
        sizes = model.encoder.map_sizes(config.window_frames, config.n_mels)
        bin_width = {"time": 1 / config.window_s, "mel": 1 / config.n_mels}
        for layer, (block, n_in, n_out) in enumerate(
            zip(model.encoder.block_list(), sizes[:-1], sizes[1:], strict=True), start=1
        ):
            for number, (axis, stride) in enumerate(zip(AXES, used_strides(block, n_in), strict=True)):
                n = n_in[number]
                if isinstance(block.pool, DiffStride2d):
                    bins = np.arange(n // 2 + 1)
                    settings = block.pool.axes[number]
                    weights = passband_mask(n, stride, ramp_bins=settings.ramp_bins, size=settings.size).numpy()
                else:
                    edge = mask_edges(block, number, n, stride, n_out[number])["stop_edge"]
                    bins, weights = np.array([0, edge, edge, n / 2]), np.array([1, 1, 0, 0])
                panels[axis].plot(
                    bins * bin_width[axis],
                    weights,
                    color=layer_color(layer, len(sizes) - 1),
                    marker="." if isinstance(block.pool, DiffStride2d) else "",
                    label=f"layer {layer}",
                )
        for axis, panel in panels.items():
            panel.set_title(AXIS_TITLES[axis])
            panel.set_xlabel(AXIS_LABELS[axis])
            panel.set_ylabel("weight")
            panel.set_xlim(left=0)
        panels["mel"].legend(frameon=False)
        return figure


def draw_strides(histories: list[pd.DataFrame]) -> Figure | None:
    """Strides over the training, one colour per layer and one line style per run; None without learned strides."""
    if not histories:
        return None
    with mpl.rc_context(STYLE):
        figure, panels = _two_panels(3.2)
        for axis, panel in panels.items():
            columns = [name for name in histories[0].columns if name.endswith(f"_{axis}")]
            for place, history in enumerate(histories):
                for layer, column in enumerate(columns, start=1):
                    panel.plot(
                        history["step"],
                        history[column],
                        color=layer_color(layer, len(columns)),
                        linestyle=RUN_STYLES[place % len(RUN_STYLES)],
                        linewidth=1.4,
                        label=f"layer {layer}" if place == 0 else None,
                    )
            panel.set_title(AXIS_TITLES[axis])
            panel.set_xlabel("step")
            panel.set_ylabel("stride")
        panels["mel"].legend(frameon=False, ncols=2, fontsize=9)
        return figure


def draw_history(histories: dict[str, pd.DataFrame]) -> Figure:
    """Loss and validation accuracy over the training, one colour per run."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        for place, (name, history) in enumerate(histories.items()):
            left.plot(history["step"], history["train_loss"], "-o", markersize=3, color=f"C{place}", label=name)
            left.plot(history["step"], history["valid_loss"], "--", color=f"C{place}")
            right.plot(
                history["step"], 100 * history["valid_accuracy"], "-o", markersize=3, color=f"C{place}", label=name
            )
        left.set_title("loss: training (solid), validation (dashed)")
        left.set_xlabel("step")
        left.set_ylabel("cross entropy")
        left.set_ylim(bottom=0)
        right.set_title("validation accuracy")
        right.set_xlabel("step")
        right.set_ylabel("%")
        if len(histories) > 1:
            right.legend(frameon=False, fontsize=9)
        return figure


def draw_confusion(confusion: pd.DataFrame, *, format: str = "svg") -> bytes:
    """The confusion matrix, each row in percent of its true class, with the counts written in while they fit."""
    counts = confusion.to_numpy()
    n_classes = len(counts)
    shares = 100 * counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = min(11.0, max(3.6, 1.6 + 0.36 * n_classes))
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(side + 0.9, side), layout="constrained")
        panel = figure.subplots()
        image = panel.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        names = [str(name) if len(str(name)) <= 16 else f"{str(name)[:15]}…" for name in confusion.columns]
        ticks = np.arange(n_classes)
        size = 9 if n_classes <= 30 else 6
        if n_classes <= 60:
            panel.set_xticks(ticks, names, rotation=90, fontsize=size)
            panel.set_yticks(ticks, names, fontsize=size)
        if n_classes <= 30:
            for row in range(n_classes):
                for column in range(n_classes):
                    if counts[row, column]:
                        color = "white" if shares[row, column] > 55 else "#333333"
                        panel.text(
                            column,
                            row,
                            str(counts[row, column]),
                            ha="center",
                            va="center",
                            fontsize=size - 1,
                            color=color,
                        )
        panel.set_xlabel("predicted")
        panel.set_ylabel("true")
        figure.colorbar(image, ax=panel, label="% of the true class", shrink=0.8)
        return render(figure, format=format)

"""Pictures of modulation power spectra."""

import math
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from audiostride.models import AudioClassifier
from audiostride.reporting.cutoffs import cutoff_table
from audiostride.reporting.modulations import SHARES, ModulationSpectrum
from audiostride.reporting.style import STYLE, new_panel

RANGE_DB = 50.0
# On the plane, which is light in a dark page too: one step beside the style's colours, which a dark page lightens.
CONTOUR, BOX = "#1c2431", "#b4541b"


@mpl.rc_context({**STYLE, "axes.grid": False})
def draw_modulations(spectra: Mapping[str, ModulationSpectrum], model: AudioClassifier | None = None) -> Figure:
    """The spectra with contours, a panel each under its name, and the cut-offs of the layers of a model."""
    columns = min(4, len(spectra))
    rows = math.ceil(len(spectra) / columns)
    if len(spectra) == 1:
        figure, panel = new_panel("Modulation power", "", "", height=4.0, width=6.4)
        panels = [panel]
    else:
        figure = Figure(figsize=(1.2 + 2.3 * columns, 0.6 + 1.9 * rows))
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        panels = list(grid.flat)
        for panel in panels[len(spectra) :]:
            panel.set_visible(False)
    for panel, (name, spectrum) in zip(panels, spectra.items(), strict=False):
        _draw_plane(panel, spectrum)
        if name:
            panel.set_title(name if len(name) <= 24 else f"{name[:23]}…", fontsize=9)
        if model is not None:
            _draw_boxes(panel, model, every=len(spectra) == 1)
    figure.supxlabel("modulation rate (Hz)", fontsize=10)
    figure.supylabel("modulation density (cycles/mel)", fontsize=10)
    return figure


def _draw_plane(panel: Axes, spectrum: ModulationSpectrum) -> None:
    one_sided = spectrum.power.copy()
    one_sided[1:-1] /= 2  # as dense as at density 0
    floor = one_sided.max() * 10 ** (-RANGE_DB / 10)
    rates, densities = spectrum.rates_hz, spectrum.densities
    half = (rates[1] - rates[0]) / 2, (densities[1] - densities[0]) / 2
    extent = (rates[0] - half[0], rates[-1] + half[0], densities[0] - half[1], densities[-1] + half[1])
    panel.imshow(
        10 * np.log10(np.maximum(one_sided, floor)), origin="lower", aspect="auto", extent=extent, cmap="Blues"
    )
    levels = sorted({spectrum.level(share) for share in SHARES})
    panel.contour(
        rates, densities, spectrum.power, levels=levels, colors=CONTOUR, linewidths=(0.7, 1.0, 1.4)[-len(levels) :]
    )
    panel.set_xlim(rates[0], rates[-1])
    panel.set_ylim(0, densities[-1])


def _draw_boxes(panel: Axes, model: AudioClassifier, *, every: bool) -> None:
    table = cutoff_table(model, window_s=model.config.window_s)
    for layer in table["layer"].unique()[: None if every else 1]:
        own = table[table["layer"] == layer].set_index("axis")
        cutoff, inner, outer = (
            (float(own[name]["time"]), float(own[name]["mel"])) for name in ("cutoff", "pass_edge", "stop_edge")
        )
        edge = PathPatch(_outline(*cutoff), fill=False, edgecolor=BOX, linewidth=1.8 if layer == 1 else 0.8)
        panel.add_patch(edge)
        if not math.isnan(inner[0]):  # strided convolution has no ramp
            # The inner outline runs the other way round, which makes a hole of it.
            ramp = Path.make_compound_path(_outline(*outer), _outline(-inner[0], inner[1]))
            panel.add_patch(PathPatch(ramp, facecolor=BOX, alpha=0.15, linewidth=0))
        if every:
            panel.annotate(str(layer), cutoff, (2, -2), textcoords="offset points", color=BOX, fontsize=8, va="top")


def _outline(rate_hz: float, density: float) -> Path:
    corners = [(-rate_hz, 0.0), (rate_hz, 0.0), (rate_hz, density), (-rate_hz, density), (-rate_hz, 0.0)]
    return Path(corners, closed=True)

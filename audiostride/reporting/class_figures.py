"""Figures of one task's test clips: confusion matrix, ROC curve, reliability diagram, spectrograms."""

import io
from typing import Any

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pandas as pd
import soundfile
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from audiostride.audio.log_mel import log_mel_spectrogram
from audiostride.audio.resampling import read_audio
from audiostride.dataset.manifest import inspect_manifest
from audiostride.dataset.readers import StoreReader
from audiostride.dataset.store import is_store
from audiostride.errors import InputError
from audiostride.models.config import ClassifierConfig
from audiostride.reporting.style import COLORS, INK, SOFT, STYLE, legend_below, new_panel, render

ALWAYS_WHITE = "#fefefe"  # unlike the paper's white, which turns dark in a dark page
MOST_NAMES, MOST_COUNTS, MOST_LONG_NAMES = 60, 30, 12  # classes whose names, counts, long names there is room for
LONGEST_S = 10.0  # of a clip that is shown
SOUND_S, SOUND_PEAK, HEARD_HZ = (
    3.0,
    0.7,
    96000,
)  # of a clip that is heard, and the highest sample rate of those that are
RANGE = 10.0  # from the darkest to the brightest value of a picture, in nepers of power: 43 dB


def draw_confusion(confusion: pd.DataFrame, *, format: str = "svg") -> bytes:
    """The confusion matrix, each row in percent of its true class, with the counts written in while they fit.

    Args:
        confusion: Counts; a row for each true class, a column for each predicted one.
        format: ``"svg"`` or ``"png"``.

    Returns:
        The picture.
    """
    return render(draw_confusion_figure(confusion), format=format)


@mpl.rc_context({**STYLE, "axes.grid": False})
def draw_confusion_figure(confusion: pd.DataFrame) -> Figure:
    """The figure of `draw_confusion`."""
    counts = confusion.to_numpy()
    n_classes = len(counts)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = min(10.0, max(3.6, 1.6 + 0.34 * n_classes))
    figure, panel = new_panel("Confusion", "predicted", "true", height=side, width=side)
    # One colour, ever less transparent: it stands on light and on dark.
    colors = np.empty((n_classes, n_classes, 4))
    colors[..., :3], colors[..., 3] = to_rgb(COLORS[0]), shares
    panel.imshow(colors, interpolation="nearest")
    size = 9 if n_classes <= MOST_COUNTS else 6
    if n_classes <= MOST_NAMES:
        longest = 24 if n_classes <= MOST_LONG_NAMES else 16
        names = [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in map(str, confusion.columns)]
        panel.set_xticks(range(n_classes), names, rotation=90 if n_classes > 3 else 0, fontsize=size)
        panel.set_yticks(range(n_classes), names, fontsize=size)
    if n_classes <= MOST_COUNTS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            panel.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=size - 1,
                       color=ALWAYS_WHITE if shares[row, column] > 0.55 else INK)  # fmt: skip
    panel.spines[:].set_visible(True)
    return figure


@mpl.rc_context(STYLE)
def draw_roc(curve: pd.DataFrame, area: float, positive: str) -> Figure:
    """The ROC curve of the detection of one class, with the diagonal of chance."""
    figure, panel = new_panel(f"ROC: detecting {positive}", "false alarms (%)", "found (%)", height=3.6, width=4.2)
    panel.plot([0, 100], [0, 100], color=SOFT, linewidth=1, linestyle=":", label="chance")
    x, y = 100 * curve["false_positive_rate"], 100 * curve["true_positive_rate"]
    panel.fill_between(x, 0, y, color=COLORS[0], alpha=0.12, linewidth=0)
    panel.plot(x, y, color=COLORS[0], linewidth=1.8, label=f"AUC {area:.3f}")
    panel.set_xlim(-1, 101)
    panel.set_ylim(-1, 101)
    panel.legend(loc="lower right")
    return figure


@mpl.rc_context(STYLE)
def draw_average_precisions(per_class: pd.DataFrame) -> Figure:
    """Average precision of each class with its interval, a row each, and the share of clips that guessing gives."""
    y, names = np.arange(len(per_class)), per_class["class"].astype(str)
    height = 1.2 + (0.3 if len(per_class) <= MOST_COUNTS else 0.16) * len(per_class)
    figure, panel = new_panel("Average precision of each class", "%", "", height=height, width=6.2)
    center = 100 * per_class["average_precision"]
    spread = np.array([center - 100 * per_class["low"], 100 * per_class["high"] - center])
    # An interval that is drawn need not reach as far as the number itself.
    panel.errorbar(center, y, xerr=np.maximum(spread, 0), fmt="o", color=COLORS[0], capsize=3, label="this network")
    panel.plot(100 * per_class["share"], y, marker="|", markersize=9, markeredgewidth=1.8, linestyle="", color=SOFT,
               label="share of clips")  # fmt: skip
    size = 9 if len(per_class) <= MOST_COUNTS else 6
    panel.set_yticks(y, [name if len(name) <= 40 else f"{name[:39]}…" for name in names], fontsize=size)
    panel.set_ylim(len(per_class) - 0.5, -0.5)
    panel.set_xlim(0, 101)
    legend_below(figure, panel)
    return figure


@mpl.rc_context(STYLE)
def draw_reliability(bins: pd.DataFrame, error: float, *, several: bool = False) -> Figure:
    """Accuracy in bins of confidence as bars, with the mean confidence and the number of clips of each.

    Of `several` labels it is how often a class is there in bins of its probability.
    """
    title = f"Reliability: calibration error {100 * error:.1f} %"
    x, y = ("probability", "share that is there") if several else ("confidence", "accuracy")
    figure, panel = new_panel(title, f"{x} (%)", f"{y} (%)", height=3.6, width=4.2)
    shares = 100 * bins[["low", "high", "confidence", "accuracy"]]
    width = 100 * (bins["high"] - bins["low"])
    panel.bar(shares["low"], shares["accuracy"], width=width, align="edge", color=COLORS[0], alpha=0.45,
              edgecolor=COLORS[0], label=y)  # fmt: skip
    panel.plot([0, 100], [0, 100], color=SOFT, linewidth=1, linestyle=":", label="calibrated")
    panel.plot(shares["confidence"], shares["accuracy"], linestyle="", marker="o", markersize=4, color=COLORS[1],
               label=f"mean {x}")  # fmt: skip
    for center, top, clips in zip(shares["low"] + width / 2, shares["accuracy"], bins["clips"], strict=True):
        panel.annotate(str(clips), (center, top), (0, 3), textcoords="offset points", ha="center", fontsize=8,
                       color=INK)  # fmt: skip
    panel.set_xlim(0, 100)
    panel.set_ylim(0, 108)
    panel.legend(loc="upper left")
    return figure


def read_samples_of(row: "pd.Series[Any]", manifest: str, *, sample_rate: int) -> NDArray[np.float32] | None:
    """The samples of a clip, its first seconds at most, from its file or its store; None where neither can be read.

    The row has ``path``, ``start_s``, ``duration_s`` and ``line`` of the clip in the manifest or store; rate in Hz.
    """
    duration_s = float(np.fmin(LONGEST_S, float(str(row["duration_s"]))))  # NaN: to the end of the file
    try:
        if is_store(manifest):
            clips, _ = inspect_manifest(manifest)
            reader = StoreReader(clips[clips["line"] == row["line"]], sample_rate=sample_rate)
            return reader.read(0, 0, int(min(reader.n_samples[0], duration_s * sample_rate)))
        start_s = float(str(row["start_s"]))
        return read_audio(str(row["path"]), start_s=start_s, duration_s=duration_s, sample_rate=sample_rate)
    except (InputError, OSError, IndexError, KeyError):
        return None


def encode_sound(samples: NDArray[np.float32], sample_rate: int) -> bytes:
    """The first seconds of a clip as a FLAC file for the page, its peak raised or lowered to that of the others.

    Empty for rates whose sounds lie where nobody hears them.
    """
    part = samples[: round(SOUND_S * sample_rate)]
    if sample_rate > HEARD_HZ:
        return b""
    buffer = io.BytesIO()
    soundfile.write(buffer, part * (SOUND_PEAK / max(float(np.abs(part).max()), 1e-6)), sample_rate, format="FLAC")
    return buffer.getvalue()


def draw_spectrogram(samples: NDArray[np.float32], config: ClassifierConfig) -> bytes:
    """The log-mel spectrogram of a clip as PNG: a point per frame and band, time to the right, frequency upwards."""
    bands = log_mel_spectrogram(torch.from_numpy(samples), **config.frontend_settings()).numpy()  # (T, M)
    buffer, top = io.BytesIO(), float(bands.max())
    matplotlib.image.imsave(
        buffer, bands.T, vmin=top - RANGE, vmax=top, cmap="magma", origin="lower", format="png", metadata={}
    )
    return buffer.getvalue()

"""Modulation power spectra: which rates and densities sounds hold, and how much of that the layers of a model pass.

The spectrum is that of the model's own log-mel spectrograms, as Singh and Theunissen (2003) and Elliott and Theunissen
(2009) take it of theirs: the mean power of their two-dimensional Fourier transform.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from audiostride.audio.log_mel import log_mel_spectrogram
from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig
from audiostride.progress import progress_bar
from audiostride.reporting.blocks import Block, Drawing, Drawings, Heading, Section, Table, Text
from audiostride.reporting.class_figures import read_samples_of
from audiostride.reporting.cutoffs import cutoff_table
from audiostride.reporting.measuring import layer_mask
from audiostride.reporting.runs import RunFolder, shown_runs
from audiostride.reporting.style import STYLE, new_panel
from audiostride.reporting.tables import percent
from audiostride.training import TrainConfig
from audiostride.training.clips import label_column, read_source

CLIPS = 20  # of a class, evenly from all
WINDOWS = 2  # of a clip
SHARES = (0.8, 0.9, 0.95)  # of the power, which contours hold
MOST_PANELS = 12  # classes that are drawn
SILENT = 1e-9  # power of what does not change but by rounding
RANGE_DB = 50.0
# On the plane, which is light in a dark page too: one step beside the style's colours, which a dark page lightens.
CONTOUR, BOX = "#1c2431", "#b4541b"


@dataclass(frozen=True)
class ModulationSpectrum:
    """Mean modulation power of windows, by density and rate."""

    power: NDArray[np.float64]
    """``(densities, rates)``; its sum is all of the power, that of negative densities being in the positive ones."""
    rates_hz: NDArray[np.float64]
    """Rising, negative where the frequency of a ripple rises with time."""
    densities: NDArray[np.float64]
    """In cycles/mel, rising from 0."""

    def level(self, share: float) -> float:
        """The power above which the points hold that share of it all: the level of a contour."""
        ranked = np.sort(self.power, axis=None)[::-1]
        return float(ranked[min(np.searchsorted(np.cumsum(ranked), share * ranked.sum()), ranked.size - 1)])

    def limits(self, share: float) -> tuple[float, float]:
        """Rate in Hz and density in cycles/mel up to which that share of the power lies, each over all of the other."""
        found = []
        for axis, places in ((0, np.abs(self.rates_hz)), (1, self.densities)):
            values, numbers = np.unique(places, return_inverse=True)
            sums = np.cumsum(np.bincount(numbers, self.power.sum(axis=axis)))
            found.append(float(values[np.searchsorted(sums, share * sums[-1])]))
        return found[0], found[1]

    def passed(self, time: NDArray[np.float64], mel: NDArray[np.float64]) -> float:
        """The share of the power that is left of it behind gains.

        Args:
            time: Gain of each multiple of the lowest rate, from 0 on; what is not there is 0.
            mel: Gain of each multiple of the lowest density, from 0 on.
        """
        numbers = np.abs(np.rint(self.rates_hz / self.rates_hz[self.rates_hz > 0].min())).astype(int)
        over_time, over_mel = np.zeros(numbers.max() + 1), np.zeros(len(self.densities))
        for whole, given in ((over_time, time), (over_mel, mel)):
            whole[: len(given)] = given[: len(whole)]
        return float((self.power * np.outer(over_mel, over_time[numbers]) ** 2).sum() / self.power.sum())


def modulation_spectrum(windows: Iterable[NDArray[np.float32]], config: ClassifierConfig) -> ModulationSpectrum:
    """The modulation power spectrum of windows of sound.

    Each log-mel spectrogram is taken less its mean, under a Hann window over time and over mel, so that neither its
    level nor its edges count as modulations.

    Args:
        windows: Samples, ``(samples,)`` each, of the length of the model's window or shorter.
        config: The model's settings, of which the frontend's count.

    Returns:
        Rates lie 1 / window_s apart, densities 1 / n_mels.
    """
    n_frames, n_mels = config.window_frames, config.n_mels
    power, count = np.zeros((n_mels // 2 + 1, n_frames)), 0
    mel = np.hanning(n_mels + 1)[:n_mels]
    for samples in windows:
        bands = log_mel_spectrogram(torch.from_numpy(samples), **config.frontend_settings()).double().numpy()
        weights = np.outer(mel, np.hanning(len(bands) + 1)[: len(bands)])  # (M, T)
        values = (bands.T - np.average(bands.T, weights=weights)) * weights
        # Real over mel; over time of the full length, so that short clips have the same rates.
        found = np.fft.fft(np.fft.rfft(values, axis=0), n=n_frames, axis=1)
        power += np.abs(found) ** 2 / (weights**2).sum()
        count += 1
    power[1 : (n_mels + 1) // 2] *= 2  # for the negative densities
    order = np.argsort(np.fft.fftfreq(n_frames), kind="stable")
    rates = np.asarray(np.fft.fftfreq(n_frames, 1 / n_frames)[order] / config.window_s, dtype=np.float64)
    densities: NDArray[np.float64] = np.arange(n_mels // 2 + 1) / n_mels
    return ModulationSpectrum(power[:, order] / max(1, count), rates, densities)


def cut_windows(samples: NDArray[np.float32], config: ClassifierConfig) -> list[NDArray[np.float32]]:
    """Some windows of a clip, evenly from all of it; a shorter clip is one."""
    last = len(samples) - config.window_samples
    starts = np.unique(np.linspace(0, last, WINDOWS).round().astype(int)) if last > 0 else [0]
    return [samples[start : start + config.window_samples] for start in starts]


def spread_rows(clips: pd.DataFrame, label: str) -> pd.DataFrame:
    """Some clips of each class, evenly from all of them."""
    kept = [own.iloc[np.unique(np.linspace(0, len(own) - 1, min(CLIPS, len(own))).round().astype(int))]
            for _, own in clips.groupby(label, sort=False)]  # fmt: skip
    return pd.concat(kept)


def class_spectra(
    clips: pd.DataFrame, label: str, manifest: str, config: ClassifierConfig, *, progress: bool = False
) -> dict[str, ModulationSpectrum]:
    """The spectrum of each class, from the clips that can be read; none of a class that is silent."""
    windows: dict[str, list[NDArray[np.float32]]] = {}
    rows = spread_rows(clips, label)
    bar = progress_bar(total=len(rows), desc="hearing", unit="clip", disable=not progress, leave=False)
    for _, row in rows.iterrows():
        bar.update()
        samples = read_samples_of(row, manifest, sample_rate=config.sample_rate)
        if samples is not None and len(samples) >= config.hop_length:
            windows.setdefault(str(row[label]), []).extend(cut_windows(samples, config))
    bar.close()
    found = {name: modulation_spectrum(own, config) for name, own in windows.items()}
    return {name: spectrum for name, spectrum in found.items() if spectrum.power.sum() > SILENT}


def mean_spectrum(spectra: Mapping[str, ModulationSpectrum]) -> ModulationSpectrum:
    """That of all classes, each as much as another."""
    first = next(iter(spectra.values()))
    power = np.zeros(first.power.shape)
    for each in spectra.values():
        power += each.power / (each.power.sum() * len(spectra))
    return ModulationSpectrum(power, first.rates_hz, first.densities)


def layer_gains(model: AudioClassifier) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Gain of all layers up to each one, at the multiples of the lowest rate and of the lowest density, from 0 on.

    A strided convolution has gain 1 up to its cut-off: what lies above comes back as something else.
    """
    found, before = [], (np.ones(model.config.window_frames), np.ones(model.config.n_mels))
    for block, n_in, n_out in model.encoder.pooled_layers(model.config.window_frames, model.config.n_mels):
        own = []
        for axis in range(2):
            if block.pool is None:
                mask = (2 * np.arange(n_in[axis] // 2 + 1) <= n_out[axis]).astype(float)
            else:
                mask = layer_mask(block, axis, n_in, n_out)
            shorter = min(len(mask), len(before[axis]))
            own.append(before[axis][:shorter] * mask[:shorter])
        before = (own[0], own[1])
        found.append(before)
    return found


def modulations_section(groups: Mapping[str, Sequence[RunFolder]]) -> Section | None:
    """What training clips of each task hold, and how much of it layers of a run pass; None before a test.

    Of runs that have learned the same clips, the first one counts.
    """
    parts = {
        (run.manifests[task], task): run
        for run in reversed(shown_runs(groups))
        for task in reversed(run.tables)
        if run.predictions and not run.is_multi_label(task)
    }
    blocks: list[Block] = []
    clips = {run.name: training_clips(run) for run in parts.values()}
    for (manifest, task), run in reversed(parts.items()):
        spectra = {}
        if task in clips[run.name]:
            spectra = class_spectra(clips[run.name][task], label_column(task), manifest, run.model.config)
        blocks += [Heading(run.title_of(task))] * (len(parts) > 1)
        whose, which = [run.name] * (len(clips) > 1), [task] * (len(run.tables) > 1)
        blocks += _task_blocks(run, task, spectra, suffix="".join(f"_{name}" for name in whose + which))
    return Section("modulations", "What the sounds contain", blocks) if blocks else None


def training_clips(run: RunFolder) -> dict[str, pd.DataFrame]:
    """The training clips of each task that have a label of it, see `read_source`; none of a manifest that is gone."""
    found: dict[str, pd.DataFrame] = {}
    with suppress(InputError):  # settings that this version does not know
        config = TrainConfig.load(run.path)
        for source in config.sources():
            with suppress(InputError):  # clips that were moved, changed or taken away
                clips, _ = read_source(source, config)
                train = clips[clips["split"] == "train"]
                found |= {task: train[train[label_column(task)] != ""] for task in source.labels}
    return found


def _task_blocks(run: RunFolder, task: str, spectra: Mapping[str, ModulationSpectrum], *, suffix: str) -> list[Block]:
    if not spectra:
        return [Text("The training clips can no longer be read, or are silent: no spectrum of them.")]
    gains, folds = layer_gains(run.model), run.model.config.pooling == "strided"
    table = pd.DataFrame(
        {
            "class": name,
            **{f"layer {number}": own.passed(*pair) for number, pair in enumerate(gains, start=1)},
            **dict(zip(("rate_hz", "density"), own.limits(0.9), strict=True)),
        }
        for name, own in spectra.items()
    ).sort_values("layer 1", kind="stable")
    first, last = table.iloc[0], table.iloc[-1]
    whole = mean_spectrum(spectra).passed(*gains[0])
    what = "keeps below its cut-offs" if folds else "passes"
    sounds = f"the sounds of {run.title_of(task)}" if suffix else "these sounds"
    text = f"Layer 1 {what} {percent(whole)} of the modulation power of {sounds}"
    if len(table) > 1:
        text += f": {percent(last['layer 1'])} of {last['class']}, {percent(first['layer 1'])} of {first['class']}, "
        text += "which loses most"
    alt = "Modulation power of the training clips by rate and density with contours, and what each layer passes"
    caption = (
        "Modulation power spectrum of the training clips: how strongly their log-mel spectrograms are modulated at "
        "each rate over time and density over mel frequency, all classes alike; to the right what falls in frequency "
        f"with time, to the left what rises. Contours hold {', '.join(f'{100 * share:g}' for share in SHARES)} % of "
        f"the power. Boxes: the cut-offs of the layers, by their numbers{'' if folds else '; shaded: their ramps'}."
    )
    shown = table.assign(rate_hz=table["rate_hz"].map("{:.0f}".format), density=table["density"].map("{:.3f}".format))
    for number in range(1, len(gains) + 1):
        shown[f"layer {number}"] = table[f"layer {number}"].map(percent)
    shown = shown.rename(columns={"rate_hz": "90 % up to (Hz)", "density": "90 % up to (cycles/mel)"})
    told = "lies below the cut-offs of" if folds else "is left behind"
    note = (
        f"Share of the modulation power of each class that {told} each layer and those in front of it, as if there "
        "were no convolutions between them; and the rate and the density up to which 90 % of it lie."
    )
    whole_drawing = Drawing(f"modulations{suffix}", alt, draw_modulations({"": mean_spectrum(spectra)}, run.model))
    blocks: list[Block] = [Text(f"{text}."), Drawings([whole_drawing], caption)]
    if 1 < len(spectra) <= MOST_PANELS:
        alt = "The same for each class; the numbers are in the table"
        classes = Drawing(f"modulations_classes{suffix}", alt, draw_modulations(spectra, run.model), min_width_px=560)
        blocks.append(Drawings([classes], "The same for each class, with the box of layer 1."))
    return [*blocks, Table(f"modulations{suffix}", note, table, shown)]


@mpl.rc_context({**STYLE, "axes.grid": False})
def draw_modulations(spectra: Mapping[str, ModulationSpectrum], model: AudioClassifier | None = None) -> Figure:
    """The spectra with contours, a panel each under its name, and the cut-offs of the layers of a model."""
    columns = min(4, len(spectra))
    rows = math.ceil(len(spectra) / columns)
    if len(spectra) == 1:
        figure, panel = new_panel("Modulation power", "", "", height=4.0, width=6.4)
        panels = [panel]
    else:
        figure = Figure(figsize=(1.2 + 2.3 * columns, 0.6 + 1.9 * rows), layout="constrained")
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

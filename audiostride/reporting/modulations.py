"""Modulation power spectra: which rates and densities sounds hold, and how much of that the layers of a model pass.

The spectrum is that of the model's own log-mel spectrograms, as Singh and Theunissen (2003) and Elliott and Theunissen
(2009) take it of theirs: the mean power of their two-dimensional Fourier transform.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from audiostride.audio.log_mel import log_mel_spectrogram
from audiostride.models import AudioClassifier, ClassifierConfig
from audiostride.progress import progress_bar
from audiostride.reporting.class_figures import read_samples_of
from audiostride.reporting.measuring import layer_mask

CLIPS = 20  # of a class, evenly from all
WINDOWS = 2  # of a clip
SHARES = (0.8, 0.9, 0.95)  # of the power, which contours hold
SILENT = 1e-9  # power of what does not change but by rounding


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

"""Ripples: sounds whose spectrogram is modulated at a known rate over time and density over mel frequency.

A ripple is the natural test sound for a model with cut-offs in Hz and cycles per mel: its log-mel spectrogram is, to a
first approximation, one point of the modulation plane that the cut-offs divide.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiostride.audio.log_mel import hz_to_mel
from audiostride.writing import make_folder, write_bytes, write_text

N_MELS, FMIN_HZ, FMAX_HZ = 64, 60.0, 7800.0  # of the frontend, whose bands the densities refer to
N_FFT, HOP = 512, 64  # of the synthesis: 4 ms, so that rates up to 50 Hz are shaped well
PEAK = 0.5


def class_label(rate_hz: float, density: float) -> str:
    """Name of the class with this rate (Hz) and density (cycles per mel)."""
    return f"{rate_hz:g} Hz x {density:.3f} c/mel"


def synthesise_ripple(
    rate_hz: float,
    density: float,
    *,
    rng: np.random.Generator,
    duration_s: float = 1.0,
    sample_rate: int = 16000,
    depth_db: float = 24.0,
    floor_db: float = -12.0,
) -> NDArray[np.float32]:
    """One ripple: a carrier whose level in dB follows ``cos(2 pi (rate t +- density m) + phase)``.

    The carrier is white noise or a harmonic complex of 70 to 140 Hz, the direction up or down, the phase random; m
    counts mel bands of the frontend. White noise lies beside it.

    Args:
        rate_hz: Modulation rate, in Hz.
        density: Modulation density, in cycles per mel band.
        rng: Source of randomness.
        duration_s: Length in seconds.
        sample_rate: In Hz.
        depth_db: From trough to crest.
        floor_db: Level of the noise beside the ripple, relative to it.

    Shape:
        Result: ``(samples,)`` float32, peak 0.5.
    """
    n_samples = round(duration_s * sample_rate)
    times_s = np.arange(n_samples) / sample_rate
    noise = rng.standard_normal((2, n_samples))
    if rng.random() < 0.5:
        carrier = noise[0]
    else:
        turns = rng.uniform(70.0, 140.0) * times_s + rng.random()
        carrier = np.diff(np.floor(turns), prepend=0.0) * 10 + 0.02 * noise[0]  # a pulse a period, and a little breath
    window = torch.hann_window(N_FFT, dtype=torch.float64)
    spectrum = torch.stft(torch.from_numpy(carrier), N_FFT, HOP, window=window, return_complex=True)  # (F, T)
    bins_hz = np.arange(N_FFT // 2 + 1) * sample_rate / N_FFT
    low, high = hz_to_mel(FMIN_HZ), hz_to_mel(FMAX_HZ)
    bands = np.array([(hz_to_mel(hz) - low) / (high - low) * (N_MELS + 1) - 1 for hz in bins_hz])  # in mel bands
    frames_s = np.arange(spectrum.shape[1]) * HOP / sample_rate
    direction = rng.choice([-1.0, 1.0])
    phase = 2 * np.pi * (rate_hz * frames_s[None, :] + direction * density * bands[:, None] + rng.random())
    gain = 10 ** (depth_db / 2 * np.cos(phase) / 20)
    shaped: Tensor = torch.istft(spectrum * torch.from_numpy(gain), N_FFT, HOP, window=window, length=n_samples)
    ripple = shaped.numpy() / shaped.std().item()
    mixed = ripple + 10 ** (floor_db / 20) * noise[1]
    samples: NDArray[np.float32] = (PEAK * mixed / np.abs(mixed).max()).astype(np.float32)
    return samples


def write_ripples(folder: Path, task: str, card: dict[str, Any], *, seed: int) -> Path:
    """Synthesise the clips of one task as WAV files with a manifest, a function of (card, task, seed).

    Args:
        folder: Where they go; made where it does not exist.
        task: A task of the card.
        card: The card of the ripples, see `read_card`.
        seed: Seed of the sounds.

    Returns:
        The manifest, with a column ``modulation`` that names the class of each clip.
    """
    settings = card["tasks"][task]
    classes = [(rate, density) for rate in settings["rates_hz"] for density in settings["densities_cycles_per_mel"]]
    make_folder(folder / "audio")
    rows = []
    for split, count in card["clips"].items():
        for number in range(count):
            rate_hz, density = classes[number % len(classes)]
            rng = np.random.default_rng([seed, *map(ord, task + split), number])
            samples = synthesise_ripple(
                rate_hz,
                density,
                rng=rng,
                duration_s=card["duration_s"],
                sample_rate=card["sample_rate"],
                depth_db=card["depth_db"],
                floor_db=card["floor_db"],
            )
            name = f"audio/{task}_{split}_{number:04d}.wav"
            content = io.BytesIO()  # of a full disk libsndfile says no reason
            soundfile.write(content, samples, card["sample_rate"], format="WAV", subtype="PCM_16")
            write_bytes(folder / name, content.getvalue())
            rows.append({"path": name, "modulation": class_label(rate_hz, density), "split": split})
    manifest = folder / f"{task}.csv"
    write_text(manifest, pd.DataFrame(rows).to_csv(index=False))
    return manifest

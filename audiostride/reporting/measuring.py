"""What trained pooling layers pass, measured: ripples are sent through them and their amplitude is read off."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from audiostride.errors import InputError
from audiostride.models import AudioClassifier
from audiostride.models.pooled import PooledBlock
from audiostride.reporting.cutoffs import AXES, UNITS
from audiostride.strides.diffstride import DiffStride2d
from audiostride.strides.masks import passband_mask
from audiostride.strides.spectral_pool import SpectralPool2d

MOST_BINS = 160  # longer axes are measured at this many evenly spread bins: 10 s windows have 501
RIPPLES_AT_ONCE = 32


def measure_gains(model: AudioClassifier) -> pd.DataFrame:
    """Measured gain of every pooling layer at the frequencies of its input, beside the mask that was computed.

    Each layer gets ripples: maps of the size that its input has in a window, a sinusoid of a whole number of cycles
    over time or over mel and constant along the other axis, in two phases, a quarter of a cycle apart. The gain is the
    one amplitude that fits both pooled maps best, at the frequency of the ripple on the shorter axis. Where that is
    above the Nyquist frequency of the shorter axis, it is the amplitude of the component that it folds onto (with
    ``size="folded"``; the other sizes let nothing of it through).

    Args:
        model: A classifier.

    Returns:
        A table with ``layer`` (from 1), ``axis``, ``unit``, ``bin`` (cycles over the axis), ``frequency`` (Hz or
        cycles/mel), ``folded`` (comes out at a lower frequency), ``gain``, ``mask`` and ``rest`` (largest part of the
        pooled map that is not the ripple); no rows for strided convolution, which has no pooling layer.
    """
    config = model.config
    layers = model.encoder.pooled_layers(config.window_frames, config.n_mels)
    width = {"time": 1 / config.window_s, "mel": 1 / config.n_mels}
    tables = []
    for layer, (block, n_in, n_out) in enumerate(layers, start=1):
        if block.pool is None:
            continue
        for number, axis in enumerate(AXES):
            mask = layer_mask(block, number, n_in, n_out)
            folds = isinstance(block.pool, DiffStride2d) and block.pool.axes[number].size == "folded"
            bins = np.unique(np.linspace(0, n_in[number] // 2, MOST_BINS).round().astype(int))
            gain, rest = send_ripples(block, number, n_in, bins)
            columns = {"layer": layer, "axis": axis, "unit": UNITS[axis], "bin": bins, "frequency": bins * width[axis]}
            columns |= {"folded": folds & (2 * bins > n_out[number]), "gain": gain, "mask": mask[bins], "rest": rest}
            tables.append(pd.DataFrame(columns))
    names = ["layer", "axis", "unit", "bin", "frequency", "folded", "gain", "mask", "rest"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=names)


def largest_difference(gains: pd.DataFrame) -> float:
    """Largest difference of measured gain and mask, also of what else comes out, as a share of full scale."""
    return float(max((gains["gain"] - gains["mask"]).abs().max(), gains["rest"].max()))


def layer_mask(block: PooledBlock, axis: int, n_in: Sequence[int], n_out: Sequence[int]) -> NDArray[np.float64]:
    """Computed weights of the frequencies 0 to ``n // 2`` of one axis of a pooling layer, those it crops being 0."""
    n, distance = n_in[axis], np.arange(n_in[axis] // 2 + 1)
    kept = 2 * distance <= n_out[axis]
    if isinstance(block.pool, SpectralPool2d):
        return kept.astype(np.float64)
    if not isinstance(block.pool, DiffStride2d):
        raise InputError(f"layer_mask: the block must pool, got {type(block.pool).__name__}")
    settings, stride = block.pool.axes[axis], block.used_strides(n_in[0], n_in[1])[axis]
    weights = passband_mask(n, stride, ramp_bins=settings.ramp_bins, size=settings.size).double().numpy()
    masked: NDArray[np.float64] = weights if settings.size == "folded" else np.where(kept, weights, 0.0)
    return masked


@torch.no_grad()
def send_ripples(
    block: PooledBlock, axis: int, n_in: Sequence[int], bins: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gain of a block's pooling layer for ripples along one axis, and the largest part that is not the ripple.

    Args:
        axis: 0 for time, 1 for mel.
        n_in: Size of the maps (frames, mel bins).
        bins: Cycles of each ripple over the axis.

    Shape:
        Both results: ``(len(bins),)``.
    """
    if block.pool is None:
        raise InputError("send_ripples: the block must pool, got one with strided convolutions")
    gains, rests = [], []
    for first in range(0, len(bins), RIPPLES_AT_ONCE):
        some = bins[first : first + RIPPLES_AT_ONCE]
        line = build_ripples(some, n_in[axis])  # (ripples, 2 phases, n)
        shape = [*line.shape[:2], 1, 1]
        shape[2 + axis] = n_in[axis]
        maps = torch.from_numpy(line.reshape(shape)).float().expand(-1, -1, n_in[0], n_in[1])
        pooled = block.pool(maps).double().numpy()  # (ripples, 2, T', M')
        ideal = build_ripples(some, n_in[axis], samples=pooled.shape[2 + axis])
        ideal = ideal.reshape(*ideal.shape[:2], *([-1, 1] if axis == 0 else [1, -1]))
        energy = (ideal**2 * np.ones_like(pooled)).sum(axis=(1, 2, 3))
        gain = (pooled * ideal).sum(axis=(1, 2, 3)) / energy
        gains.append(gain)
        rests.append(np.abs(pooled - gain[:, None, None, None] * ideal).max(axis=(1, 2, 3)))
    return np.concatenate(gains), np.concatenate(rests)


def build_ripples(bins: NDArray[np.int64], n: int, *, samples: int | None = None) -> NDArray[np.float64]:
    """Cosine and sine with a whole number of cycles over an axis of `n` bins, sampled at `samples` points.

    A frequency of 0 or of half a cycle per bin has one phase only: its sine is 0 everywhere.

    Shape:
        Result: ``(len(bins), 2, samples or n)``.
    """
    count = samples or n
    turns = bins[:, None] * np.arange(count)[None, :] / count
    waves = np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], axis=1)
    waves[(bins == 0) | (2 * bins == n), 1] = 0.0
    return waves

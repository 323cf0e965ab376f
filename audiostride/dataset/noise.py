"""Noise to add to training excerpts: recordings of a folder, or synthetic noise from white to brown."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiostride.audio.resampling import stream_samples
from audiostride.checks import check_count
from audiostride.dataset.folders import walk_folder
from audiostride.errors import InputError

SYNTHETIC = "synthetic"
N_SYNTHETIC = 64
LOWEST_HZ = 60.0  # of synthetic noise: where the mel bands begin

# Kind of random draw; see drawing.py.
NOISES = 15

# Power density of the synthetic noises falls as 1 / f^exponent, from white (0) over pink (1) to brown (2).
WHITE, BROWN = 0.0, 2.0

# Noises are pieces of one length, so that excerpts can be cut from them on the device. 512 of them take 125 MiB there.
PIECE_S = 4.0
MAX_PIECES = 512

# Digital silence and what is nearly that cannot be brought to a signal-to-noise ratio.
MIN_RMS = 1e-5


def load_noise(source: str | Path, *, seed: int, sample_rate: int = 16000) -> NDArray[np.float32]:
    """Pieces of noise of 4 s each, with an rms of 1.

    Args:
        source: ``"synthetic"`` for 64 noises from white to brown, or a folder of recordings, which are cut into pieces
            (the last of a recording, and recordings shorter than a piece, are repeated to fill it). Of more than 512
            pieces every so manieth is taken.
        seed: Seed of synthetic noise.
        sample_rate: In Hz.

    Shape:
        Result: ``(pieces, 4 s)`` float32.

    Raises:
        InputError: No such folder, no recordings in it, one that cannot be read, silence only.
    """
    n_samples = round(PIECE_S * sample_rate)
    if source == SYNTHETIC:
        return make_noises(N_SYNTHETIC, n_samples, seed=seed, lowest=LOWEST_HZ / sample_rate)
    if not Path(source).is_dir():
        raise InputError(f"noise: must be a folder of recordings or {SYNTHETIC!r}, got {source}")
    walk = walk_folder(source)
    if walk.faults or not walk.audio:
        found = "found some that cannot be read" if walk.faults else "found none"
        lines = [f"noise: folder {source} must hold audio files, {found}", *walk.faults.values(), *walk.notes()]
        raise InputError("\n".join(lines))
    for note in walk.notes():
        print(note, file=sys.stderr)
    files = [Path(source, name) for name in walk.audio]
    pieces: list[NDArray[np.float32]] = []
    stride = 1  # every so manieth piece is kept; doubled whenever they become too many
    for count, piece in enumerate(_cut_pieces(files, n_samples, sample_rate)):
        if count % stride == 0:
            pieces.append(piece)
        while len(pieces) > MAX_PIECES:
            pieces, stride = pieces[::2], 2 * stride
    levels = [float(np.sqrt(np.mean(np.square(piece, dtype=np.float64)))) for piece in pieces]
    kept = [piece / np.float32(level) for piece, level in zip(pieces, levels, strict=True) if level > MIN_RMS]
    if not kept:
        raise InputError(f"noise: recordings in {source} must not be silent, but all {len(pieces)} pieces are")
    return np.stack(kept)


def _cut_pieces(files: list[Path], n_samples: int, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """Consecutive pieces of recordings, the last of each repeated to its full length."""
    for file in files:
        rest = np.empty(0, dtype=np.float32)
        for block in stream_samples(file, sample_rate=sample_rate):
            rest = np.concatenate([rest, block])
            while len(rest) >= n_samples:
                yield rest[:n_samples].copy()  # a view would hold all of the block in memory
                rest = rest[n_samples:]
        if len(rest):
            yield np.resize(rest, n_samples)


def make_noises(n_noises: int, n_samples: int, *, seed: int, lowest: float = 60 / 16000) -> NDArray[np.float32]:
    """Synthetic noises from white over pink to brown, each with an rms of 1, to cut excerpts from.

    The power density of the noises falls as ``1 / f^a``, a in equal steps from 0 to 2 (Timmer and Koenig 1995), above
    `lowest`; there is nothing below, where brown noise would have nearly all its power and nobody would hear it. They
    are made once, on the host, so that training is the same on every device: fresh normal noise for 256 examples of
    16000 samples takes 30 ms per batch on one core, cutting excerpts from these 1 ms. 64 noises of 64000 samples take
    16 MB, and 0.2 s to make.

    Args:
        n_noises: Number of noises, >= 1.
        n_samples: Length of each, >= 1; several times that of an excerpt gives more different excerpts.
        seed: Seed of the noises, >= 0.
        lowest: Lowest frequency, in cycles per sample, in [0, 0.5); unless set, 60 Hz at 16 kHz, where the mel bands
            begin.

    Shape:
        Result: ``(n_noises, n_samples)`` float32.

    Raises:
        InputError: A value out of its range, noises so short that no frequency is left above `lowest`.

    >>> make_noises(3, 16000, seed=0).std(axis=1).round(3)
    array([1., 1., 1.], dtype=float32)
    """
    who = "make_noises"
    check_count(who, n_noises=n_noises, n_samples=n_samples)
    if seed < 0:
        raise InputError(f"{who}: seed must be >= 0, got {seed}")
    bins = np.arange(n_samples // 2 + 1)
    kept = (bins > 0) & (bins >= lowest * n_samples)
    if not (0 <= lowest < 0.5 and kept.any()):
        raise InputError(
            f"{who}: lowest must be in [0, 0.5) cycles per sample and below a Fourier bin of {n_samples} samples, got "
            f"{lowest}; divide Hz by the sample rate, make longer noises"
        )
    rng = np.random.default_rng([seed, NOISES])
    noises = np.empty((n_noises, n_samples), dtype=np.float32)
    for noise, exponent in zip(noises, np.linspace(WHITE, BROWN, n_noises), strict=True):
        weights = np.where(kept, np.maximum(bins, 1) ** (-exponent / 2), 0.0)
        colored = np.fft.irfft(np.fft.rfft(rng.standard_normal(n_samples)) * weights, n=n_samples)
        noise[:] = colored / np.sqrt(np.mean(colored**2))
    return noises

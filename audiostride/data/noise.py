"""Noise to add to training excerpts: recordings of a folder, or synthetic noise from white to brown."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiostride.data.audio_files import find_audio_files, stream_samples
from audiostride.data.augmentation import make_noise_bank
from audiostride.errors import InputError

SYNTHETIC = "synthetic"
N_SYNTHETIC = 64
LOWEST_HZ = 60.0  # of synthetic noise: where the mel bands begin

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
        return make_noise_bank(N_SYNTHETIC, n_samples, seed=seed, lowest=LOWEST_HZ / sample_rate)
    if not Path(source).is_dir():
        raise InputError(f"noise: must be a folder of recordings or {SYNTHETIC!r}, got {source}")
    files = find_audio_files(source)
    if not files:
        raise InputError(f"noise: folder {source} must hold audio files, found none")
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

"""How much of a recording a model hears: the share of its energy that is not lost when it is resampled."""

import math

import numpy as np
from numpy.typing import NDArray

LOWEST_HZ = 60.0  # below are hum and rumble, which neither a model nor this measure takes in

# Upper edge of the highest mel band as a share of the sample rate: 7,800 of 16,000 Hz, as the frontend has it.
HIGHEST = 0.4875

# Of a bird's song or of speech half and more lies in the band, of white noise at 384 kHz 4 %.
LEAST_SHARE = 0.01

SLOW_DOWN = "slow them down for the model (time expansion: the same samples with a tenth of the sample rate)"

PIECES_A_SECOND = 600

# Mean power of a Hann window.
_WINDOW_POWER = 0.375


class BandEnergy:
    """Sums of the energy of consecutive blocks inside a model's band and above it.

    Most blocks are looked at in passing: what lies above a frequency has differences from sample to sample of at least
    ``4 sin(pi f / rate)^2`` of its power, and pieces of some milliseconds without their means have lost their rumble.
    """

    __slots__ = ("above", "inside")

    def __init__(self) -> None:
        self.inside = self.above = 0.0

    def add(self, mono: NDArray[np.floating], *, rate: int, model_rate: int) -> None:
        """Take in a block.

        Args:
            mono: Samples, ``(samples,)``.
            rate: Their sample rate in Hz.
            model_rate: That of the model; nothing is lost of what has no higher one.
        """
        if rate <= model_rate or len(mono) < 3:
            return
        high_hz = HIGHEST * model_rate
        power = float(mono @ mono)
        length = max(1, rate // PIECES_A_SECOND)
        sums = mono[: len(mono) // length * length].reshape(-1, length) @ np.ones(length, dtype=mono.dtype)
        changes = 2 * (power - float(mono[1:] @ mono[:-1]))
        least = 0.9 * 4 * math.sin(math.pi * min(0.5, high_hz / rate)) ** 2
        if changes < least * (power - float(sums @ sums) / length):
            self.inside += power
            return
        n_fft = min(len(mono), 2 ** math.ceil(math.log2(rate / 20)))
        starts = [*range(0, len(mono) - n_fft, n_fft), len(mono) - n_fft]  # whole pieces: a cut is heard everywhere
        pieces = np.stack([mono[start : start + n_fft] for start in starts]) * np.hanning(n_fft)
        spectrum = (np.abs(np.fft.rfft(pieces)) ** 2).sum(axis=0) * 2 / (_WINDOW_POWER * n_fft)
        hz = np.arange(len(spectrum)) * rate / n_fft
        self.inside += float(spectrum[(hz >= LOWEST_HZ) & (hz <= high_hz)].sum())
        self.above += float(spectrum[hz > high_hz].sum())

    @property
    def is_above(self) -> bool:
        """Whether almost all of it is above the band."""
        return self.inside < LEAST_SHARE * (self.inside + self.above)

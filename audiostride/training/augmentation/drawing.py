"""What augmentation does to a batch, drawn on the host as a function of (seed, step); it is done on the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from audiostride.checks import (
    Count,
    Positive,
    Probability,
    Range,
    WholeNumber,
    check_count,
    check_positive,
    check_settings,
)
from audiostride.errors import InputError

# Kinds of random draws, each a stream of its own, so that switching one on leaves the others as they are. Every kind
# of the package has a number of its own: orders and excerpts count from 0, noises (noise.py) have 15.
GAIN, NOISE, MIXUP, TIME_MASKS, MEL_MASKS = 10, 11, 12, 13, 14


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """How training examples are varied; everything is off unless set.

    Raises:
        InputError: A value of another type or out of its range.

    >>> AugmentationConfig(gain_db=6.0, mixup=0.2).noise_prob
    0.0
    """

    gain_db: Annotated[float, Range(0, unit="dB", advice="use 0 to leave the level alone")] = 0.0
    """Largest change of level in dB; that of an example is uniform between the lowest and this. 0 is off."""
    lowest_gain_db: float | None = None
    """Lowest change of level in dB, at most the largest; None is -gain_db. Without effect where gain_db is 0."""
    noise_prob: Probability = 0.0
    """Probability that noise is added to an example, in [0, 1]. 0 is off."""
    noise_snr_db: Sequence[float] = (5.0, 30.0)
    """Lowest and highest signal-to-noise ratio in dB; that of an example is uniform between them."""
    mixup: Annotated[float, Range(0, unit="(alpha, no unit)", advice="use 0 to mix nothing")] = 0.0
    """Alpha of the beta distribution that mixup draws weights from (0.1 to 0.4 is usual). 0 is off."""
    time_masks: WholeNumber = 0
    """Stretches of time blanked out per example. 0 is off."""
    time_mask_s: Positive = 0.1
    """Longest stretch of time blanked out, in seconds; lengths are uniform from 0."""
    mel_masks: WholeNumber = 0
    """Stretches of mel bands blanked out per example. 0 is off."""
    mel_mask_bands: Count = 8
    """Most mel bands blanked out in one stretch; numbers are uniform from 0."""

    def __post_init__(self) -> None:
        check_settings("augmentation", self)
        if len(self.noise_snr_db) != 2:
            two = "two numbers in dB, the lowest and the highest"
            raise _out_of_range("noise_snr_db", two, tuple(self.noise_snr_db), "give one number twice to fix it")
        if self.gain_db and self.lowest_gain_db is not None and self.lowest_gain_db > self.gain_db:
            largest = f"at most gain_db ({self.gain_db:g} dB)"
            raise _out_of_range("lowest_gain_db", largest, self.lowest_gain_db, "-30 is 30 dB quieter")
        low, high = self.noise_snr_db
        if low > high:
            raise _out_of_range("noise_snr_db", "lowest <= highest, in dB", (low, high), "more dB is less noise")
        object.__setattr__(self, "noise_snr_db", (float(low), float(high)))  # from YAML it comes as a list


def draw_augmentation(
    config: AugmentationConfig, *, batch_size: int, n_frames: int, n_mels: int, frame_s: float, seed: int, step: int
) -> dict[str, NDArray[Any]]:
    """All random numbers of one batch, a pure function of (seed, step), for the transforms of this package.

    Each kind of augmentation draws from a stream of its own; only kinds that are switched on are there:

        gain_db                                 (B,) float32    dB
        noise_snr_db                            (B,) float32    dB, +inf where no noise is added
        noise_pick, noise_place                 (B,) float64    in [0, 1): which noise, and where in it
        mixup_partner                           (B,) int64      in one random cycle: none is its own partner if B > 1
        mixup_weight                            (B,) float32    of the example itself, in [0.5, 1]
        time_mask_starts, time_mask_lengths     (B, masks) int64    frames
        mel_mask_starts, mel_mask_lengths       (B, masks) int64    mel bands

    A mixup weight is ``max(l, 1 - l)`` of ``l ~ Beta(alpha, alpha)`` for each example, so that the example itself
    prevails; as partners are a permutation, every pair is mixed as often in either sense. Lengths of masks are uniform
    from 0 to the longest, starts uniform over all that keep the mask inside (Park et al. 2019, section 2).

    Args:
        config: What is switched on.
        batch_size: Examples B, >= 1.
        n_frames: Frames of a spectrogram, >= 1.
        n_mels: Mel bands of a spectrogram, >= 1.
        frame_s: Distance of frames in seconds (hop length / sample rate), > 0.
        seed: Seed of the run, >= 0.
        step: Number of the batch, >= 0.

    Raises:
        InputError: A value out of its range, a longest mask under one frame or larger than the spectrogram.

    >>> size = {"batch_size": 4, "n_frames": 100, "n_mels": 64, "frame_s": 0.01}
    >>> draws = draw_augmentation(AugmentationConfig(gain_db=6.0, mel_masks=2), **size, seed=0, step=7)
    >>> {name: values.shape for name, values in draws.items()}
    {'gain_db': (4,), 'mel_mask_starts': (4, 2), 'mel_mask_lengths': (4, 2)}
    """
    who = "draw_augmentation"
    check_count(who, batch_size=batch_size, n_frames=n_frames, n_mels=n_mels)
    check_positive(who, frame_s=frame_s)
    for name, value in (("seed", seed), ("step", step)):
        if value < 0:
            raise InputError(f"{who}: {name} must be >= 0, got {value}")
    draws: dict[str, NDArray[Any]] = {}
    if config.gain_db:
        rng = np.random.default_rng([seed, GAIN, step])
        lowest = -config.gain_db if config.lowest_gain_db is None else config.lowest_gain_db
        draws["gain_db"] = rng.uniform(lowest, config.gain_db, batch_size).astype(np.float32)
    if config.noise_prob:
        rng = np.random.default_rng([seed, NOISE, step])
        low, high = config.noise_snr_db
        noisy, snr_db = rng.random(batch_size) < config.noise_prob, rng.uniform(low, high, batch_size)
        draws["noise_snr_db"] = np.where(noisy, snr_db, np.inf).astype(np.float32)
        draws["noise_pick"], draws["noise_place"] = rng.random((2, batch_size))
    if config.mixup:
        rng = np.random.default_rng([seed, MIXUP, step])
        cycle, weights = rng.permutation(batch_size), rng.beta(config.mixup, config.mixup, batch_size)
        partners = np.empty(batch_size, dtype=np.int64)
        partners[cycle] = np.roll(cycle, 1)
        draws["mixup_partner"] = partners
        draws["mixup_weight"] = np.maximum(weights, 1 - weights).astype(np.float32)
    if config.time_masks:
        rng = np.random.default_rng([seed, TIME_MASKS, step])
        longest = config.time_mask_s / frame_s + 1e-6  # in frames; 0.3 / 0.1 lies just below 3
        if not 1 <= longest < n_frames + 1e-3:
            limits = f"from one frame, {frame_s:g} s, to the window, {n_frames * frame_s:g} s"
            raise _out_of_range("time_mask_s", limits, config.time_mask_s, "it is the longest stretch")
        starts, lengths = _draw_masks(rng, (batch_size, config.time_masks), longest=int(longest), n=n_frames)
        draws["time_mask_starts"], draws["time_mask_lengths"] = starts, lengths
    if config.mel_masks:
        rng = np.random.default_rng([seed, MEL_MASKS, step])
        if config.mel_mask_bands > n_mels:
            raise _out_of_range(
                "mel_mask_bands", f"at most the {n_mels} mel bands", config.mel_mask_bands, "it is the largest stretch"
            )
        starts, lengths = _draw_masks(rng, (batch_size, config.mel_masks), longest=config.mel_mask_bands, n=n_mels)
        draws["mel_mask_starts"], draws["mel_mask_lengths"] = starts, lengths
    return draws


def _draw_masks(
    rng: np.random.Generator, shape: tuple[int, int], *, longest: int, n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lengths = rng.integers(0, longest + 1, shape)
    return rng.integers(0, n - lengths + 1), lengths


def _out_of_range(name: str, constraint: str, value: float | Sequence[float], what_to_do: str) -> InputError:
    return InputError(f"augmentation: {name} must be {constraint}, got {value}; {what_to_do}")

"""Pieces of a clip: random excerpts for training, and windows with zeros where they reach beyond it."""

import numpy as np
from numpy.typing import NDArray


def draw_excerpt_starts(
    n_samples: NDArray[np.int64], *, window: int, shift: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Random starts of excerpts, in samples, uniform over all that lie inside their clips.

    Up to `shift` samples of an excerpt may lie beyond either end (they are zeros): a clip no longer than the window
    would otherwise always give the same excerpt.

    Args:
        n_samples: Length of each clip, ``(B,)``.
        window: Length of the excerpts.
        shift: How far an excerpt may reach beyond its clip, >= 0.
        rng: Source of randomness.

    Shape:
        Result: ``(B,)`` int64.
    """
    return rng.integers(-shift, np.maximum(n_samples - window, 0) + shift + 1)


def cut_window(waveform: NDArray[np.float32], start: int, window: int) -> NDArray[np.float32]:
    """`window` samples of `waveform` from `start`, zeros where they lie outside."""
    first, last = max(start, 0), min(start + window, len(waveform))
    if first == start and last == start + window:
        return waveform[first:last]
    piece = np.zeros(window, dtype=np.float32)
    if last > first:
        piece[first - start : last - start] = waveform[first:last]
    return piece

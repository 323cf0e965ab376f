"""The windows of a recording."""

from dataclasses import dataclass

import numpy as np

TIME_DIGITS = 4  # steps of 0.1 ms, finer than what a window says


@dataclass(frozen=True)
class Tiling:
    """The windows of a recording: they begin at multiples of the hop, and the last one reaches its end."""

    n_samples: int
    window: int
    hop: int
    sample_rate: int
    origin_s: float = 0.0
    """Where the recording begins in its file."""

    @property
    def n_windows(self) -> int:
        """As many as cover the recording; the last one is filled up with zeros."""
        return 1 + -(-max(0, self.n_samples - self.window) // self.hop)

    def span(self, index: int) -> tuple[int, int]:
        """First sample of a window and the one behind its last, which lies in the recording."""
        return index * self.hop, min(index * self.hop + self.window, self.n_samples)

    def share(self, index: int) -> float:
        """How much of a window is audio, in (0, 1].

        Rounded to float32: its product with a float32 logit is then exact in float64, so that a recording of one window
        has that window's logits to the bit.
        """
        start, end = self.span(index)
        return float(np.float32((end - start) / self.window))

    def audio_s(self, first: int, count: int) -> float:
        """Seconds of audio that consecutive windows add to those before them."""
        last = first + count
        end = self.n_samples if last == self.n_windows else last * self.hop
        return (end - first * self.hop) / self.sample_rate

    def seconds(self, sample: int) -> float:
        """Where a sample lies in the file."""
        return round(self.origin_s + sample / self.sample_rate, TIME_DIGITS)

"""Measures of the audio of clips, taken in one pass over blocks."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from audiostride.audio.band import BandEnergy
from audiostride.audio.decoding import open_audio
from audiostride.audio.resampling import BLOCK_FRAMES, stream_frames
from audiostride.dataset.check.findings import Finding
from audiostride.dataset.readers import END_TOLERANCE_S, AudioReader
from audiostride.errors import InputError

MODEL_RATE = 16000  # what models of the default settings are fed with, in Hz

# A flat top is at least this long: two equal samples happen at the peak of any tone.
MIN_FLAT_SAMPLES = 3

# Rounding flattens peaks too, most of all of low tones in few bits. There the samples beside a flat top of three are at
# most three steps below it (a parabola that falls one step in 1.5 samples falls 2.8 in 2.5), beside longer ones less;
# where a wave was cut off it arrives at its slope, many steps at a time.
MIN_EDGE_STEPS = 3

# With fewer steps than this between its extremes a wave has no slope to speak of: a square wave, noise of a few bits, a
# tone whose period is a few samples. A-law has 63 steps of the size that it has at full scale.
MIN_STEPS = 32


@dataclass(frozen=True, slots=True)
class AudioFacts:
    """Measures of a clip. Levels are amplitudes, 1 is full scale."""

    sample_rate: int
    """Hz."""
    channels: int
    """Number of channels."""
    frames: int
    """Samples per channel."""
    encoding: str
    """Container and encoding, such as ``WAV PCM_16``."""
    n_not_finite: int
    """Samples that are NaN or infinite, in all channels; where there are any, the measures below mean nothing."""
    peak: float
    """Largest magnitude in any channel."""
    clipped_share: float
    """Share of samples in flat tops, of the channel with the most."""
    rms: float
    """Root mean square of the mono mix."""
    mean: float
    """Mean of the mono mix: its constant part."""
    swing: float
    """Half the distance between the extremes of the mono mix: a level that a constant does not change."""
    content: bytes
    """Checksum of sample rate and mono mix, rounded to 16 bits: equal for a copy in another lossless format."""
    above_band: bool = False
    """Whether almost all of the mono mix's energy is above the band that a model of the default settings hears."""
    doubt: str = ""
    """What of the file is not read, or may be lost at its end."""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


class _FlatTops:
    """Counts the samples of one channel that lie in flat tops at its maximum, block by block.

    A flat top that a block border cuts may be missed, which matters only for flat tops in a row of one in 2**18.
    """

    def __init__(self) -> None:
        self.top = -math.inf
        self.count = 0

    def add(self, samples: NDArray[np.float32]) -> None:
        top = float(samples.max())
        if top < self.top:
            return
        if top > self.top:
            self.top, self.count = top, 0
        self.count += count_flat_top(samples)


def count_flat_top(samples: NDArray[np.float32]) -> int:
    """How many samples lie in flat tops: runs of equal samples at the maximum that are entered or left steeply.

    Clipping cuts a wave off in mid-slope, so that beside its flat top it is many steps below it. The step is the
    distance from the maximum to the next value that occurs; it is that of the encoding, whatever gain came after.

    Args:
        samples: One channel, finite.

    Shape:
        `samples`: ``(samples,)``.

    >>> wave = np.sin(np.arange(1000) / 10, dtype=np.float32)
    >>> count_flat_top(wave), count_flat_top(np.minimum(wave, 0.5))
    (0, 335)
    """
    top = samples.max()
    at_top = np.flatnonzero(samples == top)
    if len(at_top) < MIN_FLAT_SAMPLES or len(at_top) == len(samples):
        return 0
    breaks = np.flatnonzero(np.diff(at_top) > 1)
    first, last = at_top[np.r_[0, breaks + 1]], at_top[np.r_[breaks, len(at_top) - 1]]
    long = last - first + 1 >= MIN_FLAT_SAMPLES
    if not long.any():
        return 0
    first, last = first[long], last[long]
    step = float(top) - float(samples[samples < top].max())
    if float(top) - float(samples.min()) < MIN_STEPS * step:
        return 0
    # At either end of the clip there is one neighbour only; the first and last sample stand in for themselves.
    before, after = samples[np.maximum(first - 1, 0)], samples[np.minimum(last + 1, len(samples) - 1)]
    steep = float(top) - np.minimum(before, after, dtype=np.float64) > MIN_EDGE_STEPS * step
    return int((last - first + 1)[steep].sum())


def measure_audio(
    blocks: Iterable[NDArray[np.float32]],
    *,
    sample_rate: int,
    channels: int,
    encoding: str,
    model_rate: int = MODEL_RATE,
) -> AudioFacts:
    """The measures of a clip.

    Args:
        blocks: Consecutive pieces of the clip.
        sample_rate: In Hz.
        channels: Number of channels.
        encoding: What the header says of it.
        model_rate: Sample rate of the model that is to hear it, in Hz.

    Shape:
        Each block: ``(frames, channels)``.
    """
    digest = hashlib.blake2b(str(sample_rate).encode(), digest_size=16)
    tops = [_FlatTops() for _ in range(channels)]
    bottoms = [_FlatTops() for _ in range(channels)]
    frames = n_not_finite = 0
    total = total_squared = 0.0
    low, high = math.inf, -math.inf
    band = BandEnergy()
    for block in blocks:
        frames += len(block)
        n_not_finite += block.size - int(np.count_nonzero(np.isfinite(block)))
        if n_not_finite or not len(block):
            continue
        for channel in range(channels):
            samples = np.ascontiguousarray(block[:, channel])
            tops[channel].add(samples)
            bottoms[channel].add(-samples)
        # float64: the mean of a million float32 samples would carry their rounding; squares of absurd ones overflow.
        mono = block[:, 0].astype(np.float64) if channels == 1 else block.mean(axis=1, dtype=np.float64)
        total += float(mono.sum())
        total_squared += float(mono @ mono)
        band.add(mono, rate=sample_rate, model_rate=model_rate)
        low, high = min(low, float(mono.min())), max(high, float(mono.max()))
        mono *= 32768
        if max(high, -low) > 2.0**15:  # keeps what is beyond full scale apart and absurd floats inside int32
            np.clip(mono, -(2.0**30), 2.0**30, out=mono)
        digest.update(np.rint(mono, out=mono).astype("<i4"))
    measured = frames > 0 and n_not_finite == 0
    flat = [top.count + bottom.count for top, bottom in zip(tops, bottoms, strict=True)]
    return AudioFacts(
        sample_rate=sample_rate,
        channels=channels,
        frames=frames,
        encoding=encoding,
        n_not_finite=n_not_finite,
        peak=max(extreme.top for extreme in (*tops, *bottoms)) if measured else 0.0,
        clipped_share=max(flat) / frames if measured else 0.0,
        rms=math.sqrt(total_squared / frames) if measured else 0.0,
        mean=total / frames if measured else 0.0,
        swing=(high - low) / 2 if measured else 0.0,
        content=digest.digest(),
        above_band=band.is_above,
    )


def read_facts(
    path: str, start_s: float, duration_s: float, *, name: str, model_rate: int = MODEL_RATE
) -> AudioFacts | Finding:
    """The measures of a clip, or why there are none.

    Args:
        path: Audio file.
        start_s: Start in seconds.
        duration_s: Length in seconds; NaN goes to the end.
        name: Of the file, for messages.
        model_rate: As for `measure_audio`.
    """
    file = None
    try:
        file, info = open_audio(path)
        to_end = math.isnan(duration_s)
        if start_s >= info.duration_s or (not to_end and start_s + duration_s > info.duration_s + END_TOLERANCE_S):
            part = f"start_s={start_s:g}" + ("" if to_end else f", duration_s={duration_s:g}")
            return Finding("out-of-range", f"{name} is {info.duration_s:.6g} s long, too short for {part}")
        blocks = stream_frames(path, start_s=start_s, duration_s=None if to_end else duration_s, opened=(file, info))
        facts = measure_audio(
            blocks, sample_rate=info.sample_rate, channels=info.channels, encoding=info.encoding, model_rate=model_rate
        )
        doubt = info.doubt or (file.describe_rest() if file and to_end else "")
        return replace(facts, doubt=doubt) if doubt else facts
    except InputError as error:
        # The words of `probe_audio` for a file with a header only.
        return Finding("empty-audio" if "holds no samples" in str(error) else "unreadable", str(error))
    finally:
        if file is not None:
            file.close()


def read_store_facts(reader: AudioReader, index: int, *, model_rate: int = MODEL_RATE) -> AudioFacts:
    """The measures of a clip of a store."""
    length = int(reader.n_samples[index])
    blocks = (reader.read(index, at, min(BLOCK_FRAMES, length - at))[:, None] for at in range(0, length, BLOCK_FRAMES))
    return measure_audio(
        blocks, sample_rate=reader.sample_rate, channels=1, encoding="store PCM_16", model_rate=model_rate
    )

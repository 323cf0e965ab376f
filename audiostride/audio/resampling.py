"""Reading audio files: any rate and channel count that libsndfile or ffmpeg knows, to mono at one sample rate."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from audiostride.audio.band import BandEnergy
from audiostride.audio.decoding import AudioInfo, frame_blocks, open_audio, probe_audio
from audiostride.audio.libsndfile import Decoder
from audiostride.errors import InputError

# Read beyond both ends of a part before resampling it, so that the filter sees what it sees in the whole file: from
# 20 ms on a part's samples differ from those of the whole by 4e-7 at most (8 to 96 kHz to 16 kHz, measured).
RESAMPLING_MARGIN_S = 0.05

# Aliases and images below -120 dB, at a fifth of the time of torchaudio's best setting.
RESAMPLING_QUALITY = "HQ"

# Frames that are decoded at a time where a file is read in blocks: 1.5 MiB for a stereo file.
BLOCK_FRAMES = 2**18

# The largest magnitude that is read: 32-bit integers that were written as floats. The power of far larger ones is more
# than float32 holds, and its logarithm no number.
LOUDEST = 2.0**32

__all__ = [
    "LOUDEST",
    "mix_to_mono",
    "probe_audio",
    "read_audio",
    "read_samples",
    "resample_blocks",
    "resampled_length",
    "stream_frames",
    "stream_samples",
]


def read_audio(
    path: str | Path, *, start_s: float = 0.0, duration_s: float | None = None, sample_rate: int = 16000
) -> NDArray[np.float32]:
    """Mono samples of a file or a part of it, resampled with soxr's HQ filter (aliasing below -120 dB, measured).

    Channels are averaged. A part of a file has the same samples as that part of the whole, to 1e-6: they lie on the
    same grid, and the filter sees the audio around the part.

    Args:
        path: Any file that libsndfile can read, or ffmpeg where that program is installed.
        start_s: Start in seconds.
        duration_s: Length in seconds; None reads to the end. What lies beyond the end is not there: the result is
            shorter.
        sample_rate: Of the result, in Hz.

    Shape:
        Result: ``(samples,)`` float32, not limited to [-1, 1].

    Raises:
        InputError: Missing, unreadable, empty or cut off file; a start beyond its end; samples that are not finite, or
            beyond 2**32 times full scale.
    """
    if not 0 <= start_s < math.inf or (duration_s is not None and not 0 < duration_s < math.inf):
        raise InputError(
            f"audio file {path}: start must be >= 0 s and the duration > 0 s, got {start_s} s and {duration_s} s"
        )
    first = round(start_s * sample_rate)
    count = None if duration_s is None else max(1, round(duration_s * sample_rate))
    return read_samples(path, first, count, sample_rate=sample_rate)


def read_samples(
    path: str | Path, first: int, count: int | None = None, *, sample_rate: int = 16000
) -> NDArray[np.float32]:
    """As `read_audio`, with start and length in samples of the result."""
    blocks = list(stream_samples(path, first, count, sample_rate=sample_rate, block_frames=None))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def stream_samples(
    path: str | Path,
    first: int = 0,
    count: int | None = None,
    *,
    sample_rate: int = 16000,
    block_frames: int | None = BLOCK_FRAMES,
    band: BandEnergy | None = None,
) -> Iterator[NDArray[np.float32]]:
    """The samples of `read_samples` in consecutive blocks, so that a long recording is never held whole.

    Args:
        path: Audio file.
        first: First sample, counted at `sample_rate`.
        count: Number of samples; None goes to the end.
        sample_rate: Of the result, in Hz.
        block_frames: Frames of the file decoded at a time; None reads in one piece.
        band: Where the energy that is read is summed.

    Raises:
        InputError: As `read_audio`.
    """
    file, info = open_audio(path)
    try:
        rate_in = info.sample_rate
        total = resampled_length(info.frames, rate_in, sample_rate)
        if first >= total:
            raise InputError(
                f"audio file {path}: start must lie in [0, {info.duration_s:g}) s, got {first / sample_rate:g} s"
            )
        count = total - first if count is None else min(count, total - first)
        # Source and target share the instants at multiples of `step_in` source frames.
        divisor = math.gcd(rate_in, sample_rate)
        step_in, step_out = rate_in // divisor, sample_rate // divisor
        margin = 0 if rate_in == sample_rate else math.ceil(RESAMPLING_MARGIN_S * rate_in / step_in)
        first_step = max(0, first // step_out - margin)
        last_in = min(info.frames, (math.ceil((first + count) / step_out) + margin) * step_in)
        if block_frames is not None and rate_in < sample_rate:  # a rate of some Hz would make much of a block
            block_frames = min(block_frames, BLOCK_FRAMES * 16 * rate_in // sample_rate + 1)
        blocks = _mono_blocks(path, file, info, first_step * step_in, last_in, block_frames)
        if band is not None:
            blocks = _listened_to(blocks, band, rate_in, sample_rate)
        blocks = resample_blocks(blocks, rate_in, sample_rate)
        skip, left = first - first_step * step_out, count
        for block in blocks:
            part = block[skip : skip + left]
            skip = max(0, skip - len(block))
            if part.size:
                left -= part.size
                yield part
        if left:
            # A handful of samples at a higher rate are less than one at this rate, and MPEG streams end a little
            # before or after their stated length (`LENGTH_TOLERANCE_S`), which is what all parts are measured by.
            yield np.zeros(left, dtype=np.float32)
    finally:
        if file is not None:
            file.close()


def resampled_length(frames: int, rate_in: int, rate_out: int) -> int:
    """Samples that `frames` at `rate_in` become at `rate_out`: the nearest whole number, 1 at least."""
    return max(1, (2 * frames * rate_out + rate_in) // (2 * rate_in))


def _mono_blocks(
    path: str | Path, file: Decoder | None, info: AudioInfo, first: int, last: int, block: int | None
) -> Iterator[NDArray[np.float32]]:
    for frames in frame_blocks(path, file, info, first, last, block):
        with np.errstate(invalid="ignore", over="ignore"):  # counted below
            mono = mix_to_mono(frames)
            loud = ~(np.abs(mono) <= LOUDEST) if not -LOUDEST <= mono.min() <= mono.max() <= LOUDEST else None
        if loud is not None:
            what = "NaN or infinite" if not np.isfinite(frames).all() else f"more than {LOUDEST:.2g} times full scale"
            raise InputError(
                f"audio file {path} holds {int(loud.sum())} samples that are {what}; repair it, or leave it out"
            )
        yield mono


def _listened_to(
    blocks: Iterator[NDArray[np.float32]], band: BandEnergy, rate: int, model_rate: int
) -> Iterator[NDArray[np.float32]]:
    for block in blocks:
        band.add(block, rate=rate, model_rate=model_rate)
        yield block


def mix_to_mono(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean over the channels of frames ``(frames, channels)``."""
    if frames.shape[1] == 1:
        return frames[:, 0]
    # Channel by channel: numpy's mean over an axis that short takes as long as decoding.
    mono = frames[:, 0] + frames[:, 1]
    for channel in range(2, frames.shape[1]):
        mono += frames[:, channel]
    mono *= np.float32(1 / frames.shape[1])
    return mono


def stream_frames(
    path: str | Path,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    opened: tuple[Decoder | None, AudioInfo] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """The frames of a file or a part of it as they are, in blocks of shape ``(frames, channels)``, finite or not.

    Args:
        path: Audio file.
        start_s: Start in seconds.
        duration_s: Length in seconds; None reads to the end.
        opened: The file as `open_audio` has opened it; it stays open.

    Raises:
        InputError: As `read_audio`, except for samples that are not finite.
    """
    file, info = opened or open_audio(path)
    try:
        first = round(start_s * info.sample_rate)
        last = info.frames if duration_s is None else min(info.frames, first + round(duration_s * info.sample_rate))
        yield from frame_blocks(path, file, info, first, max(last, first), BLOCK_FRAMES)
    finally:
        if file is not None and opened is None:
            file.close()


def resample_blocks(
    blocks: Iterator[NDArray[np.float32]], rate_in: int, rate_out: int
) -> Iterator[NDArray[np.float32]]:
    """Consecutive blocks at another rate, each as soon as it comes: the samples of resampling them in one piece."""
    if rate_in == rate_out:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate_in, rate_out, 1, dtype="float32", quality=RESAMPLING_QUALITY)
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)

"""Reading audio files: any rate and channel count that libsndfile or ffmpeg knows, to mono at one sample rate."""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from audiostride.data.ffmpeg import ffmpeg_is_installed, probe_with_ffmpeg, stream_with_ffmpeg
from audiostride.errors import InputError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".m4a", ".w64")

# Read beyond both ends of a part before resampling it, so that the filter sees what it sees in the whole file: from
# 20 ms on a part's samples differ from those of the whole by 4e-7 at most (8 to 96 kHz to 16 kHz, measured).
RESAMPLING_MARGIN_S = 0.05

# Aliases and images below -120 dB, at a fifth of the time of torchaudio's best setting.
RESAMPLING_QUALITY = "HQ"

# Frames that are decoded at a time where a file is read in blocks: 1.5 MiB for a stereo file.
BLOCK_FRAMES = 2**18

# MPEG streams and ffmpeg's containers state their length to about a frame of the codec only.
LENGTH_TOLERANCE_S = 0.1

# Decoders need what lies before the place that they jump to: MP3 its bit reservoir, eleven frames at most (without
# this, parts are off by up to 0.3 of full scale for some milliseconds), AAC one frame.
PREROLL_S = 0.5

# What libsndfile notes where the header of a WAV, AIFF, W64, RF64 or AU file promises more than the file holds. A
# streamed file promises the largest length there is, or none, since its writer did not know it.
_PROMISE = re.compile(r"^\s*(?:data|SSND|riff|Riff size|Data Size) +: (\d+) \(should be (\d+)\)", re.MULTILINE)
_STREAMED_LENGTHS = (0, 0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF)

_OGG_PAGE_BYTES = 65307  # at most, header included


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says."""

    sample_rate: int
    """Hz."""
    channels: int
    """Number of channels."""
    frames: int
    """Samples per channel."""
    encoding: str = "?"
    """Container and encoding, such as ``WAV PCM_16``; ``ffmpeg`` and the codec where libsndfile cannot read it."""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate

    @property
    def exact_length(self) -> bool:
        """Whether the file holds exactly `frames`, so that fewer mean that it is cut off."""
        return not ("MPEG" in self.encoding or self.encoding.startswith("ffmpeg"))


def probe_audio(path: str | Path) -> AudioInfo:
    """The header of an audio file.

    Raises:
        InputError: The file is missing, no audio that libsndfile or ffmpeg can read, cut off, or without samples.
    """
    file, info = _open(path)
    if file is not None:
        file.close()
    return info


def _open(path: str | Path) -> tuple[soundfile.SoundFile | None, AudioInfo]:
    """An open file, or none where ffmpeg has to decode it, and what its header says."""
    try:
        file = _ForwardFile(str(path))
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        return None, _probe_what_libsndfile_refuses(Path(path), error)
    info = AudioInfo(file.samplerate, file.channels, file.frames, f"{file.format} {file.subtype}")
    try:
        if info.frames == 0:
            raise InputError(f"audio file {path} holds no samples; remove it")
        log = file.extra_info
        promised, present = max(((int(a), int(b)) for a, b in _PROMISE.findall(log)), default=(0, 0))
        if promised > present and promised not in _STREAMED_LENGTHS:
            raise InputError(
                f"audio file {path} is cut off: its header promises {promised} bytes of audio, got {present} "
                f"({info.duration_s:.3g} s); copy it again, or write a new file from what is there"
            )
        if "reports a hole" in log:
            raise InputError(f"audio file {path} is damaged: bytes are missing within it; copy it again")
        if file.format == "OGG" and not _read_ogg_end(path)[0]:
            raise InputError(f"audio file {path} is cut off within its last page; copy it again")
    except InputError:
        file.close()
        raise
    return file, info


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is not made to jump after each block, which soundfile does and which MP3 does not do exactly."""

    def seekable(self) -> bool:
        return False


def _read_ogg_end(path: str | Path) -> tuple[bool, int]:
    """Whether the last page of an Ogg file is all there, and the frame in which that page begins."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * _OGG_PAGE_BYTES))
        end = file.read()
    last = end.rfind(b"OggS\0")
    before = end.rfind(b"OggS\0", 0, max(last, 0))
    segments = end[last + 27 : last + 27 + end[last + 26]] if last >= 0 and len(end) > last + 26 else b""
    whole = len(segments) > 0 and len(end) >= last + 27 + len(segments) + sum(segments)
    return whole, max(0, int.from_bytes(end[before + 6 : before + 14], "little", signed=True)) if before >= 0 else 0


def _decoding_start(path: str | Path, info: AudioInfo, first: int) -> int:
    """Where decoding has to begin, so that frame `first` comes out as it does when the whole file is decoded."""
    if not info.exact_length:
        return max(0, first - round(PREROLL_S * info.sample_rate))
    # libsndfile 1.2.2 misses by up to a block where it jumps into the last page, which is cut to the file's length.
    return min(first, _read_ogg_end(path)[1]) if info.encoding == "OGG VORBIS" and first > 0 else first


def _probe_what_libsndfile_refuses(path: Path, error: Exception) -> AudioInfo:
    if not path.is_file():
        raise InputError(
            f"audio file {path} does not exist; check the path and, for a manifest, --audio-root"
        ) from error
    reason = _reason(error)
    if path.stat().st_size == 0:
        raise InputError(f"audio file {path} is empty (0 bytes); remove it or copy it again") from error
    if not ffmpeg_is_installed():
        raise InputError(
            f"audio file {path} cannot be read: {reason} (libsndfile); convert it to WAV or FLAC, or install ffmpeg, "
            "which may know its format"
        ) from error
    sample_rate, channels, frames, codec = probe_with_ffmpeg(path)
    if frames == 0:
        raise InputError(f"audio file {path} holds no samples; remove it")
    return AudioInfo(sample_rate, channels, frames, f"ffmpeg {codec}")


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
        InputError: Missing, unreadable, empty or cut off file; a start beyond its end; samples that are not finite.
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
) -> Iterator[NDArray[np.float32]]:
    """The samples of `read_samples` in consecutive blocks, so that a long recording is never held whole.

    Args:
        path: Audio file.
        first: First sample, counted at `sample_rate`.
        count: Number of samples; None goes to the end.
        sample_rate: Of the result, in Hz.
        block_frames: Frames of the file decoded at a time; None reads in one piece.

    Raises:
        InputError: As `read_audio`.
    """
    file, info = _open(path)
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
        blocks = _mono_blocks(path, file, info, first_step * step_in, last_in, block_frames)
        if rate_in != sample_rate:
            blocks = _resampled(blocks, rate_in, sample_rate)
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
    path: str | Path, file: soundfile.SoundFile | None, info: AudioInfo, first: int, last: int, block: int | None
) -> Iterator[NDArray[np.float32]]:
    for frames in _frame_blocks(path, file, info, first, last, block):
        with np.errstate(invalid="ignore", over="ignore"):  # told below, by name
            mono = frames.mean(axis=1) if frames.shape[1] > 1 else frames[:, 0]
        if not np.isfinite(mono).all():
            count = int((~np.isfinite(mono)).sum())
            raise InputError(f"audio file {path} holds {count} samples that are NaN or infinite; repair or remove it")
        yield mono


def stream_frames(
    path: str | Path, *, start_s: float = 0.0, duration_s: float | None = None
) -> Iterator[NDArray[np.float32]]:
    """The frames of a file or a part of it as they are, in blocks of shape ``(frames, channels)``, finite or not.

    Raises:
        InputError: As `read_audio`, except for samples that are not finite.
    """
    file, info = _open(path)
    try:
        first = round(start_s * info.sample_rate)
        last = info.frames if duration_s is None else min(info.frames, first + round(duration_s * info.sample_rate))
        yield from _frame_blocks(path, file, info, first, max(last, first), BLOCK_FRAMES)
    finally:
        if file is not None:
            file.close()


def _frame_blocks(
    path: str | Path, file: soundfile.SoundFile | None, info: AudioInfo, first: int, last: int, block: int | None
) -> Iterator[NDArray[np.float32]]:
    """Frames `first` to `last`, ``(frames, channels)`` at a time."""
    start = place = _decoding_start(path, info, first)
    block = max(1, last - start) if block is None else block
    if file is None:
        source = stream_with_ffmpeg(
            path, start, last, sample_rate=info.sample_rate, channels=info.channels, block=block
        )
    else:
        source = _decoded_blocks(path, file, start, last, block)
    for frames in source:
        wanted = frames[max(0, first - place) :]
        place += len(frames)
        if len(wanted):
            yield wanted
    missing = last - place
    if missing > (0 if info.exact_length else LENGTH_TOLERANCE_S * info.sample_rate) or (place == start < last):
        raise InputError(
            f"audio file {path} is cut off or damaged: its header promises {info.frames} frames, but decoding ended "
            f"after {place}; copy it again"
        )


def _decoded_blocks(
    path: str | Path, file: soundfile.SoundFile, start: int, last: int, block: int
) -> Iterator[NDArray[np.float32]]:
    try:
        if start:
            file.seek(start)
        while start < last:
            frames = file.read(min(block, last - start), dtype="float32", always_2d=True)
            if len(frames) == 0:
                return
            start += len(frames)
            yield frames
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputError(f"audio file {path} cannot be decoded: {_reason(error)}; is it damaged?") from error


def _resampled(blocks: Iterator[NDArray[np.float32]], rate_in: int, rate_out: int) -> Iterator[NDArray[np.float32]]:
    """Consecutive blocks at another rate, the same samples as resampling them in one piece."""
    stream = soxr.ResampleStream(rate_in, rate_out, 1, dtype="float32", quality=RESAMPLING_QUALITY)
    before: NDArray[np.float32] | None = None
    for block in blocks:
        if before is not None:
            yield stream.resample_chunk(before)
        before = block
    if before is not None:
        yield stream.resample_chunk(np.ascontiguousarray(before), last=True)


def _reason(error: Any) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


def find_audio_files(folder: str | Path) -> list[Path]:
    """Audio files below a folder, by suffix, sorted."""
    return sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())

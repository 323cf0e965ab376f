"""Decoding audio files with libsndfile, or with the program ffmpeg where it cannot: headers checked, parts exact."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiostride.errors import InputError

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
    file, info = open_audio(path)
    if file is not None:
        file.close()
    return info


def open_audio(path: str | Path) -> tuple[soundfile.SoundFile | None, AudioInfo]:
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


def frame_blocks(
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


def _reason(error: Any) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


def ffmpeg_is_installed() -> bool:
    """Whether the programs ffmpeg and ffprobe, which come together, can be started."""
    return shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None


def probe_with_ffmpeg(path: str | Path) -> tuple[int, int, int, str]:
    """Sample rate (Hz), channels, frames (as the container states its duration) and codec of a file's audio.

    Raises:
        InputError: ffmpeg finds no audio in the file.
    """
    command = ["ffprobe", "-v", "error", "-select_streams", "a:0", "-show_streams", "-show_format", "-of", "json"]
    done = subprocess.run([*command, _url(path)], capture_output=True, text=True, errors="replace", check=False)
    try:
        found = json.loads(done.stdout)
        stream = found["streams"][0]
        sample_rate, channels = int(stream["sample_rate"]), int(stream["channels"])
        duration_s = float(stream.get("duration") or found["format"]["duration"])
    except (ValueError, KeyError, IndexError) as error:
        reason = (done.stderr.strip().splitlines() or ["it holds no audio of known length"])[-1]
        raise InputError(
            f"audio file {path} cannot be read: libsndfile and ffmpeg do not know it ({reason})"
        ) from error
    return sample_rate, channels, round(duration_s * sample_rate), str(stream.get("codec_name", "?"))


def stream_with_ffmpeg(
    path: str | Path, first: int, last: int, *, sample_rate: int, channels: int, block: int
) -> Iterator[NDArray[np.float32]]:
    """Frames `first` to `last` of a file in blocks of shape ``(frames, channels)``; fewer where the audio ends before.

    Raises:
        InputError: ffmpeg fails in mid-file.
    """
    command = ["ffmpeg", "-v", "error", "-nostdin", "-ss", f"{first / sample_rate:.9f}", "-i", _url(path)]
    command += ["-map", "a:0", "-f", "f32le", "-ar", str(sample_rate), "-ac", str(channels), "-"]
    frame_bytes = 4 * channels
    # Into a file: a pipe that nobody reads would stop ffmpeg for good once it has said 64 KiB about a damaged file.
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as process:
        if process.stdout is None:  # what PIPE rules out, for the type checker
            raise InputError(f"audio file {path} cannot be decoded: ffmpeg gave no output")
        try:
            left = last - first
            while left > 0:
                content = process.stdout.read(min(block, left) * frame_bytes)
                frames = len(content) // frame_bytes
                if frames == 0:
                    break
                left -= frames
                yield np.frombuffer(content[: frames * frame_bytes], dtype="<f4").reshape(frames, channels)
            if left > 0 and process.wait() != 0:
                said.seek(0)
                reason = said.read().decode(errors="replace").strip()
                raise InputError(f"audio file {path} cannot be decoded: ffmpeg says {reason[-500:] or 'nothing'}")
        finally:
            process.kill()  # it would go on decoding what lies behind the part


def _url(path: str | Path) -> str:
    # A name that begins with a dash or looks like an address must not be taken for an option or a protocol.
    return f"file:{os.path.abspath(path)}"

"""Decoding with the program ffmpeg what libsndfile does not know."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiostride.errors import InputError

# Streams without a container, whose duration ffprobe guesses from the first bit rates.
_WITHOUT_DURATION = ("aac", "ac3", "amr", "amrnb", "amrwb", "dts", "eac3", "latm", "loas", "mp3")


def ffmpeg_is_installed() -> bool:
    """Whether the programs ffmpeg and ffprobe, which come together, can be started."""
    return shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None


def probe_with_ffmpeg(path: str | Path) -> tuple[int, int, int, str]:
    """Sample rate (Hz), channels, frames (as the container states its duration, else counted) and codec of a file.

    Raises:
        InputError: ffmpeg finds no audio in the file.
    """
    command = ["ffprobe", "-v", "error", "-select_streams", "a:0", "-show_streams", "-show_format", "-of", "json"]
    done = subprocess.run([*command, _url(path)], capture_output=True, text=True, errors="replace", check=False)
    try:
        found = json.loads(done.stdout)
        stream = found["streams"][0]
        sample_rate, channels = int(stream["sample_rate"]), int(stream["channels"])
        duration_s = stream.get("duration") or found["format"].get("duration")
        guessed = duration_s is None or found["format"].get("format_name") in _WITHOUT_DURATION
        frames = 0 if guessed else round(float(duration_s) * sample_rate)
        if min(sample_rate, channels) < 1:
            raise ValueError
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        reason = (done.stderr.strip().splitlines() or ["it holds no audio"])[-1]
        raise InputError(
            f"audio file {path} cannot be read: libsndfile and ffmpeg do not know it ({reason})"
        ) from error
    if guessed:
        status = os.stat(path)
        frames = _count_with_ffmpeg(str(path), sample_rate, channels, status.st_size, status.st_mtime_ns)
    return sample_rate, channels, frames, str(stream.get("codec_name", "?"))


@lru_cache(maxsize=1024)
def _count_with_ffmpeg(path: str, sample_rate: int, channels: int, *_: int) -> int:
    blocks = stream_with_ffmpeg(path, 0, 2**62, sample_rate=sample_rate, channels=channels, block=2**18)
    return sum(map(len, blocks))


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

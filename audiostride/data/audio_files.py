"""Reading audio files: any rate and channel count that libsndfile knows, to mono at one sample rate."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from audiostride.errors import InputError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".m4a", ".w64")

# Read beyond both ends of a part before resampling it, so that the filter sees what it would see in the whole file.
RESAMPLING_MARGIN_S = 0.1


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says."""

    sample_rate: int
    """Hz."""
    channels: int
    """Number of channels."""
    frames: int
    """Samples per channel."""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


def probe_audio(path: str | Path) -> AudioInfo:
    """The header of an audio file.

    Raises:
        InputError: The file is missing, not audio that libsndfile can read, or holds no samples.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"audio file {path} does not exist; check the path and, for a manifest, --audio-root")
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputError(f"audio file {path} cannot be read: {_reason(error)}; convert it to WAV or FLAC") from error
    if info.frames == 0:
        raise InputError(f"audio file {path} holds no samples; remove it")
    return AudioInfo(info.samplerate, info.channels, info.frames)


def read_audio(
    path: str | Path, *, start_s: float = 0.0, duration_s: float | None = None, sample_rate: int = 16000
) -> NDArray[np.float32]:
    """Mono samples of a file or a part of it, resampled with soxr's HQ filter (aliasing below -130 dB, measured).

    Channels are averaged. A part of a file has the same samples as that part of the whole (to 1e-4: its samples lie on
    the same grid, and the filter sees the audio around it).

    Args:
        path: Any file that libsndfile can read.
        start_s: Start in seconds.
        duration_s: Length in seconds; None reads to the end. What lies beyond the end is not there: the result is
            shorter.
        sample_rate: Of the result, in Hz.

    Shape:
        Result: ``(samples,)`` float32, not limited to [-1, 1].

    Raises:
        InputError: Missing, unreadable or empty file; a start beyond its end; samples that are not finite.
    """
    info = probe_audio(path)
    if start_s < 0 or start_s >= info.duration_s or (duration_s is not None and duration_s <= 0):
        raise InputError(
            f"audio file {path}: start must lie in [0, {info.duration_s:g}) s and the duration be > 0, "
            f"got {start_s} s and {duration_s} s"
        )
    # Source and target share the instants at multiples of `step_in` source samples.
    step_in = info.sample_rate // math.gcd(info.sample_rate, sample_rate)
    step_out = sample_rate // math.gcd(info.sample_rate, sample_rate)
    first_out = round(start_s * sample_rate)
    count_out = None if duration_s is None else max(1, round(duration_s * sample_rate))
    margin = math.ceil(RESAMPLING_MARGIN_S * info.sample_rate / step_in) if step_in > 1 or step_out > 1 else 0
    first_step = max(0, first_out // step_out - margin)
    first_in = first_step * step_in
    last_in = info.frames
    if count_out is not None:
        last_in = min(info.frames, (math.ceil((first_out + count_out) / step_out) + margin) * step_in)
    try:
        samples = _read_frames(path, first_in, last_in)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputError(f"audio file {path} cannot be decoded: {_reason(error)}; is it damaged?") from error
    if samples.size == 0:
        raise InputError(f"audio file {path} holds fewer samples than its header promises; is it cut off?")
    mono = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    if not np.isfinite(mono).all():
        count = int((~np.isfinite(mono)).sum())
        raise InputError(f"audio file {path} holds {count} samples that are NaN or infinite; repair or remove it")
    if info.sample_rate != sample_rate:
        mono = soxr.resample(mono, info.sample_rate, sample_rate, quality="HQ")
    offset = first_out - first_step * step_out
    part: NDArray[np.float32] = mono[offset : None if count_out is None else offset + count_out]
    return np.ascontiguousarray(part, dtype=np.float32)


def _read_frames(path: str | Path, first: int, last: int) -> NDArray[np.float32]:
    with soundfile.SoundFile(str(path)) as file:
        if first:
            file.seek(first)
        samples: NDArray[np.float32] = file.read(last - first, dtype="float32", always_2d=True)
        return samples


def _reason(error: Any) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


def find_audio_files(folder: str | Path) -> list[Path]:
    """Audio files below a folder, by suffix, sorted."""
    return sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())

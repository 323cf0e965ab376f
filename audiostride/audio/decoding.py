"""Decoding audio files with libsndfile, or with the program ffmpeg where it cannot: headers checked, parts exact."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiostride.audio.containers import measure_container
from audiostride.audio.ffmpeg import ffmpeg_is_installed, probe_with_ffmpeg, stream_with_ffmpeg
from audiostride.audio.libsndfile import CAREFUL_FRAMES, Decoder
from audiostride.audio.pieces import Piece
from audiostride.audio.signatures import CONVERT, COPY, identify
from audiostride.audio.streams import file_state, flac_piece, measure_mpeg, measure_ogg
from audiostride.errors import InputError

# MPEG streams and ffmpeg's containers state their length to about a frame of the codec only.
LENGTH_TOLERANCE_S = 0.1

# Decoders need what lies before the place that they jump to: MP3 its bit reservoir, eleven frames at most (without
# this, parts are off by up to 0.3 of full scale for some milliseconds), AAC one frame.
PREROLL_S = 0.5

# libsndfile's notes on a WAV or AIFF file whose sizes do not fit; those of other containers are always looked at.
_DOUBT = re.compile(r"should be|\*\*\*|marker")

# The lengths of FLAC that mean unknown: libsndfile's largest number, which stands for 0, and all 36 bits set.
_UNKNOWN_FRAMES = (2**63 - 1, 2**36 - 1)

# No codec puts more samples into a byte: FLAC of a constant comes to 6,500.
_MOST_FRAMES_A_BYTE = 8192

# Memory for more than this many times a file's bytes is not taken before they are decoded: headers promise terabytes.
_TRUSTED_EXPANSION = 64

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
    doubt: str = ""
    """What of the file is not read, or may be lost at its end, in words that follow its name."""

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


def open_audio(path: str | Path) -> tuple[Decoder | None, AudioInfo]:
    """An open file, or none where ffmpeg has to decode it, and what its header says, or what was counted."""
    refused, file = "Format not recognised", None
    try:
        is_file = S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise InputError(
            f"audio file {path} does not exist; check the path and, for a manifest, --audio-root"
        ) from error
    except OSError as error:
        raise InputError(f"audio file {path} cannot be read: {error.strerror}") from error
    if not is_file:  # a pipe would be waited for
        raise InputError(f"audio file {path} must be a file, got a folder, a pipe or a device; name a file")
    try:
        # By the end of this name libsndfile takes anything for MPEG audio, and complains on the terminal.
        if not str(path).lower().endswith(".mp3") or identify(path)[1][: len(COPY)] in ("", COPY):
            file = Decoder(path)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        refused = _reason(error)  # the error itself would hold this frame, and with it what is being decoded
    try:
        pieces, doubt = _find_pieces(path, file)
        if pieces and file is not None:
            file.close()
        file = Decoder(path, pieces) if pieces else file
        if file is None:
            return None, _probe_what_libsndfile_refuses(Path(path), refused)
        info = AudioInfo(file.sample_rate, file.channels, file.frames, file.encoding, doubt or file.doubt)
        _check(path, info, file.log)
    except (soundfile.LibsndfileError, RuntimeError, OSError, InputError) as error:
        if file is not None:
            file.close()
        if isinstance(error, InputError):
            raise
        raise InputError(f"audio file {path} cannot be read: {_reason(error)}") from error
    return file, info


def _find_pieces(path: str | Path, file: Decoder | None) -> tuple[Sequence[Piece], str]:
    """What of a file to read where its header is wrong, and what is doubtful about it."""
    kind, frames = ("", 0) if file is None else (file.encoding.split()[0], file.frames)
    if file is not None and kind == "OGG":
        return measure_ogg(path, file.log)
    if kind in ("MP3", "MPEG"):
        return measure_mpeg(path, frames), ""
    if kind == "FLAC" and frames in _UNKNOWN_FRAMES:
        piece = flac_piece(path, _count_frames(str(path), *file_state(path)))
        return [piece] if piece else [], ""
    likely = file is not None and kind in ("WAV", "WAVEX", "AIFF") and frames and not _DOUBT.search(file.log)
    if likely or kind == "FLAC":
        return [], ""
    piece, doubt = measure_container(path, frames)
    return [piece] if piece else [], doubt


@lru_cache(maxsize=1024)
def _count_frames(path: str, *_: int) -> int:
    """Samples per channel of a file that does not say how many it has."""
    file = Decoder(path)
    try:
        return sum(len(frames) for frames in _decoded_blocks(path, file, 0, 2**62, CAREFUL_FRAMES))
    finally:
        file.close()


def _check(path: str | Path, info: AudioInfo, log: str) -> None:
    kind, size = info.encoding.split()[0], os.path.getsize(path)
    if info.frames == 0:
        way_out = f" that can be decoded, in {size} bytes; copy it again"
        way_out = way_out if kind in ("OGG", "MP3", "MPEG", "ffmpeg") else "; remove it"
        raise InputError(f"audio file {path} holds no samples{way_out}")
    if info.frames > _MOST_FRAMES_A_BYTE * size:
        raise InputError(
            f"audio file {path} is damaged: its header promises {info.frames} frames, more than its {size} bytes can "
            "hold; copy it again"
        )
    if "reports a hole" in log:
        raise InputError(f"audio file {path} is damaged: bytes are missing within it; copy it again")
    if kind == "OGG" and not _read_ogg_end(path)[0]:
        raise InputError(f"audio file {path} is cut off within its last page; copy it again")


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


def _decoding_start(path: str | Path, file: Decoder | None, info: AudioInfo, first: int) -> int:
    """Where decoding has to begin, so that frame `first` comes out as it does when the whole file is decoded."""
    if not info.exact_length:
        return max(0, first - round(PREROLL_S * info.sample_rate))
    if file is not None and file.is_chain:
        return 0  # what follows holds for each of its streams
    # libsndfile 1.2.2 misses by up to a block where it jumps into the last page, which is cut to the file's length.
    return min(first, _read_ogg_end(path)[1]) if info.encoding == "OGG VORBIS" and first > 0 else first


def _probe_what_libsndfile_refuses(path: Path, reason: str) -> AudioInfo:
    if path.stat().st_size == 0:
        raise InputError(f"audio file {path} is empty (0 bytes); remove it or copy it again")
    what, advice = identify(path)
    if not ffmpeg_is_installed():
        raise InputError(
            f"audio file {path} cannot be read: "
            + (f"it is {what}; {advice}" if what else f"{reason} (libsndfile); {CONVERT}, which may know its format")
        )
    try:
        sample_rate, channels, frames, codec = probe_with_ffmpeg(path)
    except InputError as unknown:
        raise InputError(f"{unknown}: it is {what}; {advice}" if what else str(unknown)) from unknown
    info = AudioInfo(sample_rate, channels, frames, f"ffmpeg {codec}")
    _check(path, info, "")
    return info


def frame_blocks(
    path: str | Path, file: Decoder | None, info: AudioInfo, first: int, last: int, block: int | None
) -> Iterator[NDArray[np.float32]]:
    """Frames `first` to `last`, ``(frames, channels)`` at a time."""
    start = place = _decoding_start(path, file, info, first)
    whole = block is None
    block = max(1, last - start) if block is None else block
    careful = whole and 4 * info.channels * block > _TRUSTED_EXPANSION * os.path.getsize(path)
    block = min(block, CAREFUL_FRAMES) if careful else block
    if file is None:
        source = stream_with_ffmpeg(
            path, start, last, sample_rate=info.sample_rate, channels=info.channels, block=block
        )
    else:
        source = _decoded_blocks(path, file, start, last, block)
    if careful and (parts := list(source)):
        source = iter([np.concatenate(parts)])
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
    path: str | Path, file: Decoder, start: int, last: int, block: int
) -> Iterator[NDArray[np.float32]]:
    try:
        if start:
            file.seek(start)
        while start < last:
            frames = file.read(min(block, last - start))
            if len(frames) == 0:
                return
            start += len(frames)
            yield frames
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputError(f"audio file {path} cannot be decoded: {_reason(error)}; is it damaged?") from error


def _reason(error: Any) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")

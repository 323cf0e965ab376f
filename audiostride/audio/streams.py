"""MPEG audio, Ogg and FLAC that state no length or that of their first stream only: frames counted, streams found."""

import mmap
import os
import re
import struct
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from audiostride.audio.pieces import Piece

# Kilobits per second that the upper half of a frame's third byte stands for: by MPEG 1 or later, and layer.
_BITRATES = {
    (True, 1): range(32, 449, 32),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}

_TAG_BYTES = 1024  # what may stand behind the stated end, or between frames, without being another stream
_BLOCK_BYTES = 2**24


def file_state(path: str | Path) -> tuple[int, int]:
    """What tells whether a file is still the same: size and time."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _map(path: str | Path) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def measure_mpeg(path: str | Path, frames: int) -> tuple[Piece, ...]:
    """The streams of an MPEG file, where it is not one of as many samples as libsndfile takes it to have.

    Args:
        path: The file.
        frames: Samples per channel that libsndfile has found, or guessed from the first frame.
    """
    with open(path, "rb") as file:
        first = _skip_id3(file)
        file.seek(first)
        head = file.read(256)
    size, changed = file_state(path)
    said = _read_xing(head) if head[:1] == b"\xff" else None
    if said is not None and all(said[:2]) and size - first - said[1] <= _TAG_BYTES:
        return ()
    return _count_mpeg(str(path), first, frames, size, changed)


def _skip_id3(file: BinaryIO) -> int:
    place = 0
    while (head := file.read(10))[:3] == b"ID3" and len(head) == 10:
        length = sum((value & 127) << shift for value, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        place += 10 + length + (10 if head[5] & 16 else 0)
        file.seek(place)
    return place


def _read_xing(frame: bytes) -> tuple[int, int, bool] | None:
    """Of a frame without sound: frames and bytes that it states and libsndfile heeds, and whether also a delay."""
    if frame[36:40] == b"VBRI":
        return 0, 0, False
    if (found := re.search(rb"Xing|Info", frame[:48])) is None:
        return None
    flags, *numbers = struct.unpack(">III", frame[found.end() : found.end() + 12].ljust(12, b"\0"))
    tag = found.end() + 4 + sum(size for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
    return numbers[0] if flags & 1 else 0, numbers[flags & 1] if flags & 2 else 0, any(frame[tag + 21 : tag + 24])


@lru_cache(maxsize=4096)
def _mpeg_frame(second: int, third: int) -> tuple[int, int, int] | None:
    """Bytes, samples and sample rate of a frame whose header has these bytes; None where it is none."""
    layer, version, row, column = 4 - (second >> 1 & 3), second >> 3 & 3, third >> 4, third >> 2 & 3
    if second < 0xE0 or layer == 4 or version == 1 or column == 3 or row in (0, 15):
        return None
    sample_rate = (44100, 48000, 32000)[column] >> {3: 0, 2: 1, 0: 2}[version]
    samples, slot = (384, 4) if layer == 1 else (1152 if layer == 2 or version == 3 else 576, 1)
    slots = samples // 8 // slot * 1000 * _BITRATES[version == 3, layer][row - 1] // sample_rate
    return (slots + (third >> 1 & 1)) * slot, samples, sample_rate


@lru_cache(maxsize=1024)
def _count_mpeg(path: str, first: int, frames: int, size: int, _: int) -> tuple[Piece, ...]:
    """As `measure_mpeg`, from the headers of all frames."""
    content = _map(path)
    # Of each stream: its first byte, the one behind its last, its frames, samples per frame, how many frames a Xing
    # frame at its head states, whether that also states how many samples the encoder has put before and behind.
    streams: list[list[int]] = []
    place, kind = first, (0, 0, 0)
    while (place := _next_frame(content, place, kind)) >= 0:
        length, samples, rate = _mpeg_frame(content[place + 1], content[place + 2]) or (1, 0, 0)
        said = _read_xing(content[place : place + min(length, 256)])
        begins = said is not None or kind != (samples, rate, content[place + 3] >> 6 == 3)
        if begins or 0 < streams[-1][4] <= streams[-1][2] or place > streams[-1][1] + _TAG_BYTES:
            streams.append([place, place, 0, samples, *((said[0], said[2]) if said else (0, False))])
        kind = (samples, rate, content[place + 3] >> 6 == 3)
        place += length
        streams[-1][1:3] = place, streams[-1][2] + (said is None)
        if said is not None and not said[2]:
            streams[-1][0] = place  # or half a frame would be cut off its beginning, which a decoder takes for its own
    streams = [stream for stream in streams if stream[2] >= 1 + (stream[4] == 0)]
    if len(streams) > 1:
        return tuple(
            Piece(begin, end, frames=None if stated and delay else count * samples)
            for begin, end, count, samples, stated, delay in streams
        )
    if not streams or streams[0][4] or abs(streams[0][2] * streams[0][3] - frames) <= streams[0][3]:
        return ()
    return (Piece(0, size, frames=streams[0][2] * streams[0][3]),)


def _next_frame(content: mmap.mmap, place: int, kind: tuple[int, int, int]) -> int:
    """The first frame from `place` on: one of this kind there, or one that another follows; -1 for none."""
    expected = place
    while 0 <= place <= len(content) - 4:
        frame = _mpeg_frame(content[place + 1], content[place + 2]) if content[place] == 0xFF else None
        if frame is not None and place + frame[0] <= len(content):
            after = content[place + frame[0] : place + frame[0] + 3].ljust(3, b"\0")
            follows = after[0] == 0xFF and (_mpeg_frame(after[1], after[2]) or (0,))[1:] == frame[1:]
            if follows or (place == expected and frame[1:] == kind[:2]):
                return place
        place = content.find(b"\xff", place + 1)
    return -1


def measure_ogg(path: str | Path, said: str) -> tuple[tuple[Piece, ...], str]:
    """The streams of an Ogg file where it is a chain of several, and what is wrong with its end.

    Args:
        path: The file.
        said: What libsndfile notes of it.
    """
    size, changed = file_state(path)
    begins = _find_ogg_streams(str(path), size, changed)
    if len(begins) > 1:
        return tuple(Piece(*span) for span in pairwise((*begins, size))), ""
    if "Junk after the last page" in said and _map(path).rfind(b"OggS", max(0, size - 65536)) >= 0:
        return (), "has a last page that is damaged: what it holds is lost; copy it again"
    if "lacks an end-of-stream bit" in said:
        return (), "ends without the mark of its last page: it is cut off, or its recorder was stopped"
    return (), ""


@lru_cache(maxsize=1024)
def _find_ogg_streams(path: str, *_: int) -> tuple[int, ...]:
    """Where streams begin, but for those that begin together, as the sound and the picture of a film."""
    content, begins, after = _map(path), [], -1
    for match in re.finditer(rb"OggS\0\x02.{20}(.)", content, re.DOTALL):
        if match.start() != after:
            begins.append(match.start())
        segments = content[match.end() : match.end() + match[1][0]]
        after = match.end() + len(segments) + sum(segments)
    return tuple(begins)


def flac_piece(path: str | Path, total: int) -> Piece | None:
    """A FLAC file as one whose header states so many samples per channel, 0 for unknown; None for another file."""
    with open(path, "rb") as file:
        first = _skip_id3(file)
        file.seek(first)
        head = file.read(26)
        size = file.seek(0, os.SEEK_END)
    if head[:4] != b"fLaC" or len(head) < 26:
        return None
    return Piece(0, size, ((first + 21, (int.from_bytes(head[21:26]) >> 36 << 36 | total).to_bytes(5)),))


def count_flac_surplus(path: str | Path, frames: int) -> int | None:
    """How many blocks of one rate and width a FLAC file seems to have beyond those of so many samples per channel.

    By chance one place in four million bytes looks like the head of a block. None where blocks have several sizes.
    """
    content = _map(path)
    begin = content.find(b"fLaC")
    least, most = struct.unpack(">HH", content[begin + 8 : begin + 12].ljust(4, b"\0"))
    if begin < 0 or not 0 < least == most:
        return None
    kinds = np.zeros(128, dtype=np.int64)  # heads of blocks by their codes of sample rate and bits per sample
    for first in range(0, len(content), _BLOCK_BYTES):
        values = np.frombuffer(content[first : first + _BLOCK_BYTES + 4], dtype=np.uint8)
        heads = np.flatnonzero(values[:-4] == 0xFF)
        heads = heads[(values[heads + 1] | 1) == 0xF9]
        kinds += np.bincount((values[heads + 2] & 15) << 3 | values[heads + 3] >> 1 & 7, minlength=128)
    expected: int = -(-frames // most)
    return int(kinds.max()) - expected


def find_flac_streams(path: str | Path) -> list[int]:
    """Where FLAC streams begin in a file."""
    return [match.start() for match in re.finditer(rb"fLaC[\0\x80]\0\0\x22", _map(path))]

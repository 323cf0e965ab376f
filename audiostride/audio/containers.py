"""WAV, RF64, W64, AIFF, CAF and AU, whose header states a size that recorders and pipes leave empty or wrong."""

import io
import re
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from audiostride.audio.pieces import Piece
from audiostride.errors import InputError


class _Shape(NamedTuple):
    """How a container is made of chunks."""

    magics: tuple[bytes, ...]
    first: int  # where the first chunk begins
    name: int  # bytes of a chunk's name
    size: str  # of the field behind it, as `struct` calls it
    inclusive: bool  # whether that size counts name and field
    data: bytes  # name of the chunk with the samples
    front: int  # bytes before them in that chunk
    align: int
    total: int  # where the size of the file stands; 0: nowhere


_WAV = _Shape((b"RIFF", b"RF64", b"BW64"), 12, 4, "<I", False, b"data", 0, 2, 4)
_SHAPES = (
    _WAV,
    _WAV._replace(magics=(b"RIFX",), size=">I"),
    _WAV._replace(magics=(b"FORM",), size=">I", data=b"SSND", front=8),
    _Shape((b"caff",), 8, 4, ">Q", False, b"data", 4, 1, 0),
    _Shape((b"riff",), 40, 16, "<Q", True, bytes.fromhex("64617461f3acd3118cd100c04f8edb8a"), 0, 8, 16),
    # AU has no chunks: its size stands at byte 8, behind the place of its samples, and nothing follows them.
    _Shape((b".snd",), 8, 0, ">I", False, b"", 0, 1, 0),
    _Shape((b"dns.",), 8, 0, "<I", False, b"", 0, 1, 0),
)

# Chunks that programs write behind the samples, and how far from the end they are looked for.
_TRAILERS = re.compile(rb"LIST|bext|[jJ][uU][nN][kK]|PAD |FLLR|cue |id3 |ID3 |iXML|axml|smpl|inst|PEAK|plst|MARK|COMT")
_TRAILER_BYTES = 65536

_MOST_CHUNKS = 1000
_SLACK_BYTES = 4096  # how far a size that counts a header, or a sector that is filled up, goes at most


def _is_placeholder(size: int) -> bool:
    """Whether a size that is more than the file holds is one that its writer did not know."""
    return 0x7FFF0000 <= size <= 0xFFFFFFFF or size >= 2**62


def measure_container(path: str | Path, frames: int) -> tuple[Piece | None, str]:
    """The piece of a container to read where libsndfile would read too much or too little, and what lies behind it.

    Args:
        path: The file.
        frames: Samples per channel that libsndfile finds in it; 0 also where it cannot open it.

    Raises:
        InputError: The header promises plainly more samples than there are.
    """
    with open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        magic = file.read(4)
        shape = next((shape for shape in _SHAPES if magic in shape.magics), None)
        if shape is None or (found := _find_samples(file, shape)) is None or found[0] >= size:
            return None, ""
        start, stated, field, kind, extra = found
        there, behind = size - start, ""
        slack, end = min(start, _SLACK_BYTES), start + stated + (stated & 1 if shape.align == 2 else 0)
        real = min(max(stated, 0), there)
        if stated > there or not _are_chunks(file, shape, end, size):
            until = _find_trailer(file, shape, start, size)
            unknown = stated <= 0 or (stated > there and (_is_placeholder(stated) or _is_placeholder(stated + extra)))
            unknown |= there > 0xFFFFFFFF and kind[1] == "I"  # more than the field can say
            if stated - there > slack and not unknown:
                raise InputError(
                    f"audio file {path} is cut off: its header promises {stated} bytes of audio, got {there}; copy it "
                    "again, or write a new file from what is there"
                )
            file.seek(min(end, until))
            rest = file.read(min(until - min(end, until), _SLACK_BYTES + 1))
            # Zeros fill up a sector; tags and chunks whose size is wrong begin with letters.
            tag = rest.startswith((b"TAG", b"ID3", b"APETAG")) or (not any(rest) and len(rest) <= _SLACK_BYTES)
            chunk = all(32 <= letter < 127 for letter in rest[:4])
            if unknown or stated > there or 0 < end - until <= slack or (until - end <= slack and not (tag or chunk)):
                real = until - start
            elif not tag:
                behind = f"has {size - end:,} bytes behind the {real:,} bytes of audio that its header states"
    # libsndfile takes the lesser of what is stated and what is there, but of W64 also the chunks behind it, and of CAF
    # too little where too much is stated.
    odd = (magic == b"riff" and real < there) or (magic == b"caff" and stated > there)
    if frames and real == min(stated, there) and not odd:
        return None, behind
    whole = start + real if shape.inclusive else start + real - 8
    if start + real > 0xFFFFFFFF and kind[1] == "I":
        real, whole, extra = 0, 8, 0  # which libsndfile takes for a recorder that crashed, and reads to the end
    else:
        size = start + real
    patches = [(field, struct.pack(kind, real + extra))]
    patches += [(shape.total, struct.pack(shape.size, min(whole, 0xFFFFFFFF)))] if shape.total else []
    return Piece(0, size, (*patches, *([(0, b"RIFF")] if magic == b"BW64" else []))), behind


def _find_samples(file: BinaryIO, shape: _Shape) -> tuple[int, int, int, str, int] | None:
    """Where samples begin, how many bytes are stated, where that stands, how, and what it counts besides."""
    if not shape.name:
        head = file.read(8)
        return (*struct.unpack(shape.size[0] + "II", head), 8, shape.size, 0) if len(head) == 8 else None
    place, large = shape.first, (0, 0)
    for _ in range(_MOST_CHUNKS):
        if (chunk := _read_chunk(file, shape, place)) is None:
            return None
        name, body, length = chunk
        if name == b"ds64":
            file.seek(body + 8)
            large = (body + 8, int.from_bytes(file.read(8), "little"))
        if name == shape.data:
            if large[0] and length == 0xFFFFFFFF:
                return body, large[1], large[0], "<Q", 0
            extra = shape.front + (body - place if shape.inclusive else 0)
            # A size of 0 is less than what it counts besides.
            return body + shape.front, max(0, length - shape.front), place + shape.name, shape.size, extra
        place = body + max(0, length) + -(body + max(0, length)) % shape.align
    return None


def _read_chunk(file: BinaryIO, shape: _Shape, place: int) -> tuple[bytes, int, int] | None:
    """Name of the chunk at `place`, where its content begins, and how long that is stated to be."""
    file.seek(min(place, 2**62))
    head = file.read(shape.name + struct.calcsize(shape.size))
    if len(head) < shape.name + struct.calcsize(shape.size):
        return None
    length = struct.unpack(shape.size, head[shape.name :])[0] - (len(head) if shape.inclusive else 0)
    return head[: shape.name], place + len(head), length


def _are_chunks(file: BinaryIO, shape: _Shape, place: int, size: int) -> bool:
    """Whether from `place` on there are whole chunks without samples, to the end of the file."""
    for _ in range(_MOST_CHUNKS):
        if place >= size or not shape.name:
            break
        chunk = _read_chunk(file, shape, place)
        if chunk is None or chunk[0] == shape.data or not all(32 <= letter < 127 for letter in chunk[0][:4]):
            return False
        place = chunk[1] + chunk[2]
        if chunk[2] < 0 or place > size:
            return False
        place += -place % shape.align
    return place >= size


def _find_trailer(file: BinaryIO, shape: _Shape, start: int, size: int) -> int:
    """Where samples of unknown number end: at chunks that reach to the end of the file, or with it."""
    if shape.name != 4:
        return size
    first = max(start, size - _TRAILER_BYTES)
    file.seek(first)
    places = (first + match.start() for match in _TRAILERS.finditer(file.read()))
    return next((place for place in places if _are_chunks(file, shape, place, size)), size)

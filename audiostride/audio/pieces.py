"""Pieces of a file that libsndfile reads as files of their own, with other bytes in place of wrong ones."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Piece:
    """Bytes of a file that a decoder can read as a file of their own."""

    first: int
    """The first byte."""
    last: int
    """The byte behind the last one."""
    patches: tuple[tuple[int, bytes], ...] = ()
    """Where in the file other bytes stand in place of its own, and which."""
    frames: int | None = None
    """Samples per channel, where the decoder does not know them."""


class PieceFile(io.RawIOBase):
    """A piece as a file to read.

    Args:
        path: The file.
        piece: What of it.
        claimed: Bytes that it pretends to have: from them libsndfile guesses the length of MPEG audio, its limit.
    """

    def __init__(self, path: str | Path, piece: Piece, *, claimed: int = 0) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  closed by close()
        self._piece, self._place = piece, 0
        self._size = max(claimed, piece.last - piece.first)

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = max(0, offset + (0, self._place, self._size)[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        at = self._piece.first + self._place
        self._file.seek(at)
        content = bytearray(self._file.read(max(0, min(len(buffer), self._piece.last - at))))
        if not content and self._size - 128 <= self._place:  # where mpg123 looks for a tag, and must find something
            content = bytearray(max(0, min(len(buffer), self._size - self._place)))
        for place, patch in self._piece.patches:
            low, high = max(place, at), min(place + len(patch), at + len(content))
            if low < high:
                content[low - at : high - at] = patch[low - place : high - place]
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()

"""What libsndfile decodes: a file as it is, or pieces of it one behind another as if they were one."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiostride.audio.pieces import Piece, PieceFile
from audiostride.audio.streams import count_flac_surplus, find_flac_streams, flac_piece

# Frames that are decoded at a time where it is not known how many there are.
CAREFUL_FRAMES = 2**20


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is not made to jump after each block, which soundfile does and which MP3 does not do exactly."""

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        super().close()
        if isinstance(self.name, PieceFile):
            self.name.close()


class Decoder:
    """A file that libsndfile decodes: as it is, or pieces of it one behind another as if they were one.

    Args:
        path: The file.
        pieces: What of it is read; nothing stands for all.
    """

    def __init__(self, path: str | Path, pieces: Sequence[Piece] = ()) -> None:
        self.path, self._pieces, self._at, self._place = path, pieces, 0, 0
        self._file = first = self._open(0)
        self.sample_rate, self.channels, self.log = first.samplerate, first.channels, first.extra_info
        self.encoding, self.doubt = f"{first.format} {first.subtype}", ""
        lengths = [(pieces[0].frames if pieces else None) or first.frames]
        for number, piece in enumerate(pieces[1:], start=1):
            why = "is damaged"
            try:
                with self._open(number) as file:
                    if (file.samplerate, file.channels) == (self.sample_rate, self.channels):
                        lengths.append(piece.frames or file.frames)
                        continue
                    why = f"has {file.channels} channels at {file.samplerate} Hz"
            except (soundfile.LibsndfileError, RuntimeError):
                pass
            self.doubt = (
                f"holds {len(pieces)} streams one behind another, of which the first {number} can be read: the next, "
                f"from byte {piece.first:,} on, {why}"
            )
            break
        self._ends = list(accumulate(lengths))
        self.frames = self._ends[-1]

    def _open(self, number: int) -> _ForwardFile:
        if not self._pieces:
            return _ForwardFile(str(self.path))
        piece = self._pieces[number]
        file = _ForwardFile(PieceFile(self.path, piece))
        if piece.frames is not None and 0 < file.frames < piece.frames:
            claimed = (piece.last - piece.first) * (piece.frames // file.frames + 1) + 65536
            file.close()
            file = _ForwardFile(PieceFile(self.path, piece, claimed=claimed))
        return file

    @property
    def is_chain(self) -> bool:
        """Whether it has several pieces."""
        return len(self._ends) > 1

    def seek(self, frame: int) -> None:
        """Go to a frame."""
        number = bisect_right(self._ends, frame)
        if number != self._at:
            self._turn_to(number)
        self._file.seek(frame - (self._ends[number - 1] if number else 0))
        self._place = frame

    def read(self, frames: int) -> NDArray[np.float32]:
        """Up to so many frames ``(frames, channels)``, all of one piece; none at the end."""
        while True:
            count = min(frames, self._ends[self._at] - self._place)
            found: NDArray[np.float32] = self._file.read(count, dtype="float32", always_2d=True)
            self._place += len(found)
            if len(found) or self._at == len(self._ends) - 1:
                return found
            self._place = self._ends[self._at]
            self._turn_to(self._at + 1)

    def _turn_to(self, number: int) -> None:
        self._file.close()
        self._at, self._file = number, self._open(number)

    def describe_rest(self) -> str:
        """What of a FLAC file is not of the stream that is read, in words that follow its name: mostly nothing."""
        surplus = count_flac_surplus(self.path, self.frames) if self.encoding.startswith("FLAC") else 0
        if surplus == 0 or (piece := flac_piece(self.path, 0)) is None:
            return ""
        rest = 0
        try:
            # As a file of unknown length it does not end where its header says.
            with _ForwardFile(PieceFile(self.path, piece)) as file:
                file.seek(self.frames)
                while found := len(file.read(CAREFUL_FRAMES, dtype="float32")):
                    rest += found
        except (soundfile.LibsndfileError, RuntimeError):
            pass  # nothing is there of this stream
        begins = find_flac_streams(self.path)
        if rest:
            return f"has {rest:,} frames behind the {self.frames:,} that its header states"
        if len(begins) > 1:
            first = f"of which the first is read: the next begins at byte {begins[1]:,}"
            return f"holds {len(begins)} streams one behind another, {first}"
        if surplus is not None and surplus < 0:
            return "changes its sample rate or its bits per sample within: what follows is not what it should be"
        return ""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

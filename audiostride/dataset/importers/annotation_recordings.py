"""Which recording a table of annotations means: by the path that it names, or by its own name."""

import os
import re
from collections import defaultdict
from pathlib import Path

from audiostride.audio.decoding import AudioInfo, probe_audio
from audiostride.dataset.folders import walk_folder
from audiostride.dataset.importers.imported import list_folder
from audiostride.errors import InputError
from audiostride.wording import name_some


class Recordings:
    """The recordings in a folder, or one, and which of them names mean."""

    def __init__(self, audio: Path) -> None:
        self.faults: list[str] = []
        if audio.is_file():
            self.root, self.names = audio.parent, [audio.name]
        else:
            list_folder(audio)  # raises where it may not be read
            walk = walk_folder(audio)
            self.root, self.names, self.faults = audio, walk.audio, [*walk.faults.values()]
            if not self.names:
                raise InputError(f"import: AUDIO must be a folder with recordings, or one, got {audio}; it holds none")
        self.single = audio.is_file()
        self._parts = {name: _parts(os.path.abspath(self.root / name)) for name in self.names}
        self._infos: dict[str, AudioInfo] = {}
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            for known in {self._parts[name][-1], _stem(self._parts[name][-1])}:
                self._by_name[known].append(name)

    def info(self, name: str) -> AudioInfo:
        """The header of a recording; raises `InputError` where it cannot be read."""
        if name not in self._infos:
            self._infos[name] = probe_audio(self.root / name)
        return self._infos[name]

    def find(self, reference: str) -> tuple[str | None, str]:
        """The recording that a table names, or why there is none.

        The end of the path counts, since folders move. A relative path must be there whole; of an absolute one as much
        as is, and it must not lead to another file.
        """
        parts = [part for part in _parts(reference) if part != ".."]
        named = self._by_name.get(parts[-1]) or self._by_name.get(_stem(parts[-1]), []) if parts else []
        absolute = re.match(r"[/\\]|[A-Za-z]:", reference) is not None
        name, why = self._nearest(named, parts)
        if name is None:
            return None, f"{reference} {why}"
        elsewhere = absolute and os.path.isfile(reference) and not os.path.samefile(reference, self.root / name)
        if elsewhere or (not absolute and _common(self._parts[name], parts) < len(parts) - 1):
            return None, f"{reference} is not in {self.root}"
        return name, ""

    def find_owner(self, table: str, *, exact: bool) -> tuple[str | None, str]:
        """The recording that a table without names of recordings belongs to: its own name begins with that one's.

        Args:
            table: Path of the table below its folder.
            exact: Whether nothing but the suffix may follow.
        """
        *folders, own = _parts(table)
        own = _stem(own) if exact else own
        found = [known for known in self._by_name if own == known or (not exact and own.startswith(f"{known}."))]
        name, why = self._nearest(self._by_name[max(found, key=len)] if found else [], [*folders, own])
        return name, why if found else "has no recording that its own name begins with"

    def _nearest(self, names: list[str], parts: list[str]) -> tuple[str | None, str]:
        """Of some recordings the one whose folders agree with most of those before the last part."""
        if not names:
            return None, f"is not in {self.root}"
        common = {name: _common(self._parts[name], parts) for name in names}
        best = [name for name in names if common[name] == max(common.values())]
        return (best[0], "") if len(best) == 1 else (None, f"may be any of {name_some(best)}")


def _parts(path: str) -> list[str]:
    return [part for part in re.split(r"[/\\]", path.strip()) if part not in ("", ".")]


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _common(one: list[str], other: list[str]) -> int:
    """How many folders before the last part two paths share."""
    pairs = list(zip(reversed(one[:-1]), reversed(other[:-1]), strict=False))
    return next((number for number, (a, b) in enumerate(pairs) if a != b), len(pairs))

"""Rows of a manifest that cannot be used, all reported at once, with their lines."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from audiostride.errors import InputError
from audiostride.wording import count_of

if TYPE_CHECKING:
    import pandas as pd

# Bad rows that are listed in words.
MAX_LISTED = 20


@dataclass
class BadRows:
    """Rows of a manifest that cannot be used, collected so that all are reported at once.

    Of a folder they are places in it that cannot be read or named; they are in no line (0), and no rows of the table.
    """

    lines: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is left out or taken under another name, a line for each kind, to be said whatever becomes of the rows."""

    def __len__(self) -> int:
        return len(self.lines)

    def add(self, lines: "pd.Series[int] | Sequence[int]", kind: str, messages: Sequence[str] | str) -> None:
        """Note rows by their line numbers, with one message for all or one for each."""
        numbers = [int(line) for line in lines]
        self.lines += numbers
        self.kinds += [kind] * len(numbers)
        self.messages += [messages] * len(numbers) if isinstance(messages, str) else list(messages)

    def only(self, kinds: Sequence[str] | None) -> "BadRows":
        """Those of the given kinds; None gives all."""
        chosen = [
            row for row in zip(self.lines, self.kinds, self.messages, strict=True) if not kinds or row[1] in kinds
        ]
        columns = [list(column) for column in zip(*chosen, strict=True)] if chosen else [[], [], []]
        return BadRows(columns[0], columns[1], columns[2], self.notes)

    def raise_if_any(self, where: str, way_out: str) -> None:
        """Raise `InputError` listing the rows, if there are any."""
        if self.lines:
            rows = list(zip(self.lines, self.messages, strict=True))
            raise InputError(describe_bad_rows(where, rows, way_out))


def describe_bad_rows(where: str, rows: list[tuple[int, str]], way_out: str) -> str:
    """One message that lists bad rows by line number, the first 20 of them in words; a folder has no lines."""
    place = Path(where.removeprefix("manifest ").split(", ")[0])
    tables = ("store.json", "manifest.csv")  # which have lines
    of_folder = os.path.isdir(place) and not any(os.path.isfile(place / name) for name in tables)
    listed = [
        f"  {f'line {line}: ' * (line > 0 and not of_folder)}{message}" for line, message in sorted(rows)[:MAX_LISTED]
    ]
    if len(rows) > MAX_LISTED:
        listed.append(f"  ... and {len(rows) - MAX_LISTED} more")
    way_out = way_out.replace("these rows", "these files") if of_folder else way_out
    return "\n".join([f"{where}: {count_of(len(rows), 'bad file' if of_folder else 'bad row')}", *listed, way_out])

"""What a report is made of: sections of tables, drawings and pictures, each of which is also a file or two."""

import base64
import json
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from audiostride.reporting.style import inline_svg, render, trace_outline


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    name: str  # of its files
    caption: str  # what it shows, in plain text
    data: pd.DataFrame  # the numbers
    shown: pd.DataFrame  # the same as it stands on the page; the first column names the rows
    n_left: int = 1  # columns of text, which are aligned left
    counts: Sequence[Sequence[Sequence[int]]] | None = None  # of a slider, for each row: see `threshold_counts`

    @property
    def slider(self) -> str:
        """The counts for the script of the page."""
        return json.dumps(self.counts, separators=(",", ":"))

    @property
    def rows(self) -> list[list[str]]:
        """The cells of each row."""
        return [[str(cell) for cell in row] for row in self.shown.itertuples(index=False)]

    def files(self) -> dict[str, bytes]:
        """The numbers as CSV, and the text as Markdown below its caption."""
        rule = [" --- " if number < self.n_left else " ---: " for number in range(self.shown.shape[1])]
        head, *lines = [f"| {' | '.join(map(clean_cell, row))} |" for row in [list(self.shown.columns), *self.rows]]
        text = f"{self.caption}\n\n" + "\n".join([head, f"|{'|'.join(rule)}|", *lines]) + "\n"
        return {"csv": self.data.to_csv(index=False).encode(), "md": text.encode()}


def clean_cell(text: str) -> str:
    """Text as it may stand in a cell of a Markdown table."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


@dataclass(frozen=True)
class Drawing:
    """A figure of the page."""

    name: str  # of its files
    alt: str  # what it shows, for those who do not see it
    figure: Figure
    min_width_px: int = 0  # on a narrow screen it scrolls rather than gets narrower than this

    @cached_property
    def svg(self) -> bytes:
        """As an SVG file."""
        content = render(self.figure, format="svg")
        self.figure.set_layout_engine("none")  # everything is in its place: to find it takes as long as to draw it
        return content

    @property
    def inline(self) -> Markup:
        """As an element of the page."""
        return inline_svg(self.svg)

    def files(self) -> dict[str, bytes]:
        """As SVG and PNG."""
        return {"svg": self.svg, "png": render(self.figure, format="png")}


@dataclass(frozen=True)
class Picture:
    """A spectrogram with its sound and lines of text below it."""

    name: str
    alt: str
    png: bytes
    lines: Sequence[str]
    limits: tuple[str, str, str]  # of its axes: frequency above and below, time at the right
    seconds: float  # that it shows
    flac: bytes  # the sound; empty where it is none that people hear
    marked: NDArray[np.bool_] | None = None  # frames and bands that are outlined on it, (T, M)

    @property
    def outline(self) -> Markup:
        """What is marked, as an element over the picture."""
        if self.marked is None:
            return Markup("")
        width, height = self.marked.shape
        path = f'<path d="{trace_outline(self.marked)}" vector-effect="non-scaling-stroke"/>'
        return Markup(f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">{path}</svg>')

    @property
    def source(self) -> str:
        """The picture as the address of an <img>."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")

    @property
    def sound(self) -> str:
        """The sound as the address of an <audio>; empty where there is none."""
        return "data:audio/flac;base64," + base64.b64encode(self.flac).decode("ascii") if self.flac else ""

    def files(self) -> dict[str, bytes]:
        """As PNG."""
        return {"png": self.png}


@dataclass(frozen=True)
class Drawings:
    """Drawings side by side, with one caption."""

    items: Sequence[Drawing]
    caption: str


@dataclass(frozen=True)
class Pictures:
    """A row of pictures, with one caption."""

    items: Sequence[Picture]
    caption: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Heading:
    """A title within a section."""

    text: str


Block = Table | Drawings | Pictures | Text | Heading


@dataclass(frozen=True)
class Section:
    """A part of the page with a title."""

    key: str
    title: str
    blocks: Sequence[Block]

    def kind_of(self, block: Block) -> str:
        """The name of its kind, by which the template chooses."""
        return type(block).__name__.lower()


def file_name(name: str, suffix: str, taken: Container[str] = ()) -> str:
    """A name that every file system takes, and that is not taken yet.

    >>> file_name("per_class_a/b <c>", "csv"), file_name("x", "md", ["x.md"])
    ('per_class_a_b_c.csv', 'x_2.md')
    """
    stem = re.sub(r"[^\w.-]+", "_", name).strip("_.").encode()[:80].decode(errors="ignore") or "unnamed"
    found, number = f"{stem}.{suffix}", 2
    while found in taken:
        found, number = f"{stem}_{number}.{suffix}", number + 1
    return found

"""What a report is made of: sections of tables, drawings and pictures, each of which is also a file."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from audiostride.reporting.style import inline_svg, render


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    name: str
    """Of its files."""
    caption: str
    """What it shows, in plain text."""
    data: pd.DataFrame
    """The numbers."""
    shown: pd.DataFrame
    """The same as text, as it stands on the page; the first column names the rows."""
    n_left: int = 1
    """Columns of text, which are aligned left."""

    @property
    def rows(self) -> list[list[str]]:
        """The cells of each row."""
        return [[str(cell) for cell in row] for row in self.shown.itertuples(index=False)]

    def to_markdown(self) -> str:
        """The table as Markdown, below its caption."""
        cells = [[clean_cell(cell) for cell in row] for row in [list(self.shown.columns), *self.rows]]
        rule = [" --- " if number < self.n_left else " ---: " for number in range(len(cells[0]))]
        lines = [f"| {' | '.join(row)} |" for row in cells]
        return f"{self.caption}\n\n" + "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]]) + "\n"


def clean_cell(text: object) -> str:
    """Text as it may stand in a cell of a Markdown table."""
    shown = str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(shown.split())


@dataclass(frozen=True)
class Drawing:
    """A figure of the page."""

    name: str
    """Of its files."""
    alt: str
    """What it shows, for those who do not see it."""
    figure: Figure
    """Drawn when it is asked for."""
    min_width_px: int = 0
    """On a narrow screen it scrolls rather than gets narrower than this."""

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

    def png(self) -> bytes:
        """As a PNG file."""
        _ = self.svg
        return render(self.figure, format="png")


@dataclass(frozen=True)
class Drawings:
    """Drawings side by side, with one caption."""

    items: Sequence[Drawing]
    caption: str


@dataclass(frozen=True)
class Picture:
    """A small picture with lines of text below it."""

    name: str
    alt: str
    png: bytes
    lines: Sequence[str]

    @property
    def source(self) -> str:
        """The picture as the address of an <img>."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Pictures:
    """A row of pictures."""

    items: Sequence[Picture]
    caption: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Heading:
    """A title within a section; level 3 or 4."""

    text: str
    level: int = 3


Block = Table | Drawings | Pictures | Text | Heading


@dataclass(frozen=True)
class Section:
    """A part of the page with a title."""

    key: str
    title: str
    blocks: Sequence[Block] = field(default_factory=list)

    def kind_of(self, block: Block) -> str:
        """The name of its kind, by which the template chooses."""
        return type(block).__name__.lower()


def find_blocks(sections: Sequence[Section], kind: type) -> list[Block]:
    """All blocks of a kind, in order."""
    return [block for section in sections for block in section.blocks if isinstance(block, kind)]

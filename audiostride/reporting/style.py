"""How figures are drawn: without a display, as SVG or PNG, in colours that a page can turn light or dark."""

import hashlib
import io
import re
import sys
import warnings
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.rcsetup import cycler
from matplotlib.text import Text
from numpy.typing import NDArray

INK, SOFT, LINE, PAPER = "#1c2430", "#5b6676", "#d5dbe2", "#ffffff"
# Told apart also by people who see few colours, and by their lightness; every figure has labels or marks besides.
COLORS = ("#1a5fb4", "#b4541a", "#1f7a4d", "#8a3fa0", "#8f6b00", "#b0305c")
# In a page these colours are variables, which its style sheet sets for light and for dark.
VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line"} | {color: f"c{number}" for number, color in enumerate(COLORS)}
MARKERS = ("o", "s", "^", "D", "v", "P")
FONT = "DejaVu Sans"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": [FONT],  # metrics only: in a page the text is set in its font
    "font.size": 10,
    "text.parse_math": False,  # names of classes and runs are no formulas
    **dict.fromkeys(["text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor"], INK),
    **dict.fromkeys(["axes.edgecolor", "xtick.color", "ytick.color"], SOFT),
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # else each drawing looks for ticks that it might meet
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "axes.prop_cycle": cycler(color=COLORS),
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",  # text stays text: it can be searched
    "svg.hashsalt": "audiostride",
}
WIDTH_IN = 5.0  # of one panel: two stand side by side on a wide screen, one above the other on a narrow one


def new_panel(title: str, x: str, y: str, *, height: float = 3.1, width: float = WIDTH_IN) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, its size in inches; to be called within ``mpl.rc_context(STYLE)``."""
    figure = Figure(figsize=(width, height))
    panel = figure.subplots()
    panel.set_title(title)
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    return figure, panel


def series_style(place: int) -> dict[str, Any]:
    """Colour and mark of the n-th thing drawn in a panel, counted from 0."""
    return {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place % len(MARKERS)]}


def legend_entries(panel: Axes) -> tuple[list[Any], list[str]]:
    """Handles and labels of what a panel shows, each label once."""
    entries: dict[str, Any] = {}
    for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
        entries.setdefault(str(label), handle)
    return list(entries.values()), list(entries)


def legend_below(figure: Figure, panel: Axes, *, n_columns: int = 2) -> None:
    """Put the legend of a panel below it."""
    figure.legend(*legend_entries(panel), loc="outside lower left", ncols=n_columns)


def render(figure: Figure, *, format: str) -> bytes:
    """The figure as an SVG or PNG file; characters that the font lacks are drawn in others that have them."""
    content, missing = _draw(figure, format)
    if missing and format != "svg":  # where text is left to who shows it
        fonts, missing = choose_fonts(missing)
        for text in figure.findobj(Text):
            text.set_fontfamily([FONT, *fonts])
        content, _ = _draw(figure, format)
        _say_missing(missing)
    return content


def _draw(figure: Figure, format: str) -> tuple[bytes, str]:
    """The file, and which characters its fonts lack."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if format == "svg" else {}
    with mpl.rc_context(STYLE), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if figure.get_layout_engine() is None:  # one of its own lays it out, and makes matplotlib draw all of it twice
            ConstrainedLayoutEngine().execute(figure)
        figure.savefig(buffer, format=format, dpi=144, metadata=metadata)
    codes = [re.match(r"Glyph (\d+) .*missing from", str(each.message)) for each in caught]
    for each, code in zip(caught, codes, strict=True):
        if code is None:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return buffer.getvalue(), "".join(sorted({chr(int(code[1])) for code in codes if code}))


@cache
def choose_fonts(characters: str) -> tuple[list[str], str]:
    """Installed fonts that have these characters, and the characters that none has."""
    found = [entry for entry in fontManager.ttflist if "Last Resort" not in entry.name]  # which has boxes alone
    # Of a family the regular face, which text is set in: others may lack what it has.
    found.sort(key=lambda entry: (entry.style == "normal", entry.weight == 400))
    files = {entry.name: entry.fname for entry in found}
    fonts: list[str] = []
    for name in sorted(files):
        left = "".join(each for each in characters if not get_font(files[name]).get_char_index(ord(each)))
        fonts += [name] * (left != characters)
        characters = left
    return fonts, characters


@cache
def _say_missing(characters: str) -> None:
    if characters:
        print(
            f"figures: no font that is installed has {' '.join(characters)}: in PNG files boxes stand in their place "
            "(not in the page); install one, such as Noto Sans",
            file=sys.stderr,
        )


def inline_svg(content: bytes) -> Markup:
    """The <svg> element of an SVG file, to stand in a page: as wide as its place, in the colours of the page."""
    text = content.decode("utf-8")
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    size = re.search(r'width="([\d.]+)pt" height="[\d.]+pt" ', text)
    if size:
        width_px = float(size[1]) * 96 / 72
        text = text.replace(size[0], f'style="width:100%;max-width:{width_px:.0f}px;height:auto" ', 1)
    # Several drawings share a page, where names must be single: unused ones go, the others get a prefix.
    prefix = hashlib.sha256(content).hexdigest()[:8]
    names = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: f' id="{prefix}{found[1]}"' if found[1] in names else "", text)
    text = re.sub(r'(url\(|href=")#', rf"\g<1>#{prefix}", text)
    for color, name in VARIABLES.items():
        text = text.replace(color, f"var(--{name})")
    text = text.replace(f"fill: {PAPER}", "fill: none")  # the ground is the page's
    return Markup(re.sub(r"\n\s*", "\n", text))


def trace_outline(marked: NDArray[np.bool_]) -> str:
    """The border of what is marked on a spectrogram, ``(T, M)``, as the path of an SVG that is T wide and M high."""
    n_bands, padded = marked.shape[1], np.pad(marked, 1).astype(int)
    lines = []
    for axis in (0, 1):  # borders between frames, then between bands
        steps = np.abs(np.diff(padded, axis=axis))
        steps = steps[:, 1:-1] if axis == 0 else steps[1:-1].T  # (border, along it)
        for place, row in enumerate(steps):
            ends = np.flatnonzero(np.diff(np.pad(row, 1))).reshape(-1, 2)
            for start, end in ends.tolist():
                if axis == 0:
                    lines.append(f"M{place} {n_bands - start}V{n_bands - end}")
                else:
                    lines.append(f"M{start} {n_bands - place}H{end}")
    return "".join(lines)

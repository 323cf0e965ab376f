"""The rooms of the package and what they import from each other, as the picture in README.md.

Data: none (the package itself).
Command: python recipes/draw_rooms.py [-o recipes/figures/rooms.png]
Expected: the picture, in a second. It holds what was drawn in its description, so that a test can tell when the imports
    have changed since; draw it again then.
"""

import argparse
import ast
import json
import textwrap
from pathlib import Path as FilePath

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

import audiostride

PACKAGE = FilePath(audiostride.__file__).parent
OUT = FilePath(__file__).parent / "figures" / "rooms.png"
GROUND = "the ground"
# Where rooms stand: floor from below, and place from left to right. An import may lead down only.
PLACES = {
    "strides": (0, -1.0), "audio": (0, 1.0), "dataset": (1, 1.0), "inference": (2, 1.0),
    "models": (3, 0.0), "training": (4, 0.0), "reporting": (5, 0.0), "commands": (6, 0.0),
}  # fmt: skip
WIDE, HIGH = 0.78, 0.3  # half of a box
INK, SOFT, PALE, WRONG = "#1c2430", "#5b6676", "#c3ccd6", "#c01c28"
COLORS = {"strides": "#dce9f7", "audio": "#dff0e4", "models": "#dce9f7", "dataset": "#dff0e4"}


def room_of(module: str) -> str | None:
    """The room of a module; the command line belongs to the verbs, and lists of public names to none."""
    parts = module.split(".")[1:]
    if not parts or parts[0] in ("__init__", "functional"):
        return None
    if parts[0] in ("cli", "__main__"):
        return "commands"
    return parts[0] if (PACKAGE / parts[0]).is_dir() else GROUND


def read_edges() -> set[tuple[str, str]]:
    """Pairs of rooms of which the first imports from the second, also in functions, but not for type checkers only."""
    edges = set()
    for path in PACKAGE.rglob("*.py"):
        room = room_of(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
        ahead: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
        while ahead:
            node = ahead.pop()
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                ahead += node.orelse
                continue
            ahead += ast.iter_child_nodes(node)
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == "audiostride":
                # A public name leads to its module; any other is a module, or the version.
                named = [alias.name for alias in node.names if alias.name != "__version__"]
                names = [audiostride._LAZY.get(name, f"audiostride.{name}") for name in named]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found = {room_of(name) for name in names if name.split(".")[0] == "audiostride"}
            edges |= {(room, other) for other in found if room and other and room != other}
    return edges


def is_implied(edge: tuple[str, str], edges: set[tuple[str, str]]) -> bool:
    """Whether an edge's end is reached by way of a third room too."""
    start, end = edge
    ahead = [other for room, other in edges if room == start and other != end]
    seen = set(ahead)
    while ahead:
        room = ahead.pop()
        new = {other for each, other in edges if each == room} - seen - {start}
        if end in new:
            return True
        seen |= new
        ahead += new
    return False


def purpose_of(room: str) -> str:
    """The first sentence of a room's own description."""
    head = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    return head.partition("\n")[0].rstrip(".")


def box(axes: Axes, x: float, y: float, size: tuple[float, float], color: str, name: str, purpose: str) -> None:
    """A rounded box with a name and, below it, a few words."""
    wide, high = size
    axes.add_patch(
        FancyBboxPatch(
            (x - wide, y - high), 2 * wide, 2 * high,
            boxstyle="round,pad=0,rounding_size=0.08", facecolor=color, edgecolor=SOFT, linewidth=0.8, zorder=3,
        )
    )  # fmt: skip
    lines = textwrap.wrap(purpose, width=round(52 * wide))
    middle = y + 0.06 * len(lines)
    axes.text(x, middle, name, ha="center", va="center", size=12, weight="bold", color=INK, zorder=4)
    words = "\n".join(lines)
    axes.text(x, middle - 0.1, words, ha="center", va="top", size=8, color=INK, linespacing=1.25, zorder=4)


def path_between(start: str, end: str) -> Path:
    """The way of an arrow: straight from floor to floor, and else in a bow past the boxes between."""
    (floor, x), (other_floor, other_x) = PLACES[start], PLACES[end]
    if abs(floor - other_floor) == 1:
        down = 1 if floor > other_floor else -1
        aside = 0.1 if down < 0 else 0.0  # one that leads up lies beside the one that leads down
        lean = other_x - x
        begin = (x + 0.3 * lean + aside, floor - down * HIGH)
        return Path([begin, (other_x - 0.3 * lean + aside, other_floor + down * HIGH)])
    # An arrow within a column is on its inner side, in the middle one on the left and the right side by turns.
    turn = 1 if (floor + other_floor) // 2 % 2 else -1
    side = (1 if other_x > x else -1) if other_x != x else (-1 if x > 0 else 1) if x else turn
    n_floors = floor - other_floor
    begin = (x + side * WIDE, floor - 0.04 * n_floors)
    tip = (other_x + side * WIDE, other_floor + 0.05 * n_floors - 0.1)
    bow = max(abs(begin[0]), abs(tip[0])) + 0.12 + 0.09 * n_floors
    return Path(
        [begin, (side * bow, begin[1]), (side * bow, tip[1]), tip], [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    )


def draw(edges: set[tuple[str, str]]) -> Figure:
    """The picture: a box for each room, an arrow for each edge, pale where it is implied, red where it leads up."""
    unknown = {room for edge in edges for room in edge} - {*PLACES, GROUND}
    if unknown:
        raise SystemExit(f"draw_rooms: every room must have a place, not so {', '.join(unknown)}; add it to PLACES")
    figure = Figure(figsize=(9.2, 10.2), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-2.35, 2.35)
    axes.set_ylim(-1.05, 6.4)
    axes.axis("off")
    between = {edge for edge in edges if GROUND not in edge}
    downward = {edge for edge in between if PLACES[edge[0]][0] > PLACES[edge[1]][0]}
    for start, end in sorted(between):
        implied = (start, end) in downward and is_implied((start, end), downward)
        color = WRONG if (start, end) not in downward else PALE if implied else INK
        axes.add_patch(
            FancyArrowPatch(
                path=path_between(start, end), arrowstyle="-|>", mutation_scale=12, color=color,
                linewidth=1.0 if implied else 1.5, zorder=1 if implied else 2,
            )
        )  # fmt: skip
    for room, (floor, x) in PLACES.items():
        box(axes, x, floor, (WIDE, HIGH), COLORS.get(room, "#f1ece2"), room, purpose_of(room))
    files = sorted(path.stem for path in PACKAGE.glob("*.py") if room_of(f"audiostride.{path.stem}") == GROUND)
    box(axes, 0, -0.75, (1.78, 0.2), "#eceff3", GROUND, f"{', '.join(files)}: for all rooms")
    return figure


def main() -> None:
    """Draw, and write the picture with its edges in its description."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--out", type=FilePath, default=OUT, help="PNG file that is written")
    out = parser.parse_args().out
    edges = read_edges()
    draw(edges).savefig(out, metadata={"Description": json.dumps(sorted(edges)), "Software": None})
    print(f"{len(edges)} edges -> {out}")


if __name__ == "__main__":
    main()

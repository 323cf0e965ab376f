"""How modules of the package hang together: no circle, and no import inside a function without its reason."""

import ast
import json
import re
import runpy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeGuard

import pytest
from PIL import Image

import audiostride

PACKAGE = Path(audiostride.__file__).parent
HEAVY = {"jinja2", "jsonargparse", "librosa", "lightning_fabric", "matplotlib", "numpy", "onnx", "onnxruntime"}
HEAVY |= {"onnxscript", "pandas", "pooch", "pyarrow", "scipy", "sklearn", "soundfile", "soxr", "torch"}
HEAVY |= {"torchmetrics", "torchvision"}


def modules() -> dict[str, str]:
    """The source of every module of the package by its name; packages have the name of their folder."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


def is_type_checking(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING"


def walk_run(node: ast.AST, *, into_functions: bool = True) -> Iterator[ast.AST]:
    """All nodes below one, but not what only type checkers read, nor, on wish, what functions within it hold."""
    for child in node.orelse if is_type_checking(node) else ast.iter_child_nodes(node):
        yield child
        if into_functions or not isinstance(child, ast.FunctionDef):
            yield from walk_run(child, into_functions=into_functions)


def imported_names(node: ast.AST) -> list[str]:
    """What a statement imports: modules, and names of modules as MODULE.NAME."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def import_edges(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """The modules that each module imports, at its head or in a function; lazy public names are those of their module.

    A module that is imported runs the packages that it lies in first, which is no edge: all of them would be circles.
    """
    edges: dict[str, set[str]] = {}
    for module, source in sources.items():
        edges[module] = set()
        for name in (name for node in walk_run(ast.parse(source)) for name in imported_names(node)):
            package, _, last = name.rpartition(".")
            if package == "audiostride" and last in audiostride._LAZY:
                package = audiostride._LAZY[last]
            edges[module] |= {next((each for each in (name, package) if each in sources), module)} - {module}
    return edges


def circles(edges: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """Sets of modules each of which imports all others of its set, if by way of others."""
    reached = {}
    for start in edges:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            new = edges[ahead.pop()] - seen
            seen |= new
            ahead += new
        reached[start] = seen
    return {
        frozenset(each for each in reached[module] if module in reached[each])
        for module in edges
        if module in reached[module]
    }


def has_reason(line: str) -> bool:
    """Whether a line of code has a comment that is not for a tool alone."""
    comment = line.partition("#")[2]
    return bool(re.sub(r"(type: ignore|noqa)(\[[\w\-, ]*\]|: \w+)?|[\s#]", "", comment))


def without_reason(source: str) -> list[str]:
    """The functions of a module with an import of the package, or of a heavy one, that has no reason beside it.

    A comment on the line of an import or above it speaks for the imports that follow it without another statement.
    """
    lines, found = source.splitlines(), set()
    for function in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)):
        explained, last = False, -1
        for node in walk_run(function, into_functions=False):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            assert node.end_lineno is not None
            follows = not any(line.strip() for line in lines[last : node.lineno - 1])
            above = lines[node.lineno - 2].strip()
            on_it = any(map(has_reason, lines[node.lineno - 1 : node.end_lineno]))
            explained = (explained and follows) or on_it or (above.startswith("#") and has_reason(above))
            last = node.end_lineno
            if not explained and {name.split(".")[0] for name in imported_names(node)} & {*HEAVY, "audiostride"}:
                found.add(function.name)
    return sorted(found)


def test_no_modules_import_each_other_in_a_circle() -> None:
    sources = modules()
    assert len(sources) > 100
    edges = import_edges(sources)
    assert sum(map(len, edges.values())) > 300
    assert circles(edges) == set()


def test_imports_inside_functions_say_why() -> None:
    found = {f"{module}:{name}" for module, source in modules().items() for name in without_reason(source)}
    assert found == set()


def test_a_circle_is_found() -> None:
    sources = {
        "audiostride": "",
        "audiostride.a": "from audiostride.b import thing",
        "audiostride.b": "def f():\n    from audiostride import c",
        "audiostride.c": "if True:\n    import audiostride.a",
        "audiostride.d": "from audiostride import a",
        "audiostride.strides.diffstride": "import audiostride.e",
        "audiostride.e": "from audiostride import DiffStride2d",
        "audiostride.f": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import audiostride.g",
        "audiostride.g": "from audiostride.f import thing",
    }
    lazy = frozenset({"audiostride.strides.diffstride", "audiostride.e"})
    assert circles(import_edges(sources)) == {frozenset({f"audiostride.{letter}" for letter in "abc"}), lazy}


def test_an_import_without_a_reason_is_found() -> None:
    head = "import torch\n\n\ndef f():\n    "
    for body, wrong in {
        "import torch": True,
        "import json": False,
        "from audiostride.errors import InputError": True,
        "import torch  # noqa: F401": True,
        "import torch  # type: ignore[import-untyped]": True,
        "import torch  # takes two seconds": False,
        "# Takes two seconds.\n    import pandas\n    import torch\n\n    from audiostride import audio": False,
        "# Takes two seconds.\n    import pandas\n    x = 1\n    import torch": True,
        "from audiostride.errors import (  # saves time\n        InputError,\n    )": False,
        "x = 1  # one\n    import torch": True,
        "if x:\n        import torch": True,
        "def g():\n        import torch  # slow": False,
    }.items():
        assert without_reason(head + body) == (["f"] if wrong else []), body
    assert without_reason("def f():\n    def g():\n        import torch") == ["g"]
    assert without_reason("class A:\n    def f(self):\n        import torch") == ["f"]


def rooms(edges: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """Imports from one room to another; modules in no folder are the ground, but the command line is of the verbs."""
    found = set()
    for module, others in edges.items():
        start, *ends = (room_of(each) for each in [module, *others])
        found |= {(start, end) for end in ends if start and end and start != end}
    return found


def room_of(module: str) -> str | None:
    name = f"{module}.".split(".")[1]
    return {"": None, "functional": None, "cli": "commands", "__main__": "commands"}.get(
        name, name if (PACKAGE / name).is_dir() else "the ground"
    )


def edges_of(picture: Path) -> set[tuple[str, str]]:
    with Image.open(picture) as image:
        assert image.width > 900
        return {(start, end) for start, end in json.loads(image.info["Description"])}


def test_the_picture_of_the_rooms_shows_their_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = PACKAGE.parent / "recipes"
    monkeypatch.setattr(sys, "argv", ["draw_rooms.py", "-o", str(tmp_path / "rooms.png")])
    runpy.run_path(str(recipes / "draw_rooms.py"), run_name="__main__")
    drawn, kept = (edges_of(file) for file in (tmp_path / "rooms.png", recipes / "figures" / "rooms.png"))
    assert drawn == rooms(import_edges(modules()))
    assert ("models", "strides") in drawn
    assert kept == drawn, "the imports have changed: python recipes/draw_rooms.py"

"""The pages of the public names, and that their docstrings name what is given."""

import dataclasses
import inspect
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "api_pages.py"
MODULES: list[str] = runpy.run_path(str(RECIPE))["MODULES"]


def documented(module: str) -> Iterator[tuple[str, Any]]:
    """The public functions, classes and methods of a module, with their names."""
    for name in import_module(module).__all__:
        found = getattr(import_module(module), name)
        if callable(found) and not (inspect.isclass(found) and issubclass(found, Exception)):
            yield name, found
        if inspect.isclass(found):
            methods = [
                each for each in vars(found) if not each.startswith("_") and each not in ("forward", "extra_repr")
            ]
            yield from ((f"{name}.{each}", getattr(found, each)) for each in methods)


def unnamed(found: Any) -> list[str]:
    """Arguments that a docstring does not name."""
    names = [name for name in inspect.signature(found).parameters if name not in ("self", "args", "kwargs")]
    text = inspect.getdoc(found) or ""
    return [name for name in names if not re.search(rf"(?<![\w.]){name}(?!\w)", text)]


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_name_every_argument(module: str) -> None:
    checked = {
        name: unnamed(found)
        for name, found in documented(module)
        if callable(found) and not dataclasses.is_dataclass(found)  # whose fields have docstrings of their own
    }
    assert checked
    assert {name: missing for name, missing in checked.items() if missing} == {}


def test_an_argument_that_is_not_named_is_seen() -> None:
    def pool(x: float, stride: float) -> float:
        """Pool x by its.stride, or by strides."""
        return x * stride

    assert unnamed(pool) == ["stride"]


@pytest.mark.slow
def test_each_module_has_a_page_of_its_own_names_alone(tmp_path: Path) -> None:
    pytest.importorskip("pdoc")
    made = subprocess.run(
        [sys.executable, "-W", "error", RECIPE, "-o", tmp_path], capture_output=True, text=True, check=True
    )
    assert made.stdout == f"{len(MODULES)} pages: {tmp_path / 'index.html'}\n"
    assert made.stderr == ""
    pages = {
        page.relative_to(tmp_path).with_suffix("").as_posix().replace("/", ".") for page in tmp_path.rglob("*.html")
    }
    assert pages == {"index", *MODULES}
    text = (tmp_path / "audiostride.html").read_text(encoding="utf-8")
    shown = re.findall(r'<section id="(\w+)"', text)
    assert sorted(shown) == sorted(import_module("audiostride").__all__)
    assert "Shape:" in text
    assert 'id="AudioClassifier.predict"' in text
    assert "Define the computation performed at every call" not in text, "of PyTorch"
    assert "Initialize internal Module state" not in text, "of PyTorch"

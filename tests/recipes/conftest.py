"""Recipes run as programs in this process, and the cells of the tables that they print."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def run_recipe(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The exit code of a recipe, by its name, with options."""

    def run(name: str, *options: object) -> int:
        file = str(RECIPES / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [file, *map(str, options)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(file, run_name="__main__")
        return int(ended.value.code or 0)

    return run


@pytest.fixture(scope="session")
def cells() -> Callable[[str], list[list[str]]]:
    """The rows of the Markdown tables in a text."""

    def read(text: str) -> list[list[str]]:
        rows = [line for line in text.splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in line.split("|")[1:-1]] for line in rows]

    return read


@pytest.fixture(scope="session")
def times_of_change() -> Callable[[Path], dict[Path, int]]:
    """When each file below a folder was changed, in ns."""
    return lambda folder: {file: file.stat().st_mtime_ns for file in folder.rglob("*")}

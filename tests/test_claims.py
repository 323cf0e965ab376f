"""The table of tests/README.md names tests and lines that there are; `plant_faults.py` tries whether they fail."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from plant_faults import HEAD, NEEDED, ROOT, TABLE, Row, plant, read_rows

ROWS = read_rows(TABLE.read_text(encoding="utf-8"))


def find_tests(tree: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    """The names of the tests of a module, as pytest has them: those of a class behind its name and ``::``."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from find_tests(node, f"{prefix}{node.name}::")
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            yield prefix + node.name


def exists(test: str, root: Path = ROOT) -> bool:
    """Whether there is a test of this name; what stands in brackets behind it is a case of one."""
    path, _, name = test.partition("::")
    file = root / path
    return file.is_file() and name.partition("[")[0] in find_tests(ast.parse(file.read_text(encoding="utf-8")), "")


def source_of(row: Row) -> str:
    return (ROOT / row.file).read_text(encoding="utf-8")


def test_the_table_is_long_enough_and_says_nothing_twice() -> None:
    assert len(ROWS) >= 45
    assert len({row.promise for row in ROWS}) == len({(row.file, row.old) for row in ROWS}) == len(ROWS)
    assert {Path(row.test).parts[0] for row in ROWS} | {Path(row.file).parts[0] for row in ROWS} <= {*NEEDED}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.promise)
def test_tests_and_lines_that_are_named_are_there(row: Row) -> None:
    assert exists(row.test), row.test
    ast.parse(plant(row, source_of(row)))  # a fault, and not a file that nobody can import


def test_names_of_tests_in_classes_and_of_cases_are_known(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    cases = [
        "class TestA:\n    def test_b(self): ...",
        "def test_c(): ...",
        "def d(): ...",
        "class E:\n    def test_f(self): ...",
    ]
    (tmp_path / "tests" / "test_x.py").write_text("\n".join(cases))
    names = ["TestA::test_b", "test_c", "test_c[1-yes]", "d", "test_b", "E::test_f", "test_g", "TestA", ""]
    assert [exists(f"tests/test_x.py::{name}", tmp_path) for name in names] == [True] * 3 + [False] * 6
    assert not exists("tests/test_y.py::test_c", tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"old": "nobody has written this"},
        {"old": "def "},  # more than once
        {"new": ROWS[0].old},
    ],
)
def test_a_fault_that_cannot_be_planted_is_noticed(change: dict[str, str]) -> None:
    row = ROWS[0]._replace(**change)
    with pytest.raises(ValueError, match="once, and something else in its place"):
        plant(row, source_of(row))


@pytest.mark.parametrize(
    "line",
    [
        "| a promise | `tests/a.py::test_b` | `audiostride/c.py`: `d` |",
        "| a promise | tests/a.py::test_b | `audiostride/c.py`: `d` → `e` |",
        "| a promise | `tests/a.py::test_b` | `recipes/c.py`: `d` → `e` |",
        "| a promise | `tests/a.py::test_b` | `audiostride/c.py`: `d | f` → `e` |",
        "| `tests/a.py::test_b` | `audiostride/c.py`: `d` → `e` |",
    ],
)
def test_a_row_of_another_form_is_noticed(line: str) -> None:
    good = f"{HEAD}\n| --- | --- | --- |\n| `a` b | `tests/a.py::test_b` | `audiostride/c.py`: `d` → `e` |\n"
    assert (
        read_rows(f"# Tests\n\n{good}\nmore")
        == [Row("`a` b", "tests/a.py::test_b", "audiostride/c.py", "d", "e")]
        == read_rows(good)
    )
    with pytest.raises(ValueError, match="a row must be"):
        read_rows(f"{good}{line}\n")
    with pytest.raises(ValueError, match="there must be a table"):
        read_rows(line)

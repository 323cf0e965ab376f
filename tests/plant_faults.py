"""Plants the faults of tests/README.md in a copy of the package, one at a time: the test of each row must then fail.

``python tests/plant_faults.py`` prints a line per row and ends with code 1 if a fault is not caught; ``--only WORD``
takes the rows that have the word in them.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
TABLE = Path(__file__).parent / "README.md"
HEAD = "| promise | test | fault that it was seen to catch |"
ROW = re.compile(r"\| ([^|]+) \| `(tests/[^`|]+)` \| `(audiostride/[^`|]+\.py)`: `([^`|]+)` → `([^`|]+)` \|")
# All that tests read beside themselves; what lies in ../shared is not there, and tests that need it skip.
NEEDED = ("audiostride", "tests", "recipes", "data_manifests", ".github", "pyproject.toml", "README.md", "LICENSE")


class Row(NamedTuple):
    """A promise, the test that holds it, and a fault that it was seen to catch."""

    promise: str
    test: str
    """As pytest names it: ``tests/path.py::name``."""
    file: str
    """Where the fault is planted, ``audiostride/path.py``."""
    old: str
    """A part of one line of that file, which it holds once."""
    new: str
    """What stands there instead."""


def read_rows(text: str) -> list[Row]:
    """The rows of the table in a document; `ValueError` where there is none, or a row is of another form."""
    _, head, below = text.partition(f"{HEAD}\n")
    rows = []
    for line in below.partition("\n\n")[0].splitlines()[1:]:
        if not (found := ROW.fullmatch(line)):
            raise ValueError(f"a row must be '| promise | `test` | `file`: `old` → `new` |', got {line}")
        rows.append(Row(*found.groups()))
    if not head or not rows:
        raise ValueError(f"there must be a table with the head {HEAD}")
    return rows


def plant(row: Row, source: str) -> str:
    """The file of a row with its fault; `ValueError` unless `source` holds the old part once and the new differs."""
    if source.count(row.old) != 1 or row.old == row.new:
        raise ValueError(f"{row.file} must hold {row.old!r} once, and something else in its place: {row.promise}")
    return source.replace(row.old, row.new)


def run(command: list[str], copy: Path) -> subprocess.CompletedProcess[str]:
    """Run Python where the package is that of a copy."""
    # Compiled files are told by whole seconds and sizes: a fault that is as long as what it replaces would not show.
    settings = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *command], cwd=copy, env=settings, capture_output=True, text=True)


def run_test(name: str, copy: Path) -> str:
    """``passed`` or ``failed``, where at least one case did; or else the last line that pytest said."""
    done = run(["-m", "pytest", "-n", "0", "-q", "-m", "", "-p", "no:cacheprovider", name], copy)
    last = (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()[-1]
    outcome = {0: "passed", 1: "failed"}.get(done.returncode, "neither")
    return outcome if re.search(rf"\b\d+ {outcome}\b", last) else last


def try_row(row: Row, copy: Path, before: dict[str, str]) -> str:
    """What becomes of the fault of a row; `before` keeps what tests say without one."""
    if row.test not in before:
        before[row.test] = run_test(row.test, copy)
    if before[row.test] != "passed":
        return f"test did not run (without the fault: {before[row.test]})"
    file = copy / row.file
    source = file.read_text(encoding="utf-8")
    try:
        file.write_text(plant(row, source), encoding="utf-8")
        outcome = run_test(row.test, copy)
    finally:
        file.write_text(source, encoding="utf-8")
    return {"failed": "caught", "passed": "NOT CAUGHT"}.get(outcome, f"test did not run ({outcome})")


def main() -> int:
    """Plant the faults; 0 if all are caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="WORD", default="", help="take the rows that have this word in them")
    word = parser.parse_args().only.lower()
    rows = [row for row in read_rows(TABLE.read_text(encoding="utf-8")) if word in " ".join(row).lower()]
    caught, before = 0, dict[str, str]()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        for name in NEEDED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy / name)
        imported = run(["-c", "import audiostride; print(audiostride.__file__)"], copy).stdout.strip()
        if imported != str(copy / "audiostride" / "__init__.py"):
            raise SystemExit(f"tests must import the copy of the package in {copy}, but import {imported}")
        for row in rows:
            plant(row, (copy / row.file).read_text(encoding="utf-8"))  # rather now than in the middle
        for row in rows:
            outcome = try_row(row, copy, before)
            caught += outcome == "caught"
            print(f"{outcome}: {row.promise} ({row.test})", flush=True)
    print(f"{caught} of {len(rows)} faults are caught")
    return int(caught < len(rows) or not rows)


if __name__ == "__main__":
    sys.exit(main())

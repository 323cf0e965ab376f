"""The section on false alarms: a table that says what the files say, a figure of every class, and bad files named."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audiostride.errors import InputError
from audiostride.reporting import report
from audiostride.reporting.alarms import alarms_section, draw_alarms
from audiostride.reporting.blocks import Table
from audiostride.reporting.runs import read_run
from audiostride.training.alarms import THRESHOLDS


def make_table(names: list[str]) -> pd.DataFrame:
    n = len(THRESHOLDS)
    return pd.concat(
        pd.DataFrame(
            {
                "task": "kind",
                "class": name,
                "threshold": THRESHOLDS,
                "alarms": np.arange(n)[::-1] * (number + 1),
                "alarms_per_hour": 2.0 * np.arange(n)[::-1] * (number + 1),
                "low": 0.0,
                "high": 900.0,
                "recall": np.linspace(1, 0, n),
            }
        )
        for number, name in enumerate(names)
    )


@pytest.fixture
def alarmed_run(trained_run: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    for file in trained_run.iterdir():
        if file.is_file() and not file.name.startswith("report"):
            (run / file.name).write_bytes(file.read_bytes())
    make_table(["noise", "tone"]).to_csv(run / "alarms.csv", index=False)
    classes = {
        "noise": {"threshold": float(THRESHOLDS[-3]), "alarms": 2, "recall": 0.25},
        "tone": {"threshold": None, "alarms": None, "recall": None},
    }
    metrics = {"recordings": 3, "hours": 0.5, "alarms_per_hour": 4.0, "tasks": {"kind": classes}}
    (run / "metrics_alarms.json").write_text(json.dumps(metrics))
    return run


def test_the_table_says_what_the_files_say(alarmed_run: Path, tmp_path: Path) -> None:
    section = alarms_section([read_run(alarmed_run)])
    assert section is not None
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert table.rows[0] == ["noise", f"{THRESHOLDS[-3]:.4f}", "4 (0 to 9e+02)", "25 %"]
    assert table.rows[1] == ["tone", "–", "none is low enough", "–"]
    report([alarmed_run], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "3 recordings without any of the classes, 0.5 h" in page
    assert "none is low enough" in page


def test_runs_without_recordings_of_none_have_no_such_section(trained_run: Path) -> None:
    assert alarms_section([read_run(trained_run)]) is None


@pytest.mark.parametrize("n_classes", [2, 9])
def test_every_class_has_a_line_and_many_a_mean(n_classes: int) -> None:
    figure = draw_alarms(make_table([f"c{number}" for number in range(n_classes)]), hours=0.5)
    (panel,) = figure.axes
    assert len(panel.lines) == (n_classes if n_classes == 2 else n_classes + 1)
    lowest = min(float(np.min(line.get_xdata())) for line in panel.lines)  # type: ignore[arg-type]
    assert lowest == 1.0  # no alarm in half an hour: half an alarm
    figure.canvas.draw()
    assert not any("$" in label.get_text() for label in panel.get_xticklabels())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics_alarms.json", "{}", "recordings"),
        ("metrics_alarms.json", "[", "must be JSON"),
        ("alarms.csv", "task,class\n", "alarms.csv"),
    ],
)
def test_damaged_files_are_named(alarmed_run: Path, name: str, text: str, message: str) -> None:
    (alarmed_run / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_run(alarmed_run)

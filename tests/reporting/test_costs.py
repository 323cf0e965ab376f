"""Where the multiply-adds are, before and after strides were learned, and accuracy against them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audiostride.models.cost import layer_costs
from audiostride.reporting.costs import cost_section, draw_frontier, layer_table
from audiostride.reporting.runs import read_run
from audiostride.reporting.tables import percent
from audiostride.strides.diffstride import diffstride_layers

MakeRun = Callable[..., Path]


def cost(run: Path, multiply_adds: int, **more: object) -> Path:
    """A run whose network is said to cost so much."""
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**metrics, "multiply_adds": multiply_adds, **more}))
    return run


def test_costs_before_are_those_of_the_starting_strides(make_run: MakeRun, tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "learned", strides=((2, 2), (3, 1))))
    assert run.strides is not None
    run.strides.loc[0, "layer1_time"] = 4.0  # where it says that it began
    table = layer_table(run)
    assert table["layer"].tolist() == ["block 1", "block 2", "head kind", "all"]
    assert table["multiply_adds"].tolist()[:-1] == [cost.total for cost in layer_costs(run.model)]
    assert table["multiply_adds"].iloc[-1] == table["multiply_adds"].iloc[:-1].sum()
    first, second = diffstride_layers(run.model)
    first.set_strides_([4.0, 2.0])
    second.set_strides_([3.0, 1.0])
    assert table["before"].tolist()[:-1] == [cost.total for cost in layer_costs(run.model)]
    assert "before" not in layer_table(read_run(make_run(tmp_path / "strided", pooling="strided")))


def test_several_costs_are_drawn_and_the_table_is_of_the_first(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [
        cost(make_run(tmp_path / "cheap"), 10**6, budget="0.5x"),
        cost(make_run(tmp_path / "costly", seed=1), 4 * 10**6),
    ]
    folders = [read_run(run) for run in runs]
    section = cost_section({"diffstride": folders})
    drawings, size, table = section.blocks
    assert re.match(r"[\d,]+ parameters, \d+ kB in float32 and \d+ kB in int8; [\d.]+ million multiply-adds", size.text)
    assert [drawing.name for drawing in drawings.items] == ["frontier"]  # type: ignore[union-attr]
    assert "of cheap" in table.caption  # type: ignore[union-attr]
    assert table.rows[-1][-1] == percent(1)  # type: ignore[union-attr]
    _, alone = cost_section({"diffstride": folders[:1]}).blocks
    assert alone.name == "multiply_adds"  # type: ignore[union-attr]


def test_marks_stand_where_their_numbers_say() -> None:
    points = pd.DataFrame(
        {"model": ["a", "a", "b"], "multiply_adds": [1e6, 3e6, 2e6], "budget": ["0.5x", "", "1x"],
         "accuracy": [0.5, 0.75, 0.6]}
    )  # fmt: skip
    (panel,) = draw_frontier(points, metric="average precision").axes
    marks = np.concatenate([np.column_stack(line.get_data()) for line in panel.lines])
    assert marks == pytest.approx(np.array([[1, 50], [3, 75], [2, 60]]))
    assert [text.get_text() for text in panel.texts] == ["0.5x", "1x"]
    assert panel.get_ylabel() == "test average precision (%)"

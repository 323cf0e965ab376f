"""Learned strides beside fixed ones of the same cost, on a tiny set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from equal_cost import choose_best, draw_start, format_difference

Cells = Callable[[str], list[list[str]]]


@pytest.mark.slow
def test_pairs_have_one_cost_and_are_not_trained_again(
    manifest: Path, run_recipe: Callable[..., int], cells: Cells, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"tones={manifest}:kind", "--budgets", "1x", "--starts", "2", "--width", "0.03"]
    given += ["--set", "max_steps=4", "batch_size=4"]
    assert run_recipe("equal_cost", *given, "--out", tmp_path / "runs") == 0
    rows = cells(capsys.readouterr().out)
    assert rows[2][:2] == ["tones", "1x"]
    known = pd.read_csv(tmp_path / "runs" / "cells.csv")
    assert sorted(known["variant"]) == ["1x fixed", "1x fixed", "1x learned", "1x learned"]
    assert known["of_budget"].between(0.75, 1).all()
    assert (tmp_path / "runs" / "figure.png").stat().st_size > 5000
    for _, pair in known.groupby("seed"):
        assert pair["strides"].nunique() == 2
    more = ["--cells", tmp_path / "runs" / "cells.csv", "--out", tmp_path / "more", "--ways", "to the end", "anew"]
    assert run_recipe("equal_cost", *given, *more) == 0
    said = capsys.readouterr().out
    assert "to the end against fixed: " in said
    assert "anew against fixed: " in said
    known = pd.read_csv(tmp_path / "runs" / "cells.csv").set_index(["variant", "seed"])["strides"]
    for seed in (0, 1):
        strides = [[float(value) for value in known[f"1x {way}", seed].split()] for way in ("learned", "anew")]
        assert strides[0] == pytest.approx(strides[1], rel=0.02)  # brought to the budget anew
    again = ["--cells", tmp_path / "runs" / "cells.csv", "--out", tmp_path / "elsewhere"]
    assert run_recipe("equal_cost", *given, *again) == 0
    assert cells(capsys.readouterr().out) == rows
    assert not list((tmp_path / "elsewhere").rglob("metrics.json"))


def test_starts_are_drawn_over_all_strides_and_stay_the_same() -> None:
    drawn = np.array([draw_start("separable", number) for number in range(200)])
    assert drawn.shape == (200, 6, 2)
    assert 1 <= drawn.min() < 1.02
    assert 2.95 < drawn.max() <= 3
    assert np.log(drawn).mean() == pytest.approx(np.log(3) / 2, abs=0.01)


def test_an_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        text = format_difference(pd.Series(rng.normal(1.0, 2.0, 6)))
        low, high = (float(end) for end in text.split("(")[1].rstrip(")").split(" to "))
        hits += low <= 1.0 <= high
    assert 0.92 < hits / 400 < 0.98


def test_the_best_of_more_starts_is_the_best_in_validation() -> None:
    table = pd.DataFrame({"valid_loss": [0.4, 0.1, 0.3, 0.2], "test": [60.0, 70.0, 90.0, 80.0]})
    assert choose_best(table, 1) == 75
    assert choose_best(table, 2) == np.mean([70, 70, 80, 80])
    assert choose_best(table, 4) == 70

"""What elements of the default recipe are worth, and accuracy at other levels, on a tiny set."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

Cells = Callable[[str], list[list[str]]]
TINY = ["--width", "0.03", "--pooling", "strided", "--set", "max_steps=2", "batch_size=4"]


@pytest.mark.slow
def test_each_variant_is_a_row_and_what_is_known_is_not_trained_again(
    manifest: Path, run_recipe: Callable[..., int], cells: Cells, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"tones={manifest}:kind", "--only", "default", "no mixup", "--seeds", "0", "1", *TINY]
    assert run_recipe("default_recipe", *given, "--out", tmp_path / "runs") == 0
    shown = capsys.readouterr().out
    rows = cells(shown)
    assert rows[0] == ["", "tones", "mean", "valid", "CPU s"]
    assert [row[0] for row in rows[2:]] == ["default", "no mixup"]
    known = pd.read_csv(tmp_path / "runs" / "cells.csv")
    assert known["test"].between(0, 100).all()
    assert known["settings"].nunique() == 2  # of the variants, whatever the seed
    default = known[known["variant"] == "default"]["test"]
    assert rows[2][1] == f"{default.mean():.1f} ({default.std():.1f})"
    again = ["--out", tmp_path / "elsewhere", "--cells", tmp_path / "runs" / "cells.csv"]
    assert run_recipe("default_recipe", *given, *again) == 0
    assert cells(capsys.readouterr().out) == rows
    assert not (tmp_path / "elsewhere").exists()
    assert run_recipe("default_recipe", *given, "lr=0.5", "--only", "default", *again) == 0
    assert len(list((tmp_path / "elsewhere").rglob("metrics.json"))) == 2  # other settings


def test_a_set_needs_its_column(run_recipe: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_recipe("default_recipe", "words.csv") == 2
    assert "default_recipe: a set must be NAME=MANIFEST:COLUMN, got 'words.csv'" in capsys.readouterr().err


def test_levels_are_those_that_were_asked_for(
    manifest: Path, run_recipe: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"tones={manifest}:kind", "--only", "default", "--seeds", "0", *TINY, "--out", tmp_path / "runs"]
    assert run_recipe("default_recipe", *given) == 0
    run = tmp_path / "runs" / "tones" / "default_seed0"
    tested = pd.read_csv(tmp_path / "runs" / "cells.csv")["test"].item()
    capsys.readouterr()
    assert run_recipe("level_shift", run, "--levels", "0", "-200") == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[0] == ["run", "+0", "dB", "-200", "dB"]
    assert shown[1][0] == "default_seed0"
    assert float(shown[1][1]) == pytest.approx(tested, abs=0.06)
    assert float(shown[1][2]) == 50  # silence is one class, and half of the clips are of it
    assert shown[2] == ["mean", *shown[1][1:]]


def test_noise_stands_at_the_ratio_that_was_asked_for(
    manifest: Path, run_recipe: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"tones={manifest}:kind", "--only", "default", "--seeds", "0", *TINY, "--out", tmp_path / "runs"]
    assert run_recipe("default_recipe", *given) == 0
    capsys.readouterr()
    run = tmp_path / "runs" / "tones" / "default_seed0"
    assert run_recipe("level_shift", run, "--levels", "0", "--noise", "synthetic", "--snrs", "200", "-200") == 0
    header, found, _ = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == ["run", "+0", "dB", "SNR", "200", "dB", "SNR", "-200", "dB"]
    assert found[1] == found[2]  # nothing of it is heard
    assert float(found[3]) == 50  # and nothing else

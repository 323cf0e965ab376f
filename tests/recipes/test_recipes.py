"""Every recipe is known, and those on a data set run whole on a miniature of it."""

import ast
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from audiostride.dataset.cards import read_card
from lab.recipe import Recipe, main

Cells = Callable[[str], list[list[str]]]
RECIPES = Path(__file__).parents[2] / "recipes"
ON_ARCHIVES = ["dcase_birds", "nsynth_instrument", "nsynth_pitch", "speech_commands", "tut_urban"]
SEVERAL = ["multitask", "shared_stride"]
FROM_RUNS = ["cutoff_report", "results_table"]
OTHERS = ["bench_data", "bench_pooling", "bench_predict", "bench_training", "compare_pooling", "cost_accuracy"]
OTHERS += [
    "bench_conversion",
    "bench_gpu",
    "equal_cost",
    "few_clips",
    "mixtures",
    "draw_rooms",
    "run_onnx",
    "api_pages",
]
OTHERS += ["random_strides"]
OTHERS += ["imagenet_resnet18", "default_recipe", "level_shift", "annotated_recordings"]
STAGES = ["archive", "import", "check", "prepare"] + 3 * ["train"] + ["report"]


def load(name: str) -> Recipe:
    found = runpy.run_path(str(RECIPES / f"{name}.py"))["RECIPE"]
    assert isinstance(found, Recipe)
    return found


def stages(shown: str) -> list[tuple[str, bool]]:
    """The stages that a recipe has printed, and whether it has skipped them."""
    lines = [line.partition(": ") for line in shown.splitlines()]
    return [(stage, "stands, skipped" in text) for stage, _, text in lines if stage in STAGES]


def test_every_recipe_is_known_and_says_what_it_needs() -> None:
    recipes = sorted(RECIPES.glob("*.py"))
    assert [path.stem for path in recipes] == sorted([*ON_ARCHIVES, *SEVERAL, *FROM_RUNS, *OTHERS])
    listed = (RECIPES / "README.md").read_text(encoding="utf-8")
    for path in recipes:
        head = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert all(f"{word}: " in head for word in ("Data", "Command", "Expected")), path.name
        assert f"| `{path.name}` |" in listed


@pytest.mark.parametrize("name", ON_ARCHIVES)
def test_a_recipe_on_an_archive_is_named_as_its_file_and_has_a_task_of_its_card(name: str) -> None:
    recipe = load(name)
    assert recipe.name == name
    assert recipe.label in read_card(recipe.data)["tasks"]
    assert set(recipe.paper) == {"strided", "spectral", "diffstride"}
    assert f"Command: python recipes/{name}.py ROOT" in recipe.head
    assert all(f"\n{word}: " in recipe.head for word in ("Hardware", "Time"))
    assert recipe.expected.startswith("not run on the full archive yet. ")
    assert recipe.expected.endswith(".")
    assert "Hardware" not in recipe.expected


@pytest.mark.slow
def test_smoke_runs_whole_and_a_second_call_skips_every_stage(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    cells: Cells,
    run_recipe: Callable[..., int],
    times_of_change: Callable[[Path], dict[Path, int]],
) -> None:
    name, threads = "dcase_birds", torch.get_num_threads()
    assert run_recipe(name, "--smoke", "--out", tmp_path / "out") == 0
    assert torch.get_num_threads() == threads
    first = capsys.readouterr().out
    assert stages(first) == [(stage, False) for stage in STAGES]
    rows = cells(first)
    assert rows[0] == ["pooling", "seeds", "test accuracy (%), mean (sd)", "split scheme",
                       "the paper's (%), on its own split"]  # fmt: skip
    paper = load(name).paper
    for row, pooling in zip(rows[2:], ("strided", "spectral", "diffstride"), strict=True):
        assert row == [pooling, "0", row[2], "official", paper[pooling]]
        assert row[2].endswith(" (one run)")
        assert 0 <= float(row[2].split()[0]) <= 100
    assert "shows that everything runs, no more" in first
    assert (tmp_path / "out" / "official" / "report.html").is_file()
    before = times_of_change(tmp_path)
    assert run_recipe(name, "--smoke", "--out", tmp_path / "out") == 0
    second = capsys.readouterr().out
    assert stages(second) == [(stage, True) for stage in STAGES]
    assert cells(second) == rows
    assert times_of_change(tmp_path) == before


@pytest.mark.slow
def test_smoke_of_several_tasks_runs_whole_and_a_second_call_skips_every_stage(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    cells: Cells,
    run_recipe: Callable[..., int],
    times_of_change: Callable[[Path], dict[Path, int]],
) -> None:
    given = ["multitask", "--smoke", "--out", tmp_path, "--only", "spectral", "diffstride"]
    expected = 4 * ["archive"] + 4 * ["import", "check", "prepare"] + 2 * ["train"] + ["report"]
    assert run_recipe(*given) == 0
    first = capsys.readouterr().out
    assert stages(first) == [(stage, False) for stage in expected]
    rows = cells(first)
    assert [row[0] for row in rows[2:]] == ["scenes", "birds", "instrument", "pitch", "speech", "mean of 5"]
    for row in rows[2:]:
        assert len(row) == 2 + 2 * 3
        assert row[1] == "official"
        assert row[2] == ""  # strided convolution was not asked for
        assert all(cell.endswith(", 1 run") for cell in row[4::2])
        assert all(cell[0].isdigit() for cell in row[3::2])
    assert "shows that everything runs, no more" in first
    before = times_of_change(tmp_path)
    assert run_recipe(*given) == 0
    assert stages(capsys.readouterr().out) == [(stage, True) for stage in expected]
    assert times_of_change(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_RUNS)
def test_smoke_of_a_table_makes_runs_and_leaves_nothing_behind(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    run_recipe: Callable[..., int],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run_recipe(name, "--smoke") == 0
    shown = capsys.readouterr().out
    assert "\n| instrument | official | " in shown
    assert "learned together: instrument, pitch; the paper's five are others" in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nsynth_pitch", "speech_commands", "tut_urban"])  # nsynth_instrument has their data
def test_smoke_without_out_leaves_nothing_behind(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(load(name), ["--smoke", "--pooling", "strided", "--max-steps", "2"]) == 0
    assert "| strided | 0 |" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_recipe_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(RECIPES / "dcase_birds.py"), "--smoke", "--out", str(out)]
    command += ["--pooling", "spectral", "strided", "--max-steps", "60", "--set", "valid_every=10"]
    environment = {**os.environ, "PYTHONPATH": str(RECIPES.parent)}
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as begun:
        deadline = time.monotonic() + 120
        while not (out / "official" / "spectral_seed0" / "checkpoints" / "last.ckpt").is_file():
            assert begun.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        begun.send_signal(signal.SIGINT)
        shown, errors = begun.communicate(timeout=120)
    assert begun.returncode == 130, errors
    assert "dcase_birds: interrupted; the same command goes on where this one stopped" in errors
    assert "|" not in shown
    assert not (out / "official" / "strided_seed0").exists()
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=True)
    assert stages(done.stdout)[:4] == [(stage, True) for stage in STAGES[:4]]
    assert f"train: {out / 'official' / 'spectral_seed0'} was stopped, goes on" in done.stdout
    for pooling in ("spectral", "strided"):
        assert f"train: {out / 'official' / f'{pooling}_seed0'}: test accuracy " in done.stdout
    assert sum(line.startswith("|") for line in done.stdout.splitlines()) == 4


@pytest.mark.slow
def test_smoke_of_predictions_finds_the_same_events_in_the_parts(tmp_path: Path, cells: Cells) -> None:
    command = [sys.executable, str(RECIPES / "bench_predict.py"), "--smoke"]
    environment = {**os.environ, "PYTHONPATH": str(RECIPES.parent), "TMPDIR": str(tmp_path)}
    shown = subprocess.run(command, env=environment, text=True, capture_output=True, check=True).stdout
    rows = cells(shown)
    assert [row[0] for row in rows[2:]] == ["long.flac", "parts", "short"]
    assert all(float(cell.replace(",", "")) > 0 for row in rows[2:] for cell in row[1:-1])
    assert "events; those of the parts are the same" in shown
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".flac", ".wav", ".csv")]

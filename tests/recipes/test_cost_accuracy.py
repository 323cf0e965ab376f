"""Accuracy against cost: table and figure of points by hand, options, and the sweep on tiny data."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
import yaml

from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, save_classifier
from audiostride.models.cost import multiply_adds
from audiostride.training import TrainConfig
from cost_accuracy import describe_spread, draw_figure, format_costs, main, measure_proxy, measure_run
from lab.costs import CostPoint, make_variants
from lab.figures import figure_stage
from lab.recipe import Recipe

Cells = Callable[[str], list[list[str]]]
RECIPE = Recipe(
    name="mine", head="Mine.\n\nExpected: little.\n", data="speech-commands", label="label",
    settings={"max_steps": 2, "valid_every": 1, "batch_size": 4, "width": 0.03, "device": "cpu"},
)  # fmt: skip
POINT = CostPoint(
    start=((2.0, 2.0), (1.0, 2.0)), pooling="diffstride", weight=0.3, seed=0, accuracy=0.80, n_tested=400, proxy=2.5,
    multiply_adds=12_340_000, relative=1.25, strides=((2.0, 2.5), (1.0, 1.0)), last_map=(7, 4),
)  # fmt: skip
SWEEP = [
    POINT,
    replace(POINT, seed=1, accuracy=0.83, proxy=2.6, multiply_adds=12_360_000, last_map=(7, 5), relative=1.35),
    replace(POINT, weight=0.0, accuracy=0.9, proxy=3.1, strides=((1.5, 2.0), (1.0, 1.0))),
    replace(POINT, weight=10.0, accuracy=0.5, proxy=0.5, relative=0.2),
    replace(POINT, pooling="strided", weight=0.0, proxy=3.0, multiply_adds=9_872_000, relative=1.0),
]


def write_run(run: Path, strides: list[list[float]], **settings: Any) -> Path:
    """A finished run whose learned strides have gone from 2 and 2 to `strides`."""
    run.mkdir()
    config = TrainConfig(out=str(run), manifest="c.csv", strides=[(2, 2), (1, 1)], channels=(5, 7), **settings)
    (run / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    (run / "metrics.json").write_text(json.dumps({"accuracy": 0.75, "n_clips": 40, "stopped_early": False}))
    tasks = {"label": ["a", "b", "c"]}
    model = AudioClassifier(
        ClassifierConfig(tasks=tasks, pooling=config.pooling, strides=config.strides, channels=config.channels)
    )
    for block, pair in zip(model.encoder.block_list(), strides, strict=True):
        if config.pooling == "diffstride":
            with torch.no_grad():
                block.pool.strides.copy_(torch.tensor(pair))  # type: ignore[union-attr, operator]
    save_classifier(model, run / "model.safetensors")
    return run


def test_a_run_is_measured_with_the_strides_that_it_has_learned(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [[4.0, 2.5], [1.0, 1.6]], stride_cost=3.0, seed=2)
    found = measure_run(run)
    assert (found.pooling, found.weight, found.seed, found.accuracy, found.n_tested) == ("diffstride", 3.0, 2, 0.75, 40)
    assert found.name == "DiffStride, λ = 3"
    # 1 / 10 + 1 / 1.6
    assert found.proxy == pytest.approx(0.725, rel=1e-6)
    assert found.start == ((2.0, 2.0), (1.0, 1.0))
    assert found.strides == ((4.0, 2.5), (1.0, pytest.approx(1.6)))
    # 100 / 4; 64 / 2.5 = 25.6 and 26 / 1.6 = 16.25, both up.
    assert found.last_map == (25, 17)
    # The strided network with strides (2, 2) and (1, 1): maps of 50 x 64 and 50 x 32, and three classes.
    strided = 3 * 5 * 50 * 64 + 3 * 25 * 50 * 32 + (3 * 35 + 3 * 49) * 50 * 32 + 7 * 3
    assert found.relative == found.multiply_adds / strided
    other = measure_run(write_run(tmp_path / "b", [[2.0, 2.0]] * 2, pooling="strided", stride_cost=3.0))
    assert (other.name, other.weight, other.multiply_adds, other.relative) == ("strided", 0.0, strided, 1.0)
    assert other.proxy == 1.25
    assert other.last_map == (50, 32)


def test_the_proxy_of_fixed_strides_is_that_of_learned_ones_before_training() -> None:
    tasks = {"label": ["a", "b"]}
    strides = [(2, 3), (1, 4)]
    models = [
        AudioClassifier(ClassifierConfig(tasks=tasks, strides=strides, channels=(2, 2), pooling=pooling))  # type: ignore[arg-type]
        for pooling in ("strided", "spectral", "diffstride")
    ]
    assert [measure_proxy(model) for model in models] == pytest.approx([1 / 6 + 1 / 4] * 3, rel=1e-6)
    assert len({multiply_adds(model) for model in models}) == 3


def test_the_table_has_means_by_hand_in_the_order_of_lambda(cells: Cells) -> None:
    header, _, *rows = cells(format_costs(SWEEP))
    assert header == ["network", "seeds", "test accuracy (%), mean (sd)", "Σ 1/(S_t S_m)", "multiply-adds (M)",
                      "relative to strided", "strides of layer 1 (time, mel)", "last map (time x mel)"]  # fmt: skip
    assert [row[0] for row in rows] == ["strided", "DiffStride, λ = 0", "DiffStride, λ = 0.3", "DiffStride, λ = 10"]
    assert rows[0][1:6] == ["0", "80.0 (one run)", "3.000", "9.87", "1.00 x"]
    # 80, 83: mean 81.5, sd 3 / sqrt(2).
    assert rows[2][1:] == ["0 1", "81.5 (2.1)", "2.550", "12.35", "1.30 x", "2.00, 2.50", "7 x 4, 7 x 5"]
    assert rows[1][6] == "1.50, 2.00"


def test_points_that_are_none_or_twice_are_bad_input() -> None:
    for make in (format_costs, draw_figure):
        with pytest.raises(InputError, match="there must be at least one run, got none"):
            make([])
        with pytest.raises(
            InputError, match=r"runs of DiffStride, λ = 0.3 from \(2, 1x2\) must have different seeds, got 0 0; leave"
        ):
            make([POINT, POINT])


def test_what_accuracies_are_worth_is_said() -> None:
    # Mean of 80, 83, 90, 50, 80 is 76.6: sqrt(0.766 x 0.234 / 400) = 2.1 points; the one spread is 2.1 as well.
    assert describe_spread(SWEEP) == (
        "one accuracy on 400 test clips has a sampling error of 2.1 points (sd); "
        "the sd over seeds is 2.1 points on average"
    )


def test_the_figure_has_every_point_twice_with_its_lambda_beside_it() -> None:
    figure = draw_figure(SWEEP)
    assert [panel.get_xlabel() for panel in figure.axes] == [
        "regulariser's value: Σ 1/(Sₜ Sₘ) over the layers",
        "multiply-adds of a 1 s window, relative to strided",  # 12.34 M / 1.25 is not 9.872 M for all: no unit
    ]
    assert figure.axes[0].get_ylabel() == "test accuracy (%), mean and sd over runs"
    for panel, x, fixed in zip(
        figure.axes, ([3.1, 2.55, 0.5], [1.25, 1.3, 0.2]), ((3.0, 80.0), (1.0, 80.0)), strict=True
    ):
        [line] = [line for line in panel.get_lines() if len(line.get_xydata()) == 3 and line.get_linestyle() == "-"]
        np.testing.assert_allclose(line.get_xydata(), list(zip(x, [90.0, 81.5, 50.0], strict=True)), rtol=1e-9)
        labels = {text.get_text(): text.get_window_extent() for text in panel.texts}
        assert list(labels) == ["λ=0", "λ=0.3", "λ=10"]
        boxes = list(labels.values())
        assert not any(a.overlaps(b) for number, a in enumerate(boxes) for b in boxes[:number])
        # Each stands beside its own point, within about half an inch of 100 pixels.
        places = panel.transData.transform(line.get_xydata())
        for box, place in zip(boxes, places, strict=True):
            assert abs((box.x0 + box.x1) / 2 - place[0]) < 60
            assert abs((box.y0 + box.y1) / 2 - place[1]) < 40
            for x, y in [*places, panel.transData.transform(fixed)]:
                assert not box.padded(3).contains(x, y)
    same = [replace(POINT, weight=weight, multiply_adds=12_340_000, relative=1.25) for weight in (0.0, 1.0)]
    figure = draw_figure(same)
    assert figure.axes[1].get_xlabel().endswith("relative to strided (1 = 9.87 M)")
    assert figure.axes[0].get_ylabel() == "test accuracy (%), one run each"


def test_table_and_figure_are_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = format_costs(SWEEP)
    figure_stage(lambda: draw_figure(SWEEP), table, tmp_path, n_runs=5)
    assert "figure: 5 runs -> " in capsys.readouterr().out
    files = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert set(files) == {"table.md", "figure.png", "figure.svg"}
    assert (tmp_path / "table.md").read_text("utf-8") == f"{table}\n"
    height, width = matplotlib.image.imread(tmp_path / "figure.png").shape[:2]
    assert width > 1200
    assert height > 500
    assert "λ=0.3" in (tmp_path / "figure.svg").read_text("utf-8")
    figure_stage(lambda: draw_figure([]), table, tmp_path, n_runs=5)  # which would fail
    assert "table.md stands, skipped" in capsys.readouterr().out
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == files
    figure_stage(lambda: draw_figure(SWEEP[:3]), format_costs(SWEEP[:3]), tmp_path, n_runs=3)
    assert "stands, skipped" not in capsys.readouterr().out
    assert (tmp_path / "figure.svg").stat().st_mtime_ns > files["figure.svg"]


def test_lambdas_are_variants_from_0_on() -> None:
    found = make_variants([10, 0.25, 10.0])
    assert list(found) == ["strided", "spectral", "lambda0", "lambda0.25", "lambda10"]
    assert found["lambda0.25"] == {"pooling": "diffstride", "stride_cost": 0.25}
    assert found["strided"] == {"pooling": "strided"}
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"--lambdas must be finite and >= 0, got {wrong}; the paper sweeps"):
            make_variants([wrong])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "ROOT must be the folder of the unpacked archives, got none"),
        (["--lambdas", "-1"], "--lambdas must be finite and >= 0, got -1.0"),
        (["--smoke", "--manifest", "m.csv"], "--smoke makes its own data; leave ROOT, --manifest and --download out"),
        (["x", "--manifest", "m.csv", "--partial"], "without what is for archives, got ROOT, --partial; leave out"),
        (["--manifest", "m.csv", "--splits", "paper-like"], "without what is for archives, got --splits"),
        (["x", "--set", "stride_cost=3"], "--set must leave what is compared alone, got stride_cost; give --lambdas"),
        (["x", "--set", "pooling=strided"], "got 'pooling'"),
        (["x", "--set", "strides=[[1.5,2]]"], "mine: strides must be pairs of whole numbers, since costs are relative"),
        (["x", "--set", "strides=2"], "with the same ones, got 2; give a pair for each block, such as [[2,2],[1,1]]"),
        (["--manifest", "m.csv", "--seeds", "0"], "m.csv"),
    ],
)
def test_bad_options_are_bad_input_before_anything_is_written(
    given: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(RECIPE, given) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.slow
def test_the_sweep_runs_on_a_manifest_and_takes_up_what_stands(
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cells: Cells,
    times_of_change: Callable[[Path], dict[Path, int]],
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["--manifest", str(manifest), "--label", "kind", "--lambdas", "3", "--seeds", "0"]
    assert main(RECIPE, command) == 0
    first = capsys.readouterr().out
    folder = tmp_path / "runs" / "mine" / f"{manifest.parent.name}-kind"
    rows = cells(first)
    assert [row[0] for row in rows[2:]] == ["strided", "spectral", "DiffStride, λ = 0", "DiffStride, λ = 3"]
    assert (folder / "table.md").read_text("utf-8") in first
    assert first.endswith("expected: little.\n")
    config = TrainConfig.load(folder / "lambda3_seed0")
    assert (config.pooling, config.stride_cost, config.label) == ("diffstride", 3.0, "kind")
    before = times_of_change(folder)
    assert main(RECIPE, command) == 0
    second = capsys.readouterr().out
    assert second.count("stands, skipped") == 4 + 1
    assert cells(second) == rows
    assert times_of_change(folder) == before
    # One more seed: only its runs are trained, and table and figure are made again.
    assert main(RECIPE, [*command[:-1], "0", "1"]) == 0
    third = capsys.readouterr().out
    assert third.count("stands, skipped") == 4
    assert [row[1] for row in cells(third)[2:]] == ["0 1"] * 4


@pytest.mark.slow
def test_smoke_of_the_recipe_runs_whole_and_a_second_call_skips_every_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cells: Cells, run_recipe: Callable[..., int]
) -> None:
    threads = torch.get_num_threads()
    for skipped in (0, 4 + 4 + 1):  # archive and data stages, four runs, the figure
        assert run_recipe("cost_accuracy", "--smoke", "--out", tmp_path) == 0
        shown = capsys.readouterr().out
        assert shown.count("stands, skipped") == skipped
        assert [row[0] for row in cells(shown)[2:]] == ["strided", "spectral", "DiffStride, λ = 0", "DiffStride, λ = 3"]
        assert "shows that everything runs, no more" in shown
    assert torch.get_num_threads() == threads
    assert (tmp_path / "official" / "figure.png").is_file()

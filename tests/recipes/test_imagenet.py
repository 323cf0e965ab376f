"""Image runs by start, pooling and lambda: tables and figure by hand, options, and the recipe on drawn pictures."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from audiostride import InputError
from imagenet_resnet18 import draw_figure, format_costs, format_over_starts, main, measure_run, parse_start
from images.config import ImageTrainConfig
from images.pictures import make_pictures
from lab.costs import CostPoint, format_start

Cells = Callable[[str], list[list[str]]]
POINT = CostPoint(
    start=((1.0, 1.0), (2.0, 2.0)), pooling="diffstride", weight=0.3, seed=0, accuracy=0.60, n_tested=400, proxy=1.2,
    multiply_adds=12_340_000, relative=1.25, strides=((1.5, 1.0), (2.0, 3.0)),
)  # fmt: skip
SWEEP = [
    replace(POINT, weight=10.0, accuracy=0.5, proxy=0.5, multiply_adds=2_000_000, relative=0.2),
    replace(POINT, seed=1, accuracy=0.63, proxy=1.1, multiply_adds=12_360_000, relative=1.35),
    POINT,
    replace(POINT, weight=0.0, accuracy=0.7, proxy=1.25),
    replace(POINT, pooling="strided", weight=0.0, accuracy=0.65, proxy=1.25, multiply_adds=9_870_000, relative=1.0,
            strides=POINT.start),
]  # fmt: skip
OTHER = [replace(point, start=((3.0, 3.0), (1.0, 2.0)), accuracy=point.accuracy - 0.02) for point in SWEEP]


def test_the_table_has_means_by_hand_in_the_order_of_lambda(cells: Cells) -> None:
    header, _, *rows = cells(format_costs(SWEEP))
    assert header == ["start", "network", "seeds", "top-1 (%), mean (sd)", "Σ 1/(S_h S_w)", "multiply-adds (M)",
                      "relative to strided", "strides at the end (height x width)"]  # fmt: skip
    assert [row[1] for row in rows] == ["strided", "DiffStride, λ = 0", "DiffStride, λ = 0.3", "DiffStride, λ = 10"]
    # 60, 63: mean 61.5, sd 3 / sqrt(2).
    assert rows[2] == [
        "(1, 2)", "DiffStride, λ = 0.3", "0 1", "61.5 (2.1)", "1.150", "12.35", "1.30 x", "1.50 x 1.00, 2.00 x 3.00",
    ]  # fmt: skip
    assert rows[0][2:4] == ["0", "65.0 (one run)"]
    assert [row[0] for row in cells(format_costs(SWEEP + OTHER))[2:]] == 4 * ["(1, 2)"] + 4 * ["(3, 1x2)"]
    assert format_start(OTHER[0].start) == "(3, 1x2)"


def test_the_spread_over_starts_is_by_hand_and_beside_the_papers(cells: Cells) -> None:
    rows = {row[0]: row[1:] for row in cells(format_over_starts(SWEEP + OTHER))[2:]}
    # 65 and 63: mean 64, sd sqrt(2); of lambda 0.3 the means over seeds, 61.5 and 59.5.
    assert rows["strided"] == ["2", "64.00 (1.41)", "65.53 (4.49)"]
    assert rows["DiffStride, λ = 0"] == ["2", "69.00 (1.41)", "69.28 (0.50)"]
    assert rows["DiffStride, λ = 0.3"] == ["2", "60.50 (1.41)", ""]
    assert cells(format_over_starts(SWEEP))[2][1:] == ["1", "65.00 (one start)", "65.53 (4.49)"]


def test_points_that_are_none_or_twice_are_bad_input() -> None:
    for make in (format_costs, format_over_starts, draw_figure):
        with pytest.raises(InputError, match="there must be at least one run, got none"):
            make([])
        with pytest.raises(InputError, match=r"runs of DiffStride, λ = 0.3 from \(1, 2\) must have different seeds"):
            make([POINT, POINT])


def test_the_figure_has_every_point_with_its_lambda_beside_it() -> None:
    figure = draw_figure(SWEEP)
    assert [panel.get_xlabel() for panel in figure.axes] == [
        "regulariser's value: Σ 1/(S_h S_w) over the layers",
        "multiply-adds of one image (M)",
    ]
    assert figure.axes[0].get_ylabel() == "top-1 accuracy (%), mean and sd over runs"
    for panel, x in zip(figure.axes, ([1.25, 1.15, 0.5], [12.34, 12.35, 2.0]), strict=True):
        [line] = [line for line in panel.get_lines() if line.get_linestyle() == "-" and len(line.get_xydata()) == 3]
        np.testing.assert_allclose(line.get_xydata(), list(zip(x, [70.0, 61.5, 50.0], strict=True)), rtol=1e-9)
        boxes = {text.get_text(): text.get_window_extent() for text in panel.texts}
        assert list(boxes) == ["λ=0", "λ=0.3", "λ=10"]
        assert not boxes["λ=0"].overlaps(boxes["λ=0.3"])
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["strided, fixed strides", "DiffStride, λ = 0 to 10"]
    several = draw_figure(SWEEP + OTHER)
    assert [text.get_text() for text in several.legends[0].get_texts()][2:] == ["from (1, 2)", "from (3, 1x2)"]
    assert not several.axes[0].texts
    large = [replace(point, multiply_adds=1000 * point.multiply_adds) for point in SWEEP]
    assert draw_figure(large).axes[1].get_xlabel() == "multiply-adds of one image (G)"


def test_starts_are_numbers_or_the_papers_six() -> None:
    assert parse_start("1,2.5,2,1") == [(1, 2.5, 2, 1)]
    assert len(set(parse_start("paper"))) == 6
    assert {len(start) for start in parse_start("paper")} == {4}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "ROOT must be a folder with train/ and val/, got none; or try --smoke"),
        (["--smoke", "somewhere"], "--smoke draws its own pictures, in one process; leave ROOT and --devices out"),
        (["--smoke", "--devices", "2"], "leave ROOT and --devices out"),
        (["x", "--starts", "1,a"], "--starts must be 'paper' or numbers with commas between them"),
        (["x", "--starts", "1,2"], "strides must have 3 or 4 entries for resnet18"),
        (["x", "--starts", "1,2,2.5,2"], "whole numbers for pooling strided"),
        (["x", "--lambdas", "-1"], "--lambdas must be finite and >= 0, got -1.0"),
        (["x", "--set", "strides=[2]"], "--set must leave strides to an option of its own, --starts"),
        (["x", "--set", "colour=1"], "--set must be one of arch, "),
        (["x", "--set", "lr"], "--set must be given NAME=VALUE"),
        (["x", "--set", "lr=-1"], "lr must be > 0, got -1"),
        (["nowhere"], "or a folder with train/ and one of val, valid, test, got "),
    ],
)
def test_bad_options_are_bad_input_before_anything_is_written(
    given: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(given) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_pictures_are_made_once_and_are_a_function_of_the_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_pictures(tmp_path / name, {"train": 2}, size=8, seed=seed)
    files = [sorted((tmp_path / name).rglob("*.png")) for name in "abc"]
    assert [len(each) for each in files] == [6, 6, 6]
    contents = [[file.read_bytes() for file in each] for each in files]
    assert contents[0] == contents[1] != contents[2]
    make_pictures(tmp_path / "a", {"train": 9}, size=8)
    assert len(list((tmp_path / "a").rglob("*.png"))) == 6


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torchvision") is None, reason="the extra audiostride[vision]")
def test_smoke_of_the_recipe_runs_whole_and_a_second_call_skips_every_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cells: Cells, run_recipe: Callable[..., int]
) -> None:
    threads = torch.get_num_threads()
    for skipped in (0, 4 + 1):  # four runs, the figure
        assert run_recipe("imagenet_resnet18", "--smoke", "--out", tmp_path) == 0
        shown = capsys.readouterr().out
        assert shown.count("stands, skipped") == skipped
        assert [row[1] for row in cells(shown)[2:]] == ["strided", "spectral", "DiffStride, λ = 0", "DiffStride, λ = 3"]
        assert "shows that everything runs, no more" in shown
    assert torch.get_num_threads() == threads
    assert (tmp_path / "figure.png").is_file()
    config = ImageTrainConfig.load(tmp_path / "1-2-2-2" / "lambda3_seed0")
    assert (config.stride_cost, config.epochs, config.milestones) == (3.0, 90, [30, 60, 80])
    point = measure_run(tmp_path / "1-2-2-2" / "spectral_seed0")
    assert point.proxy == 1 + 3 / 4
    assert point.strides == point.start
    assert point.relative > 1
    assert measure_run(tmp_path / "1-2-2-2" / "strided_seed0").relative == 1

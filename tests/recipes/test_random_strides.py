"""Random starting strides: the paper's figures, starts, tables and figure of cells by hand, options, and the grid."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import random_strides
from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, save_classifier
from audiostride.models.cost import multiply_adds
from audiostride.reporting.style import render
from audiostride.training import TrainConfig
from images.config import ImageTrainConfig
from lab.random_strides_cells import AudioCells, Cell, CellResult, ImageCells, audio_settings, encoder_settings
from lab.random_strides_figure import draw_recovery
from lab.random_strides_starts import (
    CIFAR_STARTS,
    EFFICIENTNET_STARTS,
    IMAGENET_STARTS,
    PAPER,
    PAPER_MEANS,
    STARTS,
    USUAL,
    Start,
    parse_starts,
)
from lab.random_strides_table import describe_recovery, format_learned, format_starts
from random_strides import find_kind, main, make_cells

Cells = Callable[[str], list[list[str]]]
POOLINGS = ("strided", "spectral", "diffstride")
# Accuracies of two seeds and multiply-adds of (2,2,2) and (1,3,1), relative costs to 10 M.
CELLS: dict[tuple[Start, str], tuple[tuple[float, float], int]] = {
    ((2, 2, 2), "strided"): ((0.80, 0.82), 10_000_000),
    ((1, 3, 1), "strided"): ((0.70, 0.72), 25_000_000),
    ((2, 2, 2), "spectral"): ((0.83, 0.85), 16_000_000),
    ((1, 3, 1), "spectral"): ((0.80, 0.80), 40_000_000),
    ((2, 2, 2), "diffstride"): ((0.84, 0.86), 18_000_000),
    ((1, 3, 1), "diffstride"): ((0.82, 0.86), 45_000_000),
}


def make_results(cells: dict[tuple[Start, str], tuple[tuple[float, float], int]] = CELLS) -> list[CellResult]:
    steps = np.arange(0, 41, 2)
    results = []
    for seed in (0, 1):
        for (start, pooling), (accuracies, cost) in cells.items():
            final = {}
            for layer, stride in enumerate(start, start=1):
                final |= {f"layer{layer}_time": stride + 0.2 * seed, f"layer{layer}_mel": stride + 0.5}
            course = pd.DataFrame({"step": steps, **{name: np.linspace(2, end, 21) for name, end in final.items()}})
            history = pd.DataFrame({"step": [20, 40], "valid_accuracy": [0.4, accuracies[seed]]})
            learned: dict[str, Any] = {"final": final, "strides": course} if pooling == "diffstride" else {}
            result = CellResult(
                start=start, pooling=pooling, seed=seed, accuracy=accuracies[seed], multiply_adds=cost,
                relative=cost / 1e7, last_map=(7 + seed, 4), history=history, **learned,
            )  # fmt: skip
            results.append(result)
    return results


def write_audio_run(cell: Cell, strides: list[list[float]]) -> None:
    """A finished run of a ResNet whose learned strides have gone to `strides` by step 4, the best of 6."""
    cell.run.mkdir(parents=True)
    config = TrainConfig(
        out=str(cell.run), manifest="c.csv", width=0.03, pooling=cell.pooling, seed=cell.seed,  # type: ignore[arg-type]
        max_steps=6, **encoder_settings("resnet18", cell.start),
    )  # fmt: skip
    (cell.run / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    (cell.run / "metrics.json").write_text(json.dumps({"accuracy": 0.75, "best_step": 4, "stopped_early": False}))
    (cell.run / "history.csv").write_text("step,valid_accuracy\n2,0.3\n4,0.8\n6,0.7\n")
    model = AudioClassifier(
        ClassifierConfig(
            tasks={"label": ["a", "b"]}, width=0.03, pooling=config.pooling, strides=config.strides, encoder="resnet18"
        )
    )
    if cell.pooling == "diffstride":
        for block, pair in zip(model.encoder.block_list(), strides, strict=True):
            with torch.no_grad():
                block.pool.strides.copy_(torch.tensor(pair))  # type: ignore[union-attr, operator]
        names = [f"layer{layer}_{axis}" for layer in (1, 2, 3) for axis in ("time", "mel")]
        table = [[2, *([2.0] * 6)], [4, *(value for pair in strides for value in pair)], [6, *([9.0] * 6)]]
        pd.DataFrame(table, columns=["step", *names]).to_csv(cell.run / "strides.csv", index=False)
    save_classifier(model, cell.run / "model.safetensors")


def test_the_papers_mean_row_follows_from_its_rows() -> None:
    """Means to the rounding of both; and the sd is that of 18 runs, not of 6 row means."""
    assert PAPER.keys() == {"CIFAR-10", "CIFAR-100"}
    for name, rows in PAPER.items():
        assert tuple(rows) == CIFAR_STARTS
        for number, printed in enumerate(PAPER_MEANS["resnet18"][name]):
            values = [row[number] for row in rows.values()]
            printed_mean, printed_sd = (float(part) for part in printed.rstrip(")").split(" ("))
            # Rows are rounded to 0.1, so that their mean is off by up to 0.05, and the printed one by 0.05 more.
            assert abs(mean(values) - printed_mean) <= 0.1
            of_runs = stdev(3 * values)
            if number < 2:
                assert f"{of_runs:.1f}" == f"{printed_sd:.1f}"
            else:  # the spread over seeds, which is not in these rows, is as large as that over starts
                assert of_runs <= printed_sd + 0.05
    # The sd of the six row means of strided convolution would be another number, whatever it is divided by.
    strided = [row[0] for row in PAPER["CIFAR-10"].values()]
    assert {f"{stdev(strided):.1f}", f"{stdev(strided) * math.sqrt(5 / 6):.1f}"} == {"3.6", "3.3"}


def test_starts_have_a_number_for_each_layer_and_those_of_efficientnet_are_drawn() -> None:
    assert STARTS.keys() == USUAL.keys()
    assert {arch: len(starts) for arch, starts in STARTS.items()} == dict.fromkeys(STARTS, 6)
    for arch, starts in STARTS.items():
        assert {len(start) for start in starts} == {len(USUAL[arch][0])}
    assert IMAGENET_STARTS[-1] == (3, 3, 2, 3)
    drawing, expected = random.Random(0), [(1, 2, 2, 2, 1, 2, 1)]
    while len(expected) < 6:
        drawn = tuple(drawing.choices([1, 2], k=7))
        if drawn not in expected:
            expected.append(drawn)
    assert list(EFFICIENTNET_STARTS) == expected


def test_starts_are_parsed() -> None:
    assert parse_starts("resnet18", ["2,2,2", "[1.5, 1, 3]", "(2,2,2)"]) == [(2, 2, 2), (1.5, 1, 3)]
    assert parse_starts("resnet18", ["1,2,2,3"]) == [(1, 2, 2, 3)]
    cells = make_cells(Path("runs"), [(1.5, 1, 3)], POOLINGS, [0, 4])
    assert [str(cell.run) for cell in cells[:2]] == ["runs/1.5-1-3_strided_seed0", "runs/1.5-1-3_spectral_seed0"]
    assert cells[-1].run.name == "1.5-1-3_diffstride_seed4"


@pytest.mark.parametrize(
    ("arch", "given", "message"),
    [
        ("resnet18", ["2;2;2"], r"must be numbers with commas between them, got '2;2;2'; write each start like"),
        ("resnet18", ["2,2"], r"must have 3 or 4 numbers each for resnet18, .* got '2,2' with 2; such as \(2,2,2\)"),
        ("audio", ["2,2,2"], r"must have 4 numbers each for audio, one per strided layer, got '2,2,2' with 3"),
        ("resnet18", ["2,0.5,2"], r"must be finite strides >= 1, got 0.5 in '2,0.5,2'; 1 keeps the size of maps"),
        ("resnet18", ["2,nan,2"], "must be finite strides >= 1, got nan"),
        ("resnet18", ["2,2,2", "1,2,2,2"], r"must all have as many numbers, got \(2,2,2\) \(1,2,2,2\)"),
    ],
)  # fmt: skip
def test_bad_starts_are_bad_input(arch: str, given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_starts(arch, given)


def test_the_table_has_means_by_hand_and_the_papers_figures_beside_them(cells: Cells) -> None:
    table = format_starts(make_results(), arch="resnet18", data="words.csv", unit="window", usual=(2, 2, 2))
    assert "multiply-adds in millions of one window" in table
    assert "relative to strided convolution at (2,2,2)" in table
    header, _, *rows = cells(table)
    assert header == ["start", "strided", "spectral", "DiffStride", "cost, strided", "cost, spectral",
                      "cost, DiffStride", "the paper's, CIFAR-10", "the paper's, CIFAR-100"]  # fmt: skip
    assert rows[0] == ["(2,2,2)", "81.0 (1.4)", "84.0 (1.4)", "85.0 (1.4)", "10 (1.00 x)", "16 (1.60 x)",
                       "18 (1.80 x)", "91.4 / 92.4 / 92.5", "66.8 / 73.7 / 73.4"]  # fmt: skip
    # 82, 86: sd 4 / sqrt(2).
    assert rows[1][:4] == ["(1,3,1)", "71.0 (1.4)", "80.0 (0.0)", "84.0 (2.8)"]
    assert rows[1][-1] == "64.9 / 70.3 / 73.4"
    # Means 81, 71; 84, 80; 85, 84: sds of two are their difference by sqrt(2).
    assert rows[2][:4] == ["mean (sd) of the starts' means", "76.0 (7.1)", "82.0 (2.8)", "84.5 (0.7)"]
    # All runs: 80, 82, 70, 72 are 4, 6, -6, -4 from their mean; 83, 85, 80, 80: 1, 3, -2, -2; 84, 86, 82, 86: -0.5,
    # 1.5, -2.5, 1.5.
    expected = [math.sqrt(104 / 3), math.sqrt(18 / 3), math.sqrt(11 / 3)]
    assert rows[3][1:4] == [f"{m} ({sd:.1f})" for m, sd in zip(("76.0", "82.0", "84.5"), expected, strict=True)]
    assert rows[2][4:7] == rows[3][4:7] == ["17.5 (1.75 x)", "28 (2.80 x)", "31.5 (3.15 x)"]
    # Two of the paper's six starts have not its mean.
    assert rows[2][7:] == rows[3][7:] == ["", ""]


def test_the_papers_means_stand_beside_its_own_starts_only(cells: Cells) -> None:
    results = make_results({(start, pooling): ((0.5, 0.6), 10) for start in CIFAR_STARTS for pooling in POOLINGS})
    rows = cells(format_starts(results, arch="resnet18", data="cifar100", unit="image", usual=(2, 2, 2)))
    assert rows[0][-1] == "the paper's, CIFAR-100"
    assert "the paper's, CIFAR-10" not in rows[0]
    assert rows[-1][-1] == "59.1 (6.7) / 70.6 (2.6) / 73.5 (0.3)"
    columns = list(zip(*PAPER["CIFAR-100"].values(), strict=True))
    assert rows[-2][-1] == " / ".join(f"{mean(values):.1f} ({stdev(values):.1f})" for values in columns)
    rows = cells(format_starts(results, arch="densenet121", data="cifar10", unit="image", usual=(2, 2, 2)))
    assert [row[-1] for row in rows[2:]] == [""] * 7 + ["91.9 / 91.3 / 91.6"]
    rows = cells(format_starts(results, arch="preact_resnet18", data="x", unit="image", usual=(2, 2, 2)))
    assert len(rows[0]) == 7


def test_cells_that_failed_are_left_out_and_counted(cells: Cells) -> None:
    results = [result for result in make_results() if (result.start, result.pooling) != ((1, 3, 1), "strided")]
    rows = cells(format_starts(results, arch="audio", data="x", unit="window", usual=(2, 2, 2)))
    assert rows[3] == ["(1,3,1)", "-", "80.0 (0.0)", "84.0 (2.8)", "-", "40 (4.00 x)", "45 (4.50 x)"]
    assert rows[4][1] == "81.0, 1 of 2 starts"
    assert rows[5][1] == "81.0 (1.4), 1 of 2 starts"
    assert describe_recovery(results) == "A spread over starts needs two that every pooling has, here there are 1."
    with pytest.raises(InputError, match="there must be at least one finished cell, got none"):
        format_learned([])
    with pytest.raises(InputError, match="there must be at least one finished cell, got none"):
        draw_recovery([], unit="window", usual=(2, 2, 2))
    with pytest.raises(InputError, match=r"runs of \(2,2,2\), strided must have different seeds, got 0 0; leave one"):
        format_learned([make_results()[0]] * 2)


def test_recovery_is_told_by_spreads_over_starts() -> None:
    # As in the table: 0.7 of DiffStride to 7.1 and 2.8.
    assert describe_recovery(make_results()) == (
        "Spread over 2 starts (sd of their means): DiffStride 0.7 points, 0.10 times that of strided convolution (7.1) "
        "and 0.25 times that of spectral pooling (2.8)."
    )
    fixed = [result for result in make_results() if result.pooling != "diffstride"]
    assert describe_recovery(fixed).endswith("strided 7.1 points, spectral 2.8 points.")
    even = [replace(result, accuracy=0.5) if result.pooling == "strided" else result for result in make_results()]
    assert "DiffStride 0.7 points, against that of strided convolution (0.0) and 0.25 times" in describe_recovery(even)


def test_learned_strides_are_means_over_seeds(cells: Cells) -> None:
    header, _, *rows = cells(format_learned(make_results()))
    assert header == ["start", *(f"layer {layer} (time, mel)" for layer in (1, 2, 3)), "product of all strides",
                      "last map (time x mel)"]  # fmt: skip
    # Seeds end at (2, 2.5) and (2.2, 2.5) in every layer.
    product = (2 * 2.5) ** 3 / 2 + (2.2 * 2.5) ** 3 / 2
    assert rows[0] == ["(2,2,2)", *["2.10, 2.50"] * 3, f"{product:.1f}", "7 x 4, 8 x 4"]
    assert rows[1][:4] == ["(1,3,1)", "1.10, 1.50", "3.10, 3.50", "1.10, 1.50"]
    assert format_learned([result for result in make_results() if result.pooling == "spectral"]) == ""


def test_the_figure_has_a_line_per_start_and_axis_and_a_mark_per_run() -> None:
    results = make_results()
    figure = draw_recovery(results, unit="window", usual=(2, 2, 2))
    panels = figure.subfigs[0].axes
    assert [panel.get_title(loc="left") for panel in panels] == ["a  strides of layer 1", "layer 2", "layer 3"]
    for panel in panels:
        assert len(panel.get_lines()) == 4
    # (1,3,1), over time, mean of two seeds.
    assert panels[1].get_lines()[2].get_ydata()[-1] == pytest.approx(3.1)
    courses, costs = figure.subfigs[1].axes
    np.testing.assert_allclose(courses.get_lines()[0].get_ydata(), [40.0, 76.0])
    assert len(courses.collections) == 3
    # Range over starts, each the mean of its seeds: 71 and 81 at the end.
    band = courses.collections[0].get_paths()[0].vertices
    assert {round(float(y), 6) for x, y in band if x == 40} == {71.0, 81.0}
    assert [len(line.get_xydata()) for line in costs.get_lines()] == [4, 4, 4]
    assert costs.get_xlabel() == "multiply-adds per window, relative to strided (2,2,2)"
    fixed = draw_recovery([result for result in results if result.strides is None], unit="image", usual=(2, 2, 2))
    assert len(fixed.axes) == 2
    # More starts than the page has colours, and seven layers: the legend stays within the figure.
    many: dict[tuple[Start, str], tuple[tuple[float, float], int]] = {
        ((float(number), *[2.0] * 6), "diffstride"): ((0.5, 0.6), 10**number) for number in range(1, 9)
    }
    figure = draw_recovery(make_results(many), unit="image", usual=(2,) * 7)
    figure.draw_without_rendering()
    assert len(figure.subfigs[0].axes) == 7
    legend = figure.subfigs[0].legends[0].get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.x1
    colors = {line.get_color() for line in figure.subfigs[0].axes[0].get_lines()}
    assert len(colors) == 8


def test_the_figure_is_drawn_whole(tmp_path: Path) -> None:
    figure = draw_recovery(make_results(), unit="window", usual=(2, 2, 2))
    for kind in ("png", "svg"):
        (tmp_path / f"figure3.{kind}").write_bytes(render(figure, format=kind))
    picture = matplotlib.image.imread(tmp_path / "figure3.png")
    assert picture.shape[0] > 800
    assert picture.shape[1] > 1400
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 20
    shown = (tmp_path / "figure3.svg").read_text("utf-8")
    assert all(text in shown for text in ("(1,3,1)", "over time", "DiffStride", "validation accuracy"))


def test_a_cell_is_measured_as_it_was_tested(tmp_path: Path) -> None:
    learner = AudioCells("resnet18", manifest="c.csv", label="label", settings={})
    strided, learned = (Cell((3, 1, 3), pooling, 0, tmp_path / pooling) for pooling in ("strided", "diffstride"))
    write_audio_run(strided, [])
    found = learner.measure(strided, (2, 2, 2))
    settings: dict[str, Any] = {"tasks": {"label": ["a", "b"]}, "width": 0.03, "encoder": "resnet18"}
    usual = multiply_adds(AudioClassifier(ClassifierConfig(pooling="strided", **settings)))
    own = multiply_adds(
        AudioClassifier(ClassifierConfig(pooling="strided", strides=[(3, 3), (1, 1), (3, 3)], **settings))
    )
    assert (found.multiply_adds, found.relative) == (own, own / usual)
    assert own != usual
    assert (found.accuracy, found.final, found.strides) == (0.75, {}, None)
    # 100 / 3 / 3 and 64 / 3 / 3, up.
    assert found.last_map == (12, 8)
    strides = [[2.0, 4.0], [1.0, 1.0], [2.5, 2.0]]
    write_audio_run(learned, strides)
    found = learner.measure(learned, (2, 2, 2))
    assert list(found.final.values()) == [value for pair in strides for value in pair]  # step 4, not the last row
    # 100 / 2 / 2.5 and 64 / 4 / 2.
    assert found.last_map == (20, 8)
    assert found.multiply_adds != own
    assert found.history["valid_accuracy"].tolist() == [0.3, 0.8, 0.7]


@pytest.mark.parametrize(("arch", "start"), [("densenet121", (1, 3, 1)), ("efficientnet_b0", (1, 2, 2, 3))])
def test_networks_of_torchvision_learn_audio_too(arch: str, start: Start, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    settings = audio_settings("quick", arch)
    assert "width" not in settings
    learner = AudioCells(arch, manifest="m.csv", label="kind", settings=settings)
    config = learner.configure(Cell(start, "diffstride", 3, tmp_path / "run"))
    assert config.encoder == f"torchvision:{arch}"
    values = {"tasks": {"kind": ["a", "b"]}, **config.model_settings()}
    learned, strided = (
        AudioClassifier(ClassifierConfig(**values | {"pooling": pooling})).encoder.pooled_layers(100, 64)
        for pooling in ("diffstride", "strided")
    )
    strides = [layer.block.pool.strides[0].item() for layer in learned]  # type: ignore[union-attr,index]
    assert strides == [2.0] * (5 - len(start)) + list(start)
    # Layers that keep the size of their maps are none of a strided network.
    assert [layer.block.convolution_strides()[0] for layer in strided] == [each for each in strides if each > 1]


def test_the_settings_of_cells(tmp_path: Path) -> None:
    cell = Cell((1, 2, 2, 3), "spectral", 5, tmp_path / "run")
    config = AudioCells("audio", manifest="m.csv", label="kind", settings={"max_steps": 7}).configure(cell)
    assert config.encoder == "separable"
    assert [list(pair) for pair in config.strides or ()] == [[1, 1], [2, 2], [1, 1], [2, 2], [1, 1], [3, 3]]
    assert (config.pooling, config.seed, config.label, config.max_steps) == ("spectral", 5, "kind", 7)


def test_the_settings_of_cells_of_images(tmp_path: Path) -> None:
    def configure(arch: str, start: Start, preset: str, **given: Any) -> ImageTrainConfig:
        learner = ImageCells(arch, data="cifar10", root=tmp_path, preset=preset, settings=given, download=False)
        return learner.configure(Cell(start, "strided", 3, tmp_path / "run"))

    paper = configure("resnet18", (1, 3, 1), "paper", batch_size=128)
    assert (paper.epochs, paper.lr, paper.weight_decay, list(paper.milestones)) == (400, 0.1, 5e-3, [200, 300])
    assert (paper.pooling, paper.seed, paper.batch_size, paper.mixup) == ("strided", 3, 128, 0.0)
    assert paper.stride_pairs() == [(1, 1), (3, 3), (1, 1)]
    published = configure("preact_resnet18", (2, 2, 3), "published")
    assert published.arch == "preact_resnet18"
    assert published.mixup > 0
    # 1,000 steps of 100 images are two passes over CIFAR.
    quick = configure("efficientnet_b0", EFFICIENTNET_STARTS[0], "quick", max_steps=1000, batch_size=100)
    assert list(quick.milestones) == [1.0, 1.5]
    assert quick.image_size == 128
    with pytest.raises(InputError, match=r"--set must be a setting of image training, .* got 'label'"):
        configure("resnet18", (2, 2, 2), "quick", label="x")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "--data must be a manifest of audio, cifar10, cifar100 or a folder of images, got none; or try --smoke"),
        (["--data", "nothing"], "--data must be cifar10, cifar100, or a file or folder that exists, got nothing"),
        (["--data", "empty"], "--data must be a folder with audio or images in it, but empty has neither"),
        (["--data", "both"], "but both has both, such as both/a.WAV and both/b/c.png; give a CSV manifest"),
        (["--data", "cifar10", "--arch", "audio"], "not learn images, got --data cifar10; audio goes with resnet18"),
        (["--data", "m.csv", "--starts", "2,2"], "--starts must have 3 or 4 numbers each for resnet18"),
        (["--data", "m.csv", "--label", "nope"], "'nope'"),
        (["--data", "m.csv", "--set", "strides=2"], "leave what is compared alone, got strides; give --starts"),
        (["--data", "m.csv", "--set", "pooling=strided"], "got pooling; give --pooling"),
        (["--data", "m.csv", "--set", "encoder=separable"], "got encoder; give --arch"),
        (["--data", "m.csv", "--set", "seed=3"], "got seed; give --seeds"),
        (["--data", "m.csv", "--set", "out=x"], "--set must leave out out, which --out gives"),
        (["--data", "m.csv", "--set", "devices=2"], "--set must leave devices out: each cell trains in one process"),
        (["--data", "m.csv", "--set", "image_size=3"], "--set must be a setting of training, one of"),
        (["--data", "m.csv", "--set", "lr"], "--set must be given NAME=VALUE, got 'lr'"),
        (["--data", "m.csv", "--width", "-1"], "width must be > 0, got -1.0"),
        (["--data", "m.csv", "--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--data", "m.csv", "--preset", "published"], "published is for images, got audio; give quick or paper"),
        (["--data", "cifar10", "--preset", "published"], "is for --arch preact_resnet18, got resnet18"),
        (["--data", "m.csv", "--download"], "--download is for cifar10 and cifar100, got --data m.csv; leave it out"),
        (["--data", "cifar10", "--label", "x"], "--label is for audio, got 'x'; the classes of images are their"),
        (["--data", "cifar10", "--jobs", "2"], "--jobs is for audio, got 2; images train one after another"),
        (["--smoke", "--data", "m.csv"], "--smoke makes its own data; leave --data, --label and --download out"),
    ],
)  # fmt: skip
def test_bad_options_are_bad_input_before_anything_is_written(
    given: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.csv").write_text("path,label,split\na.wav,a,train\n")
    (tmp_path / "both" / "b").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "both" / "a.WAV").touch()
    (tmp_path / "both" / "b" / "c.png").touch()
    assert main(given) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_folder_is_what_its_files_are(tmp_path: Path) -> None:
    for name in ("train/a/x.jpeg", "train/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_kind(str(tmp_path)) == "images"
    (tmp_path / "train" / "a" / "x.jpeg").rename(tmp_path / "train" / "a" / "x.flac")
    assert find_kind(str(tmp_path)) == "audio"


def test_a_cell_that_fails_does_not_end_the_others_and_a_stop_ends_all(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`train` is replaced: what it is asked for, what it raises, and what a stopped one returns."""
    asked: list[str] = []
    stop = False

    def pretend(config: TrainConfig, *, resume: bool, progress: bool) -> dict[str, Any]:
        run = Path(config.out)
        asked.append(run.name)
        if config.pooling == "strided":
            raise InputError("strides must be whole")
        if config.pooling == "spectral":
            raise RuntimeError("out of memory")
        run.mkdir(parents=True, exist_ok=True)
        metrics = {"stopped_early": stop, "accuracy": 0.5}
        (run / "metrics.json").write_text(json.dumps(metrics))
        return metrics

    monkeypatch.setattr(random_strides, "train", pretend)
    monkeypatch.setattr("lab.runs.report_run", lambda run: None)
    monkeypatch.setattr(AudioCells, "measure", lambda *_: None)
    monkeypatch.setattr(random_strides, "describe_cells", lambda results, listed, *args, **kwargs: listed)
    monkeypatch.setattr(random_strides, "figure_stage", lambda *args, **kwargs: None)
    command = ["--data", str(manifest), "--label", "kind", "--starts", "2,2,2", "1.5,2,2", "--seeds", "0"]
    assert main([*command, "--out", str(tmp_path)]) == 2
    assert asked == [f"{start}_{pooling}_seed0" for start in ("2-2-2", "1.5-2-2") for pooling in POOLINGS]
    shown = capsys.readouterr()
    assert "4 of 6 cells failed, listed above; mend this and give the same command again, or leave them" in shown.err
    assert "4 of 6 runs failed; mend this" in shown.out
    assert "2-2-2_spectral_seed0: RuntimeError: out of memory" in shown.out
    assert "1.5-2-2_diffstride_seed0: test accuracy 50.0 %" in shown.out
    stop = True
    asked.clear()
    assert main([*command, "--out", str(tmp_path / "new")]) == 130
    assert len(asked) == 3
    assert "interrupted; the same command goes on where this one stopped" in capsys.readouterr().err


@pytest.mark.slow
def test_smoke_runs_whole_a_second_call_skips_every_stage_and_other_settings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cells: Cells, run_recipe: Callable[..., int]
) -> None:
    threads = torch.get_num_threads()
    shown = []
    for _ in range(2):
        assert run_recipe("random_strides", "--smoke", "--out", tmp_path) == 0
        shown.append(capsys.readouterr().out)
    assert torch.get_num_threads() == threads
    # Archive and data stages, six cells, the figure.
    assert [text.count("stands, skipped") for text in shown] == [0, 4 + 6 + 1]
    rows = cells(shown[0])
    assert rows == cells(shown[1])
    assert [row[0] for row in rows[2:6]] == ["(2,2,2)", "(3,2,3)", "mean (sd) of the starts' means",
                                             "mean (sd) of all runs"]  # fmt: skip
    assert rows[2][4].endswith("(1.00 x)")
    assert all(0 <= float(cell) <= 100 for row in rows[2:4] for cell in row[1:4])
    assert rows[2][-2:] == ["91.4 / 92.4 / 92.5", "66.8 / 73.7 / 73.4"]
    folder = tmp_path / "smoke" / "resnet18"
    assert (folder / "table.md").read_text("utf-8") in shown[0]
    assert (folder / "figure3.png").is_file()
    config = TrainConfig.load(folder / "3-2-3_diffstride_seed0")
    assert (config.encoder, config.pooling, config.seed) == ("resnet18", "diffstride", 0)
    assert "shows that everything runs, no more" in shown[0]
    assert main(["--smoke", "--out", str(tmp_path), "--set", "lr=0.5"]) == 2
    assert "6 of 6 runs failed; mend this" in (refused := capsys.readouterr().err)
    assert refused.count("lr: 0.002 -> 0.5") == 1  # once for all six


@pytest.mark.slow
def test_cells_of_audio_train_side_by_side(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--data", str(manifest), "--label", "kind", "--arch", "audio", "--starts", "1.5,2,2,2", "--seeds", "0"]
    command += ["--width", "0.03", "--max-steps", "2", "--batch-size", "4", "--out", str(tmp_path), "--jobs", "2"]
    assert main([*command, "--pooling", "strided", "diffstride"]) == 2
    shown = capsys.readouterr()
    assert "1 of 2 cells failed" in shown.err
    folder = tmp_path / f"{manifest.parent.name}-kind" / "audio"
    text = (folder / "table.md").read_text("utf-8")
    assert "1 of 2 runs failed; mend this and give the same command again\n1.5-2-2-2_strided_seed0: " in text
    assert (folder / "1.5-2-2-2_diffstride_seed0" / "report.html").is_file()


@pytest.mark.slow
def test_images_of_a_folder_are_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str], cells: Cells) -> None:
    pytest.importorskip("torchvision")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for channel, name in enumerate(("red", "green")):
            for number in range(count):
                image = rng.uniform(0, 0.4, (16, 16, 3))
                image[..., channel] += 0.5
                file = tmp_path / "pictures" / split / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                matplotlib.image.imsave(file, image)
    command = ["--data", str(tmp_path / "pictures"), "--starts", "2,2,2", "3,1,3", "--seeds", "0", "--width", "0.03"]
    command += ["--max-steps", "2", "--batch-size", "4", "--set", "image_size=32", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    first = capsys.readouterr().out
    rows = cells(first)
    assert [row[0] for row in rows[2:4]] == ["(2,2,2)", "(3,1,3)"]
    assert rows[2][4].endswith("(1.00 x)")
    assert "layer 1 (height, width)" in first
    assert "accuracy on the 6 images of val" in first
    folder = tmp_path / "out" / "pictures" / "resnet18"
    metrics = json.loads((folder / "3-1-3_strided_seed0" / "metrics.json").read_text())
    assert rows[3][4].startswith(f"{metrics['multiply_adds'] / 1e6:.4g} (")
    assert main(command) == 0
    second = capsys.readouterr().out
    assert second.count("stands, skipped") == 6 + 1
    assert cells(second) == rows

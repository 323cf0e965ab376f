"""Tables from run folders: values by hand, names, schemes, and what must not be averaged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig
from audiostride.models.saving import save_classifier
from audiostride.reporting.cutoffs import TABLE_2
from audiostride.training import TrainConfig
from lab import paper
from lab.from_runs import build_table_parser, main_table
from lab.results import TaskResult, find_runs, read_results
from lab.tables import describe_differences, format_shared, format_table_1, format_table_2

Cells = Callable[[str], list[list[str]]]
ORIGINS = {"instrument_family": "nsynth", "pitch": "nsynth"}


def write_store(folder: Path, data: str, scheme: str) -> str:
    """Where a store would be; what its importer notes is all that tables read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "imported.json").write_text(json.dumps({"data": data, "splits": scheme, "root": None}))
    return str(folder / "store")


def write_run(run: Path, accuracies: dict[str, float], *, stopped_early: bool = False, **settings: Any) -> Path:
    run.mkdir(parents=True)
    config = TrainConfig(out=str(run), **settings)
    (run / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    mean = sum(accuracies.values()) / len(accuracies)
    several = {task: {"accuracy": value} for task, value in accuracies.items()}
    metrics = {"accuracy": mean, "stopped_early": stopped_early, **({"tasks": several} if len(several) > 1 else {})}
    (run / "metrics.json").write_text(json.dumps(metrics))
    return run


def read(*runs: Path, **names: str) -> list[TaskResult]:
    return read_results(runs, names=names)[0]


@pytest.fixture
def nsynth(tmp_path: Path) -> str:
    return write_store(tmp_path / "data" / "a", "nsynth", "official")


def test_table_1_has_means_by_hand_and_the_papers_figures_beside_them(
    tmp_path: Path, nsynth: str, cells: Cells
) -> None:
    two = [f"families={nsynth}:instrument_family", f"notes={nsynth}:pitch"]
    runs = [
        write_run(tmp_path / "s0", {"pitch": 0.90}, manifest=nsynth, label="pitch", pooling="strided", seed=0),
        write_run(tmp_path / "s1", {"pitch": 0.92}, manifest=nsynth, label="pitch", pooling="strided", seed=1),
        write_run(tmp_path / "m0", {"families": 0.6, "notes": 0.8}, task=two, seed=0),
        write_run(tmp_path / "m1", {"families": 0.7, "notes": 0.8}, task=two[::-1], seed=1),
        write_run(tmp_path / "m2", {"families": 0.8, "notes": 0.8}, task=two, seed=2),
    ]
    header, _, instrument, pitch, mean = cells(format_table_1(read(*runs)))
    assert header[:4] == ["task", "split scheme", "single: strided", "the paper's"]
    assert header[12:] == ["multi: DiffStride", "the paper's"]
    assert instrument[:3] == ["instrument", "official", ""]
    # 60, 70, 80: mean 70, sd over n - 1 is 10.
    assert instrument[12:] == ["70.0 (10.0), 3 runs", "73.0 (0.8)"]
    # 90, 92: mean 91, sd sqrt(2).
    assert pitch[2:4] == ["91.0 (1.4), 2 runs", "91.8 (0.1)"]
    assert pitch[12:] == ["80.0 (0.0), 3 runs", "89.9 (0.3)"]
    # Means over the tasks of each run, 70, 75, 80, are spread by 5; there is none of pitch alone, nor the paper's.
    assert mean == ["mean of 2", "official", *[""] * 10, "75.0 (5.0), 3 runs", ""]


def test_all_five_tasks_have_the_papers_mean(tmp_path: Path, cells: Cells) -> None:
    tasks, accuracies = [], {}
    for number, (task, (data, column)) in enumerate(paper.COLUMNS.items()):
        store = write_store(tmp_path / data, data, "paper-like")
        tasks.append(f"{task}={store}:{column}")
        accuracies[task] = 0.5 + 0.1 * number
    run = write_run(tmp_path / "run", accuracies, task=tasks, pooling="spectral")
    results = read(run)
    rows = cells(format_table_1(results))[2:]
    assert [row[0] for row in rows] == ["scenes", "birds", "instrument", "pitch", "speech", "mean of 5"]
    assert [row[10] for row in rows] == [f"{value}.0, 1 run" for value in (50, 60, 70, 80, 90, 70)]
    assert rows[-1] == ["mean of 5", "paper-like", "", "85.0", "", "86.0", "", "88.3",
                        "", "83.5", "70.0, 1 run", "83.5", "", "85.0"]  # fmt: skip
    assert describe_differences(results) == []


def test_single_means_are_means_of_means_and_schemes_are_rows_of_their_own(
    tmp_path: Path, nsynth: str, cells: Cells
) -> None:
    other = write_store(tmp_path / "data" / "b", "nsynth", "paper-like")
    runs = [
        write_run(tmp_path / "p0", {"pitch": 0.6}, manifest=nsynth, label="pitch"),
        write_run(tmp_path / "i0", {"instrument_family": 0.7}, manifest=nsynth, label="instrument_family"),
        write_run(tmp_path / "i1", {"instrument_family": 0.9}, manifest=nsynth, label="instrument_family", seed=1),
        write_run(tmp_path / "q0", {"pitch": 0.1}, manifest=other, label="pitch"),
    ]
    rows = cells(format_table_1(read(*runs)))[2:]
    assert [row[:2] for row in rows] == [
        ["instrument", "official"], ["pitch", "official"], ["mean of 2", "official"], ["pitch", "paper-like"],
    ]  # fmt: skip
    assert [row[6] for row in rows] == ["80.0 (14.1), 2 runs", "60.0, 1 run", "70.0", "10.0, 1 run"]


def test_table_a_7_has_both_kinds_of_strides(tmp_path: Path, nsynth: str, cells: Cells) -> None:
    two = [f"instrument={nsynth}:instrument_family", f"pitch={nsynth}:pitch"]
    found = {"instrument": 0.5, "pitch": 0.7}
    runs = [
        write_run(tmp_path / "shared", found, task=two, shared_strides=True),
        write_run(tmp_path / "per_axis", {**found, "pitch": 0.8}, task=two),
    ]
    rows = cells(format_shared(read(*runs)))
    assert rows[0][2::2] == ["one stride for both axes", "one per axis"]
    assert rows[3] == ["pitch", "official", "70.0, 1 run", "86.7", "80.0, 1 run", "89.9"]
    assert rows[4] == ["mean of 2", "official", "60.0, 1 run", "", "65.0, 1 run", ""]
    # Table 1 has one cell for both, and says which setting keeps them apart.
    with pytest.raises(InputError, match=r"differ in their seeds only, but .* differ in shared_strides: True -> F"):
        format_table_1(read(*runs))


def test_own_data_are_named_by_their_runs_or_by_the_caller(tmp_path: Path, cells: Cells) -> None:
    manifest = str(tmp_path / "words" / "clips.csv")
    alone = write_run(tmp_path / "alone", {"label": 0.5}, manifest=manifest)
    both = [f"words={manifest}:label", f"sex={manifest}:sex"]
    together = write_run(tmp_path / "together", {"words": 0.25, "sex": 0.75}, task=both)
    assert [(item.task, item.scheme, item.multi) for item in read(alone, together)] == [
        ("words", "own", False), ("words", "own", True), ("sex", "own", True),
    ]  # fmt: skip
    named, _ = read_results([alone], names={"words:label": "speech"})
    assert [item.task for item in named] == ["speech"]
    assert cells(format_table_1(named))[2][7] == "90.5 (0.3)"
    with pytest.raises(InputError, match=r"names must be for tasks of these runs \(label\), got word"):
        read(alone, word="speech")
    with pytest.raises(InputError, match="must give the tasks of a run different rows"):
        read(together, words="a", sex="a")


def test_different_data_of_one_name_are_not_averaged(tmp_path: Path) -> None:
    first, second = (
        write_run(tmp_path / name, {"label": 0.5}, manifest=str(tmp_path / name / "c.csv"), seed=seed)
        for seed, name in enumerate(("birds", "words"))
    )
    with pytest.raises(InputError, match=r"(?s)must be of the same data, but 'label' is each of.*--names FOLDER:TASK"):
        read(first, second)
    assert [item.task for item in read_results([first, second], names={"words:label": "w"})[0]] == ["label", "w"]


def test_a_cell_takes_no_other_settings_and_no_seed_twice(tmp_path: Path) -> None:
    shared = {"manifest": str(tmp_path / "c.csv"), "pooling": "strided"}
    first = write_run(tmp_path / "a", {"label": 0.5}, **shared)
    same = write_run(tmp_path / "b", {"label": 0.5}, **shared, workers=3)
    longer = write_run(tmp_path / "c", {"label": 0.5}, **shared, seed=1, max_steps=7)
    with pytest.raises(
        InputError, match=r"\(label, own, single: strided\) must have different seeds, got .*a \(seed 0"
    ):
        format_table_1(read(first, same))
    with pytest.raises(InputError, match="differ in max_steps: None -> 7; give them apart"):
        format_table_1(read(first, longer))


def test_a_split_that_a_run_has_drawn_is_its_own(tmp_path: Path, nsynth: str) -> None:
    run = write_run(tmp_path / "a", {"pitch": 0.5}, manifest=nsynth, label="pitch", random_split=0)
    folder = write_run(tmp_path / "b", {"pitch": 0.5}, manifest=str(tmp_path / "x-paper-like" / "store"), label="pitch")
    assert read(run)[0].scheme == "own"
    assert read(folder)[0].scheme == "paper-like"


def test_runs_are_found_in_folders_and_by_patterns(tmp_path: Path) -> None:
    settings = {"manifest": "c.csv"}
    runs = [write_run(tmp_path / "x" / name, {"label": 0.5}, **settings) for name in ("a0", "a1", "b")]
    page = tmp_path / "x" / "report.html"
    page.write_text("")
    assert find_runs([str(tmp_path)]) == runs
    assert find_runs([str(tmp_path / "x" / "a*"), str(runs[0]), str(page)]) == runs[:2]
    for wrong in ("none", str(tmp_path / "y*")):
        with pytest.raises(InputError, match="RUN must be a run folder, a folder of some, or a pattern"):
            find_runs([wrong])
    with pytest.raises(InputError, match="RUN must be at least one run folder, got only files"):
        find_runs([str(page)])


def test_stopped_runs_are_left_out_and_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = write_run(tmp_path / "done", {"label": 0.5}, manifest="c.csv", max_steps=5)
    stopped = write_run(tmp_path / "stopped", {"label": 0.5}, manifest="c.csv", seed=1, stopped_early=True)
    untested = write_run(tmp_path / "untested", {"label": 0.5}, manifest="c.csv", seed=2)
    (untested / "metrics.json").unlink()
    out = tmp_path / "table.md"
    given = [str(done), str(stopped), str(untested), "--out", str(out), "--names", "label=speech"]
    assert main_table("mine", "Mine.", format_table_1, given) == 0
    shown = capsys.readouterr().out
    assert "| speech | own |" in out.read_text()
    assert out.read_text().strip() in shown
    for run in (stopped, untested):
        assert f"{run} is left out: it has not been trained and tested to its end" in shown
    assert main_table("mine", "Mine.", format_table_1, [str(stopped)]) == 2
    assert "mine: there must be a run with test results, got none\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "RUN must be at least one run folder, got none; or try --smoke"),
        (["x", "--smoke"], "--smoke makes its own runs; leave RUN out"),
        (["x", "--names", "a"], "--names must be given TASK=ROW, got 'a'"),
    ],
)
def test_bad_options_of_tables(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_table("mine", "Mine.", format_table_1, given) == 2
    assert message in capsys.readouterr().err
    assert build_table_parser("mine", "Mine.").prog == "mine.py"


def write_model(run: Path, strides: tuple[float, float], *, pooling: Any = "diffstride") -> None:
    config = ClassifierConfig(
        tasks={"pitch": ["a", "b"]}, strides=[strides, (2, 2)], channels=(64, 64), width=0.05, pooling=pooling
    )
    save_classifier(AudioClassifier(config), run / "model.safetensors")


def test_table_2_has_cutoffs_by_hand_continuous_and_as_the_papers(tmp_path: Path, nsynth: str, cells: Cells) -> None:
    for seed, strides in enumerate([(1.5, 1.8), (1.3, 1.7)]):
        run = write_run(tmp_path / f"d{seed}", {"pitch": 0.5}, manifest=nsynth, label="pitch", seed=seed)
        write_model(run, strides)
    fixed = write_run(tmp_path / "f0", {"pitch": 0.5}, manifest=nsynth, label="pitch", pooling="spectral")
    results = read(tmp_path / "d0", tmp_path / "d1", fixed)
    header, _, row = cells(format_table_2(results))
    assert len(header) == len(row) == 13
    assert row == [
        "pitch", "official", "2",
        "1.40 (0.14)",  # 1.5, 1.3
        "1.75 (0.07)",  # 1.8, 1.7
        "35.90 (3.63)",  # 100 / 3 = 33.333, 100 / 2.6 = 38.462
        "35.62 (3.54)",  # bins floor(53.33), floor(61.54) of 0.625 Hz: 33.125, 38.125, whose mean 35.625 is printed so
        "0.2859 (0.0116)",  # 1 / 3.6 = 0.27778, 1 / 3.4 = 0.29412
        "0.2734 (0.0110)",  # bins floor(17.78), floor(18.82) of 1/64: 0.265625, 0.28125
        "1.32 (0.10)", "1.61 (0.07)", "37.50 (2.72)", "0.3021 (0.018)",
    ]  # fmt: skip
    with pytest.raises(InputError, match="needs runs with pooling diffstride, got none"):
        format_table_2(read(fixed))


def test_table_2_has_a_row_for_tasks_learned_together(tmp_path: Path, cells: Cells) -> None:
    tasks = [f"{task}={write_store(tmp_path / data, data, 'official')}:{column}"
             for task, (data, column) in paper.COLUMNS.items()]  # fmt: skip
    five = write_run(tmp_path / "five", dict.fromkeys(paper.TASKS, 0.5), task=tasks)
    two = write_run(tmp_path / "two", {"scenes": 0.5, "birds": 0.5}, task=tasks[:2])
    for run in (five, two):
        write_model(run, (2, 2))
    rows = {row[0]: row for row in cells(format_table_2(read(five, two)))[2:]}
    assert rows["multi-task: scenes, birds, instrument, pitch, speech"][9:] == list(TABLE_2["multi-task"])
    assert rows["multi-task: scenes, birds"][9:] == [""] * 4
    assert rows["multi-task: scenes, birds"][5] == "25.00"
    assert describe_differences(read(two)) == ["learned together: scenes, birds; the paper's five are others"]


def test_the_papers_multi_task_means_are_those_of_its_figures_and_cutoffs_follow_its_strides() -> None:
    for table in (paper.MULTI, paper.SHARED):
        for variant, mean in table["mean"].items():
            figures = [float(table[task][variant].split()[0]) for task in paper.TASKS]
            # Figures and mean are rounded to 0.1 each, so that they agree to half of that twice.
            assert sum(figures) / 5 == pytest.approx(float(mean), abs=0.11)
    for stride_time, stride_mel, hz, mel in TABLE_2.values():
        for stride, cutoff, rate, step in ((stride_time, hz, 100, 0.625), (stride_mel, mel, 1, 1 / 64)):
            # Mean of quotients for quotient of means, of strides rounded to 0.01: a fifth of a bin is ample for both.
            below = (rate / 2 / float(stride.split()[0]) - float(cutoff.split()[0])) / step
            assert -0.2 <= below < 1.2

"""What version 0.1.0 wrote lives on: see make.py for how the files were made.

Where this machine's arithmetic is that of the machine they were made on, what a model computes is the same to the bit.
Elsewhere it may differ by rounding; so does what is trained, everywhere, since steps add up in another order than then.
"""

import json
import os
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from audiostride import cutoff_table, load_classifier

HERE = Path(__file__).parent
MAKE = runpy.run_path(str(HERE / "make.py"))
RUNS = ["one_task", "two_tasks", "resnet", "strided", "paper"]
# Largest with other instruction sets (ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA, MKL_ENABLE_INSTRUCTIONS):
# 6e-6 of one model's numbers, 1e-6 behind eight steps from a checkpoint, 2.7e-5 behind sixteen.
ELSEWHERE = 1e-4

Run = Callable[..., int]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums over threads depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def same_machine() -> bool:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = MAKE["probe"]()
    torch.set_num_threads(before)
    return bool(found == (HERE / "files" / "probe.txt").read_text().strip())


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files in a folder that may be changed, which is the current one; the runs know that their data have moved."""
    folder = tmp_path / "files"
    shutil.copytree(HERE / "files", folder)
    os.utime(folder / "one_task" / "report.html")  # it was written last, of which a checkout knows nothing
    moved = list(folder.glob("*/config.yaml"))
    assert len(moved) == 7
    for file in moved:
        file.write_text(file.read_text().replace("/mnt/tones", str(folder)))
    monkeypatch.chdir(folder)
    return folder


def differences(found: Any, expected: Any, *, relative: float, where: str = "") -> list[str]:
    """Where two trees of numbers and texts differ; numbers may by so much of the larger of them and 1."""
    if isinstance(expected, dict):
        if set(found) != set(expected):
            return [f"{where}: {sorted(found)} and not {sorted(expected)}"]
        pairs = [(found[name], expected[name], f"{where}.{name}") for name in expected]
    elif isinstance(expected, list):
        if len(found) != len(expected):
            return [f"{where}: {len(found)} and not {len(expected)}"]
        pairs = [(*each, f"{where}.{number}") for number, each in enumerate(zip(found, expected, strict=True))]
    elif isinstance(expected, float) and isinstance(found, float):
        bound = relative * max(1.0, abs(expected), abs(found))
        alike = found == expected or abs(found - expected) <= bound or (found != found and expected != expected)
        return [] if alike else [f"{where}: {found!r} and not {expected!r}"]
    else:
        return [] if type(found) is type(expected) and found == expected else [f"{where}: {found!r}, not {expected!r}"]
    return [line for one, other, place in pairs for line in differences(one, other, relative=relative, where=place)]


def check_same(found: Any, expected: Any, *, exact: bool) -> None:
    def as_tree(values: Any) -> Any:
        if isinstance(values, pd.DataFrame):
            return values.to_dict("list")
        return {name: each.tolist() if isinstance(each, torch.Tensor) else each for name, each in values.items()}

    assert differences(as_tree(found), as_tree(expected), relative=0.0 if exact else ELSEWHERE) == []


def read(file: Path) -> Any:
    """A file of a run without its times, the folder of the clips, and what such files did not tell then."""
    if file.suffix == ".json":
        return {name: value for name, value in json.loads(file.read_text()).items() if name != "multiply_adds"}
    if file.suffix == ".safetensors":
        return load_file(file)
    table = pd.read_csv(file).drop(columns="elapsed_s", errors="ignore")
    return table.assign(path=table["path"].map(lambda path: Path(path).name)) if "path" in table else table


def test_a_difference_is_found() -> None:
    same = {"a": [1.0, {"b": "x"}], "c": float("nan"), "d": 3}
    assert differences(same, same, relative=0.0) == []
    for other in (
        {**same, "a": [1.0 + 1e-15, {"b": "x"}]}, {**same, "a": [1.0, {"b": "y"}]}, {**same, "a": [1.0]},
        {**same, "c": 0.0}, {**same, "d": 4}, {**same, "d": 3.0}, {"a": same["a"]},
    ):  # fmt: skip
        assert len(differences(other, same, relative=0.0)) == 1
    assert differences([1.0009, 2001.9], [1.0, 2000.0], relative=1e-3) == []
    assert len(differences([1.0012, 2002.1], [1.0, 2000.0], relative=1e-3)) == 2
    with pytest.raises(AssertionError):
        check_same({"a": torch.ones(2)}, {"a": torch.ones(2).double() + 1e-12}, exact=True)
    with pytest.raises(AssertionError):
        check_same(pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2]}), exact=False)


def test_the_arithmetic_of_a_machine_is_told_by_its_probe() -> None:
    assert len((HERE / "files" / "probe.txt").read_text().strip()) == 32
    assert MAKE["probe"]() == MAKE["probe"]()


@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_evaluated_to_its_numbers(files: Path, run: str, run_command: Run, same_machine: bool) -> None:
    config = load_classifier(run).config
    names = ["metrics.json", *(file.name for file in Path(run).glob("predictions_test*.csv"))]
    before = {name: read(Path(run) / name) for name in names}
    assert len(names) == 1 + len(config.tasks)
    for name in names:
        (Path(run) / name).unlink()
    assert run_command("evaluate", run) == 0
    for name in names:
        check_same(read(Path(run) / name), before[name], exact=same_machine)
    assert (Path(run) / "report.html").stat().st_size > 10_000


def test_a_finished_run_is_left_as_it_is(files: Path, run_command: Run) -> None:
    before = {path: path.read_bytes() for path in Path("one_task").rglob("*") if path.is_file()}
    assert len(before) == 14
    assert run_command("train", "--out", "one_task", "--resume") == 0
    assert {path: path.read_bytes() for path in Path("one_task").rglob("*") if path.is_file()} == before


def test_a_finished_run_without_its_page_gets_one(files: Path, run_command: Run, same_machine: bool) -> None:
    Path("one_task/report.html").unlink()
    before = {name: read(Path("one_task") / name) for name in ("metrics.json", "history.csv", "model.safetensors")}
    assert run_command("train", "--out", "one_task", "--resume") == 0
    assert Path("one_task/report.html").is_file()
    for name, values in before.items():
        check_same(read(Path("one_task") / name), values, exact=same_machine or name != "metrics.json")


@pytest.mark.slow
def test_a_run_is_reported_and_exported(files: Path, run_command: Run, same_machine: bool) -> None:
    table = cutoff_table(load_classifier("one_task"))
    new = ["cutoff_per_octave", "cutoff_per_khz", "at_hz", *(f"harmonics_{f0}" for f0 in (100, 200, 400))]
    check_same(table.drop(columns=new), pd.read_csv("one_task/cutoffs.csv"), exact=same_machine)
    assert run_command("report", "one_task", "two_tasks", "-o", "page.html") == 0
    page = Path("page.html").read_text()
    assert all(run in page for run in ("one_task", "two_tasks"))
    pytest.importorskip("onnxruntime")
    # The command compares what both compute, and fails where they differ.
    assert run_command("export", "one_task", "-o", "model.onnx") == 0


def test_a_killed_run_ends_as_if_nothing_had_been(files: Path, run_command: Run) -> None:
    assert read(Path("stopped/history.csv"))["step"].tolist() == [4, 8]
    assert run_command("train", "--out", "stopped", "--resume") == 0
    names = ["history.csv", "strides.csv", "metrics.json", "model.safetensors"]
    names += [file.name for file in Path("whole").glob("predictions_test*.csv")]
    assert len(names) == 6
    for name in names:
        check_same(read(Path("stopped") / name), read(Path("whole") / name), exact=False)
    assert read(Path("stopped/history.csv"))["step"].tolist() == [4, 8, 12, 16]


def test_its_settings_make_the_same_run_anew(files: Path, run_command: Run) -> None:
    assert run_command("train", "--config", "whole/config.yaml", "--out", "anew") == 0
    for name in ("history.csv", "strides.csv", "metrics.json", "model.safetensors"):
        check_same(read(Path("anew") / name), read(Path("whole") / name), exact=False)


def test_a_store_stands_and_is_read(
    files: Path, run_command: Run, same_machine: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path("store/audio-00000.arrow").read_bytes()
    assert run_command("prepare", "manifest.csv", "-o", "store", "--verify") == 0
    assert "(0 written now)" in capsys.readouterr().out
    assert Path("store/audio-00000.arrow").read_bytes() == before
    for place in ("store", "audio"):
        assert run_command("predict", "one_task", place, "-o", f"{place}.csv", "--per-window", "--device", "cpu") == 0
    expected = pd.read_csv("expected_windows.csv")
    assert len(expected) == 16
    check_same(pd.read_csv("audio.csv"), expected, exact=same_machine)
    check_same(pd.read_csv("store.csv").drop(columns="path"), expected.drop(columns="path"), exact=same_machine)


def test_a_killed_prediction_goes_on(
    files: Path, run_command: Run, same_machine: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(*MAKE["PREDICT"]) == 2, "one of the files is none"
    assert "7 of 18 files are done" in capsys.readouterr().out
    assert not Path("predictions.csv.partial").exists()
    check_same(pd.read_csv("predictions.csv"), pd.read_csv("expected.csv"), exact=same_machine)
    assert Path("predictions.errors.csv").read_bytes() == Path("expected.errors.csv").read_bytes()

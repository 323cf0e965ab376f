"""The program with every figure of a GPU: tiny on a CPU; what it keeps when parts fail or take too long; bad input."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

RECIPES = Path(__file__).parents[2] / "recipes"
PARTS = ["machine", "correctness", "step", "train", "infer", "layer", "images", "profile", "products"]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(RECIPES)
    import bench_gpu

    return bench_gpu


def refuse(value: str) -> float:
    raise ValueError(f"{value} is no JSON")


@pytest.mark.slow
def test_smoke_runs_every_part_and_writes_its_files(tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPES / "bench_gpu.py"), "--smoke", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(RECIPES.parent)}
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    found = {part: json.loads((tmp_path / f"{part}.json").read_text(), parse_constant=refuse) for part in PARTS}
    assert sorted(path.stem for path in tmp_path.glob("*.json")) == sorted(PARTS)
    for part, result in found.items():
        assert result["status"] == "done", result
        assert result["seconds"] > 0
        assert all(table["rows"] for table in result["tables"]), part
        assert all(len(row) == len(table["header"]) for table in result["tables"] for row in table["rows"]), part
        assert "its figures mean nothing" in result["smoke"]
        assert (tmp_path / f"{part}.md").read_text() in done.stdout
    numbers, tests = found["correctness"]["tables"]
    assert len(numbers["rows"]) == 10
    assert {row[-1] for row in numbers["rows"]} == {"right"}
    assert int(tests["rows"][0][0]) >= 19  # tests that are marked gpu
    rows = found["step"]["tables"][0]["rows"]
    assert [row[0] for row in rows[:5]] == [
        "strided", "DiffStride mixed", "spectral", "DiffStride nominal", "DiffStride paper"
    ]  # fmt: skip
    hows = ["bf16-mixed"] * 5 + ["float32"] * 5
    hows += ["bf16-mixed, compiled"] * 2 + ["float32, TF32 products"] * 2
    assert [row[1] for row in rows] == hows
    for row, seconds in zip(rows, found["step"]["steps"].values(), strict=True):
        assert float(row[2]) == pytest.approx(1e3 * seconds["seconds"], abs=0.01)
        assert float(row[-1]) == pytest.approx(1e6 * seconds["seconds"] / 3600, abs=0.06)
    assert [row[0] for row in found["train"]["tables"][0]["rows"]] == ["DiffStride mixed", "strided"]
    assert len(found["infer"]["tables"]) == len(found["images"]["tables"]) == 2
    assert len(found["profile"]["tables"][0]["rows"]) == 10
    assert "maps changed their size" in found["profile"]["notes"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--smoke", "--only", "step", "speed"], "--only must name parts of machine, .*, got speed"),
        (["--smoke", "--minutes", "0.5"], "--minutes must be at least 1 and finite, got 0.5"),
        (["--smoke", "--minutes", "nan"], "--minutes must be at least 1 and finite, got nan"),
        (["--smoke", "--out", "taken"], "--out must be a folder that can be written, got taken .*give another"),
        ([], "a GPU that torch can use must be there, got none; --smoke"),
    ],
)
def test_bad_input_is_named(
    bench: Any, options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Path("taken").touch()
    with pytest.raises(bench.InputError, match=message):
        bench.read_options(options)


def test_bad_input_ends_the_program_with_code_2(tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPES / "bench_gpu.py"), "--smoke", "--only", "none", "--out", str(tmp_path / "x")]
    environment = {**os.environ, "PYTHONPATH": str(RECIPES.parent)}
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("bench_gpu: --only must name parts")
    assert not (tmp_path / "x").exists()


# What a part does before it ends, as a program in the place of the real one.
ENDINGS = {
    "out of time": "keep(); time.sleep(60)",
    "a crash": "keep(); leave_a_child(); print('last words', flush=True); os.kill(os.getpid(), 9)",
    "nothing": "print('no module', flush=True); sys.exit(3)",
}
PROGRAM = """
import json, os, subprocess, sys, time
def leave_a_child():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with open(f"{out}/child", "w") as file:
        file.write(str(child.pid))
out, part = sys.argv[sys.argv.index("--out") + 1], sys.argv[sys.argv.index("--run-part") + 1]
def keep():
    table = {"title": "", "header": ["what"], "rows": [["a row"]]}
    with open(f"{out}/{part}.json", "w") as file:
        json.dump({"part": part, "status": "running", "tables": [table], "notes": []}, file)
"""


def has_ended(pid: int) -> bool:
    """Whether a process is gone within ten seconds, or waits for its parent to notice that it has ended."""
    state = Path(f"/proc/{pid}/stat")
    for _ in range(100):
        try:
            if state.read_text().rsplit(")", 1)[1].split()[0] in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("ending", "status", "error"),
    [("out of time", "out of time", None), ("a crash", "failed", "code -9"), ("nothing", "failed", "code 3")],
)
def test_a_part_that_is_ended_keeps_what_it_has(
    bench: Any, ending: str, status: str, error: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + ENDINGS[ending])
    monkeypatch.setattr(bench, "__file__", str(program))
    (tmp_path / "step.json").write_text('{"part": "step", "status": "done", "tables": []}')  # of an earlier run
    options = SimpleNamespace(out=tmp_path, smoke=True)
    found = bench.run_part("step", options, limit_s=2.0 if ending == "out of time" else 60.0)
    assert found["status"] == status
    assert [table["rows"] for table in found["tables"]] == ([] if ending == "nothing" else [[["a row"]]])
    if error is None:
        assert "error" not in found
    else:
        assert error in found["error"]
        assert {"a crash": "last words", "nothing": "no module"}[ending] in found["error"]
    if ending == "a crash":  # what it had started is ended too, such as workers that read data
        assert has_ended(int((tmp_path / "child").read_text()))
    text = (tmp_path / "step.md").read_text()
    assert text.startswith(f"### step: {status}, ")
    assert json.loads((tmp_path / "step.json").read_text()) == found


def test_a_part_that_fails_is_listed_and_the_next_ones_run(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[str, float]] = []

    def run_part(part: str, options: Any, *, limit_s: float) -> dict[str, Any]:
        calls.append((part, limit_s))
        status = "failed" if part == "step" else "done"
        return {"part": part, "status": status, "tables": [], "error": "Traceback of it"}

    monkeypatch.setattr(bench, "run_part", run_part)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--out", str(tmp_path), "--minutes", "8"])
    assert bench.main() == 1
    assert [part for part, _ in calls] == PARTS == list(bench.PARTS)
    shown = capsys.readouterr().out
    assert "Traceback of it" in shown
    assert "step: failed, train: done" in shown
    # Of eight minutes: about its share for each part that takes no time at all, and all that is left for the last.
    limits = dict(calls)
    assert limits["machine"] == pytest.approx(20, abs=2)
    assert limits["products"] == pytest.approx(480, abs=5)


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        (ZeroDivisionError("zero"), "failed", "ZeroDivisionError: zero"),
        (ModuleNotFoundError("No module named 'soxr'"), "left out", "a package is missing or does not load: No module"),
    ],
)
def test_the_fault_of_a_part_stands_in_its_file(
    bench: Any, fault: Exception, status: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab import gpu
    from lab.gpu import networks

    def fail(part: Any) -> None:
        part.table("kept", ["what"])(["a row"])
        raise fault

    monkeypatch.setattr(networks, "measure_layer", fail)
    threads = torch.get_num_threads()
    try:
        assert gpu.run("layer", tmp_path, limit_s=10, smoke=True) == int(status == "failed")
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "layer.json").read_text())
    assert found["status"] == status
    assert error in found["error"]
    assert found["tables"][0]["rows"] == [["a row"]]


@pytest.fixture
def part(bench: Any, tmp_path: Path) -> Any:
    from lab.gpu.part import Part

    return Part("step", tmp_path, limit_s=100, smoke=True)


def test_a_wrong_gradient_is_out_of_bounds(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.gpu import checking

    plain: Callable[..., Any] = checking.numbers

    def wrong(module: nn.Module, *rest: Any, bf16: bool) -> Any:
        outputs, gradients = plain(module, *rest, bf16=bf16)
        return outputs, -gradients if bf16 and isinstance(module, checking.LogMel) else gradients

    monkeypatch.setattr(checking, "numbers", wrong)
    monkeypatch.setattr(checking, "VARIANTS", {})
    checking.compare_numbers(part)
    verdicts = {row[0]: row[-1] for row in part.found["tables"][0]["rows"]}
    assert verdicts.pop("LogMel") == "OUT OF BOUNDS"
    assert set(verdicts.values()) == {"right"}
    assert part.found["status"] == "out of bounds"


def events(*spans: tuple[float, float]) -> list[Any]:
    return [SimpleNamespace(name=f"k{number}", time_range=SimpleNamespace(start=start, end=end))
            for number, (start, end) in enumerate(spans)]  # fmt: skip


def test_time_that_kernels_cover_counts_an_overlap_once(bench: Any) -> None:
    from lab.gpu.part import covered_us

    assert covered_us([]) == 0
    assert covered_us(events((5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 1.75))) == 4.0


def test_gaps_lie_between_the_last_end_and_the_next_start(bench: Any) -> None:
    from lab.gpu.steps import longest_gaps

    assert longest_gaps([]) == []
    # k1 runs inside k0: the gap before k2 begins at the end of k0.
    assert longest_gaps(events((0.0, 10.0), (1.0, 2.0), (12.0, 13.0), (18.0, 19.0))) == [
        (5.0, 15.5, "k2", "k3"), (2.0, 11.0, "k0", "k2")
    ]  # fmt: skip


def test_ratios_stand_beside_the_papers(bench: Any) -> None:
    from lab.gpu.part import ratio

    assert ratio(3.0, 2.0, 1.43) == "1.50 x (1.43)"
    assert ratio(3.0, 2.0) == "1.50 x"
    assert ratio(None, None, 1.98) == ratio(1.0, None) == "-"


def test_steps_and_waits_of_any_loop_are_seen(bench: Any) -> None:
    from lab.gpu.commands import watched_training

    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    loader = torch.utils.data.DataLoader([1, 2, 3], batch_size=None)
    with watched_training() as (steps, waits):
        for _ in loader:
            weight.grad = torch.ones(1)
            optimizer.step()
    assert (len(steps), len(waits)) == (3, 4)  # the last wait finds the end
    assert all(start + seconds <= step for (start, seconds), step in zip(waits, steps, strict=False))
    optimizer.step()
    list(loader)
    assert (len(steps), len(waits)) == (3, 4)

"""The benchmark of the whole training: it runs, its table has every variant, and what it computes is right."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"
VARIANTS = ["strided", "spectral", "DiffStride mixed", "DiffStride nominal", "DiffStride paper"]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    """The benchmark as a program."""
    command = [sys.executable, str(RECIPES / "bench_training.py"), *options]
    environment = {**os.environ, "PYTHONPATH": str(RECIPES.parent)}
    return subprocess.run(command, env=environment, text=True, capture_output=True, check=False)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(RECIPES)
    import bench_training

    return bench_training


@pytest.mark.slow
def test_smoke_prints_a_row_for_each_variant_and_what_bounds_one() -> None:
    done = run("--smoke", "--profile", "spectral")
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "|"]
    assert rows[0] == ["pooling", "steps/s", "ms/step", "time", "training memory (MiB)", "memory", "waiting for data",
                       "hours for 1 M steps"]  # fmt: skip
    assert [row[0] for row in rows[2:7]] == VARIANTS
    for _, rate, step_ms, ratio, memory, memory_ratio, waiting, hours in rows[2:7]:
        assert float(rate) * float(step_ms) == pytest.approx(1000, rel=0.02)  # both are rounded
        # Rounded to 0.1 h, of a step rounded to 0.1 ms.
        assert float(hours) == pytest.approx(float(step_ms) / 3.6, abs=0.05 + 0.05 / 3.6 + 1e-6)
        assert ratio.endswith(" x")
        assert memory_ratio.endswith(" x")
        assert float(memory) > 1
        assert float(waiting.split()[0]) < 100
    assert rows[2][3] == rows[2][5] == "1.00 x"
    assert rows[7] == ["operator", "group", "calls", "ms", "share"]
    assert len(rows) == 7 + 2 + 12
    shares = [float(row[4].removesuffix(" %")) for row in rows[9:]]
    assert shares == sorted(shares, reverse=True)
    assert "convolution" in {row[1] for row in rows[9:]}
    (verdict,) = (line for line in done.stdout.splitlines() if "Bound by " in line)
    named = {
        name: float(verdict.split(f"{name} ")[1].split(" %")[0]) for name in ("data", "compute", "launch overhead")
    }
    assert sum(named.values()) == pytest.approx(100, abs=0.2)
    assert f"Bound by {max(named, key=named.__getitem__)}." in verdict
    assert "these figures mean nothing" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--width", "0"], "bench_training: width must be > 0, got 0.0"),
        (["--workers", "-1"], "bench_training: workers must be >= 0, got -1; 0 reads in this process"),
        (["--rounds", "0"], "bench_training: rounds must be a whole number >= 1, got 0"),
    ],
)
def test_options_out_of_range_end_it_with_a_message(
    bench: Any, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_training.py", "--device", "cpu", *options])
    with pytest.raises(bench.InputError, match=message):
        bench.read_options()


def test_smoke_is_tiny_whatever_else_is_asked_for(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_training.py", "--smoke", "--width", "0.0625", "--batch-size", "256"])
    arguments = bench.read_options()
    assert (arguments.device, arguments.width, arguments.batch_size, arguments.threads) == ("cpu", 0.0625, 8, 1)


def test_batches_are_drawn_for_all_tasks_alike_with_labels_of_their_source(bench: Any, tmp_path: Path) -> None:
    bench.make_stores(tmp_path, clips=3)
    batches = bench.open_batches(tmp_path, batch_size=20)
    assert [len(source.reader) for source in batches.sources] == [3, 3, 3, 3]
    assert [source.reader.n_samples[0] / 16000 for source in batches.sources] == [10, 10, 4, 1]
    batch = batches[0]
    assert batch["waveform"].shape == (20, 16000)
    assert (batch["waveform"].std(dim=1) > 0.005).all()  # noise and no silence
    assert (batch["class_index"] >= 0).sum(dim=0).tolist() == [4, 4, 8, 8, 4]
    sizes = list(bench.CLASSES.values())
    assert sizes == [10, 2, 11, 128, 35]
    assert all((batch["class_index"][:, task] < size).all() for task, size in enumerate(sizes))


def test_waiting_is_what_the_loader_adds_to_a_step_relative_to_the_whole(bench: Any) -> None:
    shares = bench.waiting_shares({"loader": [0.10, 0.2, 0.4], "held": [0.09, 0.1, 0.1]})
    assert shares == pytest.approx([0.1, 0.5, 0.75])
    rows = bench.table_rows(
        {
            "strided": {"loader": [0.01, 0.02], "held": [0.01, 0.02], "memory": [100.0]},
            "other": {"loader": [0.02, 0.06], "held": [0.01, 0.03], "memory": [150.0]},
        }
    )
    assert rows[1] == ["other", "25.00", "40.0", "2.50 x", "150", "1.50 x", "50.0 % (50.0 to 50.0)", "11.1"]


@pytest.mark.parametrize(
    ("operator", "group"),
    [
        ("convolution_backward", "convolution"),
        ("bmm", "matrix product"),
        ("_foreach_addcdiv_", "optimizer"),
        ("cudnn_batch_norm_backward", "batch norm"),
        ("_fft_r2c", "FFT"),
        ("_to_copy", "copy, cast, layout"),
        ("## Call CompiledFxGraph fmm ##", "compiled"),
        ("mul", "other"),
    ],
)
def test_operators_are_grouped_by_what_they_do(bench: Any, operator: str, group: str) -> None:
    assert bench.group_of(operator) == group

"""Files of a run folder with other content than the run wrote, and pages that cannot be written."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiostride.errors import InputError
from audiostride.reporting.page import draw_confusions, write_files
from audiostride.reporting.runs import read_run

MakeRun = Callable[..., Path]

HISTORY = "step,train_loss,valid_loss,valid_accuracy\n"
ROWS = "line,path,start_s,duration_s,true,predicted,p:noise,p:tone\n"
# Each file of a run that a report reads, and what may have become of its lines.
FAULTS = {
    "config.yaml": [
        "task: 3\n", "manifest: [m]\n", "seed: x\n", "hold_out: .nan\n", "a: &a [*a]\n", "a: 1\na: 2\n", "[1]\n",
    ],
    "metrics.json": [
        '{"accuracy": "high"}', '{"accuracy": 7}', "{}", "[]", '{"accuracy": NaN}', "[" * 9000,
        '{"task": "kind", "split": "test", "accuracy": 0.5, "n_clips": 3, "interval": [null, null]}',
        '{"task": "kind", "split": "test", "accuracy": 0.5, "n_clips": 3, "interval": [0.1]}',
        '{"task": "kind", "split": "test", "accuracy": 0.5, "n_clips": -3, "interval": [0.1, 0.9]}',
        '{"clips": {"kind": [1]}}',
    ],
    "environment.json": ['{"training_s": "long"}', '{"packages": ["torch"]}', '{"threads": 1.5}', "\xff", "", "null"],
    "history.csv": [
        "", "step\n1\n", HISTORY,
        HISTORY + "a,1,1,1\n",
        HISTORY + "1,inf,1,1\n", HISTORY + "1,,1,1\n",
        HISTORY + "True,1,1,1\n", "step,train_loss\n1,2,3\n1,2,3,4,5,6\n",
    ],
    "strides.csv": ["", "layer1_time\n2\n", "step,layer1_time\n0,two\n", "\x00"],
    "per_class.csv": ["", "class,clips\nnoise,3\n", "class,clips,precision,recall,f1\nnoise,3,1,1,1\n"],
    "confusion_matrix.csv": [
        "", "true,noise,tone\nnoise,1,2\n", "true,noise,tone\nnoise,1,b\ntone,1,2\n", "true,noise\nnoise,1\n",
    ],
    "predictions_test.csv": [
        "", "line,path\n1,a\n", ROWS + "x,a,0,1,noise,noise,1,0\n",
        ROWS + "1,a,0,1,dog,noise,1,0\n",
        ROWS + "1,a,0,1,noise,dog,1,0\n",
        ROWS + "1,a,0,long,noise,noise,1,0\n",
        ROWS + "1,a,0,1,noise,noise,nan,0\n",
    ],
}  # fmt: skip


def test_a_file_of_a_run_with_other_content_is_named_in_one_line(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    read_run(run)
    for name, faults in FAULTS.items():
        whole = (run / name).read_bytes()
        for fault in faults:
            (run / name).write_bytes(fault.encode("latin-1"))
            with pytest.raises(InputError, match=f"^(report: )?{run / name}[: ]") as caught:
                read_run(run)
            assert "\n" not in str(caught.value), fault
            assert len(str(caught.value)) < 1000
        (run / name).write_bytes(whole)
    read_run(run)


def test_a_drawing_of_a_confusion_matrix_wants_one(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "confusion_matrix_valid.csv").write_text("true,a,b\na,1,2\n")
    with pytest.raises(
        InputError, match=r"confusion_matrix_valid\.csv must be as the run wrote it.*1 rows of 2 counts"
    ):
        draw_confusions(run)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_full_disk_leaves_nothing_new_of_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    (tmp_path / "b").write_text("old")
    replace, done = os.replace, list[object]()

    def fill(*given: Any) -> None:
        if len(done) == failing:
            raise OSError(28, "No space left on device")
        done.append(given)
        replace(*given)

    monkeypatch.setattr(os, "replace", fill)
    with pytest.raises(InputError, match=r"^report: .* cannot be written: No space left on device; make room there$"):
        write_files({tmp_path / "f" / "a": b"1", tmp_path / "b": b"2", tmp_path / "c": b"3"})
    assert [path.name for path in tmp_path.iterdir()] == ["b"]

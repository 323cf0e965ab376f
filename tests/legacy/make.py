"""Writes the files that version 0.1.0 leaves: runs, a stopped one, a store, a stopped prediction, and what came of it.

Run with version 0.1.0 only, its sources on the path, and with the folder to work in, whose name stands in some of the
files; what they are kept in, ``files``, is replaced::

    PYTHONPATH=../audiostride-0.1.0 OMP_NUM_THREADS=1 python tests/legacy/make.py /mnt/tones

Made with Python 3.11 and torch 2.14.1 on an Intel Xeon, one thread. ``probe.txt`` tells whether the arithmetic of
another machine is the same, to the bit.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch

FILES = Path(__file__).parent / "files"
SAMPLE_RATE = 16000
TINY = ["--device", "cpu", "--batch-size", "4", "--lr", "0.005"]
BLOCKS = ["--channels", "[8,16]", "--strides", "[[2,3],[2,2]]"]
ONE_TASK = ["--manifest", "manifest.csv", "--label", "pitch", *TINY]
TWO_TASKS = ["--task", "pitch=manifest.csv:pitch", "beat=store:beat", "--mixing", "proportional", *TINY]
# As many random draws as there are: a resumed run goes on with the same ones, or ends with other numbers.
STOPPED = [*TWO_TASKS, *BLOCKS, "--time-shift-s", "0.1", "--gain-db", "6", "--noise", "synthetic", "--mixup", "0.2"]
STOPPED += [
    "--time-masks",
    "1",
    "--mel-masks",
    "1",
    "--balance",
    "class",
    "--stride-lr",
    "0.03",
    "--stride-cost",
    "0.1",
]
STOPPED += ["--weight-decay", "0.01", "--max-steps", "16", "--valid-every", "4", "--seed", "3"]
RUNS = {
    "one_task": [*ONE_TASK, *BLOCKS, "--max-steps", "40", "--valid-every", "20"],
    "two_tasks": [*TWO_TASKS, "--width", "0.03", "--pooling", "spectral", "--max-steps", "8"],
    "resnet": [*ONE_TASK, "--width", "0.03", "--encoder", "resnet18", "--shared-strides", "true", "--max-steps", "8"],
    "strided": [*ONE_TASK, *BLOCKS, "--pooling", "strided", "--max-steps", "8"],
    "paper": [*ONE_TASK, *BLOCKS, "--size", "paper", "--pool-after", "block", "--ramp-bins", "3", "--max-steps", "8"],
    "whole": STOPPED,
}
PREDICT = ["predict", "one_task", "recordings", "audio", "-o", "predictions.csv", "--hop", "0.5", "--events"]
PREDICT += ["--threshold", "0.4", "--merge-gap", "0.1", "--device", "cpu"]
KEPT = ["config.yaml", "history.csv", "metrics.json", "model.safetensors", "strides.csv", "predictions_test*.csv"]

# Programs in which a process ends by SIGKILL in mid-work: behind the tenth of sixteen steps, whose last checkpoint is
# that of the eighth, and behind the seventh recording.
KILL_TRAINING = """
import os, signal, sys
from audiostride.cli import main
from audiostride.training.callbacks import RunRecorder
after_step = RunRecorder.on_train_batch_end
def stop(self, trainer, *rest):
    after_step(self, trainer, *rest)
    if trainer.global_step == 10:
        os.kill(os.getpid(), signal.SIGKILL)
RunRecorder.on_train_batch_end = stop
main(sys.argv[1:])
"""
KILL_PREDICTION = """
import os, signal, sys
from audiostride.cli import main
from audiostride.evaluation.journal import Journal
add = Journal.add
def stop(self, *rest, **named):
    add(self, *rest, **named)
    if self.n_done == 7:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.add = stop
main(sys.argv[1:])
"""


def write_clips(folder: Path) -> None:
    """Sixteen short beating tones, low or high, slow or fast, with their manifest; a longer one, and a file of none."""
    rng = np.random.default_rng(0)
    (folder / "audio").mkdir()
    (folder / "recordings").mkdir()
    rows = []
    splits = ["train"] * 8 + ["valid"] * 4 + ["test"] * 4
    for number, split in enumerate(splits):
        high, fast = number % 2, number // 2 % 2
        name = f"audio/{number:02d}.flac"
        times_s = np.arange(rng.integers(3200, 4800)) / SAMPLE_RATE
        tone = np.sin(2 * np.pi * (300 + 900 * high + rng.uniform(0, 200)) * times_s)
        beat = 1 + np.sin(2 * np.pi * (6 + 14 * fast) * times_s)
        soundfile.write(str(folder / name), 0.05 * tone * beat, SAMPLE_RATE, subtype="PCM_16")
        labels = {"pitch": ["low", "high"][high], "beat": ["slow", "fast"][fast]}
        rows.append({"path": name, "split": split, **labels})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False, lineterminator="\n")
    times_s = np.arange(int(2.3 * SAMPLE_RATE)) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * np.where(times_s < 1.2, 350, 1250) * times_s)
    soundfile.write(str(folder / "recordings" / "long.flac"), 0.05 * tone, SAMPLE_RATE, subtype="PCM_16")
    (folder / "recordings" / "broken.flac").write_text("no audio\n")


def probe() -> str:
    """A checksum of what this machine's arithmetic makes of fixed numbers, forward and backward."""
    numbers = torch.arange(4 * 8 * 50 * 32, dtype=torch.float32).mul_(0.7311).remainder_(1).reshape(4, 8, 50, 32) - 0.5
    weight = (torch.arange(16 * 8 * 3, dtype=torch.float32) * 0.377).sin_().reshape(16, 8, 3, 1).requires_grad_()
    matrix = (torch.arange(25 * 50, dtype=torch.float32) * 0.193).cos_().reshape(25, 50).requires_grad_()
    maps = torch.nn.functional.conv2d(numbers, weight, padding=(1, 0)).relu()
    maps = torch.nn.functional.batch_norm(maps, None, None, training=True)
    square = (torch.arange(6 * 16 * 9, dtype=torch.float32) * 0.259).sin_().reshape(6, 16, 3, 3)
    squares = [torch.nn.functional.conv2d(maps, square, stride=stride, padding=1) for stride in (1, 2)]
    spectrum = torch.fft.rfft(matrix @ maps, dim=-1).abs()
    loss = torch.nn.functional.cross_entropy((spectrum + 1e-3).log().amax(dim=(-2, -1)), torch.tensor([1, 5, 9, 13]))
    loss.backward()
    found = [maps, *squares, spectrum, loss, weight.grad, matrix.grad]
    return hashlib.blake2b(b"".join(each.detach().numpy().tobytes() for each in found), digest_size=16).hexdigest()


def run(work: Path, *arguments: str, program: str | None = None, ends: int = 0) -> None:
    """A command in a process of its own."""
    command = ["-c", program] if program else ["-m", "audiostride"]
    done = subprocess.run([sys.executable, *command, *arguments], cwd=work, check=False)
    if done.returncode != ends:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}, not {ends}")


def keep(work: Path) -> None:
    """Copy what is needed into `FILES`: of one finished run all, of the others what a test reads."""
    shutil.rmtree(FILES, ignore_errors=True)
    FILES.mkdir()
    for each in work.iterdir():
        if each.is_file():
            shutil.copy(each, FILES)
        elif each.name not in RUNS or each.name == "one_task":
            shutil.copytree(each, FILES / each.name)
        else:
            (FILES / each.name).mkdir()
            for file in (file for pattern in KEPT for file in each.glob(pattern)):
                shutil.copy(file, FILES / each.name)
    for file in FILES.glob("*/environment.json"):
        facts: dict[str, Any] = json.loads(file.read_text())
        file.write_text(json.dumps(facts | {"platform": "Linux"}, indent=2) + "\n")


def main(work: Path) -> None:
    """Write all of it anew, in a new folder."""
    version = subprocess.run(
        [sys.executable, "-m", "audiostride", "--version"], capture_output=True, text=True, check=True
    ).stdout
    if "0.1.0" not in version:
        raise SystemExit(f"make.py must be run with audiostride 0.1.0, got {version.strip()}")
    work.mkdir()
    write_clips(work)
    torch.set_num_threads(1)
    (work / "probe.txt").write_text(probe() + "\n")
    run(work, "prepare", "manifest.csv", "-o", "store")
    for name, settings in RUNS.items():
        run(work, "train", "--out", name, *settings)
    run(work, "train", "--out", "stopped", *STOPPED, program=KILL_TRAINING, ends=-signal.SIGKILL)
    run(work, *PREDICT, ends=2)  # one file cannot be read
    for name in ("predictions.csv", "predictions.errors.csv"):
        os.replace(work / name, work / name.replace("predictions", "expected"))
    run(work, "predict", "one_task", "audio", "-o", "expected_windows.csv", "--per-window", "--device", "cpu")
    run(work, *PREDICT, program=KILL_PREDICTION, ends=-signal.SIGKILL)
    keep(work)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

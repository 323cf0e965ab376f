"""Speed and memory of `audiostride predict`: one long recording, the same cut into parts, and many short files.

Data: real clips with --manifest, strung together; without it noise.
Command: python recipes/bench_predict.py --manifest MANIFEST [--hours 10] [--smoke]
Expected: see recipes/RESULTS.md for a table with its machine. About 10 minutes on 2 cores; let nothing run beside it.

The network is not trained: random weights, and a head that parts the windows at their median. Memory is the peak above
the process with the model loaded. "per core" is audio by processor time, which other jobs disturb less than the clock.
The events of the parts, joined where they meet at a border, must be those of the whole recording.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch

from audiostride import AudioClassifier, ClassifierConfig
from audiostride.audio.resampling import read_audio
from audiostride.models import save_classifier
from lab.clips import read_clips

RATE = 16000
CHILD = """
import json, sys, time
from audiostride import cli, load_classifier
from audiostride.inference import job
from audiostride.training import hardware
cpu = load_classifier(sys.argv[2]).heads[0].weight.device
idle, cpu_s, start = hardware.resident_mib(cpu), time.process_time(), time.perf_counter()
cli.main(sys.argv[1:])
print(json.dumps([time.perf_counter() - start, time.process_time() - cpu_s, hardware.peak_memory_mib(cpu) - idle]))
"""


def seconds_of_sound(manifest: str | None, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """One second after another of the clips of a manifest in random order, or of noise."""
    paths = [] if manifest is None else read_clips(manifest, label="path")["path"].tolist()
    held = np.zeros(0, dtype=np.float32)
    while True:
        for path in rng.permutation(paths or [""]).tolist():
            more = read_audio(path) if path else rng.uniform(0, 0.3) * rng.standard_normal(RATE)
            held = np.concatenate([held, more]).astype(np.float32).clip(-1, 1)
            while len(held) >= RATE:
                yield held[:RATE]
                held = held[RATE:]


def write_recordings(folder: Path, sound: Iterator[np.ndarray], parts: int, part_s: int, short: int) -> None:
    """One recording, its parts, and files of one second."""
    for name in ("parts", "short"):
        (folder / name).mkdir()
    with soundfile.SoundFile(folder / "long.flac", "w", RATE, 1) as whole:
        for number in range(parts):
            with soundfile.SoundFile(folder / "parts" / f"{number:03d}.flac", "w", RATE, 1) as part:
                for _, second in zip(range(part_s), sound, strict=False):
                    whole.write(second)
                    part.write(second)
    for number, second in zip(range(short), sound, strict=False):
        soundfile.write(folder / "short" / f"{number:05d}.wav", second, RATE)


def make_model(folder: Path, width: float) -> None:
    """Random weights; the head is scaled so that its two classes are spread and even."""
    torch.manual_seed(0)
    model = AudioClassifier(ClassifierConfig(tasks={"kind": ["low", "high"]}, width=width)).eval()
    samples = soundfile.read(folder / "long.flac", frames=32 * RATE, dtype="float32")[0]
    with torch.no_grad():
        lean = model(torch.from_numpy(samples.reshape(-1, RATE)))["kind"] @ torch.tensor([-1.0, 1.0])
        model.heads[0].bias[0] += lean.median()
        for values in model.heads[0].parameters():
            values *= 3 / lean.std()
    save_classifier(model, folder / "model.safetensors")


def join_parts(events: pd.DataFrame, part_s: int) -> list[list[object]]:
    """Events of the parts in the time of the whole recording, those that meet at a border joined."""
    joined: list[list[object]] = []
    for label, own in events.groupby("label"):
        for path, start_s, end_s, score in own[["path", "start_s", "end_s", "score"]].to_numpy().tolist():
            shift = part_s * int(Path(path).stem)
            if joined and [joined[-1][0], joined[-1][2]] == [label, shift + start_s]:
                joined[-1][2:] = [shift + end_s, max(joined[-1][3], score)]
            else:
                joined.append([label, shift + start_s, shift + end_s, score])
    return joined


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--manifest", help="clips that the recordings are made of")
parser.add_argument("--hours", type=int, default=10, help="length of the long recording, cut at each hour")
parser.add_argument("--short", type=int, default=10000, help="files of one second")
parser.add_argument("--smoke", action="store_true", help="two parts of 16 s, 20 files, width 0.03")
given = parser.parse_args()
parts, part_s, short, width = (2, 16, 20, 0.03) if given.smoke else (given.hours, 3600, given.short, 1.0)
with tempfile.TemporaryDirectory() as made:
    folder, sound = Path(made), seconds_of_sound(given.manifest, np.random.default_rng(0))
    write_recordings(folder, sound, parts, part_s, short)
    make_model(folder, width)
    print(
        "| job | audio (h) | seconds | x real time | per core | memory (MiB) |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name, audio_s in {"long.flac": parts * part_s, "parts": parts * part_s, "short": short}.items():
        options = [f"{made}/model.safetensors", f"{made}/{name}", "-o", f"{made}/{name}.csv", "--device", "cpu"]
        command = [sys.executable, "-c", CHILD, "predict", *options, "--events"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds, cpu_s, mib = json.loads(done.stdout.splitlines()[-1])
        rates = f"{audio_s / seconds:,.0f} | {audio_s / cpu_s:,.0f}"
        print(f"| {name} | {audio_s / 3600:.2f} | {seconds:.1f} | {rates} | {mib:.0f} |", flush=True)
    whole = pd.read_csv(folder / "long.flac.csv").sort_values(["label", "start_s"])
    joined = join_parts(pd.read_csv(folder / "parts.csv"), part_s)
same = whole[["label", "start_s", "end_s", "score"]].to_numpy().tolist() == joined
print(f"\n{len(whole)} events; those of the parts are {'the same' if same else 'others'}")
sys.exit(not same)

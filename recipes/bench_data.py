"""Speed of reading audio: windows per second on one core from files, the store and other readers; waiting; prepare.

Data: none (noise with the spectrum and the level changes of speech), or real clips with --manifest, strung together.
Command: python recipes/bench_data.py [--manifest M] [--part read|train|prepare|rows|all]
Expected: see recipes/RESULTS.md for tables with their machine. About 5 minutes on 2 cores; let nothing run beside it.

Readings take turns, so that a change of the machine's speed falls on all of them, and each is the median of its turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from audiostride.audio.log_mel import log_mel_spectrogram
from audiostride.audio.resampling import read_audio
from audiostride.dataset.prepare import prepare_store
from audiostride.dataset.readers import open_reader
from audiostride.training.batches import ExcerptBatches
from audiostride.training.hardware import describe_environment
from lab.clips import read_clips

RATE = 16000
BATCH = 64


def make_recording(seconds: float, rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise whose density falls with frequency as that of speech does, in syllables and pauses."""
    n = round(seconds * rate)
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequencies_hz = np.fft.rfftfreq(n, 1 / rate)
    spectrum /= 1 + (frequencies_hz / 500) ** 1.5
    samples = np.fft.irfft(spectrum, n)
    beats = np.interp(np.arange(n) / rate, np.arange(0, seconds + 0.25, 0.25), rng.uniform(0, 1, int(seconds * 4) + 1))
    samples *= beats**3
    return (0.5 * samples / np.abs(samples).max()).astype(np.float32)


def write_recordings(folder: Path, *, files: int, seconds: float, manifest: str | None) -> None:
    """The same recordings as 16 kHz FLAC and WAV and as 48 kHz, 24 bit, stereo FLAC, with a manifest of each kind."""
    rng = np.random.default_rng(0)
    real: Iterator[NDArray[np.float32]] = iter(())
    if manifest:
        reader = open_reader(read_clips(manifest, label="path"), progress=False)
        order = rng.permutation(len(reader))
        real = (reader.read(int(index), 0, int(reader.n_samples[index])) for _ in range(1000) for index in order)
    rows: dict[str, list[str]] = {"flac": [], "wav": [], "48k": []}
    for number in range(files):
        if manifest:
            parts: list[NDArray[np.float32]] = []
            while sum(map(len, parts)) < seconds * RATE:
                parts.append(next(real))
            samples = np.concatenate(parts)[: round(seconds * RATE)]
        else:
            samples = make_recording(seconds, RATE, rng)
        soundfile.write(folder / f"{number}.flac", samples, RATE)
        soundfile.write(folder / f"{number}.wav", samples, RATE, subtype="PCM_16")
        high = soxr.resample(samples, RATE, 48000)
        soundfile.write(folder / f"{number}_48k.flac", np.stack([high, 0.8 * high], axis=1), 48000, subtype="PCM_24")
        for kind, name in (("flac", f"{number}.flac"), ("wav", f"{number}.wav"), ("48k", f"{number}_48k.flac")):
            rows[kind].append(f"{name},{'ab'[number % 2]},train")
    for kind, lines in rows.items():
        (folder / f"{kind}.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")


def median_rates(tasks: dict[str, tuple[int, Callable[[], object]]], *, turns: int) -> dict[str, float]:
    """Windows per second of each task (windows it reads, the task); the tasks take turns."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(turns + 1):
        for name, (_, task) in tasks.items():
            start = time.perf_counter()
            task()
            if turn:  # the first fills caches
                times[name].append(time.perf_counter() - start)
    return {name: count / statistics.median(times[name]) for name, (count, _) in tasks.items()}


def bench_reading(folder: Path, *, turns: int, seconds: float) -> None:
    """Random 1 s excerpts, assembled into float32 batches, on one core."""
    prepare_store(read_clips(folder / "flac.csv"), folder / "store", where="bench", progress=False)
    names = {kind: [str(folder / line.split(",")[0]) for line in lines(folder / f"{kind}.csv")] for kind in KINDS}
    rng = np.random.default_rng(1)

    def excerpts(kind: str, count: int, read: Callable[[str, float], NDArray[np.float32]]) -> Callable[[], object]:
        files = rng.integers(len(names[kind]), size=count).tolist()
        starts_s = rng.uniform(0, seconds - 1, count).tolist()

        def run() -> object:
            for first in range(0, count, BATCH):
                batch = np.zeros((min(BATCH, count - first), RATE), dtype=np.float32)
                for row, file, start_s in zip(batch, files[first:], starts_s[first:], strict=False):
                    samples = read(names[kind][file], start_s)
                    row[: len(samples)] = samples[:RATE]
            return batch

        return run

    def plain(path: str, start_s: float) -> NDArray[np.float32]:
        samples, _ = soundfile.read(path, start=round(start_s * RATE), frames=RATE, dtype="float32")
        return samples

    def with_librosa(path: str, start_s: float) -> NDArray[np.float32]:
        return librosa.load(path, sr=RATE, offset=start_s, duration=1.0)[0]

    def ours(table: Path | str, n_batches: int, **options: float) -> Callable[[], object]:
        reader = open_reader(read_clips(table), progress=False, **options)
        batches = ExcerptBatches(reader, np.zeros(len(reader), dtype=np.int64), batch_size=BATCH, window=RATE, seed=0)

        def run() -> None:
            for step in range(n_batches):
                batches[step]  # let go at once, as training does: the next batch takes its memory

        return run

    memory_map = np.concatenate([soundfile.read(path, dtype="int16")[0] for path in names["wav"]])
    np.save(folder / "map.npy", memory_map)
    mapped = np.load(folder / "map.npy", mmap_mode="r")
    map_starts = rng.integers(len(mapped) - RATE, size=100 * BATCH).tolist()

    def plain_map() -> object:
        for first in range(0, len(map_starts), BATCH):
            batch = np.empty((BATCH, RATE), dtype=np.float32)
            for row, start in zip(batch, map_starts[first : first + BATCH], strict=True):
                row[:] = mapped[start : start + RATE]
            batch /= 32768
        return batch

    store = open_reader(read_clips(folder / "store"), progress=False)
    epoch = ExcerptBatches(store, np.zeros(len(store), dtype=np.int64), batch_size=BATCH, window=RATE, seed=0)
    noise = torch.randn(BATCH, RATE)
    second = rng.standard_normal(48000).astype(np.float32)
    steps = max(1, round(len(names["flac"]) * seconds / BATCH))

    def run_epoch() -> None:
        for step in range(steps):
            log_mel_spectrogram(epoch[step]["waveform"])

    tasks: dict[str, tuple[int, Callable[[], object]]] = {
        "soundfile, FLAC": (512, excerpts("flac", 512, plain)),
        "soundfile, WAV": (1024, excerpts("wav", 1024, plain)),
        "librosa.load, FLAC": (256, excerpts("flac", 256, with_librosa)),
        "librosa.load, FLAC 48 kHz stereo": (64, excerpts("48k", 64, with_librosa)),
        "audiostride, FLAC": (512, ours(folder / "flac.csv", 8, memory_mib=0)),
        "audiostride, WAV": (1024, ours(folder / "wav.csv", 16, memory_mib=0)),
        "audiostride, FLAC 48 kHz stereo": (64, ours(folder / "48k.csv", 1, memory_mib=0)),
        "audiostride, store": (100 * BATCH, ours(folder / "store", 100)),
        "a plain int16 memory map": (100 * BATCH, plain_map),
        "frontend alone (log-mel)": (BATCH, lambda: log_mel_spectrogram(noise)),
        "resampling alone, 48 to 16 kHz": (64, lambda: [soxr.resample(second, 48000, RATE) for _ in range(64)]),
        "a whole epoch: store and frontend": (steps * BATCH, run_epoch),
    }
    torch.set_num_threads(1)
    with one_core():
        rates = median_rates(tasks, turns=turns)
    reference = rates["soundfile, FLAC"]
    print(f"\nRandom 1 s excerpts of {seconds:g} s recordings, into float32 batches of {BATCH}, one core:\n")
    print_table(
        ["read with", "windows/s", "x soundfile, FLAC"],
        [[name, f"{rate:,.0f}", f"{rate / reference:.2f}"] for name, rate in rates.items()],
    )
    print(
        f"\nAn epoch is as many excerpts as there are seconds of audio: {steps * BATCH:,}. {describe_aliasing(folder)}"
    )


def describe_aliasing(folder: Path) -> str:
    """What is left of tones above 8 kHz when files of 44.1 and 48 kHz are read at 16 kHz."""
    worst_db = -np.inf
    for rate in (44100, 48000):
        for frequency_hz in (8200, 8400, 9000, 12000, 15800):
            tone = 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(2 * rate) / rate)
            soundfile.write(folder / "tone.wav", tone, rate, subtype="FLOAT")
            left = np.abs(read_audio(folder / "tone.wav")[RATE // 2 : -RATE // 2]).max()  # without the tone's ends
            worst_db = max(worst_db, 20 * np.log10(left / 0.5))
    return f"Tones from 8.2 to 15.8 kHz alias at {worst_db:.0f} dB or less."


KINDS = ("flac", "wav", "48k")


def lines(table: Path) -> list[str]:
    """The rows of a small manifest."""
    return table.read_text().splitlines()[1:]


class one_core:
    """Keeps this process and its threads on one core."""

    def __enter__(self) -> None:
        self.before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        if self.before:
            os.sched_setaffinity(0, {min(self.before)})

    def __exit__(self, *_: object) -> None:
        if self.before:
            os.sched_setaffinity(0, self.before)


def bench_waiting(folder: Path, *, width: float) -> None:
    """The share of a training that is spent waiting for data."""
    from audiostride import AudioClassifier, ClassifierConfig

    torch.set_num_threads(os.cpu_count() or 1)
    model = AudioClassifier(ClassifierConfig(tasks={"label": ["a", "b"]}, width=width))
    optimizer = torch.optim.Adam(model.parameters())
    rows = []
    for name, table, options in (
        ("store", folder / "store", {}),
        ("FLAC, decoded in memory", folder / "flac_parts.csv", {}),
        ("FLAC, from disk", folder / "flac.csv", {"memory_mib": 0}),
    ):
        reader = open_reader(read_clips(table), progress=False, **options)
        batches = ExcerptBatches(reader, np.zeros(len(reader), dtype=np.int64), batch_size=32, window=RATE, seed=0)
        waiting = working = 0.0
        for step in range(12):
            start = time.perf_counter()
            batch = batches[step]
            loaded = time.perf_counter()
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(batch["waveform"])["label"], batch["class_index"])
            loss.backward()
            optimizer.step()
            model.project_strides_()
            if step >= 2:
                waiting, working = waiting + loaded - start, working + time.perf_counter() - loaded
        rows.append([name, f"{1000 * waiting / 10:.2f}", f"{1000 * working / 10:.0f}", percent(waiting, working)])
    print(f"\nTraining on this CPU, width {width:g}, batch 32, no worker process:\n")
    print_table(["data", "reading (ms/step)", "training (ms/step)", "waiting"], rows)


def percent(part: float, rest: float) -> str:
    """A share in percent."""
    return f"{100 * part / (part + rest):.2f} %"


def bench_prepare(folder: Path) -> None:
    """`audiostride prepare` of 1,000 clips: time, cores and memory."""
    rows = []
    for kind, seconds, n_clips in (("flac", 10, 1000), ("48k", 10, 1000)):
        files = [line.split(",")[0] for line in lines(folder / f"{kind}.csv")]
        length = round(soundfile.info(folder / files[0]).duration)
        places = [(file, start) for start in range(0, length - seconds + 1, seconds) for file in files]
        table = folder / f"{kind}_{n_clips}.csv"
        cut = [f"{file},{start},{seconds},a" for file, start in (places * n_clips)[:n_clips]]
        table.write_text("\n".join(["path,start_s,duration_s,label", *cut]) + "\n")
        out = folder / f"store_{kind}"
        found = run_measured(["prepare", str(table), "-o", str(out)])
        hours = n_clips * seconds / 3600
        rows.append(
            [
                f"1,000 clips of {seconds} s, {'FLAC 16 kHz' if kind == 'flac' else 'FLAC 48 kHz stereo 24 bit'}",
                f"{found['wall_s']:.1f}",
                f"{found['cpu_s'] / found['wall_s']:.2f}",
                f"{found['memory_mib']:.0f}",
                f"{3600 * hours / found['wall_s']:,.0f}",
            ]
        )
    print("\n`audiostride prepare`, the whole process with its start:\n")
    print_table(["clips", "seconds", "cores used", "peak memory (MiB)", "x real time"], rows)


def bench_rows(folder: Path, counts: list[int]) -> None:
    """What a row costs: reading a manifest, check and prepare, at several numbers of rows."""
    soundfile.write(folder / "parts.wav", make_recording(100.0, RATE, np.random.default_rng(2)), RATE)
    rows = []
    for count in counts:
        starts = np.round(np.arange(count) * (99.8 / count), 6)
        parts = pd.DataFrame({"path": "parts.wav", "start_s": starts, "duration_s": 0.1})
        parts["label"] = np.where(np.arange(count) % 2, "a", "b")
        parts["split"] = np.array(["train", "valid", "test"])[np.arange(count) % 3]
        table = folder / f"rows_{count}.csv"
        parts.to_csv(table, index=False)
        cells = [f"{count:,}"]
        commands = [["check", str(table)], ["prepare", str(table), "-o", str(folder / f"rows_{count}")]]
        for command in commands:
            found = run_measured(command)
            cells += [f"{found['wall_s']:.1f}", f"{1e6 * found['wall_s'] / count:,.0f}", f"{found['memory_mib']:.0f}"]
        rows.append(cells)
    print("\nClips of 0.1 s, whole commands:\n")
    print_table(["rows", "check (s)", "us/row", "MiB", "prepare (s)", "us/row", "MiB"], rows)


def run_measured(command: list[str]) -> dict[str, float]:
    """Wall and CPU seconds and peak memory of a command of audiostride, in a process of its own."""
    code = (
        "import json, re, time\nstart = time.perf_counter()\nfrom audiostride.cli import main\n"
        f"code = main({command!r})\n"
        # The peak that getrusage tells includes that of the process that started this one.
        "peak = int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read()).group(1))\n"
        "print(json.dumps({'code': code, 'wall_s': time.perf_counter() - start, 'cpu_s': time.process_time(),"
        " 'memory_mib': peak / 1024}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if found["code"] not in (0, 1):
        sys.exit(done.stderr)
    return found


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", help="real clips to string together instead of noise")
    parser.add_argument("--part", choices=["read", "train", "prepare", "rows", "all"], default="all")
    parser.add_argument("--files", type=int, default=30, help="recordings that are made")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a recording")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--width", type=float, default=0.25, help="of the network whose waiting is measured")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10000, 100000], help="rows of manifests")
    arguments = parser.parse_args()
    machine = describe_environment(torch.device("cpu"))
    print(f"{machine['device']}, {machine['cpus']} cores; " + ", ".join(
        f"{name} {machine['packages'][name]}" for name in ("soundfile", "soxr", "librosa", "numpy", "torch")
    ))  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_recordings(folder, files=arguments.files, seconds=arguments.seconds, manifest=arguments.manifest)
        short = [f"{line.split(',')[0]},0,30,a,train" for line in lines(folder / "flac.csv")]
        (folder / "flac_parts.csv").write_text("\n".join(["path,start_s,duration_s,label,split", *short]) + "\n")
        if arguments.part in ("read", "train", "all"):
            bench_reading(folder, turns=arguments.turns, seconds=arguments.seconds)
        if arguments.part in ("train", "all"):
            bench_waiting(folder, width=arguments.width)
        if arguments.part in ("prepare", "all"):
            bench_prepare(folder)
        if arguments.part in ("rows", "all"):
            bench_rows(folder, arguments.rows)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")

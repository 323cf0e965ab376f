"""Speed and memory of the whole training of the paper's multi-task network: data, training step, what bounds it.

Data: none (noise in stores of its own, in a temporary folder: four sources with clips as long as the archives').
Command: python recipes/bench_training.py [--device cuda] [--workers 4] [--compile] [--profile]
    on a CPU: python recipes/bench_training.py --width 0.125 --batch-size 32 --threads 1
Expected: see recipes/RESULTS.md for tables with their machines; the aims on one H200: less than 5 % waiting for data,
    and 1 M steps of DiffStride nominal in less than 12 hours.
Hardware: made for a GPU with bfloat16; no GPU figures yet. Let nothing run beside it.
Time: --smoke 26 s; on one CPU thread beside other jobs, batch 32, 2.5 minutes at width 0.125 and 3.5 at 0.25.

A step is that of `audiostride train` (`Learner.take_step`: autocast, Adam, schedule, projected strides), without
validation, checkpoints and progress bar. Settings are the paper's: Adam at 1e-4, batches
that mix scenes, birds, notes and words. Strides stay at the paper's, with their gradients: sizes must not drift.
Variants take turns, so that a change of the machine's speed falls on all of them; ratios are medians over rounds.
"""

import argparse
import gc
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from audiostride import AudioClassifier, ClassifierConfig
from audiostride.checks import check_count, check_positive
from audiostride.dataset.prepare import prepare_store
from audiostride.dataset.readers import open_reader
from audiostride.dataset.sampling import source_shares
from audiostride.errors import InputError
from audiostride.training.batches import ExcerptBatches, MixedBatches
from audiostride.training.config import TrainConfig
from audiostride.training.hardware import choose_device, choose_precision, describe_environment
from audiostride.training.launching import launch_fabric
from audiostride.training.loading import load_batches
from audiostride.training.loop import Learner
from audiostride.training.loss import ClassifierTraining
from audiostride.training.presets import preset_settings
from bench_pooling import MODELS, peak_mib, print_table, synchronize
from lab.archives import write_sound
from lab.clips import read_clips
from lab.gpu.part import covered_us, device_events

VARIANTS = {
    "strided": MODELS["strided convolution"],
    "spectral": MODELS["spectral, after each convolution"],
    "DiffStride mixed": MODELS["DiffStride mixed, after each convolution"],
    "DiffStride nominal": MODELS["DiffStride nominal, after each convolution"],
    "DiffStride paper": MODELS["DiffStride paper, after the block"],
}
CLASSES = {"scenes": 10, "birds": 2, "instrument": 11, "pitch": 128, "speech": 35}
# Seconds of a clip of each archive, and the tasks that it has labels for.
SOURCES = {"tut": (10.0, ["scenes"]), "birds": (10.0, ["birds"]), "nsynth": (4.0, ["instrument", "pitch"]),
           "words": (1.0, ["speech"])}  # fmt: skip
RATE = 16000
HELD = 8  # batches that lie on the device in the pass without data
PROFILED = 10  # steps under the profiler at most
# Parts of operators' names, the first that fits.
GROUPS = {
    "compiled": ("triton", "Compiled"),
    "optimizer": ("_foreach", "adam"),
    "convolution": ("convol", "conv2d"),
    "batch norm": ("batch_norm",),
    "matrix product": ("mm", "matmul", "linear", "einsum"),
    "FFT": ("fft", "stft"),
    "copy, cast, layout": ("copy", "cat", "clone", "pad", "index", "stack", "as_strided", "Memcpy"),
}


def make_stores(folder: Path, *, clips: int) -> None:
    """A store of noise for each source."""
    for name, (seconds, _) in SOURCES.items():
        files = [f"{name}_{number}.wav" for number in range(clips)]
        for file in files:
            write_sound(folder / file, [], sample_rate=RATE, seconds=seconds)
        rows = [f"{file},{'ab'[number % 2]},train" for number, file in enumerate(files)]
        (folder / f"{name}.csv").write_text("\n".join(["path,label,split", *rows]) + "\n", encoding="utf-8")
        prepare_store(read_clips(folder / f"{name}.csv"), folder / name, where="bench", progress=False)


def open_batches(folder: Path, *, batch_size: int) -> MixedBatches:
    """Training batches of the stores, all tasks alike, with classes at random."""
    rng = np.random.default_rng(0)
    sources = []
    for name, (_, own) in SOURCES.items():
        reader = open_reader(read_clips(folder / name), progress=False)
        drawn = [rng.integers(count, size=len(reader)) for count in CLASSES.values()]
        classes = np.stack([drawn[i] if task in own else np.full(len(reader), -1) for i, task in enumerate(CLASSES)], 1)
        sources.append(ExcerptBatches(reader, classes, batch_size=batch_size, window=RATE, seed=0))
    n_tasks = [len(own) for _, own in SOURCES.values()]
    shares = source_shares([len(source.reader) for source in sources], "uniform", n_tasks=n_tasks)
    return MixedBatches(sources, shares, batch_size=batch_size, seed=0)


def make_training(variant: str, arguments: argparse.Namespace) -> ClassifierTraining:
    """The paper's settings but for the variant's, the options', and strides that stay where they are."""
    settings = {"width": arguments.width, "ramp_bins": None, **VARIANTS[variant]}
    given = {"batch_size": arguments.batch_size, "stride_lr": 0.0, "out": "unused"}
    tasks = [f"{task}=unused:label" for task in CLASSES]
    config = TrainConfig(**{**preset_settings("paper"), **settings, **given, "task": tasks})
    torch.manual_seed(0)
    names = {task: [str(index) for index in range(count)] for task, count in CLASSES.items()}
    model = AudioClassifier(ClassifierConfig.from_dict({"tasks": names, **settings}))
    if arguments.compile:
        # Every network made here has graphs of its own; and an error where the compiler gives up, not plain kernels.
        torch._dynamo.config.recompile_limit = 64
        model.frontend.compile(fullgraph=True)
        model.classify_spectrogram = torch.compile(model.classify_spectrogram, fullgraph=True)  # type: ignore[method-assign]
    return ClassifierTraining(model, config)


def run_steps(
    training: ClassifierTraining, feed: DataLoader[Any], arguments: argparse.Namespace, *, warm_up: int, profiler: Any
) -> float:
    """Train on what a loader gives; seconds of the steps after those that warm up, with a wait at both ends only."""
    device, batches = torch.device(arguments.device), iter(feed)
    learner = Learner(training, launch_fabric(device=device, precision=arguments.precision))
    for step in range(warm_up):
        learner.take_step(batches, step)
    synchronize(device)
    with profiler or nullcontext():
        start = time.perf_counter()
        for step in range(warm_up, len(feed)):
            learner.take_step(batches, step)
        synchronize(device)
        return time.perf_counter() - start


def open_loader(folder: Path, arguments: argparse.Namespace, *, last: int) -> DataLoader[Any]:
    """The loader of training, for the steps before `last`."""
    batches = open_batches(folder, batch_size=arguments.batch_size)
    pin = arguments.device == "cuda"
    return load_batches(batches, workers=arguments.workers, sampler=range(last), pin=pin)


def hold_batches(folder: Path, arguments: argparse.Namespace, *, last: int) -> DataLoader[Any]:
    """A loader of as many steps that gives a few batches over and over, which lie on the device already."""
    batches = open_batches(folder, batch_size=arguments.batch_size)
    kept = [{name: value.to(arguments.device) for name, value in batches[step].items()} for step in range(HELD)]
    return load_batches([kept[step % HELD] for step in range(last)])  # type: ignore[arg-type]


def time_steps(
    training: ClassifierTraining, folder: Path, arguments: argparse.Namespace, *, held: bool, profiler: Any = None
) -> float:
    """Seconds per step: with batches from the loader, or with some that lie on the device already."""
    steps = min(arguments.steps, PROFILED) if profiler else arguments.steps
    feed = (hold_batches if held else open_loader)(folder, arguments, last=arguments.warm_up + steps)
    return run_steps(training, feed, arguments, warm_up=arguments.warm_up, profiler=profiler) / steps


def time_reading(folder: Path, arguments: argparse.Namespace) -> float:
    """Seconds per batch of the loader alone, where nothing is done with them."""
    batches = iter(open_loader(folder, arguments, last=arguments.warm_up + arguments.steps))
    for _ in range(arguments.warm_up):
        next(batches)
    start = time.perf_counter()
    for _ in batches:
        pass
    return float((time.perf_counter() - start) / arguments.steps)


def training_memory(variant: str, folder: Path, arguments: argparse.Namespace) -> float:
    """Peak memory of three steps in MiB, with weights, gradients and Adam's moments.

    On a GPU that of tensors; on a CPU (Linux) that of the process beyond what it had before the model was made, which
    needs a process of its own with ``MALLOC_MMAP_THRESHOLD_`` set.
    """
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    for _ in range(2):  # libraries load and make room in the first
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        before = 0.0 if device.type == "cuda" else peak_mib()
        training = make_training(variant, arguments)
        run_steps(training, open_loader(folder, arguments, last=3), arguments, warm_up=1, profiler=None)
        peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_mib()
        del training
    return peak - before


def measure(folder: Path, variants: list[str], arguments: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Peak memory of each variant, and its seconds per step in each round, with the loader and without."""
    task = partial(training_memory, folder=folder, arguments=arguments)
    if arguments.device == "cuda":
        memory = [task(variant) for variant in variants]
    else:
        # Every block a mapping of its own: the peak is that of live memory, without the gaps between freed blocks.
        os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # may have processes that read
            memory = list(pool.map(task, variants))
        del os.environ["MALLOC_MMAP_THRESHOLD_"]
    trainings = {variant: make_training(variant, arguments) for variant in variants}
    found: dict[str, dict[str, list[float]]] = {
        variant: {"memory": [mib], "loader": [], "held": []} for variant, mib in zip(variants, memory, strict=True)
    }
    for number in range(arguments.rounds):
        kinds = ("held", "loader") if number % 2 else ("loader", "held")  # neither is always the later one
        for variant, training in trainings.items():
            for kind in kinds:
                found[variant][kind].append(time_steps(training, folder, arguments, held=kind == "held"))
    return found


def waiting_shares(times: dict[str, list[float]]) -> list[float]:
    """Share of a step with the loader that a step without data does not take, in each round."""
    return [1 - held / loader for loader, held in zip(times["loader"], times["held"], strict=True)]


def table_rows(found: dict[str, dict[str, list[float]]]) -> list[list[str]]:
    """A row per variant, the first being strided convolution, which ratios are relative to."""
    first = next(iter(found.values()))
    rows = []
    for variant, times in found.items():
        step_s = median(times["loader"])
        ratio = median(own / strided for own, strided in zip(times["loader"], first["loader"], strict=True))
        memory, memory_ratio = times["memory"][0], times["memory"][0] / first["memory"][0]
        cells = [f"{1 / step_s:.2f}", f"{1e3 * step_s:.1f}", f"{ratio:.2f} x", f"{memory:.0f}", f"{memory_ratio:.2f} x"]
        shares = [100 * share for share in waiting_shares(times)]
        waiting = f"{median(shares):.1f} % ({min(shares):.1f} to {max(shares):.1f})"
        rows.append([variant, *cells, waiting, f"{1e6 * step_s / 3600:.1f}"])
    return rows


def group_of(operator: str) -> str:
    """The group that an operator belongs to."""
    return next((group for group, parts in GROUPS.items() if any(part in operator for part in parts)), "other")


def show_profile(variant: str, times: dict[str, list[float]], folder: Path, arguments: argparse.Namespace) -> None:
    """Print where the time of a step goes, and what bounds it."""
    on_gpu = arguments.device == "cuda"
    profiler = profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu])
    wall_s = time_steps(make_training(variant, arguments), folder, arguments, held=True, profiler=profiler)
    steps = min(arguments.steps, PROFILED)
    rows = []
    for row in profiler.key_averages():
        # Kernels count for the operator that has launched them; their own rows would count twice.
        if row.device_type == DeviceType.CPU and not row.is_user_annotation:
            own_us = row.self_device_time_total if on_gpu else row.self_cpu_time_total
            if own_us > 0 and (on_gpu or row.key.startswith("aten::") or "Compiled" in row.key):
                rows.append((own_us / 1e3 / steps, row.key.removeprefix("aten::"), row.count / steps))
    kernels = device_events(profiler)
    if on_gpu and not kernels:
        print("the profiler saw no kernels of this GPU; is it allowed to read the performance counters?\n")
        return
    sum_ms = sum(row[0] for row in rows)
    print(f"{variant}: a step's {'kernels on the GPU, by operator' if on_gpu else 'operators on the CPU'}, "
          f"{sum_ms:.1f} ms; {steps} steps under the profiler, batches on the device\n")  # fmt: skip
    print_table(
        ["operator", "group", "calls", "ms", "share"],
        [[name[:40], group_of(name), f"{calls:.0f}", f"{ms:.2f}", f"{100 * ms / sum_ms:.1f} %"]
         for ms, name, calls in sorted(rows, reverse=True)[:12]],
    )  # fmt: skip
    groups: dict[str, float] = {}
    for ms, name, _ in rows:
        groups[group_of(name)] = groups.get(group_of(name), 0.0) + 100 * ms / sum_ms
    ranked = sorted(groups.items(), key=lambda item: -item[1])
    print("All operators by group: " + ", ".join(f"{group} {share:.1f} %" for group, share in ranked) + ".\n")
    step_s = median(times["loader"])
    data = min(1.0, max(0.0, median(waiting_shares(times))))
    if on_gpu:
        compute = min(1 - data, covered_us(kernels) / 1e6 / steps / step_s)
        how = f"the GPU is busy for {compute * step_s * 1e3:.1f} ms of it, with {len(kernels) / steps:.0f} kernels"
    else:
        compute = (1 - data) * min(1.0, sum_ms / 1e3 / wall_s)
        how = f"operators take {sum_ms:.1f} ms of {wall_s * 1e3:.1f} ms under the profiler"
    shares = {"data": data, "compute": compute, "launch overhead": 1 - data - compute}
    print(f"A step of {step_s * 1e3:.1f} ms, {how}: "
          + ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
          + f". Bound by {max(shares, key=shares.__getitem__)}. Launch overhead is what is left: the host's Python, "
          "Fabric, autograd, launches and reads of strides.\n")  # fmt: skip


def read_options() -> argparse.Namespace:
    """The options, with what depends on the device filled in.

    Raises:
        InputError: Options out of their range; a GPU was asked for and there is none.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--width", type=float, default=1.0, help="factor on the channels (default: the paper's)")
    add("--batch-size", type=int, default=256, help="excerpts per step (default: the paper's)")
    add("--steps", type=int, help="steps that are timed at a time (default: 100 on a GPU, 10 on a CPU)")
    add("--rounds", type=int, default=4, help="how often each variant takes its turn")
    add("--clips", type=int, default=64, help="clips made per source; 64 are 51 MB and lie in memory")
    add("--precision", choices=["auto", "32", "bf16-mixed", "16-mixed"], default="auto")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--threads", type=int, help="threads of the CPU (default: torch's)")
    add("--workers", type=int, help="processes that read batches (default: 4 on a GPU, 0 on a CPU)")
    add("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="VARIANT",
        help=f"beside strided: {', '.join(VARIANTS)}")  # fmt: skip
    add("--compile", action="store_true", help="with torch.compile")
    add("--profile", nargs="?", const="DiffStride nominal", choices=list(VARIANTS), metavar="VARIANT",
        help="then print where the time of a step goes (default: DiffStride nominal)")  # fmt: skip
    add("--smoke", action="store_true", help="a few tiny steps on one CPU thread, which show that everything runs")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.device, arguments.width, arguments.batch_size = "cpu", min(arguments.width, 0.125), 8
        arguments.threads, arguments.steps, arguments.rounds, arguments.clips = 1, 2, 1, 4
    device = choose_device(arguments.device)
    arguments.device, on_gpu = device.type, device.type == "cuda"
    arguments.precision = choose_precision(arguments.precision, device)
    if arguments.steps is None:
        arguments.steps = 100 if on_gpu else 10
    if arguments.workers is None:
        arguments.workers = 4 if on_gpu else 0
    if arguments.threads is None:
        arguments.threads = torch.get_num_threads()
    check_positive("bench_training", width=arguments.width)
    check_count("bench_training", **{
        name: getattr(arguments, name) for name in ("batch_size", "steps", "rounds", "clips", "threads")
    })  # fmt: skip
    if arguments.workers < 0:
        raise InputError(f"bench_training: workers must be >= 0, got {arguments.workers}; 0 reads in this process")
    # More than what workers have read ahead (2 batches each) before the first step.
    arguments.warm_up = max(20 if on_gpu else 3, 4 * arguments.workers)
    return arguments


def main() -> int:
    """Print the table, and the profile that was asked for."""
    arguments = read_options()
    torch.set_num_threads(arguments.threads)
    variants = ["strided", *(variant for variant in VARIANTS if variant in arguments.only and variant != "strided")]
    if arguments.profile and arguments.profile not in variants:
        variants.append(arguments.profile)
    machine = describe_environment(torch.device(arguments.device))
    print(f"{machine['device']}, {machine['cpus']} cores, CPU threads: {machine['threads']}; "
          + ", ".join(f"{name} {machine['packages'][name]}" for name in ("torch", "lightning-fabric"))
          + f"; width {arguments.width:g}, batch {arguments.batch_size}, {arguments.precision}"
          + f"{', compiled' * arguments.compile}, workers: {arguments.workers}; rounds: {arguments.rounds}, each of "
          f"{arguments.steps} steps after {arguments.warm_up} that warm up\n")  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        make_stores(Path(temporary), clips=arguments.clips)
        found = measure(Path(temporary), variants, arguments)
        reading_ms = 1e3 * time_reading(Path(temporary), arguments)
        header = ["pooling", "steps/s", "ms/step", "time", "training memory (MiB)", "memory", "waiting for data"]
        print_table([*header, "hours for 1 M steps"], table_rows(found))
        print("Waiting is (time of a step with the loader - time of a step with batches that lie on the device) / the "
              "former, in the\nsame run, median (lowest to highest round); below zero is noise. The loader alone gives "
              f"a batch in {reading_ms:.1f} ms: a\nstep that is shorter waits once the batches that workers have read "
              "ahead are used up. The stores lie in memory; a cold\ndisk would be slower. Hours are those of steps "
              "alone, without validations.\n")  # fmt: skip
        if arguments.profile:
            show_profile(arguments.profile, found[arguments.profile], Path(temporary), arguments)
    if arguments.smoke:
        print("smoke: a few steps of a tiny network show that everything runs; these figures mean nothing")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted")

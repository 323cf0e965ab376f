"""What a part has found, kept at any time; seconds, memory, waits and kernels of a piece of work."""

import json
import math
import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from audiostride.writing import write_json, write_text
from bench_gpu import markdown
from bench_pooling import synchronize

RATE = 16000  # Hz


class Part:
    """What a part has found so far, written to its files after each table and row: a part may be ended at any time."""

    def __init__(self, name: str, out: Path, *, limit_s: float, smoke: bool) -> None:
        self.file, self.smoke = out / f"{name}.json", smoke
        self.ends = time.monotonic() + limit_s - 3  # the process has started before, and has to end
        self.device = torch.device("cpu" if smoke else "cuda")
        self.found: dict[str, Any] = {"part": name, "status": "running", "machine": describe(self.device)}
        if smoke:
            self.found["smoke"] = "smoke: tiny and on a CPU, it shows that everything runs; its figures mean nothing"
        self.found |= {"tables": [], "notes": []}

    def left_s(self) -> float:
        """Seconds that the part still has."""
        return self.ends - time.monotonic()

    def earlier(self, name: str) -> dict[str, Any]:
        """What another part has found; empty where it has not run."""
        file = self.file.with_name(f"{name}.json")
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return found

    def save(self) -> None:
        """Write the files."""
        write_json(self.file, self.found)
        write_text(self.file.with_suffix(".md"), markdown(self.found))

    def table(self, title: str, header: list[str]) -> Callable[[list[Any]], None]:
        """Begin a table; what comes back adds a row and writes the files."""
        rows: list[list[Any]] = []
        self.found["tables"].append({"title": title, "header": header, "rows": rows})

        def add(row: list[Any]) -> None:
            rows.append(row)
            self.save()

        return add

    def note(self, text: str) -> None:
        """Add a sentence below the tables."""
        self.found["notes"].append(text)
        self.save()

    def size(self, full: int, smoke: int) -> int:
        """A number that is small in a smoke test."""
        return smoke if self.smoke else full


def describe(device: torch.device) -> str:
    """The machine in one line."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return f"{name}; {os.cpu_count()} CPU cores; torch {torch.__version__}, Python {platform.python_version()}"


def seconds_each(tasks: Mapping[str, Callable[[], object]], part: Part, *, turn_s: float = 0.4) -> dict[str, float]:
    """Seconds of each task, which has run before: the median of three turns of about `turn_s` seconds.

    Tasks take turns, which end early where the time of the part is over; in a smoke test there is one, of one run.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    repeats = dict.fromkeys(tasks, 1)
    for turn in range(1 if part.smoke else 4):  # the first shows how many runs make a turn, and does not count
        for name, task in tasks.items():
            synchronize(part.device)
            start = time.perf_counter()
            for _ in range(repeats[name]):
                task()
            synchronize(part.device)
            times[name].append((time.perf_counter() - start) / repeats[name])
            if turn == 0:
                repeats[name] = max(3, min(100, round(turn_s / times[name][0])))
        if part.left_s() < 1.5 * turn_s * len(tasks):
            break
    return {name: median(found[1:] or found) for name, found in times.items()}


def peak_mib(part: Part, work: Callable[[], object]) -> float | None:
    """Peak memory of the GPU's tensors beyond those that are there before the work, in MiB; None on a CPU."""
    if part.device.type != "cuda":
        work()
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def count_waits(step: Callable[[], object], part: Part) -> str:
    """How often the host waits for the GPU in a step, as torch counts it."""
    if part.device.type != "cuda":
        return "-"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return str(sum("called a synchronizing" in str(warning.message) for warning in caught))


def ratio(value: float | None, reference: float | None, paper: float | None = None) -> str:
    """A ratio, beside the paper's."""
    if not value or not reference:
        return "-"
    return f"{value / reference:.2f} x" + (f" ({paper:.2f})" if paper else "")


def profiled(step: Callable[[], object], part: Part, *, steps: int) -> Any:
    """A profile of some steps."""
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (part.device.type == "cuda")]
    with profile(activities=activities, acc_events=True) as found:  # torch 2.11 warns without
        for _ in range(steps):
            step()
        synchronize(part.device)
    return found


def device_events(found: Any) -> list[Any]:
    """What ran on the GPU under a profiler, in the order of its start."""
    events = [each for each in found.events() if each.device_type == DeviceType.CUDA and not each.is_user_annotation]
    return sorted(events, key=lambda each: each.time_range.start)


def covered_us(events: list[Any]) -> float:
    """Microseconds in which at least one of the events runs: kernels of several streams may overlap."""
    covered, end = 0.0, -math.inf
    for span in sorted((each.time_range.start, each.time_range.end) for each in events):
        covered += max(0.0, span[1] - max(span[0], end))
        end = max(end, span[1])
    return covered


def kernels_of(step: Callable[[], object], part: Part) -> tuple[int, float]:
    """Kernels of a step, and seconds in which at least one of them runs; zeros on a CPU."""
    if part.device.type != "cuda":
        return 0, 0.0
    events = device_events(profiled(step, part, steps=3))
    return round(len(events) / 3), covered_us(events) / 3e6

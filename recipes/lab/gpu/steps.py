"""The training step of the paper's multi-task network: its time, its memory, and where the time goes."""

import math
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.nn import functional as F
from torch.profiler import record_function

from audiostride import AudioClassifier, ClassifierConfig
from lab.gpu.part import (
    Part,
    count_waits,
    covered_us,
    device_events,
    kernels_of,
    peak_mib,
    profiled,
    ratio,
    seconds_each,
)  # fmt: skip

TASKS = {"scenes": 10, "birds": 2, "instrument": 11, "pitch": 128, "speech": 35}
VARIANTS: dict[str, dict[str, Any]] = {
    "strided": {"pooling": "strided"},
    "DiffStride mixed": {"size": "mixed"},
    "spectral": {"pooling": "spectral"},
    "DiffStride nominal": {"size": "nominal"},
    "DiffStride paper": {"size": "paper", "pool_after": "block", "ramp_bins": 4.0},
}
# Table A.2 of Riad et al. 2022, relative to strided convolution on one V100: time of a step, peak memory.
PAPER = {"strided": (1.0, 1.0), "spectral": (1.32, 1.02), "DiffStride paper": (1.43, 1.98)}
WIDTHS = {False: 1.0, True: 0.03}  # the paper's, and that of a smoke test
PHASES = ("forward", "backward", "optimizer", "projection of strides")


def make_model(variant: str, part: Part) -> AudioClassifier:
    """The paper's multi-task network with one of the poolings, on the CPU."""
    torch.manual_seed(0)
    names = {task: [str(index) for index in range(count)] for task, count in TASKS.items()}
    return AudioClassifier(
        ClassifierConfig.from_dict({"tasks": names, "width": WIDTHS[part.smoke], **VARIANTS[variant]})
    )


class How(NamedTuple):
    """How a step is computed."""

    name: str
    bf16: bool = False
    """Autocast to bfloat16, else float32."""
    tf32: bool = False
    """Products in TF32, as convolutions are anyway by torch's default."""
    compiled: bool = False
    """By torch.compile."""
    graph: bool = False
    """Replayed as a CUDA graph, as a training does it; sizes of maps are not asked for."""


# What matters most comes first; each compilation may take a minute.
HOWS = [
    How("bf16-mixed", bf16=True),
    How("bf16-mixed, CUDA graph", bf16=True, graph=True),
    How("float32"),
    How("bf16-mixed, compiled", bf16=True, compiled=True),
    How("float32, TF32 products", tf32=True),
    How("float32, compiled", compiled=True),
]


def make_step(model: AudioClassifier, part: Part, how: How, *, batch: int) -> Callable[[], object]:
    """One optimizer step on a batch of noise that lies on the device."""
    device = part.device
    model = model.to(device).train()
    waveform = torch.randn(batch, model.config.window_samples, device=device) / 8
    classes = torch.stack([torch.arange(batch, device=device) % count for count in TASKS.values()], dim=1)
    strides = [parameter for name, parameter in model.named_parameters() if name.endswith("strides")]
    others = [parameter for name, parameter in model.named_parameters() if not name.endswith("strides")]
    groups: list[dict[str, Any]] = [{"params": others}, *([{"params": strides, "lr": 0.0}] if strides else [])]
    optimizer = torch.optim.Adam(groups, lr=1e-4, fused=device.type == "cuda", capturable=how.graph)
    classify: Callable[[Tensor], dict[str, Tensor]] = model.classify_spectrogram
    if how.compiled:
        torch._dynamo.config.recompile_limit = 64  # every network made here has graphs of its own
        # Code for the CPU would take a minute of a smoke test: there the graph is traced and run as it is.
        classify = torch.compile(classify, fullgraph=True, backend="aot_eager" if part.smoke else "inductor")

    def step() -> None:
        with record_function("forward"), torch.autocast(device.type, dtype=torch.bfloat16, enabled=how.bf16):
            logits = classify(model.frontend(waveform))
            losses = [F.cross_entropy(own.float(), classes[:, i]) for i, own in enumerate(logits.values())]
            loss = torch.stack(losses).mean()
        with record_function("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        with record_function("optimizer"):
            optimizer.step()
            optimizer.zero_grad()
        if not how.graph:
            with record_function("projection of strides"):
                model.project_strides_()

    return capture(step) if how.graph else step


def capture(step: Callable[[], None]) -> Callable[[], object]:
    """The replay of a step as a CUDA graph."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    # It keeps the step: the model and the batch, which the graph reads, must live as long as it.
    def replay(kept: object = step) -> None:
        graph.replay()

    return replay


def first_steps(variant: str, part: Part, how: How, *, batch: int) -> tuple[Callable[[], object], float | None]:
    """A step that has run three times, and the peak memory of these."""
    made: list[Callable[[], object]] = []

    def begin() -> None:
        made.append(make_step(make_model(variant, part), part, how, batch=batch))
        for _ in range(part.size(3, 1)):
            made[0]()

    mib = peak_mib(part, begin)
    return made[0], mib


def measure_step(part: Part) -> None:
    """Time and memory of a training step of the paper's multi-task network, for all poolings."""
    batch = part.size(256, 4)
    add = part.table(
        f"Training step of the paper's multi-task network: five heads, width {WIDTHS[part.smoke]:g}, batch {batch}, "
        "1 s of waveform in, log-mel on the device, Adam. Memory is the peak with weights, gradients and moments. "
        "Kernels run: the share of a step in which the GPU computes.",
        ["pooling", "arithmetic", "ms per step", "x strided (paper)", "steps/s", "excerpts/s", "peak memory (MiB)",
         "x strided (paper)", "kernels run", "kernels per step", "host waits per step", "hours for 1 M steps"],
    )  # fmt: skip
    part.found["steps"] = {}
    precision = torch.get_float32_matmul_precision()
    for how in HOWS:
        if part.smoke and (how.graph or how.name == "float32, compiled"):
            continue
        torch.set_float32_matmul_precision("high" if how.tf32 else "highest")
        few = part.smoke and (how.compiled or how.tf32)
        reference: dict[str, Callable[[], object]] = {}
        strided_mib = None
        for variant in ("strided", "DiffStride mixed") if few else VARIANTS:
            if part.left_s() < (60.0 if how.compiled else 10.0):
                part.note(f"{variant}, {how.name}: not reached in the time")
                continue
            started = time.monotonic()
            try:
                step, mib = first_steps(variant, part, how, batch=batch)
            except Exception:
                part.found |= {"status": "failed", "error": f"{variant}, {how.name}:\n{traceback.format_exc()}"}
                part.note(f"{variant}, {how.name}: failed")
                continue
            if how.compiled:
                part.note(f"{variant}, {how.name}: {time.monotonic() - started:.0f} s to compile and for three steps")
            if variant == "strided":  # all others take turns with it
                reference, strided_mib = {variant: step}, mib
            seconds = seconds_each({**reference, variant: step}, part)
            count, busy_s = kernels_of(step, part)
            paper = PAPER.get(variant, (None, None))
            own_s, strided_s = seconds[variant], seconds.get("strided")
            part.found["steps"][f"{variant}, {how.name}"] = {"seconds": own_s, "strided": strided_s, "mib": mib}
            add([
                variant, how.name, f"{1e3 * own_s:.2f}", ratio(own_s, strided_s, paper[0]), f"{1 / own_s:.2f}",
                f"{batch / own_s:.0f}", f"{mib:.0f}" if mib else "-", ratio(mib, strided_mib, paper[1]),
                f"{100 * busy_s / own_s:.0f} %" if count else "-", str(count) if count else "-",
                count_waits(step, part), f"{1e6 * own_s / 3600:.1f}",
            ])  # fmt: skip
        torch._dynamo.reset()
    torch.set_float32_matmul_precision(precision)


def measure_profile(part: Part) -> None:
    """The longest kernels of a step as it is trained, and the longest gaps of one that is started kernel by kernel."""
    for row in [row for table in part.earlier("train").get("tables", []) for row in table["rows"]][:1]:
        part.note(f"In the part train ({row[0]}) maps changed their size {row[-1]}: each time kernels of the layers "
                  "behind are chosen anew.")  # fmt: skip
    bf16, graph = HOWS[0], next(how for how in HOWS if how.graph)
    for variant in ("DiffStride mixed", "strided"):
        show_kernels(variant, part, graph if part.device.type == "cuda" else bf16)
    if part.device.type == "cuda":
        show_gaps("DiffStride mixed", part, bf16)


def show_kernels(variant: str, part: Part, how: How) -> None:
    """A table of the longest kernels of a step."""
    count = part.size(5, 1)
    step, _ = first_steps(variant, part, how, batch=part.size(256, 4))
    own_s = seconds_each({"step": step}, part)["step"]
    found = profiled(step, part, steps=count)
    events = device_events(found)
    title = f"{variant}, {how.name}: the ten longest"
    if not events:
        add = part.table(f"{title} operators of a CPU; no kernels of a GPU were seen.", ["operator", "calls", "ms"])
        rows = [row for row in found.key_averages() if row.key.startswith("aten::")]
        for row in sorted(rows, key=lambda row: -row.self_cpu_time_total)[:10]:
            add([row.key, f"{row.count / count:.0f}", f"{row.self_cpu_time_total / 1e3 / count:.3f}"])
        return
    kernels: dict[str, list[float]] = {}
    for event in events:
        kernels.setdefault(event.name, []).append(event.time_range.elapsed_us())
    busy_us = covered_us(events) / count
    add = part.table(f"{title} kernels of {len(kernels)}.", ["kernel", "calls per step", "ms per step", "share"])
    for name, spent in sorted(kernels.items(), key=lambda item: -sum(item[1]))[:10]:
        us = sum(spent) / count
        add([name[:110], f"{len(spent) / count:.1f}", f"{us / 1e3:.3f}", f"{100 * us / busy_us:.1f} %"])
    part.note(f"{variant}, {how.name}: {1e3 * own_s:.2f} ms without the profiler, {len(events) / count:.0f} kernels, "
              f"which run for {busy_us / 1e3:.2f} ms.")  # fmt: skip


def show_gaps(variant: str, part: Part, how: How) -> None:
    """A table of the longest gaps in which the GPU waits for the host; under a profiler they are longer."""
    count = part.size(5, 1)
    step, _ = first_steps(variant, part, how, batch=part.size(256, 4))
    found = profiled(step, part, steps=count)
    header = ["ms", "phase", "the host is in", "after kernel", "before kernel"]
    add = part.table(f"{variant}, {how.name}: the ten longest gaps in which no kernel runs, of {count} steps.", header)
    host = [event for event in found.events() if event.device_type == DeviceType.CPU]
    for length_us, middle, before, after in longest_gaps(device_events(found))[:10]:
        around = [each for each in host if each.time_range.start <= middle <= each.time_range.end]
        around.sort(key=lambda each: each.time_range.elapsed_us())
        phase = next((each.name for each in around if each.name in PHASES), "between steps")
        inner = next((each.name for each in around if each.name not in PHASES), "Python")
        add([f"{length_us / 1e3:.3f}", phase, inner[:60], before[:60], after[:60]])


def longest_gaps(events: list[Any]) -> list[tuple[float, float, str, str]]:
    """Gaps between events in order of their start, the longest first: length and middle in us, event before, after."""
    gaps, end, last = [], math.inf, ""
    for event in events:
        start, stop = event.time_range.start, event.time_range.end
        if start > end:
            gaps.append((start - end, (start + end) / 2, last, event.name))
        if not last or stop > end:
            end, last = stop, event.name
    return sorted(gaps, reverse=True)

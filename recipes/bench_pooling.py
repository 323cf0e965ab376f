"""Speed, memory and precision of the poolings: the layer, training and inference. Prints Markdown tables.

Data: none (noise), or finished runs whose learned strides are to be timed: --part inference --runs RUN...
Command: python recipes/bench_pooling.py [--part layer|classifier|inference] [--device cuda] [--threads 2] [--compile]
Expected: see recipes/RESULTS.md for tables with their machines. About 6 minutes on 2 cores; let nothing run beside it.

Every row is a ratio of medians of runs that took turns, so that a change of the machine's speed falls on both sides.
"""

import argparse
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiostride import AudioClassifier, ClassifierConfig, DiffStride1d, DiffStride2d, load_classifier
from audiostride.errors import InputError
from audiostride.models.export import export_classifier
from audiostride.models.export.parity import onnx_runner
from audiostride.strides.masks import limit_stride, passband_mask

MAPS = [
    # name, batch, channels, pooled axes
    ("map 100 x 64, 64 channels", 16, 64, (100, 64)),
    ("map 50 x 32, 128 channels", 16, 128, (50, 32)),
    ("map 25 x 16, 256 channels", 16, 256, (25, 16)),
    ("map 25 x 16, 512 channels", 16, 512, (25, 16)),
    ("signal 16000, 16 channels", 8, 16, (16000,)),
    ("image 224 x 224, 64 channels", 2, 64, (224, 224)),
]
LAYER_TITLE = """DiffStride, paper size, strides 2: how many times faster than the FFT route (same numbers) and than a
convolution of 3 or 3 x 3 with stride 2 and as many channels out as in."""
LAYER_HEADER = ["input", "output", "forward", "forward + backward", "bytes saved / FFT's", "error ours / FFT"]
LAYER_HEADER += ["forward vs convolution", "both vs convolution", "ours"]
MODELS: dict[str, dict[str, str]] = {
    "strided convolution": {"pooling": "strided"},
    "spectral, after each convolution": {"pooling": "spectral", "pool_after": "convolution"},
    "spectral, after the block": {"pooling": "spectral", "pool_after": "block"},
    "DiffStride mixed, after each convolution": {"size": "mixed", "pool_after": "convolution"},
    "DiffStride nominal, after each convolution": {"size": "nominal", "pool_after": "convolution"},
    "DiffStride nominal, after the block": {"size": "nominal", "pool_after": "block"},
    "DiffStride paper, after the block": {"size": "paper", "pool_after": "block"},
}
ENGINES = ("PyTorch", "onnxruntime")
WIDTHS, BATCHES = (0.125, 0.25, 0.5, 1.0), (1, 16)  # of inference


def fft_route(x: Tensor, strides: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """The paper's algorithm 1 as it stands: DFT, masks, crop, inverse DFT. Scaled and folded as `DiffStride2d`."""
    sizes = x.shape[2:]
    axes = tuple(range(2, x.ndim))
    spectrum = torch.fft.rfftn(x, dim=axes, norm="forward")
    for axis, (n, n_out, stride) in enumerate(zip(sizes, lengths, strides, strict=True)):
        half = passband_mask(n, limit_stride(stride, n))
        last = axis == len(sizes) - 1
        mask = half if last else torch.cat([half, half[1 : (n + 1) // 2].flip(0)])
        spectrum = spectrum * mask.reshape(-1, *[1] * (len(sizes) - 1 - axis))
        dim = axis + 2
        nyquist = spectrum.narrow(dim, n_out // 2, 1)
        folds = n_out % 2 == 0 and n_out < n  # the two halves of the new Nyquist bin fall together
        if last:
            low = spectrum.narrow(dim, 0, (n_out + 1) // 2)
            spectrum = torch.cat([low, 2 * nyquist], dim) if folds else spectrum.narrow(dim, 0, n_out // 2 + 1)
        elif n_out < n:
            low, high = spectrum.narrow(dim, 0, (n_out + 1) // 2), spectrum.narrow(dim, n - n_out // 2, n_out // 2)
            if folds:
                high = torch.cat([high.narrow(dim, 0, 1) + nyquist, high.narrow(dim, 1, n_out // 2 - 1)], dim)
            spectrum = torch.cat([low, high], dim)
    return torch.fft.irfftn(spectrum, s=lengths, dim=axes, norm="forward")


def take_turns(tasks: list[Callable[[], object]], device: torch.device, *, repeats: int) -> list[float]:
    """Median seconds of each task; the tasks take turns."""
    times: list[list[float]] = [[] for _ in tasks]
    for repeat in range(repeats + 1):
        for task, seconds in zip(tasks, times, strict=True):
            synchronize(device)
            start = time.perf_counter()
            task()
            synchronize(device)
            if repeat:  # the first round warms up
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def saved_bytes(forward: Callable[[], Tensor]) -> int:
    """Bytes that a forward pass keeps for its backward pass, each storage once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    del result
    return sum(kept.values())


def bench_layer(name: str, batch: int, channels: int, sizes: tuple[int, ...], device: torch.device) -> list[str]:
    """One row: DiffStride of paper size at stride 2 against the FFT route and against a convolution of stride 2."""
    torch.manual_seed(0)
    layer = (DiffStride1d((2.0,)) if len(sizes) == 1 else DiffStride2d((2.0, 2.0))).to(device)
    lengths = layer.output_size(*sizes)
    x = torch.randn(batch, channels, *sizes, device=device, requires_grad=True)
    convolution = (nn.Conv1d if len(sizes) == 1 else nn.Conv2d)(channels, channels, 3, stride=2, padding=1).to(device)
    routes: list[Callable[[], Tensor]] = [
        lambda: layer(x),
        lambda: fft_route(x, layer.strides, lengths),
        lambda: convolution(x),
    ]
    weights = [torch.randn_like(route()) for route in routes]
    exact = layer.double()(x.detach().double())
    layer.float()
    errors = [((route() - exact).abs().max() / exact.abs().max()).item() for route in routes[:2]]

    def forward(route: Callable[[], Tensor]) -> None:
        with torch.no_grad():
            route()

    def both(route: Callable[[], Tensor], weight: Tensor) -> None:
        route().backward(weight)

    ours, fft, strided = take_turns([partial(forward, route) for route in routes], device, repeats=7)
    both_tasks = [partial(both, route, weight) for route, weight in zip(routes, weights, strict=True)]
    ours_2, fft_2, strided_2 = take_turns(both_tasks, device, repeats=7)
    bytes_ours, bytes_fft, _ = (saved_bytes(route) for route in routes)
    return [
        name,
        " x ".join(map(str, lengths)),
        f"{fft / ours:.1f} x",
        f"{fft_2 / ours_2:.1f} x",
        f"{bytes_ours / bytes_fft:.2f}",
        f"{errors[0]:.0e} / {errors[1]:.0e}",
        f"{strided / ours:.1f} x",
        f"{strided_2 / ours_2:.1f} x",
        f"{ours * 1e3:.1f} / {ours_2 * 1e3:.1f} ms",
    ]


def make_model(settings: dict[str, str], width: float, device: torch.device) -> AudioClassifier:
    """A classifier of 35 classes at the paper's strides."""
    torch.manual_seed(0)
    tasks = {"word": [str(index) for index in range(35)]}
    config = ClassifierConfig.from_dict({"tasks": tasks, "width": width, **settings})
    return AudioClassifier(config).to(device)


def make_step(model: AudioClassifier, batch: int, precision: torch.dtype, compiled: bool) -> Callable[[], None]:
    """One optimizer step on noise. The strides get their gradient and stay where they are: sizes must not drift."""
    device = next(model.parameters()).device
    waveform = torch.randn(batch, model.config.window_samples, device=device) * 0.1
    classes = torch.arange(batch, device=device) % 35
    moving = [parameter for name, parameter in model.named_parameters() if not name.endswith("strides")]
    optimizer = torch.optim.Adam(moving, 1e-4)
    network = torch.compile(model, fullgraph=True) if compiled else model

    def step() -> None:
        with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
            loss = F.cross_entropy(network(waveform)["word"].float(), classes)
        loss.backward()
        optimizer.step()
        model.zero_grad()
        model.project_strides_()

    return step


def training_memory(settings: dict[str, str], width: float, batch: int, device: str, precision: torch.dtype) -> float:
    """Peak memory of three training steps beyond the model, in MiB; in a process of its own on a CPU."""
    model = make_model(settings, width, torch.device(device)).train()
    step = make_step(model, batch, precision, compiled=False)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = peak_mib()
    for _ in range(3):
        step()
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_mib() - before


def peak_mib() -> float:
    """Peak memory of this process in MiB (Linux; getrusage would count that of the process it was made by)."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def bench_classifiers(arguments: argparse.Namespace, precision: torch.dtype, compiled: bool) -> list[list[str]]:
    """One row per pooling, relative to strided convolution."""
    device = torch.device(arguments.device)
    models = [make_model(settings, arguments.width, device) for settings in MODELS.values()]
    steps = [make_step(model.train(), arguments.batch, precision, compiled) for model in models]
    train_s = take_turns(steps, device, repeats=arguments.repeats)
    frozen = [model.eval().freeze() for model in models]
    waveform = torch.randn(arguments.batch, models[0].config.window_samples, device=device) * 0.1

    def infer(model: nn.Module) -> None:
        with torch.inference_mode(), torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
            model(waveform)

    networks: list[nn.Module] = [*models, *frozen]
    if compiled:
        networks = [torch.compile(network, fullgraph=True) for network in networks]
    infer_s = take_turns([partial(infer, network) for network in networks], device, repeats=2 * arguments.repeats)
    memory: list[float] = []
    for settings in MODELS.values():
        task = (settings, arguments.width, arguments.batch, arguments.device, precision)
        if device.type == "cuda":
            memory.append(training_memory(*task))
        else:
            # Every block a mapping of its own: the peak is that of live memory, without the gaps between freed blocks.
            os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                memory.append(pool.apply(training_memory, task))
    rows = []
    for i, name in enumerate(MODELS):
        last = models[i].encoder.map_sizes(models[i].config.window_frames, models[i].config.n_mels)[-1]
        rows.append(
            [
                f"{name}{', compiled' if compiled else ''}",
                "bf16" if precision == torch.bfloat16 else "float32",
                f"{train_s[i] / train_s[0]:.2f} x ({train_s[i] * 1e3:.0f} ms)",
                f"{memory[i] / memory[0]:.2f} x ({memory[i]:.0f} MiB)",
                f"{infer_s[i] / infer_s[0]:.2f} x ({infer_s[i] * 1e3:.0f} ms)",
                f"{infer_s[len(MODELS) + i] / infer_s[0]:.2f} x",
                " x ".join(map(str, last)),
            ]
        )
    return rows


def bench_inference(engine: str, runs: list[str], threads: int, repeats: int) -> list[list[str]]:
    """One row per width and batch: frozen networks on windows of noise, relative to strided convolution."""
    torch.set_num_threads(threads)
    device, rows = torch.device("cpu"), []
    for width in WIDTHS:
        models = [make_model({"pooling": "strided"}, width, device), make_model({}, width, device)]
        models += [widen(load_classifier(run), width) for run in runs]
        calls = [make_call(model.eval(), engine) for model in models]
        for batch in BATCHES:
            waveform = torch.randn(batch, models[0].config.window_samples) * 0.1
            strided, *others = take_turns([partial(call, waveform) for call in calls], device, repeats=repeats)
            ratios = [f"{seconds / strided:.2f} x ({seconds * 1e3:.1f} ms)" for seconds in others]
            rows.append([engine, f"{width:g}", str(batch), f"{strided * 1e3:.1f} ms", *ratios])
    return rows


def widen(model: AudioClassifier, width: float) -> AudioClassifier:
    """A network with the settings and learned strides of another, and other channels."""
    wide = AudioClassifier(replace(model.config, width=width))
    learned = {name: value for name, value in model.state_dict().items() if name.endswith("strides")}
    wide.load_state_dict(learned, strict=False)
    wide.project_strides_()
    return wide


def make_call(model: AudioClassifier, engine: str) -> Callable[[Tensor], object]:
    """What classifies a batch of windows."""
    if engine == "PyTorch":
        return torch.inference_mode()(model.freeze().forward)
    with tempfile.TemporaryDirectory() as folder:
        export_classifier(model, file := Path(folder) / "model.onnx")
        run = onnx_runner(file.read_bytes())
    return lambda waveform: run(waveform.numpy())


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table."""
    for line in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(line) + " |", flush=True)
    print(flush=True)


def main() -> int:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["layer", "classifier", "inference", "all"], default="all")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="threads of a CPU (default: torch's)")
    parser.add_argument("--batch", type=int, help="excerpts per step (default: 16 on a CPU, 256 on a GPU)")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels (default: the paper's)")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="measure compiled classifiers too")
    parser.add_argument("--runs", nargs="+", default=[], metavar="RUN", help="inference with their strides too")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    arguments.batch = arguments.batch or (256 if device.type == "cuda" else 16)
    card = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{processor_name()}, {torch.get_num_threads()} threads"
    )
    print(f"{card}; torch {torch.__version__}, Python {platform.python_version()}\n")
    if arguments.part in ("layer", "all"):
        print(LAYER_TITLE + "\n")
        print_table(LAYER_HEADER, [bench_layer(*case, device) for case in MAPS])
    if arguments.part in ("classifier", "all"):
        print(f"Classifier at width {arguments.width:g}, batch {arguments.batch}, relative to strided convolution.\n")
        header = [
            "pooling",
            "precision",
            "training step",
            "training memory",
            "inference",
            "inference, frozen",
            "last map",
        ]
        rows = []
        for precision in [torch.float32] + [torch.bfloat16] * (device.type == "cuda"):
            for compiled in [False] + [True] * arguments.compile:
                rows += bench_classifiers(arguments, precision, compiled)
        print_table(header, rows)
    if arguments.part in ("inference", "all") and device.type == "cpu":
        print("Inference of frozen classifiers, relative to strided convolution.\n")
        header = ["engine", "width", "batch", "strided convolution", "DiffStride mixed, strides of 2", *arguments.runs]
        rows = []
        for engine in ENGINES:  # each in a process of its own: threads of one wait actively beside those of the other
            task = (engine, arguments.runs, torch.get_num_threads(), 3 * arguments.repeats)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                try:
                    rows += pool.apply(bench_inference, task)
                except InputError as error:  # packages of the export are not installed
                    print(f"{engine} is left out: {error}\n", flush=True)
        print_table(header, rows)
    return 0


def processor_name() -> str:
    """The CPU's name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")

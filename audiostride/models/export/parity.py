"""An exported classifier beside PyTorch: the same logits, and how fast."""

import io
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiostride.errors import InputError
from audiostride.models.classifier import AudioClassifier
from audiostride.models.config import ClassifierConfig

TOLERANCE = 1e-3
# Float32 has seven digits: logits beyond this many are compared to 1e-5 of the largest instead.
LARGE_LOGIT = 100.0
# Two classes whose logits differ by less share the top: rounding decides.
TIE = 1e-4
GENERATED = 16
BATCH_SIZES = (1, 16)
RUNS = 15
SECONDS = 1.5  # per program and size of batch; three runs at least


Runner = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]
"""From a batch of inputs to the logits of all tasks."""


def onnx_runner(content: bytes) -> Runner:
    """What runs a file, by onnxruntime on the CPU with as many threads as PyTorch has now."""
    onnxruntime: Any = import_module("onnxruntime")  # without types, and not installed everywhere
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda inputs: list(session.run(None, {name: inputs}))


def torch_export_runner(content: bytes) -> Runner:
    """As `onnx_runner`, by the loaded program."""
    program = torch.export.load(io.BytesIO(content)).module()

    @torch.no_grad()
    def run(inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [logits.numpy() for logits in program(torch.from_numpy(inputs)).values()]

    return run


class ExportedModel:
    """An exported file in place of the model that it was made of, for `audiostride.inference`.

    Args:
        model: The classifier.
        run: From a batch of inputs to the logits of all tasks.
        input: What the file takes, waveforms or log-mel spectrograms.
    """

    def __init__(self, model: AudioClassifier, run: Runner, *, input: str) -> None:
        self.config, self._run = model.config, run
        self._frontend = None if input == "waveform" else model.frontend

    def freeze(self) -> Callable[[Tensor], Mapping[str, Tensor]]:
        """From windows ``(B, samples)`` to the logits ``(B, classes)`` of each task."""

        def compute(windows: Tensor) -> Mapping[str, Tensor]:
            inputs = windows if self._frontend is None else self._frontend(windows)
            return dict(zip(self.config.tasks, map(torch.from_numpy, self._run(inputs.numpy())), strict=True))

        return compute

    def parameters(self) -> Iterator[Tensor]:
        """Nothing but where it runs."""
        yield torch.empty(0)

    def to(self, device: torch.device) -> Self:
        """It stays on the CPU."""
        return self

    def checksum(self) -> str:
        """Nothing: no results of it are kept."""
        return ""


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from PyTorch."""

    n_clips: int
    """Clips that were compared, one window each."""
    generated: bool
    """Whether they were generated, not read from recordings."""
    max_difference: float
    """The largest absolute difference of two logits."""
    largest_logit: float
    """The largest absolute logit of PyTorch."""
    n_same_class: int
    """Clips whose top class is the same in every task, or shares the top in PyTorch up to 1e-4."""

    @property
    def tolerance(self) -> float:
        """What the difference may be."""
        return TOLERANCE * max(1.0, self.largest_logit / LARGE_LOGIT)

    def check(self, path: Path) -> None:
        """Raise unless the file does what PyTorch does."""
        # Written so that NaN fails.
        if not (self.max_difference <= self.tolerance and self.n_same_class == self.n_clips):
            raise InputError(
                f"export: the exported network must give PyTorch's logits to {self.tolerance:.0e}, but they differ by "
                f"{self.max_difference:.2g}, with the same top class for {self.n_same_class} of {self.n_clips} clips; "
                f"{path} is not written. Are all weights finite (audiostride evaluate)? Does --format torch-export "
                "agree? If so, report it with the versions that audiostride doctor prints"
            )


@dataclass(frozen=True)
class Latency:
    """Time for one batch on the CPU."""

    batch_size: int
    """Windows at once."""
    threads: int
    """Threads of both programs."""
    exported_ms: float
    """Median time of the exported file, in ms."""
    torch_ms: float
    """Median time of the frozen model in PyTorch, in ms."""


def generate_clips(config: ClassifierConfig) -> Tensor:
    """Tones in noise, noise alone and near-silence, the same each time; ``(16, window_samples)``."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(GENERATED, config.window_samples, generator=generator)
    seconds = torch.arange(config.window_samples) / config.sample_rate
    low, high = math.log(2 * config.fmin_hz + 1), math.log(config.fmax_hz / 2)
    frequencies_hz = torch.linspace(low, high, GENERATED).exp()[:, None]
    rates_hz = torch.linspace(1, 30, GENERATED)[:, None]  # of the loudness: what the poolings over time are about
    tones = torch.sin(2 * math.pi * frequencies_hz * seconds) * (1 + torch.sin(2 * math.pi * rates_hz * seconds)) / 4
    levels = torch.logspace(-3, -1, GENERATED)[torch.randperm(GENERATED, generator=generator)][:, None]
    tones[::4] = 0
    return levels * noise + tones


@torch.no_grad()
def measure_parity(model: AudioClassifier, windows: Tensor, inputs: Tensor, run: Runner, *, generated: bool) -> Parity:
    """Compare an exported file with the model itself, as it was before its strides were fixed.

    Args:
        model: The classifier.
        windows: Its waveforms, ``(clips, window_samples)``.
        inputs: What the exported file gets for them.
        run: From a batch of inputs to the logits of all tasks.
        generated: Whether the windows are no recordings.
    """
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    same = np.ones(len(windows), dtype=bool)
    difference, largest = 0.0, 0.0
    # One alone, then sixteen at a time: the file must take any batch.
    bounds = [0, 1, *range(17, len(windows), 16), len(windows)]
    for first, last in pairwise(bounds):
        if first == last:
            continue
        expected = [logits.double().cpu().numpy() for logits in model(windows[first:last].to(device)).values()]
        found = run(inputs[first:last].numpy())
        for ours, theirs in zip(expected, found, strict=True):
            if ours.shape != theirs.shape:
                raise InputError(
                    f"export: the file must give logits of shape {ours.shape}, got {theirs.shape}; report it"
                )
            difference = max(difference, float(np.nan_to_num(np.abs(ours - theirs), nan=math.inf).max()))
            largest = max(largest, float(np.nan_to_num(np.abs(ours), nan=0.0).max()))
            rows = np.arange(len(ours))
            same[first:last] &= ours.max(axis=1) - ours[rows, theirs.argmax(axis=1)] <= TIE
    model.train(was_training)
    return Parity(len(windows), generated, difference, largest, int(same.sum()))


def measure_latency(network: nn.Module, inputs: Tensor, run: Runner, *, threads: int) -> list[Latency]:
    """Median times of an exported file and of the frozen network in PyTorch, with as many threads.

    One after the other: the threads of one program wait actively for a while and would slow the other down.
    """
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(threads)
    for batch_size in BATCH_SIZES:
        batch = inputs[torch.arange(batch_size) % len(inputs)].contiguous()
        with torch.no_grad():
            torch_ms = median_ms(lambda batch=batch: network(batch))  # type: ignore[misc]
        array = batch.numpy()
        exported_ms = median_ms(lambda array=array: run(array))  # type: ignore[misc]
        found.append(Latency(batch_size, threads, exported_ms, torch_ms))
    torch.set_num_threads(before)
    return found


def median_ms(call: Callable[[], object]) -> float:
    """Median time of a call in ms, after two to warm up."""
    call()
    call()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 3 or (len(times) < RUNS and time.perf_counter() - begin < SECONDS):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return median(times)

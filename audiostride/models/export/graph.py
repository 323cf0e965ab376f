"""The network as it is exported: strides fixed, and computed with operators that other runtimes are fast at."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiostride.audio.log_mel import LogMel
from audiostride.models.classifier import AudioClassifier
from audiostride.strides.diffstride import read_strides_

ExportInput = Literal["waveform", "log-mel"]


class LogMelProducts(nn.Module):
    """The numbers of `LogMel` for waveforms of one length, by two matrix products instead of an FFT.

    The window is symmetric about its middle h (and zero at its first sample), so that around h cosines need only
    ``x[h - m] + x[h + m]`` and sines only ``x[h - m] - x[h + m]``: half the terms. The power does not depend on where
    the phase is counted from. Only bins that a mel filter sees are computed.

    onnxruntime 1.31 takes 12 ms for the DFT of 16 s of sound, and 3 ms to gather its frames, this 3 ms in all (one
    thread; with the paper's widths times 0.25, all layers together take 10 ms).

    Args:
        frontend: The frontend that is replaced.
        n_samples: Length of the waveforms.

    Shape:
        waveform: ``(B, n_samples)``. Result: ``(B, ceil(n_samples / hop_length), n_mels)``.
    """

    cosines: Tensor
    sines: Tensor
    filters: Tensor

    def __init__(self, frontend: LogMel, n_samples: int) -> None:
        super().__init__()
        self.win_length, self.hop_length = frontend.win_length, frontend.hop_length
        self.power_floor = frontend.power_floor
        self.n_frames = -(-n_samples // self.hop_length)
        self.left = (self.win_length - self.hop_length) // 2
        # Frames are put together from pieces of a hop each, which are copied and not gathered one by one.
        self.n_pieces = -(-self.win_length // self.hop_length)
        self.right = (self.n_frames - 1 + self.n_pieces) * self.hop_length - self.left - n_samples
        self.half_length = self.win_length // 2
        used = frontend.filters.cpu().amax(dim=1).nonzero().flatten()
        first, last = int(used[0]), int(used[-1]) + 1
        n = torch.arange(1, self.half_length + 1, dtype=torch.float64)
        window = frontend.window.cpu().double()[1 : self.half_length + 1].clone()
        if self.win_length % 2 == 0:
            window[-1] /= 2  # the middle sample is its own partner, and is added to itself
        bins = torch.arange(first, last, dtype=torch.float64)
        # Phases in float64, rounded once: a float32 phase is off by 1e-5 at the highest bins.
        phase = (2 * math.pi / frontend.n_fft) * (self.win_length / 2 - n)[:, None] * bins
        self.register_buffer("cosines", (window[:, None] * phase.cos()).float())  # (half_length, bins)
        self.register_buffer("sines", (window[:, None] * phase.sin()).float())
        self.register_buffer("filters", frontend.filters.cpu()[first:last].clone())  # (bins, M)

    def forward(self, waveform: Tensor) -> Tensor:
        padded = F.pad(waveform, (self.left, self.right))
        hops = padded.reshape(-1, self.n_frames - 1 + self.n_pieces, self.hop_length)
        pieces = [hops[:, i : i + self.n_frames] for i in range(self.n_pieces)]
        pieces[-1] = pieces[-1][..., : self.win_length - (self.n_pieces - 1) * self.hop_length]
        frames = torch.cat(pieces, dim=-1)  # (B, T, win_length)
        early, late = frames[..., 1 : self.half_length + 1], frames[..., self.win_length - self.half_length :].flip(-1)
        real, imaginary = (early + late) @ self.cosines, (early - late) @ self.sines  # (B, T, bins)
        bands: Tensor = (real * real + imaginary * imaginary) @ self.filters
        return bands.clamp(min=self.power_floor).log()


class ExportedClassifier(nn.Module):
    """A frozen classifier whose outputs are named as in the exported file.

    Args:
        model: The classifier; a frozen copy of it is made.
        input: ``"waveform"``, or ``"log-mel"`` without the frontend.
        products: Whether the frontend is computed by matrix products instead of an FFT.

    Shape:
        The input: ``(B, window_samples)`` or ``(B, window_frames, n_mels)``. Result: ``(B, classes)`` for each task.
    """

    def __init__(self, model: AudioClassifier, *, input: ExportInput, products: bool) -> None:
        super().__init__()
        # Without this the copy that `freeze` makes of a model just loaded has the sizes of its starting strides.
        read_strides_(model)
        self.model = model.freeze().cpu().float()
        self.frontend: nn.Module | None = None
        if input == "waveform":
            frontend = self.model.frontend
            self.frontend = LogMelProducts(frontend, model.config.window_samples) if products else frontend

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        spectrogram = inputs if self.frontend is None else self.frontend(inputs)
        return {output_name(task): logits for task, logits in self.model.classify_spectrogram(spectrogram).items()}


def output_name(task: str) -> str:
    """The name of a task's logits in an exported file; it differs from those of the inputs whatever the task."""
    return f"logits_{task}"


def tidy_graph(proto: Any) -> None:
    """Drop from an ONNX model what only costs time and space; in place.

    A matrix that is multiplied with every map of a batch is repeated by an Expand, for which MatMul has no need. The
    exporter notes in every node where in the source it comes from, with the paths of this machine.
    """
    graph = proto.graph
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    repeated = {
        node.output[0]: node.input[0] for node in graph.node if node.op_type == "Expand" and node.input[0] in matrices
    }
    for node in graph.node:
        if node.op_type == "MatMul":
            for position, name in enumerate(node.input):
                node.input[position] = repeated.get(name, name)
    needed = {output.name for output in graph.output}
    for number in reversed(range(len(graph.node))):  # users come after what they use
        node = graph.node[number]
        if needed.isdisjoint(node.output):
            del graph.node[number]
            continue
        needed.update(node.input)
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    for entries in (graph.initializer, graph.value_info):
        for number in reversed(range(len(entries))):
            entries[number].ClearField("metadata_props")
            if entries[number].name not in needed:
                del entries[number]
    for entry in (*graph.input, *graph.output, graph):
        entry.ClearField("metadata_props")

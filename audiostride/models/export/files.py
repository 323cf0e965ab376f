"""A trained classifier as one file that other programs run: ONNX, torch.export, C99, or a page for a browser."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from audiostride.checks import check_choice
from audiostride.errors import InputError
from audiostride.models.classifier import AudioClassifier
from audiostride.models.export.c_source import COMPILERS, c_runner, find_compiler, to_c
from audiostride.models.export.export_format import ExportFormat, check_int8, check_packages, check_place, choose_format
from audiostride.models.export.graph import ExportedClassifier, ExportInput, output_name
from audiostride.models.export.int8 import quantise
from audiostride.models.export.parity import (
    Latency,
    Parity,
    Runner,
    generate_clips,
    measure_latency,
    measure_parity,
    onnx_runner,
    torch_export_runner,
)
from audiostride.models.export.programs import export_metadata, to_onnx, to_torch_export, without_noise
from audiostride.models.export.web_page import find_node, node_runner, to_html
from audiostride.writing import write_bytes

INPUT_NAMES: dict[ExportInput, str] = {"waveform": "waveform", "log-mel": "log_mel"}


@dataclass(frozen=True)
class Exported:
    """What an export made, and how it compares with PyTorch."""

    path: Path
    """The file."""
    format: ExportFormat
    """What kind of file."""
    n_bytes: int
    """Its size."""
    input_name: str
    """``waveform`` or ``log_mel``."""
    input_shape: tuple[int, ...]
    """Shape of the input behind the batch axis."""
    outputs: dict[str, str]
    """The output with the logits of each task."""
    parity: Parity | None
    """Agreement with PyTorch; None where nothing here can run the file: C without a compiler, a page without node."""
    latencies: list[Latency]
    """Time per batch on the CPU, for each size of batch; empty as `parity`, and for pages."""
    float_bytes: int | None = None
    """Of an int8 file the size in float32."""
    float_latencies: list[Latency] | None = None
    """Of an int8 file its times in float32."""


def export_classifier(
    model: AudioClassifier,
    out: str | Path,
    *,
    input: ExportInput = "waveform",
    format: str | None = None,
    clips: Tensor | None = None,
    int8: bool = False,
    calibration: Tensor | None = None,
    accept: Callable[[Runner, Runner], None] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a classifier with its strides fixed to one file, after comparing it with PyTorch.

    The file takes batches of any size of windows of ``config.window_samples`` samples (input ``waveform``) or of their
    log-mel spectrograms (``log_mel``), and gives ``logits_<task>`` for each task. In its metadata (of ONNX; in
    ``audiostride.json`` inside a torch.export archive) stand `export_metadata`. A header of C (see `to_c`) takes one
    window at a time, and a page (see `to_html`) recordings.

    Args:
        model: The classifier, as it is after training; it is not changed.
        out: The file: ``.onnx``, ``.pt2``, ``.h`` or ``.html``.
        input: What the file takes: ``"waveform"`` or ``"log-mel"``.
        format: ``"onnx"``, ``"torch-export"``, ``"c"`` or ``"html"``; None goes by the suffix of `out`.
        clips: Windows to compare on, ``(clips, window_samples)``; None generates some.
        int8: Whether weights are 8-bit integers: in ONNX activations too (see `quantise`), in C with arithmetic in
            float.
        calibration: Of ONNX in int8, windows of training clips, ``(clips, window_samples)``, whose activations choose
            the scales.
        accept: With `int8`: gets the float32 and the int8 network, each from a batch of inputs to the logits of
            all tasks, and raises `InputError` if the second will not do. None takes it as it is.
        overwrite: Whether a file that exists is replaced.

    Returns:
        Size, parity and latency.

    Raises:
        InputError: A missing package, an output that exists or cannot be written; a network that the format has no
            form for; logits that differ by more than 1e-3 from PyTorch's, or another top class (before weights are made
            int8). Then no file is written.
    """
    check_choice("export", "input", input, ExportInput)
    chosen, path = choose_format(out, format), Path(out)
    check_place(path, overwrite=overwrite)
    check_packages(chosen)
    int8 = int8 or calibration is not None
    check_int8(chosen, int8=int8)
    if int8 and (calibration is None) == (chosen == "onnx"):
        raise InputError(
            f"export: calibration must be given with int8 and ONNX, and not with C, got "
            f"{'none' if calibration is None else 'some'} with {chosen}"
        )
    if input == "log-mel" and chosen == "html":
        raise InputError("export: a page hears waveforms, got input log-mel; leave --input out")
    windows = generate_clips(model.config) if clips is None else clips.detach().float().cpu()
    samples = model.config.window_samples
    for name, given in (("clips", windows), ("calibration", windows if calibration is None else calibration)):
        if given.ndim != 2 or given.shape[1] != samples or len(given) == 0:
            raise InputError(f"export: {name} must have shape (clips, {samples}), got {tuple(given.shape)}")
    with torch.no_grad():
        inputs = windows if input == "waveform" else copy.deepcopy(model.frontend).cpu()(windows)
    content, small = _make_contents(model, inputs, calibration, input=input, format=chosen, int8=int8)
    make_runner = _runner_of(chosen)
    parity, latencies, float_latencies = None, list[Latency](), None
    if make_runner is None and int8:
        raise InputError(
            f"export: --int8 must be compared with float32, for which C takes a compiler, one of {', '.join(COMPILERS)}"
            "; install one, or leave --int8 out"
        )
    if make_runner is not None:
        run = make_runner(content)
        parity = measure_parity(model, windows, inputs, run, generated=clips is None)
        parity.check(path)
        reference = ExportedClassifier(model, input=input, products=False).eval()
        threads = 1 if chosen == "c" else torch.get_num_threads()
        if chosen != "html":  # of a page node knows no time
            latencies = measure_latency(reference, inputs, run, threads=threads)
        if small is not None:
            run_small = make_runner(small)
            if accept is not None:
                accept(run, run_small)
            parity = measure_parity(model, windows, inputs, run_small, generated=clips is None)
            float_latencies = latencies
            latencies = measure_latency(reference, inputs, run_small, threads=threads)
    written = content if small is None else small
    write_bytes(path, written)
    return Exported(
        path=path,
        format=chosen,
        n_bytes=len(written),
        input_name=INPUT_NAMES[input],
        input_shape=tuple(inputs.shape[1:]),
        outputs={task: output_name(task) for task in model.config.tasks},
        parity=parity,
        latencies=latencies,
        float_bytes=None if small is None else len(content),
        float_latencies=float_latencies,
    )


def _make_contents(
    model: AudioClassifier,
    inputs: Tensor,
    calibration: Tensor | None,
    *,
    input: ExportInput,
    format: ExportFormat,
    int8: bool,
) -> tuple[bytes, bytes | None]:
    """The file in float32, and in int8 where that is asked for."""
    if format == "html":
        return to_html(model), None
    if format == "c":
        return to_c(model, input=input), to_c(model, input=input, int8=True) if int8 else None
    network = ExportedClassifier(model, input=input, products=format == "onnx").eval()
    metadata = export_metadata(model, input=input)
    # Not a clip: archives of torch.export keep their example. Of two: a batch of one would be taken for a constant.
    example = torch.zeros(2, *inputs.shape[1:])
    with without_noise():
        try:
            if format == "torch-export":
                return to_torch_export(network, example, metadata), None
            content = to_onnx(network, example, INPUT_NAMES[input], metadata)
        except (ImportError, RuntimeError) as error:  # such as an onnxscript that does not fit torch
            reason = (str(error).strip().splitlines() or [repr(error)])[0]
            raise InputError(
                f"export: the exporter of torch {torch.__version__} failed: {reason}; update torch, onnx and "
                "onnxscript, or give --format torch-export"
            ) from error
    if calibration is None:
        return content, None
    examples = calibration.detach().float().cpu()
    with torch.no_grad(), without_noise():
        examples = examples if input == "waveform" else network.model.frontend(examples)
        return content, quantise(content, examples.numpy())


def _runner_of(format: ExportFormat) -> Callable[[bytes], Runner] | None:
    """What loads a file of a format, or None where that takes a program that is not here."""
    if format == "c" and find_compiler() is None:
        return None
    if format == "html" and find_node() is None:
        return None
    return {"onnx": onnx_runner, "torch-export": torch_export_runner, "c": c_runner, "html": node_runner}[format]

"""A classifier as one C99 header: its numbers, and the few loops that run them."""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from audiostride import __version__
from audiostride.errors import InputError
from audiostride.models.classifier import AudioClassifier
from audiostride.models.export.graph import ExportInput
from audiostride.models.export.parity import Runner
from audiostride.models.export.stages import Stage, split_stages

COMPILERS = ("cc", "gcc", "clang")
PER_LINE = 12


def to_c(model: AudioClassifier, *, input: ExportInput, int8: bool = False) -> bytes:
    """The text of a header with the frozen classifier: no library but the standard one, no heap, no state.

    Args:
        model: The classifier; it is not changed.
        input: ``"waveform"`` or ``"log-mel"``.
        int8: Whether weights, pooling matrices and heads are 8-bit integers with a factor for each output. Arithmetic
            is in float either way.

    Raises:
        InputError: See `split_stages`.
    """
    config, network = model.config, split_stages(model, format="c")
    frames, mels = config.window_frames, config.n_mels
    arrays = _Arrays(int8)
    work, frontend = 0, network.frontend
    if input == "waveform":
        for name in ("window", "turns", "filters"):
            arrays.add(name, getattr(frontend, name))
        arrays.add("filter_bins", np.array(frontend.filter_bins), "int32_t")
        work = frames * mels + frontend.n_fft + frontend.n_fft // 2 + 1
    arrays.add("norm_gain", network.norm_gain)
    arrays.add("norm_offset", network.norm_offset)
    places, line_offset = place_maps(network.stages)
    stages = [
        _describe_stage(number, stage, place, arrays)
        for number, (stage, place) in enumerate(zip(network.stages, places, strict=True))
    ]
    arrays.add_rows("head", network.head)
    arrays.add("head_bias", network.head_bias)
    features = network.head.shape[1]
    work = max(work, line_offset + max(features, *(stage.line_size for stage in network.stages)))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("audiostride.models.export", "."), undefined=jinja2.StrictUndefined
    )
    environment.filters["quoted"] = _quote
    text = environment.get_template("classifier.h.jinja").render(
        version=__version__,
        config=config,
        waveform=input == "waveform",
        int8=int8,
        arrays=arrays,
        stages=stages,
        work=work,
        line_offset=line_offset,
        last=network.stages[-1],
        features=features,
        network=network,
        power_floor=_format_float(frontend.power_floor),
    )
    return text.encode()


def place_maps(stages: Sequence[Stage]) -> tuple[list[tuple[int, int]], int]:
    """Where the map that each stage reads begins, and the one that it writes; and where the last of them ends.

    A mel stage, which takes a copy of each line and never makes one longer, writes over what it reads. The map of a
    time stage goes in front of what it reads where there is room, else behind.
    """
    places: list[tuple[int, int]] = []
    begin, end = 0, stages[0].size_in
    for stage in stages:
        if stage.axis == "mel" and stage.n_out * stage.channels_out <= stage.n_in * stage.channels_in:
            to = begin
        else:
            to = 0 if stage.size_out <= begin else begin + stage.size_in
        places.append((begin, to))
        begin, end = to, max(end, to + stage.size_out)
    return places, end


class _Arrays:
    """The constants of a header."""

    def __init__(self, int8: bool) -> None:
        self.int8 = int8
        self.found: list[dict[str, Any]] = []
        self.n_bytes = 0

    def add(self, name: str, values: NDArray[Any], kind: str = "float") -> str:
        """Note an array; the result is its name in C."""
        flat = values.ravel()
        texts = [_format_float(value) for value in flat] if kind == "float" else [str(int(value)) for value in flat]
        lines = [", ".join(texts[start : start + PER_LINE]) for start in range(0, len(texts), PER_LINE)]
        self.found.append({"name": name, "type": kind, "length": len(flat), "text": ",\n".join(lines)})
        self.n_bytes += len(flat) * {"float": 4, "int8_t": 1, "int32_t": 4}[kind]
        return f"audiostride_{name}"

    def add_rows(self, name: str, rows: NDArray[np.float32]) -> tuple[str, str]:
        """Note weights with an output for each row; the result is their name and that of their factors."""
        if not self.int8:
            return self.add(name, rows), "NULL"
        whole, scale = round_rows(rows)
        return self.add(name, whole, "int8_t"), self.add(f"{name}_scale", scale)


def round_rows(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Rows as 8-bit integers, and the factor of each: its largest weight is 127."""
    largest = np.abs(rows).max(axis=1)
    scale = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    return np.rint(rows / scale[:, None]).astype(np.int8), scale


def _describe_stage(number: int, stage: Stage, place: tuple[int, int], arrays: _Arrays) -> str:
    """The initialiser of a stage, in the order of its fields."""
    name = f"stage_{number}"
    taps, channels, channels_out = stage.kernel.shape
    # A factor for each output channel; in memory outputs lie together.
    kernel, kernel_scale = stage.kernel, "NULL"
    if arrays.int8:
        whole, scale = round_rows(kernel.reshape(-1, channels_out).T)
        kernel_name = arrays.add(f"{name}_kernel", whole.T, "int8_t")
        kernel_scale = arrays.add(f"{name}_kernel_scale", scale)
    else:
        kernel_name = arrays.add(f"{name}_kernel", kernel)
    matrix, matrix_scale = ("NULL", "NULL") if stage.matrix is None else arrays.add_rows(f"{name}_matrix", stage.matrix)
    numbers = [*place, int(stage.axis == "mel"), stage.lines, stage.n_in, stage.n_out, channels, channels_out, taps]
    numbers += [stage.stride, int(stage.pools_taps), int(stage.norm_first)]
    pointers = [kernel_name, matrix, kernel_scale, matrix_scale]
    pointers += [arrays.add(f"{name}_{part}", getattr(stage, part)) for part in ("bias", "gain", "offset")]
    return ", ".join([*map(str, numbers), *pointers])


def _quote(text: str) -> str:
    """A string constant of C, in UTF-8."""
    signs = (f"\\{ord(sign):03o}" if sign < " " else f"\\{sign}" if sign in '"\\?' else sign for sign in text)
    return f'"{"".join(signs)}"'  # a question mark too: three signs may stand for another one


def _format_float(value: float) -> str:
    """A float constant of C that is read as the same float32."""
    text = f"{value:.9g}"
    return f"{text}f" if any(sign in text for sign in ".e") else f"{text}.0f"


def find_compiler() -> str | None:
    """A C compiler on the path, or None."""
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


def c_runner(content: bytes) -> Runner:
    """A function from a batch of inputs to the logits of all tasks: the header, compiled and loaded; one thread.

    Raises:
        InputError: A compiler that fails.
    """
    compiler = find_compiler()
    if compiler is None:
        raise InputError(
            f"export: comparing C with PyTorch takes a C compiler, one of {', '.join(COMPILERS)}; got none"
        )
    with tempfile.TemporaryDirectory() as folder:
        header, source, library = (Path(folder) / name for name in ("classifier.h", "classifier.c", "classifier.so"))
        header.write_bytes(content)
        source.write_text(
            '#include "classifier.h"\n'
            "void run(const float *input, float *logits, float *work) { audiostride_classify(input, logits, work); }\n"
            "void sizes(int *found) { found[0] = AUDIOSTRIDE_WORK; found[1] = AUDIOSTRIDE_TASKS;\n"
            "for (int t = 0; t < AUDIOSTRIDE_TASKS; t++) found[2 + t] = audiostride_tasks[t].classes; }\n",
            encoding="utf-8",
        )
        made = subprocess.run(
            [compiler, "-std=c99", "-O2", "-shared", "-fPIC", "-o", library, source, "-lm"],
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            raise InputError(f"export: {compiler} must compile the C file, but says: {made.stderr.strip()[:500]}")
        loaded = ctypes.CDLL(str(library))
    sizes = (ctypes.c_int * 4096)()
    loaded.sizes(sizes)
    bounds = np.cumsum(sizes[2 : 2 + sizes[1]])
    work = np.empty(sizes[0], np.float32)

    def pointer(array: NDArray[np.float32]) -> Any:
        return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))

    def run(inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        inputs = np.ascontiguousarray(inputs, np.float32)
        logits = np.empty((len(inputs), bounds[-1]), np.float32)
        for row, result in zip(inputs, logits, strict=True):
            loaded.run(pointer(row), pointer(result), pointer(work))
        return np.split(logits, bounds[:-1], axis=1)

    return run

"""``audiostride export``."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from audiostride.checks import check_count
from audiostride.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from audiostride.models import AudioClassifier
    from audiostride.models.export.parity import Runner

CALIBRATION = 256  # training clips whose activations choose the scales of int8


def build_parser() -> ArgumentParser:
    """The options of ``audiostride export``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("run", metavar="RUN", help="run folder or model.safetensors")
    parser.add_argument(
        "-o", "--out", required=True, help="file that is written: model.onnx, .pt2, .h (C99) or .html (a page)"
    )
    parser.add_argument(
        "--input",
        choices=["waveform", "log-mel"],
        default="waveform",
        help="what the file takes: windows of samples, or their log-mel spectrograms",
    )
    parser.add_argument("--format", choices=["onnx", "torch-export", "c", "html"], help="default: by the suffix of -o")
    parser.add_argument("--clips", type=int, default=64, help="test clips of the run to compare with PyTorch on")
    parser.add_argument(
        "--int8",
        action="store_true",
        help="8-bit weights, in ONNX activations too: a third or a fourth of the size (ONNX, C)",
    )
    parser.add_argument(
        "--max-drop", type=float, help="with --int8: points of test accuracy that it may cost (default: 1)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    return parser


def run(arguments: Any) -> int:
    """Write a trained classifier as one file of ONNX, torch.export, C or HTML, and compare it with PyTorch."""
    # --help and errors in options need not wait for torch.
    from audiostride.models import load_classifier
    from audiostride.models.export.export_format import check_int8, check_packages, check_place, choose_format
    from audiostride.models.export.files import export_classifier

    check_count("export", clips=arguments.clips)
    out = Path(arguments.out)
    format = choose_format(out, arguments.format)
    check_place(out, overwrite=arguments.overwrite)
    check_packages(format)
    check_int8(format, int8=arguments.int8)
    if arguments.max_drop is not None and not arguments.int8:
        raise InputError("export: --max-drop must be given with --int8, got it without")
    max_drop = 1.0 if arguments.max_drop is None else arguments.max_drop
    if not 0 <= max_drop < math.inf:
        raise InputError(f"export: --max-drop must be finite and >= 0, got {max_drop:g}")
    run_path = Path(arguments.run)
    model = load_classifier(run_path)
    clips, why = _windows_of(run_path, model, "test", count=arguments.clips)
    source = f"generated clips ({why})" if clips is None else "test clips of the run"
    calibration, accept = None, None
    if arguments.int8:
        needed, part = clips, "test"
        if clips is not None and format == "onnx":
            calibration, why = _windows_of(run_path, model, "train", count=CALIBRATION)
            needed, part = calibration, "training"
        if needed is None:
            raise InputError(
                f"export: --int8 must be given a run whose {part} clips can be read, got {run_path}: {why}"
            )
        accept = _compare_accuracies(run_path, model, arguments.input, max_drop=max_drop)
    found = export_classifier(
        model,
        out,
        input=arguments.input,
        format=format,
        clips=clips,
        int8=arguments.int8,
        calibration=calibration,
        accept=accept,
        overwrite=arguments.overwrite,
    )
    shape = " x ".join(["batch", *map(str, found.input_shape)])
    outputs = ", ".join(f"{name} (batch x {len(model.config.tasks[task])})" for task, name in found.outputs.items())
    beside = ""
    if found.float_bytes is not None:
        beside = f" in int8; in float32 it is {found.float_bytes / 2**20:.2f} MiB"
        beside += "" if found.n_bytes <= found.float_bytes else ", which is less: leave --int8 out"
    print(f"{found.path}: {found.format}, {found.n_bytes / 2**20:.2f} MiB{beside}")
    if format == "html":
        print("open it in a browser and drop a recording on it; it needs no network")
    elif format == "c":
        head = found.path.read_text(encoding="utf-8").split("*/")[0]
        print("\n".join(line[3:] for line in head.splitlines() if line[3:].startswith(("Weights", "Memory", "Work"))))
    else:
        print(f"input {found.input_name} ({shape}), {model.config.sample_rate} Hz; output {outputs}")
    parity = found.parity
    if parity is None:
        print(f"not compared with PyTorch, for which there is no {'node' if format == 'html' else 'C compiler'} here")
    else:
        print(
            f"against PyTorch on {parity.n_clips} {source}: largest difference of logits {parity.max_difference:.1e}, "
            f"same top class {parity.n_same_class} of {parity.n_clips}"
        )
    program = {"onnx": "onnxruntime", "c": "C"}.get(format, "torch.export")
    for number, each in enumerate(found.latencies):
        before = f" ({found.float_latencies[number].exported_ms:.2f} ms in float32)" if found.float_latencies else ""
        print(
            f"CPU, {each.threads} thread{'s'[: each.threads - 1]}, batch {each.batch_size}: {program} "
            f"{each.exported_ms:.2f} ms{before}, PyTorch {each.torch_ms:.2f} ms (medians)"
        )
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1
    if load > cores + 1:  # one of them is this
        print(f"other programs were running (load {load:.1f} on {cores} cores): these times are longer than need be")
    return 0


def _compare_accuracies(
    run: Path, model: "AudioClassifier", input: str, *, max_drop: float
) -> "Callable[[Runner, Runner], None]":
    """What tells the test accuracies in float32 and in int8, and refuses a network that loses too much."""

    def accept(before: "Runner", after: "Runner") -> None:
        # As in `run`.
        from audiostride.models.export.parity import ExportedModel
        from audiostride.training.clips import evaluate_clips, load_split
        from audiostride.training.config import TrainConfig
        from audiostride.training.sources import read_sources
        from audiostride.wording import metric_of

        config = TrainConfig.load(run if run.is_dir() else run.parent)
        clips = load_split(read_sources(config), model, config, "test")
        networks = [ExportedModel(model, runner, input=input) for runner in (before, after)]
        plain, small = (evaluate_clips(network, clips, intervals=False) for network in networks)
        for task, found in plain.items():
            accuracies = 100 * found.accuracy, 100 * small[task].accuracy
            told = f"{accuracies[0]:.1f} % in float32, {accuracies[1]:.1f} % in int8"
            print(f"{task}: {metric_of({'metric': found.metric})} of {found.n_clips} test clips {told}", flush=True)
            # Written so that NaN fails.
            if not accuracies[0] - accuracies[1] <= max_drop + 1e-9:
                raise InputError(
                    f"export: --int8 must cost at most {max_drop:g} points of test accuracy, but {task} has {told}; "
                    "nothing is written; give a larger --max-drop, or leave --int8 out"
                )

    return accept


def _windows_of(given: Path, model: "AudioClassifier", split: str, *, count: int) -> "tuple[Tensor | None, str]":
    """A window from the middle of each of so many clips of a split of a run.

    None where there are none, a model file alone or audio that is no longer there, and why in words.
    """
    # As in `run`.
    import numpy as np
    import torch

    from audiostride.dataset.readers import open_reader
    from audiostride.training.config import TrainConfig
    from audiostride.training.sources import read_source

    folder = given if given.is_dir() else given.parent
    if not (folder / "config.yaml").is_file():
        return None, "there is no run folder"
    window, rate = model.config.window_samples, model.config.sample_rate
    windows = []
    try:
        config = TrainConfig.load(folder)
        sources = config.sources()
        for number, source in enumerate(sources):
            clips, _ = read_source(source, config, on_error="skip")
            clips = clips[clips["split"] == split].drop_duplicates(["path", "start_s"])
            wanted = count // len(sources) + (number < count % len(sources))
            rows = np.unique(np.linspace(0, len(clips) - 1, min(wanted, len(clips))).round().astype(int))
            if len(rows) == 0:
                continue
            reader = open_reader(clips.iloc[rows], sample_rate=rate, on_error="skip", progress=False)
            for index, n_samples in enumerate(reader.n_samples.tolist()):
                windows.append(reader.read(index, max(0, (n_samples - window) // 2), window))
    except (InputError, OSError) as error:
        return None, f"the run's own cannot be read: {str(error).splitlines()[0]}"
    if not windows:
        return None, f"no {split} clip of the run can be read"
    return torch.from_numpy(np.stack(windows)), ""

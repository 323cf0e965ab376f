"""``audiostride export``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from audiostride.checks import check_count
from audiostride.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from audiostride.models import AudioClassifier


def build_parser() -> ArgumentParser:
    """The options of ``audiostride export``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("run", metavar="RUN", help="run folder or model.safetensors")
    parser.add_argument("-o", "--out", required=True, help="file that is written: model.onnx, or model.pt2")
    parser.add_argument(
        "--input",
        choices=["waveform", "log-mel"],
        default="waveform",
        help="what the file takes: windows of samples, or their log-mel spectrograms",
    )
    parser.add_argument("--format", choices=["onnx", "torch-export"], help="default: by the suffix of -o")
    parser.add_argument("--clips", type=int, default=64, help="test clips of the run to compare with PyTorch on")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    return parser


def run(arguments: Any) -> int:
    """Write a trained classifier as one ONNX or torch.export file, and compare it with PyTorch."""
    # --help and errors in options need not wait for torch.
    from audiostride.models import load_classifier
    from audiostride.models.export import check_packages, check_place, choose_format, export_classifier

    check_count("export", clips=arguments.clips)
    out = Path(arguments.out)
    format = choose_format(out, arguments.format)
    check_place(out, overwrite=arguments.overwrite)
    check_packages(format)
    model = load_classifier(arguments.run)
    clips, source = _test_windows(Path(arguments.run), model, count=arguments.clips)
    found = export_classifier(
        model, out, input=arguments.input, format=format, clips=clips, overwrite=arguments.overwrite
    )
    shape = " x ".join(["batch", *map(str, found.input_shape)])
    outputs = ", ".join(f"{name} (batch x {len(model.config.tasks[task])})" for task, name in found.outputs.items())
    print(f"{found.path}: {found.format}, {found.n_bytes / 2**20:.2f} MiB")
    print(f"input {found.input_name} ({shape}), {model.config.sample_rate} Hz; output {outputs}")
    parity = found.parity
    print(
        f"against PyTorch on {parity.n_clips} {source}: largest difference of logits {parity.max_difference:.1e}, "
        f"same top class {parity.n_same_class} of {parity.n_clips}"
    )
    program = "onnxruntime" if found.format == "onnx" else "torch.export"
    for each in found.latencies:
        print(
            f"CPU, {each.threads} thread{'s'[: each.threads - 1]}, batch {each.batch_size}: {program} "
            f"{each.exported_ms:.2f} ms, PyTorch {each.torch_ms:.2f} ms (medians)"
        )
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1
    if load > cores + 1:  # one of them is this
        print(f"other programs were running (load {load:.1f} on {cores} cores): these times are longer than need be")
    return 0


def _test_windows(given: Path, model: "AudioClassifier", *, count: int) -> "tuple[Tensor | None, str]":
    """A window from the middle of each of so many test clips of a run, and how to call them in a sentence.

    None where there are none: a model file alone, or audio that is no longer there.
    """
    # As in `run`.
    import numpy as np
    import torch

    from audiostride.dataset.readers import open_reader
    from audiostride.training.clips import read_source
    from audiostride.training.config import TrainConfig

    folder = given if given.is_dir() else given.parent
    if not (folder / "config.yaml").is_file():
        return None, "generated clips (there is no run folder)"
    window, rate = model.config.window_samples, model.config.sample_rate
    windows = []
    try:
        config = TrainConfig.load(folder)
        sources = config.sources()
        for number, source in enumerate(sources):
            clips, _ = read_source(source, config, on_error="skip")
            clips = clips[clips["split"] == "test"].drop_duplicates(["path", "start_s"])
            wanted = count // len(sources) + (number < count % len(sources))
            rows = np.unique(np.linspace(0, len(clips) - 1, min(wanted, len(clips))).round().astype(int))
            if len(rows) == 0:
                continue
            reader = open_reader(clips.iloc[rows], sample_rate=rate, on_error="skip", progress=False)
            for index, n_samples in enumerate(reader.n_samples.tolist()):
                windows.append(reader.read(index, max(0, (n_samples - window) // 2), window))
    except (InputError, OSError) as error:
        return None, f"generated clips (the run's own cannot be read: {str(error).splitlines()[0]})"
    if not windows:
        return None, "generated clips (no test clip of the run can be read)"
    return torch.from_numpy(np.stack(windows)), "test clips of the run"

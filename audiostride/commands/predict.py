"""``audiostride predict``."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from audiostride.checks import check_count
from audiostride.errors import BAD_INPUT, InputError


def build_parser() -> ArgumentParser:
    """The options of ``audiostride predict``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("run", metavar="RUN", help="run folder or model.safetensors")
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="audio files, folders of them, manifests (.csv), or stores"
    )
    parser.add_argument("-o", "--out", required=True, help="CSV file that is written")
    parser.add_argument("--per-window", action="store_true", help="one row per window of 1 s instead of one per file")
    parser.add_argument(
        "--on-error", choices=["skip", "stop"], default="skip", help="whether a file that cannot be read ends the job"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    parser.add_argument(
        "--devices", type=int, default=1, help="processes on each machine, one per GPU, each with a part of the files"
    )
    parser.add_argument("--num-nodes", type=int, default=1, help="machines that share the work and the folder of -o")
    return parser


def run(arguments: Any) -> int:
    """Classify recordings of any length."""
    from audiostride.evaluation import expand_paths
    from audiostride.models import load_classifier
    from audiostride.processes import Processes
    from audiostride.training.bulk_prediction import part_file, write_predictions
    from audiostride.training.hardware import choose_device

    out, devices, n_nodes = Path(arguments.out), arguments.devices, arguments.num_nodes
    check_count("predict", devices=devices, num_nodes=n_nodes)
    processes = Processes.of_environment(devices, n_nodes)
    if processes.first and out.exists() and not arguments.overwrite:
        raise InputError(f"predict: {out} exists; choose another -o, or give --overwrite")
    if not out.parent.is_dir():
        raise InputError(f"predict: -o must lie in a folder that exists, got {out}")
    device = choose_device(arguments.device, devices=devices)
    model = load_classifier(arguments.run)
    files = expand_paths(arguments.paths, sample_rate=model.config.sample_rate)
    n_done = write_predictions(
        model,
        files,
        out,
        per_window=arguments.per_window,
        stop_on_error=arguments.on_error == "stop",
        device=device,
        devices=devices,
        n_nodes=n_nodes,
    )
    if not processes.first:
        return 0  # the first process answers for all
    print(f"{n_done} of {len(files)} files -> {out}")
    if processes.count > 1:
        print(f"its parts, one of each process, stay beside it: {part_file(out, processes)} and so on")
    return BAD_INPUT if n_done < len(files) else 0

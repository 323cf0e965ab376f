"""Recovery from poor starting strides, the paper's central claim (Table 3), as a program: runs, tables, figure."""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiostride.errors import InputError
from audiostride.training.config import TrainConfig
from audiostride.training.presets import preset_settings
from lab.data_stages import prepare_data
from lab.program import SMOKE, end_program, make_archive, one_thread, parse_settings
from lab.random_starts import AUDIO_ARCHS, DATA_NAMES, IMAGE_ARCHS, STARTS, USUAL, parse_starts
from lab.random_strides_data import find_kind, name_data
from lab.recipe import POOLINGS

if TYPE_CHECKING:
    from lab.random_strides_cells import AudioCells
    from lab.random_strides_images import ImageCells

NAME = "random_strides"
PRESETS = ("quick", "paper", "published")
DEFAULT_SEEDS = (0, 1)
# What two CPU cores can train. Clips no longer than a window would without the shift give the same excerpt each time.
# Strides that start badly have far to go: at the usual rate of 1e-2 they do not arrive in 400 steps. Chosen by
# validation accuracy on ten words, ResNet-18, the six starts and two seeds: 87.1 % with a spread over starts of 0.9
# points, against 86.6 % and 2.9 at 1e-2.
QUICK = {"width": 0.125, "max_steps": 400, "batch_size": 32, "time_shift_s": 0.1, "stride_lr": 3e-2}
# Of the paper's preset: how long and how fast is learned, not how maps are sized, which multiplies their cost.
SCHEDULE = ("width", "max_steps", "batch_size", "lr", "stride_lr", "weight_decay", "schedule", "valid_every")
# What the grid sets itself, and the option that gives it.
COMPARED = {"strides": "--starts", "pooling": "--pooling", "encoder": "--arch", "arch": "--arch", "seed": "--seeds"}
GIVEN = {"out": "--out", "manifest": "--data", "task": "--data", "data": "--data", "label": "--label",
         "download": "--download"}  # fmt: skip
ALONE = ("devices", "num_nodes")


def main_random_strides(head: str, given: Sequence[str] | None = None) -> int:
    """Run the grid with the options of a command line; the return value is the exit code."""
    arguments = build_random_strides_parser(head).parse_args(given)
    return end_program(NAME, lambda: run_random_strides(arguments))


def build_random_strides_parser(head: str) -> argparse.ArgumentParser:
    """The options of the recipe."""
    parser = argparse.ArgumentParser(
        prog=f"{NAME}.py", description=head, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--arch", choices=list(USUAL), default="resnet18", help="the network; 'audio' is the paper's own for audio, "
        "of separable convolutions (default: %(default)s)")  # fmt: skip
    add("--data", metavar="M", help="what is learned: audio as a CSV table, a folder of class folders or a store; or "
        "images as cifar10, cifar100, or a folder with train/ and val/ of class folders")  # fmt: skip
    add("--label", metavar="COLUMN", help="column of the manifest with the labels (default: label)")
    add("--starts", nargs="+", metavar="S,S,S", help="starting strides, a number for each strided layer, the same on "
        "both axes (default: the paper's; for efficientnet_b0 five of six are ours)")  # fmt: skip
    add("--pooling", nargs="+", choices=POOLINGS, default=list(POOLINGS), help="what is compared (default: all three)")
    add("--seeds", type=int, nargs="+", help=f"a run for each (default: {' '.join(map(str, DEFAULT_SEEDS))})")
    add("--out", metavar="DIR", help=f"folder that is written (default: runs/{NAME})")
    add("--preset", choices=PRESETS, default="quick", help="how long is learned: quick suits two CPU cores, paper has "
        "the paper's steps, batches and rates, published (images only) those of the published repository's "
        "pre-activation ResNet-18 with mixup (default: %(default)s)")  # fmt: skip
    add("--width", type=float, help=f"factor on the channels (quick: {QUICK['width']}, else 1)")
    add("--max-steps", type=int, help=f"optimizer steps (quick, audio: {QUICK['max_steps']})")
    add("--batch-size", type=int, help=f"excerpts or images per step (quick, audio: {QUICK['batch_size']})")
    add("--set", nargs="+", metavar="NAME=VALUE", default=[], help="any other setting of the training, such as lr=1e-4")
    add("--download", action="store_true", help="first download CIFAR to runs/data, with --out to OUT/data, or where "
        "--set data_root=DIR says, if it is not there")  # fmt: skip
    add("--jobs", type=int, default=1, help="audio: runs at the same time, each in a process (default: %(default)s)")
    add("--smoke", action="store_true", help="make tiny audio data and run two starts in a few steps on the CPU")
    return parser


def run_random_strides(arguments: argparse.Namespace) -> str:
    """Train a cell for each start, pooling and seed; write tables and figure; what stands is skipped.

    ``table.md``, ``figure3.png`` and ``figure3.svg`` stand beside the run folders, in
    ``<out>/<name of the data>/<arch>``.

    Args:
        arguments: What `build_random_strides_parser` parses.

    Returns:
        The tables that are printed last.

    Raises:
        InputError: Bad options or data; at the end, if cells have failed, after the tables of the others.
        KeyboardInterrupt: Stopped; the same call goes on.
    """
    arch = arguments.arch
    starts = parse_starts(arch, arguments.starts) if arguments.starts else list(STARTS[arch])
    given = read_given(arguments)
    kind = "audio" if arguments.smoke else find_kind(arguments.data)
    check_options(arguments, kind)
    seeds = list(dict.fromkeys(arguments.seeds or ([0] if arguments.smoke else DEFAULT_SEEDS)))
    poolings = [pooling for pooling in POOLINGS if pooling in arguments.pooling]
    # Lightning and matplotlib take seconds to load, which help and errors need not wait for.
    from lab.random_strides_cells import make_cells
    from lab.random_strides_report import report_cells

    with ExitStack() as cleaning:
        data, given_out = arguments.data, arguments.out
        if arguments.smoke:
            given_out = given_out or cleaning.enter_context(tempfile.TemporaryDirectory(prefix=f"{NAME}-"))
            cleaning.enter_context(one_thread())
            data = str(_make_smoke_data(Path(given_out)))
            starts = starts if arguments.starts else [starts[0], starts[-1]]
        out = Path(given_out) if given_out else Path("runs") / NAME
        label = arguments.label or "label"
        folder = out / name_data(data, label) / arch
        learner = _make_learner(kind, arguments, data=data, label=label, given=given, out=out)
        cells = make_cells(folder, starts, poolings, seeds)
        learner.check(cells[0])
        failed = learner.train(cells, jobs=arguments.jobs)
        text = report_cells(
            learner, [cell for cell in cells if cell not in failed], failed, folder, arch=arch, data=data
        )
        if arguments.smoke:
            print("smoke: tones instead of a data set and a few steps, which shows that everything runs, no more")
    if failed:
        raise InputError(
            f"{len(failed)} of {len(cells)} cells failed, listed above; mend this and give the same command again, or "
            "leave them out with --starts and --pooling"
        )
    return text


def read_given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of training that options give.

    Raises:
        InputError: A setting that is compared, that another option gives, or of several processes.
    """
    settings = parse_settings(NAME, arguments.set)
    for name in settings:
        if name in COMPARED:
            raise InputError(f"--set must leave what is compared alone, got {name}; give {COMPARED[name]}")
        if name in GIVEN:
            raise InputError(f"--set must leave {name} out, which {GIVEN[name]} gives")
        if name in ALONE:
            raise InputError(f"--set must leave {name} out: each cell trains in one process; --jobs trains several")
    if arguments.jobs < 1:
        raise InputError(f"--jobs must be at least 1, got {arguments.jobs}")
    named = {name: getattr(arguments, name) for name in ("width", "max_steps", "batch_size")}
    return settings | {name: value for name, value in named.items() if value is not None}


def check_options(arguments: argparse.Namespace, kind: str) -> None:
    """Raise where options contradict each other.

    Raises:
        InputError: A network for the other kind of data; smoke with data; options of the other kind of data.
    """
    arch = arguments.arch
    if arch not in (AUDIO_ARCHS if kind == "audio" else IMAGE_ARCHS):
        raise InputError(
            f"--arch {arch} does not learn {kind}, got --data {arguments.data}; audio goes with "
            f"{', '.join(AUDIO_ARCHS)}, images with {', '.join(IMAGE_ARCHS)}"
        )
    if arguments.smoke and (arguments.data or arguments.label or arguments.download):
        raise InputError("--smoke makes its own data; leave --data, --label and --download out")
    if kind == "audio" and arguments.preset == "published":
        raise InputError("--preset published is for images, got audio; give quick or paper")
    if arguments.preset == "published" and arch != "preact_resnet18":
        raise InputError(f"--preset published is for --arch preact_resnet18, got {arch}; give quick or paper")
    if arguments.download and arguments.data not in DATA_NAMES:
        raise InputError(f"--download is for {' and '.join(DATA_NAMES)}, got --data {arguments.data}; leave it out")
    if kind == "images" and arguments.label:
        raise InputError(f"--label is for audio, got {arguments.label!r}; the classes of images are their folders")
    if kind == "images" and arguments.jobs > 1:
        raise InputError(f"--jobs is for audio, got {arguments.jobs}; images train one after another")


def audio_settings(preset: str) -> dict[str, Any]:
    """Settings of `TrainConfig` of a preset of this recipe.

    >>> audio_settings("quick")["max_steps"], audio_settings("paper")["max_steps"]
    (400, 1000000)
    """
    if preset == "quick":
        return dict(QUICK)
    paper = preset_settings("paper")
    return {name: paper[name] for name in SCHEDULE}


def _make_learner(
    kind: str, arguments: argparse.Namespace, *, data: str, label: str, given: Mapping[str, Any], out: Path
) -> "AudioCells | ImageCells":
    if kind == "images":
        from lab.random_strides_images import ImageCells

        root = (out if arguments.out else Path("runs")) / "data"
        return ImageCells(
            arguments.arch, data=data, root=root, preset=arguments.preset, settings=given, download=arguments.download
        )
    from lab.random_strides_cells import AudioCells

    known = [entry.name for entry in fields(TrainConfig) if entry.name not in {**COMPARED, **GIVEN}]
    for name in given:
        if name not in known:
            raise InputError(f"--set must be a setting of training, one of {', '.join(known)}, got {name!r}")
    settings = {**audio_settings(arguments.preset), **(SMOKE if arguments.smoke else {}), **given}
    return AudioCells(arguments.arch, manifest=data, label=label, settings=settings)


def _make_smoke_data(folder: Path) -> Path:
    data = "speech-commands"
    return prepare_data(data, make_archive(data, folder / "archive"), folder / "data" / "smoke")

"""Recovery from poor starting strides, the paper's central claim: accuracy, true cost and learned strides by start.

Data: any manifest of audio with a train/valid/test split (--label names its column); or images: CIFAR-10 or CIFAR-100
    (--data cifar10, with --download where it is not there), or a folder with train/ and val/ of class folders.
Command: python recipes/random_strides.py --arch resnet18 --data MANIFEST --label COLUMN --seeds 0 1
    python recipes/random_strides.py --arch audio --data MANIFEST --label COLUMN
    python recipes/random_strides.py --arch resnet18 --data cifar10 --download --preset paper --seeds 0 1 2
Expected: see recipes/RESULTS.md, Poor starting strides. Tables (table.md) and a figure (figure3.png, figure3.svg): test
    accuracy of strided convolution, spectral pooling and DiffStride for each start, as in the paper's Table 3, with the
    true multiply-adds of the trained networks and the paper's figures on CIFAR beside them; strides that were learned.
Hardware: --preset quick suits two CPU cores (width 0.125, 400 steps); --preset paper wants a GPU.
Time: ten spoken words on two cores 40 minutes; --smoke under a minute. A finished run is not trained again, a stopped
    one goes on.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from audiostride.dataset.folders import AUDIO_SUFFIXES
from audiostride.dataset.store import is_store
from audiostride.errors import InputError
from audiostride.training import train
from audiostride.training.sweep import describe_failures
from images.train import train_images
from lab.archives import make_archive
from lab.data_stages import prepare_data, say
from lab.figures import figure_stage
from lab.program import (
    POOLINGS,
    SMOKE,
    choose_seeds,
    end_of_output,
    end_program,
    make_parser,
    named_settings,
    open_folder,
    parse_settings,
)
from lab.random_strides_cells import COMPARED, GIVEN, QUICK, AudioCells, Cell, CellResult, ImageCells, audio_settings
from lab.random_strides_figure import draw_recovery
from lab.random_strides_starts import (
    AUDIO_ARCHS,
    DATA_NAMES,
    IMAGE_ARCHS,
    USUAL,
    Start,
    default_starts,
    name_folder,
    parse_starts,
    usual_start,
)
from lab.random_strides_table import describe_recovery, format_learned, format_starts
from lab.runs import train_all

NAME = "random_strides"
PRESETS = ("quick", "paper", "published")
DEFAULT_SEEDS = (0, 1)
SMOKE_DATA = "speech-commands"
ALONE = ("devices", "num_nodes")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
# Files of a folder that are looked at to tell audio from images: a large tree is not walked whole.
N_LOOKED_AT = 2000


def main(given: Sequence[str] | None = None) -> int:
    """Run the grid with the options of a command line; the return value is the exit code."""
    arguments = build_parser().parse_args(given)
    return end_program(NAME, lambda: run(arguments))


def build_parser() -> argparse.ArgumentParser:
    """The options of the recipe."""
    parser = make_parser(NAME, __doc__)
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


def run(arguments: argparse.Namespace) -> None:
    """Train a cell for each start, pooling and seed; write tables and figure; what stands is skipped.

    ``table.md``, ``figure3.png`` and ``figure3.svg`` stand beside the run folders, in
    ``<out>/<name of the data>/<arch>``.

    Raises:
        InputError: Bad options or data; at the end, if cells have failed, after the tables of the others.
        KeyboardInterrupt: Stopped; the same call goes on.
    """
    arch = arguments.arch
    given = read_given(arguments)
    kind = "audio" if arguments.smoke else find_kind(arguments.data)
    starts = parse_starts(arch, arguments.starts) if arguments.starts else default_starts(arch, kind)
    check_options(arguments, kind)
    poolings = [pooling for pooling in POOLINGS if pooling in arguments.pooling]
    with open_folder(NAME, arguments.out, smoke=arguments.smoke) as (out, home):
        data = arguments.data
        if arguments.smoke:
            archive = make_archive(SMOKE_DATA, out / "archive")
            data = str(prepare_data(SMOKE_DATA, archive, out / "data" / "smoke"))
            starts = starts if arguments.starts else [starts[0], starts[-1]]
        label = arguments.label or "label"
        folder = out / name_data(data, label) / arch
        learner: AudioCells | ImageCells
        if kind == "images":
            learner = ImageCells(
                arch, data=data, root=home / "data", preset=arguments.preset, settings=given,
                download=arguments.download,
            )  # fmt: skip
        else:
            settings = {**audio_settings(arguments.preset, arch), **(SMOKE if arguments.smoke else {}), **given}
            learner = AudioCells(arch, manifest=data, label=label, settings=settings)
        cells = make_cells(folder, starts, poolings, choose_seeds(arguments, DEFAULT_SEEDS))
        learner.check(cells[0])
        failed = train_cells(cells, learner, jobs=arguments.jobs)
        done = [cell for cell in cells if cell.run not in failed]
        listed = f"{describe_failures(failed, n_runs=len(cells))}" if failed else ""
        if not done:
            raise InputError(f"every cell failed:\n{listed}")
        usual = usual_start(arch, starts[0])
        results = [learner.measure(cell, usual) for cell in done]
        text = describe_cells(results, listed, learner, arch=arch, data=data, usual=usual, run=done[0].run)
        figure_stage(
            lambda: draw_recovery(results, unit=learner.unit, usual=usual), text, folder, n_runs=len(done),
            name="figure3",
        )  # fmt: skip
        print(f"\n{text}\n")
        if arguments.smoke:
            print(end_of_output(smoke=True, data="tones instead of a data set"))
    if failed:
        raise InputError(
            f"{len(failed)} of {len(cells)} cells failed, listed above; mend this and give the same command again, or "
            "leave them out with --starts and --pooling"
        )


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
    return settings | named_settings(arguments)


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


def find_kind(data: str | None) -> str:
    """Whether data are ``audio`` or ``images``: a folder is what the files in it are.

    Raises:
        InputError: No data; nothing there; a folder with both or neither.
    """
    if data is None:
        raise InputError(
            f"--data must be a manifest of audio, {', '.join(DATA_NAMES)} or a folder of images, got none; "
            "or try --smoke, which makes its own tiny data"
        )
    path = Path(data)
    if data in DATA_NAMES:
        return "images"
    if path.is_file() or is_store(path):
        return "audio"
    if not path.is_dir():
        raise InputError(f"--data must be {', '.join(DATA_NAMES)}, or a file or folder that exists, got {data}")
    found: dict[str, str] = {}
    looked_at = 0
    for place, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            suffix = Path(name).suffix.lower()
            kind = "audio" if suffix in AUDIO_SUFFIXES else "images" if suffix in IMAGE_SUFFIXES else None
            looked_at += kind is not None
            if kind is not None:
                found.setdefault(kind, os.path.join(place, name))
        if len(found) > 1 or looked_at >= N_LOOKED_AT:
            break
    if len(found) > 1:
        raise InputError(
            f"--data must be a folder of audio or of images, but {data} has both, such as {found['audio']} and "
            f"{found['images']}; give a CSV manifest of the audio, or a folder with one of them"
        )
    if not found:
        raise InputError(f"--data must be a folder with audio or images in it, but {data} has neither")
    return next(iter(found))


def name_data(data: str, label: str) -> str:
    """The folder of runs on some data.

    >>> name_data("speech/manifest.csv", "label"), name_data("nsynth/store", "pitch"), name_data("cifar10", "label")
    ('speech', 'nsynth-pitch', 'cifar10')
    """
    path = Path(data).absolute()
    name = path.parent.name if path.stem in ("manifest", "store") else path.stem if path.suffix == ".csv" else path.name
    return name if label == "label" else f"{name}-{label}"


def make_cells(folder: Path, starts: Sequence[Start], poolings: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """The whole grid, seed by seed, so that an early stop leaves whole tables.

    >>> [cell.run.name for cell in make_cells(Path(), [(2, 2, 3)], ["strided", "diffstride"], [0])]
    ['2-2-3_strided_seed0', '2-2-3_diffstride_seed0']
    """
    return [
        Cell(start, pooling, seed, folder / f"{name_folder(start)}_{pooling}_seed{seed}")
        for seed, start, pooling in product(seeds, starts, poolings)
    ]


def train_cells(cells: Sequence[Cell], learner: "AudioCells | ImageCells", *, jobs: int) -> dict[Path, str]:
    """Train what is missing; one that fails does not end the others. The reasons of those that failed, by their runs.

    Raises:
        InputError: A cell stands that has other settings.
        KeyboardInterrupt: A training was stopped; its checkpoint stands.
    """
    configs: list[Any] = []
    failed: dict[Path, str] = {}
    for cell in cells:
        try:
            configs.append(learner.configure(cell))
        except InputError as error:  # such as a strided convolution with 1.5
            failed[cell.run] = str(error)
            say("train", f"{cell.run} failed: {error}")
    learn = train_images if isinstance(learner, ImageCells) else train
    return failed | train_all(configs, learn, jobs=jobs)


def describe_cells(
    results: Sequence[CellResult],
    listed: str,
    learner: "AudioCells | ImageCells",
    *,
    arch: str,
    data: str,
    usual: Start,
    run: Path,
) -> str:
    """The tables of finished cells, with what failed.

    Args:
        results: What cells have come to.
        listed: The cells that failed.
        learner: What has trained them.
        arch: The network.
        data: What it has learned.
        usual: Strides of the strided network to which costs are relative.
        run: The folder of one of them.
    """
    seeds = " ".join(map(str, sorted({result.seed for result in results})))
    parts = [
        f"Random starting strides, {run.parents[1].name}, {arch}: {learner.describe(run)}, seeds {seeds}",
        format_starts(results, arch=arch, data=data, unit=learner.unit, usual=usual),
        describe_recovery(results),
        format_learned(results),
        listed,
    ]
    return "\n\n".join(part for part in parts if part)


if __name__ == "__main__":
    sys.exit(main())

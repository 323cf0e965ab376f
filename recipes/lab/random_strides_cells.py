"""The cells of a grid of starting strides, of audio or of images: their settings, and what came of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.models import AudioClassifier, load_classifier
from audiostride.models.cost import multiply_adds
from audiostride.training import TrainConfig
from audiostride.training.presets import preset_settings
from audiostride.training.sources import class_names_of, read_source
from images.classifier import ImageClassifier, build_image_network, count_multiply_adds, load_image_classifier
from images.config import CIFAR, ImageTrainConfig, image_preset_settings
from images.data import load_sources
from lab.random_strides_starts import AUDIO_BLOCKS, N_AUDIO_BLOCKS, Start
from lab.runs import describe_setting, read_metrics

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
# What two CPU cores can learn of images: as many as half a pass over CIFAR, those of folders small too.
QUICK_IMAGES = {"width": 0.125, "max_steps": 400, "batch_size": 64}
QUICK_FOLDER = {"image_size": 64}
N_CIFAR = 50_000
# Networks of torchvision, and the layers of their stems, which halve maps in front of those whose strides are given.
TORCHVISION_STEMS = {"densenet121": 2, "efficientnet_b0": 1}
IMAGE_PRESETS = {"paper": "paper_cifar", "published": "published"}
EFFICIENTNET_SIZE = 128  # Riad et al. 2022: CIFAR at 128 x 128, since the network halves its maps five times


@dataclass(frozen=True)
class Cell:
    """One training."""

    start: Start
    """Starting strides, the same on both axes."""
    pooling: str
    """strided, spectral or diffstride."""
    seed: int
    """Of the run."""
    run: Path
    """Its folder."""


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """A trained and tested cell."""

    start: Start
    """As of the cell."""
    pooling: str
    """As of the cell."""
    seed: int
    """As of the cell."""
    accuracy: float
    """On the test clips or images, in [0, 1]."""
    multiply_adds: int
    """Of one window or image through the network that was tested."""
    relative: float
    """`multiply_adds` by those of strided convolution with the network's usual strides."""
    last_map: tuple[int, int] | None = None
    """Bins of the last map over both axes, where known."""
    final: Mapping[str, float] = field(default_factory=dict)
    """Learned strides of the network that was tested, by ``layer<number>_<axis>``; empty where strides are fixed."""
    strides: pd.DataFrame | None = field(default=None, compare=False)
    """Learned strides over the training: ``step`` and the columns of `final`."""
    history: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False)
    """``step`` and ``valid_accuracy``."""


class AudioCells:
    """Cells that learn a manifest.

    Args:
        arch: resnet18, preact_resnet18, densenet121, efficientnet_b0, or audio, the paper's network of separable
            convolutions.
        manifest: CSV table, folder of class folders, or store.
        label: Its column with the labels.
        settings: Settings of `TrainConfig` that all cells share.

    Raises:
        InputError: A setting that there is not, or that the grid gives.
    """

    unit = "window"

    def __init__(self, arch: str, *, manifest: str, label: str, settings: Mapping[str, Any]) -> None:
        known = [entry.name for entry in fields(TrainConfig) if entry.name not in {**COMPARED, **GIVEN}]
        for name in settings:
            if name not in known:
                raise InputError(f"--set must be a setting of training, one of {', '.join(known)}, got {name!r}")
        self.arch, self.manifest, self.label, self.settings = arch, manifest, label, settings

    def configure(self, cell: Cell) -> TrainConfig:
        """The settings of a cell.

        Raises:
            InputError: A value out of its range.
        """
        return TrainConfig(
            out=str(cell.run),
            manifest=self.manifest,
            label=self.label,
            pooling=cell.pooling,  # type: ignore[arg-type]  # checked there
            seed=cell.seed,
            **{**self.settings, **encoder_settings(self.arch, cell.start)},
        )

    def check(self, cell: Cell) -> None:
        """Raise what would fail in every cell: settings out of their range, no such manifest or label."""
        config = self.configure(cell)
        for source in config.sources():
            clips, _ = read_source(source, config)
            class_names_of(clips, source)

    def describe(self, run: Path) -> str:
        """What a finished cell has in common with the others, but for the grid."""
        return describe_setting(run)

    def measure(self, cell: Cell, usual: Start) -> CellResult:
        """What a finished cell has come to.

        Args:
            cell: The cell.
            usual: Strides of the strided network to which costs are relative.
        """
        metrics, model = read_metrics(cell.run), load_classifier(cell.run)
        cost, strides = multiply_adds(model), encoder_settings(self.arch, usual)["strides"]
        return CellResult(
            start=cell.start,
            pooling=cell.pooling,
            seed=cell.seed,
            accuracy=metrics["accuracy"],
            multiply_adds=cost,
            relative=cost / multiply_adds(AudioClassifier(replace(model.config, pooling="strided", strides=strides))),
            last_map=model.encoder.map_sizes(model.config.window_frames, model.config.n_mels)[-1],
            **read_courses(cell.run, tested_step=metrics["best_step"]),
        )


def encoder_settings(arch: str, start: Start) -> dict[str, Any]:
    """Settings of `TrainConfig` for a network with these starting strides.

    >>> encoder_settings("audio", (1, 2, 2, 3))["strides"]
    [[1, 1], [2, 2], [1, 1], [2, 2], [1, 1], [3, 3]]
    >>> encoder_settings("densenet121", (1, 2, 3))["strides"]
    [[2, 2], [2, 2], [1, 1], [2, 2], [3, 3]]
    """
    strides: list[list[float]]
    if arch in TORCHVISION_STEMS:
        strides = [[2, 2]] * TORCHVISION_STEMS[arch]
        strides += [[stride, stride] for stride in start]
        return {"encoder": f"torchvision:{arch}", "strides": strides}
    if arch != "audio":
        return {"encoder": arch, "strides": [[stride, stride] for stride in start]}
    strides = [[1, 1] for _ in range(N_AUDIO_BLOCKS)]
    for block, stride in zip(AUDIO_BLOCKS, start, strict=True):
        strides[block - 1] = [stride, stride]
    return {"encoder": "separable", "strides": strides}


def audio_settings(preset: str, arch: str) -> dict[str, Any]:
    """Settings of `TrainConfig` of a preset of this recipe; networks of torchvision have one width.

    >>> audio_settings("quick", "audio")["max_steps"], audio_settings("paper", "audio")["max_steps"]
    (400, 1000000)
    """
    paper = preset_settings("paper")
    settings = dict(QUICK) if preset == "quick" else {name: paper[name] for name in SCHEDULE}
    return {name: value for name, value in settings.items() if name != "width" or arch not in TORCHVISION_STEMS}


class ImageCells:
    """Cells that learn images.

    Args:
        arch: A network of `images.classifier.build_image_network`.
        data: cifar10, cifar100, or a folder.
        root: Folder of the CIFAR archives, unless `settings` have another.
        preset: quick, paper or published.
        settings: Settings of `ImageTrainConfig` that all cells share, above those of the preset.
        download: Whether a CIFAR that is not there is downloaded.

    Raises:
        InputError: A setting that there is not.
    """

    unit = "image"

    def __init__(
        self, arch: str, *, data: str, root: Path, preset: str, settings: Mapping[str, Any], download: bool
    ) -> None:
        known = [entry.name for entry in fields(ImageTrainConfig)]
        for name in settings:
            if name not in known:
                raise InputError(f"--set must be a setting of image training, one of {', '.join(known)}, got {name!r}")
        own = {"image_size": EFFICIENTNET_SIZE} if arch == "efficientnet_b0" and data in CIFAR else {}
        self.settings: dict[str, Any] = {
            **image_settings(preset, data, settings),
            **own,
            "data_root": str(root),
            **settings,
            "arch": arch,
            "data": data,
            "download": download,
        }

    def configure(self, cell: Cell) -> ImageTrainConfig:
        """The settings of a cell.

        Raises:
            InputError: A value out of its range.
        """
        own = {"out": str(cell.run), "pooling": cell.pooling, "strides": list(cell.start), "seed": cell.seed}
        return ImageTrainConfig(**{**self.settings, **own})

    def check(self, cell: Cell) -> None:
        """Raise what would fail in every cell: settings out of their range, no such data."""
        load_sources(self.configure(cell), Processes())

    def describe(self, run: Path) -> str:
        """What a finished cell has in common with the others, but for the grid."""
        config, metrics = ImageTrainConfig.load(run), read_metrics(run)
        environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
        return (
            f"{metrics['steps']:,} steps of {config.batch_size} images, SGD {config.lr:g}, width {config.width:g}; "
            f"accuracy on the {metrics['n_images']:,} images of {metrics['split']}; "
            f"{environment['device']}, torch {environment['packages']['torch']}"
        )

    def measure(self, cell: Cell, usual: Start) -> CellResult:
        """What a finished cell has come to.

        Args:
            cell: The cell.
            usual: Strides of the strided network to which costs are relative.
        """
        metrics, (model, _) = read_metrics(cell.run), load_image_classifier(cell.run)
        cost = int(metrics["multiply_adds"])
        with torch.no_grad():
            maps = model.backbone(torch.zeros(1, 3, model.image_size, model.image_size))
        return CellResult(
            start=cell.start,
            pooling=cell.pooling,
            seed=cell.seed,
            accuracy=metrics["accuracy"],
            multiply_adds=cost,
            relative=cost / usual_cost(model, usual),
            last_map=(int(maps.shape[-2]), int(maps.shape[-1])),
            **read_courses(cell.run, tested_step=None),
        )


def image_settings(preset: str, data: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `ImageTrainConfig` of a preset of this recipe.

    Args:
        preset: quick, paper or published.
        data: cifar10 and cifar100 have as many images as the quick schedule reckons with.
        given: Settings that stand above it.
    """
    if preset != "quick":
        return image_preset_settings(IMAGE_PRESETS[preset])
    if data not in CIFAR:
        return {**QUICK_IMAGES, **QUICK_FOLDER}
    settings: dict[str, Any] = {**QUICK_IMAGES, **given}
    epochs = settings["max_steps"] * settings["batch_size"] / N_CIFAR
    # As the paper's, which come at 1/2 and 3/4 of the training.
    return {**QUICK_IMAGES, "milestones": [epochs / 2, 3 * epochs / 4], "valid_every": epochs / 4}


def usual_cost(model: ImageClassifier, usual: Start) -> int:
    """Multiply-adds of one image through the same network with strided convolutions and its usual strides."""
    strides = [(stride, stride) for stride in usual]
    strided = build_image_network(**{**model.settings, "pooling": "strided", "strides": strides})
    return count_multiply_adds(strided, torch.zeros(1, 3, model.image_size, model.image_size))


def read_courses(run: Path, *, tested_step: int | None) -> dict[str, Any]:
    """The courses of a run: its history and learned strides, and those of the step whose model was tested.

    Args:
        run: The run folder.
        tested_step: Its step; None is the last one.
    """
    history, file = pd.read_csv(run / "history.csv"), run / "strides.csv"
    if not file.is_file():
        return {"history": history}
    strides = pd.read_csv(file)
    rows = strides if tested_step is None else strides[strides["step"] <= tested_step]
    final = rows.iloc[-1]
    layers = [str(name) for name in strides.columns if str(name).startswith("layer")]
    return {"history": history, "strides": strides, "final": {name: float(final[name]) for name in layers}}

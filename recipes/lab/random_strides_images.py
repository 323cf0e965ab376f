"""Cells of the grid that learn images; see `lab.random_strides_cells`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from audiostride.distributed import Processes
from audiostride.errors import InputError
from images import ImageTrainConfig, image_preset_settings, train_images
from images.classifier import ImageClassifier, build_image_network, count_multiply_adds
from images.config import CIFAR
from images.run import finished_image_metrics
from images.saving import load_image_classifier
from images.sources import load_sources
from lab.data_stages import say
from lab.random_starts import Start
from lab.random_strides_cells import Cell, CellResult, read_courses, train_cells
from lab.run_stages import read_metrics

# What two CPU cores can train: as many images as half a pass over CIFAR, those of folders small too.
QUICK = {"width": 0.125, "max_steps": 400, "batch_size": 64}
QUICK_FOLDER = {"image_size": 64}
N_CIFAR = 50_000
PRESETS = {"paper": "paper_cifar", "published": "published"}
EFFICIENTNET_SIZE = 128  # Riad et al. 2022: CIFAR at 128 x 128, since the network halves its maps five times


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
            **preset_settings(preset, data, settings),
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

    def train(self, cells: Sequence[Cell], *, jobs: int = 1) -> dict[Cell, str]:
        """As `train_cells`; there is one job."""
        return train_cells(cells, self._learn)

    def _learn(self, cell: Cell) -> dict[str, Any] | None:
        begun, finished = (cell.run / "config.yaml").is_file(), finished_image_metrics(cell.run) is not None
        if begun and not finished:
            say("train", f"{cell.run} was stopped, goes on")
        metrics = train_images(self.configure(cell), resume=begun)
        return None if finished else metrics

    def describe(self, cell: Cell) -> str:
        """What a finished cell has in common with the others, but for the grid."""
        config, metrics = ImageTrainConfig.load(cell.run), read_metrics(cell.run)
        environment = json.loads((cell.run / "environment.json").read_text(encoding="utf-8"))
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


def preset_settings(preset: str, data: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `ImageTrainConfig` of a preset of this recipe.

    Args:
        preset: quick, paper or published.
        data: cifar10 and cifar100 have as many images as the quick schedule reckons with.
        given: Settings that stand above it.
    """
    if preset != "quick":
        return image_preset_settings(PRESETS[preset])
    if data not in CIFAR:
        return {**QUICK, **QUICK_FOLDER}
    settings: dict[str, Any] = {**QUICK, **given}
    epochs = settings["max_steps"] * settings["batch_size"] / N_CIFAR
    # As the paper's, which come at 1/2 and 3/4 of the training.
    return {**QUICK, "milestones": [epochs / 2, 3 * epochs / 4], "valid_every": epochs / 4}


def usual_cost(model: ImageClassifier, usual: Start) -> int:
    """Multiply-adds of one image through the same network with strided convolutions and its usual strides."""
    strides = [(stride, stride) for stride in usual]
    strided = build_image_network(**{**model.settings, "pooling": "strided", "strides": strides})
    return count_multiply_adds(strided, torch.zeros(1, 3, model.image_size, model.image_size))

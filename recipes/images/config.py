"""Settings of the training of an image classifier, as in its run's ``config.yaml``, and those of the paper."""

import math
import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from audiostride.checks import (
    Count,
    NotNegative,
    Pooling,
    Positive,
    RampBins,
    Size,
    Stem,
    WholeNumber,
    check_choice,
    check_settings,
)
from audiostride.errors import InputError
from audiostride.training.config import Device, Precision
from audiostride.training.settings import check_equal_settings, read_settings
from images.classifier import Arch, check_start_strides

CIFAR = ("cifar10", "cifar100")
WHO = "image training"


@dataclass(kw_only=True)
class ImageTrainConfig:
    """Settings of the training of an image classifier; the defaults are the paper's for CIFAR but for the size of maps.

    Maps are as small as those of strided convolution (``size="nominal"``), so that poolings cost about the same.
    `IMAGE_PRESETS` has the paper's experiments as they are. Strides learn at the rate of the weights, as there: at 0.1
    single steps of a ResNet-18 moved them by 0.006 at most, in 80 steps by 0.01 to 0.12; a rate of 0.01, tried too,
    leaves them where they are (width 0.25, batches of 64 generated textures).

    Raises:
        InputError: A value out of its range.
    """

    out: str
    """Run folder that is written."""
    data: str
    """cifar10, cifar100, or a folder with train/ and val/, valid/ or test/, each with a folder of images per class."""
    data_root: str = "data"
    """Folder with torchvision's CIFAR archives, unpacked, or to be downloaded to."""
    download: bool = False
    """Whether a CIFAR that is not there is downloaded."""
    arch: Arch = "resnet18"
    """Network."""
    stem: Stem = "small"
    """First layers of the network: small for images of 32 pixels, large for 224 (stride 2 and a pooling)."""
    pooling: Pooling = "diffstride"
    """How maps shrink: strided convolution, spectral pooling, or learned strides."""
    size: Size = "nominal"
    """DiffStride's masks and map sizes: the paper's, or as small as strided convolution's: nominal, folded."""
    strides: Sequence[Any] = (2, 2, 2)
    """Stride of each layer that pools, a number for both axes or a pair; learned strides start from them."""
    shared_strides: bool = False
    """One learned stride for both axes of a layer."""
    ramp_bins: RampBins = 4.0
    """Width of the mask's ramp in FFT bins (the paper's R)."""
    width: Positive = 1.0
    """Factor on the channels of the network; 0.25 suits a CPU."""
    image_size: Count | None = None
    """Height and width in pixels that images are brought to (default: CIFAR's 32, 224 for folders)."""
    epochs: Positive = 400.0
    """Passes over the training images."""
    max_steps: Count | None = None
    """Optimizer steps, instead of epochs."""
    batch_size: Count = 256
    """Images per step."""
    lr: Positive = 0.1
    """Learning rate of SGD."""
    momentum: NotNegative = 0.9
    """Momentum of SGD."""
    weight_decay: NotNegative = 5e-3
    """Weight decay; never on strides."""
    milestones: Sequence[Positive] = (200, 300)
    """Epochs from which on both learning rates are a tenth of what they were."""
    stride_lr: NotNegative | None = None
    """Learning rate of the strides; none is that of the weights, as in the paper."""
    stride_cost: NotNegative = 0.0
    """Weight of the paper's cost term (eq. 6), which drives strides up."""
    mixup: NotNegative = 0.0
    """Augmentation: alpha of the shares that mixup mixes pairs of images by; 0 mixes none."""
    augment: bool = True
    """Augmentation: random flips, and crops (of CIFAR from a border of 4 pixels, else of 8 to 100 % of the image)."""
    seed: WholeNumber = 0
    """Seed of weights, order and augmentation."""
    valid_every: Positive = 1.0
    """Epochs between validations, each of which saves a checkpoint."""
    device: Device = "auto"
    """Where to train; auto takes a GPU where there is one."""
    devices: Count = 1
    """Processes on each machine that train together, one per GPU; each computes its share of a batch."""
    num_nodes: Count = 1
    """Machines that train together."""
    precision: Precision = "auto"
    """Arithmetic; auto is bf16-mixed on a GPU that has it, else 32."""
    workers: WholeNumber = 0
    """Processes that read images; 0 suits CIFAR, which is in memory."""

    def __post_init__(self) -> None:
        check_settings(WHO, self)
        if any(after <= before for before, after in pairwise(self.milestones)):
            raise InputError(f"{WHO}: milestones must be rising epochs, got {list(self.milestones)}")
        check_start_strides(WHO, self.arch, self.stride_pairs(), pooling=self.pooling)
        if self.data not in CIFAR:
            self.data = os.path.abspath(self.data)
        # A run folder must be understood from any working directory.
        self.data_root = os.path.abspath(self.data_root)
        if self.batch_size % self.n_processes or self.batch_size < 2 * self.n_processes:
            raise InputError(
                f"{WHO}: batch_size must be a multiple of devices x num_nodes ({self.n_processes}), and at least twice "
                f"that (batch norm), got {self.batch_size}"
            )

    @property
    def n_processes(self) -> int:
        """Processes on all machines."""
        return self.devices * self.num_nodes

    def stride_pairs(self) -> list[tuple[float, float]]:
        """Stride over height and width of each layer that pools.

        >>> ImageTrainConfig(out="o", data="cifar10", strides=[2, (1, 3), 2]).stride_pairs()
        [(2.0, 2.0), (1.0, 3.0), (2.0, 2.0)]
        """
        found = []
        for entry in self.strides:
            pair = list(entry) if isinstance(entry, Sequence) and not isinstance(entry, str) else [entry, entry]
            if len(pair) != 2 or not all(isinstance(stride, int | float) for stride in pair):
                raise InputError(
                    f"{WHO}: strides must be a number or a pair for each layer that pools, got {entry!r}; "
                    "give such as [2, 2, 2] or [[2, 2], [1, 3], [2, 2]]"
                )
            found.append((float(pair[0]), float(pair[1])))
        return found

    def count_steps(self, n_images: int) -> int:
        """Optimizer steps of the training: `max_steps`, or those that show so many images `epochs` times.

        >>> ImageTrainConfig(out="o", data="cifar10").count_steps(50_000)
        78125
        """
        return math.ceil(self.epochs * n_images / self.batch_size) if self.max_steps is None else self.max_steps

    def learning_rate_factor(self, step: int, *, n_images: int) -> float:
        """Factor on the learning rates at a step: a tenth for each milestone that has been reached.

        >>> config = ImageTrainConfig(out="o", data="cifar10", batch_size=100)
        >>> [round(config.learning_rate_factor(step, n_images=1000), 4) for step in (1999, 2000, 3000)]
        [1.0, 0.1, 0.01]
        """
        reached = sum(step * self.batch_size >= epoch * n_images for epoch in self.milestones)
        return float(0.1**reached)

    def validates_after(self, step: int, *, n_images: int) -> bool:
        """Whether a multiple of `valid_every` epochs was passed by the last of so many steps."""
        images = self.valid_every * n_images
        return step * self.batch_size // images > (step - 1) * self.batch_size // images

    def to_dict(self) -> dict[str, Any]:
        """The settings as values that YAML knows."""
        values = asdict(self)
        values["strides"] = [list(pair) for pair in self.stride_pairs()]
        values["milestones"] = list(self.milestones)
        return values

    @classmethod
    def load(cls, run: str | Path) -> "ImageTrainConfig":
        """The settings of a run folder.

        Raises:
            InputError: Not a run folder, or a ``config.yaml`` that this version does not know.
        """
        return cls(**read_settings(run, [entry.name for entry in fields(cls)], writer="train_images"))


# Settings that may differ when a run is taken up again: they do not change what is learned.
RESUMABLE_CHANGES = ("out", "data_root", "download", "device", "devices", "num_nodes", "workers")


def check_same_image_settings(old: ImageTrainConfig, new: ImageTrainConfig) -> None:
    """Raise, showing the differences, unless `new` continues the training that `old` began."""
    check_equal_settings(old.to_dict(), new.to_dict(), out=new.out, changeable=RESUMABLE_CHANGES)


# Riad et al. 2022 (arXiv 2202.01653), section 3.2: ResNet-18, SGD at 0.1 with momentum 0.9, batches of 256, random crop
# and flip; maps of size n/S + 2R with R = 4. One learning rate is named, so that strides learn at it too. Every setting
# that changes what is learned is written out: a default of this toolkit that changes must not change the paper's
# experiment.
PAPER: dict[str, Any] = {
    "arch": "resnet18",
    "pooling": "diffstride",
    "size": "paper",
    "ramp_bins": 4.0,
    "shared_strides": False,
    "width": 1.0,
    "batch_size": 256,
    "lr": 0.1,
    "momentum": 0.9,
    "stride_lr": None,
    "stride_cost": 0.0,
    "mixup": 0.0,
    "augment": True,
}
# 400 epochs, a tenth of the rate from epoch 200 and again from 300.
PAPER_CIFAR: dict[str, Any] = {
    **PAPER,
    "stem": "small",
    "strides": [2, 2, 2],
    "image_size": None,
    "epochs": 400,
    "milestones": [200, 300],
    "weight_decay": 5e-3,
    # The paper does not say how often; nothing is chosen by it.
    "valid_every": 5,
}
IMAGE_PRESETS: dict[str, dict[str, Any]] = {
    "paper_cifar": PAPER_CIFAR,
    # A stride for the first identity block too. The size of the images, 224, is what is usual: the paper names none.
    "paper_imagenet": {
        **PAPER,
        "stem": "large",
        "strides": [1, 2, 2, 2],
        "image_size": 224,
        "epochs": 90,
        "milestones": [30, 60, 80],
        "weight_decay": 1e-3,
        "valid_every": 1,
    },
    # The repository that the authors published, as far as it is known here: pre-activation ResNet-18 with mixup, five
    # strides (1, 1, 2, 2, 2). Assumed, since its settings are not at hand: that the first of the five is the stem's,
    # which does not pool; an alpha of 1 (Zhang et al. 2018 on CIFAR); the schedule, weight decay, crop and flip of the
    # paper.
    "published": {**PAPER_CIFAR, "arch": "preact_resnet18", "strides": [1, 2, 2, 2], "mixup": 1.0},
}


def image_preset_settings(name: str) -> dict[str, Any]:
    """The settings of a preset, to be changed as one likes.

    >>> settings = image_preset_settings("paper_imagenet")
    >>> settings["epochs"], settings["milestones"]
    (90, [30, 60, 80])

    Raises:
        InputError: There is no such preset.
    """
    check_choice("image training", "preset", name, tuple(IMAGE_PRESETS))
    return deepcopy(IMAGE_PRESETS[name])

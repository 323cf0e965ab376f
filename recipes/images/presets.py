"""Settings of the paper's image experiments, under a name."""

from copy import deepcopy
from typing import Any

from audiostride.checks import check_choice

IMAGE_PRESETS: dict[str, dict[str, Any]] = {
    # Riad et al. 2022 (arXiv 2202.01653), section 3.2: ResNet-18, SGD at 0.1 with momentum 0.9, batches of 256, 400
    # epochs, a tenth of the rate from epoch 200 and again from 300, weight decay 5e-3, random crop and flip; maps of
    # size n/S + 2R with R = 4. One learning rate is named, so that strides learn at it too. Every setting that changes
    # what is learned is written out: a default of this toolkit that changes must not change the paper's experiment.
    "paper_cifar": {
        "arch": "resnet18",
        "stem": "small",
        "pooling": "diffstride",
        "size": "paper",
        "ramp_bins": 4.0,
        "strides": [2, 2, 2],
        "shared_strides": False,
        "width": 1.0,
        "image_size": None,
        "epochs": 400,
        "milestones": [200, 300],
        "batch_size": 256,
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-3,
        "stride_lr": None,
        "stride_cost": 0.0,
        "mixup": 0.0,
        "augment": True,
        # The paper does not say how often; nothing is chosen by it.
        "valid_every": 5,
    },
    # The same section: 90 epochs, a tenth at 30, 60 and 80, weight decay 1e-3, and a stride for the first identity
    # block too. The size of the images, 224, is what is usual: the paper does not name it.
    "paper_imagenet": {
        "arch": "resnet18",
        "stem": "large",
        "pooling": "diffstride",
        "size": "paper",
        "ramp_bins": 4.0,
        "strides": [1, 2, 2, 2],
        "shared_strides": False,
        "width": 1.0,
        "image_size": 224,
        "epochs": 90,
        "milestones": [30, 60, 80],
        "batch_size": 256,
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-3,
        "stride_lr": None,
        "stride_cost": 0.0,
        "mixup": 0.0,
        "augment": True,
        "valid_every": 1,
    },
    # The repository that the authors published, as far as it is known here: pre-activation ResNet-18 with mixup, five
    # strides (1, 1, 2, 2, 2). Assumed, since its settings are not at hand: that the first of the five is the stem's,
    # which does not pool; an alpha of 1 (Zhang et al. 2018 on CIFAR); the schedule, weight decay, crop and flip of the
    # paper.
    "published": {
        "arch": "preact_resnet18",
        "stem": "small",
        "pooling": "diffstride",
        "size": "paper",
        "ramp_bins": 4.0,
        "strides": [1, 2, 2, 2],
        "shared_strides": False,
        "width": 1.0,
        "image_size": None,
        "epochs": 400,
        "milestones": [200, 300],
        "batch_size": 256,
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-3,
        "stride_lr": None,
        "stride_cost": 0.0,
        "mixup": 1.0,
        "augment": True,
        "valid_every": 5,
    },
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

"""Settings that belong together, under a name: ``audiostride train --preset NAME``."""

from typing import Any

from audiostride.errors import InputError
from audiostride.models.config import PAPER_CHANNELS, PAPER_STRIDES

PRESETS: dict[str, dict[str, Any]] = {
    # Riad et al. 2022 (arXiv 2202.01653), section 3.1: random 1 s windows, Adam at 1e-4, batches of 256, 1 M of them,
    # no augmentation; both axes pooled once after each block, maps of size n/S + 2R with R = 4. The paper names one
    # learning rate, so strides learn at it too, and no schedule. Every other setting that changes what is learned is
    # written out: a default of this toolkit that changes must not change the paper's experiment.
    "paper": {
        "encoder": "separable",
        "size": "paper",
        "ramp_bins": 4.0,
        "pool_after": "block",
        "width": 1.0,
        "strides": [list(pair) for pair in PAPER_STRIDES],
        "channels": list(PAPER_CHANNELS),
        "shared_strides": False,
        "max_steps": 1_000_000,
        "batch_size": 256,
        "lr": 1e-4,
        "stride_lr": 1e-4,
        "weight_decay": 0.0,
        "stride_cost": 0.0,
        "schedule": "constant",
        "balance": "none",
        "class_weights": "none",
        "distillation": 0.0,
        "time_shift_s": 0.0,
        "gain_db": 0.0,
        "noise": None,
        "mixup": 0.0,
        "time_masks": 0,
        "mel_masks": 0,
        # The paper does not say how often; 200 validations over the training, as many as rows of its stride table.
        "valid_every": 5000,
    },
    # This toolkit's own: a tenth of the paper's steps, a learning rate that starts 40 times higher and falls along a
    # cosine, strides that learn at a rate of their own, maps as small as strided convolution's, excerpts shifted and
    # mixed. Chosen by validation accuracy, mean over ten words (200 clips) and 28 pitches (105 clips), width 0.125,
    # batch 32, 200 steps, seed 0: 76 % at a rate of 2e-3 without augmentation, 81 % at 4e-3, 82 % with shift and mixup,
    # which cost words 3 points and gave pitches 6. Masks of time and mel, tried at 2e-3 beside the shift, cost words 4
    # and gave pitches 10; with mixup they are not measured, nor is anything at batches of 256.
    "modern": {
        "size": "mixed",
        "pool_after": "convolution",
        "max_steps": 100_000,
        "batch_size": 256,
        "lr": 4e-3,
        "stride_lr": 1e-2,
        "schedule": "cosine",
        "time_shift_s": 0.1,
        "mixup": 0.2,
        "valid_every": 1000,
    },
}


def preset_settings(name: str) -> dict[str, Any]:
    """The settings of a preset, to be changed as one likes.

    >>> settings = preset_settings("paper")
    >>> settings["lr"], settings["batch_size"]
    (0.0001, 256)

    Raises:
        InputError: There is no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"train: preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return {key: list(value) if isinstance(value, list) else value for key, value in PRESETS[name].items()}

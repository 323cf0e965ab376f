"""Settings that belong together, under a name: ``audiostride train --preset NAME``."""

from typing import Any

from audiostride.errors import InputError
from audiostride.models.encoder_kinds import PAPER_CHANNELS, PAPER_STRIDES

DEFAULT_PRESET = "modern"
PRESETS: dict[str, dict[str, Any]] = {
    # Riad et al. 2022 (arXiv 2202.01653), section 3.1: random 1 s windows, Adam at 1e-4, batches of 256, 1 M of them,
    # no augmentation; both axes pooled once after each block, maps of size n/S + 2R with R = 4. The paper names one
    # learning rate, so strides learn at it too, and no schedule. Every other setting that changes what is learned is
    # written out: a default of this toolkit that changes must not change the paper's experiment.
    "paper": {
        "sample_rate": 16000,
        "window_s": 1.0,
        "win_ms": 25.0,
        "hop_ms": 10.0,
        "n_mels": 64,
        "fmin_hz": 60.0,
        "fmax_hz": 7800.0,
        "frontend": "log-mel",
        "encoder": "separable",
        "size": "paper",
        "ramp_bins": 4.0,
        "pool_after": "block",
        "width": 1.0,
        "strides": [list(pair) for pair in PAPER_STRIDES],
        "channels": list(PAPER_CHANNELS),
        "shared_strides": False,
        "head_pooling": "max",
        "input_norm": "all",
        "max_steps": 1_000_000,
        "epochs": None,
        "batch_size": 256,
        "optimizer": "adam",
        "lr": 1e-4,
        "stride_lr": 1e-4,
        "weight_decay": 0.0,
        "stride_cost": 0.0,
        "schedule": "constant",
        "warmup": 0.0,
        "label_smoothing": 0.0,
        "keep": "last",
        "clip_score": "mean",
        "calibrate": False,
        "balance": "none",
        "class_weights": "none",
        "distillation": 0.0,
        "time_shift_s": 0.0,
        "gain_db": 0.0,
        "lowest_gain_db": None,
        "noise": None,
        "mixup": 0.0,
        "time_masks": 0,
        "mel_masks": 0,
        # The paper does not say how often; 200 validations over the training, as many as rows of its stride table.
        "valid_every": 5000,
    },
    # The default of `audiostride train`, see recipes/RESULTS.md for what each element is worth.
    "modern": {
        "lr": 4e-3,
        "weight_decay": 0.02,
        "warmup": 0.1,
        "label_smoothing": 0.1,
        "calibrate": True,
        "head_pooling": "both",
        "input_norm": "band",
        "time_shift_s": 0.1,
        "gain_db": 10.0,
        "lowest_gain_db": -20.0,
        "noise": "synthetic",
        "mixup": 0.2,
        "time_masks": 1,
        "mel_masks": 1,
    },
    # The bare network: cross entropy on random excerpts.
    "none": {},
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

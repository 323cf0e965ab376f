"""Checks of batches of examples: shapes and types of tensors, never their values, which would wait for a device."""

import torch
from torch import Tensor

from audiostride.errors import InputError


def check_waveform(who: str, waveform: Tensor, *, name: str = "waveform") -> None:
    """Raise unless a waveform is floating-point of shape ``(B, samples)``."""
    if waveform.ndim != 2 or waveform.shape[1] == 0 or not waveform.is_floating_point():
        raise InputError(
            f"{who}: {name} must be floating-point of shape (B, samples) with at least 1 sample, got {waveform.dtype} "
            f"of shape {tuple(waveform.shape)}; add a batch axis with .unsqueeze(0), divide int16 by 32768"
        )


def check_per_example(who: str, n_examples: int, **values: Tensor) -> None:
    """Raise unless every named tensor has one value per example."""
    for name, value in values.items():
        if value.shape != (n_examples,):
            raise InputError(
                f"{who}: {name} must have one entry per example, shape ({n_examples},), got {tuple(value.shape)}; "
                "use .expand to give all examples the same"
            )


def check_indices(who: str, name: str, indices: Tensor) -> None:
    """Raise unless indices are int64."""
    # A bool tensor would select by mask, which waits for the device, and mean something else.
    if indices.dtype != torch.int64:
        raise InputError(f"{who}: {name} must be int64, got {indices.dtype}; use .long()")

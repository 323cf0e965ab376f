"""Argument checks shared by all floors: each raises `InputError` naming the value and the way out."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

from audiostride.errors import InputError

Size = Literal["paper", "nominal", "folded"]
# What a classifier's maps are: as above on both axes, or "nominal" over time and "folded" over mel.
ModelSize = Literal["paper", "nominal", "folded", "mixed"]
Pooling = Literal["strided", "spectral", "diffstride"]
PoolingPlace = Literal["block", "convolution"]
EncoderKind = Literal["separable", "resnet18", "preact_resnet18"]
Stem = Literal["small", "large"]


def check_choice(who: str, name: str, value: str, choices: Any) -> None:
    """Raise unless `value` is one of the strings of a ``Literal`` type or a sequence."""
    allowed = get_args(choices) or tuple(choices)
    if value not in allowed:
        raise InputError(f"{who}: {name} must be one of {', '.join(allowed)}, got {value!r}")


def check_stride(who: str, stride: float) -> float:
    """Return `stride` as a float; raise unless it is finite and at least 1."""
    value = float(stride)
    if not 1 <= value < math.inf:  # also what torch.compile understands of a float
        raise InputError(
            f"{who}: strides must be finite and >= 1 (bins in / bins out), got {stride}; use 1 to leave an axis alone"
        )
    return value


def check_ramp_bins(who: str, ramp_bins: float) -> float:
    """Return `ramp_bins` as a float; raise unless it is finite and positive."""
    value = float(ramp_bins)
    if not 0 < value < math.inf:
        raise InputError(
            f"{who}: ramp_bins must be finite and > 0 FFT bins, got {ramp_bins}; "
            "the paper uses 4, and SpectralPool is the layer with a hard edge"
        )
    return value


def check_bins(who: str, n: int) -> int:
    """Return `n`; raise unless it is a positive number of bins."""
    if n < 1:
        raise InputError(f"{who}: an axis must have at least 1 bin, got {n}; is the input empty or too short?")
    return n


def check_positive(who: str, **values: float) -> None:
    """Raise unless every named value is finite and greater than zero."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{who}: {name} must be > 0, got {value}")


def check_count(who: str, **values: int) -> None:
    """Raise unless every named value is a whole number of at least 1."""
    for name, value in values.items():
        if value != int(value) or value < 1:
            raise InputError(f"{who}: {name} must be a whole number >= 1, got {value}")


def check_axes(who: str, values: Sequence[Any], n_axes: int, name: str) -> None:
    """Raise unless `values` has one entry per axis."""
    if len(values) != n_axes:
        raise InputError(f"{who}: {name} must have one entry per axis ({n_axes}), got {len(values)}: {tuple(values)}")


def per_axis(who: str, value: Any, n_axes: int, name: str) -> tuple[Any, ...]:
    """One value for each axis, of one for all or of a sequence with as many as there are axes."""
    if value is None or isinstance(value, str | float | int):
        return (value,) * n_axes
    check_axes(who, value, n_axes, name)
    return tuple(value)

"""Checks shared by all floors: each raises `InputError` naming the value and the way out."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from numbers import Real
from pathlib import Path
from reprlib import Repr
from types import NoneType
from typing import Annotated, Any, Literal, NotRequired, Required, get_args, get_origin, get_type_hints, is_typeddict

from audiostride.errors import InputError, reason_of

Size = Literal["paper", "nominal", "folded"]
# What a classifier's maps are: as above on both axes, or "nominal" over time and "folded" over mel.
ModelSize = Literal["paper", "nominal", "folded", "mixed"]
Pooling = Literal["strided", "spectral", "diffstride"]
PoolingPlace = Literal["block", "convolution"]
# Networks of this package; those of others are called timm:NAME and torchvision:NAME.
EncoderKind = Literal["separable", "resnet18", "preact_resnet18", "bcresnet"]
Stem = Literal["small", "large"]
HeadPooling = Literal["max", "mean", "both"]
InputNorm = Literal["all", "band"]
ClipScore = Literal["mean", "max", "top-3"]
Frontend = Literal["log-mel", "pcen", "learned-pcen"]

# How a value stands in a message: one of a file may be of megabytes, or hold itself.
_SHOWN = Repr()
_SHOWN.maxlevel, _SHOWN.maxlist, _SHOWN.maxtuple, _SHOWN.maxdict, _SHOWN.maxset = 3, 8, 8, 8, 8
_SHOWN.maxstring = _SHOWN.maxlong = _SHOWN.maxother = 200


@dataclass(frozen=True)
class Range:
    """Which numbers a setting takes: stands beside its type in ``typing.Annotated``, for `check_settings`."""

    low: float = -math.inf
    high: float = math.inf
    ends: bool = True
    """Whether `low` and `high` themselves are taken."""
    what: str = ""
    """Such as ``a probability``."""
    unit: str = ""
    """What stands behind the limits."""
    advice: str = ""
    """What to do about a number outside."""

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high if self.ends else self.low < value < self.high

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"in [{self.low:g}, {self.high:g}]" if self.ends else f"in ({self.low:g}, {self.high:g})"
        return "" if self.low == -math.inf else f"{'>=' if self.ends else '>'} {self.low:g}"


Positive = Annotated[float, Range(0, ends=False)]
NotNegative = Annotated[float, Range(0)]
Probability = Annotated[float, Range(0, 1, what="a probability")]
Count = Annotated[int, Range(1)]
WholeNumber = Annotated[int, Range(0)]
Stride = Annotated[float, Range(1, unit="(bins in / bins out)", advice="use 1 to leave an axis alone")]
RampBins = Annotated[float, Range(0, ends=False, unit="FFT bins", advice="the paper uses 4")]


def check_settings(who: str, settings: Any) -> None:
    """Raise unless every field of a dataclass is what its declaration says; to be called when it is made.

    A declaration is made of ``bool``, ``int``, ``float``, ``str``, ``Literal``, ``X | None``, ``Sequence[X]``,
    ``list[X]``, ``tuple[X, Y]``, ``dict[X, Y]``, a ``TypedDict`` and ``Any``; numbers may have a `Range` in
    ``Annotated``. No number is NaN or infinite, no truth value is a number, and text is no sequence. Numbers and arrays
    of NumPy, whole ones written with a point, and paths become Python's own.

    Args:
        who: Who asks, for messages.
        settings: An instance of a dataclass.

    Raises:
        InputError: The first field that is not, with its name and, in a sequence, the place.
    """
    for name, declared in _declarations(settings.__class__).items():
        object.__setattr__(settings, name, _checked(who, name, getattr(settings, name), declared, Range()))


def read_json(who: str, path: str | Path, declared: Any, *, advice: str = "") -> Any:
    """The content of a JSON file, which is what `declared` says.

    Args:
        who: Who asks, for messages.
        path: The file.
        declared: A declaration as for `check_settings`. Keys that a ``TypedDict`` does not name stay as they are.
        advice: What to do about a file that is not.

    Raises:
        InputError: A file that cannot be read, is not JSON, or holds something else.
    """
    try:
        # Recursion: lists within lists, ten thousand deep. Constants: NaN, which JSON has not and we never write.
        value = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        cause = f"{who}: {path} must be JSON, but reading it failed: {reason_of(error)}"
        raise InputError(f"{cause}; {advice}" if advice else cause) from error
    return check_table(f"{who}: {path}", value, declared, advice=advice)


def check_table(where: str, value: Any, declared: Any, *, advice: str = "") -> Any:
    """A value that was read from `where`, as `declared` says; an `InputError`, with advice, where it is not so."""
    try:
        return _checked(where, "its content", value, declared, Range())
    except InputError as error:
        if not advice:
            raise
        raise InputError(f"{error}; {advice}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it has the value {name}, which JSON does not know")


@cache
def _declarations(settings: Any) -> dict[str, Any]:
    hints = get_type_hints(settings, include_extras=True)
    return hints if is_typeddict(settings) else {entry.name: hints[entry.name] for entry in fields(settings)}


def _checked(who: str, name: str, value: Any, declared: Any, range_: Range) -> Any:
    """A value as its declaration has it."""
    origin, parts = get_origin(declared), get_args(declared)
    if origin in (Annotated, Required, NotRequired):
        return _checked(who, name, value, parts[0], parts[1] if origin is Annotated else range_)
    if NoneType in parts:
        declared = next(part for part in parts if part is not NoneType)
        return None if value is None else _checked(who, name, value, declared, range_)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if declared is Any:
        return value
    if origin is Literal:
        check_choice(who, name, value, declared)
        return value
    if is_typeddict(declared) and isinstance(value, Mapping):
        missing = sorted(declared.__required_keys__ - set(value))
        if missing:
            raise InputError(f"{who}: {name} must have {', '.join(missing)}, got none")
        inside = "" if name == "its content" else f"{name}."
        own = {key: each for key, each in _declarations(declared).items() if key in value}
        return {**value} | {key: _checked(who, inside + key, value[key], each, range_) for key, each in own.items()}
    if origin is dict and isinstance(value, Mapping):
        kind, item = parts
        return {
            _checked(who, f"a name in {name}", key, kind, range_): _checked(
                who, f"{name}[{_SHOWN.repr(key)}]", each, item, range_
            )
            for key, each in value.items()
        }
    if origin in (Sequence, list) and isinstance(value, Sequence) and not isinstance(value, str | bytes):
        items = [_checked(who, f"{name}[{i}]", each, parts[0], range_) for i, each in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if origin is tuple and isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if len(value) != len(parts):
            raise InputError(f"{who}: {name} must have {len(parts)} entries, got {_SHOWN.repr(value)}")
        pairs = enumerate(zip(value, parts, strict=True))
        items = [_checked(who, f"{name}[{i}]", each, part, range_) for i, (each, part) in pairs]
        return tuple(items) if isinstance(value, tuple) else items
    if declared is bool and isinstance(value, bool):
        return value
    if declared is str and isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if declared in (int, float):
        return _checked_number(who, name, value, declared, range_)
    table = origin is dict or is_typeddict(declared)
    must = "a table" if table else {bool: "True or False", str: "text"}.get(declared, "a list")
    raise InputError(f"{who}: {name} must be {must}, got {_SHOWN.repr(value)}")


def _checked_number(who: str, name: str, value: Any, kind: type, range_: Range) -> float:
    # Comparing, unlike float(), knows whole numbers beyond what a float holds; NaN fails every comparison.
    finite = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    whole = finite and value % 1 == 0 and abs(value) < 2**63  # what a tensor or an array takes
    if (whole if kind is int else finite) and value in range_:
        return int(value) if kind is int else value
    what = "a whole number" if kind is int else range_.what or ("" if finite else "a finite number")
    most = "and below 2^63" if kind is int and finite and abs(value) >= 2**63 else ""
    must = " ".join(filter(None, (what, str(range_), range_.unit, most)))
    advice = range_.advice and f"; {range_.advice}"
    raise InputError(f"{who}: {name} must be {must}, got {_SHOWN.repr(value)}{advice}")


def check_choice(who: str, name: str, value: str, choices: Any) -> None:
    """Raise unless `value` is one of the strings of a ``Literal`` type or a sequence."""
    allowed = get_args(choices) or tuple(choices)
    if value not in allowed:
        raise InputError(f"{who}: {name} must be one of {', '.join(allowed)}, got {_SHOWN.repr(value)}")


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
        shown = _SHOWN.repr(tuple(values))
        raise InputError(f"{who}: {name} must have one entry per axis ({n_axes}), got {len(values)}: {shown}")


def per_axis(who: str, value: Any, n_axes: int, name: str) -> tuple[Any, ...]:
    """One value for each axis, of one for all or of a sequence with as many as there are axes."""
    if value is None or isinstance(value, str | Real):
        return (value,) * n_axes
    check_axes(who, value, n_axes, name)
    return tuple(value)


UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}  # of multiply-adds


def check_budget(who: str, text: str) -> tuple[float, bool]:
    """A budget as a number, and whether it is relative to strided convolution.

    Raises:
        InputError: Not ``0.5x`` or ``5M``, or not above zero.

    >>> check_budget("train", "0.5x"), check_budget("train", "5M")
    ((0.5, True), (5000000.0, False))
    """
    number = text.strip().lower()
    unit = number[-1:] if number[-1:] in ("x", *UNITS) else ""
    try:
        value = float(number.removesuffix(unit))
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise InputError(
            f"{who}: budget must be a positive factor on the multiply-adds of strided convolution, such as 0.5x, or a "
            f"number of multiply-adds, for training per second of audio, such as 5M, got {text!r}"
        )
    return (value, True) if unit == "x" else (value * UNITS[unit], False)

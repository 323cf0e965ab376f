"""Audio classification with learnable strides (DiffStride).

Importing the package loads torch and nothing heavier; the names that need pandas load it when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from audiostride.errors import InputError
from audiostride.layers import (
    DiffStride1d,
    DiffStride2d,
    DiffStride3d,
    LogMel,
    SpectralPool1d,
    SpectralPool2d,
    SpectralPool3d,
    StridedConv2d,
    stride_cost,
)

if TYPE_CHECKING:
    from audiostride.models import AudioClassifier, ClassifierConfig, Encoder, load_classifier
    from audiostride.reporting import cutoff_table

__version__ = "0.1.0"

_LAZY = {
    "AudioClassifier": "audiostride.models",
    "ClassifierConfig": "audiostride.models",
    "Encoder": "audiostride.models",
    "load_classifier": "audiostride.models",
    "cutoff_table": "audiostride.reporting",
}

__all__ = [
    "AudioClassifier",
    "ClassifierConfig",
    "DiffStride1d",
    "DiffStride2d",
    "DiffStride3d",
    "Encoder",
    "InputError",
    "LogMel",
    "SpectralPool1d",
    "SpectralPool2d",
    "SpectralPool3d",
    "StridedConv2d",
    "cutoff_table",
    "load_classifier",
    "stride_cost",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'audiostride' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

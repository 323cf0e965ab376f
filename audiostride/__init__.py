"""Audio classification with learnable strides (DiffStride).

Importing the package loads nothing heavy: its names load what they need, torch at most for the layers, when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from audiostride.models import AudioClassifier, ClassifierConfig, Encoder, ResNetEncoder, load_classifier
    from audiostride.reporting import cutoff_table, report

__version__ = "0.1.0"

_LAZY = {
    "InputError": "audiostride.errors",
    "DiffStride1d": "audiostride.layers",
    "DiffStride2d": "audiostride.layers",
    "DiffStride3d": "audiostride.layers",
    "LogMel": "audiostride.layers",
    "SpectralPool1d": "audiostride.layers",
    "SpectralPool2d": "audiostride.layers",
    "SpectralPool3d": "audiostride.layers",
    "StridedConv2d": "audiostride.layers",
    "project_strides_": "audiostride.layers",
    "stride_cost": "audiostride.layers",
    "AudioClassifier": "audiostride.models",
    "ClassifierConfig": "audiostride.models",
    "Encoder": "audiostride.models",
    "ResNetEncoder": "audiostride.models",
    "load_classifier": "audiostride.models",
    "convert_downsampling": "audiostride.models.conversion",
    "freeze_downsampling": "audiostride.models.conversion",
    "cutoff_table": "audiostride.reporting",
    "report": "audiostride.reporting",
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
    "ResNetEncoder",
    "SpectralPool1d",
    "SpectralPool2d",
    "SpectralPool3d",
    "StridedConv2d",
    "convert_downsampling",
    "cutoff_table",
    "freeze_downsampling",
    "load_classifier",
    "project_strides_",
    "report",
    "stride_cost",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'audiostride' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""Audio classification with learnable strides (DiffStride).

Importing the package loads nothing heavy: its names load what they need, torch at most for the layers, when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiostride.audio.log_mel import LogMel
    from audiostride.errors import InputError
    from audiostride.models import (
        AudioClassifier,
        BCResNetEncoder,
        ClassifierConfig,
        Encoder,
        ResNetEncoder,
        load_classifier,
    )
    from audiostride.reporting import cutoff_table, report
    from audiostride.strides.convert import convert_downsampling, freeze_downsampling
    from audiostride.strides.diffstride import DiffStride1d, DiffStride2d, DiffStride3d, project_strides_, stride_cost
    from audiostride.strides.spectral_pool import SpectralPool1d, SpectralPool2d, SpectralPool3d
    from audiostride.strides.strided_conv import StridedConv2d

__version__ = "0.3.0"

_LAZY = {
    "InputError": "audiostride.errors",
    "DiffStride1d": "audiostride.strides.diffstride",
    "DiffStride2d": "audiostride.strides.diffstride",
    "DiffStride3d": "audiostride.strides.diffstride",
    "LogMel": "audiostride.audio.log_mel",
    "SpectralPool1d": "audiostride.strides.spectral_pool",
    "SpectralPool2d": "audiostride.strides.spectral_pool",
    "SpectralPool3d": "audiostride.strides.spectral_pool",
    "StridedConv2d": "audiostride.strides.strided_conv",
    "project_strides_": "audiostride.strides.diffstride",
    "stride_cost": "audiostride.strides.diffstride",
    "AudioClassifier": "audiostride.models",
    "BCResNetEncoder": "audiostride.models",
    "ClassifierConfig": "audiostride.models",
    "Encoder": "audiostride.models",
    "ResNetEncoder": "audiostride.models",
    "load_classifier": "audiostride.models",
    "convert_downsampling": "audiostride.strides.convert",
    "freeze_downsampling": "audiostride.strides.convert",
    "cutoff_table": "audiostride.reporting",
    "report": "audiostride.reporting",
}

__all__ = [
    "AudioClassifier",
    "BCResNetEncoder",
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

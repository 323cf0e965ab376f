"""The network: encoder, classifier, its configuration, saving and loading."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from audiostride.models.config import ClassifierConfig

if TYPE_CHECKING:
    from audiostride.models.bcresnet import BCResNetEncoder
    from audiostride.models.classifier import AudioClassifier
    from audiostride.models.encoder import Encoder
    from audiostride.models.foreign import ForeignEncoder
    from audiostride.models.pooled import PooledEncoder
    from audiostride.models.resnet import ResNetEncoder
    from audiostride.models.saving import load_classifier, save_classifier

# They need torch, for which the command line's help and errors need not wait.
_LAZY = {
    "AudioClassifier": "audiostride.models.classifier",
    "BCResNetEncoder": "audiostride.models.bcresnet",
    "Encoder": "audiostride.models.encoder",
    "ForeignEncoder": "audiostride.models.foreign",
    "PooledEncoder": "audiostride.models.pooled",
    "ResNetEncoder": "audiostride.models.resnet",
    "load_classifier": "audiostride.models.saving",
    "save_classifier": "audiostride.models.saving",
}

__all__ = [
    "AudioClassifier",
    "BCResNetEncoder",
    "ClassifierConfig",
    "Encoder",
    "ForeignEncoder",
    "PooledEncoder",
    "ResNetEncoder",
    "load_classifier",
    "save_classifier",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'audiostride.models' has no attribute {name!r}")

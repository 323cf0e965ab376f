"""The network: encoder, classifier, its configuration, saving and loading."""

from audiostride.models.bcresnet import BCResNetEncoder
from audiostride.models.classifier import AudioClassifier
from audiostride.models.config import ClassifierConfig
from audiostride.models.encoder import Encoder
from audiostride.models.foreign import ForeignEncoder
from audiostride.models.pooled import PooledEncoder
from audiostride.models.resnet import ResNetEncoder
from audiostride.models.saving import load_classifier, save_classifier

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

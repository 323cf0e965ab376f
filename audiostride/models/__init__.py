"""The network: encoder, classifier, its configuration, its cost, saving and loading."""

from audiostride.models.classifier import AudioClassifier
from audiostride.models.config import ClassifierConfig
from audiostride.models.cost import LayerCost, layer_costs, multiply_adds
from audiostride.models.encoder import Encoder
from audiostride.models.pooled import PooledEncoder
from audiostride.models.resnet import ResNetEncoder
from audiostride.models.saving import load_classifier, save_classifier

__all__ = [
    "AudioClassifier",
    "ClassifierConfig",
    "Encoder",
    "LayerCost",
    "PooledEncoder",
    "ResNetEncoder",
    "layer_costs",
    "load_classifier",
    "multiply_adds",
    "save_classifier",
]

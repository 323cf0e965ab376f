"""The network: encoder, classifier, its configuration, saving and loading."""

from audiostride.models.classifier import AudioClassifier
from audiostride.models.config import ClassifierConfig
from audiostride.models.encoder import Encoder
from audiostride.models.saving import load_classifier, save_classifier

__all__ = ["AudioClassifier", "ClassifierConfig", "Encoder", "load_classifier", "save_classifier"]

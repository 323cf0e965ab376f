"""Saved classifiers that take no training."""

from pathlib import Path

import pytest
import torch

from audiostride.models import AudioClassifier, ClassifierConfig, save_classifier

# Deep networks with random weights tell windows apart by 1e-7 only; a head would blow up their rounding with that.
ONE_BLOCK = {"channels": [16], "strides": [[4, 4]]}


@pytest.fixture(scope="session")
def make_model_file(tmp_path_factory: pytest.TempPathFactory):
    """Writes a classifier with random weights whose windows differ in class; settings may be given."""

    def make(**settings: object) -> Path:
        torch.manual_seed(1)
        model = AudioClassifier(ClassifierConfig(**{"tasks": {"kind": ["a", "b", "c"]}, **ONE_BLOCK, **settings}))
        model.eval()
        windows = torch.randn(64, model.config.window_samples) * torch.linspace(0, 0.5, 64)[:, None]
        with torch.no_grad():
            for head, logits in zip(model.heads, model(windows).values(), strict=True):
                head.bias -= logits.mean(dim=0)
                scale = 2 / (logits - logits.mean(dim=0)).std()
                head.bias *= scale
                head.weight *= scale
        path = tmp_path_factory.mktemp("models") / "model.safetensors"
        save_classifier(model, path)
        return path

    return make


@pytest.fixture(scope="session")
def model_file(make_model_file) -> Path:
    """A classifier of one task with three classes."""
    return make_model_file()

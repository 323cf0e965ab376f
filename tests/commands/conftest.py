"""Saved classifiers that take no training, and recordings."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
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


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings whose loudness goes up and down, in two folders, two of one name."""
    root = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for name, seconds in (("one/a.wav", 9.3), ("one/b.flac", 0.4), ("two/a.wav", 5.0)):
        loud = np.abs(np.sin(np.arange(round(16000 * seconds)) / 16000))
        (root / name).parent.mkdir(exist_ok=True)
        soundfile.write(str(root / name), (loud * rng.uniform(-0.9, 0.9, len(loud))).astype(np.float32), 16000)
    return root

"""What several tests begin with."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from audiostride import AudioClassifier, ClassifierConfig


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Gaussian noise, the same in every run."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


noise_float64 = partial(noise, dtype=torch.float64)


def make_classifier(**settings: Any) -> AudioClassifier:
    """A narrow classifier whose norms have seen sounds of several levels, the same in every run."""
    torch.manual_seed(0)
    tasks = {"word": ["no", "yes"], "pitch": ["60", "61", "62"]}
    model = AudioClassifier(ClassifierConfig(**{"tasks": tasks, "width": 0.125, **settings}))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(noise(6, model.config.window_samples) * torch.logspace(-3, -0.5, 6)[:, None])
    return model.eval()

"""Networks to convert: torchvision's, and audio networks written here."""

import copy
from collections.abc import Callable
from functools import cache

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiostride import convert_downsampling


class ConvBlock(nn.Module):
    """Two convolutions and a functional pool whose kind is an argument, as in the PANNs networks."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.bn2 = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor, pool_size: tuple[int, int] = (2, 2), pool_type: str = "avg") -> Tensor:
        x = F.relu_(self.bn1(self.conv1(x)))
        x = F.relu_(self.bn2(self.conv2(x)))
        if pool_type == "max":
            x = F.max_pool2d(x, kernel_size=pool_size)
        elif pool_type == "avg":
            x = F.avg_pool2d(x, kernel_size=pool_size)
        else:
            raise ValueError(pool_type)
        return x


class SpectrogramNetwork(nn.Module):
    """CNN14's plan at a small width: blocks with functional pools, dropout by mode, mean and maximum over time."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ConvBlock(1, 8), ConvBlock(8, 16), ConvBlock(16, 16)])
        self.fc1 = nn.Linear(16, 16)
        self.fc_audioset = nn.Linear(16, 5)

    def forward(self, spectrogram: Tensor) -> dict[str, Tensor]:
        x = spectrogram.unsqueeze(1)
        x = self.blocks[0](x, pool_size=(2, 2), pool_type="avg")
        x = F.dropout(x, p=0.2, training=self.training)
        x = self.blocks[1](x, pool_size=(2, 2), pool_type="max")
        x = self.blocks[2](x, pool_size=(1, 1), pool_type="avg")
        x = x.mean(dim=3)
        x = x.max(dim=2).values + x.mean(dim=2)
        x = F.dropout(F.relu_(self.fc1(x)), p=0.5, training=self.training)
        return {"logits": self.fc_audioset(x), "embedding": x}


class WaveformBlock(nn.Module):
    """A residual block over time whose shortcut is an average pool and a convolution."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(n_in, n_out, 9, stride=stride, padding=4, bias=False)
        self.bn1 = nn.BatchNorm1d(n_out)
        self.conv2 = nn.Conv1d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm1d(n_out)
        self.shortcut = nn.Sequential(
            nn.AvgPool1d(stride, stride, ceil_mode=True, count_include_pad=False), nn.Conv1d(n_in, n_out, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class WaveformNetwork(nn.Module):
    """Raw waveforms in: a long strided convolution, a max pool, residual blocks, all over one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, 8, 80, stride=4)
        self.pool = nn.MaxPool1d(4)
        self.block1 = WaveformBlock(8, 16, 2)
        self.block2 = WaveformBlock(16, 16, 3)
        self.head = nn.Linear(16, 4)

    def forward(self, waveform: Tensor) -> Tensor:
        x = self.pool(F.relu(self.stem(waveform.unsqueeze(1))))
        return self.head(self.block2(self.block1(x)).mean(dim=-1))


class ConcatenatedBranches(nn.Module):
    """Branches of three kinds that meet in a concatenation, as in Inception, and a product."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, stride=2)
        self.reduce = nn.Conv2d(8, 4, 1)
        self.after_reduce = nn.Conv2d(4, 8, 3, stride=2)
        self.gate = nn.Conv2d(3, 24, 3, stride=2)
        self.head = nn.Linear(24, 3)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.stem(image))
        joined = torch.cat([self.conv(x), self.after_reduce(self.reduce(x)), F.max_pool2d(x, 3, 2)], dim=1)
        return self.head((joined * torch.sigmoid(self.gate(image))).amax(dim=(-2, -1)))


AUDIO: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "spectrogram": (SpectrogramNetwork, (2, 100, 64)),
    "waveform": (WaveformNetwork, (2, 1601)),
    "branches": (ConcatenatedBranches, (2, 3, 31, 40)),
}
TORCHVISION = [
    "resnet18",
    "resnet50",
    "densenet121",
    "efficientnet_b0",
    "mobilenet_v3_small",
    "convnext_tiny",
    "googlenet",
]


def make_network(name: str) -> tuple[nn.Module, Tensor]:
    """A network in training mode with seeded weights, and an example for it."""
    torch.manual_seed(0)
    if name in AUDIO:
        kind, shape = AUDIO[name]
        return kind(), torch.randn(shape)
    torchvision = pytest.importorskip("torchvision")
    settings = {"init_weights": False} if name == "googlenet" else {}
    return getattr(torchvision.models, name)(weights=None, num_classes=10, **settings), torch.randn(2, 3, 96, 96)


@cache
def _converted(name: str) -> tuple[nn.Module, pd.DataFrame]:
    return convert_downsampling(*make_network(name))


@pytest.fixture(params=[*AUDIO, *TORCHVISION])
def conversion(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, nn.Module, pd.DataFrame]:
    """Each of the networks, an example, a copy of its plain conversion, which takes a second, and its table."""
    converted, table = _converted(request.param)
    return *make_network(request.param), copy.deepcopy(converted), table


@pytest.fixture(params=[*AUDIO, *TORCHVISION])
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    """Each of the networks, with an example."""
    return make_network(request.param)


@pytest.fixture(params=AUDIO)
def small_network(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    """Each of the networks written here, with an example."""
    return make_network(request.param)


@pytest.fixture
def named_network() -> Callable[[str], tuple[nn.Module, Tensor]]:
    """A network by its name."""
    return make_network


@pytest.fixture
def logits_of() -> Callable[[object], Tensor]:
    """All results of a network in one row per example."""

    def collect(result: object) -> Tensor:
        if isinstance(result, Tensor):
            return result.flatten(1)
        values = list(result.values()) if isinstance(result, dict) else list(result)  # type: ignore[call-overload]
        return torch.cat([collect(value) for value in values], dim=1)

    return collect

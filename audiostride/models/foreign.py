"""Networks of timm and torchvision as encoders, whose strides are fixed or learned: ``timm:NAME``."""

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from audiostride.checks import ModelSize, Pooling
from audiostride.errors import InputError
from audiostride.models.packages import check_network_name, import_package
from audiostride.models.pooled import PooledBlock, PooledEncoder, PooledLayer
from audiostride.strides.convert import convert_downsampling, freeze_downsampling
from audiostride.strides.convert.recording import ForwardError, record
from audiostride.strides.convert.sites import find_sites
from audiostride.strides.diffstride import DiffStride2d, diffstride_layers, read_strides_
from audiostride.strides.frozen_pool import FrozenPool
from audiostride.strides.spectral_pool import SpectralPool2d

WHO = "ForeignEncoder"
N_CLASSES = 1000  # of ImageNet, which torchvision's networks are made for
# Without heads that help a training on ImageNet, and with what torchvision announces as its default.
_INCEPTION = {"aux_logits": False, "init_weights": False}
SETTINGS: dict[str, dict[str, bool]] = {"googlenet": _INCEPTION, "inception_v3": _INCEPTION}
Pool = DiffStride2d | SpectralPool2d | FrozenPool


class ForeignBlock(PooledBlock):
    """A place in a converted network where maps shrink, with what is asked of blocks; no part of the network.

    Args:
        pool: The layer there; None where convolutions and pools carry the strides.
        strides: Strides over time and mel, used where there is no layer.
        n_out: Frames and mel bins behind it.
    """

    def __init__(self, pool: Pool | None, strides: tuple[float, float], n_out: tuple[int, int]) -> None:
        super().__init__()
        self.pool, self._strides, self._n_out = pool, strides, n_out

    def output_size(self, n_frames: int, n_mels: int) -> tuple[int, int]:
        """Frames and mel bins after the block, of the spectrogram that was asked about."""
        return self._n_out

    def convolution_strides(self) -> tuple[float, float]:
        """Strides over time and mel of what pools without a layer; 1 where a layer does."""
        return self._strides


class ForeignEncoder(PooledEncoder):
    """A network of timm or torchvision without its classifier, its first convolution taking one channel.

    Its weights are random. With DiffStride and spectral pooling it is converted by `convert_downsampling`; strided it
    stays as the package makes it, unless strides are given.

    Args:
        name: ``timm:NAME`` or ``torchvision:NAME``.
        n_frames, n_mels: Size of the spectrograms, whose maps limit the strides that are learned.
        pooling: ``"strided"``, ``"spectral"`` or ``"diffstride"``.
        strides: Stride over time and over mel of each layer of the conversion table; None is what the network has.
        size, ramp_bins, shared_strides, max_stride: See `PoolingConfig`; used by DiffStride only.

    Attributes:
        network: The network, whose state dict has the package's names.
        classifier: Name of the layer that was left out.
        out_channels: Features that the classifier would have got.

    Shape:
        spectrogram: ``(B, 1, T, M)``. Result: ``(B, out_channels)``: the network pools its last maps itself.

    Raises:
        InputError: No such network, its package missing, settings out of range; a network that does not take such
            spectrograms, has no linear classifier or cannot be converted.

    >>> import torch
    >>> encoder = ForeignEncoder(name="torchvision:mobilenet_v3_small", n_frames=100, n_mels=64)
    >>> encoder(torch.zeros(2, 1, 100, 64)).shape
    torch.Size([2, 1024])
    """

    def __init__(
        self,
        *,
        name: str,
        n_frames: int,
        n_mels: int,
        pooling: Pooling = "diffstride",
        strides: Sequence[Sequence[float]] | None = None,
        size: ModelSize = "mixed",
        ramp_bins: float | None = None,
        shared_strides: bool = False,
        max_stride: float | None = None,
    ) -> None:
        super().__init__()
        check_network_name(WHO, name)
        home = torch.get_default_device()
        # A conversion needs its example and the network on one device, also where a model is made without values.
        with torch.device("cpu"):
            network, self.classifier = build_network(name)
            example = torch.zeros(1, 1, n_frames, n_mels)
            self.out_channels = count_features(network, example, name)
            if pooling != "strided" or strides is not None:
                try:
                    network, _ = convert_downsampling(
                        network,
                        example,
                        pooling=pooling,
                        size=size,
                        strides=None if strides is None else [tuple(pair) for pair in strides],
                        ramp_bins=ramp_bins,
                        shared=shared_strides,
                        max_stride=max_stride,
                    )
                except InputError as error:
                    raise InputError(
                        f"{WHO}: {name} cannot learn its strides on maps of {n_frames} x {n_mels}, or not so: {error}; "
                        "else choose another network, or pooling strided"
                    ) from error
        self.pooling: Pooling = pooling
        # Channels together in memory, as the maps are: both axes are pooled without a copy.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._sizes = (n_frames, n_mels)
        self._limiting_sizes = (
            [] if pooling != "diffstride" else [layer.n_in for layer in self.pooled_layers(*self._sizes)]
        )
        self.network.to(home)

    def pooled_layers(self, n_frames: int, n_mels: int) -> list[PooledLayer]:
        """The places where maps shrink, with the sizes of their maps for a spectrogram of `n_frames` x `n_mels`.

        A spectrogram without values is followed through a copy of the network, which takes some tenths of a second.
        """
        read_strides_(self)
        network = copy.deepcopy(self.network).eval()
        example = torch.zeros(1, 1, n_frames, n_mels, device=next(network.parameters()).device)
        pools = [module for module in network.modules() if isinstance(module, Pool)]
        try:
            if not pools:
                groups = find_sites(network, example, learn_first=False, also=(), leave=()).groups
                steps = [group.steps[0] for group in groups]
                return [
                    PooledLayer(
                        ForeignBlock(None, _pair(step.strides), _pair(step.n_out)), _pair(step.n_in), _pair(step.n_out)
                    )
                    for step in steps
                ]
            entered = record(network, example).entered
        except ForwardError as error:
            raise InputError(
                f"{WHO}: the network must take spectrograms of {n_frames} x {n_mels}, but with them it fails in {error}"
            ) from error
        layers = []
        for pool in pools:
            n_in = _pair(max(entered[id(pool)])[-2:])
            n_out = _pair(pool.output_size(*n_in))
            layers.append(PooledLayer(ForeignBlock(pool, (1.0, 1.0), n_out), n_in, n_out))
        return layers

    def block_list(self) -> list[PooledBlock]:
        """The places where maps shrink, in order, with copies of their layers."""
        return [layer.block for layer in self.pooled_layers(*self._sizes)]

    def limited_layers(self, n_frames: int, n_mels: int) -> list[tuple[DiffStride2d, tuple[int, int]]]:
        """The layers that learn strides, with the sizes that their maps of `n_frames` x `n_mels` had at the start.

        Those of now would take a pass through the network after each step; what is pooled is limited by them anyway.
        """
        layers = cast("list[DiffStride2d]", diffstride_layers(self))
        return list(zip(layers, self._limiting_sizes, strict=True))

    def freeze_(self, n_frames: int, n_mels: int) -> None:
        """Replace the poolings by fixed ones for spectrograms of `n_frames` x `n_mels`."""
        if any(isinstance(module, DiffStride2d | SpectralPool2d) for module in self.modules()):
            device = next(self.parameters()).device
            self.network = freeze_downsampling(self.network, torch.zeros(1, 1, n_frames, n_mels, device=device))
            self._limiting_sizes = []

    def forward(self, spectrogram: Tensor) -> Tensor:
        if spectrogram.ndim != 4 or spectrogram.shape[1] != 1:
            raise InputError(
                f"{WHO}: spectrogram must have shape (B, 1, T, M), got {tuple(spectrogram.shape)}; "
                "add the channel axis with .unsqueeze(1)"
            )
        features: Tensor = self.network(spectrogram.contiguous(memory_format=torch.channels_last))
        return features


def build_network(encoder: str) -> tuple[nn.Module, tuple[str, ...]]:
    """A network with random weights, without its classifier and for one channel, and the name of the classifier.

    Args:
        encoder: ``timm:NAME`` or ``torchvision:NAME``, which is known to exist.

    Raises:
        InputError: It cannot be made without a classifier, or for one channel.
    """
    package, _, name = encoder.partition(":")
    module = import_package(WHO, package)
    try:
        if package == "timm":
            network: Any = module.create_model(name, pretrained=False, num_classes=0, in_chans=1)
            classifier = network.pretrained_cfg.get("classifier") or ()
            return network, (classifier,) if isinstance(classifier, str) else tuple(classifier)
        network = module.models.get_model(name, weights=None, **SETTINGS.get(name, {}))
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(
            f"{WHO}: {encoder} cannot be made for spectrograms: {error}; choose another network"
        ) from error
    modules = list(network.named_modules())
    ends = [each for each, layer in modules if isinstance(layer, nn.Linear) and layer.out_features == N_CLASSES]
    first = next((layer for _, layer in modules if isinstance(layer, nn.Conv2d)), None)
    if not ends or first is None or first.in_channels != 3:
        raise InputError(
            f"{WHO}: {encoder} must begin with a convolution of 3 channels and end in one linear layer of {N_CLASSES} "
            "classes, which it does not; choose another network"
        )
    network.set_submodule(ends[-1], nn.Identity())
    # Of one channel in place of three alike: the sum keeps the scale of what comes out.
    first.in_channels = 1
    first.weight = nn.Parameter(first.weight.detach().sum(dim=1, keepdim=True))
    return network, (ends[-1],)


def count_features(network: nn.Module, example: Tensor, encoder: str) -> int:
    """Features of a network's result, which must be ``(B, C)``, without changing its mode.

    Raises:
        InputError: It does not take spectrograms of this size, or has another result.
    """
    n_frames, n_mels = example.shape[-2:]
    training = network.training
    try:
        with torch.no_grad():
            result = network.eval()(example)
    except Exception as error:  # whatever networks raise
        raise InputError(
            f"{WHO}: {encoder} must take spectrograms of {n_frames} x {n_mels}, but fails with them: {error}; choose a "
            "network that takes images of any size, or change --window-s or --n-mels"
        ) from error
    network.train(training)
    if not isinstance(result, Tensor) or result.ndim != 2:
        shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise InputError(f"{WHO}: {encoder} must give features (B, C), got {shape}; choose another network")
    return int(result.shape[1])


def _pair(sizes: Sequence[Any]) -> tuple[Any, Any]:
    first, second = sizes
    return first, second

"""What one window costs a network: its multiply-adds, counted, and as a smooth function of its strides."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from audiostride.errors import InputError
from audiostride.models.bcresnet import HEAD_BINS, STEM_TAPS, BCResNetEncoder, BroadcastedBlock
from audiostride.models.classifier import AudioClassifier
from audiostride.models.encoder import Encoder, EncoderBlock
from audiostride.models.foreign import ForeignEncoder
from audiostride.models.pooled import PooledEncoder
from audiostride.models.resnet import ResidualBlock, ResNetEncoder
from audiostride.strides.budget import SmoothCost
from audiostride.strides.convert.cost import network_cost
from audiostride.strides.convolution import pays_at_once
from audiostride.strides.diffstride import DiffStride2d
from audiostride.strides.frozen_pool import FrozenPool
from audiostride.strides.masks import smooth_length
from audiostride.strides.matrices import LONG_AXIS, Bins, pooling_cost
from audiostride.strides.spectral_pool import SpectralPool2d
from audiostride.strides.strided_conv import StridedConv2d

Map = tuple[Bins, Bins]
"""Bins over time and mel."""


class LayerCost(NamedTuple):
    """Multiply-adds of a block, of a ResNet's stem or of a head."""

    name: str
    """``block 1`` and so on, in front of them ``stem`` where there is one, behind those of a BC-ResNet ``last``, then
    ``head <task>``."""
    weights: int
    """Products with learned weights: convolutions, or the linear layer of a head."""
    pooling: int
    """Products with pooling matrices, or FFTs in their place; 0 where strided convolutions pool."""

    @property
    def total(self) -> int:
        """Both together."""
        return self.weights + self.pooling


def multiply_adds(
    model: AudioClassifier | PooledEncoder, n_frames: int | None = None, n_mels: int | None = None
) -> int:
    """Multiply-adds of one spectrogram through a network in inference; see `layer_costs`, whose sum it is.

    >>> multiply_adds(Encoder(pooling="strided", strides=[(2, 2)], channels=[8]), 100, 64)
    384000
    """
    return sum(cost.total for cost in layer_costs(model, n_frames, n_mels))


def layer_costs(
    model: AudioClassifier | PooledEncoder, n_frames: int | None = None, n_mels: int | None = None
) -> list[LayerCost]:
    """Multiply-adds of one spectrogram through each layer of a network in inference, as its strides are now.

    Counted are convolutions with all their taps, those on the zero padding too; products with pooling matrices, whole
    (also where a stride of 1 makes one the identity); and heads. Where a convolution and the pooling of its axis are
    done in one step, that is the pooling of every tap and then a product on the short map (see `convolve_and_pool`).
    An axis that is pooled by FFT counts ``5/4 n log2 n`` for a real transform of n samples, half the operations that
    FFTW counts for one. Not counted are the frontend, norms, rectifiers, offsets, sums, means and maxima, and pooling
    matrices, which are built once for a batch, or never in a frozen model. A training step takes about three times as
    many, and a few more for the gradients of strides.

    Args:
        model: A classifier, or an encoder, which has no heads. Frozen ones are fine.
        n_frames: Frames of the spectrogram, or rows of an image; None is a window of the classifier, 100 for 1 s.
        n_mels: Mel bands, or columns of an image; None is what the classifier has.

    Returns:
        A cost for the stem of a ResNet, for each block and then for each head. Networks of timm and torchvision have
        one in all.

    Raises:
        InputError: Another kind of model; an encoder without both sizes; a size below 1, or one that a frozen model
            does not take.

    >>> layer_costs(Encoder(strides=[(2, 2)], channels=[64]), 100, 64)  # pools 3 taps over time, then 3 x 64 over mel
    [LayerCost(name='block 1', weights=20275200, pooling=20620800)]
    """
    encoder, size = _encoder_of("layer_costs", model, n_frames, n_mels)
    return [*_encoder_costs(encoder, size, _Whole()), *_head_costs(model)]


def smooth_cost(
    model: AudioClassifier | PooledEncoder, n_frames: int | None = None, n_mels: int | None = None
) -> Tensor:
    """`multiply_adds` as a differentiable function of the learned strides: an axis of n bins is pooled to n / S.

    Where all sizes are whole it is what `multiply_adds` counts; in between, convolution and pooling stand in whichever
    order is cheaper there too.

    Args:
        model: A classifier or an encoder.
        n_frames, n_mels: As in `layer_costs`.

    Returns:
        A scalar tensor with gradients to the strides.

    Raises:
        InputError: As `layer_costs`.

    >>> encoder = Encoder(size="nominal", strides=[(2, 2)], channels=[64])
    >>> smooth_cost(encoder, 100, 64).item() == multiply_adds(encoder, 100, 64)
    True
    """
    return smooth_cost_of(model, n_frames, n_mels)({})


def smooth_cost_of(
    model: AudioClassifier | PooledEncoder, n_frames: int | None = None, n_mels: int | None = None
) -> SmoothCost:
    """`smooth_cost` as a function of strides: of those of its argument, and of the parameters of other layers.

    Networks of timm and torchvision are followed once for it, by their strides of now.
    """
    encoder, size = _encoder_of("smooth_cost", model, n_frames, n_mels)
    heads = sum(cost.total for cost in _head_costs(model))
    if isinstance(encoder, ForeignEncoder):
        recorded = network_cost(encoder, torch.zeros(1, 1, *size))
        return lambda strides: recorded.smooth(strides) + heads
    return lambda strides: torch.as_tensor(
        sum(cost.total for cost in _encoder_costs(encoder, size, _Smooth(strides))) + heads
    )


def _encoder_of(
    who: str, model: AudioClassifier | PooledEncoder, n_frames: int | None, n_mels: int | None
) -> tuple[PooledEncoder, tuple[int, int]]:
    """The encoder of a model, and the size of its spectrograms."""
    if isinstance(model, AudioClassifier):
        n_frames = model.config.window_frames if n_frames is None else n_frames
        return model.encoder, (n_frames, model.config.n_mels if n_mels is None else n_mels)
    if not isinstance(model, PooledEncoder):
        raise InputError(f"{who}: model must be an AudioClassifier or an Encoder, got {type(model).__name__}")
    if n_frames is None or n_mels is None:
        raise InputError(
            f"{who}: n_frames and n_mels must be given for an Encoder, got {n_frames} and {n_mels}; "
            "1 s of audio has 100 frames of 64 mel bands"
        )
    return model, (n_frames, n_mels)


class _Whole:
    """Sizes of maps as they are."""

    def convolved(self, convolution: StridedConv2d, size: Map) -> Map:
        """Bins behind a convolution."""
        return convolution.output_size(*size)

    def pooled(self, pool: DiffStride2d | SpectralPool2d | FrozenPool | None, size: Map) -> Map:
        """Bins behind a pooling layer, where there is one."""
        return size if pool is None else pool.output_size(*size)  # type: ignore[return-value]


class _Smooth(_Whole):
    """Sizes of maps as functions of the strides: none is rounded.

    Args:
        strides: Of layers, in place of their parameters.
    """

    def __init__(self, strides: Mapping[DiffStride2d, Tensor]) -> None:
        self.strides = strides

    def convolved(self, convolution: StridedConv2d, size: Map) -> Map:
        time, mel = (smooth_length(n, int(stride)) for n, stride in zip(size, convolution.stride, strict=True))
        return time, mel

    def pooled(self, pool: DiffStride2d | SpectralPool2d | FrozenPool | None, size: Map) -> Map:
        if isinstance(pool, DiffStride2d):
            values = self.strides.get(pool, pool.strides).expand(2)
            time, mel = (
                smooth_length(n, stride, ramp_bins=axis.ramp_bins, size=axis.size)
                for n, stride, axis in zip(size, values, pool.axes, strict=True)
            )
            return time, mel
        if isinstance(pool, SpectralPool2d):
            time, mel = (smooth_length(n, stride) for n, stride in zip(size, pool.strides, strict=True))
            return time, mel
        return super().pooled(pool, size)


def _encoder_costs(encoder: PooledEncoder, size: Map, sizes: _Whole) -> list[LayerCost]:
    """Costs of the parts of an encoder for maps of this size."""
    costs = []
    if isinstance(encoder, Encoder):
        for number, block in enumerate(encoder.block_list(), start=1):
            own, size = _count_block(block, size, sizes)
            costs.append(LayerCost(f"block {number}", *own))
    elif isinstance(encoder, ResNetEncoder):
        stem = encoder.conv_stem
        costs.append(LayerCost("stem", _count_taps(stem) * math.prod(stem.output_size(*size)), 0))
        size = encoder.stem_size(*size)
        for number, residual in enumerate(encoder.all_blocks(), start=1):
            own, size = _count_residual(residual, size, sizes)
            costs.append(LayerCost(f"block {number}", *own))
    elif isinstance(encoder, BCResNetEncoder):
        own, size = _count_stem(encoder, size, sizes)
        costs.append(LayerCost("stem", *own))
        for number, broadcasted in enumerate(encoder.all_blocks(), start=1):
            own, size = _count_broadcasted(broadcasted, size, sizes)
            costs.append(LayerCost(f"block {number}", *own))
        places = size[0] * (size[1] - HEAD_BINS + 1 if size[1] > HEAD_BINS else 1)
        costs.append(LayerCost("last", places * (_count_taps(encoder.conv_head) + _count_taps(encoder.conv_last)), 0))
    else:
        counted = network_cost(encoder, torch.zeros(1, 1, *size)).counted()
        costs.append(LayerCost("encoder", *counted))
    return costs


def _head_costs(model: AudioClassifier | PooledEncoder) -> list[LayerCost]:
    if not isinstance(model, AudioClassifier):
        return []
    return [LayerCost(f"head {task}", model.n_features * len(names), 0) for task, names in model.config.tasks.items()]


def _count_block(block: EncoderBlock, size: Map, sizes: _Whole) -> tuple[Map, Map]:
    """Weights and pooling of a block on a map of this size, its `forward` step by step, and the size behind it."""
    (n_t, n_m), time, mel = size, block.conv_time, block.conv_mel
    if block.pool is None:
        between = sizes.convolved(time, size)
        after = sizes.convolved(mel, between)
        return (_count_taps(time) * math.prod(between) + _count_taps(mel) * math.prod(after), 0), after
    out_t, out_m = sizes.pooled(block.pool, size)
    if block.pool_after == "convolution":
        first = _count_convolve_and_pool(time, n_t, out_t, axis=-2)
    else:
        first = _count_taps(time) * n_t, pooling_cost(n_t, out_t) * time.out_channels
    # Time is pooled by then, in either order.
    second = _count_convolve_and_pool(mel, n_m, out_m, axis=-1)
    return (first[0] * n_m + second[0] * out_t, first[1] * n_m + second[1] * out_t), (out_t, out_m)


def _count_residual(block: ResidualBlock, size: Map, sizes: _Whole) -> tuple[Map, Map]:
    """As `_count_block`, of a residual block."""
    between = sizes.convolved(block.conv_1, size)
    out_t, out_m = after = sizes.pooled(block.pool, between)
    weights = _count_taps(block.conv_1) * math.prod(between) + _count_taps(block.conv_2) * math.prod(after)
    if block.conv_shortcut is not None:
        weights += _count_taps(block.conv_shortcut) * math.prod(after)
    if block.pool is None:
        return (weights, 0), after
    channels = block.conv_1.out_channels + block.conv_1.in_channels  # of both branches
    pooling = pooling_cost(size[0], out_t) * size[1] + pooling_cost(size[1], out_m) * out_t
    return (weights, channels * pooling), after


def _count_stem(encoder: BCResNetEncoder, size: Map, sizes: _Whole) -> tuple[Map, Map]:
    """As `_count_block`, of the stem of a BC-ResNet."""
    stem, (n_t, n_m) = encoder.stem, size
    out_t, out_m = after = sizes.pooled(stem.pool, sizes.convolved(stem.conv, size))
    if stem.pool is None:
        return (_count_taps(stem.conv) * math.prod(after), 0), after
    pooling = STEM_TAPS * pooling_cost(n_m, out_m) * n_t + stem.conv.out_channels * pooling_cost(n_t, out_t) * out_m
    return (_count_taps(stem.conv) * n_t * out_m, pooling), after


def _count_broadcasted(block: BroadcastedBlock, size: Map, sizes: _Whole) -> tuple[Map, Map]:
    """As `_count_block`, of a block whose temporal part sees the mean over mel."""
    between = sizes.convolved(block.conv_mel, size)
    out_t, out_m = after = sizes.pooled(block.pool, between)
    weights = _count_taps(block.conv_mel) * math.prod(between)
    weights += (_count_taps(block.conv_time) + _count_taps(block.conv_out)) * out_t
    if block.conv_in is not None:
        weights += _count_taps(block.conv_in) * math.prod(size)
    if block.pool is None:
        return (weights, 0), after
    pooling = pooling_cost(size[1], out_m) * size[0] + pooling_cost(size[0], out_t) * out_m
    return (weights, block.conv_mel.out_channels * pooling), after


def _count_convolve_and_pool(convolution: StridedConv2d, n: Bins, n_out: Bins, *, axis: int) -> Map:
    """Weights and pooling of `convolve_and_pool`, for one place on the other axis."""
    channels, channels_out = convolution.in_channels, convolution.out_channels
    taps = convolution.weight.shape[axis]
    if n_out >= LONG_AXIS or not pays_at_once(channels, channels_out, taps, n, n_out):
        return _count_taps(convolution) * n, pooling_cost(n, n_out) * channels_out
    return _count_taps(convolution) * n_out, pooling_cost(n, n_out) * taps * channels


def _count_taps(convolution: nn.Conv2d) -> int:
    """Multiply-adds of a convolution for one place of its result."""
    return convolution.weight.numel()

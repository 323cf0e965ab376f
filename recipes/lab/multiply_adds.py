"""What one window costs a network: its multiply-adds, counted in the form in which it computes them."""

import copy
import math
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from audiostride.errors import InputError
from audiostride.models.classifier import AudioClassifier
from audiostride.models.encoder import Encoder, EncoderBlock
from audiostride.models.pooled import PooledEncoder
from audiostride.models.resnet import ResidualBlock, ResNetEncoder
from audiostride.strides.convolution import pays_at_once
from audiostride.strides.frozen_pool import FrozenPool
from audiostride.strides.matrices import LONG_AXIS
from audiostride.strides.strided_conv import StridedConv2d


class LayerCost(NamedTuple):
    """Multiply-adds of a block, of a ResNet's stem or of a head."""

    name: str
    """``block 1`` and so on, in front of them ``stem`` where there is one, then ``head <task>``."""
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
        A cost for the stem of a ResNet, for each block and then for each head. Encoders of other kinds have one in all,
        as torch counts it while a frozen copy runs, which leaves FFTs out.

    Raises:
        InputError: Another kind of model; an encoder without both sizes; a size below 1, or one that a frozen model
            does not take.

    >>> layer_costs(Encoder(strides=[(2, 2)], channels=[64]), 100, 64)  # pools 3 taps over time, then 3 x 64 over mel
    [LayerCost(name='block 1', weights=20275200, pooling=20620800)]
    """
    who = "layer_costs"
    encoder: PooledEncoder
    if isinstance(model, AudioClassifier):
        encoder = model.encoder
        n_frames = model.config.window_frames if n_frames is None else n_frames
        n_mels = model.config.n_mels if n_mels is None else n_mels
    elif isinstance(model, PooledEncoder):
        encoder = model
        if n_frames is None or n_mels is None:
            raise InputError(
                f"{who}: n_frames and n_mels must be given for an Encoder, got {n_frames} and {n_mels}; "
                "1 s of audio has 100 frames of 64 mel bands"
            )
    else:
        raise InputError(f"{who}: model must be an AudioClassifier or an Encoder, got {type(model).__name__}")
    if isinstance(encoder, Encoder):
        costs = [
            LayerCost(f"block {number}", *_count_block(block, *size))
            for number, (block, (_, size, _)) in enumerate(
                zip(encoder.block_list(), encoder.pooled_layers(n_frames, n_mels), strict=True), start=1
            )
        ]
    elif isinstance(encoder, ResNetEncoder):
        costs = _count_resnet(encoder, n_frames, n_mels)
    else:
        costs = [LayerCost("encoder", *_count_run(encoder, n_frames, n_mels))]
    if isinstance(model, AudioClassifier):
        for task, names in model.config.tasks.items():
            costs.append(LayerCost(f"head {task}", encoder.out_channels * len(names), 0))
    return costs


def _count_block(block: EncoderBlock, n_t: int, n_m: int) -> tuple[int, int]:
    """Weights and pooling of a block on a map of this size; its `forward`, step by step."""
    time, mel = block.conv_time, block.conv_mel
    out_t, out_m = block.output_size(n_t, n_m)
    if block.pool is None:
        between = time.output_size(n_t, n_m)
        return _count_taps(time) * math.prod(between) + _count_taps(mel) * out_t * out_m, 0
    if block.pool_after == "convolution":
        first = _count_convolve_and_pool(time, n_t, out_t, axis=-2)
    else:
        first = _count_taps(time) * n_t, _count_pooling(n_t, out_t) * time.out_channels
    # Time is pooled by then, in either order.
    second = _count_convolve_and_pool(mel, n_m, out_m, axis=-1)
    return first[0] * n_m + second[0] * out_t, first[1] * n_m + second[1] * out_t


def _count_resnet(encoder: ResNetEncoder, n_t: int, n_m: int) -> list[LayerCost]:
    """Costs of the stem and of all blocks, also of those that do not pool."""
    size = encoder.conv_stem.output_size(n_t, n_m)
    costs = [LayerCost("stem", _count_taps(encoder.conv_stem) * math.prod(size), 0)]
    size = encoder.stem_size(n_t, n_m)
    for number, block in enumerate(encoder.all_blocks(), start=1):
        costs.append(LayerCost(f"block {number}", *_count_residual(block, *size)))
        size = block.output_size(*size)
    return costs


def _count_residual(block: ResidualBlock, n_t: int, n_m: int) -> tuple[int, int]:
    """Weights and pooling of a residual block on a map of this size; its `forward`, step by step."""
    out_t, out_m = block.output_size(n_t, n_m)
    weights = _count_taps(block.conv_1) * math.prod(block.conv_1.output_size(n_t, n_m))
    weights += _count_taps(block.conv_2) * out_t * out_m
    if block.conv_shortcut is not None:
        weights += _count_taps(block.conv_shortcut) * out_t * out_m
    if block.pool is None:
        return weights, 0
    channels = block.conv_1.out_channels + block.conv_1.in_channels  # of both branches
    return weights, channels * (_count_pooling(n_t, out_t) * n_m + _count_pooling(n_m, out_m) * out_t)


def _count_run(encoder: PooledEncoder, n_t: int, n_m: int) -> tuple[int, int]:
    """Weights and pooling of any encoder, counted while it runs: products of maps with matrices are pooling."""
    frozen = copy.deepcopy(encoder).eval()
    if not any(isinstance(module, FrozenPool) for module in frozen.modules()):
        frozen.freeze_(n_t, n_m)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        frozen(torch.zeros(1, 1, n_t, n_m, device=next(encoder.parameters()).device))
    counts = {operation.__name__: n // 2 for operation, n in counter.get_flop_counts()["Global"].items()}
    pooling = sum(n for name, n in counts.items() if name.partition(".")[0] in ("mm", "bmm"))
    return sum(counts.values()) - pooling, pooling


def _count_convolve_and_pool(convolution: StridedConv2d, n: int, n_out: int, *, axis: int) -> tuple[int, int]:
    """Weights and pooling of `convolve_and_pool`, for one place on the other axis."""
    channels, channels_out = convolution.in_channels, convolution.out_channels
    taps = convolution.weight.shape[axis]
    if n_out >= LONG_AXIS or not pays_at_once(channels, channels_out, taps, n, n_out):
        return _count_taps(convolution) * n, _count_pooling(n, n_out) * channels_out
    return _count_taps(convolution) * n_out, _count_pooling(n, n_out) * taps * channels


def _count_taps(convolution: StridedConv2d) -> int:
    """Multiply-adds of a convolution for one place of its result."""
    return convolution.weight.numel()


def _count_pooling(n: int, n_out: int) -> int:
    """Multiply-adds of the pooling of one axis, for one channel and one place on the other axis."""
    if n_out < LONG_AXIS:
        return n * n_out
    return round(1.25 * (n * math.log2(n) + n_out * math.log2(n_out)))

"""The encoder: blocks of separable convolutions, each followed by one pooling of both axes."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiostride.checks import ModelSize, Pooling, PoolingPlace
from audiostride.errors import InputError
from audiostride.models.encoder_kinds import PAPER_CHANNELS, PAPER_STRIDES, check_blocks
from audiostride.models.pooled import PooledBlock, PooledEncoder
from audiostride.strides.convolution import convolve_and_pool
from audiostride.strides.diffstride import DiffStride2d
from audiostride.strides.pooling import pool_axis
from audiostride.strides.pooling_config import PoolingConfig
from audiostride.strides.spectral_pool import SpectralPool2d
from audiostride.strides.strided_conv import StridedConv2d


def rectify(x: Tensor) -> Tensor:
    """ReLU; in place where nothing is differentiated (on a view, autograd would copy the gradient for it)."""
    return F.relu(x, inplace=not torch.is_grad_enabled())


class EncoderBlock(PooledBlock):
    """(3x1) convolution over time, ReLU, batch norm, (1x3) convolution over mel, pooling, ReLU, batch norm.

    With strided pooling the first convolution carries the time stride and the second the mel stride; with
    ``pool_after="convolution"`` time is pooled right after the first convolution and mel after the second.

    Args:
        in_channels, out_channels: Number of channels.
        pooling: How it pools.
        strides: Stride over time and over mel.

    Shape:
        x: ``(B, C, T, M)``. Result: ``(B, C_out, *output_size(T, M))``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, pooling: PoolingConfig, strides: Sequence[float]
    ) -> None:
        super().__init__()
        stride_time, stride_mel = strides if pooling.pooling == "strided" else (1, 1)
        # ReLU comes between convolution and norm, so the norm cannot take over the convolution's offset: it stays.
        self.conv_time = StridedConv2d(in_channels, out_channels, (3, 1), strides=(stride_time, 1))
        self.norm_time = nn.BatchNorm2d(out_channels)
        self.conv_mel = StridedConv2d(out_channels, out_channels, (1, 3), strides=(1, stride_mel))
        self.pool = cast("DiffStride2d | SpectralPool2d | None", pooling.make_layer(strides))
        self.norm_mel = nn.BatchNorm2d(out_channels)
        self.pool_after = pooling.pool_after

    def output_size(self, n_frames: int, n_mels: int) -> tuple[int, int]:
        """Frames and mel bins after the block."""
        sizes = self.conv_mel.output_size(*self.conv_time.output_size(n_frames, n_mels))
        if self.pool is not None:
            n_t, n_m = self.pool.output_size(*sizes)
            return n_t, n_m
        return sizes

    def convolution_strides(self) -> tuple[float, float]:
        """Strides over time and mel of the block's convolutions; 1 where a layer pools."""
        return float(self.conv_time.stride[0]), float(self.conv_mel.stride[1])

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is None:
            x = self.norm_time(self.conv_time(x).relu_())
            normed: Tensor = self.norm_mel(self.conv_mel(x).relu_())
            return normed
        time, mel = self.axis_poolings(x)
        weight, bias = self.conv_time.weight, self.conv_time.bias
        if self.pool_after == "convolution":
            x = self.norm_time(rectify(convolve_and_pool(x, weight, bias, time, axis=-2)))
        else:
            # Pooling over time commutes exactly with a convolution over mel (its offset, a constant, stays that), so
            # time is pooled first: the convolution and the pooling over mel see the shorter map.
            x = pool_axis(self.norm_time(self.conv_time(x).relu_()), -2, time)
        pooled = convolve_and_pool(x, self.conv_mel.weight, self.conv_mel.bias, mel, axis=-1)
        normed = self.norm_mel(rectify(pooled))
        return normed


class Encoder(PooledEncoder):
    """Convolutional encoder after Tagliasacchi et al. (2019), as used by Riad et al. (2022, section 3.1).

    Args:
        pooling: ``"strided"``, ``"spectral"`` or ``"diffstride"``.
        strides: Stride over time and over mel per block.
        channels: Channels per block at width 1.
        width: Factor on the channels.
        size, ramp_bins, shared_strides, max_stride: See `PoolingConfig`; used by DiffStride only.
        pool_after: ``"block"`` pools both axes after the block's second convolution; ``"convolution"`` pools each axis
            right after the convolution along it, as strided convolutions do. Strided pooling always does the latter.

    Attributes:
        out_channels: Channels of the result.

    Shape:
        spectrogram: ``(B, 1, T, M)``. Result: ``(B, out_channels, *map_sizes(T, M)[-1])``.

    Raises:
        InputError: Settings out of range; a spectrogram of another shape.

    >>> import torch
    >>> Encoder(pooling="strided", width=0.125)(torch.zeros(2, 1, 100, 64)).shape
    torch.Size([2, 64, 7, 4])
    """

    head_pooling = "max"

    def __init__(
        self,
        *,
        pooling: Pooling = "diffstride",
        strides: Sequence[Sequence[float]] = PAPER_STRIDES,
        channels: Sequence[int] = PAPER_CHANNELS,
        width: float = 1.0,
        size: ModelSize = "mixed",
        ramp_bins: float | None = None,
        shared_strides: bool = False,
        max_stride: float | None = None,
        pool_after: PoolingPlace = "convolution",
    ) -> None:
        super().__init__()
        config = PoolingConfig(
            pooling=pooling,
            size=size,
            strides=strides,
            ramp_bins=ramp_bins,
            shared_strides=shared_strides,
            max_stride=max_stride,
            pool_after=pool_after,
        )
        check_blocks("Encoder", strides, channels)
        counts = [1, *(max(1, round(width * count)) for count in channels)]
        self.blocks = nn.ModuleList(
            EncoderBlock(n_in, n_out, pooling=config, strides=pair)
            for n_in, n_out, pair in zip(counts[:-1], counts[1:], strides, strict=True)
        )
        # Channels together in memory, as the maps are: products then take each tap of a kernel as it lies there.
        self.to(memory_format=torch.channels_last)
        self.pooling: Pooling = pooling
        self.out_channels = counts[-1]

    def block_list(self) -> list[EncoderBlock]:
        """The blocks in order, with their type (a ModuleList knows modules only)."""
        return cast("list[EncoderBlock]", list(self.blocks))

    def forward(self, spectrogram: Tensor) -> Tensor:
        if spectrogram.ndim != 4 or spectrogram.shape[1] != 1:
            raise InputError(
                f"Encoder: spectrogram must have shape (B, 1, T, M), got {tuple(spectrogram.shape)}; "
                "add the channel axis with .unsqueeze(1)"
            )
        # Channels together in memory: convolutions run faster so, and both axes are pooled without a copy.
        x = spectrogram.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x)
        return x

"""BC-ResNet (Kim et al. 2021), residual blocks with a one-dimensional temporal part, by fixed or learned strides."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiostride.checks import ModelSize, Pooling, check_positive
from audiostride.errors import InputError
from audiostride.models.encoder_kinds import BCRESNET_CHANNELS, BCRESNET_STRIDES, check_broadcasted
from audiostride.models.pooled import PooledBlock, PooledEncoder
from audiostride.strides.diffstride import DiffStride2d
from audiostride.strides.pooling import pool_axis
from audiostride.strides.pooling_config import PoolingConfig
from audiostride.strides.spectral_pool import SpectralPool2d
from audiostride.strides.strided_conv import StridedConv2d

# Kim et al. 2021, Table 1: blocks of each stage and the dilation of their temporal convolutions.
BLOCKS = (2, 2, 4, 4)
DILATIONS = (1, 2, 4, 8)
POOLING_STAGES = (1, 2)  # from 0; the stem pools too
STEM_TAPS = 5  # of the stem's kernel, on either axis
SUB_BANDS = 5
DROPOUT = 0.1
HEAD_BINS = 5  # of mel, which the head's first convolution sees at once


class SubSpectralNorm(nn.Module):
    """Batch norm of each channel in each of five sub-bands of mel (Chang et al. 2021).

    Args:
        channels: Number of channels.

    Shape:
        x: ``(B, C, T, M)``. Result: the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels * SUB_BANDS)

    def forward(self, x: Tensor) -> Tensor:
        n_mels = x.shape[-1]
        width = -(-n_mels // SUB_BANDS)
        # Differs from the paper: learned strides leave any number of bins, and where that is no multiple of five,
        # neighbouring sub-bands, all as wide, overlap. All of them see something, however few bins there are.
        starts = [round(band * (n_mels - width) / (SUB_BANDS - 1)) for band in range(SUB_BANDS)]
        bands = torch.stack([x[..., start : start + width] for start in starts], dim=2)  # (B, C, 5, T, width)
        normed: Tensor = self.norm(bands.flatten(1, 2)).unflatten(1, (-1, SUB_BANDS))
        # Each bin is what the sub-band makes of it that has its middle nearest.
        ends = [*((start + after + width) // 2 for start, after in pairwise(starts)), n_mels]
        return torch.cat(
            [
                normed[:, :, band, :, begin - start : end - start]
                for band, (begin, end, start) in enumerate(zip([0, *ends], ends, starts, strict=False))
            ],
            dim=-1,
        )


class BroadcastedStem(PooledBlock):
    """5x5 convolution, pooling, batch norm, ReLU.

    Args:
        out_channels: Number of channels.
        pooling: How it pools.
        strides: Stride over time and over mel.

    Shape:
        x: ``(B, 1, T, M)``. Result: ``(B, C_out, *output_size(T, M))``.
    """

    def __init__(self, out_channels: int, *, pooling: PoolingConfig, strides: Sequence[float]) -> None:
        super().__init__()
        self.pool = cast("DiffStride2d | SpectralPool2d | None", pooling.make_layer(strides))
        given = (1, 1) if self.pool is not None else strides
        self.conv = StridedConv2d(1, out_channels, (STEM_TAPS, STEM_TAPS), strides=given, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def output_size(self, n_frames: int, n_mels: int) -> tuple[int, int]:
        """Frames and mel bins after the block."""
        return _size_after(self, self.conv, n_frames, n_mels)

    def convolution_strides(self) -> tuple[float, float]:
        """Strides over time and mel of the convolution; 1 where a layer pools."""
        return float(self.conv.stride[0]), float(self.conv.stride[1])

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is None:
            return F.relu(self.norm(self.conv(x)), inplace=True)
        time, mel = self.axis_poolings(x)
        # Pooling over mel commutes exactly with what a kernel does over time, and five shifted copies of one channel
        # are fewer maps to pool than the convolution's result, which then has only the shorter ones to be made of.
        padded = F.pad(x, (STEM_TAPS // 2, STEM_TAPS // 2))
        taps = torch.cat([padded[..., k : k + x.shape[-1]] for k in range(STEM_TAPS)], dim=1)
        taps = pool_axis(taps.contiguous(memory_format=torch.channels_last), -1, mel)
        kernel = self.conv.weight.transpose(1, 3)  # (C_out, taps over mel, taps over time, 1)
        x = pool_axis(F.conv2d(taps, kernel, padding=(STEM_TAPS // 2, 0)), -2, time)
        return F.relu(self.norm(x), inplace=True)


class BroadcastedBlock(PooledBlock):
    """A residual block whose temporal part sees the mean over mel (Kim et al. 2021, section 2.2 and figure 2).

    ::

        x ── (1x1 conv ── norm ── ReLU) ── mel conv ── (pool) ── norm ──┬────────────────────(+)── ReLU
         │                                                              └── temporal part ────┤
         └──────────────────────────────── shortcut ──────────────────────────────────────────┘

    The temporal part is the mean over mel, a convolution over time, norm, Swish, a 1x1 convolution and dropout; its one
    bin of mel is added to all of them. A transition block, which may pool and change the channels, has the leading 1x1
    convolution and no shortcut.

    Args:
        in_channels, out_channels: Number of channels.
        transition: Whether the block is a transition block.
        dilation: Of the convolution over time, in frames.
        pooling: How it pools.
        strides: Stride over time and over mel; None is a block that keeps the size of its maps.

    Shape:
        x: ``(B, C, T, M)``. Result: ``(B, C_out, *output_size(T, M))``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        transition: bool,
        dilation: int,
        pooling: PoolingConfig,
        strides: Sequence[float] | None,
    ) -> None:
        super().__init__()
        pool = None if strides is None else pooling.make_layer(strides)
        self.pool = cast("DiffStride2d | SpectralPool2d | None", pool)
        given = (1, 1) if strides is None or pool is not None else strides
        self.conv_in: StridedConv2d | None = None
        self.norm_in: nn.BatchNorm2d | None = None
        if transition:
            self.conv_in = StridedConv2d(in_channels, out_channels, (1, 1), bias=False)
            self.norm_in = nn.BatchNorm2d(out_channels)
        self.conv_mel = StridedConv2d(
            out_channels, out_channels, (1, 3), strides=given, groups=out_channels, bias=False
        )
        self.norm_mel = SubSpectralNorm(out_channels)
        self.conv_time = nn.Conv2d(
            out_channels,
            out_channels,
            (3, 1),
            padding=(dilation, 0),
            dilation=(dilation, 1),
            groups=out_channels,
            bias=False,
        )
        self.norm_time = nn.BatchNorm2d(out_channels)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.dropout = nn.Dropout2d(DROPOUT)

    def output_size(self, n_frames: int, n_mels: int) -> tuple[int, int]:
        """Frames and mel bins after the block."""
        return _size_after(self, self.conv_mel, n_frames, n_mels)

    def convolution_strides(self) -> tuple[float, float]:
        """Strides over time and mel of the block's convolutions; 1 where a layer pools."""
        return float(self.conv_mel.stride[0]), float(self.conv_mel.stride[1])

    def forward(self, x: Tensor) -> Tensor:
        maps = x
        if self.conv_in is not None and self.norm_in is not None:
            maps = F.relu(self.norm_in(self.conv_in(maps)), inplace=True)
        maps = self.conv_mel(maps)
        if self.pool is not None:
            time, mel = self.axis_poolings(maps)
            maps = pool_axis(pool_axis(maps, -1, mel), -2, time)  # mel, which shrinks, first
        maps = self.norm_mel(maps)
        temporal = self.conv_time(maps.mean(dim=-1, keepdim=True))  # (B, C, T, 1)
        temporal = self.dropout(self.conv_out(F.silu(self.norm_time(temporal))))
        result = maps + temporal
        return F.relu(result if self.conv_in is not None else result + x)


def _size_after(
    block: BroadcastedStem | BroadcastedBlock, convolution: StridedConv2d, n_frames: int, n_mels: int
) -> tuple[int, int]:
    n_t, n_m = convolution.output_size(n_frames, n_mels)
    if block.pool is not None:
        n_t, n_m = block.pool.output_size(n_t, n_m)
    return n_t, n_m


class BCResNetEncoder(PooledEncoder):
    """BC-ResNet without its linear layer: a stem, four stages of broadcasted blocks, and a 5x5 and a 1x1 convolution.

    The network's own strides are 1 over time and 2 over mel, in the stem and in the first blocks of stages 2 and 3;
    DiffStride learns both of each pair.

    Args:
        pooling: ``"strided"``, ``"spectral"`` or ``"diffstride"``.
        strides: Stride over time and over mel of the stem, of stage 2 and of stage 3.
        channels: Channels per stage at width 1. The stem has twice those of the first stage, the result four times.
        width: Factor on the channels, the paper's tau: 1 is BC-ResNet-1, 8 is BC-ResNet-8.
        size, ramp_bins, shared_strides, max_stride: See `PoolingConfig`; used by DiffStride only.

    Attributes:
        out_channels: Channels of the result.

    Shape:
        spectrogram: ``(B, 1, T, M)``. Result: ``(B, out_channels, T', max(1, M' - 4))`` where ``(T', M')`` is
        ``map_sizes(T, M)[-1]``.

    Raises:
        InputError: Settings out of range; a spectrogram of another shape.

    >>> import torch
    >>> BCResNetEncoder(pooling="strided")(torch.zeros(2, 1, 100, 40)).shape
    torch.Size([2, 32, 100, 1])
    """

    def __init__(
        self,
        *,
        pooling: Pooling = "diffstride",
        strides: Sequence[Sequence[float]] = BCRESNET_STRIDES,
        channels: Sequence[int] = BCRESNET_CHANNELS,
        width: float = 1.0,
        size: ModelSize = "mixed",
        ramp_bins: float | None = None,
        shared_strides: bool = False,
        max_stride: float | None = None,
    ) -> None:
        super().__init__()
        who = "BCResNetEncoder"
        check_positive(who, width=width)
        config = PoolingConfig(
            pooling=pooling,
            size=size,
            strides=strides,
            ramp_bins=ramp_bins,
            shared_strides=shared_strides,
            max_stride=max_stride,
        )
        check_broadcasted(who, strides, channels)
        first, *counts = (max(1, round(width * count)) for count in (2 * channels[0], *channels, 4 * channels[0]))
        self.out_channels = counts.pop()
        self.stem = BroadcastedStem(first, pooling=config, strides=strides[0])
        self.blocks = nn.ModuleList()
        pairs = dict(zip(POOLING_STAGES, strides[1:], strict=True))
        for stage, (n_out, n_blocks, dilation) in enumerate(zip(counts, BLOCKS, DILATIONS, strict=True)):
            for place in range(n_blocks):
                self.blocks.append(
                    BroadcastedBlock(
                        first,
                        n_out,
                        transition=place == 0,
                        dilation=dilation,
                        pooling=config,
                        strides=pairs.get(stage) if place == 0 else None,
                    )
                )
                first = n_out
        self.conv_head = nn.Conv2d(first, first, (5, HEAD_BINS), padding=(2, 0), groups=first, bias=False)
        self.conv_last = nn.Conv2d(first, self.out_channels, 1, bias=False)
        self.norm_last = nn.BatchNorm2d(self.out_channels)
        self._places = [sum(BLOCKS[:stage]) for stage in POOLING_STAGES]
        # Channels together in memory, as the maps are: both axes are pooled without a copy.
        self.to(memory_format=torch.channels_last)
        self.pooling: Pooling = pooling

    def all_blocks(self) -> list[BroadcastedBlock]:
        """All blocks behind the stem in order, with their type (a ModuleList knows modules only)."""
        return cast("list[BroadcastedBlock]", list(self.blocks))

    def block_list(self) -> list[PooledBlock]:
        """The blocks that pool, in order: the stem, the first ones of stages 2 and 3."""
        blocks = self.all_blocks()
        return [self.stem, *(blocks[place] for place in self._places)]

    def forward(self, spectrogram: Tensor) -> Tensor:
        if spectrogram.ndim != 4 or spectrogram.shape[1] != 1:
            raise InputError(
                f"BCResNetEncoder: spectrogram must have shape (B, 1, T, M), got {tuple(spectrogram.shape)}; "
                "add the channel axis with .unsqueeze(1)"
            )
        x = self.stem(spectrogram.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        # Differs from the paper: its network has five bins of mel here and keeps one; of another number each place is
        # kept and averaged, and zeros stand in for missing ones.
        missing = max(0, HEAD_BINS - x.shape[-1])
        x = self.conv_head(F.pad(x, (missing // 2, missing - missing // 2)) if missing else x)
        return F.relu(self.norm_last(self.conv_last(x)), inplace=True)

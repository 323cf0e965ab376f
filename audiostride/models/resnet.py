"""ResNet-18 (He et al. 2016a, 2016b), whose shortcut blocks pool by fixed or learned strides (Riad et al. 2022)."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiostride.checks import ModelSize, Pooling, Stem, check_choice, check_count, check_positive
from audiostride.errors import InputError
from audiostride.models.encoder_kinds import N_STAGES, RESNET_CHANNELS, RESNET_STRIDES, check_stages
from audiostride.models.pooled import PooledBlock, PooledEncoder
from audiostride.strides.diffstride import DiffStride2d
from audiostride.strides.pooling import pool_axes
from audiostride.strides.pooling_config import PoolingConfig
from audiostride.strides.spectral_pool import SpectralPool2d
from audiostride.strides.strided_conv import StridedConv2d

BLOCKS_PER_STAGE = 2


def rectify_(x: Tensor) -> Tensor:
    """ReLU in place: of a norm's result or of a sum, which no other gradient needs."""
    return F.relu(x, inplace=True)


class ResidualBlock(PooledBlock):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016a, figure 2), with pooling of both branches or none.

    ::

        x ── conv 1 ── pool ── norm ── ReLU ── conv 2 ── norm ──(+)── ReLU
         └──────────── pool ── 1x1 conv ── norm ─────────────────┘

    One pooling layer, with one pair of strides, shortens both branches (Riad et al. 2022, section 3.2). Without
    `project` the shortcut has no convolution and no norm. With strided pooling there is no pooling layer: convolution 1
    and that of the shortcut are strided. With `pre_activation` norm and ReLU come before each convolution (He et al.
    2016b), the shortcut has no norm and nothing comes after the sum; a 1x1 convolution sees the first ReLU's result,
    and a shortcut without one the block's input.

    Args:
        in_channels, out_channels: Number of channels.
        pooling: How it pools.
        strides: Stride over time and over mel; None is a block that keeps the size of its maps.
        project: Whether the shortcut has a 1x1 convolution.
        pre_activation: Whether norms and ReLUs come first.

    Shape:
        x: ``(B, C, T, M)``. Result: ``(B, C_out, *output_size(T, M))``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        pooling: PoolingConfig,
        strides: Sequence[float] | None,
        project: bool,
        pre_activation: bool,
    ) -> None:
        super().__init__()
        self.pre_activation = pre_activation
        pool = None if strides is None else pooling.make_layer(strides)
        self.pool = cast("DiffStride2d | SpectralPool2d | None", pool)
        given = (1, 1) if strides is None or pool is not None else strides
        # Norms follow all convolutions, in the next block at the latest, and take over their offsets.
        self.conv_1 = StridedConv2d(in_channels, out_channels, (3, 3), strides=given, bias=False)
        self.norm_1 = nn.BatchNorm2d(in_channels if pre_activation else out_channels)
        self.conv_2 = StridedConv2d(out_channels, out_channels, (3, 3), bias=False)
        self.norm_2 = nn.BatchNorm2d(out_channels)
        self.conv_shortcut: StridedConv2d | None = None
        self.norm_shortcut: nn.BatchNorm2d | None = None
        if project:
            self.conv_shortcut = StridedConv2d(in_channels, out_channels, (1, 1), bias=False)
            self.norm_shortcut = None if pre_activation else nn.BatchNorm2d(out_channels)

    def output_size(self, n_frames: int, n_mels: int) -> tuple[int, int]:
        """Frames and mel bins after the block."""
        n_t, n_m = self.conv_1.output_size(n_frames, n_mels)
        if self.pool is not None:
            n_t, n_m = self.pool.output_size(n_t, n_m)
        return n_t, n_m

    def convolution_strides(self) -> tuple[float, float]:
        """Strides over time and mel of the block's convolutions; 1 where a layer pools."""
        return float(self.conv_1.stride[0]), float(self.conv_1.stride[1])

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.pre_activation:
            x = rectify_(self.norm_1(x))
            if self.conv_shortcut is not None:
                shortcut = x
        main = self.conv_1(x)
        if self.pool is not None:
            poolings = self.axis_poolings(x)  # built once for both branches
            main = pool_axes(main, poolings)
            # Before the 1x1 convolution, which mixes channels only and has no offset: both orders are exactly the same,
            # and this one pools fewer channels and convolves a smaller map.
            shortcut = pool_axes(shortcut, poolings)
        elif self.conv_shortcut is not None:
            # The places that a strided 1x1 convolution sees. As one operation it crashes in its backward pass on a CPU,
            # or is wrong there, with channels last and fewer of them than a vector holds (4, 8 or 13 of 16 in torch
            # 2.14; uxlfoundation/oneDNN, issue 6035).
            step_t, step_m = self.conv_1.stride
            shortcut = shortcut[..., ::step_t, ::step_m]
        if self.conv_shortcut is not None:
            shortcut = self.conv_shortcut(shortcut)
        if self.pre_activation:
            result: Tensor = self.conv_2(rectify_(self.norm_2(main)))
            return result.add_(shortcut)
        if self.norm_shortcut is not None:
            shortcut = self.norm_shortcut(shortcut)
        result = self.norm_2(self.conv_2(rectify_(self.norm_1(main))))
        return rectify_(result.add_(shortcut))


class ResNetEncoder(PooledEncoder):
    """ResNet-18 without its linear layer: a stem and four stages of two residual blocks each.

    Args:
        in_channels: Channels of the input: 1 for spectrograms, 3 for colour images.
        pooling: ``"strided"``, ``"spectral"`` or ``"diffstride"``.
        strides: Stride over time and over mel of each block that pools: the first ones of stages 2 to 4, whose
            shortcuts have a convolution anyway, or, with four pairs, those of all stages (the paper's setting for
            ImageNet, where the first identity block pools too).
        channels: Channels per stage at width 1.
        width: Factor on the channels.
        size, ramp_bins, shared_strides, max_stride: See `PoolingConfig`; used by DiffStride only.
        pre_activation: Whether norms and ReLUs come before convolutions (He et al. 2016b).
        stem: ``"small"``, a 3x3 convolution that keeps the size, for spectrograms and small images; or ``"large"``, a
            7x7 convolution and a 3x3 maximum with strides of 2 each, which are not learned, for those of ImageNet.

    Attributes:
        out_channels: Channels of the result.

    Shape:
        spectrogram: ``(B, in_channels, T, M)``, or images. Result: ``(B, out_channels, *map_sizes(T, M)[-1])``.

    Raises:
        InputError: Settings out of range; an input of another shape.

    >>> import torch
    >>> ResNetEncoder(pooling="strided", width=0.125)(torch.zeros(2, 1, 100, 64)).shape
    torch.Size([2, 64, 13, 8])
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        pooling: Pooling = "diffstride",
        strides: Sequence[Sequence[float]] = RESNET_STRIDES,
        channels: Sequence[int] = RESNET_CHANNELS,
        width: float = 1.0,
        size: ModelSize = "mixed",
        ramp_bins: float | None = None,
        shared_strides: bool = False,
        max_stride: float | None = None,
        pre_activation: bool = False,
        stem: Stem = "small",
    ) -> None:
        super().__init__()
        who = "ResNetEncoder"
        check_choice(who, "stem", stem, Stem)
        check_count(who, in_channels=in_channels)
        check_positive(who, width=width)
        config = PoolingConfig(
            pooling=pooling,
            size=size,
            strides=strides,
            ramp_bins=ramp_bins,
            shared_strides=shared_strides,
            max_stride=max_stride,
        )
        check_stages(who, strides, channels)
        counts = [max(1, round(width * count)) for count in channels]
        self.stem = stem
        self.conv_stem = (
            StridedConv2d(in_channels, counts[0], (3, 3), bias=False)
            if stem == "small"
            else StridedConv2d(in_channels, counts[0], (7, 7), strides=(2, 2), bias=False)
        )
        # With pre-activation the first block begins with a norm, and one more follows the last block.
        self.norm_stem = None if pre_activation else nn.BatchNorm2d(counts[0])
        self.blocks = nn.ModuleList()
        pairs: list[Sequence[float] | None] = [*[None] * (N_STAGES - len(strides)), *strides]
        n_in = counts[0]
        for stage, (n_out, pair) in enumerate(zip(counts, pairs, strict=True)):
            for place in range(BLOCKS_PER_STAGE):
                own = pair if place == 0 else None
                strided = pooling == "strided" and own is not None and tuple(own) != (1, 1)
                self.blocks.append(
                    ResidualBlock(
                        n_in,
                        n_out,
                        pooling=config,
                        strides=own,
                        # An identity cannot be strided; a pooling layer takes it as it is.
                        project=place == 0 and (stage > 0 or strided),
                        pre_activation=pre_activation,
                    )
                )
                n_in = n_out
        self.norm_last = nn.BatchNorm2d(n_in) if pre_activation else None
        self._places = [BLOCKS_PER_STAGE * stage for stage, pair in enumerate(pairs) if pair is not None]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # Channels together in memory, as the maps are: both axes are pooled without a copy.
        self.to(memory_format=torch.channels_last)
        self.pooling: Pooling = pooling
        self.in_channels = in_channels
        self.out_channels = n_in

    def all_blocks(self) -> list[ResidualBlock]:
        """All blocks in order, with their type (a ModuleList knows modules only)."""
        return cast("list[ResidualBlock]", list(self.blocks))

    def block_list(self) -> list[ResidualBlock]:
        """The blocks that pool, in order: the first ones of the last stages, as many as there are strides."""
        blocks = self.all_blocks()
        return [blocks[place] for place in self._places]

    def stem_size(self, n_frames: int, n_mels: int) -> tuple[int, int]:
        """Frames and mel bins of the first block's map, of `n_frames` x `n_mels`, whether it pools or not."""
        n_t, n_m = self.conv_stem.output_size(n_frames, n_mels)
        return (n_t, n_m) if self.stem == "small" else (-(-n_t // 2), -(-n_m // 2))

    def forward(self, spectrogram: Tensor) -> Tensor:
        if spectrogram.ndim != 4 or spectrogram.shape[1] != self.in_channels:
            raise InputError(
                f"ResNetEncoder: input must have shape (B, {self.in_channels}, T, M), got {tuple(spectrogram.shape)}; "
                "add a missing channel axis with .unsqueeze(1), or give in_channels"
            )
        x = self.conv_stem(spectrogram.contiguous(memory_format=torch.channels_last))
        if self.norm_stem is not None:
            x = rectify_(self.norm_stem(x))
        if self.stem == "large":
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x)
        return x if self.norm_last is None else rectify_(self.norm_last(x))

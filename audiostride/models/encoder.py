"""The encoder: blocks of separable convolutions, each followed by one pooling of both axes."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from audiostride.checks import Pooling, Size, check_choice
from audiostride.errors import InputError
from audiostride.functional.pooling import apply_matrix
from audiostride.layers import DiffStride2d, SpectralPool2d, StridedConv2d, read_strides_
from audiostride.models.config import PAPER_CHANNELS, PAPER_STRIDES


class EncoderBlock(nn.Module):
    """(3x1) convolution over time, ReLU, batch norm, (1x3) convolution over mel, pooling, ReLU, batch norm.

    With strided pooling the first convolution carries the time stride and the second the mel stride.

    Shape:
        x: ``(B, C, T, M)``. Result: ``(B, C_out, *output_size(T, M))``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        pooling: Pooling,
        strides: Sequence[float],
        size: Size,
        ramp_bins: float,
        shared_strides: bool,
        max_stride: float | None,
    ) -> None:
        super().__init__()
        check_choice("EncoderBlock", "pooling", pooling, Pooling)
        stride_time, stride_mel = strides if pooling == "strided" else (1, 1)
        # ReLU comes between convolution and norm, so the norm cannot take over the convolution's offset: it stays.
        self.conv_time = StridedConv2d(in_channels, out_channels, (3, 1), strides=(stride_time, 1))
        self.norm_time = nn.BatchNorm2d(out_channels)
        self.conv_mel = StridedConv2d(out_channels, out_channels, (1, 3), strides=(1, stride_mel))
        self.pool: DiffStride2d | SpectralPool2d | None = None
        if pooling == "diffstride":
            self.pool = DiffStride2d(
                strides, ramp_bins=ramp_bins, size=size, shared=shared_strides, max_stride=max_stride
            )
        elif pooling == "spectral":
            self.pool = SpectralPool2d(strides)
        self.norm_mel = nn.BatchNorm2d(out_channels)

    def output_size(self, n_frames: int, n_mels: int) -> tuple[int, int]:
        """Frames and mel bins after the block."""
        sizes = self.conv_mel.output_size(*self.conv_time.output_size(n_frames, n_mels))
        if self.pool is not None:
            n_t, n_m = self.pool.output_size(*sizes)
            return n_t, n_m
        return sizes

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_time(self.conv_time(x).relu_())
        if self.pool is None:
            pooled: Tensor = self.conv_mel(x)
        else:
            # Pooling over time commutes exactly with a convolution over mel (its offset, a constant, stays that), so
            # time is pooled first: the convolution and the pooling over mel see the shorter map.
            matrix_time, matrix_mel = self._pooling_matrices(self.pool, x)
            pooled = apply_matrix(self.conv_mel(apply_matrix(x, matrix_time, -2)), matrix_mel, -1)
        normed: Tensor = self.norm_mel(pooled.relu_())
        return normed

    @staticmethod
    def _pooling_matrices(pool: DiffStride2d | SpectralPool2d, x: Tensor) -> list[Tensor]:
        if isinstance(pool, DiffStride2d):
            return pool.pooling_matrices(*x.shape[-2:])
        return pool.pooling_matrices(*x.shape[-2:], like=x)


class Encoder(nn.Module):
    """Convolutional encoder after Tagliasacchi et al. (2019), as used by Riad et al. (2022, section 3.1).

    Args:
        pooling: ``"strided"``, ``"spectral"`` or ``"diffstride"``.
        strides: Stride over time and over mel per block.
        channels: Channels per block at width 1.
        width: Factor on the channels.
        size, ramp_bins, shared_strides, max_stride: See `DiffStride2d`; used by DiffStride only.

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

    def __init__(
        self,
        *,
        pooling: Pooling = "diffstride",
        strides: Sequence[Sequence[float]] = PAPER_STRIDES,
        channels: Sequence[int] = PAPER_CHANNELS,
        width: float = 1.0,
        size: Size = "nominal",
        ramp_bins: float = 4.0,
        shared_strides: bool = False,
        max_stride: float | None = None,
    ) -> None:
        super().__init__()
        counts = [1, *(max(1, round(width * count)) for count in channels)]
        self.blocks = nn.ModuleList(
            EncoderBlock(
                n_in,
                n_out,
                pooling=pooling,
                strides=pair,
                size=size,
                ramp_bins=ramp_bins,
                shared_strides=shared_strides,
                max_stride=max_stride,
            )
            for n_in, n_out, pair in zip(counts[:-1], counts[1:], strides, strict=True)
        )
        self.pooling: Pooling = pooling
        self.out_channels = counts[-1]

    def block_list(self) -> list[EncoderBlock]:
        """The blocks in order, with their type (a ModuleList knows modules only)."""
        return cast("list[EncoderBlock]", list(self.blocks))

    def map_sizes(self, n_frames: int, n_mels: int) -> list[tuple[int, int]]:
        """Sizes (frames, mel bins) of the input and after each block."""
        sizes = [(n_frames, n_mels)]
        for block in self.block_list():
            sizes.append(block.output_size(*sizes[-1]))
        return sizes

    def project_strides_(self, n_frames: int, n_mels: int) -> None:
        """Limit the learned strides to what maps of this size allow; call it after each optimizer step.

        Costs one copy from the device for the whole encoder, which the next forward pass shares.
        """
        read_strides_(self)
        for block, sizes in zip(self.block_list(), self.map_sizes(n_frames, n_mels)[:-1], strict=True):
            if isinstance(block.pool, DiffStride2d):
                block.pool.project_strides_(*sizes)

    def forward(self, spectrogram: Tensor) -> Tensor:
        if spectrogram.ndim != 4 or spectrogram.shape[1] != 1:
            raise InputError(
                f"Encoder: spectrogram must have shape (B, 1, T, M), got {tuple(spectrogram.shape)}; "
                "add the channel axis with .unsqueeze(1)"
            )
        x = spectrogram
        for block in self.blocks:
            x = block(x)
        return x

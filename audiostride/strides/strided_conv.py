"""Convolution with integer strides: the baseline, and the unstrided convolution in front of a pooling layer."""

from collections.abc import Sequence

from torch import nn

from audiostride.checks import check_axes, check_bins, check_stride
from audiostride.errors import InputError


class StridedConv2d(nn.Conv2d):
    """Convolution with odd kernels, zero padding of half a kernel and integer strides.

    Args:
        in_channels, out_channels: Number of channels.
        kernel_size: Odd length over time and over mel.
        strides: Integer stride over time and over mel.
        groups: Groups of channels that are convolved on their own.
        bias: Whether an offset is learned per channel.

    Shape:
        x: ``(B, C, T, M)``. Result: ``(B, C_out, ceil(T / S_time), ceil(M / S_mel))``.

    Raises:
        InputError: An even kernel; a stride below 1 or not an integer.

    >>> import torch
    >>> StridedConv2d(1, 8, (3, 1), strides=(2, 1))(torch.zeros(1, 1, 100, 64)).shape
    torch.Size([1, 8, 50, 64])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        strides: Sequence[float] = (1, 1),
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        check_axes("StridedConv2d", strides, 2, "strides")
        check_axes("StridedConv2d", kernel_size, 2, "kernel_size")
        for stride in strides:
            if check_stride("StridedConv2d", stride) != int(stride):
                raise InputError(
                    f"StridedConv2d: strides must be integers, got {tuple(strides)}; "
                    "fractional strides need pooling 'spectral' or 'diffstride'"
                )
        if any(size < 1 or size % 2 == 0 for size in kernel_size):
            raise InputError(f"StridedConv2d: kernel_size must be odd on both axes, got {tuple(kernel_size)}")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=(int(strides[0]), int(strides[1])),
            padding=(kernel_size[0] // 2, kernel_size[1] // 2),
            groups=groups,
            bias=bias,
        )

    def output_size(self, n_t: int, n_m: int) -> tuple[int, int]:
        """Size of the map that a map of `n_t` frames and `n_m` mel bins becomes."""
        who = "StridedConv2d.output_size"
        return -(-check_bins(who, n_t) // int(self.stride[0])), -(-check_bins(who, n_m) // int(self.stride[1]))

"""Blocks that pool their maps once, and encoders made of them: what a stride is used for, whatever lies around it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from audiostride.checks import HeadPooling, Pooling
from audiostride.errors import InputError
from audiostride.strides.diffstride import DiffStride2d, diffstride_layers, read_strides_
from audiostride.strides.frozen_pool import FrozenPool
from audiostride.strides.matrices import AxisPooling, SpectrumPooling
from audiostride.strides.spectral_pool import SpectralPool2d


class PooledBlock(nn.Module, ABC):
    """A part of an encoder that shortens both axes once, by a pooling layer or by the strides of its convolutions.

    Attributes:
        pool: The pooling layer; None where convolutions carry the strides.
    """

    pool: DiffStride2d | SpectralPool2d | FrozenPool | None

    @abstractmethod
    def output_size(self, n_frames: int, n_mels: int) -> tuple[int, int]:
        """Frames and mel bins after the block."""

    @abstractmethod
    def convolution_strides(self) -> tuple[float, float]:
        """Strides over time and mel of the block's convolutions; 1 where a layer pools."""

    def used_strides(self, n_frames: int, n_mels: int) -> tuple[float, float]:
        """Strides over time and mel with which the block pools maps of this size.

        Raises:
            InputError: A frozen block, which has matrices and no strides.
        """
        if self.pool is None:
            return self.convolution_strides()
        if isinstance(self.pool, FrozenPool):
            raise InputError(
                f"{type(self).__name__}.used_strides: the block must not be frozen, got one for maps of "
                f"{self.pool.sizes}; ask the model that was frozen"
            )
        time, mel = (
            self.pool.used_strides(n_frames, n_mels) if isinstance(self.pool, DiffStride2d) else self.pool.strides
        )
        return time, mel

    def axis_poolings(self, x: Tensor) -> list[AxisPooling | SpectrumPooling]:
        """How both axes of this map are pooled.

        Raises:
            InputError: A block whose convolutions carry the strides.
        """
        if self.pool is None:
            raise InputError(f"{type(self).__name__}.axis_poolings: the block must have a pooling layer, got none")
        if isinstance(self.pool, SpectralPool2d):
            return self.pool.axis_poolings(*x.shape[-2:], like=x)
        return self.pool.axis_poolings(*x.shape[-2:])

    def freeze_(self, n_frames: int, n_mels: int) -> None:
        """Replace the pooling layer by a fixed one for maps of this size."""
        if isinstance(self.pool, DiffStride2d):
            self.pool = self.pool.freeze(n_frames, n_mels)
        elif isinstance(self.pool, SpectralPool2d):
            self.pool = self.pool.freeze(n_frames, n_mels, like=next(self.parameters()).detach())


class PooledLayer(NamedTuple):
    """A block that pools, and the maps that it gets and gives."""

    block: PooledBlock
    """The block."""
    n_in: tuple[int, int]
    """Frames and mel bins before it."""
    n_out: tuple[int, int]
    """Frames and mel bins after it."""


class PooledEncoder(nn.Module, ABC):
    """A convolutional network whose maps shrink in a few blocks, by one stride over time and one over mel each.

    Attributes:
        pooling: ``"strided"``, ``"spectral"`` or ``"diffstride"``.
        out_channels: Channels of the result.
        head_pooling: What heads see of each channel of the last maps, where the classifier's settings do not say.

    Shape:
        spectrogram: ``(B, C, T, M)``. Result: ``(B, out_channels, *map_sizes(T, M)[-1])``.
    """

    pooling: Pooling
    out_channels: int
    head_pooling: HeadPooling = "mean"

    @abstractmethod
    def block_list(self) -> Sequence[PooledBlock]:
        """The blocks that pool, in order."""

    def stem_size(self, n_frames: int, n_mels: int) -> tuple[int, int]:
        """Frames and mel bins of the map that the first block gets of a spectrogram of `n_frames` x `n_mels`."""
        return n_frames, n_mels

    def pooled_layers(self, n_frames: int, n_mels: int) -> list[PooledLayer]:
        """The blocks that pool, with the sizes of their maps for a spectrogram of `n_frames` x `n_mels`."""
        layers: list[PooledLayer] = []
        size = self.stem_size(n_frames, n_mels)
        for block in self.block_list():
            layers.append(PooledLayer(block, size, block.output_size(*size)))
            size = layers[-1].n_out
        return layers

    def map_sizes(self, n_frames: int, n_mels: int) -> list[tuple[int, int]]:
        """Sizes (frames, mel bins) of the input, `n_frames` x `n_mels`, and after each block that pools."""
        return [(n_frames, n_mels), *(layer.n_out for layer in self.pooled_layers(n_frames, n_mels))]

    def limited_layers(self, n_frames: int, n_mels: int) -> list[tuple[DiffStride2d, tuple[int, int]]]:
        """The layers that learn strides, with the sizes of maps (of `n_frames` x `n_mels`) that limit them."""
        layers = self.pooled_layers(n_frames, n_mels)
        return [(block.pool, sizes) for block, sizes, _ in layers if isinstance(block.pool, DiffStride2d)]

    def project_strides_(self, n_frames: int, n_mels: int) -> None:
        """Limit the learned strides to what maps of `n_frames` x `n_mels` allow; call it after each optimizer step.

        Costs one copy from the device for the whole encoder, which the next forward pass shares. Nothing is done where
        a stride is not finite, which has no size: whoever trains must see it.
        """
        read_strides_(self)
        if not all(math.isfinite(stride) for layer in diffstride_layers(self) for stride in layer.stride_values()):
            return
        for layer, sizes in self.limited_layers(n_frames, n_mels):
            layer._project_known_(*sizes)

    def expect_sizes(self, n_frames: int, n_mels: int) -> None:
        """Let layers keep the sizes of maps of `n_frames` x `n_mels` up to date, see `DiffStride2d.expect_sizes`."""
        for layer, sizes in self.limited_layers(n_frames, n_mels):
            layer.expect_sizes(*sizes)

    def freeze_(self, n_frames: int, n_mels: int) -> None:
        """Replace the poolings by fixed ones for spectrograms of `n_frames` x `n_mels`."""
        for block, sizes, _ in self.pooled_layers(n_frames, n_mels):
            block.freeze_(*sizes)

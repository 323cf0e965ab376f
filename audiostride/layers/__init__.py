"""Modules that own parameters or buffers: the frontend, strided convolution, spectral pooling, DiffStride."""

from audiostride.layers.diffstride import (
    DiffStride1d,
    DiffStride2d,
    DiffStride3d,
    project_strides_,
    read_strides_,
    stride_cost,
)
from audiostride.layers.frozen_pool import FrozenPool
from audiostride.layers.log_mel import LogMel
from audiostride.layers.spectral_pool import SpectralPool1d, SpectralPool2d, SpectralPool3d
from audiostride.layers.strided_conv import StridedConv2d

__all__ = [
    "DiffStride1d",
    "DiffStride2d",
    "DiffStride3d",
    "FrozenPool",
    "LogMel",
    "SpectralPool1d",
    "SpectralPool2d",
    "SpectralPool3d",
    "StridedConv2d",
    "project_strides_",
    "read_strides_",
    "stride_cost",
]

"""A frozen classifier as a list of stages, few and plain enough for a program of a hundred lines in any language."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from audiostride.audio.log_mel import LogMel
from audiostride.errors import InputError
from audiostride.models.classifier import AudioClassifier
from audiostride.models.cost import multiply_adds
from audiostride.models.encoder import Encoder, EncoderBlock
from audiostride.strides.convolution import pays_at_once
from audiostride.strides.diffstride import read_strides_
from audiostride.strides.frozen_pool import FrozenPool
from audiostride.strides.matrices import AxisPooling, SpectrumPooling

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class Stage:
    """A convolution along one axis of a map, the pooling of that axis, ReLU and norm.

    Maps lie in memory as ``[time][mel][channel]``.
    """

    axis: Literal["time", "mel"]
    """The axis along which it works."""
    lines: int
    """Length of the other axis, whose lines do not know of each other."""
    n_in: int
    """Length of the axis before it."""
    n_out: int
    """Length of the axis after it."""
    kernel: Numbers
    """Weights ``(taps, C, C_out)``, with zeros beyond the ends of the axis."""
    bias: Numbers
    """Offset per channel, ``(C_out,)``."""
    gain: Numbers
    """Factor of the norm, ``(C_out,)``."""
    offset: Numbers
    """Offset of the norm, ``(C_out,)``."""
    matrix: Numbers | None
    """What pools, ``(n_out, n_in)``; None where the convolution has a stride."""
    stride: int
    """Of the convolution, where nothing pools."""
    norm_first: bool
    """Whether ReLU and norm come before the pooling."""

    @property
    def channels_in(self) -> int:
        """Channels before it."""
        return int(self.kernel.shape[1])

    @property
    def channels_out(self) -> int:
        """Channels after it."""
        return int(self.kernel.shape[2])

    @property
    def pools_taps(self) -> bool:
        """Whether the map is pooled for each tap and then convolved, which then takes fewer multiply-adds."""
        taps, channels, channels_out = self.kernel.shape
        return (
            self.matrix is not None
            and not self.norm_first
            and pays_at_once(channels, channels_out, taps, self.n_in, self.n_out)
        )

    @property
    def size_in(self) -> int:
        """Numbers of the map before it."""
        return self.lines * self.n_in * self.channels_in

    @property
    def size_out(self) -> int:
        """Numbers of the map after it."""
        return self.lines * self.n_out * self.channels_out

    @property
    def line_size(self) -> int:
        """Numbers that it needs for one line: a copy of it, and either pooled taps or the convolved line."""
        taps, channels, channels_out = self.kernel.shape
        return int(self.n_in * channels + (taps * channels if self.pools_taps else self.n_in * channels_out))


@dataclass(frozen=True)
class StagedFrontend:
    """A log-mel frontend, by an FFT of half as many complex numbers; frame i is centred on hop i."""

    window: Numbers
    """What frames are weighted with, ``(win_length,)``."""
    hop_length: int
    """Samples from frame to frame."""
    left: int
    """Zeros in front of the first sample."""
    n_fft: int
    """Length of the FFT, a power of two."""
    turns: Numbers
    """``(cos, -sin)`` of ``2 pi k / n_fft`` for k from 0 to ``n_fft / 2``."""
    filter_bins: list[tuple[int, int]]
    """The first bin of each mel filter, and how many it has."""
    filters: Numbers
    """The weights of these bins, one filter after another."""
    power_floor: float
    """Power that counts as silence."""


@dataclass(frozen=True)
class StagedTask:
    """What the logits of a task are."""

    name: str
    """What the task is called."""
    first: int
    """Where its logits begin among those of all tasks."""
    classes: list[str]
    """The class of each."""
    several: bool
    """Whether a clip may have several of them."""


@dataclass(frozen=True)
class StagedNetwork:
    """A frozen classifier behind its log-mel frontend."""

    frontend: StagedFrontend
    """What makes spectrograms of samples."""
    norm_gain: Numbers
    """Factor on each mel band of the spectrogram."""
    norm_offset: Numbers
    """Offset of each mel band."""
    stages: list[Stage]
    """In order; the first gets one channel."""
    tasks: list[StagedTask]
    """In order, as their classes are in the head."""
    head: Numbers
    """``(classes of all tasks, features)``."""
    head_bias: Numbers
    """``(classes of all tasks,)``."""
    maximum: bool
    """Whether the maximum of each channel of the last map is a feature."""
    mean: bool
    """Whether its mean is one, behind the maxima."""
    multiply_adds: int
    """Of one window, see `audiostride.models.cost.multiply_adds`."""


def split_stages(model: AudioClassifier, *, format: str) -> StagedNetwork:
    """The stages of a classifier, its strides fixed to windows of ``config.window_samples`` samples.

    Args:
        model: The classifier; it is not changed.
        format: What is made of it, for messages.

    Raises:
        InputError: An encoder that is not ``separable``, PCEN, or an axis too long for a pooling matrix; weights that
            are not finite.
    """
    config = model.config
    if not isinstance(model.encoder, Encoder):
        raise InputError(
            f"export: --format {format} must be given a model with the encoder separable, got {config.encoder}; "
            "export it as ONNX (-o model.onnx)"
        )
    if model.pcen is not None:
        raise InputError(
            f"export: --format {format} must be given a model with the frontend log-mel, got {config.frontend}; "
            "export it as ONNX (-o model.onnx)"
        )
    # Without this the copy that `freeze` makes of a model just loaded has the sizes of its starting strides.
    read_strides_(model)
    frozen = model.freeze().cpu().float()
    stages: list[Stage] = []
    for block, sizes, sizes_out in frozen.encoder.pooled_layers(config.window_frames, config.n_mels):
        assert isinstance(block, EncoderBlock)
        stages += _block_stages(block, sizes, sizes_out, format=format)
    gain, offset = _read_norm(frozen.input_norm)
    if not all(value.isfinite().all() for value in frozen.state_dict().values()):
        raise InputError("export: all weights must be finite, got some that are not; train again, with a lower --lr")
    heads = [head for head in frozen.heads if isinstance(head, nn.Linear)]
    tasks: list[StagedTask] = []
    for name, classes in config.tasks.items():
        first = tasks[-1].first + len(tasks[-1].classes) if tasks else 0
        tasks.append(StagedTask(name, first, classes, several=name in config.multi_label))
    return StagedNetwork(
        frontend=_read_frontend(frozen.frontend),
        norm_gain=np.broadcast_to(gain, config.n_mels),
        norm_offset=np.broadcast_to(offset, config.n_mels),
        stages=stages,
        tasks=tasks,
        head=np.concatenate([_read(head.weight) for head in heads]),
        head_bias=np.concatenate([_read(head.bias) for head in heads]),
        maximum=frozen.head_pooling != "mean",
        mean=frozen.head_pooling != "max",
        multiply_adds=multiply_adds(frozen),
    )


def _read_frontend(frontend: LogMel) -> StagedFrontend:
    phase = 2 * math.pi * np.arange(frontend.n_fft // 2 + 1) / frontend.n_fft
    weights: list[Numbers] = []
    bins: list[tuple[int, int]] = []
    for row in _read(frontend.filters.T):
        used = np.flatnonzero(row)
        first, last = int(used[0]), int(used[-1])
        weights.append(row[first : last + 1])
        bins.append((first, last + 1 - first))
    return StagedFrontend(
        window=_read(frontend.window),
        hop_length=frontend.hop_length,
        left=(frontend.win_length - frontend.hop_length) // 2,
        n_fft=frontend.n_fft,
        turns=np.stack([np.cos(phase), -np.sin(phase)], axis=1).astype(np.float32),
        filter_bins=bins,
        filters=np.concatenate(weights),
        power_floor=frontend.power_floor,
    )


def _block_stages(
    block: EncoderBlock, sizes: tuple[int, int], sizes_out: tuple[int, int], *, format: str
) -> list[Stage]:
    poolings: Sequence[AxisPooling | SpectrumPooling | None] = (None, None)
    if isinstance(block.pool, FrozenPool):
        poolings = block.pool.axis_poolings(*sizes)
    parts = [(block.conv_time, block.norm_time, poolings[0]), (block.conv_mel, block.norm_mel, poolings[1])]
    stages: list[Stage] = []
    for axis, (convolution, norm, pooling) in enumerate(parts):
        if isinstance(pooling, SpectrumPooling):
            raise InputError(
                f"export: --format {format} must be given a model whose maps are pooled by matrices, got an axis of "
                f"{sizes[axis]} bins; export it as ONNX (-o model.onnx), or train with shorter windows"
            )
        gain, offset = _read_norm(norm)
        stages.append(
            Stage(
                axis="mel" if axis else "time",
                lines=sizes_out[0] if axis else sizes[1],
                n_in=sizes[axis],
                n_out=sizes_out[axis],
                kernel=_read(convolution.weight.flatten(2).permute(2, 1, 0)),
                bias=_read(convolution.bias),
                gain=gain,
                offset=offset,
                matrix=None if pooling is None else _read(pooling.matrix),
                stride=int(convolution.stride[axis]),
                norm_first=pooling is not None and block.pool_after == "block" and axis == 0,
            )
        )
    return stages


def _read(tensor: Tensor | None) -> Numbers:
    assert tensor is not None
    found: Numbers = tensor.detach().contiguous().numpy()
    return found


def _read_norm(norm: nn.BatchNorm2d) -> tuple[Numbers, Numbers]:
    """Factor and offset of a norm in evaluation, in float64 until the end."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    offset = norm.bias.detach().double() - norm.running_mean.double() * gain
    return _read(gain.float()), _read(offset.float())

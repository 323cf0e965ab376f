"""How a network pools, as one object that is checked once and handed through."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiostride.checks import ModelSize, Pooling, PoolingPlace, RampBins, Size, Stride, check_settings

if TYPE_CHECKING:
    from torch import nn

# "mixed", of maps over time and mel: slow modulations are what tells sounds apart, so time is low-passed; the fine
# structure over mel is kept, in part by folding, as strided convolution keeps all of it. The ramps, in bins, decide how
# much. Measured on spoken words and on pitch, see recipes/NOTES.md.
MIXED: tuple[Size, Size] = ("nominal", "folded")


@dataclass(frozen=True, kw_only=True)
class PoolingConfig:
    """How the layers of a network pool.

    Raises:
        InputError: A value of another type or out of its range.
    """

    pooling: Pooling = "diffstride"
    """How maps shrink: strided convolution, spectral pooling (fixed strides) or DiffStride (learned strides)."""
    size: ModelSize = "mixed"
    """DiffStride's masks and map sizes: ``paper``; ``nominal`` or ``folded``, as small as strided convolution's,
    without or with the frequencies above; or ``mixed``, nominal over time and folded over mel."""
    strides: Sequence[Sequence[Stride]] | None = None
    """Stride over time and over mel of each block, of a ResNet those of stages 2 to 4 or of all four, of a BC-ResNet
    those of the stem and of stages 2 and 3, of another package's network those of each layer that
    `convert_downsampling` makes; DiffStride starts from them. None becomes the encoder's own."""
    ramp_bins: RampBins | None = None
    """R, the width of the mask's ramp in FFT bins; None is 8 where it folds and else the paper's 4."""
    shared_strides: bool = False
    """One learned stride for both axes of a block."""
    max_stride: Stride | None = None
    """Upper limit of a learned stride; None is the number of bins."""
    pool_after: PoolingPlace = "convolution"
    """Where spectral pooling and DiffStride pool: both axes after a block, or each axis after its convolution. Without
    effect on a ResNet, whose convolutions are along both axes at once: it pools after the first one of a block."""

    def __post_init__(self) -> None:
        check_settings(type(self).__name__, self)

    def make_layer(self, strides: Sequence[float]) -> "nn.Module | None":
        """The layer that pools as many axes as there are strides, from them on; None where convolutions carry them."""
        # Not at the top: settings, which help and errors of the command line need, load no torch.
        from audiostride.strides.diffstride import DiffStride1d, DiffStride2d, DiffStride3d
        from audiostride.strides.spectral_pool import SpectralPool1d, SpectralPool2d, SpectralPool3d

        if self.pooling == "strided":
            return None
        if self.pooling == "spectral":
            return (SpectralPool1d, SpectralPool2d, SpectralPool3d)[len(strides) - 1](strides)
        return (DiffStride1d, DiffStride2d, DiffStride3d)[len(strides) - 1](
            strides,
            ramp_bins=self.ramp_bins,
            size=MIXED if self.size == "mixed" else self.size,
            shared=self.shared_strides,
            max_stride=self.max_stride,
        )

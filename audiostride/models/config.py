"""What a classifier is made of, as plain values that are saved with its weights."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from audiostride.checks import (
    ModelSize,
    Pooling,
    PoolingPlace,
    Size,
    check_axes,
    check_choice,
    check_count,
    check_positive,
    check_ramp_bins,
    check_stride,
)
from audiostride.errors import InputError

PAPER_CHANNELS = (64, 128, 256, 256, 512, 512)
PAPER_STRIDES = ((2.0, 2.0), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0))


# The mask over time and over mel for each setting of `size`. "mixed": slow modulations are what tells sounds apart, so
# time is low-passed; the fine structure over mel is kept, in part by folding, as strided convolution keeps all of it.
# The ramps, in bins, decide how much. Measured on spoken words and on pitch, see recipes/README.md.
AXIS_SIZES: dict[ModelSize, tuple[Size, Size]] = {
    "paper": ("paper", "paper"),
    "nominal": ("nominal", "nominal"),
    "folded": ("folded", "folded"),
    "mixed": ("nominal", "folded"),
}
RAMP_BINS: dict[Size, float] = {"paper": 4.0, "nominal": 4.0, "folded": 8.0}


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Settings of an `AudioClassifier`; channels and strides are the paper's (Riad et al. 2022, section 3.1).

    Raises:
        InputError: A value out of its range, a task without two different class names.
    """

    tasks: dict[str, list[str]]
    """Class names of each task, in the order of the logits."""
    pooling: Pooling = "diffstride"
    """How maps shrink: strided convolution, spectral pooling (fixed strides) or DiffStride (learned strides)."""
    size: ModelSize = "mixed"
    """DiffStride's masks and map sizes: ``paper``; ``nominal`` or ``folded``, as small as strided convolution's,
    without or with the frequencies above; or ``mixed``, nominal over time and folded over mel."""
    strides: Sequence[Sequence[float]] = PAPER_STRIDES
    """Stride over time and over mel of each block; DiffStride starts from them."""
    channels: Sequence[int] = PAPER_CHANNELS
    """Channels of each block at width 1."""
    width: float = 1.0
    """Factor on the channels."""
    ramp_bins: float | None = None
    """R, the width of the mask's ramp in FFT bins; None is 8 where it folds and else the paper's 4."""
    shared_strides: bool = False
    """One learned stride for both axes of a block."""
    max_stride: float | None = None
    """Upper limit of a learned stride; None is the number of bins."""
    size_multiple: int = 1
    """DiffStride's maps are rounded up to a multiple of this, which bounds recompilations."""
    pool_after: PoolingPlace = "convolution"
    """Where spectral pooling and DiffStride pool: both axes after a block, or each axis after its convolution."""
    sample_rate: int = 16000
    """Of the waveform, in Hz."""
    window_s: float = 1.0
    """Length of the excerpts and windows that the model is meant for, in seconds."""
    n_mels: int = 64
    """Mel bands."""
    fmin_hz: float = 60.0
    """Lower edge of the first mel band."""
    fmax_hz: float = 7800.0
    """Upper edge of the last mel band."""
    win_length: int = field(default=400)
    """Analysis window in samples (25 ms)."""
    hop_length: int = field(default=160)
    """Hop between frames in samples (10 ms)."""
    n_fft: int = 512
    """Length of the FFT in samples."""

    def __post_init__(self) -> None:
        who = "ClassifierConfig"
        check_choice(who, "pooling", self.pooling, Pooling)
        check_choice(who, "size", self.size, ModelSize)
        check_choice(who, "pool_after", self.pool_after, PoolingPlace)
        if self.ramp_bins is not None:
            check_ramp_bins(who, self.ramp_bins)
        check_positive(who, width=self.width, window_s=self.window_s, n_mels=self.n_mels)
        check_count(who, size_multiple=self.size_multiple)
        if not self.tasks:
            raise InputError(
                f"{who}: tasks must name at least one task, got {{}}; e.g. tasks={{'pitch': ['60', '61']}}"
            )
        for task, names in self.tasks.items():
            if len(names) < 2 or len(set(map(str, names))) != len(names):
                raise InputError(f"{who}: task {task!r} must have two or more different class names, got {list(names)}")
        if not self.channels or any(count < 1 for count in self.channels):
            raise InputError(f"{who}: channels must be one positive number per block, got {tuple(self.channels)}")
        if len(self.strides) != len(self.channels):
            raise InputError(
                f"{who}: strides must have one pair per block ({len(self.channels)}), got {len(self.strides)}"
            )
        for pair in self.strides:
            check_axes(who, pair, 2, "each entry of strides")
            for stride in pair:
                check_stride(who, stride)
        # Plain, comparable values, whatever sequence types came in.
        object.__setattr__(self, "tasks", {task: [str(name) for name in names] for task, names in self.tasks.items()})
        object.__setattr__(self, "strides", tuple((float(t), float(m)) for t, m in self.strides))
        object.__setattr__(self, "channels", tuple(int(count) for count in self.channels))

    def frontend_settings(self) -> dict[str, Any]:
        """The arguments of `LogMel` and `log_mel_spectrogram`."""
        names = ("sample_rate", "n_mels", "n_fft", "win_length", "hop_length", "fmin_hz", "fmax_hz")
        return {name: getattr(self, name) for name in names}

    @property
    def window_samples(self) -> int:
        """Samples of one window."""
        return round(self.window_s * self.sample_rate)

    @property
    def window_frames(self) -> int:
        """Frames of the log-mel spectrogram of one window."""
        return -(-self.window_samples // self.hop_length)

    def to_dict(self) -> dict[str, Any]:
        """The settings as values that JSON and YAML know."""
        values = asdict(self)
        values["strides"] = [list(pair) for pair in self.strides]
        values["channels"] = list(self.channels)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ClassifierConfig":
        """The inverse of `to_dict`; unknown keys are an error.

        Raises:
            InputError: A key that this version does not know, or none for the tasks.
        """
        unknown = sorted(set(values) - {entry.name for entry in fields(cls)})
        if unknown:
            raise InputError(
                f"ClassifierConfig: keys must be known settings, got {', '.join(unknown)}; "
                "was the model saved by a newer version of audiostride?"
            )
        if "tasks" not in values:
            raise InputError("ClassifierConfig: tasks must be given, got none")
        return cls(**values)

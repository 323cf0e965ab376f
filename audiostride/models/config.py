"""What a classifier is made of, as plain values that are saved with its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from audiostride.checks import Count, EncoderKind, HeadPooling, InputNorm, NotNegative, Positive, check_axes
from audiostride.errors import InputError
from audiostride.strides.pooling_config import PoolingConfig

PAPER_CHANNELS = (64, 128, 256, 256, 512, 512)
PAPER_STRIDES = ((2.0, 2.0), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0))
# ResNet-18 (He et al. 2016): four stages, of which the last three begin with a stride.
N_STAGES = 4
# What no network for sound comes near, and what would take gigabytes or hours before it fails.
MAX_SAMPLES, MAX_VALUES = 2**28, 2**26  # of a window and of its spectrograms: 1 GiB and 256 MiB in float32
MAX_CHANNELS, MAX_BLOCKS, MAX_BINS = 2**16, 1000, 2**28
RESNET_CHANNELS = (64, 128, 256, 512)
RESNET_STRIDES = ((2.0, 2.0), (2.0, 2.0), (2.0, 2.0))

ENCODER_CHANNELS: dict[EncoderKind, tuple[int, ...]] = {
    "separable": PAPER_CHANNELS,
    "resnet18": RESNET_CHANNELS,
    "preact_resnet18": RESNET_CHANNELS,
}
ENCODER_STRIDES: dict[EncoderKind, tuple[tuple[float, float], ...]] = {
    "separable": PAPER_STRIDES,
    "resnet18": RESNET_STRIDES,
    "preact_resnet18": RESNET_STRIDES,
}


# Settings that came after version 0.3.0; models of before have these values, which are not written.
LATER: dict[str, Any] = {"head_pooling": None, "input_norm": "all"}


def fill_encoder(
    encoder: EncoderKind, strides: Sequence[Sequence[float]] | None, channels: Sequence[int] | None
) -> tuple[Sequence[Sequence[float]], Sequence[int]]:
    """Strides and channels as given, those of the encoder itself in place of None.

    >>> fill_encoder("resnet18", None, (8, 8, 16, 16))
    (((2.0, 2.0), (2.0, 2.0), (2.0, 2.0)), (8, 8, 16, 16))
    """
    filled = ENCODER_STRIDES[encoder] if strides is None else strides
    return filled, ENCODER_CHANNELS[encoder] if channels is None else channels


def check_blocks(who: str, strides: Sequence[Sequence[float]], channels: Sequence[int]) -> None:
    """Raise unless every block of separable convolutions has channels and a pair of strides."""
    if not channels or any(count < 1 for count in channels):
        raise InputError(f"{who}: channels must be one positive number per block, got {tuple(channels)}")
    if len(strides) != len(channels):
        raise InputError(f"{who}: strides must have one pair per block ({len(channels)}), got {len(strides)}")
    for pair in strides:
        check_axes(who, pair, 2, "each entry of strides")


def check_stages(who: str, strides: Sequence[Sequence[float]], channels: Sequence[int]) -> None:
    """Raise unless there are channels for four stages, and strides for all of them or for all but the first."""
    if len(channels) != N_STAGES or any(count < 1 for count in channels):
        raise InputError(
            f"{who}: channels must be {N_STAGES} positive numbers, one per stage, got {tuple(channels)}; "
            "ResNet-18 has 64, 128, 256 and 512"
        )
    if len(strides) not in (N_STAGES - 1, N_STAGES):
        raise InputError(
            f"{who}: strides must have {N_STAGES - 1} pairs (stages 2 to {N_STAGES}) or {N_STAGES} (all stages), "
            f"got {len(strides)}: {tuple(strides)}; ResNet-18 has (2, 2) in stages 2 to {N_STAGES}"
        )
    for pair in strides:
        check_axes(who, pair, 2, "each entry of strides")


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(PoolingConfig):
    """Settings of an `AudioClassifier`; by default the paper's network (Riad et al. 2022, section 3.1).

    How it pools is described with `PoolingConfig`.

    Raises:
        InputError: A value of another type or out of its range, a task without two different class names.
    """

    tasks: dict[str, list[str]]
    """Class names of each task, in the order of the logits."""
    encoder: EncoderKind = "separable"
    """The network: the paper's separable convolutions, or a ResNet-18, after or before whose convolutions norms are."""
    channels: Sequence[Count] | None = None
    """Channels of each block, of a ResNet of each stage, at width 1. None becomes the encoder's own."""
    width: Positive = 1.0
    """Factor on the channels."""
    head_pooling: HeadPooling | None = None
    """What heads see of a channel's map: its maximum, its mean, or both; None: the maximum, with a ResNet the mean."""
    input_norm: InputNorm = "all"
    """Whether the batch norm of spectrograms has one mean and variance for all mel bands, or one for each band."""
    sample_rate: Count = 16000
    """Of the waveform, in Hz."""
    window_s: Positive = 1.0
    """Length of the excerpts and windows that the model is meant for, in seconds."""
    n_mels: Count = 64
    """Mel bands."""
    fmin_hz: NotNegative = 60.0
    """Lower edge of the first mel band."""
    fmax_hz: Positive = 7800.0
    """Upper edge of the last mel band."""
    win_length: Count = 400
    """Analysis window in samples (25 ms)."""
    hop_length: Count = 160
    """Hop between frames in samples (10 ms)."""
    n_fft: Count = 512
    """Length of the FFT in samples."""

    def __post_init__(self) -> None:
        who = "ClassifierConfig"
        if isinstance(self.tasks, Mapping):  # classes may have numbers for names
            named = {
                task: list(map(str, names)) if isinstance(names, list | tuple) else names
                for task, names in self.tasks.items()
            }
            object.__setattr__(self, "tasks", named)
        super().__post_init__()
        if not self.tasks:
            raise InputError(
                f"{who}: tasks must name at least one task, got {{}}; e.g. tasks={{'pitch': ['60', '61']}}"
            )
        for task, names in self.tasks.items():
            if len(set(names)) < max(2, len(names)):
                raise InputError(f"{who}: task {task!r} must have two or more different class names, got {names}")
            for name in (task, *names):
                if name != name.encode(errors="replace").decode():
                    raise InputError(f"{who}: names in tasks must be UTF-8, got {name!a}")
        if not self.window_s * self.sample_rate >= 1:
            raise InputError(
                f"{who}: window_s must hold one sample or more at {self.sample_rate} Hz, got {self.window_s}"
            )
        strides, channels = fill_encoder(self.encoder, self.strides, self.channels)
        n_samples = self.window_s * self.sample_rate
        for name, value, most in (
            ("window_s x sample_rate", n_samples, MAX_SAMPLES),
            ("window_s x sample_rate / hop_length x n_fft", n_samples / self.hop_length * self.n_fft, MAX_VALUES),
            ("window_s x sample_rate / hop_length x n_mels", n_samples / self.hop_length * self.n_mels, MAX_VALUES),
            ("width x channels", self.width * max(channels, default=0), MAX_CHANNELS),
            ("the number of channels", len(channels), MAX_BLOCKS),
            ("strides", max((stride for pair in strides for stride in pair), default=1), MAX_BINS),
            ("ramp_bins", self.ramp_bins or 0, MAX_BINS),
        ):
            if value > most:
                raise InputError(f"{who}: {name} must be at most {most}, got {value:g}")
        check = check_blocks if self.encoder == "separable" else check_stages
        check(who, strides, channels)
        # Plain, comparable values, whatever sequence types came in.
        object.__setattr__(self, "strides", tuple((float(t), float(m)) for t, m in strides))
        object.__setattr__(self, "channels", tuple(channels))

    def frontend_settings(self) -> dict[str, Any]:
        """The arguments of `LogMel` and `log_mel_spectrogram`."""
        names = ("sample_rate", "n_mels", "n_fft", "win_length", "hop_length", "fmin_hz", "fmax_hz")
        return {name: getattr(self, name) for name in names}

    def encoder_settings(self) -> dict[str, Any]:
        """The arguments of the encoder of this kind."""
        names = ("pooling", "strides", "channels", "width", "size", "ramp_bins", "shared_strides", "max_stride")
        settings = {name: getattr(self, name) for name in names}
        if self.encoder == "separable":
            return settings | {"pool_after": self.pool_after}
        return settings | {"pre_activation": self.encoder == "preact_resnet18"}

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
        # A setting that version 0.1.0 had: files and stopped jobs are known by a checksum of all of this.
        values = {**asdict(self), "size_multiple": 1}
        for name, before in LATER.items():  # models of before keep their checksum
            if values[name] == before:
                del values[name]
        values["strides"] = [list(pair) for pair in self.strides or ()]
        values["channels"] = list(self.channels or ())
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ClassifierConfig":
        """The inverse of `to_dict`; unknown keys are an error.

        Raises:
            InputError: A key that this version does not know, or none for the tasks.
        """
        values = dict(values)
        multiple = values.pop("size_multiple", 1)
        if multiple != 1:
            raise InputError(
                f"ClassifierConfig: size_multiple must be 1 since version 0.2.0, got {multiple!r}; use version 0.1.0"
            )
        unknown = sorted(map(str, set(values) - {entry.name for entry in fields(cls)}))
        if unknown:
            raise InputError(
                f"ClassifierConfig: keys must be known settings, got {', '.join(unknown)}; "
                "was the model saved by a newer version of audiostride?"
            )
        if "tasks" not in values:
            raise InputError("ClassifierConfig: tasks must be given, got none")
        return cls(**values)

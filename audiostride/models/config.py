"""What a classifier is made of, as plain values that are saved with its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from audiostride.checks import (
    ClipScore,
    Count,
    EncoderKind,
    Frontend,
    HeadPooling,
    InputNorm,
    NotNegative,
    Positive,
    check_axes,
    check_choice,
)
from audiostride.errors import InputError
from audiostride.models.packages import PACKAGES, check_network_name, package_of
from audiostride.strides.pooling_config import PoolingConfig
from audiostride.wording import settings_html

BACKGROUND = "background"  # the class of clips of ``audiostride train --background``
PAPER_CHANNELS = (64, 128, 256, 256, 512, 512)
PAPER_STRIDES = ((2.0, 2.0), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0))
# ResNet-18 (He et al. 2016): four stages, of which the last three begin with a stride.
N_STAGES = 4
# What no network for sound comes near, and what would take gigabytes or hours before it fails.
MAX_SAMPLES, MAX_VALUES = 2**28, 2**26  # of a window and of its spectrograms: 1 GiB and 256 MiB in float32
MAX_CHANNELS, MAX_BLOCKS, MAX_BINS = 2**16, 1000, 2**28
RESNET_CHANNELS = (64, 128, 256, 512)
RESNET_STRIDES = ((2.0, 2.0), (2.0, 2.0), (2.0, 2.0))
# BC-ResNet-1 (Kim et al. 2021, Table 1): its four stages, and the strides of its stem and of stages 2 and 3.
BCRESNET_CHANNELS = (8, 12, 16, 20)
BCRESNET_STRIDES = ((1.0, 2.0), (1.0, 2.0), (1.0, 2.0))

ENCODER_CHANNELS: dict[str, tuple[int, ...]] = {
    "separable": PAPER_CHANNELS,
    "resnet18": RESNET_CHANNELS,
    "preact_resnet18": RESNET_CHANNELS,
    "bcresnet": BCRESNET_CHANNELS,
}
ENCODER_STRIDES: dict[str, tuple[tuple[float, float], ...]] = {
    "separable": PAPER_STRIDES,
    "resnet18": RESNET_STRIDES,
    "preact_resnet18": RESNET_STRIDES,
    "bcresnet": BCRESNET_STRIDES,
}


# Settings that came after version 0.3.0; models of before have these values, which are not written.
LATER: dict[str, Any] = {
    "head_pooling": None,
    "input_norm": "all",
    "frontend": "log-mel",
    "multi_label": (),
    "background_class": None,
    "clip_score": "mean",
}


def fill_encoder(
    who: str, encoder: str, strides: Sequence[Sequence[float]] | None, channels: Sequence[int] | None
) -> tuple[Sequence[Sequence[float]] | None, Sequence[int] | None]:
    """Strides and channels as given, those of the encoder itself in place of None; another package's keep None.

    Raises:
        InputError: There is no such encoder, or its package is missing.

    >>> fill_encoder("train", "resnet18", None, (8, 8, 16, 16))
    (((2.0, 2.0), (2.0, 2.0), (2.0, 2.0)), (8, 8, 16, 16))
    """
    if package_of(encoder) is not None:
        check_network_name(who, encoder)
    else:
        check_choice(who, "encoder", encoder, (*get_args(EncoderKind), *(f"{package}:NAME" for package in PACKAGES)))
    filled = ENCODER_STRIDES.get(encoder) if strides is None else strides
    return filled, ENCODER_CHANNELS.get(encoder) if channels is None else channels


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


def check_broadcasted(who: str, strides: Sequence[Sequence[float]], channels: Sequence[int]) -> None:
    """Raise unless there are channels for four stages, and strides for the three places where a BC-ResNet pools."""
    if len(channels) != N_STAGES or any(count < 1 for count in channels):
        raise InputError(
            f"{who}: channels must be {N_STAGES} positive numbers, one per stage, got {tuple(channels)}; "
            "BC-ResNet-1 has 8, 12, 16 and 20"
        )
    if len(strides) != len(BCRESNET_STRIDES):
        raise InputError(
            f"{who}: strides must have {len(BCRESNET_STRIDES)} pairs (stem, stages 2 and 3), got {len(strides)}: "
            f"{tuple(strides)}; BC-ResNet has (1, 2) in each"
        )
    for pair in strides:
        check_axes(who, pair, 2, "each entry of strides")


CHECKS = {
    "separable": check_blocks,
    "resnet18": check_stages,
    "preact_resnet18": check_stages,
    "bcresnet": check_broadcasted,
}


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(PoolingConfig):
    """Settings of an `AudioClassifier`; by default the paper's network (Riad et al. 2022, section 3.1).

    How it pools is described with `PoolingConfig`.

    Raises:
        InputError: A value of another type or out of its range, a task without two different class names.
    """

    tasks: dict[str, list[str]]
    """Class names of each task, in the order of the logits."""
    multi_label: Sequence[str] = ()
    """Tasks whose clips have any number of classes: a logit is then that of a class alone, of a sigmoid."""
    clip_score: ClipScore = "mean"
    """What the logits of a recording are of those of its windows: the mean, the highest, or the mean of the three
    highest, for each class."""
    background_class: str | None = None
    """The class, of tasks that have it, that is no sound of interest: predictions do not report it."""
    encoder: str = "separable"
    """The network: the paper's separable convolutions; a ResNet-18, after or before whose convolutions norms are; a
    BC-ResNet; or another package's, ``timm:NAME`` or ``torchvision:NAME``."""
    channels: Sequence[Count] | None = None
    """Channels of each block, of a ResNet of each stage, at width 1. None becomes the encoder's own; networks of other
    packages have theirs."""
    width: Positive = 1.0
    """Factor on the channels, of a BC-ResNet the paper's tau; 1 for networks of other packages."""
    head_pooling: HeadPooling | None = None
    """What heads see of a channel's map: its maximum, its mean, or both; None is the maximum, with ResNets the mean.
    Networks of other packages pool their maps themselves."""
    input_norm: InputNorm = "all"
    """Whether the batch norm of spectrograms has one mean and variance for all mel bands, or one for each band."""
    frontend: Frontend = "log-mel"
    """Log-mel spectrograms, or these with per-channel energy normalisation (PCEN), fixed or learned for each band."""
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
        if unknown := [task for task in self.multi_label if task not in self.tasks]:
            raise InputError(
                f"{who}: multi_label must name tasks ({', '.join(self.tasks)}), got {', '.join(map(repr, unknown))}"
            )
        object.__setattr__(self, "multi_label", tuple(task for task in self.tasks if task in self.multi_label))
        if not self.window_s * self.sample_rate >= 1:
            raise InputError(
                f"{who}: window_s must hold one sample or more at {self.sample_rate} Hz, got {self.window_s}"
            )
        strides, channels = fill_encoder(who, self.encoder, self.strides, self.channels)
        n_samples = self.window_s * self.sample_rate
        for name, value, most in (
            ("window_s x sample_rate", n_samples, MAX_SAMPLES),
            ("window_s x sample_rate / hop_length x n_fft", n_samples / self.hop_length * self.n_fft, MAX_VALUES),
            ("window_s x sample_rate / hop_length x n_mels", n_samples / self.hop_length * self.n_mels, MAX_VALUES),
            ("width x channels", self.width * max(channels or (), default=0), MAX_CHANNELS),
            ("the number of channels", len(channels or ()), MAX_BLOCKS),
            ("strides", max((stride for pair in strides or () for stride in pair), default=1), MAX_BINS),
            ("ramp_bins", self.ramp_bins or 0, MAX_BINS),
        ):
            if value > most:
                raise InputError(f"{who}: {name} must be at most {most}, got {value:g}")
        if package_of(self.encoder) is not None:
            self._check_package()
        elif strides is not None and channels is not None:
            CHECKS[self.encoder](who, strides, channels)
        # Plain, comparable values, whatever sequence types came in.
        object.__setattr__(
            self, "strides", None if strides is None else tuple((float(t), float(m)) for t, m in strides)
        )
        object.__setattr__(self, "channels", None if channels is None else tuple(channels))

    def _check_package(self) -> None:
        """Raise where a setting would have no effect on a network of another package."""
        for name, own, value in (
            ("channels", None, self.channels),
            ("width", 1.0, self.width),
            ("pool_after", "convolution", self.pool_after),
        ):
            if value != own:
                raise InputError(
                    f"ClassifierConfig: {name} must be left out with encoder {self.encoder}, which has channels and "
                    f"layers of its own, got {value}; choose a smaller network for a smaller width"
                )
        for pair in self.strides or ():
            check_axes("ClassifierConfig", pair, 2, "each entry of strides")

    def frontend_settings(self) -> dict[str, Any]:
        """The arguments of `LogMel` and `log_mel_spectrogram`."""
        names = ("sample_rate", "n_mels", "n_fft", "win_length", "hop_length", "fmin_hz", "fmax_hz")
        return {name: getattr(self, name) for name in names}

    def encoder_settings(self) -> dict[str, Any]:
        """The arguments of the encoder of this kind."""
        names = ("pooling", "strides", "channels", "width", "size", "ramp_bins", "shared_strides", "max_stride")
        settings = {name: getattr(self, name) for name in names}
        if package_of(self.encoder) is not None:
            del settings["channels"], settings["width"]
            return settings | {"name": self.encoder, "n_frames": self.window_frames, "n_mels": self.n_mels}
        own: dict[str, dict[str, Any]] = {
            "separable": {"pool_after": self.pool_after},
            "resnet18": {"pre_activation": False},
            "preact_resnet18": {"pre_activation": True},
        }
        return settings | own.get(self.encoder, {})

    @property
    def window_samples(self) -> int:
        """Samples of one window."""
        return round(self.window_s * self.sample_rate)

    @property
    def window_frames(self) -> int:
        """Frames of the log-mel spectrogram of one window."""
        return -(-self.window_samples // self.hop_length)

    def _repr_html_(self) -> str:
        return settings_html(self)

    def to_dict(self) -> dict[str, Any]:
        """The settings as values that JSON and YAML know."""
        # A setting that version 0.1.0 had: files and stopped jobs are known by a checksum of all of this.
        values = {**asdict(self), "size_multiple": 1}
        for name, before in LATER.items():  # models of before keep their checksum
            if values[name] == before:
                del values[name]
        if "multi_label" in values:
            values["multi_label"] = list(self.multi_label)
        values["strides"] = None if self.strides is None else [list(pair) for pair in self.strides]
        values["channels"] = None if self.channels is None else list(self.channels)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ClassifierConfig":
        """The inverse of `to_dict`, from its `values`; unknown keys are an error.

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

"""What a classifier is made of, as plain values that are saved with its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from audiostride.checks import ClipScore, Count, Frontend, HeadPooling, InputNorm, NotNegative, Positive, check_axes
from audiostride.errors import InputError
from audiostride.models.encoder_kinds import CHECKS, fill_encoder
from audiostride.models.packages import package_of
from audiostride.strides.pooling_config import PoolingConfig
from audiostride.wording import settings_html

BACKGROUND = "background"  # the class of clips of ``audiostride train --background``
# What no network for sound comes near, and what would take gigabytes or hours before it fails.
MAX_SAMPLES, MAX_VALUES = 2**28, 2**26  # of a window and of its spectrograms: 1 GiB and 256 MiB in float32
MAX_CHANNELS, MAX_BLOCKS, MAX_BINS = 2**16, 1000, 2**28
# Settings that came after version 0.3.0; models of before have these values, which are not written.
LATER: dict[str, Any] = {
    "head_pooling": None,
    "input_norm": "all",
    "frontend": "log-mel",
    "multi_label": (),
    "background_class": None,
    "clip_score": "mean",
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

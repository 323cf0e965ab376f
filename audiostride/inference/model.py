"""What inference asks of a model; it imports nothing of `audiostride.models`, so that models may hand over to it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, device

from audiostride.checks import ClipScore


class ModelSettings(Protocol):
    """What a model classifies, and in which windows."""

    @property
    def tasks(self) -> Mapping[str, Sequence[str]]:
        """Class names of each task."""

    @property
    def multi_label(self) -> Sequence[str]:
        """Tasks whose clips have any number of classes."""

    @property
    def clip_score(self) -> ClipScore:
        """What the logits of a recording are of those of its windows."""

    @property
    def background_class(self) -> str | None:
        """The class that is not reported, if there is one."""

    @property
    def sample_rate(self) -> int:
        """In Hz."""

    @property
    def window_s(self) -> float:
        """Length of a window in seconds."""

    @property
    def window_samples(self) -> int:
        """Length of a window in samples."""

    @property
    def fmin_hz(self) -> float:
        """Lowest frequency that the model sees."""

    @property
    def fmax_hz(self) -> float:
        """Highest frequency that the model sees."""


class Model(Protocol):
    """A classifier of windows, such as `audiostride.AudioClassifier`."""

    @property
    def config(self) -> ModelSettings:
        """Its settings."""

    def freeze(self) -> Callable[[Tensor], Mapping[str, Tensor]]:
        """The network for evaluation: windows ``(B, samples)`` in, logits ``(B, classes)`` of each task out."""

    def parameters(self) -> Iterator[Tensor]:
        """Its weights, which say where it runs."""

    def to(self, device: device) -> Any:
        """Move it to a device."""

    def checksum(self) -> str:
        """What tells it from other models."""

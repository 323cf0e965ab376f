"""Features in the place of logits: a classifier without its heads, for the engine that predicts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, device

from audiostride.checks import ClipScore


@dataclass(frozen=True)
class FeatureSettings:
    """The `ModelSettings` of an `Embedder`."""

    tasks: Mapping[str, Sequence[str]]
    """The names of the features, as of classes of one task."""
    sample_rate: int
    window_s: float
    window_samples: int
    fmin_hz: float
    fmax_hz: float
    multi_label: Sequence[str] = ()
    background_class: str | None = None
    clip_score: ClipScore = "mean"


class Embedder:
    """The `Model` that finds what the heads of a classifier see: one feature or two per channel of its last map.

    Args:
        model: The classifier, an `audiostride.AudioClassifier`.
    """

    def __init__(self, model: Any) -> None:
        self._model, config = model, model.config
        self.config = FeatureSettings(
            {"features": [f"e{number:04d}" for number in range(model.n_features)]},
            sample_rate=config.sample_rate,
            window_s=config.window_s,
            window_samples=config.window_samples,
            fmin_hz=config.fmin_hz,
            fmax_hz=config.fmax_hz,
        )

    def freeze(self) -> Callable[[Tensor], Mapping[str, Tensor]]:
        frozen = self._model.freeze()
        return lambda windows: {"features": frozen.features(windows)}

    def parameters(self) -> Iterator[Tensor]:
        weights: Iterator[Tensor] = self._model.parameters()
        return weights

    def to(self, device: device) -> Any:
        return self._model.to(device)

    def checksum(self) -> str:
        return str(self._model.checksum())

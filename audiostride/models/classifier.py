"""The classifier: frontend, encoder, global pooling and one linear head per task."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from audiostride.audio.log_mel import LogMel
from audiostride.audio.pcen import PCEN
from audiostride.checks import HeadPooling
from audiostride.errors import InputError
from audiostride.models.bcresnet import BCResNetEncoder
from audiostride.models.config import ClassifierConfig
from audiostride.models.encoder import Encoder
from audiostride.models.foreign import ForeignEncoder
from audiostride.models.packages import package_of
from audiostride.models.pooled import PooledEncoder
from audiostride.models.resnet import ResNetEncoder
from audiostride.wording import html_table, name_some

if TYPE_CHECKING:
    import pandas as pd

ENCODERS: dict[str, type[PooledEncoder]] = {
    "separable": Encoder,
    "resnet18": ResNetEncoder,
    "preact_resnet18": ResNetEncoder,
    "bcresnet": BCResNetEncoder,
}


@dataclass(frozen=True)
class Thresholds:
    """From which probability on classes are given: what ``audiostride predict --threshold auto`` takes."""

    tasks: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of the classes of each task; a class that is not there has 0.5."""
    rule: str = ""
    """How they were chosen."""


class AudioClassifier(nn.Module):
    """Waveform in, logits of every task out.

    A head sees one feature per channel of the encoder's last map: its maximum, as in the paper, or its mean, or both.

    Args:
        config: See `ClassifierConfig`.

    Shape:
        waveform: ``(B, samples)`` at ``config.sample_rate``, in [-1, 1]. Result: a dict with ``(B, classes)`` per task.

    Raises:
        InputError: A waveform that is not of shape ``(B, samples)``.

    >>> import torch
    >>> model = AudioClassifier(ClassifierConfig(tasks={"word": ["no", "yes"]}, width=0.125))
    >>> {task: logits.shape for task, logits in model(torch.zeros(3, 16000)).items()}
    {'word': torch.Size([3, 2])}
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.frontend = LogMel(**config.frontend_settings())
        self.pcen: PCEN | None = None
        if config.frontend != "log-mel":
            self.pcen = PCEN(
                n_mels=config.n_mels,
                frame_rate_hz=config.sample_rate / config.hop_length,
                learned=config.frontend == "learned-pcen",
            )
        # Log-mel values reach from -14 to 6: without a norm in front, the first convolution's zero padding, which is
        # loud on that scale, and its offset would have to be unlearned first.
        self.input_norm = nn.BatchNorm2d(1 if config.input_norm == "all" else config.n_mels)
        build = ForeignEncoder if package_of(config.encoder) is not None else ENCODERS[config.encoder]
        self.encoder: PooledEncoder = build(**config.encoder_settings())
        self.encoder.expect_sizes(config.window_frames, config.n_mels)
        both = config.head_pooling == "both" and package_of(config.encoder) is None
        self.n_features = self.encoder.out_channels * (2 if both else 1)
        self.thresholds = Thresholds()
        self.heads = nn.ModuleList(nn.Linear(self.n_features, len(names)) for names in config.tasks.values())

    def extra_repr(self) -> str:
        config = self.config
        tasks = ", ".join(f"{task} ({len(names)} classes{', several per clip' * (task in config.multi_label)})"
                          for task, names in config.tasks.items())  # fmt: skip
        size = f" {config.size}" if config.pooling == "diffstride" else ""
        kind = "" if config.encoder == "separable" else f"{config.encoder}, "
        return f"{tasks}; {kind}{config.pooling}{size}, width {config.width:g}, windows of {config.window_s:g} s"

    def _repr_html_(self) -> str:
        """What notebooks show."""
        config, sizes = self.config, self.encoder.map_sizes(self.config.window_frames, self.config.n_mels)
        rows: list[tuple[str, object]] = [
            (task, f"{len(names)} classes: {name_some(names)}") for task, names in config.tasks.items()
        ]
        rows += [
            ("hears", f"{config.window_s:g} s at {config.sample_rate:,} Hz, {config.n_mels} mel bands from "
             f"{config.fmin_hz:g} to {config.fmax_hz:g} Hz"),
            ("network", f"{config.encoder}, {config.pooling}, width {config.width:g}"),
            ("parameters", f"{sum(parameter.numel() for parameter in self.parameters()):,}"),
            ("maps, frames x mel bands", ", ".join(f"{frames} x {mels}" for frames, mels in sizes)),
        ]  # fmt: skip
        return html_table(type(self).__name__, rows)

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        if waveform.ndim != 2:
            raise InputError(
                f"AudioClassifier: waveform must have shape (B, samples), got {tuple(waveform.shape)}; "
                "add a batch axis with .unsqueeze(0)"
            )
        return self.classify_spectrogram(self.frontend(waveform))

    def classify_spectrogram(self, spectrogram: Tensor) -> dict[str, Tensor]:
        """Logits of every task from a log-mel spectrogram of shape ``(B, T, M)``."""
        features = self._spectrogram_features(spectrogram)
        return {task: head(features) for task, head in zip(self.config.tasks, self.heads, strict=True)}

    def _spectrogram_features(self, spectrogram: Tensor) -> Tensor:
        return self.pool(self.encoder(self.normalise(spectrogram)))

    @property
    def head_pooling(self) -> HeadPooling:
        """What heads see of each channel of the last maps: ``"max"``, ``"mean"`` or ``"both"``."""
        return self.config.head_pooling or self.encoder.head_pooling

    def features(self, waveform: Tensor) -> Tensor:
        """What the heads see of a `waveform`: ``(B, samples)`` to ``(B, features)``."""
        return self._spectrogram_features(self.frontend(waveform))

    def normalise(self, spectrogram: Tensor) -> Tensor:
        """What the encoder gets, ``(B, 1, T, M)``, from a log-mel spectrogram of shape ``(B, T, M)``."""
        if self.pcen is not None:
            spectrogram = self.pcen(spectrogram)
        if self.config.input_norm == "all":
            normed: Tensor = self.input_norm(spectrogram.unsqueeze(1))
            return normed
        normed = self.input_norm(spectrogram.transpose(1, 2).unsqueeze(-1))  # bands are its channels
        return normed.squeeze(-1).transpose(1, 2).unsqueeze(1)

    def pool(self, maps: Tensor) -> Tensor:
        """What heads see of the encoder's last maps: ``(B, C, T, M)``, or ``(B, C)``, to ``(B, features)``."""
        if maps.ndim == 2:  # a network of another package has pooled them
            return maps
        kind = self.head_pooling
        parts = [maps.amax(dim=(-2, -1))] if kind != "mean" else []
        if kind != "max":
            parts.append(maps.mean(dim=(-2, -1)))
        return torch.cat(parts, dim=1)

    def predict(
        self,
        paths_or_arrays: Any,
        *,
        sample_rate: int | None = None,
        per_clip: bool = False,
        per_window: bool = False,
        events: bool = False,
        hop_s: float | None = None,
        threshold: float | str | None = None,
        merge_gap_s: float | None = None,
        min_windows: int | None = None,
        classes: Sequence[str] | None = None,
        background: Sequence[str] | None = None,
        top: int | None = None,
        min_score: float | None = None,
        all_scores: bool = False,
        date_time: bool = False,
        batch_size: int | None = None,
        workers: int | None = None,
        on_error: str = "stop",
        progress: bool = False,
    ) -> "pd.DataFrame":
        """What ``audiostride predict`` writes, as a table: the classes of recordings of any length.

        The model runs frozen and in evaluation mode, where its parameters are; it is not changed.

        Args:
            paths_or_arrays: Audio files, folders of them, patterns, manifests (.csv), stores, arrays or tensors of
                samples (1-D, float, in [-1, 1]); one or a sequence of them.
            sample_rate: Of arrays, in Hz; they are resampled to the model's where it differs.
            per_clip: Rows for each recording, of the mean over its windows.
            per_window: Rows for each window: the default.
            events: One row per event, see `audiostride.inference.granularity.EventResult`.
            hop_s: From one window to the next, in seconds, at most the window; None is the window.
            threshold: Least probability of an event, in [0, 1], and of a class where clips have several; ``"auto"``
                takes `thresholds`; None is 0.5.
            merge_gap_s: Events of a class at most so many seconds apart are one; None is 0.
            min_windows: Windows in a row that an event needs; None is 1.
            classes: The only ones that have rows and events; None are all.
            background: Classes without rows and events: where one of them is the most probable, there is none.
            top: Rows for so many of the most probable classes of each window or recording; None is 1, or all of at
                least the threshold where clips may have several.
            min_score: Least probability of a row.
            all_scores: One row per window or recording, with a column for each class in place of ``label`` and
                ``score``, called ``task:class`` where there are several tasks.
            date_time: Columns ``date`` and ``time`` of the start, empty where the name of a file does not say when it
                was recorded (``YYYYMMDD_HHMMSS``).
            batch_size: Windows at a time; None is 16 on a CPU and 256 on a GPU.
            workers: Threads that read audio; None is one for each processor, 8 at most.
            on_error: ``"stop"``, or ``"skip"`` to leave out what cannot be read, with a warning; paths and reasons are
                then in ``.attrs["errors"]``.
            progress: Whether a progress bar is shown.

        Returns:
            Rows ``path, start_s, end_s, label, score`` in the order of what was given, with ``task`` in front of
            ``label`` where there are several tasks. Seconds count from the start of the file; score is the probability
            of the label. Arrays are called ``array 0`` and so on.

        Raises:
            InputError: A setting out of its range; a path that does not exist; audio that cannot be read; arrays that
                are not 1-D and float, or without a rate.
        """
        # Needs pandas and readers of audio, which the layers and the model itself do not.
        from audiostride.inference.settings import PredictionSettings
        from audiostride.inference.table import predict_table

        settings = PredictionSettings.choose(
            per_clip=per_clip,
            per_window=per_window,
            events=events,
            hop_s=hop_s,
            threshold=threshold,
            thresholds=self.thresholds.tasks,
            merge_gap_s=merge_gap_s,
            min_windows=min_windows,
            classes=classes,
            background=background,
            top=top,
            min_score=min_score,
            all_scores=all_scores,
            date_time=date_time,
        )
        return predict_table(
            self,
            paths_or_arrays,
            settings,
            sample_rate=sample_rate,
            batch_size=batch_size,
            workers=workers,
            on_error=on_error,
            progress=progress,
        )

    def embed(
        self,
        paths_or_arrays: Any,
        *,
        sample_rate: int | None = None,
        hop_s: float | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        on_error: str = "stop",
        progress: bool = False,
    ) -> "pd.DataFrame":
        """What ``audiostride embed`` writes, as a table: `features` of each window of recordings of any length.

        Args:
            paths_or_arrays, sample_rate, hop_s, batch_size, workers, on_error, progress: As for `predict`.

        Returns:
            Rows ``path, start_s, end_s, e0000, e0001, …``, the features in float32: ``table.loc[:, "e0000":]`` is what
            scikit-learn takes.

        Raises:
            InputError: As `predict`.
        """
        # As in `predict`.
        from audiostride.inference.embedding import Embedder
        from audiostride.inference.settings import PredictionSettings
        from audiostride.inference.table import predict_table

        settings = PredictionSettings(granularity="features", hop_s=hop_s)
        try:
            return predict_table(
                Embedder(self),
                paths_or_arrays,
                settings,
                sample_rate=sample_rate,
                batch_size=batch_size,
                workers=workers,
                on_error=on_error,
                progress=progress,
            )
        except InputError as error:
            raise InputError(settings.say(str(error))) from error

    def scale_logits_(self, task: str, factor: float) -> None:
        """Multiply the logits of a `task` by a `factor`, in its head: probabilities change, and no order of classes."""
        with torch.no_grad():
            for parameter in self.heads[list(self.config.tasks).index(task)].parameters():
                parameter.mul_(factor)

    def freeze(self) -> "AudioClassifier":
        """A copy for evaluation whose strides are fixed: no parameters in its poolings, which suit windows only.

        It takes excerpts of ``config.window_samples`` samples, runs faster, and can be exported.
        """
        frozen = copy.deepcopy(self).eval()
        frozen.encoder.freeze_(self.config.window_frames, self.config.n_mels)
        return frozen

    def project_strides_(self) -> None:
        """Limit the learned strides to what the windows of this model allow; call it after each optimizer step."""
        self.encoder.project_strides_(self.config.window_frames, self.config.n_mels)

    def checksum(self) -> str:
        """What tells this model from others, see `model_checksum`."""
        return model_checksum(self.config.to_dict(), self.state_dict())


def model_checksum(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """A checksum of a configuration, class names included, and of weights."""
    found = hashlib.blake2b(json.dumps(config, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()

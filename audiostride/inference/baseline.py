"""What a classifier has to beat: the majority class, and statistics of log-mel bands with a support vector machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from audiostride.audio.log_mel import log_mel_spectrogram
from audiostride.dataset.readers import AudioReader
from audiostride.inference.multi_label import LabelScores, constant_metrics, macro_metrics

MAX_MACHINE_CLIPS = 50_000  # training clips x classes, where each class has a machine of its own


@dataclass(frozen=True)
class Baselines:
    """Test accuracy of two references that need no network; macro average precision where clips have several labels."""

    majority: float | None
    """Always answering the most frequent class of the training clips, or the shares that classes have among them."""
    classic: float | None
    """RBF support vector machine on log-mel statistics, one for each class where clips have several labels; None where
    it was not computed."""
    others: dict[str, float | None] = field(default_factory=dict)
    """ROC AUC and F1 of both where clips have several labels, as ``baseline_<which>_<metric>``."""


def log_mel_statistics(
    reader: AudioReader, *, frontend: Mapping[str, Any] | None = None, max_s: float = 10.0
) -> NDArray[np.float32]:
    """Statistics over time, per clip, of the log-mel bands and of their cepstrum.

    Mean, standard deviation and standard deviation of the change from frame to frame of the bands; the same with
    maximum and minimum of the first 40 coefficients of the cosine transform over mel (which separate pitch from
    timbre).

    Args:
        reader: The clips.
        frontend: Settings of `log_mel_spectrogram`, at the sample rate of the reader; None are the defaults.
        max_s: Only the first seconds of a clip count, so that long recordings do not fill the memory.

    Shape:
        Result: ``(clips, 3 * n_mels + 5 * 40)``, with fewer than 40 bands 5 times their number.
    """
    rows = []
    for index in range(len(reader)):
        samples = reader.read(index, 0, int(min(reader.n_samples[index], max_s * reader.sample_rate)))
        bands = log_mel_spectrogram(torch.from_numpy(samples), **(frontend or {})).numpy()  # (T, M)
        cepstrum = dct(bands, axis=1, norm="ortho")[:, :40]
        parts = [cepstrum.max(axis=0), cepstrum.min(axis=0)]
        for series in (bands, cepstrum):
            change = np.diff(series, axis=0, prepend=series[:1])  # a clip of one frame changes by nothing
            parts += [series.mean(axis=0), series.std(axis=0), change.std(axis=0)]
        rows.append(np.concatenate(parts))
    return np.stack(rows)


def baseline_accuracies(
    train: AudioReader,
    train_classes: NDArray[np.int64],
    test: AudioReader,
    test_classes: NDArray[np.int64],
    *,
    frontend: Mapping[str, Any] | None = None,
    max_train_clips: int = 5000,
) -> Baselines:
    """Accuracy of the majority class and of a classic classifier, for the reader to compare a network with.

    Args:
        train, test: Clips.
        train_classes, test_classes: Their classes, ``(clips,)``, or of several ones ``(clips, classes)``.
        frontend: As for `log_mel_statistics`.
        max_train_clips: Beyond this number the support vector machine, whose time grows with its square, is left out.
    """
    if train_classes.ndim == 2:
        return _label_baselines(
            train, train_classes, test, test_classes, frontend=frontend, max_train_clips=max_train_clips
        )
    majority = float((test_classes == np.bincount(train_classes).argmax()).mean())
    if len(train) > max_train_clips:
        return Baselines(majority, None)
    machine = _make_machine()
    machine.fit(log_mel_statistics(train, frontend=frontend), train_classes)
    found = machine.predict(log_mel_statistics(test, frontend=frontend))
    return Baselines(majority, float((found == test_classes).mean()))


def _make_machine() -> Pipeline:
    return make_pipeline(StandardScaler(), SVC(C=10.0))


def _label_baselines(
    train: AudioReader,
    train_labels: NDArray[np.int64],
    test: AudioReader,
    test_labels: NDArray[np.int64],
    *,
    frontend: Mapping[str, Any] | None,
    max_train_clips: int,
) -> Baselines:
    """As `baseline_accuracies` of clips with several labels."""
    found: dict[str, Mapping[str, float | None]] = {
        "majority": constant_metrics(train_labels.mean(axis=0), test_labels)
    }
    if len(train) <= max_train_clips and train_labels.size <= MAX_MACHINE_CLIPS:
        seen, heard = (log_mel_statistics(reader, frontend=frontend) for reader in (train, test))
        scores = np.zeros(test_labels.shape)
        for index, labels in enumerate(train_labels.T):
            if 0 < labels.sum() < len(labels):
                scores[:, index] = _make_machine().fit(seen, labels).decision_function(heard)
            else:  # a class that all clips have, or none
                scores[:, index] = 2 * labels[0] - 1
        found["classic"] = macro_metrics(LabelScores(scores, test_labels, scores >= 0).measure())
    others = {f"baseline_{which}_{name}": value for which, values in found.items() for name, value in values.items()
              if name != "average_precision"}  # fmt: skip
    return Baselines(
        majority=found["majority"]["average_precision"],
        classic=found.get("classic", {}).get("average_precision"),
        others=others,
    )

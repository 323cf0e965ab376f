"""Spectrograms of clips as small pictures, as the model sees them."""

import io
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from audiostride.audio.log_mel import log_mel_spectrogram
from audiostride.audio.resampling import read_audio
from audiostride.dataset.manifest import inspect_manifest
from audiostride.dataset.readers import StoreReader
from audiostride.dataset.store import is_store
from audiostride.errors import InputError
from audiostride.models.config import ClassifierConfig

LONGEST_S = 10.0  # of a clip that is shown
RANGE = 10.0  # from the darkest to the brightest value of a picture, in nepers of power: 43 dB


def read_samples_of(row: "pd.Series[Any]", manifest: str, *, sample_rate: int) -> NDArray[np.float32] | None:
    """The samples of a clip, its first seconds at most, from its file or its store; None where neither can be read.

    Args:
        row: ``path``, ``start_s``, ``duration_s`` and ``line`` of the clip.
        manifest: The manifest or store that it comes from.
        sample_rate: In Hz.
    """
    duration_s = float(str(row["duration_s"]))
    duration_s = min(LONGEST_S, duration_s) if duration_s == duration_s else LONGEST_S
    try:
        if is_store(manifest):
            clips, _ = inspect_manifest(manifest)
            reader = StoreReader(clips[clips["line"] == row["line"]], sample_rate=sample_rate)
            return reader.read(0, 0, int(min(reader.n_samples[0], duration_s * sample_rate)))
        return read_audio(
            str(row["path"]), start_s=float(str(row["start_s"])), duration_s=duration_s, sample_rate=sample_rate
        )
    except (InputError, OSError, IndexError, KeyError):
        return None


def draw_spectrogram(samples: NDArray[np.float32], config: ClassifierConfig) -> bytes:
    """The log-mel spectrogram of a clip as PNG: a point per frame and band, time to the right, frequency upwards."""
    bands = log_mel_spectrogram(torch.from_numpy(samples), **config.frontend_settings()).numpy()  # (T, M)
    buffer = io.BytesIO()
    top = float(bands.max())
    matplotlib.image.imsave(
        buffer, bands.T, vmin=top - RANGE, vmax=top, cmap="magma", origin="lower", format="png", metadata={}
    )
    return buffer.getvalue()

"""Recordings and labels: manifests, audio files, the store, excerpts and windows, batches."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from audiostride.data.audio_files import find_audio_files, probe_audio, read_audio, read_samples, stream_samples
from audiostride.data.bank import AudioBank, FileBank, StoreBank, open_bank
from audiostride.data.manifest import inspect_manifest, read_clips
from audiostride.data.splits import assign_random_splits, check_training_clips, class_names, hold_out_valid
from audiostride.data.windows import cut_window, draw_excerpt_starts, tile_windows

if TYPE_CHECKING:
    from audiostride.data.batches import (
        BatchParts,
        ExcerptBatches,
        MixedBatches,
        StepSampler,
        TrainingBatches,
        WindowBatches,
        load_batches,
    )

# Checking, importing and preparing data need no torch, which takes a second and 450 MiB to load.
_LAZY = dict.fromkeys(
    (
        "BatchParts",
        "ExcerptBatches",
        "MixedBatches",
        "StepSampler",
        "TrainingBatches",
        "WindowBatches",
        "load_batches",
    ),
    "audiostride.data.batches",
)

__all__ = [
    "AudioBank",
    "BatchParts",
    "ExcerptBatches",
    "FileBank",
    "MixedBatches",
    "StepSampler",
    "StoreBank",
    "TrainingBatches",
    "WindowBatches",
    "assign_random_splits",
    "check_training_clips",
    "class_names",
    "cut_window",
    "draw_excerpt_starts",
    "find_audio_files",
    "hold_out_valid",
    "inspect_manifest",
    "load_batches",
    "open_bank",
    "probe_audio",
    "read_audio",
    "read_clips",
    "read_samples",
    "stream_samples",
    "tile_windows",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'audiostride.data' has no attribute {name!r}")

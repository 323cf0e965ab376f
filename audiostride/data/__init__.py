"""Recordings and labels: manifests, audio files, excerpts and windows, batches."""

from audiostride.data.audio_files import find_audio_files, probe_audio, read_audio
from audiostride.data.bank import AudioBank
from audiostride.data.batches import ExcerptBatches, StepSampler, WindowBatches, load_batches
from audiostride.data.manifest import assign_random_splits, check_training_clips, class_names, read_clips
from audiostride.data.windows import cut_window, draw_excerpt_start, tile_windows

__all__ = [
    "AudioBank",
    "ExcerptBatches",
    "StepSampler",
    "WindowBatches",
    "assign_random_splits",
    "check_training_clips",
    "class_names",
    "cut_window",
    "draw_excerpt_start",
    "find_audio_files",
    "load_batches",
    "probe_audio",
    "read_audio",
    "read_clips",
    "tile_windows",
]

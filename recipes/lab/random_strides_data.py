"""What a grid of starting strides learns: audio or images, and how its folder of runs is called."""

import os
from pathlib import Path

from audiostride.audio.resampling import AUDIO_SUFFIXES
from audiostride.dataset.store import is_store
from audiostride.errors import InputError
from lab.random_starts import DATA_NAMES

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
# Files of a folder that are looked at to tell audio from images: a large tree is not walked whole.
N_LOOKED_AT = 2000


def find_kind(data: str | None) -> str:
    """Whether data are ``audio`` or ``images``: a folder is what the files in it are.

    Raises:
        InputError: No data; nothing there; a folder with both or neither.
    """
    if data is None:
        raise InputError(
            f"--data must be a manifest of audio, {', '.join(DATA_NAMES)} or a folder of images, got none; "
            "or try --smoke, which makes its own tiny data"
        )
    path = Path(data)
    if data in DATA_NAMES:
        return "images"
    if path.is_file() or is_store(path):
        return "audio"
    if not path.is_dir():
        raise InputError(f"--data must be {', '.join(DATA_NAMES)}, or a file or folder that exists, got {data}")
    found: dict[str, str] = {}
    looked_at = 0
    for place, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            suffix = Path(name).suffix.lower()
            kind = "audio" if suffix in AUDIO_SUFFIXES else "images" if suffix in IMAGE_SUFFIXES else None
            looked_at += kind is not None
            if kind is not None:
                found.setdefault(kind, os.path.join(place, name))
        if len(found) > 1 or looked_at >= N_LOOKED_AT:
            break
    if len(found) > 1:
        raise InputError(
            f"--data must be a folder of audio or of images, but {data} has both, such as {found['audio']} and "
            f"{found['images']}; give a CSV manifest of the audio, or a folder with one of them"
        )
    if not found:
        raise InputError(f"--data must be a folder with audio or images in it, but {data} has neither")
    return next(iter(found))


def name_data(data: str, label: str) -> str:
    """The folder of runs on some data.

    >>> name_data("speech/manifest.csv", "label"), name_data("nsynth/store", "pitch"), name_data("cifar10", "label")
    ('speech', 'nsynth-pitch', 'cifar10')
    """
    path = Path(data).absolute()
    name = path.parent.name if path.stem in ("manifest", "store") else path.stem if path.suffix == ".csv" else path.name
    return name if label == "label" else f"{name}-{label}"

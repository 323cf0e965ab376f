"""Pictures of stripes, in folders as image data sets have them: upright, level or slanting ones are the classes."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Periods over the width and over the height of 32 pixels.
STRIPES = {"level": (0.0, 6.0), "slanting": (4.0, 4.0), "upright": (6.0, 0.0)}


def draw_stripes(rng: np.random.Generator, name: str, *, size: int) -> NDArray[np.uint8]:
    """A picture ``(size, size, 3)`` of stripes in a random colour and place, with noise."""
    across, down = STRIPES[name]
    y, x = np.mgrid[:size, :size] / 32
    wave = np.sin(2 * np.pi * (across * x + down * y + rng.uniform()))
    light = 128 + wave[:, :, None] * rng.uniform(40, 90, size=3) + rng.normal(0, 15, size=(size, size, 3))
    picture: NDArray[np.uint8] = light.clip(0, 255).astype(np.uint8)
    return picture


def make_pictures(folder: Path, counts: Mapping[str, int], *, size: int = 32, seed: int = 0) -> Path:
    """Write ``<split>/<class>/<number>.png`` for each split; whole or not at all, and a folder that stands is left.

    Args:
        folder: Where.
        counts: Pictures of each class in each split.
        size: Height and width in pixels.
        seed: Of everything random.
    """
    from PIL import Image

    if folder.is_dir():
        return folder
    rng = np.random.default_rng(seed)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    for split, count in counts.items():
        for name in STRIPES:
            (partial / split / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(draw_stripes(rng, name, size=size)).save(partial / split / name / f"{number}.png")
    partial.rename(folder)
    return folder

"""Training of image classifiers, for the paper's experiments on CIFAR and ImageNet."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from images.config import IMAGE_PRESETS, ImageTrainConfig, image_preset_settings

if TYPE_CHECKING:
    from images.run import train_images

# Lightning takes seconds to load, which help and errors need not wait for.
_LAZY = {"train_images": "images.run"}

__all__ = ["IMAGE_PRESETS", "ImageTrainConfig", "image_preset_settings", "train_images"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'images' has no attribute {name!r}")

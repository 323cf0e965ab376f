"""A trained image classifier as one file: weights, with the network's settings and the class names in its metadata."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from audiostride.errors import InputError
from audiostride.models.saving import read_model_file
from audiostride.writing import write_bytes
from images.classifier import ImageClassifier, build_image_network

FORMAT_VERSION = 1
KEY = "audiostride_images"
WHO = "load_image_classifier"


def save_image_classifier(
    model: ImageClassifier, path: str | Path, *, class_names: Sequence[str], config: dict[str, Any] | None = None
) -> None:
    """Write weights, the network's settings, class names and settings of the training to one safetensors file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    header = {
        "format": FORMAT_VERSION, "network": model.settings, "class_names": list(class_names), "config": config or {},
    }  # fmt: skip
    write_bytes(path, save(tensors, metadata={KEY: json.dumps(header)}))


def load_image_classifier(path: str | Path, *, device: str | torch.device = "cpu") -> tuple[ImageClassifier, list[str]]:
    """The trained image classifier of a run folder or of a ``model.safetensors`` file, and its class names.

    Nothing is unpickled: the file holds tensors and JSON.

    Args:
        path: A run folder or a model file.
        device: Where the model goes.

    Returns:
        The model in evaluation mode; the class names.

    Raises:
        InputError: No such file, not an image model, cut off or damaged, or written by a newer version.
    """
    file, header, tensors = _read(path)
    try:
        model, class_names = build_image_network(**header["network"]), list(header["class_names"])
    except (InputError, KeyError, TypeError) as error:
        raise InputError(f"{WHO}: the metadata of {file} must be that of an image model: {error!r}") from error
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{WHO}: the weights in {file} must fit its network: {error}") from error
    return model.to(device).eval(), class_names


def read_class_names(path: str | Path) -> list[str]:
    """The class names of a model, as `load_image_classifier` gives them, without the model."""
    _, header, _ = _read(path, weights=False)
    return list(header["class_names"])


def _read(path: str | Path, *, weights: bool = True) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    return read_model_file(WHO, path, key=KEY, kind="of image training", newest=FORMAT_VERSION, weights=weights)

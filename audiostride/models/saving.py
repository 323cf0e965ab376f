"""A trained model as one file: weights with configuration and class names in its metadata."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from audiostride.errors import InputError
from audiostride.models.classifier import AudioClassifier
from audiostride.models.config import ClassifierConfig
from audiostride.writing import write_bytes

FORMAT_VERSION = 2  # 1 had no `pool_after`: its models pool after a block


def save_classifier(model: AudioClassifier, path: str | Path) -> None:
    """Write weights, configuration and class names to one safetensors file, whole or not at all."""
    metadata = {"audiostride": json.dumps({"format": FORMAT_VERSION, "config": model.config.to_dict()})}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(path, save(tensors, metadata=metadata))


def load_classifier(path: str | Path, *, device: str | torch.device = "cpu") -> AudioClassifier:
    """The trained classifier of a run folder or of a ``model.safetensors`` file, in evaluation mode.

    Nothing is unpickled: the file holds tensors and JSON.

    Args:
        path: A run folder or a model file.
        device: Where the model goes.

    Returns:
        The model; its class names are in ``model.config.tasks``.

    Raises:
        InputError: No such file, not a model file, damaged, or written by a newer version.
    """
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"load_classifier: path must be a run folder with a model.safetensors, or such a file, got {path}; "
            "a run writes its model at its first validation"
        )
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = (stored.metadata() or {}).get("audiostride")
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"load_classifier: {file} must be a safetensors file, but reading it failed: {error}"
        ) from error
    if metadata is None:
        raise InputError(f"load_classifier: {file} must be a model saved by audiostride, but has no such metadata")
    try:
        header = json.loads(metadata)
        version, values = header["format"], header["config"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"load_classifier: the metadata of {file} must be the JSON of a model: {error!r}") from error
    if version > FORMAT_VERSION:
        raise InputError(
            f"load_classifier: {file} must have format <= {FORMAT_VERSION}, got {version}; update audiostride"
        )
    if version == 1:
        values = {"pool_after": "block", **values}
    model = AudioClassifier(ClassifierConfig.from_dict(values))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"load_classifier: the weights in {file} must fit its configuration: {error}") from error
    return model.to(device).eval()

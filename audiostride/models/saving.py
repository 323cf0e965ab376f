"""A trained model as one file: weights with configuration and class names in its metadata."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from audiostride.checks import Probability, check_table
from audiostride.errors import InputError
from audiostride.models.classifier import AudioClassifier, Thresholds, model_checksum
from audiostride.models.config import ClassifierConfig
from audiostride.writing import write_bytes

KEY = "audiostride"
FORMAT_VERSION = 2  # 1 had no `pool_after`: its models pool after a block


class StoredThresholds(TypedDict):
    """What stands in the metadata of a model file."""

    tasks: dict[str, dict[str, Probability]]
    rule: str


def save_classifier(model: AudioClassifier, path: str | Path) -> None:
    """Write weights, configuration, class names and thresholds to one safetensors file, whole or not at all.

    Args:
        model: The classifier; it is not changed.
        path: The file; one that exists is replaced.

    Raises:
        InputError: A place that cannot be written.
    """
    config = model.config.to_dict()
    # Copies: a layer that branches share stands under the names of all of them, and safetensors takes no shared memory.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    header = {"format": FORMAT_VERSION, "config": config, "checksum": model_checksum(config, tensors)}
    if model.thresholds.tasks:
        header["thresholds"] = asdict(model.thresholds)
    write_bytes(path, save(tensors, metadata={KEY: json.dumps(header)}))


def read_model_file(
    who: str, path: str | Path, *, key: str, kind: str, newest: int, weights: bool = True
) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """The file, the metadata and the tensors of a model.

    Args:
        who: Who asks, for messages.
        path: A run folder or a model file.
        key: Of the metadata.
        kind: Which models have it, for messages.
        newest: Format that is known, which stands in the metadata as ``format``.
        weights: Whether tensors are read.

    Raises:
        InputError: No such file, not a model of this kind, cut off or damaged, or written by a newer version.
    """
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"{who}: path must be a run folder with a model.safetensors, or such a file, got {path}; "
            "a run writes its model at its first validation"
        )
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = (stored.metadata() or {}).get(key)
            names = list(stored.keys()) if weights else []
            tensors = {name: stored.get_tensor(name) for name in names}
    except (SafetensorError, OSError, RuntimeError, ValueError, AttributeError) as error:
        raise InputError(f"{who}: {file} must be a safetensors file, but reading it failed: {error}") from error
    if metadata is None:
        raise InputError(f"{who}: {file} must be a model {kind}, but has no such metadata")
    try:
        header: dict[str, Any] = dict(json.loads(metadata))
        header["format"] = int(header["format"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{who}: the metadata of {file} must be the JSON of a model: {error!r}") from error
    if header["format"] > newest:
        raise InputError(f"{who}: {file} must have format <= {newest}, got {header['format']}; update audiostride")
    return file, header, tensors


def load_classifier(path: str | Path, *, device: str | torch.device = "cpu") -> AudioClassifier:
    """The trained classifier of a run folder or of a ``model.safetensors`` file, in evaluation mode.

    Nothing is unpickled: the file holds tensors and JSON.

    Args:
        path: A run folder or a model file.
        device: Where the model goes.

    Returns:
        The model; its class names are in ``model.config.tasks``.

    Raises:
        InputError: No such file, not a model file, cut off, edited or damaged, or written by a newer version.
    """
    who = "load_classifier"
    file, header, tensors = read_model_file(who, path, key=KEY, kind="saved by audiostride", newest=FORMAT_VERSION)
    try:
        values, checksum = dict(header["config"]), header.get("checksum")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{who}: the metadata of {file} must be the JSON of a model: {error!r}") from error
    # Files from before there were checksums have none.
    if checksum is not None and checksum != model_checksum(values, tensors):
        raise InputError(
            f"load_classifier: {file} was edited or damaged: its checksum must be {checksum}, got "
            f"{model_checksum(values, tensors)}; copy it again, or write a new one with save_classifier"
        )
    if header["format"] == 1:
        values = {"pool_after": "block", **values}
    try:
        config = ClassifierConfig.from_dict(values)
        with torch.device("meta"):  # shapes alone: no memory for weights before they are known to be those of the file
            expected = AudioClassifier(config).state_dict()
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{who}: the configuration in {file} must be that of a model: {error}") from error
    wrong = [name for name in {**expected, **tensors} if _describe(expected, name) != _describe(tensors, name)]
    if wrong:
        raise InputError(
            f"{who}: the weights in {file} must fit its configuration, but {len(wrong)} of {len(expected)} do not: "
            f"{wrong[0]} must be {_describe(expected, wrong[0])}, got {_describe(tensors, wrong[0])}"
        )
    model = AudioClassifier(config)
    model.load_state_dict(tensors)
    if "thresholds" in header:
        model.thresholds = _read_thresholds(header["thresholds"], config, where=f"{who}: {file}")
    return model.to(device).eval()


def _read_thresholds(values: Any, config: ClassifierConfig, *, where: str) -> Thresholds:
    """The thresholds of a model file, of its classes."""
    found = check_table(where, values, StoredThresholds)
    for task, own in found["tasks"].items():
        unknown = [name for name in own if name not in config.tasks.get(task, ())]
        if unknown or task not in config.tasks:
            raise InputError(f"{where}: thresholds must be of classes of the model, got {', '.join(unknown) or task}")
    return Thresholds(**found)


def _describe(tensors: Mapping[str, Tensor], name: str) -> str:
    if name not in tensors:
        return "none"
    tensor = tensors[name]
    return f"{'floats' if tensor.is_floating_point() else tensor.dtype} of shape {list(tensor.shape)}"

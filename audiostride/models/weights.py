"""Weights that a user has, as a start for an encoder."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from audiostride.errors import InputError, reason_of
from audiostride.models.foreign import ForeignEncoder
from audiostride.models.pooled import PooledEncoder
from audiostride.strides.diffstride import DiffStride2d

WHO = "train: --weights"
SUFFIXES = (".safetensors", ".pt", ".pth")
N_SHOWN = 5


def check_weights_file(file: str | Path) -> None:
    """Raise unless there is such a file, with one of `SUFFIXES`: it costs minutes to find out later."""
    path = Path(file)
    if path.suffix not in SUFFIXES or not path.is_file():
        raise InputError(f"{WHO} must be a file that exists and ends in {', '.join(SUFFIXES)}, got {file}")


def read_state_dict(file: str | Path) -> dict[str, Tensor]:
    """The tensors of a state dict by their names; no code is loaded.

    Raises:
        InputError: Not such a file, damaged, or something else than tensors in it.
    """
    check_weights_file(file)
    try:
        if Path(file).suffix == ".safetensors":
            found: object = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(f"{WHO}: {file} must be a safetensors file, but reading it failed: {error}") from error
    except Exception as error:  # whatever pickles and archives raise
        reason = reason_of(error).splitlines()[0]
        raise InputError(
            f"{WHO}: {file} must hold tensors and nothing else, but reading it failed: {reason}; write it with "
            "torch.save(network.state_dict(), FILE)"
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(each, Tensor) for each in found.values()):
        held = f"a table of {_shown(map(str, found))}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise InputError(
            f"{WHO}: {file} must hold a state dict, names with tensors, got {held}; write it with "
            "torch.save(network.state_dict(), FILE)"
        )
    return {str(name): tensor for name, tensor in found.items()}


def load_encoder_weights_(encoder: PooledEncoder, file: str | Path) -> list[str]:
    """Give an encoder the weights of a file: its own state dict, or of another package's network that network's.

    Every weight of the encoder must be there with its shape. Strides and counts of batches, which a file may lack, stay
    as they are then. A first convolution over three colours is summed to one channel, which is what it does to grey
    images; names that the encoder does not have, such as those of a classifier, are left out.

    Args:
        encoder: The encoder.
        file: See `read_state_dict`.

    Returns:
        Notes on what was summed and left out.

    Raises:
        InputError: Not such a file; weights are missing or have other shapes.
    """
    given = read_state_dict(file)
    target = encoder.network if isinstance(encoder, ForeignEncoder) else encoder
    own: dict[str, Tensor] = target.state_dict()
    layers = target.named_modules(remove_duplicate=False)
    may_lack = {f"{name}.strides" for name, layer in layers if isinstance(layer, DiffStride2d)}
    may_lack |= {name for name in own if name.endswith("num_batches_tracked")}
    missing = [name for name in own if name not in given and name not in may_lack]
    if missing:
        hint = f"it has {_shown(given)}" if given else "it is empty"
        raise InputError(f"{WHO}: {file} must have every weight of the encoder, got none for {_shown(missing)}; {hint}")
    notes = []
    taken = {name: given[name] for name in own if name in given}
    first = next((name for name, tensor in own.items() if tensor.ndim == 4), "")
    if first in taken and taken[first].ndim == 4 and (taken[first].shape[1], own[first].shape[1]) == (3, 1):
        taken[first] = taken[first].float().sum(dim=1, keepdim=True)
        notes.append(f"weights: {first}, over three colours, is summed to one channel")
    wrong = [
        f"{name} must be {list(own[name].shape)}, got {list(tensor.shape)}"
        for name, tensor in taken.items()
        if tensor.shape != own[name].shape
    ]
    if wrong:
        raise InputError(f"{WHO}: {file} must fit the encoder, but {len(wrong)} do not: {_shown(wrong)}")
    target.load_state_dict(taken, strict=False)
    left = sorted(name for name in given if name not in own)
    if left:
        ends = encoder.classifier if isinstance(encoder, ForeignEncoder) else ()
        what = "the classifier" if all(name.rpartition(".")[0] in ends for name in left) else "no part of the encoder"
        notes.append(f"weights: left out as {what}: {_shown(left)}")
    return notes


def _shown(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - N_SHOWN} more" if len(listed) > N_SHOWN else ""
    return ", ".join(listed[:N_SHOWN]) + more

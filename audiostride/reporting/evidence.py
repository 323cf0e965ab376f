"""Where in a clip a class was heard: what each place of the encoder's last map adds to its logit."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiostride.models import AudioClassifier

SHARE = 0.1  # of the places of a map that is marked
DRAWS = 3  # random places that are taken away for comparison


@dataclass(frozen=True)
class Evidence:
    """The tenth of a clip that said most for a class."""

    marked: NDArray[np.bool_]
    """Frames and mel bands of the clip's spectrogram, ``(T, M)``."""
    fall: float
    """By how much the logit of the class, less the mean over the classes of its task, falls without what is marked."""
    random_fall: float
    """By how much it falls without as much elsewhere."""


def add_up_places(maps: Tensor, weight: Tensor, kind: str) -> Tensor:
    """What each place of a map adds to a logit, exactly: their sum is the logit less its offset.

    A head sees of each channel its mean, to which all places add alike, or its maximum, which stands in one place.
    Given maps less the mean of each channel over a clip, it is what a place adds to the logit of a map of these means.

    Args:
        maps: The encoder's last maps, ``(B, C, T, M)``.
        weight: Of the features, maxima in front of means, ``(C,)`` or ``(2 C,)``.
        kind: ``"max"``, ``"mean"`` or ``"both"``.

    Returns:
        ``(B, T, M)``.
    """
    flat, channels = maps.flatten(2), maps.shape[1]
    total = torch.zeros_like(flat[:, 0])
    if kind != "mean":
        largest, where = flat.max(dim=-1)
        total.scatter_add_(1, where, weight[:channels] * largest)
    if kind != "max":
        total += torch.einsum("c,bcp->bp", weight[-channels:], flat) / flat.shape[-1]
    return total.reshape(maps.shape[0], *maps.shape[2:])


@torch.no_grad()
def find_evidence(model: AudioClassifier, samples: NDArray[np.float32], task: str, label: str) -> Evidence | None:
    """The places that said most for a class of a task, and what the class is worth without them.

    No gradient is needed: behind the encoder's last map everything is linear but the maximum. That what is marked is
    what counts is tried out: its bands get their mean over the clip instead.

    Args:
        model: A frozen classifier.
        samples: The clip, at the model's rate.
        task, label: The class.

    Returns:
        None of a network that gives no maps (``timm:NAME`` and ``torchvision:NAME``).
    """
    config = model.config
    n, hop = config.window_samples, config.hop_length
    windows = np.pad(samples, (0, -len(samples) % n)).reshape(-1, n).astype(np.float32)
    device = next(model.parameters()).device
    bands = model.frontend(torch.from_numpy(windows).to(device))  # (B, T, M)
    maps = model.encoder(model.normalise(bands))
    if maps.ndim != 4:
        return None
    head = model.heads[list(config.tasks).index(task)]
    assert isinstance(head, nn.Linear)
    weight = head.weight[config.tasks[task].index(label)]
    if task not in config.multi_label:
        weight = weight - head.weight.mean(dim=0)
    above_mean = maps - maps.mean(dim=(0, 2, 3), keepdim=True)
    places = add_up_places(above_mean, weight, model.head_pooling).flatten()
    # The place of the map that each frame and band belongs to.
    n_t, n_m = maps.shape[2:]
    rows = torch.arange(bands.shape[1], device=device) * n_t // bands.shape[1]
    columns = torch.arange(bands.shape[2], device=device) * n_m // bands.shape[2]
    first = torch.arange(len(bands), device=device)[:, None, None] * n_t * n_m
    owner = first + (rows[:, None] * n_m + columns)  # (B, T, M)
    count = max(1, round(SHARE * len(places)))
    generator = torch.Generator().manual_seed(0)
    chosen = [
        places.topk(count).indices,
        *(torch.randperm(len(places), generator=generator)[:count] for _ in range(DRAWS)),
    ]
    masks = [torch.isin(owner, each.to(device)) for each in chosen]
    mean = bands.mean(dim=(0, 1)).expand_as(bands)
    tried = torch.stack([bands, *(torch.where(mask, mean, bands) for mask in masks)])
    features = model.pool(model.encoder(model.normalise(tried.flatten(0, 1))))
    logits = (features @ weight).reshape(len(tried), -1).mean(dim=1).tolist()
    frames = np.arange(-(-len(samples) // hop)) * hop
    window, within = frames // n, np.minimum(frames % n // hop, bands.shape[1] - 1)
    return Evidence(
        marked=masks[0].cpu().numpy()[window, within],
        fall=logits[0] - logits[1],
        random_fall=logits[0] - float(np.mean(logits[2:])),
    )

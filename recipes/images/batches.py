"""Batches of images: for training as functions of (seed, step), for evaluation in order."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from audiostride.dataset.sampling import ClipOrder
from audiostride.distributed import Processes
from images.sources import ImageSource

# Kind of random draw, so that each comes from a stream of its own; 0 is `ClipOrder`'s.
AUGMENTATION = 1


class ImageBatches(Dataset[dict[str, Tensor]]):
    """Item `step` is what one of several processes computes of the batch of that step.

    The order goes pass by pass, each image once in each; a batch may hold the last of one pass and the first of the
    next. What is drawn depends on (seed, step) only: the parts of all processes together are the batch of one.

    Args:
        source: The training images.
        batch_size: Images of a step, a multiple of the number of processes.
        seed: Of order and augmentation.
        augment: Whether images are cropped and flipped.
        mixup: Alpha of the shares of mixed pairs; 0 mixes none.
        processes: Those that train together.

    Shape:
        An item of n rows: ``image`` ``(n, 3, H, W)`` uint8, ``class_index`` ``(n,)``; with mixup further images, the
        partners, ``place`` ``(n,)`` where these are, ``partner_class`` and ``share`` ``(n,)``.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        batch_size: int,
        seed: int,
        augment: bool,
        mixup: float,
        processes: Processes,
    ) -> None:
        self.source, self.batch_size, self.seed = source, batch_size, seed
        self.augment, self.mixup, self.processes = augment, mixup, processes
        self._order = ClipOrder(np.zeros(len(source), dtype=np.int64), seed=seed)

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        size, count = self.batch_size, self.processes.count
        chosen = self._order.clips_at(step * size, size)
        rng = np.random.default_rng([self.seed, AUGMENTATION, step])
        keys = rng.integers(0, 2**62, size=size) if self.augment else None
        rows = np.arange(size * self.processes.rank // count, size * (self.processes.rank + 1) // count)
        read = rows
        item: dict[str, NDArray[Any]] = {"class_index": self.source.class_indices[chosen[rows]]}
        if self.mixup:
            partners = rng.permutation(size)[rows]
            share = rng.beta(self.mixup, self.mixup, size=size)[rows]
            read = np.concatenate([rows, np.setdiff1d(partners, rows)])
            places = np.zeros(size, dtype=np.int64)
            places[read] = np.arange(len(read))
            item["partner_class"] = self.source.class_indices[chosen[partners]]
            item |= {"place": places[partners], "share": share.astype(np.float32)}
        item["image"] = self.source.read(chosen[read], None if keys is None else keys[read])
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in item.items()}


class EvaluationBatches(Dataset[tuple[Tensor, Tensor]]):
    """The images that one of several processes evaluates, in order, cut into batches.

    Shape:
        An item: images ``(B, 3, H, W)`` uint8, classes ``(B,)``; the last batch is shorter.
    """

    def __init__(self, source: ImageSource, *, batch_size: int, processes: Processes) -> None:
        self.source, self.batch_size = source, batch_size
        self._images = np.arange(processes.rank, len(source), processes.count)

    def __len__(self) -> int:
        return -(-len(self._images) // self.batch_size)

    def __getitem__(self, batch: int) -> tuple[Tensor, Tensor]:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        images = self._images[batch * self.batch_size : (batch + 1) * self.batch_size]
        return torch.from_numpy(self.source.read(images, None)), torch.from_numpy(self.source.class_indices[images])

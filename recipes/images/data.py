"""Images of CIFAR or of folders, as they are or cropped and flipped; batches of them as functions of (seed, step)."""

import os
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from audiostride.dataset.sampling import ClipOrder
from audiostride.distributed import Processes
from audiostride.errors import InputError
from images.classifier import IMAGENET_MEAN, IMAGENET_STD
from images.config import CIFAR, WHO, ImageTrainConfig
from images.torchvision_networks import import_torchvision

# Mean and standard deviation of red, green and blue over the training images.
CIFAR_COLOURS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
CIFAR_SIZE, CIFAR_BORDER = 32, 4
FOLDER_SIZE = 224
SPLITS = ("val", "valid", "test")  # where images to evaluate on are, the first that is there
WAIT_S = 1.0  # between looks at whether the first process has downloaded CIFAR
MAX_SHOWN = 10
# Kind of random draw, so that each comes from a stream of its own; 0 is `ClipOrder`'s.
AUGMENTATION = 1


class ImageSource(ABC):
    """Images with their classes.

    Attributes:
        class_names: Names of the classes.
        class_indices: Class of each image, ``(n,)`` int64.
        colours: Mean and standard deviation of red, green and blue, in [0, 1].
    """

    class_names: list[str]
    class_indices: NDArray[np.int64]
    colours: tuple[tuple[float, ...], tuple[float, ...]] = (IMAGENET_MEAN, IMAGENET_STD)

    def __len__(self) -> int:
        return len(self.class_indices)

    @abstractmethod
    def read(self, images: NDArray[np.int64], keys: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """Images ``(B, 3, H, W)``, cropped and flipped by a random number >= 0 for each, or without keys as they are.

        Raises:
            InputError: A file that is not an image.
        """


class CifarImages(ImageSource):
    """The images of CIFAR in memory; cropped, after a border of zeros of 4 pixels, and flipped, all with equal chance.

    Args:
        name: cifar10 or cifar100.
        images: ``(n, 3, 32, 32)``.
        class_indices: ``(n,)``.
        class_names: Names of the classes.
    """

    def __init__(
        self, name: str, images: NDArray[np.uint8], class_indices: NDArray[np.int64], class_names: list[str]
    ) -> None:
        self.images, self.class_indices, self.class_names = images, class_indices, class_names
        self.colours = CIFAR_COLOURS[name]

    def read(self, images: NDArray[np.int64], keys: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        found = self.images[images]
        return found if keys is None else crop_and_flip(found, keys, border=CIFAR_BORDER)


def crop_and_flip(images: NDArray[np.uint8], keys: NDArray[np.int64], *, border: int) -> NDArray[np.uint8]:
    """Images shifted by up to `border` pixels each way, zeros coming in, every second one mirrored left to right.

    Args:
        images: ``(B, 3, H, W)``.
        keys: A number >= 0 for each, which says how: ``2 (2 border + 1)^2`` in a row make all that there are.
        border: In pixels.
    """
    places = 2 * border + 1
    top, left, flipped = keys % places, keys // places % places, keys // places**2 % 2 == 1
    wide = np.pad(images, [(0, 0), (0, 0), (border, border), (border, border)])
    views = np.lib.stride_tricks.sliding_window_view(wide, images.shape[2:], axis=(2, 3))  # type: ignore[call-overload]
    cropped: NDArray[np.uint8] = views[np.arange(len(images)), :, top, left]
    cropped[flipped] = cropped[flipped, :, :, ::-1]
    return cropped


class FolderImages(ImageSource):
    """Images in a folder for each class; of each a random part, flipped, or its centre.

    Args:
        folder: The folder of the class folders.
        image_size: Height and width in pixels that images are brought to.
    """

    def __init__(self, folder: Path, *, image_size: int) -> None:
        torchvision = import_torchvision(WHO)
        try:
            found = torchvision.datasets.ImageFolder(str(folder))
        except (FileNotFoundError, OSError) as error:
            raise InputError(f"{WHO}: {folder} must have a folder of images for each class, but {error}") from error
        self.folder, self.class_names = folder, list(found.classes)
        self.class_indices = np.array([index for _, index in found.samples], dtype=np.int64)
        # One array of bytes: worker processes would copy a list of strings by and by, as they count its references.
        self._paths = np.array([os.fsencode(os.path.relpath(path, folder)) for path, _ in found.samples])
        transforms = torchvision.transforms
        to_tensor = transforms.PILToTensor()
        self._augment: Callable[[Any], Tensor] = transforms.Compose(
            [transforms.RandomResizedCrop(image_size), transforms.RandomHorizontalFlip(), to_tensor]
        )
        # As large a share of the image as is usual at 224 pixels: the middle of 256.
        whole = round(image_size * 256 / 224)
        self._show: Callable[[Any], Tensor] = transforms.Compose(
            [transforms.Resize(whole), transforms.CenterCrop(image_size), to_tensor]
        )

    def read(self, images: NDArray[np.int64], keys: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        found = []
        # torchvision draws from torch's own generator, which goes on afterwards as if nothing had been drawn.
        with torch.random.fork_rng(devices=[]):
            for row, image in enumerate(images.tolist()):
                picture = self._open(image)
                if keys is None:
                    found.append(self._show(picture).numpy())
                else:
                    torch.default_generator.manual_seed(int(keys[row]))
                    found.append(self._augment(picture).numpy())
        return np.stack(found)

    def _open(self, image: int) -> Any:
        from PIL import Image

        file = self.folder / os.fsdecode(self._paths[image])
        try:
            with Image.open(file) as opened:
                return opened.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(
                f"{WHO}: every file must be an image that can be read, but {file} is not: {error}; "
                "replace it or take it out"
            ) from error


def load_sources(config: ImageTrainConfig, processes: Processes) -> tuple[ImageSource, ImageSource, str]:
    """The images to train on, those to evaluate on, and which split these are: CIFAR's test, or a folder's first found.

    Raises:
        InputError: Data that are not there or not whole; folders with different classes.
    """
    if config.data in CIFAR:
        train, test = (_load_cifar(config, processes, train=part) for part in (True, False))
        return train, test, "test"
    root = Path(config.data)
    split = next((name for name in SPLITS if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or split is None:
        raise InputError(
            f"{WHO}: data must be one of {', '.join(CIFAR)}, or a folder with train/ and one of {', '.join(SPLITS)}, "
            f"got {root}"
        )
    image_size = config.image_size or FOLDER_SIZE
    folders = [root / "train", root / split]
    names = [{entry.name for entry in os.scandir(folder) if entry.is_dir()} for folder in folders]
    differing = [f"  only in {folders[0]}: {name}" for name in sorted(names[0] - names[1])]
    differing += [f"  only in {folders[1]}: {name}" for name in sorted(names[1] - names[0])]
    if differing:
        more = [f"  and {len(differing) - MAX_SHOWN} more"] if len(differing) > MAX_SHOWN else []
        raise InputError(
            f"{WHO}: train/ and {split}/ must have the same classes, but these folders differ:\n"
            + "\n".join(differing[:MAX_SHOWN] + more)
        )
    found = [FolderImages(folder, image_size=image_size) for folder in folders]
    if len(found[0].class_names) < 2:
        raise InputError(f"{WHO}: there must be at least 2 classes, got {', '.join(found[0].class_names)} in {root}")
    return found[0], found[1], split


def _load_cifar(config: ImageTrainConfig, processes: Processes, *, train: bool) -> CifarImages:
    datasets = import_torchvision(WHO).datasets
    kind = datasets.CIFAR10 if config.data == "cifar10" else datasets.CIFAR100
    while True:
        try:
            with warnings.catch_warnings():
                # The archives were pickled by an old numpy, which newer ones say when they read them.
                warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
                found = kind(config.data_root, train=train, download=config.download and processes.first)
            break
        except (RuntimeError, OSError) as error:
            if config.download and not processes.first:
                time.sleep(WAIT_S)  # the first process downloads
                continue
            raise InputError(
                f"{WHO}: data_root must be the folder of {kind.base_folder}/ as in {kind.filename}, whole and "
                f"unchanged, got {config.data_root} ({error}); "
                + ("try again" if config.download else "unpack the archive there, or have it fetched with --download")
            ) from error
    images = np.ascontiguousarray(np.asarray(found.data).transpose(0, 3, 1, 2))
    return CifarImages(config.data, images, np.array(found.targets, dtype=np.int64), list(found.classes))


def choose_image_size(config: ImageTrainConfig) -> int:
    """Height and width of the images that the network sees."""
    return config.image_size or (CIFAR_SIZE if config.data in CIFAR else FOLDER_SIZE)


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
        self, source: ImageSource, *, batch_size: int, seed: int, augment: bool, mixup: float, processes: Processes
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

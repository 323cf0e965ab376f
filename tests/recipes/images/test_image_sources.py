"""Images from CIFAR's archives and from folders; batches as functions of (seed, step)."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from audiostride import InputError
from audiostride.distributed import Processes
from images.config import ImageTrainConfig
from images.data import (
    CifarImages,
    EvaluationBatches,
    FolderImages,
    ImageBatches,
    ImageSource,
    crop_and_flip,
    load_sources,
)
from images.pictures import make_pictures

Configure = Callable[..., ImageTrainConfig]


def write_cifar(root: Path, name: str, *, n: int) -> NDArray[np.uint8]:
    """A miniature in the official layout; returns its training images, ``(N, 3, 32, 32)``."""
    rng = np.random.default_rng(0)
    ten = name == "cifar10"
    folder = root / ("cifar-10-batches-py" if ten else "cifar-100-python")
    folder.mkdir(parents=True)
    files = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"] if ten else ["train", "test"]
    images = []
    for file in files:
        rows = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
        labels = {"labels" if ten else "fine_labels": [number % (10 if ten else 100) for number in range(n)]}
        (folder / file).write_bytes(pickle.dumps({"data": rows, **labels}, protocol=2))
        images.append(rows)
    names = [f"class {number}" for number in range(10 if ten else 100)]
    meta = {"label_names": names} if ten else {"fine_label_names": names, "coarse_label_names": names[:20]}
    (folder / ("batches.meta" if ten else "meta")).write_bytes(pickle.dumps(meta, protocol=2))
    return np.concatenate(images[:-1]).reshape(-1, 3, 32, 32)


@pytest.mark.parametrize(("name", "n_classes", "n_train"), [("cifar10", 10, 60), ("cifar100", 100, 12)])
def test_cifar_is_read_from_its_official_layout(
    name: str, n_classes: int, n_train: int, tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_cifar(tmp_path, name, n=12)
    config = configure(data=name, data_root=str(tmp_path), image_size=None)
    with pytest.raises(InputError, match=r"whole and unchanged, got .*unpack the archive there, or .* --download"):
        load_sources(config, Processes())  # the checksums are those of the true archive
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: Path(path).is_file())
    train, test, split = load_sources(config, Processes())
    assert (len(train), len(test), split) == (n_train, 12, "test")
    assert len(train.class_names) == n_classes
    assert train.class_indices[:12].tolist() == [number % n_classes for number in range(12)]
    assert np.array_equal(train.read(np.array([3, 0]), None), images[[3, 0]])
    assert train.colours[0] == pytest.approx((0.5, 0.5, 0.45), abs=0.02)


def test_cifar_that_cannot_be_downloaded_says_so(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    with pytest.raises(InputError, match=r"cifar-100-python/ as in cifar-100-python.tar.gz.*no route.*; try again"):
        load_sources(configure(data="cifar100", data_root=str(tmp_path), download=True), Processes())


def test_crops_and_flips_are_those_of_a_loop_and_all_that_there_are() -> None:
    image = np.random.default_rng(0).integers(1, 256, (1, 3, 5, 6), dtype=np.uint8)
    keys = np.arange(2 * 3 * 3, dtype=np.int64)
    found = crop_and_flip(np.repeat(image, len(keys), axis=0), keys, border=1)
    wide = np.zeros((3, 7, 8), dtype=np.uint8)
    wide[:, 1:6, 1:7] = image[0]
    expected = set()
    for top in range(3):
        for left in range(3):
            view = wide[:, top : top + 5, left : left + 6]
            expected |= {view.tobytes(), view[:, :, ::-1].tobytes()}
    assert {each.tobytes() for each in found} == expected
    assert len(expected) == len(keys)


def test_folders_are_read_whole_and_augmented_by_key(pictures: Path) -> None:
    source = FolderImages(pictures / "train", image_size=32)
    assert source.class_names == ["level", "slanting", "upright"]
    assert np.bincount(source.class_indices).tolist() == [8, 8, 8]
    images, keys = np.array([0, 0, 9]), np.array([5, 6, 5], dtype=np.int64)
    plain = source.read(images, None)
    assert plain.shape == (3, 3, 32, 32)
    assert plain.dtype == np.uint8
    assert np.array_equal(plain[0], plain[1])
    torch.manual_seed(1)
    first = source.read(images, keys)
    drawn = torch.rand(1)
    assert np.array_equal(source.read(images[1:], keys[1:]), first[1:]), "a function of image and key"
    assert not np.array_equal(first[0], first[1])
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn), "torch's own generator goes on as if nothing had been drawn"


def test_the_centre_of_an_image_is_evaluated(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        picture = np.zeros((60, 100, 3), dtype=np.uint8)
        picture[:, 40:60] = 200
        Image.fromarray(picture).save(tmp_path / name / "x.png")
    [image] = FolderImages(tmp_path, image_size=28).read(np.array([0]), None)
    # The shorter side becomes 28 * 256 / 224 = 32; of 53 columns the middle 28 hold the band of 10.7.
    assert image.shape == (3, 28, 28)
    bright = (image[0, 14] > 100).nonzero()[0]
    assert len(bright) == pytest.approx(10.7, abs=1)
    assert bright.mean() == pytest.approx(13.5, abs=0.6)


def test_folders_that_do_not_fit_are_listed(tmp_path: Path, configure: Configure) -> None:
    root = make_pictures(tmp_path / "set", {"train": 1, "val": 1}, size=8)
    (root / "train" / "level").rename(root / "train" / "flat")
    with pytest.raises(InputError, match=r"same classes.*differ:\n  only in .*train: flat\n  only in .*val: level$"):
        load_sources(configure(data=str(root)), Processes())
    (root / "train" / "flat").rename(root / "train" / "level")
    (root / "train" / "level" / "0.png").unlink()
    with pytest.raises(InputError, match=r"must have a folder of images for each class, but .*level"):
        load_sources(configure(data=str(root)), Processes())
    (root / "val").rename(root / "validation")
    with pytest.raises(InputError, match=r"a folder with train/ and one of val, valid, test, got "):
        load_sources(configure(data=str(root)), Processes())
    (root / "validation").rename(root / "test")
    for split in ("train", "test"):
        for name in ("level", "slanting"):
            for file in (root / split / name).iterdir():
                file.unlink()
            (root / split / name).rmdir()
    with pytest.raises(InputError, match="at least 2 classes, got upright in "):
        load_sources(configure(data=str(root)), Processes())


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "set", {"train": 1}, size=8)
    whole = (root / "train" / "level" / "0.png").read_bytes()
    for content in (b"not an image", whole[: len(whole) // 2]):
        (root / "train" / "level" / "0.png").write_bytes(content)
        source = FolderImages(root / "train", image_size=8)
        with pytest.raises(InputError, match=r"level/0\.png is not: .*; replace it or take it out"):
            source.read(np.arange(3), None)


def test_without_torchvision_it_is_said_how_to_get_it(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(InputError, match=r"torchvision must be there.*pip install 'audiostride\[vision\]'"):
        load_sources(configure(), Processes())


def numbered(n: int) -> ImageSource:
    """Images that say in their first pixel which they are, each of a class of its own."""
    images = np.random.default_rng(0).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    images[:, 0, 16, 16] = np.arange(n)
    return CifarImages("cifar10", images, np.arange(n, dtype=np.int64), [str(number) for number in range(n)])


def test_each_image_is_seen_once_in_a_pass_whatever_the_batch() -> None:
    batches = ImageBatches(numbered(10), batch_size=4, seed=0, augment=False, mixup=0.0, processes=Processes())
    seen = torch.cat([batches[step]["class_index"] for step in range(10)])
    for start in range(0, 40, 10):
        assert sorted(seen[start : start + 10].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:20].tolist()
    assert torch.equal(batches[7]["image"][:, 0, 16, 16].long(), batches[7]["class_index"])
    other = ImageBatches(numbered(10), batch_size=4, seed=1, augment=False, mixup=0.0, processes=Processes())
    assert other[0]["class_index"].tolist() != batches[0]["class_index"].tolist()


@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_the_parts_of_all_processes_are_the_batch(mixup: float) -> None:
    def batch(rank: int, count: int) -> dict[str, torch.Tensor]:
        processes = Processes(rank, count)
        return ImageBatches(numbered(20), batch_size=8, seed=3, augment=True, mixup=mixup, processes=processes)[5]

    whole, parts = batch(0, 1), [batch(rank, 2) for rank in (0, 1)]
    for name in ("class_index", "partner_class", "share"):
        if name in whole:
            assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
    own = torch.cat([part["image"][:4] for part in parts])
    assert torch.equal(own, whole["image"][:8])
    if mixup:
        partners = torch.cat([part["image"][part["place"]] for part in parts])
        assert torch.equal(partners, whole["image"][whole["place"]])
        assert 0 < float(whole["share"].std()) < 1


def test_evaluation_takes_each_image_once() -> None:
    source = numbered(11)
    items = [EvaluationBatches(source, batch_size=3, processes=Processes(rank, 2)) for rank in (0, 1)]
    assert [len(item) for item in items] == [2, 2]
    seen = torch.cat([classes for item in items for _, classes in (item[number] for number in range(len(item)))])
    assert sorted(seen.tolist()) == list(range(11))
    images, classes = items[1][0]
    assert torch.equal(images[:, 0, 16, 16].long(), classes)

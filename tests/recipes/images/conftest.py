"""Pictures of stripes in three classes, and trainings of a tiny network on them."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from images.config import ImageTrainConfig
from images.pictures import make_pictures

# Without the extra audiostride[vision] there is nothing to test.
collect_ignore_glob = [] if find_spec("torchvision") else ["test_*.py"]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures to train on, 12 to validate on."""
    return make_pictures(tmp_path_factory.mktemp("images") / "stripes", {"train": 8, "val": 4})


@pytest.fixture
def configure(pictures: Path, tmp_path: Path) -> Callable[..., ImageTrainConfig]:
    """Settings of a training that takes a second: ten steps of twelve images, a pass over the pictures in two."""

    def make(name: str = "run", **settings: object) -> ImageTrainConfig:
        values = {
            "out": str(tmp_path / name), "data": str(pictures), "image_size": 32, "width": 0.05, "batch_size": 12,
            "max_steps": 10, "milestones": [3], "valid_every": 2, "device": "cpu",
        }  # fmt: skip
        return ImageTrainConfig(**{**values, **settings})  # type: ignore[arg-type]

    return make

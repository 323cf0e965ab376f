"""Settings of image training: ranges, schedule, the paper's presets."""

import re
from pathlib import Path

import pytest
import yaml

from audiostride import InputError
from images.config import IMAGE_PRESETS, ImageTrainConfig, check_same_image_settings, image_preset_settings


def config(**settings: object) -> ImageTrainConfig:
    return ImageTrainConfig(**{"out": "o", "data": "cifar10", **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arch": "resnet50"}, "arch must be one of resnet18, preact_resnet18, densenet121, efficientnet_b0, got"),
        ({"stem": "wide"}, "stem must be one of small, large"),
        ({"pooling": "max"}, "pooling must be one of strided, spectral, diffstride"),
        ({"size": "mixed"}, "size must be one of paper, nominal, folded, got 'mixed'"),
        ({"epochs": 0}, "epochs must be > 0, got 0"),
        ({"max_steps": 0}, "max_steps must be a whole number >= 1, got 0"),
        ({"image_size": 0}, "image_size must be a whole number >= 1"),
        ({"mixup": -0.1}, "mixup must be >= 0, got -0.1"),
        ({"stride_lr": float("nan")}, "stride_lr must be a finite number >= 0, got nan"),
        ({"weight_decay": float("inf")}, "weight_decay must be a finite number >= 0, got inf"),
        ({"milestones": [30, 30]}, r"milestones must be rising epochs, got \[30, 30\]"),
        ({"milestones": [0, 30]}, r"milestones\[0\] must be > 0, got 0"),
        ({"workers": 1.5}, "workers must be a whole number >= 0, got 1.5"),
        ({"augment": "no"}, "augment must be True or False, got 'no'"),
        ({"strides": [2, 2]}, "strides must have 3 or 4 entries for resnet18, one for each layer that pools, got 2"),
        ({"arch": "efficientnet_b0"}, "strides must have 7 entries for efficientnet_b0"),
        ({"strides": [2, [1, 2, 3], 2]}, r"a number or a pair for each layer that pools, got \[1, 2, 3\]"),
        ({"strides": [2, "x", 2]}, "a number or a pair for each layer that pools, got 'x'"),
        ({"strides": [2, 0.5, 2]}, "strides must be finite and >= 1"),
        ({"strides": [2, 1.5, 2], "pooling": "strided"}, "must be whole numbers for pooling strided"),
        ({"devices": 3}, r"batch_size must be a multiple of devices x num_nodes \(3\)"),
        ({"batch_size": 1}, r"at least twice that \(batch norm\), got 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(**settings)


def test_the_presets_are_the_papers_numbers() -> None:
    common = {"lr": 0.1, "momentum": 0.9, "batch_size": 256, "ramp_bins": 4.0, "size": "paper", "stride_lr": None}
    own = {
        "paper_cifar": {"epochs": 400, "milestones": [200, 300], "weight_decay": 5e-3, "stem": "small", "mixup": 0.0},
        "paper_imagenet": {"epochs": 90, "milestones": [30, 60, 80], "weight_decay": 1e-3, "stem": "large"},
        "published": {"arch": "preact_resnet18", "mixup": 1.0, "epochs": 400},
    }
    assert set(IMAGE_PRESETS) == set(own)
    for name, expected in own.items():
        settings = image_preset_settings(name)
        assert {key: settings[key] for key in common | expected} == common | expected
        config(**settings)
    assert [len(image_preset_settings(name)["strides"]) for name in own] == [3, 4, 4]
    image_preset_settings("paper_cifar")["strides"].append(9)
    assert image_preset_settings("paper_cifar")["strides"] == [2, 2, 2]
    with pytest.raises(InputError, match="preset must be one of paper_cifar, paper_imagenet, published, got 'paper'"):
        image_preset_settings("paper")


def test_the_paper_trains_for_78125_steps_and_lowers_the_rate_at_half_and_three_quarters() -> None:
    settings = config(**image_preset_settings("paper_cifar"))
    steps = settings.count_steps(50_000)
    assert steps == 400 * 50_000 / 256 == 78125
    # Exactly at the first step that begins after 200 and 300 passes: 39062.5 and 58593.75 steps.
    factors = [settings.learning_rate_factor(step, n_images=50_000) for step in (0, 39062, 39063, 58593, 58594)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_validations_come_once_in_so_many_epochs() -> None:
    settings = config(batch_size=32, valid_every=2)
    # Of 100 images two epochs are 6.25 steps.
    due = [step for step in range(1, 27) if settings.validates_after(step, n_images=100)]
    assert due == [7, 13, 19, 25]
    assert all(config(batch_size=300, valid_every=0.5).validates_after(step, n_images=100) for step in (1, 2, 3))


def test_settings_are_written_and_read(tmp_path: Path) -> None:
    before = config(data="somewhere", strides=[2, (1, 3), 2], milestones=(5, 6))
    assert Path(before.data).is_absolute()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(before.to_dict()))
    after = ImageTrainConfig.load(tmp_path)
    assert after.to_dict() == before.to_dict()
    assert after.stride_pairs() == [(2, 2), (1, 3), (2, 2)]
    check_same_image_settings(before, config(data="somewhere", strides=after.strides, milestones=[5, 6], workers=3))
    with pytest.raises(InputError, match=r"in o these differ:\n  lr: 0.1 -> 0.2\ngive the old values"):
        check_same_image_settings(config(), config(lr=0.2))
    (tmp_path / "config.yaml").write_text("colour: 1")
    with pytest.raises(InputError, match="must hold known settings, got colour"):
        ImageTrainConfig.load(tmp_path)
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'no'} must be a run folder written by train_images")):
        ImageTrainConfig.load(tmp_path / "no")

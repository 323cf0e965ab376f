"""Image classifiers: shapes, gradients and cost of every network with every pooling; saving and loading."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from audiostride import InputError
from audiostride.models import ResNetEncoder
from audiostride.strides.diffstride import diffstride_layers
from audiostride.strides.frozen_pool import FrozenPool
from audiostride.strides.spectral_pool import SpectralPool2d
from images.classifier import (
    ImageClassifier,
    build_image_network,
    count_multiply_adds,
    load_image_classifier,
    save_image_classifier,
)

STRIDES = {
    "resnet18": [(1, 1), (2, 2), (2, 2), (2, 2)],
    "preact_resnet18": [(2, 2), (2, 2), (2, 2)],
    "densenet121": [(2, 2), (2, 2), (2, 2)],
    "efficientnet_b0": [(1, 1), (2, 2), (2, 2), (2, 2), (1, 1), (2, 2), (1, 1)],
}
# Of the last map, from images of 64 pixels: the ResNets and DenseNet halve three times, EfficientNet five times.
LAST = {"resnet18": 8, "preact_resnet18": 8, "densenet121": 8, "efficientnet_b0": 2}


def build(arch: str, **settings: Any) -> ImageClassifier:
    if arch in ("densenet121", "efficientnet_b0"):
        pytest.importorskip("torchvision")
    settings = {"strides": STRIDES[arch], "width": 0.1, "image_size": 64, **settings}
    torch.manual_seed(0)
    return build_image_network(arch, 5, **settings)


@pytest.mark.parametrize("pooling", ["strided", "spectral", "diffstride"])
@pytest.mark.parametrize("arch", STRIDES)
def test_every_network_gives_logits_and_learns_every_parameter(arch: str, pooling: str) -> None:
    model = build(arch, pooling=pooling)
    n_layers = len(STRIDES[arch])
    assert len(diffstride_layers(model)) == (n_layers if pooling == "diffstride" else 0)
    pools = {id(each) for each in model.modules() if isinstance(each, SpectralPool2d)}
    assert len(pools) == (n_layers if pooling == "spectral" else 0)
    assert model.backbone(torch.rand(3, 3, 64, 64)).shape[-2:] == (LAST[arch], LAST[arch])
    # Of larger images: the last maps of small ones are means, all places of which get the same gradient, and a stride
    # behind such a map none.
    images = torch.rand(3, 3, 128, 128)
    logits = model(images)
    assert logits.shape == (3, 5)
    logits.square().sum().backward()
    without = [name for name, each in model.named_parameters() if each.grad is None or not each.grad.any()]
    # The ReLU of a squeeze-and-excitation as narrow as one channel may be 0 for three images.
    assert [name for name in without if ".fc" not in name] == []
    model.eval()
    # Batches of another size are summed in another order.
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", STRIDES)
def test_learned_strides_begin_where_fixed_ones_are_and_move_the_size_of_maps(arch: str) -> None:
    model = build(arch)
    assert [layer.stride_values() for layer in diffstride_layers(model)] == STRIDES[arch]
    with torch.no_grad():
        for layer in diffstride_layers(model):
            layer.strides.copy_(torch.tensor([0.5, 3.0]))
    model.project_strides_()
    assert [layer.stride_values() for layer in diffstride_layers(model)] == [(1.0, 3.0)] * len(STRIDES[arch])
    height, width = model.backbone(torch.rand(1, 3, 64, 64)).shape[-2:]
    assert height > LAST[arch]
    assert width < LAST[arch]
    shared = build(arch, shared_strides=True)
    assert [layer.strides.shape for layer in diffstride_layers(shared)] == [(1,)] * len(STRIDES[arch])


@pytest.mark.parametrize(
    ("arch", "pooling"),
    [
        ("resnet18", "strided"),
        ("resnet18", "spectral"),
        ("preact_resnet18", "diffstride"),
        ("densenet121", "diffstride"),
        ("efficientnet_b0", "strided"),
        ("efficientnet_b0", "spectral"),
    ],
)
def test_a_frozen_network_gives_the_same_and_makes_no_matrices(arch: str, pooling: str) -> None:
    strides = STRIDES[arch] if pooling == "strided" else [(1.3, 2.2)] * len(STRIDES[arch])
    model = build(arch, pooling=pooling, strides=strides).eval()
    frozen = model.freeze()
    pools = {id(each) for each in frozen.modules() if isinstance(each, FrozenPool)}
    assert len(pools) == (0 if pooling == "strided" else len(strides))
    assert not diffstride_layers(frozen)
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(frozen(images), model(images), rtol=1e-4, atol=1e-5)
    # Products are those of one image times the batch; the making of matrices would come once in both.
    one, two = (count_multiply_adds(frozen, images[:count]) for count in (1, 2))
    assert two == 2 * one <= 2 * count_multiply_adds(model, images[:1])


def test_a_large_stem_halves_twice() -> None:
    for arch in ("resnet18", "densenet121"):
        assert build(arch, stem="large").backbone(torch.zeros(1, 3, 64, 64)).shape[-1] == LAST[arch] / 4


def test_the_networks_of_full_width_have_the_parameters_that_are_known() -> None:
    # ResNet-18 with 1,000 classes has 11,689,512 in torchvision and in the literature.
    model = build_image_network("resnet18", 1000, pooling="strided", strides=[(2, 2)] * 3, stem="large", image_size=224)
    assert sum(each.numel() for each in model.parameters()) == 11_689_512
    assert count_multiply_adds(model, torch.zeros(1, 3, 224, 224)) == pytest.approx(1.814e9, rel=1e-3)


@pytest.mark.parametrize(
    ("arch", "torchvision_arch", "strides"),
    [("densenet121", "densenet121", [(2, 2)] * 3), ("efficientnet_b0", "efficientnet_b0", STRIDES["efficientnet_b0"])],
)
def test_strided_networks_are_torchvisions(arch: str, torchvision_arch: str, strides: list[Any]) -> None:
    """With a large stem and the network's own strides the weights of torchvision's fit and give the same logits."""
    torchvision = pytest.importorskip("torchvision")
    known = getattr(torchvision.models, torchvision_arch)(weights=None).eval()
    model = build_image_network(arch, 1000, pooling="strided", strides=strides, stem="large", image_size=64).eval()
    model.backbone.load_state_dict(known.features.state_dict())
    linear = known.classifier if arch == "densenet121" else known.classifier[1]
    model.head.load_state_dict(linear.state_dict())
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model(images), known((images - model.mean) / model.std), rtol=1e-4, atol=1e-5)


def test_colours_are_normalised_first() -> None:
    class Keep(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images

    model = ImageClassifier(Keep(), 3, 3, image_size=2, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    with torch.no_grad():
        model.head.weight.copy_(torch.eye(3))
        model.head.bias.zero_()
    images = torch.tensor([1.0, 0.5, 0.5]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(model(images), torch.tensor([[1.0, 1.0, 0.25]]))
    with pytest.raises(InputError, match=r"images must have shape \(B, 3, H, W\), got \(1, 1, 2, 2\)"):
        model(images[:, :1])


def test_multiply_adds_are_counted_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5)).train()
    assert count_multiply_adds(model, torch.zeros(1, 3, 4, 4)) == 3 * 8 * 9 * 16 + 8 * 16 * 5
    assert model.training


@pytest.mark.parametrize(
    ("arch", "settings", "message"),
    [
        ("vgg", {"strides": [(2, 2)]}, "arch must be one of resnet18, .*, got 'vgg'"),
        ("resnet18", {"pooling": "max"}, "pooling must be one of"),
        ("resnet18", {"size": "mixed"}, "size must be one of paper, nominal, folded"),
        ("resnet18", {"stem": "none"}, "stem must be one of small, large"),
        ("resnet18", {"width": 0}, "width must be > 0"),
        ("resnet18", {"strides": [(2, 2)]}, "strides must have 3 or 4 entries for resnet18, .* got 1"),
        ("densenet121", {"strides": [(2, 2)] * 4}, "strides must have 3 entries for densenet121, .* got 4"),
        ("efficientnet_b0", {"strides": [(2, 2)] * 3}, "strides must have 7 entries for efficientnet_b0"),
        ("resnet18", {"strides": [(2, 1.5)] * 3, "pooling": "strided"}, "whole numbers for pooling strided"),
        ("resnet18", {"strides": [(2, 0.5)] * 3}, "strides must be finite and >= 1"),
    ],
)
def test_settings_out_of_range_are_refused(arch: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_image_network(arch, 10, **{"strides": [(2, 2)] * 3, **settings})


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[], tuple[ImageClassifier, Path]]:
    def save(arch: str = "resnet18") -> tuple[ImageClassifier, Path]:
        model = build(arch, image_size=32, size="folded", ramp_bins=3.0, mean=(0.1, 0.2, 0.3)).eval()
        with torch.no_grad():
            diffstride_layers(model)[1].strides.copy_(torch.tensor([1.7, 2.3]))
        save_image_classifier(model, tmp_path / "model.safetensors", class_names=list("abcde"), config={"lr": 0.1})
        return model, tmp_path

    return save


@pytest.mark.parametrize("arch", ["resnet18", "efficientnet_b0"])
def test_a_saved_model_is_loaded_with_its_names(
    arch: str, saved: Callable[[str], tuple[ImageClassifier, Path]]
) -> None:
    model, folder = saved(arch)
    found, names = load_image_classifier(folder)
    assert names == list("abcde")
    assert found.settings == model.settings
    assert not found.training
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(found(images), model(images))


def test_files_that_are_no_image_models_are_refused(
    tmp_path: Path, saved: Callable[[], tuple[ImageClassifier, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"a run folder with a model.safetensors, or such a file, got .*writes its"):
        load_image_classifier(tmp_path)
    (tmp_path / "broken.safetensors").write_bytes(b"{}")
    with pytest.raises(InputError, match=r"broken.safetensors must be a safetensors file, but reading it failed"):
        load_image_classifier(tmp_path / "broken.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="must be a model of image training, but has no such metadata"):
        load_image_classifier(tmp_path / "other.safetensors")
    for metadata in ("{", "[]", '{"format": "new"}', '{"format": 1}', '{"format": 1, "network": {"arch": "resnet18"}}'):
        save_file({"x": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata={"audiostride_images": metadata})
        with pytest.raises(InputError, match=r"the metadata of .*odd.safetensors must be"):
            load_image_classifier(tmp_path / "odd.safetensors")
    monkeypatch.setattr("images.classifier.FORMAT_VERSION", 2)
    saved()
    monkeypatch.setattr("images.classifier.FORMAT_VERSION", 1)
    with pytest.raises(InputError, match="must have format <= 1, got 2; update audiostride"):
        load_image_classifier(tmp_path)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = build("resnet18")
    model.head = nn.Linear(3, 2)
    save_image_classifier(model, tmp_path / "m.safetensors", class_names=["a", "b"])
    with pytest.raises(InputError, match=r"the weights in .*m.safetensors must fit its network"):
        load_image_classifier(tmp_path / "m.safetensors")


def test_the_resnet_has_the_settings_that_were_asked_for() -> None:
    backbone = build("preact_resnet18", stem="large", ramp_bins=2.5, size="paper").backbone
    assert isinstance(backbone, ResNetEncoder)
    assert backbone.stem == "large"
    layer = diffstride_layers(backbone)[0]
    assert {(axis.size, axis.ramp_bins) for axis in layer.axes} == {("paper", 2.5)}

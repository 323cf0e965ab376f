"""Layers and classifiers with fixed strides: the same numbers, and nothing left to learn."""

import copy
import pickle
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from examples import make_classifier, noise

from audiostride import (
    AudioClassifier,
    ClassifierConfig,
    DiffStride1d,
    DiffStride2d,
    DiffStride3d,
    SpectralPool1d,
    SpectralPool2d,
    SpectralPool3d,
    load_classifier,
)
from audiostride.checks import Size
from audiostride.errors import InputError
from audiostride.models import save_classifier
from audiostride.strides.diffstride import diffstride_layers
from audiostride.strides.frozen_pool import FrozenPool

SIZES: tuple[Size, ...] = get_args(Size)
DIFFSTRIDES = (DiffStride1d, DiffStride2d, DiffStride3d)
SPECTRALS = (SpectralPool1d, SpectralPool2d, SpectralPool3d)
STRIDES, MAP = (1.7, 2.3, 1.4), (9, 13, 16)
POOLINGS = ("diffstride", "spectral", "strided")


def layers() -> list[DiffStride1d | DiffStride2d | DiffStride3d | SpectralPool1d | SpectralPool2d | SpectralPool3d]:
    """Every layer, in each of its sizes."""
    made = [layer(STRIDES[: layer.n_axes], size=size) for layer in DIFFSTRIDES for size in SIZES]
    limited = DiffStride2d(STRIDES[:2], size="nominal", max_stride=2.0)
    return [*made, limited, *(layer(STRIDES[: layer.n_axes]) for layer in SPECTRALS)]


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("layer", layers(), ids=repr)
def test_a_frozen_layer_is_the_layer(layer: Any, long: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiostride.strides.matrices.LONG_AXIS", 1 if long else 10**9)
    x, sizes = noise(2, 3, *MAP), MAP[-layer.n_axes :]
    frozen = layer.freeze(*sizes)
    assert isinstance(frozen, FrozenPool)
    assert list(frozen.parameters()) == []
    assert len(frozen.state_dict()) == layer.n_axes
    assert frozen.output_size(*sizes) == layer.output_size(*sizes)
    # The same products, of the same matrices.
    torch.testing.assert_close(frozen(x), layer(x).detach(), rtol=0, atol=1e-6)
    assert not frozen(x).requires_grad
    # Gradients pass through to what comes before.
    given = x.clone().requires_grad_()
    expected = x.clone().requires_grad_()
    weights = noise(*frozen(x).shape, seed=1)
    (frozen(given) * weights).sum().backward()
    (layer(expected) * weights).sum().backward()
    torch.testing.assert_close(given.grad, expected.grad, rtol=0, atol=1e-6)


def test_a_frozen_layer_keeps_its_strides() -> None:
    layer, x = DiffStride2d((2.0, 1.5), size="nominal"), noise(2, *MAP)
    frozen, expected = layer.freeze(*MAP[-2:]), layer(x).detach()
    with torch.no_grad():
        layer.strides.fill_(4.0)
    torch.testing.assert_close(frozen(x), expected, rtol=0, atol=1e-6)
    assert layer(x).shape != expected.shape
    assert layer.strides.requires_grad


def test_a_frozen_layer_knows_its_dtype_and_is_saved() -> None:
    layer = DiffStride2d((2.0, 1.5), size="nominal").double()
    frozen, x = layer.freeze(13, 16), noise(2, 13, 16, dtype=torch.float64)
    torch.testing.assert_close(frozen(x), layer(x).detach(), rtol=0, atol=1e-13)  # sums of 16 float64 products
    other = DiffStride2d((4.0, 2.0), size="nominal").double().freeze(13, 16)
    same_shape = DiffStride2d((2.04, 1.55), size="nominal").double().freeze(13, 16)
    assert not torch.allclose(same_shape(x), frozen(x))
    same_shape.load_state_dict(frozen.state_dict())
    assert same_shape(x).equal(frozen(x))
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(frozen.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert frozen.float()(x.float()).dtype == torch.bfloat16


def test_a_map_of_another_size_is_an_error() -> None:
    for layer in (DiffStride2d(), SpectralPool2d()):
        frozen = layer.freeze(100, 64)
        with pytest.raises(InputError, match=r"FrozenPool: .* frozen for, \(100, 64\), got \(64, 100\); freeze the"):
            frozen(noise(1, 64, 100))
        with pytest.raises(InputError, match=r"frozen for, \(100, 64\), got \(50, 64\)"):
            frozen.output_size(50, 64)
        with pytest.raises(InputError, match=r"freeze: sizes must have one entry per axis \(2\), got 1"):
            layer.freeze(100)
    assert repr(DiffStride2d((2.0, 4.0), size="nominal").freeze(100, 64)) == "FrozenPool((100, 64) -> (50, 16))"


@pytest.mark.parametrize("pool_after", ["block", "convolution"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_frozen_classifier_is_the_classifier(pooling: str, pool_after: str) -> None:
    model, waveform = make_classifier(pooling=pooling, pool_after=pool_after), noise(3, 16000) / 10
    model.train()
    before = copy.deepcopy(model.state_dict())
    frozen = model.freeze()
    assert model.training
    assert not frozen.training
    assert not any("strides" in name for name, _ in frozen.named_parameters())
    assert model.state_dict().keys() == before.keys()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        for task, logits in model.eval()(waveform).items():
            # The same products, of the same matrices.
            torch.testing.assert_close(frozen(waveform)[task], logits, rtol=0, atol=1e-6)
        # Nothing is shared.
        for value in frozen.state_dict().values():
            value.zero_()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_a_frozen_classifier_takes_windows_only() -> None:
    model = make_classifier(window_s=0.5)
    frozen = model.freeze()
    assert frozen(noise(2, 8000))["word"].shape == (2, 2)
    assert model(noise(2, 16000))["word"].shape == (2, 2)
    with pytest.raises(InputError, match=r"frozen for, \(50, 64\), got \(100, 64\)"):
        frozen(noise(2, 16000))


@pytest.mark.parametrize("pooling", ["spectral", "strided"])
def test_freezing_stays_on_the_device(pooling: str) -> None:
    # The device without values stands for a GPU here.
    frozen = make_classifier(pooling=pooling).to("meta").freeze()
    assert {value.device.type for value in [*frozen.parameters(), *frozen.buffers()]} == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_frozen_classifier_on_a_gpu(pooling: str) -> None:
    model, waveform = make_classifier(pooling=pooling), noise(3, 16000) / 10
    with torch.no_grad():
        expected = model.freeze()(waveform)["word"]
        on_gpu = model.cuda().freeze()(waveform.cuda())["word"]
    # Float32 products in another order, perhaps of TF32 convolutions, through twelve layers.
    torch.testing.assert_close(on_gpu.cpu(), expected, rtol=0, atol=1e-2 * float(expected.abs().max()))


@pytest.mark.parametrize("size", [*SIZES, "mixed"])
def test_a_copy_and_a_loaded_model_freeze_with_the_strides_that_they_have(size: str, tmp_path: Path) -> None:
    model = AudioClassifier(ClassifierConfig(tasks={"kind": ["a", "b"]}, width=0.03, size=size)).eval()
    for layer in diffstride_layers(model):
        with torch.no_grad():
            layer.strides.add_(0.6)
    sizes = model.encoder.map_sizes(100, 64)
    assert sizes != AudioClassifier(model.config).encoder.map_sizes(100, 64), "strides have moved maps"
    save_classifier(model, tmp_path / "model.safetensors")
    loaded, waveform = load_classifier(tmp_path / "model.safetensors"), torch.randn(2, 16000)
    expected = model(waveform)["kind"].detach()
    for other in (copy.deepcopy(model), loaded, pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other.freeze()(waveform)["kind"].detach(), expected, rtol=1e-4, atol=1e-5)
        assert other.encoder.map_sizes(100, 64) == sizes

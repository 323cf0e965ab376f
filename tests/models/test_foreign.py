"""Networks of timm and torchvision as encoders: conversion, files, cut-offs, and weights of a user's own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from examples import noise
from safetensors.torch import save_file
from torch import Tensor, nn

from audiostride import AudioClassifier, ClassifierConfig, InputError, cutoff_table, load_classifier
from audiostride.models import ForeignEncoder, packages, save_classifier
from audiostride.models.cost import multiply_adds
from audiostride.models.export import export_classifier
from audiostride.models.weights import load_encoder_weights_
from audiostride.reporting.measuring import largest_difference, measure_gains
from audiostride.strides.diffstride import DiffStride2d, diffstride_layers

torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")

TASKS = {"word": ["no", "yes", "up"]}
RESNET = "timm:test_resnet"
NETWORKS = [RESNET, "timm:test_efficientnet", "torchvision:mobilenet_v3_small"]


def make_classifier(encoder: str = RESNET, **settings: Any) -> AudioClassifier:
    """A classifier whose norms have seen sounds of several levels, in evaluation mode."""
    torch.manual_seed(0)
    model = AudioClassifier(ClassifierConfig(tasks=TASKS, encoder=encoder, **settings))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(noise(6, 16000) * torch.logspace(-3, -0.5, 6)[:, None])
    return model.eval()


@pytest.mark.parametrize("pooling", ["strided", "spectral", "diffstride"])
@pytest.mark.parametrize("encoder", NETWORKS)
def test_it_learns_freezes_and_survives_its_file(encoder: str, pooling: str, tmp_path: Path) -> None:
    model = make_classifier(encoder, pooling=pooling).train()
    logits = model.classify_spectrogram(noise(4, 100, 64))["word"]
    assert logits.shape == (4, 3)
    (logits * noise(4, 3, seed=1)).sum().backward()
    layers = diffstride_layers(model)
    assert (len(layers) >= 3) == (pooling == "diffstride")
    for layer in layers:
        assert layer.strides.grad is not None
        assert (layer.strides.grad != 0).all()
    model.eval()
    spectrogram = model.frontend(noise(3, 16000, seed=2) * torch.tensor([[0.001], [0.02], [0.5]]))
    save_classifier(model, tmp_path / "m.safetensors")
    loaded, frozen = load_classifier(tmp_path / "m.safetensors"), model.freeze()
    assert loaded.config == model.config
    assert encoder in repr(loaded)
    assert not diffstride_layers(frozen)
    frozen.project_strides_()  # of which there are none
    with torch.no_grad():
        logits = model.classify_spectrogram(spectrogram)["word"]
        assert logits.std(dim=0).max() > 1e-3, "not all alike"
        # Sums of a few hundred float32 products.
        torch.testing.assert_close(frozen.classify_spectrogram(spectrogram)["word"], logits, rtol=0, atol=1e-4)
        torch.testing.assert_close(loaded.classify_spectrogram(spectrogram)["word"], logits, rtol=0, atol=0)
    assert multiply_adds(frozen) == multiply_adds(model)


@pytest.mark.parametrize("encoder", NETWORKS)
def test_maps_are_as_large_as_strided_ones_and_cutoffs_tell_of_them(encoder: str) -> None:
    strided, learned = (make_classifier(encoder, pooling=pooling) for pooling in ("strided", "diffstride"))
    assert learned.encoder.map_sizes(100, 64) == strided.encoder.map_sizes(100, 64)
    assert strided.encoder.map_sizes(160, 40)[0] == (160, 40)
    tables = [cutoff_table(model) for model in (strided, learned)]
    for table in tables:
        assert table["layer"].max() == len(strided.encoder.block_list()) >= 3
        assert (table["stride"] == 2).all()
    for column in ("stride", "n_in", "n_out", "cutoff"):
        assert tables[0][column].tolist() == tables[1][column].tolist()
    assert len(measure_gains(strided)) == 0
    assert largest_difference(measure_gains(learned)) < 1e-4  # of float32 products


def test_mixed_is_nominal_over_time_and_folded_over_mel() -> None:
    layers = diffstride_layers(make_classifier(ramp_bins=3.0, max_stride=5.0))
    assert {(axis.size, axis.ramp_bins, axis.max_stride) for layer in layers for axis in layer.axes[:1]} == {
        ("nominal", 3.0, 5.0)
    }
    assert {layer.axes[1].size for layer in layers} == {"folded"}
    shared = diffstride_layers(make_classifier(shared_strides=True, size="nominal"))
    assert {layer.strides.shape for layer in shared} == {(1,)}


def test_strides_are_where_it_starts() -> None:
    encoder = make_classifier().encoder
    starts = [(1.5 + number, 2.0) for number in range(len(encoder.block_list()))]
    model = make_classifier(strides=starts)
    assert [layer.stride_values() for layer in diffstride_layers(model)] == starts
    assert model.config.to_dict()["strides"] == [list(pair) for pair in starts]
    strided = make_classifier("torchvision:mobilenet_v3_small", pooling="strided", strides=[(1, 3), *[(1, 1)] * 4])
    assert strided.encoder.map_sizes(100, 64)[-1] == (100, 22)
    with pytest.raises(InputError, match=r"test_resnet cannot learn its strides .*one entry per layer \(\d\), got 2"):
        make_classifier(strides=[(2, 2)] * 2)


def test_strides_are_projected_into_their_limits() -> None:
    model = make_classifier(size="paper")
    layers = model.encoder.limited_layers(100, 64)
    assert [sizes for _, sizes in layers] == [n_in for _, n_in, _ in model.encoder.pooled_layers(100, 64)]
    for wanted in (-3.0, 1e6):
        with torch.no_grad():
            for layer, _ in layers:
                layer.strides.fill_(wanted)
        model.project_strides_()
        for layer, n_in in layers:
            assert isinstance(layer, DiffStride2d)
            limits = [axis.limits(n) for axis, n in zip(layer.axes, n_in, strict=True)]
            torch.testing.assert_close(layer.strides.detach(), torch.tensor([e[wanted > 0] for e in limits]))
    with torch.no_grad():
        assert model.classify_spectrogram(noise(1, 100, 64))["word"].isfinite().all()


def test_grey_images_give_what_three_colours_gave() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18().eval()
    weights = theirs.state_dict()
    encoder = ForeignEncoder(name="torchvision:resnet18", n_frames=100, n_mels=64, pooling="strided").eval()
    load_from(encoder, weights)
    theirs.fc = nn.Identity()
    x = noise(2, 1, 100, 64)
    with torch.no_grad():
        # Float32 through 17 convolutions.
        torch.testing.assert_close(encoder(x), theirs(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def load_from(encoder: Any, weights: dict[str, Tensor]) -> list[str]:
    """The notes of loading weights by way of a file."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        torch.save(weights, Path(folder) / "weights.pt")
        return load_encoder_weights_(encoder, Path(folder) / "weights.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_are_those_of_the_file(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    weights = timm.create_model("test_resnet", num_classes=7).state_dict()  # three colours, a classifier
    file = tmp_path / f"w{suffix}"
    save_file(weights, file) if suffix == ".safetensors" else torch.save(weights, file)
    model = make_classifier()
    assert isinstance(model.encoder, ForeignEncoder)
    notes = load_encoder_weights_(model.encoder, file)
    first = next(name for name, tensor in weights.items() if tensor.ndim == 4)
    assert notes == [
        f"weights: {first}, over three colours, is summed to one channel",
        "weights: left out as the classifier: fc.bias, fc.weight",
    ]
    found = model.encoder.network.state_dict()
    for name, tensor in weights.items():
        if name == first:
            torch.testing.assert_close(found[name], tensor.sum(dim=1, keepdim=True))
        elif not name.startswith("fc."):
            assert found[name].equal(tensor), name
    strides = [value for name, value in found.items() if name.endswith("strides")]
    assert len(strides) >= 3
    assert all((value == 2).all() for value in strides)


def test_own_encoders_take_their_state_dict() -> None:
    for pooling in ("strided", "diffstride"):
        own, other = (make_classifier("bcresnet", width=0.5, pooling=each).encoder for each in (pooling, "strided"))
        weights = {name: torch.full_like(tensor, 0.25) for name, tensor in other.state_dict().items()}
        assert load_from(own, weights) == []
        assert own.state_dict()["conv_last.weight"].eq(0.25).all()
        assert len(diffstride_layers(own)) == 3 * (pooling == "diffstride")


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    encoder = make_classifier().encoder
    assert isinstance(encoder, ForeignEncoder)
    weights = {name: tensor for name, tensor in encoder.network.state_dict().items() if "strides" not in name}
    name = list(weights)[-1] if not list(weights)[-1].endswith("tracked") else list(weights)[-2]
    before = encoder.network.state_dict()[name].clone()
    with pytest.raises(InputError, match=rf"every weight of the encoder, got none for {name}; it has "):
        load_from(encoder, {each: tensor for each, tensor in weights.items() if each != name})
    with pytest.raises(InputError, match=rf"1 do not: {name} must be \[\d+\], got \[2, 2\]"):
        load_from(encoder, {**weights, name: torch.zeros(2, 2)})
    assert encoder.network.state_dict()[name].equal(before)
    assert load_from(encoder, {**weights, "x": torch.zeros(1)}) == ["weights: left out as no part of the encoder: x"]
    with pytest.raises(
        InputError, match="must hold a state dict, names with tensors, got a table of state_dict, epoch"
    ):
        load_from(encoder, {"state_dict": weights, "epoch": 3})  # type: ignore[dict-item]
    for name, content in (("a.pt", b"no"), ("a.safetensors", b"no")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="but reading it failed"):
            load_encoder_weights_(encoder, tmp_path / name)
    torch.save(encoder, tmp_path / "whole.pt")  # a pickled module, whose loading would run code
    with pytest.raises(InputError, match=r"must hold tensors and nothing else, .*torch\.save\(network\.state_dict\(\)"):
        load_encoder_weights_(encoder, tmp_path / "whole.pt")
    for name in ("none.pt", "w.bin"):
        with pytest.raises(InputError, match=r"must be a file that exists and ends in \.safetensors, \.pt, \.pth, got"):
            load_encoder_weights_(encoder, tmp_path / name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter and what it imports
def test_onnx_agrees(tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    # Raises where logits differ by more than 1e-3, or top classes do.
    exported = export_classifier(make_classifier(RESNET), tmp_path / "m.onnx", input="log-mel")
    assert (tmp_path / "m.onnx").stat().st_size == exported.n_bytes


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("timm:restnet18", "encoder must be a network that timm knows, got 'restnet18'; did you mean resnet18"),
        ("torchvision:densenet12", "that torchvision knows, got 'densenet12'; did you mean densenet121"),
        ("timm:hf_hub:someone/resnet18", "that timm knows, got 'hf_hub:someone/resnet18'"),  # a download
        ("torchvision:fcn_resnet50", "that torchvision knows, got 'fcn_resnet50'"),  # which gives no classes
        ("torchvision:", r"that torchvision knows, got ''; torchvision\.models\.list_models\(\) lists them"),
        (
            "keras:resnet",
            "encoder must be one of separable, .*, bcresnet, timm:NAME, torchvision:NAME, got 'keras:resnet'",
        ),
    ],
)
def test_names_that_there_are_not_are_refused_with_the_nearest_ones(encoder: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClassifierConfig(tasks=TASKS, encoder=encoder)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("timm:test_vit", "test_vit must take spectrograms of 100 x 64, but fails .*any size, or change --window-s"),
        ("torchvision:squeezenet1_1", "begin with a convolution of 3 channels and end in one linear layer"),
    ],
)
def test_networks_that_do_not_fit_are_refused(encoder: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_classifier(encoder)


def test_settings_without_effect_are_refused() -> None:
    for settings in ({"width": 0.5}, {"channels": (8, 8)}, {"pool_after": "block"}):
        (name,) = settings
        with pytest.raises(InputError, match=f"{name} must be left out with encoder {RESNET}, which has channels"):
            ClassifierConfig(tasks=TASKS, encoder=RESNET, **settings)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="each entry of strides must have one entry per axis"):
        ClassifierConfig(tasks=TASKS, encoder=RESNET, strides=[(2,)])


def test_a_missing_package_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(packages, "import_module", fail)
    for encoder, extra in ((RESNET, "timm"), ("torchvision:resnet18", "vision")):
        with pytest.raises(InputError, match=rf"does not load .*pip install 'audiostride\[{extra}\]'"):
            ClassifierConfig(tasks=TASKS, encoder=encoder)


def test_bad_input_says_what_to_do() -> None:
    encoder = make_classifier().encoder
    with pytest.raises(InputError, match=r"spectrogram must have shape \(B, 1, T, M\), got \(2, 3, 9, 9\); add"):
        encoder(torch.zeros(2, 3, 9, 9))
    with pytest.raises(InputError, match="the block must not be frozen"):
        cutoff_table(make_classifier().freeze())

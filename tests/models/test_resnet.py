"""ResNets: against blocks and networks written out, as classifiers of every kind, in files and as costs."""

import copy
import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import noise
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from audiostride import AudioClassifier, ClassifierConfig, InputError, ResNetEncoder, cutoff_table, load_classifier
from audiostride.models import save_classifier
from audiostride.models.cost import layer_costs, multiply_adds
from audiostride.models.export import export_classifier
from audiostride.models.resnet import ResidualBlock
from audiostride.reporting.measuring import largest_difference, measure_gains
from audiostride.strides.diffstride import DiffStride2d
from audiostride.strides.pooling import diffstride_pool, spectral_pool
from audiostride.strides.pooling_config import PoolingConfig
from audiostride.strides.spectral_pool import SpectralPool2d

TASKS = {"word": ["no", "yes", "up"], "pitch": ["60", "61"]}
RESNETS = ["resnet18", "preact_resnet18"]
FOUR = ((1, 2), (2, 2), (2, 1), (2, 3))
KINDS: list[dict[str, Any]] = [
    {"encoder": encoder, "strides": strides, **pooling}
    for encoder, strides in product(RESNETS, (None, FOUR))
    for pooling in (
        {"pooling": "strided"},
        {"pooling": "spectral"},
        *({"pooling": "diffstride", "size": size} for size in ("paper", "nominal", "folded", "mixed")),
    )
]
KINDS += [
    {"encoder": "resnet18", "pooling": "diffstride", "strides": ((1.3, 2.7), (1.0, 1.6), (2.4, 7.0))},
    {"encoder": "resnet18", "pooling": "diffstride", "shared_strides": True, "max_stride": 3.0},
    {"encoder": "resnet18", "pooling": "strided", "strides": ((1, 1), (2, 2), (2, 2), (2, 2))},
]


def named(kind: dict[str, Any]) -> str:
    return " ".join(str(value) for value in kind.values() if value is not None)


def make_classifier(width: float = 0.06, **settings: Any) -> AudioClassifier:
    """A narrow classifier whose norms have seen a batch of spectrograms, in evaluation mode."""
    torch.manual_seed(0)
    model = AudioClassifier(ClassifierConfig(tasks=TASKS, width=width, **settings))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.classify_spectrogram(noise(6, 100, 64))
    return model.eval()


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_every_parameter_learns_and_sizes_are_those_announced(kind: dict[str, Any]) -> None:
    model = make_classifier(**kind).train()
    maps: list[Tensor] = []
    model.encoder.register_forward_hook(lambda module, inputs, result: maps.append(result))
    logits = model.classify_spectrogram(noise(4, 37, 41))
    assert {task: found.shape for task, found in logits.items()} == {"word": (4, 3), "pitch": (4, 2)}
    sizes = model.encoder.map_sizes(37, 41)
    assert sizes[0] == (37, 41)
    assert maps[0].shape == (4, model.encoder.out_channels, *sizes[-1])
    assert len(sizes) == 1 + len(model.encoder.block_list()) == 1 + len(model.config.strides or ())
    sum((found * noise(*found.shape, seed=1)).sum() for found in logits.values()).backward()  # type: ignore[union-attr]
    names = [name for name, _ in model.named_parameters()]
    assert len(names) >= 60  # 20 weights of convolutions at least, norms and heads
    assert sum("strides" in name for name in names) == (len(sizes) - 1) * (kind["pooling"] == "diffstride")
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_frozen_and_one_by_one_the_numbers_stay(kind: dict[str, Any]) -> None:
    model = make_classifier(**kind)
    spectrogram = noise(3, 100, 64, seed=2)
    frozen = model.freeze()
    assert not any("strides" in name for name, _ in frozen.named_parameters())
    with torch.no_grad():
        logits = model.classify_spectrogram(spectrogram)
        for task, found in frozen.classify_spectrogram(spectrogram).items():
            torch.testing.assert_close(found, logits[task], rtol=0, atol=1e-5)
            singles = [model.classify_spectrogram(each[None])[task] for each in spectrogram]
            # Sums of a few thousand float32 products, in an order that depends on the batch.
            torch.testing.assert_close(torch.cat(singles), logits[task], rtol=1e-5, atol=1e-5)
            assert found.std(dim=0).max() > 1e-3, "not all alike"


@pytest.mark.parametrize("strides", [None, FOUR])
@pytest.mark.parametrize("shape", [(100, 64), (37, 41), (1, 1), (5, 2)])
def test_at_whole_strides_maps_are_those_of_strided_convolution(strides: Any, shape: tuple[int, int]) -> None:
    settings = {} if strides is None else {"strides": strides}
    strided, *others = (
        ResNetEncoder(width=0.03, pooling=pooling, size=size, **settings)  # type: ignore[arg-type]
        for pooling, size in [("strided", "mixed"), *(("diffstride", size) for size in ("nominal", "folded", "mixed"))]
    )
    for other in others:
        assert other.map_sizes(*shape) == strided.map_sizes(*shape)
    spectral = ResNetEncoder(width=0.03, pooling="spectral", **settings).eval()
    assert min(map(min, spectral.map_sizes(*shape))) >= 1  # 1 where the stride is longer than the axis
    assert spectral(noise(1, 1, *shape)).shape[-2:] == spectral.map_sizes(*shape)[-1]


def pool_plainly(block: ResidualBlock, x: Tensor) -> Tensor:
    """A map pooled axis by axis with the functions, mel first."""
    pool = block.pool
    for axis in (1, 0):
        moved = x.movedim(axis + 2, -1)
        if isinstance(pool, SpectralPool2d):
            moved = spectral_pool(moved, (pool.strides[axis],))
        elif isinstance(pool, DiffStride2d):
            stride, settings = pool.strides.expand(2)[axis].reshape(1), pool.axes[axis]
            moved = diffstride_pool(moved, stride, ramp_bins=settings.ramp_bins, size=settings.size)
        x = moved.movedim(-1, axis + 2)
    return x


def plain_order(block: ResidualBlock, x: Tensor) -> Tensor:
    """A residual block as the papers draw it, the 1x1 convolution before the pooling of the shortcut."""

    def norm(layer: nn.BatchNorm2d, maps: Tensor) -> Tensor:
        mean, var = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), keepdim=True, unbiased=False)
        weight, bias = layer.weight[:, None, None], layer.bias[:, None, None]
        return (maps - mean) / (var + layer.eps).sqrt() * weight + bias

    strides = (1, 1) if block.pool is not None else tuple(map(int, block.convolution_strides()))
    first = norm(block.norm_1, x).relu() if block.pre_activation else x
    main = pool_plainly(block, F.conv2d(first, block.conv_1.weight, stride=strides, padding=1))
    shortcut = x
    if block.conv_shortcut is not None:
        shortcut = F.conv2d(first, block.conv_shortcut.weight, stride=strides)
    shortcut = pool_plainly(block, shortcut)
    if block.pre_activation:
        return F.conv2d(norm(block.norm_2, main).relu(), block.conv_2.weight, padding=1) + shortcut
    if block.norm_shortcut is not None:
        shortcut = norm(block.norm_shortcut, shortcut)
    main = norm(block.norm_2, F.conv2d(norm(block.norm_1, main).relu(), block.conv_2.weight, padding=1))
    return (main + shortcut).relu()


@pytest.mark.parametrize("shape", [(12, 9), (13, 16)])
@pytest.mark.parametrize("pre_activation", [False, True])
@pytest.mark.parametrize("project", [True, False])
@pytest.mark.parametrize(
    ("pooling", "size", "shared"),
    [
        ("strided", "mixed", False),
        ("spectral", "mixed", False),
        ("diffstride", "paper", False),
        ("diffstride", "nominal", True),
        ("diffstride", "mixed", False),
        (None, "mixed", False),
    ],
)
def test_blocks_agree_with_the_plain_order(
    pooling: Any, size: Any, shared: bool, project: bool, pre_activation: bool, shape: tuple[int, int]
) -> None:
    if pooling == "strided" and not project:
        pytest.skip("an identity cannot be strided")
    torch.manual_seed(0)
    block = ResidualBlock(
        3,
        5 if project else 3,
        pooling=PoolingConfig(pooling=pooling or "strided", size=size, ramp_bins=3.0, shared_strides=shared),
        strides=None if pooling is None else (2, 3) if pooling == "strided" else (1.6, 1.6 if shared else 2.3),
        project=project,
        pre_activation=pre_activation,
    ).double()
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    plain = copy.deepcopy(block)
    x = torch.randn(4, 3, *shape, dtype=torch.float64)
    inputs = [x.clone().contiguous(memory_format=torch.channels_last).requires_grad_(), x.clone().requires_grad_()]
    result, expected = block(inputs[0]), plain_order(plain, inputs[1])
    assert result.shape == (4, 5 if project else 3, *block.output_size(*shape))
    # Float64 sums of at most 45 products in another order, divided by standard deviations of order 1.
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-11)
    assert inputs[0].detach().equal(x), "what works in place leaves the input alone"
    weights = torch.randn(result.shape, dtype=torch.float64)
    (result * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-8, atol=1e-8)
    for (name, ours), (_, theirs) in zip(block.named_parameters(), plain.named_parameters(), strict=True):
        assert ours.grad is not None, name
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-8, msg=name)


def test_orders_that_are_not_the_same_are_told_apart() -> None:
    encoder = ResNetEncoder(width=0.03, strides=((1.6, 2.3), (2, 2), (2, 2))).double()
    block = encoder.block_list()[0]
    assert block.conv_shortcut is not None
    x = torch.randn(4, block.conv_1.in_channels, 12, 9, dtype=torch.float64)
    pooled_last = pool_plainly(block, F.conv2d(x, block.conv_shortcut.weight))
    pooled_first = F.conv2d(pool_plainly(block, x), block.conv_shortcut.weight)
    torch.testing.assert_close(pooled_last, pooled_first, rtol=0, atol=1e-12)
    # Pooling does not commute with a 3x3 convolution: the zero padding is seen, and shifts are other fractions.
    pooled_last = pool_plainly(block, F.conv2d(x, block.conv_1.weight, padding=1))
    pooled_first = F.conv2d(pool_plainly(block, x), block.conv_1.weight, padding=1)
    assert not torch.allclose(pooled_last, pooled_first, atol=1e-3)


@pytest.mark.parametrize("stem", ["small", "large"])
def test_strided_it_is_the_resnet_18_of_torchvision(stem: Any) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    theirs = models.resnet18()
    if stem == "small":
        theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    ours = ResNetEncoder(in_channels=3, pooling="strided", stem=stem)
    weights = [value for name, value in theirs.state_dict().items() if not name.startswith("fc.")]
    names = list(ours.state_dict())
    assert len(names) == len(weights) == 120  # in the same order, under other names
    ours.load_state_dict(dict(zip(names, weights, strict=True)))
    theirs.fc = nn.Identity()
    x = noise(2, 3, 65, 48)
    maps = ours(x)
    # Float32 through 17 convolutions of up to 4,608 products each, in another order.
    torch.testing.assert_close(maps.mean(dim=(-2, -1)), theirs(x), rtol=1e-4, atol=1e-4)
    assert maps.shape[-2:] == ours.map_sizes(65, 48)[-1]
    assert ours.map_sizes(65, 48)[0] == (65, 48)
    assert ours.pooled_layers(65, 48)[0].n_in == ((65, 48) if stem == "small" else (17, 12))


@pytest.mark.parametrize("channels", [4, 8, 13])
def test_narrow_strided_shortcuts_have_the_right_gradients(channels: int) -> None:
    # As one operation of a strided convolution, these end with a crash or wrong numbers on CPUs.
    torch.manual_seed(0)
    encoder = ResNetEncoder(pooling="strided", channels=(channels, 2 * channels, 16, 16))
    reference, x = copy.deepcopy(encoder).double(), noise(4, 1, 50, 32)
    weights = noise(*encoder(x).shape, seed=1)
    (encoder(x) * weights).sum().backward()
    (reference(x.double()) * weights).sum().backward()
    ours, theirs = (network.blocks[2].conv_shortcut.weight.grad for network in (encoder, reference))  # type: ignore[union-attr]
    # Float32 against float64; ReLUs at zero may switch.
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-2, atol=1e-2 * float(theirs.abs().max()))  # type: ignore[union-attr,operator,arg-type]


@pytest.mark.parametrize("encoder", RESNETS)
def test_strides_are_projected_into_their_limits(encoder: str) -> None:
    model = make_classifier(encoder=encoder, strides=FOUR, size="paper")
    for wanted in (-3.0, 1e6):
        with torch.no_grad():
            for block in model.encoder.block_list():
                block.pool.strides.fill_(wanted)  # type: ignore[union-attr,operator]
        model.project_strides_()
        for block, n_in, _ in model.encoder.pooled_layers(100, 64):
            assert isinstance(block.pool, DiffStride2d)
            limits = [axis.limits(n) for axis, n in zip(block.pool.axes, n_in, strict=True)]
            ends = [low if wanted < 1 else high for low, high in limits]
            torch.testing.assert_close(block.pool.strides.detach(), torch.tensor(ends))
    with torch.no_grad():
        assert model.classify_spectrogram(noise(1, 100, 64))["word"].isfinite().all()


@pytest.mark.parametrize("encoder", RESNETS)
def test_models_survive_their_files(encoder: str, tmp_path: Path) -> None:
    model = make_classifier(encoder=encoder, strides=((1.5, 2.5), (2, 2), (3, 1)))
    save_classifier(model, tmp_path / "m.safetensors")
    loaded = load_classifier(tmp_path / "m.safetensors")
    assert loaded.config == model.config
    assert loaded.config.channels == (64, 128, 256, 512)
    assert encoder in repr(loaded)
    with torch.no_grad():
        x = noise(2, 16000)
        torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=0)


def test_files_of_before_there_were_encoders_are_separable(tmp_path: Path) -> None:
    model = make_classifier()
    config = model.config.to_dict()
    assert config.pop("encoder") == "separable"
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        tmp_path / "m.safetensors",
        {"audiostride": json.dumps({"format": 2, "config": config})},
    )
    loaded = load_classifier(tmp_path / "m.safetensors")
    assert loaded.config == model.config
    with torch.no_grad():
        torch.testing.assert_close(loaded(noise(1, 16000)), model(noise(1, 16000)), rtol=0, atol=0)


@pytest.mark.parametrize("encoder", RESNETS)
def test_heads_see_means_of_maps(encoder: Any) -> None:
    model = make_classifier(encoder=encoder)
    maps = noise(2, model.encoder.out_channels, 5, 3)
    assert model.pool(maps).equal(maps.mean(dim=(-2, -1)))
    other = make_classifier()
    assert other.pool(maps).equal(maps.amax(dim=(-2, -1)))


class FromSpectrogram(nn.Module):
    """A classifier without its frontend, which `layer_costs` leaves out."""

    def __init__(self, model: AudioClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, spectrogram: Tensor) -> dict[str, Tensor]:
        return self.model.classify_spectrogram(spectrogram)


def count(model: nn.Module, x: Tensor) -> int:
    """Multiply-adds that torch counts: half of its operations, a product and a sum each."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_torch_counts_the_same_multiply_adds(kind: dict[str, Any]) -> None:
    model = make_classifier(**kind)
    expected = multiply_adds(model)
    assert count(FromSpectrogram(model.freeze()), noise(2, 100, 64)) == 2 * expected
    assert multiply_adds(model.freeze()) == expected


@pytest.mark.parametrize(("pooling", "stem"), list(product(["strided", "diffstride"], ["small", "large"])))
def test_torch_counts_the_same_for_images(pooling: Any, stem: Any) -> None:
    encoder = ResNetEncoder(in_channels=3, width=0.1, pooling=pooling, stem=stem).eval()
    costs = layer_costs(encoder, 65, 48)
    assert [cost.name for cost in costs] == ["stem", *(f"block {number}" for number in range(1, 9))]
    encoder.freeze_(65, 48)
    assert count(encoder, noise(1, 3, 65, 48)) == sum(cost.total for cost in costs)


def test_costs_by_hand() -> None:
    encoder = ResNetEncoder(pooling="spectral", channels=(2, 3, 5, 7), strides=((2, 4), (1, 1), (1, 1)))
    costs = {cost.name: cost for cost in layer_costs(encoder, 10, 8)}
    assert costs["stem"] == ("stem", 9 * 2 * 80, 0)
    assert costs["block 1"] == ("block 1", 2 * 9 * 4 * 80, 0)
    # 10 x 8 -> 5 x 2: one convolution before, one after; 3 + 2 channels are pooled over time, then over mel.
    weights = 9 * 2 * 3 * 80 + 9 * 3 * 3 * 10 + 2 * 3 * 10
    assert costs["block 3"] == ("block 3", weights, 5 * (10 * 5 * 8 + 8 * 2 * 5))


@pytest.mark.parametrize("kind", KINDS[:6], ids=named)
def test_cutoffs_have_a_row_for_each_layer_and_axis(kind: dict[str, Any]) -> None:
    model = make_classifier(**kind)
    table = cutoff_table(model)
    assert list(zip(table["layer"], table["axis"], strict=True)) == list(product((1, 2, 3), ("time", "mel")))
    assert table["stride"].tolist() == [2.0] * 6
    assert table["n_in"].tolist()[:2] == [100, 64]
    # Half of what is left of the frame rate after each halving, in Hz.
    expected = [rate for size, _ in model.encoder.map_sizes(100, 64)[:-1] for rate in [size / 4]]
    assert table.query("axis == 'time'")["cutoff"].tolist() == expected
    gains = measure_gains(model)
    if kind["pooling"] == "strided":
        assert len(gains) == 0
    else:
        assert sorted(set(gains["layer"])) == [1, 2, 3]
        assert largest_difference(gains) < 1e-4  # of float32 products


def test_cutoffs_behind_a_large_stem_count_its_strides() -> None:
    table = cutoff_table(ResNetEncoder(stem="large", width=0.03)).query("layer == 1").set_index("axis")
    # 100 Hz and 64 bands become 25 and 16 places: a stride of 2 then cuts off at 25 / 4 Hz.
    assert table["n_in"].to_dict() == {"time": 25, "mel": 16}
    assert table["cutoff"].to_dict() == {"time": 6.25, "mel": 0.0625}


def test_a_frozen_model_has_no_strides_to_tell() -> None:
    with pytest.raises(
        InputError, match=r"used_strides: the block must not be frozen, got one for maps of \(100, 64\)"
    ):
        cutoff_table(make_classifier(encoder="resnet18").freeze())


@pytest.mark.filterwarnings("ignore")  # of the exporter and what it imports
@pytest.mark.parametrize("kind", [KINDS[5], KINDS[-4]], ids=named)
def test_onnx_agrees(kind: dict[str, Any], tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    # Raises where logits differ by more than 1e-3, or top classes do.
    exported = export_classifier(make_classifier(**kind), tmp_path / "m.onnx", input="log-mel")
    assert (tmp_path / "m.onnx").stat().st_size == exported.n_bytes
    assert exported.outputs == {"word": "logits_word", "pitch": "logits_pitch"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strides": [(2, 2)] * 2}, r"strides must have 3 pairs \(stages 2 to 4\) or 4 \(all stages\), got 2"),
        ({"strides": [(2, 2)] * 5}, "or 4 .*, got 5"),
        ({"strides": [(2, 2), (2,), (2, 2)]}, "each entry of strides must have one entry per axis"),
        ({"strides": [(2, 2), (0.5, 2), (2, 2)]}, r"strides\[1\]\[0\] must be >= 1 .*, got 0\.5; use 1"),
        ({"channels": (8, 8, 8)}, r"channels must be 4 positive numbers, one per stage, got \(8, 8, 8\)"),
        ({"pooling": "strided", "strides": [(1.5, 2)] * 3}, "strides must be integers, got .*'spectral' or"),
        ({"pooling": "max"}, "pooling must be one of strided, spectral, diffstride, got 'max'"),
    ],
)
def test_bad_settings_say_what_to_do(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ResNetEncoder(width=0.03, **settings)
    with pytest.raises(InputError, match=message):
        AudioClassifier(ClassifierConfig(tasks=TASKS, encoder="resnet18", width=0.03, **settings))


def test_bad_input_says_what_to_do() -> None:
    with pytest.raises(
        InputError, match=r"encoder must be one of separable, resnet18, preact_resnet18, bcresnet, .*got 'vgg'"
    ):
        ClassifierConfig(tasks=TASKS, encoder="vgg")
    with pytest.raises(InputError, match="stem must be one of small, large, got 'huge'"):
        ResNetEncoder(stem="huge")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="channels must be 4 positive numbers"):
        ResNetEncoder(channels=(8, 8, 8, 0))
    with pytest.raises(InputError, match=r"channels\[3\] must be a whole number >= 1, got 0"):
        ClassifierConfig(tasks=TASKS, encoder="resnet18", channels=(8, 8, 8, 0))
    with pytest.raises(InputError, match="in_channels must be a whole number >= 1, got 0"):
        ResNetEncoder(in_channels=0)
    encoder = ResNetEncoder(in_channels=3, width=0.03)
    for shape in ((2, 1, 20, 20), (2, 20, 20)):
        with pytest.raises(
            InputError, match=r"input must have shape \(B, 3, T, M\), got .*; add a missing channel axis"
        ):
            encoder(torch.zeros(*shape))
    with pytest.raises(InputError, match="an axis must have at least 1 bin, got 0"):
        layer_costs(encoder, 0, 8)
    with pytest.raises(InputError, match="the block must have a pooling layer, got none"):
        ResNetEncoder(pooling="strided", width=0.03).block_list()[0].axis_poolings(torch.zeros(1, 1, 8, 8))

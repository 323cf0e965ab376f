"""BC-ResNet: against the published counts and a network written out, as classifiers of every kind, and in files."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import noise
from torch import Tensor, nn
from torch.nn import functional as F

from audiostride import AudioClassifier, BCResNetEncoder, ClassifierConfig, InputError, cutoff_table, load_classifier
from audiostride.models import save_classifier
from audiostride.models.bcresnet import BLOCKS, DILATIONS, BroadcastedBlock, SubSpectralNorm
from audiostride.models.cost import multiply_adds
from audiostride.models.export import export_classifier
from audiostride.reporting.measuring import largest_difference, measure_gains
from audiostride.strides.pooling import pool_axis

TASKS = {"word": ["no", "yes", "up"]}
KINDS: list[dict[str, Any]] = [
    {"pooling": "strided"},
    {"pooling": "spectral"},
    *({"pooling": "diffstride", "size": size} for size in ("paper", "nominal", "folded", "mixed")),
    {"pooling": "diffstride", "strides": ((1.3, 2.7), (1.0, 1.6), (2.4, 4.0))},
    {"pooling": "diffstride", "strides": ((2, 2),) * 3, "shared_strides": True, "max_stride": 3.0},
]


def named(kind: dict[str, Any]) -> str:
    return " ".join(map(str, kind.values()))


def make_classifier(width: float = 0.5, **settings: Any) -> AudioClassifier:
    """A narrow classifier whose norms have seen a batch of spectrograms, in evaluation mode."""
    torch.manual_seed(0)
    model = AudioClassifier(ClassifierConfig(tasks=TASKS, encoder="bcresnet", width=width, **settings))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.classify_spectrogram(noise(6, 100, 64))
    return model.eval()


def test_parameters_are_the_published_ones() -> None:
    # Kim et al. 2021, Table 2, with a linear layer for 12 classes: 9.2 k for BC-ResNet-1, 27.3 k for -2, 54.2 k for -3
    # and 321 k for -8.
    for tau, published in ((1, 9.2), (2, 27.3), (3, 54.2), (8, 321.0)):
        encoder = BCResNetEncoder(pooling="strided", width=tau)
        head = 12 * (encoder.out_channels + 1)
        count = sum(parameter.numel() for parameter in encoder.parameters()) + head
        assert count / 1000 == pytest.approx(published, rel=0.01)


def test_multiply_adds_are_at_most_the_published_ones() -> None:
    # By hand, stage by stage: 40 bands become 20, 10 and 5; the stem has 16 channels, the head 32.
    frames, bins, channels, n_in, size = 100, (20, 20, 10, 5, 5), (16, 8, 12, 16, 20), 16, 20
    expected = 25 * 16 * frames * bins[0]
    for stage in range(1, 5):
        n_out, n_mels = channels[stage], bins[stage]
        expected += n_in * n_out * frames * size
        expected += BLOCKS[stage - 1] * (3 * n_out * frames * n_mels + (3 * n_out + n_out**2) * frames)
        n_in, size = n_out, n_mels
    expected += 25 * 20 * frames + 20 * 32 * frames
    assert multiply_adds(BCResNetEncoder(pooling="strided"), 100, 40) == expected
    # The paper's 3.6 M for 1 s and 12 classes count more than products of convolutions; those are two thirds of it.
    assert 2.4e6 < expected + 32 * 12 < 3.6e6


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_every_parameter_learns_and_sizes_are_those_announced(kind: dict[str, Any]) -> None:
    model = make_classifier(**kind).train()
    maps: list[Tensor] = []
    blocks = [model.encoder.stem, *model.encoder.blocks]  # type: ignore[misc]
    for block in blocks:
        block.register_forward_hook(lambda module, inputs, result: maps.append(result))  # type: ignore[union-attr]
    (logits,) = model.classify_spectrogram(noise(4, 37, 41)).values()
    assert logits.shape == (4, 3)
    sizes = model.encoder.map_sizes(37, 41)
    assert [sizes[0], *(tuple(maps[place].shape[-2:]) for place in (0, 3, 5))] == sizes
    assert len(model.encoder.block_list()) == 3
    (logits * noise(4, 3, seed=1)).sum().backward()
    names = [name for name, _ in model.named_parameters()]
    assert sum("strides" in name for name in names) == 3 * (kind["pooling"] == "diffstride")
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_frozen_one_by_one_and_from_a_file_the_numbers_stay(kind: dict[str, Any], tmp_path: Path) -> None:
    model = make_classifier(**kind)
    spectrogram = noise(3, 100, 64, seed=2)
    save_classifier(model, tmp_path / "m.safetensors")
    loaded = load_classifier(tmp_path / "m.safetensors")
    assert loaded.config == model.config
    frozen = model.freeze()
    assert not any("strides" in name for name, _ in frozen.named_parameters())
    with torch.no_grad():
        logits = model.classify_spectrogram(spectrogram)["word"]
        # Sums of a few hundred float32 products, in an order that depends on the batch.
        torch.testing.assert_close(frozen.classify_spectrogram(spectrogram)["word"], logits, rtol=0, atol=1e-5)
        singles = [model.classify_spectrogram(each[None])["word"] for each in spectrogram]
        torch.testing.assert_close(torch.cat(singles), logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(loaded.classify_spectrogram(spectrogram)["word"], logits, rtol=0, atol=0)
    assert logits.std(dim=0).max() > 1e-3, "not all alike"


@pytest.mark.parametrize("shape", [(100, 64), (100, 40), (37, 41), (5, 9), (1, 1)])
def test_at_whole_strides_maps_are_those_of_strided_convolution(shape: tuple[int, int]) -> None:
    strided = BCResNetEncoder(pooling="strided", width=0.5).eval()
    assert strided(noise(1, 1, *shape)).shape[-1] == max(1, strided.map_sizes(*shape)[-1][1] - 4)
    for size in ("nominal", "folded", "mixed"):
        other = BCResNetEncoder(width=0.5, size=size).eval()  # type: ignore[arg-type]
        assert other.map_sizes(*shape) == strided.map_sizes(*shape)
        assert other(noise(1, 1, *shape)).isfinite().all()


def normed(maps: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    """Batch norm in training, written out."""
    mean, var = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), keepdim=True, unbiased=False)
    return (maps - mean) / (var + layer.eps).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]


@pytest.mark.parametrize("n_mels", [5, 20, 40])
def test_sub_bands_are_normed_on_their_own(n_mels: int) -> None:
    layer = SubSpectralNorm(3).double()
    with torch.no_grad():
        layer.norm.weight.copy_(noise(15)), layer.norm.bias.copy_(noise(15, seed=1))
    x = noise(4, 3, 6, n_mels).double() * torch.linspace(1, 9, n_mels)
    ours = layer(x)
    width = n_mels // 5
    for band, channel in product(range(5), range(3)):
        part = x[:, channel, :, width * band : width * (band + 1)]
        expected = (part - part.mean()) / (part.var(unbiased=False) + layer.norm.eps).sqrt()
        expected = expected * layer.norm.weight[5 * channel + band] + layer.norm.bias[5 * channel + band]
        torch.testing.assert_close(ours[:, channel, :, width * band : width * (band + 1)], expected)


@pytest.mark.parametrize("n_mels", [1, 2, 4, 6, 8, 13, 16, 33])
def test_any_number_of_bins_is_normed_whole_and_in_order(n_mels: int) -> None:
    layer = SubSpectralNorm(1).double().eval()
    x = torch.arange(1.0, n_mels + 1).double().expand(2, 1, 3, n_mels)
    # Without statistics of its own the norm leaves all as it is: no bin is lost, doubled or moved.
    torch.testing.assert_close(layer(x), x / (1 + layer.norm.eps) ** 0.5)
    with torch.no_grad():
        layer.norm.bias.copy_(torch.arange(5))
    bands = (layer(torch.zeros_like(x)))[0, 0, 0]
    assert (bands.diff() >= 0).all()
    assert set(bands.tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    if n_mels >= 5:
        assert set(bands.tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}


@pytest.mark.parametrize("pooling", ["strided", "diffstride", "spectral"])
def test_it_is_the_network_of_the_paper_written_out(pooling: Any) -> None:
    torch.manual_seed(0)
    encoder = BCResNetEncoder(pooling=pooling, width=0.5).double()
    for module in encoder.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    x = noise(3, 1, 30, 40).double()

    def pooled(block: Any, maps: Tensor) -> Tensor:
        """Axis by axis, time first."""
        if block.pool is None:
            return maps
        time, mel = block.axis_poolings(maps)
        return pool_axis(pool_axis(maps, -2, time), -1, mel)

    stem = encoder.stem
    maps = F.conv2d(x, stem.conv.weight, stride=(1, 2 if pooling == "strided" else 1), padding=2)
    maps = normed(pooled(stem, maps), stem.norm).relu()
    dilations = [dilation for dilation, count in zip(DILATIONS, BLOCKS, strict=True) for _ in range(count)]
    for block, dilation in zip(encoder.all_blocks(), dilations, strict=True):
        channels, inner = block.conv_out.out_channels, maps
        if block.conv_in is not None:
            inner = normed(F.conv2d(inner, block.conv_in.weight), block.norm_in).relu()  # type: ignore[arg-type]
        strides = tuple(map(int, block.convolution_strides()))
        inner = F.conv2d(inner, block.conv_mel.weight, stride=strides, padding=(0, 1), groups=channels)
        inner = block.norm_mel(pooled(block, inner))
        temporal = F.conv1d(inner.mean(-1), block.conv_time.weight[..., 0], padding=dilation, dilation=dilation,
                            groups=channels)[..., None]  # fmt: skip
        temporal = normed(temporal, block.norm_time)
        temporal = F.conv2d(temporal * temporal.sigmoid(), block.conv_out.weight)
        maps = (inner + temporal + (maps if block.conv_in is None else 0)).relu()
    maps = F.conv2d(maps, encoder.conv_head.weight, padding=(2, 0), groups=maps.shape[1])
    maps = normed(F.conv2d(maps, encoder.conv_last.weight), encoder.norm_last).relu()
    assert maps.shape == (3, 16, 30, 1)
    # Float64; the order of two poolings and of a kernel's taps differs.
    torch.testing.assert_close(encoder(x), maps, rtol=1e-9, atol=1e-9)


def test_whole_channels_of_the_temporal_part_drop_out_in_training_only() -> None:
    torch.manual_seed(0)
    block = BroadcastedBlock(16, 400, transition=True, dilation=2, pooling=make_pooling(), strides=None)
    seen: list[Tensor] = []
    block.dropout.register_forward_hook(lambda module, inputs, result: seen.append(result))
    block(noise(1, 16, 9, 10))
    silent = (seen[0] == 0).all(dim=2).float().mean()
    assert 0.05 < silent < 0.15  # of 400 channels at a probability of 0.1
    block.eval()(noise(1, 16, 9, 10))
    assert (seen[1] != 0).all()


def make_pooling() -> Any:
    from audiostride.strides.pooling_config import PoolingConfig

    return PoolingConfig(pooling="strided")


def test_strides_are_projected_into_their_limits() -> None:
    model = make_classifier(size="paper")
    for wanted in (-3.0, 1e6):
        with torch.no_grad():
            for block in model.encoder.block_list():
                block.pool.strides.fill_(wanted)  # type: ignore[union-attr,operator]
        model.project_strides_()
        for block, n_in, _ in model.encoder.pooled_layers(100, 64):
            limits = [axis.limits(n) for axis, n in zip(block.pool.axes, n_in, strict=True)]  # type: ignore[union-attr,arg-type]
            ends = [low if wanted < 1 else high for low, high in limits]
            torch.testing.assert_close(block.pool.strides.detach(), torch.tensor(ends))  # type: ignore[union-attr,operator]
    with torch.no_grad():
        assert model.classify_spectrogram(noise(1, 100, 64))["word"].isfinite().all()


@pytest.mark.parametrize("kind", KINDS[:6], ids=named)
def test_cutoffs_have_a_row_for_each_layer_and_axis(kind: dict[str, Any]) -> None:
    model = make_classifier(**kind)
    table = cutoff_table(model)
    assert list(zip(table["layer"], table["axis"], strict=True)) == list(product((1, 2, 3), ("time", "mel")))
    assert table.query("axis == 'mel'")["stride"].tolist() == [2.0] * 3
    gains = measure_gains(model)
    if kind["pooling"] == "strided":
        assert len(gains) == 0
    else:
        assert largest_difference(gains) < 1e-4  # of float32 products


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter and what it imports
def test_onnx_agrees(tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    # Raises where logits differ by more than 1e-3, or top classes do.
    exported = export_classifier(make_classifier(pooling="diffstride"), tmp_path / "m.onnx", input="log-mel")
    assert (tmp_path / "m.onnx").stat().st_size == exported.n_bytes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strides": [(1, 2)] * 2}, r"must have 3 pairs \(stem, stages 2 and 3\), got 2.*strides \(1, 2\) in each"),
        ({"strides": [(1, 2), (2,), (1, 2)]}, "each entry of strides must have one entry per axis"),
        ({"channels": (8, 8, 8)}, r"channels must be 4 positive numbers, one per stage, got \(8, 8, 8\); BC-ResNet-1"),
        ({"pooling": "strided", "strides": [(1.5, 2)] * 3}, "strides must be integers, got .*'spectral' or"),
    ],
)
def test_bad_settings_say_what_to_do(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BCResNetEncoder(**settings)
    with pytest.raises(InputError, match=message):
        AudioClassifier(ClassifierConfig(tasks=TASKS, encoder="bcresnet", **settings))


def test_bad_input_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"spectrogram must have shape \(B, 1, T, M\), got \(2, 3, 9, 9\); add"):
        BCResNetEncoder(width=0.5)(torch.zeros(2, 3, 9, 9))
    with pytest.raises(InputError, match="width must be > 0, got 0"):
        BCResNetEncoder(width=0)

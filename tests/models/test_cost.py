"""Multiply-adds: by hand, and against those that torch counts in the forward pass itself."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, Encoder
from audiostride.models.cost import layer_costs, multiply_adds, smooth_cost, smooth_cost_of
from audiostride.strides.convolution import pays_at_once

STRIDES = [(2, 3), (1, 1), (2, 1)]
KINDS: list[dict[str, Any]] = [
    {"pooling": "strided"},
    *({"pooling": "spectral", "pool_after": place} for place in ("block", "convolution")),
    *(
        {"pooling": "diffstride", "pool_after": place, "size": size}
        for place, size in product(("block", "convolution"), ("paper", "nominal", "folded", "mixed"))
    ),
    {"pooling": "diffstride", "shared_strides": True, "strides": [(2, 2), (1, 1), (3, 3)]},
    {"pooling": "diffstride", "strides": [(1.37, 2.9), (1.0, 1.6), (2.4, 7.0)]},
    {"pooling": "spectral", "strides": [(1.37, 2.9), (1.0, 1.6), (2.4, 7.0)]},
]


def build(kind: dict[str, Any]) -> AudioClassifier:
    # Widths at which both orders of convolution and pooling are cheaper somewhere.
    tasks = {"word": ["no", "yes", "up"], "pitch": ["60", "61"]}
    settings = {"strides": STRIDES, "channels": (6, 40, 9), **kind}
    return AudioClassifier(ClassifierConfig(tasks=tasks, **settings)).eval()


def count(model: torch.nn.Module, x: Tensor) -> int:
    """Multiply-adds that torch counts: half of its operations, a product and a sum each."""

    def in_place(sum_shape: Any, a: Any, b: Any, **_: Any) -> int:
        # FlopCounterMode knows addmm, and not its in-place form, which adds the second and third tap of a kernel.
        return 2 * int(a[0] * a[1] * b[1])

    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place}) as counter:
        model(x)
    operations = counter.get_total_flops()
    assert operations % 2 == 0
    return operations // 2


class FromSpectrogram(torch.nn.Module):
    """A classifier without its frontend, which `layer_costs` leaves out."""

    def __init__(self, model: AudioClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, spectrogram: Tensor) -> dict[str, Tensor]:
        return self.model.classify_spectrogram(spectrogram)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(map(str, kind.values())))
def test_torch_counts_the_same_for_a_frozen_model(kind: dict[str, Any]) -> None:
    model = build(kind)
    expected = multiply_adds(model)
    for batch in (1, 3):
        assert count(FromSpectrogram(model.freeze()), torch.randn(batch, 100, 64)) == batch * expected
    assert multiply_adds(model.freeze()) == expected


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(map(str, kind.values())))
def test_a_model_that_is_not_frozen_builds_its_matrices_once_a_batch_and_nothing_else(kind: dict[str, Any]) -> None:
    model = build(kind)
    one, four = (count(FromSpectrogram(model), torch.randn(batch, 37, 64)) for batch in (1, 4))
    assert four - one == 3 * multiply_adds(model, 37)
    sizes = model.encoder.map_sizes(37, 64)

    class Matrices(torch.nn.Module):
        def forward(self, x: Tensor) -> None:
            for block, size in zip(model.encoder.block_list(), sizes[:-1], strict=True):
                if block.pool is not None:
                    block.axis_poolings(x[..., : size[0], : size[1]])

    built = count(Matrices(), torch.empty(1, 1, 37, 64))
    assert one - multiply_adds(model, 37) == built
    assert (built > 0) == (kind["pooling"] != "strided")


def test_the_comparison_sees_a_stride_that_has_moved() -> None:
    model = build({"pooling": "diffstride"})
    frozen, before = model.freeze(), multiply_adds(model)
    layer = model.encoder.block_list()[0].pool
    with torch.no_grad():
        layer.strides.copy_(torch.tensor([2.0, 2.9]))  # type: ignore[union-attr, operator]
    assert multiply_adds(model) > before
    assert count(FromSpectrogram(frozen), torch.randn(1, 100, 64)) == before


def test_costs_of_two_blocks_by_hand() -> None:
    settings = {"strides": [(2, 2), (1, 4)], "channels": (16, 20)}
    strided, spectral, block = (
        Encoder(pooling=pooling, pool_after=place, **settings)  # type: ignore[arg-type]
        for pooling, place in [("strided", "convolution"), ("spectral", "convolution"), ("spectral", "block")]
    )
    # 10 x 8 -> 5 x 4 -> 5 x 1. Taps x channels in x channels out x places of the result, of which a strided
    # convolution over time has as many mel bins as its input.
    first = 3 * 1 * 16 * (5 * 8) + 3 * 16 * 16 * (5 * 4)
    second = 3 * 16 * 20 * (5 * 4) + 3 * 20 * 20 * (5 * 1)
    assert layer_costs(strided, 10, 8) == [("block 1", first, 0), ("block 2", second, 0)]
    assert multiply_adds(strided, 10, 8) == first + second
    # Pooled at once, but for time in block 2, which stays as long: channels in, out, taps, bins in, out.
    steps = [(1, 16, 3, 10, 5), (16, 16, 3, 8, 4), (16, 20, 3, 5, 5), (20, 20, 3, 4, 1)]
    assert [pays_at_once(*step) for step in steps] == [True, True, False, True]
    pooling_1 = 3 * 1 * (5 * 10) * 8 + 3 * 16 * (4 * 8) * 5
    pooling_2 = 20 * (5 * 5) * 4 + 3 * 20 * (1 * 4) * 5
    assert layer_costs(spectral, 10, 8) == [("block 1", first, pooling_1), ("block 2", second, pooling_2)]
    # Both axes after the block: the first convolution runs on 10 x 8, and time is then pooled in 16 channels.
    longer, pooling_1 = first + 3 * 1 * 16 * (5 * 8), 16 * (5 * 10) * 8 + 3 * 16 * (4 * 8) * 5
    assert layer_costs(block, 10, 8)[0] == ("block 1", longer, pooling_1)


def test_the_papers_network_is_counted_with_its_heads() -> None:
    model = AudioClassifier(ClassifierConfig(tasks={"word": ["no", "yes"], "sex": ["f", "m", "x"]}, pooling="strided"))
    costs = layer_costs(model)
    assert [cost.name for cost in costs] == [*(f"block {number}" for number in range(1, 7)), "head word", "head sex"]
    assert [cost.total for cost in costs[-2:]] == [512 * 2, 512 * 3]
    assert multiply_adds(model) == sum(cost.total for cost in costs) == multiply_adds(model, 100, 64)
    assert multiply_adds(model, n_mels=32) < multiply_adds(model)


@pytest.mark.parametrize("pooling", ["spectral", "diffstride"])
def test_long_axes_count_their_ffts_which_torch_does_not(pooling: Any) -> None:
    n, n_out, n_m, out_m, channels = 1000, 500, 16, 8, 32
    encoder = Encoder(pooling=pooling, size="nominal", strides=[(2, 2)], channels=[channels]).eval()
    [cost] = layer_costs(encoder, n, n_m)
    fft = round(1.25 * (n * math.log2(n) + n_out * math.log2(n_out))) * channels * n_m
    # An axis without a matrix has no single step: the convolution over time runs at its full length.
    assert cost.weights == 3 * channels * (n * n_m) + 3 * channels**2 * (n_out * out_m)
    assert cost.pooling == fft + 3 * channels * (n_m * out_m) * n_out
    encoder.freeze_(n, n_m)
    assert count(encoder, torch.randn(2, 1, n, n_m)) == 2 * (cost.total - fft)


# Encoders of every kind, and strides with which all sizes are whole.
ENCODERS: list[dict[str, Any]] = [
    {"encoder": "resnet18", "width": 0.125},
    {"encoder": "preact_resnet18", "width": 0.125, "size": "paper"},
    {"encoder": "bcresnet"},
    {"encoder": "bcresnet", "strides": [(2, 2), (1, 4), (5, 1)], "head_pooling": "both"},
    {"encoder": "bcresnet", "strides": [(1, 4), (1, 4), (1, 2)]},  # fewer bins than the head's kernel
    {"encoder": "separable", "strides": [(2, 2), (1, 1), (2.5, 4), (1, 1), (4, 2), (1, 1)], "width": 0.125},
]


@pytest.mark.parametrize("pooling", ["strided", "spectral", "diffstride"])
@pytest.mark.parametrize("kind", ENCODERS, ids=lambda kind: " ".join(map(str, kind.values())))
def test_torch_counts_the_same_for_every_encoder(kind: dict[str, Any], pooling: str) -> None:
    strides = kind.get("strides")
    if pooling == "strided" and strides is not None:
        kind = {**kind, "strides": [[round(stride) for stride in pair] for pair in strides]}
    model = build_other({**kind, "pooling": pooling})
    # As far as torch counts it: those of a pooling by FFT are not, and there is none here.
    assert count(FromSpectrogram(model.freeze()), torch.randn(2, 100, 64)) == 2 * multiply_adds(model)


def build_other(kind: dict[str, Any]) -> AudioClassifier:
    torch.manual_seed(0)
    return AudioClassifier(ClassifierConfig(tasks={"word": ["no", "yes", "up"]}, **kind)).eval()


@pytest.mark.parametrize("kind", ENCODERS, ids=lambda kind: " ".join(map(str, kind.values())))
def test_the_smooth_cost_is_the_counted_one_where_sizes_are_whole(kind: dict[str, Any]) -> None:
    model = build_other(kind | {"strides": [(1, 1)] * len(model_strides(kind))})
    layers = [block.pool for block in model.encoder.block_list()]
    n_t, n_m = 1600, 640  # which can be halved often enough, beyond where axes are pooled by FFT
    for strides in product((1.0, 2.0), (1.0, 2.0)):
        with torch.no_grad():
            for layer in layers[:3]:
                layer.strides.copy_(torch.tensor(strides))  # type: ignore[union-attr, operator]
        counted = multiply_adds(model, n_t, n_m)
        # In float32, and FFTs are rounded to whole numbers of multiply-adds.
        assert smooth_cost(model, n_t, n_m).item() == pytest.approx(counted, rel=1e-5)


def model_strides(kind: dict[str, Any]) -> list[Any]:
    return list(ClassifierConfig(tasks={"word": ["no", "yes"]}, **kind).strides)


@pytest.mark.parametrize("kind", [*KINDS[3:-1], *ENCODERS], ids=lambda kind: " ".join(map(str, kind.values())))
def test_the_smooth_cost_has_its_gradient_and_runs_through_the_counted_ones(kind: dict[str, Any]) -> None:
    model = build_other(kind) if "encoder" in kind else build(kind)
    layers = {block.pool: block.pool.strides for block in model.encoder.block_list()}  # type: ignore[union-attr]
    values = {layer: stride.detach().double().requires_grad_() for layer, stride in layers.items()}

    def cost() -> Tensor:
        return smooth_cost_of(model)(values)

    gradients = torch.autograd.grad(cost(), list(values.values()))
    for value, gradient in zip(values.values(), gradients, strict=True):
        for index in range(len(value)):
            found = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    value[index] += step
                    found.append(cost().item())
                    value[index] -= step
            assert (found[0] - found[1]) / 2e-5 == pytest.approx(gradient[index].item(), rel=1e-4, abs=1)
    # Sizes are rounded up (the paper's down) by less than a bin on either axis behind every layer.
    assert 0.7 < cost().item() / multiply_adds(model) < 1.1


def test_bad_input_says_what_to_do() -> None:
    with pytest.raises(InputError, match="n_frames and n_mels must be given for an Encoder, got 100 and None; 1 s"):
        layer_costs(Encoder(), 100)
    with pytest.raises(InputError, match="model must be an AudioClassifier or an Encoder, got Linear"):
        multiply_adds(torch.nn.Linear(1, 1), 100, 64)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="an axis must have at least 1 bin, got 0"):
        layer_costs(build({"pooling": "diffstride"}), 0)
    with pytest.raises(InputError, match="sizes it was frozen for"):
        multiply_adds(build({"pooling": "diffstride"}).freeze(), 50)

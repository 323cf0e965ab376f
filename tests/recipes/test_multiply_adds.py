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
from audiostride.strides.convolution import pays_at_once
from lab.multiply_adds import layer_costs, multiply_adds

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


def test_bad_input_says_what_to_do() -> None:
    with pytest.raises(InputError, match="n_frames and n_mels must be given for an Encoder, got 100 and None; 1 s"):
        layer_costs(Encoder(), 100)
    with pytest.raises(InputError, match="model must be an AudioClassifier or an Encoder, got Linear"):
        multiply_adds(torch.nn.Linear(1, 1), 100, 64)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="an axis must have at least 1 bin, got 0"):
        layer_costs(build({"pooling": "diffstride"}), 0)
    with pytest.raises(InputError, match="sizes it was frozen for"):
        multiply_adds(build({"pooling": "diffstride"}).freeze(), 50)

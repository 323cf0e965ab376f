"""Blocks re-associate convolutions and poolings; the plain order is the reference here."""

import copy

import pytest
import torch
from torch import Tensor

from audiostride.checks import ModelSize, Pooling, PoolingPlace
from audiostride.models.encoder import EncoderBlock
from audiostride.strides.diffstride import DiffStride2d
from audiostride.strides.pooling import diffstride_pool, spectral_pool
from audiostride.strides.pooling_config import PoolingConfig
from audiostride.strides.spectral_pool import SpectralPool2d


def block_of(
    pooling: Pooling, size: ModelSize, shared_strides: bool, pool_after: PoolingPlace = "block", n_in: int = 3
) -> EncoderBlock:
    """A block in float64 with norms that do something."""
    torch.manual_seed(0)
    block = EncoderBlock(
        n_in,
        5,
        pooling=PoolingConfig(
            pooling=pooling, size=size, ramp_bins=3.0, shared_strides=shared_strides, pool_after=pool_after
        ),
        strides=(1.6, 1.6) if shared_strides else (1.6, 2.3),
    ).double()
    for norm in (block.norm_time, block.norm_mel):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
        torch.nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
    return block


def pool_one_axis(block: EncoderBlock, x: Tensor, axis: int) -> Tensor:
    """One axis of the map pooled alone, as the last axis of the functions."""
    moved, pool = x.movedim(axis, -1), block.pool
    if isinstance(pool, SpectralPool2d):
        pooled = spectral_pool(moved, (pool.strides[axis],))
    else:
        assert isinstance(pool, DiffStride2d)
        stride = pool.strides.expand(2)[axis].reshape(1)
        settings = pool.axes[axis]
        pooled = diffstride_pool(moved, stride, ramp_bins=settings.ramp_bins, size=settings.size)
    return pooled.movedim(-1, axis)


def plain_order(block: EncoderBlock, x: Tensor) -> Tensor:
    """Convolution over time, ReLU, norm, convolution over mel, pooling of both axes, ReLU, norm.

    With ``pool_after="convolution"``: convolution, pooling, ReLU and norm over time, then the same over mel.
    """
    if block.pool_after == "convolution":
        x = block.norm_time(pool_one_axis(block, block.conv_time(x), -2).relu())
        result: Tensor = block.norm_mel(pool_one_axis(block, block.conv_mel(x), -1).relu())
        return result
    assert block.pool is not None
    x = block.norm_time(block.conv_time(x).relu())
    result = block.norm_mel(block.pool(block.conv_mel(x)).relu())
    return result


@pytest.mark.parametrize("shape", [(12, 9), (13, 16)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("pool_after", ["block", "convolution"])
@pytest.mark.parametrize("n_in", [1, 3])
@pytest.mark.parametrize(
    ("pooling", "size", "shared"),
    [
        ("diffstride", "paper", False),
        ("diffstride", "nominal", True),
        ("diffstride", "mixed", False),
        ("spectral", "nominal", False),
    ],
)
def test_both_orders_agree(
    pooling: Pooling,
    size: ModelSize,
    shared: bool,
    n_in: int,
    pool_after: PoolingPlace,
    at_once: bool,
    training: bool,
    shape: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Whichever of its two ways convolve_and_pool would take for maps of this size.
    monkeypatch.setattr("audiostride.strides.convolution.pays_at_once", lambda *counts, share: at_once)
    block = block_of(pooling, size, shared, pool_after, n_in).train(training)
    plain = copy.deepcopy(block)
    x = torch.randn(4, n_in, *shape, dtype=torch.float64)
    weights = torch.randn(4, 5, *block.output_size(*shape), dtype=torch.float64)
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    result, expected = block(inputs[0]), plain_order(plain, inputs[1])
    assert result.shape[-2:] == block.output_size(*shape)
    assert (expected.detach() > 0).any()
    # Sums of at most 16 float64 products per step in another order, divided by standard deviations of order 1.
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-11)

    (result * weights).sum().backward()
    (expected * weights).sum().backward()
    # The same for gradients, which are sums over up to 4 * 13 * 16 places.
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-9, atol=1e-9)
    names = [name for name, _ in block.named_parameters()]
    assert ("pool.strides" in names) == (pooling == "diffstride")
    assert len(names) >= 8
    for (name, ours), (_, theirs) in zip(block.named_parameters(), plain.named_parameters(), strict=True):
        assert ours.grad is not None, name
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-9, msg=name)
    for (name, ours), (_, theirs) in zip(block.named_buffers(), plain.named_buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("pool_after", ["block", "convolution"])
def test_evaluation_without_gradients_is_the_same(pool_after: PoolingPlace) -> None:
    # ReLU is in place there, and nothing is kept.
    block = block_of("diffstride", "nominal", False, pool_after).eval()
    x = torch.randn(4, 3, 13, 16, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    before, with_gradients = x.clone(), block(x)
    with torch.no_grad():
        # The same products, perhaps in another order.
        torch.testing.assert_close(block(x), with_gradients, rtol=0, atol=1e-12)
    assert x.equal(before)


def test_the_places_of_pooling_differ() -> None:
    block, x = block_of("diffstride", "nominal", False, "block").eval(), torch.randn(4, 3, 12, 9, dtype=torch.float64)
    other = block_of("diffstride", "nominal", False, "convolution").eval()
    assert block.state_dict().keys() == other.state_dict().keys()
    assert all(value.equal(other.state_dict()[name]) for name, value in block.state_dict().items())
    # ReLU does not commute with pooling.
    assert block(x).shape == other(x).shape
    assert not torch.allclose(block(x), other(x), atol=1e-3)


def test_orders_that_are_not_the_same_are_told_apart() -> None:
    block = block_of("diffstride", "nominal", False).eval()
    x = torch.randn(4, 3, 12, 9, dtype=torch.float64)
    # Pooling over mel does not commute with the convolution over mel: the zero padding is seen.
    swapped = block.conv_mel(block.pool(block.norm_time(block.conv_time(x).relu())))
    assert not torch.allclose(block.norm_mel(swapped.relu()), plain_order(block, x), atol=1e-3)

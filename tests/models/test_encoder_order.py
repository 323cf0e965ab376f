"""The block pools time before its convolution over mel; the plain order is the reference here."""

import copy

import pytest
import torch
from torch import Tensor

from audiostride.checks import Pooling, Size
from audiostride.models.encoder import EncoderBlock


def block_of(pooling: Pooling, size: Size, shared_strides: bool) -> EncoderBlock:
    """A block in float64 with norms that do something."""
    torch.manual_seed(0)
    block = EncoderBlock(
        3,
        5,
        pooling=pooling,
        strides=(1.6, 1.6) if shared_strides else (1.6, 2.3),
        size=size,
        ramp_bins=3.0,
        shared_strides=shared_strides,
        max_stride=None,
    ).double()
    for norm in (block.norm_time, block.norm_mel):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
        torch.nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
    return block


def plain_order(block: EncoderBlock, x: Tensor) -> Tensor:
    """Convolution over time, ReLU, norm, convolution over mel, pooling of both axes, ReLU, norm."""
    x = block.norm_time(block.conv_time(x).relu())
    result: Tensor = block.norm_mel(block.pool(block.conv_mel(x)).relu())
    return result


@pytest.mark.parametrize("shape", [(12, 9), (13, 16)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("pooling", "size", "shared"),
    [("diffstride", "paper", False), ("diffstride", "nominal", True), ("spectral", "nominal", False)],
)
def test_both_orders_agree(pooling: Pooling, size: Size, shared: bool, training: bool, shape: tuple[int, int]) -> None:
    block = block_of(pooling, size, shared).train(training)
    plain = copy.deepcopy(block)
    x = torch.randn(4, 3, *shape, dtype=torch.float64)
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


def test_orders_that_are_not_the_same_are_told_apart() -> None:
    block = block_of("diffstride", "nominal", False).eval()
    x = torch.randn(4, 3, 12, 9, dtype=torch.float64)
    # Pooling over mel does not commute with the convolution over mel: the zero padding is seen.
    swapped = block.conv_mel(block.pool(block.norm_time(block.conv_time(x).relu())))
    assert not torch.allclose(block.norm_mel(swapped.relu()), plain_order(block, x), atol=1e-3)

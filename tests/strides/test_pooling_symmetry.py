"""Pooling treats both signs of a frequency, all axes and all batch entries alike."""

from collections.abc import Callable

import pytest
import torch
from examples import noise_float64 as noise
from torch import Tensor

from audiostride.strides.pooling import diffstride_pool, spectral_pool

Pool = Callable[[Tensor, tuple[float, ...]], Tensor]

POOLS: dict[str, Pool] = {
    "paper": lambda x, strides: diffstride_pool(x, torch.tensor(strides, dtype=torch.float64), ramp_bins=2.0),
    "nominal": lambda x, strides: diffstride_pool(x, torch.tensor(strides, dtype=torch.float64), size="nominal"),
    "spectral": spectral_pool,
}
SHAPES = ((12, 10), (12, 9), (11, 10), (11, 9))

# Everything here compares sums of at most 12 float64 products per axis in two orders.
ATOL = 1e-13


def reverse(x: Tensor, axis: int) -> Tensor:
    """Circular reversal, element t to -t modulo the length: in the Fourier domain k becomes -k."""
    return x.flip(axis).roll(1, axis)


@pytest.fixture(params=list(POOLS))
def pool(request: pytest.FixtureRequest) -> Pool:
    """Each pooling in turn."""
    return POOLS[request.param]


@pytest.mark.parametrize("shape", SHAPES)
def test_circular_reversal_commutes(pool: Pool, shape: tuple[int, int]) -> None:
    x = noise(2, *shape)
    for axis in (-2, -1):
        reversed_first = pool(reverse(x, axis), (1.7, 2.0))
        reversed_last = reverse(pool(x, (1.7, 2.0)), axis)
        torch.testing.assert_close(reversed_first, reversed_last, rtol=0, atol=ATOL)
        # The comparison can fail: a plain flip shifts the grid of the result.
        assert not torch.allclose(pool(x.flip(axis), (1.7, 2.0)), reversed_last)


@pytest.mark.parametrize("shape", SHAPES)
def test_transposes_commute(pool: Pool, shape: tuple[int, int]) -> None:
    x = noise(2, *shape)
    torch.testing.assert_close(pool(x.mT, (2.0, 1.7)), pool(x, (1.7, 2.0)).mT, rtol=0, atol=ATOL)


def test_linearity(pool: Pool) -> None:
    x, y = noise(2, 11, 10), noise(2, 11, 10, seed=1)
    combined = pool(3.0 * x - 0.5 * y, (1.7, 2.0))
    # Three times the values of the other tests.
    torch.testing.assert_close(combined, 3.0 * pool(x, (1.7, 2.0)) - 0.5 * pool(y, (1.7, 2.0)), rtol=0, atol=5 * ATOL)


def test_batch_is_its_singles(pool: Pool) -> None:
    x = noise(4, 3, 11, 10)
    singles = torch.stack([torch.stack([pool(channel, (1.7, 2.0)) for channel in single]) for single in x])
    torch.testing.assert_close(pool(x, (1.7, 2.0)), singles, rtol=0, atol=ATOL)


@pytest.mark.parametrize("leading", [(), (1,), (2,), (2, 3), (2, 1, 3, 2), (0,)])
def test_any_leading_axes(pool: Pool, leading: tuple[int, ...]) -> None:
    x = noise(*leading, 11, 10)
    y = pool(x, (1.7, 2.0))
    flat = pool(x.reshape(-1, 11, 10), (1.7, 2.0))
    assert y.shape[:-2] == leading
    torch.testing.assert_close(y.reshape(flat.shape), flat, rtol=0, atol=ATOL)


def test_non_contiguous_input(pool: Pool) -> None:
    base = noise(11, 3, 10, 2)
    views = {
        "permuted": base.permute(3, 1, 0, 2),
        "strided": noise(2, 3, 22, 20)[..., ::2, 1::2],
        "expanded": noise(1, 1, 11, 10).expand(2, 3, -1, -1),
        "channels last": noise(2, 3, 11, 10).contiguous(memory_format=torch.channels_last),
    }
    assert len(views) == 4
    for name, view in views.items():
        assert not view.is_contiguous(), name
        expected = pool(view.contiguous(), (1.7, 2.0))
        torch.testing.assert_close(pool(view, (1.7, 2.0)), expected, rtol=0, atol=ATOL, msg=name)


def test_one_two_and_three_axes_agree(pool: Pool) -> None:
    x, strides = noise(2, 7, 11, 10), (1.3, 1.7, 2.0)
    whole = pool(x, strides)
    one_by_one = x
    for axis, stride in ((-2, strides[1]), (-1, strides[2]), (-3, strides[0])):  # any order
        one_by_one = pool(one_by_one.movedim(axis, -1), (stride,)).movedim(-1, axis)
    two_and_one = pool(pool(x, strides[1:]).movedim(-3, -1), strides[:1]).movedim(-1, -3)
    torch.testing.assert_close(whole, one_by_one, rtol=0, atol=ATOL)
    torch.testing.assert_close(whole, two_and_one, rtol=0, atol=ATOL)


def test_input_is_not_written(pool: Pool) -> None:
    x = noise(2, 11, 10)
    before = x.clone()
    pool(x, (1.0, 2.0)).add_(1)
    assert x.equal(before)

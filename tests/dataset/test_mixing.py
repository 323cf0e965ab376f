import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiostride.dataset.sampling import BLOCK, SourceOrder, mixing_weights
from audiostride.errors import InputError


def test_policies_share_excerpts_as_they_say() -> None:
    assert mixing_weights([100, 300], "uniform").tolist() == [0.5, 0.5]
    assert mixing_weights([100, 300], "proportional").tolist() == [0.25, 0.75]
    np.testing.assert_allclose(mixing_weights([100, 900], "temperature"), [0.25, 0.75])
    np.testing.assert_allclose(mixing_weights([1, 16], "temperature", temperature=4.0), [1 / 3, 2 / 3])


@given(
    shares=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6),
    first=st.integers(0, 5000),
    count=st.integers(1, 300),
    seed=st.integers(0, 3),
)
def test_the_order_is_a_function_of_seed_and_position(shares: list[float], first: int, count: int, seed: int) -> None:
    weights = np.array(shares) / sum(shares)
    order = SourceOrder(weights, seed=seed)
    sources, draws = order.at(first, count)
    order.at(0, 7)  # in between: no state
    singles = [order.at(first + place, 1) for place in range(count)]
    assert sources.tolist() == [int(source[0]) for source, _ in singles]
    assert draws.tolist() == [int(draw[0]) for _, draw in singles]


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.2, 0.8], [0.1, 0.3, 0.6], [1.0]])
def test_draws_of_a_source_count_up_one_by_one(shares: list[float]) -> None:
    sources, draws = SourceOrder(np.array(shares), seed=1).at(0, 3 * BLOCK)
    for source, share in enumerate(shares):
        own = draws[sources == source]
        assert own.tolist() == list(range(len(own)))
        # A block's counts are rounded to whole numbers, half a draw off at most.
        assert abs(len(own) / len(sources) - share) <= 1 / BLOCK


def test_equal_shares_bring_every_source_once_per_round() -> None:
    sources, _ = SourceOrder(np.full(3, 1 / 3), seed=0).at(0, 300)
    assert np.sort(sources.reshape(100, 3), axis=1).tolist() == [[0, 1, 2]] * 100
    assert len({tuple(row) for row in sources.reshape(100, 3).tolist()}) == 6  # all orders of three


def test_the_smallest_source_is_never_left_out() -> None:
    sources, _ = SourceOrder(np.array([1e-6, 1 - 1e-6]), seed=0).at(0, 2 * BLOCK)
    assert (sources == 0).sum() >= 1


@pytest.mark.parametrize("shares", [[], [0.0, 1.0], [-0.5, 1.5]])
def test_shares_must_be_positive(shares: list[float]) -> None:
    with pytest.raises(InputError, match=r"SourceOrder: shares must be > 0, 1 to 1024 of them"):
        SourceOrder(np.array(shares), seed=0)


def test_uniform_is_over_tasks_in_rounds_as_short_as_shares_allow() -> None:
    shares = mixing_weights([900, 10, 40], "uniform", n_tasks=[2, 1, 1])
    assert shares.tolist() == [0.5, 0.25, 0.25]
    order = SourceOrder(shares, seed=1)
    for start in range(0, 40, 4):
        sources, _ = order.at(start, 4)
        assert np.bincount(sources).tolist() == [2, 1, 1]
    drawn = np.concatenate([SourceOrder(shares, seed=1).at(start, 1)[1] for start in range(20)])
    assert np.array_equal(drawn, order.at(0, 20)[1])
    odd = mixing_weights([900, 10, 40], "temperature", n_tasks=[2, 1, 1], temperature=1.7)
    counts = np.bincount(SourceOrder(odd, seed=1).at(0, 1024)[0])
    assert np.abs(counts / 1024 - odd).max() <= 1 / 1024

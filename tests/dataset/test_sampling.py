"""The orders of clips and sources: each gets its share, and a position is all they depend on; weights in the loss."""

import pickle
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audiostride.dataset.sampling import BLOCK, ClipOrder, SourceOrder, class_weights, source_shares
from audiostride.errors import InputError

# The same examples in every run; a run on a busy machine is not a failure.
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)

# Units as users have them: any numbers, also negative ones and with gaps, in any order.
some_units = st.lists(st.integers(-3, 4), min_size=1, max_size=12).map(lambda units: np.array(units, dtype=np.int64))
seeds = st.integers(0, 5)


def clip_at(order: ClipOrder, position: int) -> int:
    """One clip, worked out for its position alone."""
    round_, place = divmod(position, len(order._sizes))
    unit = int(order._units_of_round(round_)[place])
    pass_, draw = divmod(round_, int(order._sizes[unit]))
    return int(order._clips_of_pass(unit, pass_)[draw])


def walk(order: ClipOrder, count: int) -> list[int]:
    """The first clips, one by one."""
    return [clip_at(order, position) for position in range(count)]


def count_generators(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts, from now on, how many random permutations are made."""
    made: Counter[str] = Counter()
    original = np.random.default_rng

    def counted(key: list[int]) -> np.random.Generator:
        made["generators"] += 1
        return original(key)

    monkeypatch.setattr(np.random, "default_rng", counted)
    return made


@PROPERTY
@given(some_units, seeds)
def test_every_unit_comes_once_per_round_and_every_clip_once_per_pass_of_its_unit(
    units: NDArray[np.int64], seed: int
) -> None:
    names, sizes = np.unique(units, return_counts=True)
    cycle = int(np.lcm.reduce(sizes))  # rounds after which every unit has finished whole passes
    clips = np.array(walk(ClipOrder(units, seed=seed), cycle * len(names)))
    rounds = units[clips].reshape(cycle, len(names))
    assert (np.sort(rounds, axis=1) == names).all()
    for name, size in zip(names, sizes, strict=True):
        members = np.flatnonzero(units == name)
        passes = clips[units[clips] == name].reshape(cycle // size, size)
        assert (np.sort(passes, axis=1) == members).all()


@PROPERTY
@given(some_units, seeds, st.integers(0, 200), st.integers(0, 100))
def test_many_at_once_are_those_one_by_one(units: NDArray[np.int64], seed: int, first: int, count: int) -> None:
    clips = ClipOrder(units, seed=seed).clips_at(first, count)
    assert clips.dtype == np.int64
    assert clips.shape == (count,)
    order = ClipOrder(units, seed=seed)
    assert clips.tolist() == [clip_at(order, position) for position in range(first, first + count)]


@PROPERTY
@given(some_units, seeds, st.randoms(use_true_random=False))
def test_a_clip_depends_on_seed_and_position_alone(
    units: NDArray[np.int64], seed: int, shuffler: random.Random
) -> None:
    expected = walk(ClipOrder(units, seed=seed), 60)
    order, positions = ClipOrder(units, seed=seed), list(range(60))
    shuffler.shuffle(positions)
    for position in positions:
        assert clip_at(order, position) == expected[position]
        start = max(0, position - 7)
        assert order.clips_at(start, 11).tolist() == ClipOrder(units, seed=seed).clips_at(start, 11).tolist()


def test_a_copy_sent_to_a_worker_goes_on_alike() -> None:
    order = ClipOrder(np.arange(100) % 7, seed=3)
    order.clips_at(0, 123)
    copy = pickle.loads(pickle.dumps(order))
    assert copy.clips_at(100, 500).tolist() == ClipOrder(np.arange(100) % 7, seed=3).clips_at(100, 500).tolist()


def test_orders_differ_between_passes_rounds_units_and_seeds() -> None:
    plain = ClipOrder(np.zeros(50, dtype=np.int64), seed=0).clips_at(0, 150).reshape(3, 50)
    other = ClipOrder(np.zeros(50, dtype=np.int64), seed=1).clips_at(0, 50)
    assert len({tuple(row) for row in [*plain, other]}) == 4

    units = np.repeat([0, 1], 50)
    clips = ClipOrder(units, seed=0).clips_at(0, 400)
    first, second = clips[units[clips] == 0], clips[units[clips] == 1] - 50
    assert len({tuple(row) for row in [*first.reshape(-1, 50), *second.reshape(-1, 50)]}) == 8
    rounds = ClipOrder(np.arange(50), seed=0).clips_at(0, 150).reshape(3, 50)
    assert len({tuple(row) for row in rounds}) == 3


def test_each_unit_is_as_likely_to_come_first_in_a_round() -> None:
    units = np.repeat([0, 1, 2], [1, 10, 100])
    first = units[ClipOrder(units, seed=0).clips_at(0, 9000)[::3]]
    # 3000 rounds: a third each, with a standard deviation of 26.
    assert np.abs(np.bincount(first) - 1000).max() < 100


def test_without_balance_the_order_is_that_of_runs_before_there_was_any() -> None:
    """Recorded results name a seed; they stay reproducible."""
    clips = ClipOrder(np.zeros(30, dtype=np.int64), seed=4).clips_at(0, 90).reshape(3, 30)
    for pass_, row in enumerate(clips):
        assert row.tolist() == np.random.default_rng([4, 0, pass_]).permutation(30).tolist()


def test_names_of_units_do_not_matter_but_their_order() -> None:
    by_number = ClipOrder(np.array([5, -2, 5, 9]), seed=0)
    assert walk(by_number, 50) == walk(ClipOrder(np.array([1, 0, 1, 2]), seed=0), 50)


@pytest.mark.parametrize("at_once", [False, True])
def test_a_million_clips_in_one_unit_are_shuffled_once_per_pass(monkeypatch: pytest.MonkeyPatch, at_once: bool) -> None:
    order = ClipOrder(np.zeros(1_000_000, dtype=np.int64), seed=0)
    made = count_generators(monkeypatch)
    steps = [order.clips_at(64 * step, 64).tolist() for step in range(50)] if at_once else [walk(order, 3200)]
    assert len({clip for step in steps for clip in step}) == 3200
    assert made["generators"] == 1


@pytest.mark.parametrize("at_once", [False, True])
def test_a_thousand_units_cost_one_shuffle_per_round_and_one_per_unit_and_pass(
    monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    order = ClipOrder(np.arange(100_000) % 1000, seed=0)
    made = count_generators(monkeypatch)
    if at_once:
        for step in range(100):
            order.clips_at(50 * step, 50)
    else:
        walk(order, 5000)
    assert made["generators"] == 5 + 1000


@pytest.mark.parametrize("at_once", [False, True])
def test_units_of_one_clip_are_not_shuffled(monkeypatch: pytest.MonkeyPatch, at_once: bool) -> None:
    rare = ClipOrder(np.array([0] * 1000 + [1]), seed=0)
    alone = ClipOrder(np.array([0]), seed=0)
    made = count_generators(monkeypatch)
    assert (rare.clips_at(0, 200).tolist() if at_once else walk(rare, 200)).count(1000) == 100
    assert made["generators"] == 100 + 1  # rounds, and the pass of the large unit
    assert (alone.clips_at(0, 200).tolist() if at_once else walk(alone, 200)) == [0] * 200
    assert made["generators"] == 100 + 1


@pytest.mark.parametrize("units", [np.zeros(0, np.int64), np.zeros((2, 2), np.int64), np.zeros(3)])
def test_units_must_be_whole_numbers(units: NDArray[np.int64]) -> None:
    with pytest.raises(InputError, match=r"ClipOrder: units must be whole numbers of shape \(clips,\)"):
        ClipOrder(units, seed=0)


def test_positions_and_seeds_must_not_be_negative() -> None:
    order = ClipOrder(np.zeros(3, dtype=np.int64), seed=0)
    with pytest.raises(InputError, match="clips_at: positions must be >= 0, got -1"):
        order.clips_at(-1, 3)
    with pytest.raises(InputError, match="clips_at: count must be >= 0, got -2"):
        order.clips_at(0, -2)
    with pytest.raises(InputError, match="ClipOrder: seed must be >= 0, got -1"):
        ClipOrder(np.zeros(3, dtype=np.int64), seed=-1)


@PROPERTY
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_class_weights_agree_with_scikit_learn(classes: list[int]) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    indices = np.array(classes)
    weights = class_weights(indices, 10)
    present = np.unique(indices)
    expected = np.zeros(10)
    expected[present] = compute_class_weight("balanced", classes=present, y=indices)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, expected, rtol=1e-6)  # one rounding to float32
    assert weights[indices].astype(np.float64).mean() == pytest.approx(1, rel=1e-6)


def test_classes_of_equal_size_weigh_one() -> None:
    assert class_weights(np.array([0, 1, 2, 2, 1, 0]), 3).tolist() == [1, 1, 1]


def test_class_weights_refuse_what_is_no_class() -> None:
    with pytest.raises(InputError, match=r"class_indices must lie in \[0, n_classes\) = \[0, 3\), got 3"):
        class_weights(np.array([0, 3]), 3)
    with pytest.raises(InputError, match=r"class_indices must lie in .* got -1"):
        class_weights(np.array([0, -1]), 3)
    with pytest.raises(InputError, match="class_indices must be whole numbers"):
        class_weights(np.array([], dtype=np.int64), 3)
    with pytest.raises(InputError, match="n_classes must be a whole number >= 1, got 0"):
        class_weights(np.array([0]), 0)


def test_policies_share_excerpts_as_they_say() -> None:
    assert source_shares([100, 300], "uniform").tolist() == [0.5, 0.5]
    assert source_shares([100, 300], "proportional").tolist() == [0.25, 0.75]
    np.testing.assert_allclose(source_shares([100, 900], "temperature"), [0.25, 0.75])
    np.testing.assert_allclose(source_shares([1, 16], "temperature", temperature=4.0), [1 / 3, 2 / 3])


@PROPERTY
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
    shares = source_shares([900, 10, 40], "uniform", n_tasks=[2, 1, 1])
    assert shares.tolist() == [0.5, 0.25, 0.25]
    order = SourceOrder(shares, seed=1)
    for start in range(0, 40, 4):
        sources, _ = order.at(start, 4)
        assert np.bincount(sources).tolist() == [2, 1, 1]
    drawn = np.concatenate([SourceOrder(shares, seed=1).at(start, 1)[1] for start in range(20)])
    assert np.array_equal(drawn, order.at(0, 20)[1])
    odd = source_shares([900, 10, 40], "temperature", n_tasks=[2, 1, 1], temperature=1.7)
    counts = np.bincount(SourceOrder(odd, seed=1).at(0, 1024)[0])
    assert np.abs(counts / 1024 - odd).max() <= 1 / 1024

"""Temperatures, thresholds and alarms against closed forms and plain loops."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from audiostride.inference.thresholds import (
    WindowScores,
    count_alarms,
    f1_threshold,
    fit_temperature,
    poisson_interval,
    precision_threshold,
    probabilities,
)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("factor", [0.2, 1.0, 7.0])
def test_the_temperature_that_made_logits_too_sure_is_found(several: bool, factor: float) -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((20_000, 5))
    probs = probabilities(logits, several=several)
    if several:
        targets = rng.random(probs.shape) < probs
    else:
        targets = np.eye(5)[(probs.cumsum(axis=1) > rng.random((len(probs), 1))).argmax(axis=1)]
    # The labels were drawn from these logits: divided by the factor that they are too large by, they are right again.
    assert fit_temperature(factor * logits, targets.astype(float), several=several) == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize("n_clips", [8, 100])
def test_few_clips_that_are_all_right_make_no_probability_sure(n_clips: int) -> None:
    targets = np.eye(2)[np.arange(n_clips) % 2]
    for several in (False, True):
        logits = 10.0 * targets - 5.0 * several
        probs = probabilities(logits / fit_temperature(logits, targets, several=several), several=several)
        np.testing.assert_allclose(probs[targets > 0], (n_clips + 1) / (n_clips + 2), rtol=1e-3)


def test_the_temperature_has_limits() -> None:
    logits, targets = np.array([[5.0, 0.0], [0.0, 5.0]]), np.eye(2)
    assert fit_temperature(logits, targets[::-1].copy(), several=False) == pytest.approx(np.exp(3), rel=0.02)


SCORED = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.35, 0.5, 0.8, 0.9]), st.booleans()), min_size=1, max_size=12)


def counts_at(threshold: float, scored: list[tuple[float, bool]]) -> tuple[int, int]:
    """Clips of the class that are taken, and all that are."""
    return sum(truth for score, truth in scored if score >= threshold), sum(score >= threshold for score, _ in scored)


@given(SCORED)
def test_no_other_threshold_has_a_higher_f1(scored: list[tuple[float, bool]]) -> None:
    scores, truth = np.array([score for score, _ in scored]), np.array([truth for _, truth in scored])
    found = f1_threshold(scores, truth)
    if not truth.any():
        assert found is None
        return
    assert found is not None

    def f1(threshold: float) -> float:
        hits, taken = counts_at(threshold, scored)
        return 2 * hits / (taken + int(truth.sum()))

    assert f1(found) == max(f1(threshold) for threshold in np.arange(0.01, 1, 0.02))
    assert not np.isclose(scores, found).any()  # so that rounding does not turn it over


@given(SCORED, st.sampled_from([0.3, 0.5, 0.75, 1.0]))
def test_the_lowest_threshold_of_a_precision(scored: list[tuple[float, bool]], precision: float) -> None:
    scores, truth = np.array([score for score, _ in scored]), np.array([truth for _, truth in scored])
    found = precision_threshold(scores, truth, precision)
    enough = []
    for threshold in np.arange(0.01, 1, 0.02):
        hits, taken = counts_at(threshold, scored)
        enough += [threshold] if hits and hits >= precision * taken else []
    if found is None:
        assert enough == []
    else:
        assert counts_at(found, scored) == counts_at(min(enough), scored)


def loop_alarms(scores: NDArray[np.float64], threshold: float, *, reach: int, least: int) -> int:
    """Events of one class, window by window."""
    runs: list[list[int]] = []
    for window in np.flatnonzero(scores >= threshold).tolist():
        if runs and runs[-1][1] == window - 1:
            runs[-1][1] = window
        else:
            runs.append([window, window])
    events, last = 0, -10_000
    for first, end in runs:
        if end - first + 1 >= least:
            events += first - last > reach
            last = end
    return events


@pytest.mark.parametrize(("hop_s", "gap_s", "least"), [(1, 0, 1), (0.5, 0, 1), (0.25, 0.6, 1), (1, 2, 1), (0.5, 0, 3)])
def test_alarms_are_counted_as_a_loop_does(hop_s: float, gap_s: float, least: int) -> None:
    rng, thresholds = np.random.default_rng(0), np.array([0.2, 0.5, 0.7])
    recordings = [WindowScores(rng.random((n, 3)), n * hop_s, 1.0, hop_s) for n in (1, 2, 40, 90)]
    found = count_alarms(recordings, thresholds, gap_s=gap_s, min_windows=least)
    reach = int((1 + gap_s) / hop_s)
    expected = [
        [sum(loop_alarms(each.scores[:, k], t, reach=reach, least=least) for each in recordings) for k in range(3)]
        for t in thresholds
    ]
    assert found.tolist() == expected
    assert found.max() > 3


@pytest.mark.parametrize("count", [0, 1, 10, 200])
def test_the_poisson_interval_holds_what_it_says(count: int) -> None:
    low, high = poisson_interval(count)
    # At the upper bound so few events, or fewer, come in 2.5 % of cases; at the lower one so many, or more.
    assert scipy.stats.poisson.cdf(count, high) == pytest.approx(0.025)
    assert low == 0 if count == 0 else scipy.stats.poisson.sf(count - 1, low) == pytest.approx(0.025)

"""What a recording has of the logits of its windows: against a plain computation, batch by batch and after a stop."""

import numpy as np
import pytest
from numpy.typing import NDArray

from audiostride.checks import ClipScore
from audiostride.inference.granularity import ClipResult
from audiostride.inference.settings import PredictionSettings
from audiostride.inference.tiling import Tiling
from audiostride.models import ClassifierConfig

LOGITS = np.random.default_rng(0).standard_normal((7, 4))


def make_result(n_windows: int, clip_score: ClipScore) -> ClipResult:
    tiling = Tiling(n_samples=100 * n_windows - 40, window=100, hop=100, sample_rate=100)
    return ClipResult(ClassifierConfig(tasks={"t": list("abcd")}, clip_score=clip_score), tiling, PredictionSettings())


def expected(logits: NDArray[np.float64], clip_score: ClipScore) -> NDArray[np.float64]:
    if clip_score == "mean":
        found: NDArray[np.float64] = np.average(logits, axis=0, weights=[*[1] * (len(logits) - 1), np.float32(0.6)])
        return found
    k = {"max": 1, "top-3": 3}[clip_score]
    return np.stack([np.mean(sorted(column)[-k:]) for column in logits.T])


@pytest.mark.parametrize("clip_score", ["mean", "max", "top-3"])
@pytest.mark.parametrize("n_windows", [1, 2, 7])
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_clip_logits_are_those_of_a_plain_computation(clip_score: ClipScore, n_windows: int, batch: int) -> None:
    result, logits = make_result(n_windows, clip_score), LOGITS[:n_windows]
    for first in range(0, n_windows, batch):
        result.add(first, {"t": logits[first : first + batch]})
        kept = make_result(n_windows, clip_score)  # as where a job is stopped here and goes on
        kept.restore(result.state())
        result = kept
    np.testing.assert_allclose(result.clip_logits()["t"], expected(logits, clip_score), rtol=1e-12)

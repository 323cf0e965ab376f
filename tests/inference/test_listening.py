"""Streams: the events of a file, told while they come, in memory that does not grow."""

import resource
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiostride import AudioClassifier, ClassifierConfig, InputError
from audiostride.inference.granularity import EventResult
from audiostride.inference.listening import ENDLESS, Listener, StreamEvents
from audiostride.inference.settings import PredictionSettings
from audiostride.inference.tiling import Tiling

NETWORK: dict[str, Any] = {"pooling": "strided", "channels": [4], "strides": [[4, 4]]}


def make_model(**tasks: list[str]) -> AudioClassifier:
    """A small classifier that hears something else in each block of noise."""
    torch.manual_seed(0)
    model = AudioClassifier(ClassifierConfig(tasks=tasks, **NETWORK)).eval()
    with torch.no_grad():
        for head in model.heads:
            head.weight.mul_(30)
    return model


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    window=st.integers(1, 12),
    hop=st.integers(1, 12),
    gap=st.integers(0, 20),
    min_windows=st.integers(1, 4),
    threshold=st.sampled_from([0.3, 0.5, 0.8]),
)
def test_a_stream_tells_the_events_of_a_file(
    seed: int, window: int, hop: int, gap: int, min_windows: int, threshold: float
) -> None:
    rng, hop = np.random.default_rng(seed), min(hop, window)
    config = ClassifierConfig(tasks={"a": ["x", "y", "z"], "b": ["p", "q"]}, multi_label=["b"], **NETWORK)
    asked = PredictionSettings(
        granularity="event", threshold=threshold, merge_gap_s=gap / 10, min_windows=min_windows, background=["z"]
    )
    logits = {"a": rng.normal(0, 2, (40, 3)), "b": rng.normal(-1, 2, (40, 2))}
    whole = EventResult(config, Tiling(window + 39 * hop, window, hop, 10), asked)
    whole.add(0, logits)
    stream, found, first = StreamEvents(config, Tiling(ENDLESS, window, hop, 10), asked), [], 0
    while first < 40:
        count = int(rng.integers(1, 6))
        stream.add(first, {task: values[first : first + count] for task, values in logits.items()})
        first = min(40, first + count)
        told = stream.take_ended(first * hop)
        found += told
        # What the windows so far make is told at once where none to come can touch it, and only then.
        so_far = EventResult(config, Tiling(ENDLESS, window, hop, 10), asked)
        so_far.add(0, {task: values[:first] for task, values in logits.items()})
        if min_windows == 1:
            ended = [row for row in so_far.rows() if round(10 * row[1]) + gap < first * hop]
            assert sorted(found) == sorted(ended)
    found += stream.take_ended(10**6)
    assert not any(own for classes in stream.state().values() for own in classes), "all of it is forgotten"
    assert sorted(found) == sorted(whole.rows())


@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0, 7.26])
def test_a_listener_finds_what_predict_finds(seconds: float) -> None:
    model, rng = make_model(kind=["x", "y"]), np.random.default_rng(1)
    samples = rng.standard_normal(round(seconds * 16000)).astype(np.float32)
    samples *= np.repeat(10.0 ** rng.uniform(-4, -0.5, 40), 4000)[: len(samples)].astype(np.float32)
    asked = PredictionSettings(granularity="event", hop_s=0.25, threshold=0.5, merge_gap_s=0.1)
    listener, found = Listener(model, asked), []
    for block in np.split(samples, np.sort(rng.integers(0, len(samples) + 1, 6))):
        found += listener.add(block)
    found += listener.finish()
    assert listener.heard_s == pytest.approx(seconds, abs=1e-4)
    if not seconds:
        assert found == []
        return
    table = model.predict(samples, sample_rate=16000, events=True, hop_s=0.25, threshold=0.5, merge_gap_s=0.1)
    expected = table[["start_s", "end_s", "label", "score"]].values.tolist()
    assert len(expected) >= 1
    assert [[start, end, label] for start, end, _, label, _ in sorted(found)] == [row[:3] for row in expected]
    assert [row[4] for row in sorted(found)] == pytest.approx([row[3] for row in expected], abs=2e-6)


def test_a_listener_wants_events_and_numbers() -> None:
    model = make_model(kind=["x", "y"])
    with pytest.raises(InputError, match="settings must be of events, got granularity window"):
        Listener(model, PredictionSettings(granularity="window"))
    with pytest.raises(InputError, match="hop must lie in"):
        Listener(model, PredictionSettings(granularity="event", hop_s=2.0))
    listener = Listener(model, PredictionSettings(granularity="event"))
    with pytest.raises(InputError, match=r"logits must be finite, got NaN or infinity at 1\.0 s"):
        listener.add(np.full(16000, np.nan, dtype=np.float32))


class Loud(AudioClassifier):
    """Tells loud from quiet, at once."""

    def freeze(self) -> Any:
        return lambda windows: {"kind": torch.stack([windows.std(dim=1) * 20 - 2, torch.zeros(len(windows))], dim=1)}


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss")
def test_three_hours_take_no_more_memory_than_three_minutes() -> None:
    model, rng = Loud(ClassifierConfig(tasks={"kind": ["loud", "quiet"]}, **NETWORK)), np.random.default_rng(0)
    listener = Listener(model, PredictionSettings(granularity="event", min_windows=2, merge_gap_s=0.1))
    block = rng.standard_normal(10 * 16000).astype(np.float32)
    block *= np.repeat([1e-4, 0.3], 5 * 16000).astype(np.float32)
    n_events, after = 0, []
    for minute in range(180):
        for _ in range(6):
            n_events += len(listener.add(block))
        if minute in (2, 179):
            after.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    assert listener.heard_s == 3 * 3600
    assert (n_events, len(listener.finish())) == (2 * 1080 - 1, 1)
    assert after[1] - after[0] < 2, "MiB"

"""Measures of a clip against numpy and plain loops, and the thresholds of faults."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audiostride.dataset.check.audio_facts import AudioFacts, count_flat_top, measure_audio
from audiostride.dataset.check.audio_faults import judge_audio
from audiostride.dataset.check.findings import KINDS, NOTES

PROPERTY = settings(max_examples=80, deadline=None, derandomize=True)
RATE = 16000


def noise(seed: int, n_samples: int = RATE // 2) -> NDArray[np.float32]:
    """In steps of 16 bits, so that every format stores the same."""
    steps = np.round(0.1 * 32768 * np.random.default_rng(seed).standard_normal(n_samples))
    return (steps / 32768).astype(np.float32)


def smooth(seed: int) -> NDArray[np.float32]:
    """Noise whose neighbours are alike, as those of recordings are."""
    return np.convolve(noise(seed), np.hanning(16) / 8, mode="same").astype(np.float32)


FINE = AudioFacts(
    sample_rate=RATE, channels=1, frames=RATE, encoding="WAV PCM_16", n_not_finite=0, peak=0.5, clipped_share=0.0,
    rms=0.1, mean=0.0, swing=0.5, content=b"",
)  # fmt: skip


@pytest.mark.parametrize(
    ("below", "above", "kind"),
    [
        ({"frames": 400}, {"frames": 399}, "too-short"),
        ({"swing": 1.01e-4}, {"swing": 0.99e-4}, "silent"),
        ({"clipped_share": 0.00099}, {"clipped_share": 0.001}, "some-clipping"),
        ({"clipped_share": 0}, {"clipped_share": 0.01}, "clipped"),
        ({"peak": 1.0}, {"peak": 1.001}, "overshoot"),
        ({"peak": 1.0}, {"peak": 2.001}, "beyond-full-scale"),
        ({"mean": -0.1}, {"mean": -0.101}, "dc-offset"),
        ({"mean": 0.2, "frames": 3999}, {"mean": 0.2, "frames": 4000}, "dc-offset"),
        ({"above_band": False}, {"above_band": True}, "outside-band"),
        ({"n_not_finite": 0}, {"n_not_finite": 1}, "not-finite"),
    ],
)
def test_thresholds(below: dict[str, float], above: dict[str, float], kind: str) -> None:
    assert judge_audio(replace(FINE, **below), name="a.wav", line=7) == []  # type: ignore[arg-type]
    [finding] = judge_audio(replace(FINE, **above), name="a.wav", line=7)  # type: ignore[arg-type]
    assert (finding.kind, finding.lines) == (kind, [7])
    assert "a.wav" in finding.message
    assert kind in {**KINDS, **NOTES}


def measure(samples: NDArray[np.float32], cuts: list[int] | None = None) -> AudioFacts:
    blocks = np.split(samples, sorted(cuts or []))
    return measure_audio(blocks, sample_rate=RATE, channels=samples.shape[1], encoding="WAV FLOAT")


@PROPERTY
@given(
    seed=st.integers(0, 1000), channels=st.integers(1, 3), cuts=st.lists(st.integers(0, 500), max_size=4),
    n_samples=st.integers(1, 500),
)  # fmt: skip
def test_measures_are_those_of_numpy_however_the_clip_is_cut(
    seed: int, channels: int, cuts: list[int], n_samples: int
) -> None:
    samples = noise(seed, n_samples * channels).reshape(n_samples, channels) + np.float32(0.05)
    facts = measure(samples, [min(cut, n_samples) for cut in cuts])
    mono = samples.astype(np.float64).mean(axis=1)
    assert (facts.frames, facts.channels, facts.n_not_finite) == (n_samples, channels, 0)
    assert facts.peak == np.abs(samples).max()
    # Sums of 500 float64 numbers in another order.
    assert facts.mean == pytest.approx(mono.mean(), rel=1e-12)
    assert facts.rms == pytest.approx(np.sqrt(np.mean(mono**2)), rel=1e-12)
    assert facts.swing == np.ptp(mono) / 2
    assert facts.content == measure(samples).content
    louder = samples.copy()
    louder[n_samples // 2] += np.float32(1.01 / 32768)
    assert facts.content != measure(louder).content


def test_absurd_samples_neither_overflow_nor_warn() -> None:
    samples = np.tile(np.array([[3e38, 3e38], [-3e38, 3e38]], dtype=np.float32), (50, 1))
    facts = measure(samples)
    assert facts.peak == pytest.approx(3e38)
    assert np.isfinite([facts.rms, facts.mean, facts.swing]).all()
    samples[3] = np.nan
    assert measure(samples).n_not_finite == 2


def count_slowly(samples: list[float]) -> int:
    """`count_flat_top` one sample at a time."""
    top, low = max(samples), min(samples)
    below = [value for value in samples if value < top]
    if not below or top - low < 32 * (top - max(below)):
        return 0
    count = place = 0
    while place < len(samples):
        end = place
        while end < len(samples) and samples[end] == top:
            end += 1
        beside = [samples[near] for near in (place - 1, end) if 0 <= near < len(samples)]
        if end - place >= 3 and top - min(beside) > 3 * (top - max(below)):
            count += end - place
        place = max(end, place + 1)
    return count


@PROPERTY
@given(values=st.lists(st.integers(-60, 60), min_size=1, max_size=60), top=st.integers(0, 60), repeat=st.integers(1, 4))
def test_flat_tops_are_those_of_a_plain_loop(values: list[int], top: int, repeat: int) -> None:
    samples = [float(min(value, top)) for value in values for _ in range(repeat)]
    assert count_flat_top(np.array(samples, dtype=np.float32)) == count_slowly(samples)


@PROPERTY
@given(
    frequency_hz=st.floats(20, 4000), amplitude=st.floats(0.01, 0.999), bits=st.sampled_from([8, 12, 16, 24]),
    rate=st.sampled_from([8000, 16000, 48000]), phase=st.floats(0, 6),
)  # fmt: skip
def test_the_rounded_peaks_of_a_tone_are_not_clipping(
    frequency_hz: float, amplitude: float, bits: int, rate: int, phase: float
) -> None:
    wave = amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(4000) / rate + phase)
    steps = 2.0 ** (bits - 1)
    assert count_flat_top((np.round(wave * steps) / steps).astype(np.float32)) / 4000 < 0.001


def test_a_flat_top_of_three_rounded_samples_is_not_clipping() -> None:
    """A tone of few different values, beside whose peaks three steps are lost in one sample."""
    wave = 0.05 * np.sin(2 * np.pi * 220 * np.arange(48000) / 48000 + 0.3)
    samples = (np.round(wave * 32768) / 32768).astype(np.float32)
    at_top = samples == samples.max()
    assert (at_top[:-2] & at_top[1:-1] & at_top[2:]).any()
    assert count_flat_top(samples) == count_flat_top(-samples) == 0


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8", "ALAW", "ULAW"])
@pytest.mark.parametrize("level", [1.0, 0.3])
def test_a_wave_that_was_cut_off_is_clipped_in_every_encoding(tmp_path: Path, subtype: str, level: float) -> None:
    wave = 0.9 * level * smooth(3) / np.abs(smooth(3)).max()
    cut = np.clip(4 * wave, -level, level)
    shares = []
    for number, samples in enumerate((wave, cut)):
        file = tmp_path / f"{number}.wav"
        soundfile.write(str(file), samples, RATE, subtype=subtype)
        blocks = [soundfile.read(str(file), dtype="float32", always_2d=True)[0]]
        shares.append(measure_audio(blocks, sample_rate=RATE, channels=1, encoding=subtype).clipped_share)
    truth = np.mean(np.abs(4 * wave) >= level)
    assert shares[0] < 0.001
    # What is cut off in runs of one or two samples is no flat top, and logarithmic codes have few steps to see a slope.
    assert truth * (0.6 if subtype in ("ALAW", "ULAW") else 0.85) < shares[1] <= 1.1 * truth


def test_a_square_wave_and_a_constant_are_not_clipped() -> None:
    square = np.sign(np.sin(2 * np.pi * 97.3 * np.arange(RATE) / RATE + 0.1)).astype(np.float32)
    assert count_flat_top(square) == 0
    assert count_flat_top(np.full(100, 0.5, dtype=np.float32)) == 0


def tone(hz: float, rate: int, level: float = 0.3) -> NDArray[np.float64]:
    return level * np.sin(2 * np.pi * hz * np.arange(rate // 2) / rate)


@pytest.mark.parametrize("rate", [22050, 44100, 48000, 96000, 384000])
def test_a_clip_almost_whole_above_the_band_is_told_from_others(rate: int) -> None:
    def is_above(mono: NDArray[np.float64], cuts: int = 3) -> bool:
        blocks = np.array_split(mono.astype(np.float32)[:, None], cuts)
        return measure_audio(blocks, sample_rate=rate, channels=1, encoding="WAV FLOAT").above_band

    rng = np.random.default_rng(rate)
    high, low, white = tone(0.45 * rate, rate), tone(1000, rate), rng.standard_normal(rate // 2)
    assert is_above(high)
    assert is_above(tone(8200, rate))
    assert is_above(high + tone(20, rate, 1.0) + 0.1)  # wind and an offset, which nobody listens to
    assert is_above(high + 0.05 * low)  # 0.25 % of the power
    assert is_above(np.concatenate([high, np.zeros(rate)]))
    for audible in (tone(7600, rate), low, high + 0.15 * low, white, np.cumsum(white), high * 0, low + 3 * white):
        assert not is_above(audible)
    assert not is_above(np.concatenate([high, 0.15 * low]), cuts=2)  # in another block
    assert not measure_audio([high.astype(np.float32)[:, None]], sample_rate=16000, channels=1, encoding="").above_band

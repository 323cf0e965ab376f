"""Draws of augmentation: what they are distributed like, and that (seed, step) is all they depend on."""

import ast
import inspect
import itertools
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from audiostride.dataset.noise import NOISES, make_noises
from audiostride.errors import InputError
from audiostride.training.augmentation.drawing import AugmentationConfig, draw_augmentation
from audiostride.training.augmentation.mixup import mix_up
from audiostride.training.augmentation.transforms import add_noise, apply_gain, cut_noise, mask_spectrogram

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)

N_FRAMES, N_MELS, FRAME_S = 100, 64, 0.01
# One kind each, with the names of its draws.
KINDS: list[tuple[dict[str, Any], list[str]]] = [
    ({"gain_db": 6.0}, ["gain_db"]),
    ({"noise_prob": 0.5}, ["noise_snr_db", "noise_pick", "noise_place"]),
    ({"mixup": 0.3}, ["mixup_partner", "mixup_weight"]),
    ({"time_masks": 2}, ["time_mask_starts", "time_mask_lengths"]),
    ({"mel_masks": 3}, ["mel_mask_starts", "mel_mask_lengths"]),
]
EVERYTHING = AugmentationConfig(**{name: value for settings_, _ in KINDS for name, value in settings_.items()})
# Above this a draw is taken to have its distribution; the seed is fixed, so that the test gives the same each time.
LIKELY = 1e-3


def draw(
    config: AugmentationConfig, *, batch_size: int = 8, n_frames: int = N_FRAMES, seed: int = 0, step: int = 0
) -> dict[str, NDArray[Any]]:
    return draw_augmentation(
        config, batch_size=batch_size, n_frames=n_frames, n_mels=N_MELS, frame_s=FRAME_S, seed=seed, step=step
    )


def same(first: dict[str, NDArray[Any]], second: dict[str, NDArray[Any]]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_comparing_draws_can_fail() -> None:
    draws = draw(EVERYTHING)
    assert same(draws, draws)
    assert not same(draws, {})
    assert not same(draws, draws | {"gain_db": draws["gain_db"] + 1})


def test_everything_is_off_by_default() -> None:
    assert draw(AugmentationConfig()) == {}


def test_draws_are_a_function_of_seed_and_step() -> None:
    later = draw(EVERYTHING, step=5)
    for step in range(6):
        draws = draw(EVERYTHING, step=step)
    assert same(later, draws)
    for other in (draw(EVERYTHING, step=4), draw(EVERYTHING, step=5, seed=1)):
        assert other.keys() == draws.keys()
        assert [name for name in draws if np.array_equal(other[name], draws[name])] == []


def test_switching_a_kind_on_leaves_the_others_as_they_are() -> None:
    everything = draw(EVERYTHING, step=3)
    names = [name for _, names in KINDS for name in names]
    assert sorted(everything) == sorted(names)
    for settings_, names in KINDS:
        alone = draw(AugmentationConfig(**settings_), step=3)
        assert list(alone) == names
        assert same(alone, {name: everything[name] for name in names})


def test_no_two_kinds_share_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not among themselves, nor with the order of clips; keys that differ by zeros at their end are one stream."""
    from audiostride.dataset.sampling import ClipOrder

    keys: list[tuple[int, ...]] = []
    original = np.random.default_rng

    def recorded(key: list[int]) -> np.random.Generator:
        keys.append(tuple(np.trim_zeros(np.array(key), "b").tolist()))
        return original(key)

    monkeypatch.setattr(np.random, "default_rng", recorded)
    draw(EVERYTHING, seed=3)
    make_noises(2, 1000, seed=3)
    ClipOrder(np.array([0, 0, 1]), seed=3).clips_at(0, 2)
    assert len(keys) == len(KINDS) + 1 + 2
    assert len(set(keys)) == len(keys)


def test_draws_of_different_kinds_are_independent() -> None:
    """Were kinds drawn from one stream, the loudest examples would also be the noisiest."""
    config = replace(EVERYTHING, mixup=1.0, time_masks=2, mel_masks=2)
    draws = draw(replace(config, noise_prob=1.0), batch_size=2000)
    columns = [draws[name] for name in ("gain_db", "noise_snr_db", "noise_pick", "noise_place", "mixup_weight")]
    columns.append(np.isinf(draw(config, batch_size=2000)["noise_snr_db"]))
    columns += [draws[f"{axis}_mask_{part}"][:, 0] for axis in ("time", "mel") for part in ("starts", "lengths")]
    correlations = np.corrcoef(columns) - np.eye(len(columns))
    # A start is bounded by its length, hence correlated with it by design: -0.06 for time, less for mel. The rest are
    # independent: 2000 examples give a standard deviation of 0.022.
    assert np.abs(correlations).max() < 0.12


def test_gain_is_uniform_in_db() -> None:
    wide = draw(AugmentationConfig(gain_db=6.0, lowest_gain_db=-30.0), batch_size=4000)["gain_db"]
    assert stats.kstest(wide, stats.uniform(-30, 36).cdf).pvalue > LIKELY
    assert "gain_db" not in draw(AugmentationConfig(lowest_gain_db=-30.0), batch_size=4)
    gain_db = draw(AugmentationConfig(gain_db=6.0), batch_size=4000)["gain_db"]
    assert gain_db.dtype == np.float32
    assert np.abs(gain_db).max() <= 6
    assert stats.kstest(gain_db, stats.uniform(-6, 12).cdf).pvalue > LIKELY


def test_noise_is_added_with_its_probability_at_ratios_within_limits() -> None:
    draws = draw(AugmentationConfig(noise_prob=0.25, noise_snr_db=(-5.0, 10.0)), batch_size=4000)
    ratios = draws["noise_snr_db"]
    noisy = np.isfinite(ratios)
    assert ratios.dtype == np.float32
    assert (ratios[~noisy] == np.inf).all()
    assert stats.binomtest(int(noisy.sum()), 4000, 0.25).pvalue > LIKELY
    assert stats.kstest(ratios[noisy], stats.uniform(-5, 15).cdf).pvalue > LIKELY
    for name in ("noise_pick", "noise_place"):
        assert draws[name].dtype == np.float64
        assert 0 <= draws[name].min() < draws[name].max() < 1
        assert stats.kstest(draws[name], stats.uniform().cdf).pvalue > LIKELY


def test_noise_comes_always_and_at_one_ratio_if_asked_for() -> None:
    ratios = draw(AugmentationConfig(noise_prob=1.0, noise_snr_db=(20.0, 20.0)))["noise_snr_db"]
    assert ratios.tolist() == [20] * 8


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixup_weights_are_the_larger_part_of_a_beta_draw(alpha: float) -> None:
    shares = draw(AugmentationConfig(mixup=alpha), batch_size=4000)["mixup_weight"]
    assert shares.dtype == np.float32
    assert shares.min() >= 0.5
    assert shares.max() <= 1
    beta = stats.beta(alpha, alpha)
    # At some points instead of the whole distribution: float32 rounds 4 % of the shares to 1 where alpha is 0.2.
    for edge in (0.6, 0.8, 0.95):
        chance = float(beta.cdf(edge) - beta.cdf(1 - edge))
        assert stats.binomtest(int((shares < edge).sum()), 4000, chance).pvalue > LIKELY


@PROPERTY
@given(st.integers(2, 40), st.integers(0, 1000))
def test_mixup_partners_are_a_permutation_in_which_none_is_its_own(batch_size: int, step: int) -> None:
    partners = draw(AugmentationConfig(mixup=1.0), batch_size=batch_size, step=step)["mixup_partner"]
    assert partners.dtype == np.int64
    assert sorted(partners) == list(range(batch_size))
    assert (partners != np.arange(batch_size)).all()


def test_every_other_example_is_as_likely_a_partner() -> None:
    first = [draw(AugmentationConfig(mixup=1.0), batch_size=4, step=step)["mixup_partner"][0] for step in range(900)]
    counts = np.bincount(first, minlength=4)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > LIKELY


def test_a_single_example_is_its_own_partner() -> None:
    assert draw(AugmentationConfig(mixup=1.0), batch_size=1)["mixup_partner"].tolist() == [0]


def check_masks(starts: NDArray[np.int64], lengths: NDArray[np.int64], *, masks: int, longest: int, n: int) -> None:
    assert starts.shape == lengths.shape == (4000, masks)
    assert starts.dtype == lengths.dtype == np.int64
    assert stats.chisquare(np.bincount(lengths.ravel(), minlength=longest + 1)).pvalue > LIKELY
    assert lengths.max() == longest
    for length in (0, longest):
        starts_of = np.bincount(starts[lengths == length])
        assert len(starts_of) == n - length + 1
        assert stats.chisquare(starts_of).pvalue > LIKELY


def test_masks_have_uniform_lengths_and_lie_inside() -> None:
    config = AugmentationConfig(time_masks=2, time_mask_s=0.07, mel_masks=3, mel_mask_bands=9)
    draws = draw(config, batch_size=4000)
    check_masks(draws["time_mask_starts"], draws["time_mask_lengths"], masks=2, longest=7, n=N_FRAMES)
    check_masks(draws["mel_mask_starts"], draws["mel_mask_lengths"], masks=3, longest=9, n=N_MELS)


def test_a_mask_may_be_as_short_as_a_frame_and_as_long_as_the_window() -> None:
    config = AugmentationConfig(time_masks=4, time_mask_s=0.29)
    assert config.time_mask_s / FRAME_S < 29  # 28.999999999999996
    assert draw(config, batch_size=100)["time_mask_lengths"].max() == 29
    one = draw(AugmentationConfig(time_masks=4, time_mask_s=FRAME_S), batch_size=100)
    assert set(one["time_mask_lengths"].ravel()) == {0, 1}
    all_of_it = AugmentationConfig(time_masks=4, time_mask_s=3 * FRAME_S, mel_masks=4, mel_mask_bands=N_MELS)
    draws = draw(all_of_it, batch_size=500, n_frames=3)
    assert draws["time_mask_lengths"].max() == 3
    assert draws["mel_mask_lengths"].max() == N_MELS
    assert (draws["time_mask_starts"] + draws["time_mask_lengths"] <= 3).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gain_db": 2.0, "lowest_gain_db": 3.0}, r"lowest_gain_db must be at most gain_db \(2 dB\), got 3\.0; -30 is"),
        ({"gain_db": -1.0}, r"gain_db must be >= 0 dB, got -1\.0; use 0 to leave"),
        ({"gain_db": float("nan")}, "gain_db must be a finite number >= 0 dB, got nan"),
        ({"noise_prob": 1.1}, r"noise_prob must be a probability in \[0, 1\], got 1\.1"),
        ({"noise_prob": -0.1}, r"noise_prob must be a probability in \[0, 1\], got -0\.1"),
        ({"noise_snr_db": (3.0, 2.0)}, r"noise_snr_db must be lowest <= highest, in dB, got \(3\.0, 2\.0\)"),
        ({"noise_snr_db": (0.0, float("inf"))}, r"noise_snr_db\[1\] must be a finite number, got inf"),
        ({"noise_snr_db": (1.0, 2.0, 3.0)}, r"noise_snr_db must be two numbers in dB, .* got \(1\.0, 2\.0, 3\.0\)"),
        ({"mixup": -0.2}, r"mixup must be >= 0 \(alpha, no unit\), got -0\.2"),
        ({"time_masks": -1}, "time_masks must be a whole number >= 0, got -1"),
        ({"mel_masks": 1.5}, r"mel_masks must be a whole number >= 0, got 1\.5"),
        ({"time_mask_s": 0.0}, r"time_mask_s must be > 0, got 0\.0"),
        ({"mel_mask_bands": 0}, "mel_mask_bands must be a whole number >= 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"augmentation: {message}"):
        AugmentationConfig(**changes)


def test_every_setting_is_described() -> None:
    tree = ast.parse(inspect.getsource(sys.modules[AugmentationConfig.__module__]))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    body = next(node.body for node in classes if node.name == "AugmentationConfig")
    described = [
        node.target.id
        for node, text in itertools.pairwise(body)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(text, ast.Expr)
    ]
    assert described == [field.name for field in fields(AugmentationConfig)]
    assert len(described) == 9


def test_ratios_from_yaml_are_a_list() -> None:
    assert AugmentationConfig(noise_snr_db=[3, 20]).noise_snr_db == (3.0, 20.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("time_mask_s", [0.004, 0.0099, 1.01])
def test_masks_must_fit_the_spectrogram(time_mask_s: float) -> None:
    with pytest.raises(InputError, match=r"time_mask_s must be from one frame, 0\.01 s, to the window, 1 s, got"):
        draw(AugmentationConfig(time_masks=1, time_mask_s=time_mask_s))
    with pytest.raises(InputError, match="mel_mask_bands must be at most the 64 mel bands, got 65"):
        draw(AugmentationConfig(mel_masks=1, mel_mask_bands=65))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", 0, "batch_size must be a whole number >= 1, got 0"),
        ("n_frames", 0, "n_frames must be a whole number >= 1, got 0"),
        ("n_mels", 0, "n_mels must be a whole number >= 1, got 0"),
        ("frame_s", 0.0, r"frame_s must be > 0, got 0\.0"),
        ("seed", -1, "seed must be >= 0, got -1"),
        ("step", -1, "step must be >= 0, got -1"),
    ],
)
def test_sizes_and_keys_out_of_range_are_refused(name: str, value: float, message: str) -> None:
    sizes: dict[str, Any] = {"batch_size": 2, "n_frames": 9, "n_mels": 9, "frame_s": 0.01, "seed": 0, "step": 0}
    with pytest.raises(InputError, match=f"draw_augmentation: {message}"):
        draw_augmentation(EVERYTHING, **sizes | {name: value})


def slope_db(noise: NDArray[np.float32], edges: Sequence[int]) -> float:
    """Slope of the power density of a noise in dB per octave, by a line through octave bands of its spectrum."""
    density = np.abs(np.fft.rfft(noise.astype(np.float64))) ** 2
    levels_db = [10 * np.log10(density[edge : 2 * edge].mean()) for edge in edges]
    return float(np.polyfit(np.arange(len(edges)), levels_db, 1)[0])


@pytest.mark.parametrize("n_samples", [65536, 50001])
def test_the_noises_go_from_white_to_brown_at_unit_level(n_samples: int) -> None:
    noises = make_noises(5, n_samples, seed=0)
    assert noises.shape == (5, n_samples)
    assert noises.dtype == np.float32
    # Sums of 5e4 squares in float64 of values rounded to float32 (6e-8 each).
    np.testing.assert_allclose(np.sqrt((noises.astype(np.float64) ** 2).mean(axis=1)), 1, rtol=1e-6)
    edges = [2**power for power in range(9, 14)]
    for noise, exponent in zip(noises, [0, 0.5, 1, 1.5, 2], strict=True):
        # The lowest band has 512 bins, hence a level that is right within 0.2 dB; four octaves.
        assert slope_db(noise, edges) == pytest.approx(-10 * np.log10(2) * exponent, abs=0.15)


def test_noises_have_nothing_below_their_lowest_frequency() -> None:
    noise = make_noises(2, 16000, seed=0)[1]  # brown, 60 Hz at 16 kHz: bin 60
    power = np.abs(np.fft.rfft(noise.astype(np.float64))) ** 2
    assert power[:60].sum() < 1e-12 * power.sum()
    assert power[60:120].sum() > 0.3 * power.sum()  # half of it, in the lowest octave
    whole = make_noises(2, 16000, seed=0, lowest=0.0)[1]
    assert abs(whole.mean()) < 1e-6
    assert np.abs(np.fft.rfft(whole))[1] > 1000  # where brown noise is loudest


def test_noises_depend_on_the_seed_alone_and_are_independent() -> None:
    noises = make_noises(4, 8000, seed=1)
    assert np.array_equal(noises, make_noises(4, 8000, seed=1))
    assert not np.array_equal(noises, make_noises(4, 8000, seed=2))
    # 8000 samples, and fewer that count in coloured noise: standard deviations up to 0.06 (brown against near-brown).
    assert np.abs(np.corrcoef(noises) - np.eye(4)).max() < 0.2


def color_noise(white: Tensor, exponent: Tensor, *, lowest: float) -> Tensor:
    """The formula of the noises once more, in torch and in float64."""
    n_samples = white.shape[-1]
    bins = torch.arange(n_samples // 2 + 1, dtype=white.dtype)
    weights = torch.where(bins >= max(1, lowest * n_samples), bins.clamp(min=1) ** (-exponent[:, None] / 2), 0.0)
    colored = torch.fft.irfft(torch.fft.rfft(white) * weights, n=n_samples)
    return colored / colored.square().mean(dim=1, keepdim=True).sqrt()


def test_noises_are_colored_as_tensors_are() -> None:
    """Two versions of one formula, in NumPy and in torch, in float64 and float32."""
    white = np.random.default_rng([3, NOISES]).standard_normal((3, 4001))
    colored = color_noise(torch.from_numpy(white), torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), lowest=0.01)
    # The noises are rounded to float32.
    np.testing.assert_allclose(make_noises(3, 4001, seed=3, lowest=0.01), colored.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("n_noises", "n_samples", "changes", "message"),
    [
        (0, 100, {}, "n_noises must be a whole number >= 1, got 0"),
        (1, 0, {}, "n_samples must be a whole number >= 1, got 0"),
        (1, 100, {"seed": -1}, "seed must be >= 0, got -1"),
        (1, 100, {"lowest": -0.1}, r"lowest must be in \[0, 0\.5\) cycles per sample .* got -0\.1"),
        (1, 100, {"lowest": 0.5}, r"lowest must be in \[0, 0\.5\) cycles per sample .* got 0\.5"),
        (1, 1, {}, r"below a Fourier bin of 1 samples, got 0\.00375"),
    ],
)
def test_noises_that_cannot_be_are_refused(
    n_noises: int, n_samples: int, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"make_noises: .*{message}"):
        make_noises(n_noises, n_samples, **{"seed": 0} | changes)


def test_draws_are_what_the_functions_take() -> None:
    draws = {name: torch.from_numpy(values) for name, values in draw(EVERYTHING, batch_size=6).items()}
    noises = torch.from_numpy(make_noises(4, 4000, seed=0))
    waveform = torch.sin(torch.arange(6 * 1600).reshape(6, 1600) / 7)
    noise = cut_noise(noises, draws["noise_pick"], draws["noise_place"], n_samples=1600)
    varied = apply_gain(waveform, draws["gain_db"])
    noised = add_noise(varied, noise, draws["noise_snr_db"])
    quiet = torch.isinf(draws["noise_snr_db"])
    assert 0 < quiet.sum() < 6
    assert torch.equal((noised == varied).all(dim=1), quiet)
    assert mix_up(noised, draws["mixup_partner"], draws["mixup_weight"]).shape == (6, 1600)
    masks = [draws[f"{axis}_mask_{part}"] for axis in ("time", "mel") for part in ("starts", "lengths")]
    masked = mask_spectrogram(torch.ones(6, N_FRAMES, N_MELS), *masks, fill=0.0)
    shares = (masked == 0).float().mean(dim=(1, 2))
    assert shares.max() > 0.1
    assert shares.max() < 1

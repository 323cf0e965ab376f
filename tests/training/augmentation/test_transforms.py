"""Augmentation against closed forms, loops over examples, and torchaudio."""

import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from audiostride.errors import InputError
from audiostride.training.augmentation.mixup import mix_up, mixed_cross_entropy
from audiostride.training.augmentation.transforms import add_noise, apply_gain, cut_noise, mask_spectrogram

INF = float("inf")
N_EXAMPLES = 5


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def whole(high: int, *shape: int, seed: int = 0) -> Tensor:
    """Whole numbers from 0 to high - 1."""
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def per_example(values: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


GAIN_DB = per_example([0.0, 6.0, -6.0, 3.3, 0.01])
SNR_DB = per_example([5.0, 0.0, INF, -10.0, 40.0])
SHARE = per_example([1.0, 0.5, 0.7, 0.9, 0.0])
PARTNER = torch.tensor([3, 0, 1, 4, 2])
STARTS_T, LENGTHS_T = whole(9, N_EXAMPLES, 2, seed=1), whole(5, N_EXAMPLES, 2, seed=2)
STARTS_M, LENGTHS_M = whole(6, N_EXAMPLES, 3, seed=3), whole(4, N_EXAMPLES, 3, seed=4)
CLASSES, PARTNER_CLASSES = torch.tensor([0, 3, 3, 1, 2]), torch.tensor([1, 3, 0, 1, 3])
WEIGHT = per_example([0.5, 2.0, 0.0, 1.3])

# Every function of a batch, as one of the tensor that it varies and of those with one entry per example.
Varied = Callable[..., Tensor]
FUNCTIONS: dict[str, tuple[Varied, Tensor, tuple[Tensor, ...]]] = {
    "gain": (apply_gain, random(N_EXAMPLES, 17), (GAIN_DB,)),
    "noise": (add_noise, random(N_EXAMPLES, 17), (random(N_EXAMPLES, 17, seed=1), SNR_DB)),
    "mask": (mask_spectrogram, random(N_EXAMPLES, 11, 7), (STARTS_T, LENGTHS_T, STARTS_M, LENGTHS_M)),
    "fill": (
        lambda x, *masks: mask_spectrogram(x, *masks, fill=-2.5),
        random(N_EXAMPLES, 11, 7),
        (STARTS_T, LENGTHS_T, STARTS_M, LENGTHS_M),
    ),
}  # fmt: skip
MIXING: dict[str, tuple[Varied, Tensor, tuple[Tensor, ...]]] = {
    "mixup": (mix_up, random(N_EXAMPLES, 17), (PARTNER, SHARE)),
    "loss": (mixed_cross_entropy, random(N_EXAMPLES, 4), (CLASSES, PARTNER_CLASSES, SHARE)),
    "weighted loss": (
        lambda logits, *rest: mixed_cross_entropy(logits, *rest, weight=WEIGHT),
        random(N_EXAMPLES, 4),
        (CLASSES, PARTNER_CLASSES, SHARE),
    ),
}
ALL = FUNCTIONS | MIXING
every_function = pytest.mark.parametrize("name", list(ALL))


def import_torchaudio() -> ModuleType:
    """torchaudio's functions, or a skip: its builds load beside one version and CUDA of torch only."""
    try:
        return importlib.import_module("torchaudio.functional")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        pytest.skip(f"torchaudio does not import beside torch {torch.__version__}: {error}")


# What holds for all of them


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_a_batch_gives_what_its_examples_give_alone(name: str) -> None:
    function, varied, rest = FUNCTIONS[name]
    batch = function(varied, *rest)
    singles = torch.cat([function(varied[i : i + 1], *(part[i : i + 1] for part in rest)) for i in range(N_EXAMPLES)])
    torch.testing.assert_close(batch, singles, rtol=0, atol=1e-14)  # sums of float64 in another order


@every_function
def test_the_layout_in_memory_does_not_matter(name: str) -> None:
    function, varied, rest = ALL[name]

    def strided(part: Tensor) -> Tensor:
        spaced = torch.stack([part, part], dim=-1).transpose(0, 1).contiguous().transpose(0, 1)[..., 0]
        assert torch.equal(spaced, part)
        return spaced

    one_dimensional = [torch.stack([part, part], dim=-1)[:, 0] for part in rest if part.ndim == 1]
    assert all(not part.is_contiguous() for part in one_dimensional)
    spread = [torch.stack([part, part], dim=-1)[:, 0] if part.ndim == 1 else strided(part) for part in rest]
    assert not strided(varied).is_contiguous()
    torch.testing.assert_close(function(strided(varied), *spread), function(varied, *rest), rtol=0, atol=1e-14)


@every_function
def test_inputs_stay_as_they_are(name: str) -> None:
    function, varied, rest = ALL[name]
    before = [part.clone() for part in (varied, *rest)]
    result = function(varied, *rest)
    result.zero_()
    assert all(torch.equal(part, copy) for part, copy in zip((varied, *rest), before, strict=True))


@every_function
def test_gradients_are_right(name: str) -> None:
    function, varied, rest = ALL[name]
    leaf = varied.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: function(x, *rest), (leaf,))


@pytest.mark.parametrize(
    ("name", "which"), [("gain", 0), ("noise", 0), ("mixup", 1), ("loss", 2), ("weighted loss", 2)]
)
def test_gradients_of_settings_are_right(name: str, which: int) -> None:
    function, varied, rest = ALL[name]
    leaf = torch.where(torch.isinf(rest[which]), 1.0, rest[which]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: function(varied, *rest[:which], x, *rest[which + 1 :]), (leaf,))


@every_function
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_dtype_is_kept_whatever_that_of_the_settings(name: str, dtype: torch.dtype) -> None:
    function, varied, rest = ALL[name]
    expected = function(varied.to(dtype).double(), *rest)
    # Some roundings on values up to 100 (noise at -10 dB: 10).
    tolerance = 20 * torch.finfo(dtype).eps
    for settings_dtype in (torch.float64, torch.float32):
        cast = [part.to(settings_dtype) if part.is_floating_point() else part for part in rest]
        result = function(varied.to(dtype), *cast)
        assert result.dtype == dtype
        # Settings in float32 are off by 6e-8, in dB by 4e-6 at most: 5e-7 of the value.
        both = max(tolerance, 1e-6)
        torch.testing.assert_close(result.double(), expected, rtol=both, atol=both)


@every_function
def test_no_value_is_read_on_the_host(name: str) -> None:
    """Tensors without values: reading one, or a shape that depends on one, fails."""
    function, varied, rest = ALL[name]
    if name == "weighted loss":
        result = mixed_cross_entropy(*(part.to("meta") for part in (varied, *rest)), weight=WEIGHT.to("meta"))
    else:
        result = function(varied.to("meta"), *(part.to("meta") for part in rest))
    assert result.device.type == "meta"
    assert result.shape == function(varied, *rest).shape
    with pytest.raises((RuntimeError, NotImplementedError)):
        result.sum().item()


@contextmanager
def no_waiting() -> Iterator[None]:
    """An error wherever the host waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_function
def test_a_gpu_gives_the_same_without_waiting(name: str) -> None:
    function, varied, rest = ALL[name]
    if name == "weighted loss":
        weight = WEIGHT.cuda()
        function = lambda logits, *others: mixed_cross_entropy(logits, *others, weight=weight.to(logits.device))  # noqa: E731
    on_gpu = [part.cuda() for part in (varied, *rest)]
    function(*on_gpu)  # libraries load with a wait of their own
    torch.cuda.synchronize()
    with no_waiting():
        result = function(*on_gpu)
    torch.testing.assert_close(result.cpu(), function(varied, *rest), rtol=1e-12, atol=1e-12)  # float64


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_an_empty_batch_stays_empty(name: str) -> None:
    function, varied, rest = FUNCTIONS[name]
    assert function(varied[:0], *(part[:0] for part in rest)).shape == varied[:0].shape


# Gain


def test_gain_has_its_closed_form() -> None:
    waveform = random(4, 101)
    louder = apply_gain(waveform, per_example([0.0, 20.0, -40.0, 20 * math.log10(2)]))
    expected = waveform * torch.tensor([1.0, 10.0, 0.01, 2.0], dtype=torch.float64)[:, None]
    torch.testing.assert_close(louder, expected, rtol=1e-14, atol=0)
    assert torch.equal(louder[0], waveform[0])


# Noise


@pytest.mark.parametrize("n_samples", [1, 2, 101, 1600])
def test_noise_has_the_ratio_that_was_asked_for(n_samples: int) -> None:
    waveform, noise = 0.1 * random(4, n_samples), 300 * random(4, n_samples, seed=1)
    ratios = [30.0, 0.0, -7.5, 12.3]
    noised = add_noise(waveform, noise, per_example(ratios)).numpy()
    for clean, added, ratio in zip(waveform.numpy(), noised - waveform.numpy(), ratios, strict=True):
        measured = 10 * np.log10(np.mean(clean**2) / np.mean(added**2))
        assert measured == pytest.approx(ratio, abs=1e-6)  # taking the noise out again costs 1e-15 / 1e-3 of it


def test_noise_agrees_with_torchaudio() -> None:
    functional = import_torchaudio()
    waveform, noise = random(3, 801, dtype=torch.float32), random(3, 801, seed=1, dtype=torch.float32)
    ratios = torch.tensor([20.0, 3.0, -5.0])
    expected = functional.add_noise(waveform, noise, ratios)
    torch.testing.assert_close(add_noise(waveform, noise, ratios), expected, rtol=1e-5, atol=1e-6)  # float32 sums


def test_silent_examples_silent_noise_and_infinite_ratios_change_nothing() -> None:
    waveform, noise = random(4, 50, dtype=torch.float32), random(4, 50, seed=1, dtype=torch.float32)
    waveform[0], noise[1] = 0, 0
    waveform.requires_grad_()
    noise.requires_grad_()
    noised = add_noise(waveform, noise, torch.tensor([10.0, 10.0, INF, 10.0]))
    assert torch.equal(noised[:3], waveform[:3])
    assert not torch.equal(noised[3], waveform[3])
    for gradient in torch.autograd.grad(noised.square().sum(), (waveform, noise)):
        assert torch.isfinite(gradient).all()


def test_very_quiet_noise_and_very_loud_signals_stay_finite() -> None:
    """The power of such noise, or the quotient of the powers, is beyond float32."""
    waveform, noise = 32768 * torch.ones(3, 20), torch.zeros(3, 20)
    noise[0], noise[1, 0], noise[2] = 1e-18, 1e-21, 1e-30
    noised = add_noise(waveform, noise, torch.zeros(3))
    assert torch.isfinite(noised).all()
    torch.testing.assert_close(noised[0], 2 * waveform[0])
    assert torch.equal(noised[2], waveform[2])  # its power is 0 in float32: silent


def test_loud_half_precision_does_not_overflow() -> None:
    """300 squared is more than float16 holds."""
    waveform, noise = 300 * random(2, 40).half(), 300 * random(2, 40, seed=1).half()
    expected = add_noise(waveform.double(), noise.double(), torch.zeros(2))
    torch.testing.assert_close(add_noise(waveform, noise, torch.zeros(2)).double(), expected, rtol=4e-3, atol=1.0)


# Excerpts of noise


def test_excerpts_are_cut_as_slices() -> None:
    noises = random(4, 103)
    pick, place = torch.rand(2, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    excerpts = cut_noise(noises, pick, place, n_samples=100)
    starts = set()
    for excerpt, p, q in zip(excerpts, pick.tolist(), place.tolist(), strict=True):
        start = math.floor(q * 4)
        starts.add((math.floor(p * 4), start))
        assert torch.equal(excerpt, noises[math.floor(p * 4), start : start + 100])
    assert len(starts) == 16  # every noise from every start


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_last_share_below_one_cuts_the_last_excerpt(dtype: torch.dtype) -> None:
    noises = random(100_003, 3)
    last = torch.nextafter(torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)).to(dtype)
    assert (last == 1).item() == (dtype == torch.float32)  # rounded up
    assert torch.equal(cut_noise(noises, last, last, n_samples=2), noises[-1:, 1:])


def test_a_whole_noise_may_be_cut_and_a_constant_noise_stays_one() -> None:
    noises = random(3, 10)
    place = per_example([0.0, 0.5, 0.99])
    assert torch.equal(cut_noise(noises, per_example([0.0, 0.4, 0.7]), place, n_samples=10), noises)
    assert cut_noise(noises, place[:0], place[:0], n_samples=4).shape == (0, 4)


# Mixup


def test_mixing_has_its_closed_form() -> None:
    waveform = random(5, 31)
    mixed = mix_up(waveform, PARTNER, SHARE).numpy()
    for i, (partner, share) in enumerate(zip(PARTNER.tolist(), SHARE.tolist(), strict=True)):
        expected = share * waveform[i].numpy() + (1 - share) * waveform[partner].numpy()
        np.testing.assert_allclose(mixed[i], expected, rtol=1e-14)
    assert torch.equal(mix_up(waveform, PARTNER, torch.ones(5)), waveform)
    assert torch.equal(mix_up(waveform, PARTNER, torch.zeros(5)), waveform[PARTNER])


def naive_loss(weight: list[float] | None) -> float:
    logits = MIXING["loss"][1].numpy()
    total = count = 0.0
    for row, a, b, share in zip(logits, CLASSES.tolist(), PARTNER_CLASSES.tolist(), SHARE.tolist(), strict=True):
        log_probs = row - np.log(np.exp(row).sum())
        for k, part in ((a, share), (b, 1 - share)):
            w = 1.0 if weight is None else weight[k]
            total -= part * w * log_probs[k]
            count += part * w
    return float(total / count)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_mixed_loss_agrees_with_a_loop_and_with_torch(weight: Tensor | None) -> None:
    logits = MIXING["loss"][1]
    loss = mixed_cross_entropy(logits, CLASSES, PARTNER_CLASSES, SHARE, weight=weight)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(naive_loss(None if weight is None else weight.tolist()), rel=1e-12)
    # Whole shares: torch's loss, of either classes.
    for share, classes in ((torch.ones(5), CLASSES), (torch.zeros(5), PARTNER_CLASSES)):
        whole = mixed_cross_entropy(logits, CLASSES, PARTNER_CLASSES, share, weight=weight)
        torch.testing.assert_close(whole, F.cross_entropy(logits, classes, weight=weight), rtol=1e-14, atol=0)
    # Halves: each example as one of either class.
    halves = mixed_cross_entropy(logits, CLASSES, PARTNER_CLASSES, torch.full((5,), 0.5), weight=weight)
    twice = F.cross_entropy(torch.cat([logits, logits]), torch.cat([CLASSES, PARTNER_CLASSES]), weight=weight)
    torch.testing.assert_close(halves, twice, rtol=1e-14, atol=0)


def test_mixed_loss_is_that_of_soft_targets() -> None:
    logits, classes, partners, share = MIXING["loss"][1], CLASSES, PARTNER_CLASSES, SHARE[:, None]
    targets = share * F.one_hot(classes, 4) + (1 - share) * F.one_hot(partners, 4)
    expected = F.cross_entropy(logits, targets)
    torch.testing.assert_close(mixed_cross_entropy(logits, classes, partners, SHARE), expected, rtol=1e-14, atol=0)


def test_equal_weights_are_no_weights() -> None:
    logits = MIXING["loss"][1]
    weighted = mixed_cross_entropy(logits, CLASSES, PARTNER_CLASSES, SHARE, weight=torch.full((4,), 3.0))
    torch.testing.assert_close(
        weighted, mixed_cross_entropy(logits, CLASSES, PARTNER_CLASSES, SHARE), rtol=1e-14, atol=0
    )


# Masks


def masked_by_loop(spectrogram: Tensor, fill: float | None) -> np.ndarray:
    result = spectrogram.numpy().copy()
    for i in range(len(result)):
        value = spectrogram[i].numpy().mean() if fill is None else fill
        for start, length in zip(STARTS_T[i].tolist(), LENGTHS_T[i].tolist(), strict=True):
            result[i, start : start + length, :] = value
        for start, length in zip(STARTS_M[i].tolist(), LENGTHS_M[i].tolist(), strict=True):
            result[i, :, start : start + length] = value
    return result


@pytest.mark.parametrize("fill", [None, 0.0, -13.8])
def test_masks_agree_with_a_loop(fill: float | None) -> None:
    spectrogram = 4 + random(N_EXAMPLES, 11, 7)
    result = mask_spectrogram(spectrogram, STARTS_T, LENGTHS_T, STARTS_M, LENGTHS_M, fill=fill)
    np.testing.assert_allclose(result.numpy(), masked_by_loop(spectrogram, fill), rtol=1e-14)
    assert 0 < (result != spectrogram).sum() < spectrogram.numel()


def test_masks_of_one_axis_leave_the_other() -> None:
    spectrogram = random(N_EXAMPLES, 11, 7)
    nothing = torch.zeros(N_EXAMPLES, 0, dtype=torch.int64)
    time = mask_spectrogram(spectrogram, STARTS_T, LENGTHS_T, None, None, fill=0.0)
    assert torch.equal(time, mask_spectrogram(spectrogram, STARTS_T, LENGTHS_T, nothing, nothing, fill=0.0))
    mel = mask_spectrogram(spectrogram, None, None, STARTS_M, LENGTHS_M, fill=0.0)
    assert torch.equal(mel, mask_spectrogram(spectrogram, nothing, nothing, STARTS_M, LENGTHS_M, fill=0.0))
    both = mask_spectrogram(spectrogram, STARTS_T, LENGTHS_T, STARTS_M, LENGTHS_M, fill=0.0)
    assert torch.equal(both, torch.where(time == 0, time, mel))
    assert torch.equal(mask_spectrogram(spectrogram, None, None, None, None), spectrogram)


def test_a_constant_spectrogram_is_its_own_mean() -> None:
    spectrogram = torch.full((2, 9, 8), -3.0)
    starts, lengths = torch.zeros(2, 1, dtype=torch.int64), torch.full((2, 1), 100)  # beyond the end
    assert torch.equal(mask_spectrogram(spectrogram, starts, lengths, starts, lengths), spectrogram)


# Errors

X, V = torch.zeros(2, 8), torch.zeros(2)
P, C = torch.zeros(2, dtype=torch.int64), torch.zeros(2, 3)
S, J = torch.zeros(2, 6, 5), torch.zeros(2, 1, dtype=torch.int64)
ERRORS: list[tuple[Callable[[], Tensor], str]] = [
    (lambda: apply_gain(X[0], V), r"apply_gain: waveform must be floating-point of shape \(B, samples\) .* \(8,\)"),
    (lambda: apply_gain(X.long(), V), "apply_gain: waveform must be floating-point .* got torch.int64"),
    (lambda: apply_gain(X[:, :0], V), r"apply_gain: waveform .* at least 1 sample, got .* of shape \(2, 0\)"),
    (lambda: apply_gain(X, V[:1]), r"apply_gain: gain_db must have one entry per example, shape \(2,\), got \(1,\)"),
    (lambda: add_noise(X[None], X[None], V), r"add_noise: waveform must .* got torch.float32 of shape \(1, 2, 8\)"),
    (lambda: add_noise(X, X[:1], V), r"add_noise: noise must have the shape of the waveform, \(2, 8\), got \(1, 8\)"),
    (lambda: add_noise(X, X, V[0]), r"add_noise: snr_db must have one entry per example, shape \(2,\), got \(\)"),
    (lambda: cut_noise(X[0], V, V, n_samples=3), r"cut_noise: noises must be floating-point of shape"),
    (lambda: cut_noise(X, V, V[:1], n_samples=3), r"cut_noise: place must have one entry per example, shape \(2,\)"),
    (lambda: cut_noise(X, V[0], V, n_samples=3), r"cut_noise: pick must have one entry per example"),
    (lambda: cut_noise(X, V, V, n_samples=9), r"cut_noise: n_samples must be in \[1, 8\], .* got 9; make longer"),
    (lambda: cut_noise(X, V, V, n_samples=0), r"cut_noise: n_samples must be in \[1, 8\], .* got 0"),
    (lambda: cut_noise(X[:0], V, V, n_samples=3), r"the length of each of the 0 noises, got 3"),
    (lambda: mix_up(X[0], P, V), r"mix_up: waveform must be floating-point of shape \(B, samples\)"),
    (lambda: mix_up(X, torch.cat([P, P]), V), r"mix_up: partner must have one entry per example"),
    (lambda: mix_up(X, P, V[:1]), r"mix_up: mixup_weight must have one entry per example"),
    (lambda: mix_up(X, P.bool(), V), r"mix_up: partner must be int64, got torch.bool; use .long\(\)"),
    (lambda: mixed_cross_entropy(X[0], P, P, V), r"mixed_cross_entropy: logits must .* \(B, K\), got .* shape \(8,\)"),
    (lambda: mixed_cross_entropy(C.long(), P, P, V), r"logits must be floating-point .* got torch.int64"),
    (lambda: mixed_cross_entropy(C, P[:1], P, V), r"mixed_cross_entropy: classes must have one entry per example"),
    (lambda: mixed_cross_entropy(C, P, C, V), r"partner_classes must have one entry per example, .* got \(2, 3\)"),
    (lambda: mixed_cross_entropy(C, P, P, V[:1]), r"mixed_cross_entropy: mixup_weight must have one entry per example"),
    (lambda: mixed_cross_entropy(C, V, P, V), r"mixed_cross_entropy: classes must be int64, got torch.float32"),
    (lambda: mixed_cross_entropy(C, P, V, V), r"mixed_cross_entropy: partner_classes must be int64"),
    (lambda: mixed_cross_entropy(C, P, P, V, weight=V), r"weight must have one entry per class, .* got \(2,\)"),
    (lambda: mask_spectrogram(C, J, J, J, J), r"spectrogram must be .* \(B, T, M\), got .* of shape \(2, 3\)"),
    (lambda: mask_spectrogram(S.long(), J, J, J, J), r"mask_spectrogram: spectrogram must be floating-point"),
    (lambda: mask_spectrogram(S, J, None, J, J), r"time_starts and time_lengths must both .* got \(2, 1\) and None"),
    (lambda: mask_spectrogram(S, None, J, J, J), r"time_starts and time_lengths must both .* got None and \(2, 1\)"),
    (lambda: mask_spectrogram(S, J, J, J, J[:1]), r"mel_starts and mel_lengths must both .* got \(2, 1\) and \(1, 1\)"),
    (lambda: mask_spectrogram(S, P, P, J, J), r"time_starts and time_lengths .* B = 2, got \(2,\) and \(2,\)"),
    (lambda: mask_spectrogram(S, J[:1], J[:1], J, J), r"time_starts and time_lengths .* B = 2, got \(1, 1\) and"),
    (lambda: mask_spectrogram(S, J.int(), J, J, J), r"mask_spectrogram: time_starts must be int64, got torch.int32"),
    (lambda: mask_spectrogram(S, J, J, J, J.int()), r"mask_spectrogram: mel_lengths must be int64, got torch.int32"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_what_does_not_fit_is_refused(number: int) -> None:
    call, message = ERRORS[number]
    with pytest.raises(InputError, match=message):
        call()

"""Per-channel energy normalisation against librosa's, and what it does to levels."""

import librosa
import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from audiostride.audio import pcen as pcen_module
from audiostride.audio.log_mel import log_mel_spectrogram
from audiostride.audio.pcen import PCEN, smooth_bands, smoothing_weight
from audiostride.errors import InputError

FRAME_RATE_HZ = 100.0


def make_log_mel(n_samples: int = 16000, *, batch: int = 2, level: float = 0.1) -> Tensor:
    """Log-mel spectrograms of noise that comes and goes, ``(batch, T, 64)``."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(batch, n_samples, generator=generator)
    return log_mel_spectrogram(level * noise * (1.2 + torch.sin(torch.arange(n_samples) / 700)))


@pytest.mark.parametrize("n_samples", [16000, 160, 24040])
def test_equals_librosa(n_samples: int) -> None:
    log_mel = make_log_mel(n_samples).double()
    bands = log_mel.exp().numpy().transpose(0, 2, 1)  # librosa has time last
    weight = smoothing_weight(0.4, FRAME_RATE_HZ)
    # librosa's average begins at 1, ours at the first frame.
    start = scipy.signal.lfilter_zi([weight], [1, weight - 1]) * bands[..., :1]
    expected, _ = librosa.pcen(
        bands,
        sr=16000,
        hop_length=160,
        gain=0.98,
        bias=2,
        power=0.5,
        time_constant=0.4,
        eps=1e-6,
        zi=start,
        return_zf=True,
    )
    found = PCEN(n_mels=64, frame_rate_hz=FRAME_RATE_HZ)(log_mel)
    np.testing.assert_allclose(found.numpy().transpose(0, 2, 1), expected, rtol=1e-9, atol=1e-12)


def test_long_spectrograms_are_smoothed_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    power = make_log_mel().double().exp()
    whole = smooth_bands(power, 0.05)
    monkeypatch.setattr(pcen_module, "MAX_PIECE", 7)
    torch.testing.assert_close(smooth_bands(power, 0.05), whole, rtol=1e-12, atol=0)


def test_a_constant_stays_that_constant() -> None:
    power = torch.full((3, 50, 4), 0.3, dtype=torch.float64)
    torch.testing.assert_close(smooth_bands(power, 0.025), power, rtol=1e-12, atol=0)


def test_the_level_hardly_matters() -> None:
    pcen = PCEN(n_mels=64, frame_rate_hz=FRAME_RATE_HZ)
    loud, quiet = pcen(make_log_mel(level=0.1)), pcen(make_log_mel(level=0.01))
    # A hundred times the power, to the power of 1 - gain, is what is left: 10 % before a root that lessens it.
    assert bool((loud > quiet).all())
    assert bool((loud < 100**0.021 * quiet).all())
    assert float((make_log_mel(level=0.1) - make_log_mel(level=0.01)).abs().min()) > 4


def test_a_batch_is_its_single_spectrograms() -> None:
    log_mel, pcen = make_log_mel(), PCEN(n_mels=64, frame_rate_hz=FRAME_RATE_HZ)
    torch.testing.assert_close(pcen(log_mel)[1:], pcen(log_mel[1:]))


def test_learned_factors_begin_at_the_fixed_ones_and_all_learn() -> None:
    log_mel = make_log_mel().double()
    learned = PCEN(n_mels=64, frame_rate_hz=FRAME_RATE_HZ, learned=True).double()
    torch.testing.assert_close(learned(log_mel), PCEN(n_mels=64, frame_rate_hz=FRAME_RATE_HZ)(log_mel))
    learned(log_mel).square().mean().backward()  # type: ignore[no-untyped-call]
    assert learned.log_factors is not None
    assert learned.log_factors.grad is not None
    assert bool((learned.log_factors.grad != 0).all())


def test_gradients() -> None:
    pcen = PCEN(n_mels=3, frame_rate_hz=FRAME_RATE_HZ, learned=True).double()
    log_mel = make_log_mel(800)[:1, :, :3].double().requires_grad_()

    def compute(factors: Tensor, log_mel: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(pcen, {"log_factors": factors}, (log_mel,))
        return found

    factors = torch.full((3, 3), 0.1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(compute, (factors, log_mel))


def test_half_precision_is_computed_in_float32() -> None:
    log_mel, pcen = make_log_mel(), PCEN(n_mels=64, frame_rate_hz=FRAME_RATE_HZ)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(pcen(log_mel), pcen(log_mel.float()), rtol=0, atol=0)
    assert pcen(log_mel.half()).dtype == torch.float32


def test_errors() -> None:
    with pytest.raises(InputError, match=r"PCEN: log_mel must have 64 bands, got shape \(1, 10, 32\)"):
        PCEN(n_mels=64, frame_rate_hz=FRAME_RATE_HZ)(torch.zeros(1, 10, 32))
    with pytest.raises(InputError, match="PCEN: gain"):
        PCEN(n_mels=64, frame_rate_hz=FRAME_RATE_HZ, gain=0)

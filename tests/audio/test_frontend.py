"""Log-mel spectrograms against librosa, torchaudio and closed forms."""

import importlib
import math
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from audiostride.audio.log_mel import log_mel_spectrogram, mel_filterbank
from audiostride.errors import InputError

SAMPLE_RATE, N_FFT, WIN_LENGTH, HOP_LENGTH, N_MELS = 16000, 512, 400, 160, 64
FMIN_HZ, FMAX_HZ = 60.0, 7800.0
MEL = {"sample_rate": SAMPLE_RATE, "n_fft": N_FFT, "n_mels": N_MELS, "fmin_hz": FMIN_HZ, "fmax_hz": FMAX_HZ}
PAD = (WIN_LENGTH - HOP_LENGTH) // 2


def import_torchaudio() -> ModuleType:
    """torchaudio's functions, or a skip: its builds load beside one version and CUDA of torch only."""
    try:
        return importlib.import_module("torchaudio.functional")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        pytest.skip(f"torchaudio does not import beside torch {torch.__version__}: {error}")


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """White noise of standard deviation 0.1, the same in every run."""
    return 0.1 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)


def pad_for_frames(waveform: Tensor, n_frames: int) -> Tensor:
    """Zeros such that frames of n_fft samples from 0 on have their windows centred on the middle of each hop."""
    left = PAD + (N_FFT - WIN_LENGTH) // 2  # both libraries put the window in the middle of n_fft samples
    right = (n_frames - 1) * HOP_LENGTH + N_FFT - left - waveform.shape[-1]
    return torch.nn.functional.pad(waveform, (left, right))


@pytest.mark.parametrize("n_samples", [16000, 7001])
def test_agrees_with_librosa(n_samples: int) -> None:
    librosa = pytest.importorskip("librosa", reason="librosa is the independent implementation here")
    waveform = noise(n_samples)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WIN_LENGTH) / WIN_LENGTH)  # periodic
    padded = pad_for_frames(waveform, math.ceil(n_samples / HOP_LENGTH)).numpy()
    spectrum = librosa.stft(
        padded,
        n_fft=N_FFT,
        hop_length=HOP_LENGTH,
        win_length=WIN_LENGTH,
        window=hann,
        center=False,
        dtype=np.complex128,
    )
    filters = librosa.filters.mel(
        sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=N_MELS, fmin=FMIN_HZ, fmax=FMAX_HZ, htk=True, norm=None, dtype=np.float64
    )
    expected = np.log(np.maximum(filters @ np.abs(spectrum) ** 2, 1e-6)).T
    result = log_mel_spectrogram(waveform)
    # Both in float64: two FFT algorithms, and sums over a band in two orders (4e-14 measured).
    torch.testing.assert_close(result, torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_agrees_with_torchaudio() -> None:
    functional = import_torchaudio()
    waveform = noise(2, 16000, dtype=torch.float32)
    spectrum = torch.stft(
        pad_for_frames(waveform, 100),
        N_FFT,
        hop_length=HOP_LENGTH,
        win_length=WIN_LENGTH,
        window=torch.hann_window(WIN_LENGTH),
        center=False,
        return_complex=True,
    )
    filters = functional.melscale_fbanks(N_FFT // 2 + 1, FMIN_HZ, FMAX_HZ, N_MELS, SAMPLE_RATE, mel_scale="htk")
    expected = (spectrum.abs().square().mT @ filters).clamp(min=1e-6).log()
    # Both in float32. torchaudio makes its filters in float32 too: frequencies up to 8 kHz are good to 5e-4 Hz, which
    # is 1e-5 of a band of 50 Hz, and bands of weak bins lose another digit (1.5e-5 measured).
    torch.testing.assert_close(log_mel_spectrogram(waveform), expected, rtol=0, atol=1e-4)


def test_filters_agree_with_librosa_and_torchaudio_for_other_settings() -> None:
    librosa = pytest.importorskip("librosa", reason="librosa is the independent implementation here")
    functional = import_torchaudio()
    ours = mel_filterbank(sample_rate=22050, n_fft=2048, n_mels=80, fmin_hz=0.0, fmax_hz=11025.0)
    theirs = librosa.filters.mel(sr=22050, n_fft=2048, n_mels=80, fmin=0, fmax=11025, htk=True, norm=None, dtype=float)
    assert ours.dtype == torch.float64
    # Weights in float64, from frequencies up to 11 kHz (good to 2e-12 Hz) over bands of 30 Hz and more.
    torch.testing.assert_close(ours, torch.from_numpy(theirs).T, rtol=0, atol=1e-12)
    # torchaudio in float32: frequencies are good to 1e-3 Hz (weights to 8e-6, measured).
    third = functional.melscale_fbanks(1025, 0.0, 11025.0, 80, 22050, mel_scale="htk")
    torch.testing.assert_close(ours.float(), third, rtol=0, atol=5e-5)


def test_neighbouring_filters_add_up_to_one() -> None:
    filters = mel_filterbank(**MEL)
    peaks = filters.argmax(dim=0)
    assert filters.shape == (N_FFT // 2 + 1, N_MELS)
    assert (filters >= 0).all()
    assert (filters <= 1).all()
    assert (peaks.diff() > 0).all()
    # From the first centre to the last every frequency lies on one rising and one falling side.
    inside = filters[peaks[0] + 1 : peaks[-1]].sum(dim=1)
    assert len(inside) > 200
    torch.testing.assert_close(inside, torch.ones_like(inside), rtol=0, atol=1e-12)  # a few roundings of float64


@pytest.mark.parametrize("hz", [250.0, 1000.0, 4000.0])
def test_a_tone_is_loudest_in_the_band_at_its_frequency(hz: float) -> None:
    t = torch.arange(16000) / SAMPLE_RATE
    bands = log_mel_spectrogram(0.5 * torch.sin(2 * math.pi * hz * t))[10:-10].mean(dim=0)
    low, high = (math.log10(1 + edge_hz / 700) for edge_hz in (FMIN_HZ, FMAX_HZ))
    centres = 700 * (10 ** np.linspace(low, high, N_MELS + 2) - 1)[1:-1]
    assert bands.argmax() == int(np.abs(centres - hz).argmin())


def test_twice_the_amplitude_adds_the_logarithm_of_four() -> None:
    waveform = noise(4000)
    quiet = log_mel_spectrogram(waveform)
    # Float64 throughout, and no band of this noise at the floor.
    assert (quiet > math.log(1e-6)).all()
    torch.testing.assert_close(log_mel_spectrogram(2 * waveform), quiet + math.log(4), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_silence_is_the_logarithm_of_the_floor(dtype: torch.dtype) -> None:
    for power_floor in (1e-6, 1e-3):
        silence = log_mel_spectrogram(torch.zeros(500, dtype=dtype), power_floor=power_floor)
        assert silence.unique().tolist() == [torch.tensor(power_floor, dtype=dtype).log()]
    assert log_mel_spectrogram(torch.zeros(500))[0, 0] == torch.tensor(1e-6).log()


@pytest.mark.parametrize(("n_samples", "n_frames"), [(1, 1), (159, 1), (160, 1), (161, 2), (15999, 100), (16000, 100)])
def test_number_of_frames_is_that_of_started_hops(n_samples: int, n_frames: int) -> None:
    assert log_mel_spectrogram(noise(n_samples)).shape == (n_frames, N_MELS)
    assert log_mel_spectrogram(noise(n_samples), hop_length=161, win_length=400).shape[0] == -(-n_samples // 161)


def test_frames_are_centred_on_the_middle_of_their_hop() -> None:
    # A click there is met by the window's peak, 1: the power is the same in all FFT bins, and that of a unit click.
    waveform = torch.zeros(1600, dtype=torch.float64)
    waveform[4 * HOP_LENGTH + HOP_LENGTH // 2] = 1.0
    result = log_mel_spectrogram(waveform)
    expected = mel_filterbank(**MEL).sum(dim=0).log()
    # An FFT of one non-zero sample, in float64.
    torch.testing.assert_close(result[4], expected, rtol=0, atol=1e-12)
    # Its neighbours see it a hop away from the middle of their windows.
    window = torch.hann_window(WIN_LENGTH, dtype=torch.float64)[WIN_LENGTH // 2 + HOP_LENGTH]
    for neighbour in (3, 5):
        torch.testing.assert_close(result[neighbour], expected + 2 * window.log(), rtol=0, atol=1e-12)


def test_a_window_agrees_with_its_clip_away_from_its_ends() -> None:
    clip = noise(48000, dtype=torch.float32)
    clip[:20000] *= 30.0  # a floor or scale relative to the clip would show
    window = log_mel_spectrogram(clip[16000:32000])
    whole = log_mel_spectrogram(clip)[100:200]
    # The same float32 numbers, in FFT batches of another size: roundings may differ.
    torch.testing.assert_close(window[1:-1], whole[1:-1], rtol=0, atol=1e-4)
    assert not torch.allclose(window[0], whole[0], atol=1e-4)  # the first and last frame see zeros beyond the ends


def test_gradient() -> None:
    waveform = noise(2, 19).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: log_mel_spectrogram(x, n_mels=3, n_fft=16, win_length=12, hop_length=5, fmin_hz=0.0, fmax_hz=8000.0),
        waveform,
    )


def test_gradient_of_silence_is_zero() -> None:
    waveform = torch.zeros(400, requires_grad=True)
    log_mel_spectrogram(waveform).sum().backward()
    assert waveform.grad is not None
    assert waveform.grad.eq(0).all()


def test_errors_of_waveforms() -> None:
    for empty in (torch.zeros(0), torch.zeros(3, 0), torch.tensor(1.0)):
        with pytest.raises(InputError, match=r"waveform must have at least 1 sample on its last axis, got \("):
            log_mel_spectrogram(empty)
    with pytest.raises(
        InputError, match=r"must be floating-point in \[-1, 1\], got torch.int16; divide int16 by 32768"
    ):
        log_mel_spectrogram(torch.zeros(100, dtype=torch.int16))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"hop_length": 0}, r"hop_length must be > 0, got 0"),
        ({"power_floor": 0.0}, r"power_floor must be > 0, got 0\.0"),
        ({"sample_rate": -1}, r"sample_rate must be > 0, got -1"),
        ({"n_mels": 0}, r"n_mels must be > 0, got 0"),
        ({"win_length": 513}, r"hop_length <= win_length <= n_fft, got 160, 513, 512"),
        ({"hop_length": 401}, r"hop_length <= win_length <= n_fft, got 401, 400, 512"),
        ({"fmax_hz": 8001.0}, r"fmax_hz <= sample_rate / 2 = 8000\.0 Hz, got fmin_hz=60\.0, fmax_hz=8001\.0"),
        ({"fmin_hz": -1.0}, r"0 <= fmin_hz < fmax_hz .*got fmin_hz=-1\.0"),
        ({"fmin_hz": 7800.0}, r"0 <= fmin_hz < fmax_hz .*got fmin_hz=7800\.0"),
        ({"n_mels": 160}, r"must hold an FFT bin, but bands \[3, 8, 15\] of 160 are narrower than the 31\.25 Hz"),
    ],
)
def test_errors_of_settings(setting: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        log_mel_spectrogram(torch.zeros(100), **setting)  # type: ignore[arg-type]

"""Log-mel spectrograms from waveforms, in float32, on the device of the waveform: as functions, and as a module."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiostride.checks import check_positive
from audiostride.errors import InputError

# Power below which a mel band counts as silent. Rounding to 16 bits leaves about 1e-8 per FFT bin (1/12 of a squared
# step times the energy of the window), so 1e-6 lies above the noise of the format and below any recorded sound.
POWER_FLOOR = 1e-6
# A bank of 64 bands for an FFT of 8192 samples has 2^18 weights; making one takes 40 bytes for each.
MAX_FILTER_WEIGHTS = 2**24


def hz_to_mel(hz: float) -> float:
    """Frequency in mel (O'Shaughnessy 1987, the formula of HTK): ``2595 log10(1 + f / 700)``."""
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def analysis_lengths(
    *, sample_rate: int, win_ms: float, hop_ms: float, n_mels: int, fmin_hz: float, fmax_hz: float
) -> dict[str, Any]:
    """Window, hop and FFT in samples: powers of two from the window on, up to one by which every band holds a bin.

    >>> analysis_lengths(sample_rate=16000, win_ms=25, hop_ms=10, n_mels=64, fmin_hz=60, fmax_hz=7800)
    {'win_length': 400, 'hop_length': 160, 'n_fft': 512}
    """
    win_length = max(1, round(win_ms * sample_rate / 1000))
    shortest = 2 ** (win_length - 1).bit_length()
    n_fft = next(
        (
            length
            for length in (shortest << doublings for doublings in range(4))
            if fmax_hz > fmin_hz and not _empty_bands(_triangles(sample_rate, length, n_mels, fmin_hz, fmax_hz))
        ),
        shortest,  # `mel_filterbank` says what is wrong
    )
    return {"win_length": win_length, "hop_length": max(1, round(hop_ms * sample_rate / 1000)), "n_fft": n_fft}


def mel_filterbank(*, sample_rate: int, n_fft: int, n_mels: int, fmin_hz: float, fmax_hz: float) -> Tensor:
    """Triangular filters that sum FFT power into mel bands, each with a peak of 1.

    Centres lie at equal distances on the mel scale; each triangle, in Hz, reaches from the centre below to the one
    above.

    Args:
        sample_rate: In Hz.
        n_fft: Length of the FFT.
        n_mels: Number of mel bands.
        fmin_hz, fmax_hz: Lower edge of the first band and upper edge of the last.

    Shape:
        Result: ``(n_fft // 2 + 1, n_mels)``, float64 (the caller rounds once).

    Raises:
        InputError: Limits that do not satisfy ``0 <= fmin < fmax <= sample_rate / 2``, or so many bands that one of
            them holds no FFT bin; more than 2^24 weights.
    """
    who = "mel_filterbank"
    check_positive(who, sample_rate=sample_rate, n_fft=n_fft, n_mels=n_mels)
    if not 0 <= fmin_hz < fmax_hz <= sample_rate / 2:
        raise InputError(
            f"{who}: frequencies must satisfy 0 <= fmin_hz < fmax_hz <= sample_rate / 2 = {sample_rate / 2} Hz, "
            f"got fmin_hz={fmin_hz}, fmax_hz={fmax_hz}"
        )
    if (n_fft // 2 + 1) * n_mels > MAX_FILTER_WEIGHTS:
        raise InputError(
            f"{who}: (n_fft / 2 + 1) x n_mels, the weights of the mel filters, must be at most {MAX_FILTER_WEIGHTS}, "
            f"got n_fft={n_fft}, n_mels={n_mels}"
        )
    filters = _triangles(sample_rate, n_fft, n_mels, fmin_hz, fmax_hz)
    empty = _empty_bands(filters)
    if empty:
        most = 0  # by halving: a bank of fewer bands has wider ones
        for step in (2**power for power in reversed(range(n_mels.bit_length()))):
            if most + step < n_mels and not _empty_bands(_triangles(sample_rate, n_fft, most + step, fmin_hz, fmax_hz)):
                most += step
        advice = f"take at most {most} bands, or a longer analysis window (n_fft)"
        raise InputError(
            f"{who}: every mel band must hold an FFT bin, but bands {empty} of {n_mels} are narrower than the "
            f"{sample_rate / n_fft:g} Hz between bins; {advice if most else 'take a longer analysis window (n_fft)'}"
        )
    return filters


def _triangles(sample_rate: int, n_fft: int, n_mels: int, fmin_hz: float, fmax_hz: float) -> Tensor:
    # On the CPU whatever the default device: some have no float64, and "meta" no numbers.
    settings: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
    mels = torch.linspace(hz_to_mel(fmin_hz), hz_to_mel(fmax_hz), n_mels + 2, **settings)
    edges_hz = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bins_hz = torch.arange(n_fft // 2 + 1, **settings)[:, None] * (sample_rate / n_fft)
    low, centre, high = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising = (bins_hz - low) / (centre - low)
    falling = (high - bins_hz) / (high - centre)
    return torch.minimum(rising, falling).clamp(min=0)


def _empty_bands(filters: Tensor) -> list[int]:
    """Numbers of the bands that hold no FFT bin."""
    found: list[int] = (filters.amax(dim=0) == 0).nonzero().flatten().tolist()
    return found


def log_mel_from_parts(
    waveform: Tensor, window: Tensor, filters: Tensor, *, n_fft: int, hop_length: int, power_floor: float
) -> Tensor:
    """The computation behind `log_mel_spectrogram` and `LogMel`, given its window and mel filters."""
    who = "log_mel_spectrogram"
    if waveform.ndim < 1 or waveform.shape[-1] == 0:
        raise InputError(f"{who}: waveform must have at least 1 sample on its last axis, got {tuple(waveform.shape)}")
    if not waveform.is_floating_point():
        raise InputError(
            f"{who}: waveform must be floating-point in [-1, 1], got {waveform.dtype}; divide int16 by 32768"
        )
    n_samples, win_length = waveform.shape[-1], window.shape[0]
    n_frames = -(-n_samples // hop_length)
    if not torch.compiler.is_compiling() and waveform.numel() == 0:  # an empty batch, which the FFT refuses
        return waveform.new_zeros(
            *waveform.shape[:-1], n_frames, filters.shape[1], dtype=torch.promote_types(waveform.dtype, torch.float32)
        )
    # |--pad--| hop | hop | ... | hop |--pad--|   frame i is centred on hop i: 1 s gives 100 frames
    pad = (win_length - hop_length) // 2
    right = (n_frames - 1) * hop_length + win_length - pad - n_samples
    with torch.autocast(waveform.device.type, enabled=False):  # bfloat16 has 8 bits: log power would lose 0.4 %
        samples = waveform.to(torch.promote_types(waveform.dtype, torch.float32))
        frames = F.pad(samples, (pad, max(right, 0))).unfold(-1, win_length, hop_length)[..., :n_frames, :]
        spectrum = torch.fft.rfft(frames * window.to(samples.dtype), n=n_fft)  # (..., T, n_fft // 2 + 1)
        power = spectrum.real.square() + spectrum.imag.square()
        bands: Tensor = power @ filters.to(samples.dtype)  # (..., T, M)
        return bands.clamp(min=power_floor).log()


def log_mel_spectrogram(
    waveform: Tensor,
    *,
    sample_rate: int = 16000,
    n_mels: int = 64,
    n_fft: int = 512,
    win_length: int = 400,
    hop_length: int = 160,
    fmin_hz: float = 60.0,
    fmax_hz: float = 7800.0,
    power_floor: float = POWER_FLOOR,
) -> Tensor:
    """Natural logarithm of the power in mel bands, one frame per hop.

    Periodic Hann window, power spectrum, triangular mel filters with a peak of 1 (`mel_filterbank`), a fixed floor.
    Frame i is centred on the middle of the i-th hop and sees zeros beyond the ends, so that 1 s gives exactly 100
    frames. The floor is absolute: a window cut from a clip has the same values as that part of the clip, up to the
    frames at its ends.

    Args:
        waveform: Samples in [-1, 1]; half precision is computed in float32.
        sample_rate: In Hz.
        n_mels: Number of mel bands.
        n_fft, win_length, hop_length: In samples.
        fmin_hz, fmax_hz: Lower edge of the first band and upper edge of the last.
        power_floor: Band power below which a band counts as silent, > 0.

    Shape:
        waveform: ``(..., samples)``. Result: ``(..., ceil(samples / hop_length), n_mels)``.

    Raises:
        InputError: An empty or integer waveform, a setting out of range.

    >>> log_mel_spectrogram(torch.zeros(2, 16000)).shape
    torch.Size([2, 100, 64])
    """
    window, filters = frontend_parts(
        sample_rate=sample_rate,
        n_mels=n_mels,
        n_fft=n_fft,
        win_length=win_length,
        hop_length=hop_length,
        fmin_hz=fmin_hz,
        fmax_hz=fmax_hz,
        power_floor=power_floor,
    )
    return log_mel_from_parts(
        waveform,
        window.to(waveform.device),
        filters.to(waveform.device),
        n_fft=n_fft,
        hop_length=hop_length,
        power_floor=power_floor,
    )


def frontend_parts(
    *,
    sample_rate: int,
    n_mels: int,
    n_fft: int,
    win_length: int,
    hop_length: int,
    fmin_hz: float,
    fmax_hz: float,
    power_floor: float,
) -> tuple[Tensor, Tensor]:
    """Window ``(win_length,)`` and mel filters ``(n_fft // 2 + 1, n_mels)`` of a frontend, in float64."""
    who = "log_mel_spectrogram"
    check_positive(who, hop_length=hop_length, power_floor=power_floor)
    if not hop_length <= win_length <= n_fft:
        raise InputError(
            f"{who}: lengths must satisfy hop_length <= win_length <= n_fft, got {hop_length}, {win_length}, {n_fft}"
        )
    filters = mel_filterbank(sample_rate=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin_hz=fmin_hz, fmax_hz=fmax_hz)
    return torch.hann_window(win_length, dtype=torch.float64, device="cpu"), filters


class LogMel(nn.Module):
    """Log-mel spectrogram of a waveform, see `log_mel_spectrogram`.

    The window and the mel filters are buffers (not saved: they follow from the settings) and move with the module. The
    computation is in float32 also inside autocast and in half-precision models.

    Args:
        sample_rate, n_mels, n_fft, win_length, hop_length, fmin_hz, fmax_hz, power_floor: As there.

    Shape:
        waveform: ``(..., samples)``. Result: ``(..., ceil(samples / hop_length), n_mels)``: time is axis -2,
        mel is axis -1.

    Raises:
        InputError: An empty or integer waveform, a setting out of range.

    >>> LogMel()(torch.zeros(2, 16000)).shape
    torch.Size([2, 100, 64])
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        *,
        sample_rate: int = 16000,
        n_mels: int = 64,
        n_fft: int = 512,
        win_length: int = 400,
        hop_length: int = 160,
        fmin_hz: float = 60.0,
        fmax_hz: float = 7800.0,
        power_floor: float = POWER_FLOOR,
    ) -> None:
        super().__init__()
        self.sample_rate, self.n_mels, self.n_fft = sample_rate, n_mels, n_fft
        self.win_length, self.hop_length = win_length, hop_length
        self.fmin_hz, self.fmax_hz, self.power_floor = fmin_hz, fmax_hz, power_floor
        window, filters = frontend_parts(
            sample_rate=sample_rate,
            n_mels=n_mels,
            n_fft=n_fft,
            win_length=win_length,
            hop_length=hop_length,
            fmin_hz=fmin_hz,
            fmax_hz=fmax_hz,
            power_floor=power_floor,
        )
        device = torch.get_default_device()
        self.register_buffer("window", window.float().to(device), persistent=False)
        self.register_buffer("filters", filters.float().to(device), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LogMel":
        window, filters = self.window, self.filters
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if torch.finfo(self.window.dtype).bits < 32:
            # .half() and .bfloat16() would round both: log power off by 0.002 and 0.01.
            self.window, self.filters = window.to(self.window.device), filters.to(self.filters.device)
        return self

    def forward(self, waveform: Tensor) -> Tensor:
        return log_mel_from_parts(
            waveform,
            self.window,
            self.filters,
            n_fft=self.n_fft,
            hop_length=self.hop_length,
            power_floor=self.power_floor,
        )

    def extra_repr(self) -> str:
        return (
            f"{self.sample_rate} Hz, {self.n_mels} mel bands from {self.fmin_hz:g} to {self.fmax_hz:g} Hz, "
            f"n_fft={self.n_fft}, win_length={self.win_length}, hop_length={self.hop_length}"
        )

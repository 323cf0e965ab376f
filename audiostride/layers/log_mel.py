"""The frontend as a module."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from audiostride.functional.frontend import POWER_FLOOR, frontend_parts, log_mel_from_parts


class LogMel(nn.Module):
    """Log-mel spectrogram of a waveform, see `audiostride.functional.log_mel_spectrogram`.

    The window and the mel filters are buffers (not saved: they follow from the settings) and move with the module. The
    computation is in float32 also inside autocast and in half-precision models.

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
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("filters", filters.float(), persistent=False)

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

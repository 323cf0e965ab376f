"""Per-channel energy normalisation: mel bands whose level is divided by their own slow average."""

import math

import torch
from torch import Tensor, nn

from audiostride.audio.log_mel import POWER_FLOOR
from audiostride.checks import check_positive
from audiostride.errors import InputError

TIME_CONSTANT_S, GAIN, BIAS, POWER = 0.4, 0.98, 2.0, 0.5
# Longer spectrograms are smoothed piece by piece: the matrix of a piece has its square.
MAX_PIECE = 1024


def smoothing_weight(time_constant_s: float, frame_rate_hz: float) -> float:
    """Weight of the newest frame in a moving average whose -3 dB point lies at ``1 / (2 pi time_constant_s)``.

    The same as librosa's: with ``t`` frames in a time constant, ``(sqrt(1 + 4 t^2) - 1) / (2 t^2)``.
    """
    frames = time_constant_s * frame_rate_hz
    return (math.sqrt(1 + 4 * frames**2) - 1) / (2 * frames**2)


def smooth_bands(power: Tensor, weight: float) -> Tensor:
    """Moving average over time, ``a[t] = (1 - weight) a[t - 1] + weight power[t]``, which begins with the first frame.

    Shape:
        power: ``(..., T, M)``. Result: the same.
    """
    averages, before = [], power[..., :1, :]
    for piece in torch.split(power, MAX_PIECE, dim=-2):
        n_frames = piece.shape[-2]
        steps = torch.arange(n_frames, device=power.device)
        lags = steps[:, None] - steps
        # In float64: far lags are powers of a number close to 1. A negative lag has no weight.
        decay = (1 - weight) ** lags.clamp(min=0).double()
        past = (weight * decay * (lags >= 0)).to(power.dtype)  # (T, T)
        carried = ((1 - weight) ** (steps + 1).double()).to(power.dtype)[:, None]
        averages.append(past @ piece + carried * before)
        before = averages[-1][..., -1:, :]
    return averages[0] if len(averages) == 1 else torch.cat(averages, dim=-2)


class PCEN(nn.Module):
    """Per-channel energy normalisation of a log-mel spectrogram.

    With the power E of a band and its moving average A: ``(E / (floor + A)^gain + bias)^power - bias^power`` (Wang et
    al. 2017, eq. 1 and 2). Loudness and steady noise go, onsets stay. The average begins with the first frame: unlike a
    log-mel spectrogram, that of a window depends on where the window begins.

    Args:
        n_mels: Mel bands.
        frame_rate_hz: Frames a second.
        learned: Whether gain, bias and power of each band are learned, as factors on the values here.
        time_constant_s, gain, bias, power: Of the average, and of the equation.
        floor: Band power that counts as silence.

    Shape:
        log_mel: ``(..., T, n_mels)``. Result: the same, in float32 at least.

    Raises:
        InputError: A setting that is not positive; another number of bands.

    >>> PCEN(n_mels=64, frame_rate_hz=100.0)(torch.zeros(2, 100, 64)).shape
    torch.Size([2, 100, 64])
    """

    def __init__(
        self,
        *,
        n_mels: int,
        frame_rate_hz: float,
        learned: bool = False,
        time_constant_s: float = TIME_CONSTANT_S,
        gain: float = GAIN,
        bias: float = BIAS,
        power: float = POWER,
        floor: float = POWER_FLOOR,
    ) -> None:
        super().__init__()
        check_positive(
            "PCEN", n_mels=n_mels, frame_rate_hz=frame_rate_hz, time_constant_s=time_constant_s, gain=gain, bias=bias,
            power=power, floor=floor,
        )  # fmt: skip
        self.n_mels, self.floor = n_mels, floor
        self.gain, self.bias, self.power = gain, bias, power
        self.weight = smoothing_weight(time_constant_s, frame_rate_hz)
        # Factors as logarithms: they stay positive, and weight decay draws them to 1.
        self.log_factors = nn.Parameter(torch.zeros(3, n_mels)) if learned else None

    def forward(self, log_mel: Tensor) -> Tensor:
        if log_mel.shape[-1] != self.n_mels:
            raise InputError(f"PCEN: log_mel must have {self.n_mels} bands, got shape {tuple(log_mel.shape)}")
        with torch.autocast(log_mel.device.type, enabled=False):  # powers over ten decades
            energy = log_mel.to(torch.promote_types(log_mel.dtype, torch.float32)).exp()
            average = smooth_bands(energy, self.weight)
            factors = self.log_factors if self.log_factors is not None else energy.new_zeros(3, 1)
            scales = factors.to(energy.dtype).exp() * energy.new_tensor([[self.gain], [self.bias], [self.power]])
            gain, bias, power = scales.unbind()
            normed: Tensor = (energy * (self.floor + average) ** -gain + bias) ** power - bias**power
            return normed

    def extra_repr(self) -> str:
        return f"{self.n_mels} bands, {'fixed' if self.log_factors is None else 'learned'}"

"""Augmentation of waveforms and spectrograms, on the device of the tensors.

Nothing here is random: the random numbers are arguments, so that the caller can draw them as a function of
(seed, step). Nothing reads a value of a tensor on the host, so that no step waits for the device: shapes and types of
tensors are checked, their values are not.
"""

import torch
from torch import Tensor

from audiostride.errors import InputError


def apply_gain(waveform: Tensor, gain_db: Tensor) -> Tensor:
    """The waveform of each example, louder by its gain: ``x 10^(gain_db / 20)``; nothing is clipped to [-1, 1].

    Args:
        waveform: Samples.
        gain_db: Gain of each example in dB.

    Shape:
        waveform: ``(B, samples)``. gain_db: ``(B,)``. Result: ``(B, samples)`` in the dtype of the waveform.

    Raises:
        InputError: A waveform that is not floating-point of shape ``(B, samples)``, another number of gains.

    >>> apply_gain(torch.ones(2, 3), torch.tensor([0.0, 20.0]))
    tensor([[ 1.,  1.,  1.],
            [10., 10., 10.]])
    """
    who = "apply_gain"
    check_waveform(who, waveform)
    check_per_example(who, waveform.shape[0], gain_db=gain_db)
    return waveform * _amplitude(gain_db).to(waveform.dtype)[:, None]


def add_noise(waveform: Tensor, noise: Tensor, snr_db: Tensor) -> Tensor:
    """The waveform of each example with noise added at its signal-to-noise ratio.

    ``x + c v`` with ``c = rms(x) / rms(v) 10^(-snr_db / 20)``; rms over all samples of the example, zeros beyond the
    ends of a clip included. An example that is silent, or whose noise is, stays as it is: no ratio is defined. So does
    one with a ratio of +inf dB.

    Args:
        waveform: Samples.
        noise: Finite samples; their level does not matter.
        snr_db: Signal-to-noise ratio of each example in dB, or +inf.

    Shape:
        waveform and noise: ``(B, samples)``. snr_db: ``(B,)``. Result: ``(B, samples)`` in the dtype of the waveform.

    Raises:
        InputError: A waveform that is not floating-point of shape ``(B, samples)``, noise or ratios that do not fit.

    >>> add_noise(torch.ones(2, 4), torch.tensor([[3.0, -3.0, 3.0, -3.0]] * 2), torch.tensor([20.0, float("inf")]))
    tensor([[1.1000, 0.9000, 1.1000, 0.9000],
            [1.0000, 1.0000, 1.0000, 1.0000]])
    """
    who = "add_noise"
    check_waveform(who, waveform)
    check_per_example(who, waveform.shape[0], snr_db=snr_db)
    if noise.shape != waveform.shape:
        raise InputError(
            f"{who}: noise must have the shape of the waveform, {tuple(waveform.shape)}, got {tuple(noise.shape)}; "
            "cut or repeat it"
        )
    signal_rms, noise_rms = _safe_rms(waveform), _safe_rms(noise)
    # Quotient of the levels, not of the powers, which leaves float32 for noise of 1e-20.
    scale = signal_rms / torch.where(noise_rms > 0, noise_rms, 1.0) * _amplitude(-snr_db)
    return waveform + (scale.to(waveform.dtype)[:, None] * noise.to(waveform.dtype))


def cut_noise(noises: Tensor, pick: Tensor, place: Tensor, *, n_samples: int) -> Tensor:
    """An excerpt of a noise for each example.

    Args:
        noises: The noises to choose from, longer than the excerpts.
        pick: Which noise, as a share of their number in [0, 1); 1 counts as the last.
        place: Where the excerpt starts, as a share of the number of starts within a noise in [0, 1); 1
            counts as the last.
        n_samples: Length of an excerpt.

    Shape:
        noises: ``(noises, samples)``. pick and place: ``(B,)`` float64 (float32 cannot name each of more than 16
        million starts). Result: ``(B, n_samples)``.

    Raises:
        InputError: No noises, a length out of its range, picks and places that do not fit each other.

    >>> noises = torch.tensor([[0.0, 1.0, 2.0, 3.0], [5.0, 6.0, 7.0, 8.0]])
    >>> cut_noise(noises, torch.tensor([0.0, 0.5]), torch.tensor([0.4, 0.9]), n_samples=2)
    tensor([[1., 2.],
            [7., 8.]])
    """
    who = "cut_noise"
    check_waveform(who, noises, name="noises")
    check_per_example(who, pick.shape[0] if pick.ndim else 0, pick=pick, place=place)
    n_noises, length = noises.shape
    if n_noises == 0 or not 1 <= n_samples <= length:
        raise InputError(
            f"{who}: n_samples must be in [1, {length}], the length of each of the {n_noises} noises, got {n_samples}; "
            "make longer noises"
        )
    n_starts = length - n_samples + 1
    # A share just below 1 that was rounded to float32 is 1: an index out of range, which ends a process with a GPU.
    numbers = (pick * n_noises).long().clamp(max=n_noises - 1)
    starts = (place * n_starts).long().clamp(max=n_starts - 1)
    # Excerpts from all starts as a view, so that the index has one entry per example and not one per sample.
    excerpts: Tensor = noises.unfold(1, n_samples, 1)[numbers, starts]
    return excerpts


def mask_spectrogram(
    spectrogram: Tensor,
    time_starts: Tensor | None,
    time_lengths: Tensor | None,
    mel_starts: Tensor | None,
    mel_lengths: Tensor | None,
    *,
    fill: float | None = None,
) -> Tensor:
    """The spectrogram with some stretches of frames and some of mel bands blanked out, the masks of SpecAugment
    (Park et al. 2019, "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition", section 2).

    # Differs from the paper: masked values become the mean of the example, which its normalised features have at 0.

    Args:
        spectrogram: Log-mel values.
        time_starts, time_lengths: First frame and number of frames of each time mask, >= 0; None for no such masks.
        mel_starts, mel_lengths: First band and number of bands of each mel mask, >= 0; None for no such masks.
        fill: What masked values become; None is the mean over the example's whole spectrogram before masking.

    Shape:
        spectrogram: ``(B, T, M)``. Starts and lengths: ``(B, masks)`` int64, for time and mel each. Result:
        ``(B, T, M)`` in the dtype of the spectrogram.

    Raises:
        InputError: A spectrogram that is not floating-point of shape ``(B, T, M)``, starts and lengths that do not fit
            it or each other.

    >>> mask_spectrogram(torch.ones(1, 3, 4), torch.tensor([[1]]), torch.tensor([[2]]), None, None, fill=0.0)
    tensor([[[1., 1., 1., 1.],
             [0., 0., 0., 0.],
             [0., 0., 0., 0.]]])
    """
    who = "mask_spectrogram"
    if spectrogram.ndim != 3 or not spectrogram.is_floating_point():
        raise InputError(
            f"{who}: spectrogram must be floating-point of shape (B, T, M), got {spectrogram.dtype} of shape "
            f"{tuple(spectrogram.shape)}"
        )
    n_frames, n_mels = spectrogram.shape[1:]
    frames = _stretches(spectrogram, time_starts, time_lengths, axis="time", n=n_frames)
    bands = _stretches(spectrogram, mel_starts, mel_lengths, axis="mel", n=n_mels)
    value = spectrogram.mean(dim=(-2, -1), keepdim=True) if fill is None else fill
    return torch.where(frames[:, :, None] | bands[:, None, :], value, spectrogram)


def _stretches(spectrogram: Tensor, starts: Tensor | None, lengths: Tensor | None, *, axis: str, n: int) -> Tensor:
    """Which of the `n` places on an axis lie in one of the stretches of each example: ``(B, n)`` of bool."""
    who = "mask_spectrogram"
    n_examples = spectrogram.shape[0]
    if starts is None and lengths is None:
        return torch.zeros(n_examples, n, dtype=torch.bool, device=spectrogram.device)
    fits = starts is not None and starts.ndim == 2 and starts.shape[0] == n_examples
    if starts is None or lengths is None or not fits or lengths.shape != starts.shape:
        got = " and ".join("None" if part is None else str(tuple(part.shape)) for part in (starts, lengths))
        raise InputError(
            f"{who}: {axis}_starts and {axis}_lengths must both have shape (B, masks) with B = {n_examples}, got {got};"
            " give None for both to mask nothing"
        )
    check_indices(who, f"{axis}_starts", starts)
    check_indices(who, f"{axis}_lengths", lengths)
    places = torch.arange(n, device=spectrogram.device)
    first = starts[:, :, None]
    inside: Tensor = (places >= first) & (places < first + lengths[:, :, None])  # (B, masks, n)
    return inside.any(dim=1)


def _amplitude(level_db: Tensor) -> Tensor:
    # Half precision has three digits: 10^(1/20) would be off by 0.05 dB before it meets a sample.
    level_db = level_db.to(torch.promote_types(level_db.dtype, torch.float32))
    return torch.pow(10.0, level_db / 20)


def _safe_rms(waveform: Tensor) -> Tensor:
    """Root mean square of each example, at least in float32; 0 with a gradient of 0 for silence."""
    samples = waveform.to(torch.promote_types(waveform.dtype, torch.float32))  # float16 overflows when 256 is squared
    power = samples.square().mean(dim=-1)
    # The root has an infinite slope at 0: without the inner choice a silent example's gradient would be 0 x inf = NaN.
    return torch.where(power > 0, torch.where(power > 0, power, 1.0).sqrt(), 0.0)


def check_waveform(who: str, waveform: Tensor, *, name: str = "waveform") -> None:
    """Raise unless a waveform is floating-point of shape ``(B, samples)``."""
    if waveform.ndim != 2 or waveform.shape[1] == 0 or not waveform.is_floating_point():
        raise InputError(
            f"{who}: {name} must be floating-point of shape (B, samples) with at least 1 sample, got {waveform.dtype} "
            f"of shape {tuple(waveform.shape)}; add a batch axis with .unsqueeze(0), divide int16 by 32768"
        )


def check_per_example(who: str, n_examples: int, **values: Tensor) -> None:
    """Raise unless every named tensor has one value per example."""
    for name, value in values.items():
        if value.shape != (n_examples,):
            raise InputError(
                f"{who}: {name} must have one entry per example, shape ({n_examples},), got {tuple(value.shape)}; "
                "use .expand to give all examples the same"
            )


def check_indices(who: str, name: str, indices: Tensor) -> None:
    """Raise unless indices are int64."""
    # A bool tensor would select by mask, which waits for the device, and mean something else.
    if indices.dtype != torch.int64:
        raise InputError(f"{who}: {name} must be int64, got {indices.dtype}; use .long()")

"""LogMel as a module: the function's numbers in every dtype, batch, device and surrounding."""

import pytest
import torch
from torch import Tensor

from audiostride import LogMel
from audiostride.audio.log_mel import log_mel_spectrogram
from audiostride.errors import InputError

OTHER = {
    "sample_rate": 8000,
    "n_mels": 20,
    "n_fft": 256,
    "win_length": 201,
    "hop_length": 75,
    "fmin_hz": 0.0,
    "fmax_hz": 4000.0,
    "power_floor": 1e-3,
}
# The same float32 sums in batches of another size: 512 products of a few roundings (6e-8) each, in a logarithm.
BATCH_ATOL = 1e-4


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """White noise of standard deviation 0.1, the same in every run."""
    return 0.1 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("settings", [{}, OTHER])
def test_module_is_the_function(settings: dict[str, float]) -> None:
    waveform = noise(2, 4001)
    # One computation, buffers rounded to float32 in both: the same bits.
    assert LogMel(**settings)(waveform).equal(log_mel_spectrogram(waveform, **settings))  # type: ignore[arg-type]


def test_one_second_is_exactly_one_hundred_frames() -> None:
    assert LogMel()(noise(16000)).shape == (100, 64)


@pytest.mark.parametrize(("n_samples", "n_frames"), [(1, 1), (160, 1), (161, 2), (16001, 101)])
def test_other_lengths_are_rounded_up_to_whole_hops(n_samples: int, n_frames: int) -> None:
    assert LogMel()(noise(n_samples)).shape == (n_frames, 64)


@pytest.mark.parametrize("leading", [(), (1,), (3,), (2, 3), (2, 1, 3)])
def test_any_leading_axes(leading: tuple[int, ...]) -> None:
    frontend, waveform = LogMel(), noise(*leading, 700)
    result = frontend(waveform)
    assert result.shape == (*leading, 5, 64)
    flat = torch.stack([frontend(single) for single in waveform.reshape(-1, 700)])
    torch.testing.assert_close(result.reshape(flat.shape), flat, rtol=0, atol=BATCH_ATOL)


def test_non_contiguous_waveforms() -> None:
    frontend, interleaved = LogMel(), noise(700, 2)
    torch.testing.assert_close(frontend(interleaved.T), frontend(interleaved.T.contiguous()), rtol=0, atol=BATCH_ATOL)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_result_is_float32_at_least(dtype: torch.dtype, expected: torch.dtype) -> None:
    frontend, waveform = LogMel(), noise(2, 700, dtype=dtype)
    result = frontend(waveform)
    assert result.dtype == expected
    # Not rounded on the way: the same samples, given in the wider dtype.
    assert result.equal(frontend(waveform.to(expected)))


def test_float64_waveforms_are_computed_in_float64() -> None:
    waveform = noise(700, dtype=torch.float64)
    exact = log_mel_spectrogram(waveform)
    # The module's window and filters are float32 (6e-8), the rest is not.
    torch.testing.assert_close(LogMel()(waveform), exact, rtol=0, atol=1e-6)
    assert (log_mel_spectrogram(waveform.float()).double() - exact).abs().max() > 1e-7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    frontend, waveform = LogMel(), noise(2, 700)
    outside = frontend(waveform)
    with torch.autocast("cpu", dtype=dtype):
        inside = frontend(waveform)
    assert inside.dtype == torch.float32
    assert inside.equal(outside)


def test_half_precision_modules_keep_window_and_filters() -> None:
    waveform = noise(2, 700)
    expected = LogMel()(waveform)
    for convert in (torch.nn.Module.half, torch.nn.Module.bfloat16, torch.nn.Module.float, torch.nn.Module.cpu):
        assert convert(LogMel())(waveform).equal(expected), convert
    # A model in half precision hands the frontend half-precision waveforms, too.
    assert torch.nn.Sequential(LogMel()).half()(waveform.half()).dtype == torch.float32


def test_nothing_is_saved_and_nothing_is_trained() -> None:
    frontend = LogMel()
    assert len(frontend.state_dict()) == 0
    assert len(list(frontend.parameters())) == 0
    assert {name for name, _ in frontend.named_buffers()} == {"window", "filters"}


def test_training_mode_and_forward_change_nothing() -> None:
    frontend, waveform = LogMel(), noise(700)
    window, filters = frontend.window.clone(), frontend.filters.clone()
    given = waveform.clone()
    assert frontend.train()(waveform).equal(frontend.eval()(waveform))
    assert frontend.window.equal(window)
    assert frontend.filters.equal(filters)
    assert waveform.equal(given)


def test_waveforms_get_a_gradient() -> None:
    waveform = noise(2, 700).requires_grad_()
    LogMel()(waveform).sum().backward()
    assert waveform.grad is not None
    assert torch.isfinite(waveform.grad).all()
    assert (waveform.grad != 0).all()


def test_settings_are_shown() -> None:
    assert "8000 Hz, 20 mel bands from 0 to 4000 Hz, n_fft=256" in repr(LogMel(**OTHER))  # type: ignore[arg-type]


def test_errors() -> None:
    with pytest.raises(
        InputError, match=r"fmax_hz <= sample_rate / 2 = 4000\.0 Hz, got fmin_hz=60\.0, fmax_hz=7800\.0"
    ):
        LogMel(sample_rate=8000)
    with pytest.raises(InputError, match=r"hop_length <= win_length <= n_fft, got 160, 400, 256"):
        LogMel(n_fft=256)
    with pytest.raises(InputError, match=r"at least 1 sample on its last axis, got \(2, 0\)"):
        LogMel()(torch.zeros(2, 0))
    with pytest.raises(InputError, match=r"must be floating-point in \[-1, 1\], got torch.int16"):
        LogMel()(torch.zeros(2, 100, dtype=torch.int16))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_devices_agree() -> None:
    frontend, waveform = LogMel(), noise(3, 16000)
    expected = frontend(waveform)
    result = frontend.cuda()(waveform.cuda())
    assert result.is_cuda
    # cuFFT and the GPU's products order their float32 sums in their own way.
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(log_mel_spectrogram(waveform.cuda()).cpu(), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(frontend.half()(waveform.cuda()).cpu(), expected, rtol=0, atol=1e-3)

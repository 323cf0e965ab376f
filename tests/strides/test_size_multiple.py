"""Maps rounded up to a multiple: larger, with nothing in the frequencies that are added."""

from itertools import pairwise
from typing import get_args

import pytest
import torch
from torch import Tensor

from audiostride import AudioClassifier, ClassifierConfig, DiffStride1d, InputError
from audiostride.checks import Size
from audiostride.strides.masks import output_length


def noise(*shape: int) -> Tensor:
    """Gaussian noise, the same in every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def make_classifier(size_multiple: int) -> AudioClassifier:
    """A narrow classifier, the same in every run."""
    torch.manual_seed(0)
    return AudioClassifier(ClassifierConfig(tasks={"word": ["no", "yes"]}, width=0.125, size_multiple=size_multiple))


def low_bins(y: Tensor, count: int) -> Tensor:
    """The lowest Fourier bins of the last axis, so that they do not depend on its length."""
    return torch.fft.rfft(y, norm="forward")[..., :count]


@pytest.mark.parametrize("multiple", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("n", [5, 16, 25, 64, 100])
@pytest.mark.parametrize("size", [size for size in get_args(Size) if size != "folded"])
def test_rounded_sizes_have_the_same_spectrum(size: Size, n: int, multiple: int) -> None:
    x, stride = noise(3, n).double(), 2.3
    plain = DiffStride1d((stride,), ramp_bins=2.0, size=size)
    rounded = DiffStride1d((stride,), ramp_bins=2.0, size=size, size_multiple=multiple)
    (n_out,), (length,) = plain.output_size(n), rounded.output_size(n)
    assert n_out == output_length(n, stride, ramp_bins=2.0, size=size)
    assert length == n or length % multiple == 0
    assert n_out <= length < n_out + multiple
    y, longer = plain(x), rounded(x)
    assert longer.shape[-1] == length
    # The bins below the Nyquist bin of the plain size: there the two halves of a frequency are not told apart.
    kept = (n_out + 1) // 2
    # Matrices in float32: sums of at most 100 of their elements, each rounded by 6e-8.
    torch.testing.assert_close(low_bins(longer, kept), low_bins(y, kept), rtol=0, atol=2e-6)
    added = torch.fft.rfft(longer, norm="forward")[..., n_out // 2 + 1 :]
    torch.testing.assert_close(added, torch.zeros_like(added), rtol=0, atol=2e-6)
    # The comparison can fail.
    assert not torch.allclose(low_bins(longer, kept), low_bins(y, kept) * 1.01, atol=2e-6)


def test_rounded_sizes_of_a_classifier() -> None:
    model, waveform = make_classifier(4), noise(3, 16000)
    sizes = model.encoder.map_sizes(model.config.window_frames, model.config.n_mels)
    assert len(sizes) == 7
    for before, after in pairwise(sizes):
        assert all(n_out == n_in or n_out % 4 == 0 for n_in, n_out in zip(before, after, strict=True))
    assert sizes != make_classifier(1).encoder.map_sizes(100, 64)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(2):
        optimizer.zero_grad()
        logits = model(waveform)["word"]
        logits.square().sum().backward()
        optimizer.step()
        model.project_strides_()
    assert logits.shape == (3, 2)
    assert [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []
    assert ClassifierConfig.from_dict(model.config.to_dict()).size_multiple == 4
    frozen = model.freeze()
    with torch.no_grad():
        # Float32 products in another order.
        torch.testing.assert_close(frozen(waveform)["word"], model.eval()(waveform)["word"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size_multiple", [0, -2, 1.5])
def test_multiples_that_are_none_are_refused(size_multiple: float) -> None:
    with pytest.raises(InputError, match=r"DiffStride1d: size_multiple must be a whole number >= 1, got"):
        DiffStride1d(size_multiple=size_multiple)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"ClassifierConfig: size_multiple must be a whole number"):
        ClassifierConfig(tasks={"word": ["no", "yes"]}, size_multiple=size_multiple)  # type: ignore[arg-type]

"""How far layers and classifier are from float64 in each dtype."""

from typing import Any, get_args

import pytest
import torch
from examples import noise_float64 as noise
from torch import Tensor, nn

from audiostride import AudioClassifier, ClassifierConfig, DiffStride2d, SpectralPool2d
from audiostride.checks import Size
from audiostride.strides.pooling import diffstride_pool

SIZES: tuple[Size, ...] = get_args(Size)
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
STRIDES = (1.75, 2.25)  # exact in every dtype, so that all pool alike


def rms(x: Tensor) -> float:
    """Root of the mean square."""
    return float(x.detach().double().square().mean().sqrt())


def pooled_in(dtype: torch.dtype, size: Size, *, fft: bool, accurate_strides: bool = True) -> dict[str, Tensor]:
    """Result, and gradients of a weighted sum of it, of a layer and a map in one dtype."""
    x, weights = noise(4, 8, 100, 64), noise(4, 8, 100, 64, seed=1)
    strides = torch.tensor(STRIDES, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    strides = (strides if accurate_strides else strides.to(dtype)).requires_grad_()
    x = x.to(dtype).requires_grad_()
    y = diffstride_pool(x, strides, size=size)
    y.backward(weights[..., : y.shape[-2], : y.shape[-1]].to(dtype))
    assert y.dtype == dtype
    assert x.grad is not None
    assert strides.grad is not None
    return {"result": y.detach().double(), "input": x.grad.double(), "strides": strides.grad.double()}


@pytest.fixture(params=[False, True], ids=["matrix", "fft"])
def fft(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways of pooling an axis."""
    monkeypatch.setattr("audiostride.strides.matrices.LONG_AXIS", 1 if request.param else 10**9)
    chosen: bool = request.param
    return chosen


def stride_terms(size: Size) -> Tensor:
    """Root of the sum of squares of what the stride gradients sum up: the size that their rounding is relative to."""
    x, weights = noise(4, 8, 100, 64), noise(4, 8, 100, 64, seed=1)
    norms = []
    for axis in (0, 1):
        step = torch.zeros(2, dtype=torch.float64)
        step[axis] = 1e-6
        above, below = (
            diffstride_pool(x, torch.tensor(STRIDES, dtype=torch.float64) + sign * step, size=size)[..., :100, :64]
            for sign in (1, -1)
        )
        norms.append(((above - below) / 2e-6 * weights[..., : above.shape[-2], : above.shape[-1]]).norm())
    return torch.stack(norms)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_error_of_pooling(size: Size, dtype: torch.dtype, fft: bool) -> None:
    exact, rounded = pooled_in(torch.float64, size, fft=fft), pooled_in(dtype, size, fft=fft)
    eps = torch.finfo(dtype).eps
    for name in ("result", "input"):
        # Rounding to a dtype errs by eps / 4 or so, rms, relative to the values: of the map, of both matrices, after
        # both products. Matrices are made in float32, from phases of up to 2 pi, which are rounded by 2 of its eps.
        error = rms(rounded[name] - exact[name]) / rms(exact[name])
        assert error < (1 if dtype != torch.float32 else 8) * eps, f"{name}: {error / eps:.2f} eps"
    # Its terms are rounded like the maps, independently of each other: errors add up as their squares do. The maps of
    # float32 err together, by the phases of its matrices.
    errors = (rounded["strides"] - exact["strides"]).abs() / stride_terms(size)
    assert (errors < (4 if dtype != torch.float32 else 16) * eps).all(), f"{errors / eps} eps"
    assert (exact["strides"].abs() > 0).all()


@pytest.mark.parametrize("size", SIZES)
def test_the_errors_are_of_that_order(size: Size, fft: bool) -> None:
    # The comparison can fail: bfloat16 is not accurate to the eps of float16, nor float16 to that of float32.
    exact = pooled_in(torch.float64, size, fft=fft)
    for dtype, finer in ((torch.bfloat16, torch.float16), (torch.float16, torch.float32)):
        rounded = pooled_in(dtype, size, fft=fft)
        for name in ("result", "input"):
            assert rms(rounded[name] - exact[name]) / rms(exact[name]) > torch.finfo(finer).eps


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_strides_of_half_precision_do_not_move_the_cutoff(dtype: torch.dtype) -> None:
    # 64 / 1.75 and 100 / 2.25 have no end in binary: in half precision cut-offs would be off by 0.1 bins.
    layer, x = DiffStride2d(STRIDES, size="nominal"), noise(2, 100, 64).float()
    half = DiffStride2d(STRIDES, size="nominal").to(dtype)
    assert half.strides.dtype == dtype
    assert half(x).equal(layer(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_of_layers(dtype: torch.dtype) -> None:
    x = noise(4, 8, 100, 64)
    for layer in (DiffStride2d(STRIDES), DiffStride2d(STRIDES, size="nominal"), SpectralPool2d(STRIDES)):
        exact = layer.double()(x)
        layer = layer.float()
        with torch.autocast("cpu", dtype=dtype):
            y = layer(x.float())
        assert y.dtype == dtype
        # As without autocast: map, matrices and products are rounded.
        assert rms(y - exact) / rms(exact) < torch.finfo(dtype).eps


def make_classifier(**settings: Any) -> AudioClassifier:
    """A narrow classifier whose norms have seen sounds of several levels, the same in every run."""
    torch.manual_seed(0)
    model = AudioClassifier(ClassifierConfig(tasks={"word": ["no", "yes"]}, width=0.125, **settings))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model((noise(6, 16000) * torch.logspace(-3, -0.5, 6)[:, None]).float())
    return model


@pytest.mark.parametrize("pool_after", ["block", "convolution"])
@pytest.mark.parametrize("pooling", ["diffstride", "spectral"])
def test_classifier_in_float64(pooling: str, pool_after: str) -> None:
    model, waveform = make_classifier(pooling=pooling, pool_after=pool_after).eval(), noise(3, 16000, seed=9) / 10
    with torch.no_grad():
        single = model(waveform.float())["word"]
        double = model.double()(waveform)["word"]
    assert double.dtype == torch.float64
    # Float32 has 1e-7 per operation, and logs of small powers and twelve layers in turn multiply it.
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-4)
    assert not single.double().equal(double)
    model.train()(waveform)["word"].square().sum().backward()
    assert {value.grad.dtype for value in model.parameters() if value.grad is not None} == {torch.float64}


@pytest.mark.parametrize("pool_after", ["block", "convolution"])
@pytest.mark.parametrize("pooling", ["diffstride", "spectral", "strided"])
def test_classifier_under_autocast(pooling: str, pool_after: str) -> None:
    model, waveform = make_classifier(pooling=pooling, pool_after=pool_after), (noise(8, 16000, seed=9) / 10).float()
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            logits = model(waveform)["word"]
        logits.float().square().mean().backward()
        assert logits.dtype == (torch.bfloat16 if enabled else torch.float32)
        found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
        assert len(found) == len(list(model.parameters()))
        gradients.append({"logits": logits.detach().float()} | found)
    plain, mixed = gradients
    for name, value in mixed.items():
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all(), name
    # bfloat16 steps by 2^-8; twelve convolutions, six poolings of two axes and twelve norms round in turn.
    assert rms(mixed["logits"] - plain["logits"]) < 24 * 2**-8 * rms(plain["logits"])
    # Gradients point the same way; max pooling and ReLU choose other places here and there, so that they differ more
    # than logits do. Measured: 0.87 to 0.93, and 0.94 with strided convolutions.
    together = torch.cat([value.flatten() for name, value in mixed.items() if name != "logits"])
    expected = torch.cat([value.flatten() for name, value in plain.items() if name != "logits"])
    assert torch.nn.functional.cosine_similarity(together, expected, dim=0) > 0.8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_classifier_in_half_precision(dtype: torch.dtype) -> None:
    model, waveform = make_classifier().eval(), (noise(3, 16000, seed=9) / 10).float()
    with torch.no_grad():
        expected = model(waveform)["word"]
        model = model.to(dtype)
        spectrogram = model.frontend(waveform).to(dtype)
        logits = model.classify_spectrogram(spectrogram)["word"]
    assert logits.dtype == dtype
    # As under autocast, with log-mel values of up to 14 and norms rounded, too.
    assert rms(logits.float() - expected) < 24 * torch.finfo(dtype).eps * rms(expected)

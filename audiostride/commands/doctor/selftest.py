"""A test of what audiostride itself does, on each device: pooling, the frontend, a few training steps."""

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from audiostride.commands.doctor.machine import has_bfloat16
from audiostride.commands.doctor.verdict import Finding, attempt, reason_of, try_import

if TYPE_CHECKING:
    from torch import Generator, Tensor

CURE = "the message says why; if torch itself is at fault, install it anew, else report it with all of this output"
STEPS = 40
TRAINING_S = 4.0


def check_devices(model: str | None = None) -> Iterator[Finding]:
    """Layer, frontend and training step on the CPU and on each GPU; the frontend and a window of a model, if given."""
    torch = try_import("torch")
    if isinstance(torch, Exception):
        text = f"not run, since torch does not import: {reason_of(torch)}"
        yield Finding("self-test", "problem", text, "mend torch first")
        return
    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    tests: dict[str, Callable[[str], Finding]] = {
        "layer": check_layer,
        "frontend": check_frontend,
        "training": check_training,
    }
    if model is not None:
        tests["model"] = lambda device: check_model(model, device)
    if has_bfloat16(torch.cpu):
        yield from attempt("arithmetic on cpu", compare_arithmetic, cure=CURE)
    for device in devices:
        for name, test in tests.items():
            yield from attempt(f"{name} on {device}", lambda test=test, device=device: test(device), cure=CURE)  # type: ignore[misc]


def check_layer(device: str) -> Finding:
    """Pooling by matrices against the Fourier transform of numpy, and the gradient of the strides."""
    # Here, so that what does not import is a finding, and no import at the head of a file that ends the examination.
    import numpy as np
    import torch

    from audiostride.strides.diffstride import DiffStride2d
    from audiostride.strides.masks import passband_mask

    layer = DiffStride2d((2.3, 1.7), size="nominal").to(device)
    x = torch.randn(4, 3, 50, 32, generator=torch.Generator().manual_seed(0))
    pooled = layer(x.to(device))
    (pooled.square().sum() + pooled[..., 0].sum()).backward()
    expected = x.double().numpy()
    for axis, n, n_out, stride in zip(
        (-2, -1), (50, 32), layer.output_size(50, 32), layer.used_strides(50, 32), strict=True
    ):
        mask = passband_mask(n, stride, size="nominal").double().numpy()
        kept = np.moveaxis(np.fft.rfft(expected, axis=axis), axis, -1)[..., : n_out // 2 + 1] * mask[: n_out // 2 + 1]
        expected = np.moveaxis(np.fft.irfft(kept, n=n_out) * n_out / n, -1, axis)
    difference = float(np.abs(pooled.detach().cpu().double().numpy() - expected).max())
    gradient = layer.strides.grad
    slopes = [math.nan] if gradient is None else gradient.tolist()
    text = f"matrices and FFT agree to {difference:.1e}, gradient of the strides {slopes[0]:.3g}, {slopes[-1]:.3g}"
    facts = {"difference": difference, "gradient": [slope if math.isfinite(slope) else None for slope in slopes]}
    good = difference < 1e-4 and all(math.isfinite(slope) and slope != 0 for slope in slopes)
    return _judged(f"layer on {device}", good, text, facts)


def check_frontend(device: str, **settings: Any) -> Finding:
    """A tone must land in its mel band, and the spectrogram of noise must be the one that numpy computes.

    Args:
        device: Where it is computed.
        settings: Of `LogMel`.
    """
    # Here, so that what does not import is a finding, and no import at the head of a file that ends the examination.
    import numpy as np
    import torch

    from audiostride.audio.log_mel import LogMel, hz_to_mel

    topic, frontend = f"frontend on {device}", LogMel(**settings).to(device)
    rate = frontend.sample_rate
    edges = np.linspace(hz_to_mel(frontend.fmin_hz), hz_to_mel(frontend.fmax_hz), frontend.n_mels + 2)
    edges_hz = 700 * (10 ** (edges / 2595) - 1)
    tone_hz = float(edges_hz[frontend.n_mels // 2])  # the middle of a band in the middle
    tone = torch.sin(2 * torch.pi * tone_hz * torch.arange(rate, dtype=torch.float64) / rate).float()[None]
    band = int(frontend(tone.to(device)).mean(dim=1).argmax())
    expected_band = int(np.abs(edges[1:-1] - hz_to_mel(tone_hz)).argmin())
    text = f"a tone of {tone_hz:g} Hz lands in band {band} of {frontend.n_mels} (its own: {expected_band})"
    facts = {"band": band, "expected_band": expected_band}
    if band != expected_band:
        return _judged(topic, False, text, facts)
    noise = 0.1 * torch.randn(1, rate, generator=torch.Generator().manual_seed(0))
    n_fft, win, hop = frontend.n_fft, frontend.win_length, frontend.hop_length
    # Each frame is centred on its hop.
    padded = np.pad(noise[0].double().numpy(), ((win - hop) // 2, win))
    frames = np.lib.stride_tricks.sliding_window_view(padded, win)[: rate - rate % hop : hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win) / win)
    power = np.abs(np.fft.rfft(frames * hann, n=n_fft)) ** 2
    bins_hz = np.arange(n_fft // 2 + 1) * frontend.sample_rate / n_fft
    filters = [np.interp(bins_hz, edges_hz[band : band + 3], [0, 1, 0]) for band in range(frontend.n_mels)]
    expected = np.log(np.maximum(power @ np.array(filters).T, frontend.power_floor))
    found = frontend(noise.to(device))[0, : len(expected)].cpu().double().numpy()
    difference = float(np.abs(found - expected).max())
    # The rounding of float32 in a sum that nearly cancels; a wrong window or band would be off by 0.1.
    text += f", log-mel agrees with numpy to {difference:.1e}"
    return _judged(topic, difference < 0.01, text, {**facts, "difference": difference})


def check_model(place: str, device: str) -> Finding:
    """The frontend of a model, with its settings, and the time that a window takes it."""
    # Here, so that what does not import is a finding, and no import at the head of a file that ends the examination.
    import torch

    from audiostride.models import load_classifier

    model, topic = load_classifier(place, device=device).freeze().eval(), f"model on {device}"
    frontend = check_frontend(device, **model.config.frontend_settings())
    times = []
    with torch.inference_mode():
        for _ in range(10):
            start = time.perf_counter()
            logits = model(torch.zeros(1, model.config.window_samples, device=device))
            finite = all(bool(values.isfinite().all()) for values in logits.values())
            times.append(time.perf_counter() - start)
    window_ms = 1000 * sorted(times)[len(times) // 2]
    heard = f"{model.config.window_s:g} s at {model.config.sample_rate} Hz"
    text = f"{place}: windows of {heard} take {window_ms:.1f} ms; {frontend.text}"
    good = finite and frontend.status == "ok"
    return _judged(topic, good, text, {**frontend.facts, "window_ms": window_ms})


def check_training(device: str) -> Finding:
    """A few steps of a narrow classifier that tells tones from noise: its loss must fall."""
    # Here, so that what does not import is a finding, and no import at the head of a file that ends the examination.
    import torch

    from audiostride.models import AudioClassifier, ClassifierConfig

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AudioClassifier(ClassifierConfig(tasks={"sound": ["noise", "tone"]}, width=0.0625)).to(device)
    strides = [parameter for name, parameter in model.named_parameters() if name.endswith(".strides")]
    weights = [parameter for name, parameter in model.named_parameters() if not name.endswith(".strides")]
    optimizer = torch.optim.Adam([{"params": weights, "lr": 2e-3}, {"params": strides, "lr": 1e-2}])
    use_bf16 = device != "cpu" and torch.cuda.get_device_capability(device) >= (8, 0)
    losses: list[float] = []
    times: list[float] = []
    generator = torch.Generator().manual_seed(0)
    begin = time.perf_counter()
    while len(losses) < STEPS and (len(losses) < 10 or time.perf_counter() - begin < TRAINING_S):
        waveform, classes = _tones_and_noise(generator)
        start = time.perf_counter()
        with torch.autocast(device.split(":")[0], dtype=torch.bfloat16, enabled=use_bf16):
            logits = model(waveform.to(device))["sound"]
        loss = torch.nn.functional.cross_entropy(logits.float(), classes.to(device))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        model.project_strides_()
        losses.append(float(loss.detach()))
        times.append(time.perf_counter() - start)
        if not math.isfinite(losses[-1]):
            break
    first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    step_ms = 1000 * sorted(times)[len(times) // 2]
    text = f"loss {first:.3f} -> {last:.3f} in {len(losses)} steps of 16 windows, {step_ms:.0f} ms each"
    text += " in bfloat16" if use_bf16 else ""
    finite = all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    numbers = {"first_loss": first, "last_loss": last, "steps": len(losses), "step_ms": step_ms}
    facts = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
    return _judged(f"training on {device}", finite and last < 0.7 * first, text, facts)


def compare_arithmetic() -> Finding:
    """How long a step takes on the CPU in float32 and in bfloat16, which some CPUs have and gain nothing by."""
    # Here, so that what does not import is a finding, and no import at the head of a file that ends the examination.
    import torch

    from audiostride.models import AudioClassifier, ClassifierConfig

    with torch.random.fork_rng():
        model = AudioClassifier(ClassifierConfig(tasks={"sound": ["noise", "tone"]}, width=0.25))
    waveform = 0.1 * torch.randn(32, 16000, generator=torch.Generator().manual_seed(0))
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(4):
        for use_bf16, taken in times.items():
            start = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=use_bf16):
                logits = model(waveform)["sound"]
            torch.autograd.backward(logits.float().square().mean())
            taken.append(1000 * (time.perf_counter() - start))
    # The first of each makes what later ones use again.
    float_ms, bf16_ms = (min(taken[1:]) for taken in times.values())
    text = f"32 windows learned at --width 0.25 take {float_ms:.0f} ms in float32, {bf16_ms:.0f} in bfloat16"
    gains = bf16_ms < 0.9 * float_ms
    text += f"; --precision bf16-mixed trains in {bf16_ms / float_ms:.2f} of the time" if gains else "; float32 it is"
    return Finding("arithmetic on cpu", "ok", text, facts={"float32_ms": float_ms, "bfloat16_ms": bf16_ms})


def _tones_and_noise(generator: "Generator") -> "tuple[Tensor, Tensor]":
    """Sixteen windows and their classes, noise and tones in turn."""
    import torch  # as above

    seconds, classes = torch.arange(16000) / 16000, torch.arange(16) % 2
    tones_hz = 300 + 600 * torch.rand(16, 1, generator=generator)
    tones = torch.sin(2 * torch.pi * tones_hz * seconds) / 2
    noise = torch.randn(16, 16000, generator=generator)
    return torch.where(classes[:, None] == 1, tones + noise / 100, noise / 4), classes


def _judged(topic: str, good: bool, text: str, facts: dict[str, Any]) -> Finding:
    return Finding(topic, "ok" if good else "problem", text, "" if good else CURE, facts)

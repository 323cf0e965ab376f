"""Frozen classifiers in formats that other programs run: torch.export and ONNX."""

from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from torch import Tensor, nn

from audiostride import AudioClassifier, ClassifierConfig, DiffStride1d

SPEECH = Path(__file__).parents[2].parent / "shared" / "data" / "speech" / "audio"


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Gaussian noise, the same in every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_classifier(**settings: Any) -> AudioClassifier:
    """A narrow classifier whose norms have seen sounds of several levels, the same in every run."""
    torch.manual_seed(0)
    tasks = {"word": ["no", "yes"], "pitch": ["60", "61", "62"]}
    model = AudioClassifier(ClassifierConfig(tasks=tasks, width=0.125, **settings))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(noise(6, model.config.window_samples) * torch.logspace(-3, -0.5, 6)[:, None])
    return model.eval()


class FromSpectrogram(nn.Module):
    """A classifier behind its frontend."""

    def __init__(self, model: AudioClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return self.model.classify_spectrogram(inputs)


class FromWaveform(nn.Module):
    """A classifier with its frontend."""

    def __init__(self, model: AudioClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        logits: dict[str, Tensor] = self.model(inputs)
        return logits


BATCH = {"inputs": {0: torch.export.Dim("batch", min=1, max=1024)}}


@pytest.mark.parametrize("pool_after", ["block", "convolution"])
def test_an_exported_classifier_takes_any_batch(pool_after: str) -> None:
    frozen = FromWaveform(make_classifier(pool_after=pool_after).freeze()).eval()
    exported = torch.export.export(frozen, (noise(2, 16000),), dynamic_shapes=BATCH).module()
    for count in (1, 2, 5):
        waveform = noise(count, 16000, seed=count) / 10
        for task, logits in frozen(waveform).items():
            # The same products in the same order.
            torch.testing.assert_close(exported(waveform)[task], logits, rtol=0, atol=1e-6)


def test_an_exported_layer_with_a_long_axis() -> None:
    frozen = DiffStride1d((2.3,), size="nominal").freeze(2000)
    exported = torch.export.export(frozen, (noise(2, 2000),), dynamic_shapes={"x": BATCH["inputs"]}).module()
    for count in (1, 3):
        x = noise(count, 2000, seed=count)
        torch.testing.assert_close(exported(x), frozen(x), rtol=0, atol=1e-6)


def speech(count: int) -> Tensor:
    """Every so-many-th clip of spoken words, each of one second."""
    paths = sorted(SPEECH.glob("*.flac"))
    assert len(paths) == 2020
    clips = []
    for path in paths[:: len(paths) // count][:count]:
        samples, sample_rate = soundfile.read(str(path), dtype="float32")
        assert sample_rate == 16000
        clips.append(torch.from_numpy(samples))
    return torch.stack(clips)


@pytest.mark.filterwarnings("ignore")  # of the exporter and what it imports
@pytest.mark.parametrize(
    ("start", "settings"),
    [(FromWaveform, {}), (FromSpectrogram, {}), (FromSpectrogram, {"size": "paper", "pool_after": "block"})],
    ids=["waveform", "spectrogram", "paper"],
)
def test_onnx(start: type[FromWaveform] | type[FromSpectrogram], settings: dict[str, Any], tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    runtime = pytest.importorskip("onnxruntime")
    classifier = make_classifier(**settings).freeze()
    model = start(classifier).eval()
    tones = torch.sin(2 * torch.pi * torch.tensor([[220.0], [1000.0]]) * torch.arange(16000) / 16000) / 3
    # Noise below the tones: in the bands beside a pure tone, a float32 FFT leaves little but its own rounding.
    audio = [noise(1, 16000) / 10, torch.cat([tones, torch.zeros(3, 16000)]) + noise(5, 16000, seed=1) / 30]
    if SPEECH.is_dir():
        audio.append(speech(8))
    cases = audio if start is FromWaveform else [classifier.frontend(waveform) for waveform in audio]
    program = torch.onnx.export(model, (cases[1],), dynamo=True, opset_version=20, dynamic_shapes=BATCH, verbose=False)
    assert program is not None
    program.save(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["inputs"]
    for case in cases:
        with torch.no_grad():
            expected = model(case)
        found = session.run(None, {"inputs": case.numpy()})
        assert len(found) == len(expected) == 2
        for ours, logits in zip(found, expected.values(), strict=True):
            # Float32 products in another order through twelve layers; logs of powers, for waveforms. Sounds unlike
            # those that the norms have seen have logits of up to 50.
            torch.testing.assert_close(torch.from_numpy(ours), logits, rtol=5e-5, atol=1e-4)
        assert case.shape[0] == 1 or float(expected["word"].std(dim=0).max()) > 0.05  # not all alike

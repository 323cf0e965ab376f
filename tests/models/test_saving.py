"""A model file is not believed: whatever stands in it, it gives a model or an error that says what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from audiostride import AudioClassifier, ClassifierConfig, InputError, load_classifier
from audiostride.functional import log_mel_spectrogram
from audiostride.models import saving

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def parts() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of a small classifier."""
    model = AudioClassifier(ClassifierConfig(tasks={"word": ["no", "yes"]}, channels=[4, 8], strides=[[2, 2], [2, 3]]))
    return model.config.to_dict(), {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


@pytest.fixture
def write(parts: tuple[dict[str, Any], dict[str, Tensor]], tmp_path: Path) -> Write:
    """Writes a file whose settings, weights or metadata differ from the classifier's; one of None is left out."""

    def run(
        settings: dict[str, Any] | None = None, weights: dict[str, Tensor | None] | None = None, **header: Any
    ) -> Path:
        config, tensors = parts
        metadata = {"format": 2, "config": {**config, **(settings or {})}, **header}
        kept = {name: tensor for name, tensor in {**tensors, **(weights or {})}.items() if tensor is not None}
        save_file(kept, tmp_path / "m.safetensors", {"audiostride": json.dumps(metadata)})
        return tmp_path / "m.safetensors"

    return run


def test_the_file_as_it_is_gives_a_model(write: Write) -> None:
    assert load_classifier(write()).config.channels == (4, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": [20000, 20000]}, r"encoder\.blocks\.0\.conv_time\.weight must be floats of shape \[20000, 1"),
        ({"channels": [2**30, 2**30]}, "width x channels must be at most 65536, got 1.07374e\\+09"),
        ({"channels": [-4, 8]}, r"channels\[0\] must be a whole number >= 1, got -4"),
        ({"channels": [4] * 10**4, "strides": [[1, 1]] * 10**4}, "number of channels must be at most 1000, got 10000"),
        ({"channels": [4] * 300, "strides": [[1, 1]] * 300}, "must fit its configuration"),
        ({"width": 1e308}, "width x channels must be at most 65536, got inf"),
        ({"width": float("nan")}, "width must be a finite number > 0, got nan"),
        ({"n_fft": 2**19, "n_mels": 65}, r"at most 16777216, got n_fft=524288, n_mels=65"),
        ({"n_fft": 131072, "n_mels": 20000}, r"at most 16777216, got n_fft=131072, n_mels=20000"),
        ({"n_mels": 2**30, "hop_length": 1}, r"window_s x sample_rate / hop_length x n_mels must be at most 67108864"),
        ({"window_s": 4000.0}, r"window_s x sample_rate / hop_length x n_fft must be at most 67108864, got 2.048e\+08"),
        ({"window_s": 1e5}, "window_s x sample_rate must be at most 268435456, got 1.6e\\+09"),
        ({"window_s": 1e308}, "window_s x sample_rate must be at most 268435456, got inf"),
        ({"sample_rate": 2**62}, "window_s x sample_rate must be at most 268435456, got 4.6"),
        ({"sample_rate": 0}, "sample_rate must be a whole number >= 1, got 0"),
        ({"win_length": 2**40}, "hop_length <= win_length <= n_fft, got 160, 1099511627776, 512"),
        ({"hop_length": -1}, "hop_length must be a whole number >= 1, got -1"),
        ({"fmax_hz": float("inf")}, "fmax_hz must be a finite number > 0, got inf"),
        ({"strides": [[1e300, 1], [1, 1]]}, "strides must be at most 268435456, got 1e\\+300"),
        ({"ramp_bins": 1e300}, "ramp_bins must be at most 268435456, got 1e\\+300"),
        ({"tasks": {"word": ["no", "\ud800"]}}, r"names in tasks must be UTF-8, got '\\ud800'"),
        ({"size_multiple": float("inf")}, "size_multiple must be 1 since version 0.2.0, got inf"),
    ],
)  # fmt: skip
def test_absurd_settings_are_named_before_anything_is_built(
    write: Write, settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    built = []
    kind = saving.AudioClassifier

    def build(config: ClassifierConfig) -> AudioClassifier:
        built.append(torch.get_default_device().type)
        return kind(config)

    monkeypatch.setattr(saving, "AudioClassifier", build)
    path = write(settings)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=message):
        load_classifier(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024, "KiB"
    assert built in ([], ["meta"]), "a model that has no weights"


def test_the_frontend_alone_has_the_same_limits() -> None:
    with pytest.raises(InputError, match="at most 16777216, got n_fft=1099511627776, n_mels=64"):
        log_mel_spectrogram(torch.zeros(16000), n_fft=2**40)


def test_a_classifier_is_built_where_tensors_are_by_default() -> None:
    with torch.device("meta"):
        model = AudioClassifier(ClassifierConfig(tasks={"word": ["no", "yes"]}, width=0.03))
    assert {tensor.device.type for tensor in [*model.buffers(), *model.parameters()]} == {"meta"}
    model = AudioClassifier(ClassifierConfig(tasks={"word": ["no", "yes"]}, width=0.03))
    assert {tensor.device.type for tensor in [*model.buffers(), *model.parameters()]} == {"cpu"}


@pytest.mark.parametrize(
    ("name", "tensor", "got"),
    [
        ("heads.0.weight", None, "got none"),
        ("more", torch.zeros(2), "must be none, got floats of shape \\[2\\]"),
        ("heads.0.weight", torch.zeros(3, 8), "must be floats of shape \\[2, 8\\], got floats of shape \\[3, 8\\]"),
        ("heads.0.weight", torch.zeros(2, 8, dtype=torch.int32), "got torch.int32 of shape"),
        ("heads.0.weight", torch.zeros(2, 8, dtype=torch.complex64), "got torch.complex64 of shape"),
        ("input_norm.num_batches_tracked", torch.zeros(()), "must be torch.int64 of shape \\[\\], got floats"),
    ],
)
def test_weights_that_do_not_fit_are_named(write: Write, name: str, tensor: Tensor | None, got: str) -> None:
    with pytest.raises(InputError, match=f"must fit its configuration, but 1 of 37 do not: {name} .*{got}"):
        load_classifier(write(weights={name: tensor}))


def test_weights_of_another_precision_are_taken(write: Write, parts: tuple[dict[str, Any], dict[str, Tensor]]) -> None:
    half = {name: tensor.half() for name, tensor in parts[1].items() if tensor.is_floating_point()}
    assert next(load_classifier(write(weights=half)).parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    "header", [{"format": float("inf")}, {"format": None}, {"format": "x"}, {"config": [1]}, {"config": 3}]
)
def test_metadata_of_another_kind_is_none(write: Write, header: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"the metadata of .*m\.safetensors must be the JSON of a model"):
        load_classifier(write(**header))


def test_metadata_nested_without_end_is_none(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", {"audiostride": "[" * 10**5})
    with pytest.raises(InputError, match="must be the JSON of a model"):
        load_classifier(tmp_path / "m.safetensors")


def test_a_changed_file_gives_a_model_or_an_error(
    write: Write, parts: tuple[dict[str, Any], dict[str, Tensor]], tmp_path: Path
) -> None:
    content, rng, n_models = write().read_bytes(), np.random.default_rng(0), 0
    text, path = json.dumps({"format": 2, "config": parts[0]}), tmp_path / "changed.safetensors"
    for number in range(600):
        place = int(rng.integers(0, len(text)))
        if number % 3 == 0:
            end = place + int(rng.integers(0, 3))
            put_in = "".join(rng.choice(list('0123456789.-,:[]{}"e'), int(rng.integers(0, 3))))
            save_file(parts[1], path, {"audiostride": text[:place] + put_in + text[end:]})
        elif number % 3 == 1:
            path.write_bytes(content[: int(rng.integers(0, len(content)))])
        else:
            changed = bytearray(content)
            changed[place] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(changed)
        try:
            n_models += isinstance(load_classifier(path), AudioClassifier)
        except InputError:
            continue
    assert 10 < n_models < 300, "some changes are to values that are as good"

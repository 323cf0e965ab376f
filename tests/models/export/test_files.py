"""Frozen classifiers in formats that other programs run: torch.export and ONNX."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from examples import make_classifier, noise
from torch import Tensor, nn

import audiostride
from audiostride import (
    AudioClassifier,
    ClassifierConfig,
    DiffStride1d,
    DiffStride2d,
    InputError,
    LogMel,
    load_classifier,
)
from audiostride.models import save_classifier
from audiostride.models.export import export_classifier, export_format, files
from audiostride.models.export.graph import ExportInput, LogMelProducts
from audiostride.models.export.parity import Parity, Runner, generate_clips, measure_parity

SPEECH = Path(__file__).parents[3].parent / "shared" / "data" / "speech" / "audio"


TWO_BLOCKS: dict[str, Any] = {"channels": (64, 64), "strides": ((2, 2), (2, 2))}  # which export in half the time


class FromWaveform(nn.Module):
    """A classifier with its frontend."""

    def __init__(self, model: AudioClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        logits: dict[str, Tensor] = self.model(inputs)
        return logits


BATCH = {"inputs": {0: torch.export.Dim("batch", min=1, max=1024)}}


@pytest.mark.parametrize(
    "settings", [{"pool_after": "block"}, {"pool_after": "convolution"}, {"head_pooling": "both", "input_norm": "band"}]
)
def test_an_exported_classifier_takes_any_batch(settings: dict[str, str]) -> None:
    frozen = FromWaveform(make_classifier(**settings).freeze()).eval()
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


def speech(count: int) -> list[Tensor]:
    """Every so-many-th clip of spoken words as one batch of one second each, where they are at hand."""
    paths = sorted(SPEECH.glob("*.flac"))
    clips = [soundfile.read(str(path), dtype="float32")[0] for path in paths[:: max(len(paths) // count, 1)][:count]]
    return [torch.from_numpy(np.stack(clips))] if clips else []


def train_a_little(model: AudioClassifier) -> AudioClassifier:
    """Strides that have moved away from where they started, and so have other sizes."""
    with torch.no_grad():
        for number, block in enumerate(model.encoder.block_list()):
            if isinstance(block.pool, DiffStride2d):
                block.pool.strides.add_(0.3 + 0.1 * number)
    model.project_strides_()
    return model


@pytest.mark.parametrize("win_length", [400, 401, 160, 512])
@pytest.mark.parametrize("n_samples", [16000, 7001])
def test_the_frontend_by_products_is_the_frontend(win_length: int, n_samples: int) -> None:
    frontend = LogMel(win_length=win_length)
    products = LogMelProducts(frontend, n_samples)
    waveform = noise(3, n_samples) * torch.tensor([[1e-3], [0.1], [1.0]])
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(n_samples) / 16000)[None] + noise(1, n_samples) / 30
    for sound in (waveform, tone, torch.zeros(1, n_samples)):
        # Logs of powers of up to 400, summed in float32 in another order.
        torch.testing.assert_close(products(sound), frontend(sound), rtol=0, atol=3e-4)
    assert products.cosines.shape == (win_length // 2, 248)  # of 257 bins, those from 60 to 7,800 Hz


def test_the_frontend_by_products_agrees_with_a_loop_in_float64() -> None:
    frontend = LogMel(sample_rate=8000, n_mels=12, n_fft=64, win_length=51, hop_length=20, fmin_hz=100, fmax_hz=3900)
    sound = noise(1, 330)
    padded = np.concatenate([np.zeros(15), sound[0].double().numpy(), np.zeros(64)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(51) / 51)
    power = [np.abs(np.fft.rfft(window * padded[20 * i : 20 * i + 51], 64)) ** 2 for i in range(17)]
    expected = np.log(np.maximum(np.stack(power) @ frontend.filters.double().numpy(), 1e-6))
    np.testing.assert_allclose(LogMelProducts(frontend, 330)(sound)[0].numpy(), expected, rtol=0, atol=2e-5)


def needs_onnx() -> Any:
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    return pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("input", ["waveform", "log-mel"])
def test_an_onnx_file_tells_what_it_is_and_takes_any_batch(input: ExportInput, tmp_path: Path) -> None:
    runtime = needs_onnx()
    model = train_a_little(make_classifier())
    found = export_classifier(model, tmp_path / "m.onnx", input=input)
    assert list(tmp_path.iterdir()) == [tmp_path / "m.onnx"]
    assert found.n_bytes == (tmp_path / "m.onnx").stat().st_size
    assert (found.parity.n_clips, found.parity.n_same_class, found.parity.generated) == (16, 16, True)
    assert found.parity.max_difference < 1e-3
    assert [each.batch_size for each in found.latencies] == [1, 16]
    assert all(min(each.exported_ms, each.torch_ms) > 0 for each in found.latencies)
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    shape = [16000] if input == "waveform" else [100, 64]
    (entry,) = session.get_inputs()
    assert (entry.name, entry.shape[1:]) == (input.replace("-", "_"), shape)
    assert [(each.name, each.shape[1:]) for each in session.get_outputs()] == [
        ("logits_word", [2]),
        ("logits_pitch", [3]),
    ]
    facts = session.get_modelmeta().custom_metadata_map
    assert {key: facts[key] for key in ("input", "sample_rate", "window_samples", "window_s")} == {
        "input": input,
        "sample_rate": "16000",
        "window_samples": "16000",
        "window_s": "1.0",
    }
    assert facts["audiostride_version"] == audiostride.__version__
    assert json.loads(facts["tasks"]) == model.config.tasks
    assert json.loads(facts["outputs"]) == {"word": "logits_word", "pitch": "logits_pitch"}
    assert json.loads(facts["frontend"])["hop_length"] == 160
    for waveform in [noise(count, 16000, seed=count) / 10 for count in (1, 3, 70)] + speech(8):
        given = waveform if input == "waveform" else model.frontend(waveform)
        logits = session.run(["logits_pitch"], {entry.name: given.numpy()})[0]
        with torch.no_grad():
            expected = model(waveform)["pitch"].numpy()
        np.testing.assert_allclose(logits, expected, rtol=5e-5, atol=1e-4)
    # Neither paths of this machine nor matrices repeated for every map of a batch.
    content = (tmp_path / "m.onnx").read_bytes()
    assert str(Path(audiostride.__file__).parent).encode() not in content
    assert b"Expand" not in content


def test_a_torch_export_archive_of_a_loaded_model_tells_what_it_is(tmp_path: Path) -> None:
    model = train_a_little(make_classifier(pooling="diffstride"))
    save_classifier(model, tmp_path / "model.safetensors")
    clips = noise(5, 16000) / 10
    found = export_classifier(load_classifier(tmp_path / "model.safetensors"), tmp_path / "m.pt2", clips=clips)
    assert (found.format, found.parity.n_clips, found.parity.generated) == ("torch-export", 5, False)
    files = {"audiostride.json": ""}
    program = torch.export.load(tmp_path / "m.pt2", extra_files=files).module()
    assert json.loads(json.loads(files["audiostride.json"])["tasks"]) == model.config.tasks
    for count in (1, 4):
        with torch.no_grad():
            logits, expected = program(clips[:count]), model(clips[:count])
        assert list(logits) == ["logits_word", "logits_pitch"]
        torch.testing.assert_close(logits["logits_word"], expected["word"], rtol=0, atol=1e-5)
    assert str(Path(audiostride.__file__).parent).encode() not in (tmp_path / "m.pt2").read_bytes()
    assert found.n_bytes < 3e6  # the clips are not in it


@pytest.mark.parametrize("settings", [{"pooling": "strided"}, {"pooling": "spectral"}, {"size": "paper"}])
def test_every_pooling_is_exported(settings: dict[str, Any], tmp_path: Path) -> None:
    needs_onnx()
    import onnx

    model = train_a_little(make_classifier(**settings, **TWO_BLOCKS))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = export_classifier(model, tmp_path / "m.onnx")
    assert found.parity.max_difference < 1e-3
    # The version of the format that came with these operators, by the table of the onnx package: a newer one is refused
    # by runtimes that know all of the operators.
    proto = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", 18)]
    assert proto.ir_version == onnx.helper.find_min_ir_version_for(proto.opset_import) == 8
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_an_int8_file_has_weights_of_a_byte_and_nearly_the_same_logits(tmp_path: Path) -> None:
    runtime = needs_onnx()
    import onnx

    strides = ((1.15, 2.06), (1.9, 2.1), (1.0, 1.3), (1.6, 1.7), (1.7, 1.0), (2.4, 2.4))  # where matrices are repeated
    model = make_classifier(width=0.25, strides=strides)
    found = export_classifier(model, tmp_path / "m.onnx", calibration=generate_clips(model.config))
    assert found.float_bytes is not None
    assert found.n_bytes == (tmp_path / "m.onnx").stat().st_size < 0.75 * found.float_bytes
    proto = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", 18)]
    assert proto.ir_version == 8
    assert not {"Expand", "Shape"} & {node.op_type for node in proto.graph.node}
    weights = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1)
    in_bytes = [tensor for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert sum(math.prod(tensor.dims) for tensor in in_bytes) >= weights
    in_floats = [tensor for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    frontend = sum(math.prod(tensor.dims) for tensor in in_floats if tensor.name.startswith("frontend."))
    assert frontend == 2 * 200 * 248 + 248 * 64, "the frontend stays as it is"
    assert sum(math.prod(tensor.dims) for tensor in in_floats) - frontend < 0.05 * weights
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["tasks"]) == model.config.tasks
    waveform = generate_clips(model.config)
    with torch.no_grad():
        expected = model(waveform)["pitch"].numpy()
    logits = session.run(["logits_pitch"], {"waveform": waveform.numpy()})[0]
    error = np.square(logits - expected).mean() / expected.var(axis=0).mean()
    assert 1e-4 < error < 0.2, "rounded, and not to something else"
    (alone,) = session.run(["logits_pitch"], {"waveform": waveform[3:4].numpy()})
    np.testing.assert_allclose(alone[0], logits[3], rtol=0, atol=1e-5)


def test_int8_that_is_not_accepted_is_not_written(tmp_path: Path) -> None:
    needs_onnx()
    model, seen = make_classifier(**TWO_BLOCKS), []

    def refuse(before: Runner, after: Runner) -> None:
        windows = generate_clips(model.config)[:2].numpy()
        seen.extend([before(windows), after(windows)])
        raise InputError("too much is lost")

    with pytest.raises(InputError, match="too much is lost"):
        export_classifier(model, tmp_path / "m.onnx", calibration=generate_clips(model.config), accept=refuse)
    assert list(tmp_path.iterdir()) == []
    with torch.no_grad():
        expected = model(generate_clips(model.config)[:2])["word"].numpy()
    np.testing.assert_allclose(seen[0][0], expected, rtol=5e-5, atol=1e-4)
    assert np.abs(seen[1][0] - expected).max() > 1e-3, "the second is the int8 network"
    with pytest.raises(InputError, match=r"int8 must be given with ONNX or C, got torch-export; name the output"):
        export_classifier(model, tmp_path / "m.pt2", calibration=generate_clips(model.config))
    with pytest.raises(InputError, match=r"calibration must have shape \(clips, 16000\), got \(0, 16000\)"):
        export_classifier(model, tmp_path / "m.onnx", calibration=torch.zeros(0, 16000))


def test_the_window_and_the_names_are_those_of_the_model(tmp_path: Path) -> None:
    runtime = needs_onnx()
    tasks = {"waveform": ["a", "b"], "Ort, Tag/Nacht": ["früh", "spät"]}
    frontend = {"sample_rate": 8000, "window_s": 0.75, "fmax_hz": 3900, "n_mels": 40}
    model = AudioClassifier(ClassifierConfig(tasks=tasks, width=0.03, **frontend, **TWO_BLOCKS))
    found = export_classifier(model.eval(), tmp_path / "m.onnx")
    assert found.input_shape == (6000,)
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1] == 6000
    assert [each.name for each in session.get_outputs()] == ["logits_waveform", "logits_Ort, Tag/Nacht"]
    assert json.loads(session.get_modelmeta().custom_metadata_map["tasks"]) == tasks


@pytest.mark.parametrize("old", [None, b"precious"])
def test_a_file_that_does_not_do_what_pytorch_does_is_not_written(
    tmp_path: Path, old: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m.pt2"
    if old is not None:
        out.write_bytes(old)
    load = files.torch_export_runner

    def loads_wrongly(content: bytes) -> Runner:
        run = load(content)
        return lambda inputs: [logits + 0.002 for logits in run(inputs)]

    monkeypatch.setattr(files, "torch_export_runner", loads_wrongly)
    with pytest.raises(InputError, match=r"to 1e-03, but they differ by 0\.002, .* for 16 of 16 clips; .* not written"):
        export_classifier(make_classifier(**TWO_BLOCKS), out, overwrite=True)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([] if old is None else [old])


def test_a_model_with_broken_weights_is_not_exported(tmp_path: Path) -> None:
    model = make_classifier(**TWO_BLOCKS)
    with torch.no_grad():
        model.heads[0].weight.fill_(math.nan)
    with pytest.raises(InputError, match=r"differ by inf.*Are all weights finite"):
        export_classifier(model, tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_parity_knows_another_top_class_from_a_tie() -> None:
    model = make_classifier()
    clips = noise(4, 16000) / 10
    with torch.no_grad():
        logits = [values.numpy() for values in model(clips).values()]

    def parity(change: Callable[[list[Any]], None]) -> Parity:
        changed = [values.copy() for values in logits]
        change(changed)
        # One clip alone, then the others.
        parts = iter([[values[:1] for values in changed], [values[1:] for values in changed]])
        return measure_parity(model, clips, clips, lambda inputs: next(parts), generated=True)

    same = parity(lambda values: None)
    assert (same.n_same_class, same.n_clips) == (4, 4)
    same.check(Path("m"))

    def swap(values: list[Any]) -> None:
        values[0][2] = values[0][2, ::-1].copy()

    other = parity(swap)
    assert other.n_same_class == 3
    with pytest.raises(InputError, match="3 of 4 clips"):
        other.check(Path("m"))
    with torch.no_grad():  # two classes that are all the same to the model: rounding decides
        model.heads[0].weight[1] = model.heads[0].weight[0]
        model.heads[0].bias[1] = model.heads[0].bias[0]
        logits = [values.numpy() for values in model(clips).values()]
    tied = parity(swap)
    assert tied.n_same_class == 4


def test_large_logits_are_compared_to_their_own_digits() -> None:
    assert Parity(1, True, 0.0, 20.0, 1).tolerance == 1e-3
    assert Parity(1, True, 0.0, 5000.0, 1).tolerance == pytest.approx(0.05)
    with pytest.raises(InputError, match="differ by nan"):
        Parity(1, True, math.nan, 1.0, 1).check(Path("m"))


def test_generated_clips_are_sounds_and_always_the_same() -> None:
    config = make_classifier().config
    clips = generate_clips(config)
    assert clips.shape == (16, 16000)
    assert torch.equal(clips, generate_clips(config))
    assert clips.abs().max() <= 1
    assert clips.std(dim=1).min() > 5e-4


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("m.tflite", None, r"must end in \.onnx, \.pt2, \.h, \.html, or --format be given, got .*m\.tflite"),
        ("m", None, "or --format be given"),
        ("m.pt2", "onnx", r"must fit --format onnx, got .*m\.pt2"),
        ("m.onnx", "torch-export", "must fit --format torch-export"),
        ("m.onnx", "tflite", "format must be one of"),
        ("no/m.pt2", None, "in a folder that exists"),
        ("folder.pt2", None, "is a folder"),
        ("old.pt2", None, "exists; choose another -o, or give --overwrite"),
    ],
)
def test_bad_places_and_formats_are_refused(tmp_path: Path, name: str, format: str | None, message: str) -> None:
    (tmp_path / "folder.pt2").mkdir()
    (tmp_path / "old.pt2").write_text("precious")
    with pytest.raises(InputError, match=message):
        export_classifier(make_classifier(), tmp_path / name, format=format)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder.pt2", "old.pt2"]
    assert (tmp_path / "old.pt2").read_text() == "precious"


def test_clips_of_another_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"clips must have shape \(clips, 16000\), got \(2, 8000\)"):
        export_classifier(make_classifier(), tmp_path / "m.pt2", clips=noise(2, 8000))


def test_a_missing_package_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_format, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(InputError, match=r"missing: onnxscript; install them with pip install 'audiostride\[export\]'"):
        export_classifier(make_classifier(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(InputError, match=r"cannot be written: No space left on device; make room there"):
        export_classifier(make_classifier(**TWO_BLOCKS), tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_an_exporter_that_fails_is_told_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object, **settings: object) -> None:
        raise RuntimeError("onnxscript too old\nand a long trace")

    monkeypatch.setattr(files, "to_torch_export", fails)
    with pytest.raises(InputError, match=r"failed: onnxscript too old; update torch, onnx and onnxscript"):
        export_classifier(make_classifier(), tmp_path / "m.pt2")

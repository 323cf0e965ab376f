import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from audiostride import AudioClassifier, ClassifierConfig, Encoder, InputError, load_classifier
from audiostride.models import save_classifier

TASKS = {"word": ["no", "yes", "stop"], "pitch": ["60", "61"]}
VARIANTS = [("strided", "nominal"), ("spectral", "nominal"), ("diffstride", "nominal"), ("diffstride", "paper")]


def make_model(**settings: object) -> AudioClassifier:
    torch.manual_seed(0)
    return AudioClassifier(ClassifierConfig(**{"tasks": TASKS, "width": 0.04, **settings}))


@pytest.mark.parametrize(("pooling", "size"), VARIANTS)
def test_every_parameter_gets_a_gradient(pooling: str, size: str) -> None:
    model = make_model(pooling=pooling, size=size)
    logits = model(torch.randn(4, 16000))
    assert {task: tuple(values.shape) for task, values in logits.items()} == {"word": (4, 3), "pitch": (4, 2)}
    sum(values.square().sum() for values in logits.values()).backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize(("pooling", "size"), VARIANTS)
def test_map_sizes_are_those_of_the_maps(pooling: str, size: str) -> None:
    encoder = Encoder(pooling=pooling, size=size, width=0.04)
    for n_frames, n_mels in [(100, 64), (37, 20), (1, 1), (3, 10)]:
        x = torch.zeros(2, 1, n_frames, n_mels)
        sizes = encoder.map_sizes(n_frames, n_mels)
        for block, expected in zip(encoder.blocks, sizes[1:], strict=True):
            x = block(x)
            assert tuple(x.shape[2:]) == expected


def test_nominal_maps_have_the_size_of_strided_ones() -> None:
    strided, nominal = (Encoder(pooling=pooling, width=0.04) for pooling in ("strided", "diffstride"))
    assert nominal.map_sizes(100, 64) == strided.map_sizes(100, 64)
    assert strided.map_sizes(100, 64)[-1] == (7, 4)


@pytest.mark.parametrize("n_bins", range(1, 11))
def test_maps_of_few_bins_train(n_bins: int) -> None:
    for size in ("paper", "nominal"):
        encoder = Encoder(pooling="diffstride", size=size, width=0.04)
        optimizer = torch.optim.SGD([block.pool.strides for block in encoder.blocks], lr=1.0)
        for _ in range(3):
            optimizer.zero_grad()
            encoder(torch.randn(3, 1, n_bins, n_bins)).square().sum().backward()
            optimizer.step()
            encoder.project_strides_(n_bins, n_bins)
        strides = torch.cat([block.pool.strides.detach() for block in encoder.blocks])
        assert strides.isfinite().all()
        assert ((strides >= 1) & (strides <= max(n_bins, 1) + 1e-6)).all()


def test_evaluation_changes_nothing_and_has_no_batch_dependence() -> None:
    model = make_model().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    waveform = torch.randn(5, 16000)
    with torch.no_grad():
        together = model(waveform)["word"]
        alone = torch.cat([model(row[None])["word"] for row in waveform])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)  # other blocking of the products
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_width_scales_the_channels() -> None:
    assert Encoder(width=0.25).out_channels == 128
    assert Encoder(width=1e-6).out_channels == 1


def test_a_saved_model_is_one_file_that_gives_the_same_logits(tmp_path: Path) -> None:
    model = make_model(strides=((1.5, 2), (2, 2), (1, 1), (2, 2), (1, 1), (2, 2))).eval()
    save_classifier(model, tmp_path / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    loaded = load_classifier(tmp_path)
    assert loaded.config == model.config
    assert not loaded.training
    waveform = torch.randn(2, 16000)
    with torch.no_grad():
        for task, logits in model(waveform).items():
            assert torch.equal(loaded(waveform)[task], logits)


def test_the_file_holds_configuration_and_class_names(tmp_path: Path) -> None:
    save_classifier(make_model(), tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as stored:
        assert json.loads(stored.metadata()["audiostride"])["config"]["tasks"] == TASKS


def test_models_of_the_first_format_pool_after_a_block(tmp_path: Path) -> None:
    saved = AudioClassifier(ClassifierConfig(tasks={"word": ["no", "yes"]}, width=0.125, pool_after="block")).eval()
    config = saved.config.to_dict()
    del config["pool_after"]  # as it was written before there was a choice
    tensors = {name: tensor.contiguous() for name, tensor in saved.state_dict().items()}
    save_file(tensors, tmp_path / "m.safetensors", {"audiostride": json.dumps({"format": 1, "config": config})})
    loaded = load_classifier(tmp_path / "m.safetensors")
    assert loaded.config == saved.config
    waveform = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    assert loaded(waveform)["word"].equal(saved(waveform)["word"])


def test_loading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a run folder"):
        load_classifier(tmp_path)
    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(InputError, match=r"text\.safetensors must be a safetensors file"):
        load_classifier(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="has no such metadata"):
        load_classifier(tmp_path / "other.safetensors")
    path = tmp_path / "cut.safetensors"
    save_classifier(make_model(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cut\.safetensors must be a safetensors file"):
        load_classifier(path)


def test_an_edited_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_classifier(make_model(), path)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[-40] ^= 1  # a bit of a weight
    for edited in (bytes(flipped), content.replace(b"stop", b"halt")):
        assert edited != content
        path.write_bytes(edited)
        with pytest.raises(InputError, match=r"m\.safetensors was edited or damaged: its checksum must be"):
            load_classifier(path)
    path.write_bytes(content)
    assert load_classifier(path).config.tasks == TASKS


def test_class_names_that_clash_in_a_file_are_refused(tmp_path: Path) -> None:
    config = {**make_model().config.to_dict(), "tasks": {"word": ["no", "no"]}}
    for values, message in [(config, r"m\.safetensors must be that of a model: .*different class names, got"),
                            ({**config, "tasks": 3}, r"the configuration in .*m\.safetensors must be that of a model"),
                            ("text", "must be the JSON of a model")]:  # fmt: skip
        header = {"audiostride": json.dumps({"format": 2, "config": values})}
        save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata=header)
        with pytest.raises(InputError, match=message):
            load_classifier(tmp_path / "m.safetensors")


def test_a_newer_format_and_unknown_settings_are_refused(tmp_path: Path) -> None:
    config = make_model().config.to_dict()
    for header, message in [
        ({"format": 99, "config": config}, "update audiostride"),
        ({"format": 1, "config": {**config, "future": 1}}, "got future"),
        ({"format": 1}, "must be the JSON of a model"),
        ({"format": 1, "config": config}, "must fit its configuration"),
    ]:
        save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata={"audiostride": json.dumps(header)})
        with pytest.raises(InputError, match=message):
            load_classifier(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": {}}, "at least one task"),
        ({"tasks": {"t": ["a"]}}, "two or more different class names"),
        ({"tasks": {"t": ["a", "a"]}}, "two or more different class names"),
        ({"tasks": {"t": [1, "1"]}}, "two or more different class names"),
        ({"pooling": "max"}, "pooling must be one of strided, spectral, diffstride, got 'max'"),
        ({"size": "small"}, "size must be one of paper, nominal, folded"),
        ({"ramp_bins": 0}, "ramp_bins must be > 0 FFT bins, got 0"),
        ({"width": 0}, "width must be > 0"),
        ({"strides": ((2, 2),)}, r"one pair per block \(6\), got 1"),
        ({"channels": (8,), "strides": ((2, 0.5),)}, r"strides\[0\]\[1\] must be >= 1"),
        ({"channels": (8,), "strides": ((2,),)}, "one entry per axis"),
        ({"channels": (0,), "strides": ((2, 2),)}, r"channels\[0\] must be a whole number >= 1, got 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClassifierConfig(**{"tasks": TASKS, **settings})


def test_fractional_strides_need_a_pooling_that_has_them() -> None:
    with pytest.raises(InputError, match="fractional strides need pooling"):
        make_model(pooling="strided", channels=(4,), strides=((1.5, 2),))


def test_encoders_alone_check_their_settings() -> None:
    for settings, message in (
        ({"strides": [(2, 2)]}, r"Encoder: strides must have one pair per block \(6\), got 1"),
        ({"strides": [(2, 0.5)], "channels": [4]}, r"strides\[0\]\[1\] must be >= 1 .*, got 0\.5"),
        ({"pooling": "max"}, "pooling must be one of strided, spectral, diffstride, got 'max'"),
        ({"size": "small"}, "size must be one of paper, nominal, folded, mixed, got 'small'"),
        ({"pool_after": "norm"}, "pool_after must be one of block, convolution, got 'norm'"),
        ({"ramp_bins": float("nan")}, "ramp_bins must be a finite number > 0 FFT bins, got nan"),
    ):
        with pytest.raises(InputError, match=message):
            Encoder(**settings)  # type: ignore[arg-type]


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(B, samples\), got \(16000,\)"):
        make_model()(torch.zeros(16000))
    with pytest.raises(InputError, match=r"shape \(B, 1, T, M\)"):
        Encoder(width=0.04)(torch.zeros(2, 100, 64))


@pytest.mark.parametrize("encoder", ["separable", "resnet18"])
@pytest.mark.parametrize(("kind", "factor"), [("max", 1), ("mean", 1), ("both", 2)])
def test_heads_see_maximum_or_mean_or_both(encoder: str, kind: str, factor: int) -> None:
    model = make_model(encoder=encoder, head_pooling=kind).eval()
    spectrogram = torch.randn(2, 100, 64)
    maps = model.encoder(model.input_norm(spectrogram.unsqueeze(1)))
    expected = {"max": maps.flatten(2).max(dim=2).values, "mean": maps.flatten(2).mean(dim=2)}
    expected["both"] = torch.cat([expected["max"], expected["mean"]], dim=1)
    assert model.heads[0].in_features == factor * model.encoder.out_channels
    torch.testing.assert_close(model.classify_spectrogram(spectrogram)["pitch"], model.heads[1](expected[kind]))


def test_a_norm_per_band_takes_level_and_spread_of_each_band_away() -> None:
    model, levels = make_model(input_norm="band"), torch.linspace(-14, 6, 64)
    spectrogram = levels + torch.randn(8, 100, 64) * torch.linspace(0.5, 3, 64)
    seen = []
    model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.classify_spectrogram(spectrogram)
    assert seen[0].shape == (8, 1, 100, 64)
    expected = (spectrogram - spectrogram.mean((0, 1))) / spectrogram.var((0, 1), correction=0).add(1e-5).sqrt()
    torch.testing.assert_close(seen[0][:, 0], expected, rtol=1e-4, atol=1e-4)


def test_a_model_of_before_these_settings_is_written_and_read_as_it_was(tmp_path: Path) -> None:
    plain = make_model()
    assert not {"head_pooling", "input_norm"} & set(plain.config.to_dict())
    for model in (plain, make_model(head_pooling="both", input_norm="band")):
        save_classifier(model, tmp_path / "model.safetensors")
        read = load_classifier(tmp_path / "model.safetensors")
        assert (read.config, read.checksum()) == (model.config, model.checksum())

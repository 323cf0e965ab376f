"""Augmentation in the training step: what is drawn is what is done, and evaluation knows nothing of it."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiostride.models import AudioClassifier, ClassifierConfig
from audiostride.training import TrainConfig
from audiostride.training.augmentation.drawing import AugmentationConfig, draw_augmentation
from audiostride.training.loss import ClassifierTraining, augment_waveform, mask

B, N, NOISE_N = 5, 16000, 20000
EVERYTHING = AugmentationConfig(gain_db=12.0, noise_prob=0.7, mixup=0.4, time_masks=2, mel_masks=2)


def make_noises() -> Tensor:
    return torch.randn(3, NOISE_N, generator=torch.Generator().manual_seed(1))


def make_batch(config: AugmentationConfig, *, step: int = 0) -> dict[str, Tensor]:
    """A batch as the loader gives it, of noises of different levels so that every ratio of levels is another."""
    rng = np.random.default_rng(step)
    waveform = rng.standard_normal((B, N)) * rng.uniform(0.05, 0.3, (B, 1))
    sizes = {"batch_size": B, "n_frames": 100, "n_mels": 64, "frame_s": 0.01}
    draws = draw_augmentation(config, **sizes, seed=0, step=step)
    arrays = {"waveform": waveform.astype(np.float32), "class_index": np.array([0, 1, 2, 0, 1]), **draws}
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def gain_by_hand(waveform: NDArray[np.float64], draws: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.stack([10 ** (db / 20) * row for row, db in zip(waveform, draws["gain_db"], strict=True)])


def noise_by_hand(waveform: NDArray[np.float64], draws: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    rows = []
    for row, snr_db, pick, place in zip(
        waveform, draws["noise_snr_db"], draws["noise_pick"], draws["noise_place"], strict=True
    ):
        start = int(place * (NOISE_N - N + 1))
        noise = make_noises().numpy().astype(np.float64)[int(pick * 3), start : start + N]
        rows.append(row + noise * np.sqrt(np.mean(row**2) / np.mean(noise**2) * 10 ** (-snr_db / 10)))
    return np.stack(rows)


def mix_by_hand(waveform: NDArray[np.float64], draws: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    pairs = zip(draws["mixup_weight"], draws["mixup_partner"].astype(int), strict=True)
    return np.stack([share * waveform[i] + (1 - share) * waveform[partner] for i, (share, partner) in enumerate(pairs)])


def by_hand(batch: dict[str, Tensor], *steps: Callable[..., NDArray[np.float64]]) -> NDArray[np.float64]:
    draws = {name: values.numpy().astype(np.float64) for name, values in batch.items()}
    waveform = draws["waveform"]
    for step in steps:
        waveform = step(waveform, draws)
    return waveform


@pytest.mark.parametrize(
    ("settings", "step"),
    [({"gain_db": 12.0}, gain_by_hand), ({"noise_prob": 0.7}, noise_by_hand), ({"mixup": 0.4}, mix_by_hand)],
)
def test_each_augmentation_does_what_was_drawn(settings: dict[str, float], step: Callable[..., object]) -> None:
    batch = make_batch(AugmentationConfig(**settings))
    found = augment_waveform(batch, make_noises())
    # float32 sums of samples up to 1, against float64.
    np.testing.assert_allclose(found.numpy(), by_hand(batch, step), atol=1e-6)
    assert not torch.equal(found, batch["waveform"])


def test_gain_comes_first_then_noise_then_mixup() -> None:
    batch = make_batch(EVERYTHING)
    assert torch.isinf(batch["noise_snr_db"]).any()  # one without noise is among them
    found = augment_waveform(batch, make_noises()).numpy()
    np.testing.assert_allclose(found, by_hand(batch, gain_by_hand, noise_by_hand, mix_by_hand), atol=1e-6)
    # Noise goes by the level of its example, so that gain and noise may change places; mixup may not.
    for other in ((mix_by_hand, gain_by_hand, noise_by_hand), (gain_by_hand, mix_by_hand, noise_by_hand)):
        assert np.abs(found - by_hand(batch, *other)).max() > 1e-3


def test_what_was_not_drawn_is_not_done() -> None:
    batch = make_batch(AugmentationConfig())
    assert augment_waveform(batch, make_noises()) is batch["waveform"]
    spectrogram = torch.ones(B, 100, 64)
    assert mask(spectrogram, batch) is spectrogram
    with_masks = make_batch(AugmentationConfig(time_masks=1, mel_masks=1))
    assert augment_waveform(with_masks, make_noises()) is with_masks["waveform"]


@pytest.mark.parametrize("axes", [("time",), ("mel",), ("time", "mel")])
def test_masked_stretches_become_the_mean_of_their_example(axes: tuple[str, ...]) -> None:
    batch = make_batch(AugmentationConfig(**{f"{axis}_masks": 2 for axis in axes}))
    spectrogram = torch.randn(B, 100, 64, generator=torch.Generator().manual_seed(0))
    expected = spectrogram.clone()
    for i in range(B):
        for axis in axes:
            for start, length in zip(batch[f"{axis}_mask_starts"][i], batch[f"{axis}_mask_lengths"][i], strict=True):
                stretch = slice(int(start), int(start + length))
                index = (i, stretch) if axis == "time" else (i, slice(None), stretch)
                expected[index] = spectrogram[i].mean()
    assert torch.equal(mask(spectrogram, batch), expected)
    assert not torch.equal(spectrogram, expected)


def make_module(**settings: object) -> ClassifierTraining:
    torch.manual_seed(0)
    tasks = {"kind": ["a", "b", "c"]}
    model = AudioClassifier(ClassifierConfig(tasks=tasks, pooling="strided", channels=[4], strides=[[4, 4]]))
    return ClassifierTraining(model, TrainConfig(manifest="m", out="o"), noises=make_noises(), **settings)


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 3.0]])
@pytest.mark.parametrize("config", [AugmentationConfig(), EVERYTHING], ids=["plain", "everything"])
def test_the_loss_is_that_of_the_mixed_classes_and_weights(
    config: AugmentationConfig, weights: list[float] | None
) -> None:
    module = make_module(class_weights=None if weights is None else [torch.tensor(weights)])
    batch = make_batch(config)
    loss = module(batch).item()

    model = make_module().model  # the same weights, and batch norm before its first batch
    waveform = augment_waveform(batch, make_noises())
    logits = model.classify_spectrogram(mask(model.frontend(waveform), batch))["kind"].detach().double().numpy()
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    classes = batch["class_index"].numpy()
    partners, shares = np.arange(B), np.ones(B)
    if "mixup_weight" in batch:
        partners, shares = batch["mixup_partner"].numpy(), batch["mixup_weight"].double().numpy()
    total = weight = 0.0
    for i in range(B):
        for share, k in ((shares[i], classes[i]), (1 - shares[i], classes[partners[i]])):
            w = 1.0 if weights is None else weights[k]
            total, weight = total - share * w * log_probs[i, k], weight + share * w
    assert loss == pytest.approx(total / weight, rel=1e-5)  # float32 against float64


def watch_inputs(module: nn.Module) -> list[Tensor]:
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    return seen


def test_masks_reach_the_encoder() -> None:
    module, batch = make_module(), make_batch(AugmentationConfig(time_masks=1, mel_masks=1), step=3)
    seen = watch_inputs(module.model.encoder)
    module(batch)
    assert seen[0].shape == (B, 1, 100, 64)
    stretches = [
        [slice(int(s), int(s + n)) for s, n in zip(batch[f"{axis}_mask_starts"], batch[f"{axis}_mask_lengths"])]  # noqa: B905
        for axis in ("time", "mel")
    ]
    masked = 0
    for example, frames, bands in zip(seen[0][:, 0], *stretches, strict=True):
        blank = torch.cat([example[frames].ravel(), example[:, bands].ravel()])
        masked += len(blank)
        # One value, which noise does not have twice.
        assert len(blank.unique()) <= 1
    assert masked > 1000


def test_everything_is_off_unless_asked_for() -> None:
    config = TrainConfig(manifest="m", out="o")
    assert config.augmentation() == AugmentationConfig()
    assert make_batch(config.augmentation()).keys() == {"waveform", "class_index"}
    off = {"time_shift_s": 0.0, "gain_db": 0.0, "noise": None, "mixup": 0.0, "time_masks": 0, "mel_masks": 0}
    off |= {"balance": "none", "class_weights": "none"}
    assert {name: getattr(config, name) for name in off} == off
    described = {field.name for field in fields(TrainConfig)}
    assert off.keys() <= described


def test_settings_of_augmentation_arrive() -> None:
    settings = {
        "gain_db": 3.0,
        "lowest_gain_db": -20.0,
        "noise_prob": 0.25,
        "noise_snr_db": (1.0, 2.0),
        "mixup": 0.1,
        "time_masks": 3,
    }
    settings |= {"time_mask_s": 0.2, "mel_masks": 4, "mel_mask_bands": 5}
    assert settings.keys() == {field.name for field in fields(AugmentationConfig)}
    config = TrainConfig(manifest="m", out="o", noise="synthetic", **settings)
    assert config.augmentation() == AugmentationConfig(**settings)
    assert TrainConfig(manifest="m", out="o", **settings).augmentation().noise_prob == 0  # there is no noise to add
    assert TrainConfig(**config.to_dict()).augmentation() == config.augmentation()  # by way of config.yaml


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gain-db", "-1"], "gain_db must be >= 0 dB, got -1"),
        (["--time-shift-s", "-0.1"], "time_shift_s must be >= 0, got -0.1"),
        (["--mixup", "-0.2"], "mixup must be >= 0"),
        (["--noise", "synthetic", "--noise-prob", "2"], "noise_prob must be a probability in [0, 1], got 2"),
        (["--noise-snr-db", "[30,5]"], "noise_snr_db must be lowest <= highest"),
        (["--noise-snr-db", "[5]"], "noise_snr_db must be two numbers in dB"),
        (["--noise-snr-db", "[]"], "noise_snr_db must be two numbers in dB"),
        (["--noise-snr-db", "[1,2,3]"], "noise_snr_db must be two numbers in dB"),
        (["--time-masks", "-1"], "time_masks must be a whole number >= 0"),
        (["--time-masks", "1", "--time-mask-s", "5"], "time_mask_s must be from one frame, 0.01 s, to the window, 1 s"),
        (["--mel-masks", "1", "--mel-mask-bands", "65"], "mel_mask_bands must be at most the 64 mel bands, got 65"),
        (["--noise", "no/such/folder"], "noise: must be a folder of recordings or 'synthetic', got"),
        (["--balance", "speaker"], "--balance must be none or class or group, got speaker"),
        (["--class-weights", "yes"], "--class-weights must be none or balanced, got yes"),
    ],
)
def test_bad_settings_end_with_code_2_before_anything_is_written(
    set_manifest: Path,
    quick_run: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert quick_run(set_manifest, tmp_path / "run", *options) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "run").exists()

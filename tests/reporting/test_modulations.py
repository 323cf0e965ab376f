"""Modulation power spectra: ripples where they were made, a transform written out, and shares that the masks say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from audiostride import AudioClassifier, ClassifierConfig
from audiostride.audio.log_mel import hz_to_mel, log_mel_spectrogram
from audiostride.commands.demo.ripples import synthesise_ripple
from audiostride.dataset.manifest import inspect_manifest
from audiostride.reporting import report
from audiostride.reporting.measuring import layer_mask
from audiostride.reporting.modulation_figures import BOX, CONTOUR, draw_modulations
from audiostride.reporting.modulations import (
    ModulationSpectrum,
    class_spectra,
    cut_windows,
    layer_gains,
    mean_spectrum,
    modulation_spectrum,
)
from audiostride.reporting.runs import read_run
from audiostride.reporting.style import inline_svg, render

CONFIG = ClassifierConfig(tasks={"t": ["a", "b"]}, channels=(2, 2), strides=((2, 2), (2, 2)))


@pytest.mark.parametrize(("rate_hz", "density"), [(5, 0.078125), (20, 0.140625), (32, 0.21875)])
def test_a_ripple_stands_where_it_was_made(rate_hz: float, density: float) -> None:
    rng = np.random.default_rng(0)
    ripples = [synthesise_ripple(rate_hz, density, rng=rng) for _ in range(12)]
    found = modulation_spectrum(ripples, CONFIG)
    power = found.power * (found.densities > 0.02)[:, None]  # below lies the shape of the carrier
    place = np.unravel_index(power.argmax(), power.shape)
    assert abs(found.rates_hz[place[1]]) == pytest.approx(rate_hz, rel=0.02)
    assert found.densities[place[0]] == pytest.approx(density, rel=0.02)


def test_what_rises_lies_at_negative_rates() -> None:
    """A tone that rises by the same number of mel bands in each second."""
    seconds = np.arange(16000) / 16000
    mels = np.linspace(hz_to_mel(300), hz_to_mel(4000), 16000)
    hertz = 700 * (10 ** (mels / 2595) - 1)
    rising = (0.3 * np.sin(2 * np.pi * np.cumsum(hertz) / 16000)).astype(np.float32)
    assert seconds[-1] < 1
    for sound, sign in ((rising, -1), (rising[::-1].copy(), 1)):
        found = modulation_spectrum([sound], CONFIG)
        own, other = found.power[3:, sign * found.rates_hz > 2].sum(), found.power[3:, -sign * found.rates_hz > 2].sum()
        assert own > 5 * other


def test_the_spectrum_is_the_transform_written_out() -> None:
    config = ClassifierConfig(tasks={"t": ["a", "b"]}, n_mels=6, window_s=0.12, fmin_hz=300, hop_length=320)
    rng = np.random.default_rng(0)
    windows = [rng.standard_normal(length).astype(np.float32) / 10 for length in (1920, 1280)]  # one is shorter
    found, expected = modulation_spectrum(windows, config), np.zeros((4, 6))
    for samples in windows:
        bands = log_mel_spectrogram(torch.from_numpy(samples), **config.frontend_settings()).double().numpy()
        n_frames = len(bands)
        weights = np.array([[0.5 - 0.5 * np.cos(2 * np.pi * t / n_frames)] for t in range(n_frames)]) * np.array(
            [0.5 - 0.5 * np.cos(2 * np.pi * m / 6) for m in range(6)]
        )
        bands = (bands - (bands * weights).sum() / weights.sum()) * weights
        for row, density in enumerate((0, 1, 2, 3)):
            for column, rate in enumerate((-3, -2, -1, 0, 1, 2)):
                total = sum(
                    bands[t, m] * np.exp(-2j * np.pi * (density * m / 6 + rate * t / 6))
                    for t in range(n_frames)
                    for m in range(6)
                )
                expected[row, column] += (1 if density in (0, 3) else 2) * abs(total) ** 2 / (weights**2).sum() / 2
    np.testing.assert_allclose(found.power, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.rates_hz, np.array([-3, -2, -1, 0, 1, 2]) / 0.12)
    np.testing.assert_allclose(found.densities, np.arange(4) / 6)


def made_spectrum(power: NDArray[np.float64]) -> ModulationSpectrum:
    n_densities, n_rates = power.shape
    return ModulationSpectrum(power, np.arange(n_rates) - n_rates // 2.0, np.arange(n_densities) / 64)


def test_shares_are_what_the_gains_leave() -> None:
    spectrum = made_spectrum(np.random.default_rng(0).random((33, 100)))
    time, mel = np.linspace(1, 0, 30), np.linspace(1, 0.2, 20)
    left = 0.0
    for row in range(33):
        for column in range(100):
            rate = abs(column - 50)
            gain = (time[rate] if rate < 30 else 0) * (mel[row] if row < 20 else 0)
            left += spectrum.power[row, column] * gain**2
    assert spectrum.passed(time, mel) == pytest.approx(left / spectrum.power.sum())
    assert spectrum.passed(np.ones(51), np.ones(33)) == pytest.approx(1)
    for share in (0.8, 0.95):
        inside = spectrum.power[spectrum.power >= spectrum.level(share)].sum() / spectrum.power.sum()
        assert share <= inside < share + 0.001
    flat = made_spectrum(np.ones((33, 100)))
    assert flat.limits(0.9) == (45, 29 / 64)
    other = made_spectrum(np.zeros((33, 100)))
    other.power[0, 50] = 7
    assert mean_spectrum({"a": flat, "b": other}).power[0, 50] == pytest.approx((1 / 3300 + 1) / 2)


@pytest.mark.parametrize("pooling", ["diffstride", "spectral", "strided"])
def test_gains_are_those_of_the_layers_in_turn(pooling: str) -> None:
    model = AudioClassifier(ClassifierConfig(tasks={"t": ["a", "b"]}, channels=(2, 2), strides=((2, 4), (2, 2)),
                                             pooling=pooling, size="nominal"))  # fmt: skip
    (first, second) = layer_gains(model)
    # A layer of stride 2 over 100 frames lets nothing pass from 25 Hz on (bin 25 of 1 Hz), the second from 12.5 Hz on.
    assert np.count_nonzero(first[0]) == {"diffstride": 25, "spectral": 26, "strided": 26}[pooling]
    assert np.count_nonzero(second[0]) == {"diffstride": 13, "spectral": 13, "strided": 13}[pooling]
    assert (first[0][:20] == 1).all()
    assert len(second[1]) <= len(first[1])
    assert np.count_nonzero(first[1]) == {"diffstride": 8, "spectral": 9, "strided": 9}[pooling]
    if pooling == "diffstride":  # a second layer of stride 1 has its ramp where the first one has, and takes more there
        model = AudioClassifier(ClassifierConfig(tasks={"t": ["a", "b"]}, channels=(2, 2), strides=((2, 4), (1, 1)),
                                                 size="nominal"))  # fmt: skip
        (first, second), (_, (block, n_in, n_out)) = layer_gains(model), model.encoder.pooled_layers(100, 64)
        np.testing.assert_allclose(second[0], first[0][:26] * layer_mask(block, 0, n_in, n_out))
        assert 0 < second[0][24] < first[0][24] < 1


def test_windows_are_spread_over_a_clip() -> None:
    samples = np.arange(50000, dtype=np.float32)
    assert [window[0] for window in cut_windows(samples, CONFIG)] == [0, 34000]
    assert [len(window) for window in cut_windows(samples[:9000], CONFIG)] == [9000]


def test_the_page_says_what_is_lost_of_which_class(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    made = report(run)
    table = made.tables["modulations"]
    assert sorted(table["class"]) == ["noise", "tone"]
    assert (table["layer 1"] > table["layer 2"]).all()
    assert table["layer 1"].is_monotonic_increasing
    first, last = table.iloc[0], table.iloc[1]
    told = (
        f"{100 * last['layer 1']:.1f} % of {last['class']}, {100 * first['layer 1']:.1f} % of {first['class']}, which"
    )
    assert "Layer 1 passes " in made.html
    assert told.replace(" %", "\u00a0%") in made.html
    clips, _ = inspect_manifest(read_run(run).source, labels=["kind"])
    train = clips[clips["split"] == "train"]
    spectra = class_spectra(train, "kind", "", AudioClassifier(ClassifierConfig(tasks={"t": ["a", "b"]})).config)
    expected = spectra["tone"].passed(*layer_gains(audiostride_model(run))[0])
    assert table.set_index("class").loc["tone", "layer 1"] == pytest.approx(expected)
    strided = report(make_run(tmp_path / "strided", pooling="strided"))
    assert "Layer 1 keeps below its cut-offs " in strided.html
    for path in tmp_path.glob("audio*"):
        path.unlink()
    assert "The training clips can no longer be read, or are silent: no spectrum of them." in report(run).html


def test_what_lies_on_the_plane_keeps_its_colour_in_a_dark_page() -> None:
    spectrum = made_spectrum(np.random.default_rng(0).random((33, 100)))
    shown = inline_svg(render(draw_modulations({"": spectrum}, AudioClassifier(CONFIG)), format="svg"))
    assert CONTOUR in shown
    assert BOX in shown


def test_sounds_that_several_runs_have_learned_are_heard_once(make_run: Callable[..., Path], tmp_path: Path) -> None:
    first = make_run(tmp_path / "words" / "first")
    again = make_run(tmp_path / "words" / "again", pooling="strided")
    other = make_run(tmp_path / "songs" / "other", tasks={"bird": ["chat", "wren"]})
    made = report([first, again, other])
    assert [name for name in made.tables if name.startswith("modulations")] == [
        "modulations_first",
        "modulations_other",
    ]
    assert made.html.count("Modulation power spectrum of the training clips") == 2
    assert "modulation power of the sounds of bird" in made.html
    assert sorted(made.tables["modulations_other"]["class"]) == ["chat", "wren"]
    (tmp_path / "songs" / "manifest.csv").unlink()
    assert [name for name in report([first, again, other]).tables if "modulations" in name] == ["modulations_first"]


def audiostride_model(run: Path) -> AudioClassifier:
    from audiostride import load_classifier

    return load_classifier(run)


def test_the_command_draws_and_tells(
    run_command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng: Any = np.random.default_rng(0)
    for name, pair in {"slow": (5, 0.078125), "fast": (32, 0.21875)}.items():
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for number in range(3):
            samples = synthesise_ripple(*pair, rng=rng)
            soundfile.write(str(tmp_path / "sounds" / name / f"{number}.wav"), samples, 16000)
    (tmp_path / "sounds" / "silent").mkdir()
    soundfile.write(str(tmp_path / "sounds" / "silent" / "0.wav"), np.zeros(16000), 16000)
    out, manifest = tmp_path / "picture.svg", tmp_path / "picture.csv"
    manifest.write_text("precious")  # what a manifest of that name would be
    assert run_command("modulations", tmp_path / "sounds", "-o", out) == 0
    assert f"picture: {out}, table: {tmp_path / 'picture_modulations.csv'}" in capsys.readouterr().out
    assert out.read_text().count("<image") == 3
    assert manifest.read_text() == "precious"
    table = pd.read_csv(tmp_path / "picture_modulations.csv").set_index("class")
    assert list(table.index) == ["all classes", "fast", "slow"], "of silence there is no spectrum"
    assert table.loc["slow", "rate_hz_80"] < 10 < table.loc["fast", "rate_hz_80"] <= 33
    assert table.loc["slow", "density_80"] < 0.1 < table.loc["fast", "density_80"]
    assert run_command("modulations", tmp_path / "sounds", "-o", tmp_path / "picture.pdf") == 2
    assert "-o must be a .png or .svg file in a folder that exists" in capsys.readouterr().err
    assert run_command("modulations", tmp_path / "gone", "-o", out) == 2
    assert "does not exist" in capsys.readouterr().err

"""Other rates, windows and bands from the command line to prediction and export; what does not fit is said first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import yaml

from audiostride.audio.log_mel import analysis_lengths, mel_filterbank
from audiostride.errors import InputError
from audiostride.models import load_classifier
from audiostride.models.config import ClassifierConfig
from audiostride.training import TrainConfig
from audiostride.training.presets import preset_settings

Run = Callable[..., int]
# Rate, and settings that suit what is there: music, ultrasound of insects, bats.
RATES: dict[int, dict[str, Any]] = {
    48_000: {"window-s": 0.5, "n-mels": 48},
    96_000: {"window-s": 0.25, "hop-ms": 4, "win-ms": 10, "fmin-hz": 2000},
    250_000: {"window-s": 0.1, "hop-ms": 1, "win-ms": 2, "fmin-hz": 15000, "fmax-hz": 120000, "frontend": "pcen"},
}


def options_of(settings: dict[str, Any]) -> list[str]:
    return [str(item) for name, value in settings.items() for item in (f"--{name}", value)]


@pytest.fixture(scope="module", params=list(RATES), ids=lambda rate: f"{rate} Hz")
def sweeps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """A rate, and a manifest of sweeps that rise or fall between 0.2 and 0.9 of its Nyquist frequency."""
    rate, root = request.param, tmp_path_factory.mktemp("sweeps")
    rng, rows = np.random.default_rng(0), []
    for number in range(18):
        kind = ("rises", "falls")[number % 2]
        times_s = np.arange(int(rate * rng.uniform(0.2, 0.6))) / rate
        edges_hz = np.array([0.1, 0.45]) * rate
        first_hz, last_hz = edges_hz if kind == "rises" else edges_hz[::-1]
        phase = 2 * np.pi * (first_hz * times_s + (last_hz - first_hz) * times_s**2 / (2 * times_s[-1]))
        soundfile.write(str(root / f"{number}.wav"), 0.3 * np.sin(phase), rate, subtype="PCM_16")
        rows.append({"path": f"{number}.wav", "kind": kind, "split": ("train", "train", "valid", "test")[number // 5]})
    file = root / "m.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    return rate, file


def test_a_rate_of_its_own_trains_predicts_and_exports(
    sweeps: tuple[int, Path], tmp_path: Path, quick_run: Run, run_command: Run
) -> None:
    rate, manifest = sweeps
    settings = {"sample-rate": rate, **RATES[rate]}
    run, store = tmp_path / "run", tmp_path / "store"
    assert quick_run(manifest, run, *options_of(settings)) == 0
    config = load_classifier(run).config
    assert config.sample_rate == rate
    assert config.fmax_hz == RATES[rate].get("fmax-hz", 0.4875 * rate)
    assert config.window_samples == rate * RATES[rate]["window-s"]
    assert config.hop_length == rate * RATES[rate].get("hop-ms", 10) // 1000
    assert config.frontend == RATES[rate].get("frontend", "log-mel")

    out = tmp_path / "p.csv"
    assert run_command("predict", run, manifest.parent / "0.wav", "-o", out, "--per-window") == 0
    table = pd.read_csv(out)
    info = soundfile.info(str(manifest.parent / "0.wav"))
    assert len(table) == 1 + -(-(info.frames - config.window_samples) // config.window_samples)
    assert table["end_s"].max() == pytest.approx(info.duration, abs=1e-4)
    assert run_command("export", run, "-o", tmp_path / "m.pt2") == 0  # which compares the logits

    assert run_command("prepare", manifest, "-o", store, "--sample-rate", rate) == 0
    assert quick_run(store, tmp_path / "stored", *options_of(settings)) == 0
    # The store has 16 bits, as the files had: the same samples, the same network.
    for name, tensor in load_classifier(run).state_dict().items():
        torch.testing.assert_close(load_classifier(tmp_path / "stored").state_dict()[name], tensor)


def test_a_store_of_another_rate_says_both_ways_out(
    set_manifest: Path, tmp_path: Path, quick_run: Run, run_command: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("prepare", set_manifest, "-o", tmp_path / "store") == 0
    assert quick_run(tmp_path / "store", tmp_path / "run", "--sample-rate", 22050) == 2
    said = capsys.readouterr().err
    assert "must be at the 22050 Hz of the model, got 16000" in said
    assert "prepare it anew with --sample-rate 22050, or train a model of its rate: --sample-rate 16000" in said
    assert not (tmp_path / "run").exists()


def test_the_defaults_are_those_of_the_paper() -> None:
    config = TrainConfig(out="x", manifest="m.csv")
    paper = preset_settings("paper")
    for name in ("sample_rate", "window_s", "win_ms", "hop_ms", "n_mels", "fmin_hz", "fmax_hz", "frontend"):
        assert getattr(config, name) == paper[name], name
    bands = {
        name: getattr(config, name) for name in ("sample_rate", "n_mels", "fmin_hz", "fmax_hz", "win_ms", "hop_ms")
    }
    ours = ClassifierConfig(tasks={"word": ["no", "yes"]})
    assert analysis_lengths(**bands) == {name: getattr(ours, name) for name in ("win_length", "hop_length", "n_fft")}


@pytest.mark.parametrize(("n_mels", "grows"), [(64, False), (128, False), (256, True), (512, True)])
def test_the_fft_grows_until_every_band_holds_a_bin(n_mels: int, grows: bool) -> None:
    bands = {"sample_rate": 16000, "n_mels": n_mels, "fmin_hz": 60.0, "fmax_hz": 7800.0}
    found = analysis_lengths(win_ms=25, hop_ms=10, **bands)
    mel_filterbank(n_fft=found["n_fft"], **bands)
    assert (found["n_fft"] > 512) == grows
    if grows:
        with pytest.raises(InputError, match="every mel band must hold an FFT bin"):
            mel_filterbank(n_fft=found["n_fft"] // 2, **bands)


@pytest.mark.parametrize(
    ("settings", "message", "remedy"),
    [
        ({"fmax_hz": 9000}, r"fmax_hz must be at most half of sample_rate \(16000 Hz\), got 9000", {"fmax_hz": 7800}),
        ({"fmin_hz": 7800}, r"fmin_hz must be below fmax_hz \(7800 Hz\), got 7800", {"fmin_hz": 78}),
        ({"sample_rate": 100}, r"fmin_hz must be below fmax_hz \(48.75 Hz\), got 60", {"fmin_hz": 0.4875}),
        ({"hop_ms": 30}, r"hop_ms must lie in \[0.0625, 25\], from one sample to win_ms, got 30", {"hop_ms": 10}),
        ({"hop_ms": 0.01}, r"hop_ms must lie in \[0.0625, 25\]", {"hop_ms": 10}),
        ({"window_s": 0.02}, r"window_s must hold an analysis window of win_ms \(25 ms\), got 0.02", {"window_s": 1}),
    ],
)
def test_what_does_not_fit_is_an_error_with_a_value_that_does(
    settings: dict[str, Any], message: str, remedy: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        TrainConfig(out="x", manifest="m.csv", **settings)
    ((_, value),) = remedy.items()
    assert f"give {value:g}" in str(caught.value)
    TrainConfig(out="x", manifest="m.csv", **{**settings, **remedy})


def test_more_bands_than_bins_are_an_error_with_a_number_that_does(
    set_manifest: Path, tmp_path: Path, quick_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quick_run(set_manifest, tmp_path / "run", "--n-mels", 2000) == 2
    said = capsys.readouterr().err
    most = int(said.split("take at most ")[1].split()[0])
    assert quick_run(set_manifest, tmp_path / "run", "--n-mels", most, "--max-steps", 1, "--valid-every", 1) == 0


def test_a_run_goes_on_with_its_frontend_and_gives_it_on(
    set_manifest: Path, tmp_path: Path, quick_run: Run, run_command: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    settings = options_of(
        {"sample-rate": 8000, "window-s": 0.7, "hop-ms": 12.5, "n-mels": 40, "frontend": "learned-pcen"}
    )
    assert quick_run(set_manifest, first, *settings) == 0
    assert quick_run(set_manifest, first, *settings, "--resume") == 0
    assert quick_run(set_manifest, first, "--resume", "--n-mels", 50) == 2
    assert "n_mels" in capsys.readouterr().err
    start = ["--max-steps", 3, "--batch-size", 4, "--preset", "none"]
    assert (
        run_command("train", "--init", first, "--manifest", set_manifest, "--label", "kind", "--out", second, *start)
        == 0
    )
    one, other = load_classifier(first).config, load_classifier(second).config
    assert one == other
    kept = yaml.safe_load((second / "config.yaml").read_text())
    assert [kept[name] for name in ("sample_rate", "window_s", "hop_ms", "n_mels")] == [8000, 0.7, 12.5, 40]
    assert load_classifier(first).pcen is not None
    assert run_command("train", "--init", first, "--hop-ms", 10, "--manifest", set_manifest, "--label", "kind", "--out",
                       tmp_path / "third", *start) == 2  # fmt: skip
    assert "hop_ms: 10.0, there 12.5" in capsys.readouterr().err
    assert run_command("evaluate", second) == 0

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from audiostride.audio.log_mel import log_mel_spectrogram
from audiostride.commands.demo.ripples import class_label, synthesise_ripple, write_ripples
from audiostride.commands.demo.two_tasks import compare_with_truth, demo, describe_outcome, draw_modulation_plane
from audiostride.dataset.cards import card_folder, read_card
from audiostride.errors import InputError

CARD = read_card("ripples")
CLASSES = [
    (rate, density)
    for task in CARD["tasks"].values()
    for rate in task["rates_hz"]
    for density in task["densities_cycles_per_mel"]
]


@pytest.mark.parametrize(("rate_hz", "density"), CLASSES)
def test_a_ripple_has_the_modulation_that_its_name_says(rate_hz: float, density: float) -> None:
    """The strongest point of the modulation spectrum, averaged over ripples, is the one asked for."""
    rng = np.random.default_rng(0)
    power = torch.zeros(129, 51)
    for _ in range(12):
        samples = synthesise_ripple(rate_hz, density, rng=rng)
        # Low bands are narrower than the FFT's resolution, and smear fine modulations: the upper 3/4 count.
        bands = log_mel_spectrogram(torch.from_numpy(samples))[:, 16:].T  # (48, T)
        bands = (bands - bands.mean(dim=1, keepdim=True)) * torch.hann_window(48)[:, None]
        spectrum = torch.fft.rfft2(bands, s=(256, 100)).abs().square()
        power += spectrum[:129] + spectrum[[0, *range(255, 127, -1)]]
    k_mel, k_time = divmod(int(power[2:].argmax()), 51)
    assert k_time == pytest.approx(rate_hz, abs=1)
    assert (k_mel + 2) / 256 == pytest.approx(density, abs=0.012)


def test_ripples_are_a_function_of_the_seed(tmp_path: Path) -> None:
    card = {**CARD, "clips": {"train": 4, "test": 4}}
    manifests = [
        write_ripples(tmp_path / name, "slow", card, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    audio = [[path.read_bytes() for path in sorted((tmp_path / name / "audio").iterdir())] for name in "abc"]
    assert audio[0] == audio[1]
    assert audio[0][0] != audio[2][0]
    assert len(set(audio[0])) == 8
    table = pd.read_csv(manifests[0])
    assert table["modulation"].nunique() == 4
    assert table["modulation"][0] == class_label(*CLASSES[0])


def test_cards_are_found_and_unknown_ones_named() -> None:
    assert (card_folder() / "ripples.toml").is_file()
    with pytest.raises(InputError, match=r"one of .*ripples.*, got 'nothing'"):
        read_card("nothing")


def fake_results(*cutoffs: tuple[float, float]) -> pd.DataFrame:
    results = {}
    for task, (hertz, cycles) in zip(CARD["tasks"], cutoffs, strict=True):
        table = pd.DataFrame({"layer": 1, "axis": ["time", "mel"], "stride": 2.0, "cutoff": [hertz, cycles]})
        results[task] = ({"accuracy": 0.9}, table)
    return compare_with_truth(CARD, results)


def test_the_outcome_is_read_off_the_numbers() -> None:
    followed = fake_results((10, 0.1), (40, 0.3))
    assert followed["classes inside"].tolist() == ["4 of 4", "4 of 4"]
    assert describe_outcome(followed).endswith("the learned cut-offs follow the modulations.")
    assert "do not follow" in describe_outcome(fake_results((10, 0.3), (40, 0.1)))
    assert "2 of 4 lie inside" in describe_outcome(fake_results((10, 0.1), (25, 0.3)))


def test_the_demo_does_not_write_into_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="must be a new or empty folder"):
        demo(tmp_path)


def test_the_plane_shows_the_modulations_of_the_card_and_what_the_first_layers_pass() -> None:
    (panel,) = draw_modulation_plane(CARD, fake_results((10, 0.1), (40, 0.3))).axes
    shown = [(rate, density) for marks in panel.collections for density, rate in marks.get_offsets()]
    assert sorted(shown) == sorted(CLASSES)
    assert [line.get_xydata()[1].tolist() for line in panel.lines] == [[0.1, 10], [0.3, 40]]

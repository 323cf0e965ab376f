"""Batches with draws of augmentation, by class or group, from worker processes and from a store."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from audiostride.dataset.prepare import prepare_store
from audiostride.dataset.readers import AudioReader, open_reader
from audiostride.errors import InputError
from audiostride.training.augmentation.drawing import AugmentationConfig
from audiostride.training.batches import ExcerptBatches
from audiostride.training.loading import load_batches
from lab.clips import read_clips


def same_items(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# One augmentation each, with the names of what it adds to a batch.
KINDS: list[tuple[dict[str, float], set[str]]] = [
    ({"gain_db": 6.0}, {"gain_db"}),
    ({"noise_prob": 0.5}, {"noise_snr_db", "noise_pick", "noise_place"}),
    ({"mixup": 0.3}, {"mixup_partner", "mixup_weight"}),
    ({"time_masks": 2}, {"time_mask_starts", "time_mask_lengths"}),
    ({"mel_masks": 2}, {"mel_mask_starts", "mel_mask_lengths"}),
]
EVERYTHING = AugmentationConfig(**{name: value for settings, _ in KINDS for name, value in settings.items()})


@pytest.fixture(scope="module")
def reader(manifest: Path) -> AudioReader:
    return open_reader(read_clips(manifest, label="kind"), progress=False)


def augmented(reader: AudioReader, config: AugmentationConfig, **settings: object) -> ExcerptBatches:
    options = {"batch_size": 6, "window": 4000, "seed": 2, "augmentation": config} | settings
    return ExcerptBatches(reader, np.arange(len(reader)), **options)


@pytest.mark.parametrize(("settings", "names"), KINDS)
def test_switching_one_augmentation_on_adds_its_draws_and_changes_nothing_else(
    reader: AudioReader, settings: dict[str, float], names: set[str]
) -> None:
    plain, with_one = augmented(reader, AugmentationConfig()), augmented(reader, AugmentationConfig(**settings))
    whole = augmented(reader, EVERYTHING)
    for step in (0, 5):
        item, everything = with_one[step], whole[step]
        assert item.keys() == {"waveform", "class_index", "failed"} | names
        assert same_items(plain[step], {name: item[name] for name in plain[step]})
        assert same_items(item, {name: everything[name] for name in item})


def test_the_time_shift_moves_excerpts_and_nothing_else(reader: AudioReader) -> None:
    plain, shifted = augmented(reader, EVERYTHING)[3], augmented(reader, EVERYTHING, shift=800)[3]
    assert not torch.equal(plain.pop("waveform"), shifted.pop("waveform"))
    assert same_items(plain, shifted)


def test_augmented_batches_are_a_function_of_seed_and_step(reader: AudioReader) -> None:
    batches, again = augmented(reader, EVERYTHING), augmented(reader, EVERYTHING)
    later = again[5]
    assert same_items(later, [batches[step] for step in range(6)][5])
    for other in (batches[4], augmented(reader, EVERYTHING, seed=3)[5]):
        differing = {name for name in later if not torch.equal(later[name], other[name])}
        assert differing == later.keys() - {"failed"}


def test_augmented_batches_of_worker_processes_are_the_same(reader: AudioReader) -> None:
    units = np.arange(len(reader)) % 3
    batches = augmented(reader, EVERYTHING, units=units)
    for first in (0, 4):  # what a resumed run asks for
        loader = load_batches(augmented(reader, EVERYTHING, units=units), workers=2, sampler=range(first, 7))
        loaded = list(loader)
        assert len(loaded) == 7 - first
        assert all(same_items(batch, batches[step]) for step, batch in enumerate(loaded, start=first))


def test_masks_that_do_not_fit_are_refused_before_any_batch(reader: AudioReader) -> None:
    with pytest.raises(InputError, match="mel_mask_bands must be at most the 20 mel bands, got 21"):
        augmented(reader, AugmentationConfig(mel_masks=1, mel_mask_bands=21), spectrogram=(100, 20, 0.01))
    with pytest.raises(InputError, match=r"time_mask_s must be from one frame, 0\.02 s, to the window, 1 s"):
        augmented(reader, AugmentationConfig(time_masks=1, time_mask_s=1.1), spectrogram=(50, 20, 0.02))


def test_units_come_equally_often(reader: AudioReader) -> None:
    units = np.minimum(np.arange(len(reader)), 2)  # clip 0, clip 1, and the twenty others
    batches = augmented(reader, AugmentationConfig(), units=units)  # six of a batch: two rounds
    clips = torch.stack([batches[step]["class_index"] for step in range(10)])
    assert np.array_equal(np.sort(units[clips], axis=1), [[0, 0, 1, 1, 2, 2]] * 10)
    assert sorted(clips[clips > 1].tolist()) == list(range(2, 22))  # a pass
    plain = augmented(reader, AugmentationConfig())
    assert sorted(torch.cat([plain[step]["class_index"] for step in range(11)]).tolist()) == sorted([*range(22)] * 3)


@pytest.fixture
def store_reader(reader: AudioReader, manifest: Path, tmp_path: Path) -> AudioReader:
    clips = read_clips(manifest, label="kind")
    prepare_store(clips, tmp_path / "store", where="test", progress=False)
    return open_reader(read_clips(tmp_path / "store", label="kind"))


def test_batches_from_a_store_are_those_from_its_files(
    reader: AudioReader, store_reader: AudioReader, manifest: Path
) -> None:
    rates = [soundfile.info(path).samplerate for path in read_clips(manifest, label="kind")["path"]]
    resampled = torch.tensor(rates) != 16000
    assert 0 < resampled.sum() < 22
    exact = close = 0
    for step in range(8):
        from_files, from_store = (augmented(one, EVERYTHING, shift=500)[step] for one in (reader, store_reader))
        waveforms = [item.pop("waveform") for item in (from_files, from_store)]
        assert same_items(from_files, from_store)
        rows = resampled[from_files["class_index"]]
        # 16-bit files at 16 kHz are stored as they are, resampled ones rounded to 16 bit.
        assert torch.equal(waveforms[0][~rows], waveforms[1][~rows])
        assert (waveforms[0] - waveforms[1]).abs().max() <= 0.5 / 32768 + 1e-7
        exact, close = exact + int((~rows).sum()), close + int(rows.sum())
    assert exact > 20
    assert close > 5


@pytest.mark.parametrize("workers", [1, 2])
def test_a_store_is_read_by_worker_processes(store_reader: AudioReader, workers: int) -> None:
    batches = augmented(store_reader, EVERYTHING)
    expected = [batches[step] for step in range(6)]  # this process has opened the files before it is forked
    loaded = list(load_batches(batches, workers=workers, sampler=range(0, 6)))
    assert all(same_items(*pair) for pair in zip(loaded, expected, strict=True))

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from torch import Tensor

from audiostride.data import (
    AudioBank,
    ExcerptBatches,
    StepSampler,
    WindowBatches,
    cut_window,
    draw_excerpt_starts,
    load_batches,
    open_bank,
    read_clips,
    tile_windows,
)
from audiostride.data.augmentation import AugmentationConfig
from audiostride.data.prepare import prepare_store
from audiostride.errors import InputError


def test_windows_tile_a_clip_and_the_tail_weighs_its_share() -> None:
    starts, weights = tile_windows(2500, window=1000)
    assert starts.tolist() == [0, 1000, 2000]
    assert weights.tolist() == [1.0, 1.0, 0.5]
    assert tile_windows(2000, window=1000)[1].tolist() == [1.0, 1.0]
    assert tile_windows(1, window=1000)[1].tolist() == pytest.approx([0.001])


@pytest.mark.parametrize("start", [-700, -3, 0, 4, 9, 10, 500])
def test_a_window_has_zeros_outside_the_clip(start: int) -> None:
    clip = np.arange(1, 11, dtype=np.float32)
    padded = np.concatenate([np.zeros(1000), clip, np.zeros(1000)])
    np.testing.assert_array_equal(cut_window(clip, start, 6), padded[1000 + start : 1006 + start])


def test_excerpts_cover_all_starts_and_reach_beyond_the_ends_by_the_shift_only() -> None:
    rng = np.random.default_rng(0)
    starts = draw_excerpt_starts(np.full(2000, 20), window=10, shift=3, rng=rng)
    assert set(starts.tolist()) == set(range(-3, 14))
    short = draw_excerpt_starts(np.full(20, 5), window=10, shift=0, rng=rng)
    assert set(short.tolist()) == {0}


def make_batches(bank: AudioBank, *, seed: int = 0) -> ExcerptBatches:
    classes = np.arange(len(bank))
    return ExcerptBatches(bank, classes, batch_size=5, window=16000, shift=800, seed=seed)


def test_batches_are_a_function_of_seed_and_step(manifest: Path) -> None:
    bank = open_bank(read_clips(manifest, label="kind"), progress=False)
    batches, again = make_batches(bank), make_batches(bank)
    later = again[7]  # asked for first: no order, no state
    for step in range(8):
        expected = batches[step]
    assert later.keys() == expected.keys() == {"waveform", "class_index", "failed"}
    assert all(torch.equal(later[name], expected[name]) for name in expected)
    assert not torch.equal(make_batches(bank, seed=1)[7]["waveform"], later["waveform"])


def test_every_clip_comes_once_per_pass(manifest: Path) -> None:
    bank = open_bank(read_clips(manifest, label="kind"), progress=False)
    batches = make_batches(bank)
    seen = torch.cat([batches[step]["class_index"] for step in range(22)])
    passes = seen.reshape(-1, 22)
    assert all(sorted(row.tolist()) == list(range(22)) for row in passes)
    assert not torch.equal(passes[0], passes[1])


def test_worker_processes_give_the_same_batches(manifest: Path) -> None:
    bank = open_bank(read_clips(manifest, label="kind"), progress=False)
    loaded = list(load_batches(make_batches(bank), workers=1, sampler=StepSampler(3, 6)))
    assert len(loaded) == 3
    for step, batch in enumerate(loaded, start=3):
        expected = make_batches(bank)[step]
        assert all(torch.equal(batch[name], expected[name]) for name in ("waveform", "class_index", "failed"))


def test_reading_from_files_gives_the_samples_that_memory_gives(manifest: Path) -> None:
    clips = read_clips(manifest, label="kind")
    memory, files = open_bank(clips, progress=False), open_bank(clips, memory_mib=0, progress=False)
    np.testing.assert_array_equal(memory.n_samples, files.n_samples)
    for index in range(len(clips)):
        for start in (-500, 100, 8000, 40000):
            # Parts of resampled files agree to the resampler's float32 rounding, the others to the bit.
            np.testing.assert_allclose(files.read(index, start, 16000), memory.read(index, start, 16000), atol=1e-6)


def test_windows_of_all_clips_come_in_order(manifest: Path) -> None:
    bank = open_bank(read_clips(manifest, label="kind"), progress=False)
    items = list(load_batches(WindowBatches(bank, window=16000, batch_size=7)))
    clips = torch.cat([item[2] for item in items])
    weights = torch.cat([item[1] for item in items])
    assert torch.equal(clips, clips.sort().values)
    assert clips.unique().numel() == len(bank)
    assert weights.sum().item() * 16000 == pytest.approx(bank.n_samples.sum(), rel=1e-6)
    assert torch.equal(items[0][0][0], torch.from_numpy(bank.read(0, 0, 16000)))


def test_parts_of_a_file_are_clips(tmp_path: Path) -> None:
    samples = np.linspace(-0.5, 0.5, 32000, dtype=np.float32)
    soundfile.write(str(tmp_path / "long.wav"), samples, 16000, subtype="FLOAT")
    (tmp_path / "m.csv").write_text("path,label,start_s,duration_s\nlong.wav,a,0.5,0.25\nlong.wav,b,1.5,\n")
    bank = open_bank(read_clips(tmp_path / "m.csv"), progress=False)
    assert bank.n_samples.tolist() == [4000, 8000]
    np.testing.assert_array_equal(bank.read_clip(0), samples[8000:12000])
    np.testing.assert_array_equal(bank.read_clip(1), samples[24000:])


def test_all_bad_audio_is_reported_with_lines_before_anything_starts(tmp_path: Path) -> None:
    soundfile.write(str(tmp_path / "good.wav"), np.zeros(1600), 16000)
    soundfile.write(str(tmp_path / "nan.wav"), np.full(100, np.nan), 16000, subtype="FLOAT")
    soundfile.write(str(tmp_path / "empty.wav"), np.zeros(0), 16000)
    (tmp_path / "text.wav").write_text("no audio")
    rows = ["good.wav,a,", "nan.wav,a,", "empty.wav,a,", "text.wav,a,", "good.wav,a,3"]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,duration_s", *rows]))
    with pytest.raises(InputError) as caught:
        open_bank(read_clips(tmp_path / "m.csv"), where="m.csv", progress=False)
    message = str(caught.value)
    assert message.startswith("m.csv: 4 bad rows")
    for part in ("line 3: .*nan.wav", "line 4: .*empty.wav", "line 5: .*text.wav", "line 6: .*good.wav is 0.1 s long"):
        assert pd.Series([message]).str.contains(part).all(), part


def same_items(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# One augmentation each, with the names of what it adds to a batch.
KINDS: list[tuple[dict[str, float], set[str]]] = [
    ({"gain_db": 6.0}, {"gain_db"}),
    ({"noise_prob": 0.5}, {"noise_snr_db", "noise_pick", "noise_place"}),
    ({"mixup": 0.3}, {"mixup_partner", "mixup_share"}),
    ({"time_masks": 2}, {"time_mask_starts", "time_mask_lengths"}),
    ({"mel_masks": 2}, {"mel_mask_starts", "mel_mask_lengths"}),
]
EVERYTHING = AugmentationConfig(**{name: value for settings, _ in KINDS for name, value in settings.items()})


@pytest.fixture(scope="module")
def bank(manifest: Path) -> AudioBank:
    return open_bank(read_clips(manifest, label="kind"), progress=False)


def augmented(bank: AudioBank, config: AugmentationConfig, **settings: object) -> ExcerptBatches:
    options = {"batch_size": 6, "window": 4000, "seed": 2, "augmentation": config} | settings
    return ExcerptBatches(bank, np.arange(len(bank)), **options)


@pytest.mark.parametrize(("settings", "names"), KINDS)
def test_switching_one_augmentation_on_adds_its_draws_and_changes_nothing_else(
    bank: AudioBank, settings: dict[str, float], names: set[str]
) -> None:
    plain, with_one = augmented(bank, AugmentationConfig()), augmented(bank, AugmentationConfig(**settings))
    whole = augmented(bank, EVERYTHING)
    for step in (0, 5):
        item, everything = with_one[step], whole[step]
        assert item.keys() == {"waveform", "class_index", "failed"} | names
        assert same_items(plain[step], {name: item[name] for name in plain[step]})
        assert same_items(item, {name: everything[name] for name in item})


def test_the_time_shift_moves_excerpts_and_nothing_else(bank: AudioBank) -> None:
    plain, shifted = augmented(bank, EVERYTHING)[3], augmented(bank, EVERYTHING, shift=800)[3]
    assert not torch.equal(plain.pop("waveform"), shifted.pop("waveform"))
    assert same_items(plain, shifted)


def test_augmented_batches_are_a_function_of_seed_and_step(bank: AudioBank) -> None:
    batches, again = augmented(bank, EVERYTHING), augmented(bank, EVERYTHING)
    later = again[5]
    assert same_items(later, [batches[step] for step in range(6)][5])
    for other in (batches[4], augmented(bank, EVERYTHING, seed=3)[5]):
        differing = {name for name in later if not torch.equal(later[name], other[name])}
        assert differing == later.keys() - {"failed"}


def test_augmented_batches_of_worker_processes_are_the_same(bank: AudioBank) -> None:
    units = np.arange(len(bank)) % 3
    batches = augmented(bank, EVERYTHING, units=units)
    for first in (0, 4):  # what a resumed run asks for
        loader = load_batches(augmented(bank, EVERYTHING, units=units), workers=2, sampler=StepSampler(first, 7))
        loaded = list(loader)
        assert len(loaded) == 7 - first
        assert all(same_items(batch, batches[step]) for step, batch in enumerate(loaded, start=first))


def test_masks_that_do_not_fit_are_refused_before_any_batch(bank: AudioBank) -> None:
    with pytest.raises(InputError, match="mel_mask_bands must be at most the 20 mel bands, got 21"):
        augmented(bank, AugmentationConfig(mel_masks=1, mel_mask_bands=21), spectrogram=(100, 20, 0.01))
    with pytest.raises(InputError, match=r"time_mask_s must be from one frame, 0\.02 s, to the window, 1 s"):
        augmented(bank, AugmentationConfig(time_masks=1, time_mask_s=1.1), spectrogram=(50, 20, 0.02))


def test_units_come_equally_often(bank: AudioBank) -> None:
    units = np.minimum(np.arange(len(bank)), 2)  # clip 0, clip 1, and the twenty others
    batches = augmented(bank, AugmentationConfig(), units=units)  # six of a batch: two rounds
    clips = torch.stack([batches[step]["class_index"] for step in range(10)])
    assert np.array_equal(np.sort(units[clips], axis=1), [[0, 0, 1, 1, 2, 2]] * 10)
    assert sorted(clips[clips > 1].tolist()) == list(range(2, 22))  # a pass
    plain = augmented(bank, AugmentationConfig())
    assert sorted(torch.cat([plain[step]["class_index"] for step in range(11)]).tolist()) == sorted([*range(22)] * 3)


@pytest.fixture
def constants(tmp_path: Path) -> Callable[..., AudioBank]:
    """A bank of six files, clip k holding the value (k + 1) / 8, that reads from the files each time."""
    for k in range(6):
        soundfile.write(str(tmp_path / f"{k}.wav"), np.full(2000, (k + 1) / 8), 16000)
    (tmp_path / "m.csv").write_text("path,label\n" + "".join(f"{k}.wav,a\n" for k in range(6)))
    return lambda **options: open_bank(read_clips(tmp_path / "m.csv"), memory_mib=0, progress=False, **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_clips_that_vanish_are_replaced_by_others_of_the_batch(
    constants: Callable[..., AudioBank], tmp_path: Path, workers: int
) -> None:
    bank = constants(on_error="skip")
    classes = np.arange(6) + 10
    batches = ExcerptBatches(bank, classes, batch_size=4, window=1000, seed=0)
    whole = [batches[step] for step in range(12)]
    assert all(item["failed"].numel() == 0 for item in whole)
    for k in (1, 4):
        (tmp_path / f"{k}.wav").unlink()
    loaded = list(load_batches(batches, workers=workers, sampler=StepSampler(0, 12)))
    n_failed = 0
    for before, item in zip(whole, loaded, strict=True):
        clips = before["class_index"] - 10
        lost = np.isin(clips, [1, 4])
        n_failed += int(lost.sum())
        assert item["failed"].tolist() == clips[lost].tolist()
        # Those that can be read stay where they are; the others are whole examples of theirs, sound and class.
        assert torch.equal(item["class_index"][~lost], before["class_index"][~lost])
        assert set(item["class_index"].tolist()) <= set(before["class_index"][~lost].tolist())
        expected = (item["class_index"] - 9)[:, None] / 8
        assert torch.equal(item["waveform"], expected.float().expand(4, 1000))
    assert n_failed == 16  # two of six clips, each once in each of eight passes
    if workers == 0:
        assert {index: "does not exist" in reason for index, reason in bank.failed.items()} == {1: True, 4: True}


def test_a_batch_without_any_readable_clip_is_an_error(constants: Callable[..., AudioBank], tmp_path: Path) -> None:
    batches = ExcerptBatches(constants(on_error="skip"), np.arange(6), batch_size=4, window=1000, seed=0)
    for k in range(6):
        (tmp_path / f"{k}.wav").unlink()
    with pytest.raises(InputError, match="none of the 4 clips of a batch can be read; is the disk still there"):
        batches[0]


def test_a_clip_that_vanishes_is_an_error_unless_skipped(constants: Callable[..., AudioBank], tmp_path: Path) -> None:
    batches = ExcerptBatches(constants(), np.arange(6), batch_size=6, window=1000, seed=0)
    (tmp_path / "3.wav").unlink()
    with pytest.raises(InputError, match=r"3\.wav does not exist"):
        batches[0]


def test_windows_that_cannot_be_read_weigh_nothing(constants: Callable[..., AudioBank], tmp_path: Path) -> None:
    bank = constants(on_error="skip")
    windows = WindowBatches(bank, window=1500, batch_size=64)
    assert windows[0][1].tolist() == pytest.approx([1, 1 / 3] * 6)
    (tmp_path / "2.wav").unlink()
    waveform, weights, clips = windows[0]
    lost = clips == 2
    assert weights[lost].tolist() == [0, 0]
    assert not waveform[lost].any()
    assert weights[~lost].tolist() == pytest.approx([1, 1 / 3] * 5)
    assert windows[0][1][lost].tolist() == [0, 0]  # the weights of the set itself stay as they are
    assert list(bank.failed) == [2]


@pytest.fixture
def store_bank(bank: AudioBank, manifest: Path, tmp_path: Path) -> AudioBank:
    clips = read_clips(manifest, label="kind")
    prepare_store(clips, tmp_path / "store", where="test", progress=False)
    return open_bank(read_clips(tmp_path / "store", label="kind"))


def test_batches_from_a_store_are_those_from_its_files(bank: AudioBank, store_bank: AudioBank, manifest: Path) -> None:
    rates = [soundfile.info(path).samplerate for path in read_clips(manifest, label="kind")["path"]]
    resampled = torch.tensor(rates) != 16000
    assert 0 < resampled.sum() < 22
    exact = close = 0
    for step in range(8):
        from_files, from_store = (augmented(one, EVERYTHING, shift=500)[step] for one in (bank, store_bank))
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
def test_a_store_is_read_by_worker_processes(store_bank: AudioBank, workers: int) -> None:
    batches = augmented(store_bank, EVERYTHING)
    expected = [batches[step] for step in range(6)]  # this process has opened the files before it is forked
    loaded = list(load_batches(batches, workers=workers, sampler=StepSampler(0, 6)))
    assert all(same_items(*pair) for pair in zip(loaded, expected, strict=True))
    windows = WindowBatches(store_bank, window=16000, batch_size=7)
    for batch, other in zip(load_batches(windows, workers=workers), load_batches(windows), strict=True):
        assert all(torch.equal(*pair) for pair in zip(batch, other, strict=True))

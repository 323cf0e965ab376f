"""Noises to train with: from recordings of any rate and length, or synthetic."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from audiostride.audio.resampling import read_audio
from audiostride.dataset import noise as noise_module
from audiostride.dataset.noise import load_noise, make_noises
from audiostride.errors import InputError

PIECE = 64000  # 4 s at 16 kHz
# What was an rms of 1 in float64 is one in float32 to its rounding.
RMS = {"rtol": 1e-5}


def write_noise(path: Path, seconds: float, *, rate: int = 16000, seed: int = 0, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).standard_normal((round(seconds * rate), channels)) / 20
    soundfile.write(str(path), samples, rate, subtype="FLOAT")
    return path


def unit_rms(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    values = samples.astype(np.float64)
    return values / np.sqrt(np.mean(values**2))


def rms(pieces: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.sqrt(np.mean(pieces.astype(np.float64) ** 2, axis=1))


def test_a_long_recording_is_cut_and_its_rest_repeated(tmp_path: Path) -> None:
    samples = read_audio(write_noise(tmp_path / "a.wav", 9.5))
    pieces = load_noise(tmp_path, seed=0)
    assert pieces.shape == (3, PIECE)
    assert pieces.dtype == np.float32
    rest = samples[2 * PIECE :]
    assert len(rest) == 24000
    expected = [samples[:PIECE], samples[PIECE : 2 * PIECE], np.concatenate([rest, rest, rest])[:PIECE]]
    for piece, part in zip(pieces, expected, strict=True):
        np.testing.assert_allclose(piece, unit_rms(part), **RMS)


@pytest.mark.parametrize(("seconds", "n_pieces"), [(3.999, 1), (4.0, 1), (4.001, 2), (8.0, 2)])
def test_recordings_about_as_long_as_pieces(tmp_path: Path, seconds: float, n_pieces: int) -> None:
    write_noise(tmp_path / "a.wav", seconds)
    assert load_noise(tmp_path, seed=0).shape == (n_pieces, PIECE)


def test_a_short_recording_is_repeated(tmp_path: Path) -> None:
    samples = read_audio(write_noise(tmp_path / "a.wav", 0.3))
    piece = load_noise(tmp_path, seed=0)[0]
    np.testing.assert_allclose(piece, unit_rms(np.tile(samples, 14)[:PIECE]), **RMS)


def test_recordings_of_all_rates_and_channel_counts_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    files = [
        write_noise(tmp_path / "a.wav", 4, rate=44100, channels=2, seed=1),
        write_noise(tmp_path / "b.wav", 4, rate=8000, seed=2),
        write_noise(tmp_path / "deep" / "c.flac.wav", 4, rate=48000, seed=3),
    ]
    (tmp_path / "notes.txt").write_text("no audio, and not called so")
    pieces = load_noise(tmp_path, seed=0)
    assert pieces.shape == (3, PIECE)
    np.testing.assert_allclose(rms(pieces), 1, **RMS)
    for piece, file in zip(pieces, files, strict=True):
        # Blocks against one piece: the resampler's float32 rounding, at an rms of 1.
        np.testing.assert_allclose(piece, unit_rms(read_audio(file)), atol=1e-4)


def test_pieces_have_the_length_of_another_sample_rate(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.wav", 6)
    assert load_noise(tmp_path, seed=0, sample_rate=8000).shape == (2, 32000)
    assert load_noise("synthetic", seed=0, sample_rate=8000).shape == (64, 32000)


def test_silence_is_left_out(tmp_path: Path) -> None:
    soundfile.write(str(tmp_path / "a.wav"), np.zeros(PIECE), 16000)
    soundfile.write(str(tmp_path / "b.wav"), np.full(PIECE, 5e-6), 16000, subtype="FLOAT")
    half = np.concatenate([np.zeros(PIECE), np.full(PIECE, 0.25)])
    soundfile.write(str(tmp_path / "c.wav"), half, 16000, subtype="FLOAT")
    pieces = load_noise(tmp_path, seed=0)
    np.testing.assert_allclose(pieces, np.ones((1, PIECE)), **RMS)
    (tmp_path / "c.wav").unlink()
    with pytest.raises(InputError, match=r"recordings in .* must not be silent, but all 2 pieces are"):
        load_noise(tmp_path, seed=0)


def write_numbers(path: Path, numbers: list[int]) -> None:
    """A recording whose pieces can be told apart: piece k changes its sign after k samples."""
    soundfile.write(
        str(path), np.concatenate([np.where(np.arange(PIECE) < 10 * (1 + k), -0.5, 0.5) for k in numbers]), 16000
    )


def numbers_of(pieces: NDArray[np.float32]) -> list[int]:
    return [int((piece < 0).sum()) // 10 - 1 for piece in pieces]


@pytest.mark.parametrize(
    ("highest", "expected"),
    [(11, list(range(11))), (10, [0, 2, 4, 6, 8, 10]), (6, [0, 2, 4, 6, 8, 10]), (5, [0, 4, 8]), (2, [0, 8]), (1, [0])],
)
def test_of_too_many_pieces_every_so_manieth_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, highest: int, expected: list[int]
) -> None:
    monkeypatch.setattr(noise_module, "MAX_PIECES", highest)
    write_numbers(tmp_path / "a.wav", [0, 1, 2])
    write_numbers(tmp_path / "b.wav", [3])
    write_numbers(tmp_path / "c.wav", list(range(4, 11)))
    assert numbers_of(load_noise(tmp_path, seed=0)) == expected


def test_pieces_do_not_hold_the_recording_they_were_cut_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_module, "MAX_PIECES", 20)
    second = np.random.default_rng(0).standard_normal(16000) / 20
    with soundfile.SoundFile(tmp_path / "a.wav", "w", samplerate=16000, channels=1, subtype="PCM_U8") as file:
        for _ in range(400):
            file.write(second)
    tracemalloc.start()
    assert len(load_noise(tmp_path, seed=0)) == 13  # every eighth of 100
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 26 MB in all; 21 pieces at a time take 5, decoding takes 4.
    assert peak < 15e6


def test_synthetic_noises_are_those_of_the_seed() -> None:
    pieces = load_noise("synthetic", seed=5)
    assert pieces.shape == (64, PIECE)
    assert np.array_equal(pieces, make_noises(64, PIECE, seed=5, lowest=60 / 16000))
    assert not np.array_equal(pieces, load_noise("synthetic", seed=6))
    np.testing.assert_allclose(rms(pieces), 1, **RMS)


def test_a_folder_does_not_depend_on_the_seed(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.wav", 5)
    assert np.array_equal(load_noise(tmp_path, seed=0), load_noise(tmp_path, seed=1))


def test_what_holds_no_noise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"noise: must be a folder of recordings or 'synthetic', got .*gone"):
        load_noise(tmp_path / "gone", seed=0)
    file = write_noise(tmp_path / "one" / "a.wav", 1)
    with pytest.raises(InputError, match=r"noise: must be a folder of recordings or 'synthetic', got .*a\.wav"):
        load_noise(file, seed=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"noise: folder .*empty must hold audio files, found none"):
        load_noise(tmp_path / "empty", seed=0)
    (tmp_path / "one" / "b.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"b\.wav cannot be read"):
        load_noise(tmp_path / "one", seed=0)

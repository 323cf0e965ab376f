from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiostride.data import find_audio_files, probe_audio, read_audio
from audiostride.errors import InputError

RNG = np.random.default_rng(0)


def write(path: Path, samples: np.ndarray, sample_rate: int, **options: str) -> Path:
    soundfile.write(str(path), samples, sample_rate, **options)
    return path


def test_16_khz_mono_is_read_as_it_is(tmp_path: Path) -> None:
    samples = RNG.integers(-32768, 32767, 5000).astype(np.int16)
    path = write(tmp_path / "a.wav", samples, 16000)
    np.testing.assert_array_equal(read_audio(path), samples.astype(np.float32) / 32768)


def test_channels_are_averaged(tmp_path: Path) -> None:
    stereo = RNG.uniform(-0.5, 0.5, (1000, 2))
    path = write(tmp_path / "a.wav", stereo, 16000, subtype="DOUBLE")
    np.testing.assert_allclose(read_audio(path), stereo.mean(axis=1), atol=1e-7)  # float32 rounding


@pytest.mark.parametrize("sample_rate", [8000, 22050, 44100, 48000, 96000])
def test_a_tone_keeps_frequency_and_level_when_resampled(tmp_path: Path, sample_rate: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(sample_rate) / sample_rate)
    read = read_audio(write(tmp_path / "a.wav", tone, sample_rate, subtype="FLOAT"))
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    assert len(read) == 16000
    # The ends ring, since beyond them lies silence.
    np.testing.assert_allclose(read[400:-400], expected[400:-400], atol=1e-3)


def test_a_tone_above_8_khz_does_not_alias(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 8400 * np.arange(48000) / 48000)
    read = read_audio(write(tmp_path / "a.wav", tone, 48000, subtype="FLOAT"))[400:-400]
    assert 20 * np.log10(np.abs(read).max() / 0.5) < -100


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("start_s", [0.0, 0.3333, 1.7])
def test_a_part_equals_that_part_of_the_whole(tmp_path: Path, sample_rate: int, start_s: float) -> None:
    path = write(tmp_path / "a.flac", 0.3 * np.clip(RNG.standard_normal(2 * sample_rate), -3, 3), sample_rate)
    whole, part = read_audio(path), read_audio(path, start_s=start_s, duration_s=0.5)
    first = round(start_s * 16000)
    # The filter is cut 100 ms beyond the part, where it has fallen below -80 dB.
    np.testing.assert_allclose(part, whole[first : first + len(part)], atol=1e-4)
    assert len(part) == min(8000, 32000 - first)


def test_one_sample_is_enough(tmp_path: Path) -> None:
    assert read_audio(write(tmp_path / "a.wav", np.array([0.5]), 16000)).shape == (1,)


def test_bad_files_are_named(tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.wav", np.zeros(0), 16000)
    text = tmp_path / "text.wav"
    text.write_text("this is no audio")
    nothing = tmp_path / "nothing.wav"
    nothing.write_bytes(b"")
    for path, message in [
        (empty, "holds no samples"),
        (text, "cannot be read"),
        (nothing, "cannot be read"),
        (tmp_path / "missing.wav", "does not exist"),
    ]:
        with pytest.raises(InputError, match=f"{path.name}.*{message}"):
            read_audio(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    samples = np.zeros(100, dtype=np.float32)
    samples[7] = value
    with pytest.raises(InputError, match=r"bad\.wav holds 1 samples that are NaN or infinite"):
        read_audio(write(tmp_path / "bad.wav", samples, 16000, subtype="FLOAT"))


def test_a_start_beyond_the_end_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.zeros(1600), 16000)
    with pytest.raises(InputError, match=r"a\.wav: start must lie in \[0, 0\.1\) s"):
        read_audio(path, start_s=0.1)


def test_probe_reads_the_header(tmp_path: Path) -> None:
    info = probe_audio(write(tmp_path / "a.wav", np.zeros((441, 2)), 44100))
    assert (info.sample_rate, info.channels, info.frames, info.duration_s) == (44100, 2, 441, 0.01)


def test_folders_are_searched_by_suffix(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.WAV", "a.flac", "notes.txt", "deep/c.ogg"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_audio_files(tmp_path)] == ["a.flac", "b.WAV", "c.ogg"]

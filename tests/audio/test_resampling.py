"""Reading audio: every awkward file as its table says, aliasing in numbers, parts and blocks as in the whole."""

import csv
import math
import os
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from audiostride.audio.decoding import LENGTH_TOLERANCE_S, ffmpeg_is_installed, probe_audio
from audiostride.audio.log_mel import log_mel_spectrogram
from audiostride.audio.resampling import read_audio, read_samples, resampled_length, stream_frames, stream_samples
from audiostride.errors import InputError

RNG = np.random.default_rng(0)
RATES = (8000, 11025, 22050, 32000, 44100, 48000, 96000)

FORMATS = Path(__file__).parents[2].parent / "shared" / "data" / "formats"
if FORMATS.is_dir():
    with (FORMATS / "expected.csv").open(encoding="utf-8") as table:
        EXPECTED = list(csv.DictReader(table))
else:
    EXPECTED = []


def rows_with(*kinds: str) -> list[object]:
    rows = [row for row in EXPECTED if row["expect"] in kinds]
    return [pytest.param(row, id=row["path"]) for row in rows]


def write(path: Path, samples: np.ndarray, sample_rate: int, **options: str) -> Path:
    soundfile.write(str(path), samples, sample_rate, **options)
    return path


def write_noise(path: Path, sample_rate: int, n_samples: int, **options: str) -> Path:
    """Noise, which shows a shift by one sample as well as a wrong phase of a filter."""
    return write(path, RNG.uniform(-0.3, 0.3, n_samples), sample_rate, **options)


def level_db(samples: np.ndarray) -> float:
    return 10 * math.log10(float(np.mean(np.square(samples, dtype=np.float64))) + 1e-300)


# ---- every file of shared/data/formats ----


@pytest.mark.skipif(not EXPECTED, reason="no ../shared/data/formats")
def test_the_table_of_awkward_files_is_complete() -> None:
    assert len(EXPECTED) == 36
    listed = {row["path"] for row in EXPECTED}
    assert listed == {path.name for path in FORMATS.iterdir()} - {"expected.csv", "README.md"}
    readable, refused = rows_with("ok", "ok-or-error"), rows_with("error", "error-or-short")
    others = rows_with("ok-or-unsupported", "error-empty", "error-nonfinite")
    assert len(readable) + len(refused) + len(others) == 36


def check_is_read(row: dict[str, str]) -> None:
    path = FORMATS / row["path"]
    info = probe_audio(path)
    assert (info.sample_rate, info.channels) == (int(row["sample_rate"]), int(row["channels"]))
    # The table rounds to 0.1 ms, and decoders of MPEG audio differ on what they cut at both ends.
    tolerance_s = 0.1 if row["subtype"] in ("MPEG_LAYER_III", "AAC") else 0.5e-4 + 1e-9
    assert info.duration_s == pytest.approx(float(row["duration_s"]), abs=tolerance_s)
    samples = np.concatenate(list(stream_samples(path)))
    assert samples.dtype == np.float32
    assert len(samples) == resampled_length(info.frames, info.sample_rate, 16000)
    assert np.isfinite(samples).all()
    if row["subtype"] in ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
        assert info.encoding.split()[1] == row["subtype"]


@pytest.mark.parametrize("row", rows_with("ok", "ok-or-error"))
def test_a_file_that_can_be_read_has_rate_channels_duration_and_finite_samples(row: dict[str, str]) -> None:
    check_is_read(row)


@pytest.mark.skipif(not ffmpeg_is_installed(), reason="ffmpeg is not installed")
@pytest.mark.parametrize("row", rows_with("ok-or-unsupported"))
def test_a_file_that_only_ffmpeg_knows_is_read_like_the_others(row: dict[str, str]) -> None:
    check_is_read(row)


@pytest.mark.parametrize("row", rows_with("ok-or-unsupported"))
def test_a_file_that_nobody_knows_is_named(row: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=rf"{row['path']} cannot be read.*install ffmpeg"):
        probe_audio(FORMATS / row["path"])


REASONS = {
    "error": "cannot be read|is empty",
    "error-empty": "holds no samples",
    "error-nonfinite": r"holds 101 samples that are NaN or infinite",  # the table: 100 NaN and one Inf
    "error-or-short": "is cut off|cannot be decoded|is damaged: bytes are missing",  # named rather than read short
}


@pytest.mark.parametrize("row", rows_with(*REASONS))
def test_a_bad_file_is_an_error_that_names_it_and_the_reason(row: dict[str, str]) -> None:
    with pytest.raises(InputError, match=rf"audio file .*{row['path']} ({REASONS[row['expect']]})"):
        read_audio(FORMATS / row["path"])


# ---- samples ----


def test_16_khz_mono_is_read_as_it_is(tmp_path: Path) -> None:
    samples = RNG.integers(-32768, 32767, 5000).astype(np.int16)
    path = write(tmp_path / "a.wav", samples, 16000)
    np.testing.assert_array_equal(read_audio(path), samples.astype(np.float32) / 32768)


def test_channels_are_averaged(tmp_path: Path) -> None:
    stereo = RNG.uniform(-0.5, 0.5, (1000, 2))
    path = write(tmp_path / "a.wav", stereo, 16000, subtype="DOUBLE")
    np.testing.assert_allclose(read_audio(path), stereo.mean(axis=1), atol=1e-7)  # float32 rounding


@pytest.mark.parametrize("sample_rate", [16000, 44100])
def test_six_channels_of_opposite_phase_cancel(tmp_path: Path, sample_rate: int) -> None:
    half = RNG.integers(-32767, 32768, (4000, 3)).astype(np.int16)
    path = write(tmp_path / "a.wav", np.hstack([half, -half]), sample_rate)
    assert probe_audio(path).channels == 6
    # Sums of six 16-bit samples are exact in float32.
    assert np.abs(read_audio(path)).max() == 0.0


@pytest.mark.parametrize("sample_rate", [8000, 22050, 44100, 48000, 96000])
def test_a_tone_keeps_frequency_and_level_when_resampled(tmp_path: Path, sample_rate: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(sample_rate) / sample_rate)
    read = read_audio(write(tmp_path / "a.wav", tone, sample_rate, subtype="FLOAT"))
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    assert len(read) == 16000
    # The ends ring, since beyond them lies silence.
    np.testing.assert_allclose(read[400:-400], expected[400:-400], atol=1e-3)


def resample_tone(folder: Path, frequency_hz: float, sample_rate: int) -> tuple[np.ndarray, float]:
    """A second of a tone read at 16 kHz, without its ends, and its level in the file."""
    tone = 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(sample_rate) / sample_rate + 0.3)
    return read_audio(write(folder / "a.wav", tone, sample_rate, subtype="DOUBLE"))[800:-800], level_db(tone)


@pytest.mark.parametrize("sample_rate", [22050, 32000, 44100, 48000, 96000])
def test_tones_above_8_khz_do_not_alias(tmp_path: Path, sample_rate: int) -> None:
    frequencies_hz = np.linspace(8001, 0.99 * sample_rate / 2, 12)
    aliased_db = []
    for frequency_hz in frequencies_hz:
        samples, level = resample_tone(tmp_path, frequency_hz, sample_rate)
        aliased_db.append(level_db(samples) - level)
    # -131 dB was measured at worst; -80 dB is what the project asks for.
    assert max(aliased_db) < -120
    kept, level = resample_tone(tmp_path, 7000, sample_rate)
    assert level_db(kept) - level == pytest.approx(0, abs=0.01)  # the measure sees a tone that is there


@pytest.mark.parametrize("frequency_hz", [300, 2000, 3000, 3600])
def test_a_file_of_8_khz_gets_no_images_when_upsampled(tmp_path: Path, frequency_hz: float) -> None:
    samples, level = resample_tone(tmp_path, frequency_hz, 8000)
    times_s = np.arange(len(samples)) / 16000
    waves = [
        np.stack([np.cos(2 * np.pi * hz * times_s), np.sin(2 * np.pi * hz * times_s)], axis=1)
        for hz in (frequency_hz, 8000 - frequency_hz)
    ]
    tone, image = (wave @ np.linalg.lstsq(wave, samples, rcond=None)[0] for wave in waves)
    assert level_db(tone) - level == pytest.approx(0, abs=0.01)
    assert level_db(image) - level < -120
    assert level_db(samples - tone) - level < -120  # nor anything else


def test_16_bit_samples_stay_as_they_are_when_their_rate_is_asked_for(tmp_path: Path) -> None:
    samples = RNG.integers(-32768, 32767, 3000).astype(np.int16)
    path = write(tmp_path / "a.wav", samples, 22050)
    np.testing.assert_array_equal(read_audio(path, sample_rate=22050), samples.astype(np.float32) / 32768)


# ---- lengths ----


@given(st.integers(1, 10**9), st.integers(1, 400_000), st.integers(1, 400_000))
@example(5, 2, 1)  # halves go up
@example(10**17 + 3, 48000, 16000)  # beyond what a float holds
def test_lengths_are_rounded_exactly(frames: int, rate_in: int, rate_out: int) -> None:
    exact = Fraction(frames * rate_out, rate_in)
    assert resampled_length(frames, rate_in, rate_out) == max(1, math.floor(exact + Fraction(1, 2)))


@pytest.mark.parametrize("sample_rate", RATES)
def test_as_many_samples_are_read_as_the_length_says(tmp_path: Path, sample_rate: int) -> None:
    for frames in (*range(1, 30), 100, 441, 882, 883, 4409, 4410, 4411):
        path = write(tmp_path / "a.wav", np.full(frames, 0.5), sample_rate, subtype="FLOAT")
        samples = read_audio(path)
        assert len(samples) == resampled_length(frames, sample_rate, 16000)
        assert np.isfinite(samples).all()


@pytest.mark.parametrize("sample_rate", [16000, 44100, 96000])
def test_one_sample_is_enough(tmp_path: Path, sample_rate: int) -> None:
    samples = read_audio(write(tmp_path / "a.wav", np.array([0.5]), sample_rate))
    assert samples.shape == (1,)
    assert np.isfinite(samples).all()


def test_a_duration_beyond_the_end_is_shortened(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.wav", 44100, 44100)
    whole = read_audio(path)
    np.testing.assert_array_equal(read_audio(path, duration_s=9.0), whole)
    assert len(read_audio(path, start_s=0.75, duration_s=9.0)) == 4000


@pytest.mark.parametrize("sample_rate", [16000, 44100])
def test_a_start_beyond_the_end_is_an_error(tmp_path: Path, sample_rate: int) -> None:
    path = write(tmp_path / "a.wav", np.zeros(sample_rate // 10), sample_rate)
    assert len(read_audio(path, start_s=0.0999)) == 2  # the last two samples
    for start_s in (0.1, 0.2, 1000.0):
        with pytest.raises(InputError, match=rf"a\.wav: start must lie in \[0, 0\.1\) s, got {start_s:g} s"):
            read_audio(path, start_s=start_s)


@pytest.mark.parametrize("name", ["start_s", "duration_s"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_parts_must_be_numbers_of_seconds(tmp_path: Path, name: str, value: float) -> None:
    path = write(tmp_path / "a.wav", np.zeros(1600), 16000)
    with pytest.raises(InputError, match=r"a\.wav: start must be >= 0 s and the duration > 0 s, got"):
        read_audio(path, **{name: value})


# ---- parts and blocks ----


@pytest.mark.parametrize("sample_rate", [*RATES, 16000])
def test_a_part_equals_that_part_of_the_whole(tmp_path: Path, sample_rate: int) -> None:
    path = write(tmp_path / "a.wav", 0.3 * RNG.standard_normal(2 * sample_rate), sample_rate, subtype="FLOAT")
    whole = read_samples(path, 0)
    for first in (0, 1, 3, 101, 5001, 9999, 20001, 31990):
        for count in (1, 77, 321, 8000):
            part = read_samples(path, first, count)
            assert len(part) == min(count, 32000 - first)
            # The filter sees 50 ms on either side of the part, where it has fallen to 4e-7.
            np.testing.assert_allclose(part, whole[first : first + len(part)], rtol=0, atol=1e-6)


@pytest.mark.parametrize("sample_rate", [16000, 44100])
def test_seconds_are_rounded_to_the_nearest_sample(tmp_path: Path, sample_rate: int) -> None:
    path = write_noise(tmp_path / "a.flac", sample_rate, sample_rate)
    part = read_audio(path, start_s=0.3333, duration_s=0.10001)
    np.testing.assert_array_equal(part, read_samples(path, 5333, 1600))


@pytest.mark.parametrize("sample_rate", [8000, 16000, 44100, 48000, 96000])
def test_small_blocks_are_the_whole_in_pieces(tmp_path: Path, sample_rate: int) -> None:
    path = write_noise(tmp_path / "a.flac", sample_rate, sample_rate)
    for first, count, block_frames in ((0, None, 7), (0, None, 1000), (5, 2000, 1), (3333, 9001, 4097)):
        blocks = list(stream_samples(path, first, count, block_frames=block_frames))
        assert len(blocks) > 1
        # Addition in another order, if anything; none was seen.
        np.testing.assert_allclose(np.concatenate(blocks), read_samples(path, first, count), rtol=0, atol=1e-7)


LOSSY = [
    ("MP3", "MPEG_LAYER_III", 22050),  # low rates have the longest bit reservoir
    ("MP3", "MPEG_LAYER_III", 16000),
    ("OGG", "VORBIS", 16000),
    ("OGG", "VORBIS", 8000),
    ("OGG", "OPUS", 48000),
    ("OGG", "OPUS", 16000),
]


@pytest.mark.parametrize(("container", "subtype", "sample_rate"), LOSSY)
def test_parts_and_blocks_of_lossy_files_equal_the_whole(
    tmp_path: Path, container: str, subtype: str, sample_rate: int
) -> None:
    path = write_noise(tmp_path / "a.bin", sample_rate, 40000, format=container, subtype=subtype)
    whole = read_samples(path, 0)
    assert level_db(whole) > -25  # noise, not silence
    # To the last sample: libsndfile jumps to the wrong place in the last page of a Vorbis file.
    for first in (*range(0, len(whole), len(whole) // 40), len(whole) - 1):
        part = read_samples(path, first, 600)
        np.testing.assert_allclose(part, whole[first : first + 600], rtol=0, atol=1e-6)
    for block_frames in (1000, 4097):
        blocks = np.concatenate(list(stream_samples(path, block_frames=block_frames)))
        np.testing.assert_allclose(blocks, whole, rtol=0, atol=1e-7)


def test_ten_minutes_are_streamed_in_little_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "long.wav", np.tile(RNG.integers(0, 256, 8000) / 256 - 0.5, 600), 8000, subtype="PCM_U8")
    whole_bytes = 600 * 16000 * 4

    def measure(streamed: bool) -> int:
        tracemalloc.start()
        blocks = stream_samples(path) if streamed else iter([read_samples(path, 0)])
        assert sum(len(block) for block in blocks) == 600 * 16000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert measure(streamed=False) > whole_bytes  # the measure sees the samples
    assert measure(streamed=True) < whole_bytes / 4


def test_frames_are_streamed_as_they_are(tmp_path: Path) -> None:
    frames = RNG.uniform(-2, 2, (5000, 3)).astype(np.float32)
    frames[7, 1] = np.nan
    path = write(tmp_path / "a.wav", frames, 8000, subtype="FLOAT")
    np.testing.assert_array_equal(np.concatenate(list(stream_frames(path))), frames)
    part = np.concatenate(list(stream_frames(path, start_s=0.1, duration_s=0.2)))
    np.testing.assert_array_equal(part, frames[800:2400])


# ---- bad files ----


def test_bad_files_are_named(tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.wav", np.zeros(0), 16000)
    text = tmp_path / "text.wav"
    text.write_text("this is no audio")
    nothing = tmp_path / "nothing.wav"
    nothing.write_bytes(b"")
    folder = tmp_path / "folder.wav"
    folder.mkdir()
    pipe = tmp_path / "pipe.wav"
    if os.name == "posix":
        os.mkfifo(pipe)
    for path, message in [
        (empty, "holds no samples"),
        (text, "cannot be read"),
        (nothing, r"is empty \(0 bytes\)"),
        (tmp_path / "missing.wav", "does not exist; check the path and, for a manifest, --audio-root"),
        (folder, "must be a file, got a folder, a pipe or a device"),
        (pipe, "must be a file, got a folder, a pipe or a device"),
    ]:
        for use in (probe_audio, read_audio):
            with pytest.raises(InputError, match=f"{path.name}.*{message}"):
                use(path)


CUT = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "IMA_ADPCM"),
    ("AIFF", "PCM_16"),
    ("W64", "PCM_16"),
    ("RF64", "PCM_16"),
    ("AU", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize(("container", "subtype"), CUT)
def test_a_file_that_is_cut_off_is_named_and_not_read_short(tmp_path: Path, container: str, subtype: str) -> None:
    frames = RNG.uniform(-0.3, 0.3, (48000, 2))
    path = write(tmp_path / "cut.bin", frames, 48000, format=container, subtype=subtype)
    content = path.read_bytes()
    assert len(read_audio(path)) >= 16000  # whole it is read
    for share in (0.5, 0.85):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(InputError, match=r"cut\.bin (is cut off|cannot be decoded)"):
            read_audio(path)
        with pytest.raises(InputError, match=r"cut\.bin (is cut off|cannot be decoded)"):
            list(stream_samples(path, block_frames=4000))


def test_an_mpeg_stream_that_ends_a_little_early_has_its_stated_length_all_the_same(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.mp3", 16000, 32000)
    whole = read_samples(path, 0)
    content = path.read_bytes()
    path.write_bytes(content[: int(0.985 * len(content))])
    samples = read_samples(path, 0)
    assert len(samples) == len(whole)
    missing = int(np.flatnonzero(samples[::-1])[0])
    assert 0 < missing <= LENGTH_TOLERANCE_S * 16000
    # All parts agree on it, those that lie in the missing tail included.
    for first in (31000, len(whole) - missing - 10, len(whole) - 10):
        part = read_samples(path, first, 100)
        np.testing.assert_allclose(part, samples[first : first + 100], rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_streamed_wav_whose_writer_did_not_know_the_length_is_read(tmp_path: Path, length: int) -> None:
    path = write_noise(tmp_path / "a.wav", 16000, 3000)
    expected = read_audio(path)
    content = bytearray(path.read_bytes())
    assert content[36:40] == b"data"
    content[4:8] = content[40:44] = length.to_bytes(4, "little")
    path.write_bytes(content)
    np.testing.assert_array_equal(read_audio(path), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    samples = np.zeros(100, dtype=np.float32)
    samples[7] = value
    with pytest.raises(InputError, match=r"bad\.wav holds 1 samples that are NaN or infinite"):
        read_audio(write(tmp_path / "bad.wav", samples, 16000, subtype="FLOAT"))


@pytest.mark.parametrize("frame", [(np.nan, 0.0), (np.inf, -np.inf), (0.0, -np.inf)])
def test_a_bad_sample_of_one_channel_is_refused(tmp_path: Path, frame: tuple[float, float]) -> None:
    frames = np.zeros((100, 2), dtype=np.float32)
    frames[7] = frame
    with pytest.raises(InputError, match=r"bad\.wav holds 1 samples that are NaN or infinite"):
        read_audio(write(tmp_path / "bad.wav", frames, 16000, subtype="FLOAT"))


@pytest.mark.parametrize("value", [1e20, -1e37, 3e38, 2.0**32 * 1.01])
def test_samples_far_beyond_full_scale_are_refused_and_never_become_nan(tmp_path: Path, value: float) -> None:
    frames = RNG.uniform(-0.3, 0.3, (2000, 2)).astype(np.float32)
    frames[100:200] = value
    for rate in (16000, 44100):
        path = write(tmp_path / "a.wav", frames, rate, subtype="FLOAT")
        with pytest.raises(InputError, match=r"a\.wav holds 100 samples that are more than 4\.3e\+09 times full scale"):
            read_audio(path)
    frames[100:200] = np.sign(value) * 2.0**31  # integers that were written as floats
    loud = read_audio(write(tmp_path / "a.wav", frames, 16000, subtype="FLOAT"))
    assert np.abs(loud).max() == 2.0**31
    assert np.isfinite(log_mel_spectrogram(torch.from_numpy(loud)).numpy()).all()


def test_a_rate_of_some_hz_is_read_in_little_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", RNG.uniform(-0.3, 0.3, 30000), 20)
    tracemalloc.start()
    assert sum(len(block) for block in stream_samples(path)) == 1500 * 16000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1500 * 16000 * 4 / 2


def test_a_long_file_that_is_read_whole_is_resampled_in_one_piece(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.zeros(2**20 + 5), 16000, subtype="PCM_U8")
    assert [len(block) for block in stream_samples(path, block_frames=None)] == [2**20 + 5]


def test_a_bad_sample_outside_a_part_does_not_matter(tmp_path: Path) -> None:
    samples = np.zeros(32000, dtype=np.float32)
    samples[20000] = np.nan
    path = write(tmp_path / "bad.wav", samples, 16000, subtype="FLOAT")
    assert len(read_samples(path, 0, 20000)) == 20000
    with pytest.raises(InputError, match=r"bad\.wav holds 1 samples"):
        read_samples(path, 0, 20001)


def test_probe_reads_the_header(tmp_path: Path) -> None:
    info = probe_audio(write(tmp_path / "a.wav", np.zeros((441, 2)), 44100))
    assert (info.sample_rate, info.channels, info.frames, info.duration_s) == (44100, 2, 441, 0.01)
    assert info.encoding == "WAV PCM_16"

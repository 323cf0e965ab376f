"""Files whose header states no length, a wrong one or only that of their first stream: every door reads the same."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from numpy.typing import NDArray

from audiostride.audio.decoding import probe_audio
from audiostride.audio.resampling import read_audio, read_samples, resampled_length, stream_samples
from audiostride.audio.streams import measure_ogg
from audiostride.dataset.check.audio_facts import AudioFacts, read_facts
from audiostride.dataset.manifest import inspect_manifest
from audiostride.dataset.prepare import prepare_store
from audiostride.dataset.readers import clip_span, open_reader
from audiostride.dataset.store import read_store_clips
from audiostride.errors import InputError
from audiostride.inference.recordings import Recording

RATE = 16000
SAMPLES = np.random.default_rng(5).integers(-9000, 9000, 4001).astype(np.int16)
LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf58.29.100\0"


def encode(container: str, subtype: str = "PCM_16", samples: NDArray[np.generic] = SAMPLES, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


LONG = np.random.default_rng(6).integers(-9000, 9000, 60000).astype(np.int16)


def facts_of(path: Path) -> AudioFacts:
    facts = read_facts(str(path), 0.0, np.nan, name="it")
    assert isinstance(facts, AudioFacts)
    return facts


# ---- WAV and its relatives ----


def size_field(container: str, content: bytes) -> tuple[int, str, int]:
    """Where the size of the samples stands in a file as libsndfile writes it, how, and what it counts besides."""
    if container == "RF64":
        return 28, "<Q", 0
    if container == "AU":
        return 8, ">I", 0
    kind, name, extra = {
        "W64": ("<Q", b"data", 24), "AIFF": (">I", b"SSND", 8), "CAF": (">Q", b"data", 4)
    }.get(container, ("<I", b"data", 0))  # fmt: skip
    return content.rindex(name, 0, content.index(name) + 4) + (16 if container == "W64" else 4), kind, extra


def with_size(container: str, content: bytes, size: int) -> bytes:
    """The same file, whose header states another number of bytes of samples."""
    at, kind, extra = size_field(container, content)
    width = struct.calcsize(kind)
    return content[:at] + struct.pack(kind, (size + extra) % 256**width) + content[at + width :]


def size_of(samples: NDArray[np.generic]) -> int:
    return samples.size * samples.itemsize


PLACEHOLDERS = [0, 0x7FFFFFFF, 0x7FFFF000, 0x7FFF0000, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFDB]
CONTAINERS = ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF"]


def check_is_whole(path: Path, expected: NDArray[np.int16] = SAMPLES) -> None:
    np.testing.assert_array_equal(read_audio(path), expected.astype(np.float32) / 32768)
    assert probe_audio(path).frames == len(expected)
    facts = read_facts(str(path), 0.0, np.nan, name="it")
    assert isinstance(facts, AudioFacts)
    assert (facts.frames, facts.doubt) == (len(expected), "")


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_size_that_its_writer_did_not_know_hides_no_sample(tmp_path: Path, container: str) -> None:
    path, content = tmp_path / "a.bin", encode(container)
    for size in [*PLACEHOLDERS, *([2**63 - 1, 2**64 - 1] if container in ("RF64", "W64", "CAF") else [])]:
        path.write_bytes(with_size(container, content, size))
        check_is_whole(path)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("error", [-44, -36, -16, -8, 8, 16, 36, 44])
def test_a_size_that_is_wrong_by_up_to_a_header_hides_no_sample(tmp_path: Path, container: str, error: int) -> None:
    path, content = tmp_path / "a.bin", encode(container)
    if container == "AU" and abs(error) > 24:
        error //= 2
    path.write_bytes(with_size(container, content, size_of(SAMPLES) + error))
    check_is_whole(path)


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("size", [*PLACEHOLDERS, size_of(SAMPLES), size_of(SAMPLES) + 16, size_of(SAMPLES) - 8])
def test_a_chunk_behind_the_samples_is_not_read_as_audio(tmp_path: Path, container: str, size: int) -> None:
    path = tmp_path / "a.wav"
    for chunks in (LIST, b"bext" + struct.pack("<I", 602) + bytes(602), LIST + b"cue \x04\0\0\0\0\0\0\0"):
        path.write_bytes(with_size(container, encode(container), size) + chunks)
        check_is_whole(path)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM"])
def test_every_encoding_is_read_without_a_size(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.wav"
    content = encode("WAV", subtype)
    path.write_bytes(content)
    expected = read_audio(path)
    odd = len(content) % 2 and content[-1] == 0  # the byte that makes chunks even
    path.write_bytes(with_size("WAV", content, 0) + (LIST if not odd else b""))
    np.testing.assert_array_equal(read_audio(path)[: len(expected)], expected)
    assert len(read_audio(path)) - len(expected) <= (1 if subtype in ("PCM_U8", "ULAW") else 0)


def test_headers_of_other_names_are_read(tmp_path: Path) -> None:
    path, content = tmp_path / "a.wav", encode("RF64")
    path.write_bytes(b"BW64" + content[4:])
    check_is_whole(path)
    path.write_bytes(b"BW64" + with_size("RF64", content, 0)[4:] + LIST)
    check_is_whole(path)
    riff = encode("WAV")
    big = b"RIFX" + struct.pack(">I", 0) + b"WAVEfmt " + struct.pack(">IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    path.write_bytes(big + b"data" + struct.pack(">I", 0) + SAMPLES.byteswap().tobytes())
    check_is_whole(path)
    path.write_bytes(riff[:4] + bytes(4) + with_size("WAV", riff, 0)[8:])  # the size of the file is not known either
    check_is_whole(path)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 1000])  # the last: counted on from 0 where the field was full
def test_more_than_4_gib_are_read_whatever_the_field_says(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(with_size("WAV", encode("WAV"), size))
    with path.open("r+b") as file:
        file.truncate(44 + 2**32 + 2000)  # a hole, which takes no disk
    info = probe_audio(path)
    assert (info.frames, info.doubt) == (2**31 + 1000, "")
    assert len(read_samples(path, 2**31, 5000)) == 1000


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_is_plainly_cut_off_stays_an_error(tmp_path: Path, container: str) -> None:
    path, content = tmp_path / "a.bin", encode(container)
    path.write_bytes(content[:-4500] if container != "CAF" else content[:-5000])
    with pytest.raises(InputError, match=r"a\.bin is cut off: its header promises 8002 bytes of audio, got 3[05]02"):
        read_audio(path)


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_lies_behind_the_stated_end_is_a_finding_with_its_size(tmp_path: Path, container: str) -> None:
    path, content = tmp_path / "a.bin", encode(container)
    path.write_bytes(with_size(container, content, 2000))
    assert len(read_audio(path)) == 1000
    facts = read_facts(str(path), 0.0, np.nan, name="it")
    assert isinstance(facts, AudioFacts)
    n_bytes = len(content) - len(content[: content.index(SAMPLES[:100].astype(endian(container)).tobytes())]) - 2000
    assert facts.doubt == f"has {n_bytes:,} bytes behind the 2,000 bytes of audio that its header states"


def endian(container: str) -> str:
    return ">i2" if container in ("AIFF", "AU", "CAF") else "<i2"


@pytest.mark.parametrize("rest", [bytes(4000), b"TAG" + bytes(125), b"ID3\x04\0\0\0\0\0\x0aabcdefghij", LIST])
def test_padding_and_tags_behind_the_samples_are_no_finding(tmp_path: Path, rest: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encode("WAV") + rest)
    check_is_whole(path)


def test_a_chunk_whose_own_size_is_wrong_is_a_finding_and_no_audio(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encode("WAV") + b"LIST" + struct.pack("<I", 5000) + b"INFOISFT")
    assert len(read_audio(path)) == 4001
    assert facts_of(path).doubt == "has 16 bytes behind the 8,002 bytes of audio that its header states"


@pytest.mark.parametrize("container", ["WAV", "RF64", "AIFF"])
def test_an_odd_number_of_bytes_is_filled_up(tmp_path: Path, container: str) -> None:
    path = tmp_path / "a.wav"
    content = encode(container, "PCM_S8" if container == "AIFF" else "PCM_U8")
    content = content if len(content) % 2 == 0 else content + b"\0"
    path.write_bytes(content + (b"ANNO\0\0\0\4abcd" if container == "AIFF" else LIST))
    if container == "WAV":  # a byte that is no zero, in a file that is looked at more closely
        content = content[:4] + bytes(4) + content[8:-1] + b"\x81"
        path.write_bytes(content + LIST)
    # libsndfile counts what it fills AIFF up with.
    assert (facts_of(path).frames, facts_of(path).doubt) == (4002 if container == "AIFF" else 4001, "")


def test_only_a_file_without_a_byte_of_audio_may_be_removed(tmp_path: Path) -> None:
    path, empty = tmp_path / "a.wav", encode("WAV", samples=SAMPLES[:0])
    for content in (empty, empty + LIST):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.wav holds no samples; remove it"):
            read_audio(path)
    ogg = encode("OGG", "VORBIS")
    path.write_bytes(ogg[: ogg.rindex(b"OggS")])
    with pytest.raises(InputError, match=rf"a\.wav holds no samples .* in {ogg.rindex(b'OggS')} bytes; copy it again"):
        read_audio(path)


# ---- MPEG audio ----

LAYER_BITS = {1: 3, 2: 2, 3: 1}
VERSION_BITS = {1: 3, 2: 2, 2.5: 0}


def mpeg_frame(row: int = 9, *, version: float = 1, layer: int = 3, mono: bool = True, body: bytes = b"") -> bytes:
    """A frame of silence at the first sample rate of its version; `row` of the table of bit rates."""
    rate = {1: 44100, 2: 22050, 2.5: 11025}[version]
    table = {
        (True, 1): 32 * np.arange(1, 15),
        (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
        (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
        (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    }.get((version == 1, layer), (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160))
    kbit_s = int(table[row - 1])
    size = 12000 * kbit_s // rate * 4 if layer == 1 else samples_of(version, layer) * 125 * kbit_s // rate
    head = bytes([0xFF, 0xE1 | VERSION_BITS[version] << 3 | LAYER_BITS[layer] << 1, row << 4, 0xC4 if mono else 4])
    return (head + body).ljust(size, b"\0")


def samples_of(version: float, layer: int) -> int:
    return 384 if layer == 1 else 576 if layer == 3 and version != 1 else 1152


def xing_frame(frames: int, n_bytes: int | None = None, name: bytes = b"Xing") -> bytes:
    flags = 1 if n_bytes is None else 3
    counts = struct.pack(">II", flags, frames) + (b"" if n_bytes is None else struct.pack(">I", n_bytes))
    return mpeg_frame(body=bytes(17) + name + counts)


@pytest.mark.parametrize("version", [1, 2, 2.5])
@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("plan", [((9, 4), (2, 60)), ((2, 40), (12, 24)), ((5, 64),)])
def test_frames_are_counted_where_no_number_is_stated(
    tmp_path: Path, version: float, layer: int, plan: tuple[tuple[int, int], ...]
) -> None:
    content = b"".join(mpeg_frame(row, version=version, layer=layer) * count for row, count in plan)
    expected = sum(count for _, count in plan) * samples_of(version, layer)
    path = tmp_path / "a.mp3"
    for before, after in ((b"", b""), (b"ID3\x03\0\0\0\0\x0e\x00" + bytes(1792), b"TAG" + bytes(125))):
        path.write_bytes(before + content + after)
        info = probe_audio(path)
        assert info.frames == pytest.approx(expected, abs=samples_of(version, layer))
        assert len(plan) == 1 or info.frames == expected
        # The decoder gives up to a frame less at the ends, which is silence then.
        assert len(read_audio(path)) == resampled_length(info.frames, info.sample_rate, RATE)


def strip_xing(content: bytes) -> bytes:
    """MP3 as LAME writes it, without the frame that says how long it is."""
    assert b"Xing" in content[:64] or b"Info" in content[:64]
    return content[content.index(content[:2], 4) :]


def real_mp3(seconds: float, *, seed: int = 0, rate: int = 44100) -> bytes:
    """A variable bit rate: noise, then next to nothing."""
    rng = np.random.default_rng(seed)
    noise = np.concatenate([rng.uniform(-0.5, 0.5, round(seconds * rate / 3)), np.zeros(round(seconds * rate * 2 / 3))])
    file = io.BytesIO()
    soundfile.write(file, noise, rate, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE")
    return file.getvalue()


def test_samples_of_a_variable_bit_rate_are_those_with_its_length_stated(tmp_path: Path) -> None:
    whole, bare = tmp_path / "a.mp3", tmp_path / "b.mp3"
    content = real_mp3(3.0)
    whole.write_bytes(content)
    bare.write_bytes(strip_xing(content))
    with soundfile.SoundFile(str(bare)) as file:
        assert file.frames < 0.7 * 3 * 44100  # what libsndfile guesses
    stated, counted = read_audio(whole, sample_rate=44100), read_audio(bare, sample_rate=44100)
    assert len(counted) % 1152 == 0
    delay = len(counted) - len(stated)
    assert 0 < delay < 3 * 1152  # of encoder and decoder, which LAME's own frame states
    shift = int(np.argmax(np.correlate(counted[:6000], stated[:3000], mode="valid")))
    # The first frame lacks the bits that the Xing frame would have held for it: what follows is the same.
    np.testing.assert_allclose(counted[shift + 3000 : shift + 40000], stated[3000:40000], rtol=0, atol=1e-4)


@pytest.mark.parametrize("n_bytes", [None, 17 * 417])
def test_joined_mp3_is_read_to_its_end(tmp_path: Path, n_bytes: int | None) -> None:
    part = xing_frame(16, n_bytes) + mpeg_frame() * 16
    one, two = tmp_path / "one.mp3", tmp_path / "two.mp3"
    one.write_bytes(part)
    two.write_bytes(part + b"TAG" + bytes(125) + part)
    assert probe_audio(two).frames == 2 * 16 * 1152 >= 2 * probe_audio(one).frames > 2 * 15 * 1152
    two.write_bytes(xing_frame(16) + mpeg_frame() * 17)  # one that counts itself, or not, is no stream of its own
    assert probe_audio(two).frames == probe_audio(one).frames
    # Frames behind those that are stated, too.
    two.write_bytes(part + mpeg_frame(5) * 30)
    assert probe_audio(two).frames == (16 + 30) * 1152


def test_real_joined_mp3_has_the_samples_of_both(tmp_path: Path) -> None:
    contents = [real_mp3(1.0, seed=seed) for seed in (1, 2)]
    parts = []
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.mp3").write_bytes(content)
        parts.append(read_audio(tmp_path / f"{number}.mp3", sample_rate=44100))
    (tmp_path / "both.mp3").write_bytes(b"".join(contents))
    whole = read_audio(tmp_path / "both.mp3", sample_rate=44100)
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    for first in (20000, len(parts[0]) - 100, len(parts[0]) + 30000):
        part = read_samples(tmp_path / "both.mp3", first, 500, sample_rate=44100)
        np.testing.assert_allclose(part, whole[first : first + 500], rtol=0, atol=1e-6)
    (tmp_path / "other.mp3").write_bytes(contents[0] + real_mp3(1.0, rate=22050))
    info = probe_audio(tmp_path / "other.mp3")
    assert (info.frames, info.sample_rate) == (len(parts[0]), 44100)
    assert "holds 2 streams" in info.doubt
    assert "from byte" in info.doubt
    assert "22050 Hz" in info.doubt


def test_numbers_that_libsndfile_does_not_heed_are_not_taken_for_one(tmp_path: Path) -> None:
    path, frames = tmp_path / "a.mp3", mpeg_frame(9) * 4 + mpeg_frame(1) * 60
    vbri = mpeg_frame(body=bytes(32) + b"VBRI" + struct.pack(">HHHII", 1, 0, 75, len(frames) + 417, 64))
    for head in (vbri, mpeg_frame(body=bytes(17) + b"Xing" + bytes(4))):
        path.write_bytes(head + frames)
        assert probe_audio(path).frames == 64 * 1152


def test_a_length_that_is_stated_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(real_mp3(1.0))
    monkeypatch.setattr("audiostride.audio.streams._count_mpeg", lambda *_: pytest.fail("counted"))
    assert probe_audio(path).frames == 44100


# ---- Ogg ----


def crc_of_ogg(page: bytes) -> int:
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        crc &= 0xFFFFFFFF
    return crc


def pages_of(content: bytes) -> list[bytes]:
    pages, at = [], 0
    while at < len(content):
        body = at + 27 + content[at + 26]
        end = body + sum(content[at + 27 : body])
        pages.append(content[at:end])
        at = end
    return pages


def change_page(page: bytes, at: int, new: bytes) -> bytes:
    changed = page[:at] + new + page[at + len(new) :]
    changed = changed[:22] + bytes(4) + changed[26:]
    return changed[:22] + struct.pack("<I", crc_of_ogg(changed)) + changed[26:]


def ogg(subtype: str, samples: NDArray[np.generic] = SAMPLES, *, serial: int = 7, rate: int = RATE) -> bytes:
    return b"".join(
        change_page(page, 14, struct.pack("<I", serial)) for page in pages_of(encode("OGG", subtype, samples, rate))
    )


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("serials", [(1, 2), (3, 3), (1, 2, 1)])
def test_all_streams_of_a_chain_are_read(tmp_path: Path, subtype: str, serials: tuple[int, ...]) -> None:
    parts, chain = [], b""
    for number, serial in enumerate(serials):
        content = ogg(subtype, np.roll(LONG, 100 * number)[: 40000 + 10000 * number], serial=serial)
        (tmp_path / "part.ogg").write_bytes(content)
        parts.append(read_audio(tmp_path / "part.ogg"))
        chain += content
    (tmp_path / "chain.ogg").write_bytes(chain)
    # Addition in another order, if anything.
    whole = read_audio(tmp_path / "chain.ogg")
    np.testing.assert_allclose(whole, np.concatenate(parts), rtol=0, atol=1e-6)
    for first in (0, 21000, 33000, 36000, 39700, 39990, 60000, len(whole) - 1):
        part = read_samples(tmp_path / "chain.ogg", first, 700)
        np.testing.assert_allclose(part, whole[first : first + 700], rtol=0, atol=1e-6)


def test_streams_that_begin_together_are_no_chain(tmp_path: Path) -> None:
    path, sound, picture = tmp_path / "film.ogg", pages_of(ogg("VORBIS")), pages_of(ogg("VORBIS", serial=9))
    path.write_bytes(b"".join([sound[0], picture[0], *sound[1:], *picture[1:]]))
    assert measure_ogg(path, "") == ((), "")
    path.write_bytes(b"".join([*sound, *picture]))
    assert len(measure_ogg(path, "")[0]) == 2


def test_a_stream_of_another_rate_in_a_chain_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    path.write_bytes(ogg("VORBIS") + ogg("VORBIS", rate=22050, serial=8))
    info = probe_audio(path)
    assert info.frames == 4001
    assert "holds 2 streams one behind another, of which the first 1 can be read" in info.doubt
    assert info.doubt.endswith("has 1 channels at 22050 Hz")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_loss_at_the_end_of_ogg_is_a_finding(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.ogg"
    pages = pages_of(encode("OGG", subtype, np.tile(LONG, 3)))
    assert len(pages) > 4
    path.write_bytes(b"".join(pages))
    whole = facts_of(path)
    assert (whole.frames, whole.doubt) == (180000, "")
    path.write_bytes(b"".join(pages[:-1]))
    short = facts_of(path)
    assert short.frames < 180000
    assert short.doubt.startswith("ends without the mark of its last page")
    assert len(read_audio(path)) == short.frames  # a recorder that was stopped leaves such files
    flipped = bytearray(b"".join(pages))
    flipped[-20] ^= 4
    path.write_bytes(flipped)
    assert facts_of(path).doubt.startswith("has a last page that is damaged")
    if subtype == "OPUS":  # whose mark also says where in its last packet it ends
        return
    path.write_bytes(b"".join([*pages[:-1], change_page(pages[-1], 5, b"\0")]))  # all there, without the mark
    assert (facts_of(path).frames, len(read_audio(path))) == (180000, 180000)
    assert facts_of(path).doubt.startswith("ends without the mark")


# ---- all doors ----


def flac_with_total(total: int) -> bytes:
    content = bytearray(encode("FLAC"))
    content[21:26] = ((content[21] >> 4) << 36 | total).to_bytes(5)
    return bytes(content)


DOUBTFUL: dict[str, tuple[Callable[[], bytes], int]] = {
    "size_0.wav": (lambda: with_size("WAV", encode("WAV"), 0), 4001),
    "pipe.wav": (lambda: with_size("WAV", encode("WAV"), 0x80000000) + LIST, 4001),
    "large.wav": (lambda: with_size("WAV", encode("WAV"), size_of(SAMPLES) + 16), 4001),
    "small.wav": (lambda: with_size("WAV", encode("WAV"), 4000), 2000),
    "size_0.rf64": (lambda: with_size("RF64", encode("RF64"), 0), 4001),
    "size_0.w64": (lambda: with_size("W64", encode("W64"), 0), 4001),
    "size_0.aiff": (lambda: with_size("AIFF", encode("AIFF"), 0), 4001),
    "size_max.au": (lambda: with_size("AU", encode("AU"), 0xFFFFFFFE), 4001),
    "unknown.flac": (lambda: flac_with_total(0), 4001),
    "unset.flac": (lambda: flac_with_total(2**36 - 1), 4001),
    "vbr.mp3": (lambda: mpeg_frame(9) * 4 + mpeg_frame(1) * 60, round(64 * 1152 * 16000 / 44100)),
    "abr.mp3": (lambda: mpeg_frame(1) * 10 + mpeg_frame(14) * 30, round(40 * 1152 * 16000 / 44100)),
    "real.mp3": (lambda: strip_xing(real_mp3(1.0)), 16718),
    "chain.ogg": (lambda: ogg("VORBIS") + ogg("VORBIS", serial=8), 8002),
    "chain.opus": (lambda: ogg("OPUS") + ogg("OPUS", serial=8), 8002),
    "cut.ogg": (lambda: b"".join(pages_of(encode("OGG", "VORBIS", np.tile(LONG, 3)))[:-1]), -1),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_every_door_takes_a_file_to_be_equally_long(tmp_path: Path, name: str) -> None:
    make, expected = DOUBTFUL[name]
    path = tmp_path / name
    path.write_bytes(make())
    whole = read_audio(path)
    assert expected in (len(whole), -1)
    info = probe_audio(path)
    assert resampled_length(info.frames, info.sample_rate, RATE) == len(whole)
    blocks = np.concatenate(list(stream_samples(path, block_frames=1000)))
    np.testing.assert_allclose(blocks, whole, rtol=0, atol=1e-7)
    for first in (0, len(whole) // 3, len(whole) - 300):
        part = read_samples(path, first, 200)
        np.testing.assert_allclose(part, whole[first : first + 200], rtol=0, atol=1e-6)
    assert clip_span(str(path), 0.0, np.nan, sample_rate=RATE) == (0, len(whole))
    assert facts_of(path).frames == info.frames
    pd.DataFrame({"path": [name], "label": ["a"], "split": ["train"]}).to_csv(tmp_path / "m.csv", index=False)
    clips, bad = inspect_manifest(tmp_path / "m.csv", labels=("label",))
    assert not bad.lines
    assert open_reader(clips, progress=False).n_samples.tolist() == [len(whole)]
    prepare_store(clips, tmp_path / "store", where="m.csv", jobs=1, progress=False)
    assert read_store_clips(tmp_path / "store")["n_samples"].tolist() == [len(whole)]
    n_samples, streamed = Recording(str(path)).stream(RATE, window=RATE)
    assert n_samples == sum(map(len, streamed)) == len(whole)

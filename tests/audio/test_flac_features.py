"""What FLAC may hold, after the list of its conformance files: a small encoder writes it, and it is read the same."""

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from audiostride.audio.decoding import probe_audio
from audiostride.audio.resampling import read_audio, stream_frames
from audiostride.dataset.check.audio_facts import AudioFacts, read_facts
from audiostride.dataset.check.findings import Finding
from audiostride.errors import InputError

RNG = np.random.default_rng(3)
BLOCK_CODES = {192: 1, 576: 2, 1152: 3, 2304: 4, 4608: 5, 256: 8, 512: 9, 1024: 10, 2048: 11, 4096: 12, 8192: 13}
RATE_CODES = {88200: 1, 176400: 2, 192000: 3, 8000: 4, 16000: 5, 22050: 6, 24000: 7, 32000: 8, 44100: 9, 48000: 10}
BITS_CODES = {8: 1, 12: 2, 16: 4, 20: 5, 24: 6, 32: 7}


def crc(content: bytes, width: int, polynomial: int) -> int:
    value = 0
    for byte in content:
        value ^= byte << (width - 8)
        for _ in range(8):
            value = value << 1 ^ (polynomial if value >> (width - 1) & 1 else 0)
        value &= (1 << width) - 1
    return value


def bits(value: int, count: int) -> str:
    return format(int(value) & ((1 << count) - 1), f"0{count}b") if count else ""


def coded_number(number: int) -> str:
    """As UTF-8 would write it, to 36 bits."""
    if number < 0x80:
        return bits(number, 8)
    extra = next(n for n in range(1, 7) if number < 1 << (5 * n + 6 if n < 6 else 36))
    lead = (0xFF << (7 - extra)) & 0xFF
    tail = "".join("10" + bits(number >> 6 * place, 6) for place in reversed(range(extra)))
    return bits(lead | number >> 6 * extra, 8) + tail


def rice(values: list[int], method: int) -> str:
    """Residuals in one partition, with a parameter that suits them."""
    folded = [2 * value if value >= 0 else -2 * value - 1 for value in values]
    parameter = min(max(0, int(np.mean(folded) + 1).bit_length() - 1), (14, 30)[method]) if folded else 0
    text = bits(method, 2) + bits(0, 4) + bits(parameter, 4 + method)
    return text + "".join("0" * (value >> parameter) + "1" + bits(value, parameter) for value in folded)


def subframe(samples: list[int], width: int, kind: str, wasted: int = 0) -> str:
    samples = [value >> wasted for value in samples]
    width -= wasted
    tail = "1" + "0" * (wasted - 1) + "1" if wasted else "0"
    if kind == "constant":
        return "0" + bits(0, 6) + tail + bits(samples[0], width)
    if kind == "verbatim":
        return "0" + bits(1, 6) + tail + "".join(bits(value, width) for value in samples)
    order, method = int(kind[5]), int(kind.endswith("5bit"))
    residual = np.diff(np.array(samples, dtype=object), order).tolist() if order else samples
    warm = "".join(bits(value, width) for value in samples[:order])
    return "0" + bits(8 + order, 6) + tail + warm + rice(residual, method)


def frame(
    samples: NDArray[np.int64], number: int, *, rate: int, width: int, kind: str = "verbatim", stereo: str = "",
    wasted: int = 0, variable: bool = False, in_header: bool = True,
) -> bytes:  # fmt: skip
    """A frame of samples ``(channels, samples)``; rate and width stand in it where there are codes for them."""
    channels, size = samples.shape
    block = BLOCK_CODES.get(size, 7 if size > 256 else 6)
    rate_code = RATE_CODES.get(rate, 0) if in_header else 0
    rate_tail = ""
    if in_header and not rate_code:
        if rate % 1000 == 0 and rate < 256000:
            rate_code, rate_tail = 12, bits(rate // 1000, 8)
        elif rate < 65536:
            rate_code, rate_tail = 13, bits(rate, 16)
        elif rate % 10 == 0 and rate < 655360:
            rate_code, rate_tail = 14, bits(rate // 10, 16)
    assignment = {"": channels - 1, "left": 8, "right": 9, "mid": 10}[stereo]
    head = bits(0x3FFE, 14) + "0" + bits(variable, 1) + bits(block, 4) + bits(rate_code, 4) + bits(assignment, 4)
    head += bits(BITS_CODES.get(width, 0) if in_header else 0, 3) + "0" + coded_number(number)
    head += {6: bits(size - 1, 8), 7: bits(size - 1, 16)}.get(block, "") + rate_tail
    start = int(head, 2).to_bytes(len(head) // 8)
    start += bytes([crc(start, 8, 0x07)])
    rows, widths = [[int(value) for value in row] for row in samples], [width] * channels
    if stereo:
        left, right = rows
        side = [a - b for a, b in zip(left, right, strict=True)]
        middle = [(a + b) >> 1 for a, b in zip(left, right, strict=True)]
        rows = {"left": [left, side], "right": [side, right], "mid": [middle, side]}[stereo]
        widths = {"left": [width, width + 1], "right": [width + 1, width], "mid": [width, width + 1]}[stereo]
    body = "".join(subframe(row, w, kind, wasted) for row, w in zip(rows, widths, strict=True))
    body += "0" * (-len(body) % 8)
    content = start + int(body, 2).to_bytes(len(body) // 8)
    return content + struct.pack(">H", crc(content, 16, 0x8005))


def stream(
    frames: list[bytes], *, total: int, rate: int, channels: int, width: int, blocks: tuple[int, int],
    metadata: tuple[tuple[int, bytes], ...] = (),
) -> bytes:  # fmt: skip
    info = struct.pack(">HH", *blocks) + bytes(6)
    info += (rate << 44 | (channels - 1) << 41 | (width - 1) << 36 | total).to_bytes(8) + bytes(16)
    head = b"fLaC"
    for place, (kind, content) in enumerate([(0, info), *metadata]):
        head += bytes([kind | (128 if place == len(metadata) else 0)]) + len(content).to_bytes(3) + content
    return head + b"".join(frames)


def make_samples(channels: int, count: int, width: int) -> NDArray[np.int64]:
    """A slow wave with some noise, to full scale."""
    wave = np.sin(np.arange(count) / 9 + np.arange(channels)[:, None]) + RNG.uniform(-0.02, 0.02, (channels, count))
    top = 2 ** (width - 1) - 1
    return np.clip(np.round(wave * 1.01 * top), -top - 1, top).astype(np.int64)


def encode(
    samples: NDArray[np.int64], *, rate: int = 16000, width: int = 16, block: int = 4096, variable: bool = False,
    stated_blocks: tuple[int, int] | None = None, metadata: tuple[tuple[int, bytes], ...] = (),
    total: int | None = None, **frames: object,
) -> bytes:  # fmt: skip
    count, pieces = samples.shape[1], []
    for place, first in enumerate(range(0, count, block)):
        number = first if variable else place
        part = samples[:, first : first + block]
        pieces.append(frame(part, number, rate=rate, width=width, variable=variable, **frames))  # type: ignore[arg-type]
    return stream(
        pieces, total=count if total is None else total, rate=rate, channels=len(samples), width=width,
        blocks=stated_blocks or (block, block), metadata=metadata,
    )  # fmt: skip


def check(path: Path, content: bytes, samples: NDArray[np.int64], *, rate: int = 16000, width: int = 16) -> None:
    path.write_bytes(content)
    info = probe_audio(path)
    assert (info.sample_rate, info.channels, info.frames) == (rate, *samples.shape)
    expected = (samples / 2.0 ** (width - 1)).astype(np.float32).T
    np.testing.assert_array_equal(np.concatenate(list(stream_frames(path))), expected)
    facts = read_facts(str(path), 0.0, np.nan, name="it")
    assert isinstance(facts, AudioFacts)
    assert (facts.frames, facts.doubt) == (samples.shape[1], "")
    assert np.isfinite(read_audio(path)).all()


@pytest.mark.parametrize("block", [16, 192, 255, 256, 257, 4096, 4608, 16384, 65535])
@pytest.mark.parametrize("variable", [False, True])
def test_sizes_of_blocks(tmp_path: Path, block: int, variable: bool) -> None:
    samples = make_samples(1, min(3 * block, 70000) - 5, 16)
    check(tmp_path / "a.flac", encode(samples, block=block, variable=variable), samples)


def test_blocks_of_different_sizes(tmp_path: Path) -> None:
    sizes, samples = [16, 4096, 100, 1, 300, 2304, 7], make_samples(2, 6824, 16)
    ends = np.cumsum(sizes)
    assert ends[-1] == samples.shape[1]
    frames = [
        frame(samples[:, end - size : end], end - size, rate=16000, width=16, variable=True)
        for size, end in zip(sizes, ends.tolist(), strict=True)
    ]
    content = stream(frames, total=6824, rate=16000, channels=2, width=16, blocks=(16, 4096))
    check(tmp_path / "a.flac", content, samples)


@pytest.mark.parametrize("kind", ["verbatim", "fixed0", "fixed1", "fixed2", "fixed3", "fixed4", "fixed2 5bit"])
@pytest.mark.parametrize("stereo", ["", "left", "right", "mid"])
def test_kinds_of_subframes_and_stereo(tmp_path: Path, kind: str, stereo: str) -> None:
    samples = make_samples(2, 700, 16)
    check(tmp_path / "a.flac", encode(samples, block=256, kind=kind, stereo=stereo), samples)


def test_constants_and_wasted_bits(tmp_path: Path) -> None:
    constant = np.repeat(np.array([[-1234], [5]]), 600, axis=1)
    check(tmp_path / "a.flac", encode(constant, block=256, kind="constant"), constant)
    for wasted in (1, 4, 11):
        samples = make_samples(2, 600, 16) >> wasted << wasted
        for kind in ("verbatim", "fixed1"):
            check(tmp_path / "a.flac", encode(samples, block=256, kind=kind, wasted=wasted), samples)


@pytest.mark.parametrize("width", [8, 16, 24])
@pytest.mark.parametrize("in_header", [True, False])
def test_bits_of_a_sample(tmp_path: Path, width: int, in_header: bool) -> None:
    samples = make_samples(2, 500, width)
    content = encode(samples, width=width, block=256, in_header=in_header, kind="fixed2 5bit")
    check(tmp_path / "a.flac", content, samples, width=width)


@pytest.mark.parametrize("width", [4, 12, 20, 32])
def test_bits_that_libsndfile_does_not_know_are_refused(tmp_path: Path, width: int) -> None:
    samples, path = make_samples(1, 500, width), tmp_path / "a.flac"
    path.write_bytes(encode(samples, width=width, block=256))
    with pytest.raises(InputError, match=r"a\.flac cannot be read: it is .*of a rare encoding.*convert it"):
        read_audio(path)


@pytest.mark.parametrize("rate", [1, 10, 97, 8000, 12345, 39000, 88200, 96000, 192000, 384000, 655350])
@pytest.mark.parametrize("in_header", [True, False])
def test_unusual_rates(tmp_path: Path, rate: int, in_header: bool) -> None:
    samples = make_samples(1, 400, 16)
    check(tmp_path / "a.flac", encode(samples, rate=rate, block=256, in_header=in_header), samples, rate=rate)


@pytest.mark.parametrize("channels", [1, 3, 6, 8])
def test_numbers_of_channels(tmp_path: Path, channels: int) -> None:
    samples = make_samples(channels, 300, 16)
    check(tmp_path / "a.flac", encode(samples, block=256), samples)


METADATA = {
    "padding": ((1, bytes(5000)),),
    "application": ((2, b"test" + bytes(90)),),
    "seek table": ((3, struct.pack(">QQH", 0, 0, 256) + b"\xff" * 18),),
    "comment": ((4, struct.pack("<I", 4) + b"test" + struct.pack("<II", 1, 7) + b"A=\xc3\xa9fLa"),),
    "cue sheet": ((5, bytes(128 + 8 + 259) + b"\x01" + bytes(8) + b"\xaa" + bytes(27)),),
    "picture": ((6, struct.pack(">II", 3, 9) + b"image/png" + bytes(20) + struct.pack(">I", 300000) + bytes(300000)),),
    "unknown": ((77, b"fLaC\0\0\0 and so on" * 10),),
    "many": tuple((1, bytes(number)) for number in range(300)),
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_is_passed_over(tmp_path: Path, name: str) -> None:
    samples = make_samples(2, 600, 16)
    content = encode(samples, block=256, metadata=METADATA[name])
    check(tmp_path / "a.flac", content, samples)
    check(tmp_path / "a.flac", content + b"TAG" + bytes(125), samples)


def test_an_id3_tag_in_front_is_passed_over(tmp_path: Path) -> None:
    samples = make_samples(1, 600, 16)
    tag = b"ID3\x04\0\0\0\0\x02\x00" + bytes(256)
    check(tmp_path / "a.flac", tag + encode(samples, block=256), samples)
    check(tmp_path / "a.flac", tag + encode(samples, block=256, total=0), samples)


def test_bounds_of_blocks_that_are_not_stated(tmp_path: Path) -> None:
    samples = make_samples(1, 600, 16)
    for variable in (False, True):
        content = encode(samples, block=256, variable=variable, stated_blocks=(0, 0))
        check(tmp_path / "a.flac", content, samples)


@pytest.mark.parametrize("total", [0, 2**36 - 1])
@pytest.mark.parametrize("block", [16, 4096])
def test_a_total_that_is_unknown_is_counted(tmp_path: Path, total: int, block: int) -> None:
    samples = make_samples(2, 9001, 16)
    check(tmp_path / "a.flac", encode(samples, block=block, total=total), samples)


def test_a_total_that_is_wrong_is_an_error_or_a_finding(tmp_path: Path) -> None:
    samples, path = make_samples(1, 9001, 16), tmp_path / "a.flac"
    path.write_bytes(encode(samples, total=9500))
    with pytest.raises(InputError, match=r"a\.flac is cut off or damaged: its header promises 9500 frames.*after 9001"):
        read_audio(path)
    tracemalloc.start()
    path.write_bytes(encode(samples, total=100_000_000))  # not more than so many bytes could hold
    with pytest.raises(InputError, match=r"a\.flac is cut off or damaged: its header promises 100000000 frames"):
        read_audio(path)
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()
    for total in (2**36 - 2, 2**35):
        path.write_bytes(encode(samples, total=total))
        with pytest.raises(InputError, match=rf"a\.flac is damaged: its header promises {total} frames, more than its"):
            read_audio(path)
    path.write_bytes(encode(samples, total=5000))
    assert len(read_audio(path)) == 5000
    facts = read_facts(str(path), 0.0, np.nan, name="it")
    assert isinstance(facts, AudioFacts)
    assert facts.doubt == "has 4,001 frames behind the 5,000 that its header states"
    path.write_bytes(2 * encode(samples))
    facts = read_facts(str(path), 0.0, np.nan, name="it")
    assert isinstance(facts, AudioFacts)
    assert "holds 2 streams one behind another, of which the first is read" in facts.doubt
    assert f"byte {len(encode(samples)):,}" in facts.doubt


@pytest.mark.parametrize("what", ["rate", "more channels", "fewer channels", "bits"])
def test_a_change_in_mid_stream_is_named_and_not_read_as_noise(tmp_path: Path, what: str) -> None:
    path, first, channels = tmp_path / "a.flac", make_samples(2, 512, 16), {"more channels": 3, "fewer channels": 1}
    second = make_samples(channels.get(what, 2), 256, 24 if what == "bits" else 16)
    frames = [frame(first[:, at : at + 256], at // 256, rate=16000, width=16) for at in (0, 256)]
    frames.append(frame(second, 2, rate=32000 if what == "rate" else 16000, width=24 if what == "bits" else 16))
    path.write_bytes(stream(frames, total=768, rate=16000, channels=2, width=16, blocks=(256, 256)))
    found = read_facts(str(path), 0.0, np.nan, name="it")
    if "channels" in what:
        with pytest.raises(InputError, match=r"a\.flac (cannot be decoded|is cut off or damaged)"):
            read_audio(path)
        assert isinstance(found, Finding)
    else:
        assert isinstance(found, AudioFacts)
        assert found.doubt.startswith("changes its sample rate or its bits per sample within")

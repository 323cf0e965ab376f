"""What libsndfile does not know and ffmpeg does: with scripts in its place, and with the real one where it is there."""

import json
import os
import re
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiostride.audio.decoding import ffmpeg_is_installed, probe_audio, probe_with_ffmpeg
from audiostride.audio.resampling import read_audio, read_samples, stream_samples
from audiostride.errors import InputError

M4A = Path(__file__).parents[2].parent / "shared" / "data" / "formats" / "stereo_44100.m4a"

# A made-up format: a line of JSON, then float32 samples. What the scripts do with it stands in that line.
FFPROBE = """
import json, sys
path = sys.argv[-1]
assert path.startswith("file:/"), path
with open(path[5:], "rb") as file:
    head = json.loads(file.readline())
sys.stderr.buffer.write(head.get("probe_says", "").encode("latin-1"))
if "streams" in head:
    print(json.dumps({"streams": head["streams"], "format": head.get("format", {"duration": head["duration_s"]})}))
    sys.exit(0)
print("{}")
sys.exit(1)
"""

FFMPEG = """
import json, os, sys, time
options = dict(zip(sys.argv[1:-1], sys.argv[2:], strict=True))
path = options["-i"]
assert path.startswith("file:/") and sys.argv[-1] == "-", sys.argv
with open(path[5:], "rb") as file:
    head = json.loads(file.readline())
    samples = file.read()
with open(path[5:] + ".calls", "a") as calls:
    print(os.getpid(), options["-ss"], file=calls)
stream = head["streams"][0]
assert (options["-ar"], options["-ac"]) == (stream["sample_rate"], str(stream["channels"])), options
frame = 4 * stream["channels"]
first = round(float(options["-ss"]) * int(stream["sample_rate"]))
sys.stderr.write("x" * head.get("chatter", 0))
sys.stderr.flush()
try:
    sys.stdout.buffer.write(samples[first * frame : head.get("stops_after", 10**9) * frame])
    sys.stdout.flush()
    while head.get("endless"):
        sys.stdout.buffer.write(bytes(frame * 1000))
    if head.get("lingers"):
        time.sleep(20)
        open(path[5:] + ".ended", "w").close()
except BrokenPipeError:
    os._exit(1)
sys.stderr.write(head.get("says", ""))
sys.exit(head.get("exit", 0))
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH, with scripts named ffmpeg and ffprobe."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, program in (("ffprobe", FFPROBE), ("ffmpeg", FFMPEG)):
        (folder / f"{name}.py").write_text(program)
        (folder / name).write_text(f"#!/bin/sh\nexec '{sys.executable}' -IS '{folder / name}.py' \"$@\"\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    assert ffmpeg_is_installed()
    return folder


def write_unknown(path: Path, samples: np.ndarray, sample_rate: int, **behaviour: object) -> Path:
    stream = {"sample_rate": str(sample_rate), "channels": samples.shape[1], "codec_name": "made_up"}
    head = {"streams": [stream], "duration_s": f"{len(samples) / sample_rate:.6f}", **behaviour}
    path.write_bytes(json.dumps(head).encode() + b"\n" + samples.astype("<f4").tobytes())
    return path


def noise(n_samples: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(n_samples).uniform(-0.5, 0.5, (n_samples, channels)).astype(np.float32)


def calls_of(path: Path) -> list[tuple[int, float]]:
    """Process id and start in seconds of each call of ffmpeg."""
    lines = path.with_name(f"{path.name}.calls").read_text().splitlines()
    return [(int(pid), float(start_s)) for pid, start_s in map(str.split, lines)]


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.usefixtures("fake")
def test_a_file_that_only_ffmpeg_knows_has_rate_channels_and_length(tmp_path: Path) -> None:
    info = probe_audio(write_unknown(tmp_path / "a.xyz", noise(4410, 2), 44100))
    assert (info.sample_rate, info.channels, info.frames, info.duration_s) == (44100, 2, 4410, 0.1)
    assert info.encoding == "ffmpeg made_up"
    assert not info.exact_length


@pytest.mark.usefixtures("fake")
def test_the_length_is_that_of_the_container_where_the_stream_states_none(tmp_path: Path) -> None:
    samples = noise(800)
    path = write_unknown(tmp_path / "a.xyz", samples, 8000, duration_s="0.1")
    stream = {"sample_rate": "8000", "channels": 1, "duration": "0.05"}
    assert probe_with_ffmpeg(path) == (8000, 1, 800, "made_up")
    assert probe_with_ffmpeg(write_unknown(path, samples, 8000, streams=[stream])) == (8000, 1, 400, "?")


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    "format_", [{}, {"duration": "0.02", "format_name": "aac"}, {"duration": "9", "format_name": "aac"}]
)
def test_a_length_that_is_not_stated_or_guessed_is_counted(tmp_path: Path, format_: dict[str, str]) -> None:
    path = write_unknown(tmp_path / "a.xyz", noise(300000, 2), 16000, format=format_)
    assert probe_audio(path).frames == len(read_audio(path)) == 300000
    assert len(calls_of(path)) == 2  # counted once


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(("sample_rate", "channels"), [(16000, 1), (44100, 2)])
def test_its_samples_are_those_of_a_wav_with_the_same_audio(tmp_path: Path, sample_rate: int, channels: int) -> None:
    samples = noise(sample_rate // 2, channels)
    path = write_unknown(tmp_path / "a.xyz", samples, sample_rate)
    soundfile.write(str(tmp_path / "a.wav"), samples, sample_rate, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(path), read_audio(tmp_path / "a.wav"))
    blocks = list(stream_samples(path, block_frames=1001))
    assert len(blocks) > 5
    # Addition in another order, if anything; none was seen.
    np.testing.assert_allclose(np.concatenate(blocks), read_audio(tmp_path / "a.wav"), rtol=0, atol=1e-7)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("sample_rate", [16000, 44100])
def test_a_part_of_it_equals_that_part_of_the_whole(tmp_path: Path, sample_rate: int) -> None:
    path = write_unknown(tmp_path / "a.xyz", noise(2 * sample_rate, 2), sample_rate)
    whole = read_samples(path, 0)
    for first, count in ((0, 100), (1, 8000), (23457, 777), (31999, 1)):
        # The filter sees 50 ms on either side of the part, where it has fallen to 4e-7.
        np.testing.assert_allclose(read_samples(path, first, count), whole[first : first + count], rtol=0, atol=1e-6)
    # Decoding begins half a second before the part, not at the start of the file.
    assert 0.4 < calls_of(path)[-1][1] - 1.0 < 0.5


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("habit", ["endless", "lingers"])
def test_ffmpeg_is_ended_once_a_part_is_read_or_no_longer_wanted(tmp_path: Path, habit: str) -> None:
    path = write_unknown(tmp_path / "a.xyz", noise(16000), 16000, **{habit: True})
    assert len(read_samples(path, 100, 50)) == 50
    blocks = stream_samples(path, block_frames=100)
    assert len(next(blocks)) == 100
    blocks.close()
    calls = calls_of(path)
    assert len(calls) == 2
    assert all(has_ended(pid) for pid, _ in calls)
    assert not has_ended(os.getpid())  # the question can be answered with no
    assert not path.with_name("a.xyz.ended").exists()  # and not because its time had come


@pytest.mark.usefixtures("fake")
def test_a_failure_in_mid_file_is_named_with_what_ffmpeg_said(tmp_path: Path) -> None:
    path = write_unknown(tmp_path / "a.xyz", noise(16000), 16000, stops_after=9000, exit=1, says="broken packet")
    assert len(read_samples(path, 0, 9000)) == 9000
    with pytest.raises(InputError, match=r"audio file .*a\.xyz cannot be decoded: ffmpeg says broken packet"):
        read_audio(path)
    with pytest.raises(InputError, match=r"a\.xyz cannot be decoded: ffmpeg says broken packet"):
        list(stream_samples(path, block_frames=1000))


@pytest.mark.usefixtures("fake")
def test_a_file_that_ends_before_its_stated_length_is_cut_off(tmp_path: Path) -> None:
    path = write_unknown(tmp_path / "a.xyz", noise(16000), 16000, stops_after=9000)
    with pytest.raises(InputError, match=r"a\.xyz is cut off or damaged: its header promises 16000 frames.*after 9000"):
        read_audio(path)
    # Containers state their length to a tenth of a second or so; what is missing then is silence.
    path = write_unknown(tmp_path / "b.xyz", noise(16000) + 1.0, 16000, stops_after=15000)
    assert np.flatnonzero(read_audio(path) == 0).tolist() == list(range(15000, 16000))


@pytest.mark.usefixtures("fake")
def test_much_that_ffmpeg_says_does_not_stop_it(tmp_path: Path) -> None:
    # More than a pipe holds: with nobody reading it, ffmpeg would wait for ever, and so would this process.
    path = write_unknown(tmp_path / "a.xyz", noise(16000), 16000, chatter=2**20)
    read: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: read.append(read_audio(path)), daemon=True)
    thread.start()
    thread.join(timeout=30)
    assert len(read) == 1


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("head", [{}, {"streams": []}, {"streams": [{"codec_type": "audio"}]}])
def test_a_file_without_audio_is_named(tmp_path: Path, head: dict[str, object]) -> None:
    path = tmp_path / "film.xyz"
    path.write_text(json.dumps({"duration_s": "1", **head}) + "\n")
    with pytest.raises(InputError, match=r"film\.xyz cannot be read: libsndfile and ffmpeg do not know it"):
        read_audio(path)


@pytest.mark.usefixtures("fake")
def test_the_last_line_that_ffprobe_says_is_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "film.xyz"
    path.write_text(json.dumps({"probe_says": "first \xe9\nmoov atom not found\n"}) + "\n")  # \xe9: not UTF-8
    with pytest.raises(InputError, match=r"film\.xyz .*do not know it \(moov atom not found\)"):
        read_audio(path)


@pytest.mark.usefixtures("fake")
def test_a_file_without_samples_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.xyz holds no samples that can be decoded, in \d+ bytes; copy it again"):
        probe_audio(write_unknown(tmp_path / "a.xyz", noise(0), 16000))


def test_without_ffmpeg_the_message_says_so(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_unknown(tmp_path / "a.xyz", noise(1600), 16000)
    message = r"a\.xyz cannot be read: .*\(libsndfile\); convert it to WAV or FLAC, or install ffmpeg"
    (fake / "ffprobe").unlink()  # the two come together; one alone is of no use
    with pytest.raises(InputError, match=message):
        read_audio(path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=message):
        read_audio(path)
    soundfile.write(str(tmp_path / "a.wav"), noise(1600), 16000)
    assert len(read_audio(tmp_path / "a.wav")) == 1600


ODD_NAMES = ["-i.xyz", "http:x.xyz", "concat:a|b.xyz", "%d 'quoted'.xyz"]


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_is_never_taken_for_an_option_or_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    samples = noise(1600)
    write_unknown(Path(name), samples, 16000)
    np.testing.assert_array_equal(read_audio(name), samples[:, 0])


REASONS = {
    "lfs.wav": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 32044\n",
        "git-lfs.*run: git lfs pull",
    ),
    "page.mp3": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "a web page"),
    "page.flac": (b"\xef\xbb\xbf\n <HTML><head>", "HTML"),
    "feed.ogg": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    "film.mp3": (b"\0\0\0\x20ftypisom\0\0\2\0" + bytes(4000), "MP4.*convert it to WAV or FLAC, or install ffmpeg"),
    "talk.wav": (b"\x1a\x45\xdf\xa3" + bytes(500), "Matroska or WebM"),
    "call.wav": (b"#!AMR\n\x0c" + bytes(50), "AMR"),
    "song.mp3": (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(99), "Windows Media"),
    "clip.wav": (b"RIFF\0\1\0\0AVI LIST" + bytes(99), "AVI"),
    "pack.wav": (b"PK\x03\x04" + bytes(99), "archive; unpack it"),
    "pack.flac": (b"\x1f\x8b\x08" + bytes(99), "archive"),
    "._bird.wav": (b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(99), "AppleDouble"),
    "zero.wav": (bytes(5000), "zeros; copy it again"),
    "notes.wav": ("a line of text, even with é\n".encode() * 400, r"text, beginning with 'a line of text"),
    "notes.json": (b'{"error": "not found"}', "text, beginning with '{\"error"),
    "midi.wav": (b"MThd\0\0\0\6" + bytes(99), "MIDI"),
    "picture.ogg": (b"\x89PNG\r\n\x1a\n" + bytes(99), "a picture"),
    "broken.ogg": (b"OggS\0\2" + bytes(99), "Ogg that is damaged, or of a codec"),
    "broken.flac": (b"fLaC" + bytes(99), "damaged or of a rare encoding; copy it again"),
    "aac.mp3": (b"\xff\xf1\x50\x80" + bytes(99), "a codec that libsndfile lacks"),
}


@pytest.mark.parametrize("name", REASONS)
def test_the_reason_is_what_the_first_bytes_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv("PATH", "")
    content, reason = REASONS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{re.escape(name)} cannot be read: it is .*{reason}") as caught:
        read_audio(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert "remove" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # what libsndfile's MPEG decoder says of such files


@pytest.mark.usefixtures("fake")
def test_where_ffmpeg_does_not_know_it_either_the_first_bytes_say_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "page.mp3"
    path.write_bytes(b'{"probe_says": "Invalid data"}\n')
    with pytest.raises(InputError, match=r"page\.mp3 .*do not know it \(Invalid data\): it is text, beginning with"):
        read_audio(path)


def test_audio_is_read_whatever_its_name_says(tmp_path: Path) -> None:
    samples = noise(1600)
    for name in ("a.mp3", "a.txt", "a"):
        soundfile.write(str(tmp_path / name), samples, 16000, format="FLAC")
        assert len(read_audio(tmp_path / name)) == 1600


# ---- the real ffmpeg ----


real = pytest.mark.skipif(
    not (M4A.is_file() and ffmpeg_is_installed()), reason="ffmpeg is not installed, or no ../shared/data/formats"
)


@real
def test_aac_is_read_whole_and_in_blocks() -> None:
    info = probe_audio(M4A)
    assert (info.sample_rate, info.channels, info.encoding) == (44100, 2, "ffmpeg aac")
    samples = read_audio(M4A)
    assert len(samples) / 16000 == pytest.approx(info.duration_s, abs=1 / 16000)
    assert 0.01 < np.abs(samples).max() <= 1.5
    blocks = list(stream_samples(M4A, block_frames=5000))
    assert len(blocks) > 5
    # Addition in another order, if anything; none was seen.
    np.testing.assert_allclose(np.concatenate(blocks), samples, rtol=0, atol=1e-7)


@real
def test_parts_of_aac_agree_with_the_whole() -> None:
    whole = read_audio(M4A)
    for first in (0, 999, 7001, 15001, 20011):
        part = read_samples(M4A, first, 2000)
        # AAC replaces noise by random numbers of its own, whose state depends on where decoding begins: 4e-3 was
        # measured. Without decoding what lies before the part, 0.4 was.
        np.testing.assert_allclose(part, whole[first : first + 2000], rtol=0, atol=0.02)


@real
@pytest.mark.parametrize("name", [name.replace(".xyz", ".m4a") for name in ODD_NAMES])
def test_real_ffmpeg_takes_no_name_for_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(M4A, tmp_path / name)
    np.testing.assert_array_equal(read_samples(name, 0, 3000), read_samples(M4A, 0, 3000))


@real
def test_aac_that_is_cut_off_is_named(tmp_path: Path) -> None:
    content = M4A.read_bytes()
    path = tmp_path / "cut.m4a"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cut\.m4a (cannot be read|cannot be decoded|is cut off)"):
        read_audio(path)

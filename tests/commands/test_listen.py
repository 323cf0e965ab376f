"""`audiostride listen`: a stream from a pipe or a sound card, told event by event."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

Run = Callable[..., int]
BAD_INPUT = 2


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """Half a minute of tones and noise."""
    rng = np.random.default_rng(0)
    samples = 0.1 * rng.standard_normal(30 * 16000)
    for start in (4, 15, 22):
        samples[start * 16000 : (start + 3) * 16000] = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(48000) / 16000)
    soundfile.write(str(tmp_path / "night.wav"), samples, 16000)
    return tmp_path / "night.wav"


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[bytes], None]]:
    """Puts bytes on standard input."""
    files = []

    def put(content: bytes) -> None:
        (tmp_path / "stream").write_bytes(content)
        files.append((tmp_path / "stream").open())
        monkeypatch.setattr(sys, "stdin", files[-1])

    yield put
    for file in files:
        file.close()


OPTIONS = ["--hop", "0.5", "--threshold", "0.4", "--merge-gap", "0.1"]


def test_the_events_of_a_stream_are_those_of_the_file(
    run_command: Run,
    trained_run: Path,
    night: Path,
    stream: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run_command("predict", trained_run, night, "-o", night.with_suffix(".csv"), "--events", *OPTIONS) == 0
    expected = pd.read_csv(night.with_suffix(".csv")).sort_values(["start_s", "end_s", "label"])
    capsys.readouterr()
    samples, _ = soundfile.read(str(night), dtype="int16")
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, count: read(file, min(count, 4321)))  # a pipe cuts samples in two
    stream(samples.tobytes())
    assert run_command("listen", trained_run, "--json", *OPTIONS) == 0
    shown = capsys.readouterr()
    found = pd.DataFrame([json.loads(line) for line in shown.out.splitlines()])
    found = found.sort_values(["start_s", "end_s", "label"]).reset_index(drop=True)
    assert len(found) >= 2
    pd.testing.assert_frame_equal(found, expected.drop(columns="path").reset_index(drop=True), atol=1e-5)
    assert re.search(r"^heard 30\.0 s, \d+ events: (tone|noise) \d+", shown.err, flags=re.MULTILINE)
    # A window of 1 s that begins at the end of an event may still lengthen it, and so may one 0.1 s behind.
    times = r"^59 windows, [\d.]+ ms each, [\d,]+ x real time; the slowest block took \d+ ms; "
    assert re.search(times + "an event is told 1 s after its end$", shown.err, flags=re.MULTILINE)

    # The same in stereo and in floats; then at another rate, where it is not the same to the bit.
    pair = np.stack([samples / 16384, np.zeros(len(samples))], axis=1).astype("<f4")
    stream(pair.tobytes())
    stereo = ["--channels", "2", "--encoding", "f32le"]
    assert run_command("listen", trained_run, "--json", *stereo, *OPTIONS) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(shown.out.splitlines())
    stream(np.repeat(pair, 2, axis=0).tobytes())
    assert run_command("listen", trained_run, "--rate", "32000", *stereo, *OPTIONS) == 0
    shown = capsys.readouterr()
    lines = [
        re.fullmatch(r" *([\d.]+) +([\d.]+)  (0\.\d{3}|1\.000)  (tone|noise)", line) for line in shown.out.splitlines()
    ]
    assert all(lines)
    assert len(lines) >= 2
    assert "heard 30.0 s" in shown.err


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_stream_that_is_stopped_ends_with_a_summary(trained_run: Path, sign: signal.Signals) -> None:
    command = [sys.executable, "-m", "audiostride", "listen", str(trained_run), "--threshold", "0"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(bytes(2 * 3 * 16000))
        process.stdin.flush()
        assert b"listening since" in process.stderr.readline()
        time.sleep(1)  # it waits for more
        process.send_signal(sign)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"Traceback" not in err
    assert "heard 3.0 s, 2 events: " in err.decode()
    assert len(out.splitlines()) == 2, "what it was in when it ended is told too"


def test_the_sound_card_is_a_stream(
    run_command: Run, trained_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert run_command("listen", trained_run, "--from", "card") == BAD_INPUT
    assert "needs the package sounddevice, got " in (shown := capsys.readouterr().err)
    assert "pip install 'audiostride[live]'" in shown
    opened: list[dict[str, Any]] = []

    class InputStream:
        def __init__(self, **given: Any) -> None:
            opened.append(given)
            self.n_read = 0

        def __enter__(self) -> "InputStream":
            return self

        def __exit__(self, *_: object) -> None:
            opened.append({"closed": True})

        def read(self, count: int) -> tuple[np.ndarray, bool]:
            self.n_read += 1
            if self.n_read > 25:
                raise KeyboardInterrupt  # Ctrl-C
            return np.zeros((count, 2), dtype=np.float32), self.n_read == 3

    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(InputStream=InputStream))
    assert run_command("listen", trained_run, "--from", "card", "--channels", "2", "--rate", "8000") == 0
    shown = capsys.readouterr().err
    assert opened[0] == {"samplerate": 8000, "channels": 2, "dtype": "float32"}
    assert re.search(r"^heard 2\.[45] s, ", shown, flags=re.MULTILINE)
    assert shown.count("samples were lost") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "night.wav"], "--from must be - or card, got night.wav; of a file: ffmpeg -i FILE"),
        (["--channels", "0"], "channels must be"),
        (["--rate", "-5"], "rate must be"),
        (["--threshold", "2"], "threshold must be a probability"),
        (["--hop", "9"], "hop must lie in"),
        (["--classes", "owl"], "classes must be of the model, got owl; it knows noise, tone"),
    ],
)
def test_bad_options_end_with_code_2(
    run_command: Run,
    trained_run: Path,
    stream: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    stream(b"")
    assert run_command("listen", trained_run, *options) == BAD_INPUT
    assert message in (shown := capsys.readouterr().err)
    assert "Traceback" not in shown


def test_a_terminal_is_no_stream(
    run_command: Run, trained_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert run_command("listen", trained_run) == BAD_INPUT
    assert "raw samples must come on standard input, got a terminal; arecord -f S16_LE" in capsys.readouterr().err

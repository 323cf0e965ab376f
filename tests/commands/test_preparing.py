"""`audiostride prepare`: what it prints, its exit codes, and that it needs no torch."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from lab.clips import read_clips

Run = Callable[..., int]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Four clips of three files: 16 kHz, 44.1 kHz stereo, and two parts of one beyond full scale."""
    rng = np.random.default_rng(0)
    soundfile.write(str(tmp_path / "a.wav"), rng.uniform(-0.5, 0.5, 16000), 16000)
    soundfile.write(str(tmp_path / "b.flac"), rng.uniform(-0.5, 0.5, (44100, 2)), 44100)
    soundfile.write(str(tmp_path / "c.wav"), 3 * np.sin(np.arange(32000) / 20), 16000, subtype="FLOAT")
    rows = ["a.wav,x,train,,", "b.flac,y,train,,", "c.wav,x,test,0,1", "c.wav,y,test,1,1"]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,split,start_s,duration_s", *rows]) + "\n")
    return tmp_path / "m.csv"


def add_bad_rows(manifest: Path) -> None:
    (manifest.parent / "text.wav").write_text("no audio")
    with manifest.open("a") as file:
        file.write("text.wav,x,train,,\ngone.wav,y,train,,\n")


def test_the_store_is_described(
    run_command: Run, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert run_command("prepare", manifest, "-o", store) == 0
    need, summary, scaled = capsys.readouterr().out.splitlines()
    # 4 clips of one second, in MiB of int16.
    assert re.fullmatch(r"needs 0 MiB of disk, [\d,]+ MiB are free", need)
    assert summary == f"4 clips, 0.00 h of audio, 0 MiB in 1 files (1 written now) -> {store}"
    assert scaled == "2 clips go beyond full scale and are stored divided by a factor of their own"
    assert read_clips(store)["n_samples"].tolist() == [16000] * 4
    assert run_command("prepare", manifest, "-o", store) == 0
    again = capsys.readouterr().out.splitlines()
    assert again == [f"4 clips, 0.00 h of audio, 0 MiB in 1 files (0 written now) -> {store}", scaled]


def test_options_arrive(run_command: Run, manifest: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "m.csv"
    moved.parent.mkdir()
    manifest.rename(moved)
    options = ["--audio-root", tmp_path, "--sample-rate", "8000", "--jobs", "1"]
    assert run_command("prepare", moved, "-o", tmp_path / "store", *options) == 0
    assert json.loads((tmp_path / "store" / "store.json").read_text())["sample_rate"] == 8000
    assert read_clips(tmp_path / "store")["n_samples"].tolist() == [8000] * 4


def test_a_folder_of_class_folders_is_prepared(run_command: Run, tmp_path: Path) -> None:
    for label in ("dog", "cat"):
        (tmp_path / "set" / label).mkdir(parents=True)
        soundfile.write(str(tmp_path / "set" / label / "1.wav"), np.zeros(800), 16000)
    assert run_command("prepare", tmp_path / "set", "-o", tmp_path / "store") == 0
    assert read_clips(tmp_path / "store")["label"].tolist() == ["cat", "dog"]


def test_verifying_says_so_and_finds_damage(
    run_command: Run, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert run_command("prepare", manifest, "-o", store, "--verify") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "verified: all checksums are right"
    audio = store / "audio-00000.arrow"
    whole = audio.read_bytes()
    place = whole.index(soundfile.read(tmp_path / "a.wav", dtype="int16")[0][1000:1020].tobytes())
    audio.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert run_command("prepare", manifest, "-o", store) == 0  # without --verify nobody reads the samples
    capsys.readouterr()
    assert run_command("prepare", manifest, "-o", store, "--verify") == 2
    shown = capsys.readouterr().err
    assert f"prepare: store {store} is damaged\naudio-00000.arrow is damaged: its checksum must be" in shown
    assert shown.rstrip().endswith("prepare it anew")
    audio.write_bytes(whole[:-8])
    assert run_command("prepare", manifest, "-o", store, "--verify") == 2
    assert f"audio-00000.arrow must have {len(whole)} bytes, got {len(whole) - 8}" in capsys.readouterr().err
    audio.write_bytes(whole)
    assert run_command("prepare", manifest, "-o", store, "--verify") == 0


def test_bad_clips_are_an_error_that_lists_them(
    run_command: Run, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_bad_rows(manifest)
    assert run_command("prepare", manifest, "-o", tmp_path / "store") == 2
    shown = capsys.readouterr().err
    assert "line 7: audio file" in shown
    assert "gone.wav does not exist" in shown
    assert "--on-error skip" in shown
    (tmp_path / "gone.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    assert run_command("prepare", manifest, "-o", tmp_path / "store") == 2
    shown = capsys.readouterr().err
    assert "1 bad row\n  line 6: audio file" in shown
    assert "text.wav cannot be read" in shown
    assert not (tmp_path / "store").exists()


def test_bad_clips_are_left_out_and_listed_on_request(
    run_command: Run, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_bad_rows(manifest)
    store = tmp_path / "store"
    assert run_command("prepare", manifest, "-o", store, "--on-error", "skip") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == f"2 bad clips left out: {store / 'skipped.csv'}"
    assert "4 clips, " in shown[-3]
    assert pd.read_csv(store / "skipped.csv")["line"].tolist() == [6, 7]
    assert read_clips(store)["label"].tolist() == ["x", "y", "x", "y"]
    assert run_command("prepare", manifest, "-o", store, "--on-error", "skip") == 0
    assert f"2 bad clips left out: {store / 'skipped.csv'}" in capsys.readouterr().out


def test_rows_that_say_nothing_usable_are_never_left_out(
    run_command: Run, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with manifest.open("a") as file:
        file.write("a.wav,x,train,-1,\n")
    assert run_command("prepare", manifest, "-o", tmp_path / "store", "--on-error", "skip") == 2
    assert "line 6: start_s must be a number of seconds >= 0" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "0"], "prepare: --jobs must be at least 1, got 0"),
        (["--jobs", "-2"], "prepare: --jobs must be at least 1, got -2"),
        (["--sample-rate", "0"], "prepare: --sample-rate must be at least 1 Hz, got 0"),
        (["--sample-rate", "-16000"], "prepare: --sample-rate must be at least 1 Hz, got -16000"),
        (["--on-error", "ignore"], "invalid choice"),
        (["--jobs", "many"], "jobs"),
    ],
)
def test_bad_options_are_refused(
    run_command: Run,
    manifest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert run_command("prepare", manifest, "-o", tmp_path / "store", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_places_that_hold_something_else_and_sources_that_are_none_are_refused(
    run_command: Run, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in (manifest, tmp_path):
        assert run_command("prepare", manifest, "-o", out) == 2
        assert "-o must be a new or empty folder, or a store that was begun" in capsys.readouterr().err
    assert run_command("prepare", tmp_path / "none.csv", "-o", tmp_path / "store") == 2
    assert "none.csv does not exist" in capsys.readouterr().err
    assert run_command("prepare", manifest, "-o", tmp_path / "store") == 0
    assert run_command("prepare", tmp_path / "store", "-o", tmp_path / "other") == 2
    assert "must be a manifest, got a store" in capsys.readouterr().err
    other = manifest.with_name("other.csv")
    other.write_text("\n".join(manifest.read_text().splitlines()[:3]) + "\n")
    assert run_command("prepare", other, "-o", tmp_path / "store") == 2
    assert "holds a store of other clips" in capsys.readouterr().err


def test_importing_checking_and_preparing_load_no_torch(manifest: Path, tmp_path: Path) -> None:
    for label in ("x", "y"):
        (tmp_path / "set" / label).mkdir(parents=True)
        (tmp_path / "set" / label / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    table, store = tmp_path / "set.csv", tmp_path / "store"
    commands = [
        (["import", "folder", str(tmp_path / "set"), "-o", str(table)], 0),
        (["import", "--list"], 0),
        (["check", str(table)], 1),  # no splits, and the same file twice
        (["prepare", str(manifest), "-o", str(store), "--verify"], 0),
        (["check", str(store)], 1),  # clips beyond full scale
        (["--help"], 0),
        (["--version"], 0),
        (["trian"], 2),
    ]
    code = f"""
import sys
from audiostride.cli import main
heavy = ("torch", "torchaudio", "torchmetrics", "lightning_fabric", "matplotlib", "librosa", "sklearn")
for command, expected in {commands!r}:
    found = main(command)
    assert found == expected, (command, found)
    loaded = [name for name in heavy if name in sys.modules]
    assert not loaded, (command, loaded)
assert "pandas" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert read_clips(store)["n_samples"].tolist() == [16000] * 4

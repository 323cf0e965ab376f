"""The walk over folders: what is taken, once, and what is said of the rest."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiostride.audio.resampling import read_audio
from audiostride.dataset.folders import AUDIO_SUFFIXES, walk_folder


def make_files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def link(root: Path, name: str, target: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).symlink_to(target)


def test_audio_is_found_by_its_suffix_in_the_order_of_the_parts(tmp_path: Path) -> None:
    make_files(tmp_path, "b.WAV", "a.flac", "notes.txt", "deep/c.ogg", "deep.wav/d.mp3", "a b/x.wav", "a/x.wav", "wav")
    walk = walk_folder(tmp_path)
    assert walk.audio == ["a/x.wav", "a b/x.wav", "a.flac", "b.WAV", "deep/c.ogg", "deep.wav/d.mp3"]
    assert walk.audio == [path.relative_to(tmp_path).as_posix() for path in sorted(map(tmp_path.joinpath, walk.audio))]
    assert walk.folders == ["a", "a b", "deep", "deep.wav"]
    assert walk.notes() == []
    assert walk.faults == {}


FORMATS = {".bwf": "WAV", ".wave": "WAV", ".oga": "OGG", ".opus": "OGG", ".aif": "AIFF", ".aifc": "AIFF", ".snd": "AU"}


@pytest.mark.parametrize("suffix", [suffix for suffix in AUDIO_SUFFIXES if suffix != ".m4a"])
def test_what_is_taken_is_read_whole(tmp_path: Path, suffix: str) -> None:
    samples = 0.25 * np.sin(np.arange(4000) / 5)
    name = FORMATS.get(suffix, {".sph": "NIST"}.get(suffix, suffix[1:].upper()))
    subtype = {".opus": "OPUS", ".aifc": "ULAW"}.get(suffix)
    soundfile.write(str(tmp_path / f"a{suffix}"), samples, 16000, format=name, subtype=subtype)
    read = read_audio(tmp_path / f"a{suffix}")
    assert len(read) == len(samples)
    assert np.abs(read - samples)[500:3500].max() < 0.02  # what lossy codecs change


@pytest.mark.parametrize("suffix", AUDIO_SUFFIXES)
def test_every_suffix_is_taken_in_any_case(tmp_path: Path, suffix: str) -> None:
    make_files(tmp_path, f"a{suffix}", f"b{suffix.upper()}", suffix)  # a name that is all suffix is hidden
    assert walk_folder(tmp_path).audio == [f"a{suffix}", f"b{suffix.upper()}"]


def test_companions_are_left_out_without_a_word_and_the_rest_with_one(tmp_path: Path) -> None:
    make_files(tmp_path, "a.wav", "._a.wav", ".DS_Store", "Thumbs.db", "@eaDir/a.wav/x.wav", "__MACOSX/._a.wav")
    assert walk_folder(tmp_path).audio == ["a.wav"]
    assert walk_folder(tmp_path).notes() == []
    make_files(tmp_path, "_bird/b.wav", "x/.git/c.wav", ".d.wav", ".gitignore", "_e.wav", "x/_y/z/f.wav")
    walk = walk_folder(tmp_path)
    assert walk.audio == ["_e.wav", "a.wav"]
    [note] = walk.notes()
    assert "leading dot or underscore left out: .d.wav, _bird/, x/.git/, x/_y/; name a folder itself" in note
    assert walk_folder(tmp_path / "_bird").audio == ["b.wav"]


def test_audio_and_video_that_is_not_taken_is_counted_by_suffix(tmp_path: Path) -> None:
    make_files(tmp_path, "a.wav", "b.wma", "x/c.WMA", "x/d.mp4", "e.txt", "f.csv", "g.webm", "wma", "h.wma.txt")
    [note] = walk_folder(tmp_path).notes()
    assert f"{tmp_path}: 4 files of audio or video left out: 1 .mp4, 1 .webm, 2 .wma; convert them" in note


def test_a_linked_folder_is_followed_once_and_loops_end(tmp_path: Path) -> None:
    make_files(tmp_path, "set/dog/1.wav", "set/dog/2/3.wav", "elsewhere/4.wav", "elsewhere/deep/5.wav")
    link(tmp_path, "set/all", "dog")  # before the folder itself in order
    link(tmp_path, "set/dog/up", "..")
    link(tmp_path, "set/dog/above", "../..")
    link(tmp_path, "set/dog/2/session", "../../../elsewhere")
    link(tmp_path, "elsewhere/deep/round", "..")
    link(tmp_path, "set/dog/2/self", "self")
    link(tmp_path, "set/sessions", "../elsewhere")
    walk = walk_folder(tmp_path / "set")
    assert sorted(os.path.basename(name) for name in walk.audio) == ["1.wav", "3.wav", "4.wav", "5.wav"]
    assert walk.audio[:2] == ["dog/1.wav", "dog/2/3.wav"]
    assert len(walk.again) == 5
    [note] = walk.notes()
    assert "linked folders that are there already or lead back up left out: all, dog/2/session, " in note


def test_linked_files_are_taken_and_links_to_nothing_too_so_that_their_absence_shows(tmp_path: Path) -> None:
    make_files(tmp_path, "set/a.wav", "b.wav")
    link(tmp_path, "set/b.wav", "../b.wav")
    link(tmp_path, "set/gone.wav", "../gone.wav")
    os.mkfifo(tmp_path / "set" / "pipe.wav")  # reading one would wait for ever
    assert walk_folder(tmp_path / "set").audio == ["a.wav", "b.wav", "gone.wav"]


def test_names_that_no_table_can_hold_are_faults_and_shown_in_escapes(tmp_path: Path) -> None:
    make_files(
        tmp_path, "a/ü.wav", "a/tab\t.wav", "a/c\rr.wav", "line\nbreak/x.wav", "a/esc\x1b[2J.wav", "a/line\n.txt"
    )
    (tmp_path / os.fsdecode(b"a/caf\xe9.wav")).write_bytes(b"")
    walk = walk_folder(tmp_path)
    assert walk.audio == ["a/ü.wav"]
    assert len(walk.faults) == 5
    messages = "\n".join(walk.faults.values())
    for name in (r"a/caf\udce9.wav", r"a/c\rr.wav", r"a/tab\t.wav", r"line\nbreak/x.wav", r"a/esc\x1b[2J.wav"):
        assert f"{tmp_path}/{name} must have a name in UTF-8 without control characters; rename it" in messages
    messages.encode("utf-8")


Lock = Callable[..., None]


def test_a_folder_that_may_not_be_read_is_a_fault_and_the_rest_is_taken(tmp_path: Path, lock: Lock) -> None:
    make_files(tmp_path, "a/1.wav", "b/locked/2.wav", "c/3.wav")
    lock(tmp_path / "b" / "locked")
    walk = walk_folder(tmp_path)
    assert walk.audio == ["a/1.wav", "c/3.wav"]
    folder = str(tmp_path / "b" / "locked")
    assert walk.faults == {folder: f"folder {folder} cannot be read: Permission denied"}
    lock(tmp_path)
    assert walk_folder(tmp_path).faults == {str(tmp_path): f"folder {tmp_path} cannot be read: Permission denied"}


def test_a_folder_that_vanishes_on_the_way_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path, "a/1.wav", "b/2.wav")
    scandir = os.scandir

    def vanish(folder: str) -> object:
        if os.path.basename(folder) == "b":
            raise FileNotFoundError(2, "No such file or directory", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", vanish)
    walk = walk_folder(tmp_path)
    assert (walk.audio, walk.faults) == (["a/1.wav"], {})

"""What paths name for `predict`: each part of a file once, nothing left out in silence, faults in place of files."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiostride.errors import InputError
from audiostride.inference.recordings import Recording, expand_paths, take_recordings


def make_files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(str(root / name), np.zeros(800), 16000, format="WAV")


def expand(*paths: Path | str) -> tuple[list[Recording], list[str]]:
    notes: list[str] = []
    return expand_paths(paths, say=notes.append), notes


def names(recordings: list[Recording], root: Path) -> list[str]:
    return [os.path.relpath(each.path, root) for each in recordings]


def test_each_file_is_there_once_however_often_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path, "rec/a.wav", "rec/b.wav", "rec/deep/c.wav")
    (tmp_path / "link").symlink_to("rec")
    (tmp_path / "rec" / "deep" / "again.wav").symlink_to("../a.wav")
    (tmp_path / "list.txt").write_text("rec/a.wav\nrec/../rec/b.wav\nlink/a.wav\n")
    monkeypatch.chdir(tmp_path)
    for paths in (
        ["rec"],
        ["rec", "rec/*.wav"],
        ["rec", "link/**/*.wav", tmp_path / "rec"],
        ["rec/", "list.txt", "rec/a.wav"],
    ):
        found, notes = expand(*paths)
        assert names(found, tmp_path) == ["rec/a.wav", "rec/b.wav", "rec/deep/c.wav"]
        assert all(not Path(each.path).is_absolute() for each in found)
        assert notes[-1].startswith("named more than once, predicted once: ")
    assert expand("list.txt")[1] == ["named more than once, predicted once: 1 clip"]
    assert [each.path for each in expand("list.txt", "rec/a.wav", "rec/a.wav")[0]] == [
        str(tmp_path / "rec/a.wav"), str(tmp_path / "rec/../rec/b.wav"),
    ]  # fmt: skip
    assert expand("rec/a.wav", "rec/b.wav")[1] == []


def test_parts_of_a_file_are_different_clips_and_the_same_part_is_one(tmp_path: Path) -> None:
    make_files(tmp_path, "a.wav")
    (tmp_path / "m.csv").write_text("path,start_s,end_s\na.wav,0,0.02\na.wav,0.02,\na.wav,,\na.wav,0.00,0.020\n")
    found, notes = expand(tmp_path / "m.csv", tmp_path / "a.wav")
    np.testing.assert_equal(
        [(each.start_s, each.duration_s) for each in found], [(0, 0.02), (0.02, np.nan), (0, np.nan)]
    )
    assert notes[-1] == "named more than once, predicted once: 2 clips"


def test_paths_that_python_gives_one_by_one_keep_a_row_each(tmp_path: Path) -> None:
    make_files(tmp_path, "a.wav")
    assert len(take_recordings([tmp_path / "a.wav", tmp_path / "a.wav"], sample_rate=16000)) == 2


def test_what_is_left_out_is_said_and_by_default_warned_of(tmp_path: Path) -> None:
    make_files(tmp_path, "a.wav", "_b/c.wav")
    (tmp_path / "d.wma").write_bytes(b"")
    found, notes = expand(tmp_path)
    assert names(found, tmp_path) == ["a.wav"]
    assert [part in note for part, note in zip(["1 .wma", "_b/"], notes, strict=True)] == [True, True]
    assert expand(f"{tmp_path}/*")[1][0].startswith(f"{tmp_path}/*: 1 file of audio or video left out: 1 .wma")
    assert names(expand(f"{tmp_path}/*.wma")[0], tmp_path) == ["d.wma"], "a pattern is taken at its word"
    (tmp_path / "_b" / "c.wav").rename(tmp_path / "c.wav")
    (tmp_path / "_b").rmdir()
    with pytest.warns(UserWarning, match="left out: 1 .wma"):
        expand_paths([tmp_path])
    with pytest.warns(UserWarning, match="left out: 1 .wma"):
        take_recordings(tmp_path, sample_rate=16000)


def test_tables_and_lists_of_paths_are_told_from_audio_by_what_they_hold(tmp_path: Path) -> None:
    make_files(tmp_path, "a.wav", "really.wav", "b.txt")
    (tmp_path / "m.tsv").write_text("file\tsplit\tlabel\na.wav\tunlabelled\t\n")
    (tmp_path / "l.txt").write_text("a.wav\ngone.wav\n")
    for path, expected in (("m.tsv", ["a.wav"]), ("l.txt", ["a.wav", "gone.wav"]), ("b.txt", ["b.txt"])):
        assert names(expand(tmp_path / path)[0], tmp_path) == expected
    assert [bool(each.fault) for each in expand(tmp_path / "l.txt")[0]] == [False, True]
    assert ["'file' is taken as path" in note for note in expand(tmp_path / "m.tsv")[1]] == [True]
    (tmp_path / "notes.txt").write_text("a few words\nand more\n")
    [notes] = expand(tmp_path / "notes.txt")[0]
    assert "must have a column 'path', got a few words" in notes.fault
    (tmp_path / "labels.txt").write_text("0.5\t1.5\trobin\n")
    found, _ = expand(tmp_path / "labels.txt", tmp_path / "a.wav")
    assert "labels of Audacity do not name their recording" in found[0].fault
    assert found[1].fault == "", "the job goes on"
    (tmp_path / "m.csv").write_text("a few words\nand more\n")
    with pytest.raises(InputError, match="must have a column 'path', got a few words"):
        expand(tmp_path / "m.csv")


@pytest.mark.parametrize("path", ["rec", "rec/**", "rec/**/*.wav", "rec/*/*.wav", "rec/*"])
def test_folders_without_rights_are_faults(
    tmp_path: Path, path: str, lock: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_files(tmp_path, "rec/open/a.wav", "rec/locked/b.wav")
    lock(tmp_path / "rec" / "locked")
    monkeypatch.chdir(tmp_path)
    found, _ = expand(path)
    assert {each.path: each.fault for each in found} == {
        "rec/open/a.wav": "", "rec/locked": "folder rec/locked cannot be read: Permission denied",
    }  # fmt: skip
    with pytest.raises(InputError, match="folder rec/locked cannot be read"):
        next(each for each in found if each.fault).stream(16000, window=16000)


def test_a_folder_or_file_without_rights_that_is_named_itself_is_a_fault(
    tmp_path: Path, lock: Callable[[Path], None]
) -> None:
    make_files(tmp_path, "locked/b.wav")
    lock(tmp_path / "locked")
    [folder], [file] = expand(tmp_path / "locked")[0], expand(tmp_path / "locked" / "b.wav")[0]
    assert folder.fault == f"folder {tmp_path / 'locked'} cannot be read: Permission denied"
    assert file.fault == f"audio file {tmp_path / 'locked' / 'b.wav'} cannot be read: Permission denied"
    long = tmp_path / f"{'a' * 300}.wav"
    assert expand(long)[0][0].fault == f"audio file {long} cannot be read: File name too long"
    for gone in (tmp_path / "gone.wav", "a\0b"):
        with pytest.raises(InputError, match="does not exist"):
            expand(gone)


@pytest.mark.parametrize("name", [b"caf\xe9.wav", b"a\rb.wav", b"a\x1b[2Jb.wav", b"a\nb.wav"])
def test_files_that_no_table_can_name_are_faults_that_can_be_written(tmp_path: Path, name: bytes) -> None:
    make_files(tmp_path, "a.wav")
    file = tmp_path / os.fsdecode(name)
    (tmp_path / "a.wav").rename(file)
    make_files(tmp_path, "b.wav")
    for path in (tmp_path, f"{tmp_path}/*.wav"):
        found, _ = expand(path)
        assert sorted(bool(each.fault) for each in found) == [False, True]
    [alone] = expand(file)[0]
    assert alone.fault == f"audio file {alone.path} must have a name in UTF-8 without control characters; rename it"
    assert alone.path.isprintable()
    alone.fault.encode()

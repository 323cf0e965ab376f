from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from audiostride.dataset.importers import import_clips, write_manifest
from audiostride.errors import InputError
from lab.clips import read_clips


def make_files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def said(lines: list[str], *parts: str) -> bool:
    return any(all(part in line for part in parts) for line in lines)


def test_class_folders_give_labels_and_no_split_column(tmp_path: Path) -> None:
    make_files(tmp_path, "dog/1.wav", "dog/deep/er/2.FLAC", "cat/1.wav", "cat/readme.txt", "cat/._1.wav")
    make_files(tmp_path, "_noise/x.wav", ".trash/x.wav", "loose.wav", "empty/readme.txt")
    imported = import_clips("folder", tmp_path)
    assert imported.clips.to_dict("list") == {
        "path": ["cat/1.wav", "dog/1.wav", "dog/deep/er/2.FLAC"],
        "label": ["cat", "dog", "dog"],
    }
    assert said(imported.findings, "no split column", "--splits paper-like", "--random-split")
    assert said(imported.findings, "1 audio file outside of a class folder", "loose.wav")
    assert said(imported.findings, "empty holds no audio files")


def test_split_folders_give_the_split_under_any_of_its_names(tmp_path: Path) -> None:
    make_files(tmp_path, "training/dog/1.wav", "Val/cat/2.wav", "test/dog/3.wav", "train/cat/4.wav", "test/5.wav")
    imported = import_clips("folder", tmp_path)
    rows = set(zip(imported.clips["path"], imported.clips["split"], imported.clips["label"], strict=True))
    assert rows == {
        ("training/dog/1.wav", "train", "dog"),
        ("Val/cat/2.wav", "valid", "cat"),
        ("test/dog/3.wav", "test", "dog"),
        ("train/cat/4.wav", "train", "cat"),
    }
    assert said(imported.findings, "outside of a class folder", "test/5.wav")
    assert said(imported.findings, "valid: no clips of dog")
    assert not said(imported.findings, "no split column")


def test_split_folders_beside_others_are_an_error_and_one_alone_is_a_class(tmp_path: Path) -> None:
    make_files(tmp_path, "test/1.wav", "exam/2.wav")
    imported = import_clips("folder", tmp_path)
    assert imported.clips["label"].tolist() == ["exam", "test"]
    assert said(imported.findings, "test is taken as a class")
    make_files(tmp_path, "train/dog/3.wav")
    with pytest.raises(InputError, match="got test, train beside exam; put an underscore"):
        import_clips("folder", tmp_path)


def test_a_drawn_split_has_its_shares_in_every_class_and_moves_with_the_folder(tmp_path: Path) -> None:
    make_files(tmp_path / "a", *(f"dog/{number}.wav" for number in range(40)))
    make_files(tmp_path / "a", *(f"cat/{number}.wav" for number in range(3)), "owl/1.wav", "owl/2.wav", "rat/1.wav")
    imported = import_clips("folder", tmp_path / "a", splits="paper-like", seed=7)
    counts = pd.crosstab(imported.clips["label"], imported.clips["split"])[["train", "valid", "test"]]
    assert counts.loc["dog"].tolist() == [32, 4, 4]
    assert counts.loc["cat"].tolist() == [1, 1, 1]
    assert counts.loc["owl"].tolist() == [1, 0, 1]
    assert counts.loc["rat"].tolist() == [1, 0, 0]
    assert said(imported.findings, "drawn by a hash", "seed 7")
    assert said(imported.findings, "valid: no clips of owl, rat")
    moved = (tmp_path / "a").rename(tmp_path / "b")
    assert import_clips("folder", moved, splits="paper-like", seed=7).clips.equals(imported.clips)
    assert not import_clips("folder", moved, splits="paper-like", seed=8).clips.equals(imported.clips)


def test_a_folder_without_classes_and_one_with_a_single_class_are_told(tmp_path: Path) -> None:
    make_files(tmp_path, "audio/dog/1.wav")
    assert said(import_clips("folder", tmp_path).findings, "one class only, audio", "one level too high")
    with pytest.raises(InputError, match=r"must hold class folders with audio files, e\.g\. .*found none"):
        import_clips("folder", tmp_path / "audio" / "dog")


def test_a_manifest_in_or_above_the_folder_has_relative_paths_else_absolute_ones(tmp_path: Path) -> None:
    make_files(tmp_path / "data", "dog/a, b.wav", "cat/ü.wav")
    (tmp_path / "other").mkdir()
    imported = import_clips("folder", tmp_path / "data")
    expected = {
        "data/m.csv": ["cat/ü.wav", "dog/a, b.wav"],
        "m.csv": ["data/cat/ü.wav", "data/dog/a, b.wav"],
        "other/m.csv": [str(tmp_path / "data/cat/ü.wav"), str(tmp_path / "data/dog/a, b.wav")],
    }
    for out, paths in expected.items():
        write_manifest(imported, tmp_path / "data", tmp_path / out)
        assert pd.read_csv(tmp_path / out)["path"].tolist() == paths
        assert [Path(path).is_file() for path in read_clips(tmp_path / out)["path"]] == [True, True]


def test_a_manifest_of_a_root_given_relatively_and_too_low_points_to_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_files(tmp_path, "data/yes/00f0204f_nohash_0.wav", "data/no/00f0204f_nohash_0.wav")
    for name in ("validation_list.txt", "testing_list.txt"):
        (tmp_path / "data" / name).write_text("")
    monkeypatch.chdir(tmp_path)
    imported = import_clips("speech-commands", "data/yes")
    assert imported.clips["path"].iloc[0] == "../no/00f0204f_nohash_0.wav"
    write_manifest(imported, "data/yes", "m.csv")
    assert pd.read_csv("m.csv")["path"].tolist() == [f"data/{word}/00f0204f_nohash_0.wav" for word in ("no", "yes")]
    write_manifest(imported, "data/yes", "data/yes/m.csv")
    assert pd.read_csv("data/yes/m.csv")["path"].iloc[0] == str(tmp_path / "data/no/00f0204f_nohash_0.wav")


def test_a_manifest_needs_clips_and_a_folder(tmp_path: Path) -> None:
    make_files(tmp_path, "dog/1.wav", "cat/1.wav")
    imported = import_clips("folder", tmp_path)
    with pytest.raises(InputError, match="must lie in a folder that exists"):
        write_manifest(imported, tmp_path, tmp_path / "nowhere" / "m.csv")
    with pytest.raises(InputError, match="must hold clips, got none"):
        write_manifest(replace(imported, clips=imported.clips[:0]), tmp_path, tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()

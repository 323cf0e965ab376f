import shutil
from pathlib import Path
from types import ModuleType

import pytest
import soundfile

from audiostride.dataset.cards import read_card
from audiostride.dataset.importers import Imported, import_clips
from audiostride.errors import InputError

NAME = "tut-urban-2018"


@pytest.fixture
def root(archives: ModuleType, tmp_path: Path) -> Path:
    """A tree with empty audio files that a test may break."""
    return Path(archives.build_tut(tmp_path, audio=False))


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def said(lines: list[str], *parts: str) -> bool:
    return any(all(part in line for part in parts) for line in lines)


def test_the_miniature_has_the_header_of_the_archive(tut_root: Path) -> None:
    files = list((tut_root / "audio").iterdir())
    assert len(files) == 60
    info = soundfile.info(str(files[0]))
    assert (info.samplerate, info.channels, info.subtype) == (48000, 2, "PCM_24")


def test_official_is_fold_1_with_places_as_groups(tut_root: Path) -> None:
    imported = import_clips(NAME, tut_root)
    clips = imported.clips
    assert len(clips) == 60
    assert clips["split"].value_counts().to_dict() == {"train": 40, "test": 20}
    assert sorted(clips["label"].unique()) == read_card(NAME)["tasks"]["label"]["classes"]
    evaluate = (tut_root / "evaluation_setup" / "fold1_test.txt").read_text().split()
    assert sorted(clips.loc[clips["split"] == "test", "path"]) == sorted(evaluate)
    assert clips.groupby("group")["split"].nunique().eq(1).all()
    row = clips[clips["path"] == "audio/metro_station-london-3-1-a.wav"].iloc[0]
    assert (row["label"], row["group"], row["split"], row["source_label"]) == ("metro_station", "london-3", "test", "a")
    assert imported.contradictions == []
    assert said(imported.findings, "no valid split was distributed")
    assert said(imported.findings, "train: 40 clips, the card says 6,122")
    assert said(imported.findings, "test: 20 clips, the card says 2,518")


def test_paper_like_has_the_share_of_the_paper_and_says_that_places_leak(tut_root: Path) -> None:
    imported = import_clips(NAME, tut_root, splits="paper-like", seed=1)
    assert imported.clips["split"].value_counts().to_dict() == {"train": 54, "test": 6}
    assert said(imported.findings, "groups leak")
    other = import_clips(NAME, tut_root, splits="paper-like", seed=2)
    assert (other.clips["split"] != imported.clips["split"]).any()


def test_paper_like_does_not_depend_on_order_or_place(root: Path, tmp_path: Path) -> None:
    before = import_clips(NAME, root, splits="paper-like")
    header, *rows = (root / "meta.csv").read_text().splitlines()
    (root / "meta.csv").write_text("\n".join([header, *reversed(rows)]) + "\n")
    moved = root.rename(tmp_path / "elsewhere")
    assert import_clips(NAME, moved, splits="paper-like").clips.equals(before.clips)


@pytest.mark.parametrize(
    ("given", "prefix"), [("..", "TUT-urban-acoustic-scenes-2018-development/"), ("audio", "../"), (".", "")]
)
def test_a_root_one_level_off_gives_the_same_clips(root: Path, given: str, prefix: str) -> None:
    exact = import_clips(NAME, root, splits="paper-like").clips
    clips = import_clips(NAME, root / given, splits="paper-like").clips
    assert clips["path"].tolist() == (prefix + exact["path"]).tolist()
    assert clips["split"].equals(exact["split"])
    assert (root / given / clips["path"].iloc[0]).is_file()


def test_two_trees_below_the_root_are_an_error(root: Path) -> None:
    shutil.copytree(root, root.parent / "again")
    with pytest.raises(InputError, match=r"must hold the data set once, got TUT-urban.*, again"):
        import_clips(NAME, root.parent)


def test_audio_that_is_missing_is_named_with_the_archive_it_may_be_in(root: Path) -> None:
    gone = sorted(path.name for path in (root / "audio").iterdir())[:24]
    for name in gone:
        (root / "audio" / name).unlink()
    imported = import_clips(NAME, root)
    assert len(imported.clips) == 36
    (line,) = imported.contradictions
    assert "24 clips not on disk" in line
    assert gone[0] in line
    assert gone[19] in line
    assert gone[20] not in line
    assert "and 4 more" in line
    # The 24th of 60 clips lies at 39 % of the bytes; the first four archives hold 33 % of them, the first five 41 %.
    assert line.endswith("in audio.1.zip, audio.2.zip, audio.3.zip, audio.4.zip, audio.5.zip")


def test_a_missing_audio_folder_leaves_no_clips(root: Path) -> None:
    shutil.rmtree(root / "audio")
    imported = import_clips(NAME, root)
    assert imported.clips.empty
    assert said(imported.contradictions, "audio/ is missing, with all 60 clips")


def test_audio_that_the_metadata_does_not_know_is_named_and_no_row(root: Path) -> None:
    (root / "audio" / "beach-oslo-1-1-a.wav").touch()
    (root / "audio" / "._hidden.wav").touch()
    (root / "audio" / "readme.txt").touch()
    imported = import_clips(NAME, root)
    assert len(imported.clips) == 60
    assert said(imported.findings, "1 audio file not in meta.csv", "audio/beach-oslo-1-1-a.wav")
    assert not said(imported.findings, "hidden")


def test_a_scene_that_is_not_on_the_card_and_one_that_is_gone_are_named(root: Path) -> None:
    for file in (root / "meta.csv", *(root / "evaluation_setup").iterdir()):
        file.write_text(file.read_text().replace("\ttram", "\tbeach"))
    imported = import_clips(NAME, root)
    assert len(imported.clips) == 54
    assert said(imported.findings, "6 clips of scenes not on the card", "beach")
    assert said(imported.findings, "label: no clips of tram")


def test_rows_that_come_twice_are_named_and_counted_once(root: Path) -> None:
    lines = (root / "meta.csv").read_text().splitlines()
    (root / "meta.csv").write_text("\n".join([*lines, lines[1], lines[2].replace("\tairport", "\tbus")]) + "\n")
    imported = import_clips(NAME, root)
    assert len(imported.clips) == 60
    assert said(imported.findings, "meta.csv lists 2 files more than once", "audio/airport-barcelona-0-0-a.wav")
    assert said(imported.contradictions, "two scenes to audio/airport-barcelona-0-1-a.wav")


def contradictions_of(root: Path) -> Imported:
    imported = import_clips(NAME, root)
    assert imported.contradictions
    return imported


def test_lists_of_the_fold_that_contradict_the_metadata_are_named(root: Path) -> None:
    train, evaluate = (root / "evaluation_setup" / f"fold1_{part}.txt" for part in ("train", "evaluate"))
    edit(train, "audio/airport-barcelona-0-0-a.wav\tairport\n", "")
    assert said(contradictions_of(root).contradictions, "1 clip of meta.csv in neither list", "airport-barcelona-0-0-a")
    assert len(contradictions_of(root).clips) == 59
    edit(train, "audio/bus-barcelona-1-0-a.wav\tbus", "audio/bus-barcelona-1-0-a.wav\ttram")
    assert said(contradictions_of(root).contradictions, "another scene than meta.csv", "bus-barcelona-1-0-a")
    train.write_text(train.read_text() + "audio/gone-oslo-1-0-a.wav\tbus\n")
    assert said(contradictions_of(root).contradictions, "fold1_train.txt lists 1 clip", "gone-oslo-1-0-a")
    evaluate.write_text(evaluate.read_text() + "audio/bus-barcelona-1-1-a.wav\tbus\n")
    imported = contradictions_of(root)
    assert said(imported.contradictions, "both lists", "bus-barcelona-1-1-a", "count as test")
    both = imported.clips[imported.clips["path"] == "audio/bus-barcelona-1-1-a.wav"]
    assert both["split"].tolist() == ["test"]


def test_metadata_that_is_missing_or_broken_is_an_error_with_the_way_out(root: Path) -> None:
    (root / "evaluation_setup" / "fold1_evaluate.txt").unlink()
    with pytest.raises(InputError, match=r"fold1_evaluate\.txt.* missing.*--download.*--splits paper-like"):
        import_clips(NAME, root)
    assert said(import_clips(NAME, root, splits="paper-like").findings, "fold1_evaluate.txt is missing")
    edit(root / "meta.csv", "identifier", "place")
    with pytest.raises(InputError, match=r"meta\.csv must have rows with the columns .*got 60 rows with .*place"):
        import_clips(NAME, root)
    (root / "meta.csv").unlink()
    with pytest.raises(InputError, match=r"must hold meta\.csv.*--download"):
        import_clips(NAME, root)


def test_a_root_that_is_not_there_and_unknown_names_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ROOT must be a folder that can be read, got .*nowhere"):
        import_clips(NAME, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"name must be one of tut-urban-2018, .*folder, got 'tut'"):
        import_clips("tut", tmp_path)
    with pytest.raises(InputError, match="splits must be official or paper-like, got 'random'"):
        import_clips(NAME, tmp_path, splits="random")

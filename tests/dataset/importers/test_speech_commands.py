import shutil
from pathlib import Path
from types import ModuleType

import pytest
import soundfile

from audiostride.dataset.cards import read_card
from audiostride.dataset.importers import import_clips
from audiostride.errors import InputError

NAME = "speech-commands"


@pytest.fixture
def root(archives: ModuleType, tmp_path: Path) -> Path:
    """A tree with empty audio files that a test may break."""
    return Path(archives.build_speech(tmp_path / "speech", audio=False))


def said(lines: list[str], *parts: str) -> bool:
    return any(all(part in line for part in parts) for line in lines)


def test_the_miniature_has_the_header_of_the_archive(speech_root: Path) -> None:
    files = list(speech_root.glob("[a-z]*/*.wav"))
    assert len(files) == 175
    infos = [soundfile.info(str(file)) for file in files]
    assert {(info.samplerate, info.channels) for info in infos} == {(16000, 1)}
    assert max(info.duration for info in infos) == 1.0


def test_official_is_what_the_lists_say_with_speakers_as_groups(speech_root: Path) -> None:
    imported = import_clips(NAME, speech_root)
    clips = imported.clips
    assert clips["split"].value_counts().to_dict() == {"train": 105, "valid": 35, "test": 35}
    for split, file in (("valid", "validation_list.txt"), ("test", "testing_list.txt")):
        listed = (speech_root / file).read_text().split()
        assert sorted(clips.loc[clips["split"] == split, "path"]) == sorted(listed)
    assert sorted(clips["label"].unique()) == sorted(read_card(NAME)["tasks"]["label"]["classes"])
    assert all(row.path.startswith(f"{row.label}/{row.group}_nohash_") for row in clips.itertuples())
    assert clips.groupby("group")["split"].nunique().eq(1).all()
    assert imported.contradictions == []
    assert said(imported.findings, "train: 105 clips, the card says 84,843")
    assert len(imported.findings) == 3


def test_paper_like_has_the_shares_of_the_paper_and_does_not_depend_on_the_place(root: Path, tmp_path: Path) -> None:
    imported = import_clips(NAME, root, splits="paper-like")
    assert imported.clips["split"].value_counts().to_dict() == {"train": 140, "valid": 17, "test": 18}
    assert said(imported.findings, "groups leak")
    (tmp_path / "moved").mkdir()
    moved = root.rename(tmp_path / "moved" / "here")
    assert import_clips(NAME, moved, splits="paper-like").clips.equals(imported.clips)


@pytest.mark.parametrize("given", ["..", "yes"])
def test_a_root_one_level_off_is_found(root: Path, given: str) -> None:
    clips = import_clips(NAME, root / given).clips
    assert len(clips) == 175
    assert (root / given / clips["path"].iloc[0]).is_file()


def test_words_without_a_folder_and_folders_that_are_no_words_are_named(root: Path) -> None:
    shutil.rmtree(root / "zero")
    shutil.rmtree(root / "_background_noise_")
    (root / "yes").rename(root / "oui")
    imported = import_clips(NAME, root)
    assert imported.clips["label"].nunique() == 33
    assert imported.contradictions == []
    assert said(imported.findings, "2 words of the card without a folder: yes, zero")
    assert said(imported.findings, "1 folder not among the words of the card, left out: oui")
    assert said(imported.findings, "_background_noise_ is missing")


def test_names_in_a_list_without_a_file_and_names_in_both_lists_contradict(root: Path) -> None:
    listed = (root / "validation_list.txt").read_text().split()
    (root / listed[0]).unlink()
    (root / "testing_list.txt").write_text((root / "testing_list.txt").read_text() + listed[1] + "\n")
    imported = import_clips(NAME, root)
    assert said(imported.contradictions, "validation_list.txt lists 1 clip not on disk", listed[0])
    assert said(imported.contradictions, f"both lists name {listed[1]}; they count as test")
    assert imported.clips.loc[imported.clips["path"] == listed[1], "split"].tolist() == ["test"]
    assert listed[0] not in set(imported.clips["path"])


def test_files_whose_names_do_not_parse_are_named_and_no_rows(root: Path) -> None:
    (root / "yes" / "mine.wav").touch()
    (root / "no" / "notes.txt").touch()
    imported = import_clips(NAME, root)
    assert len(imported.clips) == 175
    assert said(imported.findings, "1 audio file not named <speaker>_nohash_<number>.wav", "yes/mine.wav")
    assert said(imported.findings, "1 file in the folders of words but not audio: no/notes.txt")


def test_a_missing_list_is_an_error_for_the_official_scheme_only(root: Path) -> None:
    (root / "testing_list.txt").unlink()
    with pytest.raises(InputError, match=r"testing_list\.txt, which is missing.*--download.*--splits paper-like"):
        import_clips(NAME, root)
    assert said(import_clips(NAME, root, splits="paper-like").findings, "testing_list.txt is missing")


def test_a_folder_without_words_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(InputError, match=r"folders of words with validation_list\.txt .*--download"):
        import_clips(NAME, tmp_path / "a")

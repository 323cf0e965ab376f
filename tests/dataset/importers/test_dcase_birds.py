import shutil
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import soundfile

from audiostride.dataset.importers import import_clips
from audiostride.errors import InputError

NAME = "dcase2018-birds"
SETS = ("ff1010bird", "warblrb10k", "BirdVox-DCASE-20k")


@pytest.fixture
def root(archives: ModuleType, tmp_path: Path) -> Path:
    """A tree with empty audio files that a test may break."""
    return Path(archives.build_birds(tmp_path / "birds", audio=False))


def said(lines: list[str], *parts: str) -> bool:
    return any(all(part in line for part in parts) for line in lines)


def test_the_miniature_has_three_folders_wav_and_the_header_of_the_archives(birds_root: Path) -> None:
    files = [path for one in SETS for path in (birds_root / one / "wav").iterdir()]
    assert len(files) == 32
    info = soundfile.info(str(files[0]))
    assert (info.samplerate, info.channels) == (44100, 1)


def test_official_leaves_one_set_out_and_says_that_this_is_no_distributed_split(birds_root: Path) -> None:
    imported = import_clips(NAME, birds_root)
    clips = imported.clips
    assert pd.crosstab(clips["group"], clips["split"]).to_dict() == {
        "train": {"BirdVox-DCASE-20k": 12, "ff1010bird": 12, "warblrb10k": 0},
        "test": {"BirdVox-DCASE-20k": 0, "ff1010bird": 0, "warblrb10k": 8},
    }
    tables = pd.concat(pd.read_csv(file, dtype=str) for file in birds_root.glob("*.csv")).set_index("itemid")
    assert clips["hasbird"].tolist() == tables.loc[clips["itemid"], "hasbird"].tolist()
    assert clips["label"].tolist() == ["bird" if one == "1" else "nobird" for one in clips["hasbird"]]
    assert all(Path(row.path).stem == row.itemid and f"{row.group}/wav/" in row.path for row in clips.itertuples())
    assert imported.contradictions == []
    assert said(imported.findings, "distributed no split", "warblrb10k is test")
    assert said(imported.findings, "train: 24 clips, the card says 27,690")


def test_paper_like_has_the_share_of_the_paper_and_does_not_depend_on_folders(root: Path) -> None:
    imported = import_clips(NAME, root, splits="paper-like", seed=5)
    assert imported.clips["split"].value_counts().to_dict() == {"train": 29, "test": 3}
    assert said(imported.findings, "groups leak")
    before = imported.clips.set_index("itemid")["split"]
    for number, one in enumerate(SETS):
        shutil.move(root / one / "wav", root / f"wav ({number})")
        (root / one).rmdir()
    after = import_clips(NAME, root, splits="paper-like", seed=5).clips.set_index("itemid")
    assert after["split"].to_dict() == before.to_dict()
    assert set(after["path"].str.partition("/")[0]) == {"wav (0)", "wav (1)", "wav (2)"}


def test_two_sets_mixed_in_one_folder_are_told_apart_by_their_items(root: Path) -> None:
    before = import_clips(NAME, root).clips.set_index("itemid")
    for file in (root / "warblrb10k" / "wav").iterdir():
        file.rename(root / "ff1010bird" / "wav" / file.name)
    imported = import_clips(NAME, root)
    after = imported.clips.set_index("itemid")
    assert imported.contradictions == []
    assert after["group"].to_dict() == before["group"].to_dict()
    assert after["path"].str.startswith("ff1010bird/wav/").sum() == 20


def test_a_root_one_or_two_levels_too_low_or_one_too_high_is_found(root: Path) -> None:
    exact = import_clips(NAME, root).clips
    for given in ("ff1010bird", "ff1010bird/wav", ".."):
        clips = import_clips(NAME, root / given).clips
        assert clips["itemid"].tolist() == exact["itemid"].tolist()
        assert (root / given / clips["path"].iloc[0]).is_file()


def test_a_set_without_audio_and_one_without_a_table_are_named(root: Path) -> None:
    shutil.rmtree(root / "ff1010bird")
    (root / "BirdVoxDCASE20k_csvpublic.csv").unlink()
    imported = import_clips(NAME, root)
    assert imported.clips["group"].unique().tolist() == ["warblrb10k"]
    assert said(imported.findings, "ff1010bird: its audio is missing, none of the 12 clips")
    assert said(imported.findings, "BirdVox-DCASE-20k: its table BirdVoxDCASE20k_csvpublic.csv is missing")
    assert said(imported.findings, "12 audio files in no table", "BirdVox-DCASE-20k/wav/")


def test_without_the_test_set_the_official_scheme_has_no_test_split_and_says_so(root: Path) -> None:
    (root / "warblrb10k_public_metadata_2018.csv").unlink()
    imported = import_clips(NAME, root)
    assert imported.clips["split"].unique().tolist() == ["train"]
    assert said(imported.findings, "no clips of warblrb10k", "no test split")


def test_single_clips_without_audio_and_files_there_twice_are_named(root: Path) -> None:
    gone, twice, *_ = sorted((root / "warblrb10k" / "wav").iterdir())
    gone.unlink()
    (root / "copies").mkdir()
    shutil.copy(twice, root / "copies")
    (root / "__MACOSX").mkdir()
    shutil.copy(twice, root / "__MACOSX")
    imported = import_clips(NAME, root)
    assert len(imported.clips) == 31
    assert said(imported.contradictions, "warblrb10k: its table lists 1 clip without audio", gone.stem)
    assert said(imported.findings, "1 audio file there already under another path", f"warblrb10k/wav/{twice.name}")


def test_tables_that_contradict_themselves_or_each_other_are_named(root: Path, archives: ModuleType) -> None:
    item = archives.bird_item("ff1010bird", 1)
    table, other = root / "ff1010bird_metadata_2018.csv", root / "warblrb10k_public_metadata_2018.csv"
    table.write_text(table.read_text() + f"{item},ff1010bird,0\n1,oslo,1\n")
    imported = import_clips(NAME, root)
    assert said(imported.findings, f"the tables list {item} more than once")
    assert said(imported.contradictions, f"both bird and no bird of {item}")
    assert said(imported.findings, "1 clip of sets that are not on the card", "oslo")
    assert imported.clips.loc[imported.clips["itemid"] == item, "label"].tolist() == ["bird"]
    other.write_text(other.read_text() + f"{item},warblrb10k,1\n")
    imported = import_clips(NAME, root)
    assert said(imported.contradictions, "tables of two sets list the same items", item)
    assert item not in set(imported.clips["itemid"])


def test_an_answer_other_than_0_and_1_and_no_table_at_all_are_errors(root: Path) -> None:
    table = root / "ff1010bird_metadata_2018.csv"
    table.write_text(table.read_text().replace(",ff1010bird,1", ",ff1010bird,maybe", 1))
    with pytest.raises(InputError, match=r"ff1010bird_metadata_2018\.csv: hasbird must be 0 or 1.* line 3;"):
        import_clips(NAME, root)
    for file in root.glob("*.csv"):
        file.unlink()
    with pytest.raises(InputError, match=r"at least one of the tables ff1010bird_metadata_2018\.csv.*--download"):
        import_clips(NAME, root)

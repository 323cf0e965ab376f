from pathlib import Path

import pandas as pd
import pytest

from audiostride.data import assign_random_splits, check_training_clips, class_names, read_clips
from audiostride.errors import InputError


def write_manifest(root: Path, rows: list[dict[str, object]], *, files: bool = True) -> Path:
    table = pd.DataFrame(rows)
    if files:
        for path in table["path"]:
            if path:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(b"")
    table.to_csv(root / "manifest.csv", index=False)
    return root / "manifest.csv"


def test_a_manifest_becomes_clips(manifest: Path) -> None:
    clips = read_clips(manifest, label="kind")
    assert clips["split"].value_counts().to_dict() == {"train": 12, "test": 6, "valid": 4}
    assert clips["line"].tolist() == list(range(2, 24))
    assert all(Path(path).is_absolute() for path in clips["path"])
    assert clips["start_s"].eq(0).all()
    assert clips["duration_s"].isna().all()


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "dev"])
def test_all_names_of_the_validation_split_are_known(tmp_path: Path, name: str) -> None:
    path = write_manifest(tmp_path, [{"path": "a.wav", "label": "x", "split": name}])
    assert read_clips(path)["split"].tolist() == ["valid"]


def test_all_bad_rows_are_listed_at_once(tmp_path: Path) -> None:
    path = write_manifest(
        tmp_path,
        [
            {"path": "a.wav", "label": "x", "split": "train", "start_s": "0"},
            {"path": "", "label": "x", "split": "train", "start_s": ""},
            {"path": "a.wav", "label": "", "split": "test", "start_s": "1.5"},
            {"path": "a.wav", "label": "x", "split": "holdout", "start_s": ""},
            {"path": "a.wav", "label": "x", "split": "train", "start_s": "-1"},
        ],
    )
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[len(table)] = ["gone.wav", "x", "train", ""]
    table.to_csv(path, index=False)
    with pytest.raises(InputError) as caught:
        read_clips(path)
    message = str(caught.value)
    assert "5 bad rows" in message
    for part in (
        "line 3: path is empty",
        "line 4: label is empty",
        "line 5: split must be train",
        "line 6: start_s must be a number of seconds >= 0",
        "line 7: audio file",
    ):
        assert part in message


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, [{"path": "a.wav", "word": "x"}])
    with pytest.raises(InputError, match="must have a column 'label', got path, word"):
        read_clips(path)


def test_a_manifest_that_is_not_there_or_empty_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv does not exist"):
        read_clips(tmp_path / "nowhere.csv")
    (tmp_path / "empty.csv").write_text("path,label\n")
    with pytest.raises(InputError, match="at least one row"):
        read_clips(tmp_path / "empty.csv")


def test_audio_root_replaces_the_folder_of_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.wav").write_bytes(b"")
    path = write_manifest(tmp_path, [{"path": "a.wav", "label": "x"}], files=False)
    with pytest.raises(InputError, match="--audio-root"):
        read_clips(path)
    assert read_clips(path, audio_root=tmp_path / "elsewhere")["path"].tolist() == [
        str(tmp_path / "elsewhere" / "a.wav")
    ]


def make_files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_a_folder_of_class_folders_is_a_manifest(tmp_path: Path) -> None:
    make_files(tmp_path, "dog/1.wav", "dog/2.flac", "cat/1.wav", "_background/x.wav", "cat/readme.txt")
    clips = read_clips(tmp_path)
    assert clips["label"].tolist() == ["cat", "dog", "dog"]
    assert clips["split"].isna().all()


def test_split_folders_above_class_folders_give_the_split(tmp_path: Path) -> None:
    make_files(tmp_path, "train/dog/1.wav", "val/cat/2.wav")
    clips = read_clips(tmp_path)
    assert list(zip(clips["split"], clips["label"], strict=True)) == [("train", "dog"), ("valid", "cat")]


def test_a_split_is_never_invented(tmp_path: Path) -> None:
    make_files(tmp_path, "dog/1.wav", "cat/1.wav")
    with pytest.raises(InputError, match="--random-split"):
        check_training_clips(read_clips(tmp_path), where="folder")


def make_clips(n_clips: int, **columns: object) -> pd.DataFrame:
    clips = pd.DataFrame({"path": [f"/x/{number}.wav" for number in range(n_clips)], "start_s": 0.0, "label": "a"})
    return clips.assign(group=None, split=None, **columns)


def test_a_random_split_depends_on_the_seed_and_not_on_the_order() -> None:
    clips = make_clips(100)
    split = assign_random_splits(clips, seed=3)
    shuffled = assign_random_splits(clips.sample(frac=1, random_state=0), seed=3)
    assert split["split"].value_counts().to_dict() == {"train": 80, "valid": 10, "test": 10}
    pd.testing.assert_series_equal(split["split"], shuffled["split"].sort_index())
    assert (assign_random_splits(clips, seed=4)["split"] != split["split"]).any()


def test_a_random_split_keeps_groups_together() -> None:
    clips = make_clips(90).assign(group=[f"speaker {number % 30}" for number in range(90)])
    split = assign_random_splits(clips, seed=0)
    assert split.groupby("group")["split"].nunique().eq(1).all()
    assert split["split"].value_counts().to_dict() == {"train": 72, "valid": 9, "test": 9}


def test_a_random_split_without_groups_balances_the_classes() -> None:
    clips = make_clips(100).assign(label=["a"] * 80 + ["b"] * 20)
    split = assign_random_splits(clips, seed=0)
    assert split.loc[split["label"] == "b", "split"].value_counts().to_dict() == {"train": 16, "valid": 2, "test": 2}


def test_classes_are_sorted_by_number_where_they_are_numbers() -> None:
    assert class_names(pd.Series(["100", "20", "3"])) == ["3", "20", "100"]
    assert class_names(pd.Series(["b", "a", "10"])) == ["10", "a", "b"]


def test_training_needs_every_split_and_every_class() -> None:
    clips = make_clips(4).assign(split=["train", "valid", "test", "train"], label=["a", "a", "b", "c"])
    with pytest.raises(InputError, match="these have none: b"):
        check_training_clips(clips, where="manifest")
    with pytest.raises(InputError, match="split 'valid' must have at least one clip"):
        check_training_clips(clips[clips["split"] != "valid"], where="manifest")
    with pytest.raises(InputError, match="at least two classes"):
        check_training_clips(clips.assign(label="a"), where="manifest")

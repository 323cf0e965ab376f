import re
from pathlib import Path

import pandas as pd
import pytest

from audiostride.dataset.manifest import inspect_manifest
from audiostride.dataset.splits import assign_random_splits, check_training_clips, class_names, hold_out_valid
from audiostride.errors import InputError
from lab.clips import read_clips


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


def write_lines(folder: Path, *lines: str, end: str = "\n", encoding: str = "utf-8") -> Path:
    """A manifest as text, beside two files named a.wav and b.wav."""
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(b"")
    (folder / "m.csv").write_bytes("".join(f"{line}{end}" for line in lines).encode(encoding))
    return folder / "m.csv"


def message_of(manifest: Path, **options: str) -> str:
    with pytest.raises(InputError) as caught:
        read_clips(manifest, **options)
    return str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_numbers_count_blank_lines_and_line_breaks_in_quotes(tmp_path: Path, end: str) -> None:
    # The name of the last column and the quoted field of line 6 take more than one line, as a text editor shows them.
    lines = [f'path,label,"a{end}note"', "a.wav,x,", "", f'a.wav,,"one{end}two{end}{end}three"', "b.wav,y,", "b.wav,,"]
    lines += ["", "", "gone.wav,y,"]
    manifest = write_lines(tmp_path, *lines, end=end)
    message = message_of(manifest)
    assert message.startswith(f"manifest {manifest}: 3 bad rows\n")
    text = manifest.read_bytes().decode().split(end)
    numbers = [1 + text.index(line) for line in ('a.wav,,"one', "b.wav,,", "gone.wav,y,")]
    assert [line.split(":")[0] for line in message.splitlines()[1:-1]] == [f"  line {number}" for number in numbers]


def test_a_row_with_several_faults_is_listed_with_each(tmp_path: Path) -> None:
    message = message_of(write_lines(tmp_path, "path,label,split,start_s", "a.wav,,evaluate,x", "b.wav,y,dev,1"))
    lines = [line for line in message.splitlines() if line.startswith("  line")]
    assert len(lines) == 3
    for part in ("label is empty", "split must be train.* got 'evaluate'", "start_s must be a number .* got 'x'"):
        assert sum(bool(re.fullmatch(f"  line 2: {part}", line)) for line in lines) == 1


def test_more_than_20_bad_rows_are_counted(tmp_path: Path) -> None:
    lines = [f"gone{number}.wav,x" for number in range(50)]
    message = message_of(write_lines(tmp_path, "path,label", *lines))
    assert "50 bad rows" in message
    assert [int(part.split(":")[0]) for part in message.split("  line ")[1:]] == list(range(2, 22))
    assert "  ... and 30 more\n" in message


def test_blanks_around_names_and_values_do_not_count(tmp_path: Path) -> None:
    plain = read_clips(write_lines(tmp_path, "path,label,split,start_s", "a.wav,x y,test,1.5"))
    blank = read_clips(write_lines(tmp_path, " path , label,split , start_s ", " a.wav , x y , TEST , 1.5 "))
    pd.testing.assert_frame_equal(plain, blank)
    assert plain["label"].tolist() == ["x y"]


def test_the_mark_that_spreadsheets_begin_a_file_with_does_not_count(tmp_path: Path) -> None:
    plain = read_clips(write_lines(tmp_path, "path,label", "a.wav,été", end="\r\n"))
    for first in ("path,label", '"path","label"'):
        marked = read_clips(write_lines(tmp_path, first, "a.wav,été", end="\r\n", encoding="utf-8-sig"))
        pd.testing.assert_frame_equal(plain, marked)


def test_names_of_columns_must_differ_where_they_are_there(tmp_path: Path) -> None:
    message = message_of(write_lines(tmp_path, "path,label,split, label,split", "a.wav,x,train,y,test"))
    assert "must have each column once, got twice: label, split" in message
    # Spreadsheets write empty columns at the end.
    assert len(read_clips(write_lines(tmp_path, "path,label,,", "a.wav,x,,"))) == 1


@pytest.mark.parametrize("first", ["a.wav,x", "a.wav,x,1", "", "a.wav"])
def test_all_rows_with_too_many_fields_are_listed(tmp_path: Path, first: str) -> None:
    lines = [first, "a.wav,x", "b.wav,y,1,2", '"b,1.wav",y', "b.wav,a,b"]
    message = message_of(write_lines(tmp_path, "path,label", *lines))
    expected = {number: line.count(",") + 1 for number, line in enumerate(lines, 2) if line.replace('"', "") == line}
    expected = {number: fields for number, fields in expected.items() if fields > 2}
    assert len(expected) == 2 + (first == "a.wav,x,1")
    for number, fields in expected.items():
        assert f"  line {number}: must have 2 fields, got {fields}; quote fields that hold commas\n" in message
    assert f"{len(expected)} bad row" in message


def test_rows_with_too_few_fields_have_empty_ones_at_the_end(tmp_path: Path) -> None:
    clips = read_clips(write_lines(tmp_path, "path,label,note,more", "a.wav,x", "b.wav,y,n"))
    assert clips[["label", "note", "more"]].to_numpy().tolist() == [["x", "", ""], ["y", "n", ""]]
    assert "line 3: label is empty" in message_of(write_lines(tmp_path, "path,label,note", "a.wav,x", "b.wav"))


def test_columns_named_as_those_of_the_table_are_kept_under_another_name(tmp_path: Path) -> None:
    manifest = write_lines(tmp_path, "line,path,store,label,clip_name,n_samples", "7,a.wav,s,x,c,5", "8,b.wav,t,y,d,6")
    clips = read_clips(manifest)
    assert clips["line"].tolist() == [2, 3]
    assert clips["clip_name"].tolist() == ["/a.wav", "/b.wav"]
    assert "store" not in clips.columns  # which would make it the table of a store
    kept = [f"{name} (of the manifest)" for name in ("line", "store", "clip_name", "n_samples")]
    assert clips[kept].to_numpy().tolist() == [["7", "s", "c", "5"], ["8", "t", "d", "6"]]
    for options in ({"label": "line"}, {"group": "line"}):
        assert "must not be named 'line'; rename it" in message_of(manifest, **options)


def test_other_columns_are_kept_as_text(tmp_path: Path) -> None:
    values = ["001", "1e3", "NA", " x ", "TRUE", "1.50", "", "ß,é", "it's"]
    quoted = ",".join(f'"{value}"' for value in values)
    names = ",".join(f"c{number}" for number in range(len(values)))
    clips = read_clips(write_lines(tmp_path, f"path,label,{names}", f"a.wav,x,{quoted}"))
    assert clips[names.split(",")].iloc[0].tolist() == values


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "NaN", "1e400", "1,5", "1_0", "0x10", "True", "1 s", "-0.001"])
@pytest.mark.parametrize("column", ["start_s", "duration_s"])
def test_seconds_must_be_finite_numbers(tmp_path: Path, column: str, value: str) -> None:
    message = message_of(write_lines(tmp_path, f"path,label,{column}", "a.wav,x,1", f'a.wav,x,"{value}"'))
    least = {"start_s": ">= 0", "duration_s": "> 0"}[column]
    assert f"line 3: {column} must be a number of seconds {least}, got '{value}'" in message


def test_seconds_are_read_as_numbers_and_may_be_empty(tmp_path: Path) -> None:
    texts = ["1e3", " 1.5 ", ".5", "5.", "+1"]
    clips = read_clips(write_lines(tmp_path, "path,label,start_s,duration_s", *(f"a.wav,x,{t},{t}" for t in texts)))
    assert clips["start_s"].tolist() == clips["duration_s"].tolist() == [float(text) for text in texts]
    clips = read_clips(write_lines(tmp_path, "path,label,start_s,duration_s", "a.wav,x,, ", "a.wav,x,0,1"))
    assert clips["start_s"].tolist() == [0.0, 0.0]
    assert clips["duration_s"].isna().tolist() == [True, False]
    assert "duration_s must be a number of seconds > 0, got '0'" in message_of(
        write_lines(tmp_path, "path,label,duration_s", "a.wav,x,0")
    )


def test_absolute_paths_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    manifest = write_lines(tmp_path, "path,label", f"{tmp_path / 'a.wav'},x", "b.wav,y")
    clips = read_clips(manifest)
    assert clips["path"].tolist() == [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")]
    # The folder that paths are relative to does not matter to the first.
    assert "1 bad row\n  line 3: audio file" in message_of(manifest, audio_root=str(tmp_path / "root"))


def test_names_of_clips_stay_when_the_data_are_moved(tmp_path: Path) -> None:
    names = []
    for folder in (tmp_path / "here", tmp_path / "there" / "deep"):
        folder.mkdir(parents=True)
        make_files(folder, "x/1.wav", "y/2.wav")
        manifest = write_lines(folder, "path,label", "x/1.wav,x", "y/2.wav,y")
        names += [read_clips(manifest)["clip_name"].tolist()]
        (folder / "m.csv").unlink()
        names += [read_clips(folder)["clip_name"].tolist()]  # as a folder of class folders
    assert all(one == names[0] for one in names)
    assert len(set(names[0])) == 2


@pytest.mark.parametrize("count", [3, 60])
def test_missing_files_are_found_among_few_and_many(tmp_path: Path, count: int) -> None:
    make_files(tmp_path, *(f"d{number % 2}/{number}.wav" for number in range(count)))
    (tmp_path / "d0" / "folder.wav").mkdir()
    lines = [f"d{number % 2}/{number}.wav,x" for number in range(count)]
    lines += ["d0/none.wav,x", "d0/folder.wav,x", "d9/0.wav,x", "d0/../d1/1.wav,x"]
    _, bad = inspect_manifest(write_lines(tmp_path, "path,label", *lines))
    assert bad.lines == [count + 2, count + 3, count + 4]
    assert set(bad.kinds) == {"missing"}


def test_several_columns_of_labels_are_checked_together(tmp_path: Path) -> None:
    manifest = write_lines(tmp_path, "path,family,pitch", "a.wav,brass,", "b.wav,,60", "a.wav, flute ,61")
    clips, bad = inspect_manifest(manifest, labels=("family", "pitch"))
    assert sorted(zip(bad.lines, bad.kinds, bad.messages, strict=True)) == [
        (2, "row", "pitch is empty"),
        (3, "row", "family is empty"),
    ]
    assert clips["family"].tolist() == ["brass", "", "flute"]
    assert clips["pitch"].tolist() == ["", "60", "61"]
    with pytest.raises(InputError, match="must have a column 'velocity', got path, family, pitch; name the column of"):
        inspect_manifest(manifest, labels=("family", "velocity"))


def test_another_column_can_be_the_group(tmp_path: Path) -> None:
    manifest = write_lines(tmp_path, "path,label,speaker", "a.wav,x, s1 ", "b.wav,y,s2")
    clips = read_clips(manifest, group="speaker")
    assert clips["group"].tolist() == ["s1", "s2"]
    assert read_clips(manifest)["group"].isna().all()
    message = message_of(manifest, group="place")
    assert "must have a column 'place', got path, label, speaker; name the column of groups with --group" in message


def test_an_empty_column_of_groups_is_none(tmp_path: Path) -> None:
    # And not one group of all clips, which a split by groups would put into one split.
    assert read_clips(write_lines(tmp_path, "path,label,group", "a.wav,x,", "b.wav,y, "))["group"].isna().all()


def test_a_missing_split_is_a_bad_row_unless_there_is_no_such_column(tmp_path: Path) -> None:
    message = message_of(write_lines(tmp_path, "path,label,split", "a.wav,x,train", "b.wav,y,"))
    assert "1 bad row\n  line 3: split must be train, valid (val, validation, dev) or test, got ''" in message
    assert read_clips(write_lines(tmp_path, "path,label", "a.wav,x"))["split"].isna().all()


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("before", [0, 30000])
def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path, encoding: str, before: int) -> None:
    manifest = write_lines(tmp_path, "path,label", *["a.wav,x"] * before, "a.wav,é", encoding=encoding)
    what = "it is UTF-16" if encoding == "utf-16" else "reading it failed"
    assert message_of(manifest).startswith(f"manifest {manifest} must be a CSV table in UTF-8, but {what}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must be a CSV table in UTF-8, but reading it failed: No columns"),
        ("\n\npath,label\na.wav,x\n", "its first line must name the columns, got a blank line"),
        ("path,label\n\n,\n", "must have at least one row, got none"),
        ('path,label\na.wav,"x\n', "must be a CSV table in UTF-8, but reading it failed"),
        ("a.wav,x\nb.wav,y\n", "must have a column 'path', got a.wav, x; its first line must name the columns"),
    ],
)
def test_a_file_that_is_no_table_of_clips_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "m.csv").write_text(content)
    assert message in message_of(tmp_path / "m.csv")


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


def test_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    make_files(
        tmp_path, "train/dog/1.wav", "train/_noise/x.wav", "train/.git/y.wav", "test/cat/2.wav", ".cache/a/z.wav"
    )
    clips = read_clips(tmp_path)
    assert list(zip(clips["split"], clips["label"], strict=True)) == [("test", "cat"), ("train", "dog")]


def test_files_in_deeper_folders_belong_to_the_class_folder(tmp_path: Path) -> None:
    make_files(tmp_path, "dog/2020/1.wav", "dog/2021/may/2.wav", "cat/3.wav")
    clips = read_clips(tmp_path)
    assert clips["label"].tolist() == ["cat", "dog", "dog"]
    assert clips["clip_name"].tolist() == ["/cat/3.wav", "/dog/2020/1.wav", "/dog/2021/may/2.wav"]


def test_a_class_beside_split_folders_makes_them_classes(tmp_path: Path) -> None:
    make_files(tmp_path, "train/dog/1.wav", "test/cat/2.wav", "bird/3.wav")
    clips = read_clips(tmp_path)
    assert clips["label"].tolist() == ["bird", "test", "train"]
    assert clips["split"].isna().all()


def test_a_folder_without_audio_in_folders_is_an_error(tmp_path: Path) -> None:
    make_files(tmp_path, "1.wav", "dog/readme.txt")
    with pytest.raises(InputError, match="must hold class folders with audio files"):
        read_clips(tmp_path)


def test_a_split_is_never_invented(tmp_path: Path) -> None:
    make_files(tmp_path, "dog/1.wav", "cat/1.wav")
    with pytest.raises(InputError, match="--random-split"):
        check_training_clips(read_clips(tmp_path), where="folder")


def make_clips(n_clips: int, **columns: object) -> pd.DataFrame:
    names = [f"/{number}.wav" for number in range(n_clips)]
    clips = pd.DataFrame({"path": [f"/x{name}" for name in names], "clip_name": names, "start_s": 0.0, "label": "a"})
    return clips.assign(line=range(2, n_clips + 2), group=None, split=None, **columns)


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


def test_a_random_split_stays_when_the_data_are_moved() -> None:
    clips = make_clips(100)
    split = assign_random_splits(clips, seed=3)["split"]
    moved = assign_random_splits(clips.assign(path="/y" + clips["path"]), seed=3)["split"]
    pd.testing.assert_series_equal(split, moved)


def test_parts_of_one_file_are_split_like_other_clips() -> None:
    clips = make_clips(50).assign(clip_name="/long.wav", start_s=[float(number) for number in range(50)])
    split = assign_random_splits(clips, seed=0)
    assert split["split"].value_counts().to_dict() == {"train": 40, "valid": 5, "test": 5}


def make_train_clips(n_groups: int, per_group: int = 3) -> pd.DataFrame:
    """Training clips of two classes in groups, and ten test clips of groups of their own."""
    n_clips = n_groups * per_group
    clips = make_clips(n_clips + 10).assign(split=["train"] * n_clips + ["test"] * 10)
    groups = [f"s{number % n_groups}" for number in range(n_clips)] + [f"t{number}" for number in range(10)]
    return clips.assign(group=groups, label=["a" if number % 3 else "b" for number in range(len(clips))])


def test_from_ten_groups_on_whole_groups_are_held_out() -> None:
    clips = make_train_clips(10)
    held, note = hold_out_valid(clips, seed=0, share=0.2)
    valid, train = (held[held["split"] == split] for split in ("valid", "train"))
    assert valid["group"].nunique() == 2
    assert len(valid) == 6
    assert not set(valid["group"]) & set(train["group"])
    assert "6 of 30 training clips are held out" in note
    assert "whole groups" in note


@pytest.mark.parametrize("groups", ["nine", "none"])
def test_else_a_share_of_each_class_is_held_out(groups: str) -> None:
    clips = make_train_clips(9, per_group=10)
    if groups == "none":
        clips["group"] = None
    held, note = hold_out_valid(clips, seed=0, share=0.1)
    train = clips["split"] == "train"
    for label in ("a", "b"):
        of_class = held[train & (clips["label"] == label)]
        assert (of_class["split"] == "valid").sum() == round(0.1 * len(of_class))
    assert "clips of each class, seed 0" in note
    assert f"{(held['split'] == 'valid').sum()} of 90 training clips" in note


@pytest.mark.parametrize("empty", [None, ""])
def test_a_split_is_not_drawn_where_some_clips_have_a_group_and_others_none(empty: str | None) -> None:
    clips = make_train_clips(12)
    clips.loc[[3, 5], "group"] = empty
    for draw in (hold_out_valid, assign_random_splits):
        options = {"share": 0.1} if draw is hold_out_valid else {}
        with pytest.raises(InputError, match=r"2 bad rows\n  line 5: group is empty\n  line 7: group is empty"):
            draw(clips, seed=0, **options)


@pytest.mark.parametrize("n_groups", [5, 20])
def test_held_out_clips_depend_on_the_seed_and_not_on_the_order(n_groups: int) -> None:
    clips = make_train_clips(n_groups, per_group=6)
    split = hold_out_valid(clips, seed=1, share=0.2)[0]["split"]
    again = hold_out_valid(clips.sample(frac=1, random_state=0), seed=1, share=0.2)[0]["split"]
    pd.testing.assert_series_equal(split, again.sort_index())
    assert (hold_out_valid(clips, seed=2, share=0.2)[0]["split"] != split).any()
    # Neither the test clips nor the table that was given are changed.
    assert split[clips["split"] == "test"].eq("test").all()
    assert set(clips["split"]) == {"train", "test"}


def test_the_only_clip_of_a_class_stays_in_training_and_of_two_one_goes() -> None:
    clips = make_clips(5).assign(split="train", label=["a", "b", "b", "c", "c"])
    held = hold_out_valid(clips, seed=0, share=0.01)[0]
    assert held.groupby("label")["split"].agg(lambda splits: sorted(splits)).to_dict() == {
        "a": ["train"],
        "b": ["train", "valid"],
        "c": ["train", "valid"],
    }


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

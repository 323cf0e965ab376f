"""Several labels of a clip: in one cell with a separator, in columns of 0 and 1, and splits that are drawn of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audiostride.dataset.bad_rows import BadRows
from audiostride.dataset.labels import (
    JOIN,
    LabelSets,
    join_labels,
    multi_hot,
    read_label_sets,
    separate_labels,
    split_labels,
)
from audiostride.dataset.manifest import inspect_manifest
from audiostride.dataset.scores import read_scores
from audiostride.dataset.splits import (
    assign_random_splits,
    check_training_clips,
    describe_several_labels,
    describe_small_classes,
    hold_out_valid,
)
from audiostride.errors import InputError


def read(cells: list[str], **form: str) -> tuple[list[list[str]], BadRows]:
    bad = BadRows()
    table = pd.DataFrame({"line": range(2, len(cells) + 2), "kind": cells})
    found = read_label_sets(table, "kind", LabelSets(**form), where="m", bad=bad)
    return [split_labels(text) for text in found], bad


@pytest.mark.parametrize("mark", [";", "|", ","])
def test_the_one_separator_that_stands_there_is_found_and_said(mark: str) -> None:
    sets, bad = read([f" frog {mark} bird", "frog", "", f"{mark}bird{mark}{mark}bird"])
    assert sets == [["bird", "frog"], ["frog"], [], ["bird"]]
    assert bad.notes == [
        f"kind: {mark!r} separates the labels of a clip, such as {f'frog {mark} bird'!r}; --label-separator names "
        "another one",
        "kind: 1 of 4 clips have no label: none of the classes",
    ]
    assert not len(bad)


def test_of_two_separators_one_must_be_named() -> None:
    cells = ["Crow, American;Robin", "Crow, American"]
    with pytest.raises(InputError, match=r"^m: the separator .*'kind' must be known, but ; and , stand there: 'Crow"):
        read(cells)
    sets, bad = read(cells, separator=";")
    assert sets == [["Crow, American", "Robin"], ["Crow, American"]]
    assert bad.notes == []
    assert read(["a/b", "b"], separator="/")[0] == [["a", "b"], ["b"]]
    assert read(["a", "b"])[1].notes == ["kind: no clip has several labels: ';' separates none"]


def test_labels_with_control_characters_are_bad_rows() -> None:
    _, bad = read([f"a{JOIN}b;c", "a"])
    assert bad.lines == [2]
    assert bad.messages == [f"kind must have no control characters, got {f'a{JOIN}b;c'!r}"]


def write(folder: Path, *lines: str) -> Path:
    (folder / "a.wav").write_bytes(b"")
    (folder / "m.csv").write_text("\n".join(lines))
    return folder / "m.csv"


def test_columns_of_0_and_1_are_sets_and_other_cells_bad_rows(tmp_path: Path) -> None:
    head, form = "path,frog,bird,x", {"kind": LabelSets(columns=("frog", "bird"))}
    rows = ["a.wav,1,0,", "a.wav,True,1.0,", "a.wav,0,FALSE,", "a.wav,,2,", "a.wav,no,1,"]
    clips, bad = inspect_manifest(write(tmp_path, head, *rows), labels=["kind"], several=form)
    assert [split_labels(text) for text in clips["kind"][:3]] == [["frog"], ["bird", "frog"], []]
    assert bad.lines == [5, 6]
    assert bad.messages == [
        "frog must be 0 or 1, true or false, got ''; bird must be 0 or 1, true or false, got '2'",
        "frog must be 0 or 1, true or false, got 'no'",
    ]
    missing = {"kind": LabelSets(columns=("frog", "newt"))}
    with pytest.raises(InputError, match="must have a column 'newt', got path, frog, bird, x"):
        inspect_manifest(tmp_path / "m.csv", labels=["kind"], several=missing)
    both = {"x": LabelSets(columns=("frog", "bird"))}
    with pytest.raises(InputError, match="got both: 'x' and frog, bird; leave --label-columns out"):
        inspect_manifest(tmp_path / "m.csv", labels=["x"], several=both)


def test_class_folders_have_no_sets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must stand in a table, but class folders give one"):
        inspect_manifest(tmp_path, labels=["label"], several={"label": LabelSets()})


def test_sets_as_numbers_and_as_cells() -> None:
    classes = ["bird", "frog", "newt"]
    sets = pd.Series([JOIN.join(["bird", "newt"]), "", "frog"])
    assert multi_hot(sets, classes).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    for names, mark in ((["a", "b"], ";"), (["a;", "b"], "|"), (["a;|", "b"], ",")):
        cell = join_labels(names, names)
        assert cell == mark.join(names)
        assert separate_labels(cell, names) == names
    assert separate_labels("", classes) == []


def make_clips(sets: list[list[str]], *, split: str | None = None) -> pd.DataFrame:
    names = [f"/{number}.wav" for number in range(len(sets))]
    columns = {"path": names, "clip_name": names, "start_s": 0.0, "duration_s": np.nan, "split": split, "group": None}
    return pd.DataFrame(columns).assign(label=[JOIN.join(labels) for labels in sets], line=range(2, len(sets) + 2))


def test_splits_of_sets_have_their_shares_and_every_class_trains() -> None:
    rng = np.random.default_rng(0)
    # Almost every set is another one: by class each would have been a class of one clip, all of which train.
    sets = [sorted({str(each) for each in rng.integers(0, 30, rng.integers(0, 5))}) for _ in range(200)]
    sets += [["rare", "0"], ["lone"]]
    clips = make_clips(sets)
    drawn = assign_random_splits(clips, seed=1)
    assert drawn["split"].value_counts().to_dict() == {"train": 162, "valid": 20, "test": 20}
    assert drawn["split"].equals(assign_random_splits(clips[::-1], seed=1)["split"].sort_index())
    trained = {label for text in drawn.loc[drawn["split"] == "train", "label"] for label in split_labels(text)}
    assert trained == {label for labels in sets for label in labels}
    held, note = hold_out_valid(clips.assign(split="train"), seed=0, share=0.1)
    assert (held["split"] == "valid").sum() == 20
    assert "held out for validation (clips, seed 0)" in note
    [line] = describe_small_classes(drawn, ["label"])
    assert line.startswith("classes with all clips in train")
    assert "lone" in line
    assert JOIN not in line


def test_the_first_column_of_one_label_each_is_drawn_class_by_class() -> None:
    sets = [["a", "b"] if number % 2 else [] for number in range(40)]
    clips = make_clips(sets).assign(size=["large"] * 10 + ["small"] * 30)
    drawn = assign_random_splits(clips, seed=0, labels=["label", "size"])
    assert drawn[drawn["split"] == "test"]["size"].value_counts().to_dict() == {"small": 3, "large": 1}


def test_classes_of_sets_are_those_of_their_labels_and_must_train() -> None:
    clips = pd.concat([make_clips([["b", "a"], []], split="train"), make_clips([["a"]], split="valid")])
    clips = pd.concat([clips, make_clips([["b"]], split="test")])
    assert check_training_clips(clips, where="m") == ["a", "b"]
    only_in_test = pd.concat([clips, make_clips([["b", "c"]], split="test")])
    with pytest.raises(InputError, match="every class must have training clips, but these have none: c;"):
        check_training_clips(only_in_test, where="m")
    with pytest.raises(InputError, match="but these have none: never;"):
        check_training_clips(clips, where="m", names=["a", "never"])
    with pytest.raises(InputError, match="m: a clip of split 'valid' must have a label, got none in all of them"):
        check_training_clips(clips.assign(label=clips["label"].where(clips["split"] != "valid", "")), where="m")


def test_sets_are_no_labels_that_look_like_several() -> None:
    clips = make_clips([["Crow", "Robin"], ["Crow, American", "Crow"], ["Crow"]])
    assert describe_several_labels(clips, ["label"], ["label"]) == []
    [line] = describe_several_labels(clips.assign(path="/0.wav"), ["label"], ["label"])
    assert line.startswith("1 clip in several rows with different labels, such as Crow and ")
    assert JOIN not in line


def test_scores_of_sets_are_probabilities_of_their_own() -> None:
    table = pd.DataFrame({"line": [2, 3, 4], "label": [JOIN.join("ab"), "", "a"]})
    scores = table.assign(**{"score:a": ["0.9", "0", ""], "score:b": ["1.005", "0", ""]})
    bad = BadRows()
    found = read_scores(scores, ["label"], where="m", bad=bad, several=["label"])["label"]
    np.testing.assert_array_equal(found, [[0.9, 1.0], [0.0, 0.0], [np.nan, np.nan]])
    assert not len(bad)
    assert bad.notes == []

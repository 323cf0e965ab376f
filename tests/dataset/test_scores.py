"""Columns of a teacher's scores: whose they are, what they must be, and which labels they stand for."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audiostride.dataset.bad_rows import BadRows
from audiostride.dataset.manifest import inspect_manifest
from audiostride.dataset.scores import fill_labels, has_scores, read_scores
from audiostride.errors import InputError

HEAD = "path,split,label,score:cat,score:dog"


def read(text: str, *labels: str) -> tuple[dict[str, pd.DataFrame], BadRows]:
    """The scores of a table that is written with blanks between its fields and slashes between its rows."""
    names, *rows = (line.split() for line in text.split("/"))
    table = pd.DataFrame([["" if cell == "-" else cell for cell in row] for row in rows], columns=names)
    bad = BadRows()
    table.insert(0, "line", range(2, len(table) + 2))
    return read_scores(table, labels or ("label",), where="m", bad=bad), bad


def inspect(folder: Path, *lines: str, scores: bool = True) -> BadRows:
    (folder / "a.wav").write_bytes(b"")
    (folder / "m.csv").write_text("\n".join(lines))
    return inspect_manifest(folder / "m.csv", labels=("label",), scores=scores)[1]


def test_scores_are_those_of_the_classes_and_sum_to_one() -> None:
    scores, bad = read("label score:dog score:cat / cat 0.25 0.75 / dog - - / - 1 0 / dog 0.333 0.666")
    assert [*scores] == ["label"]
    found = scores["label"]
    assert [*found] == ["cat", "dog"]
    np.testing.assert_allclose(found, [[0.75, 0.25], [np.nan] * 2, [0, 1], [2 / 3, 1 / 3]], rtol=1e-12)
    assert has_scores(found).tolist() == [True, False, True, True]
    assert not len(bad)
    assert bad.notes == []


def test_other_sums_are_normalised_and_said() -> None:
    scores, bad = read("label score:dog score:cat / cat 0.2 0.6 / dog 1 1 / dog 0.5 0.5")
    np.testing.assert_allclose(scores["label"], [[0.75, 0.25], [0.5, 0.5], [0.5, 0.5]])
    assert bad.notes == ["scores of label are divided by their sum, which is not 1 in 2 rows: 0.8 to 2"]


def test_a_class_without_a_column_has_the_score_0_which_is_said() -> None:
    scores, bad = read("label score:dog score:cat / cat 0.5 0.5 / owl - - / emu - - / dog - -")
    assert scores["label"].loc[0].to_dict() == {"cat": 0.5, "dog": 0.5, "emu": 0.0, "owl": 0.0}
    assert bad.notes == ["scores of label are 0 for classes without a column of them: emu, owl"]


def test_columns_say_whose_scores_they_are_where_classes_do_not() -> None:
    text = (
        "kind size score:tone score:noise score:size:big score:size:small / tone big 1 0 0.5 0.5 / noise small - - 0 1"
    )
    scores, _ = read(text, "kind", "size")
    assert {name: [*table] for name, table in scores.items()} == {"kind": ["noise", "tone"], "size": ["big", "small"]}
    assert scores["size"].to_numpy().tolist() == [[0.5, 0.5], [0, 1]]
    assert has_scores(scores["kind"]).tolist() == [True, False]
    alone, _ = read(text, "size")
    assert alone["size"].equals(scores["size"])


def test_scores_of_labels_that_are_not_learned_are_left_aside_which_is_said() -> None:
    scores, bad = read("kind size score:tone score:size:big score:big / tone big 1 0.5 - / noise small 0 1 -", "kind")
    assert [*scores] == ["kind"]
    assert bad.notes == [
        "column 'score:size:big' is not used: it is of no class of kind",
        "column 'score:big' is not used: it is of no class of kind",
        "scores of kind are 0 for classes without a column of them: noise",
    ]


@pytest.mark.parametrize(
    ("text", "labels", "message"),
    [
        ("label score:cow / cat 1 / dog 0", ("label",), "got 'score:cow'; label has cat, dog. Rename or remove it, or"),
        ("a b score:x / x x 1 / y z 1", ("a", "b"), "'score:x' must be of .*class of a and b; name it score:a:x or"),
        ("label score:cat score:label:cat / cat 1 1", ("label",), "got 'score:cat' and 'score:label:cat'; remove"),
        ("label score: / cat 1", ("label",), "score:CLASS or .* with a class of the labels, got 'score:'"),
    ],
)  # fmt: skip
def test_columns_of_no_class_or_of_several_are_refused(text: str, labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=f"^m: .*{message}"):
        read(text, *labels)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("-0.1,0.9", "score:cat must be a probability in [0, 1], got '-0.1'"),
        ("0.1,90", "score:dog must be a probability in [0, 1], got '90'"),
        ("0.1,much", "score:dog must be a probability in [0, 1], got 'much'"),
        ("nan,1", "score:cat must be a probability in [0, 1], got 'nan'"),
        ("0,inf", "score:dog must be a probability in [0, 1], got 'inf'"),
        (",0.5", "scores must be given for all classes or for none, got none in score:cat"),
        ("0,0", "scores of label must not all be 0; leave them empty where there are none"),
    ],
)
def test_wrong_scores_are_bad_rows_with_their_lines(tmp_path: Path, cells: str, message: str) -> None:
    lines = [HEAD, "a.wav,train,cat,1,0", f"a.wav,test,dog,{cells}", "a.wav,train,dog,,", f"a.wav,train,cat,{cells}"]
    bad = inspect(tmp_path, *lines)
    assert list(zip(bad.lines, bad.messages, strict=True)) == [(3, message), (5, message)]
    assert {*bad.kinds} == {"row"}
    assert not len(inspect(tmp_path, *lines, scores=False))


def test_scores_of_a_training_clip_stand_for_its_label(tmp_path: Path) -> None:
    lines = [
        HEAD,
        "a.wav,train,,0.2,0.8",
        "a.wav,val,,0.2,0.8",
        "a.wav,train,,,",
        "a.wav,test,dog,,",
        "a.wav,test,cat,,",
    ]
    bad = inspect(tmp_path, *lines)
    assert sorted(zip(bad.lines, bad.messages, strict=True)) == [
        (3, "label is empty, and scores stand for it in training clips only"), (4, "label is empty")
    ]  # fmt: skip
    assert sorted(inspect(tmp_path, *lines, scores=False).lines) == [2, 3, 4]
    undecided = [
        line.replace(",split", "").replace(",train", "").replace(",val", "").replace(",test", "") for line in lines
    ]
    assert inspect(tmp_path, *undecided).lines == [4]  # a split that is drawn leaves such clips in train


def test_labels_are_filled_with_the_class_of_the_highest_score() -> None:
    scores, _ = read("label score:dog score:cat / cat 0.9 0.1 / - 0.9 0.1 / - - - / dog 0 1")
    labels = pd.Series(["cat", "", "", "dog"])
    assert fill_labels(labels, scores["label"]).tolist() == ["cat", "dog", "", "dog"]


def test_scores_stay_text_in_the_table_of_clips(tmp_path: Path) -> None:
    inspect(tmp_path, HEAD, "a.wav,train,cat,1,0", "a.wav,test,dog,,")
    clips, _ = inspect_manifest(tmp_path / "m.csv", labels=("label",), scores=True)
    assert clips["score:cat"].tolist() == ["1", ""]

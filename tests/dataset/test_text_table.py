"""Tables of clips as spreadsheets and other programs write them, and lists of paths."""

from pathlib import Path

import pytest

from audiostride.dataset.manifest import inspect_manifest
from audiostride.errors import InputError


def write(folder: Path, name: str, *lines: str, end: str = "\n") -> Path:
    for audio in ("a.wav", "b, c.wav", "#1.wav"):
        (folder / audio).write_bytes(b"")
    (folder / name).write_bytes("".join(f"{line}{end}" for line in lines).encode("utf-8-sig"))
    return folder / name


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "before", [[], ["# made by hand, today"], ["# one", "# two"], ["sep=MARK"], ['"sep=MARK"', "#"]]
)
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_separators_and_lines_before_the_table(tmp_path: Path, mark: str, before: list[str], end: str) -> None:
    rows = ["path,label,start_s", "a.wav,x,0.5", '"b, c.wav",y,', "gone.wav,,1"]
    lines = [line.replace("MARK", mark) for line in before]
    lines += [row.replace(",", mark).replace(f'"b{mark} c', '"b, c') for row in rows]
    for name in ("m.csv", "m.tsv", "m.txt"):
        clips, bad = inspect_manifest(write(tmp_path, name, *lines, end=end), labels=("label",))
        assert clips["label"].tolist() == ["x", "y", ""]
        assert clips["start_s"].tolist() == [0.5, 0, 1]
        assert clips["path"].tolist()[1] == str(tmp_path / "b, c.wav")
        last = len(before) + 4
        assert sorted(bad.lines) == [last, last]
        assert clips["line"].tolist() == [last - 2, last - 1, last]


def test_rows_with_too_many_fields_are_listed_by_their_lines(tmp_path: Path) -> None:
    manifest = write(tmp_path, "m.csv", "# a; comment", "path;label", "a.wav;x;y", "a.wav;x", "a.wav;;;")
    with pytest.raises(InputError, match=r"2 bad rows\n  line 3: must have 2 fields, got 3; .* semicolons\n  line 5: "):
        inspect_manifest(manifest)


@pytest.mark.parametrize("name", ["list.txt", "list.lst"])
def test_a_list_of_paths(tmp_path: Path, name: str) -> None:
    listed = write(tmp_path, name, "# three files", "a.wav", "", "  b, c.wav ", "gone.wav", "#1.wav")
    clips, bad = inspect_manifest(listed)
    assert clips["path"].tolist() == [str(tmp_path / name) for name in ("a.wav", "b, c.wav", "gone.wav", "#1.wav")]
    assert clips["line"].tolist() == [2, 4, 5, 6]
    assert (bad.lines, bad.kinds) == ([5], ["missing"])
    with pytest.raises(
        InputError, match="must have a column 'label', got path; name the column of labels with --label"
    ):
        inspect_manifest(listed, labels=("label",))


def test_a_list_may_begin_with_a_name_that_looks_like_a_comment_or_has_another_suffix(tmp_path: Path) -> None:
    assert len(inspect_manifest(write(tmp_path, "l.txt", "#1.wav", "a.wav"))[0]) == 2
    assert len(inspect_manifest(write(tmp_path, "l.txt", "phone.wma", "a.wav"))[0]) == 2


def test_quotes_within_labels_of_raven_take_no_lines_along(tmp_path: Path) -> None:
    head = "Selection\tBegin Time (s)\tEnd Time (s)\tBegin Path\tLabel"
    table = write(tmp_path, "t.txt", head, '1\t0\t1\ta.wav\t"wren', "2\t1\t2\ta.wav\towl")
    assert inspect_manifest(table, labels=("Label",))[0]["Label"].tolist() == ['"wren', "owl"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0.5\t3.0\trobin", "1.0\t1.2\twren"], "labels of Audacity do not name their recording; write a table with"),
        (["some words"], "must have a column 'path', got some words; its first line must name the columns"),
        (["a.wav"], "must have a column 'path', got a.wav; its first line must name the columns"),
        (["word,label", "x,y"], "must have a column 'path', got word, label; its first line"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, lines: list[str], message: str) -> None:
    name = "m.csv" if lines == ["a.wav"] else "m.txt"
    with pytest.raises(InputError, match=message):
        inspect_manifest(write(tmp_path, name, *lines, "x"))


def test_bytes_that_are_not_utf_8_far_down_a_list_are_named(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(b"a.wav\n" * 20000 + b"\xe9.wav\n")
    with pytest.raises(InputError, match="must be a CSV table in UTF-8, but reading it failed"):
        inspect_manifest(tmp_path / "l.txt")


def test_columns_of_0_and_1_are_said_where_labels_are_missing(tmp_path: Path) -> None:
    manifest = write(tmp_path, "m.csv", "path,robin,wren,split", "a.wav,1,0,train", "a.wav,0,1,test")
    with pytest.raises(InputError, match=r"columns of 0 and 1 \(robin, wren\) are read with --label-columns"):
        inspect_manifest(manifest, labels=("label",))


@pytest.mark.parametrize("label", ["down\rx", "up\tx", "a\x1b[31m", "a\nb"])
def test_control_characters_in_labels_and_paths_are_bad_rows(tmp_path: Path, label: str) -> None:
    manifest = write(tmp_path, "m.csv", "path,label", f'a.wav,"{label}"', f'"{label}.wav",x', "a.wav,y")
    _, bad = inspect_manifest(manifest, labels=("label",))
    shown = f"{label!r}"[1:-1]
    assert set(bad.kinds) == {"row"}
    assert bad.messages[0] == f"label must have no control characters, got {label!r}"
    assert shown in bad.messages[1]
    assert len(bad) == 2
    assert not any(character in "".join(bad.messages) for character in "\r\t\x1b\n")


def test_a_split_that_is_none_matters_only_where_splits_are_read(tmp_path: Path) -> None:
    manifest = write(tmp_path, "m.csv", "path,split", "a.wav,unlabelled")
    assert len(inspect_manifest(manifest)[1]) == 1
    clips, bad = inspect_manifest(manifest, splits=False)
    assert (len(bad), clips["split"].tolist()) == (0, [None])


def test_files_that_nobody_may_look_at_are_told_from_missing_ones(tmp_path: Path, lock: object) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    names = [f"{number}.wav" for number in range(25)]
    for name in names:
        (folder / name).write_bytes(b"")
    manifest = write(tmp_path, "m.csv", "path", *(f"locked/{name}" for name in names), "gone.wav")
    lock(folder)  # type: ignore[operator]
    _, bad = inspect_manifest(manifest)
    assert bad.kinds == ["missing"] * 26
    assert bad.messages[0] == f"audio file {folder / names[0]} cannot be read: Permission denied"
    assert bad.messages[-1] == f"audio file {tmp_path / 'gone.wav'} does not exist"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("path,label\na.wav,x\n".encode("utf-16"), "it is UTF-16"),
        (b"PK\3\4 and more\x9a", "it is a workbook of a spreadsheet program, or an archive"),
        (b"PAR1\0\0\xff\xff", "it is Parquet"),
        ("path,label\na.wav,caf\xe9\n".encode("latin-1"), "reading it failed: 'utf-8' codec can't decode byte 0xe9"),
    ],
)
def test_what_is_no_csv_in_utf8_is_named(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"must be a CSV table in UTF-8, but {what}.*; save it as CSV in UTF-8"):
        inspect_manifest(tmp_path / "m.csv")

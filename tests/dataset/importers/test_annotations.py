"""Annotations of Raven, Audacity and tables of events: what is read, whose they are, and every fault."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiostride.dataset.importers import AnnotationSettings, Imported, import_annotations
from audiostride.dataset.importers.annotation_files import READERS, is_of_kind
from audiostride.dataset.importers.annotation_recordings import Recordings
from audiostride.dataset.importers.annotations import DEFAULT_BAND_HZ
from audiostride.errors import InputError
from audiostride.models import ClassifierConfig

RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of 10, 6 and 4 s at 8 kHz in three formats, of which two have one name; and one that is broken."""
    root = tmp_path_factory.mktemp("audio")
    for name, seconds in (("a.wav", 10), ("one/b.flac", 6), ("two/b.flac", 4), ("c.mp3", 4)):
        (root / name).parent.mkdir(exist_ok=True)
        soundfile.write(str(root / name), np.zeros(8000 * seconds, dtype=np.float32), 8000)
    (root / "broken.wav").write_bytes(b"RIFF nothing")
    return root


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes lines to a file in the folder of tables."""

    def run(name: str, *lines: str) -> Path:
        file = tmp_path / "tables" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return file

    return run


def take(kind: str, root: Path, audio: Path, **settings: object) -> Imported:
    return import_annotations(kind, root, audio, AnnotationSettings(**settings))[0]  # type: ignore[arg-type]


def rows(imported: Imported) -> list[tuple[str, float, str]]:
    clips = imported.clips
    return list(zip(clips["path"], clips["start_s"].tolist(), clips["label"], strict=True))


def said(lines: list[str], *parts: str) -> bool:
    return any(all(part in line for part in parts) for line in lines)


def test_a_selection_that_several_views_show_is_one_annotation_with_the_box_of_the_spectrogram(write: Write) -> None:
    file = write(
        "a.Table.1.selections.txt", f"{RAVEN}\tSpecies",
        "1\tWaveform 1\t1\t1.0\t2.0\t0\t4000\t", "1\tSpectrogram 1\t1\t1.0\t2.0\t500\t900\twren",
        "2\tSpectrogram 1\t1\t1.0\t2.0\t1000\t1200\tbat", "2\tWaveform 1\t1\t1.0\t2.0\t0\t4000\tbat",
    )  # fmt: skip
    read = READERS["raven"](file, label_column=None, group=None)
    assert read.rows[["line", "start_s", "end_s", "low_hz", "high_hz", "label"]].to_numpy().tolist() == [
        [3, 1.0, 2.0, 500.0, 900.0, "wren"],
        [4, 1.0, 2.0, 1000.0, 1200.0, "bat"],
    ]
    assert read.faults == []
    assert read.notes == ["a selection that several views show is counted once", "labels are those of column 'Species'"]


def test_views_that_differ_in_their_label_are_a_fault(write: Write, audio: Path) -> None:
    table = write(
        "a.txt", f"{RAVEN}\tSpecies", "7\tWaveform 1\t1\t1\t2\t0\t4000\towl", "7\tSpectrogram 1\t1\t1\t2\t5\t9\twren"
    )
    imported = take("raven", table, audio)
    expected = "a.txt, line 3: its selection is 'wren' here and 'owl' in the view of line 2"
    assert imported.contradictions == [expected]


def test_times_of_a_table_over_several_files_are_those_within_each(write: Write, audio: Path) -> None:
    head = f"{RAVEN}\tBegin File\tBegin Path\tFile Offset (s)\tLabel"
    table = write(
        "all.txt", head,
        f"1\tSpectrogram 1\t1\t1\t2\t5\t9\ta.wav\t{audio}/a.wav\t1\twren",
        "2\tSpectrogram 1\t1\t12\t13.5\t5\t9\tb.flac\tD:\\night\\one\\b.flac\t2\tbat",
    )  # fmt: skip
    assert rows(take("raven", table, audio)) == [
        ("a.wav", 1.0, "wren"),
        ("one/b.flac", 2.0, "bat"),
        ("one/b.flac", 2.5, "bat"),
    ]
    without = [line.rsplit("\t", 2) for line in table.read_text().splitlines()]
    table = write("all.txt", *(f"{before}\t{label}" for before, _, label in without))
    faults = take("raven", table, audio).contradictions
    assert said(faults, "all.txt: Begin Time (s) of Raven counts on", "File Offset (s)")


@pytest.mark.parametrize(
    ("head", "cells", "given", "expected"),
    [
        ("Annotation", ["wren"], None, "Annotation"),
        (
            "Species Code\tCommon Name",
            ["wren\tWren"],
            None,
            "several columns may hold the labels, Species Code, Common",
        ),
        ("Species Code\tCommon Name", ["wren\tWren"], "Common Name", "Common Name"),
        ("Species\tLabel", ["wren\t"], None, "Species"),
        ("Peak Freq (Hz)\tWho", ["700\twren"], None, "Who"),
        ("Who\tWhat", ["wren\tsong"], None, "name it with --label-column, out of"),
        ("Who", ["wren"], "Species", "it must have the column 'Species' of --label-column, got "),
        ("Peak Freq (Hz)", ["700"], None, "no column is named as labels are; name it with --label-column"),
    ],
)
def test_the_column_of_labels(
    head: str, cells: list[str], given: str | None, expected: str, write: Write, audio: Path
) -> None:
    table = write("a.txt", f"{RAVEN}\t{head}", *(f"1\tSpectrogram 1\t1\t1\t2\t5\t9\t{cell}" for cell in cells))
    imported = take("raven", table, audio, label_column=given)
    if expected in head.split("\t"):
        assert imported.contradictions == []
        assert imported.clips["label"].str.lower().tolist() == ["wren"]
        assert said(imported.findings, f"labels are those of column {expected!r}")
    else:
        assert said(imported.contradictions, "a.txt: ", expected)


def test_quotes_in_labels_of_raven_are_signs_like_others(write: Write, audio: Path) -> None:
    lines = [f"{n}\tSpectrogram 1\t1\t{n}\t{n + 1}\t5\t9\t{label}" for n, label in enumerate(['"wren', "owl", 'a "b"'])]
    assert rows(take("raven", write("a.txt", f"{RAVEN}\tLabel", *lines), audio)) == [
        ("a.wav", 0.0, '"wren'), ("a.wav", 1.0, "owl"), ("a.wav", 2.0, 'a "b"'),
    ]  # fmt: skip


def test_a_track_of_audacity_with_frequencies(write: Write) -> None:
    file = write(
        "a.txt", "1.000000\t2.500000\twren, song", "\\\t-1.000000\t1500.000000", "3\t4\tbat", "\\\t900.5\t2000", "",
        "5.25\t6\towl",
    )  # fmt: skip
    read = READERS["audacity"](file, label_column=None, group=None)
    np.testing.assert_equal(
        read.rows[["line", "start_s", "end_s", "low_hz", "high_hz", "label"]].to_numpy().tolist(),
        [[1, 1, 2.5, np.nan, 1500, "wren, song"], [3, 3, 4, 900.5, 2000, "bat"], [6, 5.25, 6, np.nan, np.nan, "owl"]],
    )
    assert read.faults == []


def test_faults_of_a_track_of_audacity_are_all_named(write: Write, audio: Path) -> None:
    table = write(
        "a.txt", "1\t1\tpoint", "2\t1\tback", "-1\t2\tearly", "1,5\t2\tcomma", "3\t4\t", "no times",
        "\\\t1\t2", "4\t5\tx", "\\\tlow\thigh",
    )  # fmt: skip
    faults = take("audacity", table, audio).contradictions
    expected = [
        ("line 1: a point has no length, got 1 to 1 s"),
        ("line 2: a label must begin at 0 or later, and then end, got 2 to 1 s"),
        ("line 3: a label must begin at 0 or later, and then end, got -1 to 2 s"),
        ("line 4: it must be start, end and label with tabs between"),
        ("line 5: the label is empty"),
        ("line 6: it must be start, end and label"),
        ("line 7: it must be low and high frequency of the label above"),
        ("line 9: it must be low and high frequency of the label above"),
    ]
    assert len(faults) == len(expected)
    for part in expected:
        assert said(faults, f"a.txt, {part}")


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("filename\tonset\toffset\tevent_label", "a.wav\t1.0\t2.0\twren"),
        ("path,start_s,end_s,label,score", "a.wav,1.0,2.0,wren,0.9"),
        ("file;Begin Time (s);End Time (s);Species", "a.wav;1.0;2.0;wren"),
        ("file,start,duration,class", "a.wav,1.0,1.0,wren"),
        ("audio_path,start_time,end_time,annotation", "/elsewhere/a.wav,1.0,2.0,wren"),
    ],
)
def test_tables_of_events_under_the_usual_names(head: str, row: str, write: Write, audio: Path) -> None:
    imported = take("events", write("events.csv", head, row), audio)
    assert imported.contradictions == []
    assert rows(imported) == [("a.wav", 1.0, "wren")]
    assert is_of_kind(write("events.csv", head, row), "events")


def test_a_row_with_a_name_alone_is_a_recording_without_events(write: Write, audio: Path) -> None:
    table = write("e.csv", "filename,onset,offset,event_label", "a.wav,1,2,wren", "c.mp3,,,")
    imported = take("events", table, audio, annotated="throughout")
    assert imported.contradictions == []
    labels = imported.clips.groupby("path")["label"].agg(list)
    assert labels["a.wav"] == ["background", "wren", *["background"] * 8]
    assert len(labels["c.mp3"]) >= 4
    assert set(labels["c.mp3"]) == {"background"}
    assert said(imported.findings, "3 recordings without annotations left out: broken.wav, one/b.flac, two/b.flac")


def test_faults_of_events_are_all_named_with_line_and_value(write: Write, audio: Path) -> None:
    table = write(
        "e.csv", "path,start_s,end_s,label,low_freq_hz,high_freq_hz,split",
        "a.wav,-1,2,wren,,,", "a.wav,3,2,wren,,,", "a.wav,1,x,wren,,,", "a.wav,9.5,11,wren,,,", "gone.wav,1,2,wren,,,",
        "b.flac,1,2,wren,,,", "a.wav,1,2,,,,", "a.wav,1,,wren,,,",
        "a.wav,4,5,wren,900,100,", "a.wav,5,6,wren,4000,5000,",
        "a.wav,6,7,wren,-3,,", "c.mp3,1,2,wren,,,nowhere", "broken.wav,1,2,wren,,,",
    )  # fmt: skip
    faults = take("events", table, audio).contradictions
    expected = [
        "line 2: start_s must be a number of seconds >= 0, got '-1'",
        "line 3: end_s must be > the start of the clip, got 3 to 2 s",
        "line 4: end_s must be a number of seconds > 0, got 'x'",
        "line 5: 9.5 to 11 s reaches beyond a.wav, which ends at 10 s",
        f"line 6: gone.wav is not in {audio}",
        "line 7: b.flac may be any of one/b.flac, two/b.flac",
        "line 8: label is empty",
        "line 9: the end is empty",
        "line 10: its frequencies must go up, got 900 to 100 Hz",
        "line 11: its lowest frequency must be below 4000 Hz, half the rate of a.wav, got 4000 Hz",
        "line 12: low_freq_hz must be >= 0 Hz, got '-3'",
        "line 13: split must be train, valid (val, validation, dev) or test, got 'nowhere'",
        "line 14: audio file",
    ]
    for part in expected:
        assert said(faults, f"e.csv, {part}"), (part, faults)
    assert len(faults) == len(expected)


def test_what_is_wrong_makes_no_background(write: Write, audio: Path) -> None:
    table = write("e.csv", "path,start_s,end_s,label", "a.wav,1,2,wren", "a.wav,3,4,", "a.wav,9,12,owl")
    found = take("events", table, audio, annotated="throughout")
    assert [(start, label) for _, start, label in rows(found) if start in (1.0, 3.0, 9.0)] == [(1.0, "wren")]
    assert len(found.contradictions) == 2
    table = write("e.csv", "path,start_s,end_s,label", "a.wav,1,2,wren", "a.wav,3,x,wren")
    assert rows(take("events", table, audio, annotated="throughout")) == [("a.wav", 1.0, "wren")]


def test_annotations_of_a_label_that_overlap_are_named_and_taken(write: Write, audio: Path) -> None:
    head = "path,start_s,end_s,label,low freq,high freq"
    table = write("e.csv", head, "a.wav,1,3,wren,,", "a.wav,2,4,wren,,", "a.wav,2,4,owl,,", "a.wav,4,5,wren,,")
    found = take("events", table, audio)
    assert found.contradictions == ["e.csv, line 3: wren, 2 to 4 s, overlaps that of line 2, 1 to 3 s"]
    assert ("a.wav", 3.0, "owl") not in rows(found)
    assert ("a.wav", 1.0, "wren") in rows(found)
    two_birds = write("e.csv", head, "a.wav,1,3,wren,100,200", "a.wav,2,4,wren,300,400")
    assert take("events", two_birds, audio).contradictions == []


def test_annotations_outside_of_the_band_are_faults_where_it_is_given_and_else_said(write: Write, audio: Path) -> None:
    config = ClassifierConfig(tasks={"x": ["a", "b"]})
    assert (config.fmin_hz, config.fmax_hz) == DEFAULT_BAND_HZ
    table = write(
        "e.csv", "path,start_s,end_s,label,low freq,high freq", "a.wav,1,2,wren,1000,2000", "a.wav,4,5,owl,5,50"
    )
    found = take("events", table, audio)
    assert found.contradictions == []
    assert said(found.findings, "1 annotation wholly outside of 60 to 7,800 Hz", "--fmin-hz")
    [fault] = take("events", table, audio, fmin_hz=60.0, fmax_hz=900.0).contradictions[:1]
    assert fault == "e.csv, line 2: 1000 to 2000 Hz lies outside of the model's band, 60 to 900 Hz"
    assert len(take("events", table, audio, fmin_hz=60.0, fmax_hz=900.0).contradictions) == 2


def test_tables_are_those_of_the_recording_whose_name_they_begin_with(write: Write, audio: Path) -> None:
    folder = write("a.Table.1.selections.txt", f"{RAVEN}\tLabel", "1\tS 1\t1\t1\t2\t5\t9\twren").parent
    write("a.wav.selections.txt", f"{RAVEN}\tLabel", "1\tS 1\t1\t3\t4\t5\t9\towl")
    write("two/b.flac.selections.txt", f"{RAVEN}\tLabel")
    write("c.selections.txt", f"{RAVEN}\tLabel")
    write("readme.txt", "words")
    found = take("raven", folder, audio, annotated="throughout")
    assert found.contradictions == []
    assert found.clips.groupby("path").size().to_dict().keys() == {"a.wav", "two/b.flac", "c.mp3"}
    assert [row for row in rows(found) if row[2] != "background"] == [("a.wav", 1.0, "wren"), ("a.wav", 3.0, "owl")]
    assert said(found.findings, "a.wav has several files of annotations")
    assert said(found.findings, "1 text file that are no annotations of raven: readme.txt")


@pytest.mark.parametrize(
    ("kind", "name", "why"),
    [
        ("raven", "ab.txt", "has no recording that its own name begins with"),
        ("raven", "b.Table.1.selections.txt", "may be any of one/b.flac, two/b.flac"),
        ("audacity", "a.labels.txt", "has no recording that its own name begins with"),
        ("audacity", "b.txt", "may be any of one/b.flac, two/b.flac"),
    ],
)
def test_a_table_without_a_recording_is_a_fault_unless_it_is_given(
    kind: str, name: str, why: str, write: Write, audio: Path
) -> None:
    lines = ["1\t2\twren"] if kind == "audacity" else [f"{RAVEN}\tLabel", "1\tS 1\t1\t1\t2\t5\t9\twren"]
    table = write(name, *lines)
    found = take(kind, table, audio)
    assert said(found.contradictions, f"{name}: {why}", "give that recording as AUDIO")
    assert found.clips.empty
    assert rows(take(kind, table, audio / "one" / "b.flac")) == [("b.flac", 1.0, "wren")]


def test_names_of_recordings_from_other_machines(audio: Path) -> None:
    recordings = Recordings(audio)
    assert recordings.find("a.wav") == ("a.wav", "")
    assert recordings.find("A:\\field\\one\\b.flac") == ("one/b.flac", "")
    assert recordings.find("one/b.flac")[0] == recordings.find("./one/b.flac")[0] == "one/b.flac"
    assert recordings.find(f"{audio.name}/two/b.flac")[0] == "two/b.flac"
    assert recordings.find("a.flac")[0] == "a.wav", "of another format"
    assert recordings.find("three/a.wav") == (None, f"three/a.wav is not in {audio}")
    assert recordings.find("x.wav")[0] is None
    other = audio.parent / "other" / "a.wav"
    other.parent.mkdir(exist_ok=True)
    other.touch()
    assert recordings.find(str(other)) == (None, f"{other} is not in {audio}"), "it is another file"


def test_two_paths_of_one_table_are_not_the_same_recording(write: Write, audio: Path) -> None:
    table = write("e.csv", "path,start_s,end_s,label", "/x/one/a.wav,1,2,wren", "/x/two/a.wav,3,4,wren")
    found = take("events", table, audio)
    assert found.contradictions == [
        "e.csv, lines 2, 3: a.wav may be any of /x/one/a.wav, /x/two/a.wav; give one table for each"
    ]
    assert found.clips.empty


def test_labels_of_several_are_joined_and_background_has_none(write: Write, audio: Path) -> None:
    table = write("e.csv", "path,start_s,end_s,label", "a.wav,1,2,wren", "a.wav,1,2,owl; wren", "a.wav,4,6,bat")
    found = take("events", table, audio, multi_label=True, annotated="throughout")
    assert [label for _, _, label in rows(found)] == ["", "owl;wren", "", "", "bat", "bat", "", "", "", ""]
    single = take("events", table, audio)
    assert said(single.findings, "1 window left out, with several labels; --multi-label takes them")
    assert said(single.findings, "2 annotations in no clip", "a.wav 1-2 s wren", "a.wav 1-2 s owl; wren")


def test_the_task_stands_before_the_labels_of_several(write: Write, audio: Path) -> None:
    table = write("e.csv", "path,start_s,end_s,task,label", "a.wav,1,2,kind,x", "a.wav,3,4,size,y")
    assert [label for _, _, label in rows(take("events", table, audio))] == ["kind: x", "size: y"]


def test_groups_and_splits_come_from_columns_or_are_drawn_by_recording(write: Write, audio: Path) -> None:
    lines = ["a.wav,1,2,wren,marsh,train", "c.mp3,1,2,wren,wood,val", "two/b.flac,1,2,wren,hill,test"]
    table = write("e.csv", "path,start_s,end_s,label,site,split", *lines)
    found = take("events", table, audio, group="site")
    assert found.clips[["path", "group", "split"]].to_numpy().tolist() == [
        ["a.wav", "marsh", "train"], ["c.mp3", "wood", "valid"], ["two/b.flac", "hill", "test"],
    ]  # fmt: skip
    assert found.splits == "that of the tables"
    drawn = [take("events", table, audio, random_split=seed) for seed in (0, 0, 1, 2, 3)]
    assert drawn[0].clips.equals(drawn[1].clips)
    assert len({tuple(each.clips["split"]) for each in drawn}) > 1
    assert all(sorted(each.clips["split"]) == ["test", "train", "valid"] for each in drawn)
    assert said(drawn[0].findings, "the split of the tables is not taken, since another one is drawn")
    half = write("e.csv", "path,start_s,end_s,label,split", "a.wav,1,2,wren,train", "c.mp3,1,2,wren,")
    assert "split" not in take("events", half, audio).clips.columns
    assert said(take("events", half, audio).findings, "these recordings have none: c.mp3")
    torn = write("e.csv", "path,start_s,end_s,label,split", "a.wav,1,2,wren,train", "a.wav,3,4,wren,test")
    assert take("events", torn, audio).contradictions == [
        "e.csv, lines 2, 3: split must be one for all of a.wav, got test, train"
    ]


def test_a_class_is_one_label_where_a_split_is_drawn_not_what_several_are_together(write: Write, audio: Path) -> None:
    labels = {"a.wav": "owl;wren", "c.mp3": "owl", "one/b.flac": "wren;bat", "two/b.flac": "bat;owl;wren"}
    table = write("e.csv", "path,start_s,end_s,label", *(f"{name},1,2,{own}" for name, own in labels.items()))
    for seed in range(3):
        clips = take("events", table, audio, multi_label=True, random_split=seed).clips
        assert sorted(clips["split"]) == ["test", "train", "train", "valid"]
        trained = ";".join(clips.loc[clips["split"] == "train", "label"]).split(";")
        assert {*trained} == {"owl", "wren", "bat"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"background_label": "none"}, "--background-label must go with --annotated throughout"),
        (
            {"background_label": "none", "annotated": "throughout", "multi_label": True},
            "--background-label must go with",
        ),
        ({"fmin_hz": 500.0, "fmax_hz": 400.0}, "--fmin-hz must be below --fmax-hz, got 500 and 400"),
        ({"fmin_hz": -1.0}, "fmin_hz must be >= 0"),
        ({"random_split": -1}, "random_split must be a whole number >= 0"),
    ],
)
def test_settings_without_effect_or_out_of_range(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AnnotationSettings(**settings)  # type: ignore[arg-type]


def test_roots_without_annotations_and_folders_without_recordings(write: Write, audio: Path, tmp_path: Path) -> None:
    folder = write("notes.txt", "words").parent
    with pytest.raises(InputError, match=r"ROOT must be a file of annotations or hold such files .*1 text file"):
        take("raven", folder, audio)
    with pytest.raises(InputError, match="ROOT must be a file of annotations or a folder"):
        take("raven", tmp_path / "gone", audio)
    with pytest.raises(InputError, match="AUDIO must be a folder with recordings, or one"):
        take("raven", folder, folder)
    with pytest.raises(InputError, match="must be a folder that can be read"):
        take("raven", folder, tmp_path / "gone")


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("raven", "path,start_s\na.wav,1\n", "must have the columns Selection, Begin Time (s) and End Time (s)"),
        ("raven", "0.5\t3.0\trobin\n", "labels of Audacity do not name their recording"),
        ("events", "start_s,end_s,label\n1,2,wren\n", "must have a column path, got start_s, end_s, label"),
        ("events", "file,filename,start_s,end_s,label\na.wav,a.wav,1,2,wren\n", "rename one of filename, file"),
        ("events", "path,label\na.wav,wren\n", "must say where events begin and end"),
        ("events", "path,start_ms,end_ms,label\na.wav,1,2,wren\n", "must be given in seconds"),
        ("audacity", "1\t2\tcaf\u00e9\n", "it must be text in UTF-8"),
    ],
)
def test_tables_of_another_kind_are_faults(kind: str, content: str, message: str, write: Write, audio: Path) -> None:
    table = write("a.txt")
    table.write_bytes(content.encode("latin-1"))
    found = take(kind, table, audio)
    assert said(found.contradictions, "a.txt: ", message)
    assert found.clips.empty


def test_audacity_has_no_columns(write: Write, audio: Path) -> None:
    assert said(take("audacity", write("a.txt", "1\t2\tx"), audio, group="site").contradictions, "have no columns")

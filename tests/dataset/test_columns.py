"""Columns that say where a clip lies, under the names that other programs give them."""

from pathlib import Path

import numpy as np
import pytest

from audiostride.dataset.bad_rows import BadRows
from audiostride.dataset.manifest import inspect_manifest
from audiostride.errors import InputError


def read(folder: Path, *lines: str, mark: str = ",", **options: object) -> tuple[list[tuple[float, float]], BadRows]:
    """Start and length of each clip of a manifest, beside files named a.wav and b.wav; and what is said of it."""
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(b"")
    (folder / "m.csv").write_text("\n".join(line.replace(",", mark) for line in lines) + "\n")
    clips, bad = inspect_manifest(folder / "m.csv", **options)
    return list(zip(clips["start_s"].tolist(), clips["duration_s"].tolist(), strict=True)), bad


@pytest.mark.parametrize(
    "names",
    [
        "start_s,duration_s", "start_s,end_s", "start_time,end_time", "start,end", "onset,offset", "begin,stop",
        "start,duration", "offset,duration", "OFFSET,DURATION", "onset,duration", "start_time_s,end_time_s",
        "Start (s),End (s)", "Begin Time (s),End Time (s)", "start_seconds,end_seconds", "event_onset,event_offset",
        "t_start,t_end", "clip_start,clip_end", "start,length", "start_sec,dur", "starttime,endtime",
        "time_start,time_end", "Begin Time (s),Delta Time (s)", "start_s,end_s,duration",
        "start,start_time,end", " start_time , end_time ",
    ],
)  # fmt: skip
def test_starts_ends_and_lengths_are_used_under_all_their_names(tmp_path: Path, names: str) -> None:
    length = any(word in names.lower().split(",")[1] for word in ("dur", "length", "delta"))
    rows = {"start_s,end_s,duration": "0.5,0.3", "start,start_time,end": "0.2,0.5"}
    row = rows.get(names, "0.3" if length else "0.5")
    parts, bad = read(tmp_path, f"path,{names}", f"a.wav,0.2,{row}", "b.wav" + "," * (names.count(",") + 1))
    assert len(bad) == 0
    np.testing.assert_allclose(parts[0], (0.2, 0.3), rtol=0, atol=1e-9)
    np.testing.assert_equal(parts[1], (0.0, np.nan))
    other = [name.strip() for name in names.split(",") if name.strip() not in ("start_s", "duration_s")]
    assert len(bad.notes) == bool(other)
    for name in other:
        assert repr(name) in bad.notes[0]


def test_an_end_or_a_length_alone_counts_from_the_start_of_the_file(tmp_path: Path) -> None:
    for name in ("end_s", "end", "duration", "end_time"):
        assert read(tmp_path, f"path,{name}", "a.wav,1.25")[0] == [(0.0, 1.25)]


@pytest.mark.parametrize(
    ("names", "row", "message"),
    [
        ("start_s,start_time", "1,2", "start_s and start_time differ"),
        ("start_s,duration_s,end_s", "1,2,4", "duration_s, end_s do not agree"),
        ("onset,offset,duration", "1,2,4", "duration, offset do not agree"),
        ("start_s,end_s", "2,1", "end_s must be > the start of the clip, got 2 to 1 s"),
        ("start,end", "2,2", "end must be > the start of the clip, got 2 to 2 s"),
        ("start,end", "x,3", "start must be a number of seconds >= 0, got 'x'"),
        ("start,end", "-1,3", "start must be a number of seconds >= 0, got '-1'"),
        ("start,end", "1,0", "end must be a number of seconds > 0, got '0'"),
        ("start,duration", "1,inf", "duration must be a number of seconds > 0, got 'inf'"),
    ],
)
def test_contradictions_are_bad_rows(tmp_path: Path, names: str, row: str, message: str) -> None:
    # The last row holds numbers in every column.
    count = names.count(",") + 1
    good = {"start_s,start_time": "1,1", "start_s,duration_s,end_s": "1,2,3.004", "onset,offset,duration": "1,3,2"}
    parts, bad = read(tmp_path, f"path,{names}", f"a.wav,{row}", "b.wav," + good.get(names, ",".join("12"[:count])))
    assert (bad.lines, bad.kinds, bad.messages) == ([2], ["row"], [message])
    assert np.isnan(parts[0][0]), "nothing is read of it"
    assert parts[1][0] == 1


@pytest.mark.parametrize("names", ["start_ms,end_ms", "start_sample,end_sample", "start_frame,length", "offset"])
def test_what_cannot_be_told_is_an_error_that_names_it(tmp_path: Path, names: str) -> None:
    row = ",".join("12"[: names.count(",") + 1])
    with pytest.raises(InputError, match=f"in seconds, in columns start_s and .*, got {names.split(',')[0]}.*; rename"):
        read(tmp_path, f"path,{names}", f"a.wav,{row}")


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("start_time", "05:30:00", "is no number of seconds"),
        ("length", "1.5", None),
        ("duration_ms", "1500", "not in seconds"),
        ("duration", "0:32", "is no number of seconds"),
        ("end", "dawn", "is no number of seconds"),
        ("end user", "1", None),
        ("start date", "2", None),
        ("backend", "3", None),
    ],
)
def test_what_only_looks_like_a_time_is_left_alone_and_said(
    tmp_path: Path, name: str, value: str, what: str | None
) -> None:
    parts, bad = read(tmp_path, f"path,{name}", f"a.wav,{value}")
    np.testing.assert_equal(parts, [(0.0, np.nan)])
    assert len(bad) == 0
    assert [what is not None and what in note and repr(name) in note for note in bad.notes] == [True] * (
        what is not None
    )


def test_labels_and_groups_are_no_times(tmp_path: Path) -> None:
    parts, bad = read(tmp_path, "path,onset,end", "a.wav,5,2", labels=("onset",), group="end")
    np.testing.assert_equal(parts, [(0.0, np.nan)])
    assert (bad.lines, bad.notes) == ([], [])


RAVEN = "Selection,View,Channel,Begin Time (s),End Time (s),Low Freq (Hz),High Freq (Hz),Begin File,Begin Path"


def test_a_table_of_raven_is_read_by_its_paths_and_offsets(tmp_path: Path) -> None:
    rows = [f"1,Spectrogram 1,1,0.5,3,500,7000,a.wav,{tmp_path}/a.wav,0.5,robin"]
    rows += [f"2,Spectrogram 1,1,11,11.2,500,7000,b.wav,{tmp_path}/b.wav,1,wren"]
    parts, bad = read(tmp_path, f"{RAVEN},File Offset (s),Species", *rows, mark="\t", labels=("Species",))
    np.testing.assert_allclose(parts, [(0.5, 2.5), (1.0, 0.2)], rtol=0, atol=1e-9)
    assert len(bad) == 0
    without = [",".join([*row.split(",")[:-2], row.split(",")[-1]]) for row in rows]
    assert read(tmp_path, f"{RAVEN},Species", without[0], mark="\t")[0] == [(0.5, 2.5)]
    with pytest.raises(InputError, match=r"Begin Time \(s\) of Raven counts on over several recordings; save .*Offset"):
        read(tmp_path, f"{RAVEN},Species", *without, mark="\t")
    unnamed = ",".join(RAVEN.split(",")[:-2])
    with pytest.raises(InputError, match="a table of Raven must be saved with Begin Path"):
        read(tmp_path, unnamed, ",".join(rows[0].split(",")[:7]), mark="\t")


@pytest.mark.parametrize("name", ["file", "filename", "File", "filepath", "audio_path", "file_name", "Begin File"])
def test_the_one_column_that_is_named_as_files_are_is_the_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "m.csv").write_text(f"{name},label\na.wav,x\n")
    clips, bad = inspect_manifest(tmp_path / "m.csv", labels=("label",))
    assert clips["path"].tolist() == [str(tmp_path / "a.wav")]
    assert repr(name) in bad.notes[0]
    (tmp_path / "m.csv").write_text(f"{name},label,audio\na.wav,x,y\n")
    with pytest.raises(
        InputError, match=f"must have a column 'path', .*; rename one of {name}, audio|rename one of audio"
    ):
        inspect_manifest(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text(f"path,{name},label\na.wav,y,x\n")
    assert inspect_manifest(tmp_path / "m.csv")[0]["path"].tolist() == [str(tmp_path / "a.wav")]

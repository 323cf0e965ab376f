"""`audiostride import raven|audacity|events`: what predictions become, what is printed, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from audiostride.commands import importing
from audiostride.dataset.importers import ANNOTATIONS
from audiostride.dataset.importers.annotation_recordings import Recordings
from audiostride.dataset.importers.annotation_rows import read_annotations
from lab.clips import read_clips

Run = Callable[..., int]


def events_of(kind: str, root: Path, audio: Path) -> pd.DataFrame:
    """Recording, start, end and label of what is read, in order."""
    read = read_annotations(kind, root, None, label_column=None, group=None)
    read.find_recordings(Recordings(audio), exact=kind == "audacity")
    assert read.contradictions() == []
    table = read.rows[["recording", "start_s", "end_s", "label"]]
    return table.sort_values(["recording", "start_s", "label"], ignore_index=True)


LEVELS = [["--per-window"], ["--events", "--threshold", "0.4", "--hop", "0.5", "--merge-gap", "0.6"], []]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("two_tasks", [False, True])
def test_what_predict_writes_is_read_with_the_same_events(
    level: list[str],
    two_tasks: bool,
    run_command: Run,
    model_file: Path,
    make_model_file: Callable[..., Path],
    sounds: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = make_model_file(tasks={"kind": ["a", "ü b"], "size": ["small", "large"]}) if two_tasks else model_file
    for name, options in (
        ("p.csv", []), ("p.txt", ["--format", "raven"]), ("raven", ["--format", "raven"]),
        ("audacity", ["--format", "audacity"]),
    ):  # fmt: skip
        assert run_command("predict", model, sounds, "-o", tmp_path / name, *level, *options) == 0
    table = pd.read_csv(tmp_path / "p.csv")
    assert len(table) >= 3
    names = [Path(path).relative_to(sounds).as_posix() for path in table["path"]]
    labels = table["task"] + ": " + table["label"] if two_tasks else table["label"]
    expected = table.assign(recording=names, label=labels)[["recording", "start_s", "end_s", "label"]]
    expected = expected.sort_values(["recording", "start_s", "label"], ignore_index=True)
    for kind, name in (("events", "p.csv"), ("raven", "p.txt"), ("raven", "raven"), ("audacity", "audacity")):
        pd.testing.assert_frame_equal(
            events_of(kind, tmp_path / name, sounds), expected, check_dtype=False, rtol=0, atol=1e-6
        )
        out = tmp_path / f"{kind}-{name}.csv"
        more = ["--multi-label"] if two_tasks else []
        assert run_command("import", kind, tmp_path / name, sounds, "-o", out, *more) == 0
        assert f"-> {out}" in capsys.readouterr().out
    written = {out.read_text() for out in tmp_path.glob("*-*.csv")}
    assert len(written) == 1, "the clips of all formats are the same"
    assert len(read_clips(out, label="label")) == len(pd.read_csv(out))


def test_labels_in_one_file_belong_to_the_recording_that_is_given(
    run_command: Run, model_file: Path, sounds: Path, tmp_path: Path
) -> None:
    one, out = sounds / "two" / "a.wav", tmp_path / "p.txt"
    assert run_command("predict", model_file, one, "-o", out, "--format", "audacity", "--per-window") == 0
    assert run_command("import", "audacity", out, one, "-o", tmp_path / "m.csv") == 0
    clips = pd.read_csv(tmp_path / "m.csv")
    assert clips["path"].unique().tolist() == [str(one)]
    assert clips["start_s"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.fixture
def table(sounds: Path, tmp_path: Path) -> Path:
    file = tmp_path / "tables" / "events.csv"
    file.parent.mkdir()
    lines = ["path,start_s,end_s,label", "one/a.wav,1,2,wren", "two/a.wav,1,2,owl", "two/a.wav,1.5,2,wren"]
    file.write_text("\n".join([*lines, "one/b.flac,,,"]))
    return file


def test_counts_and_next_commands_are_printed(
    run_command: Run, table: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.csv"
    given = ("--annotated", "throughout", "--random-split", 1, "--window-s", 2)
    assert run_command("import", "events", table, sounds, "-o", out, *given, "--multi-label") == 0
    shown = capsys.readouterr().out
    for line in (
        "- 3 annotations in 1 file\n",
        "- taken as parts of files, in seconds: 'end_s' (end); rename what means something else\n",
        "- labels are those of column 'label'\n",
        "- 3 annotated recordings: 2 clips with a label, 7 without: an empty label\n",
        "split scheme: by recording, 80/10/10, drawn with seed 1\n",
        f"9 clips -> {out}\n",
        f"  audiostride train --manifest {out} --label label --multi-label --window-s 2 --out runs/events-label\n",
    ):
        assert line in shown
    clips = pd.read_csv(out, keep_default_na=False)
    assert clips.columns.tolist() == ["path", "start_s", "duration_s", "label", "group", "split"]
    assert clips["label"].value_counts().to_dict() == {"": 7, "wren": 1, "owl;wren": 1}
    counts = [line for line in shown.splitlines() if line.startswith("label, ")]
    assert sum(line.count("owl 1") for line in counts) == 1
    assert sum(line.count("(no label)") for line in counts) == clips[clips["label"] == ""]["split"].nunique()
    assert set(clips["group"]) == {"one/a.wav", "one/b.flac", "two/a.wav"}


def test_a_manifest_in_the_folder_of_tables_is_not_taken_for_one(
    run_command: Run, table: Path, sounds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = table.parent / "m.csv"
    for more in ([], ["--overwrite"]):
        assert run_command("import", "events", table.parent, sounds, "-o", out, *more) == 0
        assert "- 3 annotations in 1 file\n" in capsys.readouterr().out


def test_faults_are_all_listed_and_nothing_is_written_unless_partial(
    run_command: Run, table: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with table.open("a") as file:
        file.write("\none/a.wav,9,12,owl\none/a.wav,1.5,2.5,wren\ngone.wav,1,2,owl\n")
    (table.parent / "other.csv").write_text("path,start_s,end_s,label\none/a.wav,-1,2,owl\n")
    out = tmp_path / "m.csv"
    assert run_command("import", "events", table.parent, sounds, "-o", out) == 2
    shown = capsys.readouterr().err
    for line in (
        f"import events: annotations must fit the recordings in {sounds}, but\n",
        "  events.csv, line 6: 9 to 12 s reaches beyond one/a.wav, which ends at 9.3 s\n",
        "  events.csv, line 7: wren, 1.5 to 2.5 s, overlaps that of line 2, 1 to 2 s\n",
        f"  events.csv, line 8: gone.wav is not in {sounds}\n",
        "  other.csv, line 2: start_s must be a number of seconds >= 0, got '-1'\n",
        "with --partial",
    ):
        assert line in shown
    assert not list(tmp_path.glob("m.csv*"))
    assert run_command("import", "events", table.parent, sounds, "-o", out, "--partial") == 0
    shown = capsys.readouterr().out
    assert "- events.csv, line 8: gone.wav is not in" in shown
    clips = pd.read_csv(out)
    assert clips[["start_s", "label"]].to_numpy().tolist() == [[1.0, "wren"], [1.5, "wren"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["raven", "t"],
            "AUDIO must be given, got nothing: the folder of the recordings, as in audiostride import raven",
        ),
        (["folder", "t", "a"], "AUDIO a must go with one of raven, audacity, events, got folder; leave it out"),
        (["folder", "t", "--window-s", "3"], "--window-s must go with one of raven"),
        (["nsynth", "t", "--multi-label"], "--multi-label must go with one of raven"),
        (
            ["raven", "t", "a", "--splits", "paper-like"],
            "--splits must be official for raven, got paper-like; give --ra",
        ),
        (["raven", "t", "a", "--download"], "--download must go with a data set that has a card, got raven"),
        (["raven", "t", "a", "--window-s", "0"], "window_s must be > 0"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], message: str, run_command: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("import", *arguments, "-o", tmp_path / "m.csv") == 2
    assert message in capsys.readouterr().err


def test_the_names_and_options_are_those_of_the_importers() -> None:
    from dataclasses import fields

    from audiostride.dataset.importers import AnnotationSettings

    assert importing.ANNOTATIONS == ANNOTATIONS
    assert set(importing.OWN) == {field.name for field in fields(AnnotationSettings)}


@pytest.mark.parametrize(("command", "more"), [("train", ["--label", "Label", "--out", "r"]), ("check", [])])
def test_tables_given_as_manifests_are_told_of_the_import(
    command: str, more: list[str], run_command: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("Selection\tView\tBegin Time (s)\tEnd Time (s)\tLabel\n1\tS 1\t1\t2\twren\n")
    Path("l.txt").write_text("1.0\t2.0\twren\n")
    for name, way_out in (("t.txt", "audiostride import raven"), ("l.txt", "audiostride import audacity")):
        option = ["--manifest", name] if command == "train" else [name]
        assert run_command(command, *option, *more) == 2
        assert way_out in capsys.readouterr().err

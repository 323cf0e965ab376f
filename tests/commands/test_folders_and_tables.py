"""Folders and tables as people have them, through every command: the same files, and the same words on the rest."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from audiostride.commands.evaluate import print_metrics
from audiostride.training.config import TrainConfig
from audiostride.training.sources import read_source
from audiostride.training.tasks import Source

Run = Callable[..., int]


def make_files(root: Path, *names: str, seconds: float = 0.1) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        samples = 0.1 * np.random.default_rng(len(name)).standard_normal(round(16000 * seconds))
        soundfile.write(str(root / name), samples, 16000, format="WAV")


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """A folder as it comes from a Mac, a recorder's card and a server, with eight recordings to be taken."""
    root = tmp_path / "set"
    make_files(root, *(f"{name}/{number}.wav" for name in ("cat", "dog") for number in range(3)), "dog/5.WAVE")
    make_files(tmp_path, "elsewhere/session/4.wav")
    make_files(root, "_bird/6.wav", ".trash/7.wav", "dog/@eaDir/8.wav")
    (root / "dog" / "session").symlink_to("../../elsewhere/session")
    (root / "dog" / "up").symlink_to("..")
    (root / "dog" / "._0.wav").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(40))
    for suffix in ("wma", "aac", "mp4"):
        (root / "dog" / f"phone.{suffix}").write_bytes(bytes(64))
    return root


TAKEN = [*(f"cat/{n}.wav" for n in range(3)), *(f"dog/{n}.wav" for n in range(3)), "dog/5.WAVE", "dog/session/4.wav"]
SAID = ["3 files of audio or video left out: 1 .aac, 1 .mp4, 1 .wma", "left out: .trash/, _bird/", "left out: dog/up"]


def taken_by(
    verb: str, run: Run, source: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[list[str], str]:
    """The files that a command takes of a folder, from the root on, and what it says."""
    out = source.parent / "out"
    if verb == "check":
        run("check", source, "--json")
        document = json.loads(capsys.readouterr().out)
        assert document["summary"]["clips"] == document["summary"]["measured"] == len(TAKEN)
        return TAKEN, "\n".join(note["message"] for note in document["notes"])
    if verb == "import":
        assert run("import", "folder", source, "-o", source / "m.csv") == 0
        return pd.read_csv(source / "m.csv")["path"].tolist(), capsys.readouterr().out
    if verb == "prepare":
        assert run("prepare", source, "-o", out) == 0
        assert run("predict", model, out, "-o", out / "p.csv") == 0
        found = pd.read_csv(out / "p.csv")["path"]
    elif verb == "predict":
        assert run("predict", model, source, "-o", source.parent / "p.csv") == 0
        found = pd.read_csv(source.parent / "p.csv")["path"]
    else:
        config = TrainConfig(manifest=str(source), out=str(out), random_split=0)
        clips, lines = read_source(config.sources()[0], config)
        return [path[1:] for path in clips["clip_name"]], "\n".join(lines)
    return [os.path.relpath(path, source) for path in found], capsys.readouterr().err


VERBS = ("check", "import", "prepare", "predict", "train")


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_takes_the_same_files_of_a_folder_and_says_what_it_leaves_out(
    verb: str, run_command: Run, messy: Path, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, said = taken_by(verb, run_command, messy, model_file, capsys)
    assert sorted(found) == sorted(TAKEN)
    for part in SAID:
        assert said.count(part) == 1


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("fault", ["latin-1", "return", "locked"])
def test_every_command_names_what_it_cannot_read_or_name(
    verb: str, fault: str, run_command: Run, messy: Path, model_file: Path, lock: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    name = {"latin-1": os.fsdecode(b"cat/caf\xe9.wav"), "return": "cat/a\rb.wav", "locked": "cat/locked/9.wav"}[fault]
    make_files(messy, "cat/new.wav")
    (messy / name).parent.mkdir(exist_ok=True)
    (messy / "cat" / "new.wav").rename(messy / name)
    if fault == "locked":
        lock(messy / "cat" / "locked")
    shown = {"latin-1": r"cat/caf\udce9.wav must have a name", "return": r"cat/a\rb.wav must have a name"}
    part = shown.get(fault, "cat/locked cannot be read: Permission denied")
    out = messy.parent / "out"
    commands = {
        "check": ["check", messy],
        "import": ["import", "folder", messy, "-o", messy.parent / "m.csv"],
        "prepare": ["prepare", messy, "-o", out],
        "predict": ["predict", model_file, messy, "-o", messy.parent / "p.csv"],
        "train": ["train", "--manifest", messy, "--random-split", "0", "--out", out],
    }
    assert run_command(*commands[verb]) == (1 if verb == "check" else 2)
    said = capsys.readouterr()
    assert part in said.out + said.err
    assert "\r" not in said.out
    if verb == "predict":
        assert len(pd.read_csv(messy.parent / "p.csv")) == len(TAKEN)
        [(path, reason)] = pd.read_csv(messy.parent / "p.errors.csv").itertuples(index=False, name=None)
        assert part in reason
        assert str(messy / "cat") in path
    more = {"import": ["--partial"], "prepare": ["--on-error", "skip"]}
    if verb in more:
        assert run_command(*commands[verb], *more[verb]) == 0
        said = capsys.readouterr()
        assert part in said.out + said.err
        assert f"{len(TAKEN)} clips" in said.out


@pytest.mark.parametrize("options", [["--per-clip"], ["--hop", "0.5"], ["--events", "--threshold", "0.3"]])
def test_what_predict_writes_is_a_manifest_that_means_the_same(
    run_command: Run, model_file: Path, tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    make_files(tmp_path, "rec/a.wav", "rec/b.wav", seconds=2.34567)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    for out in ("p.csv", "elsewhere/p.csv"):
        assert run_command("predict", model_file, "rec", "-o", out, *options) == 0
        written = pd.read_csv(out)
        monkeypatch.chdir(tmp_path / "elsewhere")  # the paths lead to the files from anywhere
        capsys.readouterr()
        run_command("check", tmp_path / out, "--json")
        document = json.loads(capsys.readouterr().out)
        assert document["summary"]["measured"] == document["summary"]["clips"] == len(written)
        lengths = (written["end_s"] - written["start_s"]).round(6)
        assert document["summary"]["duration_s"]["max"] == pytest.approx(lengths.max(), abs=2e-4)
        assert run_command("predict", model_file, tmp_path / out, "-o", "again.csv", "--overwrite", "--per-clip") == 0
        again = pd.read_csv("again.csv")
        pairs = written[["start_s", "end_s"]].drop_duplicates()  # events of two classes may be one part
        np.testing.assert_allclose(again[["start_s", "end_s"]].drop_duplicates(), pairs, rtol=0, atol=2e-4)
        if options == ["--per-clip"]:
            assert again["label"].tolist() == written["label"].tolist()
            np.testing.assert_allclose(again["score"], written["score"], atol=1e-3)
        monkeypatch.chdir(tmp_path)


def test_predict_reads_no_splits_and_takes_lists_and_tables_of_other_separators(
    run_command: Run, model_file: Path, tmp_path: Path
) -> None:
    make_files(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "todo.csv").write_text("path,split\na.wav,unlabelled\n")
    (tmp_path / "todo.tsv").write_text("file\tonset\toffset\nb.wav\t0.02\t0.05\n")
    (tmp_path / "list.txt").write_text("c.wav\na.wav\n")
    names = [tmp_path / name for name in ("todo.csv", "todo.tsv", "list.txt")]
    assert run_command("predict", model_file, *names, "-o", tmp_path / "p.csv") == 0
    found = pd.read_csv(tmp_path / "p.csv")
    assert [Path(path).name for path in found["path"]] == ["a.wav", "b.wav", "c.wav"]
    assert found[["start_s", "end_s"]].to_numpy().tolist() == [[0, 0.1], [0.02, 0.05], [0, 0.1]]


def test_the_drawn_split_of_several_tasks_keeps_the_classes_of_each(tmp_path: Path) -> None:
    make_files(tmp_path, *(f"{number}.wav" for number in range(20)))
    rows = [f"{number}.wav,{'xy'[number % 2]},{number // 2 if number < 18 else number}" for number in range(20)]
    (tmp_path / "m.csv").write_text("\n".join(["path,kind,pitch", *rows]) + "\n")
    source = Source(str(tmp_path / "m.csv"), {"kind": "kind", "pitch": "pitch"})
    for seed in range(5):
        clips, lines = read_source(source, TrainConfig(manifest=source.manifest, out="run", random_split=seed))
        trained = clips[clips["split"] == "train"]
        assert (set(trained["kind"]), set(trained["pitch"])) == ({"x", "y"}, set(clips["pitch"]))
        assert "18, 19" in lines[-1]


def test_training_keeps_rare_classes_and_says_so_and_that_labels_are_several(
    run_command: Run, tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {"common": 10, "usual": 10, "rare": 2, "single": 1, "common;usual": 3}
    rows = [(f"{number}.wav", label) for label, count in counts.items() for number in range(count)]
    rows = [(f"{label.replace(';', '')}{name}", label) for name, label in rows]
    make_files(tmp_path, *(name for name, _ in rows))
    pd.DataFrame(rows, columns=["path", "label"]).to_csv(tmp_path / "m.csv", index=False)
    options = ["--manifest", tmp_path / "m.csv", "--random-split", "0", "--out", tmp_path / "run"]
    assert run_command("train", *options, *tiny) == 0
    said = capsys.readouterr().out
    assert (
        "3 clips with several labels in one cell, such as 'common;usual': each such text is taken as one class" in said
    )
    assert "classes with all clips in train, too few to be in valid and test: rare, single" in said
    assert "5 classes; 20 train, 3 valid, 3 test clips" in said


def test_a_folder_with_a_manifest_is_that_manifest(
    run_command: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_files(tmp_path, "set/dog/a.wav", "set/cat/b.wav", "set/cat/c.wav")
    (tmp_path / "set" / "manifest.csv").write_text("path,species\ndog/a.wav,wolf\n")
    said = "holds manifest.csv, which is taken and not its folders"
    run_command("check", tmp_path / "set", "--json")
    document = json.loads(capsys.readouterr().out)
    assert document["summary"]["clips"] == 1
    assert any(said in note["message"] for note in document["notes"])
    assert run_command("prepare", tmp_path / "set", "-o", tmp_path / "store") == 0
    shown = capsys.readouterr()
    assert said in shown.err
    assert "1 clips" in shown.out or "1 clip" in shown.out
    clips, notes = read_source(
        Source(str(tmp_path / "set"), {"s": "species"}), TrainConfig(manifest="m", out="o"), own=False
    )
    assert clips["label of s"].tolist() == ["wolf"]
    assert any(said in note for note in notes)
    assert run_command("train", tmp_path / "set", "--label", "kind") == 2
    assert "must have a column 'kind', got path, species" in capsys.readouterr().err
    run_command("check", tmp_path / "store", "--json")  # a store has clips of its own
    assert json.loads(capsys.readouterr().out)["summary"]["clips"] == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("dog\\\\a.wav", "but does with / in the place of"),
        ("~/dog/a.wav", "~ means nothing in a table: write the folder out, or give --audio-root"),
    ],
)
def test_paths_of_other_systems_are_named_with_the_cure(
    run_command: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, said: str
) -> None:
    make_files(tmp_path, "dog/a.wav")
    (tmp_path / "m.csv").write_text(f"path,label\n{path},x\n".replace("\\\\", "\\"))
    run_command("check", tmp_path / "m.csv")
    assert said in capsys.readouterr().out
    assert run_command("train", tmp_path / "m.csv", "--random-split", "0", "--out", tmp_path / "o") == 2
    assert said in capsys.readouterr().err


def test_where_no_file_is_found_the_root_is_asked_for(
    run_command: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.csv").write_text("path,label\na.wav,x\nb.wav,y\n")
    run_command("check", tmp_path / "m.csv")
    said = "no file is where the table says; --audio-root FOLDER names what its paths are relative to"
    assert said in capsys.readouterr().out
    make_files(tmp_path, "a.wav")
    run_command("check", tmp_path / "m.csv")
    assert said not in capsys.readouterr().out


def test_bad_files_of_a_folder_are_named_without_lines(
    run_command: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_files(tmp_path, *(f"set/{name}/{number}.wav" for name in ("cat", "dog") for number in range(4)))
    (tmp_path / "set" / "dog" / "bad.wav").write_text("no audio")
    for command in (["train", tmp_path / "set", "--random-split", "0", "--out", tmp_path / "o"],
                    ["prepare", tmp_path / "set", "-o", tmp_path / "store"]):  # fmt: skip
        assert run_command(*command) == 2
        shown = capsys.readouterr().err
        assert "1 bad file\n  audio file " in shown
        assert "line" not in shown
        assert "mend or remove these files" in shown
    # With a manifest in it there are lines again.
    rows = [f"{name}/{number}.wav,{name}" for name in ("cat", "dog") for number in range(4)]
    (tmp_path / "set" / "manifest.csv").write_text("\n".join(["path,label", "dog/bad.wav,dog", *rows]) + "\n")
    assert run_command("prepare", tmp_path / "set", "-o", tmp_path / "store") == 2
    assert "1 bad row\n  line 2: audio file " in capsys.readouterr().err


def test_a_folder_has_no_official_split(run_command: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_files(tmp_path, "set/dog/a.wav", "set/cat/b.wav")
    assert run_command("import", "folder", tmp_path / "set", "-o", tmp_path / "set" / "m.csv") == 0
    assert "split scheme" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("best_step", "advice"), [(100, "look at the data first"), (900, "train longer (--max-steps), or look at the data")]
)
def test_more_steps_are_advised_where_they_may_help(
    best_step: int, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"task": "kind", "split": "test", "accuracy": 0.5, "interval": (0.4, 0.6), "n_clips": 9, "steps": 1000}
    print_metrics({**metrics, "best_step": best_step, "baseline_majority": 0.3, "baseline_classic": 0.6})
    assert capsys.readouterr().out.splitlines()[-1] == f"the support vector machine is as good or better: {advice}"

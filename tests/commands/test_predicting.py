"""`audiostride predict` on manifests, stores and parts of files, and what it does where audio is bad."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

Run = Callable[..., int]
COLUMNS = ["path", "start_s", "end_s", "label", "score"]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A manifest of three parts of a recording of 6.5 s, half tone and half noise, and of a whole file."""
    rng = np.random.default_rng(0)
    tone = 0.5 * np.sin(np.arange(48000) / 5)
    soundfile.write(str(tmp_path / "long.wav"), np.concatenate([tone, rng.standard_normal(56000) / 10]), 16000)
    soundfile.write(str(tmp_path / "short.flac"), tone[:8000], 16000)
    rows = ["long.wav,tone,0.5,1.25", "long.wav,noise,3,", "long.wav,noise,4.5,2", "short.flac,tone,,"]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,start_s,duration_s", *rows]) + "\n")
    return tmp_path / "m.csv"


def predict(run_command: Run, run: Path, *paths: object, code: int = 0) -> pd.DataFrame:
    """What `predict` writes; the first path says where."""
    out = Path(str(paths[0])).parent / "predictions.csv"
    assert run_command("predict", run, *paths, "-o", out, "--overwrite") == code
    return pd.read_csv(out)


def test_parts_count_their_seconds_from_the_start_of_the_file(
    run_command: Run, trained_run: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = predict(run_command, trained_run, parts, "--per-clip")
    assert f"4 of 4 files -> {tmp_path / 'predictions.csv'}" in capsys.readouterr().out
    assert found.columns.tolist() == COLUMNS
    assert [Path(path).name for path in found["path"]] == ["long.wav"] * 3 + ["short.flac"]
    assert found["start_s"].tolist() == [0.5, 3, 4.5, 0]
    assert found["end_s"].tolist() == [1.75, 6.5, 6.5, 0.5]


def test_windows_of_parts_count_from_the_start_of_the_file_too(
    run_command: Run, trained_run: Path, parts: Path
) -> None:
    found = predict(run_command, trained_run, parts, "--per-window")
    assert found["start_s"].tolist() == [0.5, 1.5, 3, 4, 5, 6, 4.5, 5.5, 0]
    assert found["end_s"].tolist() == [1.5, 1.75, 4, 5, 6, 6.5, 5.5, 6.5, 0.5]


def test_a_part_is_predicted_like_a_file_that_holds_it_alone(
    run_command: Run, trained_run: Path, parts: Path, tmp_path: Path
) -> None:
    found = predict(run_command, trained_run, parts, "--per-clip")
    samples, _ = soundfile.read(tmp_path / "long.wav", dtype="int16")
    for number, (first, last) in enumerate([(8000, 28000), (48000, 104000), (72000, 104000)]):
        soundfile.write(str(tmp_path / f"{number}.wav"), samples[first:last], 16000, subtype="PCM_16")
        alone = predict(run_command, trained_run, tmp_path / f"{number}.wav", "--per-clip")
        assert alone[["label", "score"]].equals(found.loc[[number], ["label", "score"]].reset_index(drop=True))
    assert found["score"][:3].nunique() > 1  # they are not the same to the model


def test_a_store_is_predicted_like_its_manifest(
    run_command: Run, trained_run: Path, parts: Path, tmp_path: Path
) -> None:
    assert run_command("prepare", parts, "-o", tmp_path / "store") == 0
    for options in (["--per-clip"], ["--per-window"]):
        from_manifest = predict(run_command, trained_run, parts, *options)
        assert predict(run_command, trained_run, tmp_path / "store", *options).equals(from_manifest)
    # The files themselves are not needed any more.
    (tmp_path / "long.wav").unlink()
    assert predict(run_command, trained_run, tmp_path / "store", "--per-window").equals(from_manifest)


def test_files_folders_manifests_and_stores_go_together_in_order(
    run_command: Run, trained_run: Path, parts: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("folder/b.wav", "folder/a.wav", "c.wav"):
        soundfile.write(str(tmp_path / name), np.zeros(800), 16000)
    assert run_command("prepare", parts, "-o", tmp_path / "store") == 0
    (tmp_path / "list.csv").write_text("path,start_s\nlong.wav,1\nc.wav,0.01\n")
    given = [tmp_path / name for name in ("store", "c.wav", "folder", "list.csv")]
    found = predict(run_command, trained_run, *given, "--per-clip")
    names = [*["long.wav"] * 3, "short.flac", "c.wav", "a.wav", "b.wav", "long.wav", "c.wav"]
    assert [Path(path).name for path in found["path"]] == names


def add_bad_rows(manifest: Path) -> None:
    (manifest.parent / "text.wav").write_text("no audio")
    rows = ["text.wav,x,,", "gone.wav,x,,", "long.wav,x,7,", "long.wav,x,6,1", "short.flac,x,0.25,"]
    with manifest.open("a") as file:
        file.write("\n".join(rows) + "\n")


BAD = ["text.wav cannot be read", "gone.wav does not exist", "start_s=7", "start_s=6, duration_s=1"]


def test_what_cannot_be_read_is_named_and_the_rest_is_predicted(
    run_command: Run, trained_run: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_bad_rows(parts)
    found = predict(run_command, trained_run, parts, "--per-clip", code=2)
    assert found["start_s"].tolist() == [0.5, 3, 4.5, 0, 0.25]
    shown = capsys.readouterr()
    assert all(message in shown.err for message in BAD)
    assert "Traceback" not in shown.err
    assert "5 of 9 files" in shown.out


def test_the_first_bad_file_may_end_it_and_nothing_is_written(
    run_command: Run, trained_run: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_bad_rows(parts)
    out = tmp_path / "p.csv"
    assert run_command("predict", trained_run, parts, "-o", out, "--on-error", "stop") == 2
    shown = capsys.readouterr().err
    assert f"audiostride: audio file {tmp_path / 'text.wav'} cannot be read" in shown
    assert not any(message in shown for message in BAD[1:])
    assert not out.exists()
    assert run_command("predict", trained_run, tmp_path / "long.wav", "-o", out, "--on-error", "stop") == 0
    assert len(pd.read_csv(out)) == 7, "a row for each second"


def test_when_nothing_can_be_read_nothing_is_written(
    run_command: Run, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    assert run_command("predict", trained_run, tmp_path / "text.wav", "-o", tmp_path / "p.csv") == 2
    shown = capsys.readouterr().err
    assert "text.wav cannot be read" in shown
    assert "none of 1 files could be read" in shown
    assert not (tmp_path / "p.csv").exists()


def test_rows_that_say_nothing_usable_are_listed_before_anything_is_read(
    run_command: Run, trained_run: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with parts.open("a") as file:
        file.write("long.wav,x,soon,\n,x,,\n")
    assert run_command("predict", trained_run, parts, "-o", tmp_path / "p.csv") == 2
    shown = capsys.readouterr().err
    assert "2 bad rows" in shown
    assert "line 6: start_s must be a number of seconds >= 0, got 'soon'" in shown
    assert "line 7: path is empty" in shown


def test_a_manifest_that_is_not_there_is_named(
    run_command: Run, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("predict", trained_run, tmp_path / "none.csv", "-o", tmp_path / "p.csv") == 2
    assert "none.csv does not exist" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_write_the_table_of_one(run_command: Run, trained_run: Path, parts: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF and nothing else")
    soundfile.write(str(tmp_path / "last.wav"), np.zeros(800), 16000)
    paths = [parts, tmp_path / "broken.wav", tmp_path / "last.wav"]
    assert run_command("predict", trained_run, *paths, "-o", tmp_path / "one.csv", "--device", "cpu") == 2
    command = [sys.executable, "-m", "audiostride", "predict", str(trained_run), *map(str, paths)]
    command += ["-o", str(tmp_path / "two.csv"), "--device", "cpu", "--devices", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert "5 of 6 files -> " in done.stdout
    assert done.stderr.count("broken.wav cannot be read") == 1
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert (tmp_path / "two.errors.csv").read_bytes() == (tmp_path / "one.errors.csv").read_bytes()
    assert {path.name for path in tmp_path.glob("two*")} == {"two.csv", "two.errors.csv"}, "no parts are left"


def test_what_cannot_be_read_is_listed_beside_the_output(run_command: Run, trained_run: Path, parts: Path) -> None:
    folder = parts.parent
    add_bad_rows(parts)
    predict(run_command, trained_run, parts, code=2)
    listed = pd.read_csv(folder / "predictions.errors.csv")
    assert listed.columns.tolist() == ["path", "reason"]
    assert [Path(path).name for path in listed["path"]] == ["text.wav", "gone.wav", "long.wav", "long.wav"]
    assert all(message in reason for message, reason in zip(BAD, listed["reason"], strict=True))
    predict(run_command, trained_run, folder / "long.wav")
    assert not (folder / "predictions.errors.csv").exists(), "of an earlier job"


def test_patterns_match_files_and_folders(
    run_command: Run, trained_run: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("deep/b.wav", "deep/er/a.flac", "deep/[1].wav"):
        soundfile.write(str(tmp_path / name), np.zeros(800), 16000)
    (tmp_path / "deep" / "notes.txt").write_text("no audio")

    def names(*patterns: str) -> list[str]:
        return [
            Path(path).name for path in predict(run_command, trained_run, *(tmp_path / p for p in patterns))["path"]
        ]

    assert names("*.flac", "deep/*.wav") == ["short.flac", "[1].wav", "b.wav"]
    assert names("deep/**") == ["[1].wav", "b.wav", "a.flac"]
    assert names("deep/*") == ["[1].wav", "b.wav", "a.flac"]
    assert names("deep/[1].wav") == ["[1].wav"], "a name that exists is no pattern"
    for pattern, message in [("*.mp3", "it matches nothing"), ("deep/n*", "1 files without a suffix of audio")]:
        assert run_command("predict", trained_run, tmp_path / pattern, "-o", tmp_path / "p.csv") == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hop", "0"], "hop must lie in (0, 1] s"),
        (["--hop", "-1"], "hop must lie in (0, 1] s"),
        (["--hop", "1.5"], "got 1.5; leave it out"),
        (["--hop", "1e-9"], "at least a sample"),
        (["--threshold", "0.7"], "threshold is for events only, got 0.7; add --events"),
        (["--merge-gap", "1", "--per-window"], "merge-gap is for events only"),
        (["--events", "--threshold", "1.1"], "threshold must be a probability in [0, 1], got 1.1"),
        (["--events", "--threshold", "-0.1"], "threshold must be a probability in [0, 1], got -0.1"),
        (["--events", "--merge-gap", "-1"], "merge_gap_s must be >= 0 s, got -1.0"),
        (["--events", "--per-window"], "exclude each other"),
        (["--batch-size", "0"], "batch_size must be a whole number >= 1, got 0"),
        (["--workers", "0"], "workers must be a whole number >= 1, got 0"),
        (["--format", "xls"], "--format must be one of csv, parquet, jsonl, raven, audacity, kaleidoscope, got 'xls'"),
        (["--format", "raven"], "-o must end in .txt for --format raven"),
        (["-o", "p.xlsx"], "-o must end in .csv, .parquet, .jsonl, or --format must say what it is, got p.xlsx"),
        (["-o", "p.txt"], ".txt may be raven or audacity, got p.txt; say which with --format"),
        (["-o", "p", "--format", "csv"], "-o must end in .csv for --format csv"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    run_command: Run, model_file: Path, parts: Path, options: list[str], message: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(parts.parent)
    before = sorted(parts.parent.rglob("*"))
    assert run_command("predict", model_file, "long.wav", "-o", "p.csv", *options) == 2
    assert message in capsys.readouterr().err
    assert sorted(parts.parent.rglob("*")) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is unwritable to root")
def test_a_place_that_cannot_be_written_is_named(
    run_command: Run, model_file: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (parts.parent / "locked").mkdir(mode=0o500)
    out = parts.parent / "locked" / "p.csv"
    assert run_command("predict", model_file, parts.parent / "long.wav", "-o", out) == 2
    assert "must be a folder that can be written" in capsys.readouterr().err


def test_a_place_that_is_no_folder_is_named(
    run_command: Run, model_file: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (parts.parent / "p.csv.partial").write_text("in the way")
    assert run_command("predict", model_file, parts.parent / "long.wav", "-o", parts.parent / "p.csv") == 2
    assert "p.csv.partial must be a folder that can be written" in capsys.readouterr().err
    assert not (parts.parent / "p.csv").exists()


@pytest.mark.parametrize("options", [[], ["--per-window"], ["--events"], ["--hop", "0.3", "--events"]])
def test_numbers_do_not_depend_on_batches_workers_and_neighbours(
    run_command: Run, model_file: Path, parts: Path, options: list[str]
) -> None:
    folder = parts.parent
    tables = [
        predict(run_command, model_file, parts, folder / "long.wav", *options, *more)
        for more in ([], ["--batch-size", "1"], ["--batch-size", "5", "--workers", "1"], ["--workers", "7"])
    ]
    alone = [predict(run_command, model_file, path, *options) for path in (parts, folder / "long.wav")]
    for table in [*tables[1:], pd.concat(alone, ignore_index=True)]:
        # Scores have six digits, and float32 logits of a row may differ in their last bits by its place in a batch.
        pd.testing.assert_frame_equal(table, tables[0], rtol=0, atol=2e-6)
    assert tables[0]["label"].nunique() > 1


def test_windows_of_a_shorter_hop_hold_those_of_a_longer_one(run_command: Run, model_file: Path, parts: Path) -> None:
    recording = parts.parent / "long.wav"  # 6.5 s
    fine = predict(run_command, model_file, recording, "--per-window", "--hop", "0.25")
    assert fine["start_s"].tolist() == [number / 4 for number in range(23)]
    assert fine["end_s"].tolist() == [number / 4 + 1 for number in range(23)]
    coarse = predict(run_command, model_file, recording, "--per-window")
    assert coarse["end_s"].tolist() == [1, 2, 3, 4, 5, 6, 6.5]
    both = fine.merge(coarse, on=["start_s", "end_s"], suffixes=("", "_coarse"))
    assert len(both) == 6
    assert both["label"].equals(both["label_coarse"])
    np.testing.assert_allclose(both["score"], both["score_coarse"], atol=2e-6)

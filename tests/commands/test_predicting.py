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
    found = predict(run_command, trained_run, parts)
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
    found = predict(run_command, trained_run, parts)
    samples, _ = soundfile.read(tmp_path / "long.wav", dtype="int16")
    for number, (first, last) in enumerate([(8000, 28000), (48000, 104000), (72000, 104000)]):
        soundfile.write(str(tmp_path / f"{number}.wav"), samples[first:last], 16000, subtype="PCM_16")
        alone = predict(run_command, trained_run, tmp_path / f"{number}.wav")
        assert alone[["label", "score"]].equals(found.loc[[number], ["label", "score"]].reset_index(drop=True))
    assert found["score"][:3].nunique() > 1  # they are not the same to the model


def test_a_store_is_predicted_like_its_manifest(
    run_command: Run, trained_run: Path, parts: Path, tmp_path: Path
) -> None:
    assert run_command("prepare", parts, "-o", tmp_path / "store") == 0
    for options in ([], ["--per-window"]):
        from_manifest = predict(run_command, trained_run, parts, *options)
        assert predict(run_command, trained_run, tmp_path / "store", *options).equals(from_manifest)
    # The files themselves are not needed any more.
    (tmp_path / "long.wav").unlink()
    assert predict(run_command, trained_run, tmp_path / "store", "--per-window").equals(from_manifest)


def test_files_folders_manifests_and_stores_go_together_in_order(
    run_command: Run, trained_run: Path, parts: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("b.wav", "a.wav"):
        soundfile.write(str(tmp_path / "folder" / name), np.zeros(800), 16000)
    assert run_command("prepare", parts, "-o", tmp_path / "store") == 0
    found = predict(run_command, trained_run, tmp_path / "store", tmp_path / "short.flac", tmp_path / "folder", parts)
    of_manifest = ["long.wav"] * 3 + ["short.flac"]
    names = [*of_manifest, "short.flac", "a.wav", "b.wav", *of_manifest]
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
    found = predict(run_command, trained_run, parts, code=2)
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
    assert len(pd.read_csv(out)) == 1


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
def test_two_processes_write_a_part_each_which_are_the_table_of_one(
    run_command: Run, trained_run: Path, parts: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF and nothing else")
    paths = [parts, tmp_path / "broken.wav", tmp_path / "short.flac"]
    assert run_command("predict", trained_run, *paths, "-o", tmp_path / "one.csv", "--device", "cpu") == 2
    command = [sys.executable, "-m", "audiostride", "predict", str(trained_run), *map(str, paths)]
    command += ["-o", str(tmp_path / "two.csv"), "--device", "cpu", "--devices", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert "5 of 6 files -> " in done.stdout
    assert done.stderr.count("broken.wav cannot be read") == 1
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    written = [pd.read_csv(tmp_path / f"two.part{rank}of2.csv") for rank in (0, 1)]
    assert [len(table) for table in written] == [3, 2]
    pd.testing.assert_frame_equal(pd.concat(written, ignore_index=True), pd.read_csv(tmp_path / "two.csv"))
    assert not list(tmp_path.glob("*.partial"))

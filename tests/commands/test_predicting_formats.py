"""What `audiostride predict` writes: each format read back, and the events that it tells."""

import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from audiostride import AudioClassifier, InputError, load_classifier
from audiostride.audio.decoding import probe_audio
from audiostride.inference.granularity import EventResult, softmax
from audiostride.inference.job import PredictionJob
from audiostride.inference.recordings import Recording
from audiostride.inference.settings import PredictionSettings
from audiostride.inference.tiling import Tiling
from audiostride.models import ClassifierConfig, save_classifier

Run = Callable[..., int]


@pytest.fixture(scope="module")
def two_tasks(make_model_file) -> Path:
    return make_model_file(tasks={"kind": ["a", "b", "ü c"], "size": ["small", "large"]})


@pytest.fixture(params=[[], ["--events", "--threshold", "0.4", "--hop", "0.5"], ["--per-clip"]])
def level(request: pytest.FixtureRequest) -> list[str]:
    return request.param


@pytest.fixture
def predict(run_command: Run, two_tasks: Path, sounds: Path, level: list[str], tmp_path: Path):
    """Writes predictions on all sounds to a name."""

    def run(name: str, *options: str, path: Path = sounds, model: Path = two_tasks) -> Path:
        assert run_command("predict", model, path, "-o", tmp_path / name, *level, *options) == 0
        assert not list(tmp_path.glob("*.partial"))
        return tmp_path / name

    return run


def test_parquet_and_json_lines_hold_the_rows_of_the_csv(predict, level: list[str]) -> None:
    table = pd.read_csv(predict("p.csv"))
    assert table.columns.tolist() == ["path", "start_s", "end_s", "task", "label", "score"]
    assert len(table) >= 6
    pd.testing.assert_frame_equal(pd.read_parquet(predict("p.parquet")), table)
    lines = [json.loads(line) for line in predict("p.jsonl").read_text(encoding="utf-8").splitlines()]
    pd.testing.assert_frame_equal(pd.DataFrame(lines), table)
    assert predict("other.dat", "--format", "csv").read_bytes() == (predict("q.csv")).read_bytes()


def raven_rows(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, sep="\t", quoting=csv.QUOTE_NONE)


def test_raven_gets_a_selection_table(predict, two_tasks: Path, sounds: Path) -> None:
    table, found = pd.read_csv(predict("p.csv")), raven_rows(predict("p.txt", "--format", "raven"))
    assert found.columns.tolist() == [
        "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)",
        "Begin File", "Begin Path", "File Offset (s)", "Task", "Label", "Score",
    ]  # fmt: skip
    assert found["Selection"].tolist() == list(range(1, len(table) + 1))
    assert set(found["View"]) == {"Spectrogram 1"}
    same = {"Begin Path": "path", "File Offset (s)": "start_s"}
    for name, column in {**same, "Task": "task", "Label": "label", "Score": "score"}.items():
        assert found[name].tolist() == table[column].tolist()
    # Raven shows the files one after the other: each begins where those before it end.
    begins = table["path"].map({str(sounds / "one/a.wav"): 0.0, str(sounds / "one/b.flac"): 9.3,
                                str(sounds / "two/a.wav"): 9.3 + 0.4})  # fmt: skip
    for name, column in (("Begin Time (s)", "start_s"), ("End Time (s)", "end_s")):
        assert found[name].tolist() == pytest.approx((begins + table[column]).tolist(), abs=5e-5)
    assert (found["Begin Time (s)"] != table["start_s"]).any()
    assert found["Begin File"].tolist() == [os.path.basename(path) for path in table["path"]]
    config = load_classifier(two_tasks).config
    assert (found["Low Freq (Hz)"].unique().tolist(), found["High Freq (Hz)"].unique().tolist()) == ([60], [7800])
    assert config.fmax_hz == 7800


def test_raven_gets_a_folder_with_a_table_for_each_recording(predict, sounds: Path) -> None:
    table, folder = pd.read_csv(predict("p.csv")), predict("labels", "--format", "raven")
    names = {"one/a.wav", "one/b.flac", "two/a.wav"}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {f"{name}.selections.txt" for name in names}
    for name in names:
        own, found = table[table["path"] == str(sounds / name)], raven_rows(folder / f"{name}.selections.txt")
        assert found["Selection"].tolist() == list(range(1, len(own) + 1))
        assert found["Begin Time (s)"].tolist() == own["start_s"].tolist()
        assert found["Label"].tolist() == own["label"].tolist()


def test_raven_sees_no_frequency_above_half_the_rate_of_a_recording(
    run_command: Run, model_file: Path, tmp_path: Path
) -> None:
    for rate in (8000, 44100):
        soundfile.write(str(tmp_path / f"{rate}.wav"), np.zeros(2 * rate), rate)
    assert run_command("predict", model_file, tmp_path, "-o", tmp_path / "p.txt", "--format", "raven") == 0
    found = raven_rows(tmp_path / "p.txt")
    assert found.groupby("Begin File")["High Freq (Hz)"].unique().map(list).to_dict() == {
        "44100.wav": [7800.0],
        "8000.wav": [4000.0],
    }


def test_kaleidoscope_gets_folder_name_offset_and_duration(predict, sounds: Path) -> None:
    table, found = pd.read_csv(predict("p.csv")), pd.read_csv(predict("k.csv", "--format", "kaleidoscope"))
    assert found.columns.tolist()[:5] == ["INDIR", "FOLDER", "IN FILE", "OFFSET", "DURATION"]
    places = found["INDIR"] + "/" + found["FOLDER"] + "/" + found["IN FILE"]
    assert places.tolist() == table["path"].tolist()
    assert set(found["FOLDER"]) == {"one", "two"}
    assert found["OFFSET"].tolist() == table["start_s"].tolist()
    np.testing.assert_allclose(found["DURATION"], table["end_s"] - table["start_s"], atol=1e-9)
    assert found[["task", "label", "score"]].equals(table[["task", "label", "score"]])


NAMES_WITH_TIMES = {
    "20240531_235958.WAV": ("2024-05-31", "23:59:58"),
    "SITE-7_20240531_235958.wav": ("2024-05-31", "23:59:58"),
    "A_20240531T000000Z.wav": ("2024-05-31", "00:00:00"),
    "rec 2024-05-31.wav": ("", ""),
    "20241331_000000.wav": ("", ""),
    "120240531_235958.wav": ("", ""),
}


@pytest.mark.parametrize(("name", "expected"), NAMES_WITH_TIMES.items())
def test_names_of_recorders_say_when_it_was(
    run_command: Run, model_file: Path, tmp_path: Path, name: str, expected: tuple[str, str]
) -> None:
    soundfile.write(str(tmp_path / name), np.zeros(48000), 16000)
    given = ["predict", model_file, tmp_path / name, "--date-time", "--hop", "0.5"]
    for options, out in ((["--top", "1"], "a.csv"), (["--all-scores"], "b.csv")):
        assert run_command(*given, *options, "-o", tmp_path / out) == 0
        found = pd.read_csv(tmp_path / out, dtype=str, keep_default_na=False)
        assert found.columns.tolist()[:5] == ["path", "start_s", "end_s", "date", "time"]
        assert (found["date"][0], found["time"][0]) == expected
        if expected == ("2024-05-31", "23:59:58"):
            assert found[["date", "time"]].to_numpy().tolist()[3:5] == [
                ["2024-05-31", "23:59:59.500"], ["2024-06-01", "00:00:00"],
            ]  # fmt: skip
    assert run_command(*given, "-o", tmp_path / "p.txt", "--format", "raven") == 0
    table = pd.read_csv(tmp_path / "p.txt", sep="\t", dtype=str, keep_default_na=False)
    assert (table["Begin Date"][0], table["Begin Clock Time"][0]) == expected
    assert run_command(*given, "-o", tmp_path / "p.parquet") == 0
    assert pd.read_parquet(tmp_path / "p.parquet")["date"][0] == expected[0]


def test_audacity_gets_a_folder_with_labels_for_each_recording(predict, sounds: Path) -> None:
    table, folder = pd.read_csv(predict("p.csv")), predict("labels", "--format", "audacity")
    for name in ("one/a.wav", "one/b.flac", "two/a.wav"):
        own = table[table["path"] == str(sounds / name)]
        lines = [line.split("\t") for line in (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()]
        assert [(float(start), float(end)) for start, end, _ in lines] == list(
            zip(own["start_s"], own["end_s"], strict=True)
        )
        scores = own["score"].map("{:.2f}".format)
        assert [label for _, _, label in lines] == (own["task"] + ": " + own["label"] + " (" + scores + ")").tolist()


def test_a_file_of_labels_is_for_one_recording(
    run_command: Run, model_file: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.txt"
    assert run_command("predict", model_file, sounds, "-o", out, "--format", "audacity") == 2
    assert f"got 3 audio files for {out}; give a folder for them: -o {tmp_path / 'p'}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert (
        run_command("predict", model_file, sounds / "one/a.wav", "-o", out, "--format", "audacity", "--per-clip") == 0
    )
    start, end, label = out.read_text().splitlines()[0].split("\t")
    assert (float(start), float(end)) == (0, 9.3)
    assert re.fullmatch(r"[abc] \([01]\.\d\d\)", label)


def test_recordings_without_events_have_empty_files_and_a_table_its_head(
    run_command: Run, model_file: Path, sounds: Path, tmp_path: Path
) -> None:
    options = ["--events", "--threshold", "1"]
    head = "path,start_s,end_s,label,score\n"
    for name, more, expected in [("p.csv", [], head), ("p.jsonl", [], ""), ("l", ["--format", "audacity"], None)]:
        assert run_command("predict", model_file, sounds, "-o", tmp_path / name, *options, *more) == 0
        if expected is not None:
            assert (tmp_path / name).read_text() == expected
    files = [path for path in (tmp_path / "l").rglob("*") if path.is_file()]
    assert [file.read_text() for file in files] == ["", "", ""]
    assert run_command("predict", model_file, sounds, "-o", tmp_path / "p.parquet", *options) == 0
    assert pd.read_parquet(tmp_path / "p.parquet").columns.tolist() == head.strip().split(",")


def test_a_folder_with_other_files_is_not_replaced(
    run_command: Run, model_file: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-o", tmp_path / "labels", "--format", "audacity", "--overwrite"]
    for _ in range(2):
        assert run_command("predict", model_file, sounds / "one", *options) == 0
    (tmp_path / "labels" / "mine.docx").write_text("precious")
    assert run_command("predict", model_file, sounds / "one", *options) == 2
    assert "holds other files than labels, such as mine.docx" in capsys.readouterr().err
    (tmp_path / "p.csv").mkdir()
    assert run_command("predict", model_file, sounds / "one", "-o", tmp_path / "p.csv", "--overwrite") == 2
    assert "is a folder, and would be a file" in capsys.readouterr().err


def test_ravens_time_counts_whole_files_that_could_be_read(
    run_command: Run, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of files of which only parts are classified, or which have no rows, at rates that resampling rounds."""
    rng, lengths = np.random.default_rng(0), {"a.wav": 22051, "b.wav": 11027, "c.wav": 33333}
    for name, count in lengths.items():
        soundfile.write(str(tmp_path / name), 0.1 * rng.standard_normal(count), 11025)
    (tmp_path / "bad.wav").write_text("no audio")
    rows = ["path,start_s,duration_s", "a.wav,0.5,1", "bad.wav,,", "b.wav,0,0.25", "c.wav,2,", "a.wav,0,0.5", "c.wav,,"]
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "p.txt"
    assert run_command("predict", model_file, tmp_path / "clips.csv", "-o", out, "--format", "raven", "--per-clip") == 2
    found = raven_rows(out)
    assert sorted(zip(found["Begin File"], found["File Offset (s)"], strict=True)) == [
        ("a.wav", 0.0), ("a.wav", 0.5), ("b.wav", 0.0), ("c.wav", 0.0), ("c.wav", 2.0),
    ]  # fmt: skip
    starts = {"a.wav": 0.0, "b.wav": 22051 / 11025, "c.wav": (22051 + 11027) / 11025}
    expected = [
        starts[name] + offset for name, offset in zip(found["Begin File"], found["File Offset (s)"], strict=True)
    ]
    assert found["Begin Time (s)"].tolist() == pytest.approx(expected, abs=5.1e-5)
    lengths_s = found["End Time (s)"] - found["Begin Time (s)"]
    assert sorted(lengths_s) == pytest.approx([0.25, 0.5, 1, 33333 / 11025 - 2, 33333 / 11025], abs=2e-4)
    # A file that is gone before the table is made: nothing is lost.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audiostride.inference.formats.probe_audio", lambda path: probe_audio(f"{path}.gone"))
        assert (
            run_command("predict", model_file, tmp_path, "-o", tmp_path / "q.txt", "--format", "raven", "--per-clip")
            == 2
        )
    assert "counts time over its audio files, but one can no longer be read: " in capsys.readouterr().err
    assert not (tmp_path / "q.txt").exists()
    assert (
        run_command("predict", model_file, tmp_path, "-o", tmp_path / "q.txt", "--format", "raven", "--per-clip") == 2
    )
    assert "goes on with a job that was stopped: 4 of 4 files are done" in capsys.readouterr().out
    assert len(raven_rows(tmp_path / "q.txt")) == 3


def test_a_store_without_its_files_has_no_table_over_them(
    run_command: Run, model_file: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(sounds / "one", tmp_path / "one")
    (tmp_path / "m.csv").write_text("path\none/a.wav\none/b.flac\n")
    assert run_command("prepare", tmp_path / "m.csv", "-o", tmp_path / "store") == 0
    options = ["--per-clip", "--format", "raven", "-o"]
    assert run_command("predict", model_file, tmp_path / "store", *options, tmp_path / "p.txt") == 0
    assert raven_rows(tmp_path / "p.txt")["Begin Time (s)"].tolist() == [0, 9.3]
    shutil.rmtree(tmp_path / "one")
    assert run_command("predict", model_file, tmp_path / "store", *options, tmp_path / "q.txt") == 2
    assert f"2 of the store's are gone, such as {tmp_path}/one/a.wav; give a folder for" in capsys.readouterr().err
    assert not (tmp_path / "q.txt.partial").exists()
    assert run_command("predict", model_file, tmp_path / "store", *options, tmp_path / "q") == 0


@pytest.mark.parametrize("format", ["raven", "audacity"])
def test_names_too_long_for_an_ending_are_shortened(
    run_command: Run, model_file: Path, tmp_path: Path, format: str
) -> None:
    bird, folder, ending = "\u9ce5", tmp_path / "rec", {"raven": ".selections.txt", "audacity": ".txt"}[format]
    longest = "x" * (255 - len(ending) - 4) + ".wav"
    names = [bird * 80 + ".wav", bird * 79 + "a" * 10 + ".wav", bird * 79 + "a" * 8 + ".wav", "a" + bird * 80 + ".wav",
             "x" * 251 + ".wav", "x" * 250 + ".wav", longest, "b.wav"]  # fmt: skip
    assert all(len(name.encode()) <= 255 for name in names)
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(names):
        samples = 0.1 * np.random.default_rng(number).standard_normal(1600 + 160 * number)
        soundfile.write(str(folder / ("sub" if number % 2 else ".") / name), samples, 16000)
    out = tmp_path / "labels"
    assert run_command("predict", model_file, folder, "-o", out, "--format", format, "--per-window") == 0
    files = sorted(path.relative_to(out) for path in out.rglob("*.txt"))
    assert len(files) == len(names)
    assert all(len(file.name.encode()) <= 255 and file.name.endswith(ending) for file in files)
    for number, name in enumerate(names):  # each has the row of its own recording
        rows = [line.split("\t") for file in files for line in (out / file).read_text().splitlines()
                if file.parent.name == ("sub" if number % 2 else "") and file.name[:5] == name[:5]]  # fmt: skip
        assert f"{0.1 + 0.01 * number:.4f}" in [f"{float(row[1 if format == 'audacity' else 4]):.4f}"
                                                for row in rows if row[0] != "Selection"]  # fmt: skip
    kept = {name for name in names if len((name + ending).encode()) <= 255}
    assert {longest, "b.wav"} <= kept < set(names)
    assert {file.name for file in files} >= {name + ending for name in kept}


@pytest.mark.parametrize("name", ["x" * 251 + ".csv", "x" * 300 + ".csv", "x" * 245 + ".c", "\u9ce5" * 83 + ".csv"])
def test_an_output_whose_companions_would_be_too_long_is_refused_at_the_start(
    run_command: Run, model_file: Path, sounds: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-o", tmp_path / name, "--format", "csv"] if name.endswith(".c") else ["-o", tmp_path / name]
    assert run_command("predict", model_file, sounds, *options) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("audiostride:")]
    assert "File name too long" in line
    assert "choose another -o" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="names that other systems have not")
def test_control_signs_in_names_break_no_table(
    run_command: Run, make_model_file, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model_file(tasks={"kind": ["a\tb", "c\r\nd", 'e,"f\u2028g"']})
    (tmp_path / "rec").mkdir()
    names = ["a,b.wav", "c;d.wav", "e\u2028f.wav", 'g"h.wav', "bad\r.wav"]
    for number, name in enumerate(names):
        samples = 0.1 * number * np.random.default_rng(number).standard_normal(16000)
        soundfile.write(str(tmp_path / "rec" / name), samples, 16000)
    paths = sorted(str(tmp_path / "rec" / name) for name in names[:-1])
    for suffix, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        out = tmp_path / f"p.{suffix}"
        assert run_command("predict", model, tmp_path / "rec", "-o", out) == 2
        assert read(out)["path"].tolist() == paths
        assert set(read(out)["label"]) <= {"a\tb", "c\r\nd", 'e,"f\u2028g"'}
        assert pd.read_csv(tmp_path / "p.errors.csv")["path"].tolist() == [str(tmp_path / "rec" / "bad\\r.wav")]
    for format, columns in (("raven", 12), ("audacity", 3)):
        assert run_command("predict", model, tmp_path / "rec", "-o", tmp_path / format, "--format", format) == 2
        files = [path for path in (tmp_path / format).rglob("*") if path.is_file()]
        assert len(files) == 4
        for file in files:
            rows = file.read_bytes().decode().split("\n")
            assert rows.pop() == ""
            assert {len(row.split("\t")) for row in rows} == {columns}
            assert not set("".join(rows)) & set("\r\u2028")
            assert len(rows) == 1 + (format == "raven")


@pytest.mark.parametrize("format", ["csv", "parquet", "jsonl", "raven"])
def test_a_name_that_is_not_utf8_is_a_line_of_the_errors(model_file: Path, tmp_path: Path, format: str) -> None:
    samples = np.zeros(16000, dtype=np.float32)
    recordings = [Recording(name, samples=samples, samples_rate=16000) for name in ("a.wav", os.fsdecode(b"b\xff.wav"))]
    out = tmp_path / ("p" if format == "raven" else f"p.{format}")
    job = PredictionJob(load_classifier(model_file), recordings, out, format, PredictionSettings())
    assert job.run(torch.device("cpu")) == 1
    errors = pd.read_csv(tmp_path / "p.errors.csv")
    assert errors["path"].tolist() == ["b\\udcff.wav"]
    assert "must be UTF-8 to stand in a table, got 'b\\udcff.wav'; rename it" in errors["reason"][0]
    assert out.exists()


def test_logits_that_are_not_finite_are_an_error_of_the_recording(
    run_command: Run, model_file: Path, sounds: Path, tmp_path: Path
) -> None:
    model = load_classifier(model_file)
    with torch.no_grad():
        model.heads[0].bias[1] = float("nan")
    save_classifier(model, tmp_path / "nan.safetensors")
    for options in ([], ["--per-window"], ["--events"]):
        assert run_command("predict", tmp_path / "nan.safetensors", sounds, "-o", tmp_path / "p.csv", *options) == 2
        reasons = pd.read_csv(tmp_path / "p.errors.csv")["reason"]
        assert reasons.str.contains("must be finite, got NaN or infinity").tolist() == [True] * 3
        assert not (tmp_path / "p.csv").exists()
    with pytest.raises(InputError, match=r"the logits of array 0 must be finite"):
        model.predict(np.zeros(100), sample_rate=16000)


def events_by_force(probs: np.ndarray, tiling: Tiling, threshold: float, gap: int) -> list[tuple[int, int, float]]:
    """Events of one class: marks every sample of every window above the threshold, closes gaps, reads off runs."""
    marked = np.zeros(tiling.n_samples + 2, dtype=bool)
    scores = np.zeros(tiling.n_samples + 2)
    for index, prob in enumerate(probs.round(6)):
        if prob >= threshold:
            start, end = index * tiling.hop, min(index * tiling.hop + tiling.window, tiling.n_samples)
            marked[start + 1 : end + 1] = True
            scores[start + 1 : end + 1] = np.maximum(scores[start + 1 : end + 1], prob)
    edges = np.flatnonzero(np.diff(marked.astype(int)))
    found: list[tuple[int, int, float]] = []
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        score = float(scores[start + 1 : end + 1].max())
        if found and start - found[-1][1] <= gap:
            found[-1] = (found[-1][0], end, max(found[-1][2], score))
        else:
            found.append((start, end, score))
    return found


@pytest.mark.parametrize(("window", "hop"), [(10, 10), (10, 5), (10, 3), (10, 1), (7, 4)])
@pytest.mark.parametrize("gap", [0, 2, 11])
def test_events_are_those_found_sample_by_sample(window: int, hop: int, gap: int) -> None:
    rng = np.random.default_rng(window * hop + gap)
    for n_samples in (3, 10, 11, 457):
        tiling = Tiling(n_samples, window, hop, 10, origin_s=2.0)
        logits = 1.5 * rng.standard_normal((tiling.n_windows, 3))
        for threshold in (0.3, 0.5, 0.8, 0.0, 1.0):
            settings = PredictionSettings(granularity="event", threshold=threshold, merge_gap_s=gap / 10)
            events = EventResult(ClassifierConfig(tasks={"t": ["a", "b", "c"]}), tiling, settings)
            for first in range(0, tiling.n_windows, 4):
                events.add(first, {"t": logits[first : first + 4]})
            expected = [
                (2 + start / 10, 2 + end / 10, "t", "abc"[index], score)
                for index, own in enumerate(softmax(logits).T)
                for start, end, score in events_by_force(own, tiling, threshold, gap)
            ]
            found = events.rows()
            assert [row[0] for row in found] == sorted(row[0] for row in found)
            assert sorted(row[:4] for row in found) == sorted(
                (round(start, 4), round(end, 4), *rest) for start, end, *rest, _ in expected
            )
            assert sorted(row[4] for row in found) == pytest.approx(sorted(row[4] for row in expected))


def test_a_recording_cut_at_window_borders_has_the_same_events(sounds: Path, model_file: Path, tmp_path: Path) -> None:
    samples, _ = soundfile.read(str(sounds / "one/a.wav"), dtype="float32")
    parts = [samples[: 4 * 16000], samples[4 * 16000 :]]
    model: AudioClassifier = load_classifier(model_file)
    windows = model.predict(samples, sample_rate=16000, per_window=True)
    threshold = float(windows["score"].median()) + 1e-4  # which no window comes near
    whole = model.predict(samples, sample_rate=16000, events=True, threshold=threshold)
    cut = model.predict(parts, sample_rate=16000, events=True, threshold=threshold)
    cut.loc[cut["path"] == "array 1", ["start_s", "end_s"]] += 4
    joined: list[list[object]] = []
    for row in cut.sort_values(["label", "start_s"])[["label", "start_s", "end_s", "score"]].to_numpy().tolist():
        if joined and joined[-1][0] == row[0] and joined[-1][2] == row[1] == 4:
            joined[-1][2:] = [row[2], max(joined[-1][3], row[3])]
        else:
            joined.append(row)
    expected = whole.sort_values(["label", "start_s"])[["label", "start_s", "end_s", "score"]]
    found = pd.DataFrame(joined, columns=expected.columns)
    assert len(found) >= 2
    pd.testing.assert_frame_equal(found, expected.reset_index(drop=True), rtol=0, atol=2e-6)

"""`audiostride embed` and `AudioClassifier.embed`: one row per window, whose features are those that the heads see."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from audiostride import ClassifierConfig, InputError, load_classifier
from audiostride.inference.columns import unpack_numbers
from audiostride.inference.granularity import WideResult
from audiostride.inference.journal import Journal
from audiostride.inference.settings import PredictionSettings
from audiostride.inference.tiling import Tiling

Run = Callable[..., int]
PLACES = ["path", "start_s", "end_s"]
NAMES = [f"e{number:04d}" for number in range(16)]  # one for each channel of the model's last block


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings of 2.5 s, 0.4 s at another rate, and 1 s."""
    rng = np.random.default_rng(0)
    (tmp_path / "rec").mkdir()
    for name, n_samples, rate in (("a.wav", 40000, 16000), ("b.flac", 17640, 44100), ("c.wav", 16000, 16000)):
        soundfile.write(str(tmp_path / "rec" / name), rng.standard_normal(n_samples) / 8, rate)
    return tmp_path / "rec"


def read(file: Path) -> pd.DataFrame:
    if file.suffix == ".parquet":
        return pd.read_parquet(file)
    return pd.read_csv(file) if file.suffix == ".csv" else pd.read_json(file, lines=True, precise_float=True)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_row_for_each_window_and_a_column_for_each_feature(
    run_command: Run, model_file: Path, folder: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"e{suffix}"
    assert run_command("embed", model_file, folder, "-o", out) == 0
    assert f"3 of 3 files -> {out}" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"rec", out.name}
    table = read(out)
    assert table.columns.tolist() == PLACES + NAMES
    assert [Path(path).name for path in table["path"]] == ["a.wav"] * 3 + ["b.flac", "c.wav"]
    assert table["start_s"].tolist() == [0, 1, 2, 0, 0]
    assert table["end_s"].tolist() == [1, 2, 2.5, 0.4, 1]
    expected = load_classifier(model_file).embed(folder)
    assert expected[NAMES].dtypes.eq("float32").all()
    if suffix == ".parquet":
        pd.testing.assert_frame_equal(table, expected)
    assert table[NAMES].to_numpy(np.float32).tolist() == expected[NAMES].to_numpy().tolist(), "to the bit"
    assert table[NAMES].nunique().max() == 5


def test_the_features_are_those_that_the_heads_see(
    run_command: Run, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    model = load_classifier(model_file)
    table = model.embed(folder / "a.wav", hop_s=0.5)
    assert table["start_s"].tolist() == [0, 0.5, 1, 1.5]
    samples, _ = soundfile.read(folder / "a.wav", dtype="float32")
    windows = torch.from_numpy(np.stack([samples[start : start + 16000] for start in range(0, 32000, 8000)]))
    with torch.no_grad():
        spectrogram = model.frontend(windows)
        maps = model.encoder(model.input_norm(spectrogram.unsqueeze(1)))
        expected = maps.amax(dim=(2, 3))
        torch.testing.assert_close(model.features(windows), expected, rtol=0, atol=0)
        probs = model.heads[0](torch.from_numpy(table[NAMES].to_numpy())).softmax(dim=1)
    # The frozen copy pools by fixed matrices, in another order of float32 sums.
    np.testing.assert_allclose(table[NAMES].to_numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)
    told = model.predict(folder / "a.wav", per_window=True, hop_s=0.5)
    assert told[["start_s", "end_s"]].equals(table[["start_s", "end_s"]])
    assert told["label"].tolist() == [model.config.tasks["kind"][index] for index in probs.argmax(dim=1)]
    np.testing.assert_allclose(told["score"], probs.amax(dim=1), atol=2e-6)


def test_a_model_of_several_tasks_has_one_encoder(make_model_file: Callable[..., Path], folder: Path) -> None:
    model = load_classifier(make_model_file(tasks={"a": ["x", "y"], "b": ["u", "v", "w"]}))
    table = model.embed(folder)
    assert table.columns.tolist() == PLACES + NAMES
    assert len(table) == 5


def test_arrays_and_batches(model_file: Path, folder: Path) -> None:
    model = load_classifier(model_file)
    samples, _ = soundfile.read(folder / "a.wav", dtype="float32")
    from_array = model.embed([samples], sample_rate=16000)
    assert from_array["path"].tolist() == ["array 0"] * 3
    from_file = model.embed(folder / "a.wav", batch_size=1)
    np.testing.assert_allclose(from_array[NAMES], from_file[NAMES], rtol=1e-5, atol=1e-6)


def test_what_cannot_be_read_is_listed(
    run_command: Run, model_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.wav").write_text("no audio")
    out = tmp_path / "e.csv"
    assert run_command("embed", model_file, folder, "-o", out, "--on-error", "stop") == 2
    assert "bad.wav cannot be read" in capsys.readouterr().err
    assert not out.exists()
    assert run_command("embed", model_file, folder, "-o", out) == 2
    assert "3 of 4 files" in capsys.readouterr().out
    assert len(read(out)) == 5
    listed = pd.read_csv(tmp_path / "e.errors.csv")
    assert [Path(path).name for path in listed["path"]] == ["bad.wav"]
    assert "bad.wav cannot be read" in listed["reason"][0]
    model = load_classifier(model_file)
    with pytest.warns(UserWarning, match=r"^embed: 1 of 4 recordings could not be read and have no rows"):
        table = model.embed(folder, on_error="skip")
    assert len(table) == 5
    with pytest.raises(InputError, match=r"bad\.wav cannot be read"):
        model.embed(folder)


def test_a_job_that_was_stopped_goes_on(
    run_command: Run, model_file: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = ["embed", model_file, folder, "--batch-size", "1"]
    assert run_command(*command, "-o", tmp_path / "whole.parquet") == 0
    add, told = Journal.add, list[str]()

    def stop(self: Journal, path: str, **given: object) -> None:
        if len(told) == 2:
            raise KeyboardInterrupt
        told.append(path)
        add(self, path, **given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", stop)
        assert run_command(*command, "-o", tmp_path / "e.parquet") == 130
    assert "embed: stopped; the same command goes on where this one was" in capsys.readouterr().err
    assert not (tmp_path / "e.parquet").exists()
    assert run_command("embed", model_file, folder, "-o", tmp_path / "e.parquet", "--hop", "0.5") == 2
    assert "hop_s: 1.0 -> 0.5" in capsys.readouterr().err
    assert run_command("predict", model_file, folder, "-o", tmp_path / "e.parquet") == 2
    assert "rows per: features -> window" in capsys.readouterr().err
    assert run_command(*command, "-o", tmp_path / "e.parquet") == 0
    assert "goes on with a job that was stopped: 2 of 3 files are done" in capsys.readouterr().out
    assert (tmp_path / "e.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not (tmp_path / "e.parquet.partial").exists()


def test_what_is_kept_of_a_long_recording_is_kept_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((7, 3)).astype(np.float32).astype(np.float64)
    tiling, settings = Tiling(7 * 100 - 30, 100, 100, 100), PredictionSettings(granularity="features")
    whole, first, second = (WideResult(ClassifierConfig(tasks={"t": ["a", "b"]}), tiling, settings) for _ in range(3))
    whole.add(0, {"features": features})
    first.add(0, {"features": features[:4]})
    second.restore(json.loads(json.dumps(first.state())))
    second.add(4, {"features": features[4:]})
    assert [tuple(row) for row in second.rows()] == whole.rows()
    assert [row[:2] for row in whole.rows()][-1] == (6, 6.7)
    unpacked = np.stack([unpack_numbers(str(row[2]), "float32") for row in whole.rows()])
    assert unpacked.dtype == np.float32
    assert np.array_equal(unpacked, features)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "e.txt"], "embed: -o must end in .csv, .parquet, .jsonl, got e.txt"),
        (["-o", "e"], "embed: -o must end in .csv, .parquet, .jsonl, got e"),
        (["-o", "e.csv", "--hop", "2"], "embed: hop must lie in (0, 1] s"),
        (["-o", "e.csv", "--batch-size", "0"], "embed: batch_size must be a whole number >= 1, got 0"),
        (["-o", "no/e.csv"], "embed: -o must lie in a folder that exists, got no/e.csv"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    run_command: Run, model_file: Path, folder: Path, tmp_path: Path, options: list[str], message: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run_command("embed", model_file, folder, *options) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["rec"]


def test_an_output_that_stands_is_kept(
    run_command: Run, model_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "e.csv").write_text("precious")
    assert run_command("embed", model_file, folder, "-o", tmp_path / "e.csv") == 2
    assert f"embed: {tmp_path / 'e.csv'} exists; choose another -o, or give --overwrite" in capsys.readouterr().err
    assert (tmp_path / "e.csv").read_text() == "precious"
    with pytest.raises(InputError, match=r"^embed: hop must lie in"):
        load_classifier(model_file).embed(folder, hop_s=3)

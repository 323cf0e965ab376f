"""`audiostride predict --clips`: what was found, as WAV files with a manifest that is the next training set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from audiostride.inference.cutting import cut_clips

Run = Callable[..., int]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two recordings whose samples are their place: a ramp says where a clip was cut out."""
    folder = tmp_path / "rec"
    folder.mkdir()
    for name, rate in (("a.wav", 16000), ("b:1.wav", 8000)):
        soundfile.write(str(folder / name), np.linspace(0, 0.9, 10 * rate), rate, subtype="PCM_16")
    return folder


def test_clips_lie_by_class_and_score_with_their_margins(recordings: Path, tmp_path: Path) -> None:
    a, b = str(recordings / "a.wav"), str(recordings / "b:1.wav")
    rows = [
        (a, 2.0, 3.0, "", "wren/x", 0.7),
        (b, 0.25, 1.0, "", "wren/x", 0.9),
        (a, 9.5, 10.0, "", "owl", 0.123456),
        (a, 9.5, 10.0, "", "owl", 0.123456),
    ]
    assert cut_clips(rows, tmp_path / "clips", margin_s=0.5) == 4
    table = pd.read_csv(tmp_path / "clips" / "manifest.csv")
    assert table.columns.tolist() == ["path", "label", "score", "recording", "found_from", "found_to"]
    assert table["path"].tolist() == [
        "owl/00001_0.123_a_9.50s.wav", "owl/00002_0.123_a_9.50s.wav",
        "wren_x/00001_0.900_b_1_0.25s.wav", "wren_x/00002_0.700_a_2.00s.wav",
    ]  # fmt: skip
    assert table["label"].tolist() == ["owl", "owl", "wren/x", "wren/x"]
    expected = {0: (9.0, 10.0, 16000), 2: (0.0, 1.5, 8000), 3: (1.5, 3.5, 16000)}
    for row, (first_s, last_s, rate) in expected.items():
        samples, own_rate = soundfile.read(tmp_path / "clips" / table["path"][row])
        assert (own_rate, len(samples)) == (rate, round((last_s - first_s) * rate))
        assert samples[0] == pytest.approx(0.09 * first_s, abs=1e-3)
        assert samples[-1] == pytest.approx(0.09 * last_s, abs=1e-3)


def test_the_command_cuts_its_rows_and_check_takes_the_manifest(
    run_command: Run, model_file: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["predict", model_file, recordings, "--events", "--threshold", "0.3", "-o"]
    options = ["--clips", tmp_path / "found", "--clip-margin", "0.25"]
    assert run_command(*given, tmp_path / "p.csv", *options) == 0
    events = pd.read_csv(tmp_path / "p.csv")
    clips = pd.read_csv(tmp_path / "found" / "manifest.csv")
    assert f"{len(events)} clips -> {tmp_path / 'found'}" in capsys.readouterr().out
    assert {Path(path).parent.as_posix() for path in clips["path"]} == set(events["label"]), "one task needs no name"
    same = ["label", "score"]
    order = ["recording", "found_from", "label"]
    found = clips.sort_values(order, ignore_index=True)
    expected = events.sort_values(["path", "start_s", "label"], ignore_index=True)
    assert found[same].equals(expected[same])
    assert run_command("check", tmp_path / "found" / "manifest.csv", "--json") in (0, 1)
    lengths = [soundfile.info(tmp_path / "found" / path).duration for path in found["path"]]
    wanted = (expected["end_s"] + 0.25).clip(upper=10) - (expected["start_s"] - 0.25).clip(lower=0)
    np.testing.assert_allclose(lengths, wanted, atol=1e-3)
    assert not list(tmp_path.glob("*.partial"))
    # A folder that stands is left as it is, and nothing else is done.
    assert run_command(*given, tmp_path / "q.csv", *options) == 2
    assert "--clips must be a folder that is not there yet" in capsys.readouterr().err
    assert not (tmp_path / "q.csv").exists()


def test_recordings_that_are_gone_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(str(tmp_path / "gone.wav"), start, start + 1.0, "kind", "owl", 0.5) for start in (0.0, 1.0)]
    assert cut_clips(rows, tmp_path / "clips", margin_s=0.0) == 0
    assert capsys.readouterr().err.count("no clips of") == 1
    assert (tmp_path / "clips" / "manifest.csv").read_text().startswith("path,")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clip-margin", "1"], "clip-margin must be seconds, 0 or more, beside --clips DIR"),
        (["--clips", "c", "--clip-margin", "-1"], "clip-margin must be seconds, 0 or more"),
        (["--clips", "c", "--all-scores"], "either clips or all-scores must be given"),
    ],
)
def test_what_cannot_be_cut(
    run_command: Run, model_file: Path, recordings: Path, tmp_path: Path, options: list[str], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run_command("predict", model_file, recordings, "-o", tmp_path / "p.csv", *options) == 2
    assert message in capsys.readouterr().err

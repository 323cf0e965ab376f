"""The first hour of a new user, from a folder of recordings with names as people have them to detections in Raven."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from audiostride.commands.demo.two_tasks import SETTINGS
from audiostride.dataset.cards import read_card

Run = Callable[..., int]
FOLDER = "Étang d'Olé (2024)"
SMALL = ["--width", "0.05", "--max-steps", "150", "--batch-size", "8", "--pooling", "strided"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of class folders: tones and noise of a second, a bad file, and a long recording of both."""
    rng, seconds = np.random.default_rng(0), np.arange(16000) / 16000
    for number in range(12):
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(900, 1100) * seconds)
        for name, samples in (("coq & poule", tone), ("rien", 0.1 * rng.standard_normal(16000))):
            (tmp_path / FOLDER / name).mkdir(parents=True, exist_ok=True)
            soundfile.write(str(tmp_path / FOLDER / name / f"~{number:02d} prise,1.wav"), samples, 16000)
    night = 0.1 * rng.standard_normal(20 * 16000)
    for start in (4, 11):
        night[start * 16000 : (start + 2) * 16000] = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000)
    (tmp_path / "nuits").mkdir()
    soundfile.write(str(tmp_path / "nuits" / "SM4_20240531_220000.wav"), night, 16000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_demo_says_what_it_found_and_what_to_look_at(
    run_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = read_card("ripples")
    small = {**card, "clips": dict.fromkeys(card["clips"], 8)}
    monkeypatch.setattr("audiostride.commands.demo.two_tasks.read_card", lambda name: small)
    monkeypatch.setitem(SETTINGS, "max_steps", 3)
    monkeypatch.chdir(tmp_path)
    assert run_command("demo") == 0
    said = capsys.readouterr().out
    assert "slow, coarse: making 24 ripples" in said
    assert re.search(r"fast, fine +20, 32 .* \d+\.\d % +\d\.\d\d +\d\.\d\d +\d+\.\d +0\.\d{3} ", said), "the table"
    assert "The first layer of the fast, fine task has a cut-off over time" in said
    assert re.search(r"^\d+ s; page: runs/demo/report.html$", said, flags=re.MULTILINE)
    page = Path("runs/demo/report.html").read_text(encoding="utf-8")
    assert "Modulations of both tasks" in page
    assert re.search("a class whose cross lies outside is told apart", page)
    options = {*re.findall(r"--[a-z][a-z-]+", said), *re.findall(r"[ >](--[a-z][a-z-]+)", page.partition("<body>")[2])}
    assert options <= {"--out", "--seed"}, "the demo has no others"
    assert run_command("demo") == 2
    assert "--out must be a new or empty folder, got runs/demo; choose another" in capsys.readouterr().err


def test_from_a_folder_to_detections_in_raven(run_command: Run, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: object, code: int) -> str:
        assert run_command(*arguments) == code
        shown = capsys.readouterr()
        return shown.out + shown.err

    # Three mistakes, each answered in a line that says what to do.
    assert "did you mean --random-split?" in said("train", FOLDER, "--random-splt", "0", code=2)
    assert re.search(r"none is invented silently; .* with --random-split SEED", said("train", FOLDER, code=2))
    (home / FOLDER / "rien" / "notes.wav").write_text("not audio")
    shown = said("train", FOLDER, "--random-split", "0", *SMALL, code=2)
    assert "1 bad file\n  audio file " in shown
    assert "mend or remove these files, or go on without them: --on-error skip" in shown
    assert not (home / "runs").exists()

    # The import names the next commands, which work as they stand.
    (home / FOLDER / "rien" / "notes.wav").unlink()
    shown = said("import", "folder", FOLDER, "-o", f"{FOLDER}/oiseaux.csv", code=0)
    commands = [shlex.split(line) for line in shown.splitlines() if line.startswith("  audiostride ")]
    assert [command[1] for command in commands] == ["check", "train"]
    assert said(*commands[0][1:], code=1).count("no-split") == 1
    shown = said(*commands[1][1:], *SMALL, code=0)
    run = Path(commands[1][commands[1].index("--out") + 1])
    assert "2 classes" in shown
    assert f"report: {run / 'report.html'}" in shown
    (size,) = re.findall(
        r"^[\d,]+ parameters, \d+ kB in float32 .* a window of 1 s takes [\d.]+ ms on one .*$", shown, re.M
    )

    # Windows, then events for Raven, cut out for listening; the recorder's clock beside them.
    said("predict", run, "nuits", "-o", "fenetres.csv", "--date-time", code=0)
    windows = pd.read_csv("fenetres.csv")
    assert windows["start_s"].tolist() == list(range(20))
    assert windows["time"].tolist()[:2] == ["22:00:00", "22:00:01"]
    options = ["--events", "--background", "rien", "--format", "raven", "--clips", "ecoutes", "--hop", "0.5"]
    shown = said("predict", run, "nuits", "-o", "raven", *options, code=0)
    table = pd.read_csv("raven/SM4_20240531_220000.wav.selections.txt", sep="\t")
    assert set(table["Label"]) <= {"coq & poule"}
    assert 1 <= len(table) <= 6, "the two calls, in one piece or several"
    assert table["High Freq (Hz)"].max() <= 8000
    clips = pd.read_csv("ecoutes/manifest.csv")
    assert len(clips) == len(table)
    assert all((home / "ecoutes" / path).is_file() for path in clips["path"])
    assert re.search(rf"^{len(table)} clips? -> ecoutes$", shown, flags=re.MULTILINE)
    assert clips["path"].str.startswith("coq _ poule/00001_").any()

    options = ["--events", "--background", "rien", "--threshold", "1"]
    shown = said("predict", run, "nuits", "-o", "vide.csv", *options, code=0)
    assert "nothing was found, the table is empty; a lower --threshold or --min-score finds more" in shown

    assert "page: " in said("report", run, "-o", "page.html", code=0)
    page = (home / "page.html").read_text(encoding="utf-8")
    assert re.search(r"<h1>.*correct", page)
    assert "support vector machine on log-mel statistics has" in page
    assert size in page

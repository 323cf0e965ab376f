"""From each archive as distributed to a report, through the command line: the paper's five tasks."""

import json
from pathlib import Path

import pandas as pd
import pytest

from audiostride.cli import main

TASKS = [
    # data set, fixture of its miniature archive, label column, classes
    ("tut-urban-2018", "tut_root", "label", 10),
    ("dcase2018-birds", "birds_root", "label", 2),
    ("nsynth", "nsynth_root", "instrument_family", 11),
    ("nsynth", "nsynth_root", "pitch", 3),
    ("speech-commands", "speech_root", "label", 35),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fixture", "label", "classes"), TASKS)
def test_an_archive_becomes_a_report(
    name: str, fixture: str, label: str, classes: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    root, manifest, store, run = request.getfixturevalue(fixture), *(tmp_path / part for part in ("m.csv", "s", "run"))
    assert main(["import", name, str(root), "-o", str(manifest)]) == 0
    rows = pd.read_csv(manifest)
    assert rows[label].nunique() == classes
    assert rows["group"].notna().all()
    assert main(["check", str(manifest), "--label", label]) in (0, 1)
    assert main(["prepare", str(manifest), "-o", str(store), "--verify"]) == 0
    settings = ["--width", "0.03", "--max-steps", "3", "--valid-every", "3", "--batch-size", "4"]
    assert main(["train", "--manifest", str(store), "--label", label, "--out", str(run), *settings]) == 0
    n_test = int((rows["split"] == "test").sum())
    assert json.loads((run / "metrics.json").read_text())["n_clips"] == n_test
    # Evaluated and predicted from the files, after training from the store.
    assert main(["evaluate", str(run), "--manifest", str(manifest)]) == 0
    assert main(["predict", str(run), str(manifest), "--per-clip", "-o", str(tmp_path / "p.csv")]) == 0
    predictions = pd.read_csv(tmp_path / "p.csv")
    assert len(predictions) == len(rows)
    assert set(predictions["label"].astype(str)) <= set(rows[label].astype(str))
    assert main(["report", str(run), "-o", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").stat().st_size > 10_000

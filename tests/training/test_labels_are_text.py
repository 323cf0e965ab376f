"""Labels that look like numbers, truth values or nothing stay what the file says, through every door."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from audiostride.dataset.check.manifest_check import check_manifest
from audiostride.models import load_classifier
from audiostride.reporting import report_run

Run = Callable[..., int]
NAMES = ["01", "1", "1.0", "1e3", "True", "NA", "None", "null", "nan", "-", "007"]


@pytest.fixture(scope="module")
def manifest(clips: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("names") / "m.csv"
    file.write_text(clips.assign(kind=[NAMES[row % len(NAMES)] for row in range(len(clips))]).to_csv(index=False))
    return file


def test_labels_stay_what_the_file_says(
    manifest: Path, tmp_path: Path, quick_run: Run, run_command: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run, store = tmp_path / "run", tmp_path / "store"
    assert quick_run(manifest, run) == 0
    (classes,) = load_classifier(run).config.tasks.values()
    assert sorted(classes) == sorted(NAMES)
    assert len(yaml.safe_load((run / "config.yaml").read_text())) > 60
    assert quick_run(manifest, run, "--resume") == 0
    assert run_command("evaluate", run, "--split", "valid") == 0
    report_run(run)
    page = (run / "report.html").read_text()
    assert all(f">{name}<" in page for name in NAMES)

    def read(file: Path) -> pd.DataFrame:
        return pd.read_csv(file, dtype=str, keep_default_na=False)

    assert list(read(run / "per_class.csv")["class"]) == classes
    assert list(read(run / "confusion_matrix.csv").columns[1:]) == classes
    tested = read(run / "predictions_test.csv")
    assert list(tested["true"]) == list(read(manifest).query("split == 'test'")["kind"])

    assert run_command("prepare", manifest, "-o", store) == 0
    assert quick_run(store, tmp_path / "stored") == 0
    assert load_classifier(tmp_path / "stored").config.tasks == {"kind": classes}

    # What predict writes is a manifest.
    out = tmp_path / "p.csv"
    assert run_command("predict", run, manifest, "-o", out, "--per-window") == 0
    assert set(read(out)["label"]) <= set(NAMES)
    result = check_manifest(out, labels=["label"], progress=False)
    assert set(result.summary["labels"]["label"]) == set(read(out)["label"])


def test_an_empty_cell_is_missing_and_named(
    clips: pd.DataFrame, tmp_path: Path, quick_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = clips["kind"].tolist()
    kinds[3], kinds[7] = "", "   "
    clips.assign(kind=kinds).to_csv(tmp_path / "m.csv", index=False)
    assert quick_run(tmp_path / "m.csv", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "line 5: kind is empty" in said
    assert "line 9: kind is empty" in said


def test_names_that_differ_in_case_or_unicode_form_are_told(clips: pd.DataFrame, tmp_path: Path) -> None:
    spelled = ["Rook", "rook", "Mo\u0308we", "M\u00f6we"]
    clips.assign(kind=[spelled[row % 4] for row in range(len(clips))]).to_csv(tmp_path / "m.csv", index=False)
    result = check_manifest(tmp_path / "m.csv", labels=["kind"], progress=False)
    told = [finding.message for finding in result.findings if finding.kind == "label-spelling"]
    assert len(told) == 2
    assert all(name in " ".join(told) for name in ("Rook", "rook"))

"""`check_manifest` on real recordings: no false alarms, and every awkward file as expected."""

import csv
from pathlib import Path
from typing import Any

import pytest

from audiostride.dataset.check.manifest_check import check_manifest

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


@pytest.fixture(scope="module")
def shared_sets() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs the recordings in ../shared/data")
    return SHARED


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param("speech", {"group": "speaker"}, marks=pytest.mark.slow),
        pytest.param("speech", {}, marks=pytest.mark.slow),
        ("birds", {"labels": ["label", "hasbird"], "group": "source_recording"}),
        ("scenes", {"group": "source_recording"}),
        ("notes", {}),
    ],
)
def test_real_sets_have_no_findings(shared_sets: Path, name: str, settings: dict[str, Any]) -> None:
    result = check_manifest(shared_sets / name / "manifest.csv", progress=False, **settings)
    assert result.summary["measured"] == result.summary["clips"] > 300
    assert result.findings == []
    if settings:
        assert not {note.kind for note in result.notes} - {"repeated-audio", "some-clipping"}


def test_of_notes_only_pitches_are_absent_from_valid_as_its_readme_says(shared_sets: Path) -> None:
    labels = ["instrument_family", "family_id", "pitch"]
    manifest = shared_sets / "notes" / "manifest.csv"
    result = check_manifest(manifest, labels=labels, group="instrument", progress=False)
    # Every third of the pitches 44 to 71 is there.
    absent = [pitch for pitch in range(44, 72) if (pitch - 44) % 3]
    assert [finding.kind for finding in result.findings] == ["class-absent"] * len(absent)
    assert all(
        f"pitch '{pitch}' has no clips in valid" in finding.message
        for pitch, finding in zip(absent, result.findings, strict=True)
    )


# The faults of files that can be read.
PLANTED = {
    "clip_10ms_16000.wav": "too-short",
    "clip_1_sample_16000.wav": "too-short",
    "silence_16000.wav": "silent",
    "clipped_16000.wav": "clipped",
    "dc_offset_16000.wav": "dc-offset",
    "float_over_full_scale_16000.wav": "beyond-full-scale",
    "wrong_length_short_22050.wav": "doubtful-file",
}


def test_awkward_formats_give_the_findings_that_are_expected(shared_sets: Path, tmp_path: Path) -> None:
    with (shared_sets / "formats" / "expected.csv").open(encoding="utf-8", newline="") as file:
        expected = list(csv.DictReader(file))
    assert len(expected) == 36
    rows = [f'"{row["path"]}",{"ab"[number % 2]}' for number, row in enumerate(expected)]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    result = check_manifest(tmp_path / "manifest.csv", audio_root=shared_sets / "formats", progress=False)
    kinds: dict[str, set[str]] = {row["path"]: set() for row in expected}
    for finding in result.findings:
        if not finding.kind.startswith("duplicate"):  # some are cut from the same recording
            for line in finding.lines:
                kinds[expected[line - 2]["path"]].add(finding.kind)
    allowed = {
        "ok": [set()],
        "ok-or-error": [set(), {"unreadable"}],
        "ok-or-unsupported": [set(), {"unreadable"}],
        "error": [{"unreadable"}],
        "error-or-short": [{"unreadable"}],
        "error-empty": [{"empty-audio"}],
        "error-nonfinite": [{"not-finite"}],
    }
    for row in expected:
        planted = PLANTED.get(row["path"])
        assert kinds[row["path"]] in ([{planted}] if planted else allowed[row["expect"]]), row["path"]
    assert {note.kind for note in result.notes} >= {"mixed-sample-rates", "mixed-channels", "other-format"}

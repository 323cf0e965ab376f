import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import soundfile

from audiostride.dataset.importers import import_clips
from audiostride.errors import InputError

NAME = "nsynth"
NOTE = "flute_synthetic_002-060-050"


@pytest.fixture
def root(archives: ModuleType, tmp_path: Path) -> Path:
    """A tree with empty audio files that a test may break."""
    return Path(archives.build_nsynth(tmp_path / "nsynth", audio=False))


def said(lines: list[str], *parts: str) -> bool:
    return any(all(part in line for part in parts) for line in lines)


def change(root: Path, split: str, edit: Callable[[dict[str, Any]], object]) -> None:
    file = root / f"nsynth-{split}" / "examples.json"
    notes = json.loads(file.read_text())
    edit(notes)
    file.write_text(json.dumps(notes))


def test_the_miniature_has_the_header_of_the_archive(nsynth_root: Path) -> None:
    files = list(nsynth_root.glob("nsynth-*/audio/*.wav"))
    assert len(files) == 93
    info = soundfile.info(str(files[0]))
    assert (info.samplerate, info.channels, info.duration) == (16000, 1, 4.0)


def test_official_is_the_three_folders_with_two_labels_and_instruments_as_groups(nsynth_root: Path) -> None:
    imported = import_clips(NAME, nsynth_root)
    clips = imported.clips
    assert imported.labels == ("instrument_family", "pitch")
    assert clips["split"].value_counts().to_dict() == {"train": 33, "valid": 30, "test": 30}
    assert all(
        path.startswith(f"nsynth-{split}/audio/") for path, split in zip(clips["path"], clips["split"], strict=True)
    )
    row = clips[clips["path"] == f"nsynth-train/audio/{NOTE}.wav"].iloc[0]
    assert row[["instrument_family", "pitch", "group", "velocity", "instrument_source"]].tolist() == [
        "flute",
        60,
        "flute_synthetic_002",
        50,
        "synthetic",
    ]
    assert "synth_lead" not in set(clips.loc[clips["split"] != "train", "instrument_family"])
    train, held_out = (set(clips.loc[(clips["split"] == "train") == side, "group"]) for side in (True, False))
    assert train & held_out == set()
    assert imported.contradictions == []
    assert said(imported.findings, "valid: 30 clips, the card says 12,678")


def test_paper_like_tests_on_the_official_valid_split(nsynth_root: Path) -> None:
    official, paper = (import_clips(NAME, nsynth_root, splits=scheme) for scheme in ("official", "paper-like"))
    exchanged = official.clips["split"].map({"train": "train", "valid": "test", "test": "valid"})
    assert paper.clips["split"].tolist() == exchanged.tolist()
    assert paper.clips["path"].equals(official.clips["path"])
    assert said(paper.findings, "change places")
    assert said(paper.findings, "test: 30 clips, the card says 12,678")


@pytest.mark.parametrize("given", ["..", "nsynth-train"])
def test_a_root_one_level_off_is_found(root: Path, given: str) -> None:
    clips = import_clips(NAME, root / given).clips
    assert len(clips) == 93
    assert (root / given / clips["path"].iloc[0]).is_file()


def test_a_missing_folder_is_named(root: Path) -> None:
    shutil.rmtree(root / "nsynth-valid")
    imported = import_clips(NAME, root)
    assert len(imported.clips) == 63
    assert said(imported.findings, "nsynth-valid is missing", "no valid split")
    assert imported.contradictions == []
    shutil.rmtree(root / "nsynth-train")
    assert said(import_clips(NAME, root).findings, "instrument_family: no clips of synth_lead")
    shutil.rmtree(root / "nsynth-test")
    with pytest.raises(
        InputError, match=r"at least one of nsynth-train, nsynth-valid, nsynth-test, got none.*--download"
    ):
        import_clips(NAME, root)


def test_notes_without_audio_and_audio_without_notes_are_named(root: Path) -> None:
    (root / "nsynth-train" / "audio" / f"{NOTE}.wav").unlink()
    (root / "nsynth-test" / "audio" / "harp_acoustic_000-060-050.wav").touch()
    shutil.rmtree(root / "nsynth-valid" / "audio")
    imported = import_clips(NAME, root)
    assert len(imported.clips) == 62
    assert said(imported.contradictions, "nsynth-train: examples.json lists 1 note not on disk", NOTE)
    assert said(imported.contradictions, "nsynth-valid/audio is missing, with all 30 notes")
    assert said(imported.findings, "nsynth-test: 1 audio file not in examples.json", "harp_acoustic_000")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("pitch", 128, f"{NOTE} has pitch 128"),
        ("pitch", -1, f"{NOTE} has pitch -1"),
        ("pitch", "60", f"{NOTE} has pitch '60'"),
        ("instrument_family_str", "harp", rf"{NOTE} has family 'harp' \(2\)"),
        ("instrument_family", 3, rf"{NOTE} has family 'flute' \(3\)"),
    ],
)
def test_a_note_with_an_impossible_value_is_an_error_that_names_it(
    root: Path, field: str, value: object, message: str
) -> None:
    change(root, "train", lambda notes: notes[NOTE].update({field: value}))
    with pytest.raises(InputError, match=message):
        import_clips(NAME, root)


def test_pitches_0_and_127_are_allowed(root: Path) -> None:
    change(root, "train", lambda notes: notes[NOTE].update(pitch=0))
    change(root, "test", lambda notes: next(iter(notes.values())).update(pitch=127))
    assert {0, 127} <= set(import_clips(NAME, root).clips["pitch"])


def test_a_note_without_a_field_is_an_error_that_names_it(root: Path) -> None:
    change(root, "train", lambda notes: notes[NOTE].pop("velocity"))
    with pytest.raises(InputError, match=f"nsynth-train/examples.json.*{NOTE} has no velocity"):
        import_clips(NAME, root)


def test_a_note_listed_twice_is_named(root: Path) -> None:
    file = root / "nsynth-train" / "examples.json"
    entry = json.dumps(json.loads(file.read_text())[NOTE])
    file.write_text(file.read_text()[:-1] + f', "{NOTE}": {entry}}}')
    imported = import_clips(NAME, root)
    assert len(imported.clips) == 93
    assert said(imported.findings, f"nsynth-train/examples.json has {NOTE} more than once")


def test_metadata_that_is_missing_cut_off_or_of_another_kind_is_an_error(root: Path) -> None:
    file = root / "nsynth-valid" / "examples.json"
    file.write_text(file.read_text()[:-100])
    with pytest.raises(InputError, match=r"nsynth-valid/examples\.json must be whole JSON"):
        import_clips(NAME, root)
    file.write_text("[]")
    with pytest.raises(InputError, match="one entry per note, got list"):
        import_clips(NAME, root)
    file.unlink()
    with pytest.raises(InputError, match=r"nsynth-valid/examples\.json must be there, got nothing"):
        import_clips(NAME, root)

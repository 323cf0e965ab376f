"""`check_manifest`: planted faults are found where they are, and nothing else is."""

import csv
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from audiostride.dataset.check.findings import KINDS, NOTES, CheckResult
from audiostride.dataset.check.manifest_check import check_manifest
from audiostride.dataset.manifest import inspect_manifest
from audiostride.dataset.prepare import prepare_store
from audiostride.errors import InputError

RATE = 16000


def noise(seed: int, n_samples: int = RATE // 2) -> NDArray[np.float32]:
    """In steps of 16 bits, so that every format stores the same."""
    steps = np.round(0.1 * 32768 * np.random.default_rng(seed).standard_normal(n_samples))
    return (steps / 32768).astype(np.float32)


class Planter:
    """Writes audio files and the rows of a manifest, and notes the line of each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: list[dict[str, str]] = []

    def write(self, name: str, samples: NDArray[np.float32] | None = None, **options: Any) -> str:
        samples = noise(1000 + len(list(self.root.iterdir()))) if samples is None else samples
        soundfile.write(str(self.root / name), samples, RATE, **options)
        return name

    def add(self, path: str, label: str = "cat", split: str = "train", **columns: str) -> int:
        self.rows.append({"path": path, "label": label, "split": split, "group": "", **columns})
        return len(self.rows) + 1

    def add_clean(self, splits: tuple[str, ...] = ("train", "val", "test")) -> None:
        for split in splits:
            for label in ("cat", "dog"):
                for number in range(2):
                    name = self.write(f"{split}_{label}_{number}.wav")
                    self.add(name, label, split, group=f"{split} {number}")

    def save(self, *drop: str) -> Path:
        columns = [name for name in dict.fromkeys(key for row in self.rows for key in row) if name not in drop]
        with (self.root / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)
        return self.root / "manifest.csv"


@pytest.fixture
def planter(tmp_path: Path) -> Planter:
    return Planter(tmp_path)


def found_by(result: CheckResult) -> list[tuple[str, tuple[int, ...]]]:
    return sorted((finding.kind, tuple(finding.lines)) for finding in result.findings)


def notes_by(result: CheckResult) -> list[tuple[str, tuple[int, ...]]]:
    return sorted((note.kind, tuple(note.lines)) for note in result.notes)


def check(manifest: Path, **settings: Any) -> CheckResult:
    return check_manifest(manifest, progress=False, **settings)


def plant_all(planter: Planter) -> list[tuple[str, tuple[int, ...]]]:
    """A manifest with faults of 22 kinds, and where they are."""
    root, write, add = planter.root, planter.write, planter.add
    planter.add_clean(splits=("train", "val"))
    expected: list[tuple[str, tuple[int, ...]]] = [("split-missing", ()), ("one-class", ())]

    def plant(kind: str, *lines: int) -> None:
        expected.append((kind, lines))

    plant("bad-row", add(""))
    plant("bad-row", add(write("no_label.wav"), ""))
    plant("bad-row", add(write("split.wav"), split="holdout"))
    plant("bad-row", add(write("start.wav"), start_s="soon"))
    plant("bad-row", add(write("start_below.wav"), start_s="-1"))
    plant("bad-row", add(write("duration.wav"), duration_s="0"))
    plant("missing-file", add("gone.wav"), add("gone.wav", start_s="1"))
    (root / "zero.wav").write_bytes(b"")
    plant("unreadable", add("zero.wav"))
    (root / "text.wav").write_text("no audio at all, but a line of text")
    plant("unreadable", add("text.wav"))
    for name in ("cut.wav", "cut.flac"):
        content = (root / write(name, noise(90, RATE))).read_bytes()
        (root / name).write_bytes(content[: len(content) // 2])
        plant("unreadable", add(name))
    plant("empty-audio", add(write("header.wav", noise(1, 0))))
    broken = noise(91)
    broken[100:103] = [np.nan, np.inf, -np.inf]
    plant("not-finite", add(write("nan.wav", broken, subtype="FLOAT")))
    plant("out-of-range", add(write("part.wav"), start_s="0.5"))
    plant("out-of-range", add("part.wav", start_s="0.1", duration_s="0.45"))
    plant("too-short", add(write("short.wav", noise(92, 399))))
    plant("silent", add(write("zeros.wav", np.zeros(RATE, dtype=np.float32))))
    plant("silent", add(write("faint.wav", noise(93) / 5000)))
    opposite = noise(94)
    plant("silent", add(write("cancelled.wav", np.stack([opposite, -opposite], axis=1))))
    plant("clipped", add(write("clipped.wav", np.clip(40 * smooth(95), -1, 1))))
    plant("clipped", add(write("clipped_below.wav", np.clip(40 * smooth(96), -0.4, 0.4))))
    one_side = np.stack([smooth(97), np.minimum(40 * smooth(98), 0.5)], axis=1)
    plant("clipped", add(write("clipped_once.wav", one_side)))
    plant("beyond-full-scale", add(write("loud.wav", 30 * noise(99), subtype="FLOAT")))
    plant("dc-offset", add(write("offset.wav", noise(100) - 0.2)))
    bats = 0.2 * np.sin(2 * np.pi * 45000 * np.arange(38400) / 384000)
    soundfile.write(str(root / "bats.wav"), bats, 384000)
    plant("outside-band", add("bats.wav"))
    content = (root / write("half.wav")).read_bytes()
    (root / "half.wav").write_bytes(content[:40] + (len(content) // 2).to_bytes(4, "little") + content[44:])
    plant("doubtful-file", add("half.wav"), add("half.wav", start_s="0.1", duration_s="0.1"))
    twice = write("twice.wav")
    plant("duplicate-row", add(twice), add(twice))
    plant("duplicate-row", add("part.wav", start_s="0.1"), add("part.wav", start_s="0.10"))
    wave = noise(101)
    copies = write("copy.wav", wave), write("copy.flac", wave), write("copy.aiff", np.stack([wave, wave], axis=1))
    plant("duplicate-across-splits", add(copies[0], "dog"), add(copies[1], "dog", "val"), add(copies[2], "dog"))
    plant("duplicate-with-other-label", add(write("both.wav")), add("both.wav", "dog"))
    unknown = add(write("unknown.wav", wave := noise(102)), split="?"), add(write("unknown.flac", wave), split="?")
    plant("duplicate-audio", *unknown)
    expected += [("bad-row", (line,)) for line in unknown]
    plant(
        "group-across-splits",
        add(write("anna_1.wav"), group="anna"),
        add(write("anna_2.wav"), "dog", "dev", group="anna"),
    )
    plant("class-absent", add(write("owl.wav"), "owl"))
    add(write("sea_lion_1.wav"), "sea lion"), add(write("sea_lion_2.wav"), "sea lion", "val")
    add(write("sea_lion_5.wav"), "sea lion")
    plant("label-spelling", add(write("sea_lion_3.wav"), "Sea_Lion"), add(write("sea_lion_4.wav"), "Sea_Lion", "val"))
    for row in planter.rows:
        row["room"] = "kitchen"
    return expected


def smooth(seed: int) -> NDArray[np.float32]:
    """Noise whose neighbours are alike, as those of recordings are."""
    return np.convolve(noise(seed), np.hanning(16) / 8, mode="same").astype(np.float32)


def test_every_planted_fault_is_found_and_nothing_else(planter: Planter) -> None:
    expected = plant_all(planter)
    result = check(planter.save(), labels=["label", "room"])
    assert found_by(result) == sorted(expected)
    assert len({kind for kind, _ in expected}) == 22
    assert set(KINDS) - {kind for kind, _ in expected} == {"no-split", "damaged-store"}
    assert result.count == len(expected)
    kinds = [finding.kind for finding in result.findings]
    assert kinds == sorted(kinds, key=list(KINDS).index)
    names = [row["path"] for row in planter.rows]
    for finding in result.findings:
        if finding.lines and finding.kind in ("silent", "clipped", "unreadable", "missing-file", "duplicate-row"):
            assert names[finding.lines[0] - 2] in finding.message


def test_a_clean_manifest_has_no_findings_and_no_notes(planter: Planter) -> None:
    planter.add_clean()
    result = check(planter.save())
    assert found_by(result) == notes_by(result) == []
    assert result.count == 0
    assert result.summary["splits"] == {"train": 4, "valid": 4, "test": 4}
    assert result.summary["labels"] == {"label": {name: {"train": 2, "valid": 2, "test": 2} for name in ("cat", "dog")}}
    assert result.summary["groups"] == {
        "column": "group",
        "count": 6,
        "per_split": dict.fromkeys(("train", "valid", "test"), 2),
    }
    assert result.summary["hours"] == pytest.approx(12 * 0.5 / 3600, abs=1e-6)
    assert result.summary["sample_rates"] == {str(RATE): 12}
    assert result.summary["duration_s"]["median"] == 0.5
    # The level of noise of standard deviation 0.1, over 8000 samples: to 0.14 dB.
    assert result.summary["rms_db"]["median"] == pytest.approx(-20, abs=0.3)


def test_without_a_split_copies_are_a_finding_and_with_one_a_note(planter: Planter) -> None:
    planter.add_clean()
    planter.write("copy.flac", soundfile.read(str(planter.root / "train_cat_0.wav"), dtype="float32")[0])
    lines = (2, planter.add("copy.flac", group="train 0"))
    result = check(planter.save("split"))
    assert found_by(result) == [("duplicate-audio", lines), ("no-split", ())]
    result = check(planter.save())
    assert found_by(result) == []
    assert notes_by(result) == [("repeated-audio", lines)]


def test_all_kinds_of_notes(planter: Planter) -> None:
    planter.add_clean(splits=("train", "test"))
    wave = smooth(7)
    level = np.quantile(np.abs(wave), 0.99)
    clipped = planter.add(planter.write("some.wav", np.clip(wave, -level, level)), group="a")
    over = planter.add(planter.write("over.wav", 1.5 * noise(8) / np.abs(noise(8)).max(), subtype="FLOAT"), group="a")
    renamed = planter.add(planter.write("flac.wav", noise(9), format="FLAC"), group="a")
    stereo = np.stack([noise(10), noise(11)], axis=1)
    soundfile.write(str(planter.root / "other.wav"), stereo, 44100)
    planter.add("other.wav", group="a")
    alone = planter.add(planter.write("alone.wav"))
    again = planter.add(planter.write("again.wav", noise(9)), group="a")
    for number, row in enumerate(planter.rows):
        row["kind"] = row.pop("label")
        row["pitch"] = str(number % 3)
    result = check(planter.save())
    assert found_by(result) == []
    assert notes_by(result) == sorted(
        [
            ("some-clipping", (clipped,)), ("overshoot", (over,)), ("other-format", (renamed,)), ("no-group", (alone,)),
            ("repeated-audio", (renamed, again)), ("mixed-sample-rates", ()), ("mixed-channels", ()),
            ("model-rate", ()), ("label-columns", ()), ("no-valid", ()),
        ]
    )  # fmt: skip
    assert {note.kind for note in result.notes} == set(NOTES) - {"store", "several-labels", "left-out"}
    assert set(result.summary["labels"]) == {"kind", "pitch"}


def test_label_columns_are_the_named_ones_or_the_only_one(planter: Planter) -> None:
    planter.add_clean()
    for row in planter.rows:
        row["animal"] = f" {row.pop('label')} "
        row["licence"] = "CC0" if row["split"] == "test" else "MIT"
    planter.rows[0]["animal"] = " "
    manifest = planter.save()
    for settings in ({}, {"labels": ["animal"]}):
        result = check(manifest, **settings)
        assert found_by(result) == [("bad-row", (2,))]
        assert list(result.summary["labels"]) == ["animal"]
        assert result.summary["labels"]["animal"]["cat"] == {"train": 1, "valid": 2, "test": 2}
    assert found_by(check(manifest, labels=["licence"])) == [
        ("class-absent", (2, 3, 4, 5, 6, 7, 8, 9)),
        ("class-absent", (10, 11, 12, 13)),
    ]


def test_a_column_with_one_value_or_one_for_each_row_is_no_label(planter: Planter) -> None:
    planter.add_clean()
    for number, row in enumerate(planter.rows):
        del row["label"]
        row["room"], row["take"] = "kitchen", str(number)
    result = check(planter.save())
    assert found_by(result) == []
    assert notes_by(result) == [("label-columns", ())]
    assert result.summary["labels"] == {}


def test_a_split_column_of_which_nothing_is_known_is_bad_rows_and_not_missing(planter: Planter) -> None:
    planter.add_clean()
    for row in planter.rows:
        row["split"] = "fold 1"
    assert {kind for kind, _ in found_by(check(planter.save()))} == {"bad-row", "split-missing"}


def test_a_part_is_judged_by_its_own_samples(planter: Planter) -> None:
    planter.add_clean()
    samples = np.concatenate([noise(1), np.zeros(RATE // 2, dtype=np.float32), noise(1)])
    planter.write("parts.wav", samples)
    lines = [planter.add("parts.wav", start_s=f"{start}", duration_s="0.5", group="a") for start in (0, 0.5, 1)]
    result = check(planter.save())
    assert found_by(result) == [("silent", (lines[1],))]
    assert "parts.wav at 0.5 s" in result.findings[0].message
    assert notes_by(result) == [("repeated-audio", (lines[0], lines[2]))]


def test_the_group_may_be_another_column(planter: Planter) -> None:
    planter.add_clean()
    for row in planter.rows:
        row["speaker"] = row.pop("group")
    planter.rows[0]["speaker"] = "test 0"
    manifest = planter.save()
    [note] = check(manifest).notes
    assert note.kind == "no-group"
    assert "speaker" in note.message
    assert found_by(check(manifest, group="speaker")) == [("group-across-splits", (2, 10, 12))]


def test_names_that_differ_in_their_sign_are_different_classes(planter: Planter) -> None:
    planter.add_clean()
    for row in planter.rows:
        row["label"] = {"cat": "-1", "dog": "1"}[row["label"]]
    assert found_by(check(planter.save())) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": ["nothing"]}, "must have a column 'nothing'"),
        ({"group": "nothing"}, "must have a column 'nothing'"),
        ({"allow": ["nothing"]}, "--allow must be one of bad-row, .*, got 'nothing'"),
        ({"jobs": 0}, "--jobs must be >= 1, got 0"),
    ],
)
def test_wrong_settings_are_errors(planter: Planter, settings: dict[str, Any], message: str) -> None:
    planter.add_clean()
    with pytest.raises(InputError, match=message):
        check(planter.save(), **settings)


@pytest.mark.parametrize(("over_s", "kinds"), [(0.009, []), (0.011, ["out-of-range"])])
def test_a_part_may_end_a_rounding_error_beyond_its_file(planter: Planter, over_s: float, kinds: list[str]) -> None:
    planter.add_clean()
    planter.add(planter.write("part.wav"), start_s="0.2", duration_s=f"{0.3 + over_s}", group="a")
    assert [finding.kind for finding in check(planter.save()).findings] == kinds


def refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def test_json_is_strict_and_complete(planter: Planter) -> None:
    expected = plant_all(planter)
    result = check(planter.save(), labels=["label", "room"], allow=["bad-row", "silent"])
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False), parse_constant=refuse)
    assert document["findings"] == [
        {
            "kind": finding.kind, "message": finding.message, "lines": finding.lines,
            "allowed": finding.kind in ("bad-row", "silent"),
        }
        for finding in result.findings
    ]  # fmt: skip
    assert document["count"] == sum(kind not in ("bad-row", "silent") for kind, _ in expected) == result.count
    assert document["ok"] is False
    assert document["summary"]["clips"] == len(planter.rows)
    assert document["summary"]["labels"]["label"]["owl"] == {"train": 1}
    assert {note["kind"] for note in document["notes"]} >= {"mixed-channels", "no-group"}


def test_a_manifest_of_which_nothing_can_be_read_has_a_summary(planter: Planter) -> None:
    planter.add("gone.wav")
    result = check(planter.save())
    assert ("missing-file", (2,)) in found_by(result)
    json.dumps(result.to_dict(), allow_nan=False)
    assert "1 clip" in result.format()


def test_a_store_is_checked_as_its_manifest_is(planter: Planter) -> None:
    planter.add_clean()
    zeros = planter.add(planter.write("zeros.wav", np.zeros(RATE, dtype=np.float32)), group="a")
    loud = planter.add(planter.write("loud.wav", 30 * noise(3), subtype="FLOAT"), group="a")
    copy = (
        planter.add(planter.write("copy.flac", noise(4)), group="a"),
        planter.add(planter.write("copy.wav", noise(4)), split="test", group="b"),
    )
    manifest = planter.save()
    expected = [("beyond-full-scale", (loud,)), ("duplicate-across-splits", copy), ("silent", (zeros,))]
    assert found_by(check(manifest)) == expected
    store = planter.root / "store"
    prepare_store(inspect_manifest(manifest)[0], store, where=str(manifest), progress=False)
    result = check(store)
    assert found_by(result) == expected
    assert [note.kind for note in result.notes] == ["store"]
    assert result.summary["sample_rates"] == {"16000": len(planter.rows)}
    content = bytearray((store / "audio-00000.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (store / "audio-00000.arrow").write_bytes(content)
    assert found_by(check(store)) == [("damaged-store", ())]


def test_a_folder_of_class_folders_is_checked(tmp_path: Path) -> None:
    for number, name in enumerate(("cat/1", "cat/2", "dog/1", "dog/2")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(str(tmp_path / f"{name}.wav"), np.zeros(RATE) if number == 2 else noise(number), RATE)
    result = check(tmp_path)
    assert found_by(result) == [("no-split", ()), ("silent", (3,))]
    assert "file 3: dog/1.wav is digital silence" in result.format()
    assert result.summary["labels"]["label"] == {"cat": {"clips": 2}, "dog": {"clips": 2}}
    with pytest.raises(InputError, match=r"--label must name a column, but .* is a folder, got 'kind'"):
        check(tmp_path, labels=["kind"])


def test_a_long_file_is_never_held_whole(planter: Planter) -> None:
    planter.add_clean()
    whole = 4 * 240 * RATE
    planter.add(planter.write("long.wav", noise(5, whole // 4)), group="a")
    manifest = planter.save()
    tracemalloc.start()
    try:
        assert check(manifest, jobs=1).count == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Blocks of 1 MiB as float32, and a few copies of one in float64, beside what pandas needs for a small table.
    assert peak < 0.75 * whole


def test_checking_loads_no_torch() -> None:
    code = "import sys, audiostride.dataset.check, audiostride.commands.checking as c; c.build_parser(); "
    code += "print([name for name in ('torch', 'lightning_fabric', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_what_is_left_out_of_a_folder_is_a_note_and_what_cannot_be_read_a_finding(
    tmp_path: Path, lock: Callable[[Path], None]
) -> None:
    for number, name in enumerate(("cat/1.wav", "dog/1.wav", "dog/locked/2.wav", "_owl/1.wav", "loose.wav")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(str(tmp_path / name), noise(number), RATE)
    (tmp_path / "dog" / "phone.wma").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / os.fsdecode(b"cat/caf\xe9.wav")).write_bytes((tmp_path / "cat" / "1.wav").read_bytes())
    lock(tmp_path / "dog" / "locked")
    result = check(tmp_path)
    unreadable = [finding.message for finding in result.findings if finding.kind == "unreadable"]
    assert sorted(unreadable) == [
        f"audio file {tmp_path}/cat/caf\\udce9.wav must have a name in UTF-8 without control characters; rename it",
        f"folder {tmp_path}/dog/locked cannot be read: Permission denied",
    ]
    notes = [note.message for note in result.notes if note.kind == "left-out"]
    assert len(notes) == 4
    for part in (
        "left out: 1 .wma",
        "left out: _owl/",
        "outside of a class folder, left out: loose.wav",
        "empty holds",
    ):
        assert sum(part in note for note in notes) == 1
    result.format().encode()
    json.dumps(result.to_dict(), ensure_ascii=False).encode()
    assert result.summary["clips"] == 2


@pytest.mark.parametrize("stored", [False, True])
def test_several_labels_are_a_note(planter: Planter, stored: bool) -> None:
    planter.add_clean()
    for row in planter.rows[::3]:
        row["label"] = "cat;dog"
    manifest = planter.save()
    if stored:
        prepare_store(inspect_manifest(manifest)[0], planter.root / "store", where=str(manifest), progress=False)
        manifest = planter.root / "store"
    [note] = [note for note in check(manifest).notes if note.kind == "several-labels"]
    assert note.message == (
        "4 clips with several labels in one cell, such as 'cat;dog': each such text is taken as one class of its own, "
        "and --multi-label takes them apart"
    )


def test_columns_of_0_and_1_are_a_note_and_not_read_as_one_label_each(planter: Planter) -> None:
    planter.add_clean()
    for row in planter.rows:
        label = row.pop("label")
        row.update(cat=str(int(label == "cat")), dog=str(int(label == "dog")), end_time="0.25", score="0.5")
    planter.rows[0]["score"] = planter.rows[1]["score"] = "0.75"
    result = check(planter.save())
    assert [note.message for note in result.notes if note.kind == "several-labels"] == [
        "columns of 0 and 1 (cat, dog) are not read as one label each"
    ]
    assert list(result.summary["labels"]) == ["cat", "dog"], "times and scores look like no labels"
    assert result.summary["duration_s"]["max"] == 0.25
    assert any("'end_time' (end)" in note.message for note in result.notes if note.kind == "left-out")


def test_files_that_nobody_may_look_at_are_unreadable_and_not_missing(
    planter: Planter, lock: Callable[[Path], None]
) -> None:
    planter.add_clean()
    (planter.root / "locked").mkdir()
    lines = planter.add("locked/a.wav", group="a"), planter.add("gone.wav", group="a")
    lock(planter.root / "locked")
    found = found_by(check(planter.save()))
    assert found == [("missing-file", lines[1:]), ("unreadable", lines[:1])]


def test_scores_of_a_teacher_are_checked_and_are_no_labels(planter: Planter) -> None:
    planter.add_clean()
    for row in planter.rows:
        row |= {"score:cat": "0.9", "score:dog": "0.1"} if row["split"] == "train" else {}
    planter.rows[0]["label"] = planter.rows[3]["label"] = ""
    planter.rows[3] |= {"score:cat": "0.2", "score:dog": "0.7"}
    taught = check_manifest(planter.save(), group="group", progress=False)
    assert taught.count == 0
    assert "scores of label are divided by their sum, which is not 1 in 1 row: 0.9 to 0.9" in taught.format()
    assert [*taught.summary["labels"]] == ["label"]
    # A class that only the scores of its training clips know is not absent from train.
    for row in planter.rows:
        row |= (
            {"label": "", "score:cat": "0.1", "score:dog": "0.9"}
            if (row["split"], row["label"]) == ("train", "dog")
            else {}
        )
    assert check_manifest(planter.save(), progress=False).count == 0
    planter.rows[1]["score:dog"] = "-1"
    planter.rows[-1]["label"] = ""
    planter.rows[-1] |= {"score:cat": "0", "score:dog": "1"}
    found = check_manifest(planter.save(), labels=["label"], progress=False)
    assert [(finding.kind, finding.message, finding.lines) for finding in found.findings] == [
        ("bad-row", "score:dog must be a probability in [0, 1], got '-1'", [3]),
        ("bad-row", "label is empty, and scores stand for it in training clips only", [13]),
    ]
    planter.rows[0]["score:cow"] = "1"
    with pytest.raises(InputError, match="got 'score:cow'; label has cat, dog"):
        check_manifest(planter.save(), progress=False)


def test_rates_are_compared_with_the_models(tmp_path: Path) -> None:
    planter = Planter(tmp_path)
    rates = (8000, 16000, 22050, 96000)
    for number, rate in enumerate(rates):
        samples = 0.1 * np.random.default_rng(number).standard_normal(rate // 2)
        soundfile.write(str(tmp_path / f"{rate}.wav"), samples, rate)
        planter.add(f"{rate}.wav", group=str(number))
    manifest = planter.save()

    def told(sample_rate: int) -> list[str]:
        result = check_manifest(manifest, sample_rate=sample_rate, progress=False)
        return [note.message for note in result.notes if note.kind == "model-rate"]

    low, high = told(16000)
    assert low.startswith("1 clips at 8,000 Hz: the bands of a model of 16,000 Hz hold nothing of them above 4,000 Hz")
    assert high.startswith("1 clips at 96,000 Hz: a model of 16,000 Hz hears nothing of them above 7,800 Hz")
    assert all(message.endswith("choose its rate with --sample-rate") for message in (low, high))
    assert [message.split()[3] for message in told(96000)] == ["8,000", "16,000", "22,050"]
    with pytest.raises(InputError, match="check: sample_rate"):
        check_manifest(manifest, sample_rate=0)


def test_what_a_model_of_16_khz_cannot_hear_one_of_a_higher_rate_can(tmp_path: Path) -> None:
    planter = Planter(tmp_path)
    for number in range(4):
        tone = 0.3 * np.sin(2 * np.pi * (40_000 + 500 * number) / 250_000 * np.arange(50_000))
        soundfile.write(str(tmp_path / f"{number}.wav"), tone, 250_000)
        planter.add(f"{number}.wav", group=str(number))
    manifest = planter.save()
    kinds = [{found.kind for found in check_manifest(manifest, sample_rate=rate, progress=False).findings}
             for rate in (16_000, 250_000)]  # fmt: skip
    assert ["outside-band" in found for found in kinds] == [True, False]

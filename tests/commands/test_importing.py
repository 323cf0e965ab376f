import ast
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from audiostride.commands import importing
from audiostride.dataset.importers import ANNOTATIONS, ARCHIVES, FOLDER
from audiostride.errors import InputError
from lab.clips import read_clips


def run(*arguments: object) -> int:
    parsed = importing.build_parser().parse_args([str(argument) for argument in arguments])
    return importing.run(parsed)


@pytest.mark.parametrize(
    ("name", "build", "rows"),
    [
        ("tut-urban-2018", "build_tut", 60),
        ("dcase2018-birds", "build_birds", 32),
        ("nsynth", "build_nsynth", 93),
        ("speech-commands", "build_speech", 175),
    ],
)
@pytest.mark.parametrize("splits", ["official", "paper-like"])
def test_every_archive_becomes_a_manifest_that_can_be_read(
    archives: ModuleType,
    tmp_path: Path,
    name: str,
    build: str,
    rows: int,
    splits: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, out = getattr(archives, build)(tmp_path / "root", audio=False), tmp_path / "m.csv"
    assert run(name, root, "-o", out, "--splits", splits) == 0
    shown = capsys.readouterr().out
    table = pd.read_csv(out, dtype=str)
    assert len(table) == rows
    labels = {"nsynth": ["instrument_family", "pitch"], "dcase2018-birds": ["label", "hasbird"]}.get(name, ["label"])
    assert {"path", "group", "split", *labels} <= set(table.columns)
    for label in labels:
        clips = read_clips(out, label=label)
        assert len(clips) == rows
        assert f"  audiostride train --manifest {out} --label {label} --out runs/{name}-{label}\n" in shown
        for split, count in clips["split"].value_counts().items():
            assert f"{label}, {split}: {count} clips: " in shown
    assert f"split scheme: {splits}" in shown
    assert f"{rows} clips -> {out}" in shown
    assert f"  audiostride check {out}\n" in shown
    assert ", the card says " in shown


def test_counts_of_classes_are_shown_in_one_line_per_split() -> None:
    clips = pd.DataFrame({"label": ["b", "a", "b"], "split": ["train", "train", "test"]})
    assert importing.describe_counts(clips, "label") == ["label, train: 2 clips: a 1, b 1", "label, test: 1 clip: b 1"]
    assert importing.describe_counts(clips[["label"]], "label") == ["label, no split: 3 clips: a 1, b 2"]
    many = pd.DataFrame({"pitch": [*range(41), 40], "split": "train"})
    assert importing.describe_counts(many, "pitch") == ["pitch, train: 42 clips: 41 classes of 1 to 2 clips"]


def test_a_folder_without_splits_is_told_how_to_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dog/1.wav", "cat/1.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert run("folder", tmp_path, "-o", tmp_path / "m.csv") == 0
    shown = capsys.readouterr().out
    assert "- there are no split folders" in shown
    assert "--label label --random-split 0 --out" in shown
    assert "split" not in pd.read_csv(tmp_path / "m.csv").columns


def test_contradictions_are_an_error_that_lists_all_unless_partial(
    archives: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = archives.build_nsynth(tmp_path / "root", audio=False), tmp_path / "m.csv"
    gone = [min((root / f"nsynth-{split}" / "audio").iterdir()) for split in ("train", "test")]
    for file in gone:
        file.unlink()
    with pytest.raises(InputError, match="--partial") as caught:
        run("nsynth", root, "-o", out)
    for file in gone:
        assert f"1 note not on disk: audio/{file.name}" in str(caught.value)
    assert not out.exists()
    assert run("nsynth", root, "-o", out, "--partial") == 0
    assert len(pd.read_csv(out)) == 91
    assert "- nsynth-train: examples.json lists 1 note not on disk" in capsys.readouterr().out


def test_a_manifest_that_exists_is_kept_unless_overwrite(archives: ModuleType, tmp_path: Path) -> None:
    root, out = archives.build_birds(tmp_path / "root", audio=False), tmp_path / "root" / "m.csv"
    out.write_text("mine")
    with pytest.raises(InputError, match=r"m\.csv exists; choose another -o, or give --overwrite"):
        run("dcase2018-birds", root, "-o", out)
    assert out.read_text() == "mine"
    assert run("dcase2018-birds", root, "-o", out, "--overwrite") == 0
    assert pd.read_csv(out)["path"].str.startswith(("ff1010bird/wav/", "warblrb10k/wav/", "BirdVox")).all()
    # The manifest now lies among the tables of the archive and must not be taken for one of them.
    assert run("dcase2018-birds", root, "-o", out, "--overwrite") == 0
    assert len(pd.read_csv(out)) == 32


def test_the_seed_moves_the_paper_like_split_only(archives: ModuleType, tmp_path: Path) -> None:
    root = archives.build_tut(tmp_path, audio=False)
    for scheme, same in (("official", True), ("paper-like", False)):
        splits = []
        for seed in (0, 1):
            run("tut-urban-2018", root, "-o", tmp_path / "m.csv", "--splits", scheme, "--seed", seed, "--overwrite")
            splits.append(pd.read_csv(tmp_path / "m.csv")["split"].tolist())
        assert (splits[0] == splits[1]) is same


def test_the_list_names_every_data_set_with_licence_and_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list") == 0
    shown = capsys.readouterr().out
    for name in (*ARCHIVES, "ripples", FOLDER, ", ".join(ANNOTATIONS)):
        assert f"\n{name}\n" in "\n" + shown
    assert "official: 6,122 train, 0 valid, 2,518 test" in shown
    assert "labels: instrument_family (11 classes), pitch (128 classes)" in shown
    assert "download: 25.5 GB, unpacked 31.6 GB more" in shown
    assert shown.count("licence: ") == shown.count("source: ") == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "NAME must be given"),
        (["nsynth"], "ROOT must be given"),
        (["nsynth", "."], "-o must be given"),
        (["ripples", ".", "-o", "m.csv"], "NAME must be one of tut-urban-2018, .*, got 'ripples'"),
        (["folder", ".", "-o", "m.csv", "--download"], "--download must go with a data set that has a card"),
        (["nsynth", ".", "-o", "nowhere/m.csv"], "-o must lie in a folder that exists"),
    ],
)
def test_arguments_that_are_missing_or_wrong_are_named(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        run(*arguments)


def test_download_fetches_the_card_to_the_root_before_the_import(
    archives: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def build(card: dict[str, Any], root: Path) -> None:
        asked.append(card["name"])
        archives.build_birds(root, audio=False)

    monkeypatch.setattr("audiostride.dataset.download.download_archives", build)
    assert run("dcase2018-birds", tmp_path / "new", "-o", tmp_path / "new" / "m.csv", "--download") == 0
    assert asked == ["dcase2018-birds"]
    assert len(pd.read_csv(tmp_path / "new" / "m.csv")) == 32


def test_the_names_of_the_parser_are_those_of_the_importers() -> None:
    assert (*ARCHIVES, FOLDER, *ANNOTATIONS) == importing.NAMES
    assert (importing.run.__doc__ or "").splitlines()[0].endswith(".")


def test_nothing_here_imports_torch_or_figures() -> None:
    package = Path(inspect.getfile(importing)).parent.parent
    files = [*(package / "dataset" / "importers").glob("*.py"), package / "commands" / "importing.py"]
    files += [package / "dataset" / f"{name}.py" for name in ("cards", "download", "unpacking", "splits")]
    assert len(files) == 17
    heavy = {"torch", "lightning_fabric", "matplotlib", "torchaudio"}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in heavy | {"audiostride.training.batches"}, file
            elif isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & heavy, file


def test_the_parser_is_made_without_pandas() -> None:
    code = "import sys, audiostride.commands.importing as i; i.build_parser(); print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

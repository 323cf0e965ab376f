"""Files are written whole or not at all, and whatever the system refuses is one line, at every door."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from audiostride.errors import InputError, explain, explained
from audiostride.writing import make_folder, replacing, write_bytes, write_json, write_text

REFUSALS = {
    errno.ENOSPC: "No space left on device; make room there",
    errno.EROFS: "Read-only file system; choose another place",
    errno.EACCES: "Permission denied; change its permissions, or choose another place",
    errno.ENAMETOOLONG: "File name too long; choose a shorter name",
}
WRITERS: dict[str, Callable[[Path], None]] = {
    "bytes": lambda path: write_bytes(path, b"new"),
    "text": lambda path: write_text(path, "new"),
    "json": lambda path: write_json(path, ["new"]),
}


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, *, when: str) -> None:
    """Let files refuse to be opened, be written half, or refuse to be put in their place."""

    def fail(*given: object, **settings: object) -> None:
        raise OSError(number, os.strerror(number))

    def fill(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        fail()

    if when == "replacing":
        monkeypatch.setattr(os, "replace", fail)
    else:
        monkeypatch.setattr(Path, "write_bytes", fail if when == "opening" else fill)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_replaces_the_one_that_stood(tmp_path: Path, write: Callable[[Path], None]) -> None:
    (tmp_path / "f").write_text("old")
    write(tmp_path / "f")
    assert "new" in (tmp_path / "f").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("when", ["opening", "filling", "replacing"])
@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_refusal_is_named_and_leaves_what_stood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], number: int, when: str
) -> None:
    (tmp_path / "f").write_text("old")
    refuse(monkeypatch, number, when=when)
    with pytest.raises(InputError) as caught:
        write(tmp_path / "f")
    assert str(caught.value) == f"{tmp_path / 'f'} cannot be written: {REFUSALS[number]}"
    assert (tmp_path / "f").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_whatever_ends_the_writing_leaves_no_partial_file(tmp_path: Path) -> None:
    def stop(path: Path) -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(
        InputError, match=r"f cannot be written: text must be UTF-8, but .*surrogates not allowed; rename"
    ):
        write_text(tmp_path / "f", "a\udcffb")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "f").touch()
    for path, reason in ((tmp_path / "f", "File exists"), (tmp_path / "f" / "g", "Not a directory")):
        with pytest.raises(InputError, match=f"^{path} cannot be written: {reason}; choose another name$"):
            make_folder(path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied; change its permissions, .*"),
        (PermissionError(13, "Permission denied", b"/a/\xff"), "/a/\udcff: Permission denied; .*"),
        (OSError("the library says\nmore"), "the library says more"),
        (OSError(28, "No space left on device"), "No space left on device; make room there"),
        (OSError(), "OSError"),
        (MemoryError(), "memory ran out: MemoryError"),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
            "text must be UTF-8, but 'utf-8' codec .*; rename or convert",
        ),
    ],
)
def test_what_the_system_refuses_becomes_one_line(error: Exception, said: str) -> None:
    with pytest.raises(InputError, match=f"^{said}"), explained():
        raise error
    assert "\n" not in str(explain(error))  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [BrokenPipeError(), KeyError("a"), RuntimeError("ours"), InputError("said")])
def test_defects_and_closed_pipes_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explained():
        raise error
    assert caught.value is error


# What each command writes, from the folder of a manifest with a column ``kind``, a run and a folder to write in;
# for reports and exports, which take long, see test_runs.py and test_export.py.
DOORS = {
    "import": "import folder {classes} -o {out}/m.csv",
    "prepare": "prepare {manifest} -o {out}/store",
    "train": "train --manifest {manifest} --label kind --out {out}/run --width 0.03 --max-steps 1 --batch-size 4",
    "evaluate": "evaluate {out}/kept",
    "resume": "train --out {out}/kept --resume --max-steps 9",
    "predict": "predict {run} {manifest} -o {out}/p.csv",
    "demo": "demo --out {out}/demo",
}


@pytest.mark.parametrize("door", DOORS)
def test_every_command_says_a_full_disk_in_one_line_and_leaves_nothing_half(
    door: str,
    manifest: Path,
    trained_run: Path,
    tmp_path: Path,
    run_command: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for kind, clip in (("noise", 1), ("tone", 2)):
        (tmp_path / "classes" / kind).mkdir(parents=True)
        shutil.copy(manifest.parent / "audio" / f"train_{clip}.wav", tmp_path / "classes" / kind)
    shutil.copytree(trained_run, tmp_path / "kept")
    before = {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    refuse(monkeypatch, errno.ENOSPC, when="replacing")
    places = {"manifest": manifest, "run": trained_run, "out": tmp_path, "classes": tmp_path / "classes"}
    assert run_command(*DOORS[door].format(**places).split()) == 2
    shown = capsys.readouterr().err.split("\r")[-1]
    assert shown.count("\n") == 1
    assert shown.strip().startswith("audiostride: ")
    assert "No space left on device" in shown
    assert {path: path.read_bytes() for path in before} == before
    # What a later call goes on with, of predictions and stores, is theirs.
    assert not [path for path in tmp_path.rglob("*.partial") if door not in ("predict", "prepare")]

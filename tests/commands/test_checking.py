"""``audiostride check``: exit codes, options and what it prints."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiostride.commands.checking import build_parser, run
from audiostride.dataset.check.findings import KINDS
from audiostride.errors import InputError

RATE = 16000


def write_set(root: Path, *, silent: int = 0) -> Path:
    """A manifest of 18 clips, the first of which are silent."""
    lines = ["path,word,split,speaker"]
    for number in range(18):
        samples = 0.1 * np.random.default_rng(number).standard_normal(RATE // 10) * (number >= silent)
        soundfile.write(str(root / f"{number}.wav"), samples, RATE)
        split = ("train", "val", "test")[number % 3]
        lines.append(f"{number}.wav,{('yes', 'no')[number // 3 % 2]},{split},{split}")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root / "manifest.csv"


def check(*arguments: object) -> int:
    return run(build_parser().parse_args([str(argument) for argument in arguments]))


def test_nothing_wrong_is_exit_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(write_set(tmp_path), "--label", "word", "--group", "speaker") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"{tmp_path / 'manifest.csv'}: nothing wrong in 18 clips"
    table = [line.split() for line in out.splitlines()]
    assert ["word", "(2)", "train", "valid", "test"] in table
    assert ["yes", "3", "3", "3"] in table
    assert "notes" not in out


def test_findings_are_exit_code_1_and_the_first_ten_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(write_set(tmp_path, silent=12)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("12 findings in 18 clips")
    start = lines.index(f"silent (12): {KINDS['silent']}")
    assert lines[start + 1 : start + 11] == [f"  line {n + 2}: {n}.wav is digital silence" for n in range(10)]
    assert lines[start + 11] == "  and 2 more"
    assert any("--label" in line for line in lines)
    assert any("maybe speaker" in line for line in lines)


def test_allowed_kinds_are_listed_and_not_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_set(tmp_path, silent=1)
    assert check(manifest, "--allow", "silent", "clipped") == 0
    out = capsys.readouterr().out
    assert "nothing wrong in 18 clips (1 allowed)" in out
    assert "silent (1, allowed)" in out
    assert check(manifest, "--allow", "clipped") == 1
    with pytest.raises(InputError, match="got 'silence'"):
        check(manifest, "--allow", "silence")


def test_json_is_all_there_is_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(write_set(tmp_path, silent=2), "--json", "--jobs", "1") == 1
    document = json.loads(capsys.readouterr().out)
    assert [finding["lines"] for finding in document["findings"]] == [[2], [3]]
    assert document["count"] == 2
    assert document["summary"]["clips"] == 18


def test_audio_root_and_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from audiostride.cli import main

    manifest = write_set(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    moved = manifest.rename(tmp_path / "elsewhere" / "manifest.csv")
    assert main(["check", str(moved), "--audio-root", str(tmp_path)]) == 0
    assert main(["check", str(moved)]) == 1
    assert "missing-file (18)" in capsys.readouterr().out
    assert main(["check", str(manifest)]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_help_lists_all_kinds() -> None:
    text = build_parser().format_help()
    for kind in KINDS:
        assert f"\n  {kind} " in text

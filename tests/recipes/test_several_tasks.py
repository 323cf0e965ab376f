"""Recipes on the tasks of several archives: options, what is missing, what is learned."""

from pathlib import Path
from typing import Any

import pytest

from audiostride.distributed import Processes
from audiostride.errors import InputError
from lab.several import SeveralRecipe, build_several_parser, main_several, prepare_several, what_is_learned
from lab.tables import format_poolings

RECIPE = SeveralRecipe(
    name="mine", head="Mine.", variants={"strided": {"pooling": "strided"}}, table=format_poolings,
    settings={"max_steps": 2, "valid_every": 1, "batch_size": 4, "width": 0.03, "device": "cpu"},
)  # fmt: skip


def test_a_setting_that_training_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match=r"recipe mine: settings must be among .*, got 'task'"):
        SeveralRecipe(name="mine", head="", variants={}, table=format_poolings, settings={"task": []})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"  --tut DIR  tut-urban-2018\n  --birds DIR .*\n  --nsynth DIR .*\n  --speech DIR"),
        (["--birds", ".", "--tasks", "birds", "pitch"], r"missing are\n  --nsynth DIR  nsynth\ngive the folders"),
        (["--smoke", "--nsynth", "."], "--smoke makes its own data; leave --tut, --birds, --nsynth, --speech and"),
        (["--smoke", "--download"], "and --download out"),
        (["--smoke", "--set", "batch_size=1"], "train: batch_size must be a whole number >= 2"),
    ],
)
def test_bad_options(
    given: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main_several(RECIPE, [*given, *(["--tasks", "birds"] if "--set" in given else [])]) == 2
    shown = capsys.readouterr().err
    with pytest.raises(ValueError, match=message):
        raise ValueError(shown)
    assert list(tmp_path.iterdir()) == []


def test_what_is_compared_may_not_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    variants = {"shared": {"shared_strides": True}}
    recipe = SeveralRecipe(name="mine", head="", variants=variants, table=format_poolings)
    assert main_several(recipe, ["--smoke", "--set", "shared_strides=true"]) == 2
    assert "mine: --set must leave what is compared alone, got shared_strides" in capsys.readouterr().err


def test_tasks_of_one_archive_share_its_store_and_a_manifest_that_stands_needs_no_folder(
    archives: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = archives.build_nsynth(tmp_path / "archive")
    arguments = build_several_parser(RECIPE).parse_args([])
    tasks = ["instrument", "pitch"]
    stores = prepare_several(tasks, {"nsynth": root}, tmp_path / "data", arguments, Processes())
    store = tmp_path / "data" / "nsynth-official" / "store"
    assert stores == {"nsynth": store}
    assert what_is_learned(tasks, stores) == {"task": [f"instrument={store}:instrument_family", f"pitch={store}:pitch"]}
    capsys.readouterr()
    assert prepare_several(tasks, {}, tmp_path / "data", arguments, Processes()) == stores
    assert capsys.readouterr().out.count("stands, skipped") == 3

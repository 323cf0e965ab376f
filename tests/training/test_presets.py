"""Presets: what they hold, and their place between the defaults, a YAML file and the other options."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from audiostride.cli import build_parser
from audiostride.errors import InputError
from audiostride.training.config import TrainConfig
from audiostride.training.presets import PRESETS, preset_settings

BAD_INPUT = 2
DEFAULTS = {field.name: field.default for field in fields(TrainConfig)}

Run = Callable[..., int]


def saved_settings(run: Path) -> dict[str, object]:
    return yaml.safe_load((run / "config.yaml").read_text())


def test_there_are_three_presets_of_which_ours_is_the_default() -> None:
    assert list(PRESETS) == ["paper", "modern", "none"]
    assert build_parser("train").parse_args(["--manifest", "m", "--out", "o"]).preset == "modern"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_holds_settings_that_a_training_takes(name: str) -> None:
    config = TrainConfig(manifest="m", out="o", **PRESETS[name])
    assert {key: config.to_dict()[key] for key in PRESETS[name]} == PRESETS[name]


def test_the_paper_preset_is_the_papers_experiment() -> None:
    config = TrainConfig(manifest="m", out="o", **PRESETS["paper"])
    assert (config.lr, config.stride_lr, config.schedule) == (1e-4, 1e-4, "constant")
    assert (config.batch_size, config.max_steps) == (256, 1_000_000)
    assert (config.size, config.ramp_bins, config.pool_after) == ("paper", 4, "block")
    assert config.channels == [64, 128, 256, 256, 512, 512]
    assert config.strides == [[2, 2], [2, 2], [1, 1], [2, 2], [1, 1], [2, 2]]


@pytest.mark.parametrize("element", [name for name, value in PRESETS["modern"].items() if value != DEFAULTS[name]])
def test_the_paper_preset_names_every_element_of_ours_to_turn_it_off(element: str) -> None:
    assert PRESETS["paper"][element] != PRESETS["modern"][element]


def test_the_bare_preset_is_what_a_training_has_in_python() -> None:
    bare = vars(build_parser("train").parse_args(["--manifest", "m", "--out", "o", "--preset", "none"]))
    assert {name: bare[name] for name in DEFAULTS if name not in ("manifest", "out")} == {
        name: value for name, value in DEFAULTS.items() if name not in ("manifest", "out")
    }


def test_a_preset_that_is_changed_stays_as_it_is() -> None:
    settings = preset_settings("paper")
    settings["channels"].append(1)
    settings["lr"] = 1
    assert preset_settings("paper") == PRESETS["paper"] != settings
    with pytest.raises(InputError, match=r"preset must be one of paper, modern, none, got 'papers'"):
        preset_settings("papers")


@pytest.mark.parametrize(
    ("in_file", "options", "expected"),
    [
        ({}, [], PRESETS["modern"]["lr"]),
        ({}, ["--preset", "none"], DEFAULTS["lr"]),
        ({}, ["--preset", "paper"], PRESETS["paper"]["lr"]),
        ({"preset": "paper"}, [], PRESETS["paper"]["lr"]),
        ({"preset": "modern"}, ["--preset", "paper"], PRESETS["paper"]["lr"]),
        ({"lr": 0.02}, ["--preset=paper"], 0.02),
        ({}, ["--lr", "0.03", "--preset", "paper"], 0.03),
        ({"lr": 0.02}, ["--preset", "paper", "--lr", "0.03"], 0.03),
    ],
)
def test_default_preset_file_option_in_this_order(
    tmp_path: Path, in_file: dict[str, object], options: list[str], expected: float
) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"manifest": "m", "width": 0.5, **in_file}))
    parsed = build_parser("train").parse_args(["--out", "o", "--config", str(tmp_path / "run.yaml"), *options])
    with_preset = in_file.get("preset") == "paper" or "paper" in str(options)
    assert (parsed.lr, parsed.width) == (expected, 0.5)
    # What neither the file nor an option says.
    assert parsed.size == (PRESETS["paper"]["size"] if with_preset else DEFAULTS["size"])


def test_a_file_stands_over_a_preset_that_is_named_before_it(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("{manifest: m, out: o, lr: 0.02}")
    parsed = build_parser("train").parse_args(["--preset", "paper", "--config", str(tmp_path / "run.yaml")])
    assert (parsed.lr, parsed.size) == (0.02, "paper")


def test_the_run_folder_holds_the_settings_that_were_used(set_manifest: Path, quick_run: Run, tmp_path: Path) -> None:
    assert quick_run(set_manifest, tmp_path / "run", "--preset", "paper", "--stride-lr", "0.5") == 0
    used = saved_settings(tmp_path / "run")
    assert (used["lr"], used["size"], used["schedule"], used["ramp_bins"]) == (1e-4, "paper", "constant", 4)
    assert (used["stride_lr"], used["batch_size"], used["max_steps"]) == (0.5, 4, 6)  # options of this test


def test_print_config_shows_the_presets_settings(set_manifest: Path, run_command: Run, capsys) -> None:
    given = ["train", "--preset", "paper", "--manifest", set_manifest, "--out", "x", "--lr", "0.5", "--print_config"]
    assert run_command(*given) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["size"], shown["lr"], shown["max_steps"]) == ("paper", 0.5, 1_000_000)


def test_a_run_that_goes_on_keeps_its_settings(
    set_manifest: Path, quick_run: Run, run_command: Run, tmp_path: Path
) -> None:
    assert quick_run(set_manifest, tmp_path / "run", "--preset", "modern") == 0
    before = saved_settings(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()  # as if it had been killed before
    assert run_command("train", "--out", tmp_path / "run", "--resume", "--preset", "paper") == 0
    assert saved_settings(tmp_path / "run") == before
    assert before["lr"] == PRESETS["modern"]["lr"]


@pytest.mark.parametrize("given", [["--preset", "papers"], ["--config", "preset.yaml"]])
def test_an_unknown_preset_is_answered_with_those_that_exist(
    set_manifest: Path, quick_run: Run, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, given: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "preset.yaml").write_text("preset: papers\n")
    assert quick_run(set_manifest, tmp_path / "run", *given) == BAD_INPUT
    shown = capsys.readouterr().err
    assert all(name in shown for name in ["papers", *PRESETS])
    assert not (tmp_path / "run").exists()

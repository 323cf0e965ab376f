"""Taking up a run again: with its own data and settings only, whatever ended it, to the bit where nothing changed."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from audiostride.errors import InputError
from audiostride.training import TrainConfig, train
from audiostride.training.resuming import check_same_settings
from audiostride.training.run_recorder import RunRecorder
from audiostride.training.settings import check_run_folder

Run = Callable[..., int]
Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture
def begun(set_manifest: Path, plain_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished quick run of six steps, whose manifest lies beside it as m.csv."""
    shutil.copytree(plain_run, tmp_path / "run")
    shutil.copy(set_manifest, tmp_path / "m.csv")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    config["manifest"] = str(tmp_path / "m.csv")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "run"


def go_on(run: Path, **changes: Any) -> dict[str, Any]:
    config = TrainConfig.load(run).to_dict() | {"out": str(run), "max_steps": 9} | changes
    return train(TrainConfig(**config), resume=True, progress=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop(index=[0, 1]), ["kind, train: 36 clips -> 34"]),
        (lambda table: pd.concat([table, table.tail(1)]), ["kind, test: 6 clips -> 7"]),
        (lambda table: table.iloc[::-1], ["kind, train: 36 clips -> 36, but others, or in another order"]),
        (lambda table: table.assign(start_s=0.1), ["kind, train: 36 clips -> 36, but", "kind, valid: 4 clips -> 4"]),
        (lambda table: table.assign(note="new", speaker="other"), None),  # columns that the run does not use
        (lambda table: table.assign(kind=["noise", "tone", *table["kind"][2:]]), ["kind, train: other labels or gr"]),
        (lambda table: table.assign(group="a"), ["kind, train: other labels or groups", "kind, test: other labels"]),
        (
            lambda table: table.assign(split=["valid", *table["split"][1:]]),
            ["kind, train: 36 clips -> 35", "kind, valid: 4 clips -> 5"],
        ),
    ],
)  # fmt: skip
def test_changed_data_are_refused_with_what_differs(begun: Path, change: Change, said: list[str] | None) -> None:
    manifest = begun.parent / "m.csv"
    change(pd.read_csv(manifest)).to_csv(manifest, index=False)
    before = (begun / "checkpoints" / "last.ckpt").read_bytes()
    if said is None:
        go_on(begun)
        return
    with pytest.raises(InputError, match=r"must have the clips, labels and splits that it began with") as caught:
        go_on(begun)
    for line in said:
        assert f"\n  {line}" in str(caught.value)
    assert (begun / "checkpoints" / "last.ckpt").read_bytes() == before
    assert TrainConfig.load(begun).max_steps == 6


def test_data_that_were_moved_are_the_same(begun: Path, tmp_path: Path) -> None:
    table = pd.read_csv(begun.parent / "m.csv")
    for place in ("here", "there"):
        (tmp_path / place / "audio").mkdir(parents=True)
        for path in table["path"]:
            shutil.copy(path, tmp_path / place / "audio")
        relative = table.assign(path=[f"audio/{Path(path).name}" for path in table["path"]])
        relative.to_csv(tmp_path / place / "m.csv", index=False)
    settings = TrainConfig.load(begun).to_dict() | {"out": str(tmp_path / "new"), "max_steps": 1}
    train(TrainConfig(**settings | {"manifest": str(tmp_path / "here" / "m.csv")}), progress=False)
    shutil.rmtree(tmp_path / "here")
    assert go_on(tmp_path / "new", manifest=str(tmp_path / "there" / "m.csv"), max_steps=2)["steps"] == 2
    (tmp_path / "new" / "data.json").unlink()  # a run of before cannot tell
    with pytest.raises(InputError, match="manifest: "):
        go_on(tmp_path / "new", manifest=str(begun.parent / "m.csv"))


def test_a_run_without_a_record_of_its_data_goes_on_and_gets_one(begun: Path) -> None:
    recorded = (begun / "data.json").read_bytes()
    (begun / "data.json").unlink()
    assert go_on(begun)["steps"] == 9
    assert (begun / "data.json").read_bytes() == recorded


@pytest.mark.parametrize("content", ["", "[]", '{"kind": 3}', '{"kind": {"train": {"clips": "many"}}}'])
def test_a_record_of_data_that_is_damaged_is_named(begun: Path, content: str) -> None:
    (begun / "data.json").write_text(content)
    with pytest.raises(InputError, match=r"^train: .*data\.json.*; copy it again, or train anew in another --out$"):
        go_on(begun)


def test_more_steps_go_on_with_the_schedule_of_all_of_them(
    begun: Path, quick_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quick_run(begun.parent / "m.csv", begun, "--resume", "--max-steps", "12") == 0
    assert "max_steps grows from 6 to 12: from here on, learning rates follow the cosine" in capsys.readouterr().out
    assert quick_run(begun.parent / "m.csv", begun.parent / "whole", "--max-steps", "12") == 0
    grown, whole = (pd.read_csv(run / "history.csv").set_index("step") for run in (begun, begun.parent / "whole"))
    assert grown.index.tolist() == whole.index.tolist() == [3, 6, 9, 12]
    assert grown["lr"][6] == 0  # the end of the schedule that it began with
    assert grown["lr"][[9, 12]].equals(whole["lr"][[9, 12]])
    state = torch.load(begun / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 12
    metrics = json.loads((begun / "metrics.json").read_text())
    assert (metrics["steps"], metrics["stopped_early"]) == (12, False)


def test_the_first_step_after_growing_has_the_rate_of_the_new_schedule(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def note(self: torch.optim.AdamW, *given: Any, **settings: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *given, **settings)

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    go_on(begun, max_steps=8)
    expected = [2e-3 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * done / 8)).item()) for done in (6, 7)]
    assert rates == pytest.approx(expected, rel=1e-6)  # float32's cosine


def test_fewer_steps_and_other_settings_are_refused_and_more_or_other_parts_are_said(begun: Path) -> None:
    old = TrainConfig.load(begun)
    changed = lambda **changes: TrainConfig(**old.to_dict() | {"out": str(begun)} | changes)  # noqa: E731
    assert check_same_settings(old, changed()) == []
    assert check_same_settings(old, changed(workers=3, device="cpu")) == []
    notes = check_same_settings(old, changed(accumulate=2, max_steps=7))
    assert [note.split()[0] for note in notes] == ["max_steps", "accumulate"]
    assert "batch norm sees 2 excerpts at a time" in notes[1]
    for change in ({"accumulate": 2}, {"max_steps": 7}):  # runs that stand beside others, of seeds and recipes
        with pytest.raises(InputError, match="must keep its settings"):
            check_same_settings(old, changed(**change), strict=True)
    assert check_same_settings(old, changed(workers=3), strict=True) == []
    with pytest.raises(InputError, match="max_steps: 6 -> 5"):
        check_same_settings(old, changed(max_steps=5))
    with pytest.raises(InputError, match="label: kind -> other"):
        check_same_settings(old, changed(label="other"))


def test_a_batch_may_be_computed_in_parts_from_a_resume_on(begun: Path) -> None:
    assert go_on(begun, accumulate=2)["steps"] == 9
    assert TrainConfig.load(begun).accumulate == 2


def fail_after(times: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system refuse to put a file in its place after so many."""
    replace, done = os.replace, list[object]()

    def fill(*given: Any) -> None:
        if len(done) == times:
            raise OSError(number, os.strerror(number))
        done.append(given)
        replace(*given)

    monkeypatch.setattr(os, "replace", fill)


@pytest.mark.parametrize("written", range(9))
def test_a_run_that_a_full_disk_ended_goes_on_to_the_same_end(
    written: int,
    plain_run: Path,
    set_manifest: Path,
    tmp_path: Path,
    quick_run: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fail_after(written, errno.ENOSPC, patch)
        assert quick_run(set_manifest, tmp_path / "run") == 2
    shown = capsys.readouterr().err
    assert "cannot be written: No space left on device; make room there\n" in shown
    assert "Traceback" not in shown
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]
    begun = (tmp_path / "run" / "config.yaml").exists()
    assert begun == (written > 0)
    assert quick_run(set_manifest, tmp_path / "run", *["--resume"] * begun) == 0
    for name in ("metrics.json", "model.safetensors", "per_class.csv", "predictions_test.csv", "data.json"):
        assert (tmp_path / "run" / name).read_bytes() == (plain_run / name).read_bytes(), name


def test_a_folder_of_unfinished_files_is_taken_again_and_any_other_is_not(tmp_path: Path) -> None:
    run = tmp_path / "run"
    check_run_folder(run, resume=False)
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml.partial").write_text("out: ")
    check_run_folder(run, resume=False)
    with pytest.raises(InputError, match=r"has no config\.yaml; leave --resume out"):
        check_run_folder(run, resume=True)
    (run / "checkpoints" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"must be a new or empty folder, got .*; choose another name$"):
        check_run_folder(run, resume=False)
    (run / "config.yaml").touch()
    with pytest.raises(InputError, match=r"continue the run there with --resume, or choose another name$"):
        check_run_folder(run, resume=False)


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "changed", "other"])
def test_a_checkpoint_that_is_damaged_is_named_and_not_believed(begun: Path, damage: str) -> None:
    file = begun / "checkpoints" / "last.ckpt"
    content = bytearray(file.read_bytes())
    weights = torch.load(file, weights_only=True)["state_dict"]["model.heads.0.weight"]
    place = content.find(weights.numpy().tobytes())
    assert place > 0
    content[place + 2] ^= 0x40  # one bit of a weight
    if damage == "other":
        torch.save({"global_step": 3}, file)
    else:
        half = content[: len(content) // 2]
        file.write_bytes({"empty": b"", "text": b"text", "cut": half, "changed": content}[damage])
    with pytest.raises(InputError, match=r"^train: .*last\.ckpt must be the checkpoint of this run, but reading it f"):
        go_on(begun)


def test_results_that_are_damaged_are_named(begun: Path, quick_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for content in ("{", "[]", '{"stopped_early": "no"}', '{"stopped_early": false}'):
        (begun / "metrics.json").write_text(content)
        assert quick_run(begun.parent / "m.csv", begun, "--resume") == 2
        shown = capsys.readouterr().err
        assert shown.startswith(f"audiostride: train: {begun / 'metrics.json'}")
        assert f"'audiostride evaluate {begun}' writes" in shown
    (begun / "metrics.json").unlink()
    (begun / "skipped.csv").write_text("split,line\ntrain,x\n")
    with pytest.raises(InputError, match=r"skipped\.csv must be as the run wrote it.*has no column reason; remove it"):
        go_on(begun)


def test_a_run_killed_before_its_first_validation_begins_anew(
    set_manifest: Path, plain_run: Path, tmp_path: Path, quick_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunRecorder, "begin", die)
        assert quick_run(set_manifest, tmp_path / "run") == 130
    assert quick_run(set_manifest, tmp_path / "run", "--resume") == 0
    assert (tmp_path / "run" / "metrics.json").read_bytes() == (plain_run / "metrics.json").read_bytes()

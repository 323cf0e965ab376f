"""The folder of a run: what may stand in it, reading what does, and comparing settings and data with others."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd

from audiostride.checks import read_json
from audiostride.errors import InputError
from audiostride.training.run_files import read_yaml
from audiostride.writing import PARTIAL


def check_run_folder(run: Path, *, resume: bool) -> None:
    """Raise unless a run can begin in a folder, which is new or empty then, or can be continued there."""
    if run.exists() and not run.is_dir():
        raise InputError(f"train: --out must be a folder, got the file {run}")
    if resume and not (run / "config.yaml").exists():
        raise InputError(f"train: --resume needs a run folder, but {run} has no config.yaml; leave --resume out")
    # A process that was killed may have left partial files.
    left = [path for path in run.rglob("*") if not path.is_dir() and not path.name.endswith(PARTIAL)]
    if left and not resume:
        goes_on = "continue the run there with --resume, or " if (run / "config.yaml").exists() else ""
        raise InputError(f"train: --out must be a new or empty folder, got {run}; {goes_on}choose another name")


def read_settings(
    run: str | Path, known: Collection[str], *, writer: str, needed: Collection[str] = ("out",)
) -> dict[str, Any]:
    """The values in the ``config.yaml`` of a run folder.

    Args:
        run: The folder.
        known: Names of the settings that there are.
        writer: What writes such folders, for messages.
        needed: Names of settings that must be there.

    Raises:
        InputError: Not a run folder, or a ``config.yaml`` that this version does not know.
    """
    file = Path(run) / "config.yaml"
    if not file.is_file():
        raise InputError(f"{run} must be a run folder written by {writer}, but has no config.yaml")
    values = read_yaml(file)
    unknown = sorted(map(str, set(values) - set(known)))
    if unknown:
        raise InputError(f"{file} must hold known settings, got {', '.join(unknown)}")
    missing = [name for name in needed if name not in values]
    if missing:
        raise InputError(f"{file} must have {', '.join(missing)}, got none")
    return values


class _Clips(TypedDict):
    """What ``data.json`` knows of the clips of a split."""

    clips: int
    places: str
    labels: str


Data = dict[str, dict[str, _Clips]]


def describe_data(learned: Mapping[str, Sequence[str]], clips: pd.DataFrame) -> Data:
    """What tells whether a run that is taken up again has the clips, labels and splits that it began with.

    Args:
        learned: Columns with what is learned of each task: labels, and maybe targets made of a teacher's scores.
        clips: As `inspect_manifest` has them; where the data set lies is left out, so that it may be moved.

    Returns:
        For each task and split the number of clips, and checksums of where they are, and of what is learned of them
        and their groups.
    """
    found: Data = {}
    for task, columns in learned.items():
        found[task] = {}
        for split, own in clips.groupby("split"):
            places, named = own[["clip_name", "start_s", "duration_s"]], own[[*columns, "group"]]
            found[task][str(split)] = {"clips": len(own), "places": _checksum(places), "labels": _checksum(named)}
    return found


def _checksum(table: pd.DataFrame) -> str:
    columns = ("\0".join(map(str, table[name].tolist())) for name in table)
    return hashlib.sha256("\n".join(columns).encode("utf-8", "surrogateescape")).hexdigest()


def check_same_data(run: Path, data: Data) -> None:
    """Raise, showing the differences, unless `data` are those that a run began with; a run of 0.1.0 does not know."""
    file = run / "data.json"
    if not file.is_file():
        return
    before = read_json("train", file, Data, advice="copy it again, or train anew in another --out")
    changed, none = [], _Clips(clips=0, places="", labels="")
    for task, splits in data.items():
        for split in {**before.get(task, {}), **splits}:
            old, new = before.get(task, {}).get(split, none), splits.get(split, none)
            if old["places"] != new["places"]:
                others = ", but others, or in another order" if old["clips"] == new["clips"] else ""
                changed.append(f"  {task}, {split}: {old['clips']} clips -> {new['clips']}{others}")
            elif old["labels"] != new["labels"]:
                changed.append(f"  {task}, {split}: other labels or groups, or scores of a teacher")
    if changed:
        raise InputError(
            f"train: a resumed run must have the clips, labels and splits that it began with, but in {run} these "
            "differ:\n" + "\n".join(changed) + "\ngive the manifest as it was, or train anew in another --out"
        )


def check_equal_settings(
    before: Mapping[str, Any], after: Mapping[str, Any], *, out: str, changeable: Collection[str]
) -> None:
    """Raise, showing the differences, unless the settings `after` continue the training that `before` began.

    Args:
        before, after: Settings as `config.yaml` has them.
        out: The run folder, for the message.
        changeable: Settings that may differ.
    """
    changed = [
        f"  {key}: {before[key]} -> {after[key]}"
        for key in before
        if before[key] != after[key] and key not in changeable
    ]
    if changed:
        raise InputError(
            f"train: a resumed run must keep its settings, but in {out} these differ:\n"
            + "\n".join(changed)
            + "\ngive the old values, or another --out"
        )

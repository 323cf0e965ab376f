"""The folder of a run and its ``config.yaml``: reading it, and comparing it with other settings."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from audiostride.errors import InputError


def check_run_folder(run: Path, *, resume: bool) -> None:
    """Raise unless a run can begin in a folder, which is new or empty then, or can be continued there."""
    if run.exists() and not run.is_dir():
        raise InputError(f"train: --out must be a folder, got the file {run}")
    if resume and not (run / "config.yaml").exists():
        raise InputError(f"train: --resume needs a run folder, but {run} has no config.yaml; leave --resume out")
    if not resume and run.is_dir() and any(run.iterdir()):
        raise InputError(
            f"train: --out must be a new or empty folder, got {run}; "
            "continue the run there with --resume, or choose another name"
        )


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
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError) as error:  # not in UTF-8; a date that there is not; no permission
        raise InputError(f"{file} must be YAML, but reading it failed: {error}") from error
    unknown = sorted(map(str, set(values) - set(known))) if isinstance(values, dict) else ["(not a table of settings)"]
    if unknown:
        raise InputError(f"{file} must hold known settings, got {', '.join(unknown)}")
    missing = [name for name in needed if name not in values]
    if missing:
        raise InputError(f"{file} must have {', '.join(missing)}, got none")
    found: dict[str, Any] = values
    return found


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

"""The clips of a manifest as one table, where one bad row ends it."""

from pathlib import Path

import pandas as pd

from audiostride.dataset.manifest import inspect_manifest


def read_clips(
    manifest: str | Path,
    *,
    label: str = "label",
    audio_root: str | Path | None = None,
    group: str = "group",
    on_error: str = "stop",
) -> pd.DataFrame:
    """The clips of a manifest, of a folder of class folders, or of a store, with one column of labels.

    Args:
        manifest: As for `inspect_manifest`.
        label: Column with the labels; not used for a folder.
        audio_root: Folder that paths are relative to; None is the manifest's own.
        group: Column that says what must not leak across splits (speaker, place, instrument, recording).
        on_error: ``"stop"``, or ``"skip"`` to leave missing files to what reads their audio.

    Returns:
        The table of `inspect_manifest`, with the labels in ``label``.

    Raises:
        InputError: No such file, a missing column, and all bad rows at once with their line numbers.
    """
    clips, bad = inspect_manifest(manifest, labels=(label,), audio_root=audio_root, group=group)
    bad.only(("row",) if on_error == "skip" else None).raise_if_any(
        f"manifest {manifest}", "mend these rows, or give the folder that paths are relative to with --audio-root"
    )
    return clips.assign(label=clips[label]) if label in clips.columns else clips

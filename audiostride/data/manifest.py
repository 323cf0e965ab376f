"""Manifests: the table of clips with their labels and splits."""

import hashlib
from pathlib import Path

import pandas as pd

from audiostride.data.audio_files import find_audio_files
from audiostride.errors import InputError

SPLITS = ("train", "valid", "test")
SPLIT_NAMES = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid"} | {
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
MAX_LISTED = 20


def read_clips(manifest: str | Path, *, label: str = "label", audio_root: str | Path | None = None) -> pd.DataFrame:
    """The clips of a manifest, or of a folder of class folders, with one column of labels.

    Args:
        manifest: A CSV table with a column ``path`` and optional ``start_s``, ``duration_s``, ``split`` (train, valid
            or test; val, validation and dev mean valid) and ``group``; or a folder ``ROOT/<class>/<file>``, or
            ``ROOT/<split>/<class>/<file>``, whose classes are then the folder names.
        label: Column with the labels; not used for a folder.
        audio_root: Folder that paths are relative to; None is the manifest's own.

    Returns:
        A table, one row per clip: ``line`` (in the CSV file), ``path`` (absolute), ``start_s``, ``duration_s`` (NaN:
        to the end), ``split`` (``None`` in all rows where the manifest has none), ``group`` (likewise) and ``label``.

    Raises:
        InputError: No such file, a missing column, and all bad rows at once with their line numbers.
    """
    manifest = Path(manifest)
    if manifest.is_dir():
        return _read_folder(manifest)
    table = _read_table(manifest)
    for column in ("path", label):
        if column not in table.columns:
            raise InputError(
                f"manifest {manifest} must have a column {column!r}, got {', '.join(map(str, table.columns))}; "
                "name the column of labels with --label"
            )
    root = Path(audio_root) if audio_root is not None else manifest.parent
    clips = pd.DataFrame({"line": range(2, len(table) + 2)})
    clips["path"] = [str((root / path).absolute()) if path else "" for path in table["path"]]
    clips["label"] = table[label].str.strip()
    problems = _Problems(f"manifest {manifest}")
    problems.add(clips.loc[table["path"].str.strip() == "", "line"], "path is empty")
    problems.add(clips.loc[clips["label"] == "", "line"], f"{label} is empty")
    for column, default in (("start_s", 0.0), ("duration_s", float("nan"))):
        text = table[column].str.strip() if column in table.columns else pd.Series("", index=table.index)
        numbers = pd.to_numeric(text, errors="coerce")
        bad = (text != "") & ~(numbers >= 0 if column == "start_s" else numbers > 0)
        problems.add(
            clips.loc[bad, "line"], f"{column} must be a number of seconds {'>= 0' if default == 0 else '> 0'}"
        )
        clips[column] = numbers.where(text != "", default).astype(float)
    if "split" in table.columns:
        clips["split"] = table["split"].str.strip().str.lower().map(SPLIT_NAMES)
        problems.add(
            clips.loc[clips["split"].isna(), "line"], "split must be train, valid (val, validation, dev) or test"
        )
    else:
        clips["split"] = None
    clips["group"] = table["group"] if "group" in table.columns else None
    existing = {path: Path(path).is_file() for path in clips["path"].unique() if path}
    missing = clips[~clips["path"].map(existing).fillna(True).astype(bool)]
    for line, path in zip(missing["line"], missing["path"], strict=True):
        problems.add([line], f"audio file {path} does not exist")
    problems.raise_if_any("mend these rows, or give the folder that paths are relative to with --audio-root")
    return clips


def _read_table(manifest: Path) -> pd.DataFrame:
    if not manifest.exists():
        raise InputError(f"manifest {manifest} does not exist; give a CSV file, or a folder of class folders")
    try:
        table = pd.read_csv(manifest, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"manifest {manifest} must be a CSV table in UTF-8, but reading it failed: {error}") from error
    if table.empty:
        raise InputError(f"manifest {manifest} must have at least one row, got none")
    return table


def _read_folder(root: Path) -> pd.DataFrame:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "_")))
    with_splits = bool(folders) and all(path.name.lower() in SPLIT_NAMES for path in folders)
    rows = []
    for folder in folders:
        classes = sorted(path for path in folder.iterdir() if path.is_dir()) if with_splits else [folder]
        split = SPLIT_NAMES[folder.name.lower()] if with_splits else None
        rows += [(str(file.absolute()), split, path.name) for path in classes for file in find_audio_files(path)]
    if not rows:
        raise InputError(f"folder {root} must hold class folders with audio files, e.g. {root}/dog/1.wav; found none")
    clips = pd.DataFrame(rows, columns=["path", "split", "label"])
    return clips.assign(line=range(1, len(clips) + 1), start_s=0.0, duration_s=float("nan"), group=None)


class _Problems:
    """Bad rows, collected so that all are reported at once."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.rows: list[tuple[int, str]] = []

    def add(self, lines: "pd.Series[int] | list[int]", message: str) -> None:
        self.rows += [(int(line), message) for line in lines]

    def raise_if_any(self, way_out: str) -> None:
        if self.rows:
            raise InputError(describe_bad_rows(self.where, self.rows, way_out))


def describe_bad_rows(where: str, rows: list[tuple[int, str]], way_out: str) -> str:
    """One message that lists bad rows by line number, the first 20 of them in words."""
    listed = [f"  line {line}: {message}" for line, message in sorted(rows)[:MAX_LISTED]]
    if len(rows) > MAX_LISTED:
        listed.append(f"  ... and {len(rows) - MAX_LISTED} more")
    return "\n".join([f"{where}: {len(rows)} bad row{'s' if len(rows) > 1 else ''}", *listed, way_out])


def assign_random_splits(clips: pd.DataFrame, *, seed: int, valid: float = 0.1, test: float = 0.1) -> pd.DataFrame:
    """`clips` with a split drawn from a seeded hash: group by group where there are groups, else class by class.

    Membership depends on the seed and the names only, not on the order of rows.

    Args:
        clips: A table as `read_clips` returns it.
        seed: Another seed, another split.
        valid, test: Shares of the groups (or of the clips of each class) that go to those splits; at least one each.
    """
    grouped = bool(clips["group"].notna().all())
    units = clips["group"] if grouped else clips["path"] + "@" + clips["start_s"].astype(str)
    # Without groups the shares hold in each class; with groups a class cannot be balanced without breaking a group.
    strata = pd.Series(0, index=clips.index) if grouped else clips["label"]
    # Hash names, not absolute paths: a data set that was moved keeps its split.
    common = str(Path(clips["path"].iloc[0]).parent.parent)
    split = pd.Series("train", index=clips.index, dtype=object)
    for _, members in units.groupby(strata):
        names = sorted(
            members.unique(),
            key=lambda name: hashlib.sha256(f"{seed}/{str(name).removeprefix(common)}".encode()).hexdigest(),
        )
        n_test, n_valid = max(1, round(test * len(names))), max(1, round(valid * len(names)))
        split[members.index[members.isin(names[:n_test])]] = "test"
        split[members.index[members.isin(names[n_test : n_test + n_valid])]] = "valid"
    return clips.assign(split=split)


def class_names(labels: "pd.Series[str]") -> list[str]:
    """The different labels in order: by number where all are integers, else by letters."""
    names = labels.unique().tolist()
    try:
        return sorted(names, key=int)
    except ValueError:
        return sorted(names)


def check_training_clips(clips: pd.DataFrame, *, where: str) -> list[str]:
    """The class names of a manifest that can be trained on.

    Raises:
        InputError: No split column, a missing split, fewer than two classes, a class without training clips.
    """
    if clips["split"].isna().all():
        raise InputError(
            f"{where}: a split column with train, valid and test must be there, got none, and none is invented "
            "silently; add the column, or draw one (by group, where there is a column 'group') with --random-split SEED"
        )
    for split in SPLITS:
        if not (clips["split"] == split).any():
            raise InputError(
                f"{where}: split {split!r} must have at least one clip, got none; "
                "fill the split column, or draw a split with --random-split SEED"
            )
    names = class_names(clips["label"])
    trained = set(clips.loc[clips["split"] == "train", "label"])
    untrained = [name for name in names if name not in trained]
    if untrained:
        raise InputError(
            f"{where}: every class must have training clips, but these have none: {', '.join(untrained)}; "
            "remove their rows or move some to the train split"
        )
    if len(names) < 2:
        raise InputError(f"{where}: there must be at least two classes, got {names}; is this the right --label column?")
    return names

"""The stages before training: import, check, prepare. Each is left out, and says so, where its result stands."""

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiostride.dataset.cards import read_card
from audiostride.dataset.check import check_manifest
from audiostride.dataset.download import download_archives
from audiostride.dataset.importers import import_clips, write_manifest
from audiostride.dataset.manifest import inspect_manifest
from audiostride.dataset.prepare import prepare_store
from audiostride.dataset.store import hash_file, read_store_header
from audiostride.distributed import Processes
from audiostride.errors import InputError
from audiostride.wording import count_of
from audiostride.writing import write_json

# Findings that preparing or training would end on. Bad audio may be skipped, faults of the table may not.
BAD_TABLE = ("bad-row", "no-split", "split-missing", "one-class")
BAD_AUDIO = ("missing-file", "unreadable", "empty-audio", "out-of-range", "not-finite")

MAX_SHOWN = 10
WAIT_S = 1.0  # between looks at whether the first process has prepared the data


def say(stage: str, text: str) -> None:
    """Print what a stage does or has done."""
    print(f"{stage}: {text}", flush=True)


def processes_of(settings: Mapping[str, Any]) -> Processes:
    """The processes that train together with these settings."""
    return Processes.of_environment(int(settings.get("devices", 1)), int(settings.get("num_nodes", 1)))


def prepare_data(
    data: str,
    root: str | Path | None,
    folder: str | Path,
    *,
    splits: str = "official",
    download: bool = False,
    partial: bool = False,
    on_error: str = "stop",
    processes: Processes | None = None,
) -> Path:
    """Import, check and prepare a data set, as far as it has not been done.

    Of several processes the first one does it, and the others wait for it.

    Args:
        data: Name of the data set's card.
        root: Folder of its unpacked archives; not needed where the manifest stands.
        folder: Where ``manifest.csv``, ``check.json`` and ``store/`` go; made if it is not there.
        splits: Split scheme, official or paper-like.
        download: Whether the archives are first downloaded to `root`.
        partial: Whether metadata and files may contradict each other.
        on_error: ``"skip"`` leaves bad audio out of the store, ``"stop"`` raises.
        processes: Those that will train on it together.

    Returns:
        The store.

    Raises:
        InputError: No such folder or not this data set; a manifest made from another one; findings that make training
            fail; bad audio.
    """
    folder = Path(folder)
    if processes is not None and not processes.first:
        while not _stands(folder / "manifest.csv"):
            time.sleep(WAIT_S)
        return folder / "store"
    manifest = import_stage(data, root, folder, splits=splits, download=download, partial=partial)
    check_stage(manifest, labels=tuple(read_card(data)["tasks"]), on_error=on_error)
    return prepare_stage(manifest, on_error=on_error)


def import_stage(
    data: str, root: str | Path | None, folder: Path, *, splits: str, download: bool, partial: bool
) -> Path:
    """Write ``manifest.csv`` and, before it, ``imported.json``, which says from what."""
    manifest, record = folder / "manifest.csv", folder / "imported.json"
    origin = {"data": data, "splits": splits, "root": None if root is None else os.path.realpath(root)}
    if manifest.is_file():
        _check_origin(record, origin)
        say("import", f"{manifest} stands, skipped")
        return manifest
    if root is None:
        raise InputError(
            f"import {data}: ROOT must be the folder of the unpacked archives, got none; give the folder, "
            "with --download to have them fetched to it, or try --smoke, which makes its own tiny data"
        )
    root = Path(root)
    if download:
        root.mkdir(parents=True, exist_ok=True)
        download_archives(read_card(data), root)
    if not root.is_dir():
        raise InputError(
            f"import {data}: ROOT must be a folder that exists, got {root}; unpack the archives there, "
            "or have them fetched with --download"
        )
    imported = import_clips(data, root, splits=splits)
    if imported.contradictions and not partial:
        listed = "\n".join(f"  {line}" for line in imported.contradictions)
        raise InputError(
            f"import {data}: metadata and files in {root} must agree, but\n{listed}\n"
            "unpack the archives again, or import what is there with --partial"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, origin)
    write_manifest(imported, root, manifest)
    for line in [*imported.contradictions, *imported.findings]:
        print(f"- {line}")
    say("import", f"{count_of(len(imported.clips), 'clip')}, split scheme {splits} -> {manifest}")
    return manifest


def _check_origin(record: Path, origin: dict[str, str | None]) -> None:
    """Raise where the manifest that stands was made from something else; an own manifest has no record."""
    if not record.is_file():
        return
    before = json.loads(record.read_text(encoding="utf-8"))
    for key, given in origin.items():
        if given is not None and given != before[key]:
            raise InputError(
                f"import: {key} must be that of the manifest in {record.parent}, {before[key]}, got {given}; "
                "choose another folder with --data, or remove that one"
            )


def check_stage(manifest: Path, *, labels: tuple[str, ...], on_error: str) -> None:
    """Write ``check.json`` beside the manifest; print how many findings there are of each kind.

    Raises:
        InputError: Findings that make training fail.
    """
    file = manifest.with_name("check.json")
    checksum = hash_file(manifest)
    stands = _is_of(file, checksum)
    if not stands:
        result = check_manifest(manifest, labels=labels)
        write_json(file, {"manifest_checksum": checksum, **result.to_dict()})
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    kinds = Counter(finding["kind"] for finding in found["findings"])
    counted = ", ".join(f"{kind} {count:,}" for kind, count in kinds.items())
    text = f"{count_of(len(found['findings']), 'finding')}" + (f": {counted}" if counted else "")
    say("check", f"{file} stands, skipped ({text})" if stands else f"{text} -> {file}")
    stopping = [*BAD_TABLE, *(BAD_AUDIO if on_error == "stop" else ())]
    faults = [f"  {item['kind']}: {item['message']}" for item in found["findings"] if item["kind"] in stopping]
    if faults:
        more = [f"  and {len(faults) - MAX_SHOWN:,} more in {file}"] if len(faults) > MAX_SHOWN else []
        raise InputError(
            "\n".join([f"check: {manifest} must be fit for training, but", *faults[:MAX_SHOWN], *more])
            + "\nmend the data and remove the manifest, or leave bad audio out with --on-error skip"
        )


def prepare_stage(manifest: Path, *, on_error: str) -> Path:
    """Write ``store/`` beside the manifest, or go on with one whose writing was stopped."""
    store, record = manifest.with_name("store"), manifest.with_name("prepared.json")
    if _stands(manifest):
        header = read_store_header(store)
        left_out = f", {count_of(header['skipped'], 'bad clip')} left out" if header["skipped"] else ""
        say("prepare", f"{store} stands, skipped ({count_of(header['clips'], 'clip')}{left_out})")
        return store
    clips, bad = inspect_manifest(manifest)
    bad.only(("row",) if on_error == "skip" else None).raise_if_any(f"manifest {manifest}", "mend these rows")
    # Held-out clips are drawn by name: names from the archive's folder on draw the same ones wherever it lies.
    home = os.path.commonpath(clips["path"].map(os.path.dirname).unique().tolist())
    clips["clip_name"] = clips["path"].str.removeprefix(home.rstrip(os.sep))
    summary = prepare_store(clips, store, where=str(manifest), on_error=on_error)
    write_json(record, {"manifest_checksum": hash_file(manifest)})
    hours = f"{summary.seconds / 3600:.2f} h of audio, {summary.size_bytes / 2**20:,.0f} MiB"
    say("prepare", f"{count_of(summary.clips, 'clip')}, {hours} -> {store}")
    if summary.skipped:
        say("prepare", f"{count_of(len(summary.skipped), 'bad clip')} left out: {store / 'skipped.csv'}")
    return store


def _stands(manifest: Path) -> bool:
    """Whether the store of a manifest is there."""
    store, record = manifest.with_name("store"), manifest.with_name("prepared.json")
    return (store / "store.json").is_file() and record.is_file() and _is_of(record, hash_file(manifest))


def _is_of(file: Path, checksum: str) -> bool:
    """Whether a result was made from the manifest as it stands."""
    return file.is_file() and json.loads(file.read_text(encoding="utf-8")).get("manifest_checksum") == checksum

"""Writing a store: decode, mix and resample every clip once, in parallel, so that it can be stopped at any moment."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from tqdm import tqdm

from audiostride.checks import read_json
from audiostride.dataset.bad_rows import describe_bad_rows
from audiostride.dataset.readers import clip_span
from audiostride.dataset.store import (
    FORMAT_VERSION,
    INDEX,
    PLACE_COLUMNS,
    hash_file,
    read_store_clips,
    read_store_header,
)
from audiostride.dataset.store_writer import ClipSource, read_finished, remove_records, stage_index, write_audio_file
from audiostride.distributed import default_jobs, map_in_threads
from audiostride.errors import InputError, reason_of
from audiostride.progress import progress_bar
from audiostride.writing import write_json, write_text

# An audio file is what a stop loses at most per job. Small ones share the work evenly; more than some hundred of them
# would exhaust the files that a process may hold open.
TARGET_FILES = 256
MIN_FILE_SAMPLES = 2**20
MAX_FILE_SAMPLES = 2**26  # 128 MiB, where that does not make too many files


class Plan(TypedDict):
    """What ``plan.json`` says of a store that is being written."""

    fingerprint: str
    files: list[tuple[int, int]]


@dataclass(frozen=True)
class StoreSummary:
    """What stands in a store, and what writing it took."""

    clips: int
    """Clips in the store."""
    seconds: float
    """Audio in the store, in seconds."""
    size_bytes: int
    """Size of the audio files."""
    scaled: int
    """Clips that go beyond full scale and are stored divided by a factor of their own."""
    skipped: list[tuple[int, str]]
    """Line number and message of each clip that was left out."""
    files: int
    """Audio files in the store."""
    written: int
    """Audio files written in this call; the others stood already."""


def prepare_store(
    clips: pd.DataFrame,
    out: str | Path,
    *,
    where: str,
    sample_rate: int = 16000,
    jobs: int | None = None,
    on_error: str = "stop",
    progress: bool = True,
) -> StoreSummary:
    """Write the clips of a manifest into a store, or go on with one whose writing was stopped.

    Args:
        clips: A table as `inspect_manifest` returns it, without bad rows.
        out: Folder that is written: new, empty, or begun from the same manifest. In a whole store of the same clips
            only labels and splits are brought up to date.
        where: Name of the manifest, for the store and for messages.
        sample_rate: Of the store, in Hz.
        jobs: Audio files written at a time, each by a thread (decoding and resampling release the interpreter lock);
            None takes one for each processor.
        on_error: ``"stop"`` looks at all clips and then raises; ``"skip"`` leaves bad clips out and lists them.
        progress: Whether disk need and progress are shown.

    Raises:
        InputError: A folder with something else in it, too little space, all bad clips with their line numbers.
    """
    out, jobs = Path(out), jobs or default_jobs()
    if "store" in clips.columns:
        raise InputError(f"prepare: {where} must be a manifest, got a store")
    fingerprint = _fingerprint(clips, sample_rate)
    if (out / "store.json").is_file():
        return _update_labels(clips, out, fingerprint)
    if not (out / "plan.json").is_file() and _holds_something(out):
        raise InputError(f"prepare: -o must be a new or empty folder, or a store that was begun, got {out}")
    sources, skipped = _find_sources(clips, sample_rate, jobs=jobs, progress=progress)
    if skipped and on_error == "stop":
        raise InputError(_describe(where, skipped, written=False))
    if not any(sources):
        raise InputError(f"prepare: {where} must have clips that can be read, got none of {len(clips)}")
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        plan = _read_or_make_plan(out, sources, fingerprint)
        parts = [sources[first:last] for first, last in plan]
        done = [read_finished(out, number, part) for number, part in enumerate(parts)]
        todo = [number for number, entry in enumerate(done) if entry is None]
        _check_disk(out, parts, todo, progress=progress)
        lengths_s = [sum(source.count for source in part if source) / sample_rate for part in parts]
        bar = progress_bar(
            total=round(sum(lengths_s)), initial=round(sum(lengths_s) - sum(lengths_s[number] for number in todo)),
            desc="preparing", unit="s of audio", disable=not progress, leave=False,
        )  # fmt: skip
        with bar, ThreadPoolExecutor(max_workers=jobs) as pool:
            futures = {
                number: pool.submit(write_audio_file, out, number, parts[number], sample_rate=sample_rate)
                for number in todo
            }
            try:
                for number, future in futures.items():
                    done[number] = future.result()
                    bar.update(round(lengths_s[number]))
            except KeyboardInterrupt:
                tqdm.write("stopping when the files being written are whole; the same command goes on from there")
                raise
            finally:
                for future in futures.values():
                    future.cancel()
        entries = [entry for entry in done if entry is not None]
        skipped += [(int(line), str(message)) for entry in entries for line, message in entry["errors"]]
        if skipped and on_error == "stop":
            raise InputError(_describe(where, skipped, written=True))
        if not any(length for entry in entries for length in entry["n_samples"]):
            raise InputError(f"prepare: {where} must have clips that can be decoded, got none of {len(clips)}")
        _finish(clips, out, plan, entries, fingerprint, where=where, sample_rate=sample_rate, skipped=skipped)
        return summarise_store(out, skipped=sorted(skipped), written=len(todo))


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Say what to do where the disk is full or nothing may be written."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"prepare: writing {out} failed: {reason_of(error)}; what is written already stays, and the same command "
            "goes on"
        ) from error


def _holds_something(out: Path) -> bool:
    """Whether a path is a file, or a folder with anything but what a call leaves that was stopped at once."""
    return out.exists() and (not out.is_dir() or any(entry.name != "plan.json.partial" for entry in out.iterdir()))


def summarise_store(store: Path, *, skipped: list[tuple[int, str]], written: int) -> StoreSummary:
    """The numbers of a whole store."""
    header = read_store_header(store)
    return StoreSummary(
        clips=header["clips"],
        seconds=header["samples"] / header["sample_rate"],
        size_bytes=sum(entry["bytes"] for entry in header["files"]),
        scaled=header["scaled"],
        skipped=skipped,
        files=len(header["files"]),
        written=written,
    )


def _describe(where: str, skipped: list[tuple[int, str]], *, written: bool) -> str:
    mend = "mend these files and give the command again (what is written already stays)"
    way_out = mend if written else "mend or remove these rows"
    return describe_bad_rows(where, skipped, f"{way_out}, or leave them out with --on-error skip")


def _fingerprint(clips: pd.DataFrame, sample_rate: int) -> str:
    """A checksum of what decides on the audio of a store: names, parts and sample rate, in order.

    Names count from the manifest's folder on, so that a data set may be moved together with its store.
    """
    digest = hashlib.sha256(str(sample_rate).encode())
    digest.update("\0".join(clips["clip_name"].tolist()).encode())
    for column in ("start_s", "duration_s"):
        digest.update(clips[column].to_numpy(dtype=np.float64).tobytes())
    return digest.hexdigest()


def _find_sources(
    clips: pd.DataFrame, sample_rate: int, *, jobs: int, progress: bool
) -> tuple[list[ClipSource | None], list[tuple[int, str]]]:
    """The part of its file that each clip is, from the headers; none for clips that cannot be read."""
    rows = list(zip(*(clips[column].tolist() for column in ("line", "path", "start_s", "duration_s")), strict=True))

    def find(row: tuple[int, str, float, float]) -> ClipSource | InputError:
        line, path, start_s, duration_s = row
        try:
            return ClipSource(line, path, *clip_span(path, start_s, duration_s, sample_rate=sample_rate))
        except InputError as error:
            return error

    found = progress_bar(
        map_in_threads(find, rows, jobs=jobs),
        total=len(rows), desc="looking at files", unit="clip", disable=not progress, leave=False,
    )  # fmt: skip
    sources: list[ClipSource | None] = []
    skipped: list[tuple[int, str]] = []
    for row, item in zip(rows, found, strict=True):
        if isinstance(item, InputError):
            skipped.append((row[0], str(item)))
        sources.append(None if isinstance(item, InputError) else item)
    return sources, skipped


def _read_or_make_plan(out: Path, sources: list[ClipSource | None], fingerprint: str) -> list[tuple[int, int]]:
    """First and last row of the clips of each audio file, as an earlier call has laid down or anew."""
    file = out / "plan.json"
    if file.is_file():
        plan = read_json("prepare", file, Plan, advice=f"remove {out}, or choose another folder")
        if plan["fingerprint"] != fingerprint:
            raise InputError(
                f"prepare: -o {out} holds a store begun from other clips (paths, parts or order differ); "
                "remove it, or choose another folder"
            )
        firsts, lasts = ([part[side] for part in plan["files"]] for side in (0, 1))
        if [*firsts, len(sources)] != [0, *lasts] or sorted({*lasts}) != lasts:
            raise InputError(f"prepare: {file} must share out {len(sources)} clips in order; remove {out}")
        return list(plan["files"])
    total = sum(source.count for source in sources if source)
    limit = max(min(max(total // TARGET_FILES, MIN_FILE_SAMPLES), MAX_FILE_SAMPLES), total // (2 * TARGET_FILES))
    files, first, samples = [], 0, 0
    for row, source in enumerate(sources):
        samples += source.count if source else 0
        if samples >= limit or row == len(sources) - 1:
            files.append((first, row + 1))
            first, samples = row + 1, 0
    write_json(file, {"fingerprint": fingerprint, "files": files})
    return files


def _check_disk(out: Path, parts: list[list[ClipSource | None]], todo: list[int], *, progress: bool) -> None:
    """State how much will be written, and raise if there is no room for it."""
    need = 2 * sum(source.count for number in todo for source in parts[number] if source)
    free = shutil.disk_usage(out).free
    if progress:
        standing = f"; {len(parts) - len(todo)} of {len(parts)} files stand already" if len(todo) < len(parts) else ""
        print(f"needs {need / 2**20:,.0f} MiB of disk, {free / 2**20:,.0f} MiB are free{standing}", flush=True)
    if need > free:
        raise InputError(
            f"prepare: the store must have room on the disk, but needs {need / 2**20:,.0f} MiB in {out} and "
            f"{free / 2**20:,.0f} MiB are free; choose another disk with -o"
        )


def _finish(
    clips: pd.DataFrame,
    out: Path,
    plan: list[tuple[int, int]],
    entries: list[dict[str, Any]],
    fingerprint: str,
    *,
    where: str,
    sample_rate: int,
    skipped: list[tuple[int, str]],
) -> None:
    """Write the index and, last, what marks the store as whole."""
    places = pd.DataFrame(
        {
            "store_row": np.arange(len(clips)),
            "store_file": np.repeat(np.arange(len(plan)), [last - first for first, last in plan]),
            **{
                name: np.concatenate([np.asarray(entry[name], dtype=kind) for entry in entries])
                for name, kind in (("store_offset", np.int64), ("n_samples", np.int64), ("store_scale", np.float64))
            },
        }
    )
    places = places[places["n_samples"] > 0]
    os.replace(stage_index(clips, places, out), out / INDEX)
    if skipped:
        write_text(out / "skipped.csv", pd.DataFrame(sorted(skipped), columns=["line", "reason"]).to_csv(index=False))
    header = {
        "format_version": FORMAT_VERSION,
        "sample_rate": sample_rate,
        "manifest": where,
        "clips": len(places),
        "samples": int(places["n_samples"].sum()),
        "scaled": int((places["store_scale"] != 1.0).sum()),
        "skipped": len(skipped),
        "fingerprint": fingerprint,
        "index": [hash_file(out / INDEX)],
        "files": [{key: entry[key] for key in ("bytes", "samples", "checksum")} for entry in entries],
    }
    write_json(out / "store.json", header)
    remove_records(out)


def _update_labels(clips: pd.DataFrame, out: Path, fingerprint: str) -> StoreSummary:
    """Bring labels, splits and groups of a whole store up to date with its manifest."""
    header = read_store_header(out)
    if header["fingerprint"] != fingerprint:
        raise InputError(
            f"prepare: -o {out} holds a store of other clips (paths, parts or order differ); "
            "remove it, or choose another folder"
        )
    places = read_store_clips(out)[["store_row", *PLACE_COLUMNS]]
    staged = stage_index(clips, places, out)
    new = hash_file(staged)
    if header["index"] != [new]:
        # Both are right until the new one is in its place, so that a stop in between leaves a store that verifies.
        write_json(out / "store.json", header | {"index": [*header["index"], new]})
        os.replace(staged, out / INDEX)
        write_json(out / "store.json", header | {"index": [new]})
    remove_records(out)  # also what a call left that was stopped in its last moment
    skipped: list[tuple[int, str]] = []
    if (out / "skipped.csv").is_file():
        try:
            listed = pd.read_csv(out / "skipped.csv", usecols=["line", "reason"], dtype={"line": int, "reason": str})
        except (ValueError, OSError) as error:
            what = f"{out / 'skipped.csv'} must list clips as it was written, but {reason_of(error)}"
            raise InputError(f"prepare: {what}; remove it, or prepare anew") from error
        skipped = list(zip(listed["line"].tolist(), listed["reason"].tolist(), strict=True))
    return summarise_store(out, skipped=skipped, written=0)

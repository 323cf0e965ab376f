"""``audiostride prepare``."""

import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from audiostride.errors import InputError
from audiostride.wording import count_of


def build_parser() -> ArgumentParser:
    """The options of ``audiostride prepare``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("manifest", metavar="MANIFEST", help="manifest, or folder of class folders")
    parser.add_argument("-o", "--out", required=True, metavar="STORE", help="folder that is written")
    parser.add_argument("--audio-root", help="folder that paths are relative to (default: the manifest's own)")
    parser.add_argument("--sample-rate", type=int, default=16000, help="of the store, in Hz")
    parser.add_argument("--jobs", type=int, help="files decoded at a time (default: one for each processor)")
    parser.add_argument(
        "--on-error", choices=["stop", "skip"], default="stop", help="whether bad clips are an error or are left out"
    )
    parser.add_argument("--verify", action="store_true", help="read the whole store again and compare checksums")
    return parser


def run(arguments: Any) -> int:
    """Decode, mix and resample every clip of a manifest once, into a store that is read at full speed.

    The store holds 16-bit samples in memory-mapped Arrow files. A stopped command, given again, goes on where it was.
    """
    # pandas and pyarrow load slowly, which help and errors need not wait for.
    from audiostride.dataset.manifest import inspect_manifest
    from audiostride.dataset.prepare import prepare_store
    from audiostride.dataset.store import verify_store

    if arguments.jobs is not None and arguments.jobs < 1:
        raise InputError(f"prepare: --jobs must be at least 1, got {arguments.jobs}")
    if arguments.sample_rate < 1:
        raise InputError(f"prepare: --sample-rate must be at least 1 Hz, got {arguments.sample_rate}")
    clips, bad = inspect_manifest(arguments.manifest, audio_root=arguments.audio_root)
    # A missing file is bad audio, which may be skipped; a row that says nothing usable is not.
    bad.only(("row",) if arguments.on_error == "skip" else None).raise_if_any(
        f"manifest {arguments.manifest}", "mend these rows, or leave missing files out with --on-error skip"
    )
    for note in bad.notes:
        print(note, file=sys.stderr)
    summary = prepare_store(
        clips,
        arguments.out,
        where=str(arguments.manifest),
        sample_rate=arguments.sample_rate,
        jobs=arguments.jobs,
        on_error=arguments.on_error,
    )
    print(
        f"{summary.clips:,} clips, {summary.seconds / 3600:.2f} h of audio, {summary.size_bytes / 2**20:,.0f} MiB in "
        f"{summary.files} files ({summary.written} written now) -> {arguments.out}"
    )
    if summary.scaled:
        print(f"{summary.scaled} clips go beyond full scale and are stored divided by a factor of their own")
    if summary.skipped:
        print(f"{count_of(len(summary.skipped), 'bad clip')} left out: {Path(arguments.out) / 'skipped.csv'}")
    if arguments.verify:
        damaged = verify_store(arguments.out, jobs=arguments.jobs)
        if damaged:
            raise InputError("\n".join([f"prepare: store {arguments.out} is damaged", *damaged, "prepare it anew"]))
        print("verified: all checksums are right")
    return 0

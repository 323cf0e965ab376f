"""``audiostride check``: look at a manifest and its audio before training."""

import json
import textwrap
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from audiostride.dataset.check import KINDS, check_manifest
from audiostride.dataset.labels import LabelSets
from audiostride.errors import InputError

FOUND = 1


class _KeepLines(DefaultHelpFormatter):
    """Keeps the line breaks of the list of kinds."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            textwrap.fill(
                line, width, initial_indent=indent, subsequent_indent=(30 if line.startswith(" ") else 0) * " "
            )
            for line in text.splitlines()
        )


def build_parser() -> ArgumentParser:
    """The options of ``audiostride check``."""
    kinds = "\n".join(f"  {kind:<28}{meaning}" for kind, meaning in KINDS.items())
    parser = ArgumentParser(description=run.__doc__, epilog=f"kinds of findings:\n{kinds}", formatter_class=_KeepLines)
    parser.add_argument("manifest", metavar="MANIFEST", help="CSV manifest, folder of class folders, or store")
    parser.add_argument(
        "--label", metavar="COLUMN", nargs="+", help="columns of labels (default: label, or the one that looks like it)"
    )
    parser.add_argument("--multi-label", action="store_true", help="clips have any number of labels, or none")
    parser.add_argument(
        "--label-separator", metavar="TEXT", help="with --multi-label: what stands between labels in a cell"
    )
    parser.add_argument(
        "--label-columns", metavar="COLUMN", nargs="+", help="a column of 0 and 1 for each class, as several labels"
    )
    parser.add_argument("--group", metavar="COLUMN", help="what must not leak across splits (default: group, if there)")
    parser.add_argument("--audio-root", metavar="DIR", help="folder that paths are relative to")
    parser.add_argument("--sample-rate", type=int, default=16000, help="of the model that is to hear them, in Hz")
    parser.add_argument(
        "--allow", metavar="KIND", nargs="+", default=[], help="kinds of findings that are listed and not counted"
    )
    parser.add_argument("--jobs", type=int, help="clips decoded at a time (default: one for each processor)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the text")
    return parser


def run(arguments: Any) -> int:
    """Look for faults in a manifest and its audio: files, levels, splits, groups, duplicates; 1 if there are any."""
    columns, separator = arguments.label_columns, arguments.label_separator
    if separator is not None and (columns or not arguments.multi_label):
        raise InputError(f"check: --label-separator must be given with --multi-label alone, got {separator!r}")
    if columns and len(arguments.label or []) > 1:
        raise InputError(f"check: --label must be one name for --label-columns, got {', '.join(arguments.label)}")
    result = check_manifest(
        arguments.manifest,
        labels=arguments.label,
        several=LabelSets(separator, tuple(columns or ())) if columns or arguments.multi_label else None,
        group=arguments.group,
        audio_root=arguments.audio_root,
        sample_rate=arguments.sample_rate,
        allow=arguments.allow,
        jobs=arguments.jobs,
    )
    print(json.dumps(result.to_dict(), indent=2, allow_nan=False) if arguments.json else result.format())
    return FOUND if result.count else 0

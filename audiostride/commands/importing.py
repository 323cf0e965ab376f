"""``audiostride import``: from archives or a folder to a manifest."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from audiostride.errors import InputError
from audiostride.wording import count_of

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("tut-urban-2018", "dcase2018-birds", "nsynth", "speech-commands", "folder")
# More classes than this, and their counts are given as a range.
MAX_CLASSES_SHOWN = 40


def build_parser() -> ArgumentParser:
    """The parser of ``audiostride import``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("name", metavar="NAME", nargs="?", help=f"data set: {', '.join(NAMES)}")
    parser.add_argument("root", metavar="ROOT", nargs="?", help="folder of the unpacked archives, or of class folders")
    parser.add_argument("-o", "--out", metavar="MANIFEST", help="CSV file that is written")
    parser.add_argument(
        "--splits",
        choices=["official", "paper-like"],
        default="official",
        help="official: exactly as distributed; paper-like: drawn by a seeded hash with the sizes of the paper",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the paper-like split")
    parser.add_argument("--download", action="store_true", help="first download the archives to ROOT and unpack them")
    parser.add_argument(
        "--partial", action="store_true", help="import what is there though metadata and files disagree"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a manifest that exists")
    parser.add_argument("--list", action="store_true", help="list the data sets with sources, licences and sizes")
    return parser


def run(arguments: Any) -> int:
    """Make a manifest from a data set as it is distributed, or from a folder of class folders."""
    # pandas loads slowly, which help and errors need not wait for.
    from audiostride.dataset.cards import list_cards, read_card
    from audiostride.dataset.download import download_archives
    from audiostride.dataset.importers import import_clips, write_manifest

    if arguments.list:
        print("\n".join(describe_card(card) for card in list_cards()))
        print("folder\n  your own recordings: ROOT/<class>/<files> or ROOT/<split>/<class>/<files>")
        return 0
    for option, given in (("NAME", arguments.name), ("ROOT", arguments.root), ("-o", arguments.out)):
        if given is None:
            raise InputError(f"import: {option} must be given, got nothing; see audiostride import --help, or --list")
    name, root, out = arguments.name, Path(arguments.root), Path(arguments.out)
    if name not in NAMES:
        raise InputError(f"import: NAME must be one of {', '.join(NAMES)}, got {name!r}; see audiostride import --list")
    if arguments.download and name == "folder":
        raise InputError("import: --download must go with a data set that has a card, got folder; leave it out")
    if out.exists() and not arguments.overwrite:
        raise InputError(f"import: {out} exists; choose another -o, or give --overwrite")
    if arguments.download:
        # The manifest often lies in ROOT, which the download makes.
        root.mkdir(parents=True, exist_ok=True)
    if not out.parent.is_dir():
        raise InputError(f"import: -o must lie in a folder that exists, got {out}")
    if arguments.download:
        download_archives(read_card(name), root)
    imported = import_clips(name, root, splits=arguments.splits, seed=arguments.seed)
    if imported.contradictions and not arguments.partial:
        listed = "\n".join(f"  {line}" for line in imported.contradictions)
        must, way_out = "metadata and files in {} must agree, but", "unpack the archives again"
        if name == "folder":
            must, way_out = "all that lies in {} must be readable, but", "mend this"
        raise InputError(
            f"import {name}: {must.format(root)}\n{listed}\n{way_out}, or import what is there with --partial"
        )
    write_manifest(imported, root, out)
    for line in [*imported.contradictions, *imported.findings]:
        print(f"- {line}")
    print(f"split scheme: {imported.splits}" + (f", seed {arguments.seed}" if arguments.splits != "official" else ""))
    for column in imported.labels:
        print("\n".join(describe_counts(imported.clips, column)))
    print(f"{len(imported.clips):,} clips -> {out}\nnext:\n  audiostride check {quote(str(out))}")
    for column in imported.labels:
        draw = "" if "split" in imported.clips.columns else " --random-split 0"
        print(f"  audiostride train --manifest {quote(str(out))} --label {column}{draw} --out runs/{name}-{column}")
    return 0


def describe_card(card: dict[str, Any]) -> str:
    """A few lines about a data set: tasks, counts per split scheme, size of the download, licence, source."""
    lines = [card["name"], f"  {card['title']}; clips of {card['duration_s']:g} s at {card['sample_rate']} Hz"]
    if "splits" in card:
        tasks = (f"{column} ({len(task['classes'])} classes)" for column, task in card["tasks"].items())
        lines.append(f"  labels: {', '.join(tasks)}")
        for scheme, counts in card["splits"].items():
            numbers = ", ".join(f"{count:,} {split}" for split, count in counts.items())
            lines.append(f"  {scheme}: {numbers}")
        size = sum(file["size_gb"] for file in card["files"])
        unpacked = sum(file["unpacked_gb"] for file in card["files"])
        lines.append(f"  download: {size:.1f} GB, unpacked {unpacked:.1f} GB more")
    else:
        lines.append(f"  tasks: {', '.join(card['tasks'])}; made by audiostride demo")
    return "\n".join([*lines, f"  licence: {card['licence']}", f"  source: {card['source']}"])


def describe_counts(clips: "pd.DataFrame", column: str) -> list[str]:
    """One line per split: its clips, and how many of each class."""
    lines = []
    if "split" not in clips.columns:
        clips = clips.assign(split="no split")
    for split in [name for name in ("train", "valid", "test", "no split") if (clips["split"] == name).any()]:
        counts = clips.loc[clips["split"] == split, column].value_counts().sort_index()
        if len(counts) > MAX_CLASSES_SHOWN:
            classes = f"{len(counts)} classes of {counts.min():,} to {counts.max():,} clips"
        else:
            classes = ", ".join(f"{label} {count:,}" for label, count in counts.items())
        lines.append(f"{column}, {split}: {count_of(int(counts.sum()), 'clip')}: {classes}")
    return lines

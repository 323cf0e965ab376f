"""``audiostride import``: from archives, a folder or annotated recordings to a manifest."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from audiostride.errors import InputError
from audiostride.wording import count_of

if TYPE_CHECKING:
    import pandas as pd

    from audiostride.dataset.importers import Imported

ANNOTATIONS = ("raven", "audacity", "events")
NAMES = ("tut-urban-2018", "dcase2018-birds", "nsynth", "speech-commands", "folder", *ANNOTATIONS)
# Options of annotations, which other data sets have no use for.
OWN: tuple[str, ...] = (
    "window_s",
    "hop_s",
    "min_overlap",
    "annotated",
    "background_label",
    "multi_label",
    "label_column",
    "group",
)
OWN += ("fmin_hz", "fmax_hz", "random_split")
# More classes than this, and their counts are given as a range.
MAX_CLASSES_SHOWN = 40


def build_parser() -> ArgumentParser:
    """The parser of ``audiostride import``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("name", metavar="NAME", nargs="?", help=f"data set: {', '.join(NAMES)}")
    parser.add_argument("root", metavar="ROOT", nargs="?", help="folder of the unpacked archives, of class folders, "
        "or of annotations; or a file of those")  # fmt: skip
    parser.add_argument(
        "audio", metavar="AUDIO", nargs="?", help="recordings that annotations are of: a folder, or one"
    )
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
    _add_annotation_options(parser)
    return parser


def _add_annotation_options(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("annotations (raven, audacity, events)").add_argument
    add("--window-s", type=float, help="length of the clips in seconds, that of the model's windows (default: 1)")
    add("--hop-s", type=float, help="seconds from clip to clip (default: the window)")
    add("--min-overlap", type=float, help="least overlap for a label: a share of the window, or of the annotation "
        "where that is shorter (default: 0.5); less is neither label nor background")  # fmt: skip
    add("--annotated", choices=["throughout", "around"], help="throughout: what has no annotation is background; "
        "around (default): nothing is known of it, and annotations alone have clips")  # fmt: skip
    add("--background-label", metavar="NAME", help="label of clips without annotations (default: background)")
    add("--multi-label", action="store_true", default=None, help="take clips with several labels, ';' between them; "
        "background has an empty one")  # fmt: skip
    add("--label-column", metavar="COLUMN", help="column of the labels (default: the one that is named like it)")
    add("--group", metavar="COLUMN", help="column of what must not be in two splits (default: the recording)")
    add("--fmin-hz", type=float, help="lower end of the model's band; annotations below it are refused")
    add("--fmax-hz", type=float, help="its upper end")
    add("--random-split", type=int, metavar="SEED", help="draw train, valid and test by recording, 80/10/10 (default: "
        "the split column of the tables, if there is one)")  # fmt: skip


def run(arguments: Any) -> int:
    """Make a manifest from a data set as it is distributed, a folder of class folders, or annotations of recordings."""
    # pandas loads slowly, which help and errors need not wait for.
    from audiostride.dataset.cards import list_cards, read_card
    from audiostride.dataset.download import download_archives
    from audiostride.dataset.importers import import_clips, write_manifest

    if arguments.list:
        print("\n".join(describe_card(card) for card in list_cards()))
        print("folder\n  your own recordings: ROOT/<class>/<files> or ROOT/<split>/<class>/<files>")
        print(f"{', '.join(ANNOTATIONS)}\n  your own annotations: ROOT with their tables, AUDIO with the recordings")
        return 0
    for option, given in (("NAME", arguments.name), ("ROOT", arguments.root), ("-o", arguments.out)):
        if given is None:
            raise InputError(f"import: {option} must be given, got nothing; see audiostride import --help, or --list")
    name, root, out = arguments.name, Path(arguments.root), Path(arguments.out)
    if name not in NAMES:
        raise InputError(f"import: NAME must be one of {', '.join(NAMES)}, got {name!r}; see audiostride import --list")
    if arguments.download and name in ("folder", *ANNOTATIONS):
        raise InputError(f"import: --download must go with a data set that has a card, got {name}; leave it out")
    _check_options(arguments)
    if out.exists() and not arguments.overwrite:
        raise InputError(f"import: {out} exists; choose another -o, or give --overwrite")
    if arguments.download:
        # The manifest often lies in ROOT, which the download makes.
        root.mkdir(parents=True, exist_ok=True)
    if not out.parent.is_dir():
        raise InputError(f"import: -o must lie in a folder that exists, got {out}")
    if arguments.download:
        download_archives(read_card(name), root)
    if name in ANNOTATIONS:
        imported, root = _import_annotations(arguments)
    else:
        imported = import_clips(name, root, splits=arguments.splits, seed=arguments.seed)
    if imported.contradictions and not arguments.partial:
        listed = "\n".join(f"  {line}" for line in imported.contradictions)
        must, way_out = "metadata and files in {} must agree, but", "unpack the archives again"
        if name == "folder":
            must, way_out = "all that lies in {} must be readable, but", "mend this"
        elif name in ANNOTATIONS:
            must = "annotations must fit the recordings in {}, but"
            way_out = "mend this (overlapping ones of a label are taken as they are with --partial, others left out)"
        raise InputError(
            f"import {name}: {must.format(root)}\n{listed}\n{way_out}, or import what is there with --partial"
        )
    write_manifest(imported, root, out)
    for line in [*imported.contradictions, *imported.findings]:
        print(f"- {line}")
    if name != "folder" or arguments.splits != "official":  # nobody has published a split of somebody's folder
        seed = f", seed {arguments.seed}" if arguments.splits != "official" else ""
        print(f"split scheme: {imported.splits}{seed}")
    for column in imported.labels:
        print("\n".join(describe_counts(imported.clips, column, separator=";" if arguments.multi_label else None)))
    print(f"{len(imported.clips):,} clips -> {out}\nnext:\n  audiostride check {quote(str(out))}")
    for column in imported.labels:
        draw = "" if "split" in imported.clips.columns else " --random-split 0"
        draw += " --multi-label" if arguments.multi_label else ""
        draw += f" --window-s {arguments.window_s:g}" if arguments.window_s is not None else ""
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


def _check_options(arguments: Any) -> None:
    """Raise for what another kind of data set has no use for."""
    name, own = arguments.name, name_options(arguments)
    if name not in ANNOTATIONS:
        if arguments.audio is not None or own:
            what = f"AUDIO {arguments.audio}" if arguments.audio is not None else own[0]
            raise InputError(f"import: {what} must go with one of {', '.join(ANNOTATIONS)}, got {name}; leave it out")
    elif arguments.audio is None:
        raise InputError(
            f"import: AUDIO must be given, got nothing: the folder of the recordings, as in audiostride import {name} "
            f"{arguments.root} recordings/ -o {arguments.out}"
        )
    elif arguments.splits != "official":
        raise InputError(
            f"import: --splits must be official for {name}, got {arguments.splits}; give --random-split SEED"
        )


def name_options(arguments: Any) -> list[str]:
    """The options of annotations that are given."""
    return [f"--{name.replace('_', '-')}" for name in OWN if getattr(arguments, name) is not None]


def _import_annotations(arguments: Any) -> "tuple[Imported, Path]":
    # As in `run`.
    from audiostride.dataset.importers import AnnotationSettings, import_annotations

    given = {name: getattr(arguments, name) for name in OWN}
    settings = AnnotationSettings(**{name: value for name, value in given.items() if value is not None})
    root, audio, out = Path(arguments.root), Path(arguments.audio), Path(arguments.out)
    return import_annotations(arguments.name, root, audio, settings, leave_out=out)


def describe_counts(clips: "pd.DataFrame", column: str, separator: str | None = None) -> list[str]:
    """One line per split: its clips, and how many of each class; of several labels in a cell each counts."""
    lines = []
    if "split" not in clips.columns:
        clips = clips.assign(split="no split")
    for split in [name for name in ("train", "valid", "test", "no split") if (clips["split"] == name).any()]:
        own = clips.loc[clips["split"] == split, column]
        labels = own if separator is None else own.str.split(separator).explode().replace("", "(no label)")
        counts = labels.value_counts().sort_index()
        if len(counts) > MAX_CLASSES_SHOWN:
            classes = f"{len(counts)} classes of {counts.min():,} to {counts.max():,} clips"
        else:
            classes = ", ".join(f"{label} {count:,}" for label, count in counts.items())
        lines.append(f"{column}, {split}: {count_of(len(own), 'clip')}: {classes}")
    return lines

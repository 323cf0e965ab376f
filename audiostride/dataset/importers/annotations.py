"""Annotated recordings: boxes of Raven, labels of Audacity or tables of events become clips of a window's length."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from audiostride.checks import NotNegative, Positive, WholeNumber
from audiostride.dataset.importers.annotated_windows import Annotation, LabelledWindows, WindowSettings, label_windows
from audiostride.dataset.importers.annotation_recordings import Recordings
from audiostride.dataset.importers.annotation_rows import AnnotatedRows, read_annotations
from audiostride.dataset.importers.imported import Imported
from audiostride.dataset.splits import SPLITS, assign_random_splits
from audiostride.errors import InputError
from audiostride.wording import count_of, escape, name_some

# What stands between the labels of a clip.
SEPARATOR = ";"
BACKGROUND = "background"

# What models of the default settings hear, in Hz.
DEFAULT_BAND_HZ = (60.0, 7800.0)

# Annotations that are named where they are in no clip.
MAX_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class AnnotationSettings(WindowSettings):
    """How annotations become clips.

    Raises:
        InputError: A value out of its range, or one that the others leave without effect.
    """

    background_label: str | None = None
    """Label of windows without annotations; None is ``background``. With several labels they have none."""
    label_column: str | None = None
    """Column of the labels; None takes the one that is named or filled as such."""
    group: str | None = None
    """Column of groups; None: a recording is a group."""
    fmin_hz: NotNegative | None = None
    """Lower end of the model's band: annotations below it are faults."""
    fmax_hz: Positive | None = None
    """Upper end, likewise."""
    random_split: WholeNumber | None = None
    """Seed of a split by group; None takes the split of the tables, if they have one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.background_label is not None and (self.annotated != "throughout" or self.multi_label):
            raise InputError(
                "import: --background-label must go with --annotated throughout and one label a clip, since there is "
                f"no such class otherwise, got {self.background_label!r}; leave it out"
            )
        if self.fmin_hz is not None and self.fmax_hz is not None and self.fmin_hz >= self.fmax_hz:
            raise InputError(f"import: --fmin-hz must be below --fmax-hz, got {self.fmin_hz:g} and {self.fmax_hz:g}")

    @property
    def background(self) -> str:
        """Label of windows without annotations."""
        return "" if self.multi_label else self.background_label or BACKGROUND

    def split_label(self, label: str) -> tuple[str, ...]:
        """The labels that the `label` of one annotation names: those between separators, where several are taken."""
        parts = [part.strip() for part in label.split(SEPARATOR)] if self.multi_label else [label]
        return tuple(part for part in parts if part)


def import_annotations(
    kind: str, root: Path, audio: Path, settings: AnnotationSettings, *, leave_out: Path | None = None
) -> tuple[Imported, Path]:
    """Clips of annotated recordings, and the folder that their paths begin at.

    A recording is annotated where a table names it or has its name.

    Args:
        kind: raven, audacity or events.
        root: A file of annotations, or a folder with such files at any depth.
        audio: The folder of the recordings, at any depth; or a recording that the one file of annotations belongs to.
        settings: Windows, labels, splits.
        leave_out: A file that is no annotations though it looks so: the manifest that is to be replaced.

    Returns:
        Clips with ``path``, ``start_s``, ``duration_s``, ``label``, ``group`` and maybe ``split``. Contradictions are
        all annotations that cannot be used, with file and line. They are left out, and so are windows that they reach
        into; those that overlap another of their label are named too, and taken.

    Raises:
        InputError: No annotations, no recordings, a folder that cannot be read.
    """
    recordings = Recordings(audio)
    read = read_annotations(kind, root, leave_out, label_column=settings.label_column, group=settings.group)
    read.find_recordings(recordings, exact=kind == "audacity")
    read.check(recordings, fmin_hz=settings.fmin_hz, fmax_hz=settings.fmax_hz)
    clips: list[dict[str, object]] = []
    windows: list[LabelledWindows] = []
    lost: list[str] = []
    for name, rows in read.by_recording(recordings):
        parts = [
            Annotation(row["start_s"], row["end_s"], settings.split_label(row["label"]) if row["usable"] else ())
            for row in rows.to_dict("records")
        ]
        found = label_windows(parts, duration_s=recordings.info(name).duration_s, settings=settings)
        windows.append(found)
        lost += [
            f"{name} {each.start_s:g}-{each.end_s:g} s {each.labels[0]}" for each in map(parts.__getitem__, found.lost)
        ]
        own = {"path": name, "group": _only(rows["group"]) or name, "split": _only(rows["split"])}
        clips += [
            {**own, "start_s": start_s, "duration_s": round(found.length_s, 6), "labels": labels}
            for start_s, labels in zip(found.starts_s, found.labels, strict=True)
        ]
    table = pd.DataFrame(clips, columns=["path", "start_s", "duration_s", "labels", "group", "split"])
    findings = read.describe(recordings) + _describe_band(read, settings) + _describe_windows(windows, settings)
    if lost:
        more = f" and {len(lost) - MAX_NAMED:,} more" if len(lost) > MAX_NAMED else ""
        listed = "; ".join(map(escape, lost[:MAX_NAMED])) + more
        way_out = "" if settings.multi_label else ", since other labels are there too; --multi-label takes them"
        findings.append(f"{count_of(len(lost), 'annotation')} in no clip{way_out}: {listed}")
    table, scheme = _split(table, settings, findings)
    table.insert(3, "label", [SEPARATOR.join(labels) or settings.background for labels in table["labels"]])
    faults = [*recordings.faults, *read.contradictions()]
    return Imported(kind, scheme, ("label",), table.drop(columns="labels"), findings, faults), recordings.root


def _only(values: "pd.Series[str]") -> str:
    """What all rows of a recording say, or nothing."""
    return next((value for value in values if value), "")


def _split(clips: pd.DataFrame, settings: AnnotationSettings, findings: list[str]) -> tuple[pd.DataFrame, str]:
    """The clips with a split column, or without, and the name of the scheme."""
    named = clips["split"] != ""
    if settings.random_split is not None and len(clips):
        # A row for each label: a class is one label, not what several are together.
        each = clips.assign(label=clips["labels"]).explode("label").fillna({"label": ""})
        each = each.assign(line=0, clip_name=each["path"]).reset_index(drop=True)
        drawn = assign_random_splits(each, seed=settings.random_split).groupby("group")["split"].first()
        clips["split"] = clips["group"].map(drawn)
        scheme = f"by {settings.group or 'recording'}, 80/10/10, drawn with seed {settings.random_split}"
        if named.any():
            findings.append("the split of the tables is not taken, since another one is drawn")
    elif named.all() and len(clips):
        scheme = "that of the tables"
    else:
        if named.any():
            without = clips.loc[~named, "path"].unique()
            findings.append(f"the split of the tables is not taken: these recordings have none: {name_some(without)}")
        findings.append(
            "there is no split column; draw one by recording with --random-split SEED here, or at training with: "
            "audiostride train --random-split SEED"
        )
        return clips.drop(columns="split"), "none"
    labels = {label for each in clips["labels"] for label in each}
    for split in SPLITS:
        there = {label for each in clips.loc[clips["split"] == split, "labels"] for label in each}
        if absent := labels - there:
            findings.append(f"{split}: no clips of {name_some(absent)}")
    return clips, scheme


def _describe_band(read: AnnotatedRows, settings: AnnotationSettings) -> list[str]:
    """A line on annotations that a model of the default settings does not hear, where no band is given."""
    if settings.fmin_hz is not None or settings.fmax_hz is not None:
        return []
    low, high = DEFAULT_BAND_HZ
    rows = read.rows[read.rows["usable"]]
    outside = int(((rows["low_hz"] >= high) | (rows["high_hz"] <= low)).sum())
    if not outside:
        return []
    return [
        f"{count_of(outside, 'annotation')} wholly outside of {low:g} to {high:,g} Hz, which models of the default "
        "settings do not hear; --fmin-hz and --fmax-hz with the band of yours list those outside of it"
    ]


def _describe_windows(windows: list[LabelledWindows], settings: AnnotationSettings) -> list[str]:
    """Lines on what is taken, and on what is left out and why."""
    labels = [each for found in windows for each in found.labels]
    filled = sum(map(bool, labels))
    what = f"{count_of(filled, 'clip')} with a label"
    if settings.annotated == "throughout":
        what += f", {len(labels) - filled:,} without: {settings.background or 'an empty label'}"
    lines = [f"{count_of(len(windows), 'annotated recording')}: {what}"]
    if settings.annotated == "around":
        lines.append(
            "what lies between annotations is left out; where recordings are annotated throughout, "
            "--annotated throughout makes it background"
        )
    share = f"less than {settings.min_overlap:g} of it or of the window (--min-overlap)"
    if n_touched := sum(found.n_touched for found in windows):
        lines.append(
            f"{count_of(n_touched, 'window')} left out, neither label nor background: an annotation reaches in, {share}"
        )
    if n_several := sum(found.n_several for found in windows):
        lines.append(f"{count_of(n_several, 'window')} left out, with several labels; --multi-label takes them")
    if n_mixed := sum(found.n_mixed for found in windows):
        lines.append(f"{count_of(n_mixed, 'clip')} into which an annotation of another label reaches, {share}")
    return lines

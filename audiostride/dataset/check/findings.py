"""What a check of a manifest finds, which counts or is a note only, and its outcome as a text and as JSON."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from audiostride.wording import escape

# A finding is what makes training fail, leaks from one split into another, or is most probably a mistake.
KINDS = {
    "bad-row": "a row without a path or label, or with a split, start, end, length or scores that are none",
    "missing-file": "a file that does not exist",
    "unreadable": "no audio, cut off, or damaged: decoding fails; a folder or name that cannot be read",
    "empty-audio": "a file with a header and no samples",
    "doubtful-file": "more audio in a file than is read of it, an end that may be lost, a change in mid-file",
    "out-of-range": "a part that begins or ends beyond the end of its file",
    "not-finite": "samples that are NaN or infinite",
    "too-short": "shorter than one analysis window of 25 ms",
    "silent": "silence: the mono mix swings less than -80 dB of full scale about its mean",
    "clipped": "at least 1 % of the samples of a channel lie in tops that were cut off flat",
    "beyond-full-scale": "a peak of more than twice full scale (+6 dB)",
    "outside-band": "less than 1 % of the energy in the band that the model hears, at 16 kHz 60 Hz to 7.8 kHz",
    "dc-offset": "a mean of more than 0.1 of full scale, in clips of 0.25 s and more",
    "duplicate-row": "the same part of the same file twice, in one split and with one label",
    "duplicate-audio": "the same audio twice where no split is given: one that is drawn would tear the copies apart",
    "duplicate-across-splits": "the same audio in several splits",
    "duplicate-with-other-label": "the same audio with different labels",
    "group-across-splits": "a group with clips in several splits",
    "no-split": "no column split",
    "split-missing": "no clips in train or test",
    "one-class": "a label column with one class only",
    "class-absent": "a class without clips in a split that other classes have clips in",
    "label-spelling": "two classes that differ in case, blanks, underscores or hyphens only",
    "damaged-store": "an audio file of a store that does not match its checksum",
}
NOTES = {
    "label-columns": "which columns are taken as labels",
    "several-labels": "clips with several labels, of which training learns one",
    "left-out": "what is left out of a folder, and columns that are taken under other names or as several labels",
    "no-group": "no groups, or clips without one: nothing says what must not leak",
    "no-valid": "no clips in valid",
    "repeated-audio": "the same audio twice in one split with one label: it counts twice",
    "some-clipping": "0.1 to 1 % of the samples of a channel lie in flat tops",
    "overshoot": "a peak between full scale and twice that, as resampling and lossy codecs make it",
    "model-rate": "files whose sample rate is lower than the model's, or far higher",
    "mixed-sample-rates": "files of several sample rates: the bandwidth may give labels away",
    "mixed-channels": "files of several channel counts; all are mixed to mono",
    "other-format": "a file whose name ends like another format",
    "store": "what of a store can be checked",
}

MAX_FINDINGS_SHOWN = 10
MAX_NOTES_SHOWN = 3
MAX_LINES_SHOWN = 8
MAX_CLASSES_SHOWN = 12


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or worth knowing, and where."""

    kind: str
    """One of `KINDS` or `NOTES`."""
    message: str
    """What it is, with the name of the clip."""
    lines: list[int] = field(default_factory=list)
    """Line numbers in the manifest; numbers of files in a folder."""


def name_files(clips: pd.DataFrame) -> list[str]:
    """The path of each clip's file as the manifest gives it, fit to be printed."""
    return [escape(name[1:]) for name in clips["clip_name"].tolist()]


def name_clips(clips: pd.DataFrame) -> list[str]:
    """As `name_files`, with the start of each clip that is a part of its file."""
    spans = zip(name_files(clips), clips["start_s"].tolist(), clips["duration_s"].tolist(), strict=True)
    return [f"{name} at {start:g} s" if start > 0 or not math.isnan(length) else name for name, start, length in spans]


@dataclass
class CheckResult:
    """The outcome of `check_manifest`."""

    source: str
    """The manifest, folder or store that was checked."""
    findings: list[Finding]
    """What is wrong, in the order of `KINDS`."""
    notes: list[Finding]
    """What is worth knowing and no fault."""
    summary: dict[str, Any]
    """Counts and quantiles, made of what JSON has."""
    allowed: tuple[str, ...] = ()
    """Kinds of findings that are listed and not counted."""
    counted_in: str = "line"
    """What the numbers of findings count: each ``line`` of a manifest, or each ``file`` of a folder."""

    @property
    def count(self) -> int:
        """Number of findings, without the allowed ones."""
        return sum(finding.kind not in self.allowed for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Everything, made of what JSON has."""
        return {
            "source": self.source,
            "counted_in": self.counted_in,
            "ok": self.count == 0,
            "count": self.count,
            "allowed": list(self.allowed),
            "findings": [{**_to_dict(finding), "allowed": finding.kind in self.allowed} for finding in self.findings],
            "notes": [_to_dict(note) for note in self.notes],
            "summary": self.summary,
        }

    def format(self) -> str:
        """A text to read: the verdict, the findings by kind, the notes, the summary."""
        clips = f"{self.summary['clips']:,} clip{'s' if self.summary['clips'] != 1 else ''}"
        n_allowed = len(self.findings) - self.count
        verdict = f"{self.count:,} finding{'s' if self.count != 1 else ''}" if self.count else "nothing wrong"
        verdict = f"{self.source}: {verdict} in {clips}" + (f" ({n_allowed:,} allowed)" if n_allowed else "")
        blocks = [verdict]
        blocks += _format_findings(self.findings, word=self.counted_in, allowed=self.allowed)
        blocks += ["\n".join(["notes", *_format_notes(self.notes, word=self.counted_in)])] if self.notes else []
        return escape("\n\n".join([*blocks, format_summary(self.summary)]), keep="\n")


def _to_dict(finding: Finding) -> dict[str, Any]:
    return {"kind": finding.kind, "message": finding.message, "lines": finding.lines}


def _format_findings(findings: list[Finding], *, word: str, allowed: Sequence[str]) -> list[str]:
    blocks = []
    for kind, meaning in KINDS.items():
        members = [finding for finding in findings if finding.kind == kind]
        if members:
            head = f"{kind} ({len(members):,}{', allowed' if kind in allowed else ''}): {meaning}"
            blocks.append("\n".join([head, *_list_some(members, MAX_FINDINGS_SHOWN, word=word)]))
    return blocks


def _format_notes(notes: list[Finding], *, word: str) -> Iterable[str]:
    for kind in NOTES:
        members = [note for note in notes if note.kind == kind]
        if len(members) == 1 and not members[0].lines:
            yield f"  {members[0].message}"
        elif members:
            yield f"  {kind} ({len(members):,}): {NOTES[kind]}"
            yield from (f"  {line}" for line in _list_some(members, MAX_NOTES_SHOWN, word=word))


def _list_some(findings: list[Finding], shown: int, *, word: str) -> list[str]:
    rest = len(findings) - shown
    listed = [f"  {describe_lines(finding.lines, word=word)}{finding.message}" for finding in findings[:shown]]
    return listed + ([f"  and {rest:,} more"] if rest > 0 else [])


def describe_lines(lines: Sequence[int], *, word: str = "line") -> str:
    """Line numbers in words, the first eight of them.

    >>> describe_lines([7]), describe_lines([2, 3, 9])
    ('line 7: ', 'lines 2, 3, 9: ')
    """
    if not lines:
        return ""
    more = f" and {len(lines) - MAX_LINES_SHOWN:,} more" if len(lines) > MAX_LINES_SHOWN else ""
    numbers = ", ".join(str(line) for line in lines[:MAX_LINES_SHOWN])
    return f"{word}{'s' if len(lines) > 1 else ''} {numbers}{more}: "


def format_summary(summary: dict[str, Any]) -> str:
    """The summary as aligned tables."""
    rows = [("clips", f"{summary['clips']:,} in {summary['files']:,} files, {summary['hours']:,.4g} h")]
    for name, key, unit in (("duration", "duration_s", " s"), ("level (rms)", "rms_db", " dB")):
        if summary[key]:
            rows.append((name, ", ".join(f"{point} {value:.4g}{unit}" for point, value in summary[key].items())))
    rows += [
        (name, _describe_counts(summary[key], unit))
        for name, key, unit in (
            ("sample rate", "sample_rates", " Hz"), ("channels", "channels", ""), ("encoding", "encodings", "")
        )
        if summary[key]
    ]  # fmt: skip
    group = summary["groups"]
    if group:
        per_split = ", ".join(f"{split} {count:,}" for split, count in group["per_split"].items())
        rows.append((f"{group['column']} (group)", f"{group['count']:,}" + (f": {per_split}" if per_split else "")))
    width = max(len(name) for name, _ in rows)
    text = "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
    splits = summary["splits"] or {"clips": summary["clips"]}
    tables = [_format_counts({"all clips": splits}, "", list(splits))] if summary["splits"] else []
    tables += [_format_counts(classes, column, list(splits)) for column, classes in summary["labels"].items()]
    return "\n\n".join([text, *tables])


def _describe_counts(counts: dict[str, int], unit: str) -> str:
    listed = [f"{name}{unit}: {count:,}" for name, count in list(counts.items())[:MAX_CLASSES_SHOWN]]
    more = len(counts) - MAX_CLASSES_SHOWN
    return ", ".join(listed) + (f", and {more:,} more" if more > 0 else "")


def _format_counts(classes: dict[str, dict[str, int]], column: str, splits: list[str]) -> str:
    """One row per class and one column per split, the first classes of many."""
    head = [f"{column} ({len(classes):,})" if column else "", *splits]
    rows = [
        [escape(name), *(f"{counts.get(split, 0):,}" for split in splits)]
        for name, counts in list(classes.items())[:MAX_CLASSES_SHOWN]
    ]
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in [head, *rows]
    ]
    more = len(classes) - MAX_CLASSES_SHOWN
    return "\n".join([*lines, *([f"and {more:,} more classes"] if more > 0 else [])])

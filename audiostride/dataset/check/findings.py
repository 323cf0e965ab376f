"""The kinds of things that a check of a manifest finds: findings, which count, and notes, which do not."""

import math
from dataclasses import dataclass, field

import pandas as pd

# A finding is what makes training fail, leaks from one split into another, or is most probably a mistake.
KINDS = {
    "bad-row": "a row without a path or label, or with a split, start_s or duration_s that is none",
    "missing-file": "a file that does not exist",
    "unreadable": "no audio, cut off, or damaged: decoding fails",
    "empty-audio": "a file with a header and no samples",
    "out-of-range": "a part that begins or ends beyond the end of its file",
    "not-finite": "samples that are NaN or infinite",
    "too-short": "shorter than one analysis window of 25 ms",
    "silent": "silence: the mono mix swings less than -80 dB of full scale about its mean",
    "clipped": "at least 1 % of the samples of a channel lie in tops that were cut off flat",
    "beyond-full-scale": "a peak of more than twice full scale (+6 dB)",
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
    "no-group": "no groups, or clips without one: nothing says what must not leak",
    "no-valid": "no clips in valid",
    "repeated-audio": "the same audio twice in one split with one label: it counts twice",
    "some-clipping": "0.1 to 1 % of the samples of a channel lie in flat tops",
    "overshoot": "a peak between full scale and twice that, as resampling and lossy codecs make it",
    "mixed-sample-rates": "files of several sample rates: the bandwidth may give labels away",
    "mixed-channels": "files of several channel counts; all are mixed to mono",
    "other-format": "a file whose name ends like another format",
    "store": "what of a store can be checked",
}


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
    names = [name[1:] for name in clips["clip_name"].tolist()]
    return [name if name.isprintable() else repr(name) for name in names]


def name_clips(clips: pd.DataFrame) -> list[str]:
    """As `name_files`, with the start of each clip that is a part of its file."""
    spans = zip(name_files(clips), clips["start_s"].tolist(), clips["duration_s"].tolist(), strict=True)
    return [f"{name} at {start:g} s" if start > 0 or not math.isnan(length) else name for name, start, length in spans]

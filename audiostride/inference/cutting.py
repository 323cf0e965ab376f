"""What was found, cut out of its recordings as WAV: for listening, and for the next training set."""

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from tqdm import tqdm

from audiostride.audio.decoding import probe_audio
from audiostride.audio.resampling import read_audio
from audiostride.errors import InputError
from audiostride.progress import progress_bar

MARGIN_S = 0.5
NAME_LENGTH = 80  # characters of the name of a recording that the name of a clip has


def cut_clips(rows: Iterable[tuple[str, float, float, str, str, float]], folder: Path, *, margin_s: float) -> int:
    """Cut rows of predictions out of their recordings: ``LABEL/RANK_SCORE_RECORDING_START.wav``, and a manifest.

    Clips have one channel of 16 bits at the rate of their recording. The most probable of a class comes first. A
    recording that can no longer be read is named on stderr and has no clips.

    Args:
        rows: Path, start and end in seconds, task, label and score.
        folder: Where they are written, with ``manifest.csv``; not there yet.
        margin_s: What is cut out before and behind, in seconds, as far as the recording goes.

    Returns:
        How many were cut.
    """
    folder.mkdir(parents=True)
    ordered = sorted(rows, key=lambda row: (row[3], row[4], -row[5], row[0], row[1]))
    ranks: Counter[Path] = Counter()
    lost: dict[str, str] = {}
    cut = []
    for path, start_s, end_s, task, label, score in progress_bar(ordered, desc="cutting", unit="clip", leave=False):
        if path in lost:
            continue
        try:
            rate = probe_audio(path).sample_rate
            first_s = max(0.0, start_s - margin_s)
            samples = read_audio(path, start_s=first_s, duration_s=end_s + margin_s - first_s, sample_rate=rate)
        except InputError as error:
            lost[path] = str(error)
            tqdm.write(f"no clips of {path}: {error}", file=sys.stderr)
            continue
        place = folder / _file_name(f"{task}-{label}" if task else label)
        ranks[place] += 1
        stem = _file_name(Path(path).stem)[:NAME_LENGTH]
        file = place / f"{ranks[place]:05d}_{score:.3f}_{stem}_{start_s:.2f}s.wav"
        place.mkdir(exist_ok=True)
        soundfile.write(str(file), np.clip(samples, -1, 1), rate, subtype="PCM_16")
        cut.append((file.relative_to(folder).as_posix(), task, label, score, path, start_s, end_s))
    names = ["path", "task", "label", "score", "recording", "found_from", "found_to"]
    table = pd.DataFrame(cut, columns=names)
    table = table if table["task"].any() else table.drop(columns="task")
    table.to_csv(folder / "manifest.csv", index=False, lineterminator="\n")
    return len(cut)


def _file_name(text: str) -> str:
    """A text as a part of a path, on any system."""
    return "".join(each if each.isalnum() or each in " -_.()+" else "_" for each in text).strip(" .") or "_"

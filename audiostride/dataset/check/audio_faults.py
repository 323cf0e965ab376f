"""Faults of the audio of clips: what cannot be read, and what was most probably not meant to sound like that."""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audiostride.audio.files import BLOCK_FRAMES, probe_audio, stream_frames
from audiostride.dataset.check.audio_facts import AudioFacts, measure_audio
from audiostride.dataset.check.findings import Finding, name_clips, name_files
from audiostride.dataset.readers import END_TOLERANCE_S
from audiostride.dataset.store import StoreAudio
from audiostride.errors import InputError

# One analysis window of the frontend: a shorter clip is mostly padding.
MIN_DURATION_S = 0.025

# -80 dB: three steps of 16 bits, less than the noise of any microphone and its converter.
SILENT_SWING = 1e-4

# Clipping 1 % of the samples of words, birds and other sounds distorts them by -15 dB, 0.1 % by -22 to -30 dB (medians
# measured on real sets). Single clipped peaks are common and do no harm.
CLIPPED_SHARE = 0.01
SOME_CLIPPING_SHARE = 0.001

# Resampling and lossy codecs overshoot full scale, by less than 6 dB.
MAX_PEAK = 2.0

# Converters reach some hundredths of full scale: up to 0.04 in Speech Commands.
MAX_MEAN = 0.1
# The mean of a shorter piece of a low tone (20 Hz) is more than 0.06 of its peak.
MIN_MEAN_DURATION_S = 0.25

# What libsndfile calls the formats that the ends of file names stand for.
FORMATS = {
    ".wav": ("WAV", "WAVEX", "RF64"),
    ".flac": ("FLAC",),
    ".ogg": ("OGG",),
    ".opus": ("OGG",),
    ".mp3": ("MP3", "MPEG"),
    ".aiff": ("AIFF",),
    ".aif": ("AIFF",),
    ".au": ("AU",),
    ".caf": ("CAF",),
    ".w64": ("W64",),
}


def read_facts(path: str, start_s: float, duration_s: float, *, name: str) -> AudioFacts | Finding:
    """The measures of a clip, or why there are none.

    Args:
        path: Audio file.
        start_s: Start in seconds.
        duration_s: Length in seconds; NaN goes to the end.
        name: Of the file, for messages.
    """
    try:
        info = probe_audio(path)
        to_end = math.isnan(duration_s)
        if start_s >= info.duration_s or (not to_end and start_s + duration_s > info.duration_s + END_TOLERANCE_S):
            part = f"start_s={start_s:g}" + ("" if to_end else f", duration_s={duration_s:g}")
            return Finding("out-of-range", f"{name} is {info.duration_s:.6g} s long, too short for {part}")
        blocks = stream_frames(path, start_s=start_s, duration_s=None if to_end else duration_s)
        return measure_audio(blocks, sample_rate=info.sample_rate, channels=info.channels, encoding=info.encoding)
    except InputError as error:
        # The words of `probe_audio` for a file with a header only.
        return Finding("empty-audio" if "holds no samples" in str(error) else "unreadable", str(error))


def read_store_facts(audio: StoreAudio, place: tuple[int, int, int, float], *, sample_rate: int) -> AudioFacts:
    """The measures of a clip of a store.

    Args:
        audio: Of the store.
        place: Number of the audio file, first sample, number of samples and scale.
        sample_rate: Of the store, in Hz.
    """
    number, offset, length, scale = place

    def read_blocks() -> Iterator[NDArray[np.float32]]:
        for first in range(0, length, BLOCK_FRAMES):
            samples = np.empty(min(BLOCK_FRAMES, length - first), dtype=np.float32)
            audio.read_into(number, offset + first, scale, samples)
            yield samples[:, None]

    return measure_audio(read_blocks(), sample_rate=sample_rate, channels=1, encoding="store PCM_16")


def judge_audio(facts: AudioFacts, *, name: str, line: int) -> list[Finding]:
    """Findings and notes on one clip that could be read."""
    if facts.n_not_finite:
        return [Finding("not-finite", f"{name} has {facts.n_not_finite:,} samples that are NaN or infinite", [line])]
    found = []

    def add(kind: str, what: str) -> None:
        found.append(Finding(kind, f"{name} {what}", [line]))

    if facts.duration_s < MIN_DURATION_S:
        add("too-short", f"lasts {1000 * facts.duration_s:.3g} ms ({facts.frames} samples)")
    elif facts.swing < SILENT_SWING:
        if facts.channels > 1 and facts.peak > MAX_MEAN:
            add("silent", f"is silent as a mono mix: its {facts.channels} channels cancel each other")
        else:
            add("silent", "is digital silence" if facts.swing == 0 else f"swings {_to_db(facts.swing):.0f} dB")
    if facts.clipped_share >= SOME_CLIPPING_SHARE:
        kind = "clipped" if facts.clipped_share >= CLIPPED_SHARE else "some-clipping"
        add(kind, f"has {100 * facts.clipped_share:.2g} % of its samples in flat tops (peak {facts.peak:.4g})")
    if facts.peak > 1:
        kind = "beyond-full-scale" if facts.peak > MAX_PEAK else "overshoot"
        add(kind, f"peaks at {facts.peak:.4g} of full scale ({_to_db(facts.peak):+.1f} dB)")
    if abs(facts.mean) > MAX_MEAN and facts.duration_s >= MIN_MEAN_DURATION_S:
        add("dc-offset", f"has a mean of {facts.mean:+.3g} of full scale")
    return found


def judge_formats(clips: pd.DataFrame, facts: list[AudioFacts | Finding | None]) -> list[Finding]:
    """Notes on what the files differ in: sample rates, channels, and names that end like another format."""
    measured = [item for item in facts if isinstance(item, AudioFacts)]
    notes = []
    for kind, what, counts in (
        ("mixed-sample-rates", "sample rates in Hz", Counter(item.sample_rate for item in measured)),
        ("mixed-channels", "channel counts", Counter(item.channels for item in measured)),
    ):
        if len(counts) > 1:
            listed = ", ".join(f"{value} in {count:,}" for value, count in counts.most_common())
            notes.append(Finding(kind, f"several {what}: {listed} clips"))
    lines: dict[tuple[str, str], list[int]] = defaultdict(list)
    for path, name, line, item in zip(clips["path"], name_files(clips), clips["line"], facts, strict=True):
        if isinstance(item, AudioFacts) and "store" not in clips.columns:
            expected = FORMATS.get(os.path.splitext(path)[1].lower())
            if expected and item.encoding.split()[0] not in expected:
                lines[name, item.encoding].append(int(line))
    notes += [Finding("other-format", f"{name} is {encoding}", numbers) for (name, encoding), numbers in lines.items()]
    return notes


def find_audio_faults(clips: pd.DataFrame, facts: list[AudioFacts | Finding | None]) -> list[Finding]:
    """Findings and notes on all clips; what several parts of a file share is one finding."""
    found: list[Finding] = []
    shared: dict[tuple[str, str], list[int]] = defaultdict(list)
    for name, line, item in zip(name_clips(clips), clips["line"].tolist(), facts, strict=True):
        if isinstance(item, AudioFacts):
            found += judge_audio(item, name=name, line=line)
        elif item is not None:
            shared[item.kind, item.message].append(line)
    return found + [Finding(kind, message, lines) for (kind, message), lines in shared.items()]


def _to_db(amplitude: float) -> float:
    return 20 * math.log10(amplitude)

"""What measures of clips, and files that cannot be read, say of a data set."""

import math
import os
from collections import Counter, defaultdict

import pandas as pd

from audiostride.audio.band import HIGHEST, SLOW_DOWN
from audiostride.audio.resampling import LOUDEST
from audiostride.dataset.check.audio_facts import MODEL_RATE, AudioFacts
from audiostride.dataset.check.findings import Finding, name_clips, name_files

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
    **dict.fromkeys((".wav", ".wave", ".bwf", ".rf64"), ("WAV", "WAVEX", "RF64")),
    **dict.fromkeys((".ogg", ".oga", ".opus"), ("OGG",)),
    **dict.fromkeys((".aiff", ".aif", ".aifc"), ("AIFF",)),
    **dict.fromkeys((".au", ".snd"), ("AU",)),
    ".flac": ("FLAC",),
    ".mp3": ("MP3", "MPEG"),
    ".caf": ("CAF",),
    ".w64": ("W64",),
}

FAR_ABOVE = 1.5  # times the rate of the model: a third and more of what a file can hold is thrown away


def judge_audio(facts: AudioFacts, *, name: str, line: int, model_rate: int = MODEL_RATE) -> list[Finding]:
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
        refused = "; more than is read" if facts.peak > LOUDEST else ""
        add(kind, f"peaks at {facts.peak:.4g} of full scale ({_to_db(facts.peak):+.1f} dB){refused}")
    if facts.above_band and facts.swing >= SILENT_SWING:
        band = f"{HIGHEST * model_rate:,.0f} Hz, where models of {model_rate} Hz hear nothing"
        add("outside-band", f"lies almost whole above {band}; give them another --sample-rate, or {SLOW_DOWN}")
    if abs(facts.mean) > MAX_MEAN and facts.duration_s >= MIN_MEAN_DURATION_S:
        add("dc-offset", f"has a mean of {facts.mean:+.3g} of full scale")
    return found


def judge_formats(
    clips: pd.DataFrame, facts: list[AudioFacts | Finding | None], *, model_rate: int = MODEL_RATE
) -> list[Finding]:
    """Notes on what the files differ in, from each other and from what a model of a sample rate takes."""
    measured = [item for item in facts if isinstance(item, AudioFacts)]
    notes = []
    rates = Counter(item.sample_rate for item in measured)
    for rate, count in sorted(rates.items()):
        here = f"{count:,} clips at {rate:,} Hz: "
        if rate < model_rate:
            empty = f"the bands of a model of {model_rate:,} Hz hold nothing of them above {rate / 2:,.0f} Hz"
            notes.append(Finding("model-rate", f"{here}{empty}; choose its rate with --sample-rate"))
        elif rate >= FAR_ABOVE * model_rate:
            lost = f"a model of {model_rate:,} Hz hears nothing of them above {HIGHEST * model_rate:,.0f} Hz"
            notes.append(Finding("model-rate", f"{here}{lost}; choose its rate with --sample-rate"))
    for kind, what, counts in (
        ("mixed-sample-rates", "sample rates in Hz", rates),
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


def find_audio_faults(
    clips: pd.DataFrame, facts: list[AudioFacts | Finding | None], *, model_rate: int = MODEL_RATE
) -> list[Finding]:
    """Findings and notes on all clips; what several parts of a file share is one finding."""
    found: list[Finding] = []
    shared: dict[tuple[str, str], list[int]] = defaultdict(list)
    rows = zip(name_clips(clips), name_files(clips), clips["line"].tolist(), facts, strict=True)
    for name, file, line, item in rows:
        if isinstance(item, AudioFacts):
            if item.doubt:
                shared["doubtful-file", f"{file} {item.doubt}"].append(line)
            found += judge_audio(item, name=name, line=line, model_rate=model_rate)
        elif item is not None:
            shared[item.kind, item.message].append(line)
    return found + [Finding(kind, message, lines) for (kind, message), lines in shared.items()]


def _to_db(amplitude: float) -> float:
    return 20 * math.log10(amplitude)

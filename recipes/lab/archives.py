"""Miniature trees of the four archives, as distributed: names, metadata and headers are real, the sounds are tones.

The smoke mode of the recipes learns them, and the tests import them. With ``audio=False`` the audio files are empty,
which is enough for importers: they read names and metadata only.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from lab.data_stages import say

SCENES = ["airport", "bus", "metro", "metro_station", "park", "public_square", "shopping_mall", "street_pedestrian"]
SCENES += ["street_traffic", "tram"]
FAMILIES = ["bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal"]
SOURCES = ["acoustic", "electronic", "synthetic"]
PITCHES = (48, 60, 72)
WORDS = ["backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four"]
WORDS += ["go", "happy", "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one"]
WORDS += ["right", "seven", "sheila", "six", "stop", "three", "tree", "two", "up", "visual", "wow", "yes", "zero"]
TUT = "TUT-urban-acoustic-scenes-2018-development"
BIRD_TABLES = {
    "ff1010bird": "ff1010bird_metadata_2018.csv",
    "warblrb10k": "warblrb10k_public_metadata_2018.csv",
    "BirdVox-DCASE-20k": "BirdVoxDCASE20k_csvpublic.csv",
}
BIRD_CLIPS = {"ff1010bird": 12, "warblrb10k": 8, "BirdVox-DCASE-20k": 12}


def write_sound(
    path: Path,
    frequencies_hz: list[float],
    *,
    sample_rate: int,
    seconds: float,
    channels: int = 1,
    subtype: str = "PCM_16",
    audio: bool = True,
) -> None:
    """Tones in white noise at -26 dB; a file name always gives the same noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not audio:
        path.write_bytes(b"")
        return
    rng = np.random.default_rng(int(hashlib.sha256(path.name.encode()).hexdigest()[:8], 16))
    times_s = np.arange(round(seconds * sample_rate))[:, None] / sample_rate
    tones = sum(np.sin(2 * np.pi * (frequency * times_s + rng.uniform())) for frequency in frequencies_hz)
    samples = 0.3 * tones / max(1, len(frequencies_hz)) + 0.015 * rng.standard_normal((len(times_s), channels))
    soundfile.write(str(path), samples, sample_rate, subtype=subtype)


def build_tut(parent: Path, *, audio: bool = True) -> Path:
    """10 scenes in 3 places each, 2 clips per place: 2 places in train, 1 in evaluate. Returns the top folder."""
    root = parent / TUT
    rows: list[str] = []
    folds: dict[str, list[str]] = {"train": [], "evaluate": []}
    for number, scene in enumerate(SCENES):
        for place, city in enumerate(("barcelona", "helsinki", "london")):
            for segment in range(2):
                name = f"audio/{scene}-{city}-{number}-{segment}-a.wav"
                rows.append(f"{name}\t{scene}\t{city}-{number}\ta")
                folds["train" if place < 2 else "evaluate"].append(f"{name}\t{scene}")
                tone = [250.0 * 1.35**number]
                write_sound(
                    root / name, tone, sample_rate=48000, seconds=1.1, channels=2, subtype="PCM_24", audio=audio
                )
    (root / "evaluation_setup").mkdir()
    (root / "meta.csv").write_text("\n".join(["filename\tscene_label\tidentifier\tsource_label", *rows]) + "\n")
    for fold, lines in folds.items():
        (root / f"evaluation_setup/fold1_{fold}.txt").write_text("\n".join(lines) + "\n")
    names = [line.split("\t")[0] for line in folds["evaluate"]]
    (root / "evaluation_setup/fold1_test.txt").write_text("\n".join(names) + "\n")
    return root


def bird_item(dataset: str, number: int) -> str:
    """A number for ff1010bird, the digits of a UUID for the others, as in the archives."""
    if dataset == "ff1010bird":
        return str(1000 + 37 * number)
    digits = hashlib.sha256(f"{dataset}{number}".encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}"


def build_birds(root: Path, *, audio: bool = True) -> Path:
    """Three sets of which every other clip has a bird, each with a folder wav/, and their three tables."""
    root.mkdir(parents=True, exist_ok=True)
    for dataset, n_clips in BIRD_CLIPS.items():
        lines = ["itemid,datasetid,hasbird"]
        for number in range(n_clips):
            item, has_bird = bird_item(dataset, number), number % 2
            lines.append(f"{item},{dataset},{has_bird}")
            tones = [2500.0, 3100.0, 4000.0] if has_bird else [180.0]
            write_sound(root / dataset / "wav" / f"{item}.wav", tones, sample_rate=44100, seconds=1.2, audio=audio)
        (root / BIRD_TABLES[dataset]).write_text("\n".join(lines) + "\n")
    return root


def nsynth_note(family: int, instrument: int, pitch: int, velocity: int, source: int) -> dict[str, object]:
    """An entry of examples.json with all its fields."""
    instrument_str = f"{FAMILIES[family]}_{SOURCES[source]}_{instrument:03d}"
    return {
        "note": 1000 * instrument + pitch,
        "note_str": f"{instrument_str}-{pitch:03d}-{velocity:03d}",
        "instrument": instrument,
        "instrument_str": instrument_str,
        "pitch": pitch,
        "velocity": velocity,
        "sample_rate": 16000,
        "instrument_family": family,
        "instrument_family_str": FAMILIES[family],
        "instrument_source": source,
        "instrument_source_str": SOURCES[source],
        "qualities": [0] * 10,
        "qualities_str": [],
    }


def build_nsynth(root: Path, *, audio: bool = True) -> Path:
    """11 families x 3 pitches: one instrument each in train, another in valid and test, synth_lead only in train."""
    for split, (instrument, velocity) in {"train": (0, 50), "valid": (1, 75), "test": (1, 100)}.items():
        notes = {}
        for family in range(len(FAMILIES)):
            for pitch in PITCHES:
                if FAMILIES[family] == "synth_lead" and split != "train":
                    continue
                note = nsynth_note(family, 11 * instrument + family, pitch, velocity, family % 3)
                notes[str(note["note_str"])] = note
                fundamental_hz = 440 * 2 ** ((pitch - 69) / 12)
                partials = [fundamental_hz, fundamental_hz * (2 + 0.5 * family)]
                file = root / f"nsynth-{split}" / "audio" / f"{note['note_str']}.wav"
                write_sound(file, partials, sample_rate=16000, seconds=4.0, audio=audio)
        (root / f"nsynth-{split}" / "examples.json").write_text(json.dumps(notes))
    return root


def build_speech(root: Path, *, audio: bool = True) -> Path:
    """35 words by 4 speakers: 3 clips in train, 1 in valid, 1 in test; and the noises, which are no class."""
    speakers = {"train": "00f0204f", "train_too": "0132a06d", "valid": "0c540988", "test": "022cd682"}
    lists: dict[str, list[str]] = {"valid": [], "test": []}
    for number, word in enumerate(WORDS):
        for split, speaker in speakers.items():
            for repetition in range(2 if split == "train" else 1):
                name = f"{word}/{speaker}_nohash_{repetition}.wav"
                tones = [220.0 * 1.22 ** (number % 7), 1200.0 * 1.3 ** (number // 7)]
                write_sound(root / name, tones, sample_rate=16000, seconds=1.0 - 0.1 * (number % 2), audio=audio)
                if split in lists:
                    lists[split].append(name)
    write_sound(root / "_background_noise_" / "pink_noise.wav", [], sample_rate=16000, seconds=6.0, audio=audio)
    (root / "_background_noise_" / "README.md").write_text("noise\n")
    (root / "validation_list.txt").write_text("\n".join(lists["valid"]) + "\n")
    (root / "testing_list.txt").write_text("\n".join(lists["test"]) + "\n")
    (root / "README.md").write_text("Speech Commands\n")
    (root / "LICENSE").write_text("CC BY 4.0\n")
    return root


# By the name of the data set's card.
BUILDERS: dict[str, Callable[..., Path]] = {
    "tut-urban-2018": build_tut,
    "dcase2018-birds": build_birds,
    "nsynth": build_nsynth,
    "speech-commands": build_speech,
}


def make_archive(data: str, folder: Path) -> Path:
    """A miniature of a data set in its official layout, whole or not at all; one that stands is left alone."""
    if folder.is_dir():
        say("archive", f"{folder} stands, skipped")
        return folder
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    BUILDERS[data](partial)
    partial.rename(folder)
    say("archive", f"miniature of {data} -> {folder}")
    return folder

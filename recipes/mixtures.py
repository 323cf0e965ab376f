"""Clips that are summed: several labels learned as sets, beside the same network that learns clips with one label.

Data: any manifest with one label per clip and a split, such as scenes of one sound each.
Command: python recipes/mixtures.py --manifest scenes.csv --label label --width 0.25 --seeds 0 1 2
Expected: a table: average precision of each class on mixtures of two or three test clips, mean (sd) over seeds, of the
    network that learned mixtures as sets of labels, and of the one that learned the clips alone (recipes/RESULTS.md).
Hardware: any; settings for a CPU: --width 0.25.
Time: two runs a seed. --smoke 20 s. A finished run is not trained again, a stopped one goes on.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch

from audiostride.audio.resampling import read_audio
from audiostride.dataset.labels import SEPARATORS
from audiostride.dataset.splits import SPLITS
from audiostride.errors import InputError
from audiostride.inference.evaluation import classify_clips, evaluate_label_sets
from audiostride.models import load_classifier
from audiostride.training.clips import LabelledClips
from audiostride.training.config import TrainConfig
from audiostride.training.presets import DEFAULT_PRESET, preset_settings
from audiostride.training.sources import read_source
from audiostride.writing import make_folder, write_text
from lab.archives import make_archive
from lab.clips import read_clips
from lab.data_stages import import_stage, say
from lab.program import (
    SMOKE,
    check_settings,
    choose_seeds,
    end_of_output,
    end_program,
    make_parser,
    named_settings,
    open_folder,
    parse_settings,
)
from lab.runs import format_accuracies, train_runs

NAME = "mixtures"
SAMPLE_RATE = 16000
LEVELS_DB = (-10.0, 0.0)  # of the clips of a mixture
PEAK = 0.99  # of one that would go beyond full scale
TASK = "sounds"


def main() -> int:
    """Mix and train what is missing, then print the table; the return value is the exit code."""
    arguments = build_parser().parse_args()
    return end_program(NAME, lambda: run(arguments))


def build_parser() -> argparse.ArgumentParser:
    """The options of the experiment."""
    parser = make_parser(NAME, __doc__ or "")
    add = parser.add_argument
    add("--manifest", metavar="M", help="clips of one label each: a CSV table or a folder of class folders")
    add("--label", metavar="COLUMN", default="label", help="its column with the labels (default: %(default)s)")
    add("--mix-seed", type=int, default=0, metavar="S", help="of what is mixed (default: %(default)s)")
    add("--out", metavar="DIR", help=f"folder that is written (default: runs/{NAME})")
    add("--seeds", type=int, nargs="+", help="two runs for each (default: 0 1 2)")
    add("--width", type=float, help="factor on the channels (default: 1)")
    add("--max-steps", type=int, help="optimizer steps (default: those of 'audiostride train')")
    add("--batch-size", type=int, help="1 s excerpts per step (default: 32)")
    add("--set", nargs="+", metavar="NAME=VALUE", default=[], help="any other setting of 'audiostride train'")
    add("--smoke", action="store_true", help="make tiny data and run everything on the CPU")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Mix clips, train on mixtures and on clips alone, print the average precision of each class on test mixtures."""
    given = {**parse_settings(NAME, arguments.set), **named_settings(arguments)}
    check_settings(NAME, {name: value for name, value in given.items() if name != "pooling"})
    if (arguments.manifest is None) != arguments.smoke:
        raise InputError("--manifest must be given, or --smoke, which makes its own data")
    with open_folder(NAME, arguments.out, smoke=arguments.smoke) as (out, _):
        if arguments.smoke:
            archive = make_archive("nsynth", out / "archive")
            data = import_stage("nsynth", archive, out / "data", splits="official", download=False, partial=False)
            arguments.manifest, arguments.label = data, "instrument_family"
        settings = {**preset_settings(DEFAULT_PRESET), **(SMOKE if arguments.smoke else {}), **given}
        clips = read_clips(arguments.manifest, label=arguments.label)
        mixed = mix_stage(clips, out / f"mixtures_{arguments.mix_seed}", seed=arguments.mix_seed)
        variants: dict[str, dict[str, Any]] = {
            "sets": {"manifest": str(mixed), "label": TASK, "multi_label": [TASK], "label_separator": SEPARATORS[0]},
            "alone": {"manifest": str(arguments.manifest), "label": arguments.label},
        }
        runs = train_runs(out, variants=variants, seeds=choose_seeds(arguments), settings=settings)
        print(f"\n{NAME}: average precision (%) on mixtures of test clips\n\n{format_classes(runs, mixed)}\n")
        if arguments.smoke:
            print(end_of_output(smoke=True, data="tones instead of a data set"))


def mix_stage(clips: pd.DataFrame, folder: Path, *, seed: int) -> Path:
    """The manifest of the mixtures, which are written unless it stands."""
    manifest = folder / "mixtures.csv"
    if manifest.is_file():
        say("mix", f"stands, skipped ({manifest})")
        return manifest
    rows = []
    for number, (first, members, levels_db) in enumerate(draw_mixtures(clips, seed=seed)):
        split, own = str(clips.loc[first, "split"]), clips.loc[members]
        path = folder / split / f"{number}.flac"
        make_folder(path.parent)
        soundfile.write(str(path), mix(own, levels_db), SAMPLE_RATE, subtype="PCM_16")
        labels = SEPARATORS[0].join(sorted({*own["label"]}))
        group = clips.loc[first, "group"] or clips.loc[first, "clip_name"]
        rows.append({"path": f"{split}/{path.name}", TASK: labels, "split": split, "group": group})
    write_text(manifest, pd.DataFrame(rows).to_csv(index=False))
    say("mix", f"{len(rows)} mixtures of two or three clips -> {manifest}")
    return manifest


def draw_mixtures(clips: pd.DataFrame, *, seed: int) -> list[tuple[Any, list[Any], list[float]]]:
    """For each clip of a manifest a mixture that it leads: its row, the rows that are summed, and their levels in dB.

    One or two others of the same split and of other classes join it.

    Raises:
        InputError: No split, or a split with fewer than three classes.
    """
    rng, found = np.random.default_rng(seed), []
    for split in SPLITS:
        own = clips[clips["split"] == split]
        if own["label"].nunique() < 3:
            raise InputError(f"--manifest must have clips of three classes or more in split {split!r}, got "
                             f"{own['label'].nunique()}")  # fmt: skip
        for first in own.index:
            members, left = [first], own[own["label"] != own.loc[first, "label"]]
            for _ in range(rng.integers(1, 3)):
                members.append(left.index[rng.integers(len(left))])
                left = left[left["label"] != own.loc[members[-1], "label"]]
            found.append((first, members, rng.uniform(*LEVELS_DB, len(members)).tolist()))
    return found


def mix(clips: pd.DataFrame, levels_db: Sequence[float]) -> np.ndarray:
    """The sum of clips at their levels, as long as the first one; others are repeated or cut to its length."""
    total = np.zeros(0, dtype=np.float32)
    for (_, clip), level_db in zip(clips.iterrows(), levels_db, strict=True):
        length_s = None if np.isnan(clip["duration_s"]) else float(clip["duration_s"])
        samples = read_audio(clip["path"], start_s=clip["start_s"], duration_s=length_s, sample_rate=SAMPLE_RATE)
        total = total if len(total) else np.zeros_like(samples)
        total = total + np.resize(samples, len(total)) * 10 ** (level_db / 20)
    return total / max(1.0, float(np.abs(total).max()) / PEAK)


def format_classes(runs: Mapping[str, Sequence[Path]], mixed: Path) -> str:
    """The table: a row per class and their mean, a column for each way to learn."""
    found = {way: [average_precisions(run, mixed) for run in own] for way, own in runs.items()}
    names = found["sets"][0].index
    lines = ["| class | learned mixtures | learned clips alone |", "| --- | ---: | ---: |"]
    for name in [*names, None]:
        cells = []
        for tables in found.values():
            values = [100 * float(table.mean() if name is None else table[name]) for table in tables]
            cells.append("no test clip" if np.isnan(values).any() else format_accuracies(values))
        lines.append(f"| {name or 'mean'} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def average_precisions(run: Path, mixed: Path) -> "pd.Series[float]":
    """The average precision of each class on the test mixtures, of a model of any of both kinds.

    What ranks clips are the logits of a class: of a model of single labels those of its log-probability.
    """
    config = TrainConfig(out=str(run), manifest=str(mixed), label=TASK, multi_label=[TASK],
                         label_separator=SEPARATORS[0])  # fmt: skip
    model = load_classifier(run)
    [(task, names)] = model.config.tasks.items()
    clips, _ = read_source(config.sources()[0], config)
    test = clips[clips["split"] == "test"]
    data = LabelledClips.load(test, {TASK: names}, where=str(mixed), several=[TASK], progress=False)[TASK]
    logits = classify_clips(model, data.reader, progress=False)[task]
    values = logits if model.config.multi_label else torch.log_softmax(logits, dim=1)
    table = evaluate_label_sets(values, data.class_indices, names).per_class
    return table.set_index("class")["average_precision"]


if __name__ == "__main__":
    sys.exit(main())

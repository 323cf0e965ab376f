"""Annotated recordings, from boxes of Raven to events that are scored: import, train, predict, score against the boxes.

Data: a manifest of clips with train, valid and test; some of its classes are the events, clips of the others lie
    between them without a box. The clips are strung into recordings with tables of Raven: random gaps, noise of drawn
    colour and level below, each clip at a drawn level above it, all by a seed. Splits of clips are those of recordings.
Command: python recipes/annotated_recordings.py --manifest birds.csv --label label --classes bird --width 0.25
Expected: a table: precision, recall and F1 of events on the test recordings, and alarms per hour on background with
    their 95 % interval. An event is found where one of its class shares at least half of their union with it
    (IoU >= 0.5), each once. The threshold is that with the best F1 on the validation recordings.
Hardware: any; settings for a CPU: --width 0.25.
Time: 20 min of one core for sixteen recordings and a seed; --smoke 15 s. Recordings and runs that stand are not made
    again.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray

from audiostride.audio.resampling import read_audio
from audiostride.dataset.importers import AnnotationSettings, import_annotations, write_manifest
from audiostride.dataset.noise import make_noises
from audiostride.dataset.splits import SPLITS
from audiostride.errors import InputError
from audiostride.inference.thresholds import poisson_interval
from audiostride.models import AudioClassifier, load_classifier
from audiostride.training import TrainConfig
from audiostride.training.presets import DEFAULT_PRESET, preset_settings
from audiostride.wording import count_of
from audiostride.writing import make_folder, write_json, write_text
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
from lab.runs import describe_setting, train_runs

NAME = "annotated_recordings"
RATE = 16000
NEGATIVES = "background"
HEAD = ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"]
GAP_S = (0.5, 4.0)
NOISE_DB = (-60.0, -40.0)  # of full scale
ABOVE_DB = (0.0, 20.0)  # of a clip, above the noise
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
HOP_S, MERGE_GAP_S = 0.25, 0.5
MIN_IOU = 0.5


def main() -> int:
    """Make what is missing, then print the table; the return value is the exit code."""
    arguments = build_parser().parse_args()
    return end_program(NAME, lambda: run(arguments))


def build_parser() -> argparse.ArgumentParser:
    """The options of the experiment."""
    parser = make_parser(NAME, __doc__ or "")
    add = parser.add_argument
    add("--manifest", metavar="M", help="clips with train, valid and test")
    add("--label", metavar="COLUMN", default="label", help="their column of labels (default: %(default)s)")
    add(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="labels that are events; clips of others are part of the background",
    )
    add("--minutes", type=float, default=10.0, help="length of a recording (default: %(default)g)")
    add("--recordings", type=int, nargs=4, default=[6, 1, 2, 1], metavar="N", help="recordings to train, to validate, "
        "to test, and of background for the alarms (default: 6 1 2 1)")  # fmt: skip
    add("--out", metavar="DIR", help=f"folder that is written (default: runs/{NAME})")
    add("--seeds", type=int, nargs="+", help="a run for each, on the same recordings (default: 0 1 2)")
    add("--width", type=float, help="factor on the channels (default: 1)")
    add("--max-steps", type=int, help="optimizer steps (default: those of 'audiostride train')")
    add("--batch-size", type=int, help="clips per step (default: 32)")
    add("--set", nargs="+", metavar="NAME=VALUE", default=[], help="any other setting of 'audiostride train'")
    add("--smoke", action="store_true", help="make tiny data and run everything on the CPU")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """String clips together, import, train a run for each seed, predict, score; print the table.

    Args:
        arguments: What `build_parser` parses.

    Raises:
        InputError: Bad options, data or audio; recordings stand that were made with other options.
        KeyboardInterrupt: Stopped; the same call goes on.
    """
    given = {**parse_settings(NAME, arguments.set), **named_settings(arguments)}
    check_settings(NAME, given)
    if not arguments.smoke and not (arguments.manifest and arguments.classes):
        raise InputError("--manifest and --classes must be given: the clips, and which of their labels are events")
    if min(arguments.recordings) < 1 or not arguments.minutes > 0:
        raise InputError("--recordings must be at least 1 each, and --minutes above 0")
    with open_folder(NAME, arguments.out, smoke=arguments.smoke) as (out, _):
        if arguments.smoke:
            archive = make_archive("nsynth", out / "archive")
            arguments.manifest = import_stage(
                "nsynth", archive, out / "data", splits="official", download=False, partial=False
            )
            arguments.label, arguments.classes = "instrument_family", ["bass", "brass"]
            arguments.minutes, arguments.recordings = 1.0, [2, 1, 1, 1]
        make_folder(out)
        recordings = write_recordings(out / "recordings", arguments)
        manifest = out / "clips.csv"
        settings = AnnotationSettings(annotated="throughout", background_label=NEGATIVES)
        imported, root = import_annotations("raven", recordings, recordings, settings)
        write_manifest(imported, root, manifest)
        for line in imported.findings:
            say("import", line)
        own = {**preset_settings(DEFAULT_PRESET), **(SMOKE if arguments.smoke else {}), **given}
        own |= {"manifest": str(manifest), "label": "label"}
        runs = train_runs(out, variants={"run": {}}, seeds=choose_seeds(arguments), settings=own)["run"]
        rows = [score_run(load_classifier(run), recordings, arguments.classes) for run in runs]
        table = pd.DataFrame(rows, index=[TrainConfig.load(run).seed for run in runs])
        print(f"\n{NAME} ({', '.join(arguments.classes)}): {describe_setting(runs[0])}\n\n{format_scores(table)}\n")
        if arguments.smoke:
            print(end_of_output(smoke=True, data="tones instead of a data set"))


def write_recordings(folder: Path, arguments: argparse.Namespace) -> Path:
    """The folder of recordings and their tables; made whole, or left alone where it stands with the same options."""
    made = {
        "manifest": str(Path(arguments.manifest).absolute()), "label": arguments.label, "classes": arguments.classes,
        "minutes": arguments.minutes, "recordings": arguments.recordings,
    }  # fmt: skip
    record = folder / "made.json"
    if record.is_file():
        if json.loads(record.read_text(encoding="utf-8")) != made:
            raise InputError(f"{folder} was made with other options; give another --out")
        say("recordings", f"{folder} stands, skipped")
        return folder
    clips = read_clips(arguments.manifest, label=arguments.label)
    wanted = clips["label"].isin(arguments.classes)
    if missing := [split for split in SPLITS if not (wanted & (clips["split"] == split)).any()]:
        raise InputError(
            f"--manifest must have clips of {', '.join(arguments.classes)} in {', '.join(missing)}, got none"
        )
    make_folder(folder)
    kinds = [*zip([*SPLITS, NEGATIVES], arguments.recordings, strict=True)]
    for kind, count in kinds:
        own = clips[clips["split"] == ("test" if kind == NEGATIVES else kind)]
        for number in range(count):
            rng = np.random.default_rng([number, *kind.encode()])
            events = own[own["label"].isin(arguments.classes) & (kind != NEGATIVES)]
            others = own[~own["label"].isin(arguments.classes)]
            waveform, boxes = string_together(events, others, round(60 * arguments.minutes), rng)
            soundfile.write(str(folder / f"{kind}_{number}.flac"), waveform, RATE)
            lines = [[*HEAD, "Species", "split"], *([*box, kind] for box in boxes)]
            if kind != NEGATIVES:
                text = "".join("\t".join(map(str, line)) + "\n" for line in lines)
                write_text(folder / f"{kind}_{number}.Table.1.selections.txt", text)
    write_json(record, made)
    what = count_of(sum(arguments.recordings), "recording")
    say("recordings", f"{what} of {arguments.minutes:g} min -> {folder}")
    return folder


def string_together(
    events: pd.DataFrame, others: pd.DataFrame, seconds: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], list[list[Any]]]:
    """Clips one after the other over noise, and rows of a table of Raven on those of `events`.

    Args:
        events, others: As `lab.clips.read_clips` gives them; either may be empty. Clips come in random order, each
            again only when all of its kind have been.
        seconds: Length of the recording.
        rng: Source of randomness.
    """
    noise = make_noises(1, RATE * seconds, seed=int(rng.integers(2**31)))[0] * 10 ** (rng.uniform(*NOISE_DB) / 20)
    level, waveform, boxes = float(noise.std()), noise.copy(), list[list[Any]]()
    ahead: dict[bool, list[int]] = {True: [], False: []}
    at_s = rng.uniform(*GAP_S)
    while True:
        is_event = len(events) > 0 and (len(others) == 0 or rng.random() < 0.5)
        source = events if is_event else others
        if source.empty:
            return waveform, boxes
        ahead[is_event] = ahead[is_event] or rng.permutation(len(source)).tolist()
        clip = source.iloc[ahead[is_event].pop()]
        length_s = None if np.isnan(clip["duration_s"]) else clip["duration_s"]
        sound = read_audio(clip["path"], start_s=clip["start_s"], duration_s=length_s, sample_rate=RATE)
        first, end_s = round(at_s * RATE), at_s + len(sound) / RATE
        if end_s > seconds:
            return waveform.clip(-1, 1), boxes
        gain = level * 10 ** (rng.uniform(*ABOVE_DB) / 20) / max(float(sound.std()), 1e-6)
        waveform[first : first + len(sound)] += np.float32(gain) * sound
        if is_event:
            span = [f"{at_s:.4f}", f"{end_s:.4f}"]
            boxes.append([len(boxes) + 1, "Spectrogram 1", 1, *span, "60.0", "7800.0", clip["label"]])
        at_s = end_s + rng.uniform(*GAP_S)


def score_run(model: AudioClassifier, folder: Path, classes: Sequence[str]) -> dict[str, float]:
    """Scores of a run on the test recordings and on background, at the threshold that is best in validation."""
    valid = [count_events(model, folder, "valid", classes, threshold=threshold) for threshold in THRESHOLDS]
    f1 = [score_counts(counts)["F1"] for counts in valid]
    threshold = THRESHOLDS[int(np.argmax(f1))]
    background = count_events(model, folder, NEGATIVES, classes, threshold=threshold)
    found = score_counts(count_events(model, folder, "test", classes, threshold=threshold))
    return {"threshold": threshold, **found, "alarms": background["predicted"], "hours": background["hours"]}


def count_events(
    model: AudioClassifier, folder: Path, kind: str, classes: Sequence[str], *, threshold: float
) -> dict[str, float]:
    """How many events there are, are predicted and are found in the recordings of a kind, and how many hours it has."""
    files = sorted(folder.glob(f"{kind}_*.flac"))
    table = model.predict(files, events=True, hop_s=HOP_S, threshold=threshold, merge_gap_s=MERGE_GAP_S, workers=1)
    table = table[table["label"].isin(classes)]
    counts = {"true": 0.0, "predicted": float(len(table)), "found": 0.0, "hours": 0.0}
    for file in files:
        counts["hours"] += soundfile.info(file).duration / 3600
        boxes = file.with_name(f"{file.stem}.Table.1.selections.txt")
        if boxes.is_file():
            truth = pd.read_csv(boxes, sep="\t", keep_default_na=False)
            own = table[table["path"] == str(file)]
            counts["true"] += len(truth)
            for name in classes:
                spans = truth.loc[truth["Species"] == name, ["Begin Time (s)", "End Time (s)"]].to_numpy(dtype=float)
                guesses = own.loc[own["label"] == name, ["start_s", "end_s"]].to_numpy(dtype=float)
                counts["found"] += match_events(spans, guesses)
    return counts


def match_events(truth: NDArray[np.float64], predicted: NDArray[np.float64], *, min_iou: float = MIN_IOU) -> int:
    """How many events of a class are found: pairs by falling intersection over union, each event in one at most.

    Args:
        truth, predicted: Start and end of each event in seconds, ``(events, 2)``.
        min_iou: Least intersection over union of a pair.

    >>> match_events(np.array([[0.0, 2.0], [5.0, 6.0]]), np.array([[0.5, 2.0], [0.0, 0.5], [5.9, 8.0]]))
    1
    """
    starts = np.maximum(truth[:, None, 0], predicted[None, :, 0])
    ends = np.minimum(truth[:, None, 1], predicted[None, :, 1])
    both = np.maximum(ends - starts, 0)
    iou = both / (np.diff(truth)[:, None, 0] + np.diff(predicted)[None, :, 0] - both)
    n_found = 0
    while iou.size and iou.max() >= min_iou:
        row, column = np.unravel_index(iou.argmax(), iou.shape)
        iou[row, :], iou[:, column], n_found = 0, 0, n_found + 1
    return n_found


def score_counts(counts: Mapping[str, float]) -> dict[str, float]:
    """Precision, recall and F1 in %; 0 where there is nothing to count."""
    true, predicted, found = counts["true"], counts["predicted"], counts["found"]
    return {
        "precision": 100 * found / max(predicted, 1),
        "recall": 100 * found / max(true, 1),
        "F1": 200 * found / max(true + predicted, 1),
    }


def format_scores(table: pd.DataFrame) -> str:
    """The table: a row per seed, and their mean, where alarms and hours are added up."""
    lines = ["| seed | threshold | precision (%) | recall (%) | F1 (%) | alarms per hour (95 %) |", "|" + " --- |" * 6]
    mean = table.mean()
    mean[["alarms", "hours"]] = table[["alarms", "hours"]].sum()
    for name, row in [*table.iterrows(), ("all", mean)]:
        low, high = (end / row["hours"] for end in poisson_interval(int(row["alarms"])))
        scores = " | ".join(f"{row[each]:.1f}" for each in ("precision", "recall", "F1"))
        alarms = f"{row['alarms'] / row['hours']:.1f} ({low:.1f} to {high:.1f})"
        lines.append(f"| {name} | {row['threshold']:.2f} | {scores} | {alarms} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

"""False alarms: events that a run's model finds in recordings without any of its classes, against the threshold."""

import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from audiostride.errors import InputError, explained
from audiostride.inference.engine import predict_recordings
from audiostride.inference.granularity import ScoreResult
from audiostride.inference.recordings import Recording, expand_paths
from audiostride.inference.settings import PredictionSettings
from audiostride.inference.thresholds import WindowScores, count_alarms, lowest_quiet, poisson_interval
from audiostride.models import AudioClassifier, load_classifier, save_classifier
from audiostride.models.classifier import Thresholds
from audiostride.progress import progress_bar
from audiostride.training.clips import LabelledClips, load_split
from audiostride.training.config import TrainConfig
from audiostride.training.sources import read_sources
from audiostride.wording import count_of
from audiostride.writing import write_json, write_text

# From 0.018 to 0.99995, in steps of 0.1 of the log odds.
THRESHOLDS: NDArray[np.float64] = expit(np.arange(-4, 10.01, 0.1)).round(6)


@explained()
def measure_alarms(
    run: str | Path,
    negatives: str | Path,
    *,
    hours: float | None = None,
    hop_s: float | None = None,
    merge_gap_s: float | None = None,
    min_windows: int | None = None,
    alarms_per_hour: float | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> dict[str, Any]:
    """Count the events of each class in recordings in which none is heard, and how many test clips are still found.

    A test clip is found at a threshold at which it has an event. Counts have Garwood's 95 % intervals, as where
    alarms come independently of each other.

    Args:
        run: Run folder; its test clips must be there.
        negatives: Folder, file or manifest of recordings without any of the classes.
        hours: At most so much of them is heard.
        hop_s, merge_gap_s, min_windows: As for `PredictionSettings` with events.
        alarms_per_hour: What each class may have; the thresholds of the model become those at which it has no more.
        device: Where to compute.
        progress: Whether progress bars are shown.

    Returns:
        What stands in ``metrics_alarms.json``; all thresholds are in ``alarms.csv``.

    Raises:
        InputError: Not a run folder; recordings or test clips that cannot be read.
    """
    run = Path(run)
    config, model = TrainConfig.load(run), load_classifier(run, device=device)
    for name, value in (("hours", hours), ("alarms-per-hour", alarms_per_hour)):
        if value is not None and not value > 0:
            raise InputError(f"evaluate: --{name} must be > 0, got {value:g}")
    settings = PredictionSettings(granularity="event", hop_s=hop_s, merge_gap_s=merge_gap_s, min_windows=min_windows)
    recordings = expand_paths(
        [negatives], sample_rate=model.config.sample_rate, say=lambda line: print(line, file=sys.stderr)
    )
    heard = _hear(model, recordings, settings, hours=hours, progress=progress)
    n_hours = sum(each.duration_s for each in next(iter(heard.values()))) / 3600
    wanted = 1.0 if alarms_per_hour is None else alarms_per_hour
    tables, summary, thresholds = [], {}, {}
    for task, clips in load_split(read_sources(config), model, config, "test", progress=progress).items():
        names = model.config.tasks[task]
        counts = count_alarms(heard[task], THRESHOLDS, gap_s=merge_gap_s or 0.0, min_windows=min_windows or 1)
        truth = clips.class_indices
        truth = truth if truth.ndim == 2 else np.eye(len(names), dtype=np.int64)[truth]
        found = _found_at(model, clips, task, settings, progress=progress)
        recalls = np.stack([(found[:, truth[:, k] > 0, k]).mean(axis=1) if truth[:, k].any() else
                            np.full(len(THRESHOLDS), np.nan) for k in range(len(names))], axis=1)  # fmt: skip
        own = {}
        for index, name in enumerate(names):
            if name == model.config.background_class:
                continue
            tables.append(_table(task, name, counts[:, index], recalls[:, index], n_hours))
            at = lowest_quiet(counts[:, index], wanted * n_hours)
            own[name] = {
                "threshold": None if at is None else float(THRESHOLDS[at]),
                "alarms": None if at is None else int(counts[at, index]),
                "recall": None if at is None or np.isnan(recalls[at, index]) else float(recalls[at, index]),
            }
        summary[task] = own
        # A class that has more alarms at any threshold gives none at all.
        thresholds[task] = {name: 1.0 if each["threshold"] is None else each["threshold"] for name, each in own.items()}
    metrics = {
        "negatives": str(negatives),
        "recordings": len(next(iter(heard.values()))),
        "hours": round(n_hours, 4),
        "alarms_per_hour": wanted,
        "interval_of_none": [round(bound / n_hours, 4) for bound in poisson_interval(0)],
        "tasks": summary,
    }
    if alarms_per_hour is not None:
        where = f"{n_hours:.3g} h of {Path(negatives).name}"
        rule = f"at most {count_of(wanted, 'alarm')} per hour of each class in {where}"
        model.thresholds = Thresholds(thresholds, rule=rule)
        save_classifier(model, run / "model.safetensors")
    write_text(run / "alarms.csv", pd.concat(tables).round(6).to_csv(index=False))
    write_json(run / "metrics_alarms.json", metrics)
    return metrics


def _hear(
    model: AudioClassifier,
    recordings: list[Recording],
    settings: PredictionSettings,
    *,
    hours: float | None,
    progress: bool,
) -> dict[str, list[WindowScores]]:
    """The scores of all windows of recordings, for each task."""
    hop = settings.hop_samples(model.config) / model.config.sample_rate
    heard: dict[str, list[WindowScores]] = {task: [] for task in model.config.tasks}
    done_s = 0.0
    for result in _scores_of(model, recordings, settings, desc="negatives", progress=progress):
        tiling = result.tiling
        duration_s = tiling.n_samples / tiling.sample_rate
        keep_s = duration_s if hours is None else min(duration_s, 3600 * hours - done_s)
        if keep_s <= 0:
            break
        done_s += keep_s
        n_windows = max(1, min(tiling.n_windows, round(keep_s / hop)))
        for task, own in heard.items():
            own.append(WindowScores(result.window_scores(task)[:n_windows], keep_s, model.config.window_s, hop))
    return heard


def _scores_of(
    model: AudioClassifier, recordings: list[Recording], settings: PredictionSettings, *, desc: str, progress: bool
) -> Iterable[ScoreResult]:
    """The scores of one recording after another."""
    asked = PredictionSettings(granularity="scores", hop_s=settings.hop_s)
    bar = progress_bar(total=len(recordings), desc=desc, unit="file", disable=not progress, leave=False)
    with bar, closing(predict_recordings(model, recordings, asked)) as results:
        for result in results:
            if isinstance(result, InputError):
                raise result
            if not isinstance(result, ScoreResult) or not result.finite:
                raise InputError("evaluate: logits must be finite, got NaN or infinity; did the training diverge?")
            bar.update()
            yield result


def _found_at(
    model: AudioClassifier, clips: LabelledClips, task: str, settings: PredictionSettings, *, progress: bool
) -> NDArray[np.bool_]:
    """Whether each class has an event in each clip at each threshold, ``(thresholds, clips, classes)``."""
    recordings = [Recording(f"clip {index}", reader=clips.reader, index=index) for index in range(len(clips.reader))]
    window_s, hop = model.config.window_s, settings.hop_samples(model.config) / model.config.sample_rate
    counts = [
        count_alarms(
            [WindowScores(result.window_scores(task), window_s, window_s, hop)],
            THRESHOLDS,
            min_windows=settings.min_windows or 1,
        )
        for result in _scores_of(model, recordings, settings, desc="test clips", progress=progress)
    ]
    return np.stack(counts, axis=1) > 0


def _table(task: str, name: str, counts: NDArray[np.int64], recalls: NDArray[np.float64], hours: float) -> pd.DataFrame:
    bounds = np.array([poisson_interval(int(count)) for count in counts]) / hours
    return pd.DataFrame(
        {
            "task": task,
            "class": name,
            "threshold": THRESHOLDS,
            "alarms": counts,
            "alarms_per_hour": counts / hours,
            "low": bounds[:, 0],
            "high": bounds[:, 1],
            "recall": recalls,
        }
    )

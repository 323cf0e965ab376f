"""What a run stores beside its weights: probabilities that hold on validation clips, and thresholds of the classes."""

from pathlib import Path

import numpy as np

from audiostride.errors import InputError, explained
from audiostride.inference.thresholds import f1_threshold, fit_temperature, precision_threshold, probabilities
from audiostride.models import AudioClassifier, load_classifier, save_classifier
from audiostride.models.classifier import Thresholds
from audiostride.training.clips import LabelledClips, evaluate_clips, load_split
from audiostride.training.config import TrainConfig
from audiostride.training.sources import read_sources


def calibrate_(
    model: AudioClassifier, valid: dict[str, LabelledClips], *, hop_s: float | None = None, progress: bool = True
) -> dict[str, float]:
    """Divide the logits of each task by its temperature, and choose the thresholds of its classes by their F1.

    The temperature goes into the weights of the heads, so that every program that runs the network has it.

    Args:
        model: The trained classifier.
        valid: Its validation clips.
        hop_s: From one of their windows to the next, in seconds; None is the window.
        progress: Whether a progress bar is shown.

    Returns:
        The temperature of each task.
    """
    temperatures, thresholds = {}, {}
    for task, found in evaluate_clips(model, valid, hop_s=hop_s, progress=progress).items():
        logits, several = found.logits.double().numpy(), task in model.config.multi_label
        names, truth = model.config.tasks[task], valid[task].class_indices[found.clips]
        targets = truth if several else np.eye(len(names), dtype=np.int64)[truth]
        temperature = fit_temperature(logits, targets.astype(np.float64), several=several)
        model.scale_logits_(task, 1 / temperature)
        temperatures[task] = round(temperature, 4)
        scores = probabilities(logits / temperature, several=several)
        own = {name: f1_threshold(scores[:, index], targets[:, index] > 0) for index, name in enumerate(names)}
        thresholds[task] = {name: round(value, 6) for name, value in own.items() if value is not None}
    model.thresholds = Thresholds(thresholds, rule="highest F1 on validation clips")
    return temperatures


@explained()
def set_precision(
    run: str | Path, precision: float, *, device: str = "cpu", progress: bool = True
) -> dict[str, dict[str, float | None]]:
    """Give the model of a run, for each class, the lowest threshold of that precision on the validation clips.

    Args:
        run: Run folder; its validation clips must be there.
        precision: Share of what is found that is to be right, in (0, 1].
        device: Where to compute.
        progress: Whether a progress bar is shown.

    Returns:
        The thresholds of each task; None for a class that no threshold finds so precisely, which the model then gives
        at a probability of 1 only.

    Raises:
        InputError: Not a run folder; a precision out of its range; clips that cannot be read.
    """
    if not 0 < precision <= 1:
        raise InputError(f"evaluate: --precision must lie in (0, 1], got {precision:g}; e.g. 0.9")
    run = Path(run)
    config, model = TrainConfig.load(run), load_classifier(run, device=device)
    valid = load_split(read_sources(config), model, config, "valid", progress=progress)
    chosen: dict[str, dict[str, float | None]] = {}
    for task, found in evaluate_clips(model, valid, hop_s=config.eval_hop_s, progress=progress).items():
        names, truth = model.config.tasks[task], valid[task].class_indices[found.clips]
        several = task in model.config.multi_label
        scores = probabilities(found.logits.double().numpy(), several=several)
        targets = truth if several else np.eye(len(names), dtype=np.int64)[truth]
        chosen[task] = {
            name: precision_threshold(scores[:, index], targets[:, index] > 0, precision)
            for index, name in enumerate(names)
            if name != model.config.background_class
        }
    stored = {
        task: {name: 1.0 if value is None else round(value, 6) for name, value in own.items()}
        for task, own in chosen.items()
    }
    model.thresholds = Thresholds(stored, rule=f"precision of {precision:g} on validation clips")
    save_classifier(model, run / "model.safetensors")
    return chosen

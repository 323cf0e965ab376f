"""What a run stores beside its weights: probabilities that hold on validation clips, and thresholds of the classes."""

import numpy as np

from audiostride.inference.thresholds import f1_threshold, fit_temperature, probabilities
from audiostride.models import AudioClassifier
from audiostride.models.classifier import Thresholds
from audiostride.training.clips import LabelledClips, evaluate_clips


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

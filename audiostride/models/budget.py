"""A budget of multiply-adds for a classifier: what it allows, and strides that keep to it."""

from dataclasses import replace

from audiostride.checks import check_budget
from audiostride.models.classifier import AudioClassifier
from audiostride.models.config import ClassifierConfig
from audiostride.models.cost import multiply_adds, smooth_cost_of
from audiostride.strides.budget import StrideBudget, bounds_of


def budget_per_window(who: str, budget: str, config: ClassifierConfig) -> float:
    """Multiply-adds of a window that a budget allows a network.

    Args:
        who: Name of the caller, for messages.
        budget: ``0.5x``: that much of what strided convolution with the same starting strides takes (in whole numbers);
            or ``5M``: multiply-adds per second of audio.
        config: The network.

    Raises:
        InputError: No such budget.
    """
    value, relative = check_budget(who, budget)
    if not relative:
        return value * config.window_s
    whole = (
        None if config.strides is None else [[float(max(1, round(each))) for each in pair] for pair in config.strides]
    )
    return value * multiply_adds(AudioClassifier(replace(config, pooling="strided", strides=whole)))


def classifier_budget(who: str, model: AudioClassifier, budget: str) -> StrideBudget:
    """A budget for the strides of a classifier.

    Args:
        who: Name of the caller, for messages.
        model: A classifier with DiffStride layers.
        budget: As in `budget_per_window`.

    Raises:
        InputError: No such budget, or one out of reach.
    """
    return StrideBudget(
        who,
        budget_per_window(who, budget, model.config),
        smooth=smooth_cost_of(model),
        counted=lambda: multiply_adds(model),
        bounds=lambda: bounds_of(model.encoder.limited_layers(model.config.window_frames, model.config.n_mels)),
        unit=model.config.window_s,
        what="second of audio",
    )

"""Windowed evaluation, metrics and the baselines to compare with."""

from audiostride.evaluation.baseline import Baselines, baseline_accuracies
from audiostride.evaluation.metrics import Evaluation, accuracy_interval, evaluate_logits
from audiostride.evaluation.prediction import expand_paths, predict_file, predict_files
from audiostride.evaluation.windowed import ClipLogits, classify_clips

__all__ = [
    "Baselines",
    "ClipLogits",
    "Evaluation",
    "accuracy_interval",
    "baseline_accuracies",
    "classify_clips",
    "evaluate_logits",
    "expand_paths",
    "predict_file",
    "predict_files",
]

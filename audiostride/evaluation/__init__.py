"""Windowed evaluation, metrics and the baselines to compare with."""

from audiostride.evaluation.baseline import Baselines, baseline_accuracies
from audiostride.evaluation.metrics import Evaluation, accuracy_interval, evaluate_logits
from audiostride.evaluation.prediction import Recording, expand_paths, predict_file, predict_files
from audiostride.evaluation.windowed import ClipLogits, classify_clips, evaluate_bank

__all__ = [
    "Baselines",
    "ClipLogits",
    "Evaluation",
    "Recording",
    "accuracy_interval",
    "baseline_accuracies",
    "classify_clips",
    "evaluate_bank",
    "evaluate_logits",
    "expand_paths",
    "predict_file",
    "predict_files",
]

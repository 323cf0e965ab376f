"""Training runs: settings, the training step, callbacks, results."""

from audiostride.training.config import TrainConfig
from audiostride.training.results import evaluate_run
from audiostride.training.run import train

__all__ = ["TrainConfig", "evaluate_run", "train"]

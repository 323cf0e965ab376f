"""Training runs: settings, batches and their loss, the loop, results."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from audiostride.training.config import TrainConfig

if TYPE_CHECKING:
    from audiostride.training.results import evaluate_run
    from audiostride.training.run import train
    from audiostride.training.seeds import train_seeds

# Lightning takes seconds to load, which the command line's help and errors need not wait for.
_LAZY = {
    "evaluate_run": "audiostride.training.results",
    "train": "audiostride.training.run",
    "train_seeds": "audiostride.training.seeds",
}

__all__ = ["TrainConfig", "evaluate_run", "train", "train_seeds"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'audiostride.training' has no attribute {name!r}")

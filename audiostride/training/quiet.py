"""Lightning without its advice."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_advice() -> Iterator[None]:
    """Keep Lightning from advising on loggers, workers and devices, which here are choices, not oversights."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*lightning.*|.*Lightning.*|.*tensorboard.*|.*num_workers.*")
        # Weights with one channel have two layouts that are the same in memory; DDP tells of it and copies few bytes.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        yield

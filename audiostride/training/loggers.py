"""What records a training beside its own tables: Lightning's loggers, in the run's folder ``logs``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from audiostride.errors import InputError

PROJECT = "audiostride"


def make_loggers(run: Path, names: Sequence[str]) -> list[Logger]:
    """The loggers of a run by name; each run of the command, a resumed one too, is a version of its own.

    Args:
        run: The run folder.
        names: ``csv``, ``tensorboard``, ``wandb``.

    Raises:
        InputError: A logger whose package is not installed.
    """
    folder = run / "logs"
    loggers: list[Logger] = []
    for name in names:
        try:
            if name == "csv":
                loggers.append(CSVLogger(folder, name="csv"))
            elif name == "tensorboard":
                loggers.append(TensorBoardLogger(folder, name="tensorboard"))
            else:
                loggers.append(WandbLogger(name=run.name, save_dir=folder, project=PROJECT))
        except ModuleNotFoundError as error:
            raise InputError(
                f"train: --logger {name} needs a package that is not installed; "
                f"pip install 'audiostride[{name}]', or log to csv ({error})"
            ) from error
    return loggers


@contextmanager
def closing_loggers(loggers: Sequence[Logger], settings: dict[str, Any]) -> Iterator[None]:
    """Let loggers know the settings at the start, and at the end how it ended."""
    for logger in loggers:
        logger.log_hyperparams(settings)
    status = "failed"
    try:
        yield
        status = "success"
    finally:
        for logger in loggers:
            logger.finalize(status)

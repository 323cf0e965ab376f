"""What records a training beside its own tables, in the run's folder ``logs``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.csv_logs import CSVLogger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from audiostride.errors import InputError

PROJECT = "audiostride"


def make_loggers(run: Path, names: Sequence[str]) -> list[Any]:
    """The loggers of a run by name; each run of the command, a resumed one too, is a version of its own.

    Args:
        run: The run folder.
        names: ``csv``, ``tensorboard``, ``wandb``.

    Raises:
        InputError: A logger whose package is not installed.
    """
    folder = run / "logs"
    loggers: list[Any] = []
    for name in names:
        try:
            if name == "csv":
                loggers.append(CSVLogger(folder, name="csv"))
            elif name == "tensorboard":
                loggers.append(TensorBoardLogger(folder, name="tensorboard"))
            else:
                loggers.append(WandbLogger(run.name, folder))
        except ModuleNotFoundError as error:
            raise InputError(
                f"train: --logger {name} needs a package that is not installed; "
                f"pip install 'audiostride[{name}]', or log to csv ({error})"
            ) from error
    return loggers


class WandbLogger:
    """Weights & Biases, for which Fabric has no logger."""

    def __init__(self, name: str, folder: Path) -> None:
        import wandb  # an extra

        self._wandb, self._name, self._folder = wandb, name, folder
        self._run: Any = None

    def log_hyperparams(self, settings: dict[str, Any]) -> None:
        """Begin a run with these settings: not before, as a training that is refused is none."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(project=PROJECT, name=self._name, dir=self._folder, config=settings)

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        """Record what a step gave."""
        self._run.log(values, step=step)

    def finalize(self, status: str) -> None:
        """End the run, as one that failed unless the status is ``success``."""
        self._run.finish(exit_code=int(status != "success"))


@contextmanager
def closing_loggers(loggers: Sequence[Any], settings: dict[str, Any]) -> Iterator[None]:
    """Let loggers know the settings at the start, and at the end how it ended."""
    for logger in loggers:
        if not isinstance(logger, CSVLogger):  # which takes none: they stand in config.yaml
            logger.log_hyperparams(settings)
    status = "failed"
    try:
        yield
        status = "success"
    finally:
        for logger in loggers:
            logger.finalize(status)

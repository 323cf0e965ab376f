"""The cells of a grid of starting strides, poolings and seeds: a training each, and what came of it."""

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from audiostride.errors import InputError
from audiostride.models import load_classifier, multiply_adds
from audiostride.reporting import report_run
from audiostride.training import TrainConfig, train
from audiostride.training.clips import class_names_of, read_source
from audiostride.training.results import finished_metrics
from audiostride.training.side_by_side import train_side_by_side
from lab.cost_points import strided_multiply_adds
from lab.data_stages import say
from lab.random_starts import AUDIO_BLOCKS, N_AUDIO_BLOCKS, Start, name_folder
from lab.run_stages import describe_setting, read_metrics


@dataclass(frozen=True)
class Cell:
    """One training."""

    start: Start
    """Starting strides, the same on both axes."""
    pooling: str
    """strided, spectral or diffstride."""
    seed: int
    """Of the run."""
    run: Path
    """Its folder."""


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """A trained and tested cell."""

    start: Start
    """As of the cell."""
    pooling: str
    """As of the cell."""
    seed: int
    """As of the cell."""
    accuracy: float
    """On the test clips or images, in [0, 1]."""
    multiply_adds: int
    """Of one window or image through the network that was tested."""
    relative: float
    """`multiply_adds` by those of strided convolution with the network's usual strides."""
    last_map: tuple[int, int] | None = None
    """Bins of the last map over both axes, where known."""
    final: Mapping[str, float] = field(default_factory=dict)
    """Learned strides of the network that was tested, by ``layer<number>_<axis>``; empty where strides are fixed."""
    strides: pd.DataFrame | None = field(default=None, compare=False)
    """Learned strides over the training: ``step`` and the columns of `final`."""
    history: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False)
    """``step`` and ``valid_accuracy``."""


def make_cells(folder: Path, starts: Sequence[Start], poolings: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """The whole grid, seed by seed, so that an early stop leaves whole tables.

    >>> [cell.run.name for cell in make_cells(Path(), [(2, 2, 3)], ["strided", "diffstride"], [0])]
    ['2-2-3_strided_seed0', '2-2-3_diffstride_seed0']
    """
    return [
        Cell(start, pooling, seed, folder / f"{name_folder(start)}_{pooling}_seed{seed}")
        for seed, start, pooling in product(seeds, starts, poolings)
    ]


def train_cells(cells: Iterable[Cell], learn: Callable[[Cell], dict[str, Any] | None]) -> dict[Cell, str]:
    """Train what is missing, one cell after another; one that fails does not end the others.

    Args:
        cells: What to train.
        learn: Trains a cell and returns its metrics; None where it stands already.

    Returns:
        The reasons of the cells that failed.

    Raises:
        KeyboardInterrupt: A training was stopped; its checkpoint stands.
    """
    failed: dict[Cell, str] = {}
    for cell in cells:
        try:
            metrics = learn(cell)
        except InputError as error:
            failed[cell] = str(error)
        except Exception as error:
            # Such as memory that ran out. A defect of ours needs its traceback, and the other cells go on all the same.
            traceback.print_exc()
            failed[cell] = f"{type(error).__name__}: {error}"
        else:
            if metrics is None:
                say("train", f"{cell.run} stands, skipped")
            elif metrics.get("stopped_early"):
                raise KeyboardInterrupt
            else:
                say("train", f"{cell.run}: test accuracy {100 * metrics['accuracy']:.1f} %")
            continue
        say("train", f"{cell.run} failed: {failed[cell]}")
    return failed


class AudioCells:
    """Cells that learn a manifest.

    Args:
        arch: resnet18, preact_resnet18, or audio, the paper's network of separable convolutions.
        manifest: CSV table, folder of class folders, or store.
        label: Its column with the labels.
        settings: Settings of `TrainConfig` that all cells share.
    """

    unit = "window"

    def __init__(self, arch: str, *, manifest: str, label: str, settings: Mapping[str, Any]) -> None:
        self.arch, self.manifest, self.label, self.settings = arch, manifest, label, settings

    def configure(self, cell: Cell) -> TrainConfig:
        """The settings of a cell.

        Raises:
            InputError: A value out of its range.
        """
        return TrainConfig(
            out=str(cell.run),
            manifest=self.manifest,
            label=self.label,
            pooling=cell.pooling,  # type: ignore[arg-type]  # checked there
            seed=cell.seed,
            **{**self.settings, **encoder_settings(self.arch, cell.start)},
        )

    def check(self, cell: Cell) -> None:
        """Raise what would fail in every cell: settings out of their range, no such manifest or label."""
        config = self.configure(cell)
        for source in config.sources():
            clips, _ = read_source(source, config)
            class_names_of(clips, source)

    def train(self, cells: Sequence[Cell], *, jobs: int = 1) -> dict[Cell, str]:
        """As `train_cells`, `jobs` at a time in processes of their own."""
        left = [cell for cell in cells if finished_metrics(cell.run) is None]
        if jobs == 1 or len(left) < 2:
            return train_cells(cells, self._learn)
        configs, failed = dict[int, TrainConfig](), dict[Cell, str]()
        for number, cell in enumerate(left):
            cell.run.parent.mkdir(parents=True, exist_ok=True)
            try:
                configs[number] = self.configure(cell)
            except InputError as error:
                failed[cell] = str(error)
        reasons = train_side_by_side(configs, jobs=jobs) if configs else {}
        failed |= {left[number]: reason for number, reason in reasons.items()}
        if any(finished_metrics(cell.run) is None for cell in left if cell not in failed):
            raise KeyboardInterrupt
        for cell, reason in failed.items():
            say("train", f"{cell.run} failed: {reason}")
        for cell in left:
            if cell not in failed:
                report_run(cell.run)
                say("train", f"{cell.run}: test accuracy {100 * read_metrics(cell.run)['accuracy']:.1f} %")
        return failed | train_cells([cell for cell in cells if cell not in left], self._learn)

    def _learn(self, cell: Cell) -> dict[str, Any] | None:
        begun, finished = (cell.run / "config.yaml").is_file(), finished_metrics(cell.run) is not None
        if begun and not finished:
            say("train", f"{cell.run} was stopped, goes on")
        metrics = train(self.configure(cell), resume=begun)
        report_run(cell.run)
        return None if finished else metrics

    def describe(self, cell: Cell) -> str:
        """What a finished cell has in common with the others, but for the grid."""
        return describe_setting(cell.run)

    def measure(self, cell: Cell, usual: Start) -> CellResult:
        """What a finished cell has come to.

        Args:
            cell: The cell.
            usual: Strides of the strided network to which costs are relative.
        """
        metrics, model = read_metrics(cell.run), load_classifier(cell.run)
        cost, strides = multiply_adds(model), encoder_settings(self.arch, usual)["strides"]
        return CellResult(
            start=cell.start,
            pooling=cell.pooling,
            seed=cell.seed,
            accuracy=metrics["accuracy"],
            multiply_adds=cost,
            relative=cost / strided_multiply_adds(replace(model.config, strides=strides)),
            last_map=model.encoder.map_sizes(model.config.window_frames, model.config.n_mels)[-1],
            **read_courses(cell.run, tested_step=metrics["best_step"]),
        )


def encoder_settings(arch: str, start: Start) -> dict[str, Any]:
    """Settings of `TrainConfig` for a network with these starting strides.

    >>> encoder_settings("audio", (1, 2, 2, 3))["strides"]
    [[1, 1], [2, 2], [1, 1], [2, 2], [1, 1], [3, 3]]
    """
    if arch != "audio":
        return {"encoder": arch, "strides": [[stride, stride] for stride in start]}
    strides: list[list[float]] = [[1, 1] for _ in range(N_AUDIO_BLOCKS)]
    for block, stride in zip(AUDIO_BLOCKS, start, strict=True):
        strides[block - 1] = [stride, stride]
    return {"encoder": "separable", "strides": strides}


def read_courses(run: Path, *, tested_step: int | None) -> dict[str, Any]:
    """The courses of a run: its history and learned strides, and those of the step whose model was tested.

    Args:
        run: The run folder.
        tested_step: Its step; None is the last one.
    """
    history, file = pd.read_csv(run / "history.csv"), run / "strides.csv"
    if not file.is_file():
        return {"history": history}
    strides = pd.read_csv(file)
    rows = strides if tested_step is None else strides[strides["step"] <= tested_step]
    final = rows.iloc[-1]
    layers = [str(name) for name in strides.columns if str(name).startswith("layer")]
    return {"history": history, "strides": strides, "final": {name: float(final[name]) for name in layers}}

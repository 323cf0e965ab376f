"""Predictions on many recordings with the engine of training: one process per device, a part of the table from each."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from tqdm import tqdm

from audiostride.data import load_batches
from audiostride.errors import InputError
from audiostride.evaluation import Recording, predict_file
from audiostride.models import AudioClassifier
from audiostride.processes import Processes
from audiostride.progress import progress_bar
from audiostride.training.quiet import without_advice


def part_file(out: Path, processes: Processes) -> Path:
    """Where a process writes its part of a table.

    >>> part_file(Path("predictions.csv"), Processes(rank=1, count=4)).name
    'predictions.part1of4.csv'
    """
    return out.with_name(f"{out.stem}.part{processes.rank}of{processes.count}{out.suffix}")


def write_predictions(
    model: AudioClassifier,
    files: Sequence[str | Path | Recording],
    out: Path,
    *,
    per_window: bool = False,
    stop_on_error: bool = False,
    device: torch.device | None = None,
    devices: int = 1,
    n_nodes: int = 1,
) -> int:
    """Classify recordings and write a table of them in their order, row by row, as CSV.

    With several processes each takes consecutive recordings and writes them to a `part_file` of its own, all on the
    device of its rank; when all have done so the first one joins the parts to `out`, which is the same as one process
    would have written. The parts stay.

    Args:
        model: The classifier.
        files: The recordings, the same list in every process.
        out: CSV file that is written, whole or not at all.
        per_window: One row per window instead of one per recording.
        stop_on_error: Whether a recording that cannot be read ends the job.
        device: What to compute on; None is where the model is.
        devices: Processes on each machine.
        n_nodes: Machines, which see the same folder of `out`.

    Returns:
        Number of recordings that were classified, by all processes; about others there is a message on stderr.

    Raises:
        InputError: A recording that cannot be read, if that ends the job; none at all can be read.
    """
    processes = Processes.of_environment(devices, n_nodes)
    first, last = (len(files) * rank // processes.count for rank in (processes.rank, processes.rank + 1))
    job = _Prediction(
        model,
        files[first:last],
        out if processes.count == 1 else part_file(out, processes),
        per_window=per_window,
        stop_on_error=stop_on_error,
        shown=processes.first,
    )
    if processes.count == 1:
        model.to(device or next(model.parameters()).device)
        with job:
            for number in range(len(job.files)):
                job.predict_step(number)
        n_done = job.n_done
    else:
        device = device or next(model.parameters()).device
        with without_advice():
            trainer = Trainer(
                accelerator="gpu" if device.type == "cuda" else "cpu",
                devices=devices,
                num_nodes=n_nodes,
                strategy=DDPStrategy(),
                use_distributed_sampler=False,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            with job:
                trainer.predict(job, load_batches(range(len(job.files))), return_predictions=False)
        n_done = int(processes.sum(torch.tensor(job.n_done)))  # which waits for all
        if processes.first and n_done:
            _join([part_file(out, Processes(rank, processes.count)) for rank in range(processes.count)], out)
        trainer.strategy.barrier()  # nobody leaves, or starts another job, before the table stands
    if n_done == 0:
        raise InputError(f"predict: none of {len(files)} files could be read; {out} was not written")
    return n_done


class _Prediction(LightningModule):
    """Classifies recordings one after another; a context in which the file is written."""

    def __init__(
        self,
        model: AudioClassifier,
        files: Sequence[str | Path | Recording],
        out: Path,
        *,
        per_window: bool,
        stop_on_error: bool,
        shown: bool,
    ) -> None:
        super().__init__()
        self.model, self.files, self.n_done = model, files, 0
        self._out, self._per_window, self._stop, self._shown = out, per_window, stop_on_error, shown
        self._partial = out.with_name(f"{out.name}.partial")

    def __enter__(self) -> "_Prediction":
        self._file = self._partial.open("w", encoding="utf-8", newline="")
        self._bar = progress_bar(total=len(self.files), desc="predicting", unit="file", disable=not self._shown)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._bar.close()
        self._file.close()
        if kind is None and self.n_done:
            os.replace(self._partial, self._out)
        else:
            self._partial.unlink(missing_ok=True)
            if kind is None:  # a part without rows, not that of an earlier job
                self._out.unlink(missing_ok=True)

    def predict_step(self, number: int) -> None:  # type: ignore[override]
        try:
            table = predict_file(self.model, self.files[number], per_window=self._per_window)
        except InputError as error:
            if self._stop:
                raise
            tqdm.write(str(error), file=sys.stderr)
        else:
            table.to_csv(self._file, index=False, header=self.n_done == 0, lineterminator="\n")
            self.n_done += 1
        self._bar.update(1)


def _join(parts: Sequence[Path], out: Path) -> None:
    """Join tables to one, whole or not at all; a process that could read none of its recordings has no part."""
    partial = out.with_name(f"{out.name}.partial")
    with partial.open("wb") as joined:
        for part in (part for part in parts if part.is_file()):
            with part.open("rb") as table:
                header = table.readline()
                if joined.tell() == 0:
                    joined.write(header)
                while block := table.read(2**20):
                    joined.write(block)
    os.replace(partial, out)

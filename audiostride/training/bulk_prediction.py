"""Predictions on many recordings in one process or, with the engine of training, in one process per device."""

from collections.abc import Sequence
from pathlib import Path

import torch

from audiostride.distributed import Processes
from audiostride.inference.granularity import PredictionSettings
from audiostride.inference.job import PredictionJob
from audiostride.inference.recordings import Recording
from audiostride.models import AudioClassifier


def write_predictions(
    model: AudioClassifier,
    files: Sequence[Recording],
    out: Path,
    *,
    format: str = "csv",
    settings: PredictionSettings | None = None,
    stop_on_error: bool = False,
    overwrite: bool = False,
    anew: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
    device: torch.device | None = None,
    devices: int = 1,
    n_nodes: int = 1,
) -> int:
    """Classify recordings and write a table of them in their order, whole or not at all.

    What is done is kept beside `out` in ``OUT.partial``, from where the same call goes on if it was stopped. With
    several processes each takes consecutive recordings, on the device of its rank; when all are done the first one
    makes the output, which is the same as one process would have written.

    Args:
        model: The classifier.
        files: The recordings, the same list in every process.
        out: Where the output goes.
        format: One of `audiostride.inference.formats.FORMATS`.
        settings: Where windows lie, and the granularity of the rows.
        stop_on_error: Whether a recording that cannot be read ends the job.
        overwrite: Whether an output that exists is replaced.
        anew: Whether what a stopped job has done is thrown away, and not taken up.
        batch_size: Windows at a time; None is 16 on a CPU and 256 on a GPU.
        workers: Threads of each process that read audio; None is one for each processor, 8 at most.
        device: What to compute on; None is where the model is.
        devices: Processes on each machine.
        n_nodes: Machines, which see the same folder of `out`.

    Returns:
        Number of recordings that were classified, by all processes, in the first one of them (0 in the others). The
        others are named on stderr and in ``<stem of out>.errors.csv``.

    Raises:
        InputError: A recording that cannot be read, if that ends the job; none at all can be read; an output that
            exists; a stopped job with other settings.
    """
    processes = Processes.of_environment(devices, n_nodes)
    device = device or next(model.parameters()).device
    job = PredictionJob(
        model,
        files,
        out,
        format,
        settings or PredictionSettings(),
        stop_on_error=stop_on_error,
        processes=processes,
        batch_size=batch_size,
        workers=workers,
    )
    if processes.first:
        job.begin(overwrite=overwrite, anew=anew)
    if processes.count == 1:
        model.to(device)
        job.work()
        return job.finish()
    # Lightning takes a second to load, which one process need not wait for.
    from audiostride.training.prediction_processes import work_together

    return work_together(job, device=device, devices=devices, n_nodes=n_nodes)

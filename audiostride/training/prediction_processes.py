"""A job of predictions in several processes, which Lightning starts and connects."""

from datetime import timedelta

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from audiostride.inference.job import PredictionJob
from audiostride.inference.window_batches import load_batches
from audiostride.training.quiet import without_advice

# Processes wait for the slowest at the end; a folder of long recordings is not shared out evenly.
PATIENCE = timedelta(days=7)


def work_together(job: PredictionJob, *, device: torch.device, devices: int, n_nodes: int) -> int:
    """Work on a job in all its processes and finish it in the first; the number of recordings that were read, there.

    Raises:
        InputError: As `PredictionJob.work` and `PredictionJob.finish`.
    """
    with without_advice():
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=devices,
            num_nodes=n_nodes,
            strategy=DDPStrategy(timeout=PATIENCE),
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.predict(_Work(job), load_batches(range(1)), return_predictions=False)
    n_read = job.processes.sum(torch.zeros(1))  # which waits for all
    n_done = job.finish() if job.processes.first else int(n_read)
    trainer.strategy.barrier()  # nobody leaves, or starts another job, before the table stands
    return n_done


class _Work(LightningModule):
    """One step in each process: all of its recordings."""

    def __init__(self, job: PredictionJob) -> None:
        super().__init__()
        self.model, self._job = job.model, job

    def predict_step(self, number: int) -> None:  # type: ignore[override]
        self._job.work()

"""Clips that were left out, or could no longer be read in the middle of a run: their list, ``skipped.csv``."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch.distributed as dist
from torch import Tensor

from audiostride.dataset.readers import AudioReader
from audiostride.distributed import Processes
from audiostride.training.clips import Sets
from audiostride.training.run_files import read_table
from audiostride.writing import write_text


def write_skipped(run: Path, sets: Sets, *, suffix: str = "") -> int:
    """List the clips that were left out or could no longer be read in ``skipped.csv``, if there are any.

    Args:
        run: The run folder.
        sets: The clips of each split; what the file says of other splits stays.
        suffix: Follows ``skipped`` in the name of the file.

    Returns:
        Their number.
    """
    file = run / f"skipped{suffix}.csv"
    others: list[tuple[str, int, str]] = []
    if file.is_file():
        columns, remove = ["split", "line", "reason"], "remove it: what this run leaves out is listed anew"
        listed = read_table("train", file, columns, numbers=["line"], advice=remove)
        others = list(listed[~listed["split"].isin(list(sets))].itertuples(index=False, name=None))
    rows: list[tuple[str, int, str]] = []
    for split, tasks in sets.items():
        for data in {id(data.reader): data for data in tasks.values()}.values():
            rows += [(split, line, reason) for line, reason in data.reader.skipped]
            lines = data.clips["line"].tolist()
            rows += [(split, lines[index], reason) for index, reason in sorted(data.reader.failed.items())]
    if others or rows:
        write_text(file, pd.DataFrame(others + rows, columns=["split", "line", "reason"]).to_csv(index=False))
    else:
        file.unlink(missing_ok=True)  # of a time before they were mended
    return len(rows)


def list_lost_clips(
    batches: Iterable[dict[str, Tensor]], readers: Sequence[AudioReader], write: Callable[[], object]
) -> Iterator[dict[str, Tensor]]:
    """Batches as they come, while training clips that can no longer be read are listed as soon as that shows.

    Args:
        batches: Batches of `TrainingBatches`, not on a device yet.
        readers: The training clips of each source; they come to know the reasons.
        write: Writes the list.
    """
    for batch in batches:
        if batch["failed"].numel():
            failed = batch["failed"].tolist()
            for source, clip in failed if batch["failed"].ndim == 2 else [(0, clip) for clip in failed]:
                # Worker processes read the batch; reading once more gives this process the reason.
                readers[source].read(clip, 0, 1)
            write()
        yield batch


def share_lost_clips(readers: Sequence[AudioReader], processes: Processes) -> None:
    """Let all processes know which clips the others could no longer read, so that the first one lists them."""
    if processes.count == 1:
        return
    found: list[Any] = [None] * processes.count
    dist.all_gather_object(found, [reader.failed for reader in readers])
    for failures in found:
        for reader, failed in zip(readers, failures, strict=True):
            reader.failed.update(failed)

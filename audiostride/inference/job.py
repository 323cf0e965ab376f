"""A job of predictions: many recordings into one table, whole or not at all, going on where it was stopped."""

import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from audiostride.distributed import Processes, needing_all
from audiostride.errors import InputError
from audiostride.inference.columns import columns_of
from audiostride.inference.cutting import MARGIN_S, cut_clips
from audiostride.inference.engine import predict_recordings
from audiostride.inference.formats import check_files, check_replaceable, open_table, write_rows
from audiostride.inference.granularity import rows_of
from audiostride.inference.journal import (
    Journal,
    Share,
    begin_job,
    describe_job,
    errors_file,
    partial_folder,
    replace_output,
)
from audiostride.inference.model import Model
from audiostride.inference.recordings import Recording, describe_unheard
from audiostride.inference.settings import PredictionSettings
from audiostride.inference.table import rows_to_table
from audiostride.progress import progress_bar
from audiostride.wording import count_of

ROWS_AT_ONCE = 20000

# Processes wait for the slowest at the end; a folder of long recordings is not shared out evenly.
PATIENCE = timedelta(days=7)


@dataclass
class PredictionJob:
    """Predictions on recordings, for a file or folder.

    What is done is kept beside the output in ``OUT.partial``, from where the same job goes on if it was stopped. Of
    several processes each takes consecutive recordings, on the device of its rank; when all are done the first one
    makes the output, which is the same as one process would have written.
    """

    model: Model
    """The classifier."""
    recordings: Sequence[Recording]
    """What is classified, the same in every process."""
    out: Path
    """The output; several machines see the same folder of it."""
    format: str
    """One of `audiostride.inference.formats.FORMATS`."""
    settings: PredictionSettings
    """Where windows lie, and the granularity of the rows."""
    stop_on_error: bool = False
    """Whether a recording that cannot be read ends the job."""
    devices: int = 1
    """Processes on each machine."""
    n_nodes: int = 1
    """Machines."""
    batch_size: int | None = None
    """Windows at a time; None is 16 on a CPU and 256 on a GPU."""
    workers: int | None = None
    """Threads of each process that read audio; None is one for each processor, 8 at most."""
    clips: Path | None = None
    """A folder that gets what was found as WAV files, see `audiostride.inference.cutting.cut_clips`."""
    margin_s: float = MARGIN_S
    """What these have before and behind, in seconds."""

    def __post_init__(self) -> None:
        stored = [recording.path for recording in self.recordings if recording.store]
        check_files(self.out, self.format, [recording.path for recording in self.recordings], stored)
        self.processes = Processes.of_environment(self.devices, self.n_nodes)
        self._job = describe_job(self.model, self.recordings, self.settings, processes=self.processes.count)
        self._folder = partial_folder(self.out)

    def run(self, device: torch.device, *, overwrite: bool = False, anew: bool = False) -> int:
        """Do the whole job, or what is left of it, in all its processes.

        Args:
            device: What to compute on.
            overwrite: Whether an output that exists is replaced.
            anew: Whether what a stopped job has done is thrown away, and not taken up.

        Returns:
            Number of recordings that were classified, by all processes. The others are named on stderr and in
            `errors_file`.

        Raises:
            InputError: As `begin`, `work` and `finish`.
        """
        if self.processes.first:
            self.begin(overwrite=overwrite, anew=anew)
        if self.processes.count == 1:
            self.model.to(device)
            self.work()
            return self.finish()
        # Fabric takes a second to load, which one process need not wait for.
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy

        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # no word from each process on its start
        strategy = DDPStrategy(timeout=PATIENCE)
        fabric = Fabric(accelerator=device.type, strategy=strategy, devices=self.devices, num_nodes=self.n_nodes)
        fabric.launch()
        self.model.to(fabric.device)
        with needing_all("predict", "what is done stays, and the same command goes on"):
            n_read = int(self.processes.sum(torch.tensor(self.work())))  # which waits for all
            if self.processes.first:
                self.finish()
            fabric.barrier()  # nobody leaves, or starts another job, before the table stands
        return n_read

    def begin(self, *, overwrite: bool = False, anew: bool = False) -> None:
        """Make the folder of the job, or take up what was done.

        Args:
            overwrite, anew: As for `run`.

        Raises:
            InputError: The output exists, or is a folder with other things; another job was stopped here; not writable.
        """
        if os.path.exists(self.out):
            if not overwrite:
                raise InputError(f"predict: {self.out} exists; choose another -o, or give --overwrite")
            check_replaceable(self.out, self.format)
        if self.clips is not None and self.clips.exists():
            raise InputError(f"predict: --clips must be a folder that is not there yet, got {self.clips}; name another")
        begin_job(self.out, self._job, anew=anew)

    def work(self) -> int:
        """Classify this process's recordings, from the first one that is not done; the number of those that were read.

        Raises:
            InputError: A recording that cannot be read, where that ends the job; nothing is kept then.
        """
        share, mine = self._share(self.processes.rank)
        with Journal(share) as journal:
            own = mine[journal.n_done :]
            if journal.n_lost:
                what = (
                    f"predict: {journal.path} was changed behind line {journal.n_done}: what the {journal.n_lost} lines"
                )
                print(self.settings.say(f"{what} there tell of is classified again"), file=sys.stderr)
            if self.processes.first and (journal.n_done or journal.begun):
                more = f", and {journal.begun['n_windows']} windows of the next one" if journal.begun else ""
                print(f"goes on with a job that was stopped: {journal.n_done} of {len(mine)} files are done{more}")
            bar = _FilesBar(len(mine), journal.n_done, shown=self.processes.first)
            found = predict_recordings(
                self.model, own, self.settings, batch_size=self.batch_size, workers=self.workers, watch=bar.hear,
                keep=journal.keep, begun=journal.begun,
            )  # fmt: skip
            try:
                for recording, prediction in zip(own, found, strict=True):
                    rows = rows_of(recording.path, prediction)
                    if not isinstance(rows, InputError):
                        journal.add(recording.path, rows=rows)
                    elif self.stop_on_error:
                        raise rows
                    else:
                        reason = self.settings.say(str(rows))
                        tqdm.write(reason, file=sys.stderr)
                        journal.add(recording.path, error=reason)
                    bar.count()
            except InputError:
                found.close()
                if self.processes.count == 1:
                    self.discard()
                raise
            finally:
                bar.close()
            if unheard := describe_unheard(own, self.model.config.sample_rate):
                print(self.settings.say(unheard), file=sys.stderr)
            return journal.n_read

    def _share(self, rank: int) -> tuple[Share, Sequence[Recording]]:
        """The journal and the recordings of a process."""
        count = self.processes.count
        first, last = (len(self.recordings) * each // count for each in (rank, rank + 1))
        own, tasks = self.recordings[first:last], self.model.config.tasks
        return Share(self._folder, Processes(rank, count), self._job, [each.path for each in own], tasks), own

    def _entries(self) -> Iterator[dict[str, Any]]:
        """What the journals say of all recordings, in order; `InputError` where one is not as its process left it."""
        for rank in range(self.processes.count):
            share, own = self._share(rank)
            left = len(own)
            for entry, _, _ in share.read():
                left -= 1
                yield entry
            if left:
                raise InputError(
                    f"predict: {share.journal} was changed meanwhile: {left} of its {len(own)} recordings are lost; "
                    "give the same command again, which classifies them"
                )

    def discard(self) -> None:
        """Remove what was done."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def finish(self) -> int:
        """Make the output from what all processes have done, and remove that; the number of recordings that were read.

        Raises:
            InputError: None could be read.
        """
        paths, errors = [], []
        for entry in self._entries():
            if "rows" in entry:
                paths.append(entry["path"])
            else:
                told = (entry["path"], entry["error"])  # names that are not UTF-8 are escaped
                errors.append([text.encode(errors="backslashreplace").decode() for text in told])
        companion = errors_file(self.out)
        if errors:
            made = self._folder / "errors.csv"
            with made.open("w", encoding="utf-8", newline="") as file:
                write_rows(file, pd.DataFrame(errors, columns=["path", "reason"]), header=True)
            replace_output(made, companion)
        else:
            companion.unlink(missing_ok=True)  # of an earlier job
        if not paths:
            self.discard()
            raise InputError(
                f"predict: none of {len(self.recordings)} files could be read, see {companion}; "
                f"{self.out} was not written"
            )
        result = self._folder / f"result{self.out.suffix}"
        if result.is_dir():  # of a process that was killed here
            shutil.rmtree(result)
        rows, n_rows = chain.from_iterable(_rows_of(entry) for entry in self._entries()), 0
        config = self.model.config
        columns = columns_of(config, self.settings)
        with open_table(result, self.format, config=config, columns=columns, paths=paths) as write:
            while block := list(islice(rows, ROWS_AT_ONCE)):
                write(rows_to_table(block, config, self.settings))
                n_rows += len(block)
        if n_rows == 0:
            text = "predict: nothing was found, the table is empty; a lower --threshold or --min-score finds more"
            print(self.settings.say(text), file=sys.stderr)
        if self.clips is not None:
            made = self._folder / "clips"
            shutil.rmtree(made, ignore_errors=True)  # of a process that was killed here
            several = len(config.tasks) > 1
            rows = chain.from_iterable(_rows_of(entry) for entry in self._entries())
            found = (
                (os.path.abspath(path), start_s, end_s, task if several else "", label, score)
                for path, (start_s, end_s, task, label, score) in rows
            )
            n_clips = cut_clips(found, made, margin_s=self.margin_s)
            self.clips.parent.mkdir(parents=True, exist_ok=True)
            replace_output(made, self.clips)
            print(f"{count_of(n_clips, 'clip')} -> {self.clips}")
        replace_output(result, self.out)
        self.discard()
        return len(paths)


def _rows_of(entry: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(entry["path"], row) for row in entry.get("rows", [])]


class _FilesBar:
    """A progress bar that counts files, with the hours of audio so far and how much faster than listening it goes."""

    def __init__(self, n_files: int, n_done: int, *, shown: bool) -> None:
        # miniters=0: a long recording moves the hours while the count of files stands.
        self._bar = progress_bar(
            total=n_files, initial=n_done, desc="predicting", unit="file", disable=not shown, miniters=0
        )
        self._start, self._audio_s = time.monotonic(), 0.0

    def hear(self, audio_s: float) -> None:
        """Some seconds of audio are done."""
        self._audio_s += audio_s
        speed = self._audio_s / max(time.monotonic() - self._start, 1e-3)
        self._bar.set_postfix_str(f"{self._audio_s / 3600:.2f} h of audio, {speed:,.0f} x real time", refresh=False)
        self._bar.update(0)

    def count(self) -> None:
        """A file is done."""
        self._bar.update(1)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()

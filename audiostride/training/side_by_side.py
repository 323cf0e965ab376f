"""Trainings in processes of their own, several at a time."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from audiostride.errors import BAD_INPUT, InputError
from audiostride.progress import progress_bar
from audiostride.training.config import TrainConfig

POLL_S = 0.1
ERROR_MARK = "\naudiostride: "
# What a process runs; the arguments of this one come along for the command in environment.json.
CODE = "from audiostride.training.side_by_side import train_from_arguments; train_from_arguments()"


def train_side_by_side(configs: dict[int, TrainConfig], *, jobs: int, progress: bool = True) -> dict[int, str]:
    """Train a run per seed, `jobs` at a time, each with its share of this process's threads.

    What a run prints goes into a file beside its folder, ``seed0.log``. Ctrl-C or SIGTERM stops all of them, each after
    its current step with validation and checkpoint; given twice, at once. A run whose parent is gone stops likewise.

    Args:
        configs: The settings of each seed.
        jobs: Processes at a time.
        progress: Whether a bar over the steps of all runs is shown.

    Returns:
        The messages of the runs that failed.
    """
    threads = max(1, torch.get_num_threads() // min(jobs, len(configs)))
    waiting, failed = deque(configs), dict[int, str]()
    running: dict[int, subprocess.Popen[bytes]] = {}
    told: dict[int, int] = {}
    bar = progress_bar(
        total=sum(config.max_steps for config in configs.values()),
        initial=sum(_steps_done(config) for config in configs.values()),
        desc=f"training {len(configs)} runs",
        unit="step",
        disable=not progress,
    )
    if progress:
        logs = ", ".join(str(_log_file(config)) for config in configs.values())
        print(
            f"training {len(configs)} runs, {jobs} at a time, {threads} threads each; what they say: {logs}", flush=True
        )
    with bar, _counting_signals() as signals, _ending(running):
        while running or (waiting and not signals):
            while waiting and len(running) < jobs and not signals:
                seed = waiting.popleft()
                running[seed] = _start(configs[seed], threads=threads)
            if signals and not told:
                tqdm.write("stopping all runs after this step; press Ctrl-C again to stop at once")
            for seed, process in list(running.items()):
                while told.get(seed, 0) < len(signals):
                    process.terminate()
                    told[seed] = told.get(seed, 0) + 1
                code = process.poll()
                if code is not None:
                    _close(running.pop(seed))
                    # One that was told to stop may end with any code: before its training nothing answers the signal.
                    if code == BAD_INPUT or (code and not signals):
                        failed[seed] = _failure(code, _log_file(configs[seed]))
            bar.update(sum(_steps_done(config) for config in configs.values()) - bar.n)
            time.sleep(POLL_S)
    return failed


def train_from_arguments() -> None:
    """Train as the process that `train_side_by_side` starts: settings and threads are the first argument."""
    sys.argv = sys.argv[1:]  # -c
    given = json.loads(sys.argv.pop(0))
    torch.set_num_threads(given["threads"])
    threading.Thread(target=_stop_without_parent, daemon=True).start()
    from audiostride.training.run import train

    config = TrainConfig(**given["settings"])
    try:
        train(config, resume=(Path(config.out) / "config.yaml").exists())
    except InputError as error:
        print(f"{ERROR_MARK}{error}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def _stop_without_parent() -> None:
    # The parent holds the other end of this pipe and never writes. Read as a bare descriptor: a buffer's lock, held by
    # this thread, would hang the processes that read audio when they are forked.
    if not os.read(0, 1):
        os.kill(os.getpid(), signal.SIGTERM)


def _start(config: TrainConfig, *, threads: int) -> subprocess.Popen[bytes]:
    given = json.dumps({"settings": config.to_dict(), "threads": threads})
    environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    # Modules come from where this process has its own; -P: never from a file of that name in the working directory.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    with _log_file(config).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", CODE, given, *sys.argv],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            # Ctrl-C in a terminal reaches every process of its session: here only this one, which passes it on once.
            start_new_session=True,
        )


def _log_file(config: TrainConfig) -> Path:
    # Beside the run folder, since a new run wants an empty one.
    return Path(f"{config.out}.log")


@contextmanager
def _counting_signals() -> Iterator[list[int]]:
    """The SIGINT and SIGTERM that have come, instead of what they do otherwise."""
    signals: list[int] = []
    try:
        before = {
            number: signal.signal(number, lambda number, frame: signals.append(number))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
    except ValueError:
        before = {}  # signals belong to the main thread; elsewhere the caller stops the training
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ending(running: dict[int, "subprocess.Popen[bytes]"]) -> Iterator[None]:
    """Whatever happens, leave no process behind."""
    try:
        yield
    finally:
        for process in running.values():
            process.kill()
            _close(process)


def _close(process: "subprocess.Popen[bytes]") -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.wait()


def _steps_done(config: TrainConfig) -> int:
    """Steps up to the last validation, from the last line of the history."""
    try:
        last = (Path(config.out) / "history.csv").read_text(encoding="utf-8").splitlines()[-1]
        return int(last.split(",")[0])
    except (OSError, ValueError, IndexError):
        return 0


def _failure(code: int, log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    if code == BAD_INPUT and ERROR_MARK in text:
        return text.rsplit(ERROR_MARK, 1)[-1].strip()
    cause = " (killed; often because memory ran out)" if code == -signal.SIGKILL else ""
    last = (text.strip().splitlines() or ["nothing"])[-1]
    return f"its process ended with code {code}{cause}; {log} ends with: {last}"

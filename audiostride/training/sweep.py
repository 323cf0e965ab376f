"""Many trainings, one after another or side by side: what is finished stays, what was stopped goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from audiostride.distributed import Processes
from audiostride.errors import BAD_INPUT, InputError
from audiostride.progress import progress_bar
from audiostride.training.results import finished_metrics
from audiostride.writing import make_folder

POLL_S = 0.1
MOST_LOGS = 3  # that are named
ERROR_MARK = "\naudiostride: "
# What a process runs; the arguments of this one come along for the command in environment.json.
CODE = "from audiostride.training.sweep import train_from_arguments; train_from_arguments()"


class RunSettings(Protocol):
    """What a sweep must know of a run: `TrainConfig` has it, and what recipes train."""

    out: str
    max_steps: Any
    devices: int
    num_nodes: int

    def to_dict(self) -> dict[str, Any]:
        """The settings as values that JSON knows, from which the class makes them again."""


Learn = Callable[..., dict[str, Any]]  # (settings, *, resume, progress) -> metrics.json, as `train`
End = Callable[[Path, str | None], None]  # called with a run that has ended, and why it failed if it did


class Stopped(KeyboardInterrupt):
    """A training was stopped after one of its steps; the same sweep goes on with it."""


def sweep(
    configs: Sequence[RunSettings],
    learn: Learn,
    *,
    jobs: int = 1,
    alone: bool = False,
    progress: bool = True,
    each: Callable[[Path, bool], None] | None = None,
) -> dict[Path, str]:
    """Train every run that is not finished; one that was stopped goes on, and one that fails does not end the others.

    A run is finished when its ``metrics.json`` stands. With processes of their own, what runs print goes into a file
    beside each folder, ``<run>.log``. Ctrl-C or SIGTERM stops the runs, each after its current step with validation and
    checkpoint; given twice, at once. A process whose parent is gone stops likewise.

    Args:
        configs: The settings of each run, whose folder is ``out``.
        learn: What trains a run, a function of a module, such as `train`.
        jobs: Runs at the same time, each in a process of its own with its share of this process's threads.
        alone: Whether runs have processes of their own though they follow one another, so that memory is theirs.
        progress: Whether it is shown how far they are.
        each: Called with the folder of each run as soon as it is finished, and with whether it was before.

    Returns:
        The reason of each run that failed, by its folder. Where several processes train a run together, the first
        failure is raised instead, since others may not have seen it.

    Raises:
        InputError: A finished run has other settings; nothing is trained then.
        Stopped: Before all runs were finished.
    """
    failed: dict[Path, str] = {}
    together = Processes.of_environment(configs[0].devices, configs[0].num_nodes) if configs else Processes()
    progress = progress and together.first
    tell = each if each is not None and together.first else lambda run, stood: None

    def end(run: Path, reason: str | None) -> None:
        if reason is None:
            tell(run, False)
            return
        failed[run] = reason
        if together.count > 1:
            raise InputError(reason)
        if progress:
            tqdm.write(f"{run} failed: {reason}")

    finished = {config.out for config in configs if finished_metrics(Path(config.out)) is not None}
    for config in configs:
        if config.out in finished:
            try:
                learn(config, resume=True, progress=False)
            except InputError as error:
                failed[Path(config.out)] = str(error)
    if failed:
        raise InputError(describe_failures(failed, n_runs=len(configs)))
    for config in configs:
        if config.out in finished:
            tell(Path(config.out), True)
    left = [config for config in configs if config.out not in finished]
    if alone or (jobs > 1 and len(left) > 1):
        _train_in_processes(left, learn, jobs=jobs, progress=progress, end=end)
    else:
        _train_in_turn(left, learn, progress=progress, end=end)
    return failed


def describe_failures(failed: dict[Path, str], *, n_runs: int) -> str:
    """The message about runs that failed; a reason that several have in common is said once."""
    alike: dict[str, list[str]] = {}
    for run, reason in failed.items():
        alike.setdefault(reason.replace(str(run), "its folder"), []).append(run.name)
    lines = [f"{', '.join(sorted(names))}: {reason}" for reason, names in alike.items()]
    return "\n".join([f"{len(failed)} of {n_runs} runs failed; mend this and give the same command again", *lines])


def train_from_arguments() -> None:
    """Train as a process of a sweep: threads, function, class of the settings and their values are one argument."""
    sys.argv = sys.argv[1:]  # -c
    given = json.loads(sys.argv.pop(0))
    torch.set_num_threads(given["threads"])
    threading.Thread(target=_stop_without_parent, daemon=True).start()
    learn, settings = (getattr(import_module(module), name) for module, name in (given["learn"], given["class"]))
    config = settings(**given["settings"])
    try:
        learn(config, resume=(Path(config.out) / "config.yaml").exists(), progress=True)
    except InputError as error:
        print(f"{ERROR_MARK}{error}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def _train_in_turn(configs: Sequence[RunSettings], learn: Learn, *, progress: bool, end: End) -> None:
    """Train in this process."""
    for number, config in enumerate(configs, start=1):
        run, reason = Path(config.out), None
        if progress:
            print(f"{run.name} ({number} of {len(configs)})", flush=True)
        try:
            if learn(config, resume=(run / "config.yaml").exists(), progress=progress)["stopped_early"]:
                raise Stopped
        except InputError as error:
            reason = str(error)
        except Exception as error:
            # Such as memory that ran out. A defect of ours needs its traceback, and the other runs go on all the same.
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"
        end(run, reason)


def _train_in_processes(configs: Sequence[RunSettings], learn: Learn, *, jobs: int, progress: bool, end: End) -> None:
    """Train in processes of their own, `jobs` at a time."""
    threads = max(1, torch.get_num_threads() // max(1, min(jobs, len(configs))))
    waiting, told = deque(configs), dict[Path, int]()
    running: dict[Path, subprocess.Popen[bytes]] = {}
    ended: set[Path] = set()
    lengths = [config.max_steps for config in configs]  # None where they follow from the number of clips
    bar = progress_bar(
        total=None if None in lengths else sum(lengths),
        initial=sum(_steps_done(config) for config in configs),
        desc=f"training {len(configs)} runs",
        unit="step",
        disable=not progress,
    )
    if progress:
        logs = [str(_log_file(Path(config.out))) for config in configs]
        more = f" and {len(logs) - MOST_LOGS:,} more beside their runs" if len(logs) > MOST_LOGS else ""
        print(
            f"training {len(configs)} runs, {jobs} at a time, {threads} threads each; what they say: "
            f"{', '.join(logs[:MOST_LOGS])}{more}",
            flush=True,
        )
    with bar, _counting_signals() as signals, _ending(running):
        while running or (waiting and not signals):
            while waiting and len(running) < jobs and not signals:
                config = waiting.popleft()
                running[Path(config.out)] = _start(config, learn, threads=threads)
            if signals and not told:
                tqdm.write("stopping all runs after this step; press Ctrl-C again to stop at once")
            for run, process in list(running.items()):
                while told.get(run, 0) < len(signals):
                    process.terminate()
                    told[run] = told.get(run, 0) + 1
                code = process.poll()
                if code is None:
                    continue
                _close(running.pop(run))
                # One that was told to stop may end with any code: before its training nothing answers the signal.
                if code == BAD_INPUT or (code and not signals):
                    ended.add(run)
                    end(run, _failure(code, _log_file(run)))
                elif finished_metrics(run) is not None:
                    ended.add(run)
                    end(run, None)
            bar.set_description(f"training {len(configs)} runs, {len(ended)} ended", refresh=False)
            bar.update(sum(_steps_done(config) for config in configs) - bar.n)
            time.sleep(POLL_S)
    if len(ended) < len(configs):
        raise Stopped


def _stop_without_parent() -> None:
    # The parent holds the other end of this pipe and never writes. Read as a bare descriptor: a buffer's lock, held by
    # this thread, would hang the processes that read audio when they are forked.
    if not os.read(0, 1):
        os.kill(os.getpid(), signal.SIGTERM)


def _start(config: RunSettings, learn: Learn, *, threads: int) -> "subprocess.Popen[bytes]":
    named: dict[str, Any] = {"learn": learn, "class": type(config)}
    places = {key: (found.__module__, found.__qualname__) for key, found in named.items()}
    given = json.dumps({"settings": config.to_dict(), "threads": threads, **places})
    environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    # Modules come from where this process has its own; -P: never from a file of that name in the working directory.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    log = _log_file(Path(config.out))
    make_folder(log.parent)
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", CODE, given, *sys.argv],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            # Ctrl-C in a terminal reaches every process of its session: here only this one, which passes it on once.
            start_new_session=True,
        )


def _log_file(run: Path) -> Path:
    # Beside the run folder, since a new run wants an empty one.
    return run.with_name(f"{run.name}.log")


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
def _ending(running: dict[Path, "subprocess.Popen[bytes]"]) -> Iterator[None]:
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


def _steps_done(config: RunSettings) -> int:
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

"""Test results from run folders, each under the name of its task and the scheme of its split."""

import glob
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiostride.dataset.importers import SCHEMES
from audiostride.errors import InputError
from audiostride.training import TrainConfig
from audiostride.training.resuming import RESUMABLE_CHANGES
from lab.paper import COLUMNS

OWN = "own"  # the split scheme of data that no importer has split

# Settings in which runs of one cell of a table may differ: the seed, and what does not change what is learned. Tasks
# and manifests are compared apart from them.
FREE = ("seed", "manifest", "label", "task", *RESUMABLE_CHANGES)


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """The test result of one task of one run."""

    task: str
    """Row of the table: the paper's name of the task where it is known, else that of the run."""
    scheme: str
    """Split scheme: official, paper-like or own."""
    together: tuple[str, ...]
    """Rows of all tasks of the run, in alphabetical order."""
    pooling: str
    """strided, spectral or diffstride."""
    accuracy: float
    """Of the test clips, in [0, 1]."""
    seed: int
    """Of the run."""
    run: Path
    """The run folder."""
    settings: Mapping[str, Any]
    """What runs of one cell must have in common."""

    @property
    def multi(self) -> bool:
        """Whether the run has several tasks."""
        return len(self.together) > 1


def find_runs(given: Sequence[str]) -> list[Path]:
    """Run folders among paths and patterns, in the order given; a folder that is none stands for all runs below it.

    Raises:
        InputError: Nothing there, or no run below it.
    """
    found: dict[Path, None] = {}
    for text in given:
        paths = [Path(text)] if Path(text).exists() else [Path(path) for path in sorted(glob.glob(text))]
        runs = [run for path in paths for run in _runs_below(path)]
        # A shell's pattern also gives the pages that lie beside runs.
        if not runs and not Path(text).is_file():
            raise InputError(f"runs: RUN must be a run folder, a folder of some, or a pattern for them, got {text}")
        found |= dict.fromkeys(runs)
    if not found:
        raise InputError(f"runs: RUN must be at least one run folder, got only files: {', '.join(given)}")
    return list(found)


def _runs_below(path: Path) -> list[Path]:
    if (path / "config.yaml").is_file():
        return [path]
    return sorted(file.parent for file in path.rglob("config.yaml"))


def read_results(runs: Sequence[Path], *, names: Mapping[str, str] | None = None) -> tuple[list[TaskResult], list[str]]:
    """The results of all tasks of runs.

    Data that an importer has made are known by their ``imported.json``, beside the manifest. Other tasks are named by
    their run, with the same name for the same column of the same manifest.

    Args:
        runs: Run folders.
        names: Rows for tasks, by ``TASK`` or ``FOLDER:TASK``, FOLDER being any folder above the manifest, or its name
            without suffix.

    Returns:
        The results, and a line for each run that was left out because it has not been tested yet.

    Raises:
        InputError: Not a run folder; a name that fits no task.
    """
    names, left_out, results = dict(names or {}), [], []
    configs: dict[Path, TrainConfig] = {}
    metrics: dict[Path, dict[str, Any]] = {}
    for run in runs:
        config, file = TrainConfig.load(run), run / "metrics.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        if found is None or found["stopped_early"]:
            left_out.append(f"{run} is left out: it has not been trained and tested to its end")
            continue
        configs[run], metrics[run] = config, found
    rows = _name_rows(list(configs.values()), names)
    for run, config in configs.items():
        accuracies = {task: found["accuracy"] for task, found in metrics[run].get("tasks", {}).items()}
        accuracies = accuracies or {config.tasks()[0]: metrics[run]["accuracy"]}
        kept = {name: value for name, value in config.to_dict().items() if name not in FREE}
        own = {task: rows[manifest, column] for task, manifest, column in columns_of(config)}
        places = {task: manifest for task, manifest, _ in columns_of(config)}
        if len(set(own.values())) < len(own):
            raise InputError(f"runs: names must give the tasks of a run different rows, but {run} has {own}")
        results += [
            TaskResult(
                task=own[task],
                scheme=OWN if config.random_split is not None else scheme_of(places[task]),
                together=tuple(sorted(own.values())),
                pooling=config.pooling,
                accuracy=accuracy,
                seed=config.seed,
                run=run,
                settings=kept,
            )
            for task, accuracy in accuracies.items()
        ]
    _check_different(rows)
    return results, left_out


def columns_of(config: TrainConfig) -> list[tuple[str, str, str]]:
    """Name, manifest and column of each task of a run."""
    return [(task, source.manifest, column) for source in config.sources() for task, column in source.labels.items()]


def read_origin(manifest: str) -> dict[str, Any]:
    """What an importer has written about the data of a manifest or store; empty where none has."""
    file = Path(manifest).parent / "imported.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def scheme_of(manifest: str) -> str:
    """The split scheme of a manifest or store: what its importer has noted, else how its folder ends, else own.

    >>> scheme_of("data/nsynth-paper-like/store"), scheme_of("data/clips.csv")
    ('paper-like', 'own')
    """
    noted = read_origin(manifest).get("splits")
    if noted is not None:
        return str(noted)
    folder = Path(manifest).parent.name
    return next((scheme for scheme in SCHEMES if folder == scheme or folder.endswith(f"-{scheme}")), OWN)


def _name_rows(configs: Sequence[TrainConfig], names: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """The row of each column of each manifest."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for config in sorted(configs, key=lambda config: config.task is None):  # given names before names of columns
        for task, manifest, column in columns_of(config):
            tasks.setdefault((manifest, column), []).append(task)
    rows, used = {}, set()
    known = {place: task for task, place in COLUMNS.items()}
    for (manifest, column), called in tasks.items():
        keys = [*called, *(f"{part}:{task}" for part in _places(manifest) for task in called)]
        fitting = [key for key in names if key in keys]
        used |= set(fitting)
        # The longer key says more.
        given = names[max(fitting, key=len)] if fitting else None
        rows[manifest, column] = given or known.get((read_origin(manifest).get("data", ""), column)) or called[0]
    unused = [key for key in names if key not in used]
    if unused:
        found = ", ".join(sorted({task for called in tasks.values() for task in called}))
        raise InputError(f"runs: names must be for tasks of these runs ({found}), got {', '.join(unused)}")
    return rows


def _check_different(rows: Mapping[tuple[str, str], str]) -> None:
    """Raise where data of different manifests would be averaged because their columns have the same name."""
    for row in set(rows.values()):
        # The schemes of a data set are rows of their own, and a store may lie in several places.
        origins = {
            (origin.get("data", manifest), column)
            for (manifest, column), name in rows.items()
            if name == row
            for origin in [read_origin(manifest)]
        }
        if len(origins) > 1:
            listed = "\n".join(f"  {place}:{column}" for place, column in sorted(origins))
            raise InputError(
                f"runs: tasks of one name must be of the same data, but {row!r} is each of\n{listed}\n"
                "give them names of their own, --names FOLDER:TASK=NAME, with a folder that only one of them is in"
            )


def _places(manifest: str) -> list[str]:
    path = Path(manifest)
    return [path.stem, *path.parts]

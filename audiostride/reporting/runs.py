"""Run folders as a report reads them, and how runs are put into groups."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from audiostride.errors import InputError
from audiostride.models import AudioClassifier, load_classifier
from audiostride.reporting.cutoffs import cutoff_table, summarise_cutoffs

# Settings that make runs of one pooling and task something else than repetitions of each other. Seeds and starting
# strides do not: the spread over them is what a report of several runs shows.
TELLING = ("width", "channels", "shared_strides", "ramp_bins", "pool_after", "max_steps", "batch_size", "lr",
           "stride_lr", "stride_cost")  # fmt: skip


@dataclass(frozen=True)
class RunFolder:
    """What a run has left on disk."""

    name: str
    variant: str
    path: Path
    model: AudioClassifier
    config: dict[str, Any]
    metrics: dict[str, Any]
    environment: dict[str, Any]
    history: pd.DataFrame
    strides: pd.DataFrame | None
    cutoffs: pd.DataFrame
    tables: dict[str, tuple[pd.DataFrame, pd.DataFrame]]
    """Confusion matrix and per-class table of each task that has been tested."""
    predictions: dict[str, pd.DataFrame] = field(default_factory=dict)
    """Test clips of each task with the probability of each class, where the run has them."""

    @property
    def tasks(self) -> dict[str, list[str]]:
        """Class names of each task."""
        return self.model.config.tasks

    @property
    def manifests(self) -> dict[str, str]:
        """The manifest of each task."""
        entries: list[str] | None = self.config.get("task")
        if not entries:
            return {task: str(self.config.get("manifest")) for task in self.tasks}
        return {task: rest.rpartition(":")[0] for task, _, rest in (entry.partition("=") for entry in entries)}

    @property
    def source(self) -> str:
        """Where its clips come from."""
        return ", ".join(dict.fromkeys(self.manifests.values()))

    def metrics_of(self, task: str) -> dict[str, Any]:
        """The test metrics of a task; empty before the test."""
        found: dict[str, Any] = self.metrics.get("tasks", {task: self.metrics}).get(task, {})
        return found


def read_run(path: str | Path) -> RunFolder:
    """Everything that a report needs from a run folder; a run without test results yet has empty metrics.

    Raises:
        InputError: Not a run folder; a file in it that is damaged.
    """
    path = Path(path)
    if not (path / "config.yaml").is_file() or not (path / "history.csv").is_file():
        raise InputError(
            f"report: {path} must be a run folder with config.yaml and history.csv; "
            "'audiostride train' writes one, and its history from the first validation on"
        )
    model = load_classifier(path)

    def read(name: str, reader: Callable[[Path], Any]) -> Any:
        try:
            return reader(path / name) if (path / name).is_file() else None
        except (ValueError, KeyError, IndexError, yaml.YAMLError, OSError) as error:
            raise InputError(
                f"report: {path / name} must be as the run wrote it, but reading it failed: {error}; "
                f"'audiostride evaluate {path}' writes results anew"
            ) from error

    suffix = "_{}" if len(model.config.tasks) > 1 else ""
    pooling, size, encoder = model.config.pooling, model.config.size, model.config.encoder
    tables, predictions = {}, {}
    for task, names in model.config.tasks.items():
        own = suffix.format(task)
        confusion = read(f"confusion_matrix{own}.csv", partial(_read_confusion, names=names))
        per_class = read(f"per_class{own}.csv", partial(_read_per_class, names=names))
        if confusion is not None and per_class is not None:
            tables[task] = (confusion, per_class)
        found = read(f"predictions_test{own}.csv", partial(_read_predictions, names=names))
        if found is not None:
            predictions[task] = found
    return RunFolder(
        name=path.name or str(path.resolve().name),
        variant=f"{encoder} " * (encoder != "separable")
        + (f"{pooling} {size}" if pooling == "diffstride" else pooling),
        path=path,
        model=model,
        config=read("config.yaml", lambda file: yaml.safe_load(file.read_text(encoding="utf-8"))),
        metrics=read("metrics.json", lambda file: json.loads(file.read_text(encoding="utf-8"))) or {},
        environment=read("environment.json", lambda file: json.loads(file.read_text(encoding="utf-8"))) or {},
        history=read("history.csv", pd.read_csv),
        strides=read("strides.csv", pd.read_csv),
        cutoffs=cutoff_table(model, window_s=model.config.window_s),
        tables=tables,
        predictions=predictions,
    )


def _read_per_class(file: Path, names: list[str]) -> pd.DataFrame:
    return pd.read_csv(file).assign(**{"class": names})


def _read_confusion(file: Path, names: list[str]) -> pd.DataFrame:
    counts = pd.read_csv(file, index_col=0)
    # The names are the model's: read from a table, a class "007" would be 7 and a class "nan" missing.
    return pd.DataFrame(counts.to_numpy(dtype=int), index=pd.Index(names, name="true"), columns=names)


def _read_predictions(file: Path, names: list[str]) -> pd.DataFrame:
    text = {"path": str, "true": str, "predicted": str}
    table = pd.read_csv(file, dtype=text, keep_default_na=False, na_values={"duration_s": [""]})
    missing = [name for name in ["line", "path", "start_s", "duration_s", *text, *class_columns(names)]
               if name not in table.columns]  # fmt: skip
    if missing or not set(table["true"]) <= set(names):
        raise ValueError(f"its columns or labels are not those of the model ({', '.join(missing) or 'labels'})")
    return table


def class_columns(names: Sequence[str]) -> list[str]:
    """Columns of the predictions with the probability of each class."""
    return [f"p:{name}" for name in names]


def name_groups(folders: Sequence[RunFolder]) -> list[str]:
    """The name of each run's group: runs that differ in their seeds and starting strides only share one."""
    of_tasks = len({tuple(folder.tasks) for folder in folders}) > 1
    of_variants = len({folder.variant for folder in folders}) > 1 or not of_tasks
    keys = [[", ".join(folder.tasks)] * of_tasks + [folder.variant] * of_variants for folder in folders]
    marks = [[_name_source(folder) for folder in folders]]
    marks += [[f"{name.replace('_', ' ')} {folder.config.get(name)}" for folder in folders] for name in TELLING]
    for values in marks:
        # Only where it tells runs apart that would share a group.
        seen: dict[tuple[str, ...], set[str]] = {}
        for key, value in zip(keys, values, strict=True):
            seen.setdefault(tuple(key), set()).add(value)
        mixed = {key for key, found in seen.items() if len(found) > 1}
        keys = [[*key, value] if tuple(key) in mixed else key for key, value in zip(keys, values, strict=True)]
    return [", ".join(key) for key in keys]


def _name_source(folder: RunFolder) -> str:
    manifests = [Path(manifest) for manifest in dict.fromkeys(folder.manifests.values())]
    return " ".join(f"{manifest.parent.name}/{manifest.stem}" for manifest in manifests)


def with_distinct_names(folders: Sequence[RunFolder]) -> list[RunFolder]:
    """The runs, those in different folders of the same name being called by the folder around them too."""
    places: dict[str, set[Path]] = {}
    for folder in folders:
        places.setdefault(folder.name, set()).add(folder.path.resolve())
    return [
        replace(folder, name=f"{folder.path.resolve().parent.name}/{folder.name}")
        if len(places[folder.name]) > 1
        else folder
        for folder in folders
    ]


def group_runs(folders: Sequence[RunFolder]) -> dict[str, list[RunFolder]]:
    """The runs of each group."""
    groups: dict[str, list[RunFolder]] = {}
    for name, folder in zip(name_groups(folders), folders, strict=True):
        groups.setdefault(name, []).append(folder)
    return groups


def summarise_runs(folders: Sequence[RunFolder]) -> pd.DataFrame:
    """The cut-offs of runs: mean and standard deviation over those of the same group, per layer and axis."""
    return summarise_cutoffs(
        [folder.cutoffs.assign(pooling=name) for name, folder in zip(name_groups(folders), folders, strict=True)]
    )

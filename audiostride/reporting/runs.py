"""Run folders as a report reads them, and how runs are put into groups."""

import json
from collections import Counter
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
    strides: pd.DataFrame | None  # over the training, where they are learned
    cutoffs: pd.DataFrame
    tables: dict[str, tuple[pd.DataFrame, pd.DataFrame]]  # confusion matrix and classes of each task that was tested
    predictions: dict[str, pd.DataFrame] = field(default_factory=dict)  # of the test clips of each task, if written
    group: str = ""  # shared by runs that differ in their seeds and starting strides only; see `name_runs`

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

    @property
    def n_steps(self) -> int:
        """Steps of its training."""
        return int(self.history["step"].iloc[-1])

    @property
    def n_parameters(self) -> int:
        """Parameters of its model."""
        return sum(weights.numel() for weights in self.model.parameters())

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

    config = model.config
    tables, predictions = {}, {}
    for task, names in config.tasks.items():
        suffix = f"_{task}" if len(config.tasks) > 1 else ""
        confusion = read(f"confusion_matrix{suffix}.csv", partial(_read_confusion, names=names))
        per_class = read(f"per_class{suffix}.csv", partial(_read_per_class, names=names))
        if confusion is not None and per_class is not None:
            tables[task] = (confusion, per_class)
        found = read(f"predictions_test{suffix}.csv", partial(_read_predictions, names=names))
        if found is not None:
            predictions[task] = found
    encoder = "" if config.encoder == "separable" else f"{config.encoder} "
    return RunFolder(
        name=path.name or str(path.resolve().name),
        variant=encoder + config.pooling + (f" {config.size}" if config.pooling == "diffstride" else ""),
        path=path,
        model=model,
        config=read("config.yaml", lambda file: yaml.safe_load(file.read_text(encoding="utf-8"))),
        metrics=read("metrics.json", _read_json) or {},
        environment=read("environment.json", _read_json) or {},
        history=read("history.csv", pd.read_csv),
        strides=read("strides.csv", pd.read_csv) if config.pooling == "diffstride" else None,
        cutoffs=cutoff_table(model, window_s=config.window_s),
        tables=tables,
        predictions=predictions,
    )


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _read_per_class(file: Path, names: list[str]) -> pd.DataFrame:
    return pd.read_csv(file).assign(**{"class": names})


def _read_confusion(file: Path, names: list[str]) -> pd.DataFrame:
    counts = pd.read_csv(file, index_col=0)
    # The names are the model's: read from a table, a class "007" would be 7 and a class "nan" missing.
    return pd.DataFrame(counts.to_numpy(dtype=int), index=pd.Index(names, name="true"), columns=names)


def _read_predictions(file: Path, names: list[str]) -> pd.DataFrame:
    text = {"path": str, "true": str, "predicted": str}
    table = pd.read_csv(file, dtype=text, keep_default_na=False, na_values={"duration_s": [""]})
    wanted = ["line", "path", "start_s", "duration_s", *text, *class_columns(names)]
    missing = [name for name in wanted if name not in table.columns]
    if missing or not set(table["true"]) <= set(names):
        raise ValueError(f"its columns or labels are not those of the model ({', '.join(missing) or 'labels'})")
    return table


def class_columns(names: Sequence[str]) -> list[str]:
    """Columns of the predictions with the probability of each class."""
    return [f"p:{name}" for name in names]


def name_runs(folders: Sequence[RunFolder]) -> list[RunFolder]:
    """The runs with their groups; those in different folders of one name are called by the folder around them too."""
    of_tasks = len({tuple(folder.tasks) for folder in folders}) > 1
    of_variants = len({folder.variant for folder in folders}) > 1 or not of_tasks
    keys = [(", ".join(folder.tasks),) * of_tasks + (folder.variant,) * of_variants for folder in folders]
    marks = [[_name_source(folder) for folder in folders]]
    marks += [[f"{name.replace('_', ' ')} {folder.config.get(name)}" for folder in folders] for name in TELLING]
    for values in marks:
        # Only where it tells runs apart that would share a group.
        pairs = list(zip(keys, values, strict=True))
        shared = Counter(key for key, _ in {*pairs})
        keys = [(*key, value) if shared[key] > 1 else key for key, value in pairs]
    used = Counter(name for name, _ in {(folder.name, folder.path.resolve()) for folder in folders})
    return [
        replace(
            folder,
            name=f"{folder.path.resolve().parent.name}/{folder.name}" if used[folder.name] > 1 else folder.name,
            group=", ".join(key),
        )
        for folder, key in zip(folders, keys, strict=True)
    ]


def _name_source(folder: RunFolder) -> str:
    manifests = map(Path, dict.fromkeys(folder.manifests.values()))
    return " ".join(f"{manifest.parent.name}/{manifest.stem}" for manifest in manifests)


def group_runs(folders: Sequence[RunFolder]) -> dict[str, list[RunFolder]]:
    """The runs of each group."""
    groups: dict[str, list[RunFolder]] = {}
    for folder in folders:
        groups.setdefault(folder.group, []).append(folder)
    return groups


def summarise_runs(folders: Sequence[RunFolder]) -> pd.DataFrame:
    """The cut-offs of runs: mean and standard deviation over those of the same group, per layer and axis."""
    return summarise_cutoffs([folder.cutoffs.assign(pooling=folder.group) for folder in folders])

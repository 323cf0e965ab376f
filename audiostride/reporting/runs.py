"""Run folders as a report reads them, and how runs are put into groups."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd
from pandas.api.types import is_numeric_dtype

from audiostride.checks import WholeNumber, check_table, read_json
from audiostride.dataset.labels import separate_labels
from audiostride.errors import InputError
from audiostride.models import AudioClassifier, load_classifier
from audiostride.reporting.cutoffs import cutoff_table, summarise_cutoffs
from audiostride.training.run_files import Environment, read_metrics, read_table, read_yaml, reading_table

# Settings that make runs of one pooling and task something else than repetitions of each other. Seeds and starting
# strides do not: the spread over them is what a report of several runs shows.
TELLING = ("width", "channels", "shared_strides", "ramp_bins", "pool_after", "max_steps", "batch_size", "lr",
           "stride_lr", "stride_cost")  # fmt: skip

MOST_PARTS = 6  # tasks of runs whose classes and sounds a page shows; a run of more has a page of its own
HISTORY = ("step", "train_loss", "valid_loss", "valid_accuracy")  # columns that a report shows


class Settings(TypedDict, total=False):
    """What of ``config.yaml`` a report looks into; the rest is shown as it is."""

    task: list[str] | None
    manifest: str | None
    seed: WholeNumber | None
    random_split: WholeNumber | None
    hold_out: float | None


class AlarmClass(TypedDict):
    """What a class may have of alarms, in ``metrics_alarms.json``."""

    threshold: float | None
    alarms: int | None
    recall: float | None


class AlarmMetrics(TypedDict):
    """What ``metrics_alarms.json`` holds."""

    recordings: int
    hours: float
    alarms_per_hour: float
    tasks: dict[str, dict[str, AlarmClass]]


@dataclass(frozen=True)
class Alarms:
    """False alarms of a run, by class and threshold."""

    metrics: AlarmMetrics
    table: pd.DataFrame


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
    # Confusion matrix, none of several labels, and classes of each task that was tested.
    tables: dict[str, tuple[pd.DataFrame | None, pd.DataFrame]]
    predictions: dict[str, pd.DataFrame] = field(default_factory=dict)  # of the test clips of each task, if written
    alarms: "Alarms | None" = None  # of `audiostride evaluate --negatives`
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

    def title_of(self, task: str) -> str:
        """What a task is called where people read."""
        return title_of(task, self.manifests[task])

    def is_multi_label(self, task: str) -> bool:
        """Whether clips have several labels of a task."""
        return task in self.model.config.multi_label

    def metrics_of(self, task: str) -> dict[str, Any]:
        """The test metrics of a task; empty before the test."""
        found: dict[str, Any] = self.metrics.get("tasks", {task: self.metrics}).get(task, {})
        return found


def title_of(task: str, source: str) -> str:
    """What a task is called in a headline: its name, or that of its data where it is called after a column ``label``.

    >>> title_of("label", "data/birds/manifest.csv"), title_of("species", "birds.csv")
    ('birds', 'species')
    """
    file = Path(source)
    return task if task != "label" else file.parent.name if file.stem == "manifest" and file.parent.name else file.stem


def shown_runs(groups: Mapping[str, Sequence[RunFolder]]) -> list[RunFolder]:
    """The first tested run of each group, as far as a page has room for their tasks."""
    chosen: list[RunFolder] = []
    for members in groups.values():
        first = next((run for run in members if run.tables), None)
        if first and (not chosen or sum(len(run.tables) for run in [*chosen, first]) <= MOST_PARTS):
            chosen.append(first)
    return chosen


def read_run(path: str | Path) -> RunFolder:
    """Everything that a report needs from a run folder; a run without test results yet has empty metrics.

    Args:
        path: The run folder.

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

    def there(name: str) -> Path | None:
        return path / name if (path / name).is_file() else None

    config = model.config
    tables, predictions = {}, {}
    for task, names in config.tasks.items():
        suffix = f"_{task}" if len(config.tasks) > 1 else ""
        files = [there(f"{table}{suffix}.csv") for table in ("confusion_matrix", "per_class", "predictions_test")]
        several = task in config.multi_label
        if files[1] is not None and (several or files[0] is not None):
            confusion = None if several or files[0] is None else _read_confusion(files[0], names)
            tables[task] = (confusion, _read_per_class(files[1], names, several=several))
        if files[2] is not None:
            predictions[task] = _read_predictions(files[2], names, several=several)
    strides = there("strides.csv")
    encoder = "" if config.encoder == "separable" else f"{config.encoder} "
    return RunFolder(
        name=path.name or str(path.resolve().name),
        variant=encoder + config.pooling + (f" {config.size}" if config.pooling == "diffstride" else ""),
        path=path,
        model=model,
        config=check_table(f"report: {path / 'config.yaml'}", read_yaml(path / "config.yaml"), Settings),
        metrics=read_metrics("report", path, list(config.tasks)) if there("metrics.json") else {},
        environment=read_json("report", path / "environment.json", Environment) if there("environment.json") else {},
        history=read_table("report", path / "history.csv", HISTORY),
        strides=read_table("report", strides, ["step"]) if config.pooling == "diffstride" and strides else None,
        cutoffs=cutoff_table(model, window_s=config.window_s),
        tables=tables,
        predictions=predictions,
        alarms=_read_alarms(path) if there("metrics_alarms.json") and there("alarms.csv") else None,
    )


def _read_alarms(path: Path) -> Alarms:
    numbers = ["threshold", "alarms", "alarms_per_hour", "low", "high"]
    text: dict[str, Any] = {
        "dtype": {"task": str, "class": str},
        "keep_default_na": False,
        "na_values": {"recall": [""]},
    }
    table = read_table("report", path / "alarms.csv", ["task", "class", "recall", *numbers], numbers=numbers, **text)
    metrics = read_json("report", path / "metrics_alarms.json", AlarmMetrics, advice="evaluate --negatives anew")
    return Alarms(metrics, table)


def _read_per_class(file: Path, names: list[str], *, several: bool) -> pd.DataFrame:
    numbers, unknown = ["clips", "precision", "recall", "f1"], list[str]()
    if several:  # what is not known of a class without clips is left empty
        numbers, unknown = ["clips", "share"], ["average_precision", "low", "high", "roc_auc", *numbers[1:]]
    with reading_table("report", file):
        table = read_table("report", file, [*numbers, *unknown], numbers=numbers).assign(**{"class": names})
        return table.astype(dict.fromkeys(unknown, float))


def _read_confusion(file: Path, names: list[str]) -> pd.DataFrame:
    with reading_table("report", file):
        counts = read_table("report", file, [], index_col=0).to_numpy(dtype=int)
        # The names are the model's: read from a table, a class "007" would be 7 and a class "nan" missing.
        return pd.DataFrame(counts, index=pd.Index(names, name="true"), columns=names)


def _read_predictions(file: Path, names: list[str], *, several: bool) -> pd.DataFrame:
    text: dict[str, Any] = {"path": str, "true": str, "predicted": str}
    numbers, blank = ["line", "start_s", *class_columns(names)], {"duration_s": [""]}
    columns = [*numbers, "duration_s", *text]
    with reading_table("report", file):
        table = read_table("report", file, columns, numbers=numbers, dtype=text, keep_default_na=False, na_values=blank)
        cells = {*table["true"], *table["predicted"]}
        found = {label for cell in cells for label in separate_labels(cell, names)} if several else cells
        if not found <= {*names} or not is_numeric_dtype(table["duration_s"]):
            raise ValueError("its labels are not those of the model, or its durations no numbers")
        return table


def class_columns(names: Sequence[str]) -> list[str]:
    """Columns of the predictions with the probability of each class."""
    return [f"p:{name}" for name in names]


def name_runs(folders: Sequence[RunFolder]) -> list[RunFolder]:
    """The runs with their groups; those in different folders of one name are called by the folder around them too."""
    titles = [", ".join(map(folder.title_of, folder.tasks)) for folder in folders]
    of_tasks = len({*titles}) > 1
    of_variants = len({folder.variant for folder in folders}) > 1 or not of_tasks
    keys = [
        (title,) * of_tasks + (folder.variant,) * of_variants for title, folder in zip(titles, folders, strict=True)
    ]
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

"""The report of one or several runs: a self-contained HTML page, and the same tables as CSV."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from markupsafe import Markup

from audiostride.errors import InputError
from audiostride.models import AudioClassifier, load_classifier
from audiostride.reporting.cutoffs import cutoff_table, summarise_cutoffs
from audiostride.reporting.figures import (
    draw_confusion,
    draw_cutoffs,
    draw_history,
    draw_masks,
    draw_strides,
    inline_svg,
    render,
)
from audiostride.writing import write_text


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

    @property
    def source(self) -> str:
        """Where its clips come from."""
        task: list[str] | None = self.config.get("task")
        return ", ".join(task) if task else str(self.config["manifest"])


def read_run(path: str | Path) -> RunFolder:
    """Everything that a report needs from a run folder; a run without test results yet has empty metrics.

    Raises:
        InputError: Not a run folder.
    """
    path = Path(path)
    if not (path / "config.yaml").is_file() or not (path / "history.csv").is_file():
        raise InputError(
            f"report: {path} must be a run folder with config.yaml and history.csv; "
            "'audiostride train' writes one, and its history from the first validation on"
        )
    model = load_classifier(path)

    def table(name: str, **options: Any) -> pd.DataFrame | None:
        return pd.read_csv(path / name, **options) if (path / name).is_file() else None

    def values(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((path / name).read_text(encoding="utf-8")) if (path / name).is_file() else {}
        return found

    suffix = "_{}" if len(model.config.tasks) > 1 else ""
    pooling, size = model.config.pooling, model.config.size
    return RunFolder(
        name=path.name or str(path.resolve().name),
        variant=f"{pooling} {size}" if pooling == "diffstride" else pooling,
        path=path,
        model=model,
        config=yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8")),
        metrics=values("metrics.json"),
        environment=values("environment.json"),
        history=pd.read_csv(path / "history.csv"),
        strides=table("strides.csv"),
        cutoffs=cutoff_table(model, window_s=model.config.window_s),
        tables={
            task: (confusion, per_class)
            for task in model.config.tasks
            if (confusion := table(f"confusion_matrix{suffix.format(task)}.csv", index_col=0)) is not None
            and (per_class := table(f"per_class{suffix.format(task)}.csv", dtype={"class": str})) is not None
        },
    )


def write_report(runs: list[str | Path] | list[Path], page: str | Path) -> pd.DataFrame:
    """Write the HTML page of one or several runs, and beside it the cut-offs as CSV.

    Args:
        runs: Run folders.
        page: The HTML file; the table goes to ``<name>_cutoffs.csv`` beside it.

    Returns:
        The cut-offs: mean and standard deviation over the runs, per pooling, layer and axis.

    Raises:
        InputError: No run, a folder that is not one, a page that cannot be written.
    """
    if not runs:
        raise InputError("report: there must be at least one run folder, got none")
    page = Path(page)
    if not page.parent.is_dir():
        raise InputError(f"report: the page must go into a folder that exists, got {page}")
    folders = [read_run(run) for run in runs]
    summary = summarise_runs(folders)
    write_text(page.with_name(f"{page.stem}_cutoffs.csv"), summary.to_csv(index=False))
    write_text(page, render_page(folders))
    return summary


def summarise_runs(folders: list[RunFolder]) -> pd.DataFrame:
    """The cut-offs of runs: mean and standard deviation over those of the same variant, per layer and axis."""
    return summarise_cutoffs([folder.cutoffs.assign(pooling=folder.variant) for folder in folders])


def render_page(folders: list[RunFolder], *, intro: str = "", title: str | None = None) -> str:
    """The HTML of a report; `intro` is HTML that goes in front of its sections."""
    first, summary = folders[0], summarise_runs(folders)
    figures = {
        "cutoffs": inline_svg(render(draw_cutoffs(summary), format="svg")),
        "history": inline_svg(render(draw_history({folder.name: folder.history for folder in folders}), format="svg")),
    }
    learned = [folder.strides for folder in folders if folder.strides is not None]
    strides = draw_strides(learned)
    if strides is not None:
        figures["strides"] = inline_svg(render(strides, format="svg"))
    masks = []
    for variant in summary["pooling"].unique():
        shown = next(folder for folder in folders if folder.variant == variant)
        drawn = draw_masks(shown.model)
        if drawn is not None:
            masks.append((shown.name, inline_svg(render(drawn, format="svg"))))
    confusions = [
        (folder, task, inline_svg(draw_confusion(confusion, format="svg")), per_class)
        for folder in folders
        for task, (confusion, per_class) in folder.tables.items()
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("audiostride.reporting", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = lambda share: "–" if share is None else f"{100 * share:.1f} %"
    accuracies = pd.Series(
        [folder.metrics["accuracy"] for folder in folders if "accuracy" in folder.metrics], dtype=float
    )
    return environment.get_template("page.html.jinja").render(
        title=title or f"audiostride: {first.name}" + (f" and {len(folders) - 1} more" if len(folders) > 1 else ""),
        folders=folders,
        summary=summary,
        figures=figures,
        masks=masks,
        confusions=confusions,
        accuracies=accuracies,
        intro=Markup(intro),
    )

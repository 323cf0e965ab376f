"""The tables of a report: runs, data, accuracy, cut-offs beside the paper's, strides."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from audiostride.reporting.blocks import Table
from audiostride.reporting.cutoffs import cutoff_table
from audiostride.reporting.paper import TABLE_2, WINDOW_S
from audiostride.reporting.runs import RunFolder, name_groups
from audiostride.reporting.stride_figures import stride_columns

NONE = "–"
CUTOFF_DIGITS = {"Hz": 2, "cycles/mel": 4}


def percent(share: Any) -> str:
    r"""A share as percent with one digit.

    >>> percent(0.8351), percent(None)
    ('83.5\xa0%', '–')
    """
    return NONE if share is None or share != share else f"{100 * share:.1f}\u00a0%"  # which does not break


def number(value: Any, digits: int, spread: Any = None) -> str:
    """A number with its standard deviation in brackets, if there is one."""
    if value is None or value != value:
        return NONE
    return f"{value:.{digits}f}" + (f" ({spread:.{digits}f})" if spread is not None and spread == spread else "")


def accuracy_table(folders: Sequence[RunFolder]) -> Table:
    """Test accuracy of each run and task with its interval, beside majority class and classic baseline."""
    rows = []
    for group, folder in zip(name_groups(folders), folders, strict=True):
        for task in folder.tasks:
            found = folder.metrics_of(task)
            low, high = found.get("interval", (None, None))
            rows.append(
                {
                    "run": folder.name,
                    "model": group,
                    "seed": folder.config.get("seed"),
                    "task": task,
                    "classes": len(folder.tasks[task]),
                    "clips": found.get("n_clips"),
                    "accuracy": found.get("accuracy"),
                    "low": low,
                    "high": high,
                    "macro_recall": found.get("macro_recall"),
                    "majority": found.get("baseline_majority"),
                    "classic": found.get("baseline_classic"),
                }
            )
    data = pd.DataFrame(rows)
    shown = pd.DataFrame({"task": data["task"]})
    if len(folders) > 1:
        shown = pd.DataFrame({"run": data["run"], "model": data["model"], "task": data["task"],
                              "seed": data["seed"].astype(str)})  # fmt: skip
    shown["classes"] = data["classes"].astype(str)
    shown["clips"] = [number(value, 0) for value in data["clips"]]
    shown["accuracy"] = data["accuracy"].map(percent)
    shown["95 % interval"] = [NONE if low is None or low != low else f"{100 * low:.1f} to {100 * high:.1f} %"
                              for low, high in zip(data["low"], data["high"], strict=True)]  # fmt: skip
    shown["mean recall of classes"] = data["macro_recall"].map(percent)
    shown["majority class"] = data["majority"].map(percent)
    shown["classic baseline"] = data["classic"].map(percent)
    caption = (
        "Accuracy on test clips. The interval (Wilson) takes clips for independent; clips of one speaker, place or "
        "recording make the true one wider. Majority class: always the most frequent class of the training clips. "
        "Classic baseline: statistics of log-mel bands with a support vector machine."
    )
    return Table("accuracy", caption, data, shown, n_left=3 if len(folders) > 1 else 1)


def cutoffs_table(summary: pd.DataFrame) -> Table:
    """Strides, sizes and cut-offs of every layer and axis."""
    several = summary["pooling"].nunique() > 1
    rows = []
    for _, row in summary.iterrows():
        digits = CUTOFF_DIGITS[row["unit"]]
        cells = {"layer": str(row["layer"]), "axis": row["axis"], "unit": row["unit"]} | (
            {"model": row["pooling"]} if several else {}
        )
        cells |= {"stride": number(row["stride"], 2, row["stride_sd"]), "bins": f"{row['n_in']:g} → {row['n_out']:g}"}
        for name, title in (("pass_edge", "passes whole up to"), ("half_edge", "half"), ("stop_edge", "nothing from"),
                            ("cutoff", "cut-off")):  # fmt: skip
            cells[title] = number(row[name], digits, row[f"{name}_sd"])
        rows.append(cells)
    caption = (
        "Cut-offs of each layer and axis. The cut-off is rate / (2 × stride), as in the paper; the mask falls from 1, "
        "where the layer passes whole, to 0, where nothing is left. Strided convolution has no mask: what lies above "
        "its cut-off folds down to slower or coarser modulations."
    )
    if summary["runs"].max() > 1:
        caption += " Means over runs, standard deviation in brackets."
    return Table("cutoffs", caption, summary, pd.DataFrame(rows), n_left=4 if several else 3)


def paper_table(groups: Mapping[str, Sequence[RunFolder]]) -> Table | None:
    """Strides and cut-offs of the first layer beside Table 2 of the paper; None without learned strides.

    A ResNet is left out: the paper's table is that of separable convolutions, and its first layer another one.
    """
    rows, shown = [], []
    titles = ["stride over time", "stride over mel", "cut-off (Hz)", "cut-off (cycles/mel)"]
    for group, members in groups.items():
        config = members[0].model.config
        if config.pooling != "diffstride" or config.encoder != "separable":
            continue
        first = pd.concat(
            cutoff_table(run.model, window_s=WINDOW_S).query("layer == 1").assign(run=run.name) for run in members
        ).groupby("axis")
        values, spreads = first[["stride", "cutoff_floor"]].mean(), first[["stride", "cutoff_floor"]].std()
        cells = []
        for column, digits in (("stride", (2, 2)), ("cutoff_floor", (2, 4))):
            for axis, places in zip(("time", "mel"), digits, strict=True):
                mean, sd = values.loc[axis, column], spreads.loc[axis, column]
                rows.append({"model": group, "runs": len(members), "axis": axis, "quantity": column, "mean": mean,
                             "sd": sd})  # fmt: skip
                cells.append(number(mean, places, sd))
        tasks = members[0].tasks
        name = group if len(groups) > 1 else f"these {len(tasks)} tasks" if len(tasks) > 2 else ", ".join(tasks)
        shown.append({"model": name, "from": f"here, {len(members)} run{'s' * (len(members) > 1)}",
                      **dict(zip(titles, cells, strict=True))})  # fmt: skip
    if not shown:
        return None
    same = {task for members in groups.values() for task in members[0].tasks if len(members[0].tasks) == 1}
    if any({*members[0].tasks, "multi-task"} == {*TABLE_2} for members in groups.values()):
        same.add("multi-task")
    for task in sorted(TABLE_2, key=lambda task: task not in same):
        source = "the paper, 3 runs" + (", same tasks" if task == "multi-task" else ", same task") * (task in same)
        shown.append({"model": task, "from": source, **dict(zip(titles, TABLE_2[task], strict=True))})
    caption = (
        "First layer beside Table 2 of the paper, mean (standard deviation). As there, cut-offs are rounded down to a "
        "bin of 0.625 Hz and 1/64 cycle/mel. The paper's networks are wider and saw other clips."
    )
    return Table("first_layer", caption, pd.DataFrame(rows), pd.DataFrame(shown), n_left=2)


def strides_table(groups: Mapping[str, Sequence[RunFolder]]) -> Table | None:
    """Starting and final strides of every run; None without learned strides."""
    rows = []
    for group, members in groups.items():
        for run in members:
            if run.strides is None:
                continue
            for axis in ("time", "mel"):
                for layer, column in enumerate(stride_columns(run.strides, axis), start=1):
                    rows.append({"run": run.name, "model": group, "seed": run.config.get("seed"), "layer": layer,
                                 "axis": axis, "start": run.strides[column].iloc[0],
                                 "end": run.strides[column].iloc[-1]})  # fmt: skip
    if not rows:
        return None
    data = pd.DataFrame(rows)
    several = data["run"].size > data.drop_duplicates(["model", "layer", "axis"])["run"].size
    keys = ["model", "layer", "axis"] if data["model"].nunique() > 1 else ["layer", "axis"]
    shown = []
    for key, own in data.groupby(keys, sort=False):
        cells: dict[str, str] = {name: str(value) for name, value in zip(keys, key, strict=True)}
        cells |= {"runs": str(len(own))} if several else {}
        for name in ("start", "end"):
            cells[name] = number(own[name].mean(), 2, own[name].std() if len(own) > 1 else None)
            cells |= {f"{name}, range": f"{own[name].min():.2f} to {own[name].max():.2f}"} if several else {}
        shown.append(cells)
    caption = "Strides at the start and at the end of the training" + (
        ": mean (standard deviation) and range over runs." if several else "."
    )
    return Table("strides", caption, data, pd.DataFrame(shown), n_left=len(keys))

"""The tables of a report: runs, accuracy, cut-offs beside the paper's, strides; the cut-offs for the terminal too."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from audiostride.reporting.blocks import Table
from audiostride.reporting.cutoffs import AXES, F0_HZ, TABLE_2, WINDOW_S, bands_per, choose_frequency, cutoff_table
from audiostride.reporting.figures import stride_columns
from audiostride.reporting.runs import RunFolder
from audiostride.wording import metric_of

NONE = "–"
UNIT_HZ = (250.0, 1000.0, 4000.0)  # where cycles/mel are told in other units
CUTOFF_DIGITS = {"Hz": 2, "cycles/mel": 4}


def percent(share: Any) -> str:
    r"""A share as percent with one digit.

    >>> percent(0.8351), percent(None)
    ('83.5\xa0%', '–')
    """
    return NONE if share is None or share != share else f"{100 * share:.1f}\u00a0%"  # which does not break


def number(value: Any, digits: int, spread: Any = None, *, none: str = NONE) -> str:
    """A number with its standard deviation in brackets, if there is one."""
    if value is None or value != value:
        return none
    return f"{value:.{digits}f}" + (f" ({spread:.{digits}f})" if spread is not None and spread == spread else "")


def runs_table(folders: Sequence[RunFolder]) -> Table:
    """One row per run: what it is, how long it took, how well it did."""
    data = pd.DataFrame(
        {
            "run": run.name,
            "model": run.group,
            "seed": run.config.get("seed"),
            "steps": run.n_steps,
            "parameters": run.n_parameters,
            "training_s": run.environment.get("training_s"),
            "training_memory_mib": run.environment.get("training_memory_mib"),
            "valid_accuracy": run.metrics.get("valid_accuracy", run.history["valid_accuracy"].max()),
            "test_accuracy": run.metrics.get("accuracy"),
        }
        for run in folders
    )
    titles = {"training_s": "training (s)", "training_memory_mib": "memory (MiB)", "valid_accuracy": "validation",
              "test_accuracy": "test"}  # fmt: skip
    shown = data.assign(
        seed=[str(run.config.get("seed")) for run in folders],
        **data[["steps", "parameters"]].map("{:,}".format),
        **data[["training_s", "training_memory_mib"]].map(number, digits=0),
        **data[["valid_accuracy", "test_accuracy"]].map(percent),
    ).rename(columns=titles)
    caption = "The runs. Memory: what the training added to that of the process. Of several tasks: mean accuracy."
    return Table("runs", caption, data, shown, n_left=2)


def accuracy_table(folders: Sequence[RunFolder]) -> Table:
    """Test accuracy of each run and task with its interval, beside majority class and support vector machine."""
    several_labels = any(run.model.config.multi_label for run in folders)
    others = ["roc_auc", "f1"] if several_labels else []
    data = pd.DataFrame(
        {
            "run": run.name,
            "model": run.group,
            "seed": run.config.get("seed"),
            "task": run.title_of(task),
            "classes": len(names),
            "clips": found.get("n_clips"),
            **({"metric": found.get("metric", "accuracy")} if several_labels else {}),
            "accuracy": found.get("accuracy"),
            **dict(zip(("low", "high"), found.get("interval", (None, None)), strict=True)),
            "macro_recall": found.get("macro_recall"),
            "majority": found.get("baseline_majority"),
            "classic": found.get("baseline_classic"),
            **{name: found.get(name) for name in others},
        }
        for run in folders
        for task, names in run.tasks.items()
        for found in [run.metrics_of(task)]
    )
    several = len(folders) > 1
    shares = data[["accuracy", "macro_recall", "majority", "classic", *others]].map(percent)
    keys = ["run", "model", "task"] if several else ["task"]
    shown = data[keys].copy()
    if several_labels:
        shown["metric"] = data["metric"].map(lambda metric: metric_of({"metric": metric}))
    shown = shown.join(data[["seed", "classes"] if several else ["classes"]])
    shown["clips"] = data["clips"].map(lambda clips: number(clips, 0))
    shown["result" if several_labels else "accuracy"] = shares["accuracy"]
    shown["95 % interval"] = [NONE if low is None or low != low else f"{100 * low:.1f} to {100 * high:.1f} %"
                              for low, high in zip(data["low"], data["high"], strict=True)]  # fmt: skip
    if any(not run.is_multi_label(task) for run in folders for task in run.tasks):
        shown["mean recall of classes"] = shares["macro_recall"]
    if several_labels:
        shown["ROC AUC"], shown["F1 at 0.5"] = shares["roc_auc"], shares["f1"]
    shown["majority class"] = shares["majority"]
    shown["support vector machine"] = shares["classic"]
    caption = (
        "Accuracy on test clips. The interval (Wilson) takes clips for independent; clips of one speaker, place or "
        "recording make the true one wider. Majority class: always the most frequent class of the training clips. "
        "Support vector machine: on statistics of the log-mel bands over time."
    )
    if several_labels:
        caption = (
            "Results on test clips. Where clips have several labels: macro average precision, the mean over classes, "
            "as are ROC AUC and F1, with an interval that is drawn over groups, or over clips where there are none. "
            "Majority class: always the shares that classes have of the training clips. Support vector machine: one "
            "for each class, on statistics of the log-mel bands over time. Else accuracy with Wilson's interval, "
            "beside the most frequent class and one such machine."
        )
    return Table("accuracy", caption, data, shown, n_left=len(keys) + several_labels)


def show_cutoffs(summary: pd.DataFrame, keys: list[str], titles: Mapping[str, str], *, arrow: str = " → ",
                 none: str = NONE) -> pd.DataFrame:  # fmt: skip
    """The summary of cut-offs as text: `keys`, then each quantity with its spread, under its title."""
    shown = summary[keys].copy()
    for name, title in titles.items():
        digits = [2] * len(summary) if name.endswith("stride") else summary["unit"].map(CUTOFF_DIGITS)
        cells = zip(summary[name], digits, summary[f"{name}_sd"], strict=True)
        shown[title] = [number(value, places, spread, none=none) for value, places, spread in cells]
    sizes = [f"{n_in:g}{arrow}{n_out:g}" for n_in, n_out in zip(summary["n_in"], summary["n_out"], strict=True)]
    shown.insert(len(keys) + 1, "size", sizes)
    return shown


def format_cutoffs(summary: pd.DataFrame) -> str:
    """The summary as a table for the terminal."""
    titles = {"stride": "stride", "effective_stride": "effective", "pass_edge": "pass edge", "half_edge": "half",
              "stop_edge": "stop edge", "cutoff": "cut-off", "cutoff_floor": "to a bin"}  # fmt: skip
    shown = show_cutoffs(summary, ["pooling", "layer", "axis"], titles, arrow="->", none="-")
    return shown.assign(unit=summary["unit"]).to_string(index=False)


def cutoffs_table(summary: pd.DataFrame, starts: Mapping[str, pd.DataFrame]) -> Table:
    """Strides, sizes and cut-offs of every layer and axis, and the strides before training where `starts` has them."""
    keys = ["layer", "axis", "unit"] + ["pooling"] * (summary["pooling"].nunique() > 1)
    titles = {"stride": "stride", "pass_edge": "passes whole up to", "half_edge": "half at",
              "stop_edge": "nothing from", "cutoff": "cut-off"}  # fmt: skip
    shown = show_cutoffs(summary, keys, titles).rename(columns={"pooling": "model"})
    caption = (
        "Cut-offs of each layer and axis. Size: points of the layer's map along the axis, before and after it. The "
        "layer multiplies each modulation by a gain that falls from 1, where it passes whole, over one half to 0, "
        "where nothing is left. The cut-off is rate / (2 × stride), as in the paper: half the rate of the shorter map."
    )
    if summary["pass_edge"].isna().any():
        caption += " Strided convolution has no such gain: what lies above its cut-off folds down."
    if starts:
        before = pd.concat(table.assign(pooling=group) for group, table in starts.items())
        places = ["pooling", "layer", "axis"]
        found = summary[places].merge(before[[*places, "stride"]], how="left", on=places)["stride"]
        shown.insert(len(keys), "stride before", [number(stride, 2) for stride in found])
    if summary["runs"].max() > 1:
        caption += " Means over runs, standard deviation in brackets."
    return Table("cutoffs", caption, summary, shown, n_left=len(keys))


def units_table(groups: Mapping[str, Sequence[RunFolder]], summary: pd.DataFrame) -> Table:
    """The cut-offs over mel frequency in other units, at frequencies that the frontends of all groups have."""
    configs = {group: members[0].model.config for group, members in groups.items()}
    own = summary[summary["axis"] == "mel"]
    inside = [hz for hz in UNIT_HZ if all(config.fmin_hz < hz < config.fmax_hz for config in configs.values())]
    places = inside or [choose_frequency(next(iter(configs.values())))]
    data = own[["pooling", "layer", "cutoff"]].rename(columns={"pooling": "model", "cutoff": "cycles/mel"})
    for unit, name in (("octave", "cycles/octave"), ("khz", "cycles/kHz")):
        for hz in places:
            per = [bands_per(configs[group], hz)[unit] for group in own["pooling"]]
            data[f"{name} at {hz:g} Hz"] = own["cutoff"].to_numpy() * per
    shown = data.assign(**{"cycles/mel": own["cutoff"].map("{:.4f}".format)})
    for name in data.columns[3:]:
        shown[name] = data[name].map("{:.2f}".format)
    for f0 in F0_HZ:
        limit = own[f"harmonics_{f0}"]
        data[f"harmonics of {f0} Hz up to (Hz)"] = limit
        shown[f"harmonics of {f0} Hz up to"] = ["nowhere" if hz == 0 else f"{hz:,.0f} Hz" for hz in limit]
    keys = ["layer"] if len(groups) == 1 else ["model", "layer"]
    caption = (
        "Cut-offs over mel frequency in other units: mel bands are equally wide in mel, so that the same density is "
        "coarser in octaves at low frequencies and finer in kHz. Harmonics: up to where those of a tone of that "
        "fundamental lie far enough apart to pass; above they are a smooth band."
    )
    return Table("units", caption, data, shown[keys + list(shown.columns[2:])], n_left=len(keys))


def paper_table(groups: Mapping[str, Sequence[RunFolder]]) -> Table | None:
    """Strides and cut-offs of the first layer beside Table 2 of the paper; None without learned strides.

    A ResNet is left out: the paper's table is that of separable convolutions, and its first layer another one.
    """
    rows, shown = [], []
    for group, members in groups.items():
        config, tasks = members[0].model.config, [members[0].title_of(task) for task in members[0].tasks]
        if config.pooling != "diffstride" or config.encoder != "separable":
            continue
        tables = pd.concat(cutoff_table(run.model, window_s=WINDOW_S).query("layer == 1") for run in members)
        first = tables.groupby("axis")[["stride", "cutoff_floor"]]
        means, sds = first.mean(), first.std()
        cells = []
        for column, mel_digits in (("stride", 2), ("cutoff_floor", 4)):
            for axis, digits in zip(AXES, (2, mel_digits), strict=True):
                mean, sd = means.loc[axis, column], sds.loc[axis, column]
                rows.append([group, len(members), axis, column, mean, sd])
                cells.append(number(mean, digits, sd))
        name = group if len(groups) > 1 else f"these {len(tasks)} tasks" if len(tasks) > 2 else ", ".join(tasks)
        shown.append([name, f"here, {len(members)} run{'s' * (len(members) > 1)}", *cells])
    if not shown:
        return None
    task_sets = [{*members[0].tasks} for members in groups.values()]
    same = {task for tasks in task_sets for task in tasks if len(tasks) == 1}
    if any({*tasks, "multi-task"} == {*TABLE_2} for tasks in task_sets):
        same.add("multi-task")
    for task in sorted(TABLE_2, key=lambda task: task not in same):
        source = "the paper, 3 runs" + (", same tasks" if task == "multi-task" else ", same task") * (task in same)
        shown.append([task, source, *TABLE_2[task]])
    caption = (
        "First layer beside Table 2 of the paper, mean (standard deviation). As there, cut-offs are rounded down to a "
        "bin of 0.625 Hz and 1/64 cycle/mel. The paper's networks are wider and saw other clips."
    )
    data = pd.DataFrame(rows, columns=["model", "runs", "axis", "quantity", "mean", "sd"])
    titles = ["model", "from", "stride over time", "stride over mel", "cut-off (Hz)", "cut-off (cycles/mel)"]
    return Table("first_layer", caption, data, pd.DataFrame(shown, columns=titles), n_left=2)


def strides_table(runs: Sequence[RunFolder]) -> Table:
    """Strides of every run that learned them: before training, and those of its model."""
    data = pd.DataFrame(
        {"run": run.name, "model": run.group, "seed": run.config.get("seed"), "layer": layer, "axis": axis,
         "start": strides.iloc[0], "end": end}
        for run in runs if run.strides is not None for axis in AXES
        for layer, ((_, strides), end) in enumerate(
            zip(run.strides[stride_columns(run.strides, axis)].items(),
                run.cutoffs.loc[run.cutoffs["axis"] == axis, "stride"], strict=True), start=1)
    )  # fmt: skip
    keys = ["model", "layer", "axis"] if data["model"].nunique() > 1 else ["layer", "axis"]
    grouped = data.groupby(keys, sort=False)
    shown = grouped.size().rename("runs").reset_index()
    for name in ("start", "end"):
        values = grouped[name]
        shown[name] = [number(mean, 2, sd) for mean, sd in zip(values.mean(), values.std(), strict=True)]
        limits = zip(values.min(), values.max(), strict=True)
        shown[f"{name}, range"] = [f"{low:.2f} to {high:.2f}" for low, high in limits]
    caption = "Strides before training and of the models: mean (standard deviation) and range over runs."
    return Table("strides", caption, data, shown, n_left=len(keys))

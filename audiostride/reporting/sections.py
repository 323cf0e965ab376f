"""The sections of a report, from the runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from audiostride.models import AudioClassifier
from audiostride.models.packages import package_of
from audiostride.reporting import figures
from audiostride.reporting.alarms import alarms_section
from audiostride.reporting.blocks import Block, Drawing, Drawings, Section, Table, Text
from audiostride.reporting.class_sections import class_section
from audiostride.reporting.costs import cost_section
from audiostride.reporting.cutoffs import AXES, TABLE_2, cutoff_table
from audiostride.reporting.figures import AXIS_TITLES
from audiostride.reporting.measuring import largest_difference, measure_gains
from audiostride.reporting.modulation_sections import modulations_section
from audiostride.reporting.runs import RunFolder
from audiostride.reporting.summary import run_metric, summary_table
from audiostride.reporting.tables import (
    accuracy_table,
    cutoffs_table,
    paper_table,
    runs_table,
    strides_table,
    units_table,
)
from audiostride.wording import advice_of

MOST_GROUPS = 4  # that get drawings of their own
TOLERANCE = 0.01  # of full scale, within which measured gains and masks must agree


def draw_top(groups: Mapping[str, Sequence[RunFolder]], summary: pd.DataFrame) -> Drawings:
    """The figure at the top of a page: what each layer passes."""
    starts, items = starts_of(groups), []
    for axis in AXES:
        what = f"What each layer passes {AXIS_TITLES[axis]}"
        alt = f"{what}: cut-offs and ramps; the numbers are in the table of cut-offs"
        items.append(Drawing(f"cutoffs_{axis}", alt, figures.draw_cutoffs(summary, starts, axis)))
    caption = (
        "What each layer passes: in full where the bar is solid, less and less where it is pale. The mark is the "
        "cut-off" + (", the tick where it was before training" if starts else "") + "."
    )
    if summary["pass_edge"].isna().any():
        caption += " Strided convolution has no ramp: what lies above its cut-off folds down."
    return Drawings(items, caption)


def starts_of(groups: Mapping[str, Sequence[RunFolder]]) -> dict[str, pd.DataFrame]:
    """The cut-offs before training of each group of which they are known."""
    return {group: table for group, members in groups.items() if (table := starting_cutoffs(members)) is not None}


def starting_cutoffs(members: Sequence[RunFolder]) -> pd.DataFrame | None:
    """Cut-offs of the untrained model, where strides are learned and all runs began with the same."""
    config = members[0].model.config
    if config.pooling != "diffstride" or len({run.model.config.strides for run in members}) > 1:
        return None
    # Cut-offs do not depend on the channels, which only networks of this package can be without.
    small = config if package_of(config.encoder) is not None else replace(config, width=1e-9)
    return cutoff_table(AudioClassifier(small), window_s=config.window_s)


def build_sections(
    folders: Sequence[RunFolder], groups: Mapping[str, Sequence[RunFolder]], summary: pd.DataFrame
) -> list[Section]:
    """All sections below the top of the page."""
    facts = [summary_table(folders)] + [runs_table(folders)] * (len(folders) > 1)
    # How well it does and where it errs, then what it listens to, then how it was made.
    sections = [accuracy_section(folders), class_section(groups), alarms_section(folders)]
    sections += [modulations_section(groups), layers_section(groups, summary), strides_section(groups)]
    sections.append(cost_section(groups))
    sections += [training_section(groups), Section("summary", "How it was made", facts)]
    return [section for section in sections if section is not None]


def accuracy_section(folders: Sequence[RunFolder]) -> Section:
    """Accuracy beside what needs no network."""
    table, metric = accuracy_table(folders), run_metric(folders)
    numbers = ["accuracy", "low", "high", "majority", "classic"]
    data = table.data.dropna(subset=["accuracy"]).astype(dict.fromkeys(numbers, float))
    blocks: list[Block] = [table]
    if 1 < len(data) <= 40:
        if len(folders) == 1 or data["task"].nunique() == 1:
            names = data["task" if len(folders) == 1 else "run"]
        else:
            names = data["run"] + ", " + data["task"]
        alt = f"Test {metric} of each task with its interval and both baselines; the numbers are in the table"
        drawing = Drawing("accuracy", alt, figures.draw_accuracies(data.assign(name=names), metric=metric))
        caption = (
            f"Test {metric} with its 95 % interval, beside what needs no network: always the most frequent class, "
            "and a support vector machine on statistics of the log-mel bands."
        )
        blocks.insert(0, Drawings([drawing], caption))
    for folder in folders:
        if not folder.metrics:
            blocks.append(Text(f"{folder.name} has no test results yet: audiostride evaluate {folder.path}"))
    beaten = data.loc[(data["classic"] >= data["accuracy"]) & (data["accuracy"] < 1), "task"].unique()
    if len(beaten):
        advice = {advice_of(folder.metrics) for folder in folders if folder.metrics}
        text = f"The support vector machine is as good as this network or better: {', '.join(beaten)}. "
        text += f"{' or '.join(sorted(advice)).capitalize()}."
        blocks.append(Text(text, strong=True))
    return Section("accuracy", metric.capitalize() if metric == "accuracy" else "How well it does", blocks)


def layers_section(groups: Mapping[str, Sequence[RunFolder]], summary: pd.DataFrame) -> Section:
    """Cut-offs, the paper's beside them, and what the layers pass when it is measured."""
    text = (
        "A layer low-passes its map before it shortens it: modulations over time up to a rate in hertz, structure "
        "over mel frequency up to a density in cycles per mel band. Faster and finer ones are lost to all layers "
        "behind it, except for what folds: a modulation above half the rate of the shorter map that is not "
        "filtered out comes back as a slower or coarser one (aliasing)."
    )
    paper = paper_table(groups)
    tables = [cutoffs_table(summary, starts_of(groups)), units_table(groups, summary), paper]
    blocks: list[Block] = [Text(text), *(table for table in tables if table is not None)]
    blocks.append(map_block(summary, with_paper=paper is not None))
    shown = 0
    for group, members in groups.items():
        gains = measure_gains(members[0].model)
        if gains.empty:
            text = (
                f"{group}: strided convolution has no pooling layer whose gain could be measured; it keeps every "
                "modulation, and folds those above its cut-off down onto slower or coarser ones."
            )
            blocks.append(Text(text))
        elif shown < MOST_GROUPS:
            shown += 1
            blocks += gain_blocks(gains, members[0], suffix=f"_{members[0].name}" if len(groups) > 1 else "")
    return Section("layers", "What the layers pass", blocks)


def map_block(summary: pd.DataFrame, *, with_paper: bool) -> Drawings:
    """The cut-offs of every layer, rate against density, beside those of the paper's first layers."""
    first = {task: (float(row[2].split()[0]), float(row[3].split()[0])) for task, row in TABLE_2.items()}
    alt = "Cut-offs of every layer, rate against density; the numbers are in the table of cut-offs"
    drawing = Drawing("rate_and_density", alt, figures.draw_map(summary, first if with_paper else {}))
    caption = (
        "Up to where each layer hears: the fastest rate to the right, the finest density upwards. Numbers are layers; "
        "each hears less than the one before it."
    ) + " Open marks are the first layers of the paper's Table 2." * with_paper
    return Drawings([drawing], caption)


def gain_blocks(gains: pd.DataFrame, run: RunFolder, *, suffix: str) -> list[Block]:
    """Measured gains over computed masks, and by how much they differ."""
    difference = largest_difference(gains)
    config = run.model.config
    sizes = run.model.encoder.map_sizes(config.window_frames, config.n_mels)[1:]
    items = []
    for number, (axis, width) in enumerate(zip(AXES, (1 / config.window_s, 1 / config.n_mels), strict=True)):
        n_out = {layer: size[number] / 2 * width for layer, size in enumerate(sizes, start=1)}
        alt = (
            f"Measured gain of each layer {AXIS_TITLES[axis]} as dots on the computed mask, run {run.name}; the "
            f"largest difference is {difference:.1g} of full scale"
        )
        items.append(Drawing(f"gain_{axis}{suffix}", alt, figures.draw_gains(gains, n_out, axis)))
    verdict = "agree" if difference <= TOLERANCE else "DO NOT AGREE"
    caption = (
        f"What each layer of {run.name} passes, measured: ripples with a whole number of cycles in the layer's input "
        f"were sent through the trained layer, and the amplitude of what comes out is drawn over the computed mask. "
        f"Both {verdict}: the largest difference of all layers and axes is {100 * difference:.2g} % of full scale."
    )
    if bool((gains["folded"] & (gains["mask"] > 0)).any()):
        caption += (
            " Hollow dots lie above half the rate of the layer's output: such a ripple comes out at the lower "
            "frequency that it folds onto, and the gain is that of this component."
        )
    return [Drawings(items, caption), gains_table(gains, run.name, suffix)]


def gains_table(gains: pd.DataFrame, name: str, suffix: str) -> Table:
    """The largest difference of measured gain and computed mask in each layer and axis."""
    found = gains.assign(difference=(gains["gain"] - gains["mask"]).abs())
    layers = found.groupby(["layer", "axis", "unit"], sort=False, as_index=False)
    worst = layers.agg({"bin": "size", "frequency": "max", "difference": "max", "rest": "max"})
    heights = zip(worst["frequency"], worst["unit"], strict=True)
    shown = worst[["layer", "axis"]].assign(ripples=worst["bin"])
    shown["up to"] = [f"{height:.{1 if unit == 'Hz' else 3}f} {unit}" for height, unit in heights]
    shown["largest difference"] = [f"{100 * value:.5f} %" for value in worst["difference"]]
    shown["anything else"] = [f"{100 * value:.5f} %" for value in worst["rest"]]
    caption = (
        f"Measured gain against computed mask, {name}: largest difference, and largest part of the output that is "
        "not the ripple, in percent of full scale. The CSV file has the gain of every ripple."
    )
    return Table(f"gains{suffix}", caption, gains.drop(columns="rest"), shown, n_left=2)


def strides_section(groups: Mapping[str, Sequence[RunFolder]]) -> Section | None:
    """Strides over the training, and for several runs their spread; None where none are learned."""
    runs = [run for members in groups.values() for run in members]
    learned: dict[str, list[pd.DataFrame]] = {}
    for run in runs:
        if run.strides is not None:
            learned.setdefault(run.group, []).append(run.strides)
    if not learned:
        return None
    blocks: list[Block] = []
    for place, (group, histories) in enumerate(list(learned.items())[:MOST_GROUPS], start=1):
        suffix, whose = (f"_{place}", f", {group}") if len(learned) > 1 else ("", "")
        alt = f"Strides over the training steps, a line per layer{whose}; the model's are in the table of cut-offs"
        items = [Drawing(f"strides_{axis}{suffix}", alt, figures.draw_strides(histories, axis)) for axis in AXES]
        several = f" A line for each of {len(histories)} runs." if len(histories) > 1 else ""
        caption = f"Strides over the training{whose}; numbers name the layers. A line that still moves at the end "
        caption += f"would have gone on with more steps.{several}"
        blocks.append(Drawings(items, caption))
    if sum(map(len, learned.values())) > 1:
        alt = "Starting and final stride of each layer and run; the numbers are in the table"
        items = [Drawing(f"stride_spread_{axis}", alt, figures.draw_stride_spread(learned, axis)) for axis in AXES]
        blocks.append(Drawings(items, "Where the strides of each run began (bar) and ended (mark), a line per run."))
        blocks.append(strides_table(runs))
    return Section("strides", "Strides over the training", blocks)


def training_section(groups: Mapping[str, Sequence[RunFolder]]) -> Section:
    """Loss and validation accuracy."""
    histories = [(group, run.history) for group, members in groups.items() for run in members]
    metric = run_metric([run for members in groups.values() for run in members])
    items = [
        Drawing(
            f"history_{what}", f"{title} over the training steps", figures.draw_history(histories, what, metric=metric)
        )
        for what, title in (("loss", "Training and validation loss"), ("accuracy", f"Validation {metric}"))
    ]
    last = histories[0][1].iloc[-1]
    text = (
        f"Loss (lower is better) and validation {metric}, which at the end of the first run is "
        f"{100 * last['valid_accuracy']:.1f} %. A validation loss that rises while that of training falls says that "
        "clips are learned by heart."
    )
    if not math.isfinite(float(last["train_loss"])):
        text += " Its loss is not finite: it diverged."
    return Section("training", "Training", [Drawings(items, text)])

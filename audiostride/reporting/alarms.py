"""The section on false alarms: what classes cost in alarms per hour, and how many clips they are still found in."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from audiostride.reporting.blocks import Block, Drawing, Drawings, Section, Table, Text
from audiostride.reporting.runs import Alarms, RunFolder
from audiostride.reporting.style import COLORS, SOFT, STYLE, legend_below, new_panel
from audiostride.wording import count_of


def alarms_section(folders: Sequence[RunFolder]) -> Section | None:
    """Alarms of the runs that were evaluated on recordings without their classes; None where none was."""
    blocks: list[Block] = []
    for run in folders:
        if run.alarms is None:
            continue
        metrics, suffix = run.alarms.metrics, f"_{run.name}" if len(folders) > 1 else ""
        heard = f"{count_of(metrics['recordings'], 'recording')} without any of the classes, {metrics['hours']:.3g} h"
        blocks.append(Text(f"{run.name + ': ' if suffix else ''}Events in {heard}, each of which is a false alarm."))
        for task, own in run.alarms.table.groupby("task", sort=False):
            name = f"{suffix}_{task}" if len(run.tasks) > 1 else suffix
            alt = f"Test clips of each class of {task} that are found, against false alarms per hour"
            caption = (
                "Clips that are found against false alarms per hour, from threshold to threshold; at the left edge no "
                "alarm was heard."
            )
            drawing = Drawing(f"alarms{name}", alt, draw_alarms(own, metrics["hours"]))
            blocks += [Drawings([drawing], caption), _alarms_table(run.alarms, str(task), f"alarms{name}")]
    return Section("alarms", "False alarms", blocks) if blocks else None


def _alarms_table(alarms: Alarms, task: str, name: str) -> Table:
    """For each class the threshold at the alarms per hour that were asked for, and what it finds there."""
    wanted, own = alarms.metrics["alarms_per_hour"], alarms.table[alarms.table["task"] == task]
    rows, shown = [], []
    for label, each in alarms.metrics["tasks"][task].items():
        rows.append({"class": label, **each})
        at = own[(own["class"] == label) & (own["threshold"] == each["threshold"])]
        rate = (
            "none is low enough" if at.empty else "{alarms_per_hour:.2g} ({low:.2g} to {high:.2g})".format(**at.iloc[0])
        )
        threshold = "–" if each["threshold"] is None else f"{each['threshold']:.4f}"
        recall = "–" if each["recall"] is None else f"{100 * each['recall']:.0f} %"
        shown.append([label, threshold, rate, recall])
    titles = ["class", "threshold", "alarms per hour (95 %)", "clips found"]
    caption = (
        f"The lowest threshold with at most {count_of(wanted, 'alarm')} per hour of each class, with Garwood's "
        "interval, and the share of its test clips that have an event at it."
    )
    return Table(name, caption, pd.DataFrame(rows), pd.DataFrame(shown, columns=titles))


@mpl.rc_context(STYLE)
def draw_alarms(table: pd.DataFrame, hours: float) -> Figure:
    """Clips found against alarms per hour, a line for each class; of many classes their mean stands out."""
    figure, panel = new_panel("", "false alarms per hour", "test clips found (%)", height=3.6, width=6.2)
    edge = 0.5 / hours
    classes = list(table.groupby("class", sort=False))
    for number, (label, own) in enumerate(classes):
        # Below the threshold with the most alarms many windows are one event, and the number says nothing.
        own = own.sort_values("threshold").iloc[int(own.sort_values("threshold")["alarms"].to_numpy().argmax()) :]
        x, y = np.maximum(own["alarms_per_hour"], edge), 100 * own["recall"].astype(float)
        few = len(classes) <= len(COLORS)
        panel.plot(x, y, color=COLORS[number] if few else SOFT, linewidth=1.8 if few else 0.8, alpha=1 if few else 0.5,
                   label=str(label) if few else None, drawstyle="steps-post")  # fmt: skip
    if len(classes) > len(COLORS):
        means = table.groupby("threshold")[["alarms_per_hour", "recall"]].mean().sort_index()
        means = means.iloc[int(means["alarms_per_hour"].to_numpy().argmax()) :]
        panel.plot(np.maximum(means["alarms_per_hour"], edge), 100 * means["recall"], color=COLORS[0], linewidth=2.2,
                   label="mean of the classes at one threshold")  # fmt: skip
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # formulas are not read, see `STYLE`
    panel.set_ylim(-2, 102)
    legend_below(figure, panel)
    return figure

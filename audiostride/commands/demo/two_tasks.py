"""Two classifiers on ripples: one task needs slow and coarse modulations only, the other fast and fine ones."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from audiostride.commands.demo.ripples import write_ripples
from audiostride.dataset.cards import read_card
from audiostride.errors import InputError, explained
from audiostride.reporting import read_run, render_page, report_run
from audiostride.reporting.style import STYLE, inline_svg, render
from audiostride.training import TrainConfig, train
from audiostride.writing import write_text

LABEL = "modulation"
# The cost term (eq. 6 of the paper) drives strides up wherever the task does not need what they take away: without it
# nothing tells a network that only slow modulations matter to let go of the fast ones.
SETTINGS: dict[str, Any] = {
    "channels": (16, 32, 64),
    "strides": ((1.5, 1.5), (2.0, 2.0), (2.0, 2.0)),
    "max_steps": 160,
    "valid_every": 40,
    "batch_size": 32,
    "size": "nominal",
    "pool_after": "block",
    "lr": 2e-3,
    "stride_lr": 5e-2,
    "stride_cost": 1.0,
    "time_shift_s": 0.1,  # a ripple is as long as a window
}

# Columns of the table that are numbers, as they are shown.
SHOWN = {"accuracy": "{:.1f} %", "stride time": "{:.2f}", "stride mel": "{:.2f}", "cut-off (Hz)": "{:.1f}",
         "cut-off (c/mel)": "{:.3f}"}  # fmt: skip


@explained()
def demo(out: str | Path, *, seed: int = 0) -> pd.DataFrame:
    """Synthesise ripples, train a DiffStride classifier per task, compare its cut-offs with the true modulations.

    Args:
        out: Folder that is written: sounds and manifests, a run folder per task, ``report.html``.
        seed: Seed of sounds and networks.

    Returns:
        The table that is printed: per task the true rates (Hz) and densities (cycles/mel), the test accuracy and the
        learned strides and cut-offs of the first layer.

    Raises:
        InputError: The folder exists and is not empty.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(path.name != "ripples" for path in out.iterdir())):
        raise InputError(f"demo: --out must be a new or empty folder, got {out}; choose another")
    card = read_card("ripples")
    started = time.monotonic()
    for task, settings in card["tasks"].items():
        print(f"\n{settings['title']}: making {sum(card['clips'].values())} ripples", flush=True)
        manifest = write_ripples(out / "ripples", task, card, seed=seed)
        train(TrainConfig(manifest=str(manifest), label=LABEL, out=str(out / task), seed=seed, **SETTINGS))
        report_run(out / task)
    folders = [read_run(out / task) for task in card["tasks"]]
    table = compare_with_truth(card, {folder.name: (folder.metrics, folder.cutoffs) for folder in folders})
    shown = table.assign(accuracy=100 * table["accuracy"])
    shown = shown.assign(**{name: shown[name].map(form.format) for name, form in SHOWN.items()})
    intro = (
        "<p>Two classifiers, the same network and settings, on sounds made by audiostride: ripples whose spectrograms "
        "are modulated at known rates over time and known densities over mel frequency. "
        f"{describe_outcome(table)}</p>"
        '<figure><div class="drawing" role="img" aria-label="Modulations of both tasks, and what the first layer '
        f'passes">{inline_svg(render(draw_modulation_plane(card, table), format="svg"))}</div>'
        "<figcaption>Crosses: the modulations that the sounds truly contain. Areas: what the first layer passes; a "
        "class whose cross lies outside is told apart by traces that the convolution in front leaves inside."
        '</figcaption></figure><div class="scroll">' + shown.to_html(index=False, border=0) + "</div>"
    )
    titled = [replace(folder, variant=card["tasks"][folder.name]["title"]) for folder in folders]
    page = render_page(titled, intro=intro, title="audiostride demo")
    write_text(out / "report.html", page)
    print(f"\n{shown.to_string(index=False)}")
    print(f"\n{describe_outcome(table)}")
    print(f"{time.monotonic() - started:.0f} s; page: {out / 'report.html'}")
    return table


def compare_with_truth(card: dict[str, Any], results: dict[str, tuple[dict[str, Any], pd.DataFrame]]) -> pd.DataFrame:
    """True modulations beside accuracy and first-layer cut-offs, one row per task.

    Args:
        card: The card of the ripples.
        results: Per task its metrics and its cut-off table.
    """
    rows = []
    for task, (metrics, cutoffs) in results.items():
        settings = card["tasks"][task]
        first = cutoffs[cutoffs["layer"] == 1].set_index("axis")
        cutoff_hz, cutoff_mel = first.loc["time", "cutoff"], first.loc["mel", "cutoff"]
        pairs = [(rate, density) for rate in settings["rates_hz"] for density in settings["densities_cycles_per_mel"]]
        passed = sum(rate < cutoff_hz and density < cutoff_mel for rate, density in pairs)
        rows.append(
            {
                "task": settings["title"],
                "rates (Hz)": ", ".join(f"{rate:g}" for rate in settings["rates_hz"]),
                "densities (c/mel)": ", ".join(f"{value:.3f}" for value in settings["densities_cycles_per_mel"]),
                "accuracy": metrics["accuracy"],
                "stride time": first.loc["time", "stride"],
                "stride mel": first.loc["mel", "stride"],
                "cut-off (Hz)": cutoff_hz,
                "cut-off (c/mel)": cutoff_mel,
                "classes inside": f"{passed} of {len(pairs)}",
            }
        )
    return pd.DataFrame(rows)


def describe_outcome(table: pd.DataFrame) -> str:
    """One sentence on whether the learned cut-offs follow the modulations, read off the table."""
    slow, fast = table.iloc[0], table.iloc[1]
    verdicts = []
    for axis, unit in (("time", "Hz"), ("mel", "c/mel")):
        low, high = slow[f"cut-off ({unit})"], fast[f"cut-off ({unit})"]
        relation = "higher" if high > 1.05 * low else "lower" if high < 0.95 * low else "about the same"
        high_and_low = [SHOWN[f"cut-off ({unit})"].format(value) for value in (high, low)]
        verdicts.append(f"over {axis} {relation} ({' against '.join(high_and_low)} {unit})")
    followed = all("higher" in verdict for verdict in verdicts)
    sentence = f"The first layer of the {fast['task']} task has a cut-off {verdicts[0]} and {verdicts[1]}: "
    sentence += "the learned cut-offs follow the modulations." if followed else "they do not follow on both axes."
    inside, _, classes = fast["classes inside"].split()
    if inside != classes:
        sentence += (
            f" Of its classes {inside} of {classes} lie inside: the others are told apart by what the convolution "
            "in front of the pooling makes of them."
        )
    return sentence


def draw_modulation_plane(card: dict[str, Any], table: pd.DataFrame) -> Figure:
    """The true modulations of each task and the region that its first layer passes.

    Args:
        card: The card of the ripples.
        table: From ``compare_with_truth``: a row per task of the card, in its order.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2))
        panel = figure.subplots()
        for place, (task, row) in enumerate(zip(card["tasks"].values(), table.to_dict("records"), strict=True)):
            color = f"C{place}"
            points = [(density, rate) for rate in task["rates_hz"] for density in task["densities_cycles_per_mel"]]
            x, y = zip(*points, strict=True)
            panel.scatter(x, y, marker="x", s=60, color=color, zorder=3, label=row["task"])
            edge = row["cut-off (c/mel)"], row["cut-off (Hz)"]
            panel.fill([0, edge[0], edge[0], 0], [0, 0, edge[1], edge[1]], color=color, alpha=0.18, zorder=1)
            panel.plot([0, edge[0], edge[0]], [edge[1], edge[1], 0], color=color, linewidth=1.6, zorder=2)
            panel.annotate(f"passes, {row['task']}", edge, ha="right", va="bottom", color=color, fontsize=9)
        panel.set_xlim(0, 0.52)
        panel.set_ylim(0, 52)
        panel.set_xlabel("modulation density (cycles/mel)")
        panel.set_ylabel("modulation rate (Hz)")
        panel.legend(title="task", frameon=False, loc="upper right")
        return figure

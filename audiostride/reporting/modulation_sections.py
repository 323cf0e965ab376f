"""The part of a report on what the sounds contain: their modulation power, and how much of it the layers pass."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import pandas as pd

from audiostride.errors import InputError
from audiostride.reporting.blocks import Block, Drawing, Drawings, Heading, Section, Table, Text
from audiostride.reporting.modulation_figures import draw_modulations
from audiostride.reporting.modulations import SHARES, ModulationSpectrum, class_spectra, layer_gains, mean_spectrum
from audiostride.reporting.runs import RunFolder, shown_runs
from audiostride.reporting.tables import percent
from audiostride.training import TrainConfig
from audiostride.training.sources import label_column, read_source

MOST_PANELS = 12  # classes that are drawn


def modulations_section(groups: Mapping[str, Sequence[RunFolder]]) -> Section | None:
    """What training clips of each task hold, and how much of it layers of a run pass; None before a test.

    Of runs that have learned the same clips, the first one counts.
    """
    parts: dict[tuple[str, str], RunFolder] = {}
    for run in shown_runs(groups):
        for task in run.tables:
            if not run.is_multi_label(task):
                parts.setdefault((run.manifests[task], task), run)
    runs = {run.name: run for run in parts.values()}
    clips = {name: training_clips(run) for name, run in runs.items()}
    blocks: list[Block] = []
    for (manifest, task), run in parts.items():
        spectra = {}
        if task in clips[run.name]:
            spectra = class_spectra(clips[run.name][task], label_column(task), manifest, run.model.config)
        blocks += [Heading(run.title_of(task))] * (len(parts) > 1)
        whose, which = [run.name] * (len(clips) > 1), [task] * (len(run.tables) > 1)
        blocks += _task_blocks(run, task, spectra, suffix="".join(f"_{name}" for name in whose + which))
    return Section("modulations", "What the sounds contain", blocks) if blocks else None


def training_clips(run: RunFolder) -> dict[str, pd.DataFrame]:
    """The training clips of each task that have a label of it, see `read_source`; none of a manifest that is gone."""
    found: dict[str, pd.DataFrame] = {}
    with suppress(InputError):  # settings that this version does not know
        config = TrainConfig.load(run.path)
        for source in config.sources():
            with suppress(InputError):  # clips that were moved, changed or taken away
                clips, _ = read_source(source, config)
                train = clips[clips["split"] == "train"]
                found |= {task: train[train[label_column(task)] != ""] for task in source.labels}
    return found


def _task_blocks(run: RunFolder, task: str, spectra: Mapping[str, ModulationSpectrum], *, suffix: str) -> list[Block]:
    if not spectra:
        return [Text("The training clips can no longer be read, or are silent: no spectrum of them.")]
    gains, folds = layer_gains(run.model), run.model.config.pooling == "strided"
    table = pd.DataFrame(
        {
            "class": name,
            **{f"layer {number}": own.passed(*pair) for number, pair in enumerate(gains, start=1)},
            **dict(zip(("rate_hz", "density"), own.limits(0.9), strict=True)),
        }
        for name, own in spectra.items()
    ).sort_values("layer 1", kind="stable")
    first, last = table.iloc[0], table.iloc[-1]
    whole = mean_spectrum(spectra).passed(*gains[0])
    what = "keeps below its cut-offs" if folds else "passes"
    sounds = f"the sounds of {run.title_of(task)}" if suffix else "these sounds"
    text = f"Layer 1 {what} {percent(whole)} of the modulation power of {sounds}"
    if len(table) > 1:
        text += f": {percent(last['layer 1'])} of {last['class']}, {percent(first['layer 1'])} of {first['class']}, "
        text += "which loses most"
    alt = "Modulation power of the training clips by rate and density with contours, and what each layer passes"
    caption = (
        "Modulation power spectrum of the training clips: how strongly their log-mel spectrograms are modulated at "
        "each rate over time and density over mel frequency, all classes alike; to the right what falls in frequency "
        f"with time, to the left what rises. Contours hold {', '.join(f'{100 * share:g}' for share in SHARES)} % of "
        f"the power. Boxes: the cut-offs of the layers, by their numbers{'' if folds else '; shaded: their ramps'}."
    )
    shown = table.assign(rate_hz=table["rate_hz"].map("{:.0f}".format), density=table["density"].map("{:.3f}".format))
    for number in range(1, len(gains) + 1):
        shown[f"layer {number}"] = table[f"layer {number}"].map(percent)
    shown = shown.rename(columns={"rate_hz": "90 % up to (Hz)", "density": "90 % up to (cycles/mel)"})
    told = "lies below the cut-offs of" if folds else "is left behind"
    note = (
        f"Share of the modulation power of each class that {told} each layer and those in front of it, as if there "
        "were no convolutions between them; and the rate and the density up to which 90 % of it lie."
    )
    whole_drawing = Drawing(f"modulations{suffix}", alt, draw_modulations({"": mean_spectrum(spectra)}, run.model))
    blocks: list[Block] = [Text(f"{text}."), Drawings([whole_drawing], caption)]
    if 1 < len(spectra) <= MOST_PANELS:
        alt = "The same for each class; the numbers are in the table"
        classes = Drawing(f"modulations_classes{suffix}", alt, draw_modulations(spectra, run.model), min_width_px=560)
        blocks.append(Drawings([classes], "The same for each class, with the box of layer 1."))
    return [*blocks, Table(f"modulations{suffix}", note, table, shown)]

"""Tables of cells with random starting strides: accuracy and true cost beside the paper's figures, learned strides."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from audiostride.errors import InputError
from lab.random_strides_cells import CellResult
from lab.random_strides_starts import PAPER_MEANS, Start, name_start, paper_data
from lab.tables import POOLING_NAMES, format_spread

NONE = "-"  # where a cell has not been trained, or failed


def group_cells(results: Sequence[CellResult]) -> dict[tuple[Start, str], list[CellResult]]:
    """The seeds of each start and pooling.

    Raises:
        InputError: No results; a seed that occurs twice in a group.
    """
    if not results:
        raise InputError("random strides: there must be at least one finished cell, got none")
    groups: dict[tuple[Start, str], list[CellResult]] = {}
    for result in sorted(results, key=lambda result: result.seed):
        groups.setdefault((result.start, result.pooling), []).append(result)
    for (start, pooling), members in groups.items():
        seeds = [result.seed for result in members]
        if len(set(seeds)) < len(seeds):
            raise InputError(
                f"random strides: runs of {name_start(start)}, {pooling} must have different seeds, got "
                f"{' '.join(map(str, seeds))}; leave one out"
            )
    return groups


def starts_of(results: Sequence[CellResult]) -> list[Start]:
    """The starts in the order of their first results."""
    return list(dict.fromkeys(result.start for result in results))


def poolings_of(results: Sequence[CellResult]) -> list[str]:
    """The poolings in the order of tables."""
    return [pooling for pooling in POOLING_NAMES if any(result.pooling == pooling for result in results)]


def format_starts(results: Sequence[CellResult], *, arch: str, data: str, unit: str, usual: Start) -> str:
    """A Markdown table with a row per start and, as in the paper's Table 3, the poolings beside each other.

    Accuracies are mean (sd) over seeds, the sd that of a sample; costs are means. Two rows close it: the mean of the
    starts' means with their sd, and the mean with the sd of all runs, which is what the paper's row is.

    Args:
        results: Of finished cells.
        arch: One of `lab.random_strides_starts.USUAL`.
        data: cifar10 and cifar100 have the paper's figures of that data set only beside them.
        unit: What costs are of: window or image.
        usual: Strides of the strided network to which costs are relative.

    Raises:
        InputError: No results; a seed that occurs twice in a cell.
    """
    groups, starts, poolings = group_cells(results), starts_of(results), poolings_of(results)
    paper = paper_data(arch, data)
    names = [POOLING_NAMES[pooling] for pooling in poolings]
    titles = ["start", *names, *(f"cost, {name}" for name in names), *(f"the paper's, {name}" for name in paper)]
    head = (
        "Test accuracy in %, mean (sd over seeds). Cost: multiply-adds in millions of one "
        f"{unit} through the networks as they were tested (and relative to strided convolution at {name_start(usual)})."
    )
    if paper:
        of_what = "three runs" if any(paper.values()) else "runs from starts that it does not list"
        head += f" The paper's (Riad et al. 2022): strided / spectral / DiffStride, mean of {of_what}."
    lines = [head, "", "| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]

    def add_row(name: str, accuracies: list[str], costs: list[str], figures: list[str]) -> None:
        lines.append("| " + " | ".join([name, *accuracies, *costs, *figures]) + " |")

    for start in starts:
        cells = [groups.get((start, pooling), []) for pooling in poolings]
        add_row(
            name_start(start),
            [_percent([100 * result.accuracy for result in cell]) for cell in cells],
            [_cost(cell) for cell in cells],
            [" / ".join(f"{value:.1f}" for value in rows[start]) if start in rows else "" for rows in paper.values()],
        )
    means = {pooling: mean_accuracies(results, pooling) for pooling in poolings}
    notes = {
        pooling: f", {len(means[pooling])} of {len(starts)} starts" * (len(means[pooling]) < len(starts))
        for pooling in poolings
    }
    costs = [_cost([result for result in results if result.pooling == pooling]) for pooling in poolings]
    add_row(
        "mean (sd) of the starts' means",
        [_percent(list(means[pooling].values())) + notes[pooling] for pooling in poolings],
        costs,
        [_paper_start_means(rows, starts) for rows in paper.values()],
    )
    add_row(
        "mean (sd) of all runs",
        [_percent([100 * result.accuracy for result in results if result.pooling == pooling]) + notes[pooling]
         for pooling in poolings],
        costs,
        [_paper_means(arch, name, rows, starts) for name, rows in paper.items()],
    )  # fmt: skip
    return "\n".join(lines)


def mean_accuracies(results: Sequence[CellResult], pooling: str) -> dict[Start, float]:
    """Test accuracy in % of each start that the pooling has, mean over seeds."""
    return {
        start: 100 * fmean(result.accuracy for result in members)
        for (start, found), members in group_cells(results).items()
        if found == pooling
    }


def describe_recovery(results: Sequence[CellResult]) -> str:
    """How far accuracies of DiffStride depend on the start, relative to those of the others, in one sentence.

    Only starts that every pooling has are compared, since others would not be the same ones.
    """
    poolings = poolings_of(results)
    means = {pooling: mean_accuracies(results, pooling) for pooling in poolings}
    common = [start for start in starts_of(results) if all(start in found for found in means.values())]
    if len(common) < 2:
        return f"A spread over starts needs two that every pooling has, here there are {len(common)}."
    spreads = {pooling: stdev(means[pooling][start] for start in common) for pooling in poolings}
    text = f"Spread over {len(common)} starts (sd of their means): "
    own = spreads.pop("diffstride", None)
    if own is None:
        return text + ", ".join(f"{POOLING_NAMES[name]} {value:.1f} points" for name, value in spreads.items()) + "."
    parts = [
        (f"{own / value:.2f} times" if value > 0 else "against")
        + f" that of {'strided convolution' if name == 'strided' else 'spectral pooling'} ({value:.1f})"
        for name, value in spreads.items()
    ]
    return text + f"DiffStride {own:.1f} points" + (f", {' and '.join(parts)}" if parts else "") + "."


def format_learned(results: Sequence[CellResult]) -> str:
    """A Markdown table with the strides that DiffStride ended with: a row per start, means over seeds.

    Empty where there are no learned strides.
    """
    learned = {
        start: [result for result in members if result.final]
        for (start, pooling), members in group_cells(results).items()
        if pooling == "diffstride"
    }
    learned = {start: members for start, members in learned.items() if members}
    if not learned:
        return ""
    columns = layer_columns(next(iter(learned.values()))[0])
    axes = axis_names(next(iter(columns.values())))
    titles = ["start", *(f"layer {layer} ({', '.join(axes)})" for layer in columns), "product of all strides",
              f"last map ({' x '.join(axes)})"]  # fmt: skip
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for start in [start for start in starts_of(results) if start in learned]:
        members = learned[start]
        pairs = [
            ", ".join(f"{fmean(result.final[name] for result in members):.2f}" for name in names)
            for names in columns.values()
        ]
        total = fmean(math.prod(result.final.values()) for result in members)
        maps = sorted({result.last_map for result in members if result.last_map is not None})
        shown = ", ".join(" x ".join(map(str, size)) for size in maps) or NONE
        lines.append("| " + " | ".join([name_start(start), *pairs, f"{total:.1f}", shown]) + " |")
    return "\n".join(lines)


def layer_columns(result: CellResult) -> dict[str, list[str]]:
    """The names of `CellResult.final` by the number of their layer.

    >>> result = CellResult(start=(2,), pooling="diffstride", seed=0, accuracy=0.5, multiply_adds=1, relative=1,
    ...                     final={"layer1_time": 2.0, "layer1_mel": 3.0})
    >>> layer_columns(result)
    {'1': ['layer1_time', 'layer1_mel']}
    """
    columns: dict[str, list[str]] = {}
    for name in result.final:
        columns.setdefault(name.removeprefix("layer").partition("_")[0], []).append(name)
    return columns


def axis_names(columns: Sequence[str]) -> list[str]:
    """The axes of one layer's columns."""
    return [name.partition("_")[2] for name in columns]


def _percent(values: Sequence[float]) -> str:
    return format_spread(values, digits=1) if values else NONE


def _cost(results: Sequence[CellResult]) -> str:
    if not results:
        return NONE
    millions = fmean(result.multiply_adds for result in results) / 1e6
    return f"{millions:.4g} ({fmean(result.relative for result in results):.2f} x)"


def _paper_start_means(rows: Mapping[Start, tuple[float, ...]], starts: Sequence[Start]) -> str:
    """Mean and sd of the paper's row means, computed from them as ours are, where our starts are the paper's."""
    if not rows or set(starts) != set(rows):
        return ""
    return " / ".join(format_spread(values, digits=1) for values in zip(*rows.values(), strict=True))


def _paper_means(arch: str, name: str, rows: Mapping[Start, tuple[float, ...]], starts: Sequence[Start]) -> str:
    """The paper's own mean row, where our starts are the paper's, or where its starts are not known here."""
    return "" if rows and set(starts) != set(rows) else " / ".join(PAPER_MEANS[arch][name])

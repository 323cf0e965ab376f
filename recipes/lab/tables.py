"""The paper's tables from runs, as Markdown, with the paper's own figures in columns beside them."""

from collections.abc import Callable, Sequence
from statistics import fmean, mean, stdev
from typing import Any

from audiostride.errors import InputError
from audiostride.models import load_classifier
from audiostride.reporting import cutoff_table
from audiostride.reporting.cutoffs import TABLE_2, WINDOW_S
from audiostride.wording import count_of
from lab.paper import MULTI, SHARED, SINGLE, TASKS
from lab.results import TaskResult

POOLING_NAMES = {"strided": "strided", "spectral": "spectral", "diffstride": "DiffStride"}
SHARED_NAMES = {"shared": "one stride for both axes", "per_axis": "one per axis"}


def format_table_1(results: Sequence[TaskResult]) -> str:
    """Table 1: test accuracy of each task and pooling, single-task and multi-task.

    Cells are mean (sd) in % over runs, the sd that of a sample, and the number of runs. A row has one split scheme.
    """
    columns = [
        (f"{'multi' if multi else 'single'}: {shown}", multi, pooling, (MULTI if multi else SINGLE))
        for multi in (False, True)
        for pooling, shown in POOLING_NAMES.items()
    ]
    return _format_accuracies(
        results,
        [title for title, *_ in columns],
        lambda result, number: (result.multi, result.pooling) == columns[number][1:3],
        lambda task, number: columns[number][3].get(task, {}).get(columns[number][2], ""),
    )


def format_poolings(results: Sequence[TaskResult]) -> str:
    """The multi-task half of Table 1."""
    poolings = list(POOLING_NAMES)
    return _format_accuracies(
        results,
        list(POOLING_NAMES.values()),
        lambda result, number: result.pooling == poolings[number],
        lambda task, number: MULTI.get(task, {}).get(poolings[number], ""),
    )


def format_shared(results: Sequence[TaskResult]) -> str:
    """Table A.7: DiffStride with one stride for both axes of a layer against one per axis, multi-task."""
    variants = list(SHARED_NAMES)
    return _format_accuracies(
        results,
        list(SHARED_NAMES.values()),
        lambda result, number: bool(result.settings["shared_strides"]) == (variants[number] == "shared"),
        lambda task, number: SHARED.get(task, {}).get(variants[number], ""),
    )


def _format_accuracies(
    results: Sequence[TaskResult],
    titles: Sequence[str],
    fits: Callable[[TaskResult, int], bool],
    paper: Callable[[str, int], str],
) -> str:
    """A row per task and split scheme, a column per variant and one for the paper's figure of each; then the means."""
    lines = [
        "| task | split scheme | " + " | ".join(f"{title} | the paper's" for title in titles) + " |",
        "|" + " --- |" * (2 + 2 * len(titles)),
    ]
    schemes = sorted({result.scheme for result in results})
    for scheme in schemes:
        tasks = sort_tasks({result.task for result in results if result.scheme == scheme})
        table = {
            task: [
                [item for item in results if (item.task, item.scheme) == (task, scheme) and fits(item, number)]
                for number in range(len(titles))
            ]
            for task in tasks
        }
        for task, cells in table.items():
            shown = [
                f"{_format_cell(cell, f'{task}, {scheme}, {title}')} | {paper(task, number)}"
                for number, (cell, title) in enumerate(zip(cells, titles, strict=True))
            ]
            lines.append(f"| {task} | {scheme} | " + " | ".join(shown) + " |")
        if len(tasks) > 1:
            whole = tasks == list(TASKS)  # the paper's mean is that of its five tasks
            means = [_format_mean([cells[number] for cells in table.values()]) for number in range(len(titles))]
            shown = [f"{found} | {paper('mean', number) if whole else ''}" for number, found in enumerate(means)]
            lines.append(f"| mean of {len(tasks)} | {scheme} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def sort_tasks(tasks: set[str]) -> list[str]:
    """The paper's tasks in its order, then others by name."""
    return [task for task in TASKS if task in tasks] + sorted(tasks - set(TASKS))


def _format_cell(results: Sequence[TaskResult], where: str) -> str:
    if not results:
        return ""
    check_alike(results, where)
    return f"{format_spread([100 * item.accuracy for item in results], digits=1)}, {count_of(len(results), 'run')}"


def _format_mean(cells: Sequence[Sequence[TaskResult]]) -> str:
    """The mean over tasks: of several that were learned together with its spread over runs, else of their means."""
    if not all(cells):
        return ""
    seeds = [[item.seed for item in cell] for cell in cells]
    runs = [{item.run: item.accuracy for item in cell} for cell in cells]
    if all(set(members) == set(runs[0]) for members in runs):
        values = [100 * fmean(members[run] for members in runs) for run in runs[0]]
        return f"{format_spread(values, digits=1)}, {count_of(len(seeds[0]), 'run')}"
    return f"{100 * fmean(fmean(members.values()) for members in runs):.1f}"


def check_alike(results: Sequence[TaskResult], where: str) -> None:
    """Raise unless runs differ in their seeds only: a mean over anything else says nothing.

    Raises:
        InputError: Settings or tasks that differ, or the same seed twice.
    """
    first = results[0]
    for item in results[1:]:
        differing = [
            f"{name}: {first.settings.get(name)} -> {value}"
            for name, value in item.settings.items()
            if value != first.settings.get(name)
        ]
        if item.together != first.together:
            differing.append(f"tasks: {', '.join(first.together)} -> {', '.join(item.together)}")
        if differing:
            raise InputError(
                f"tables: runs of one cell ({where}) must differ in their seeds only, but {first.run} and {item.run} "
                f"differ in {'; '.join(differing)}; give them apart"
            )
    seeds = [item.seed for item in results]
    if len(set(seeds)) < len(seeds):
        listed = ", ".join(f"{item.run} (seed {item.seed})" for item in results)
        raise InputError(f"tables: runs of one cell ({where}) must have different seeds, got {listed}")


def format_spread(values: Sequence[float], *, digits: int) -> str:
    """Mean and, of several, the sample standard deviation.

    >>> format_spread([80.0, 82.0], digits=1), format_spread([0.25], digits=4)
    ('81.0 (1.4)', '0.2500')
    """
    return f"{mean(values):.{digits}f}" + (f" ({stdev(values):.{digits}f})" if len(values) > 1 else "")


def format_table_2(results: Sequence[TaskResult]) -> str:
    """Table 2: learned strides and cut-offs of the first DiffStride layer, a row for each task, or set of them.

    Cut-offs stand there twice, as ``rate / (2 S)`` and as the paper has them, rounded down to a bin of 1/160 of 100 Hz
    and 1/64 cycle/mel in each run.

    Raises:
        InputError: No run with learned strides; runs of one row that differ in more than their seeds.
    """
    groups: dict[tuple[str, str], list[TaskResult]] = {}
    for item in {item.run: item for item in results if item.pooling == "diffstride"}.values():
        schemes = sorted({other.scheme for other in results if other.run == item.run})
        groups.setdefault((_name_model(item), ", ".join(schemes)), []).append(item)
    if not groups:
        raise InputError("tables: a table of learned strides needs runs with pooling diffstride, got none")
    titles = ["stride time", "stride mel", "cut-off Hz", "to a bin", "cut-off cycles/mel", "to a bin"]
    titles += [f"the paper's {title}" for title in ("stride time", "stride mel", "cut-off Hz", "cut-off cycles/mel")]
    lines = ["| model | split scheme | runs | " + " | ".join(titles) + " |", "|" + " --- |" * (3 + len(titles))]
    order = sort_tasks({name for name, _ in groups})
    for (name, scheme), members in sorted(groups.items(), key=lambda group: (order.index(group[0][0]), group[0][1])):
        check_alike(members, f"{name}, {scheme}")
        measured = [first_layer(item) for item in members]
        shown = [
            format_spread([values[key] for values in measured], digits=digits)
            for key, digits in {"stride_time": 2, "stride_mel": 2, "hz": 2, "hz_floor": 2,
                                "mel": 4, "mel_floor": 4}.items()
        ]  # fmt: skip
        paper = TABLE_2.get("multi-task" if members[0].together == tuple(sorted(TASKS)) else name, ("",) * 4)
        lines.append(f"| {name} | {scheme} | {len(members)} | " + " | ".join([*shown, *paper]) + " |")
    return "\n".join(lines)


def first_layer(result: TaskResult) -> dict[str, float]:
    """Strides and cut-offs of the first layer of a run."""
    table = cutoff_table(load_classifier(result.run), window_s=WINDOW_S)
    rows = {axis: table[(table["layer"] == 1) & (table["axis"] == axis)].iloc[0] for axis in ("time", "mel")}
    return {
        "stride_time": float(rows["time"]["stride"]),
        "stride_mel": float(rows["mel"]["stride"]),
        "hz": float(rows["time"]["cutoff"]),
        "hz_floor": float(rows["time"]["cutoff_floor"]),
        "mel": float(rows["mel"]["cutoff"]),
        "mel_floor": float(rows["mel"]["cutoff_floor"]),
    }


def _name_model(result: TaskResult) -> str:
    return f"multi-task: {', '.join(sort_tasks(set(result.together)))}" if result.multi else result.task


def describe_differences(results: Sequence[TaskResult]) -> list[str]:
    """What a reader of a table must know: settings that vary between its cells, and sets of tasks unlike the paper's.

    Returns:
        A line for each setting with its values, but for the pooling, which is a column; one for each set of tasks.
    """
    values: dict[str, dict[str, Any]] = {}
    for item in results:
        for name, value in item.settings.items():
            if name != "pooling":
                values.setdefault(name, {})[str(value)] = None
    lines = [f"cells differ in {name}: {', '.join(found)}" for name, found in values.items() if len(found) > 1]
    sets = dict.fromkeys(item.together for item in results if item.multi and item.together != tuple(sorted(TASKS)))
    return lines + [f"learned together: {', '.join(sort_tasks(set(tasks)))}; the paper's five are others"
                    for tasks in sets]  # fmt: skip

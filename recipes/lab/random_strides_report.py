"""What a grid of starting strides has come to: tables with what they are of, and what failed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from audiostride.dataset.importers.imported import count_of
from audiostride.errors import InputError
from lab.random_starts import usual_start
from lab.random_strides_cells import AudioCells, Cell
from lab.random_strides_figure import recovery_stage
from lab.random_strides_table import describe_recovery, format_learned, format_starts

if TYPE_CHECKING:
    from lab.random_strides_images import ImageCells


def report_cells(
    learner: "AudioCells | ImageCells",
    cells: Sequence[Cell],
    failed: Mapping[Cell, str],
    folder: Path,
    *,
    arch: str,
    data: str,
) -> str:
    """Write and print the tables of finished cells, with the reasons of those that failed, and draw the figure.

    Args:
        learner: What has trained the cells.
        cells: Finished ones.
        failed: Others, with their reasons.
        folder: That of the run folders.
        arch: The network.
        data: What it has learned.

    Returns:
        What is printed.

    Raises:
        InputError: No cell is finished.
    """
    listed = describe_failures(failed)
    if not cells:
        raise InputError(f"every cell failed:\n{listed}")
    usual = usual_start(arch, cells[0].start)
    results = [learner.measure(cell, usual) for cell in cells]
    seeds = " ".join(map(str, sorted({cell.seed for cell in cells})))
    parts = [
        f"Random starting strides, {folder.parent.name}, {arch}: {learner.describe(cells[0])}, seeds {seeds}",
        format_starts(results, arch=arch, data=data, unit=learner.unit, usual=usual),
        describe_recovery(results),
        format_learned(results),
        listed,
    ]
    text = "\n\n".join(part for part in parts if part)
    recovery_stage(results, text, folder, unit=learner.unit, usual=usual)
    print(f"\n{text}\n")
    return text


def describe_failures(failed: Mapping[Cell, str]) -> str:
    """The cells that failed; a reason that several have in common stands once."""
    if not failed:
        return ""
    names: dict[str, list[str]] = {}
    for cell, reason in failed.items():
        names.setdefault(reason.replace(str(cell.run), "its folder"), []).append(cell.run.name)
    lines = [f"- {', '.join(alike)}: {reason}" for reason, alike in names.items()]
    return "\n".join([f"{count_of(len(failed), 'cell')} failed:", "", *lines])

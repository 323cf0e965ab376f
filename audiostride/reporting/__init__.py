"""Learned strides as cut-offs; tables, figures and the HTML page of a run."""

from audiostride.reporting.cutoffs import cutoff_table, format_cutoffs, summarise_cutoffs
from audiostride.reporting.figures import draw_confusion
from audiostride.reporting.page import read_run, render_page, write_report

__all__ = [
    "cutoff_table",
    "draw_confusion",
    "format_cutoffs",
    "read_run",
    "render_page",
    "summarise_cutoffs",
    "write_report",
]

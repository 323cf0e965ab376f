"""Learned strides as cut-offs; tables, figures and the HTML page of a run."""

from audiostride.reporting.class_figures import draw_confusion
from audiostride.reporting.cutoffs import cutoff_table, summarise_cutoffs
from audiostride.reporting.measuring import measure_gains
from audiostride.reporting.page import Report, draw_confusions, render_page, report, report_run, write_report
from audiostride.reporting.runs import RunFolder, read_run
from audiostride.reporting.tables import format_cutoffs

__all__ = [
    "Report",
    "RunFolder",
    "cutoff_table",
    "draw_confusion",
    "draw_confusions",
    "format_cutoffs",
    "measure_gains",
    "read_run",
    "render_page",
    "report",
    "report_run",
    "summarise_cutoffs",
    "write_report",
]

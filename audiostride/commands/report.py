"""``audiostride report``."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser


def build_parser() -> ArgumentParser:
    """The options of ``audiostride report``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders")
    parser.add_argument("-o", "--out", help="HTML page (default: report.html in the first run)")
    return parser


def run(arguments: Any) -> int:
    """Print the cut-offs of one or several runs and write them as CSV and as an HTML page."""
    from audiostride.reporting import format_cutoffs, write_report

    page = Path(arguments.out) if arguments.out else Path(arguments.runs[0]) / "report.html"
    summary = write_report([Path(run) for run in arguments.runs], page)
    print(format_cutoffs(summary))
    print(f"page: {page}\ntable: {page.with_name(page.stem + '_cutoffs.csv')}")
    return 0

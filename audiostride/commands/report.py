"""``audiostride report``."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from audiostride.errors import InputError


def build_parser() -> ArgumentParser:
    """The options of ``audiostride report``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders")
    parser.add_argument("-o", "--out", help="HTML page (default: report.html in the first run)")
    return parser


def run(arguments: Any) -> int:
    """Write the HTML page of one or several runs, with its tables and figures as files, and print the cut-offs."""
    # --help and errors in options need not wait for torch and matplotlib.
    from audiostride.reporting import format_cutoffs, report

    for folder in map(Path, arguments.runs):
        seeds = sorted(str(file.parent) for file in folder.glob("seed*/config.yaml"))
        if seeds and not (folder / "config.yaml").exists():
            raise InputError(
                f"report: {folder} must be a run folder, but holds the runs of several seeds; "
                f"give these instead: {' '.join(seeds)}"
            )
    page = Path(arguments.out) if arguments.out else Path(arguments.runs[0]) / "report.html"
    made = report([Path(run) for run in arguments.runs], page)
    print(made.headline + "\n")
    print(format_cutoffs(made.summary))
    print(f"page: {page}\ntables and figures: {page.with_name(page.stem + '_files')}")
    return 0

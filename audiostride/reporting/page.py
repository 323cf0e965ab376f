"""The report of one or several runs: a self-contained HTML page, its tables and figures as files, and in Python."""

import html
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from audiostride.errors import InputError, explained
from audiostride.reporting.blocks import Drawings, Pictures, Section, Table, file_name
from audiostride.reporting.class_figures import draw_confusion
from audiostride.reporting.runs import RunFolder, group_runs, name_runs, read_run, summarise_runs
from audiostride.reporting.sections import build_sections, draw_top
from audiostride.reporting.summary import describe_beside, describe_cutoffs, describe_results
from audiostride.training.run_files import read_table, reading_table
from audiostride.writing import make_folder, write_bytes, write_text


@dataclass(frozen=True)
class Report:
    """What a report says; in a notebook it shows its page."""

    results: str  # how well the runs did
    beside: str  # what needs no network
    cutoffs: str  # what their first layer passes
    summary: pd.DataFrame  # the cut-offs: mean and standard deviation over runs, per group, layer and axis
    top: Drawings  # the figure at the top
    sections: Sequence[Section]  # all others, with the tables
    title: str  # of the page
    intro: str = ""  # HTML that stands in front

    @property
    def headline(self) -> str:
        """What was learned, in a sentence."""
        return f"{self.results}; {self.cutoffs}"

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The numbers of every table, by its name."""
        blocks = (block for section in self.sections for block in section.blocks)
        return {block.name: block.data for block in blocks if isinstance(block, Table)}

    @cached_property
    def html(self) -> str:
        """The page."""
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("audiostride.reporting", "."),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template("page.html.jinja").render(report=self, intro=Markup(self.intro))

    def _repr_html_(self) -> str:
        # A frame of its own keeps the page's style out of the notebook, and the notebook's out of the page.
        return (
            f'<iframe title="{html.escape(self.title)}" srcdoc="{html.escape(self.html)}" '
            'style="width:100%;height:720px;border:1px solid #8888"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Report({self.headline!r}, tables: {', '.join(self.tables)})"

    def files(self) -> dict[str, bytes]:
        """Name and content of every table as CSV and Markdown, figure as SVG and PNG, picture as PNG."""
        found: dict[str, bytes] = {}
        for block in [self.top, *(block for section in self.sections for block in section.blocks)]:
            items = (
                [block] if isinstance(block, Table) else block.items if isinstance(block, Drawings | Pictures) else []
            )
            for item in items:
                found |= {file_name(item.name, suffix, found): content for suffix, content in item.files().items()}
        return found

    def write(self, page: str | Path, *, files: bool = True) -> None:
        """Write the page, the cut-offs as ``<name>_cutoffs.csv`` and, where wanted, all else to ``<name>_files``.

        Args:
            page: The page, ``.html``.
            files: Whether all tables and figures become files too.

        Raises:
            InputError: A place that cannot be written.
        """
        page = check_page_place(page)
        written = {page.with_name(f"{page.stem}_cutoffs.csv"): self.summary.to_csv(index=False).encode()}
        folder = page.with_name(f"{page.stem}_files")
        if files or folder.is_dir():  # files of an earlier page would contradict this one
            written |= {folder / name: content for name, content in self.files().items()}
        write_files(written | {page: self.html.encode("utf-8")})


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files in order, making their folders; after a failure nothing new is left.

    Raises:
        InputError: One that cannot be written.
    """
    new = [path for path in contents if not path.exists()]
    new_folders = {path.parent for path in contents if not path.parent.exists()}
    try:
        for path, content in contents.items():
            make_folder(path.parent)
            write_bytes(path, content)
    except InputError as error:
        for remove in [*(path.unlink for path in new), *(folder.rmdir for folder in new_folders)]:
            with suppress(OSError):  # such as one that was never made
                remove()
        raise InputError(f"report: {error}") from error


@explained()
def report(runs: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Report:
    """The report of one or several runs: its tables as DataFrames, its page in a notebook.

    Args:
        runs: A run folder or several.
        out: The HTML file to write, with its tables and figures in ``<name>_files`` beside it; None writes nothing.

    Returns:
        The report; ``.headline``, ``.tables``, ``.html`` and ``.write(page)`` are what it is for.

    Raises:
        InputError: No run, a folder that is not one, a page that cannot be written.
    """
    listed = [runs] if isinstance(runs, str | Path) else list(runs)
    if not listed:
        raise InputError("report: there must be at least one run folder, got none")
    if out is not None:
        check_page_place(out)
    made = build_report([read_run(run) for run in listed])
    if out is not None:
        made.write(out)
    return made


def check_page_place(page: str | Path) -> Path:
    """The path of a page that can be written: new, or in place of another page.

    Raises:
        InputError: No such folder; something else of that name.
    """
    page = Path(page)
    if not page.parent.is_dir() or page.is_dir():
        raise InputError(f"report: the page must be a file in a folder that exists, got {page}; name it with -o")
    if page.exists():
        with page.open("rb") as file:
            start = file.read(200).lstrip()
        if start and not start.startswith(b"<!DOCTYPE html"):
            raise InputError(f"report: the page must be a new file or replace a page, got {page}; name another with -o")
    return page


@explained()
def write_report(runs: Sequence[str | Path], page: str | Path, *, files: bool = False) -> pd.DataFrame:
    """Write the HTML page of run folders as `Report.write` does, and return the cut-offs.

    Args:
        runs: Run folders.
        page: The page, ``.html``.
        files: Whether all tables and figures become files too.

    Returns:
        Mean and standard deviation over the runs, per group, layer and axis.

    Raises:
        InputError: As `report`.
    """
    made = report(list(runs))
    made.write(page, files=files)
    return made.summary


@explained()
def report_run(run: str | Path) -> None:
    """Write what a person looks at into a run folder: cut-offs, pictures of confusion matrices and, last, the page.

    Where a page stands that is younger than the results there is nothing to do.

    Raises:
        InputError: As `report`.
    """
    run = Path(run)
    page, results = run / "report.html", [run / name for name in ("metrics.json", "metrics_alarms.json")]
    written = [file.stat().st_mtime_ns for file in results if file.is_file()]
    if page.is_file() and written and page.stat().st_mtime_ns > max(written):
        return
    write_text(run / "cutoffs.csv", read_run(run).cutoffs.to_csv(index=False))
    draw_confusions(run)
    write_report([run], page)


def draw_confusions(run: Path) -> None:
    """Draw each confusion matrix of a run folder, such as ``confusion_matrix_valid.csv``, as a PNG beside it."""
    for table in run.glob("confusion_matrix*.csv"):
        with reading_table("report", table):
            counts = read_table("report", table, [], index_col=0, dtype={0: str})
            if counts.shape[0] != counts.shape[1]:
                raise ValueError(f"it has {counts.shape[0]} rows of {counts.shape[1]} counts")
        write_bytes(table.with_suffix(".png"), draw_confusion(counts, format="png"))


def build_report(folders: Sequence[RunFolder], *, intro: str = "", title: str | None = None) -> Report:
    """The report of runs that have been read."""
    folders = name_runs(folders)
    groups, summary = group_runs(folders), summarise_runs(folders)
    more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
    return Report(
        results=describe_results(groups),
        beside=describe_beside(groups),
        cutoffs=describe_cutoffs(summary),
        summary=summary,
        top=draw_top(groups, summary),
        sections=build_sections(folders, groups, summary),
        title=title or f"audiostride: {folders[0].name}{more}",
        intro=intro,
    )


def render_page(folders: Sequence[RunFolder], *, intro: str = "", title: str | None = None) -> str:
    """The HTML of a report.

    Args:
        folders: The runs, see `read_run`.
        intro: HTML that goes in front of its sections.
        title: Of the page; None is made of what the runs learned.

    Raises:
        InputError: As `report`.
    """
    return build_report(folders, intro=intro, title=title).html

"""The report: the paper's tables and figures from a grid's results, with honest statistics.

inputs       what goes in and comes out
stats        estimates over items and seeds, paired tests
groups       which scores may share a column
estimates    a variant's estimate in a column; paired differences
comparisons  the claims and their tests
tables, listings, captions, numbers    what is printed; render: as Markdown, LaTeX, HTML, text
figures      what all figures share; efficiency, losses, gates: one kind of figure each
published    the published numbers
reading      what the page says in words
page         the HTML file
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.inputs import ReportInput
from harness.errors import ReportError
from harness.records.files import write_bytes, write_text
from harness.report.inputs import Report

if TYPE_CHECKING:
    from harness.report.contents import Contents

__all__ = ["Report", "ReportInput", "build_report"]


def build_report(data: ReportInput, folder: Path) -> Report:
    """Writes a grid's tables, figures and page, and returns where they are.

    A grid that is half done gives what is there. The same input gives the same bytes.

    Args:
        data: the grid's results.
        folder: where the files go; files of other names in it stay.

    Raises:
        ReportError: no cell has a score yet.
        StorageError: a file cannot be written.
    """
    from harness.report.contents import collect
    from harness.report.reading import status_line

    if data.scores.empty:
        raise ReportError(_nothing(data))
    contents = collect(data)
    written = [*_write_tables(contents, folder), *_write_figures(contents, folder)]
    page = folder / "index.html"
    names = tuple(path.name for path in (*written, page))
    write_text(page, contents.page(names))
    terminal = "\n".join([f"{data.grid_title}: {status_line(data)}\n", *contents.terminal_tables()])
    return Report(page=page, files=(*written, page), terminal=terminal)


def _nothing(data: ReportInput) -> str:
    name = data.grid_name
    failed = int((data.cells["status"] == "failed").sum()) if len(data.cells) else 0
    look = f" ({failed} failed: see `zbench status {name}`)" if failed else ""
    return (
        f"grid '{name}': nothing to report, no cell has a score yet{look}; "
        f"run `zbench run-grid {name}` first"
    )


def _write_tables(contents: Contents, folder: Path) -> list[Path]:
    written = []
    for name, text in contents.table_files():
        write_text(folder / name, text)
        written.append(folder / name)
    return written


def _write_figures(contents: Contents, folder: Path) -> list[Path]:
    from harness.report.figures import FORMATS

    written = []
    for drawing in contents.drawings:
        for suffix in FORMATS:
            path = folder / f"{drawing.name}.{suffix}"
            write_bytes(path, drawing.render(suffix))
            written.append(path)
    return written

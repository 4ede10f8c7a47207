"""The report: the paper's tables and figures from a grid's results.

What the numbers mean is found in `harness.analysis`; here it is printed.

contents     which tables and figures there are, and where each stands: begin here; sections
tables, gates, listings, costs    the tables; numbers: in print; records: in a CSV
aggregates, forgetting, tradeoffs    more than one number; pareto, point_labels: their figures
noise, variance, clusters    what scores vary by
curves, gates, bridge    the figures; figures: what they share; reuse: drawn earlier
tuning, tuning_figures    how methods were tuned
verdicts     what becomes of the claims, before all else; verdict_words: its sentences
reading      what the page says in words
theory       the convergence rates of `zbench theory`
render, latex, text, page    a table as Markdown, LaTeX and text; the HTML file
parts        what is too wide or too long for its page, in parts
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.analysis.frames import ReportInput
from harness.errors import ReportError
from harness.records.files import write_bytes, write_text

__all__ = ["Report", "ReportInput", "build_report"]


@dataclass(frozen=True)
class Report:
    """A rendered report."""

    page: Path
    files: tuple[Path, ...]
    """Every file that was written, the page among them."""
    terminal: str
    """The verdicts and tables as plain text, at most 120 columns wide."""
    verdicts: list[dict[str, object]]
    """What becomes of each claim, for a machine to read."""


def build_report(data: ReportInput, folder: Path) -> Report:
    """Writes a grid's tables, figures and page.

    A grid that is half done gives what is there. The same input gives the same bytes; figures that
    have not changed since an earlier report in the folder are not drawn again.

    Args:
        data: the grid's results.
        folder: where the files go; files of other names in it stay.

    Raises:
        ReportError: no cell has a score, or was trained, or failed.
        StorageError: a file cannot be written.
    """
    from harness.analysis.findings import find
    from harness.report import contents
    from harness.report.figures import FORMATS
    from harness.report.page import panel_images
    from harness.report.reuse import earlier_images, figures_key
    from harness.report.verdicts import claim_records

    has_failed = bool(len(data.cells)) and "failed" in set(data.cells["status"])
    if data.scores.empty and data.losses.empty and not has_failed:
        name = data.grid_name
        raise ReportError(
            f"grid '{name}': nothing to report, no cell has a score yet; "
            f"run `zbench run-grid {name}` first"
        )
    findings = find(data)
    page, key = folder / "index.html", figures_key(findings)
    drawings = contents.drawings(findings)
    images = earlier_images(page, key, drawings)
    texts = dict(contents.table_files(findings))
    for name, text in texts.items():
        write_text(folder / name, text)
    names = list(texts)
    for drawing in drawings:
        if drawing.name not in images:
            images[drawing.name] = panel_images(drawing)
            for suffix, content in drawing.files().items():
                write_bytes(folder / f"{drawing.name}.{suffix}", content)
        names += [f"{drawing.name}.{suffix}" for suffix in FORMATS]
    names.append(page.name)
    shown = [(drawing, images[drawing.name]) for drawing in drawings]
    write_text(page, contents.page_html(findings, shown, names, figures_key=key))
    return Report(
        page=page,
        files=tuple(folder / name for name in names),
        terminal=contents.terminal_text(findings),
        verdicts=list(claim_records(findings)),
    )

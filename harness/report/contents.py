"""All that a report shows, gathered once and then printed as files, page and terminal text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.analysis.columns import Group
from harness.analysis.comparisons import Comparison, compare, compare_with_published
from harness.analysis.inputs import ReportInput
from harness.analysis.measurements import Measurements
from harness.analysis.published import Published, load_published
from harness.report.bridge import BRIDGE, bridge_drawing
from harness.report.captions import STDERR
from harness.report.comparison_tables import comparison_list, comparison_records, comparison_table
from harness.report.costs import cell_table, cost_table, environment_table, failure_table
from harness.report.efficiency import efficiency_drawing
from harness.report.figures import Drawing, styles_of
from harness.report.gates import MEANING, gate_drawings, share_table
from harness.report.lines import TABLE_1, TABLE_2, Line, PaperTable, table_lines
from harness.report.listings import (
    anchor_table,
    protocol_table,
    published_tables,
    score_records,
    score_table,
)
from harness.report.losses import loss_drawing
from harness.report.page import (
    Page,
    Section,
    drawing_html,
    folded_html,
    list_html,
    paragraphs_html,
    render_page,
    tables_html,
    text_html,
)
from harness.report.reading import cautions, findings, status_line
from harness.report.render import Table, to_latex, to_markdown, to_text
from harness.report.responses import position_table, response_table
from harness.report.tables import paper_table, table_records
from harness.report.theory import theory_section

TERMINAL_WIDTH = 120
"""Columns of the terminal."""

TERMINAL_DIGITS = 1
"""Decimals of a percent in the terminal."""

NOTHING_DRAWN = {
    "sample-efficiency": "Nothing to draw yet: it needs trained cells with ARC-Easy and "
    "ARC-Challenge, or with every benchmark of the average.",
    "training-loss": "Nothing to draw yet: no cell is trained.",
}
"""What stands in the place of a figure."""


@dataclass(frozen=True)
class Contents:
    """A report before it is printed."""

    data: ReportInput
    measured: Measurements
    published: Published
    lines: dict[tuple[str, Group], list[Line]]
    """By the paper's table and group."""
    comparisons: dict[Group, list[Comparison]]
    drawings: tuple[Drawing, ...]

    def paper_tables(self, paper: PaperTable, digits: int = 2) -> list[Table]:
        """Returns a paper's table, once per group."""
        return [
            paper_table(self.measured, self.lines[paper.name, group], group, paper, digits=digits)
            for group in self.measured.groups
        ]

    def comparison_tables(self, digits: int = 2) -> list[Table]:
        """Returns the comparisons with a column per benchmark, once per group."""
        return [
            comparison_table(found, group, digits=digits)
            for group, found in self.comparisons.items()
        ]

    def response_tables(self) -> list[Table]:
        """Returns what is odd about generated responses, once per group that has any."""
        found = [response_table(self.measured, group) for group in self.measured.groups]
        return [table for table in (*found, position_table(self.measured)) if table is not None]

    def terminal_tables(self) -> list[str]:
        """Returns the tables that the terminal shows."""
        digits = TERMINAL_DIGITS
        tables = [
            *self.paper_tables(TABLE_1, digits),
            *self.paper_tables(TABLE_2, digits),
            *self.comparison_tables(digits),
        ]
        # Each note once, at the end: the tables stand close together.
        notes = dict.fromkeys(note for table in tables for note in table.notes)
        texts = [to_text(replace(table, notes=()), TERMINAL_WIDTH) for table in tables]
        return [*texts, *(textwrap.fill(note, TERMINAL_WIDTH) for note in notes)]

    def table_files(self) -> Iterator[tuple[str, str]]:
        """Yields name and text of every table's file."""
        for paper in (TABLE_1, TABLE_2):
            tables = self.paper_tables(paper)
            yield f"{paper.name}.md", _joined([to_markdown(table) for table in tables])
            yield f"{paper.name}.tex", _joined([to_latex(table) for table in tables])
            records = [
                record
                for group in self.measured.groups
                for record in table_records(paper, group, self.lines[paper.name, group])
            ]
            yield f"{paper.name}.csv", _csv(records)
        wide = self.comparison_tables()
        long = [comparison_list(found, group) for group, found in self.comparisons.items()]
        yield "comparisons.md", _joined([to_markdown(table) for table in (*wide, *long)])
        yield "comparisons.tex", _joined([to_latex(table) for table in wide])
        found = [entry for entries in self.comparisons.values() for entry in entries]
        yield "comparisons.csv", _csv(comparison_records(found))
        responses = self.response_tables()
        if responses:
            yield "responses.md", _joined([to_markdown(table) for table in responses])
        yield "scores.md", to_markdown(score_table(self.data.scores))
        yield "scores.csv", _csv(score_records(self.data.scores))

    def page(self, file_names: Sequence[str]) -> str:
        """Returns the HTML page."""
        found = [entry for entries in self.comparisons.values() for entry in entries]
        return render_page(
            Page(
                grid_name=self.data.grid_name,
                heading=self.data.grid_title,
                status=status_line(self.data) + ".",
                lead=(*self.data.notes, *findings(found, has_groups=len(self.comparisons) > 1)),
                sections=tuple(self._sections(file_names)),
            )
        )

    def _sections(self, file_names: Sequence[str]) -> Iterator[Section]:
        tables = [*self.paper_tables(TABLE_1), *self.paper_tables(TABLE_2)]
        # The page says once how the errors are made; the files each stand alone.
        tables[1:] = [
            replace(table, caption=tuple(text for text in table.caption if text != STDERR))
            for table in tables[1:]
        ]
        yield Section("tables", "Tables", tables_html(tables))
        long = [comparison_list(entries, group) for group, entries in self.comparisons.items()]
        folded = folded_html("Every comparison with interval and p", tables_html(long))
        body = tables_html(self.comparison_tables()) + folded
        yield Section("comparisons", "Paired comparisons", body)
        if responses := self.response_tables():
            yield Section("responses", "Generated responses", tables_html(responses))
        for prefix, title in (
            ("sample-efficiency", "Sample efficiency"),
            ("training-loss", "Training loss"),
        ):
            figures = [drawing_html(d) for d in self.drawings if d.name.startswith(prefix)]
            none = paragraphs_html([NOTHING_DRAWN[prefix]])
            yield Section(prefix, title, "\n".join(figures) or none)
        yield from self._gate_section()
        yield from self._theory_sections()
        body = list_html(cautions(self.measured, self.published))
        yield Section("reading", "What may be read from this", body)
        body = tables_html([protocol_table(self.measured, group) for group in self.measured.groups])
        yield Section("protocol", "Protocol", body)
        yield from self._published_sections()
        cells = self.data.cells
        body = tables_html([cost_table(cells)])
        if (cells["status"] == "failed").any():
            body += tables_html([failure_table(cells)])
        body += folded_html("Every cell", tables_html([cell_table(cells)]))
        yield Section("costs", "Costs and cells", body)
        body = folded_html("Every score", tables_html([score_table(self.data.scores)]))
        yield Section("scores", "All scores", body)
        yield Section("grid", "Grid", text_html(self.data.grid_yaml))
        body = tables_html([environment_table(self.data.environment)])
        yield Section("environment", "Environment", body)
        yield Section("files", "Files beside this page", paragraphs_html([", ".join(file_names)]))

    def _gate_section(self) -> Iterator[Section]:
        figures = [drawing_html(d) for d in self.drawings if d.name.startswith("gates-")]
        table = share_table(self.measured)
        meaning = [paragraphs_html([MEANING])] if figures else []
        body = "\n".join([*meaning, *figures, *([tables_html([table])] if table else [])])
        if body:
            yield Section("gates", "Gates and prompts", body)

    def _theory_sections(self) -> Iterator[Section]:
        figures = [drawing_html(d) for d in self.drawings if d.name.startswith(BRIDGE)]
        if figures:
            yield Section(BRIDGE, "Error and examples", "\n".join(figures))
        section = theory_section(self.data.theory) if self.data.theory else None
        if section is not None:
            yield section

    def _published_sections(self) -> Iterator[Section]:
        titles = {variant.method_name: variant.title for variant in self.measured.cells}
        theirs = published_tables(self.published, self.measured.models, titles)
        anchors = anchor_table(self.published, self.data.scores)
        tables = [*theirs, *([anchors] if anchors else [])]
        if tables:
            yield Section("published", "Published values", tables_html(tables))


def collect(data: ReportInput) -> Contents:
    """Returns the contents of a report."""
    from harness.evaluation.benchmarks import BENCHMARKS

    measured, published = Measurements(data, BENCHMARKS), load_published()
    lines = {
        (paper.name, group): table_lines(measured, published, group, paper)
        for paper in (TABLE_1, TABLE_2)
        for group in measured.groups
    }
    comparisons = {
        group: [
            entry
            for model in measured.models
            for entry in (
                *compare(measured, group, model),
                *compare_with_published(measured, published, group, model),
            )
        ]
        for group in measured.groups
    }
    return Contents(data, measured, published, lines, comparisons, _drawings(measured, published))


def _drawings(measured: Measurements, published: Published) -> tuple[Drawing, ...]:
    styles = styles_of(list(measured.cells))
    found = [
        efficiency_drawing(measured, group, model, styles)
        for group in measured.groups
        for model in measured.models
    ]
    found += [loss_drawing(measured, published, model, styles) for model in measured.models]
    found += gate_drawings(measured)
    found += [
        bridge_drawing(measured, group, model, styles)
        for group in measured.groups
        for model in measured.models
    ]
    return tuple(drawing for drawing in found if drawing is not None)


def _joined(texts: Sequence[str]) -> str:
    return "\n".join(texts)


def _csv(records: Sequence[dict[str, object]]) -> str:
    import pandas as pd

    return str(pd.DataFrame(records).convert_dtypes().to_csv(index=False, lineterminator="\n"))

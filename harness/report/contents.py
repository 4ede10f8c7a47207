"""What a report holds: its tables, figures and sections, and where each of them stands.

A new table is a function of the findings in a file of its own, and an entry of TABLES. The tables
of scores are those of the grid.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, product

from harness.analysis.findings import Findings
from harness.analysis.layout import OTHERS, ScoreTable
from harness.errors import printable
from harness.report import (
    aggregates,
    clusters,
    comparisons,
    costs,
    forgetting,
    listings,
    noise,
    pareto,
    tables,
    tradeoffs,
    variance,
    verdicts,
)
from harness.report.bridge import bridge_drawing
from harness.report.captions import Captions
from harness.report.curves import efficiency_drawings, loss_drawing
from harness.report.figures import Drawing, styles_of
from harness.report.gates import MEANING, gate_drawing, share_table
from harness.report.items import items_section
from harness.report.latex import to_latex
from harness.report.overlap import overlap_score_table, overlap_table, unknown_sentences
from harness.report.page import Section, html, render_page
from harness.report.pictures import effect_table, pictures_section
from harness.report.prompts import prompts_section
from harness.report.published_runs import run_drawing, run_records, run_table
from harness.report.reading import caution_sentences, headline_sentences, status_line
from harness.report.render import Table, to_markdown
from harness.report.sections import NOTHING, SECTIONS
from harness.report.text import to_text
from harness.report.theory import theory_section
from harness.report.tuning import choice_table, trial_records, tuned_records, tuned_tables
from harness.report.tuning_figures import tuning_drawings
from harness.report.validation import validation_table

TERMINAL_WIDTH = 120
"""Columns of the terminal."""

TERMINAL_DIGITS = 1
"""Decimals of a percent in the terminal."""


@dataclass(frozen=True)
class TableKind:
    """Tables of one kind: where they stand on the page, and the files that hold them."""

    section: str
    """An anchor of SECTIONS; empty for the files alone."""
    tables: Callable[..., list[Table]]
    """Takes the findings and, where the terminal shows it, `digits`."""
    records: Callable[[Findings], list[dict[str, object]]] | None = None
    """Rows of its CSV."""
    file: str = ""
    """Name of its files without suffix; empty for the page alone."""
    formats: tuple[str, ...] = ("md",)
    folded: str = ""
    """The line that unfolds it on the page, where it is long."""
    in_terminal: bool = False


COMPARED = ((False, "comparisons"), (True, f"comparisons-{OTHERS}"))
"""Whether the columns stand in no table of the grid, and the files that hold their comparisons."""

VERDICTS = TableKind(
    "", verdicts.verdict_table, verdicts.verdict_records, file="verdicts", formats=("md", "tex")
)

TABLES = (
    *(
        TableKind(
            "comparisons",
            partial(comparisons.comparison_tables, is_rest=is_rest),
            partial(comparisons.comparison_records, is_rest=is_rest),
            file=file,
            formats=("md", "tex"),
            in_terminal=True,
        )
        for is_rest, file in COMPARED
    ),
    *(
        TableKind(
            "comparisons",
            partial(comparisons.comparison_lists, is_rest=is_rest),
            file=file,
            folded="Every comparison with interval and p" + ", other benchmarks" * is_rest,
        )
        for is_rest, file in COMPARED
    ),
    *(
        TableKind("tuning", tables, records, file, ("md", "tex"), in_terminal=True)
        for file, tables, records in (
            ("tuning", choice_table, trial_records),
            ("tuned", tuned_tables, tuned_records),
        )
    ),
    *(
        TableKind(file, tables, records, file, ("md", "tex"))
        for file, tables, records in (
            ("aggregates", aggregates.aggregate_tables, aggregates.aggregate_records),
            ("forgetting", forgetting.forgetting_tables, forgetting.forgetting_records),
            ("pareto", tradeoffs.cost_score_tables, tradeoffs.cost_score_records),
        )
    ),
    TableKind("noise", noise.floor_table, noise.floor_records, file="noise"),
    TableKind("noise", noise.draw_tables, file="noise"),
    TableKind(
        *("noise", variance.variance_tables, variance.variance_records),
        file="variance",
        folded="Where the variance of each mean comes from",
    ),
    TableKind(
        *("noise", clusters.cluster_tables, clusters.cluster_records),
        file="clusters",
        folded="Errors of items that share a source",
    ),
    TableKind("responses", listings.flag_tables, file="responses"),
    TableKind("responses", listings.order_table, file="responses"),
    TableKind("training-loss", validation_table),
    TableKind("gates", share_table),
    TableKind("gates", effect_table),
    TableKind("protocol", listings.protocol_tables),
    TableKind("overlap", overlap_table, file="overlap"),
    TableKind(
        *("overlap", overlap_score_table),
        file="overlap",
        folded="Scores with and without the items that were found",
    ),
    TableKind("runs", run_table, run_records, file="published-runs", formats=("md", "tex")),
    TableKind("published", listings.published_tables),
    TableKind("published", listings.anchor_table),
    TableKind("costs", costs.cost_table),
    TableKind("costs", costs.failure_table),
    TableKind("costs", costs.cell_table, folded="Every cell"),
    TableKind(
        "scores", listings.score_table, listings.score_records, file="scores", folded="Every score"
    ),
    TableKind("environment", costs.environment_table),
)


def table_kinds(findings: Findings) -> tuple[TableKind, ...]:
    """The verdicts, the tables of scores as the grid states them, and all others."""
    return (VERDICTS, *map(_score_kind, findings.measured.layout.tables), *TABLES)


def _score_kind(table: ScoreTable) -> TableKind:
    return TableKind(
        "tables",
        partial(tables.score_tables, table),
        partial(tables.table_records, table),
        file=table.name,
        formats=("md", "tex"),
        in_terminal=True,
    )


SAID_ONCE = {tables.STDERR, aggregates.BOOTSTRAP, pareto.DEFINITION}
"""Sentences of captions that the page has once."""


def drawings(findings: Findings) -> list[Drawing]:
    """All figures."""
    measured = findings.measured
    styles = styles_of(list(measured.cells))
    found = [
        *(
            drawing
            for key in findings.efficiency
            for drawing in efficiency_drawings(findings, *key, styles)
        ),
        *tradeoffs.tradeoff_drawings(findings, styles),
        run_drawing(findings),
        *(loss_drawing(findings, curves, styles) for curves in findings.losses),
        *tuning_drawings(findings.data.tunings, styles),
        *(gate_drawing(curves) for curves in findings.gates),
        *(
            bridge_drawing(measured, group, model, data, styles)
            for group, model in product(measured.groups, measured.models)
            for data in measured.data_sets(model)
        ),
    ]
    return _named_apart([drawing for drawing in found if drawing is not None])


def _named_apart(found: Sequence[Drawing]) -> list[Drawing]:
    """Drawings none of which has the name of another, in any file system."""
    names: set[str] = set()
    apart = []
    for drawing in found:
        tries = chain([drawing.name], (f"{drawing.name}-{number}" for number in count(2)))
        name = next(name for name in tries if name.casefold() not in names)
        names.add(name.casefold())
        apart.append(replace(drawing, name=name))
    return apart


def table_files(findings: Findings) -> Iterator[tuple[str, str]]:
    """Yields name and text of every table's file, and of what keeps the verdicts."""
    yield from verdicts.verdict_files(findings)
    writers = {"md": to_markdown, "tex": to_latex}
    kinds = table_kinds(findings)
    for file in dict.fromkeys(entry.file for entry in kinds if entry.file):
        entries = [entry for entry in kinds if entry.file == file]
        for suffix, write in writers.items():
            found = [t for e in entries if suffix in e.formats for t in e.tables(findings)]
            if found:
                yield f"{file}.{suffix}", "\n".join(write(table) for table in found)
        for entry in entries:
            if entry.records is not None and (records := entry.records(findings)):
                yield f"{file}.csv", _csv(records)


def _csv(records: Sequence[dict[str, object]]) -> str:
    import pandas as pd

    plain = [
        {name: printable(value) if isinstance(value, str) else value for name, value in one.items()}
        for one in records
    ]
    return str(pd.DataFrame(plain).convert_dtypes().to_csv(index=False, lineterminator="\n"))


def terminal_text(findings: Findings) -> str:
    """What the terminal shows: how much is done, the verdicts, and the main tables."""
    shown = [entry for entry in table_kinds(findings) if entry.in_terminal]
    found = [table for entry in shown for table in entry.tables(findings, digits=TERMINAL_DIGITS)]
    # Each note once, at the end: the tables stand close together.
    notes = dict.fromkeys(note for table in found for note in table.notes)
    texts = [to_text(replace(table, notes=()), TERMINAL_WIDTH) for table in found]
    title, notes_found = printable(findings.data.grid_title), map(printable, notes)
    status = textwrap.fill(f"{title}: {status_line(findings.data)}", TERMINAL_WIDTH) + "\n"
    if judged := verdicts.verdict_text(findings, TERMINAL_WIDTH):
        status += f"\n{judged}"
    if findings.data.scores.empty:
        texts.append(f"No cell has a score yet: see `zbench status {findings.data.grid_name}`.")
    return "\n".join(
        [status, *texts, *(textwrap.fill(note, TERMINAL_WIDTH) for note in notes_found)]
    )


def page_html(
    findings: Findings,
    figures: Sequence[tuple[Drawing, Sequence[str]]],
    file_names: Sequence[str],
    *,
    figures_key: str,
) -> str:
    """The page, with figures that each come with the images of their panels.

    What was written beside it is named; for the figures' key see `harness.report.reuse`.
    """
    data = findings.data
    return render_page(
        grid_name=data.grid_name,
        heading=data.grid_title,
        status=status_line(data) + ".",
        box=verdicts.verdict_box(findings),
        lead=headline_sentences(findings),
        sections=list(_sections(findings, figures, file_names)),
        figures_key=figures_key,
    )


def _sections(
    findings: Findings, figures: Sequence[tuple[Drawing, Sequence[str]]], file_names: Sequence[str]
) -> Iterator[Section]:
    data, said, kinds = findings.data, set[str](), table_kinds(findings)
    texts = {
        "theory": theory_section(data.theory) if data.theory is not None else "",
        "items": items_section(findings.items),
        "pictures": pictures_section(findings.sheets),
        "noise": html("paragraphs", noise.noise_sentences(findings)),
        "reading": html("paragraphs", data.notes) + html("bullets", caution_sentences(findings)),
        "forgetting": html("paragraphs", forgetting.missing_lines(findings)),
        "overlap": html("paragraphs", unknown_sentences(findings)),
        "prompts": prompts_section(data.prompts),
        "grid": html("text", data.grid_yaml),
        "files": html("paragraphs", [", ".join(file_names)]),
    }
    for anchor, title in SECTIONS.items():
        captions = Captions(said)
        drawn = [
            html("drawing", captions.of_drawing(drawing), images)
            for drawing, images in figures
            if drawing.name.startswith(f"{anchor}-")
        ]
        parts = [html("paragraphs", [MEANING])] if drawn and anchor == "gates" else []
        parts += [texts.get(anchor, ""), *drawn]
        for entry in kinds:
            if entry.section == anchor and (found := entry.tables(findings)):
                body = html("tables", list(map(captions.of_table, found)))
                said |= {text for text in SAID_ONCE if captions.has_said(text)}
                parts.append(html("folded", entry.folded, body) if entry.folded else body)
        if anchor in NOTHING and not any(parts):
            parts.append(html("paragraphs", [NOTHING[anchor]]))
        if body := "\n".join(part for part in parts if part):
            yield Section(anchor, title, body)

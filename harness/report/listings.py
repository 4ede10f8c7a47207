"""The other tables: all scores, how columns were measured, published values, responses."""

from __future__ import annotations

import math
from functools import lru_cache

from harness.analysis.columns import Setting, is_missing, records_of
from harness.analysis.findings import Findings
from harness.analysis.responses import FLAGS
from harness.analysis.scales import scale_of
from harness.analysis.stats import Estimate
from harness.analysis.variants import name_of, variant_of
from harness.grid.column_sets import where_text
from harness.report.numbers import (
    MISSING,
    count,
    interval_text,
    percent,
    points,
    scaled,
    share_text,
)
from harness.report.render import Table, blocks, row


@lru_cache(maxsize=1)  # for the file and for the page
def score_table(findings: Findings) -> list[Table]:
    """Every benchmark's score of every cell; single subjects are in the CSV alone."""
    lines = []
    notes: dict[str, int] = {}
    no_shares: dict[str, None] = {}
    for record in records_of(findings.scores):
        note, variant = record["note"], variant_of(record)
        unit = None if is_missing(record.get("unit")) else str(record["unit"])
        scale = scale_of(unit, [record["value"]] if finite_number(record["value"]) else [])
        no_shares |= {} if unit is None else {unit: None}
        mark = "" if is_missing(note) else str(notes.setdefault(str(note), len(notes) + 1))
        lines.append(
            [
                *(variant.model, name_of(variant), share_text(variant.fraction)),
                *(count(record["seed"]), record["protocol"], record["benchmark"], record["metric"]),
                *(scaled(record["value"], scale), scaled(record["stderr"], scale)),
                *(count(record[name]) for name in ("n", "shots", "limit")),
                mark,
            ]
        )
    own = f" As they are, since no shares: {', '.join(no_shares)}." if no_shares else ""
    table = Table(
        name="scores",
        title="All scores",
        header=(
            *("Model", "Method", "Data", "Seed", "Protocol", "Benchmark", "Metric"),
            *("Percent", "SE", "Items", "Shots", "Limit", "Note"),
        ),
        rows=blocks(lines, 4),
        caption=(
            "One line per cell, benchmark and metric; SE: standard error over the items of that "
            f"cell.{own} scores.csv holds the single subjects and the identity of every "
            "evaluation too.",
        ),
        notes=tuple(f"Note {number}: {note}." for note, number in notes.items()),
        num_text_columns=7,
    )
    return [table] if lines else []


def finite_number(value: object) -> bool:
    """Whether a frame's value is a number."""
    return isinstance(value, int | float) and math.isfinite(value)


def score_records(findings: Findings) -> list[dict[str, object]]:
    """Scores for their CSV, with a column for each response flag.

    What no score says beyond its default (unit, direction, form, definition) has no column.
    """
    scores = findings.data.scores
    silent = {"made"} | {name for name in ("unit", "form", "definition")
                         if name in scores and scores[name].isna().all()}  # fmt: skip
    if "unit" in silent and scores["higher_is_better"].fillna(True).astype(bool).all():
        silent.add("higher_is_better")
    counted = scores.get("response_flags", ())
    told = {key for one in counted if isinstance(one, dict) for key in one}
    flags = [key for key in FLAGS if key in told or key != "not_extracted"]
    records = []
    for record in records_of(scores):
        counts = record.pop("response_flags", None)
        counts = counts if isinstance(counts, dict) else {}
        kept = {name: value for name, value in record.items() if name not in silent}
        records.append(kept | {f"responses_{name}": counts.get(name) for name in flags})
    return records


def protocol_tables(findings: Findings) -> list[Table]:
    """How each column was measured, once per group."""
    measured, tables = findings.measured, []
    for group in measured.groups:
        rows, warnings = [], []
        for column, setting in group.settings.items():
            found = {
                name: measured.distinct(setting, name)
                for name in ("data_source", "precision", "tokenizer_sha256")
            }
            sources, precisions = (
                ", ".join(sorted(set().union(*found[name].values())))
                for name in ("data_source", "precision")
            )
            shots = f"{setting.shots} ({setting.form})" if setting.form else str(setting.shots)
            sizes = measured.rows[setting]["n"].dropna().astype(int)
            rows.append(
                row(
                    *(column, _items_meant(setting), setting.protocol, setting.metric),
                    *(sources, setting.data[:8], precisions, shots),
                    "all" if setting.limit is None else str(setting.limit),
                    "–".join(map(str, sorted({min(sizes), max(sizes)}))) if len(sizes) else MISSING,
                    *(setting.task_version, setting.lm_eval_version),
                )
            )
            warnings += [
                f"Warning: {column} of {model} was measured with more than one {name}: "
                f"{', '.join(value[:12] for value in values)}."
                for name in ("precision", "tokenizer_sha256")
                for model, values in found[name].items()
                if len(values) > 1
            ]
        table = Table(
            name="protocol" + group.suffix(),
            title="How each column was measured",
            subtitle=group.title,
            header=(
                *("Column", "Benchmark", "Protocol", "Metric", "Items from", "Identity"),
                *("Precision", "Shots", "Limit", "Items", "Version", "lm-eval"),
            ),
            rows=tuple(rows),
            notes=(*group.notes, *warnings),
            num_text_columns=7,
        )
        tables.append(table)
    return tables


def _items_meant(setting: Setting) -> str:
    """A benchmark, and which of its items count."""
    if not setting.where:
        return setting.benchmark
    return f"{setting.benchmark}: {where_text(setting.where)}"


def published_names(findings: Findings) -> list[str]:
    """The published tables that tell of what the grid measures; the first ones where none does."""
    published = findings.published
    measured = {s.benchmark for group in findings.measured.groups for s in group.settings.values()}

    def is_about(name: str) -> bool:
        columns = (published.columns.get(c) for row in published.tables[name] for c in row.values)
        return any(c is not None and c.benchmark in one for c in columns for one in measured)

    found = [name for name in published.tables if is_about(name)]
    return found or [name for name in published.tables if name.startswith("table")]


def published_tables(findings: Findings) -> list[Table]:
    """The paper's rows of the grid's models, whole, with the protocol of each column."""
    published, models = findings.published, findings.measured.models
    titles = {variant.method_name: variant.title for variant in findings.measured.cells}
    tables = []
    for name in published_names(findings):
        entries = published.tables[name]
        columns = list(entries[0].values)
        shown = [entry for entry in entries if entry.model is None or entry.model in models]
        rows = [
            row(
                entry.model or "",
                entry.name or titles.get(str(entry.method), str(entry.method)),
                entry.params or MISSING,
                *(f"{entry.values[column]:.2f}" for column in columns),
            )
            for entry in shown
        ]
        if any(entry.model is not None for entry in shown):
            tables.append(
                Table(
                    name=f"published-{name}",
                    title=f"As published: {published.titles[name]}",
                    header=("Model", "Method", "Params", *columns),
                    rows=tuple(rows),
                    caption=(f"{published.sources[name]}. {published.notes[name].strip()}",),
                    num_text_columns=2,
                )
            )
    return tables


def anchor_table(findings: Findings) -> list[Table]:
    """Our base models beside published ones, where a model has any."""
    rows = [
        row(
            *(anchor.model, anchor.benchmark, anchor.metric),
            *(percent(ours, 1), f"{anchor.value:.1f}", points(ours - anchor.value / 100, 1)),
        )
        for anchor, ours in findings.anchors
    ]
    source = findings.published.anchor_source
    table = Table(
        name="anchors",
        title="The untrained base models beside published scores",
        header=("Model", "Benchmark", "Metric", "Ours", "Published", "Difference"),
        rows=tuple(rows),
        caption=(f"Percent, lm-eval, 0-shot, all items. Source: {source}.",),
        num_text_columns=3,
    )
    return [table] if rows else []


MEANINGS = {
    "several_named": "Names several: more than one option occurs in the response, which is wrong "
    "by the rule, whatever it says.",
    "empty": "Empty: nothing was said.",
    "ratio_alone": "Right by similarity alone: no option occurs, and the right one is the most "
    "similar text.",
    "gold_first": "Gold stands first: the right option is the first of the list, where ties of "
    "similarity fall.",
    "not_extracted": "Not extracted: the official pattern does not occur exactly once with the "
    "letter of an option; such a response is wrong here, where the official scoring draws one.",
}
"""What the flags say."""


def flag_tables(findings: Findings) -> list[Table]:
    """Response flags by variant and column, once per group that has any."""
    tables = []
    for group, lines in findings.flags.items():
        flags = [key for key in FLAGS if any(key in line.shares for line in lines)]
        rows = [
            [
                *(line.variant.model, findings.measured.row_name(line.variant), line.column),
                *(str(line.num_responses), percent(line.score.value if line.score else None, 1)),
                *(percent(line.shares.get(key), 1) for key in flags),
            ]
            for line in lines
        ]
        table = Table(
            name="responses" + group.suffix(),
            title="Responses that the score alone does not tell",
            subtitle=group.title,
            header=(
                "Model",
                "Method",
                "Column",
                "Responses",
                "Score",
                *(FLAGS[key] for key in flags),
            ),
            rows=blocks(rows, 2),
            caption=(
                " ".join(
                    ["Percent of all responses, over the seeds.", *(MEANINGS[key] for key in flags)]
                ),
            ),
            num_text_columns=3,
        )
        tables += [table] if rows else []
    return tables


def order_table(findings: Findings) -> list[Table]:
    """Scores with options as given and shuffled, where any were shuffled."""
    rows = [
        row(
            *(line.variant.model, findings.measured.row_name(line.variant), line.benchmark),
            *(percent(score, 1) for score in (line.given, line.shuffled)),
            _order_difference(line.difference),
        )
        for line in findings.orders
    ]
    table = Table(
        name="position-bias",
        title="What the order of the options does",
        header=("Model", "Method", "Benchmark", "As given", "Shuffled", "Difference"),
        rows=tuple(rows),
        caption=(
            "Percent, and points with a 95% interval, paired by question and seed (with one seed: "
            "of this trained model). As given, the right option stands first in every question; "
            "only that column stands beside published values.",
        ),
        num_text_columns=3,
    )
    return [table] if rows else []


def _order_difference(estimate: Estimate | None) -> str:
    if estimate is None or estimate.interval is None:
        return points(estimate.value if estimate else None, 1)
    return f"{points(estimate.value, 1)} ({interval_text(estimate.interval, 1)})"

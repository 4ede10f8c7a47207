"""The tables of scores, with published values beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from harness.analysis.columns import Group
from harness.analysis.findings import Findings
from harness.analysis.layout import ScoreTable, listed
from harness.analysis.measurements import Measurements
from harness.analysis.published import Published, PublishedRow
from harness.analysis.scales import Scale, scale_of
from harness.analysis.score_tables import Line, title_of
from harness.analysis.stats import Estimate
from harness.grid.column_sets import where_text
from harness.grid.questions import ALL
from harness.report.numbers import (
    MISSING,
    scaled,
    share_text,
    short_count,
)
from harness.report.records import estimate_record
from harness.report.render import Entry, Row, Table, row

NO_ITEMS = "†"
"""Marks a standard error that was made without per-item records."""

SEEDS_ALONE = "¶"
"""Marks a standard error that knows the seeds alone."""

OTHER_SPLIT = "§"
"""Marks a published value of another split than the test split."""

STDERR = (
    "The standard error takes items and seeds as crossed random samples: with A the score of one "
    "seed, S² its variance over the k seeds, and MS the mean squares of each benchmark's seeds × n "
    "items table, it is the root of max(S²/k, Σ w² MS(rest)/(k·n)) + Σ w² max(0, MS(items) − "
    "MS(rest))/(k·n); of one seed: Σ w² var(items)/n, which knows nothing of other seeds. w is a "
    "benchmark's weight in an average."
)

ONE_SEED = (
    "Seeds 1: the error is that of new items for this one trained model; what another seed would "
    "score is not in it."
)


def score_tables(table: ScoreTable, findings: Findings, digits: int = 2) -> list[Table]:
    """A table of scores, once per group; `digits` are the decimals of a percent."""
    return [
        _table(findings, group, table, lines, digits)
        for (shown, group), lines in findings.lines.items()
        if shown is table
    ]


def _table(
    findings: Findings, group: Group, table: ScoreTable, lines: Sequence[Line], digits: int
) -> Table:
    scales = _scales(group, [line.estimates for line in lines], digits)
    rows: list[Row] = []
    block = model = None
    mixture = findings.mixtures.get(group)
    for line in lines:
        variant = line.variant
        starts = (variant.model, variant.data) != block
        head = variant.model if variant.model != model else ""
        mark = mixture.mark(variant.model, line.name) if mixture else ""
        rows.append(_value_row(line, table, scales, head, mark, starts))
        block, model = (variant.model, variant.data), variant.model
        if line.published is not None:
            rows.append(_published_row(line, line.published, table, findings.published, group))
    rows += _reference_rows(table, findings.published, group)
    chances = {column: findings.measured.chance(group, column) for column in group.columns}
    if any(chance is not None for chance in chances.values()):
        values = [scaled(chance, scales[column]) for column, chance in chances.items()]
        blanks = [""] * (2 if table.has_params else 1)
        rows.append(row("", "Chance", *blanks, *values, starts_block=True, is_reference=True))
    head_names = ("Model", "Method", *["Params"] * table.has_params, "Seeds")
    return Table(
        name=table.name + group.suffix().removeprefix(f"-{table.name}"),
        title=title_of(table, group),
        subtitle=group.title if mixture is None else f"{group.title} · {mixture.head}",
        header=(*head_names, *map(group.head, group.columns)),
        rows=tuple(rows),
        caption=_caption(findings, group, table, lines),
        notes=_notes(lines, group),
        num_text_columns=2,
    )


def _scales(
    group: Group, rows: Sequence[Mapping[str, Estimate | None]], digits: int
) -> dict[str, Scale]:
    """How the numbers of each column are printed."""
    values = {
        column: [found.value for one in rows if (found := one.get(column)) is not None]
        for column in group.columns
    }
    return {column: scale_of(group.unit(column), values[column], digits) for column in values}


def _caption(
    findings: Findings, group: Group, table: ScoreTable, lines: Sequence[Line]
) -> tuple[str, ...]:
    metrics = ", ".join(f"{c} {setting.metric}" for c, setting in group.settings.items())
    if table.is_rest and len(used := {one.metric for one in group.settings.values()}) == 1:
        metrics = used.pop()
    missing = f"{MISSING}: not measured" + ", or a part of it is not." * bool(group.averages)
    averages = [f"{column}: {group.meanings[column]}." for column in group.averages]
    parts = [f"{c} {where_text(s.where)}" for c, s in group.settings.items() if s.where]
    averages += [f"Of some of the items, which may overlap: {'; '.join(parts)}."] if parts else []
    no_shares = any(group.unit(column) for column in group.columns)
    texts = [
        f"Percent{' (what is no share: as it is)' * no_shares} ± one standard error. "
        f"{_trained_on(findings.measured)} Seeds: trained models behind a row. Metrics: {metrics}.",
        STDERR,
        " ".join([*table.notes, *averages, missing if group.averages else f"{missing}."]),
    ]
    if sum(bool(line.best) for line in lines) > 1 or _num_rivals(table, lines) > 1:
        each = " and data set" if any(line.variant.data is not None for line in lines) else ""
        names = "them all" if ALL in table.bold else listed(_bold_titles(table, lines))
        texts.append(
            f"Bold: the best of {names} per model{each}; it says nothing of significance (see "
            "the paired comparisons)."
        )
    if any(line.name.startswith("…") for line in lines):
        texts.append("…: the method of the row above with other settings; the label is the grid's.")
    published = findings.published
    if any(line.published is not None for line in lines):
        assert table.published is not None
        split = published.splits.get(table.published)
        marked = f"{OTHER_SPLIT}: of the {split} split, not of ours. " if split else ""
        texts.append(
            f"Published: as printed in {_paper(table.published)}; {MISSING} where it was measured "
            f"with another protocol or number of items than this column. {marked}".rstrip()
        )
    elif table.published is not None:
        whose = _paper(table.published)
        said = f"{whose[0].upper()}{whose[1:]} has no row for these models and data"
        texts.append(f"{said}: no published values.")
    return tuple(texts)


def _paper(published: str) -> str:
    return "the paper" if published.startswith("table") else "LLaMA-Adapter's paper"


def _bold_titles(table: ScoreTable, lines: Sequence[Line]) -> list[str]:
    meant = [
        line.variant for line in lines if {line.variant.method, line.variant.method_name} &
        set(table.bold)
    ]  # fmt: skip
    return list(dict.fromkeys(variant.title for variant in meant))


def _num_rivals(table: ScoreTable, lines: Sequence[Line]) -> int:
    if ALL in table.bold:
        return len({line.variant.method_name for line in lines})
    return len(_bold_titles(table, lines))


def _trained_on(measured: Measurements) -> str:
    shares = {}
    for model in measured.models:
        sets = measured.data_sets(model)
        for data in sets:
            name = model if data is None else f"{model} on {data}"
            shares[name] = share_text(measured.fractions(model, data)[-1])
    if len(set(shares.values())) == 1:
        return f"Trained on {shares.popitem()[1]} of the training data."
    each = ", ".join(f"{name} {share}" for name, share in shares.items())
    return f"Trained on a share of the training data: {each}." if each else ""


def _notes(lines: Sequence[Line], group: Group) -> tuple[str, ...]:
    """What must be said below a table everywhere: deviations, and bounds for errors."""
    estimates = [estimate for line in lines for estimate in line.estimates.values() if estimate]
    marks = set(map(_mark, estimates))
    notes = {
        NO_ITEMS: f"{NO_ITEMS} Without the per-item records of every seed: the root of S²/k + Σ w² "
        "mean(item variance), an upper bound.",
        SEEDS_ALONE: f"{SEEDS_ALONE} No mean over items, or the items' error is not known: the "
        "root of S²/k, which tells the spread over the seeds alone.",
    }
    one_seed = any(
        found.scope == "models"
        for line in lines
        if _is_trained(line)
        for found in line.estimates.values()
        if found is not None
    )
    return (
        *group.notes,
        *(text for mark, text in notes.items() if mark in marks),
        *[ONE_SEED] * one_seed,
    )


def _is_trained(line: Line) -> bool:
    return line.variant.fraction is not None


def _mark(estimate: Estimate) -> str:
    """What stands behind a standard error that was not made from the items and seeds."""
    if estimate.stderr is None or estimate.from_items:
        return ""
    return SEEDS_ALONE if estimate.seeds_alone else NO_ITEMS


def _value_row(
    line: Line,
    table: ScoreTable,
    scales: Mapping[str, Scale],
    model: str,
    mark: str,
    starts: bool,
) -> Row:
    head = [model, line.name + mark]
    head += [short_count(line.num_parameters)] * table.has_params
    seeds = sorted({estimate.num_seeds for estimate in line.estimates.values() if estimate})
    shown = "–".join(dict.fromkeys(str(n) for n in (seeds[0], seeds[-1]))) if seeds else MISSING
    head.append("" if line.variant.fraction is None and seeds else shown)
    values = [
        _entry(line.estimates[column], column in line.best, scale)
        for column, scale in scales.items()
    ]
    return row(*head, *values, starts_block=starts)


def _entry(estimate: Estimate | None, bold: bool, scale: Scale) -> Entry:
    if estimate is None:
        return Entry()
    error = ""
    if estimate.stderr is not None:
        error = f"± {scaled(estimate.stderr, scale)}{_mark(estimate)}"
    return Entry(scaled(estimate.value, scale), error, bold)


def _published_row(
    line: Line, row_: PublishedRow, table: ScoreTable, published: Published, group: Group
) -> Row:
    head = ["", "published", *[row_.params or MISSING] * table.has_params, ""]
    mark = OTHER_SPLIT if table.published in published.splits else ""
    values = [
        f"{row_.values[column]:.2f}{mark}"
        if column in line.matches and column in row_.values
        else MISSING
        for column in group.columns
    ]
    return row(*head, *values, is_reference=True)


def _reference_rows(table: ScoreTable, published: Published, group: Group) -> list[Row]:
    """Published rows of no model of ours, in the columns that are measured as ours are."""
    entries = () if table.published is None else published.references(table.published)
    alike = {column for column in group.columns if published.matches(column, group, None)}
    rows: list[Row] = []
    for entry in entries if alike & set(group.settings) else ():
        head = ["", entry.name or MISSING, *[entry.params or MISSING] * table.has_params, ""]
        values = [
            f"{entry.values[c]:.2f}" if c in alike and c in entry.values else MISSING
            for c in group.columns
        ]
        rows.append(row(*head, *values, starts_block=not rows, is_reference=True))
    return rows


def table_records(table: ScoreTable, findings: Findings) -> list[dict[str, object]]:
    """A table of scores as tidy records, one per row and column, for its CSV."""
    records: list[dict[str, object]] = []
    for (shown, group), lines in findings.lines.items():
        for line, column in product(lines if shown is table else (), group.columns):
            estimate, setting = line.estimates[column], group.settings.get(column)
            published = line.published if column in line.matches else None
            split = findings.published.splits.get(table.published or "") if published else None
            data = line.variant.data
            records.append(
                {
                    "table": table.name,
                    "protocol": setting.protocol if setting else group.protocol,
                    "model": line.variant.model,
                    "method": line.variant.method,
                    "fraction": line.variant.fraction,
                    "trainable_parameters": line.num_parameters,
                    "column": column,
                    "metric": setting.metric if setting else None,
                    "shots": setting.shots if setting else None,
                    "limit": setting.limit if setting else None,
                    "num_seeds": estimate.num_seeds if estimate else None,
                    "num_items": estimate.num_items if estimate else None,
                    **estimate_record(estimate, "value", "percent", group.unit(column)),
                    "stderr_from_items": estimate.from_items if estimate else None,
                    "published_percent": published.values.get(column) if published else None,
                    **({} if split is None else {"published_split": split}),
                    **({} if data is None else {"data": data}),
                }
            )
    return records

"""The main tables: Tables 1 and 2 with published values, other benchmarks, paired comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

from harness.analysis.columns import Group
from harness.analysis.comparisons import ALPHA, Comparison
from harness.analysis.findings import Findings
from harness.analysis.measurements import Measurements
from harness.analysis.mixtures import Mixture
from harness.analysis.paper_tables import Line, PaperTable, listed, title_of
from harness.report.numbers import (
    MISSING,
    estimate_record,
    interval_text,
    p_text,
    percent,
    points,
    share_text,
    short_count,
)
from harness.report.render import Entry, Row, Table, blocks, row

if TYPE_CHECKING:
    from harness.analysis.published import PublishedRow
    from harness.analysis.stats import Estimate


ACROSS = "§"
"""Marks a difference between rows of several stacks."""
NO_ITEMS = "†"
"""Marks a standard error that was made without per-item records."""

STDERR = (
    "The standard error takes items and seeds as crossed random samples: with A the score of one "
    "seed, S² its variance over the k seeds, and MS the mean squares of each benchmark's seeds × n "
    "items table, it is the root of max(S²/k, Σ w² MS(rest)/(k·n)) + Σ w² max(0, MS(items) − "
    "MS(rest))/(k·n); of one seed: Σ w² var(items)/n, which knows nothing of other seeds. w is a "
    "benchmark's weight in an average."
)


def paper_tables(paper: PaperTable, findings: Findings, digits: int = 2) -> list[Table]:
    """A table of scores, once per group; `digits` are the decimals of a percent."""
    return [
        _table(findings, group, paper, lines, digits)
        for (shown, group), lines in findings.lines.items()
        if shown is paper
    ]


def _table(
    findings: Findings, group: Group, paper: PaperTable, lines: Sequence[Line], digits: int
) -> Table:
    rows: list[Row] = []
    model, mixture = None, findings.mixtures.get(group)
    for line in lines:
        starts = line.variant.model != model
        mark = mixture.mark(line.variant.model, line.name) if mixture else ""
        rows.append(_value_row(line, paper, group, starts, digits, mark))
        model = line.variant.model
        if line.published is not None:
            rows.append(_published_row(line, line.published, paper, group))
    chances = [findings.measured.chance(group, column) for column in group.columns]
    if group.is_paper or any(chance is not None for chance in chances):
        values = [percent(chance, digits) for chance in chances]
        blanks = [""] * (2 if paper.has_params else 1)
        rows.append(row("", "Chance", *blanks, *values, starts_block=True, is_reference=True))
    head = ("Model", "Method", *["Params"] * paper.has_params, "Seeds")
    return Table(
        name=paper.name + group.suffix().removeprefix(f"-{paper.name}"),
        title=title_of(paper, group, lines, findings.published),
        subtitle=_head(findings, group),
        header=(*head, *map(group.head, group.columns)),
        rows=tuple(rows),
        caption=_caption(findings, group, paper, lines),
        notes=_notes(lines, group),
        num_text_columns=2,
    )


def _head(findings: Findings, group: Group) -> str:
    """How a group was measured, and with which stacks where there are several."""
    mixture = findings.mixtures.get(group)
    return group.title if mixture is None else f"{group.title} · {mixture.head}"


def _caption(
    findings: Findings, group: Group, paper: PaperTable, lines: Sequence[Line]
) -> tuple[str, ...]:
    metrics = ", ".join(f"{c} {setting.metric}" for c, setting in group.settings.items())
    if not group.is_paper and len(used := {one.metric for one in group.settings.values()}) == 1:
        metrics = used.pop()
    told = [("MMLU", "MMLU: mean over all questions"), ("TruthfulQA", "TruthfulQA: mc1")]
    said = [text for column, text in told if group.is_paper and column in group.settings]
    meant = f" ({'; '.join(said)})" if said else ""
    missing = f"{MISSING}: not measured, or a part of it is not."
    texts = [
        f"Percent ± one standard error. {_trained_on(findings.measured)} Seeds: trained models "
        f"behind a row. Metrics: {metrics}{meant}.",
        STDERR,
        "ARC avg: unweighted mean of Easy and Challenge. Average: mean of ARC avg, MMLU, HellaSwag "
        f"and TruthfulQA. {missing}"
        if group.is_paper
        else f"{MISSING}: not measured.",
    ]
    rivals = {line.variant.method_name for line in lines} & set(paper.bold)
    if len(rivals) > 1:
        texts.append(
            "Bold: the better of linear and non-linear per model, as in the paper; it says nothing "
            "of significance (see the paired comparisons)."
        )
    if any(line.name.startswith("…") for line in lines):
        texts.append("…: the method of the row above with other settings; the label is the grid's.")
    if any(line.published is not None for line in lines):
        texts.append(
            f"Published: as printed in the paper; {MISSING} where it was measured with another "
            "protocol or number of items than this column."
        )
    elif group.is_paper:
        texts.append("The paper has no row for these models and data: no published values.")
    return tuple(texts)


def _trained_on(measured: Measurements) -> str:
    fractions = {model: measured.fractions(model) for model in measured.models}
    shares = {model: share_text(found[-1]) for model, found in fractions.items() if found}
    if len(set(shares.values())) == 1:
        return f"Trained on {shares.popitem()[1]} of the training data."
    each = ", ".join(f"{model} {share}" for model, share in shares.items())
    return f"Trained on a share of the training data: {each}." if each else ""


def _notes(lines: Sequence[Line], group: Group) -> tuple[str, ...]:
    """What must be said below a table everywhere: deviations, and bounds for errors."""
    estimates = [estimate for line in lines for estimate in line.estimates.values() if estimate]
    if any(estimate.stderr is not None and not estimate.from_items for estimate in estimates):
        bound = (
            f"{NO_ITEMS} Without the per-item records of every seed: the root of S²/k + Σ w² "
            "mean(item variance), an upper bound."
        )
        return (*group.notes, bound)
    return group.notes


def _value_row(
    line: Line, paper: PaperTable, group: Group, starts: bool, digits: int, mark: str
) -> Row:
    head = [line.variant.model if starts else "", line.name + mark]
    head += [short_count(line.num_parameters)] * paper.has_params
    seeds = sorted({estimate.num_seeds for estimate in line.estimates.values() if estimate})
    shown = "–".join(dict.fromkeys(str(n) for n in (seeds[0], seeds[-1]))) if seeds else MISSING
    head.append("" if line.variant.fraction is None and seeds else shown)
    values = [_entry(line.estimates[c], c in line.best, digits) for c in group.columns]
    return row(*head, *values, starts_block=starts)


def _entry(estimate: Estimate | None, bold: bool, digits: int) -> Entry:
    if estimate is None:
        return Entry()
    error = ""
    if estimate.stderr is not None:
        error = f"± {percent(estimate.stderr, digits)}"
        error += "" if estimate.from_items else NO_ITEMS
    return Entry(percent(estimate.value, digits), error, bold)


def _published_row(line: Line, published: PublishedRow, paper: PaperTable, group: Group) -> Row:
    head = ["", "published", *[published.params or MISSING] * paper.has_params, ""]
    values = [
        f"{published.values[column]:.2f}" if column in line.matches else MISSING
        for column in group.columns
    ]
    return row(*head, *values, is_reference=True)


def table_records(paper: PaperTable, findings: Findings) -> list[dict[str, object]]:
    """A table of the paper as tidy records, one per row and column, for its CSV."""
    records: list[dict[str, object]] = []
    for (shown, group), lines in findings.lines.items():
        for line, column in product(lines if shown is paper else (), group.columns):
            estimate, setting = line.estimates[column], group.settings.get(column)
            published = line.published if column in line.matches else None
            records.append(
                {
                    "table": paper.name,
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
                    **estimate_record(estimate, "value", "percent"),
                    "stderr_from_items": estimate.from_items if estimate else None,
                    "published_percent": published.values[column] if published else None,
                }
            )
    return records


def _compared(findings: Findings, is_paper: bool) -> Iterator[tuple[Group, list[Comparison]]]:
    """Comparisons by group, of the paper's columns or of the other benchmarks, where any are."""
    for group, found in findings.comparisons.items():
        if group.is_paper == is_paper and found:
            yield group, found


def _of(group: Group) -> str:
    """Names the columns in a title where they are not the paper's."""
    return "" if group.is_paper else f": {listed(group.columns)}"


def comparison_tables(findings: Findings, digits: int = 2, *, is_paper: bool = True) -> list[Table]:
    """Comparisons with one row per pair and one column per benchmark, once per group."""
    return [
        _wide(found, group, digits, findings.mixtures.get(group))
        for group, found in _compared(findings, is_paper)
    ]


def _wide(
    comparisons: Sequence[Comparison], group: Group, digits: int, mixture: Mixture | None
) -> Table:
    lines: list[list[str | Entry]] = []
    for model, label in dict.fromkeys((entry.model, entry.label) for entry in comparisons):
        found = {e.column: e for e in comparisons if (e.model, e.label) == (model, label)}
        seeds = {e.estimate.num_seeds for e in found.values() if e.estimate}
        values = [_difference(found.get(column), digits) for column in group.columns]
        label += _across(next(iter(found.values())), mixture)
        lines.append([model, label, "/".join(map(str, sorted(seeds))) or MISSING, *values])
    return Table(
        name="comparisons" + group.suffix(),
        title="Paired differences in points" + _of(group),
        subtitle=group.title,
        header=("Model", "Difference", "Seeds", *map(group.head, group.columns)),
        notes=(_correction(comparisons), *_stack_notes(mixture), *group.notes),
        rows=blocks(lines),
        caption=(
            "Percentage points ± one standard error, paired: the same items, the same seed (which "
            "also chose the same training data); the base model stands against every seed. "
            f"{MISSING}: a side or its per-item records are missing.",
            "p: exact McNemar test for one seed on right/wrong answers, else Student's t of the "
            "items × seeds estimate with Satterthwaite's degrees of freedom. "
            "Differences from a published value are not corrected for their number.",
            "One seed: says something of these trained models on new items, nothing of the methods "
            "on new seeds. From published: unpaired, the published error is the binomial one of "
            "its items alone, as its number of seeds is unknown.",
        ),
        num_text_columns=2,
    )


def _across(entry: Comparison, mixture: Mixture | None) -> str:
    crosses = mixture is not None and mixture.crosses(entry.model, entry.left, entry.right)
    return f" {ACROSS}" if crosses else ""


def _stack_notes(mixture: Mixture | None) -> tuple[str, ...]:
    """What is to be said of differences where the cells are of several stacks."""
    if mixture is None:
        return ()
    return (
        f"{ACROSS} Across stacks: such a difference holds what the stack moved too, of which "
        f"`zbench drift` tells the size. {mixture.head}.",
    )


def _correction(comparisons: Sequence[Comparison]) -> str:
    start = f"* p < {ALPHA} after Holm's correction, per model"
    if any(entry.family == "setting" for entry in comparisons):
        return (
            f"{start}, made apart for the differences between trained methods, for those of a "
            "method's other settings from its own, and for those from the base model."
        )
    return (
        f"{start}: over the differences between trained methods, and apart from them over those "
        "from the base model."
    )


def _difference(entry: Comparison | None, digits: int) -> Entry:
    if entry is None or entry.estimate is None:
        return Entry()
    star = "*" if entry.is_significant else ""
    stderr = entry.estimate.stderr
    error = "" if stderr is None else f"± {percent(stderr, digits)}"
    return Entry(points(entry.estimate.value, digits) + star, error)


def comparison_lists(findings: Findings, *, is_paper: bool = True) -> list[Table]:
    """Comparisons with one row each (interval, p and test), once per group."""
    tables = []
    for group, comparisons in _compared(findings, is_paper):
        lines = []
        for entry in comparisons:
            found = [MISSING] * 8
            if entry.estimate is not None:
                found = [
                    *(entry.test, points(entry.estimate.value), percent(entry.estimate.stderr)),
                    interval_text(entry.estimate.interval),
                    *(p_text(entry.p_value), p_text(entry.p_holm)),
                    *(str(entry.estimate.num_seeds), str(entry.estimate.num_items)),
                ]
            label = entry.label + _across(entry, findings.mixtures.get(group))
            lines.append([entry.model, label, entry.column, *found])
        tables.append(
            Table(
                name="comparisons-list" + group.suffix(),
                title="Every comparison" + _of(group),
                subtitle=group.title,
                header=(
                    *("Model", "Difference", "Column", "Test"),
                    *("Points", "SE", "95% interval", "p", "p (Holm)", "Seeds", "Items"),
                ),
                rows=blocks(lines, 2),
                num_text_columns=4,
            )
        )
    return tables


def comparison_records(findings: Findings, *, is_paper: bool = True) -> list[dict[str, object]]:
    """Comparisons as tidy records for their CSV."""
    return [
        {
            "protocol": entry.group.protocol,
            "columns_measured": entry.group.title,
            "model": entry.model,
            "left": entry.left,
            "right": entry.right,
            "column": entry.column,
            **estimate_record(entry.estimate, "difference", "points"),
            "p": entry.p_value,
            "p_holm": entry.p_holm,
            "test": entry.test or None,
            "num_seeds": entry.estimate.num_seeds if entry.estimate else None,
            "num_items": entry.estimate.num_items if entry.estimate else None,
        }
        for _, found in _compared(findings, is_paper)
        for entry in found
    ]

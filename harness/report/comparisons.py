"""The tables of paired comparisons: what was tested and what describes, with margins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.analysis.columns import Group
from harness.analysis.comparisons import ALPHA, Comparison, Family
from harness.analysis.findings import Findings
from harness.analysis.layout import listed
from harness.analysis.mixtures import Mixture
from harness.analysis.scales import Scale, scale_of
from harness.report.numbers import MISSING, estimate_record, interval_text, p_text, scaled, signed
from harness.report.render import Entry, Table, blocks

ACROSS = "§"
"""Marks a difference between rows of several stacks."""
FAMILIES: dict[Family, str] = {
    "claim": "the grid's claims",
    "compare": "the comparisons that the grid asks for",
    "setting": "the differences of a method's other settings from its own",
    "context": "those from the base model",
}
"""What is corrected together, as a reader is told it."""


def _compared(findings: Findings, is_rest: bool) -> Iterator[tuple[Group, list[Comparison]]]:
    """Comparisons by group, of the tables' columns or of the other benchmarks, where any are."""
    for group, found in findings.comparisons.items():
        if group.is_rest == is_rest and found:
            yield group, found


def _of(group: Group) -> str:
    """Names the columns in a title where they stand in no table of the grid."""
    return f": {listed(group.columns)}" if group.is_rest else ""


def difference_scales(comparisons: Sequence[Comparison], digits: int = 2) -> dict[str, Scale]:
    """How differences are printed, by column."""
    values: dict[str, list[float]] = {}
    for entry in comparisons:
        found = values.setdefault(entry.column, [])
        found += [] if entry.estimate is None else [entry.estimate.value]
    group = comparisons[0].group
    return {column: scale_of(group.unit(column), found, digits) for column, found in values.items()}


def comparison_tables(findings: Findings, digits: int = 2, *, is_rest: bool = False) -> list[Table]:
    """Comparisons with one row per pair and one column per benchmark, once per group."""
    return [
        _wide(found, group, digits, findings.mixtures.get(group))
        for group, found in _compared(findings, is_rest)
    ]


def _wide(
    comparisons: Sequence[Comparison], group: Group, digits: int, mixture: Mixture | None
) -> Table:
    lines: list[list[str | Entry]] = []
    scales = difference_scales(comparisons, digits)
    for model, label in dict.fromkeys((entry.model, entry.label) for entry in comparisons):
        found = {e.column: e for e in comparisons if (e.model, e.label) == (model, label)}
        seeds = {e.estimate.num_seeds for e in found.values() if e.estimate}
        values = [_difference(found.get(column), scales.get(column)) for column in group.columns]
        label += _across(next(iter(found.values())), mixture)
        lines.append([model, label, "/".join(map(str, sorted(seeds))) or MISSING, *values])
    no_shares = any(group.unit(column) for column in group.columns)
    seeds_alone = any(entry.test == "t, seeds" for entry in comparisons)
    return Table(
        name="comparisons" + group.suffix(),
        title="Paired differences" + " in points" * (not no_shares) + _of(group),
        subtitle=group.title,
        header=("Model", "Difference", "Seeds", *map(group.head, group.columns)),
        notes=(
            *_correction(comparisons),
            *margin_lines(comparisons),
            *_stack_notes(mixture),
            *group.notes,
        ),
        rows=blocks(lines),
        caption=(
            f"Percentage points{' (of what is no share: its own unit)' * no_shares} ± one standard "
            "error, paired: the same items, the same seed (which "
            "also chose the same training data); the base model stands against every seed. "
            f"{MISSING}: a side or its per-item records are missing.",
            "p: exact McNemar test for one seed on right/wrong answers, else Student's t of the "
            "items × seeds estimate with Satterthwaite's degrees of freedom"
            + "; of a score that is no mean over its items Student's t over the seeds, which knows "
            "these items alone"
            * seeds_alone
            + ". Differences from a published value are not corrected for their number.",
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


def _correction(comparisons: Sequence[Comparison]) -> list[str]:
    """What is tested, and what is corrected together."""
    tested = [entry for entry in comparisons if entry.is_tested]
    columns = list(dict.fromkeys(entry.column for entry in tested))
    if not tested:
        return ["Nothing here is tested: these columns describe, and have no star."]
    families = [text for name, text in FAMILIES.items() if any(e.family == name for e in tested)]
    apart = "separately " if len(families) > 1 else ""
    over = f"{apart}over {' and over '.join(families)}"
    lines = [f"* p < {ALPHA} after Holm's correction, per model, {over}."]
    if any(entry.family is not None and not entry.is_tested for entry in comparisons):
        lines.append(
            f"Tested: {listed(columns)} (what a claim names, or else the average of the most "
            "benchmarks, which is not counted beside its parts). All else describes: its p is not "
            "corrected, and has no star."
        )
    return lines


def margin_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """What the grid's margins say of each difference that has one."""
    lines = []
    for entry in comparisons:
        if entry.margin is None or entry.estimate is None:
            continue
        reach = interval_text(entry.estimate.interval, scale=margin_scale(entry))
        lines.append(
            f"Margin {margin_text(entry)} ({entry.model}: {entry.label}, {entry.column}): the 95% "
            f"interval {reach} {lies(entry)}."
        )
    return lines


def margin_scale(entry: Comparison) -> Scale:
    """How a comparison's own numbers are printed."""
    values = (entry.estimate.value if entry.estimate else None, entry.margin)
    return scale_of(entry.group.unit(entry.column), values)


def margin_text(entry: Comparison) -> str:
    """A comparison's margin with its unit, such as `±1.5 points`."""
    assert entry.margin is not None
    unit = entry.group.unit(entry.column)
    return f"±{scale_of(unit).factor * entry.margin:g} {unit or 'points'}"


def lies(entry: Comparison) -> str:
    """What a comparison's interval says of its margin."""
    if entry.is_within_margin is None:
        return "is not known"
    if entry.is_within_margin:
        return "lies within it: no difference that counts"
    return "reaches beyond it"


def _difference(entry: Comparison | None, scale: Scale | None) -> Entry:
    if entry is None or entry.estimate is None or scale is None:
        return Entry()
    star = "*" if entry.is_significant else ""
    stderr = entry.estimate.stderr
    error = "" if stderr is None else f"± {scaled(stderr, scale)}"
    return Entry(signed(entry.estimate.value, scale) + star, error)


def comparison_lists(findings: Findings, *, is_rest: bool = False) -> list[Table]:
    """Comparisons with one row each (interval, p and test), once per group."""
    tables = []
    for group, comparisons in _compared(findings, is_rest):
        scales, lines = difference_scales(comparisons), []
        margins = any(entry.margin is not None for entry in comparisons)
        for entry in comparisons:
            found, scale = [MISSING] * 8, scales[entry.column]
            if entry.estimate is not None:
                found = [
                    entry.test or MISSING,
                    signed(entry.estimate.value, scale),
                    scaled(entry.estimate.stderr, scale),
                    interval_text(entry.estimate.interval, scale=scale),
                    *(p_text(entry.p_value), p_text(entry.p_holm)),
                    *(str(entry.estimate.num_seeds), str(entry.estimate.num_items)),
                ]
            found += [_margin(entry)] * margins
            label = entry.label + _across(entry, findings.mixtures.get(group))
            lines.append([entry.model, label, group.head(entry.column), *found])
        tables.append(
            Table(
                name="comparisons-list" + group.suffix(),
                title="Every comparison" + _of(group),
                subtitle=group.title,
                header=(
                    *("Model", "Difference", "Column", "Test"),
                    *("Points", "SE", "95% interval", "p", "p (Holm)", "Seeds", "Items"),
                    *["Margin"] * margins,
                ),
                rows=blocks(lines, 2),
                caption=(f"p (Holm) is {MISSING} where a column describes and is not tested.",),
                num_text_columns=4,
            )
        )
    return tables


def _margin(entry: Comparison) -> str:
    if entry.margin is None:
        return ""
    ends = {True: ", within", False: ", not within", None: ""}
    return margin_text(entry) + ends[entry.is_within_margin]


def comparison_records(findings: Findings, *, is_rest: bool = False) -> list[dict[str, object]]:
    """Comparisons as tidy records for their CSV."""
    found = [entry for _, entries in _compared(findings, is_rest) for entry in entries]
    margins = any(entry.margin is not None for entry in found)
    return [
        {
            "protocol": entry.group.protocol,
            "columns_measured": entry.group.title,
            "model": entry.model,
            "left": entry.left,
            "right": entry.right,
            "column": entry.column,
            **estimate_record(
                entry.estimate, "difference", "points", entry.group.unit(entry.column)
            ),
            "p": entry.p_value,
            "p_holm": entry.p_holm,
            "test": entry.test or None,
            "num_seeds": entry.estimate.num_seeds if entry.estimate else None,
            "num_items": entry.estimate.num_items if entry.estimate else None,
            **(_margin_record(entry) if margins else {}),
        }
        for entry in found
    ]


def _margin_record(entry: Comparison) -> dict[str, object]:
    """The margin in points, or in the metric's own unit, and whether the interval is within it."""
    factor = scale_of(entry.group.unit(entry.column)).factor
    margin = None if entry.margin is None else factor * entry.margin
    return {"margin": margin, "is_within_margin": entry.is_within_margin}

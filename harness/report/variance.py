"""The table of where the variance of a mean comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.analysis.columns import Group
from harness.analysis.findings import Findings
from harness.analysis.variance import VarianceLine
from harness.analysis.variants import name_of
from harness.report.numbers import MISSING, number, share_text
from harness.report.records import head_record
from harness.report.render import Table, blocks, by_group


def variance_tables(findings: Findings) -> list[Table]:
    """Where the variance of each printed mean comes from, once per group."""
    return [_variance(*own) for own in by_group(findings.noise.variance).items()]


def _variance(group: Group, found: Sequence[VarianceLine]) -> Table:
    sources = list(dict.fromkeys(name for one in found for name in one.sources))
    lines = []
    for one in found:
        parts, variant = one.parts, one.variant
        apart = (one.sources.get(name) for name in sources)
        lines.append(
            [
                *(variant.model, f"{name_of(variant)}, {share_text(variant.fraction)}"),
                *(group.head(one.column), str(one.num_seeds), str(one.num_items)),
                number(parts.total**0.5, ".2f", 100),
                *(number(parts.share(name), ".0f", 100) for name in ("items", "seeds", "rest")),
                *(MISSING if own is None else f"{100 * own.sd:.2f} ({own.df})" for own in apart),
            ]
        )
    below = sum((one.parts.seeds or 0) < 0 or one.parts.items < 0 for one in found)
    negative = (
        f" In {below} of {len(found)} rows a part was estimated below 0, where chance made it so: "
        "it is printed as 0 and counts as 0; the CSV has the estimates."
    )
    varied = (
        "Last columns: standard deviation, in points, of trainings that differ in this source "
        "alone, with its degrees of freedom; it is 0 where they differ by less than the rest "
        "alone makes them.",
    )
    return Table(
        name="variance" + group.suffix(),
        title="Where the variance of a mean comes from",
        subtitle=group.title,
        header=(
            *("Model", "Method", "Column", "Seeds", "Items", "SE"),
            *("Items %", "Seeds %", "Rest %", *map(str.capitalize, sources)),
        ),
        rows=blocks(lines, 2),
        caption=(
            "Shares of Var(mean) = Var(seed)/k + Var(item)/n + Var(rest)/(k·n) of k seeds and n "
            "items, estimated from each row alone; SE is its root, in points. More items reduce "
            "the first, more seeds the second, both the rest. Of one seed the items' part holds "
            f"the rest, and of the seeds nothing is known ({MISSING})." + negative * bool(below),
            *(varied * bool(sources)),
        ),
        num_text_columns=3,
    )


def variance_records(findings: Findings) -> list[dict[str, object]]:
    """The parts of the variance as tidy records for their CSV: variances of scores of 0..1."""
    return [
        {
            **head_record(one.group, one.variant.model, one.variant.data),
            "method": one.variant.method,
            "fraction": one.variant.fraction,
            "column": one.column,
            "num_seeds": one.num_seeds,
            "num_items": one.num_items,
            "from_items": one.parts.items,
            "from_seeds": one.parts.seeds,
            "from_rest": one.parts.rest,
            **_apart(one),
        }
        for one in findings.noise.variance
    ]


def _apart(line: VarianceLine) -> Mapping[str, object]:
    return {
        key: value
        for name, own in line.sources.items()
        for key, value in (
            (f"one_training_{name.replace(', ', '_and_')}", own.variance),
            (f"df_{name.replace(', ', '_and_')}", own.df),
        )
    }

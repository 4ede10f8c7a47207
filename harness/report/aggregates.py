"""The tables of one number over many benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.aggregates import (
    RESAMPLES,
    ImprovementLine,
    Interval,
    MeanLine,
)
from harness.analysis.columns import Group
from harness.analysis.findings import Findings
from harness.analysis.variants import name_of
from harness.report.numbers import MISSING, percent
from harness.report.records import ends_record, head_record, numbers_record
from harness.report.render import Entry, Table, blocks

SOURCE = "Agarwal et al., arXiv 2108.13264"
BOOTSTRAP = (
    f"Interval: 95%, percentiles of {RESAMPLES:,} bootstrap samples of the seeds, drawn for each "
    "benchmark apart. It takes the items as given, and of few seeds it is too narrow: with five "
    "benchmarks and three seeds it held the true value in 85% of simulated grids, and in 55% where "
    "a good seed is good on all benchmarks (docs/outcomes.md). It describes; the paired "
    f"comparisons test. {MISSING}: one seed."
)


def aggregate_tables(findings: Findings) -> list[Table]:
    """Both tables, once per group with three benchmarks or more."""
    tables = []
    for group in findings.measured.groups:
        means = [line for line in findings.means if line.group is group]
        pairs = [line for line in findings.improvements if line.group is group]
        tables += [_mean_table(group, means)] if means else []
        tables += [_improvement_table(group, pairs)] if pairs else []
    return tables


def _mean_table(group: Group, lines: Sequence[MeanLine]) -> Table:
    rows: list[list[str | Entry]] = [
        [
            *(line.variant.model, name_of(line.variant)),
            "" if line.variant.fraction is None else str(line.num_seeds),
            *(percent(line.value), _interval(line.interval)),
        ]
        for line in lines
    ]
    return Table(
        name="interquartile-mean" + group.suffix(),
        title=f"Interquartile mean over {len(lines[0].columns)} benchmarks",
        subtitle=group.title,
        header=("Model", "Method", "Seeds", "IQM", "95% interval"),
        rows=blocks(rows),
        caption=(
            f"Percent. Mean of all seeds' scores on {', '.join(lines[0].columns)} without the "
            f"lowest and the highest quarter of them ({SOURCE}). {_scores(group, lines[0])}",
            BOOTSTRAP,
        ),
        num_text_columns=2,
    )


def _improvement_table(group: Group, lines: Sequence[ImprovementLine]) -> Table:
    rows: list[list[str | Entry]] = [
        [
            *(line.left.model, f"{name_of(line.left)} > {name_of(line.right)}"),
            " / ".join(map(str, line.num_seeds)),
            *(percent(line.value, 1), _interval(line.interval, 1)),
        ]
        for line in lines
    ]
    return Table(
        name="improvement" + group.suffix(),
        title=f"Probability of improvement over {len(lines[0].columns)} benchmarks",
        subtitle=group.title,
        header=("Model", "X > Y", "Seeds", "P(X > Y)", "95% interval"),
        rows=blocks(rows),
        caption=(
            "Percent: how likely a trained model of X scores higher than one of Y on a benchmark "
            f"drawn at random of {', '.join(lines[0].columns)}; ties count half, 50 says that "
            f"neither is better, and nothing is said of by how much ({SOURCE}). "
            f"{_scores(group, lines[0])} With one seed of each it is the share of the benchmarks "
            "that X wins.",
            BOOTSTRAP,
        ),
        num_text_columns=2,
    )


def _scores(group: Group, line: MeanLine | ImprovementLine) -> str:
    """How scores of several benchmarks are made alike."""
    flipped = [column for column in line.columns if group.is_lower_better(column)]
    turned = f"; of {', '.join(flipped)} 100 minus the score" if flipped else ""
    return f"Scores are shares of their items as they are, chance not subtracted{turned}."


def _interval(interval: Interval | None, digits: int = 2) -> str:
    if interval is None:
        return MISSING
    return " to ".join(percent(end, digits) for end in interval)


def aggregate_records(findings: Findings) -> list[dict[str, object]]:
    """Both tables as tidy records, for their CSV."""
    return [
        _record(line, "interquartile mean", line.variant.method, None, line.num_seeds)
        for line in findings.means
    ] + [
        _record(
            line, "probability of improvement", line.left.method, line.right.method,
            min(line.num_seeds),
        )
        for line in findings.improvements
    ]  # fmt: skip


def _record(
    line: MeanLine | ImprovementLine, kind: str, method: str, over: str | None, num_seeds: int
) -> dict[str, object]:
    variant = line.variant if isinstance(line, MeanLine) else line.left
    return {
        **head_record(line.group, variant.model, variant.data),
        "number": kind,
        "method": method,
        "over": over,
        "benchmarks": len(line.columns),
        "num_seeds": num_seeds,
        **numbers_record({"value": line.value, **ends_record(line.interval)}, "percent"),
    }

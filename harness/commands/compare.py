"""`zbench compare`: what differs between two results and can move a score, and their scores."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.compare import Comparison, ScoreRow
from harness.analysis.differences import Difference
from harness.commands import display
from harness.commands.display import cell_text, new_table, print_json, print_line
from harness.evaluation.shown import items_name
from harness.records.results import TaskScore
from harness.report.numbers import interval_text, p_text, percent, points

if TYPE_CHECKING:
    from rich.console import Console


NONE_FOUND = "No difference that can move a score."


def compare_command(
    first: str, second: str, *, runs_dir: Path, tracking_uri: str | None, as_json: bool
) -> int:
    """Tells what differs between two results; that they differ is no error."""
    from harness.analysis.compare import compare, find_side

    sides = [
        find_side(name, runs_dir=runs_dir, tracking_uri=tracking_uri) for name in (first, second)
    ]
    comparison = compare(*sides)
    if as_json:
        print_json(comparison_record(comparison))
    else:
        print_comparison(display.console(), comparison)
    return 0


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Prints the differences, then the scores side by side."""
    for letter, side in (("A", comparison.first), ("B", comparison.second)):
        print_line(console, f"{letter}  {side.label}  ({side.result.cell_id}, {side.place})")
    console.print()
    if comparison.differences:
        _print_differences(console, comparison)
    else:
        print_line(console, NONE_FOUND)
    if comparison.unknown:
        print_line(console, f"Neither recorded: {', '.join(comparison.unknown)}.")
    console.print()
    if comparison.rows:
        _print_scores(console, comparison.rows)
    else:
        print_line(console, "No score that both have.")
    for letter, scores in (("A", comparison.only_first), ("B", comparison.only_second)):
        if scores:
            listed = ", ".join(f"{_named(score)} {percent(score.value)}" for score in scores)
            print_line(console, f"Only {letter} has: {listed}")


def _named(score: TaskScore) -> str:
    limit = "" if score.limit is None else f", limit {score.limit}"
    return f"{score.benchmark} {score.metric} ({score.protocol}, {score.shots}-shot{limit})"


def _print_differences(console: Console, comparison: Comparison) -> None:
    num = len(comparison.differences)
    title = f"{num} difference{'s' * (num > 1)} that can move a score"
    if all(difference.moves == "low bits" for difference in comparison.differences):
        title += ", by its low bits alone"
    print_line(console, title)
    table = new_table(["of", "what", "A", "B", "can move"], [])
    benchmarks = {row.benchmark for row in comparison.rows}
    for difference in comparison.differences:
        moves = "the score" if difference.moves == "score" else "its low bits"
        texts = [difference.what, difference.first, difference.second, moves]
        table.add_row(*map(cell_text, [_of(difference, benchmarks), *texts]))
    console.print(table)


def _of(difference: Difference, benchmarks: set[str]) -> str:
    if difference.part != "evaluation":
        return f"the {difference.part}"
    every = len(benchmarks) > 1 and benchmarks <= set(difference.benchmarks)
    return "all benchmarks" if every else ", ".join(difference.benchmarks)


def _print_scores(console: Console, rows: tuple[ScoreRow, ...]) -> None:
    numbers = ("A", "SE", "B", "SE", "B − A", "95% interval", "p", "items")
    table = new_table(["percent"], numbers)
    twice = Counter((row.benchmark, row.metric) for row in rows)
    for column in table.columns[1:]:
        column.no_wrap = column.header != "95% interval"
    for row in rows:
        if row.interval is not None:
            interval, items = interval_text(row.interval), str(row.num_items)
        else:
            interval = row.unpaired or ""
            items = " and ".join(dict.fromkeys(str(s.n) for s in (row.first, row.second)))
        both = [percent(v) for s in (row.first, row.second) for v in (s.value, s.stderr)]
        texts = [*both, points(row.difference), interval, p_text(row.p_value), items]
        name = f"{row.benchmark} {row.metric}"
        if twice[row.benchmark, row.metric] > 1:  # other requests, or other items
            name += f" ({items_name(row.first)})"
        table.add_row(*map(cell_text, [name, *texts]))
    console.print(table)
    if any(row.interval for row in rows):
        known = "they know the items alone, not what another seed would give."
        print_line(console, f"Interval and p: of B − A in points, paired by item; {known}")


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain values; scores and intervals are 0..1."""
    first, second = (
        {"label": side.label, "cell_id": side.result.cell_id, "place": side.place}
        for side in (comparison.first, comparison.second)
    )
    fields = ("protocol", "benchmark", "metric", "shots", "limit", "value")
    return {
        "first": first,
        "second": second,
        "differences": [asdict(difference) for difference in comparison.differences],
        "not_recorded_by_either": list(comparison.unknown),
        "scores": [
            {
                **_values(row, "benchmark", "metric"),
                **{"first": row.first.value, "second": row.second.value},
                **_values(row, "difference", "interval", "p_value"),
                **{"items": row.num_items, "unpaired": row.unpaired},
            }
            for row in comparison.rows
        ],
        "only_first": [_values(score, *fields) for score in comparison.only_first],
        "only_second": [_values(score, *fields) for score in comparison.only_second],
    }


def _values(record: object, *names: str) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}

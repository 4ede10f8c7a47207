"""`zbench compare`: what differs between two sides and can move a score, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.compare import Comparison, ScoreRow, row_name
from harness.analysis.differences import Difference
from harness.analysis.sides import Side, Sides
from harness.commands import display
from harness.commands.display import cell_text, new_table, print_json, print_line
from harness.grid.folders import Runs, runs_folders
from harness.records.scores import TaskScore
from harness.report.numbers import interval_text, number, p_text, percent, points

if TYPE_CHECKING:
    from rich.console import Console


NONE_FOUND = "No difference that can move a score."
P_HEADS = {"methods": "p", "models": "p, these two"}
"""Heads of the columns of p values, by what they speak of."""
MOST_NAMED = 8
"""Cells without a partner that are named."""


def compare_command(
    first: str,
    second: str,
    *,
    runs_dir: Runs,
    tracking_uri: str | None,
    as_json: bool,
    items: int = 0,
    data_root: Path | None = None,
) -> int:
    """Tells what differs between two sides; that they differ is no error."""
    from harness.analysis.compare import compare
    from harness.analysis.sides import find_sides

    sides = [
        find_sides(name, runs_dir=runs_dir, tracking_uri=tracking_uri) for name in (first, second)
    ]
    comparison = compare(*sides)
    shown = []
    if items:
        from harness.commands.compare_items import chosen_items

        shown = chosen_items(
            comparison, items, data_root=data_root, runs_dir=runs_folders(runs_dir)[0]
        )
    if as_json:
        record = comparison_record(comparison)
        if items:
            from harness.commands.compare_items import item_records

            record["items"] = item_records(shown)
        print_json(record)
    else:
        screen = display.console()
        print_comparison(screen, comparison)
        if shown:
            from harness.commands.compare_items import print_items

            print_items(screen, shown)
    return 0


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Prints the differences, then the scores side by side."""
    _print_sides(console, comparison)
    console.print()
    if not comparison.pairs.pairs:
        print_line(console, "No pair of equal model, method, data, fraction and seed.")
        return
    if comparison.differences:
        _print_differences(console, comparison)
    else:
        print_line(console, NONE_FOUND)
    if comparison.unknown:
        print_line(console, f"Neither recorded: {', '.join(comparison.unknown)}.")
    for of in dict.fromkeys(row.of for row in comparison.rows):
        console.print()
        if of:
            print_line(console, of, "bold")
        rows = [row for row in comparison.rows if row.of == of]
        _print_scores(console, rows)
        _print_outcomes(console, rows)
    if not comparison.rows:
        console.print()
        print_line(console, "No score that both have.")
    for letter, scores in (("A", comparison.only_first), ("B", comparison.only_second)):
        if scores:
            listed = ", ".join(f"{_named(score)} {_value(score)}" for score in scores)
            print_line(console, f"Only {letter} has: {listed}")


def _print_sides(console: Console, comparison: Comparison) -> None:
    alone = comparison.pairs.only_first, comparison.pairs.only_second
    sides = zip("AB", (comparison.first, comparison.second), alone, strict=True)
    for letter, side, unpaired in sides:
        if len(side.members) == 1:
            (one,) = side.members
            print_line(console, f"{letter}  {one.label}  ({one.result.cell_id}, {one.place})")
        else:
            print_line(console, f"{letter}  {side.name}: {len(side.members)} cells")
            print_line(console, f"   {_listed(side.members)}")
        for text in side.left_out:
            print_line(console, f"   left out: {text}", "yellow")
        if unpaired:
            print_line(console, f"   without a partner: {_listed(unpaired)}", "yellow")


def _listed(sides: Sequence[Side]) -> str:
    more = f" and {len(sides) - MOST_NAMED} more" if len(sides) > MOST_NAMED else ""
    return ", ".join(side.label for side in sides[:MOST_NAMED]) + more


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
        moves += f" ({difference.pairs})" if difference.pairs else ""
        texts = [difference.what, difference.first, difference.second, moves]
        table.add_row(*map(cell_text, [_of(difference, benchmarks), *texts]))
    console.print(table)


def _of(difference: Difference, benchmarks: set[str]) -> str:
    if difference.part != "evaluation":
        return f"the {difference.part}"
    every = len(benchmarks) > 1 and benchmarks <= set(difference.benchmarks)
    return "all benchmarks" if every else ", ".join(difference.benchmarks)


def _print_scores(console: Console, rows: Sequence[ScoreRow]) -> None:
    seeds = max(len(row.requests) for row in rows)
    scopes = dict.fromkeys(row.scope for row in rows if row.scope is not None) or {"methods": None}
    numbers = [
        "A",
        "SE",
        "B",
        "SE",
        "B − A",
        "95% interval",
        *(P_HEADS[scope] for scope in scopes),
        "items",
    ]
    table = new_table(["percent"], numbers + ["pairs"] * (seeds > 1))
    for column in table.columns[1:]:
        column.no_wrap = column.header != "95% interval"
    for row in rows:
        share = row.first.unit is None
        interval = row.unpaired or ""
        items = " and ".join(dict.fromkeys(str(s.n) for s in (row.first, row.second)))
        if row.interval is not None:
            ends = [_difference(end, share) for end in row.interval]
            interval = interval_text(row.interval) if share else " to ".join(ends)
            items = str(row.num_items)
        values = zip(row.values, row.errors, strict=True)
        both = [percent(v) if share else number(v, ".4g") for pair in values for v in pair]
        difference = points(row.difference) if share else _difference(row.difference, share)
        ps = [p_text(row.p_value if scope == row.scope else None) for scope in scopes]
        texts = [*both, difference, interval, *ps, items]
        unit = "" if row.first.unit in (None, row.metric) else f" [{row.first.unit}]"
        texts += [str(len(row.requests))] if seeds > 1 else []
        table.add_row(*map(cell_text, [row_name(row, rows) + unit, *texts]))
    console.print(table)
    if any(row.interval for row in rows):
        known = (
            "they speak of these two trained models on new items, not of the methods: what another "
            "seed would give they do not know."
        )
        if seeds > 1:
            known = (
                "over the pairs (seeds) and items, by these seeds alone; a report pools what all "
                "of a grid's comparisons tell of them."
            )
            print_line(console, "A and B: means over the pairs, with the error of both.")
        paired = "item and seed" if seeds > 1 else "item"
        print_line(console, f"Interval and p: of B − A in points, paired by {paired}; {known}")
    if alone := [row_name(row, rows) for row in rows if row.test == "t, seeds"]:
        text = "No mean over items, so that the interval knows the seeds alone"
        print_line(console, f"{text}: {', '.join(alone)}.")
    if lower := [row_name(row, rows) for row in rows if not row.first.higher_is_better]:
        print_line(console, f"Lower is better: {', '.join(lower)}.")


def _difference(value: float, share: bool) -> str:
    return points(value) if share else f"{value:+.4g}".replace("-", "−")


def _value(score: TaskScore) -> str:
    return percent(score.value) if score.unit is None else f"{score.value:.4g} {score.unit}"


def _print_outcomes(console: Console, rows: Sequence[ScoreRow]) -> None:
    """Prints how many items who gets right."""
    known = [row for row in rows if row.outcomes is not None]
    for right in (True, False):
        mine = [row for row in known if row.outcomes and row.outcomes.right_or_wrong == right]
        if not mine:
            continue
        heads = ["both right", "only A", "only B", "neither"]
        if not right:
            heads = ["A better", "B better", "equal"]
        console.print()
        table = new_table(["items"], heads)
        for row in mine:
            assert row.outcomes is not None
            counts = map(str, row.outcomes.counts.values())
            table.add_row(*map(cell_text, [row_name(row, rows), *counts]))
        console.print(table)
    if any(len(row.requests) > 1 for row in known):
        text = "Right: by more than half of the seeds; better: on their mean."
        print_line(console, text)


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain values; scores and intervals are 0..1."""
    pairs = comparison.pairs
    first, second = (
        {**_side_record(side), "unpaired": [one.label for one in alone]}
        for side, alone in (
            (comparison.first, pairs.only_first),
            (comparison.second, pairs.only_second),
        )
    )
    fields = ("protocol", "benchmark", "metric", "shots", "limit", "value", "unit")
    return {
        "first": first,
        "second": second,
        "pairs": [[one.label, other.label] for one, other in pairs.pairs],
        "differences": [asdict(difference) for difference in comparison.differences],
        "not_recorded_by_either": list(comparison.unknown),
        "scores": [
            {
                **_values(row, "benchmark", "metric", "of"),
                **dict(zip(("first", "second"), row.values, strict=True)),
                **dict(zip(("first_stderr", "second_stderr"), row.errors, strict=True)),
                **_values(row, "difference", "interval", "p_value", "test", "scope"),
                **{"items": row.num_items, "unpaired": row.unpaired},
                **{"pairs": len(row.requests), "outcomes": _counts(row)},
                **_values(row.first, "unit", "higher_is_better"),
            }
            for row in comparison.rows
        ],
        "only_first": [_values(score, *fields) for score in comparison.only_first],
        "only_second": [_values(score, *fields) for score in comparison.only_second],
    }


def _side_record(side: Sides) -> dict[str, Any]:
    cells = [
        {"label": one.label, "cell_id": one.result.cell_id, "place": one.place}
        for one in side.members
    ]
    if len(cells) == 1:
        return cells[0]
    return {"label": side.name, "cells": cells, "left_out": list(side.left_out)}


def _counts(row: ScoreRow) -> dict[str, int] | None:
    if row.outcomes is None:
        return None
    return {str(kind): count for kind, count in row.outcomes.counts.items()}


def _values(record: object, *names: str) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}

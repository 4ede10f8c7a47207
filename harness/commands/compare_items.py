"""`zbench compare --items N`: the first items of each kind, with what both sides answered."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.answers import ItemKey, Kind, item_keys, read_items
from harness.analysis.compare import Comparison, ScoreRow
from harness.analysis.item_texts import Texts, text_in, text_of, texts_of
from harness.analysis.shown_items import ShownItem, shown_item
from harness.analysis.sides import Side
from harness.commands.display import print_line
from harness.demo.world import DATA, world_folder
from harness.evaluation.tasks import TaskSpec

if TYPE_CHECKING:
    from rich.console import Console

KINDS: Mapping[Kind, str] = {
    "first": "only A is right",
    "second": "only B is right",
    "both": "both are right",
    "neither": "neither is right",
}
VALUED: Mapping[Kind, str] = {"first": "A is better", "second": "B is better", "equal": "equal"}
LONGEST = 600
"""Characters of a text that are printed."""


def kind_names(row: ScoreRow) -> Mapping[Kind, str]:
    """What the kinds of a row's items are called."""
    return KINDS if row.outcomes and row.outcomes.right_or_wrong else VALUED


def main_rows(comparison: Comparison) -> Iterator[ScoreRow]:
    """Yields one row of each evaluation of each benchmark: that of its primary metric."""
    found: dict[tuple[str, str, str], list[ScoreRow]] = {}
    for row in comparison.rows:
        found.setdefault((row.of, row.benchmark, row.first.evaluation), []).append(row)
    for rows in found.values():
        task = task_of(rows[0].requests[0][0], rows[0])
        primary = None if task is None else task.benchmark.primary_metric
        known = [row for row in rows if row.outcomes is not None]
        yield from [row for row in known if row.metric == primary][:1] or known[:1]


def chosen_items(
    comparison: Comparison, number: int, *, data_root: Path | None, runs_dir: Path
) -> list[tuple[ScoreRow, list[ShownItem], str | None]]:
    """The first items of each kind of each benchmark, and why their texts lack, if they do."""
    found = []
    for row in main_rows(comparison):
        assert row.outcomes is not None
        chosen = [
            one
            for kind in kind_names(row)
            for one in [each for each in row.outcomes.items if each.kind == kind][:number]
        ]
        wanted = [one.item for one in chosen]
        ours = [_records(one, request, wanted) for one, request, _, _ in row.requests]
        theirs = [_records(other, request, wanted) for _, _, other, request in row.requests]
        unknown = [item for item in wanted if text_in(ours[0][item]) is None]
        texts, problem = _texts(row, unknown, data_root, runs_dir) if unknown else ({}, None)
        items = [
            shown_item(
                one,
                text_of(texts, one.item),
                [known[one.item] for known in ours],
                [known[one.item] for known in theirs],
                row.metric,
            )
            for one in chosen
        ]
        found.append((row, items, problem))
    return found


def _texts(
    row: ScoreRow, wanted: list[ItemKey], data_root: Path | None, runs_dir: Path
) -> tuple[Texts, str | None]:
    """Texts of items whose records do not hold them, and why they lack, if they do."""
    side = row.requests[0][0]
    task = task_of(side, row)
    if task is None:
        return {}, "its task is not known here"
    return texts_of(task, data_root or own_root(side, runs_dir), wanted)


def task_of(side: Side, row: ScoreRow) -> TaskSpec | None:
    """What the grid asked for, by the cell's own record; None where that is not known any more."""
    asked = side.record.get("tasks") or []
    wanted: dict[str, Any] = {"name": row.benchmark, "shots": row.first.shots}
    for task in (*(each for each in asked if each.get("name") == row.benchmark), wanted):
        try:
            return TaskSpec.model_validate(task)
        except ValueError:
            continue
    return None


def own_root(side: Side, runs_dir: Path) -> Path | None:
    """The data root that needs no naming: the embedded world's."""
    if not side.result.cell.get("world"):
        return None
    world = world_folder(runs_dir)
    return world if world.is_dir() else DATA


def _records(side: Side, request: Any, wanted: list[ItemKey]) -> dict[ItemKey, dict[str, Any]]:
    table = read_items(side, request)
    assert table is not None
    places = {key: number for number, key in enumerate(item_keys(table))}
    rows = table.take([places[item] for item in wanted]).to_pylist()
    return dict(zip(wanted, rows, strict=True))


def print_items(
    console: Console, found: list[tuple[ScoreRow, list[ShownItem], str | None]]
) -> None:
    """Prints the items, benchmark by benchmark and kind by kind."""
    for row, items, problem in found:
        names, seeds = kind_names(row), len(row.requests)
        for kind, name in names.items():
            mine = [one for one in items if one.kind == kind]
            if mine:
                assert row.outcomes is not None
                of = f" ({row.of})" if row.of else ""
                title = f"{row.benchmark} {row.metric}{of}: {name}"
                console.print()
                print_line(console, f"{title}: {len(mine)} of {row.outcomes.counts[kind]}", "bold")
                for item in mine:
                    _print_item(console, item, seeds)
        if problem is not None:
            print_line(
                console,
                f"{row.benchmark}: the texts of its items are not at hand ({problem}); give the "
                "folder that holds them with --data-root",
                "yellow",
            )


def _print_item(console: Console, item: ShownItem, seeds: int) -> None:
    print_line(console, f"{item.task} {item.doc_id} ({item.question_id})")
    lines = [("", item.question)] if item.question else []
    lines += [("option", option) for option in item.options]
    shares = ("", "")
    if seeds > 1:
        shares = f" (mean of {seeds} seeds: {item.first:.3g})", f" ({item.second:.3g})"
    lines += [("right", item.gold)] if item.gold else []
    lines += [("A" + shares[0], item.first_answers), ("B" + shares[1], item.second_answers)]
    for head, text in lines:
        shown = textwrap.shorten(text, LONGEST, placeholder=" …") if len(text) > LONGEST else text
        for number, part in enumerate(shown.splitlines() or [""]):
            print_line(console, f"    {head + ': ' if head and not number else ''}{part}")


def item_records(
    found: list[tuple[ScoreRow, list[ShownItem], str | None]],
) -> list[dict[str, Any]]:
    """The same as plain values."""
    return [
        {
            "benchmark": row.benchmark,
            "metric": row.metric,
            "of": row.of,
            "texts_missing": problem,
            "items": [asdict(item) for item in items],
        }
        for row, items, problem in found
    ]

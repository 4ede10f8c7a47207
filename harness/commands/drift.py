"""`zbench drift`: how far another stack moved the scores of the same cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import display
from harness.commands.display import cell_text, new_table, print_json, print_line
from harness.errors import UsageError
from harness.report.numbers import number, percent, points

if TYPE_CHECKING:
    from rich.console import Console

    from harness.analysis.drift import Drift, DriftRow, RankRow
    from harness.analysis.sides import Sides
    from harness.analysis.stacks import Stack

PARTS = {
    "scoring": "The same weights, scored again: what the evaluation moved",
    "training": "Trained again, other weights: what the training moved, and the evaluation",
    "not known": "Weights without a hash, of an older version: what either moved",
}
MOST_NAMED = 6
"""Cells, pairs of methods, differences that are named."""


def drift_command(
    old: str, new: str, *, only: str | None, runs_dir: Path, tracking_uri: str | None, as_json: bool
) -> int:
    """Tells how far the scores moved; that they did is no error."""
    from harness.analysis.drift import drift

    sides = [_sides(name, only, runs_dir, tracking_uri) for name in (old, new)]
    found = drift(*sides)
    if as_json:
        print_json(drift_record(found))
    else:
        print_drift(display.console(), found)
    return 0


def _sides(name: str, only: str | None, runs_dir: Path, tracking_uri: str | None) -> Sides:
    """All results of a runs folder, or what `compare` finds under a name."""
    from harness.analysis.sides import find_sides, stored_sides
    from harness.grid.folders import cell_folders
    from harness.readers.files import user_path

    folder = user_path(name) if "=" not in name else None
    if folder is not None and (folder / "cells").is_dir():
        sides = stored_sides(folder, cell_folders(folder))
    elif folder is not None and folder.is_dir() and not any(folder.glob("*.json")):
        raise UsageError(f"{name}: is no runs folder (it has no `cells` in it)")
    else:
        sides = find_sides(name, runs_dir=runs_dir, tracking_uri=tracking_uri)
    words = (only or "").split()
    chosen = tuple(
        one for one in sides.members
        if all(word in one.label or word in one.result.cell_id for word in words)
    )  # fmt: skip
    if not chosen:
        raise UsageError(f"--only '{only}': matches no cell of {name} that has a score")
    return replace(sides, members=chosen)


def print_drift(console: Console, found: Drift) -> None:
    """Prints the stacks, then how far the scores moved, then what became of the ranks."""
    alone = found.pairs.only_first, found.pairs.only_second
    both = zip(("OLD", "NEW"), (found.old, found.new), alone, found.stacks, strict=True)
    for letter, side, unpaired, stacks in both:
        name = side.name if len(side.members) > 1 else side.members[0].label
        print_line(console, f"{letter}  {name}: {len(found.pairs.pairs)} cells of both")
        for (what, stack), count in stacks.items():
            print_line(console, f"     {count} {what} with {_stack_text(stack)}")
        if unpaired:
            names = _listed([one.label for one in unpaired])
            print_line(console, f"     not in the other: {names}", "yellow")
    _print_differences(console, found)
    for part, title in PARTS.items():
        rows = [row for row in found.rows if row.part == part]
        if rows:
            console.print()
            print_line(console, f"{title} ({_cells(rows)})", "bold")
            _print_rows(console, rows)
    _print_ranks(console, found.ranks)
    if found.not_compared:
        listed = _listed(found.not_compared)
        print_line(console, f"Not of the same request on the same items: {listed}", "yellow")


def _cells(rows: Sequence[DriftRow]) -> str:
    count = len({label for row in rows for label in row.differences})
    return f"{count} cell{'s' * (count > 1)}"


def _stack_text(stack: Stack) -> str:
    from harness.analysis.stacks import FIELDS

    return stack.text(name for name in FIELDS if getattr(stack, name) is not None)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _print_differences(console: Console, found: Drift) -> None:
    if not found.differences:
        print_line(console, "No difference in the records that can move a score.")
        return
    lines: dict[tuple[str, str, str], list[str]] = {}
    for one in found.differences:
        lines.setdefault((one.what, one.first, one.second), []).append(one.part)
    told = [f"{what}: {first} → {second}" for what, first, second in lines]
    print_line(console, f"What differs: {_listed(told)}")


def _print_rows(console: Console, rows: Sequence[DriftRow]) -> None:
    heads = ["cells", "mean", "mean size", "SD", "largest", "items turned", "of"]
    table = new_table(["NEW − OLD, points"], heads)
    table.add_column("the largest is of")
    for row in rows:
        share = row.unit is None
        largest = row.differences[row.largest]
        sizes = (row.mean_absolute, row.deviation)
        texts = [
            str(len(row.differences)),
            points(row.mean) if share else f"{row.mean:+.4g}",
            *(percent(size) if share else number(size, ".4g") for size in sizes),
            points(largest) if share else f"{largest:+.4g}",
            "–" if row.turned is None else f"{percent(row.turned)}%",
            str(row.num_items or "–"),
            row.largest if largest else "–",
        ]
        unit = "" if share else f" [{row.unit}]"
        table.add_row(*map(cell_text, [_named(row) + unit, *texts]))
    console.print(table)


def _named(row: DriftRow | RankRow) -> str:
    return f"{row.benchmark} {row.metric}" + f" ({row.asked})" * bool(row.asked)


def _print_ranks(console: Console, ranks: Sequence[RankRow]) -> None:
    if not ranks:
        return
    console.print()
    table = new_table(["ranks of methods"], ["pairs", "changed order", "methods", "another rank"])
    table.add_column("such as")
    for name in dict.fromkeys(map(_named, ranks)):
        mine = [row for row in ranks if _named(row) == name]
        pairs = [f"{a} and {b} ({row.of})" for row in mine for a, b in row.swapped]
        counts = [
            sum(row.num_pairs for row in mine),
            len(pairs),
            sum(len(row.methods) for row in mine),
            sum(row.num_moved for row in mine),
        ]
        texts = [name, *map(str, counts), pairs[0] if pairs else ""]
        table.add_row(*map(cell_text, texts))
    console.print(table)
    print_line(console, "Ranks: of each model, data set and fraction, by the mean over the seeds.")


def drift_record(found: Drift) -> dict[str, Any]:
    """A drift as plain values; shares are 0..1."""
    alone = found.pairs.only_first, found.pairs.only_second
    sides = zip(("old", "new"), (found.old, found.new), found.stacks, alone, strict=True)
    return {
        **{
            name: {
                "name": side.name,
                "stacks": _stack_records(stacks),
                "not_in_the_other": [one.label for one in unpaired],
            }
            for name, side, stacks, unpaired in sides
        },
        "cells": [
            {"label": one.label, "old_id": one.result.cell_id, "new_id": other.result.cell_id}
            for one, other in found.pairs.pairs
        ],
        "differences": [asdict(difference) for difference in found.differences],
        "scores": [
            {
                **{
                    name: getattr(row, name)
                    for name in ("part", "benchmark", "metric", "asked", "unit")
                },
                "cells": len(row.differences),
                **{name: getattr(row, name) for name in ("mean", "mean_absolute", "deviation")},
                **{"items_turned": row.turned, "items": row.num_items},
                "by_cell": dict(row.differences),
            }
            for row in found.rows
        ],
        "ranks": [
            {**asdict(row), "pairs": row.num_pairs, "moved": row.num_moved} for row in found.ranks
        ],
        "not_compared": list(found.not_compared),
    }


def _stack_records(stacks: Mapping[tuple[str, Stack], int]) -> list[dict[str, Any]]:
    return [{"what": what, "cells": n, **asdict(stack)} for (what, stack), n in stacks.items()]

"""What a grid's claims could show, before it runs: the differences that its seeds and items detect.

The spread is that of finished cells, or else the grid's `seed_sd` with the number of the items; a
grid that has neither is told how to state it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.claims import PublishedDifference, published_claim, stated_text
from harness.analysis.columns import Group, Setting, stated_sd
from harness.analysis.comparisons import tested_margins
from harness.analysis.frames import cell_identity, rows_of
from harness.analysis.layout import Column, Layout, layout_of
from harness.analysis.power import LEVEL, Reach, Spread, reach_of, stated_spread
from harness.analysis.published import load_published
from harness.analysis.variants import BASE, PICTURES, Variant, name_of, named
from harness.estimate.own_tokens import own_size, some_items
from harness.estimate.tokens import num_items
from harness.evaluation.tasks import TaskSpec
from harness.grid.questions import ClaimSpec
from harness.grid.schema import Cell, GridSpec

if TYPE_CHECKING:
    from harness.evaluation.benchmark import Benchmark

Key = tuple[str, str, str, str, str]
"""Model, protocol, column and the names of both sides."""
UNPAIRED = "items at worst, as if the two were unrelated and half right"
"""Two models of one base agree on more items than by chance: their difference varies less."""


@dataclass(frozen=True)
class PlannedClaim:
    """A claim in one model, data set and column, before it is measured."""

    left: Variant
    right: Variant
    group: Group
    column: str
    margin: float | None
    """In the unit of the scores."""
    seeds: tuple[int, ...]
    """Those that both sides are planned with."""
    items: tuple[tuple[float, int | None], ...]
    """Weight and number of items of each benchmark of the column; None where it is not known."""
    published: PublishedDifference | None = None
    """The published difference, positive as claimed, where the two were measured alike."""
    num_methods: int = 0
    """Trained methods of its tables with at least as many seeds, which tell of its seeds too."""

    @property
    def model(self) -> str:
        """The model of both sides."""
        return self.left.model

    @property
    def unit(self) -> str | None:
        """What its scores count; None of shares."""
        return self.group.unit(self.column)


@dataclass(frozen=True)
class ClaimPower:
    """What a planned claim could show."""

    planned: PlannedClaim
    reach: Reach | None
    """None where nothing is known of the spread."""
    lacks: str = ""
    """What is to be stated or waited for then."""


def planned_claims(
    grid: GridSpec, cells: Sequence[Cell], data_root: Path | None
) -> list[PlannedClaim]:
    """The claims of a grid in each model, data set and protocol that its cells measure them in."""
    if not grid.claims:
        return []
    tasks = {task.name: task for cell in cells for task in cell.tasks}
    known = {name: task.benchmark for name, task in tasks.items()}
    seeds = _seeds(cells)
    layout = _layout(grid, known, list(seeds))
    sizes = {name: _num_items(task, data_root) for name, task in tasks.items()}
    published = load_published()
    found = []
    for group, mine in product(_groups(layout, tasks), _sides(grid.claims, seeds)):
        describes = group.is_rest and any(c.weights and c.is_shown for c in layout.columns.values())
        for (left, right), claims in mine.items():
            for column, margin in tested_margins(group, claims, describes=describes).items():
                parts = group.parts(column)
                if parts is None:
                    continue
                weights = group.weights_of(column)
                items = [
                    published.num_items(name, part)
                    or some_items(tasks[part.benchmark], part.where, data_root)
                    if part.where
                    else sizes[part.benchmark]
                    for name, part in zip(weights, parts, strict=True)
                ]
                common = _common(seeds[left], seeds[right])
                found.append(
                    PlannedClaim(
                        left, right, group, column, margin, common,
                        tuple(zip(weights.values(), items, strict=True)),
                        published_claim(published, left, right, group, column),
                        _num_methods(left, right, seeds, len(common)),
                    )
                )  # fmt: skip
    return found


def _seeds(cells: Sequence[Cell]) -> dict[Variant, tuple[int, ...]]:
    """The planned seeds of each variant of the tables: base, and the largest fraction of a set."""
    found: dict[Variant, list[int]] = {}
    for cell in rows_of(cells):
        known = cell_identity(cell)  # by hand: `variant_of` needs pandas
        data = None if cell.fraction is None else cell.data_name
        variant = Variant(
            cell.model_name,
            cell.method_label,
            cell.method,
            known["method_title"],
            cell.fraction,
            data,
            known.get(PICTURES),
        )
        found.setdefault(variant, []).extend([] if cell.seed is None else [cell.seed])
    largest: dict[tuple[str, str | None], float] = {}
    for v in found:
        if v.fraction is not None:
            key = v.model, v.data
            largest[key] = max(v.fraction, largest.get(key, 0.0))
    return {
        v: tuple(sorted(set(seeds)))
        for v, seeds in found.items()
        if v.fraction in (None, largest.get((v.model, v.data)))
    }


def _common(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    """Seeds of both sides; the untrained base model stands against every seed."""
    return tuple(seed for seed in first or second if not second or seed in second)


def _num_methods(
    left: Variant, right: Variant, seeds: Mapping[Variant, Sequence[int]], number: int
) -> int:
    """The trained methods beside whose seeds a claim's are seen, itself among them."""
    data = right.data if left.fraction is None else left.data
    mine = (v for v in seeds if v.fraction is not None and (v.model, v.data) == (left.model, data))
    return sum(len(seeds[v]) >= number for v in mine)


def _sides(
    claims: Sequence[ClaimSpec], variants: Mapping[Variant, object]
) -> Iterator[dict[tuple[Variant, Variant], list[ClaimSpec]]]:
    """The pairs that are claimed, of each model and data set."""
    places = dict.fromkeys((v.model, v.data) for v in variants if v.method_name != BASE)
    for model, data in places:
        mine = [v for v in variants if v.model == model and (v.data == data or v.fraction is None)]
        pairs: dict[tuple[Variant, Variant], list[ClaimSpec]] = {}
        for claim in claims:
            for left, right in product(named(claim.better, mine), named(claim.than, mine)):
                if left != right:
                    pairs.setdefault((left, right), []).append(claim)
        yield pairs


def _layout(grid: GridSpec, known: Mapping[str, Benchmark], variants: Sequence[Variant]) -> Layout:
    planned = {"benchmark": list(known), "metric": [b.primary_metric for b in known.values()]}
    methods = [(v.method, v.method_name) for v in variants if v.method_name != BASE]
    return layout_of(grid.tables, known, planned, methods)


def _groups(layout: Layout, tasks: Mapping[str, TaskSpec]) -> list[Group]:
    """The groups that the scores of the tasks will make, see `harness.analysis.grouping`."""
    groups: list[Group] = []
    for columns, is_rest in ((layout.columns, False), (layout.rest, True)):
        whole = layout.is_stated and not is_rest
        filled = {
            title: {one.protocol: one for one in _settings(column, tasks)}
            for title, column in columns.items()
        }
        for protocol in sorted({name for found in filled.values() for name in found}):
            settings: dict[str, Setting] = {}
            for title, found in filled.items():
                # A column of one benchmark stands in the tables of every protocol.
                lends = whole and len(columns[title].names) == 1
                one = next(iter(found.values()), None) if lends else found.get(protocol)
                if one is not None:
                    settings[title] = one
            if any(settings == other.settings for other in groups if whole):
                continue
            averages = {title: one.weights for title, one in columns.items() if one.weights}
            shown = [t for t, c in columns.items() if c.is_shown and (whole or t in settings)]
            groups.append(
                Group(protocol, settings, 0, columns=tuple(shown), weights=averages,
                      is_rest=is_rest)
            )  # fmt: skip
    return groups


def _settings(column: Column, tasks: Mapping[str, TaskSpec]) -> Iterator[Setting]:
    for task in (tasks[name] for name in column.names if name in tasks):
        known = task.benchmark
        chosen = column.metric or known.primary_metric
        yield Setting(
            task.name, known.protocol.name, chosen, task.num_shots, task.limit, "", "", "",
            None if task.decoding is None else task.decoding.temperature,
            known.unit(chosen), known.direction(chosen), task.form, where=column.where,
        )  # fmt: skip


def _num_items(task: TaskSpec, data_root: Path | None) -> int | None:
    """Items of a task, from known sizes or its local rows."""
    if (known := num_items(task)) is not None:
        return known
    size = own_size(task, data_root)
    return None if size is None else size.items


def claim_powers(
    grid: GridSpec, planned: Sequence[PlannedClaim], spreads: Mapping[Key, tuple[Spread, str]]
) -> list[ClaimPower]:
    """What each planned claim could show.

    Args:
        grid: the grid.
        planned: its claims.
        spreads: the spread of finished cells, and where it is from in words, by `key_of`.
    """
    level = LEVEL / max(1, len(planned))
    return [_power(grid, one, spreads.get(key_of(one)), level) for one in planned]


def key_of(planned: PlannedClaim) -> Key:
    """What tells a claim from the others of a grid."""
    names = name_of(planned.left), name_of(planned.right)
    return planned.model, planned.group.protocol, planned.column, *names


def _power(
    grid: GridSpec, planned: PlannedClaim, known: tuple[Spread, str] | None, level: float
) -> ClaimPower:
    if not planned.seeds:
        return ClaimPower(planned, None, "both sides need a seed in common")
    spread, source = known or _stated(grid, planned)
    if spread is None:
        return ClaimPower(planned, None, source)
    reach = reach_of(
        spread, len(planned.seeds), planned.margin,
        level=level, is_share=planned.unit is None, source=source,
        published=None if planned.published is None else planned.published.value,
    )  # fmt: skip
    return ClaimPower(planned, reach)


def _stated(grid: GridSpec, planned: PlannedClaim) -> tuple[Spread | None, str]:
    """The spread by what the grid states, with its source; or None, with what is lacking."""
    stated = grid.seed_sd and stated_sd(grid.seed_sd, planned.group, planned.column)
    if not stated:
        return None, (
            "nothing is known of the spread over seeds: state it in the grid (seed_sd: "
            "{points: 1.2, source: ...}), or finish two seeds of both"
        )
    if planned.unit is not None:
        known = Spread(2 * stated.points**2, 0.0, num_methods=planned.num_methods)
        return known, f"seed_sd {stated_text(stated)}"
    unknown = [
        name for name, (_, number) in zip(
            planned.group.weights_of(planned.column), planned.items, strict=True
        ) if not number
    ]  # fmt: skip
    if unknown:
        return None, f"the number of items is not known here: {', '.join(unknown)}"
    items = tuple((weight, number) for weight, number in planned.items if number)
    spread = stated_spread(stated.points / 100, items, num_methods=planned.num_methods)
    return spread, f"seed_sd {stated_text(stated)}; {UNPAIRED}"

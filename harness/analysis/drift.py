"""How far another stack moved the scores of the same cells: `zbench drift OLD NEW`."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from harness.analysis.compare import Comparison, ScoreRow, compare
from harness.analysis.differences import Difference, merge_pairs
from harness.analysis.sides import Pairs, Side, Sides
from harness.analysis.stacks import Stack, scoring_stack, training_stack
from harness.errors import UsageError
from harness.evaluation.shown import items_name
from harness.records.results import CellResult

Part = Literal["scoring", "training", "not known"]
"""What moved a score: the evaluation alone, since the weights are the same; the training (and the
evaluation), since they are others; or either, where an older record has no hash of the weights."""


@dataclass(frozen=True)
class DriftRow:
    """How far one metric of one benchmark moved, NEW minus OLD, over cells."""

    part: Part
    benchmark: str
    metric: str
    unit: str | None
    """None of a share (0..1)."""
    differences: Mapping[str, float]
    """By the cell's label, and its id where others have the same."""
    turned: float | None
    """Share of the items that one of the two gets right and the other wrong; None where items are
    not right or wrong, or have no records."""
    num_items: int
    """Items behind `turned`, over the cells."""
    asked: str = ""
    """Shots, limit and items, where several evaluations have this benchmark and metric."""

    @property
    def mean(self) -> float:
        """Mean over the cells."""
        return statistics.fmean(self.differences.values())

    @property
    def mean_absolute(self) -> float:
        """Mean size over the cells."""
        return statistics.fmean(map(abs, self.differences.values()))

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the cells; None of one."""
        values = list(self.differences.values())
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def largest(self) -> str:
        """Label of the cell that moved most."""
        return max(self.differences, key=lambda label: abs(self.differences[label]))


@dataclass(frozen=True)
class RankRow:
    """How the order of methods changed, of one model, data set and fraction, by one metric."""

    of: str
    benchmark: str
    metric: str
    methods: Mapping[str, tuple[int, int]]
    """Rank in OLD and in NEW by method; equal scores share the better rank."""
    swapped: tuple[tuple[str, str], ...]
    """Pairs of methods whose order turned over."""
    asked: str = ""
    """As of a DriftRow."""

    @property
    def num_pairs(self) -> int:
        """Pairs of methods."""
        return len(self.methods) * (len(self.methods) - 1) // 2

    @property
    def num_moved(self) -> int:
        """Methods with another rank."""
        return sum(old != new for old, new in self.methods.values())


@dataclass(frozen=True)
class Drift:
    """What `zbench drift` prints."""

    old: Sides
    new: Sides
    pairs: Pairs
    stacks: tuple[Mapping[tuple[str, Stack], int], Mapping[tuple[str, Stack], int]]
    """Of OLD and NEW: number of cells by what was done (`trained`, `scored`) and with what."""
    differences: tuple[Difference, ...]
    """All that differs in the records."""
    rows: tuple[DriftRow, ...]
    ranks: tuple[RankRow, ...]
    not_compared: tuple[str, ...]
    """Scores of both that are not of the same request on the same items, in words."""


def drift(old: Sides, new: Sides) -> Drift:
    """How far the scores of the same cells moved.

    Raises:
        UsageError: no cell is in both.
        StorageError: records of items are damaged.
    """
    pairs = same_cells(old, new)
    if not pairs.pairs:
        raise UsageError(
            f"{old.name} and {new.name}: have no cell of the same id or label with a score; run "
            "the same grid in both, as in `zbench run-grid GRID --runs-dir runs-new`"
        )
    compared = [(one, other, compare(one, other)) for one, other in pairs.pairs]
    labels = Counter(one.label for one, _ in pairs.pairs)
    rows: dict[tuple[Part, str, str, Asked], list[tuple[str, ScoreRow]]] = {}
    skipped: dict[str, None] = {}
    for one, other, found in compared:
        # A folder may hold cells of several grids that have one label.
        name = f"{one.label} ({one.result.cell_id})" if labels[one.label] > 1 else one.label
        for row in found.rows:
            if not _same_request(row):
                skipped[f"{name}: {row.benchmark} {row.metric}"] = None
                continue
            key = (_part(one.result, other.result), row.benchmark, row.metric, _asked(row))
            rows.setdefault(key, []).append((name, row))
    texts = _asked_texts(compared)
    order: list[Part] = ["scoring", "training", "not known"]
    return Drift(
        old,
        new,
        pairs,
        (_stacks(one for one, _ in pairs.pairs), _stacks(other for _, other in pairs.pairs)),
        tuple(merge_pairs([found.differences for *_, found in compared])),
        tuple(
            _row(part, rows[part, benchmark, metric, asked], texts[benchmark, metric, asked])
            for part, benchmark, metric, asked in sorted(rows, key=lambda key: order.index(key[0]))
        ),
        tuple(_ranks(compared, texts)),
        tuple(skipped),
    )


Asked = tuple[int, int | None, str]
"""Shots, limit and items of an evaluation."""


def _asked(row: ScoreRow) -> Asked:
    return row.first.shots, row.first.limit, items_name(row.first)


def _asked_texts(
    compared: Sequence[tuple[Side, Side, Comparison]],
) -> dict[tuple[str, str, Asked], str]:
    """What tells the evaluations of one benchmark and metric apart, where there are several."""
    found: dict[tuple[str, str], dict[Asked, None]] = {}
    for *_, comparison in compared:
        for row in filter(_same_request, comparison.rows):
            found.setdefault((row.benchmark, row.metric), {})[_asked(row)] = None
    return {
        (*key, asked): ", ".join(
            text
            for text, values in zip(_words(asked), zip(*several, strict=True), strict=True)
            if len(set(values)) > 1
        )
        for key, several in found.items()
        for asked in several
    }


def _words(asked: Asked) -> tuple[str, str, str]:
    shots, limit, items = asked
    return f"{shots}-shot", "all items" if limit is None else f"limit {limit}", f"items {items}"


def same_cells(old: Sides, new: Sides) -> Pairs:
    """Cells of the same id, and of the others those of the same label, where it is of one alone."""
    if len(old.members) == len(new.members) == 1:
        return Pairs(((old.members[0], new.members[0]),))
    pairs: list[tuple[Side, Side]] = []
    rest = [list(old.members), list(new.members)]
    for name in (lambda side: side.result.cell_id, lambda side: side.label):
        counts = [Counter(map(name, side)) for side in rest]
        known = {name(side): side for side in rest[1]}
        found = [
            (one, known[name(one)])
            for one in rest[0]
            if counts[0][name(one)] == counts[1][name(one)] == 1
        ]
        pairs += found
        taken = {id(side) for pair in found for side in pair}
        rest = [[side for side in sides if id(side) not in taken] for sides in rest]
    order = {id(side): number for number, side in enumerate(old.members)}
    pairs.sort(key=lambda pair: order[id(pair[0])])
    return Pairs(tuple(pairs), tuple(rest[0]), tuple(rest[1]))


def _same_request(row: ScoreRow) -> bool:
    """Whether both scores answer the same: the version of lm-eval is the stack's."""
    asked = [
        (s.protocol, s.shots, s.limit, s.temperature, s.form, s.definition, s.unit)
        for s in (row.first, row.second)
    ]
    return asked[0] == asked[1] and row.first.same_items(row.second)


def _part(old: CellResult, new: CellResult) -> Part:
    if old.train is None or new.train is None:
        weights = [result.base.get("weights_sha256") for result in (old, new)]
    else:
        weights = [result.train.weights_sha256 for result in (old, new) if result.train]
    if None in weights:
        return "not known"
    return "scoring" if weights[0] == weights[1] else "training"


def _stacks(sides: Iterator[Side]) -> Counter[tuple[str, Stack]]:
    counts: Counter[tuple[str, Stack]] = Counter()
    for side in sides:
        trained = training_stack(side.result)
        if trained is not None:
            counts["trained", trained] += 1
        scored = {scoring_stack(side.result, score) for score in side.result.scores}
        counts.update(("scored", stack) for stack in scored)
    return counts


def _row(part: Part, found: Sequence[tuple[str, ScoreRow]], asked: str) -> DriftRow:
    known = [row.outcomes for _, row in found if row.outcomes and row.outcomes.right_or_wrong]
    num_items = sum(len(outcomes.items) for outcomes in known)
    turned = sum(o.counts["first"] + o.counts["second"] for o in known)
    return DriftRow(
        part,
        found[0][1].benchmark,
        found[0][1].metric,
        found[0][1].first.unit,
        {label: row.difference for label, row in found},
        turned / num_items if num_items else None,
        num_items,
        asked,
    )


def _ranks(
    compared: Sequence[tuple[Side, Side, Comparison]], texts: Mapping[tuple[str, str, Asked], str]
) -> Iterator[RankRow]:
    """Yields the order of methods wherever there are two or more, from means over their seeds."""
    scores: dict[tuple[str, str, str, Asked, bool], dict[str, list[ScoreRow]]] = {}
    names: dict[tuple[str, str], dict[str, str]] = {}
    for one, _, found in compared:
        if one.result.cell.keys() & {"repeat", "fixed_seeds"}:
            continue  # trained for what noise does, and no method of its own
        key = one.key
        of = key.text("model", "data", "fraction")
        # What several grids call by one label is no one method.
        own = str({name: value for name, value in one.result.cell.items() if name != "seed"})
        known = names.setdefault((of, key.method), {})
        method = known.setdefault(
            own, f"{key.method} ({one.result.cell_id})" if known else key.method
        )
        for row in filter(_same_request, found.rows):
            place = (of, row.benchmark, row.metric, _asked(row), row.first.higher_is_better)
            scores.setdefault(place, {}).setdefault(method, []).append(row)
    for (of, benchmark, metric, asked, higher), methods in scores.items():
        if len(methods) < 2:
            continue
        sign = 1 if higher else -1
        means = {
            method: [sign * statistics.fmean(row.values[at] for row in rows) for at in (0, 1)]
            for method, rows in methods.items()
        }
        ranks = {
            method: tuple(1 + sum(m[at] > mine[at] for m in means.values()) for at in (0, 1))
            for method, mine in means.items()
        }
        swapped = tuple(
            (a, b)
            for a, b in combinations(means, 2)
            if (means[a][0] - means[b][0]) * (means[a][1] - means[b][1]) < 0
        )
        both = {method: (old, new) for method, (old, new) in ranks.items()}
        text = texts[benchmark, metric, asked]
        yield RankRow(of, benchmark, metric, both, swapped, text)

"""Fills rows of the trie into batches of a token budget; the same rows give the same batches."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.evaluation.prefix_trie.trie import Row, Span

SCORED_SHARE = 4
"""At most one in so many tokens of the budget is scored in a batch: logits over a vocabulary of
32,000 are as large as all else that a token of a small model leaves in memory."""
PADDING, PADDING_SHARE = 128, 32
"""A batch has at most so many tokens of padding, and one more in so many of its tokens: less would
cost more passes than it saves."""
LENGTH_STEP = 32
"""Private prefixes are sorted by length to this accuracy, then the rows on them by their own."""

Lane = tuple[Row, ...]
"""Rows beside each other, which continue the same prefix and do not see each other."""
Batch = tuple[Lane, ...]
"""Lanes of one forward pass; the prefixes that they continue are computed before it."""


@dataclass(frozen=True)
class _Place:
    """What decides where a row comes in the order, and what it takes of a budget."""

    row: Row
    shared: Row | None
    """The nearest prefix that several rows continue."""
    private: int
    """Tokens of the prefixes between that one and the row, which are computed for it alone."""
    scored: int
    """Positions that are scored in the row and in its private prefixes."""

    @property
    def needs_no_mask(self) -> bool:
        """Whether it is a chain from position 0, alone in its lane: attention is faster then."""
        return self.row.parent is None and self.row.ends is None


@dataclass(frozen=True)
class _Filled:
    """Lanes that fit in a batch, all of them on one prefix or on private ones."""

    lanes: tuple[tuple[_Place, ...], ...]

    @property
    def level(self) -> int:
        """The number of prefixes before each row."""
        return self.lanes[0][0].row.level

    def fits(self, token_budget: int) -> bool:
        """Tells whether one forward pass of at most `token_budget` tokens takes it."""
        if len(self.lanes) == 1:
            return True
        places = [place for lane in self.lanes for place in lane]
        width = max(sum(place.row.size for place in lane) for lane in self.lanes)
        private = max(place.private for place in places)
        padded = len(self.lanes) * (width + private)
        padding = padded - sum(place.row.size + place.private for place in places)
        prefixes = {place.shared: place.shared.size for place in places if place.shared is not None}
        if len(prefixes) > 1:
            padded += len(prefixes) * max(prefixes.values())
        return (
            padded <= token_budget
            and padding <= PADDING + padded // PADDING_SHARE
            and SCORED_SHARE * sum(place.scored for place in places) <= token_budget
        )


def make_batches(spans: Sequence[Span], token_budget: int) -> list[Batch]:
    """Returns the batches that compute all spans; the longest rows on a prefix come first.

    A batch holds at most `token_budget` tokens with padding, prefixes included unless it is a
    single one that all of its rows continue, of which at most one in SCORED_SHARE is scored; a row
    that is larger by itself is a batch of its own.
    """
    batches: list[_Filled] = []
    open_batch: _Filled | None = None
    for family in _families(spans):
        first = family[0]
        filled = _fill_in_order if first.private or first.needs_no_mask else _fill_closely
        own = filled(family, token_budget)
        if len(own) > 1:  # its prefix is computed once only if no other comes in between
            batches += [open_batch, *own] if open_batch else own
            open_batch = None
            continue
        joined = _Filled(open_batch.lanes + own[0].lanes) if open_batch else own[0]
        if open_batch and not (open_batch.level == own[0].level and joined.fits(token_budget)):
            batches.append(open_batch)
            joined = own[0]
        open_batch = joined
    if open_batch:
        batches.append(open_batch)
    return [tuple(tuple(place.row for place in lane) for lane in batch.lanes) for batch in batches]


def spans_by_row(spans: Iterable[Span]) -> dict[Row, list[Span]]:
    """Returns the spans of each row that has any."""
    found: dict[Row, list[Span]] = defaultdict(list)
    for span in spans:
        found[span.row].append(span)
    return dict(found)


def _fill_closely(family: Sequence[_Place], token_budget: int) -> list[_Filled]:
    """Fills lanes as wide as the largest row that is left with whatever fits beside each other."""
    left = sorted(family, key=lambda place: (place.row.size, -place.row.number))
    sizes = [place.row.size for place in left]
    batches = []
    while left:
        width, scored = sizes[-1], 0
        lanes: list[tuple[_Place, ...]] = []
        while left and (not lanes or (len(lanes) + 1) * width <= token_budget):
            if lanes and SCORED_SHARE * (scored + left[-1].scored) > token_budget:
                break
            lane: list[_Place] = []
            free = width
            while (at := bisect_right(sizes, free) - 1) >= 0:
                if lane and SCORED_SHARE * (scored + left[at].scored) > token_budget:
                    break
                lane.append(left.pop(at))
                free -= sizes.pop(at)
                scored += lane[-1].scored
            lanes.append(tuple(lane))
        batches.append(_Filled(tuple(lanes)))
    return batches


def _fill_in_order(family: Sequence[_Place], token_budget: int) -> list[_Filled]:
    """Fills batches with one row in a lane."""
    order = sorted(family, key=lambda place: (-(place.private // LENGTH_STEP), -place.row.size))
    batches = [_Filled(((order[0],),))]
    for place in order[1:]:
        joined = _Filled((*batches[-1].lanes, (place,)))
        if joined.fits(token_budget):
            batches[-1] = joined
        else:
            batches.append(_Filled(((place,),)))
    return batches


def _families(spans: Sequence[Span]) -> list[list[_Place]]:
    """Returns the rows that nothing continues, by the prefix that they share, in order."""
    by_row = spans_by_row(spans)
    needed: set[Row] = set()
    for scored in by_row:
        row: Row | None = scored
        while row is not None and row not in needed:
            needed.add(row)
            row = row.parent
    continued = Counter(row.parent for row in needed if row.parent is not None)
    families: dict[tuple[int, int, bool], list[_Place]] = defaultdict(list)
    for last in sorted(needed.difference(continued), key=lambda row: row.number):
        place = _place(last, continued, by_row)
        number = -1 if place.shared is None else place.shared.number
        families[last.level, number, place.needs_no_mask].append(place)
    return [families[key] for key in sorted(families)]


def _place(row: Row, continued: Mapping[Row, int], by_row: Mapping[Row, Sequence[Span]]) -> _Place:
    scored, private, shared = _num_scored(by_row.get(row, ())), 0, row.parent
    while shared is not None and continued[shared] == 1:
        private += shared.size
        scored += _num_scored(by_row.get(shared, ()))
        shared = shared.parent
    return _Place(row, shared, private, scored)


def _num_scored(spans: Sequence[Span]) -> int:
    return len({span.index + step for span in spans for step in range(span.count)})

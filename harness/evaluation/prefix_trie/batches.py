"""Packs segments of the trie into batches of a token budget; equal segments give equal batches."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.evaluation.prefix_trie.trie import Segment, Span

SCORED_SHARE = 4
"""At most one in so many tokens of the budget is scored in a batch: logits over a vocabulary of
32,000 are as large as all else that a token of a small model leaves in memory."""
PADDING, PADDING_SHARE = 128, 32
"""A batch has at most so many tokens of padding, and one more in so many of its tokens: less would
cost more passes than it saves."""
LENGTH_STEP = 32
"""Private prefixes are sorted by length to this accuracy, then what continues them by its own."""

BatchRow = tuple[Segment, ...]
"""Segments packed side by side, which continue the same prefix and do not see each other."""
Batch = tuple[BatchRow, ...]
"""The rows of one forward pass; the prefixes that they continue are computed before it."""


@dataclass(frozen=True)
class _Entry:
    """A segment, and what it takes of a budget."""

    segment: Segment
    shared: Segment | None
    """The nearest prefix that several segments continue."""
    private: int
    """Tokens of the prefixes between that one and the segment, which are computed for it alone."""
    scored: int
    """Positions that are scored in the segment and in its private prefixes."""

    @property
    def needs_no_mask(self) -> bool:
        """Whether it is a chain from position 0, alone in its row: attention is faster then."""
        return self.segment.parent is None and self.segment.ends is None


PackedBatch = tuple[tuple[_Entry, ...], ...]
"""A batch's rows of entries, all of them on one prefix or on private ones."""


def make_batches(spans: Sequence[Span], token_budget: int) -> list[Batch]:
    """Returns the batches that compute all spans; the longest segments on a prefix come first.

    A batch holds at most `token_budget` tokens with padding, prefixes included unless it is a
    single one that all of its rows continue, of which at most one in SCORED_SHARE is scored; a
    segment that is larger by itself is a batch of its own.
    """
    batches: list[PackedBatch] = []
    open_batch: PackedBatch = ()
    for family in _families(spans):
        in_order = family[0].private or family[0].needs_no_mask
        own = (_pack_in_order if in_order else _pack_closely)(family, token_budget)
        joined = open_batch + own[0]
        if len(own) > 1:  # its prefix is computed once only if no other comes in between
            batches += [open_batch, *own]
            open_batch = ()
        elif _level(joined) == _level(own[0]) and _fits(joined, token_budget):
            open_batch = joined
        else:
            batches.append(open_batch)
            open_batch = own[0]
    return [
        tuple(tuple(entry.segment for entry in row) for row in batch)
        for batch in (*batches, open_batch)
        if batch
    ]


def spans_by_segment(spans: Iterable[Span]) -> dict[Segment, list[Span]]:
    """Returns the spans of each segment that has any."""
    found: dict[Segment, list[Span]] = defaultdict(list)
    for span in spans:
        found[span.segment].append(span)
    return dict(found)


def _level(batch: PackedBatch) -> int:
    """The number of prefixes before each row."""
    return batch[0][0].segment.level


def _fits(batch: PackedBatch, token_budget: int) -> bool:
    """Tells whether one forward pass of at most `token_budget` tokens takes a batch."""
    if len(batch) == 1:
        return True
    entries = [entry for row in batch for entry in row]
    width = max(sum(entry.segment.size for entry in row) for row in batch)
    padded = len(batch) * (width + max(entry.private for entry in entries))
    padding = padded - sum(entry.segment.size + entry.private for entry in entries)
    prefixes = {entry.shared for entry in entries if entry.shared is not None}
    if len(prefixes) > 1:
        padded += len(prefixes) * max(prefix.size for prefix in prefixes)
    return (
        padded <= token_budget
        and padding <= PADDING + padded // PADDING_SHARE
        and SCORED_SHARE * sum(entry.scored for entry in entries) <= token_budget
    )


def _pack_closely(family: Sequence[_Entry], token_budget: int) -> list[PackedBatch]:
    """Packs rows as wide as the largest segment that is left with whatever fits beside it."""
    left = sorted(family, key=lambda entry: (entry.segment.size, -entry.segment.number))
    sizes = [entry.segment.size for entry in left]
    batches = []
    while left:
        width, scored = sizes[-1], 0
        rows: list[tuple[_Entry, ...]] = []
        while left and (not rows or (len(rows) + 1) * width <= token_budget):
            if rows and SCORED_SHARE * (scored + left[-1].scored) > token_budget:
                break
            row: list[_Entry] = []
            free = width
            while (at := bisect_right(sizes, free) - 1) >= 0:
                if row and SCORED_SHARE * (scored + left[at].scored) > token_budget:
                    break
                row.append(left.pop(at))
                free -= sizes.pop(at)
                scored += row[-1].scored
            rows.append(tuple(row))
        batches.append(tuple(rows))
    return batches


def _pack_in_order(family: Sequence[_Entry], token_budget: int) -> list[PackedBatch]:
    """Packs batches with one segment in a row."""
    batches: list[PackedBatch] = [()]
    for entry in sorted(family, key=lambda one: (-(one.private // LENGTH_STEP), -one.segment.size)):
        joined = (*batches[-1], (entry,))
        if _fits(joined, token_budget):
            batches[-1] = joined
        else:
            batches.append(((entry,),))
    return batches


def _families(spans: Sequence[Span]) -> list[list[_Entry]]:
    """Returns the segments that nothing continues, by the prefix that they share, in order."""
    by_segment = spans_by_segment(spans)
    needed: set[Segment] = set()
    for scored in by_segment:
        segment: Segment | None = scored
        while segment is not None and segment not in needed:
            needed.add(segment)
            segment = segment.parent
    continued = Counter(segment.parent for segment in needed if segment.parent is not None)
    families: dict[tuple[int, int, bool], list[_Entry]] = defaultdict(list)
    for last in sorted(needed.difference(continued), key=lambda segment: segment.number):
        entry = _entry(last, continued, by_segment)
        number = -1 if entry.shared is None else entry.shared.number
        families[last.level, number, entry.needs_no_mask].append(entry)
    return [families[key] for key in sorted(families)]


def _entry(
    segment: Segment,
    continued: Mapping[Segment, int],
    by_segment: Mapping[Segment, Sequence[Span]],
) -> _Entry:
    scored, private, shared = _num_scored(by_segment.get(segment, ())), 0, segment.parent
    while shared is not None and continued[shared] == 1:
        private += shared.size
        scored += _num_scored(by_segment.get(shared, ()))
        shared = shared.parent
    return _Entry(segment, shared, private, scored)


def _num_scored(spans: Sequence[Span]) -> int:
    return len({span.index + step for span in spans for step in range(span.count)})

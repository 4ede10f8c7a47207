"""Packs segments into batches within a token budget; equal segments give equal batches.

Segments are grouped by the cached prefix that they share, so that it is computed once. A group is
packed either best-fit decreasing, several segments in a row, or one segment per row in order of
length. Small groups at one depth share a batch where that fits.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from harness.evaluation.prefix_trie.trie import Segment, Span

MAX_SCORED_FRACTION = 1 / 4
"""Largest share of the budget that is scored in a batch: logits over a vocabulary of 32,000 are as
large as all else that a token of a small model leaves in memory."""
MAX_PADDING, MAX_PADDING_FRACTION = 128, 1 / 32
"""Padding of a batch in tokens: MAX_PADDING plus this fraction of its padded size. Tighter bounds
cost more passes than they save."""
LENGTH_STEP = 32
"""Private prefixes are sorted by length to this accuracy, then what continues them by its own."""

BatchRow = tuple[Segment, ...]
"""Segments packed side by side, which continue the same prefix and do not see each other. All of
them are under one picture, or none."""
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
    """The batches that compute all spans; of the segments on a prefix the longest come first.

    A batch holds at most `token_budget` tokens with padding. Its prefixes count too, unless all
    rows share one. A segment that exceeds a bound by itself is a batch of its own.
    """
    batches: list[PackedBatch] = []
    open_batch: PackedBatch = ()
    for group in _groups_by_prefix(spans):
        in_order = group[0].private or group[0].needs_no_mask
        own = (_pack_in_order if in_order else _pack_best_fit)(group, token_budget)
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
    """The spans of each segment that has any."""
    found: dict[Segment, list[Span]] = defaultdict(list)
    for span in spans:
        found[span.segment].append(span)
    return dict(found)


def _level(batch: PackedBatch) -> int:
    """The number of prefixes before each row."""
    return batch[0][0].segment.level


def _fits(batch: PackedBatch, token_budget: int) -> bool:
    """Whether a batch stays within its bounds.

    A single row always does. Several do if their tokens, padding and (where they differ) prefixes
    are at most `token_budget`, and padding and scored tokens are within MAX_PADDING,
    MAX_PADDING_FRACTION and MAX_SCORED_FRACTION.
    """
    if len(batch) == 1:
        return True
    entries = [entry for row in batch for entry in row]
    row_length = max(sum(entry.segment.size for entry in row) for row in batch)
    padded = len(batch) * (row_length + max(entry.private for entry in entries))
    padding = padded - sum(entry.segment.size + entry.private for entry in entries)
    prefixes = {entry.shared for entry in entries if entry.shared is not None}
    if len(prefixes) > 1:
        padded += len(prefixes) * max(prefix.size for prefix in prefixes)
    return (
        padded <= token_budget
        and padding <= MAX_PADDING + MAX_PADDING_FRACTION * padded
        and sum(entry.scored for entry in entries) <= MAX_SCORED_FRACTION * token_budget
    )


def _pack_best_fit(group: Sequence[_Entry], token_budget: int) -> list[PackedBatch]:
    """Best-fit decreasing: a batch's rows are as long as the largest segment left, and each is
    filled with the largest under the same picture that still fit."""
    max_scored = MAX_SCORED_FRACTION * token_budget
    by_picture: dict[str | None, list[_Entry]] = defaultdict(list)
    for entry in sorted(group, key=_largest_first, reverse=True):
        by_picture[entry.segment.picture].append(entry)
    # The entries of each picture by the largest of them, which is at their end.
    left = [(*_largest_first(of_it[-1]), of_it) for of_it in by_picture.values()]
    heapify(left)
    batches = []
    while left:
        row_length, scored = -left[0][0], 0
        rows: list[tuple[_Entry, ...]] = []
        while left and (not rows or (len(rows) + 1) * row_length <= token_budget):
            of_it = left[0][-1]
            if rows and scored + of_it[-1].scored > max_scored:
                break
            row: list[_Entry] = []
            free = row_length
            while (at := bisect_right(of_it, free, key=lambda one: one.segment.size) - 1) >= 0:
                if row and scored + of_it[at].scored > max_scored:
                    break
                row.append(of_it.pop(at))
                free -= row[-1].segment.size
                scored += row[-1].scored
            heappop(left)
            if of_it:
                heappush(left, (*_largest_first(of_it[-1]), of_it))
            rows.append(tuple(row))
        batches.append(tuple(rows))
    return batches


def _largest_first(entry: _Entry) -> tuple[int, int]:
    return -entry.segment.size, entry.segment.number


def _pack_in_order(group: Sequence[_Entry], token_budget: int) -> list[PackedBatch]:
    """Packs batches with one segment per row, the longest first."""
    batches: list[PackedBatch] = [()]
    for entry in sorted(group, key=lambda one: (-(one.private // LENGTH_STEP), -one.segment.size)):
        joined = (*batches[-1], (entry,))
        if _fits(joined, token_budget):
            batches[-1] = joined
        else:
            batches.append(((entry,),))
    return batches


def _groups_by_prefix(spans: Sequence[Span]) -> list[list[_Entry]]:
    """The segments that no other continues, grouped by depth and shared prefix, in order."""
    by_segment = spans_by_segment(spans)
    needed: set[Segment] = set()
    for scored in by_segment:
        segment: Segment | None = scored
        while segment is not None and segment not in needed:
            needed.add(segment)
            segment = segment.parent
    continued = Counter(segment.parent for segment in needed if segment.parent is not None)
    groups: dict[tuple[int, int, bool], list[_Entry]] = defaultdict(list)
    for last in sorted(needed.difference(continued), key=lambda segment: segment.number):
        entry = _entry(last, continued, by_segment)
        number = -1 if entry.shared is None else entry.shared.number
        groups[last.level, number, entry.needs_no_mask].append(entry)
    return [groups[key] for key in sorted(groups)]


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

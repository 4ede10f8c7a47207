from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from harness.evaluation.prefix_trie.batches import MAX_SCORED_FRACTION, Batch, make_batches
from harness.evaluation.prefix_trie.trie import Request, Segment, Span, plan_spans
from tests.evaluation.prefix_trie.test_trie import HIDDEN_SIZE, question, segments_of, tokens


def questions(seed: int, count: int, context: tuple[int, int], before: int = 0) -> list[Request]:
    rng = random.Random(seed)
    preamble = tokens(seed, before) if before else []
    found: list[Request] = []
    for number in range(count):
        answers = [rng.randint(2, 12) for _ in range(4)]
        found += question(number, rng.randint(*context), answers, preamble)
    return found


def spans_of(asked: Sequence[Request]) -> list[Span]:
    return plan_spans(asked, largest_segment=1024, hidden_size=HIDDEN_SIZE)


REQUESTS = {
    "short": questions(1, 80, (10, 60)),
    "preamble": questions(2, 80, (10, 60), before=200),
    "long": questions(3, 30, (400, 700)),
    "long after a preamble": questions(4, 20, (400, 700), before=300),
}
CASES = {name: spans_of(asked) for name, asked in REQUESTS.items()}


def content(batches: Sequence[Batch]) -> list[list[list[tuple[int, ...]]]]:
    return [[[tuple(segment.tokens) for segment in row] for row in batch] for batch in batches]


def segments_in(batch: Batch) -> list[Segment]:
    return [segment for row in batch for segment in row]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("budget", [256, 1024, 8192])
def test_every_segment_is_computed_once(name: str, budget: int) -> None:
    batches = make_batches(CASES[name], budget)
    segments = [one for batch in batches for one in segments_in(batch)]
    assert len(segments) == len(set(segments))
    continued = {one.parent for one in segments_of(CASES[name])}
    assert set(segments) == segments_of(CASES[name]) - continued
    assert all(len({one.level for one in segments_in(batch)}) == 1 for batch in batches)
    assert all(len({one.parent for one in row}) == 1 for batch in batches for row in batch)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("budget", [256, 1024, 8192])
def test_a_batch_of_several_segments_stays_within_the_budget(name: str, budget: int) -> None:
    continued: dict[Segment, int] = {}
    for segment in segments_of(CASES[name]):
        if segment.parent is not None:
            continued[segment.parent] = continued.get(segment.parent, 0) + 1
    scored: dict[Segment, set[int]] = {}
    for span in CASES[name]:
        scored.setdefault(span.segment, set()).update(range(span.index, span.index + span.count))
    sizes = []
    for batch in make_batches(CASES[name], budget):
        segments = segments_in(batch)
        own = [one.parent for one in segments if one.parent and continued[one.parent] == 1]
        row_length = max(sum(one.size for one in row) for row in batch)
        row_length += max((one.size for one in own), default=0)
        sizes.append(len(segments))
        if len(segments) == 1:
            continue
        assert row_length * len(batch) <= budget
        assert sum(len(scored[one]) for one in [*segments, *own]) <= MAX_SCORED_FRACTION * budget
    assert max(sizes) > 1 or budget < 1024


@pytest.mark.parametrize("name", CASES)
def test_batches_depend_on_nothing_but_the_requests(name: str) -> None:
    first = content(make_batches(CASES[name], 1024))
    shuffled = random.Random(3).sample(REQUESTS[name], len(REQUESTS[name]))
    assert content(make_batches(spans_of(shuffled), 1024)) == first
    assert content(make_batches(CASES[name], 512)) != first


def test_short_segments_lie_beside_each_other_so_that_little_is_padding() -> None:
    asked = [one for seed in range(200) for one in question(seed, 4 + seed % 80, [2, 2, 2])]
    batches = make_batches(spans_of(asked), 4096)
    padded = sum(
        len(batch) * max(sum(one.size for one in row) for row in batch) for batch in batches
    )
    real = sum(one.size for batch in batches for one in segments_in(batch))
    assert max(len(row) for batch in batches for row in batch) > 1
    assert padded < 1.1 * real


def test_small_groups_on_different_prefixes_share_batches() -> None:
    asked: list[Request] = []
    for subject in range(20):
        preamble = tokens(10_000 + subject, 80)
        for number in range(8):
            asked += question(100 * subject + number, 60, [5, 6], preamble)
    batches = make_batches(spans_of(asked), 8192)
    assert max(len({one.parent for one in segments_in(batch)}) for batch in batches) > 3


def test_nothing_gives_no_batches() -> None:
    assert make_batches([], 1024) == []

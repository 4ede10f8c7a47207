from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from harness.evaluation.prefix_trie.batches import SCORED_SHARE, Batch, make_batches
from harness.evaluation.prefix_trie.trie import Query, Row, Span, Trie
from tests.evaluation.prefix_trie.test_trie import WIDTH, question, rows_of, tokens


def questions(seed: int, count: int, context: tuple[int, int], before: int = 0) -> list[Query]:
    rng = random.Random(seed)
    preamble = tokens(seed, before) if before else []
    found: list[Query] = []
    for number in range(count):
        answers = [rng.randint(2, 12) for _ in range(4)]
        found += question(number, rng.randint(*context), answers, preamble)
    return found


def spans_of(queries: Sequence[Query]) -> list[Span]:
    return Trie(queries, largest_row=1024, width=WIDTH).spans


QUERIES = {
    "short": questions(1, 80, (10, 60)),
    "preamble": questions(2, 80, (10, 60), before=200),
    "long": questions(3, 30, (400, 700)),
    "long after a preamble": questions(4, 20, (400, 700), before=300),
}
CASES = {name: spans_of(queries) for name, queries in QUERIES.items()}


def content(batches: Sequence[Batch]) -> list[list[list[tuple[int, ...]]]]:
    return [[[tuple(row.tokens) for row in lane] for lane in batch] for batch in batches]


def rows_in(batch: Batch) -> list[Row]:
    return [row for lane in batch for row in lane]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("budget", [256, 1024, 8192])
def test_every_row_is_computed_once(name: str, budget: int) -> None:
    batches = make_batches(CASES[name], budget)
    rows = [row for batch in batches for row in rows_in(batch)]
    assert len(rows) == len(set(rows))
    continued = {row.parent for row in rows_of(CASES[name])}
    assert set(rows) == rows_of(CASES[name]) - continued
    assert all(len({row.level for row in rows_in(batch)}) == 1 for batch in batches)
    assert all(len({row.parent for row in lane}) == 1 for batch in batches for lane in batch)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("budget", [256, 1024, 8192])
def test_a_batch_of_several_rows_stays_within_the_budget(name: str, budget: int) -> None:
    continued: dict[Row, int] = {}
    for row in rows_of(CASES[name]):
        if row.parent is not None:
            continued[row.parent] = continued.get(row.parent, 0) + 1
    scored: dict[Row, set[int]] = {}
    for span in CASES[name]:
        scored.setdefault(span.row, set()).update(range(span.index, span.index + span.count))
    sizes = []
    for batch in make_batches(CASES[name], budget):
        rows = rows_in(batch)
        own = [row.parent for row in rows if row.parent and continued[row.parent] == 1]
        width = max(sum(row.size for row in lane) for lane in batch)
        width += max((row.size for row in own), default=0)
        sizes.append(len(rows))
        if len(rows) == 1:
            continue
        assert width * len(batch) <= budget
        assert SCORED_SHARE * sum(len(scored[row]) for row in [*rows, *own]) <= budget
    assert max(sizes) > 1 or budget < 1024


@pytest.mark.parametrize("name", CASES)
def test_batches_depend_on_nothing_but_the_requests(name: str) -> None:
    first = content(make_batches(CASES[name], 1024))
    shuffled = random.Random(3).sample(QUERIES[name], len(QUERIES[name]))
    assert content(make_batches(spans_of(shuffled), 1024)) == first
    assert content(make_batches(CASES[name], 512)) != first


def test_short_rows_lie_beside_each_other_so_that_little_is_padding() -> None:
    queries = [one for seed in range(200) for one in question(seed, 4 + seed % 80, [2, 2, 2])]
    batches = make_batches(spans_of(queries), 4096)
    padded = sum(
        len(batch) * max(sum(row.size for row in lane) for lane in batch) for batch in batches
    )
    real = sum(row.size for batch in batches for row in rows_in(batch))
    assert max(len(lane) for batch in batches for lane in batch) > 1
    assert padded < 1.1 * real


def test_small_groups_on_different_prefixes_share_batches() -> None:
    queries: list[Query] = []
    for subject in range(20):
        preamble = tokens(10_000 + subject, 80)
        for number in range(8):
            queries += question(100 * subject + number, 60, [5, 6], preamble)
    batches = make_batches(spans_of(queries), 8192)
    assert max(len({row.parent for row in rows_in(batch)}) for batch in batches) > 3


def test_nothing_gives_no_batches() -> None:
    assert make_batches([], 1024) == []

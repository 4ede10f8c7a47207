"""The segments of a trie hold every request, whatever the trie looks like."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

import pytest

from harness.evaluation.prefix_trie.trie import LONG_PREFIX, Request, Segment, Span, plan_spans

HIDDEN_SIZE = 768


def request(input_ids: Sequence[int], num_targets: int = 1) -> Request:
    return Request(tuple(input_ids), continuation_ids=tuple(range(num_targets)))


def tokens(seed: int, count: int) -> list[int]:
    """Returns tokens that no other seed begins with."""
    rng = random.Random(seed)
    return [seed, *(rng.randrange(30_000) for _ in range(count - 1))]


def seen_from(segment: Segment, index: int) -> list[tuple[int, int]]:
    """Returns (position, token) of all that a token of a segment sees, itself included."""
    before = [] if segment.parent is None else seen_from(segment.parent, segment.parent.size - 1)
    own = [
        (int(segment.positions[j]), int(segment.tokens[j]))
        for j in range(index + 1)
        if segment.ends is None or index < segment.ends[j]
    ]
    return before + own


def segments_of(spans: Sequence[Span]) -> set[Segment]:
    found: set[Segment] = set()
    for span in spans:
        segment: Segment | None = span.segment
        while segment is not None:
            found.add(segment)
            segment = segment.parent
    return found


def check(asked: Sequence[Request], largest_segment: int = 4096) -> list[Span]:
    """Asserts that each scored position sees its request up to there, and nothing else."""
    spans = plan_spans(asked, largest_segment=largest_segment, hidden_size=HIDDEN_SIZE)
    found: dict[int, dict[int, list[tuple[int, int]]]] = defaultdict(dict)
    for span in spans:
        for step in range(span.count):
            target = span.first_target + step
            assert target not in found[span.request]
            found[span.request][target] = seen_from(span.segment, span.index + step)
    for number, one in enumerate(asked):
        assert sorted(found[number]) == list(range(len(one.continuation_ids)))
        for target, seen in found[number].items():
            length = len(one.input_ids) - len(one.continuation_ids) + target + 1
            assert seen == list(enumerate(one.input_ids[:length]))
    return spans


def computed(spans: Sequence[Span]) -> int:
    return sum(segment.size for segment in segments_of(spans))


def question(seed: int, context: int, answers: Sequence[int], before: Sequence[int] = ()) -> list:
    start = [*before, *tokens(seed, context)]
    return [
        request([*start, *tokens(1_000 * (seed + 1) + number, length)], length + 1)
        for number, length in enumerate(answers)
    ]


def test_a_short_context_and_its_answers_are_one_segment() -> None:
    spans = check(question(1, 30, [6, 4, 9, 5]))
    assert len(segments_of(spans)) == 1
    assert computed(spans) == 30 + 6 + 4 + 9 + 5


def test_a_long_context_is_a_prefix_without_a_mask_and_its_answers_are_one_segment() -> None:
    spans = check(question(1, 900, [28, 25, 30, 27]))
    prefix, answers = sorted(segments_of(spans), key=lambda segment: segment.level)
    assert (prefix.size, prefix.ends) == (900, None)
    assert answers.parent is prefix
    assert answers.ends is not None
    assert answers.size == 28 + 25 + 30 + 27


def test_a_preamble_is_computed_once_for_all_questions() -> None:
    preamble = tokens(99, 190)
    asked = [one for seed in range(40) for one in question(seed, 20, [12, 14, 9], preamble)]
    spans = check(asked)
    assert computed(spans) == 190 + 40 * (20 + 12 + 14 + 9)
    assert max(segment.level for segment in segments_of(spans)) == 1


def test_a_preamble_and_a_long_context_are_two_prefixes() -> None:
    preamble = tokens(99, 400)
    asked = [one for seed in range(12) for one in question(seed, 1500, [40, 45], preamble)]
    spans = check(asked)
    assert computed(spans) == 400 + 12 * (1500 + 40 + 45)
    assert max(segment.level for segment in segments_of(spans)) == 2


def test_a_beginning_too_short_to_matter_is_computed_again() -> None:
    asked = [one for seed in range(3) for one in question(seed, 400, [20, 25], [1, 2])]
    spans = check(asked)
    assert {segment.level for segment in segments_of(spans)} <= {0, 1}
    assert computed(spans) == 3 * (2 + 400 + 20 + 25)


def test_contexts_that_differ_share_what_lies_before() -> None:
    # As in winogrande: two beginnings of one sentence, each with the same ending.
    start, ending = tokens(5, 14), tokens(6, 7)
    spans = check([request([*start, 7, *ending], 7), request([*start, 8, *ending], 7)])
    assert computed(spans) == 14 + 2 * 8


def test_a_request_that_ends_inside_another_costs_nothing() -> None:
    whole = tokens(3, 50)
    alone = computed(check([request(whole, 10)]))
    assert (
        computed(check([request(whole, 10), request(whole[:30], 5), request(whole[:1], 1)]))
        == alone
    )


def test_the_same_tokens_with_another_split_are_computed_once() -> None:
    fed = tokens(3, 40)
    assert computed(check([request(fed, 1), request(fed, 30)])) == 40


def test_no_branching_segment_is_larger_than_asked() -> None:
    asked = question(1, 40, [2] * 60)
    assert {segment.size for segment in segments_of(check(asked, largest_segment=4096))} == {
        40 + 120
    }
    small = segments_of(check(asked, largest_segment=100))
    assert max(segment.size for segment in small) <= 40 + 100


def test_equal_requests_in_another_order_give_equal_segments() -> None:
    asked = [one for seed in range(9) for one in question(seed, 25, [6, 7], [1, 2, 3])]
    shuffled = random.Random(1).sample(asked, len(asked))
    both = [
        plan_spans(some, largest_segment=512, hidden_size=HIDDEN_SIZE) for some in (asked, shuffled)
    ]
    first, second = (
        sorted((tuple(segment.tokens), segment.start) for segment in segments_of(spans))
        for spans in both
    )
    assert first == second


def test_chains_of_requests_that_continue_each_other() -> None:
    # Deeper than Python's stack.
    whole = tokens(8, 1500)
    check([request(whole[:length]) for length in range(1, 1500, 50)])
    chain = [request(whole[:length]) for length in range(1, 1500)]
    deep = plan_spans(chain, largest_segment=4096, hidden_size=HIDDEN_SIZE)
    assert computed(deep) == 1499


@pytest.mark.parametrize("seed", range(30))
def test_any_trie(seed: int) -> None:
    rng = random.Random(seed)
    alphabet = rng.choice([2, 3, 40])
    known: list[list[int]] = [[]]
    asked = set()
    for _ in range(rng.randint(1, 60)):
        start = rng.choice(known)[: rng.randint(0, 300)]
        more = rng.randint(1, rng.choice([3, 30, 3 * LONG_PREFIX]))
        fed = [*start, *(rng.randrange(alphabet) for _ in range(more))]
        known.append(fed)
        asked.add(request(fed, rng.randint(1, len(fed))))
    ordered = sorted(asked, key=lambda one: (one.input_ids, one.continuation_ids))
    spans = check(ordered, rng.choice([16, 128, 4096]))
    assert computed(spans) <= sum(len(one.input_ids) for one in ordered)

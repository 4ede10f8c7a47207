"""The division of an optimizer batch among ranks: whole, even, and the same on every rank."""

from __future__ import annotations

import random

import pytest

from harness.data.instructions import Example
from harness.training.parallel import rank_shard
from tests.fixtures.tiny import random_examples

NO_LABEL = Example((1, 2, 3), 3)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_sequence_with_a_label_has_one_rank(size: int) -> None:
    examples = [NO_LABEL, *random_examples(13)]
    (whole,) = [rank_shard(examples, 0, 1)]
    shares = [rank_shard(examples, rank, size) for rank in range(size)]
    placed = {row: e for share in shares for row, e in zip(share.rows, share.examples, strict=True)}
    assert sum(len(share.rows) for share in shares) == 13
    assert placed == dict(zip(whole.rows, whole.examples, strict=True))
    assert whole.rows == tuple(range(13))


@pytest.mark.parametrize("size", [2, 4, 8])
def test_ranks_have_about_as_many_tokens(size: int) -> None:
    draw = random.Random(0)
    lengths = [min(512, int(draw.lognormvariate(4.7, 0.6)) + 2) for _ in range(64)]
    examples = [Example(tuple(range(length)), 1) for length in lengths]
    tokens = [
        sum(len(example.token_ids) for example in rank_shard(examples, rank, size).examples)
        for rank in range(size)
    ]
    assert max(tokens) < 1.05 * sum(lengths) / size


def test_a_rank_may_have_none() -> None:
    shares = [rank_shard(random_examples(1), rank, 2) for rank in range(2)]
    assert [len(share.examples) for share in shares] == [1, 0]


def test_each_share_is_in_the_order_of_the_batch_longest_first() -> None:
    for rank in range(3):
        share = rank_shard(random_examples(20), rank, 3)
        lengths = [len(example.token_ids) for example in share.examples]
        assert lengths == sorted(lengths, reverse=True)
        assert list(share.rows) == sorted(share.rows)

"""The division of an optimizer batch among ranks: whole, even, and the same on every rank."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch

from harness.data.instructions import Example
from harness.training.micro_batches import number_sequences
from harness.training.packing import TokenSequence
from harness.training.parallel import Ranks
from tests.fixtures.tiny import random_examples

NO_LABEL = Example((1, 2, 3), 3)


def rank_shard(examples: Sequence[Example], rank: int, size: int) -> list[TokenSequence]:
    return Ranks(rank, size, torch.device("cpu")).shard(number_sequences(examples))


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_sequence_with_a_label_has_one_rank(size: int) -> None:
    examples = [NO_LABEL, *random_examples(13)]
    whole = rank_shard(examples, 0, 1)
    shards = [rank_shard(examples, rank, size) for rank in range(size)]
    assert sum(len(shard) for shard in shards) == 13
    assert {one.index: one for shard in shards for one in shard} == dict(enumerate(whole))
    assert [one.index for one in whole] == list(range(13))


@pytest.mark.parametrize("size", [2, 4, 8])
def test_ranks_have_about_as_many_tokens(size: int) -> None:
    draw = random.Random(0)
    lengths = [min(512, int(draw.lognormvariate(4.7, 0.6)) + 2) for _ in range(64)]
    examples = [Example(tuple(range(length)), 1) for length in lengths]
    tokens = [
        sum(len(one.token_ids) for one in rank_shard(examples, rank, size)) for rank in range(size)
    ]
    assert max(tokens) < 1.05 * sum(lengths) / size


def test_a_rank_may_have_none() -> None:
    assert [len(rank_shard(random_examples(1), rank, 2)) for rank in range(2)] == [1, 0]


def test_each_shard_is_in_the_order_of_the_batch_longest_first() -> None:
    for rank in range(3):
        shard = rank_shard(random_examples(20), rank, 3)
        lengths = [len(one.token_ids) for one in shard]
        assert lengths == sorted(lengths, reverse=True)
        indices = [one.index for one in shard]
        assert indices == sorted(indices)

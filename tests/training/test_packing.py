"""The layout of a packed row: every token state once, every sequence whole, nothing else."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch

from harness.training.micro_batches import balanced_cuts, packed_rows
from harness.training.packing import PackedRow, TokenSequence, bucket_cuts

CPU = torch.device("cpu")


def sequences(count: int = 12) -> list[TokenSequence]:
    """Sequences with two openings, several of which also continue alike."""
    draw = random.Random(4)
    openings = [(1, *range(10, 15)), (1, *range(10, 13), *range(30, 34))]
    found = []
    for place in range(count):
        rest = [draw.randrange(2) for _ in range(draw.randrange(4, 20))]
        found.append(TokenSequence(place, (*openings[place % 2], *rest), 9))
    return found


def rows_of(budget: int, *, share: bool) -> list[PackedRow]:
    return list(packed_rows(sequences(), token_budget=budget, share=share, device=CPU))


def slots(row: PackedRow) -> list[list[int]]:
    """The nodes of each sequence of a row, with its padding, bucket by bucket."""
    found, start = [], 0
    for bucket in row.packing.buckets:
        for _ in range(bucket.num_sequences):
            found.append(row.packing.node_of_slot_M[start : start + bucket.length].tolist())
            start += bucket.length
    assert start == len(row.packing.node_of_slot_M)
    return found


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("budget", [26, 60, 1000])
def test_every_sequence_lies_in_one_row_token_by_token(budget: int, share: bool) -> None:
    expected = sorted(one.token_ids[:-1] for one in sequences())
    found = []
    for row in rows_of(budget, share=share):
        ids, depths = row.input_ids_1N[0], row.position_ids_1N[0]
        for nodes in slots(row):
            real = [node for i, node in enumerate(nodes) if i == 0 or node != nodes[i - 1]]
            assert nodes == real + [real[-1]] * (len(nodes) - len(real))  # padding is behind
            assert depths[real].tolist() == list(range(len(real)))
            found.append(tuple(ids[real].tolist()))
    assert sorted(found) == expected


@pytest.mark.parametrize("budget", [26, 60, 1000])
def test_what_is_shared_is_there_once(budget: int) -> None:
    for row in rows_of(budget, share=True):
        prefixes = set()
        for nodes in slots(row):
            ids = row.input_ids_1N[0][list(dict.fromkeys(nodes))].tolist()
            prefixes |= {tuple(ids[:end]) for end in range(1, len(ids) + 1)}
        assert row.num_tokens == len(prefixes)


def test_nothing_is_shared_where_it_must_not_be() -> None:
    rows = rows_of(60, share=False)
    assert sum(row.num_tokens for row in rows) == sum(one.num_inputs for one in sequences())
    for row in rows:
        sequence_ids = row.sequence_ids_1N[0]
        assert all(len(set(sequence_ids[nodes].tolist())) == 1 for nodes in slots(row))


@pytest.mark.parametrize("share", [True, False])
def test_a_node_takes_the_output_of_a_slot_that_it_went_into(share: bool) -> None:
    for row in rows_of(60, share=share):
        nodes = row.packing.node_of_slot_M[row.packing.slot_of_node_N]
        assert nodes.tolist() == list(range(row.num_tokens))


@pytest.mark.parametrize("share", [True, False])
def test_labels_stand_behind_their_nodes(share: bool) -> None:
    expected = sorted(
        (position, one.token_ids[position], one.token_ids[position + 1])
        for one in sequences()
        for position in range(one.num_prompt_tokens - 1, one.num_inputs)
    )
    found = []
    for row in rows_of(60, share=share):
        at = row.positions
        triples = (row.position_ids_1N[0][at], row.input_ids_1N[0][at], row.labels)
        found += list(zip(*(values.tolist() for values in triples), strict=True))
    assert sorted(found) == expected


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("budget", [26, 60, 100])
def test_rows_keep_the_budget_and_are_balanced(budget: int, share: bool) -> None:
    sizes = [row.num_tokens for row in rows_of(budget, share=share)]
    assert max(sizes) <= budget
    assert sum(sizes) > (len(sizes) - 1) * budget * 0.5


def test_runs_are_few_and_the_largest_small() -> None:
    sizes, shared = [10, 10, 10, 10, 10], [0, 4, 4, 4, 4]
    assert balanced_cuts(sizes, shared, 1000) == [slice(0, 5)]
    # 10 + 6 + 6 and 10 + 6: as a whole 34.
    assert balanced_cuts(sizes, shared, 30) == [slice(0, 3), slice(3, 5)]
    assert balanced_cuts(sizes, shared, 10) == [slice(i, i + 1) for i in range(5)]


def test_buckets_cost_no_more_than_any_other_cut() -> None:
    from harness.training.packing import BUCKET_COST, SLOT_COST

    def cost(lengths: list[int], cuts: list[slice]) -> int:
        parts = [lengths[cut] for cut in cuts]
        return sum(len(p) * p[0] * (p[0] + SLOT_COST) + BUCKET_COST for p in parts)

    lengths = sorted((random.Random(1).randrange(5, 200) for _ in range(9)), reverse=True)
    cheapest = min(
        cost(lengths, [slice(a, b) for a, b in pairwise([0, *inner, 9])])
        for mask in range(2**8)
        for inner in [[i + 1 for i in range(8) if mask >> i & 1]]
    )
    assert cost(lengths, bucket_cuts(lengths)) == cheapest
    assert bucket_cuts([100, 100, 99]) == [slice(0, 3)]

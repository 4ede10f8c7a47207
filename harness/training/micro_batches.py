"""Splits an optimizer batch into micro-batches by a budget of tokens.

The gradient is a sum over labels, so that the split does not change it; it decides time and memory
alone.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from harness.errors import TrainingError
from harness.training.packing import PackedRow, TokenSequence, pack, shared_inputs
from harness.training.spec import DEFAULT_TOKEN_BUDGET

if TYPE_CHECKING:
    from harness.data.instructions import Example


def number_sequences(examples: Sequence[Example]) -> list[TokenSequence]:
    """The examples that have labels, longest first, each with its index in that order."""
    labelled = (example for example in examples if example.num_labels)
    ordered = sorted(labelled, key=lambda example: len(example.token_ids), reverse=True)
    return [
        TokenSequence(
            index, example.token_ids, example.num_prompt_tokens, example.holes, example.picture
        )
        for index, example in enumerate(ordered)
    ]


def longest_sequence(examples: Sequence[Example]) -> int:
    """Tokens of the longest example that has labels; 0 where none has."""
    return max((len(e.token_ids) for e in examples if e.num_labels), default=0)


def resolve_budget(setting: int | None, examples: Sequence[Example], device: torch.device) -> int:
    """Tokens of a forward pass; by default the device's, or the longest sequence's.

    Raises:
        TrainingError: the setting is less than the longest sequence that is trained on.
    """
    longest = longest_sequence(examples)
    if setting is None:
        default = DEFAULT_TOKEN_BUDGET.get(device.type, DEFAULT_TOKEN_BUDGET["cpu"])
        return max(default, longest)
    if setting < longest:
        raise TrainingError(
            f"train.token_budget is {setting}, but the longest sequence has {longest} tokens and "
            f"goes through the model whole; raise it to {longest} or more, or lower max_length"
        )
    return setting


def packed_rows(
    sequences: Sequence[TokenSequence],
    *,
    token_budget: int,
    share: bool,
    device: torch.device,
    varlen: bool = False,
) -> Iterator[PackedRow]:
    """Yields packed rows of at most `token_budget` nodes, all about as long.

    Args:
        sequences: at least one, none of more than `token_budget` tokens.
        share: whether shared prefixes are computed once.
        varlen: whether the rows are also laid out for variable-length attention.
    """
    if share:  # sequences with a common prefix under one picture become neighbours
        ordered = sorted(sequences, key=lambda one: (one.picture or "", one.token_ids))
        shared = shared_inputs(ordered)
    else:
        ordered = sorted(sequences, key=lambda one: -one.num_inputs)
        shared = [0] * len(ordered)
    sizes = [one.num_inputs for one in ordered]
    for part in balanced_cuts(sizes, shared, token_budget):
        yield pack(ordered[part], shared[part], device=device, varlen=varlen)


def balanced_cuts(sizes: Sequence[int], shared: Sequence[int], budget: int) -> list[slice]:
    """As few slices as the budget allows, the largest of them as small as can be.

    A slice costs the sum of its sizes, less what each of its sequences but the first shares with
    the one before.
    """
    fewest = len(_cuts(sizes, shared, budget))
    total = sum(size - common for size, common in zip(sizes, shared, strict=True))
    capacities = range(max(max(sizes), math.ceil(total / fewest)), budget + 1)
    smallest = bisect.bisect_left(
        capacities, True, key=lambda capacity: len(_cuts(sizes, shared, capacity)) <= fewest
    )
    return _cuts(sizes, shared, capacities[smallest])


def _cuts(sizes: Sequence[int], shared: Sequence[int], capacity: int) -> list[slice]:
    cuts, start, load = [], 0, 0
    for index, (size, common) in enumerate(zip(sizes, shared, strict=True)):
        added = size - common if index > start else size
        if index > start and load + added > capacity:
            cuts.append(slice(start, index))
            start, added, load = index, size, 0
        load += added
    return [*cuts, slice(start, len(sizes))]


PASS_COST = 512
"""Tokens for whose products a GPU takes about as long as the host for the operations of one more
pass: of LLaMA-7B some 8,000 of 7 µs beside 27 GFLOP a token [choice]."""


def fullest_cuts(lengths: Sequence[int], budget: int) -> Iterator[slice]:
    """Yields slices of sequences that are padded to their longest, each as full as can be.

    Args:
        lengths: of the sequences, longest first; no slice is larger than `budget` with padding,
            unless it is of one sequence.
    """
    start = 0
    while start < len(lengths):
        end = min(start + max(1, budget // lengths[start]), len(lengths))
        yield slice(start, end)
        start = end


def cheapest_cuts(lengths: Sequence[int], budget: int) -> Iterator[slice]:
    """Yields such slices with the fewest positions, where each more must save `PASS_COST`."""
    best: list[tuple[int, int]] = [(0, 0)]  # by end: its cost, and where its last slice begins
    for end in range(1, len(lengths) + 1):
        options: list[tuple[int, int]] = []
        for start in range(end - 1, -1, -1):  # ever more positions, as lengths do not fall
            size = (end - start) * lengths[start]
            if size > budget and options:
                break
            options.append((best[start][0] + size + PASS_COST, start))
        best.append(min(options))
    cuts, end = [], len(lengths)
    while end:
        start = best[end][1]
        cuts.append(slice(start, end))
        end = start
    yield from reversed(cuts)

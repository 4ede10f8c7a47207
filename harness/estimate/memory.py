"""What a cell needs of a GPU's and of the host's memory, and what would fit where it does not.

`harness.cell.memory_model` says what a pass of so many tokens takes; here stands which pass is the
fullest that a training meets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from harness.cell.memory_model import (
    WORKER_BYTES,
    TokenPass,
    Training,
    gathered_bytes,
    scoring_peak,
)
from harness.estimate.gpus import Gpu
from harness.estimate.lengths import TrainingTokens
from harness.grid.schema import Cell
from harness.methods.method import Workload
from harness.training.spec import DEFAULT_TOKEN_BUDGET

DEVIATIONS = 4.0
"""The fullest of some thousand optimizer batches lies so many standard deviations above the mean:
3.5 for normal ones, and lengths have a longer tail."""
LEAST_SCORING_BUDGET = 512
"""Tokens of a pass in scoring with which it still goes on: it halves its own where memory is full.
"""
RANKS = (2, 4, 8)
"""Numbers of GPUs that one machine has."""


def fullest_pass(cell: Cell, tokens: TrainingTokens, ranks: int | None = None) -> TokenPass:
    """The fullest forward pass that a training meets on one GPU.

    Batches differ in their number of tokens, by the deviation of a sum of lengths. A batch of more
    nodes than the budget takes several passes, all about as long; so the fullest is as long as the
    budget where some batch has just as many nodes, or just a multiple.

    Args:
        cell: a trained one.
        tokens: of one pass over its rows.
        ranks: GPUs that train it; None: as many as it asks for.
    """
    train, work = cell.train, _workload(cell)
    assert train is not None
    rows, gpus = max(1, tokens.rows), cell.gpus_per_cell if ranks is None else ranks
    mean = tokens.tokens / rows
    deviation = math.sqrt(max(0.0, tokens.squares / rows - mean**2) * train.batch_size)
    shared = tokens.shared_prefix / rows if work.shares_prefix else 0.0
    node = max(1.0, mean - shared)  # a budget counts no virtual tokens
    total = train.batch_size * node
    most = float(train.batch_size * train.max_length)
    highest = min(total + DEVIATIONS * deviation, most) / gpus
    lowest = (total - DEVIATIONS * deviation) / gpus
    # Each GPU gets whole sequences, and one that is cut at the maximal length may be among them.
    highest = max(highest, min(float(train.max_length), mean + DEVIATIONS * deviation))
    budget = float(train.token_budget or max(DEFAULT_TOKEN_BUDGET["cuda"], train.max_length))
    nodes = min(highest, budget)
    if highest > budget:
        passes = math.floor(highest / budget)
        nodes = budget if passes * budget >= lowest else highest / (passes + 1)
    sequences = nodes / node
    return TokenPass(
        nodes=nodes + sequences * work.virtual_tokens,
        slots=sequences * (mean + work.virtual_tokens),
        labels=sequences * tokens.labels / rows,
        sequences=sequences,
        several=highest > budget,
    )


def sequence_pass(cell: Cell) -> TokenPass:
    """The least that a training can do with: its token budget, or one sequence of full length."""
    assert cell.train is not None
    tokens = float(cell.train.token_budget or cell.train.max_length)
    sequences = tokens / cell.train.max_length
    whole = tokens + sequences * _workload(cell).virtual_tokens
    return TokenPass(whole, whole, tokens, sequences)


def _workload(cell: Cell) -> Workload:
    return Training.of(cell, "bf16").work


def training_bytes(cell: Cell, precision: str, tokens: TokenPass) -> float:
    """Peak on each GPU while a cell is loaded, sharded and trained, with passes up to this one."""
    return Training.of(cell, precision).peak_bytes(tokens)


def scoring_bytes(cell: Cell, precision: str) -> float:
    """Peak on a GPU while a cell is scored."""
    return scoring_peak(Training.of(cell, precision, ranks=1))


def host_bytes(cell: Cell, *, trained: bool = False) -> float:
    """What a cell needs of the host's memory: its processes, and a checkpoint being written.

    Weights go straight to a GPU; what is trained is gathered on the host, with the optimizer's
    state, by the first of its processes.
    """
    if cell.train is None or trained:
        return WORKER_BYTES
    training = Training.of(cell, "bf16")
    return training.ranks * WORKER_BYTES + gathered_bytes(training)


def ways_to_fit(cell: Cell, precision: str, gpu: Gpu, tokens: TrainingTokens) -> Iterator[str]:
    """What makes a cell fit that needs more than a GPU has, the cheapest first.

    Smaller passes cost nothing but some speed, computing layers again a third of it, more GPUs
    their price; a quantised base is another cell.
    """
    training, like = Training.of(cell, precision), fullest_pass(cell, tokens)
    if (found := _fitting("", training, like, gpu, cell)) is not None:
        yield found
    if not training.checkpointing:
        again = replace(training, checkpointing=True)
        found = _fitting("train.gradient_checkpointing: true", again, like, gpu, cell)
        if found is not None:
            yield found
    if training.work.trains_base:
        for ranks in RANKS:
            more, share = replace(training, ranks=ranks), fullest_pass(cell, tokens, ranks)
            found = _fitting(f"gpus_per_cell: {ranks}", more, share, gpu, cell)
            if ranks > cell.gpus_per_cell and found is not None:
                yield found
                break
        return
    for quantization in ("int8", "nf4"):
        if training.quantization in (quantization, "nf4"):
            continue
        smaller = replace(training, quantization=quantization)
        named = f"train.base_quantization: {quantization}"
        if (found := _fitting(named, smaller, like, gpu, cell)) is not None:
            yield f"{found} (another cell)"
            break


def _fitting(named: str, training: Training, like: TokenPass, gpu: Gpu, cell: Cell) -> str | None:
    """A way to fit by its name, with the token budget that it needs, if any; None if it does not.

    No budget is below the longest sequence.
    """
    assert cell.train is not None
    if not scoring_fits(training, gpu):
        return None
    if training.peak_bytes(like) <= gpu.memory_bytes:
        return named
    text = 1.0 - like.sequences * training.work.virtual_tokens / like.nodes
    budget = int(training.largest_pass(gpu.memory_bytes, like) * text) // 64 * 64
    if budget < cell.train.max_length:
        return None
    return " and ".join(filter(None, (named, f"train.token_budget: {budget}")))


def scoring_fits(training: Training, gpu: Gpu) -> bool:
    """Whether a cell can be scored on one GPU, in passes as small as need be."""
    return scoring_peak(training, LEAST_SCORING_BUDGET) <= gpu.memory_bytes

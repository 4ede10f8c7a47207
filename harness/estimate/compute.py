"""Operations and disk space of a cell, from shapes and from what its method computes.

Operations. P are the weights of the linear layers that every token passes. A product with a matrix
of n weights is 2n operations per token. So a token costs

    2 P   forward
    2 P'  backward through activations, P' of the layers from the first adapted one on: below it
          nothing needs a gradient
    2 P'' gradients of the weights that are trained themselves

and the head the same, but only at label positions. Attention adds 4·D operations per query-key
pair and layer, forward; twice that backward. With LLaMA-7B and Alpaca this makes 25.5 GFLOP for
the prompt methods, 26.3 for LoRA and 39.4 for full fine-tuning.

`harness.estimate.memory` says what it needs of a GPU's memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.estimate.lengths import TrainingTokens
from harness.estimate.needs import Need
from harness.estimate.tokens import ScoringTokens, scoring_tokens
from harness.grid.schema import Cell
from harness.grid.status import CellState
from harness.methods import METHODS, Workload
from harness.models.shape import ModelShape
from harness.training.optimizer_options import state_bytes

PADDING = 0.19
"""Positions that padding adds on a GPU, as a share of the tokens: counted with `cheapest_cuts` on
40 batches of 64 of Alpaca's rows (0.13 to 0.24 by the batch); an assumption for other data."""

ITEM_BYTES = 150
"""Size of a scored item in its parquet file, compressed."""


def workload(cell: Cell) -> Workload:
    """What a cell's method makes its model compute."""
    return METHODS[cell.method].workload_on(cell.model.shape, cell.options)


def trained_parameters(cell: Cell) -> int:
    """Parameters that a cell's method trains, or adds already trained."""
    return METHODS[cell.method].count_parameters(cell.model.shape, cell.options)


def _layer_weights(shape: ModelShape) -> int:
    return sum(inputs * outputs for inputs, outputs in shape.linear_layers.values())


def _head_weights(shape: ModelShape) -> int:
    return shape.vocab_size * shape.hidden_size


def _backward_layers(work: Workload, shape: ModelShape) -> int:
    return shape.num_hidden_layers if work.adapted_layers is None else work.adapted_layers


def training_flops(
    work: Workload, shape: ModelShape, tokens: TrainingTokens, *, padding: float = PADDING
) -> float:
    """Operations of one pass over the training rows, shared prefixes computed once; `padding` is
    that of methods whose sequences are padded, as a share of the tokens."""
    below, above = shape.num_hidden_layers, _backward_layers(work, shape)
    per_token = 2.0 * _layer_weights(shape) * (below + above * (2 if work.trains_base else 1))
    per_token += 6.0 * work.added_weights + 4.0 * work.frozen_weights
    per_label = 2.0 * _head_weights(shape) * (3 if work.trains_base else 2)
    pairs = tokens.squares / 2 + work.virtual_keys * tokens.tokens
    if work.padded:  # under a mask every query meets every key
        rows, columns = work.virtual_tokens, work.virtual_keys
        pairs = (1 + padding) * (tokens.squares + (rows + columns) * tokens.tokens)
        pairs += rows * columns * tokens.rows
    attention = 4.0 * shape.query_size * (below + 2 * above) * pairs
    computed = computed_tokens(work, tokens, padding=padding)
    return per_token * computed + per_label * tokens.labels + attention


def computed_tokens(work: Workload, tokens: TrainingTokens, *, padding: float = PADDING) -> int:
    """Tokens that pass the linear layers in one pass over the rows, padding among them."""
    if work.shares_prefix:
        return tokens.tokens - tokens.shared_prefix
    added = round(padding * tokens.tokens) if work.padded else 0
    return tokens.tokens + added + work.virtual_tokens * tokens.rows


def scoring_flops(shape: ModelShape, tokens: ScoringTokens) -> float:
    """Operations of scoring: a forward pass, with logits where answers are read.

    What is generated counts as well; it is bound by the memory's bandwidth, not by these.
    """
    passed = tokens.tokens + tokens.new_tokens
    per_token = 2.0 * shape.num_hidden_layers * _layer_weights(shape)
    attention = 4.0 * shape.query_size * shape.num_hidden_layers * tokens.pairs
    logits = 2.0 * _head_weights(shape) * (tokens.scored + tokens.new_tokens)
    return per_token * passed + logits + attention


@dataclass(frozen=True)
class DiskNeeds:
    """Bytes on the disk of the runs folder, and of the hub's cache."""

    results: float
    """Trained tensors in fp32 and items of the cells that are to do; they stay."""
    checkpoints: float
    """While cells train, at most; removed at the end of each."""
    downloads: float
    """Base models into the hub's cache."""
    free: float
    """On the disk of the runs folder, now."""

    @property
    def suffices(self) -> bool:
        """Whether what is free is enough for all of it."""
        return self.results + self.checkpoints + self.downloads <= self.free


def checkpoint_bytes(cell: Cell) -> float:
    """What a cell's checkpoints take while it trains: the last two and one being written, each
    with weights and the optimizer's state in fp32.
    """
    if cell.train is None:
        return 0.0
    return 3 * (4.0 + state_bytes(cell.train.optimizer)) * trained_parameters(cell)


def result_bytes(cell: Cell, num_items: int) -> float:
    """What a finished cell keeps on disk: the trained tensors in fp32, and its items."""
    trained = trained_parameters(cell) if cell.train is not None else 0
    return 4.0 * trained + ITEM_BYTES * num_items


def disk_needs(
    states: Sequence[CellState],
    needs: Sequence[Need],
    runs_dir: Path,
    num_devices: int = 1,
    *,
    features: float = 0.0,
) -> DiskNeeds:
    """What the cells that are to do take on disk, `num_devices` of which train at once.

    `needs` are those of `find_needs`; `runs_dir`, where results go, need not be there. `features`
    of pictures are kept beside the results.
    """
    work = [state for state in states if state.status != "done"]
    results = 0.0
    for state in work:
        counts = [scoring_tokens([task], state.cell.model.shape) for task in state.missing]
        results += result_bytes(state.cell, sum(count.items for count in counts if count))
    untrained = sorted((checkpoint_bytes(s.cell) for s in work if not s.trained), reverse=True)
    at_once = max(1, num_devices // max((s.cell.gpus_per_cell for s in work), default=1))
    folders = (runs_dir.absolute(), *runs_dir.absolute().parents)
    place = next(folder for folder in folders if folder.is_dir())
    return DiskNeeds(
        results=results + features,
        checkpoints=sum(untrained[:at_once]),
        downloads=sum(need.bytes or 0.0 for need in needs if not need.here),
        free=float(shutil.disk_usage(place).free),
    )

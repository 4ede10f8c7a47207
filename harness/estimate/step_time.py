"""How long a GPU takes for a cell: products, memory traffic, and the launches beside them.

A GPU is busy for as long as its matrix products take, and the bytes that all other kernels read and
write. At the same time a CPU thread dispatches the operations one by one; a step takes the longer
of both. So a small model, or the generation of a few responses at once, is bound by the CPU.

How many operations a step has and how many bytes it moves is counted, not measured: by
tests/gpu_rehearsal on a pretended GPU, at 3 and 5 layers of LLaMA-7B's width; the table below is
what the counts come to per pass and layer, and tests/estimate/test_step_time.py counts again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.estimate import compute
from harness.estimate.gpus import Gpu
from harness.estimate.lengths import TrainingTokens
from harness.estimate.tokens import ScoringTokens
from harness.evaluation.tasks import DEFAULT_TOKEN_BUDGET as SCORING_BUDGET
from harness.grid.schema import Cell
from harness.training.spec import DEFAULT_TOKEN_BUDGET

OP_SECONDS = 8e-6
"""CPU time to dispatch an operation of torch, launch included: an assumption (6 to 10 µs)."""
TRAFFIC_SHARE = 0.8
"""Share of the memory's bandwidth that kernels without products reach: an assumption."""
WEIGHTS_SHARE = 0.6
"""Share of it that the products of a step of generation reach, bound by the weights they read: an
assumption."""
SCORING_SHARE = 0.8
"""Share of training's throughput that the products of scoring reach: its rows are small, prefixes
apart. An assumption."""
GENERATION_BATCH = 32
"""Sequences that are continued at once: an assumption, since they end one after the other."""


@dataclass(frozen=True)
class Work:
    """What a GPU does."""

    ops: float = 0.0
    """Operations that are dispatched, views of tensors included."""
    flops: float = 0.0
    """Of matrix products and attention."""
    traffic: float = 0.0
    """Bytes that everything else reads and writes."""

    def seconds(self, gpu: Gpu, precision: str, *, share: float = 1.0) -> float | None:
        """The longer of the CPU's and the GPU's time; None where it has not the precision.

        `share` is that of training's throughput which the products reach.
        """
        peak = gpu.peak_flops(precision)
        if peak is None:
            return None
        products = self.flops / (peak * gpu.sustained_share * share)
        traffic = self.traffic / (gpu.bandwidth * TRAFFIC_SHARE)
        return max(self.ops * OP_SECONDS, products + traffic)


@dataclass(frozen=True)
class StepCounts:
    """What an optimizer step of a method comes to, with variable-length attention."""

    step_ops: float
    """Operations of the update."""
    pass_ops: float
    """Operations of each forward and backward pass, beside those of the layers; below zero where
    the lowest layer needs no gradient of its input."""
    layer_ops: float
    """Operations of an adapted layer in each pass, forward and backward."""
    token_bytes: float
    """Bytes moved per token and adapted layer, by the hidden size, in half precision."""
    weight_bytes: float = 0.0
    """Bytes moved per weight of the adapted layers in each pass, whatever the number of tokens."""


COUNTS = {
    "full": StepCounts(72, 34, 257, 657, 21),
    "lora": StepCounts(34, 9, 232, 396),
    "dora": StepCounts(136, -94, 742, 1979, 49),
    "ia3": StepCounts(28, 26, 214, 630),
    "vera": StepCounts(94, -52, 511, 1371, 2),
    "prefix-tuning": StepCounts(12, 47, 162, 338),
    "prompt-tuning": StepCounts(12, 107, 142, 444),
    "adaption-prompt": StepCounts(22, -30, 314, 449),
    "random-init": StepCounts(16, 29, 200, 398),
    "zero-init-linear": StepCounts(22, -6, 232, 390),
    "zero-init-nonlinear": StepCounts(28, 0, 270, 391),
}
"""By method; others are taken for LoRA."""
FORWARD_OPS, FORWARD_BYTES = 66.0, 92.0
"""Of a layer without a gradient: operations of a pass, and bytes per token by the hidden size."""
LABEL_BYTES, SCORED_BYTES = 44.0, 88.0
"""Bytes moved per logit: of a label in training, of a scored token."""
UPDATE_BYTES, HEAD_BYTES = 16.0, 39.0
"""In full fine-tuning: bytes of the update per weight, and of each pass per weight of the
embeddings and the head. (The update moves 28, and a step's first pass 12 fewer than the others.)"""
BUCKETS_OPS, BUCKETS_BYTES = 2.3, 1.35
"""Factors of attention by buckets, which fp32 and GPUs before Ampere run on."""
SCORING_OPS = 67.0
"""Operations of a scoring pass beside the layers."""
DECODE_OPS, DECODE_LAYER_OPS = 44.0, 56.0
"""Operations of a step of generation: beside the layers, and of a layer without an adapter."""
DECODE_ADAPTER_OPS = {"lora": 20.0, "dora": 20.0, "full": 7.0, "base": 0.0}
"""Of what a method adds to a layer; 5 for those of prompts."""
DECODED_BYTES = {None: 0.0, "int8": 5.0, "nf4": 9.0}
"""Bytes moved per quantised weight in a forward and backward pass, which decode it to half
precision each time: from the types alone, not counted."""


def training_work(
    cell: Cell, tokens: TrainingTokens, flops: float, gpu: Gpu, precision: str
) -> Work:
    """All of a cell's training on each of its GPUs; `flops` are those of all epochs together."""
    train, shape = cell.train, cell.model.shape
    assert train is not None
    counts, method = COUNTS.get(cell.method, COUNTS["lora"]), compute.workload(cell)
    steps, gpus = train.total_steps(tokens.rows), cell.gpus_per_cell
    rows = steps * train.batch_size
    node = compute.computed_tokens(method, tokens) / tokens.rows
    labels = rows * tokens.labels / tokens.rows
    budget = train.token_budget or max(DEFAULT_TOKEN_BUDGET["cuda"], train.max_length)
    passes = steps * math.ceil(train.batch_size * node / gpus / budget)
    above = shape.num_hidden_layers if method.adapted_layers is None else method.adapted_layers
    below = shape.num_hidden_layers - above
    layer_weights = sum(inputs * outputs for inputs, outputs in shape.linear_layers.values())
    weights = above * layer_weights
    again = above if train.gradient_checkpointing else 0  # layers that are computed again
    ops = steps * counts.step_ops + passes * (
        counts.pass_ops + above * counts.layer_ops + (below + again) * FORWARD_OPS
    )
    width = above * counts.token_bytes + (below + again) * FORWARD_BYTES
    traffic = rows * node * shape.hidden_size * width + labels * shape.vocab_size * LABEL_BYTES
    traffic += passes * gpus * weights * counts.weight_bytes
    if method.trains_base:
        traffic += steps * shape.num_parameters * UPDATE_BYTES
        traffic += passes * gpus * 2 * shape.vocab_size * shape.hidden_size * HEAD_BYTES
    else:
        traffic += passes * gpus * weights * DECODED_BYTES[train.base_quantization]
    if precision == "fp32" or gpu.peak_bf16_flops is None:
        ops, traffic = ops * BUCKETS_OPS, traffic * BUCKETS_BYTES
    share = 1 / 3 if method.trains_base else 1 / 2  # of the forward products
    flops += flops * share if train.gradient_checkpointing else 0
    return Work(ops, flops / gpus, traffic / gpus * _width(precision))


def scoring_seconds(
    cell: Cell, scored: Sequence[ScoringTokens], gpu: Gpu, precision: str
) -> float | None:
    """Seconds of scoring on one GPU: log-likelihoods, and generation."""
    shape = cell.model.shape
    layers, passes = shape.num_hidden_layers, sum(one.tokens for one in scored) / SCORING_BUDGET
    added = DECODE_ADAPTER_OPS.get(cell.method, 5.0)
    work = Work(
        ops=passes * (SCORING_OPS + layers * (FORWARD_OPS + added)),
        flops=sum(compute.scoring_flops(shape, one) for one in scored),
        traffic=_width(precision)
        * sum(
            one.tokens * layers * shape.hidden_size * FORWARD_BYTES
            + one.scored * shape.vocab_size * SCORED_BYTES
            for one in scored
        ),
    )
    seconds = work.seconds(gpu, precision, share=SCORING_SHARE)
    if seconds is None:
        return None
    return seconds + sum(_generation_seconds(cell, one, gpu, precision) for one in scored)


def _generation_seconds(cell: Cell, one: ScoringTokens, gpu: Gpu, precision: str) -> float:
    """Seconds of generating answers: each step reads all weights and the cache, or waits for the
    CPU."""
    if not one.new_tokens:
        return 0.0
    shape, width = cell.model.shape, 2 * _width(precision)
    quantization = cell.train.base_quantization if cell.train else None
    weights = width + DECODED_BYTES[quantization] / 2
    length = (one.tokens + one.new_tokens / 2) / max(1, one.items)
    cache = 2 * shape.num_hidden_layers * shape.key_value_size * width * length * GENERATION_BATCH
    layer = DECODE_LAYER_OPS + DECODE_ADAPTER_OPS.get(cell.method, 5.0)
    launching = (DECODE_OPS + shape.num_hidden_layers * layer) * OP_SECONDS
    reading = weights * shape.num_parameters / (gpu.bandwidth * WEIGHTS_SHARE)
    reading += cache / (gpu.bandwidth * TRAFFIC_SHARE)
    return one.new_tokens / GENERATION_BATCH * max(launching, reading)


def _width(precision: str) -> int:
    """Bytes of a number, by those in half precision."""
    return 2 if precision == "fp32" else 1

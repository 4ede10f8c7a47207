"""Bytes on a GPU and on disk, from shapes.

Weights: 2 bytes each in half precision, 4 in fp32; trained ones 16 in all (fp32 weight, gradient
and AdamW's two moments), sharded where several GPUs train one cell. Activations: what a layer's
backward pass needs of each token is 18 D + 6 I bytes in half precision (queries, keys, values and
the output of attention, the norms' fp32 inputs, and the three inner tensors of the feed-forward
network): 4.2 MB for the 30 adapted layers of LLaMA-7B.
"""

from __future__ import annotations

from harness.cell.memory import memory_bytes
from harness.estimate.flops import backward_layers, head_weights, layer_weights, trains_weights
from harness.grid.schema import Cell
from harness.methods import METHODS
from harness.training.spec import DEFAULT_TOKEN_BUDGET

CONTEXT_BYTES = 1.0e9
"""What the driver's context and the allocator's fragments take of a GPU."""
LOGITS_CHUNK = 1024
"""Label positions whose logits are in memory at once."""
LOGIT_BYTES = 10
"""Logits in half precision and in fp32, and their gradient."""
ITEM_BYTES = 150
"""Of a scored item in its parquet file, compressed."""
DOWNLOAD_BYTES = 2
"""Of a weight in a hub repository: half precision."""


def weight_bytes(precision: str) -> int:
    """Returns the bytes of a frozen weight."""
    return 4 if precision == "fp32" else 2


def activation_bytes(cell: Cell, precision: str) -> float:
    """Returns what one token keeps in memory until the backward pass is through."""
    shape = cell.model.shape
    layers = backward_layers(cell.method, cell.options, shape)
    sizes = 18 * shape.hidden_size + 6 * shape.intermediate_size
    if trains_weights(cell.method, cell.options, shape):
        # The inputs of the linear layers too, of which their gradients are made.
        sizes += 4 * shape.hidden_size + 2 * shape.intermediate_size
    # Below the first adapted layer nothing is kept but the hidden states that pass through.
    return weight_bytes(precision) / 2 * (layers * sizes + 2 * shape.hidden_size)


def tokens_of_pass(cell: Cell, mean_length: float) -> float:
    """Returns the tokens of a forward pass in training: the budget, or a whole batch if smaller."""
    train = cell.train
    assert train is not None
    batch = train.batch_size * mean_length / cell.gpus_per_cell
    budget = train.token_budget or DEFAULT_TOKEN_BUDGET["cuda"]
    return max(min(batch, float(budget)), float(train.max_length))


def _quantization(cell: Cell) -> str | None:
    return cell.train.base_quantization if cell.train else None


def training_bytes(cell: Cell, precision: str, tokens: float) -> float:
    """Returns the peak on each GPU while a cell is trained.

    Args:
        cell: a cell that trains.
        precision: of the frozen base.
        tokens: of a forward pass: see `tokens_of_pass`.
    """
    shape, gpus = cell.model.shape, cell.gpus_per_cell
    total = shape.num_parameters
    trained = METHODS[cell.method].count_parameters(shape, cell.options)
    weights = float(memory_bytes(total, trained, quantization=_quantization(cell)))
    if precision == "fp32":
        weights += 2.0 * max(0, total - trained)
    if trains_weights(cell.method, cell.options, shape):
        half = 0 if precision == "fp32" else 2
        if gpus == 1:
            weights += half * trained  # autocast's copies
        else:
            # Each GPU keeps its share, and two layers and the embeddings gathered.
            weights = weights / gpus + 4.0 * (2 * layer_weights(shape) + head_weights(shape))
    activations = activation_bytes(cell, precision) * tokens
    logits = LOGITS_CHUNK * shape.vocab_size * LOGIT_BYTES
    return weights + activations + logits + CONTEXT_BYTES


def scoring_bytes(cell: Cell, precision: str) -> float:
    """Returns the peak on a GPU while a cell is scored: weights, one pass, and its logits."""
    from harness.evaluation.prefix_trie.batches import SCORED_SHARE
    from harness.evaluation.tasks import DEFAULT_TOKEN_BUDGET

    shape = cell.model.shape
    trained = METHODS[cell.method].count_parameters(shape, cell.options)
    frozen = max(0, shape.num_parameters - trained)
    weights = weight_bytes(precision) * frozen + 4.0 * trained
    width = 12 * shape.hidden_size + 6 * shape.intermediate_size
    keys = 2 * weight_bytes(precision) * shape.num_hidden_layers * shape.key_value_size
    logits = shape.vocab_size * LOGIT_BYTES / SCORED_SHARE
    return weights + DEFAULT_TOKEN_BUDGET * (width + keys + logits) + CONTEXT_BYTES


def kept_bytes(cell: Cell, num_items: int) -> float:
    """Returns what a finished cell keeps on disk: the trained tensors in fp32, and its items."""
    trained = METHODS[cell.method].count_parameters(cell.model.shape, cell.options)
    return 4.0 * (trained if cell.train is not None else 0) + ITEM_BYTES * num_items


def checkpoint_bytes(cell: Cell) -> float:
    """Returns what a cell's checkpoints take while it trains: the last two and one being written,
    each with weights and both moments in fp32.
    """
    trained = METHODS[cell.method].count_parameters(cell.model.shape, cell.options)
    return 3 * 12.0 * (trained if cell.train is not None else 0)


def download_bytes(cell: Cell) -> float:
    """Returns the size of the base model's repository."""
    return float(DOWNLOAD_BYTES * cell.model.shape.num_parameters)

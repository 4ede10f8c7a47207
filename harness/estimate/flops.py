"""Floating-point operations per token, from shapes: what each method makes the model compute.

P are the weights of the linear layers that every token passes. A product with a matrix of n
weights is 2n operations per token. So a token costs

    2 P   forward
    2 P'  backward through activations, P' of the layers from the first adapted one on: below it
          nothing needs a gradient
    2 P'' gradients of the weights that are trained themselves

and the head the same, but only at label positions. Attention adds 4·D operations per query-key
pair and layer, forward; twice that backward. With LLaMA-7B and Alpaca this makes 25.5 GFLOP for
the prompt methods, 26.3 for LoRA and 39.4 for full fine-tuning.
"""

from __future__ import annotations

from harness.estimate.tokens import ScoringTokens, TrainingTokens
from harness.methods import METHODS
from harness.methods.method import MethodOptions
from harness.models.shape import ModelShape

RECOMPUTED = frozenset({"prefix-tuning", "prompt-tuning"})
"""Methods that put words of their own before the template, so that its opening is never alone."""


def layer_weights(shape: ModelShape) -> int:
    """Returns the weights of one layer's linear layers."""
    return sum(inputs * outputs for inputs, outputs in shape.linear_layers.values())


def head_weights(shape: ModelShape) -> int:
    """Returns the weights of the head, tied or not."""
    return shape.vocab_size * shape.hidden_size


def backward_layers(method: str, options: MethodOptions, shape: ModelShape) -> int:
    """Returns how many layers gradients pass through: from the first adapted one on."""
    if not METHODS[method].trains:
        return 0
    adapted = getattr(options, "adapted_layers", None)
    return len(adapted(shape)) if adapted is not None else shape.num_hidden_layers


def trains_weights(method: str, options: MethodOptions, shape: ModelShape) -> bool:
    """Returns whether the model's own weights are trained, not something added to it."""
    trained = METHODS[method].count_parameters(shape, options)
    return trained > shape.num_parameters / 2


def shares_opening(method: str, options: MethodOptions) -> bool:
    """Returns whether the template's opening can be computed once for several sequences.

    Dropout draws anew for each sequence, so that with it their openings differ.
    """
    return not getattr(options, "dropout", 0) and method not in RECOMPUTED


def training_flops(
    method: str, options: MethodOptions, shape: ModelShape, tokens: TrainingTokens
) -> float:
    """Returns the operations of one pass over the training rows, the opening computed once.

    Args:
        method: its registry key.
        options: of the method.
        shape: of the model.
        tokens: of the rows.
    """
    below = shape.num_hidden_layers
    above = backward_layers(method, options, shape)
    weights = trains_weights(method, options, shape)
    per_token = 2.0 * layer_weights(shape) * (below + above * (2 if weights else 1))
    per_token += 6.0 * added_weights(method, options, shape)
    per_label = 2.0 * head_weights(shape) * (3 if weights else 2)
    virtual = getattr(options, "prompt_length", 0) or getattr(options, "num_virtual_tokens", 0)
    pairs = tokens.squares / 2 + virtual * tokens.tokens
    attention = 4.0 * shape.query_size * (below + 2 * above) * pairs
    return (
        per_token * computed_tokens(method, options, tokens) + per_label * tokens.labels + attention
    )


def computed_tokens(method: str, options: MethodOptions, tokens: TrainingTokens) -> int:
    """Returns the tokens that pass the linear layers in one pass over the rows."""
    if shares_opening(method, options):
        return tokens.tokens - tokens.opening
    virtual = getattr(options, "num_virtual_tokens", 0) if method == "prompt-tuning" else 0
    return tokens.tokens + virtual * tokens.rows


def added_weights(method: str, options: MethodOptions, shape: ModelShape) -> int:
    """Returns the weights of matrices that a method adds and every token passes."""
    if method not in ("lora", "dora"):
        return 0
    return METHODS["lora"].count_parameters(shape, options)


def scoring_flops(shape: ModelShape, tokens: ScoringTokens) -> float:
    """Returns the operations of scoring: a forward pass, with logits where answers are read.

    What is generated counts as well; it is bound by the memory's bandwidth, not by these.
    """
    passed = tokens.tokens + tokens.new_tokens
    per_token = 2.0 * shape.num_hidden_layers * layer_weights(shape)
    attention = 4.0 * shape.query_size * shape.num_hidden_layers * tokens.pairs
    logits = 2.0 * head_weights(shape) * (tokens.scored + tokens.new_tokens)
    return per_token * passed + logits + attention

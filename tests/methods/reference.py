"""A second implementation of Llama with prompts, written from the formulas, slow and dense.

It shares no code with the package: it takes a dictionary of tensors and computes every score of
every head in one matrix. Formulas: arXiv 2502.03029, section 3, and the Llama architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.1 * x),
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    "tanh": lambda x: (torch.exp(2 * x) - 1) / (torch.exp(2 * x) + 1),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "identity": lambda x: x,
}


@dataclass(frozen=True)
class Sizes:
    """What the formulas need to know of a model and a method."""

    num_layers: int
    num_heads: int
    num_key_value_heads: int
    head_size: int
    adapted: range
    prompt_length: int
    method: str
    gate_activation: str = "tanh"
    activation: str = "relu"
    epsilon: float = 1e-6
    theta: float = 10000.0


def reference_logits(
    weights: Mapping[str, Tensor], sizes: Sizes, ids: Tensor, seen: Tensor, positions: Tensor
) -> Tensor:
    """Returns the logits (B, T, vocabulary).

    Args:
        weights: all parameters of the adapted model by name, in fp64.
        sizes: of the model and the method.
        ids: token ids, (B, T).
        seen: whether query t sees word s, (B, T, T).
        positions: for the rotary embedding, (B, T).
    """
    hidden = weights["model.embed_tokens.weight"][ids]
    for index in range(sizes.num_layers):
        layer = f"model.layers.{index}."
        normed = _norm(hidden, weights[layer + "input_layernorm.weight"], sizes)
        attention = _attention(weights, sizes, index, normed, seen, positions)
        hidden = hidden + attention @ weights[layer + "self_attn.o_proj.weight"].T
        normed = _norm(hidden, weights[layer + "post_attention_layernorm.weight"], sizes)
        gate = normed @ weights[layer + "mlp.gate_proj.weight"].T
        up = normed @ weights[layer + "mlp.up_proj.weight"].T
        hidden = hidden + (gate / (1 + torch.exp(-gate)) * up) @ (
            weights[layer + "mlp.down_proj.weight"].T
        )
    return _norm(hidden, weights["model.norm.weight"], sizes) @ weights["lm_head.weight"].T


def _norm(x: Tensor, weight: Tensor, sizes: Sizes) -> Tensor:
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + sizes.epsilon)


def _rotate(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotates the pairs (j, j + d/2) of (B, T, d) by position · theta^(-2j/d)."""
    half = x.shape[-1] // 2
    rates = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = positions[..., None].double() * rates
    first, second = x[..., :half], x[..., half:]
    cos, sin = torch.cos(angles), torch.sin(angles)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _softmax(scores: Tensor) -> Tensor:
    # A query that sees nothing gets nothing.
    powers = torch.exp(scores - scores.amax(-1, keepdim=True).clamp(min=-1e30))
    return powers / powers.sum(-1, keepdim=True).clamp(min=1e-300)


def _prompt(weights: Mapping[str, Tensor], sizes: Sizes, index: int) -> Tensor:
    if sizes.method != "zero-init-nonlinear":
        return weights[f"model.layers.{index}.self_attn.prompt.prompt_rows"]
    name = "model.generator."
    embedding = weights[name + "prompt_embedding"][index]
    hidden = (
        weights[name + "prompt_hidden.weight"] @ embedding + weights[name + "prompt_hidden.bias"]
    )
    hidden = ACTIVATIONS[sizes.activation](hidden)
    flat = weights[name + "prompt_output.weight"] @ hidden + weights[name + "prompt_output.bias"]
    return flat.reshape(sizes.prompt_length, -1)


def _attention(
    weights: Mapping[str, Tensor],
    sizes: Sizes,
    index: int,
    x: Tensor,
    seen: Tensor,
    positions: Tensor,
) -> Tensor:
    """Returns the heads' outputs side by side, (B, T, H·d)."""
    name, d = f"model.layers.{index}.self_attn.", sizes.head_size
    matrices = {key: weights[f"{name}{key}_proj.weight"] for key in "qkv"}
    outputs = []
    for head in range(sizes.num_heads):
        shared = head * sizes.num_key_value_heads // sizes.num_heads
        w_query = matrices["q"][head * d : (head + 1) * d]
        w_key, w_value = (matrices[key][shared * d : (shared + 1) * d] for key in "kv")
        query = _rotate(x @ w_query.T, positions, sizes.theta)
        key, value = _rotate(x @ w_key.T, positions, sizes.theta), x @ w_value.T
        scores = query @ key.transpose(1, 2) / d**0.5
        scores = scores.masked_fill(~seen, -torch.inf)
        if index not in sizes.adapted:
            outputs.append(_softmax(scores) @ value)
            continue
        prompt = _prompt(weights, sizes, index)
        prompt_key, prompt_value = prompt @ w_key.T, prompt @ w_value.T
        prompt_scores = query @ prompt_key.T / d**0.5
        if sizes.method == "random-init":
            joint = _softmax(torch.cat([prompt_scores, scores], dim=-1))
            on_prompt, on_words = joint[..., : len(prompt)], joint[..., len(prompt) :]
            outputs.append(on_prompt @ prompt_value + on_words @ value)
        else:
            gate = weights[name + "prompt.prompt_gate"].flatten()[head]
            strength = ACTIVATIONS[sizes.gate_activation](gate)
            outputs.append(
                _softmax(scores) @ value + strength * (_softmax(prompt_scores) @ prompt_value)
            )
    return torch.cat(outputs, dim=-1)

"""The attention of a prompt method as a mixture of experts, on a real layer of the demo model.

The paper (arXiv 2502.03029, section 4) reads the attention of one head at one token t as

    y_t = sum_{j <= t} G_j f_j + tanh(g) sum_j' G'_j' f'_j'        zero-init
    y_t = sum_{j <= t} G_j f_j + sum_j' G_j' f'_j'                 joint: all G in one softmax

with experts f_j = W_V x_j of the tokens and f'_j' = W_V p_j' of the prompts. The gates are softmax
weights, of (R_t W_Q x_t) (R_j W_K x_j) / sqrt(d) over tokens and of (R_t W_Q x_t) (W_K p_j') /
sqrt(d) over prompts; R_j is the rotary embedding of position j, which prompts do not get. The two
sides are computed apart: the right one from the layer's input and weights, expert by expert; the
left one by the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.theory.world import Array

if TYPE_CHECKING:
    from torch import Tensor, nn

QUESTION = "Where does the beast Kostam hide?"
PROMPT_LENGTH = 4
STRENGTH = 0.5
"""tanh(g) in every head: before training it is 0, and the prompts' part would be nothing."""
METHODS_SHOWN = ("zero-init-linear", "random-init")
HEAD = 0


@dataclass(frozen=True)
class Term:
    """One expert of the mixture, at one head and token."""

    expert: str
    """The token, or `prompt 1`."""
    is_prompt: bool
    gate: float
    """G, tanh(g) not included."""
    value: float
    """The expert along the output's direction: <f, y> / |y|."""
    contribution: float
    """Part of the expert in |y|: factor * G * value; over all experts they sum to |y|."""


@dataclass(frozen=True)
class Identity:
    """The identity at one head and token, and how well it holds everywhere in the layer."""

    method: str
    layer: int
    head: int
    position: int
    strength: float | None
    """tanh(g); None for the joint softmax."""
    terms: tuple[Term, ...]
    total: float
    """Sum of the contributions."""
    output: float
    """|y| from the running model."""
    largest_difference: float
    """Over all heads, tokens and coordinates of the layer, between mixture and model."""
    largest_output: float
    """The largest |coordinate| of y, for scale."""


@dataclass(frozen=True)
class LayerActivations:
    """What went through one attention layer in one forward pass of one sequence."""

    hidden: Array
    """Its input x, (T, D)."""
    cosine: Array
    """Cosines of the rotary embedding, (T, d)."""
    sine: Array
    output: Array
    """Output of its heads before the output projection, (T, H, d)."""


@dataclass(frozen=True)
class LayerTerms:
    """Experts, gates and sums of a whole layer; H heads, T tokens, L prompts, d head size."""

    experts: Array
    """(H, L + T, d): the prompts first."""
    gates: Array
    """(H, T, L + T)."""
    factors: Array
    """(H, L + T): tanh(g) for prompts of zero-init, else 1."""

    def total(self) -> Array:
        """The mixture, (T, H, d), summed expert by expert."""
        weighted = self.gates * self.factors[:, None]
        parts = weighted[..., None] * self.experts[:, None]
        return np.asarray(parts.sum(axis=2).swapaxes(0, 1))


def show_identities(seed: int = 0) -> tuple[Identity, ...]:
    """The identity on the demo model's last layer, for zero-init and for joint attention."""
    return tuple(_show(method, seed) for method in METHODS_SHOWN)


def _show(method_name: str, seed: int) -> Identity:
    import torch

    from harness.methods.zero_init.attention import PromptAttention

    model, tokens, ids = _prompted_model(method_name, seed)
    prompts = [module for module in model.modules() if isinstance(module, PromptAttention)]
    prompt = max(prompts, key=lambda module: module.layer_index)
    layer = attention_of(model, prompt.layer_index)
    with torch.no_grad():
        if prompt.gate is not None:
            prompt.gate.fill_(float(np.arctanh(STRENGTH)))
        seen = record_layer(model, layer, ids)
        terms = layer_terms(layer, prompt, seen)
    y = seen.output[-1, HEAD]
    length = float(np.linalg.norm(y))
    values, gates = terms.experts[HEAD] @ y / length, terms.gates[HEAD, -1]
    parts = gates * terms.factors[HEAD] * values
    names = [*(f"prompt {i + 1}" for i in range(PROMPT_LENGTH)), *tokens]
    listed = [
        Term(name, i < PROMPT_LENGTH, float(gates[i]), float(values[i]), float(parts[i]))
        for i, name in enumerate(names)
    ]
    return Identity(
        method=method_name,
        layer=prompt.layer_index,
        head=HEAD,
        position=len(tokens) - 1,
        strength=None if prompt.gate is None else float(terms.factors[HEAD, 0]),
        terms=tuple(listed[PROMPT_LENGTH:] + listed[:PROMPT_LENGTH]),
        total=float(parts.sum()),
        output=length,
        largest_difference=float(np.abs(terms.total() - seen.output).max()),
        largest_output=float(np.abs(seen.output).max()),
    )


def _prompted_model(method_name: str, seed: int) -> tuple[nn.Module, list[str], Tensor]:
    """The demo model under a method, and a question as tokens and as ids (1, T)."""
    import torch

    from harness.demo.world import CHECKPOINT
    from harness.grid.loader import load_grid
    from harness.methods import METHODS
    from harness.models.loading import load_base

    spec = load_grid("demo").models["tiny-llama"].model_copy(update={"path": str(CHECKPOINT)})
    base = load_base(spec, data_root=None, device="cpu", precision="fp32")
    method = METHODS[method_name]
    options = method.options.model_validate({"prompt_length": PROMPT_LENGTH})
    ids = base.tokenizer(QUESTION)["input_ids"]
    tokens = [str(base.tokenizer.decode([number])).strip() or "␣" for number in ids]
    # In float64, so that what is left of a difference is no more than rounding.
    model = method.apply(base.model, options, seed).double().eval()
    return model, tokens, torch.tensor([ids])


def attention_of(model: nn.Module, index: int) -> Any:
    """The attention layer of an index: the module with query, key and value projections."""
    layers = (module for module in model.modules() if hasattr(module, "q_proj"))
    return next(layer for layer in layers if getattr(layer, "layer_idx", None) == index)


def record_layer(model: nn.Module, layer: Any, ids: Tensor) -> LayerActivations:
    """Runs a model on one sequence and returns the layer's activations; hooks are removed."""
    seen: list[Array] = []

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        rotary = kwargs["position_embeddings"] if "position_embeddings" in kwargs else args[1]
        seen.extend(_double(tensor)[0] for tensor in (hidden, *rotary))

    def leave(_module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(_double(args[0])[0].reshape(seen[0].shape[0], -1, layer.head_dim))

    with (
        layer.register_forward_pre_hook(enter, with_kwargs=True),
        layer.o_proj.register_forward_pre_hook(leave),
    ):
        model(input_ids=ids)
    return LayerActivations(*seen)


def layer_terms(layer: Any, prompt: Any, seen: LayerActivations) -> LayerTerms:
    """Every expert and gate of a layer, from its input and weights, in float64.

    `prompt` is the layer's PromptAttention, with trained virtual tokens.
    """
    from scipy.special import softmax

    rows = _double(prompt.virtual_tokens)
    query = _rotate(_heads(layer, "q_proj", seen.hidden), seen)
    groups = len(query) // len(_heads(layer, "k_proj", rows))
    token_key = _rotate(_heads(layer, "k_proj", seen.hidden), seen).repeat(groups, axis=0)
    prompt_key = _heads(layer, "k_proj", rows).repeat(groups, axis=0)
    values = [_heads(layer, "v_proj", x).repeat(groups, axis=0) for x in (rows, seen.hidden)]
    scale = layer.head_dim**-0.5
    token_scores = scale * query @ token_key.swapaxes(1, 2)
    future = np.triu(np.ones(token_scores.shape[1:], dtype=bool), k=1)
    token_scores = np.where(future, -np.inf, token_scores)
    prompt_scores = scale * query @ prompt_key.swapaxes(1, 2)
    factors = np.ones((len(query), len(rows) + len(seen.hidden)))
    if prompt.gate is None:
        gates = softmax(np.concatenate([prompt_scores, token_scores], axis=2), axis=2)
    else:
        both = [softmax(scores, axis=2) for scores in (prompt_scores, token_scores)]
        gates = np.concatenate(both, axis=2)
        factors[:, : len(rows)] = _double(prompt.gate_strength())[:, :, 0]
    return LayerTerms(np.concatenate(values, axis=1), gates, factors)


def _heads(layer: Any, projection: str, x: Array) -> Array:
    """W x of a layer's projection by head, (heads, rows, d)."""
    linear = getattr(layer, projection)
    y = x @ _double(linear.weight).T
    if linear.bias is not None:
        y = y + _double(linear.bias)
    return y.reshape(len(x), -1, layer.head_dim).swapaxes(0, 1)


def _rotate(x: Array, seen: LayerActivations) -> Array:
    """Rotary position embedding: the halves of a head rotate by the angle of each position."""
    half = x.shape[-1] // 2
    rotated = np.concatenate([-x[..., half:], x[..., :half]], axis=-1)
    return x * seen.cosine + rotated * seen.sine


def _double(tensor: Any) -> Array:
    return np.asarray(tensor.detach().double().cpu().numpy())

"""The attention of the prompt methods (arXiv 2502.03029, section 3), on any Llama-type decoder.

It runs inside the model's own attention layers, through transformers' attention interface, which
hands it the rotated query and the layer's words. A layer that carries a prompt has a child module
`prompt`; a generator that all layers share is a child of the decoder. `forward` stores nothing.

Shapes: B batch, T queries, S words (keys), H query heads, G key and value heads, d head size,
D hidden size, L prompt length.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from harness.errors import MethodError

PROMPT = "prompt"
"""Name of the module with the prompt and the gates inside an attention layer."""
GENERATOR = "prompt_generator"
"""Name of the shared generator inside the decoder."""

WordAttention = Callable[..., tuple[Tensor, Tensor | None]]
"""One of transformers' attention functions: the output is (B, T, H, d)."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": functional.relu,
    "leaky_relu": lambda x: functional.leaky_relu(x, negative_slope=0.1),
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class PromptGenerator(nn.Module):
    """Makes the prompt of each layer from an embedding of the layer: the non-linear method.

    Args:
        num_layers: layers of the model; each has an embedding, also those without a prompt.
        prompt_length: L.
        model_size: D.
        hidden_size: of the embedding and of the hidden layer.
        activation: between the two linear layers.
        random: draws the initial values, on the CPU.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        prompt_length: int,
        model_size: int,
        hidden_size: int,
        activation: str,
        random: torch.Generator,
    ) -> None:
        super().__init__()
        self.prompt_length = prompt_length
        self.activation = activation
        size = prompt_length * model_size
        self.layer_embedding = nn.Parameter(torch.randn(num_layers, hidden_size, generator=random))
        # skip_init leaves the global generator alone; every value is drawn below.
        self.hidden = nn.utils.skip_init(nn.Linear, hidden_size, hidden_size)
        self.output = nn.utils.skip_init(nn.Linear, hidden_size, size)
        usual = 1 / math.sqrt(hidden_size)
        # Generated prompts start near zero.
        small = 1e-3 * math.sqrt(3 / (hidden_size * model_size))
        with torch.no_grad():
            self.hidden.weight.uniform_(-usual, usual, generator=random)
            self.hidden.bias.uniform_(-usual, usual, generator=random)
            self.output.weight.uniform_(-small, small, generator=random)
            self.output.bias.zero_()

    def forward(self, layer_index: int) -> Tensor:
        """Returns the prompt of a layer, (L, D)."""
        # In full precision also under autocast: the prompts start at the size of rounding errors.
        with torch.autocast(self.layer_embedding.device.type, enabled=False):
            hidden = self.hidden(self.layer_embedding[layer_index])
            return self.output(_ACTIVATIONS[self.activation](hidden)).view(self.prompt_length, -1)


class PromptAttention(nn.Module):
    """The prompt of one attention layer, and its gates where it has them.

    Args:
        layer_index: of the layer in the model.
        rows: the initial free prompt, (L, D); None where a generator makes it.
        generator: the shared generator; it is a child of the decoder, not of this module, so that
            its parameters have one name.
        num_gates: H for zero-initialised attention; None for one softmax with the words.
        gate_activation: applied to the gates.
    """

    def __init__(
        self,
        *,
        layer_index: int,
        rows: Tensor | None,
        generator: PromptGenerator | None,
        num_gates: int | None,
        gate_activation: str,
    ) -> None:
        super().__init__()
        assert (rows is None) != (generator is None)
        self.layer_index = layer_index
        self.gate_activation = gate_activation
        self.rows: nn.Parameter | None = None if rows is None else nn.Parameter(rows)
        # One gate per head, shaped to scale (H, L, d).
        self.gate: nn.Parameter | None = None
        if num_gates is not None:
            self.gate = nn.Parameter(torch.zeros(num_gates, 1, 1))
        self._shared_generator = (generator,)  # a tuple is not registered as a child

    def gate_strength(self) -> Tensor:
        """Returns what scales the prompt's part: tanh(g), or g; (H, 1, 1)."""
        assert self.gate is not None
        return _ACTIVATIONS[self.gate_activation](self.gate)

    def forward(
        self,
        module: nn.Module,
        query_BHTd: Tensor,
        key_BGSd: Tensor,
        value_BGSd: Tensor,
        mask: Tensor | None,
        words: WordAttention,
        *,
        causal: bool,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the layer's attention output (B, T, H, d), and the words' weights if given.

        Args:
            module: the attention layer; its frozen projections make the prompt's keys and values.
            query_BHTd: rotated queries.
            key_BGSd: rotated keys of the words, those in the cache included.
            value_BGSd: values of the words.
            mask: (B or 1, H or 1, T, S), bool (True is seen) or added to the scores; or None.
            words: the attention function that the base model runs.
            causal: `mask` is None and `words` is causal then.
            **kwargs: for `words`.
        """
        generator = self._shared_generator[0]
        prompt_LD = self.rows if generator is None else generator(self.layer_index)
        assert prompt_LD is not None
        key_GLd, value_GLd = _project(module, prompt_LD.to(query_BHTd.dtype))
        if self.gate is None:
            keys, values = (key_GLd, key_BGSd), (value_GLd, value_BGSd)
            return joint_attention(
                module, query_BHTd, keys, values, mask, words, causal=causal, **kwargs
            )
        # The base model's own call: at g = 0 its output is left as it is, to the last bit.
        output_BTHd, weights = words(module, query_BHTd, key_BGSd, value_BGSd, mask, **kwargs)
        prompt_BTHd = gated_prompt_attention(
            query_BHTd, key_GLd, value_GLd, self.gate_strength(), scaling=kwargs.get("scaling")
        )
        return output_BTHd + prompt_BTHd, weights


def gated_prompt_attention(
    query_BHTd: Tensor,
    key_GLd: Tensor,
    value_GLd: Tensor,
    strength_H11: Tensor,
    *,
    scaling: float | None,
) -> Tensor:
    """Returns strength · softmax(q K_p^T · scaling) V_p, (B, T, H, d); every query sees all rows.

    The strength scales the L values instead of the T outputs: the same by linearity, and cheaper.
    """
    batch, heads = query_BHTd.shape[:2]
    groups = heads // key_GLd.shape[0]
    key_HLd = key_GLd.repeat_interleave(groups, dim=0)
    value_HLd = value_GLd.repeat_interleave(groups, dim=0)
    gated_HLd = (strength_H11 * value_HLd).to(value_HLd.dtype)
    output_BHTd = functional.scaled_dot_product_attention(
        query_BHTd,
        key_HLd.expand(batch, -1, -1, -1),
        gated_HLd.expand(batch, -1, -1, -1),
        scale=scaling,
    )
    return output_BHTd.transpose(1, 2)


def joint_attention(
    module: nn.Module,
    query_BHTd: Tensor,
    keys: tuple[Tensor, Tensor],
    values: tuple[Tensor, Tensor],
    mask: Tensor | None,
    words: WordAttention,
    *,
    causal: bool,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Returns softmax(q [K_p; K_w]^T) [V_p; V_w], (B, T, H, d), and the weights if given.

    Args:
        module: the attention layer.
        query_BHTd: rotated queries.
        keys: of the prompt (G, L, d) and of the words (B, G, S, d).
        values: likewise.
        mask: on the words; every query sees the whole prompt.
        words: the attention function to run.
        causal: `mask` is None and `words` is causal then.
        **kwargs: for `words`.
    """
    if kwargs.get("cache") is not None:
        raise MethodError("random-init: continuous batching is not supported; use generate()")
    (key_GLd, key_BGSd), (value_GLd, value_BGSd) = keys, values
    (batch, heads, num_queries, size), length = query_BHTd.shape, key_GLd.shape[1]
    if causal:
        # L queries in front, whose outputs are dropped, put query t at row L + t: the causal
        # kernel lets it see all L prompt rows and words 0..t, and no mask has to be made.
        query_BHTd = torch.cat([query_BHTd.new_zeros(batch, heads, length, size), query_BHTd], 2)
        # Words beyond the queries are empty places of a static cache.
        key_BGSd, value_BGSd = key_BGSd[:, :, :num_queries], value_BGSd[:, :, :num_queries]
    elif mask is not None:
        seen = True if mask.dtype == torch.bool else 0.0
        mask = functional.pad(mask, (length, 0), value=seen)
    output_BTHd, weights = words(
        module,
        query_BHTd,
        torch.cat([key_GLd.expand(batch, -1, -1, -1), key_BGSd], dim=2),
        torch.cat([value_GLd.expand(batch, -1, -1, -1), value_BGSd], dim=2),
        mask,
        **kwargs,
    )
    return (output_BTHd[:, length:] if causal else output_BTHd), weights


def _project(module: Any, prompt_LD: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the prompt's keys and values, each (G, L, d): projected as words are, not rotated."""
    shape_LGd = (prompt_LD.shape[0], -1, module.head_dim)
    key_GLd = module.k_proj(prompt_LD).view(shape_LGd).transpose(0, 1)
    value_GLd = module.v_proj(prompt_LD).view(shape_LGd).transpose(0, 1)
    return key_GLd, value_GLd


def register_prompts(model: PreTrainedModel, implementation: str) -> str:
    """Registers an attention that adds prompts to the model's own, and returns its name.

    Layers without a `prompt` run the model's own attention. Registering again changes nothing.

    Args:
        model: any model of the family.
        implementation: the attention that the words go through, `sdpa` or `eager`.
    """
    if implementation == "eager":
        words = sys.modules[type(model).__module__].eager_attention_forward
    else:
        words = AttentionInterface()[implementation]

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        prompt = getattr(module, PROMPT, None)
        if prompt is None:
            return words(module, query, key, value, attention_mask, **kwargs)
        # As transformers' sdpa decides; its eager attention is always given a mask.
        causal = implementation == "sdpa" and attention_mask is None and query.shape[2] > 1
        if causal:
            stated = kwargs.get("is_causal")
            causal = bool(module.is_causal if stated is None else stated)
        return prompt(module, query, key, value, attention_mask, words, causal=causal, **kwargs)

    name = f"prompts_on_{implementation}"
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, AttentionMaskInterface()[implementation])
    return name

"""Attention with prompts (arXiv 2502.03029, section 3), on every supported family of decoders.

A prompt is L learned virtual tokens per layer. Random-init and linear: the virtual tokens are
parameters; non-linear: made by the hypernetwork of `generator.py`. For one head, with the rotated
queries Q, keys K and values V of the tokens, and the keys K_p and values V_p that the layer's own
frozen projections make of the prompt, without rotation:

    zero-init     softmax(Q K^T / sqrt(d)) V + tanh(g) softmax(Q K_p^T / sqrt(d)) V_p
    random-init   softmax(Q [K_p; K]^T / sqrt(d)) [V_p; V]

The first is eq. 7 of LLaMA-Adapter (arXiv 2303.16199): at gate g = 0 it is the base attention, to
the last bit. Its first term is left to the base attention: the function, `sdpa` or `eager`, that
the model runs on without prompts.

The model calls this code through transformers' AttentionInterface, in its own attention layers. A
layer that carries a prompt has a child module `prompt`; a generator, which all layers share, is a
child of the decoder. K_p and V_p are recomputed on every call: caching them under `no_grad` would
keep them from training.

Shapes: B batch, T queries, S keys of tokens (those in the KV cache included), H query heads, G
key-value heads, d head size, D hidden size, L prompt length. A name such as `query_BHTd` ends in
its tensor's shape.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from harness.errors import MethodError
from harness.methods.zero_init.generator import ACTIVATIONS, PromptGenerator
from harness.models.families import Family
from harness.models.packed_attention import AttentionFunction, Packing, attend_packed, own_attention

PROMPT = "prompt"
"""Name of the module with the prompt and the gates inside an attention layer."""
GENERATOR = "generator"
"""Name of the shared generator inside the decoder."""
PROMPT_ATTENTION_PREFIX = "prompts_on_"
"""Begins the AttentionInterface names of attention with prompts."""


class PromptAttention(nn.Module):
    """One layer's prompts, and the gates of those that have them, by the name of their adapter.

    PEFT switches one adapter on, or none; see `tuner.PromptLayer`.

    Args:
        layer_index: of the layer in the model.
        family: how the layer projects keys and values.
    """

    # PEFT's state of a layer, here too because this file does not import PEFT.
    _active_adapter: str | list[str] = "default"
    _disable_adapters = False

    def __init__(self, *, layer_index: int, family: Family) -> None:
        super().__init__()
        self.layer_index = layer_index
        self.family = family
        self.prompt_rows = nn.ParameterDict()  # the name in saved adapters
        self.prompt_gate = nn.ParameterDict()
        self._gate_activations: dict[str, str | None] = {}
        # A tuple is not registered as a child: the generator's parameters keep the one name that
        # they have under the decoder.
        self._generators: dict[str, tuple[PromptGenerator]] = {}

    def add(
        self,
        adapter: str,
        *,
        virtual_tokens: Tensor | None,
        generator: PromptGenerator | None,
        num_heads: int,
        gate_activation: str | None,
        device: torch.device,
    ) -> None:
        """Adds an adapter's prompt.

        Args:
            virtual_tokens: their initial values, (L, D); None where a generator makes them.
            generator: the shared generator; None where the prompt is free.
            gate_activation: tanh or identity, applied to the gates; None for random-init.
        """
        assert (virtual_tokens is None) != (generator is None)
        if virtual_tokens is not None:
            self.prompt_rows[adapter] = nn.Parameter(virtual_tokens.to(device))
        if generator is not None:
            self._generators[adapter] = (generator,)
        if gate_activation is not None:
            # One gate per head, shaped to scale (H, L, d).
            self.prompt_gate[adapter] = nn.Parameter(torch.zeros(num_heads, 1, 1, device=device))
        self._gate_activations[adapter] = gate_activation

    def adapters(self) -> set[str]:
        """Names of the adapters that have a prompt in this layer."""
        return set(self._gate_activations)

    @property
    def active(self) -> str | None:
        """Name of the active adapter; None where adapters are disabled or it has no prompt here."""
        if self._disable_adapters:
            return None
        active = self._active_adapter
        name = active if isinstance(active, str) else (active[0] if active else "")
        return name if name in self._gate_activations else None

    @property
    def virtual_tokens(self) -> nn.Parameter | None:
        """The active adapter's virtual tokens, (L, D), if they are parameters, not generated."""
        found: nn.Parameter | None = self.prompt_rows.get(self.active or "")
        return found

    @property
    def gate(self) -> nn.Parameter | None:
        """The active adapter's gates g, (H, 1, 1); None for random-init."""
        found: nn.Parameter | None = self.prompt_gate.get(self.active or "")
        return found

    def gate_strength(self) -> Tensor:
        """tanh(g), or g for `gate_activation: identity`; (H, 1, 1)."""
        assert self.active is not None
        activation = self._gate_activations[self.active]
        assert activation is not None
        return ACTIVATIONS[activation](self.prompt_gate[self.active])

    def prompt(self) -> Tensor:
        """The active adapter's prompt, free or generated, (L, D)."""
        assert self.active is not None
        if self.active in self._generators:
            return self._generators[self.active][0](self.active, self.layer_index)
        return self.prompt_rows[self.active]

    def forward(
        self,
        module: nn.Module,
        query_BHTd: Tensor,
        key_BGSd: Tensor,
        value_BGSd: Tensor,
        mask: Tensor | None,
        base_attention: AttentionFunction,
        *,
        causal: bool,
        packing: Packing | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The layer's attention output (B, T, H, d), and the base attention's weights or None.

        Args:
            module: the attention layer, whose frozen projections make K_p and V_p.
            query_BHTd: rotated queries.
            key_BGSd: rotated keys of the tokens.
            value_BGSd: values of the tokens.
            mask: (B or 1, H or 1, T, S), bool (True is visible) or added to the scores; or None.
            base_attention: the attention function that the base model runs on.
            causal: whether `base_attention` is causal where it is given no mask.
            packing: `Packing` of models/packed_attention.py (B is 1); None for padded batches.
            **kwargs: for `base_attention`.
        """

        def run(attention: AttentionFunction) -> tuple[Tensor, Tensor | None]:
            inputs = (module, query_BHTd, key_BGSd, value_BGSd, mask)
            if packing is None:
                return attention(*inputs, **kwargs)
            return attend_packed(attention, *inputs, packing=packing, causal=causal, **kwargs)

        if self.active is None:
            return run(base_attention)
        # As the layer projects tokens, in their precision, but without rotary positions.
        key_LGd, value_LGd = self.family.project(module, self.prompt().to(query_BHTd))
        key_GLd, value_GLd = key_LGd.transpose(0, 1), value_LGd.transpose(0, 1)
        if self.gate is None:
            attention = functools.partial(
                joint_attention,
                prompt_kv=(key_GLd, value_GLd),
                base_attention=base_attention,
                causal=causal,
            )
            return run(attention)
        output_BTHd, weights = run(base_attention)
        # On a packed row too: its tokens all attend to one prompt, whatever sequence they are of.
        prompt_BTHd = gated_prompt_attention(
            query_BHTd,
            key_GLd,
            value_GLd,
            self.gate_strength(),
            scaling=kwargs.get("scaling"),
            soft_cap=kwargs.get("softcap"),
        )
        return output_BTHd + prompt_BTHd, weights


def gated_prompt_attention(
    query_BHTd: Tensor,
    key_GLd: Tensor,
    value_GLd: Tensor,
    strength_H11: Tensor,
    *,
    scaling: float | None,
    soft_cap: float | None = None,
) -> Tensor:
    """Zero-init's second term, tanh(g) softmax(Q K_p^T · scaling) V_p: (B, T, H, d).

    Every query attends to all L virtual tokens. tanh(g) scales the L values instead of the T
    outputs: the same by linearity, and cheaper.

    Args:
        query_BHTd: rotated queries.
        key_GLd: K_p.
        value_GLd: V_p.
        strength_H11: tanh(g).
        scaling: of the scores; 1 / sqrt(d) where None.
        soft_cap: c, where the family bounds its scores s by c · tanh(s / c), as Gemma 2 does.
    """
    batch, heads, _, size = query_BHTd.shape
    heads_per_kv = heads // key_GLd.shape[0]
    key_HLd = key_GLd.repeat_interleave(heads_per_kv, dim=0)
    value_HLd = value_GLd.repeat_interleave(heads_per_kv, dim=0)
    gated_HLd = (strength_H11 * value_HLd).to(value_HLd.dtype)
    if soft_cap is not None:
        scores_BHTL = query_BHTd @ key_HLd.transpose(1, 2)
        scores_BHTL = soft_cap * torch.tanh(scores_BHTL * (scaling or size**-0.5) / soft_cap)
        weights_BHTL = torch.softmax(scores_BHTL, dim=-1, dtype=torch.float32)
        return (weights_BHTL.to(query_BHTd.dtype) @ gated_HLd).transpose(1, 2)
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
    key_BGSd: Tensor,
    value_BGSd: Tensor,
    mask: Tensor | None,
    *,
    prompt_kv: tuple[Tensor, Tensor],
    base_attention: AttentionFunction,
    causal: bool,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """random-init's one softmax over prompt and tokens: (B, T, H, d), and the weights or None.

    The arguments are those of `PromptAttention.forward`; every query attends to the whole prompt.

    Args:
        prompt_kv: K_p and V_p, each (G, L, d).

    Raises:
        MethodError: the keys are in a paged cache (continuous batching).
    """
    if kwargs.get("cache") is not None:
        raise MethodError("random-init: continuous batching is not supported; use generate()")
    key_GLd, value_GLd = prompt_kv
    (batch, heads, num_queries, size), length = query_BHTd.shape, key_GLd.shape[1]
    # One query, as in decoding with a cache, attends to all keys.
    shifted = causal and mask is None and num_queries > 1
    if shifted:
        # In a causal kernel, row i attends to columns 0..i. With L zero queries in front, whose
        # outputs are dropped, query t is row L + t and attends to the L columns of the prompt and
        # to tokens 0..t: no mask has to be made. Precondition: prefill. With mask None and T > 1
        # transformers guarantees no past keys.
        query_BHTd = torch.cat([query_BHTd.new_zeros(batch, heads, length, size), query_BHTd], 2)
        # A static cache has unused entries behind the T tokens.
        key_BGSd, value_BGSd = key_BGSd[:, :, :num_queries], value_BGSd[:, :, :num_queries]
    elif mask is not None:
        visible = True if mask.dtype == torch.bool else 0.0
        mask = functional.pad(mask, (length, 0), value=visible)
    output_BTHd, weights = base_attention(
        module,
        query_BHTd,
        torch.cat([key_GLd.expand(batch, -1, -1, -1), key_BGSd], dim=2),
        torch.cat([value_GLd.expand(batch, -1, -1, -1), value_BGSd], dim=2),
        mask,
        **kwargs,
    )
    # Shifted implies sdpa, whose weights are None.
    return (output_BTHd[:, length:] if shifted else output_BTHd), weights


def register_prompts(model: PreTrainedModel) -> str:
    """Registers an AttentionInterface function that wraps the model's attention; returns its name.

    Layers without a `prompt` run that attention, `sdpa` or `eager`. Repeating it changes nothing.
    """
    own_name, base_attention = own_attention(model)
    name = f"{PROMPT_ATTENTION_PREFIX}{own_name}"

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        # As transformers' sdpa decides; its eager attention is always given a mask.
        stated = kwargs.get("is_causal")
        causal = own_name == "sdpa" and bool(module.is_causal if stated is None else stated)
        inputs = (module, query, key, value, attention_mask)
        prompt = getattr(module, PROMPT, None)
        if prompt is not None:
            return prompt(*inputs, base_attention, causal=causal, **kwargs)
        if kwargs.get("packing") is not None:
            return attend_packed(base_attention, *inputs, causal=causal, **kwargs)
        return base_attention(*inputs, **kwargs)

    AttentionInterface.register(name, attend)
    implementation = model.config._attn_implementation
    AttentionMaskInterface.register(name, AttentionMaskInterface()[implementation])
    return name

"""The attention of the prompt methods (arXiv 2502.03029, section 3), on any family of decoders.

It runs inside the model's own attention layers, through transformers' attention interface, which
hands it the rotated query and the layer's words. A layer that carries a prompt has a child module
`prompt`; a generator that all layers share is a child of the decoder. `forward` stores nothing.

Shapes: B batch, T queries, S words (keys), H query heads, G key and value heads, d head size,
D hidden size, L prompt length.
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
from harness.models.packed_attention import Packing, WordAttention, attend_packed, eager_attention

PROMPT = "prompt"
"""Name of the module with the prompt and the gates inside an attention layer."""
GENERATOR = "generator"
"""Name of the shared generator inside the decoder."""
PREFIX = "prompts_on_"
"""Of the names under which attention with prompts is registered."""


class PromptAttention(nn.Module):
    """The prompt of one attention layer, and its gates where it has them.

    It holds those of each adapter by name; one is active, or none.

    Args:
        layer_index: of the layer in the model.
        family: how the layer's projections are reached.
    """

    # PEFT's state of a layer; see `prompt_tuner.PromptLayer`.
    _active_adapter: str | list[str] = "default"
    _disable_adapters = False

    def __init__(self, *, layer_index: int, family: Family) -> None:
        super().__init__()
        self.layer_index = layer_index
        self.family = family
        self.prompt_rows = nn.ParameterDict()
        self.prompt_gate = nn.ParameterDict()
        self._gate_activations: dict[str, str] = {}
        # The generator is a child of the decoder, so that its parameters have one name; a tuple
        # is not registered as a child.
        self._generators: dict[str, tuple[PromptGenerator]] = {}

    def add(
        self,
        adapter: str,
        *,
        rows: Tensor | None,
        generator: PromptGenerator | None,
        num_gates: int | None,
        gate_activation: str,
        device: torch.device,
    ) -> None:
        """Adds an adapter's prompt.

        Args:
            adapter: its name.
            rows: the initial free prompt, (L, D); None where a generator makes it.
            generator: the shared generator.
            num_gates: H for zero-initialised attention; None for one softmax with the words.
            gate_activation: applied to the gates.
            device: where they go.
        """
        assert (rows is None) != (generator is None)
        if rows is not None:
            self.prompt_rows[adapter] = nn.Parameter(rows.to(device))
        if generator is not None:
            self._generators[adapter] = (generator,)
        if num_gates is not None:
            # One gate per head, shaped to scale (H, L, d).
            self.prompt_gate[adapter] = nn.Parameter(torch.zeros(num_gates, 1, 1, device=device))
        self._gate_activations[adapter] = gate_activation

    def forget(self, adapter: str) -> None:
        """Forgets what an adapter has beside its tensors."""
        self._gate_activations.pop(adapter, None)
        self._generators.pop(adapter, None)

    def adapters(self) -> set[str]:
        """Returns the names of the adapters that have a prompt here."""
        return set(self._gate_activations)

    @property
    def active(self) -> str | None:
        """The active adapter's name; None where it is disabled, or has no prompt in this layer."""
        if self._disable_adapters:
            return None
        active = self._active_adapter
        name = active if isinstance(active, str) else (active[0] if active else "")
        return name if name in self._gate_activations else None

    @property
    def rows(self) -> nn.Parameter | None:
        """The active adapter's free prompt, (L, D), if it has one."""
        return _of(self.prompt_rows, self.active)

    @property
    def gate(self) -> nn.Parameter | None:
        """The active adapter's gates, (H, 1, 1), if it has them."""
        return _of(self.prompt_gate, self.active)

    def gate_strength(self) -> Tensor:
        """Returns what scales the prompt's part: tanh(g), or g; (H, 1, 1)."""
        assert self.active is not None
        gate = self.prompt_gate[self.active]
        return ACTIVATIONS[self._gate_activations[self.active]](gate)

    def prompt(self) -> Tensor:
        """Returns the active adapter's prompt, (L, D)."""
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
        words: WordAttention,
        *,
        causal: bool,
        packing: Packing | None = None,
        additive_mask: bool = False,
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
            packing: where the words are one packed row, who sees whom.
            additive_mask: whether `words` must be given a mask then.
            **kwargs: for `words`.
        """

        def run(attention: WordAttention) -> tuple[Tensor, Tensor | None]:
            given = (module, query_BHTd, key_BGSd, value_BGSd)
            if packing is None:
                return attention(*given, mask, **kwargs)
            return attend_packed(
                attention, *given, packing=packing, additive_mask=additive_mask, **kwargs
            )

        if self.active is None:
            return run(words)
        # As the layer projects words, in their precision, but not rotated.
        keys_LGd, values_LGd = self.family.project(module, self.prompt().to(query_BHTd))
        key_GLd, value_GLd = keys_LGd.transpose(0, 1), values_LGd.transpose(0, 1)
        if self.gate is None:
            prompt = (key_GLd, value_GLd)
            return run(
                functools.partial(joint_attention, prompt=prompt, words=words, causal=causal)
            )
        # The base model's own call: at g = 0 its output is left as it is, to the last bit.
        output_BTHd, weights = run(words)
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
    """Returns strength · softmax(q K_p^T · scaling) V_p, (B, T, H, d); every query sees all rows.

    The strength scales the L values instead of the T outputs: the same by linearity, and cheaper.
    A soft cap c bounds the scores s as the layer bounds those of words: c · tanh(s / c).
    """
    batch, heads, _, size = query_BHTd.shape
    groups = heads // key_GLd.shape[0]
    key_HLd = key_GLd.repeat_interleave(groups, dim=0)
    value_HLd = value_GLd.repeat_interleave(groups, dim=0)
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
    prompt: tuple[Tensor, Tensor],
    words: WordAttention,
    causal: bool,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Returns softmax(q [K_p; K_w]^T) [V_p; V_w], (B, T, H, d), and the weights if given.

    Args:
        module: the attention layer.
        query_BHTd: rotated queries.
        key_BGSd: of the words.
        value_BGSd: likewise.
        mask: on the words; every query sees the whole prompt.
        prompt: its keys and values, each (G, L, d).
        words: the attention function to run.
        causal: `words` is causal where `mask` is None.
        **kwargs: for `words`.
    """
    if kwargs.get("cache") is not None:
        raise MethodError("random-init: continuous batching is not supported; use generate()")
    key_GLd, value_GLd = prompt
    (batch, heads, num_queries, size), length = query_BHTd.shape, key_GLd.shape[1]
    causal = causal and mask is None
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


def _of(tensors: nn.ParameterDict, adapter: str | None) -> nn.Parameter | None:
    return tensors[adapter] if adapter is not None and adapter in tensors else None


def register_prompts(model: PreTrainedModel, implementation: str) -> str:
    """Registers an attention that adds prompts to the model's own, and returns its name.

    Layers without a `prompt` run the model's own attention. Registering again changes nothing.

    Args:
        model: any model of the family.
        implementation: the attention that the words go through, `sdpa` or `eager`.
    """
    name = f"{PREFIX}{implementation}"
    if implementation == "eager":
        words = eager_attention(model)
        name += f"_of_{model.config.model_type}"
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
        packed = kwargs.get("packing") is not None
        if packed:
            kwargs["additive_mask"] = implementation == "eager"
        if prompt is None and packed:
            return attend_packed(words, module, query, key, value, **kwargs)
        if prompt is None:
            return words(module, query, key, value, attention_mask, **kwargs)
        # As transformers' sdpa decides; its eager attention is always given a mask.
        causal = implementation == "sdpa" and attention_mask is None and query.shape[2] > 1
        if causal:
            stated = kwargs.get("is_causal")
            causal = bool(module.is_causal if stated is None else stated)
        return prompt(module, query, key, value, attention_mask, words, causal=causal, **kwargs)

    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, AttentionMaskInterface()[implementation])
    return name

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
child of the decoder. K_p and V_p are recomputed on every call, since caching would keep them from
training; but not where weights are said to stay (`models/kept.py`). A picture adds its I_p to every
row of the prompt: see `conditioning.py`.

Shapes: B batch, T queries, S keys of tokens (those in the KV cache included), H query heads, G
key-value heads, d head size, D hidden size, L prompt length. A name such as `query_BHTd` ends in
its tensor's shape.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from harness.errors import MethodError
from harness.methods.zero_init.conditioning import (
    picture_of_rows,
    picture_term,
    prompts_of_pictures,
)
from harness.methods.zero_init.formulas import (
    attend_to_prompt,
    gated_keys_values,
    gated_prompt_attention,
    joint_attention,
)
from harness.methods.zero_init.generator import ACTIVATIONS, PromptGenerator
from harness.methods.zero_init.switched import Switched
from harness.models.families import Family
from harness.models.kept import keep
from harness.models.packed_attention import (
    AttentionFunction,
    Packing,
    attend_row,
    own_attention,
    take_rows,
)
from harness.models.pictures import PassPictures, current_pictures
from harness.models.varlen_attention import attend_prompts

PROMPT = "prompt"
"""Name of the module with the prompt and the gates inside an attention layer."""
GENERATOR = "generator"
"""Name of the shared generator inside the decoder."""
PROMPT_ATTENTION_PREFIX = "prompts_on_"
"""Begins the AttentionInterface names of attention with prompts."""


class PromptAttention(Switched):
    """One layer's prompts, and the gates of those that have them, by the name of their adapter.

    PEFT switches one adapter on, or none; see `tuner.PromptLayer`.

    Args:
        layer_index: of the layer in the model.
        family: how the layer projects keys and values.
    """

    def __init__(self, *, layer_index: int, family: Family) -> None:
        super().__init__()
        self.layer_index = layer_index
        self.family = family
        self.prompt_rows = nn.ParameterDict()  # the name in saved adapters
        self.prompt_gate = nn.ParameterDict()
        self._gate_activations: dict[str, str | None] = {}
        self._takes_pictures: dict[str, bool] = {}
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
        takes_pictures: bool = False,
        device: torch.device,
    ) -> None:
        """Adds an adapter's prompt.

        Args:
            virtual_tokens: their initial values, (L, D); None where a generator makes them.
            generator: the shared generator; None where the prompt is free.
            gate_activation: tanh or identity, applied to the gates; None for random-init.
            takes_pictures: whether a projected picture is added to the prompt.
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
        self._takes_pictures[adapter] = takes_pictures

    def adapters(self) -> Collection[str]:
        """Names of the adapters that have a prompt in this layer."""
        return self._gate_activations

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

    def _own_pictures(self, given: PassPictures | None) -> PassPictures | None:
        """The pictures of a pass, as far as the active adapter takes any.

        Raises:
            MethodError: another adapter has projected them.
        """
        if self.active is None or not self._takes_pictures[self.active]:
            return None
        pictures = current_pictures() if given is None else given
        if pictures is None:
            return None
        if pictures.adapter not in (None, self.active):
            raise MethodError(
                f"the pictures were projected by the adapter {pictures.adapter}, and now "
                f"{self.active} is active; give them anew after set_adapter"
            )
        return pictures

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
        pictures: PassPictures | None = None,
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
            pictures: of the pass; those of `using_pictures` where None.
            **kwargs: for `base_attention`.
        """
        inputs = (module, query_BHTd, key_BGSd, value_BGSd, mask)

        def run(attention: AttentionFunction, **own: Any) -> tuple[Tensor, Tensor | None]:
            if packing is None:
                return attention(*inputs, **own, **kwargs)
            given: dict[str, Any] = {"packing": packing, "causal": causal, **own, **kwargs}
            return attend_row(attention, *inputs, **given)

        if self.active is None:
            return run(base_attention)
        pictures = self._own_pictures(pictures)
        linear = self.gate is not None and self.family.projects_linearly(module)
        if pictures is not None and not linear:
            prompt_LD = self.prompt().to(query_BHTd)
            prompts = prompts_of_pictures(module, self.family.project, pictures, prompt_LD)
            if packing is not None and packing.varlen and self.gate is not None:
                assert packing.documents is not None
                output_BTHd, weights = run(base_attention)
                gated = gated_keys_values(*prompts, self.gate_strength(), query_BHTd.shape[1])
                if packing.varlen:  # else the kernel has failed just now
                    return output_BTHd + attend_prompts(
                        query_BHTd, gated, documents=packing.documents,
                        scaling=kwargs.get("scaling"),
                    ), weights  # fmt: skip
            attention = functools.partial(
                self._attend_by_picture, base_attention=base_attention, causal=causal
            )
            if packing is not None:
                return run(attention, of_pictures=True, prompt_kv=prompts)
            picture_B = picture_of_rows(pictures, len(query_BHTd), query_BHTd.device)
            return run(attention, picture_B=picture_B, prompt_kv=prompts)
        prompt_kv = self._project(module, query_BHTd)
        if self.gate is None:
            joint = functools.partial(joint_attention, base_attention=base_attention, causal=causal)
            return run(joint, prompt_kv=prompt_kv)
        output_BTHd, weights = run(base_attention)
        # On a packed row too: its tokens all attend to one prompt, whatever sequence they are of.
        gated_kv = keep(
            (self, self.active, "gated", query_BHTd.dtype, query_BHTd.device),
            lambda: gated_keys_values(*prompt_kv, self.gate_strength(), query_BHTd.shape[1]),
        )
        output_BTHd = output_BTHd + attend_to_prompt(
            query_BHTd, *gated_kv, scaling=kwargs.get("scaling"), soft_cap=kwargs.get("softcap")
        )
        if pictures is not None:
            output_BTHd = output_BTHd + picture_term(
                module, self.family.project, pictures, self.gate_strength(), output_BTHd,
                packed=packing is not None,
            )  # fmt: skip
        return output_BTHd, weights

    def _project(self, module: nn.Module, query_BHTd: Tensor) -> tuple[Tensor, Tensor]:
        """K_p and V_p, each (G, L, d): as the layer projects tokens, but without rotary positions,
        and in the precision of tokens."""

        def project() -> tuple[Tensor, Tensor]:
            key_LGd, value_LGd = self.family.project(module, self.prompt().to(query_BHTd))
            return key_LGd.transpose(0, 1), value_LGd.transpose(0, 1)

        return keep((self, self.active, "prompt", query_BHTd.dtype, query_BHTd.device), project)

    def _gated(
        self, query_BHTd: Tensor, prompt_kv: tuple[Tensor, Tensor], kwargs: Mapping[str, Any]
    ) -> Tensor:
        return gated_prompt_attention(
            query_BHTd,
            *prompt_kv,
            self.gate_strength(),
            scaling=kwargs.get("scaling"),
            soft_cap=kwargs.get("softcap"),
        )

    def _attend_by_picture(
        self,
        module: nn.Module,
        query_BHTd: Tensor,
        key_BGSd: Tensor,
        value_BGSd: Tensor,
        mask: Tensor | None,
        *,
        picture_B: Tensor,
        prompt_kv: tuple[Tensor, Tensor],
        base_attention: AttentionFunction,
        causal: bool,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """An attention function with the prompt of each sequence's picture.

        Args:
            picture_B: of each sequence, its row of `prompt_kv`.
            prompt_kv: K_p and V_p, each (P + 1, G, L, d).
        """
        inputs = (module, query_BHTd, key_BGSd, value_BGSd, mask)
        key_PGLd, value_PGLd = prompt_kv
        prompt_kv = take_rows(key_PGLd, picture_B), take_rows(value_PGLd, picture_B)
        if self.gate is None:
            return joint_attention(
                *inputs, prompt_kv=prompt_kv, base_attention=base_attention, causal=causal, **kwargs
            )
        output_BTHd, weights = base_attention(*inputs, **kwargs)
        return output_BTHd + self._gated(query_BHTd, prompt_kv, kwargs), weights


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
            return attend_row(base_attention, *inputs, causal=causal, **kwargs)
        return base_attention(*inputs, **kwargs)

    AttentionInterface.register(name, attend)
    implementation = model.config._attn_implementation
    AttentionMaskInterface.register(name, AttentionMaskInterface()[implementation])
    return name

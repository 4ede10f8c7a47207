"""How much of a model's attention its prompts have, measured on a few fixed texts.

Hooks stand on the prompts' modules while the texts go through, and only then; the model's own
`forward` knows nothing of it.

Shapes: B texts, T tokens, H query heads, d head size, L prompt length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import Tensor, nn

    from harness.methods.zero_init.attention import PromptAttention
    from harness.models.packed_attention import AttentionFunction

PROBE_TEXTS = 16
"""Texts that are looked at: the first training examples of a cell, or all where it has fewer."""
PROBE_TOKENS = 64
"""Tokens of each text that are looked at, from its beginning."""


def prompts_of(model: nn.Module) -> list[PromptAttention]:
    """Returns the model's prompts that are active, layer by layer."""
    from harness.methods.zero_init.attention import PromptAttention

    found = [module for module in model.modules() if isinstance(module, PromptAttention)]
    return [prompt for prompt in found if prompt.gate is not None or prompt.rows is not None]


def attention_shares(model: nn.Module, texts: Sequence[Sequence[int]]) -> pd.DataFrame:
    """Returns the prompts' share of attention by layer and head; one wait for the device.

    The first PROBE_TEXTS texts, each cut to PROBE_TOKENS tokens, go through the model at once,
    padded on the right. What is measured at their real tokens, prompt and response alike, is
    averaged over all of them (every token weighs the same).

    `mass_share` is the prompt's share of the attention weights of a query. With a gate of strength
    s = tanh(g) (or g itself, for `gate_activation: identity`) the weights of the words sum to 1
    and those of the prompt to s, so that it is |s| / (1 + |s|), whatever the text. With one joint
    softmax it is the sum of the weights of the L prompt rows.

    `norm_share` is |p| / (|w| + |p|), Euclidean, where an attention head's output (of d values,
    before the output projection) is p + w: p what the prompt rows give, gate included, and w what
    the words give. It counts what the weights alone do not: prompts may have long values.

    Args:
        model: in evaluation mode; gradients need not be off.
        texts: token ids; at least one.

    Returns:
        One row per layer and head: `layer`, `head`, `mass_share`, `norm_share`.
    """
    import pandas as pd
    import torch

    prompts = prompts_of(model)
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        ids, real = _batch(texts, next(model.parameters()).device)

        def look(prompt: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _output: Any) -> None:
            found[prompt.layer_index] = _shares(prompt, args, kwargs, real)

        hooks = [prompt.register_forward_hook(look, with_kwargs=True) for prompt in prompts]
        try:
            # No mask: in causal attention no real token sees the padding behind it.
            _decoder(model)(input_ids=ids, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        values = torch.stack([found[prompt.layer_index] for prompt in prompts]).cpu().numpy()
    layers, heads, _ = values.shape
    return pd.DataFrame(
        {
            "layer": [prompt.layer_index for prompt in prompts for _ in range(heads)],
            "head": list(range(heads)) * layers,
            "mass_share": values[..., 0].ravel(),
            "norm_share": values[..., 1].ravel(),
        }
    ).astype({"layer": "int16", "head": "int16"})


def _decoder(model: Any) -> nn.Module:
    """Returns the layers without the head: no logits are made."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder: nn.Module = inner.base_model
    return decoder


def _batch(texts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns token ids and which of them are real, each (B, T)."""
    import torch

    cut = [list(text[:PROBE_TOKENS]) for text in texts[:PROBE_TEXTS]]
    width = max(len(text) for text in cut)
    ids = torch.tensor([text + [0] * (width - len(text)) for text in cut])
    real = torch.arange(width)[None] < torch.tensor([[len(text)] for text in cut])
    return ids.to(device), real.to(device)


def _shares(
    prompt: PromptAttention, args: tuple[Any, ...], kwargs: Mapping[str, Any], real: Tensor
) -> Tensor:
    """Returns `mass_share` and `norm_share` of one layer, (H, 2), from what its prompt was given.

    Attention is linear in the values: with other values the layer's own code gives the parts.
    """
    import torch

    module, query, key, value, mask, words = args
    given = (module, query, key, value, mask)
    words = _in_full_precision(words)

    def output_of(attention: AttentionFunction) -> Tensor:
        output_BTHd, _ = prompt.forward(*given, attention, **kwargs)
        return output_BTHd.float()

    if prompt.gate is not None:
        strength_H = prompt.gate_strength().flatten().float().abs()
        mass_H = strength_H / (1 + strength_H)
        prompt_BTHd = output_of(_no_words)
        own = {name: value for name, value in kwargs.items() if name != "causal"}
        words_BTHd = words(*given, **own)[0].float()
    else:
        assert prompt.rows is not None
        length = prompt.rows.shape[0]
        ones = _with_values(words, lambda value, rows: rows.expand_as(value), length)
        mass_H = _mean(output_of(ones).mean(-1), real)
        prompt_BTHd = output_of(_with_values(words, lambda value, rows: value * rows, length))
        words_BTHd = output_of(_with_values(words, lambda value, rows: value * (1 - rows), length))
    prompt_BTH, words_BTH = prompt_BTHd.norm(dim=-1), words_BTHd.norm(dim=-1)
    both_BTH = prompt_BTH + words_BTH
    # Both are nothing where values are zero, such as a padding token's at a closed gate.
    share_BTH = torch.where(both_BTH > 0, prompt_BTH / both_BTH, torch.zeros_like(both_BTH))
    norm_H = _mean(share_BTH, real)
    return torch.stack([mass_H, norm_H], dim=-1)


def _mean(values_BTH: Tensor, real_BT: Tensor) -> Tensor:
    """Returns the mean over real tokens, (H,); what padding holds is not looked at."""
    kept = values_BTH.masked_fill(~real_BT[..., None], 0.0)
    return kept.sum(dim=(0, 1)) / real_BT.sum()


def _no_words(_module: nn.Module, query_BHTd: Tensor, *_args: Any, **_: Any) -> tuple[Tensor, None]:
    """Stands for an attention to words that are not there: it gives nothing."""
    return query_BHTd.new_zeros(query_BHTd.shape).transpose(1, 2), None


def _with_values(
    words: AttentionFunction, change: Callable[[Tensor, Tensor], Tensor], length: int
) -> AttentionFunction:
    """Returns the attention with other values: `change(values, rows)`, rows 1 for the prompt's."""
    import torch

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        rows_S1 = (torch.arange(value.shape[2], device=value.device) < length).to(value.dtype)
        return words(module, query, key, change(value, rows_S1[:, None]), mask, **kwargs)

    return attend


def _in_full_precision(words: AttentionFunction) -> AttentionFunction:
    """Returns the attention computed in fp32 from what it is given."""
    import torch

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.float()
        with torch.autocast(query.device.type, enabled=False):
            return words(module, query.float(), key.float(), value.float(), mask, **kwargs)

    return attend

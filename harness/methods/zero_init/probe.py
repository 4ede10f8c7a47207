"""The prompts' share of a model's attention, measured on a few fixed texts.

Forward hooks are on the prompts' modules while the texts go through, and only then; the model's own
`forward` is unaware of it.

Shapes: B texts, T tokens, H query heads, d head size, L prompt length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.methods.method import PROBE_TEXTS

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from harness.methods.zero_init.attention import PromptAttention
    from harness.models.packed_attention import AttentionFunction

PROBE_TOKENS = 64
"""Leading tokens of each text that go through the model."""


def prompts_of(model: nn.Module) -> list[PromptAttention]:
    """The model's active prompts, layer by layer."""
    from harness.methods.zero_init.attention import PromptAttention

    found = [module for module in model.modules() if isinstance(module, PromptAttention)]
    return [
        prompt for prompt in found if prompt.gate is not None or prompt.virtual_tokens is not None
    ]


def attention_shares(model: nn.Module, texts: Sequence[Sequence[int]]) -> pd.DataFrame:
    """The prompts' share of attention by layer and head; one host-device sync.

    The first PROBE_TEXTS texts, each cut to PROBE_TOKENS tokens, go through the model at once,
    padded on the right. Both shares are means over their real tokens, prompt and response alike
    (every token weighs the same).

    `mass_share` is the prompt's share of the attention weights of a query. With a gate of strength
    s = tanh(g) (or g itself, for `gate_activation: identity`) the weights of the tokens sum to 1
    and those of the prompt to s, so that it is |s| / (1 + |s|), whatever the text. With one joint
    softmax it is the sum of the weights of the L prompt rows.

    `norm_share` is |p| / (|w| + |p|), Euclidean, where an attention head's output (of d values,
    before the output projection) is p + w: p from the prompt rows, gate included, and w from the
    tokens. It counts what the weights alone do not: prompts may have long values.

    The model is in evaluation mode; there is at least one text. One row per layer and head:
    `layer`, `head`, `mass_share`, `norm_share`.
    """
    import pandas as pd
    import torch
    from torch.nn.utils.rnn import pad_sequence

    prompts = prompts_of(model)
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        device = next(model.parameters()).device
        cut = [torch.tensor(text[:PROBE_TOKENS], device=device) for text in texts[:PROBE_TEXTS]]
        ids = pad_sequence(cut, batch_first=True)
        real = pad_sequence([torch.ones_like(text).bool() for text in cut], batch_first=True)

        def look(prompt: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _output: Any) -> None:
            found[prompt.layer_index] = _shares(prompt, args, kwargs, real)

        hooks = [prompt.register_forward_hook(look, with_kwargs=True) for prompt in prompts]
        try:
            inner: Any = getattr(model, "get_base_model", lambda: model)()
            # The decoder without the head: no logits are computed. Without a mask: in causal
            # attention no real token attends to the padding after it.
            inner.base_model(input_ids=ids, use_cache=False)
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


def _shares(
    prompt: PromptAttention, args: tuple[Any, ...], kwargs: Mapping[str, Any], real: Tensor
) -> Tensor:
    """`mass_share` and `norm_share` of one layer, (H, 2), from the arguments of its prompt.

    Attention is linear in the values: with other values the layer's own code gives the parts.
    """
    import torch

    module, query, key, value, mask, base_attention = args
    given = (module, query, key, value, mask)

    def output_of(attention: AttentionFunction) -> Tensor:
        output_BTHd, _ = prompt.forward(*given, attention, **kwargs)
        return output_BTHd.float()

    if prompt.gate is not None:
        strength_H = prompt.gate_strength().flatten().float().abs()
        mass_H = strength_H / (1 + strength_H)
        prompt_BTHd = output_of(_no_output)
        own = {name: value for name, value in kwargs.items() if name != "causal"}
        tokens_BTHd = _in_full_precision(base_attention)(*given, **own)[0].float()
    else:
        assert prompt.virtual_tokens is not None
        length = prompt.virtual_tokens.shape[0]

        def output_on(change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
            """With the values `change(value, rows)`, rows 1 for the prompt's and 0 for others."""

            def changed(value: Tensor) -> Tensor:
                rows_S = torch.arange(value.shape[2], device=value.device) < length
                return change(value, rows_S[:, None].to(value.dtype))

            return output_of(_in_full_precision(base_attention, changed))

        mass_H = _mean(output_on(lambda value, rows: rows.expand_as(value)).mean(-1), real)
        prompt_BTHd = output_on(lambda value, rows: value * rows)
        tokens_BTHd = output_on(lambda value, rows: value * (1 - rows))
    prompt_BTH, tokens_BTH = prompt_BTHd.norm(dim=-1), tokens_BTHd.norm(dim=-1)
    both_BTH = prompt_BTH + tokens_BTH
    # Both are 0 where values are zero, such as a padding token's at a closed gate.
    share_BTH = torch.where(both_BTH > 0, prompt_BTH / both_BTH, torch.zeros_like(both_BTH))
    norm_H = _mean(share_BTH, real)
    return torch.stack([mass_H, norm_H], dim=-1)


def _mean(values_BTH: Tensor, real_BT: Tensor) -> Tensor:
    """Mean over real tokens, (H,); padding does not count."""
    kept = values_BTH.masked_fill(~real_BT[..., None], 0.0)
    return kept.sum(dim=(0, 1)) / real_BT.sum()


def _no_output(
    _module: nn.Module, query_BHTd: Tensor, *_args: Any, **_: Any
) -> tuple[Tensor, None]:
    return query_BHTd.new_zeros(query_BHTd.shape).transpose(1, 2), None


def _in_full_precision(
    base_attention: AttentionFunction, change: Callable[[Tensor], Tensor] = lambda value: value
) -> AttentionFunction:
    """The attention on changed values, computed in fp32."""
    import torch

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.float()
        with torch.autocast(query.device.type, enabled=False):
            value = change(value).float()
            return base_attention(module, query.float(), key.float(), value, mask, **kwargs)

    return attend
